//! `/counters/{key}`: integers that are added to by many at once. None is counted twice, and none that was acknowledged
//! is lost, through splits, crashes and owners that do not answer.

use crate::support;
mod tally;

use serde_json::{Value, json};
use std::time::Duration;
use support::cluster::Cluster;
use support::eventually;
use support::http::{Answer, Client, Request, encode};
use support::node::Node;
use support::proxy::{Fault, Way};
use tally::{Clients, Tally};

/// Long enough for detection, hints and several sessions on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Peers are found dead, and healed, within seconds.
const QUICK: [&str; 6] = ["--timeout", "1", "--pingfreq", "0.2", "--syncfreq", "0.5"];

/// What a request may take with that timeout, on a busy machine.
const ANSWERED_WITHIN: Duration = Duration::from_millis(1_700);

fn counter(key: impl AsRef<[u8]>) -> String {
    format!("/counters/{}", encode(key))
}

fn increment(key: &str, by: i64) -> Request {
    Request::new("POST", counter(key)).json(&json!({"by": by}))
}

/// An increment that may be repeated under this name.
fn named(key: &str, by: i64, name: impl Into<String>) -> Request {
    increment(key, by).header("Idempotency-Key", name)
}

#[track_caller]
fn value(answer: &Answer) -> i64 {
    answer.json()["value"].as_i64().unwrap_or_else(|| panic!("no value in {answer}"))
}

/// What a counter shows.
#[track_caller]
fn read(client: &mut Client, key: &str) -> i64 {
    value(&client.get(&counter(key)).expect(200))
}

/// Adds, and tells what that came to.
#[track_caller]
fn add(client: &mut Client, key: &str, by: i64) -> i64 {
    value(&client.send(&increment(key, by)).expect(200))
}

// ---- one node

#[test]
fn a_counter_begins_at_0_and_is_raised_by_1_or_whatever_is_said() {
    let node = Node::in_memory();
    let mut client = node.client();
    assert_eq!(read(&mut client, "c"), 0);
    client.get("/kv/c").expect(404);
    assert_eq!(value(&client.send(&Request::new("POST", "/counters/c")).expect(200)), 1);
    assert_eq!(value(&client.post("/counters/c", &json!({})).expect(200)), 2);
    assert_eq!(add(&mut client, "c", 40), 42);
    assert_eq!(add(&mut client, "c", -50), -8);
    assert_eq!(add(&mut client, "c", 0), -8);
    let shown = client.get("/counters/c").expect(200);
    assert_eq!(shown.text(), r#"{"value":-8}"#);
    assert!(shown.must("Content-Type").starts_with("application/json"), "{shown}");
    assert!(!shown.must("Kringle-Context").is_empty(), "{shown}");
    let head = client.send(&Request::new("HEAD", "/counters/c")).expect(200);
    assert!(head.body.is_empty(), "{head}");
    assert_eq!(read(&mut client, "another"), 0);
}

#[test]
fn a_counter_is_read_as_digits_wherever_values_are() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.put("/kv/c", "40").expect(201);
    add(&mut client, "c", 3);
    add(&mut client, "c", -1);
    let shown = client.get("/kv/c").expect(200);
    assert_eq!((shown.text().as_str(), shown.must("Kringle-Siblings")), ("42", "1"), "{shown}");
    let pair = client.get("/store/key?key=c").expect(200).json();
    assert_eq!((&pair["value"], &pair["sibling_count"]), (&json!("42"), &json!(1)), "{pair}");
    assert_eq!(client.get("/get?key=c").expect(200).text(), "42\n");
    let listed = client.get("/kv/c?siblings=1").expect(200).json();
    let values: Vec<&Value> =
        listed["siblings"].as_array().expect("siblings").iter().map(|one| &one["value"]).collect();
    assert_eq!(values, [&json!("42")], "{listed}");
}

