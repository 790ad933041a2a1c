//! `?ttl=`: values that stop being shown, on every node at the same time, and stay away.

use crate::support;

use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::cluster::Cluster;
use support::eventually;
use support::http::{Answer, Client, Request};
use support::node::{Node, Plan};

/// Long enough for detection, hints and several sessions on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// What clocks of nodes on one machine may differ by: they read the same, and run ahead of it by a few stamps at most.
const SKEW_MS: u64 = 50;

/// The machine's clock, in milliseconds since 1970.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis() as u64
}

fn await_ms(until_ms: u64) {
    eventually("it is time", SOON, || (now_ms() > until_ms).then_some(()).ok_or(format!("until {until_ms}")));
}

/// When the value expires, as the answer tells it.
#[track_caller]
fn expires(answer: &Answer) -> u64 {
    answer.must("Kringle-Expires").parse().unwrap_or_else(|_| panic!("no number of milliseconds: {answer}"))
}

/// Reads until the value is gone; it is never gone before `expires_ms` and never there after it. How often it was there.
#[track_caller]
fn watch(client: &mut Client, target: &str, expires_ms: u64) -> usize {
    let mut seen = 0;
    eventually(&format!("{target} expires"), SOON, || {
        let before = now_ms();
        let answer = client.get(target);
        let after = now_ms();
        match answer.status {
            200 => assert!(before <= expires_ms + SKEW_MS, "{} ms too late: {answer}", before - expires_ms),
            404 => assert!(after + SKEW_MS >= expires_ms, "{} ms too early: {answer}", expires_ms - after),
            _ => panic!("{target}: {answer}"),
        }
        seen += usize::from(answer.status == 200);
        (answer.status == 404).then_some(()).ok_or(format!("{answer}"))
    });
    seen
}

/// The values that `?siblings=1` lists, sorted, with their expiry.
#[track_caller]
fn listed(client: &mut Client, target: &str) -> Vec<(String, Value)> {
    let listed = client.get(&format!("{target}?siblings=1")).expect(200).json();
    let values = listed["siblings"].as_array().expect("siblings").iter();
    let mut values: Vec<(String, Value)> =
        values.map(|one| (one["value"].as_str().expect("text").to_owned(), one["expires"].clone())).collect();
    values.sort_by(|one, other| one.0.cmp(&other.0));
    values
}

fn put_after(context: &str, target: &str, value: &str) -> Request {
    Request::new("PUT", target).header("Kringle-Context", context).body(value)
}

// ---- one node

#[test]
fn a_time_to_live_is_a_number_of_seconds_above_0_and_below_a_hundred_years() {
    let node = Node::in_memory();
    let mut client = node.client();
    let bad = [
        "0",
        "0.0",
        "-1",
        "-0.5",
        "1e-400",
        "NaN",
        "inf",
        "-inf",
        "1e20",
        "3155760001",
        "soon",
        "5s",
        "1,5",
        "0x5",
        "",
    ];
    for ttl in bad {
        client.put(&format!("/kv/a?ttl={ttl}"), "v").refusal(400);
        client.post(&format!("/store?ttl={ttl}"), &json!({"key": "a", "value": "v"})).refusal(400);
        client.get(&format!("/put?key=a&value=v&ttl={ttl}")).refusal(400);
    }
    client.put("/kv/a?ttl=5&ttl=6", "v").refusal(400);
    client.get("/kv/a").expect(404);
    for ttl in ["0.001", "1", "99.5", "3155760000"] {
        client.put(&format!("/kv/{ttl}?ttl={ttl}"), "v").expect(201);
    }
}

