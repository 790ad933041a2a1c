//! What a client of one node sees: every row of the HTTP table, and every kind of bad input that is HTTP. What is none:
//! `socket_junk.rs`.

use crate::support;

use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::Duration;
use support::http::{Answer, Client, Request, connect, encode, read_to_close};
use support::node::{Node, Plan};
use support::{base64, eventually, replicas};

const MIB: usize = 1024 * 1024;

/// `{"key":"inflated","value":"v"}`, compressed.
const GZIPPED_PAIR: &[u8] = &[
    31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 171, 86, 202, 78, 173, 84, 178, 82, 202, 204, 75, 203, 73, 44, 73, 77, 81, 210,
    81, 42, 75, 204, 41, 77, 5, 10, 149, 41, 213, 2, 0, 105, 135, 204, 114, 30, 0, 0, 0,
];

fn kv(key: impl AsRef<[u8]>) -> String {
    format!("/kv/{}", encode(key))
}

/// A PUT that says what it has read.
fn put_after(context: &str, target: &str, body: &str) -> Request {
    Request::new("PUT", target).header("Kringle-Context", context).body(body)
}

fn siblings(answer: &Answer) -> u64 {
    answer.must("Kringle-Siblings").parse().expect("a number of siblings")
}

/// The values of `?siblings=1`, sorted.
fn sibling_values(client: &mut Client, target: &str) -> Vec<String> {
    let listed = client.get(&format!("{target}?siblings=1")).expect(200).json();
    let values = listed["siblings"].as_array().expect("siblings").iter();
    let mut values: Vec<String> = values.map(|sibling| sibling["value"].as_str().expect("text").to_owned()).collect();
    values.sort();
    values
}

// ---- start and probes

#[test]
fn a_node_on_port_0_prints_its_address_and_a_line_to_try() {
    let node = Plan::new(&["--memory"]).port(0).start();
    assert_ne!(node.port(), 0);
    node.get("/ping").expect(200);
    let line = format!("http://127.0.0.1:{}", node.port());
    eventually("a curl line", Duration::from_secs(5), || {
        let log = node.log();
        let found = log.lines().any(|text| text.contains("curl") && text.contains(&line));
        found.then_some(()).ok_or(log)
    });
}

#[test]
fn ping_says_pong_who_and_which_version() {
    let node = Node::in_memory();
    let pong = node.get("/ping").expect(200).json();
    assert_eq!(pong["message"], "pong");
    assert!(!pong["node"].is_null() && !pong["version"].is_null(), "{pong}");
    let head = node.client().send(&Request::new("HEAD", "/ping")).expect(200);
    assert!(head.body.is_empty());
}

#[test]
fn the_probes_answer() {
    let node = Node::in_memory();
    assert_eq!(node.get("/health").expect(200).json()["message"], "ok");
    node.get("/healthz").expect(200);
    node.get("/readyz").expect(200);
    assert!(!node.get("/readyz?verbose").expect(200).body.is_empty(), "named checks");
}