#[test]
fn an_integer_that_is_written_sets_it_and_a_delete_clears_it() {
    let node = Node::in_memory();
    let mut client = node.client();
    add(&mut client, "c", 5);
    client.put("/kv/c", "-3").expect(204);
    assert_eq!(read(&mut client, "c"), -3);
    assert_eq!(add(&mut client, "c", 1), -2);
    client.post("/store", &json!({"key": "c", "value": "100"})).expect(200);
    assert_eq!(add(&mut client, "c", 1), 101);
    client.delete("/kv/c").expect(204);
    assert_eq!(read(&mut client, "c"), 0);
    client.get("/kv/c").expect(404);
    assert_eq!(add(&mut client, "c", 7), 7);
}

#[test]
fn what_is_no_integer_is_neither_read_as_one_nor_added_to() {
    let node = Node::in_memory();
    let mut client = node.client();
    for text in ["forty", "", " 5", "5 ", "4.0", "0x10", "9223372036854775808", "-9223372036854775809"] {
        client.put("/kv/text", text);
        for request in
            [Request::new("GET", "/counters/text"), increment("text", 1), Request::new("POST", "/counters/text")]
        {
            client.send(&request).refusal(409);
        }
        assert_eq!(client.get("/kv/text").expect(200).text(), text);
    }
    client.put("/kv/text", vec![0xff, b'1']).expect(204);
    client.get("/counters/text").refusal(409);
}

#[test]
fn what_would_leave_64_bits_is_not_counted() {
    let node = Node::in_memory();
    let mut client = node.client();
    assert_eq!(add(&mut client, "most", i64::MAX), i64::MAX);
    client.send(&increment("most", 1)).refusal(409);
    client.send(&named("most", i64::MAX, "again")).refusal(409);
    assert_eq!(read(&mut client, "most"), i64::MAX);
    assert_eq!(add(&mut client, "most", -1), i64::MAX - 1);
    // A refused request was not counted, so its name is still free.
    assert_eq!(value(&client.send(&named("most", 1, "again")).expect(200)), i64::MAX);

    assert_eq!(add(&mut client, "least", i64::MIN), i64::MIN);
    client.send(&increment("least", -1)).refusal(409);
    client.send(&increment("least", i64::MIN)).refusal(409);
    assert_eq!(read(&mut client, "least"), i64::MIN);

    client.put("/kv/set", i64::MAX.to_string()).expect(201);
    client.send(&increment("set", 1)).refusal(409);
    assert_eq!(client.get("/kv/set").expect(200).text(), i64::MAX.to_string());
}

#[test]
fn a_body_that_makes_no_sense_is_400_and_counts_nothing() {
    let node = Node::in_memory();
    let mut client = node.client();
    let bad = [
        r#"{"by":"1"}"#,
        r#"{"by":null}"#,
        r#"{"by":true}"#,
        r#"{"by":[1]}"#,
        r#"{"by":1.5}"#,
        r#"{"by":9223372036854775808}"#,
        r#"{"by":-9223372036854775809}"#,
        r#"{"by":1e30}"#,
        r#"{"to":1}"#,
        r#"{"by":1,"and":2}"#,
        r#"{"by":1,"by":2}"#,
        r#"{"by":1}2"#,
        r#"{"by":1"#,
        r#"{by:1}"#,
        "by=1",
        "1",
        r#""1""#,
        "null",
        " ",
    ];
    for body in bad {
        client.send(&Request::new("POST", "/counters/c").body(body)).refusal(400);
    }
    client.send(&Request::new("POST", "/counters/c").body(vec![b' '; 1_025])).refusal(413);
    assert_eq!(read(&mut client, "c"), 0);
    client.get("/kv/c").expect(404);
}

#[test]
fn a_list_is_no_increment() {
    let node = Node::in_memory();
    let mut client = node.client();
    for body in ["[]", "[5]"] {
        client.send(&Request::new("POST", "/counters/c").body(body)).refusal(400);
    }
    assert_eq!(read(&mut client, "c"), 0);
}

#[test]
fn other_methods_and_parameters_are_refused() {
    let node = Node::in_memory();
    let mut client = node.client();
    for method in ["PUT", "DELETE", "PATCH"] {
        let refused = client.send(&Request::new(method, "/counters/c")).refusal(405);
        assert_eq!(refused.must("Allow"), "GET, HEAD, POST");
    }
    for (method, query) in [("GET", "siblings=1"), ("GET", "w=1"), ("POST", "by=3"), ("POST", "r=1"), ("POST", "ttl=5")]
    {
        client.send(&Request::new(method, format!("/counters/c?{query}"))).refusal(400);
    }
    client.send(&Request::new("POST", "/counters/c?w=1")).expect(200);
    assert_eq!(value(&client.get("/counters/c?r=1&local=1").expect(200)), 1);
}