#[test]
fn only_writes_of_values_take_one() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.put("/kv/a", "1").expect(201);
    let refusing = [
        ("GET", "/kv/a?ttl=5"),
        ("GET", "/store/key?key=a&ttl=5"),
        ("GET", "/get?key=a&ttl=5"),
        ("GET", "/counters/a?ttl=5"),
        ("POST", "/counters/a?ttl=5"),
        ("DELETE", "/kv/a?ttl=5"),
        ("DELETE", "/store/key?key=a&ttl=5"),
    ];
    for (method, target) in refusing {
        let refused = client.send(&Request::new(method, target)).refusal(400);
        assert!(refused.text().contains("unknown parameter"), "{method} {target}: {refused}");
    }
    client.send(&Request::new("HEAD", "/kv/a?ttl=5")).expect(400);
    assert_eq!(client.get("/kv/a").expect(200).text(), "1");
}

#[test]
fn reads_tell_when_a_value_expires_whichever_way_it_was_written() {
    let node = Node::in_memory();
    let mut client = node.client();
    let written = [
        Request::new("PUT", "/kv/kv?ttl=100.5").body("v"),
        Request::new("POST", "/store?ttl=100.5").json(&json!({"key": "store", "value": "v"})),
        Request::new("GET", "/put?key=plain&value=v&ttl=100.5"),
    ];
    for (request, key) in written.iter().zip(["kv", "store", "plain"]) {
        let before = now_ms();
        let answer = client.send(request);
        assert!(matches!(answer.status, 200 | 201), "{answer}");
        let span = before + 100_500..=now_ms() + 100_500 + SKEW_MS;
        let told = expires(&client.get(&format!("/kv/{key}")).expect(200));
        assert!(span.contains(&told), "{told} is not in {span:?}");
        assert_eq!(expires(&client.send(&Request::new("HEAD", format!("/kv/{key}"))).expect(200)), told);
        let pair = client.get(&format!("/store/key?key={key}&siblings=1")).expect(200).json();
        assert_eq!((&pair["expires"], &pair["siblings"][0]["expires"]), (&json!(told), &json!(told)), "{pair}");
        assert_eq!(listed(&mut client, &format!("/kv/{key}")), [("v".to_owned(), json!(told))]);
    }
    client.put("/kv/stays", "v").expect(201);
    let stays = client.get("/kv/stays").expect(200);
    assert_eq!(stays.header("Kringle-Expires"), None, "{stays}");
    assert_eq!(client.get("/store/key?key=stays").expect(200).json().get("expires"), None);
    assert_eq!(listed(&mut client, "/kv/stays"), [("v".to_owned(), Value::Null)]);
}

#[test]
fn a_time_to_live_in_a_form_counts_like_one_in_the_query() {
    let node = Node::in_memory();
    let mut client = node.client();
    let form = Request::new("POST", "/put").header("Content-Type", "application/x-www-form-urlencoded");
    let answer = client.send(&form.body("key=a&value=v&ttl=100"));
    // Refused, or kept to: not taken and forgotten.
    if answer.status != 400 {
        answer.expect(200);
        expires(&client.get("/kv/a").expect(200));
    }
}

#[test]
fn a_value_is_shown_to_its_last_moment_and_not_after_it() {
    // Asks of its own memory only, and asks like any node.
    for node in [Plan::new(&["--memory", "--mode", "async"]).start(), Node::on_disk()] {
        let mut client = node.client();
        client.put("/kv/a?ttl=1.5", "v").expect(201);
        let told = expires(&client.get("/kv/a").expect(200));
        assert!(watch(&mut client, "/kv/a", told) > 0);
        let gone = client.get("/kv/a").refusal(404);
        assert!(!gone.must("Kringle-Context").is_empty(), "{gone}");
        assert_eq!(gone.header("Kringle-Expires"), None, "{gone}");
        assert_eq!(client.get("/store/key?key=a").expect(404).json()["error"], "Key not found");
        client.get("/get?key=a").expect(404);
        client.get("/kv/a?siblings=1").expect(404);
        client.get("/kv/a?local=1").expect(404);
        client.send(&Request::new("HEAD", "/kv/a")).expect(404);
        assert_eq!(client.get("/counters/a").expect(200).json()["value"], 0);
        // What was read there is a context like any other.
        client.send(&put_after(gone.must("Kringle-Context"), "/kv/a", "again")).expect(201);
        let again = client.get("/kv/a").expect(200);
        assert_eq!((again.text().as_str(), again.must("Kringle-Siblings")), ("again", "1"), "{again}");
    }
}