#[test]
fn the_ring_is_1024_partitions_whose_shares_add_up_to_one() {
    let node = Node::in_memory();
    let ring = node.get("/ring").expect(200).json();
    assert_eq!(ring["partitions"], 1024);
    let members = ring["members"].as_array().expect("members");
    assert_eq!(members.len(), 1, "{ring}");
    for field in ["id", "name", "url"] {
        assert!(members[0][field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {ring}");
    }
    assert!(members[0].get("zone").is_some(), "zone in {ring}");
    assert_eq!(members[0]["url"], format!("http://{}", node.address()));
    assert_eq!(members[0]["tokens"].as_array().expect("tokens").len(), 128);
    assert!((members[0]["share"].as_f64().expect("share") - 1.0).abs() < 1e-9, "{ring}");
}

#[test]
fn the_place_of_a_key_is_the_first_bytes_of_its_hash() {
    let node = Node::in_memory();
    for key in ["hello", "a/b", "\u{1F967}"] {
        let place = node.get(&format!("/ring?key={}", encode(key))).expect(200).json();
        let position = u64::from_be_bytes(blake3::hash(key.as_bytes()).as_bytes()[..8].try_into().unwrap());
        assert_eq!(place["partition"].as_u64(), Some(position >> 54), "{place}");
        assert!(!place["position"].is_null(), "{place}");
        assert_eq!(place["owners"].as_array().expect("owners").len(), 1, "a lone node owns everything: {place}");
        assert_eq!(place["stand_ins"], json!([]), "{place}");
    }
}

#[test]
fn the_status_has_the_documented_shape() {
    let node = Node::in_memory();
    node.put("/kv/a", "1").expect(201);
    node.put("/kv/b", "2").expect(201);
    node.client().delete("/kv/b").expect(204);
    let status = node.get("/status").expect(200).json();
    for field in ["id", "name", "url", "version"] {
        assert!(status["node"][field].is_string(), "node.{field} in {status}");
    }
    assert!(status["node"]["uptime_s"].is_number(), "{status}");
    assert_eq!(status["mode"], "sloppy");
    for member in status["members"].as_array().expect("members") {
        assert!(["alive", "suspect", "down"].contains(&member["state"].as_str().unwrap_or("")), "{status}");
        for field in ["id", "name", "url", "last_seen_ms", "last_error"] {
            assert!(member.get(field).is_some(), "members[].{field} in {status}");
        }
    }
    assert_eq!(status["store"]["keys"], 1, "{status}");
    assert_eq!(status["store"]["tombstones"], 1, "{status}");
    assert!(status["store"]["bytes"].is_number(), "{status}");
    assert_eq!(status["hints"]["count"], 0, "{status}");
    assert!(status["hints"]["bytes"].is_number() && status["hints"]["by_target"].is_object(), "{status}");
    assert!(status["sync"].is_object(), "{status}");
}

#[test]
fn requests_leave_no_line_in_the_log_at_info() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.put("/kv/a", "1").expect(201);
    let before = node.log().lines().count();
    for _ in 0..200 {
        client.put("/kv/a", "2").expect(204);
        client.get("/kv/a").expect(200);
        client.get("/kv/missing").expect(404);
    }
    let after = node.log().lines().count();
    assert!(after < before + 20, "{} lines for 600 requests", after - before);
}

#[test]
fn a_node_takes_no_huge_pages_whatever_the_machine_is_set_to() {
    let node = Node::in_memory();
    // Kernels before 5.0 do not tell.
    assert_ne!(node.process_status("THP_enabled").as_deref(), Some("1"));
}

// ---- /store

#[test]
fn a_pair_is_created_then_replaced_and_the_answer_counts_replicas() {
    let node = Node::in_memory();
    let mut client = node.client();
    let created = client.post("/store", &json!({"key": "hello", "value": "world"})).expect(201).json();
    assert_eq!(created["key"], "hello");
    assert!(created["context"].as_str().is_some_and(|context| !context.is_empty()), "{created}");
    assert_eq!(created["replicas"]["wanted"], 1, "{created}");
    assert_eq!(created["replicas"]["acked"], 1, "{created}");
    assert_eq!(created["replicas"]["hinted"], 0, "{created}");
    client.post("/store", &json!({"key": "hello", "value": "again"})).expect(200);
    let read = client.get("/store/key?key=hello").expect(200).json();
    assert_eq!((&read["key"], &read["value"], &read["sibling_count"]), (&json!("hello"), &json!("again"), &json!(1)));
    assert!(read["context"].is_string(), "{read}");
}

#[test]
fn a_pair_is_taken_whatever_its_content_type() {
    let node = Node::in_memory();
    let mut client = node.client();
    let types =
        ["application/json; charset=utf-8", "text/plain", "application/x-www-form-urlencoded", "image/png", "", "junk"];
    for (number, kind) in types.iter().enumerate() {
        let body = json!({"key": format!("t{number}"), "value": kind}).to_string();
        client.send(&Request::new("POST", "/store").header("Content-Type", *kind).body(body)).expect(201);
        assert_eq!(client.get(&format!("/store/key?key=t{number}")).expect(200).json()["value"], *kind);
    }
    client.send(&Request::new("POST", "/store").body(r#"{"key":"bare","value":""}"#)).expect(201);
    assert_eq!(client.get("/store/key?key=bare").expect(200).json()["value"], "");
}

#[test]
fn a_key_is_asked_for_in_a_body_or_in_the_query() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.post("/store", &json!({"key": "a key/with ü", "value": "v"})).expect(201);
    let by_body = |client: &mut Client, method: &str, key: &str| {
        client.send(&Request::new(method, "/store/key").json(&json!({"key": key})))
    };
    let asked = by_body(&mut client, "GET", "a key/with ü").expect(200).json();
    let queried = client.get(&format!("/store/key?key={}", encode("a key/with ü"))).expect(200).json();
    assert_eq!(asked, queried);
    // As curl sends it with -d and nothing else.
    let curl = Request::new("GET", "/store/key").header("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(client.send(&curl.body(r#"{"key":"a key/with ü"}"#)).expect(200).json()["value"], "v");

    assert_eq!(by_body(&mut client, "GET", "missing").expect(404).json()["error"], "Key not found");
    assert_eq!(client.get("/store/key?key=missing").expect(404).json()["error"], "Key not found");

    let gone = by_body(&mut client, "DELETE", "a key/with ü").expect(200).json();
    assert_eq!(gone["replicas"]["acked"], 1, "{gone}");
    by_body(&mut client, "GET", "a key/with ü").expect(404);
    client.delete("/store/key?key=never-there").expect(200);
}

#[test]
fn explain_shows_the_place_and_each_owners_version() {
    let node = Node::in_memory();
    node.put("/kv/hello", "world").expect(201);
    let told = node.get("/store/key?key=hello&explain=1").expect(200).json();
    let place = node.get("/ring?key=hello").expect(200).json();
    assert_eq!(told["value"], "world");
    assert_eq!((&told["position"], &told["partition"]), (&place["position"], &place["partition"]), "{told}");
    assert_eq!(told["owners"].as_array().map(Vec::len), Some(1), "{told}");
    assert_eq!(told["owners"][0]["id"], place["owners"][0]["id"], "{told}");
    let absent = node.get("/store/key?key=absent&explain=1").expect(404).json();
    assert_eq!((&absent["error"], &absent["owners"][0]["holds"]), (&json!("Key not found"), &json!("nothing")));
}

#[test]
fn a_local_read_answers_from_this_node() {
    let node = Node::in_memory();
    node.put("/kv/hello", "world").expect(201);
    assert_eq!(node.get("/store/key?key=hello&local=1").expect(200).json()["value"], "world");
    node.get("/store/key?key=missing&local=1").expect(404);
}

#[test]
fn the_hash_follows_every_write_and_counts_live_keys() {
    let node = Node::in_memory();
    let mut client = node.client();
    let mut seen = BTreeSet::new();
    let mut look = |client: &mut Client, keys: u64| {
        let told = client.get("/store/hash").expect(200).json();
        let hash = told["hash"].as_str().expect("a hash").to_owned();
        assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{told}");
        assert_eq!(told["keys"], keys);
        assert_eq!(client.get("/store/hash").json()["hash"], told["hash"], "quiet without writes");
        assert!(seen.insert(hash), "a write that does not show: {told}");
    };
    look(&mut client, 0);
    client.put("/kv/a", "1").expect(201);
    look(&mut client, 1);
    client.put("/kv/b", "1").expect(201);
    look(&mut client, 2);
    client.put("/kv/a", "1").expect(204);
    look(&mut client, 2);
    client.delete("/kv/a").expect(204);
    look(&mut client, 1);
}

#[test]
fn a_bare_pair_is_kept_by_the_node_it_was_sent_to() {
    let node = Node::in_memory();
    let mut client = node.client();
    for value in ["one", "two"] {
        let told = client.post("/replicate", &json!({"key": "pushed", "value": value})).expect(200).json();
        assert!(told["message"].is_string(), "{told}");
        assert_eq!((&told["applied"], &told["ignored"]), (&json!(1), &json!(0)), "{told}");
        assert_eq!(client.get("/store/key?key=pushed&local=1").expect(200).json()["value"], value);
    }
}

// ---- /kv

#[test]
fn a_value_is_put_read_looked_at_and_deleted() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.get("/kv/a").expect(404);
    client.send(&Request::new("HEAD", "/kv/a")).expect(404);
    let created = client.put("/kv/a", "first").expect(201);
    assert_eq!(replicas(&created), [("wanted", 1), ("acked", 1), ("hinted", 0)].map(|(k, v)| (k.to_owned(), v)).into());
    client.put("/kv/a", "second").expect(204);
    let read = client.get("/kv/a").expect(200);
    assert_eq!(read.text(), "second");
    assert_eq!(siblings(&read), 1);
    let looked = client.send(&Request::new("HEAD", "/kv/a")).expect(200);
    assert!(looked.body.is_empty());
    for name in ["ETag", "Kringle-Context", "Content-Length", "Content-Type", "Kringle-Siblings"] {
        assert_eq!(looked.must(name), read.must(name), "{name}");
    }
    client.delete("/kv/a").expect(204);
    client.get("/kv/a").expect(404);
    client.delete("/kv/a").expect(204);
    client.delete("/kv/never-there").expect(204);
    client.put("/kv/a", "third").expect(201);
}

#[test]
fn a_value_comes_back_as_inert_bytes_of_its_own_type() {
    let node = Node::in_memory();
    let mut client = node.client();
    let bytes: Vec<u8> = (0..=255).collect();
    for kind in ["image/png", "text/html; charset=utf-8", "application/vnd.some+thing"] {
        client.send(&Request::new("PUT", "/kv/typed").header("Content-Type", kind).body(bytes.clone()));
        let read = client.get("/kv/typed").expect(200);
        assert_eq!((read.must("Content-Type"), &read.body), (kind, &bytes));
        assert_eq!(read.must("X-Content-Type-Options"), "nosniff");
        assert!(read.must("Content-Security-Policy").contains("sandbox"), "{read}");
    }
}

#[test]
fn an_empty_value_is_a_value() {
    let node = Node::in_memory();
    node.put("/kv/empty", "").expect(201);
    let read = node.get("/kv/empty").expect(200);
    assert!(read.body.is_empty());
    assert_eq!(node.get("/store/key?key=empty").expect(200).json()["value"], "");
}

#[test]
fn the_etag_stands_while_nothing_is_written_and_changes_with_every_write() {
    let node = Node::in_memory();
    let mut client = node.client();
    let mut seen = BTreeSet::new();
    for value in ["a", "b", "b", "a"] {
        client.put("/kv/tagged", value);
        let tag = client.get("/kv/tagged").expect(200).must("ETag").to_owned();
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2, "not a strong tag: {tag}");
        assert_eq!(client.get("/kv/tagged").must("ETag"), tag);
        assert!(seen.insert(tag), "a tag used twice");
    }
}

#[test]
fn a_path_is_decoded_once_and_never_tidied() {
    let node = Node::in_memory();
    let mut client = node.client();
    let spellings: [(&str, &[u8]); 13] = [
        ("/kv/a/b/c", b"a/b/c"),
        ("/kv/a%2Fb%2fd", b"a/b/d"),
        ("/kv//leading", b"/leading"),
        ("/kv/trailing/", b"trailing/"),
        ("/kv/two//slashes", b"two//slashes"),
        ("/kv/..", b".."),
        ("/kv/../store/hash", b"../store/hash"),
        ("/kv/%2e%2e/ping", b"../ping"),
        ("/kv/%00", b"\0"),
        ("/kv/%25", b"%"),
        ("/kv/%2525", b"%25"),
        ("/kv/%ff%FE", b"\xff\xfe"),
        ("/kv/a+b%20c%3Fd", b"a+b c?d"),
    ];
    for (spelling, key) in spellings {
        client.put(spelling, spelling).expect(201);
        assert_eq!(client.get(spelling).expect(200).text(), spelling);
        assert_eq!(client.get(&kv(key)).expect(200).text(), spelling, "{spelling} is another spelling of {}", kv(key));
        let queried = client.get(&format!("/store/key?key={}", encode(key))).expect(200).json();
        assert_eq!(queried["value"], spelling, "the same key in a query");
        match std::str::from_utf8(key) {
            Ok(text) => assert_eq!(queried["key"], text),
            Err(_) => assert_eq!(queried["key_base64"], base64(key)),
        }
    }
    let keys = client.get("/store/hash").json()["keys"].as_u64();
    assert_eq!(keys, Some(spellings.len() as u64), "as many keys as spellings");
}

#[test]
fn what_is_not_utf8_is_told_in_base64() {
    let node = Node::in_memory();
    let mut client = node.client();
    let (key, value) = (b"\xff\x00k", b"\x80\x81\x00v");
    client.put(&kv(key), value).expect(201);
    for target in [format!("/store/key?key={}", encode(key)), format!("{}?siblings=1", kv(key))] {
        let told = client.get(&target).expect(200).json();
        assert_eq!(told["key_base64"], base64(key), "{told}");
        assert!(told["key"].is_null(), "{told}");
        let holder = if told["siblings"].is_array() { &told["siblings"][0] } else { &told };
        assert_eq!(holder["value_base64"], base64(value), "{told}");
        assert!(holder["value"].is_null(), "{told}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_key_and_any_value_come_back(pairs in prop::collection::btree_map(
        prop::collection::vec(any::<u8>(), 1..40), prop::collection::vec(any::<u8>(), 0..200), 1..20,
    )) {
        let node = Node::in_memory();
        let mut client = node.client();
        for (key, value) in &pairs {
            client.put(&kv(key), value.clone()).expect(201);
        }
        for (key, value) in &pairs {
            prop_assert_eq!(&client.get(&kv(key)).expect(200).body, value);
        }
        prop_assert_eq!(client.get("/store/hash").json()["keys"].as_u64(), Some(pairs.len() as u64));
    }
}

// ---- contexts and siblings

#[test]
fn a_write_that_read_replaces_what_it_read() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.put("/kv/a", "0").expect(201);
    let context = client.get("/kv/a").must("Kringle-Context").to_owned();
    client.send(&put_after(&context, "/kv/a", "1")).expect(204);
    let read = client.get("/kv/a").expect(200);
    assert_eq!((read.text().as_str(), siblings(&read)), ("1", 1));
    assert_ne!(read.must("Kringle-Context"), context);
}