#[test]
fn any_key_can_be_counted_under() {
    let node = Node::in_memory();
    let mut client = node.client();
    let odd: [&[u8]; 5] = [b"a/b//c", b"100%", b"?by=5&#", b"\0\xff", "\u{1F967} ".as_bytes()];
    for (number, key) in odd.iter().enumerate() {
        let by = number as i64 + 1;
        let request = Request::new("POST", counter(key)).json(&json!({"by": by}));
        assert_eq!(value(&client.send(&request).expect(200)), by, "{key:?}");
        assert_eq!(client.get(&format!("/kv/{}", encode(key))).expect(200).text(), by.to_string(), "{key:?}");
    }
    // Escapes are undone once, so a slash is the same with or without.
    assert_eq!(value(&client.get("/counters/a/b//c").expect(200)), 1);
    assert_eq!(value(&client.get("/counters/a%252Fb//c").expect(200)), 0);
    client.get("/counters/").refusal(400);
    client.get("/counters/a%zz").refusal(400);
    client.get(&counter(vec![b'k'; 4_097])).refusal(413);
}

#[test]
fn a_repeated_request_is_counted_once() {
    let node = Node::in_memory();
    let mut client = node.client();
    let mut ask = |request: Request| value(&client.send(&request).expect(200));
    assert_eq!(ask(named("c", 5, "first")), 5);
    assert_eq!(ask(named("c", 5, "first")), 5);
    // Its name is what counts, not what it says.
    assert_eq!(ask(named("c", 7, "first")), 5);
    assert_eq!(ask(named("c", 5, "second")), 10);
    assert_eq!(ask(increment("c", 1)), 11);
    assert_eq!(ask(increment("c", 1)), 12);
    // A name belongs to a key.
    assert_eq!(ask(named("d", 5, "first")), 5);
    client.put("/kv/c", "100").expect(204);
    let mut ask = |request: Request| value(&client.send(&request).expect(200));
    assert_eq!(ask(named("c", 5, "first")), 100);
    assert_eq!(ask(named("c", 5, "third")), 105);
}

#[test]
fn the_name_of_a_request_has_1_to_255_bytes() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.send(&named("c", 1, "")).refusal(400);
    client.send(&named("c", 1, "n".repeat(256))).refusal(400);
    assert_eq!(read(&mut client, "c"), 0);
    assert_eq!(value(&client.send(&named("c", 1, "n".repeat(255))).expect(200)), 1);
    assert_eq!(value(&client.send(&named("c", 1, "n")).expect(200)), 2);
}

#[test]
fn a_key_remembers_1000_names_and_refuses_more() {
    let node = Node::in_memory();
    let mut client = node.client();
    for number in 0..1_000 {
        let answer = client.send(&named("c", 1, format!("request {number}"))).expect(200);
        assert_eq!(value(&answer), number + 1);
    }
    client.send(&named("c", 1, "one more")).refusal(429);
    assert_eq!(read(&mut client, "c"), 1_000);
    // Nothing else is refused: repetitions, increments without a name, other keys.
    assert_eq!(value(&client.send(&named("c", 1, "request 0")).expect(200)), 1_000);
    assert_eq!(add(&mut client, "c", 1), 1_001);
    assert_eq!(value(&client.send(&named("d", 1, "one more")).expect(200)), 1);
}

#[test]
fn what_was_counted_survives_a_kill_and_so_do_the_names_of_requests() {
    let mut node = Node::on_disk();
    let mut client = node.client();
    client.put("/kv/c", "40").expect(201);
    for round in 0..3 {
        let base = 40 + 10 * round;
        // Each start counts under a name of its own; none replaces what another has counted.
        assert_eq!(add(&mut client, "c", 4), base + 4);
        assert_eq!(value(&client.send(&named("c", 6, format!("round {round}"))).expect(200)), base + 10);
        node.kill();
        node.restart();
        client = node.client();
        assert_eq!(read(&mut client, "c"), base + 10);
        for past in 0..=round {
            assert_eq!(value(&client.send(&named("c", 6, format!("round {past}"))).expect(200)), base + 10);
        }
    }
}