#[test]
fn the_last_write_says_how_long_a_value_lasts() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.put("/kv/lasting?ttl=1.5", "brief").expect(201);
    let brief = expires(&client.get("/kv/lasting").expect(200));
    client.put("/kv/lasting", "stays");
    client.put("/kv/longer?ttl=1.5", "brief").expect(201);
    client.put("/kv/longer?ttl=100", "longer");
    client.put("/kv/shorter?ttl=100", "long").expect(201);
    client.put("/kv/shorter?ttl=1.5", "short").expect(204);
    let short = expires(&client.get("/kv/shorter").expect(200));
    watch(&mut client, "/kv/shorter", short);
    await_ms(brief + SKEW_MS);
    let stays = client.get("/kv/lasting").expect(200);
    assert_eq!((stays.text().as_str(), stays.header("Kringle-Expires")), ("stays", None), "{stays}");
    assert_eq!(client.get("/kv/longer").expect(200).text(), "longer");
}

#[test]
fn an_expired_value_is_no_sibling() {
    let node = Node::in_memory();
    let mut client = node.client();
    let base = client.put("/kv/a", "base").expect(201).must("Kringle-Context").to_owned();
    client.send(&put_after(&base, "/kv/a", "stays")).expect(204);
    client.send(&put_after(&base, "/kv/a?ttl=2", "brief")).expect(204);
    let both = client.get("/kv/a").expect(200);
    assert_eq!((both.text().as_str(), both.must("Kringle-Siblings")), ("brief", "2"), "{both}");
    let told = expires(&both);
    assert_eq!(listed(&mut client, "/kv/a"), [("brief".to_owned(), json!(told)), ("stays".to_owned(), Value::Null)]);
    assert_eq!(client.get("/store/key?key=a").expect(200).json()["sibling_count"], 2);
    await_ms(told + SKEW_MS);
    let one = client.get("/kv/a").expect(200);
    assert_eq!((one.text().as_str(), one.must("Kringle-Siblings")), ("stays", "1"), "{one}");
    assert_eq!(one.header("Kringle-Expires"), None, "{one}");
    assert_eq!(listed(&mut client, "/kv/a"), [("stays".to_owned(), Value::Null)]);
    assert_eq!(client.get("/store/key?key=a").expect(200).json()["sibling_count"], 1);
}

#[test]
fn what_is_shown_after_a_sibling_has_expired_has_another_entity_tag() {
    let node = Node::in_memory();
    let mut client = node.client();
    let base = client.put("/kv/a", "base").expect(201).must("Kringle-Context").to_owned();
    client.send(&put_after(&base, "/kv/a", "stays")).expect(204);
    client.send(&put_after(&base, "/kv/a?ttl=1.5", "brief")).expect(204);
    let brief = client.get("/kv/a").expect(200);
    await_ms(expires(&brief) + SKEW_MS);
    let stays = client.get("/kv/a").expect(200);
    assert_eq!((brief.text().as_str(), stays.text().as_str()), ("brief", "stays"));
    assert_ne!(brief.must("ETag"), stays.must("ETag"), "other bytes under the same tag");
}

#[test]
fn what_was_counted_onto_an_expired_integer_stays() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.put("/kv/c?ttl=1.5", "40").expect(201);
    let told = expires(&client.get("/kv/c").expect(200));
    assert_eq!(client.post("/counters/c", &json!({"by": 2})).expect(200).json()["value"], 42);
    await_ms(told + SKEW_MS);
    assert_eq!(client.get("/counters/c").expect(200).json()["value"], 2);
    assert_eq!(client.get("/kv/c").expect(200).text(), "2");
}