#[test]
fn two_writes_that_read_the_same_stand_side_by_side_until_someone_reads_both() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.put("/kv/a", "0").expect(201);
    let context = client.get("/kv/a").must("Kringle-Context").to_owned();
    client.send(&put_after(&context, "/kv/a", "left")).expect(204);
    client.send(&put_after(&context, "/kv/a", "right")).expect(204);

    let read = client.get("/kv/a").expect(200);
    assert_eq!((read.text().as_str(), siblings(&read)), ("right", 2), "the later stamp wins");
    assert_eq!(sibling_values(&mut client, "/kv/a"), ["left", "right"]);
    let listed = client.get("/kv/a?siblings=1").expect(200).json();
    assert_eq!(listed["key"], "a");
    assert_eq!(listed["context"], read.must("Kringle-Context"));
    for sibling in listed["siblings"].as_array().expect("siblings") {
        assert!(!sibling["stamp"].is_null() && !sibling["actor"].is_null(), "{listed}");
        assert!(sibling.get("content_type").is_some() && sibling.get("expires").is_some(), "{listed}");
    }
    let told = client.get("/store/key?key=a").expect(200).json();
    assert_eq!((&told["value"], &told["sibling_count"]), (&json!("right"), &json!(2)));
    let both = client.get("/store/key?key=a&siblings=1").expect(200).json();
    assert_eq!(both["siblings"].as_array().map(Vec::len), Some(2), "{both}");

    client.send(&put_after(read.must("Kringle-Context"), "/kv/a", "merged")).expect(204);
    assert_eq!(sibling_values(&mut client, "/kv/a"), ["merged"]);
}