// ---- several nodes

#[test]
fn a_repeated_request_is_counted_once_through_whichever_node() {
    let cluster = Cluster::start(3, &["--memory"]);
    let send = |index: usize, request: &Request| value(&cluster.client(index).send(request).expect(200));
    let everywhere = |name: &str| {
        let target = format!("{}?w=3", counter("c"));
        Request::new("POST", target).header("Idempotency-Key", name).json(&json!({"by": 5}))
    };
    assert_eq!(send(0, &everywhere("first")), 5);
    assert_eq!([1, 2, 0].map(|index| send(index, &everywhere("first"))), [5; 3]);
    assert_eq!(send(2, &everywhere("second")), 10);
    cluster.client(1).put("/kv/c?w=3", "100").expect(204);
    assert_eq!([0, 1, 2].map(|index| send(index, &everywhere("first"))), [100; 3]);
    assert_eq!([2, 1, 0].map(|index| send(index, &everywhere("second"))), [100; 3]);
    assert_eq!(send(1, &everywhere("third")), 105);
}

#[test]
fn increments_on_both_sides_of_a_split_add_up() {
    let cluster = Cluster::behind_proxies(3, &QUICK);
    cluster.client(0).put("/kv/c?w=3", "1000").expect(201);
    // What each node has counted before the split is not replaced by what any counts later.
    (0..3).for_each(|index| drop(cluster.client(index).post("/counters/c?w=3", &json!({"by": 100})).expect(200)));
    cluster.split(&[&[0], &[1, 2]]);
    for _ in 0..5 {
        for (index, by, status) in [(0, 1, 202), (1, 10, 200), (2, -3, 200)] {
            cluster.client(index).send(&increment("c", by)).expect(status);
        }
    }
    assert_eq!(read(&mut cluster.client(0), "c"), 1_305);
    assert_eq!(read(&mut cluster.client(1), "c"), 1_335);
    cluster.unite();
    Tally { acknowledged: 1_340, unknown: 0 }.assert_shown(&cluster, "c");
    let shown = cluster.client(1).get("/kv/c?r=3").expect(200);
    assert_eq!((shown.text().as_str(), shown.must("Kringle-Siblings")), ("1340", "1"), "{shown}");
    // A plain write sets what all sides have counted, a delete clears it.
    cluster.client(2).put("/kv/c?w=3", "7").expect(204);
    assert_eq!([0, 1, 2].map(|index| read(&mut cluster.client(index), "c")), [7; 3]);
    cluster.client(1).delete("/kv/c?w=3").expect(204);
    assert_eq!([0, 1, 2].map(|index| read(&mut cluster.client(index), "c")), [0; 3]);
}