#[test]
fn an_expired_value_stays_away_after_a_restart_and_another_survives_it() {
    let mut node = Node::on_disk();
    let mut client = node.client();
    client.put("/kv/brief?ttl=0.5", "v").expect(201);
    client.put("/kv/expires-while-down?ttl=1", "v").expect(201);
    client.put("/kv/long?ttl=3600", "v").expect(201);
    let long = expires(&client.get("/kv/long").expect(200));
    // Looked at before it was read: both have expired a moment after it.
    let last = now_ms() + 1_000;
    await_ms(last - 400);
    client.get("/kv/brief").expect(404);
    node.kill();
    await_ms(last + SKEW_MS);
    node.restart();
    let mut client = node.client();
    for key in ["brief", "expires-while-down"] {
        client.get(&format!("/kv/{key}")).expect(404).must("Kringle-Context");
    }
    assert_eq!(expires(&client.get("/kv/long").expect(200)), long);
}

// ---- several nodes

#[test]
fn a_value_expires_on_every_node_at_once() {
    let cluster = Cluster::start(3, &["--memory"]);
    let written = cluster.client(0).put("/kv/a?ttl=2&w=3", "v").expect(201);
    assert!(!written.must("Kringle-Context").is_empty());
    let told = expires(&cluster.client(1).get("/kv/a").expect(200));
    let targets = ["/kv/a", "/kv/a?r=1", "/kv/a?local=1", "/kv/a?r=3", "/store/key?key=a"];
    let watched: Vec<(String, usize)> = std::thread::scope(|scope| {
        let watchers: Vec<_> = (0..3)
            .flat_map(|index| targets.map(|target| (index, target)))
            .map(|(index, target)| {
                let mut client = cluster.client(index);
                scope.spawn(move || (format!("{target} on {index}"), watch(&mut client, target, told)))
            })
            .collect();
        watchers.into_iter().map(|watcher| watcher.join().expect("a watcher")).collect()
    });
    assert!(watched.iter().all(|(_, seen)| *seen > 0), "each has seen it: {watched:?}");
    for index in 0..3 {
        let gone = cluster.client(index).get("/kv/a").refusal(404);
        assert!(!gone.must("Kringle-Context").is_empty(), "{gone}");
    }
    cluster.client(2).put("/kv/a?w=3", "again").expect(201);
    for index in 0..3 {
        let again = cluster.client(index).get("/kv/a").expect(200);
        assert_eq!((again.text().as_str(), again.header("Kringle-Expires")), ("again", None), "{again}");
    }
}

#[test]
fn what_an_expired_value_replaced_does_not_come_back_with_a_node_that_missed_it() {
    let flags = ["--timeout", "1", "--pingfreq", "0.2", "--syncfreq", "0.5"];
    let cluster = Cluster::behind_proxies(3, &flags);
    cluster.client(2).put("/kv/a?w=3", "old").expect(201);
    cluster.split(&[&[0, 1], &[2]]);
    cluster.client(0).put("/kv/a?w=2&ttl=0.5", "brief").expect(204);
    let told = eventually("it is read", SOON, || {
        let read = cluster.client(1).get("/kv/a?local=1");
        // It may have expired before a busy machine came to look, half a second from now at the latest.
        match (read.status, read.header("Kringle-Expires")) {
            (404, _) => Ok(now_ms()),
            (200, Some(_)) => Ok(expires(&read)),
            _ => Err(format!("{read}")),
        }
    });
    await_ms(told + SKEW_MS);
    assert_eq!(cluster.held_by(2, "a"), Some(json!("old")), "it has not heard");
    cluster.unite();
    eventually("the old value is gone from all nodes", SOON, || {
        let held: Vec<Option<Value>> = (0..3).map(|index| cluster.held_by(index, "a")).collect();
        held.iter().all(Option::is_none).then_some(()).ok_or(format!("{held:?}"))
    });
    (0..3).for_each(|index| drop(cluster.client(index).get("/kv/a?r=3").expect(404)));
}