#[test]
fn a_plain_write_covers_every_sibling() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.put("/kv/a", "0").expect(201);
    let context = client.get("/kv/a").must("Kringle-Context").to_owned();
    for value in ["1", "2", "3"] {
        client.send(&put_after(&context, "/kv/a", value)).expect(204);
    }
    assert_eq!(sibling_values(&mut client, "/kv/a"), ["1", "2", "3"]);
    client.put("/kv/a", "plain").expect(204);
    assert_eq!(sibling_values(&mut client, "/kv/a"), ["plain"]);
}

#[test]
fn a_delete_takes_only_what_its_client_has_read() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.put("/kv/a", "old").expect(201);
    let context = client.get("/kv/a").must("Kringle-Context").to_owned();
    client.send(&put_after(&context, "/kv/a", "unseen")).expect(204);
    client.send(&Request::new("DELETE", "/kv/a").header("Kringle-Context", context)).expect(204);
    assert_eq!(client.get("/kv/a").expect(200).text(), "unseen");
}

#[test]
fn a_deleted_key_still_has_a_context() {
    let node = Node::in_memory();
    let mut client = node.client();
    assert_eq!(client.get("/kv/a").expect(404).header("Kringle-Context"), None, "never there: nothing to cover");
    client.put("/kv/a", "0").expect(201);
    client.delete("/kv/a").expect(204);
    let missing = client.get("/kv/a").expect(404);
    client.send(&put_after(missing.must("Kringle-Context"), "/kv/a", "1")).expect(201);
    let read = client.get("/kv/a").expect(200);
    assert_eq!((read.text().as_str(), siblings(&read)), ("1", 1));
}