#[test]
fn an_increment_whose_owner_does_not_answer_is_unknown_in_time_and_not_counted_twice() {
    let cluster = Cluster::behind_proxies(5, &QUICK);
    // Nothing comes through to any owner; or all does to the one that is asked first, and its answers are lost, or end with
    // the connection. The others must not be asked in its place.
    let faults = [
        ("hang", Fault::Hang, 3),
        ("lost", Fault::BlackHole(Way::FromNode), 1),
        ("cut", Fault::Cut(Way::FromNode, 0), 1),
    ];
    for (prefix, fault, faulty) in faults {
        // An owner that is suspect still, for the fault before, would not be asked first.
        cluster.await_gone(&[&[0, 1, 2, 3, 4]]);
        let key = cluster.key_where(prefix, |owners| !owners.contains(&0));
        let owners = cluster.owners(&key);
        let target = format!("{}?w=3", counter(&key));
        cluster.client(0).post(&target, &json!({"by": 1_000})).expect(200);
        owners[..faulty].iter().for_each(|owner| cluster.fault(*owner, fault));
        let mut tally = Tally { acknowledged: 1_000, unknown: 0 };
        let request = |number: usize| named(&key, 1, format!("{prefix} {number}"));
        for number in 0..4 {
            let answer = cluster.client(0).within(Duration::from_secs(10)).send(&request(number));
            assert!(answer.took < ANSWERED_WITHIN, "after {:?}: {answer}", answer.took);
            assert!(tally.acknowledged > 1_000 || tally.unknown > 0 || answer.status == 503, "the first: {answer}");
            if answer.status == 503 {
                answer.clone().refusal(503).must("Retry-After");
            }
            tally.take(1, &Ok(answer));
        }
        owners[..faulty].iter().for_each(|owner| cluster.fault(*owner, Fault::Pass));
        // A read of all owners brings them what only one of them has. A comparison would do so as well, but an owner that
        // was in one when it could not be heard keeps itself free for that peer for half a minute.
        eventually("all owners can be read", SOON, || {
            let read = cluster.client(0).get(&format!("{}?r=3", counter(&key)));
            (read.status == 200).then_some(()).ok_or(read.to_string())
        });
        tally.assert_shown(&cluster, &key);
        // Where only answers were lost all have arrived, so those who did not know and ask again change nothing.
        for number in (0..4).filter(|_| fault != Fault::Hang) {
            assert_eq!(value(&cluster.client(number).send(&request(number)).expect(200)), 1_004, "{tally:?}");
        }
    }
}

#[test]
fn what_a_node_counts_in_place_of_absent_owners_adds_up_over_their_returns() {
    let cluster = Cluster::behind_proxies(5, &QUICK);
    let key = cluster.key_where("k", |owners| !owners.contains(&0));
    let owners = cluster.owners(&key);
    let mut tally = Tally::default();
    for _ in 0..3 {
        owners.iter().for_each(|owner| cluster.fault(*owner, Fault::Refuse));
        let kept = tally.acknowledged + 3;
        eventually("three increments are kept for the owners", SOON, || {
            let outcome = cluster.client(0).try_send(&increment(&key, 1));
            tally.take(1, &outcome);
            (tally.acknowledged == kept).then_some(()).ok_or(format!("{outcome:?}"))
        });
        owners.iter().for_each(|owner| cluster.fault(*owner, Fault::Pass));
        tally.assert_shown(&cluster, &key);
    }
}

/// 1,000 increments through all nodes, which are split one way and the other; in between, one of them is killed.
#[track_caller]
fn count_to_1000(count: usize, first_split: &[&[usize]], second_split: &[&[usize]]) {
    let mut cluster = Cluster::behind_proxies(count, &QUICK);
    let clients = Clients::start(8, &cluster, "c");
    // What is under way when a node dies or a network parts is cut off; more follows while the others are still waited
    // for, and more when they are known to be gone.
    clients.allow(150, 100);
    cluster.split(first_split);
    clients.allow(100, 100);
    cluster.await_gone(first_split);
    clients.allow(100, 50);
    cluster.unite();
    clients.allow(100, 75);
    let killed = cluster.owners("c")[1];
    cluster.nodes[killed].kill();
    clients.allow(100, 100);
    let left: Vec<usize> = (0..count).filter(|index| *index != killed).collect();
    cluster.await_gone(&[&left]);
    clients.allow(100, 50);
    cluster.nodes[killed].restart();
    clients.allow(100, 75);
    cluster.split(second_split);
    clients.allow(100, 100);
    cluster.await_gone(second_split);
    clients.allow(100, 50);
    cluster.unite();
    clients.allow(50, 0);
    let tally = clients.finish();
    eprintln!("{tally:?}");
    assert_eq!(tally.acknowledged + tally.unknown, 1_000);
    assert!(tally.acknowledged >= 500, "too much is unknown for this to show anything: {tally:?}");
    tally.assert_shown(&cluster, "c");
}

#[test]
fn of_1000_increments_through_two_splits_and_a_kill_the_acknowledged_are_counted_and_none_twice() {
    count_to_1000(3, &[&[0], &[1, 2]], &[&[0, 1], &[2]]);
}

#[test]
fn none_is_counted_twice_through_five_nodes_either_of_which_two_count_for_others_only() {
    count_to_1000(5, &[&[0, 1], &[2, 3, 4]], &[&[0], &[1, 2], &[3, 4]]);
}