#[test]
fn a_context_of_another_key_covers_nothing() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.put("/kv/a", "a").expect(201);
    client.put("/kv/b", "b").expect(201);
    let foreign = client.get("/kv/a").must("Kringle-Context").to_owned();
    client.send(&put_after(&foreign, "/kv/b", "b too")).expect(204);
    assert_eq!(sibling_values(&mut client, "/kv/b"), ["b", "b too"]);
    client.send(&put_after(&foreign, "/kv/new", "n")).expect(201);
    assert_eq!(client.get("/kv/a").expect(200).text(), "a");
}

#[test]
fn a_malformed_context_is_refused_and_changes_nothing() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.put("/kv/a", "0").expect(201);
    let good = client.get("/kv/a").must("Kringle-Context").to_owned();
    let half = &good[..good.len() / 2];
    for bad in ["!!!", "AAAA", half, &format!("{good}{good}"), &"A".repeat(10_000)] {
        client.send(&put_after(bad, "/kv/a", "1")).refusal(400);
        client.send(&Request::new("DELETE", "/kv/a").header("Kringle-Context", bad)).refusal(400);
    }
    let read = client.get("/kv/a").expect(200);
    assert_eq!((read.text().as_str(), read.must("Kringle-Context")), ("0", good.as_str()));
}

#[test]
fn the_header_with_the_context_counts_on_every_road() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.put("/kv/a", "seen").expect(201);
    let seen = client.get("/kv/a").must("Kringle-Context").to_owned();
    client.put("/kv/a", "unseen").expect(204);
    let with = |request: Request| request.header("Kringle-Context", &seen);
    let pair = json!({"key": "a", "value": "late"});
    client.send(&with(Request::new("POST", "/store")).json(&pair)).expect(200);
    assert_eq!(sibling_values(&mut client, "/kv/a"), ["late", "unseen"]);
    client.send(&with(Request::new("DELETE", "/store/key?key=a"))).expect(200);
    assert_eq!(sibling_values(&mut client, "/kv/a"), ["late", "unseen"], "the delete had seen neither");
    client.send(&Request::new("DELETE", "/store/key?key=a").header("Kringle-Context", "junk")).refusal(400);
}

#[test]
fn past_64_siblings_a_write_is_refused_and_told_how_to_resolve() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.put("/kv/a", "0").expect(201);
    let context = client.get("/kv/a").must("Kringle-Context").to_owned();
    for number in 1..=64 {
        client.send(&put_after(&context, "/kv/a", &number.to_string())).expect(204);
    }
    client.send(&put_after(&context, "/kv/a", "one too many")).refusal(409);
    assert_eq!(siblings(&client.get("/kv/a").expect(200)), 64);
    client.put("/kv/a", "resolved").expect(204);
    assert_eq!(sibling_values(&mut client, "/kv/a"), ["resolved"]);
}

// ---- plain-text aliases

#[test]
fn the_aliases_speak_plain_text() {
    let node = Node::in_memory();
    let mut client = node.client();
    for (method, key) in [("GET", "one"), ("POST", "two"), ("PUT", "three")] {
        let stored = client.send(&Request::new(method, format!("/put?key={key}&value=v%2F%C3%BC"))).expect(200);
        assert_eq!(stored.text().trim_end(), "OK (Mode: sloppy)");
        let read = client.get(&format!("/get?key={key}")).expect(200);
        assert_eq!(read.text(), "v/ü\n");
        assert!(read.must("Content-Type").starts_with("text/plain"), "{read}");
    }
    client.get("/put?key=empty&value=").expect(200);
    assert_eq!(client.get("/get?key=empty").expect(200).text(), "\n");
    assert_eq!(client.get("/get?key=missing").expect(404).text().trim_end(), "Not Found");
    for target in ["/put", "/put?key=a", "/put?value=a", "/put?key=&value=a", "/get", "/get?key="] {
        assert_eq!(client.get(target).expect(400).text().trim_end(), "missing params", "{target}");
    }
}

#[test]
fn the_alias_names_the_mode_of_the_node() {
    let node = Plan::new(&["--memory", "--mode", "async"]).start();
    assert_eq!(node.get("/put?key=a&value=b").expect(200).text().trim_end(), "OK (Mode: async)");
    assert_eq!(node.get("/status").json()["mode"], "async");
}

#[test]
fn a_page_of_another_site_cannot_store_through_a_link() {
    let node = Node::in_memory();
    let mut client = node.client();
    let own = format!("http://{}", node.address());
    let link = |name: &str, value: &str| Request::new("GET", "/put?key=planted&value=v").header(name, value);
    let foreign = [
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://127.0.0.1:1"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ];
    for (name, value) in foreign {
        let refused = client.send(&link(name, value));
        assert_eq!(refused.status, 403, "{name}: {value}: {refused}");
        client.get("/get?key=planted").expect(404);
    }
    client.send(&link("Origin", &own)).expect(200);
    client.send(&link("Sec-Fetch-Site", "same-origin")).expect(200);
    assert_eq!(client.get("/get?key=planted").expect(200).text(), "v\n");
}

#[test]
fn pages_of_the_sites_that_were_let_in_use_a_node_from_a_browser_and_others_do_not() {
    let node = Plan::new(&["--memory", "--cors-origin", "http://good.example, https://also.example:8443"]).start();
    let mut client = node.client();
    let asks = |origin: &str| {
        let request = Request::new("OPTIONS", "/kv/k").header("Origin", origin);
        request
            .header("Access-Control-Request-Method", "PUT")
            .header("Access-Control-Request-Headers", "kringle-context")
    };
    let allowed = client.send(&asks("https://also.example:8443"));
    assert_eq!((allowed.status, allowed.must("Access-Control-Allow-Origin")), (204, "https://also.example:8443"));
    assert!(allowed.must("Access-Control-Allow-Methods").contains("PUT"));
    assert_eq!(allowed.must("Access-Control-Allow-Headers"), "kringle-context");
    for strange in ["http://bad.example", "http://good.example:81", "null"] {
        let refused = client.send(&asks(strange));
        assert_eq!((refused.status, refused.header("Access-Control-Allow-Origin")), (405, None), "{strange}");
    }
    let from = |method: &str, path: &str, origin: &str| Request::new(method, path).header("Origin", origin);
    let written = client.send(&from("PUT", "/kv/k", "http://good.example").body("v"));
    assert_eq!((written.status, written.must("Access-Control-Allow-Origin")), (201, "http://good.example"));
    // Errors are shown as well, and what is at hand.
    for path in ["/kv/k", "/kv/none", "/nowhere"] {
        let shown = client.send(&from("GET", path, "http://good.example"));
        assert_eq!(shown.must("Access-Control-Allow-Origin"), "http://good.example", "{path}");
        assert_eq!(shown.must("Vary"), "Origin");
        let hidden = client.send(&from("GET", path, "http://bad.example"));
        assert_eq!(hidden.header("Access-Control-Allow-Origin"), None, "{path}");
    }
    client.send(&from("GET", "/put?key=planted&value=v", "http://good.example")).expect(200);
    client.send(&from("GET", "/put?key=planted&value=w", "http://bad.example")).expect(403);
    client.send(&from("PUT", "/cluster/replicas", "http://bad.example").body(r#"{"replicas":2}"#)).expect(403);
    client.send(&from("PUT", "/cluster/replicas", "http://good.example").body(r#"{"replicas":2}"#)).expect(200);
    let closed = Plan::new(&["--memory"]).start();
    let plain = closed.client().send(&from("GET", "/kv/k", "http://good.example"));
    assert_eq!((plain.header("Access-Control-Allow-Origin"), plain.header("Vary")), (None, None));
}

// ---- refusals

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    let node = Node::in_memory();
    let mut client = node.client();
    let routes = [
        ("/ping", "GET HEAD"),
        ("/store", "POST"),
        ("/store/key", "GET DELETE"),
        ("/store/hash", "GET"),
        ("/sync", "POST"),
        ("/replicate", "POST"),
        ("/kv/a", "PUT GET HEAD DELETE"),
        ("/put?key=a&value=b", "GET POST PUT"),
        ("/get?key=a", "GET"),
        ("/ring", "GET"),
        ("/status", "GET"),
        ("/health", "GET"),
        ("/healthz", "GET"),
        ("/readyz", "GET"),
    ];
    for (target, methods) in routes {
        let refused = client.send(&Request::new("PATCH", target).body("x")).refusal(405);
        let allowed: BTreeSet<&str> = refused.must("Allow").split(',').map(str::trim).collect();
        for method in methods.split(' ') {
            assert!(allowed.contains(method), "{target} allows {method}, says {allowed:?}");
        }
        assert!(!allowed.contains("PATCH"), "{target}: {allowed:?}");
    }
    client.get("/store").refusal(405);
    client.get("/replicate").refusal(405);
    client.put("/store/key", "x").refusal(405);
}

#[test]
fn an_unknown_path_is_404_and_json() {
    let node = Node::in_memory();
    let mut client = node.client();
    for target in ["/nope", "/kvx/a", "/store/nope", "/STORE", "/ping/x", "/favicon.ico"] {
        client.get(target).refusal(404);
    }
}

#[test]
fn bodies_that_are_no_pair_of_strings_are_refused() {
    let node = Node::in_memory();
    let mut client = node.client();
    let bomb = "[".repeat(200_000);
    let hidden_bomb = format!(r#"{{"key":"k","value":{}1{}}}"#, "[".repeat(50_000), "]".repeat(50_000));
    let bodies: [&[u8]; 22] = [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\"text\"",
        b"{}",
        br#"{"key":"k"}"#,
        br#"{"value":"v"}"#,
        br#"{"key":1,"value":"v"}"#,
        br#"{"key":"k","value":1}"#,
        br#"{"key":"k","value":null}"#,
        br#"{"key":"k","value":{"a":1}}"#,
        br#"{"key":["k"],"value":"v"}"#,
        br#"{"key":"","value":"v"}"#,
        br#"{"key":"k","value":"v"} trailing"#,
        br#"{'key':'k','value':'v'}"#,
        b"key=k&value=v",
        b"{\"key\":\"k\",\"value\":\"\xff\"}",
        br#"{"key":"k","value":"\ud800"}"#,
        b"\x00\x01\x02",
        bomb.as_bytes(),
        hidden_bomb.as_bytes(),
    ];
    for body in bodies {
        for target in ["/store", "/replicate"] {
            let answer =
                client.send(&Request::new("POST", target).header("Content-Type", "application/json").body(body));
            assert_eq!(
                answer.status,
                400,
                "{:?} to {target}: {answer}",
                String::from_utf8_lossy(&body[..body.len().min(60)])
            );
            answer.refusal(400);
        }
    }
    for body in ["", "{", "{}", "[]", r#"{"key":1}"#, r#"{"key":""}"#, &bomb] {
        for method in ["GET", "DELETE"] {
            client.send(&Request::new(method, "/store/key").body(body)).refusal(400);
        }
    }
    client.get("/store/key?key=").refusal(400);
    assert_eq!(client.get("/store/hash").json()["keys"], 0);
}

#[test]
fn a_key_has_1_to_4096_bytes() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.put("/kv/", "v").refusal(400);
    for byte in ["a", "\0"] {
        let longest = byte.repeat(4096);
        let longer = byte.repeat(4097);
        client.put(&kv(&longest), "v").expect(201);
        assert_eq!(client.get(&kv(&longest)).expect(200).text(), "v");
        client.put(&kv(&longer), "v").refusal(413);
        client.post("/store", &json!({"key": longest, "value": "w"})).expect(200);
        client.post("/store", &json!({"key": longer, "value": "w"})).refusal(413);
        client.send(&Request::new("GET", "/store/key").json(&json!({"key": longest}))).expect(200);
    }
    assert_eq!(client.get("/store/hash").json()["keys"], 2);
}

#[test]
fn the_key_limit_can_be_lowered() {
    let node = Plan::new(&["--memory", "--key-max", "16"]).start();
    node.put(&kv("k".repeat(16)), "v").expect(201);
    node.put(&kv("k".repeat(17)), "v").refusal(413);
    // 16 characters, 32 bytes.
    node.put(&kv("ü".repeat(16)), "v").refusal(413);
}

#[test]
fn the_value_limit_is_exact_on_every_road() {
    let node = Plan::new(&["--memory", "--value-max", "1000"]).start();
    let mut client = node.client();
    client.put("/kv/a", "v".repeat(1000)).expect(201);
    client.put("/kv/b", "v".repeat(1001)).refusal(413);
    client.post("/store", &json!({"key": "c", "value": "v".repeat(1000)})).expect(201);
    client.post("/store", &json!({"key": "d", "value": "v".repeat(1001)})).refusal(413);
    client.post("/replicate", &json!({"key": "d", "value": "v".repeat(1001)})).refusal(413);
    client.get(&format!("/put?key=e&value={}", "v".repeat(1000))).expect(200);
    assert_eq!(client.get(&format!("/put?key=f&value={}", "v".repeat(1001))).status, 413);
    // The limit is on the value: written with escapes, the body is six times as long.
    let escaped = format!(r#"{{"key":"g","value":"{}"}}"#, "\\u0076".repeat(1000));
    client.send(&Request::new("POST", "/store").body(escaped)).expect(201);
    // A length that is announced and not sent is refused without waiting for it.
    let announced = Request::new("PUT", "/kv/h").header("Content-Length", (1u64 << 40).to_string());
    client.send(&announced).refusal(413);
    // In chunks nothing is announced.
    let chunked = |bytes: usize| {
        let body = format!("{bytes:x}\r\n{}\r\n0\r\n\r\n", "v".repeat(bytes));
        Request::new("PUT", format!("/kv/chunked{bytes}")).header("Transfer-Encoding", "chunked").body(body)
    };
    client.send(&chunked(1000)).expect(201);
    client.send(&chunked(1001)).refusal(413);
    assert_eq!(client.get("/store/hash").json()["keys"], 5);
}

#[test]
fn values_of_10_mb_fit_where_the_operator_says_so() {
    let limit = 10 * MIB;
    let node = Plan::new(&["--memory", "--value-max", &limit.to_string()]).start();
    let mut client = node.client();
    let value: Vec<u8> = (0..limit).map(|index| (index / 7) as u8).collect();
    client.put("/kv/large", value.clone()).expect(201);
    assert!(client.get("/kv/large").expect(200).body == value, "10 MB come back as they went");
    client.put("/kv/larger", vec![b'v'; limit + 1]).refusal(413);
    client.get("/kv/larger").expect(404);
}

#[test]
fn values_of_8_mib_fit_by_default_and_no_more() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.put("/kv/large", vec![b'v'; 8 * MIB]).expect(201);
    assert_eq!(client.get("/kv/large").expect(200).body.len(), 8 * MIB);
    client.put("/kv/larger", vec![b'v'; 8 * MIB + 1]).refusal(413);
    client.post("/store", &json!({"key": "json", "value": "v".repeat(8 * MIB)})).expect(201);
    client.post("/store", &json!({"key": "json2", "value": "v".repeat(8 * MIB + 1)})).refusal(413);
}

#[test]
fn counts_of_replicas_that_make_no_sense_are_refused() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.put("/kv/a", "0").expect(201);
    for bad in ["0", "x", "99", "-1", "1.5", "", "4", "18446744073709551617"] {
        client.put(&format!("/kv/a?w={bad}"), "1").refusal(400);
        client.get(&format!("/kv/a?r={bad}")).refusal(400);
        client.delete(&format!("/kv/a?w={bad}")).refusal(400);
        client.post(&format!("/store?w={bad}"), &json!({"key": "a", "value": "1"})).refusal(400);
        client.get(&format!("/store/key?key=a&r={bad}")).refusal(400);
        client.delete(&format!("/store/key?key=a&w={bad}")).refusal(400);
    }
    assert_eq!(client.get("/kv/a?r=1").expect(200).text(), "0");
    client.put("/kv/a?w=1", "1").expect(204);
}

#[test]
fn more_replicas_than_there_are_nodes_cannot_be_had() {
    let node = Node::in_memory();
    let mut client = node.client();
    let refused = client.put("/kv/a?w=2", "1").refusal(503);
    assert!(refused.header("Retry-After").is_some_and(|seconds| seconds.parse::<u64>().is_ok()), "{refused}");
    client.get("/kv/a?r=2").refusal(503);
}

#[test]
fn a_percent_sign_that_begins_nothing_is_refused() {
    let node = Node::in_memory();
    let mut client = node.client();
    for target in ["/kv/%", "/kv/%2", "/kv/%zz", "/kv/a%"] {
        client.put(target, "v").refusal(400);
    }
}

// ---- hostile bodies

#[test]
fn junk_in_the_language_of_peers_is_refused() {
    let node = Node::in_memory();
    let mut client = node.client();
    let mut rng = support::seeded("junk in the language of peers");
    for length in [0, 1, 2, 3, 7, 16, 100, 1000, 10_000, 100_000] {
        for first in [None, Some(0), Some(1), Some(2), Some(255)] {
            let mut body = vec![0; length];
            rand::RngCore::fill_bytes(&mut rng, &mut body);
            if let (Some(version), Some(byte)) = (first, body.first_mut()) {
                *byte = version;
            }
            let request = Request::new("POST", "/replicate").header("Content-Type", "application/vnd.kringle");
            client.send(&request.body(body)).refusal(400);
        }
    }
    assert_eq!(client.get("/store/hash").json()["keys"], 0);
    node.assert_alive();
}

#[test]
fn compressed_bodies_are_never_inflated() {
    let node = Node::in_memory();
    let mut client = node.client();
    let compressed =
        |method: &str, target: &str| Request::new(method, target).header("Content-Encoding", "gzip").body(GZIPPED_PAIR);
    let stored = client.send(&compressed("PUT", "/kv/compressed"));
    match stored.status {
        415 => drop(stored.refusal(415)),
        _ => {
            stored.expect(201);
            assert_eq!(client.get("/kv/compressed").expect(200).body, GZIPPED_PAIR);
        }
    }
    for target in ["/store", "/replicate"] {
        let refused = client.send(&compressed("POST", target));
        assert!(matches!(refused.status, 400 | 415), "{target}: {refused}");
        refused.clone().refusal(refused.status);
    }
    client.get("/kv/inflated").expect(404);
}

#[test]
fn a_kept_connection_carries_many_requests_and_pipelined_ones_in_order() {
    let node = Node::in_memory();
    let mut stream = connect(&node.address(), Duration::from_secs(5)).expect("a connection");
    let one = |n: usize| {
        format!("PUT /kv/p HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n{n}GET /kv/p HTTP/1.1\r\nHost: x\r\n\r\n")
    };
    let all: String = (0..5).map(one).collect();
    stream.write_all(all.as_bytes()).expect("ten requests at once");
    stream.write_all(b"GET /kv/p HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("the last one");
    let (said, closed) = read_to_close(&mut stream, Duration::from_secs(10));
    let said = String::from_utf8_lossy(&said);
    assert!(closed, "closed as asked: {said}");
    let values: Vec<&str> =
        said.split("\r\n\r\n").filter_map(|part| part.get(..1)).filter(|first| *first < "9").collect();
    assert_eq!(values, ["0", "1", "2", "3", "4", "4"], "{said}");
}

#[test]
fn json_in_a_value_is_text_like_any_other() {
    let node = Node::in_memory();
    let inner: Value = json!({"key": "not this one", "list": [1, 2]});
    node.client().post("/store", &json!({"key": "nested", "value": inner.to_string()})).expect(201);
    let read = node.get("/store/key?key=nested").json();
    assert_eq!(serde_json::from_str::<Value>(read["value"].as_str().unwrap()).unwrap(), inner);
}
