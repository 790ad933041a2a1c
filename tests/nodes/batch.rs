//! `POST /batch`: many wishes in one request, each with an answer of its own, in order.

use crate::support;

use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;
use support::cluster::Cluster;
use support::http::{Answer, Client, Request, connect, encode};
use support::node::{Node, Plan};

const QUICK: [&str; 7] = ["--memory", "--timeout", "5", "--pingfreq", "0.5", "--syncfreq", "3600"];

fn batch(query: &str, body: impl Into<Vec<u8>>) -> Request {
    Request::new("POST", format!("/batch{query}")).body(body)
}

/// The answers, one a line.
#[track_caller]
fn lines(answer: &Answer) -> Vec<Value> {
    assert_eq!((answer.status, answer.must("Content-Type")), (200, "application/x-ndjson"), "{answer}");
    let parsed = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"));
    answer.text().lines().map(parsed).collect()
}

/// What is said of these wishes.
#[track_caller]
fn ask(client: &mut Client, query: &str, wishes: &[Value]) -> Vec<Value> {
    let body: String = wishes.iter().map(|wish| format!("{wish}\n")).collect();
    let answers = lines(&client.send(&batch(query, body)));
    assert_eq!(answers.len(), wishes.len(), "a line for each");
    for (answer, wish) in answers.iter().zip(wishes) {
        assert_eq!((&answer["key"], &answer["key_base64"]), (&wish["key"], &wish["key_base64"]), "in order");
    }
    answers
}

fn statuses(answers: &[Value]) -> Vec<u64> {
    answers.iter().map(|answer| answer["status"].as_u64().expect("a status")).collect()
}

// ---- one node

#[test]
fn every_wish_is_answered_in_its_place_as_its_own_request_would_be() {
    let node = Node::in_memory();
    let mut client = node.client();
    let answers = ask(
        &mut client,
        "",
        &[
            json!({"op": "put", "key": "a", "value": "1"}),
            json!({"op": "put", "key": "a", "value": "two", "content_type": "text/plain", "ttl": 1000}),
            json!({"op": "get", "key": "a"}),
            json!({"op": "put", "key_base64": "//4A", "value_base64": "AP8="}),
            json!({"op": "get", "key_base64": "//4A"}),
            json!({"op": "get", "key": "nothing"}),
            json!({"op": "incr", "key": "n", "by": 41, "id": "x"}),
            json!({"op": "incr", "key": "n"}),
            json!({"op": "incr", "key": "n", "by": 41, "id": "x"}),
            json!({"op": "incr", "key": "a"}),
            json!({"op": "delete", "key": "a"}),
            json!({"op": "delete", "key": "a"}),
            json!({"op": "get", "key": "a"}),
        ],
    );
    assert_eq!(statuses(&answers), [201, 204, 200, 201, 200, 404, 200, 200, 200, 409, 204, 204, 404]);
    assert_eq!((&answers[2]["value"], &answers[2]["content_type"]), (&json!("two"), &json!("text/plain")));
    assert!(answers[2]["expires"].is_u64() && answers[2]["siblings"] == 1, "{}", answers[2]);
    assert_eq!(answers[2]["etag"], answers[1]["etag"]);
    assert_eq!(answers[4]["value_base64"], "AP8=");
    assert_eq!([&answers[6]["value"], &answers[7]["value"], &answers[8]["value"]], [41, 42, 42]);
    assert_eq!(client.get("/kv/%ff%fe%00").expect(200).body, [0, 0xff]);
    for refused in [&answers[5], &answers[9], &answers[12]] {
        assert!(refused["error"].is_string() && refused["hint"].is_string(), "{refused}");
    }
    assert!(answers[12]["context"].is_string(), "a deleted key's context is told");
}

#[test]
fn a_context_is_sent_along_in_a_line_and_keeps_what_it_does_not_cover() {
    let node = Node::in_memory();
    let mut client = node.client();
    let first = ask(&mut client, "", &[json!({"op": "put", "key": "k", "value": "one"})]);
    let context = &first[0]["context"];
    let answers = ask(
        &mut client,
        "",
        &[
            json!({"op": "put", "key": "k", "value": "two", "context": context}),
            json!({"op": "put", "key": "k", "value": "three", "context": context}),
            json!({"op": "get", "key": "k", "context": context}),
        ],
    );
    assert_eq!(statuses(&answers), [204, 204, 200]);
    assert_eq!((&answers[2]["value"], &answers[2]["siblings"]), (&json!("three"), &json!(2)));
    client.send(&batch("", "").header("Kringle-Context", context.as_str().expect("a word"))).refusal(400);
}

#[test]
fn a_line_that_makes_no_sense_is_refused_by_itself_and_the_others_are_done() {
    let node = Plan::new(&["--memory", "--value-max", "1000", "--key-max", "50"]).start();
    let mut client = node.client();
    let long = "x".repeat(1_001);
    let bad = [
        "nonsense",
        "{",
        "[]",
        "\"put\"",
        "null",
        "{}",
        "\u{fffd}",
        "{\"op\":\"put\"}",
        "{\"op\":\"put\",\"key\":\"b\"}",
        "{\"op\":\"fly\",\"key\":\"b\"}",
        "{\"op\":\"put\",\"key\":\"\",\"value\":\"\"}",
        "{\"op\":\"put\",\"key\":\"b\",\"key_base64\":\"YQ==\",\"value\":\"\"}",
        "{\"op\":\"put\",\"key\":\"b\",\"value\":\"\",\"value_base64\":\"\"}",
        "{\"op\":\"put\",\"key\":\"b\",\"value_base64\":\"*\"}",
        "{\"op\":\"put\",\"key\":\"b\",\"value\":1}",
        "{\"op\":\"put\",\"key\":\"b\",\"value\":\"\",\"vaule\":\"\"}",
        "{\"op\":\"put\",\"key\":\"b\",\"value\":\"\",\"ttl\":0}",
        "{\"op\":\"put\",\"key\":\"b\",\"value\":\"\",\"ttl\":1e300}",
        "{\"op\":\"put\",\"key\":\"b\",\"value\":\"\",\"context\":\"AAAA\"}",
        "{\"op\":\"put\",\"key\":\"b\",\"value\":\"\",\"by\":1}",
        "{\"op\":\"get\",\"key\":\"b\",\"value\":\"\"}",
        "{\"op\":\"incr\",\"key\":\"b\",\"by\":9223372036854775808}",
        "{\"op\":\"incr\",\"key\":\"b\",\"id\":\"\"}",
        "{\"op\":\"put\",\"key\":\"b\",\"value\":\"\",\"if_match\":\"x\"}",
        "{\"op\":\"put\",\"key\":\"b\",\"value\":\"\",\"if_match\":\"*\",\"if_none_match\":\"*\"}",
        // What only the owners' agreement could promise.
        "{\"op\":\"put\",\"key\":\"b\",\"value\":\"\",\"if_none_match\":\"*\"}",
    ];
    let mut body = String::new();
    for (number, line) in bad.iter().enumerate() {
        body += &format!("{line}\n\n{}\r\n", json!({"op": "put", "key": format!("good{number}"), "value": "v"}));
    }
    let answers = lines(&client.send(&batch("", body)));
    assert_eq!(answers.len(), 2 * bad.len());
    for (at, two) in answers.chunks(2).enumerate() {
        assert_eq!(two[0]["status"], 400, "{} {}", bad[at], two[0]);
        assert!(two[0]["error"].is_string() && two[0]["hint"].is_string(), "{}", two[0]);
        assert_eq!((&two[1]["status"], &two[1]["key"]), (&json!(201), &json!(format!("good{at}"))));
    }
    client.get("/kv/b").expect(404);
    let large = ask(
        &mut client,
        "",
        &[json!({"op": "put", "key": "c", "value": long}), json!({"op": "put", "key": "c", "value": "v"})],
    );
    assert_eq!(statuses(&large), [413, 201]);
    let binary =
        lines(&client.send(&batch("", [&[0xff, 0xfe, b'\n'][..], b"{\"op\":\"get\",\"key\":\"c\"}"].concat())));
    assert_eq!(statuses(&binary), [400, 200]);
    assert_eq!(lines(&client.send(&batch("", ""))), Vec::<Value>::new());
    node.assert_alive();
}

#[test]
fn a_batch_that_is_too_large_is_refused_whole_and_early() {
    let node = Node::in_memory();
    let mut client = node.client();
    let line = format!("{}\n", json!({"op": "put", "key": "k", "value": "v"}));
    client.send(&batch("", line.repeat(10_001))).refusal(400);
    client.get("/kv/k").expect(404);
    let declared = Request::new("POST", "/batch").header("Content-Length", "67108865");
    client.send(&declared).refusal(413);
    let mut client = node.client();
    client.send(&batch("?r=1&w=1&x=1", "")).refusal(400);
    client.send(&Request::new("GET", "/batch")).refusal(405);
    let all: Vec<Value> = lines(&client.send(&batch("", line.repeat(10_000))));
    assert_eq!((all.len(), &all[0]["status"], &all[9_999]["status"]), (10_000, &json!(201), &json!(204)));
    node.assert_alive();
}

#[test]
fn values_larger_than_memory_should_hold_come_back_in_parts() {
    let node = Node::in_memory();
    let mut client = node.client();
    let value = "v".repeat(4 << 20);
    for number in 0..8 {
        client.put(&format!("/kv/{number}"), value.clone()).expect(201);
    }
    let body: String =
        (0..400).map(|number| json!({"op": "get", "key": (number % 8).to_string()}).to_string() + "\n").collect();
    let mut stream = connect(&node.address(), Duration::from_secs(20)).expect("a connection");
    write!(
        stream,
        "POST /batch HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let before = node.resident_bytes();
    let mut most = 0;
    let mut came = 0u64;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = std::io::Read::read(&mut stream, &mut buffer).expect("the answer");
        came += count as u64;
        if count == 0 {
            break;
        }
        most = most.max(node.resident_bytes());
    }
    assert!(came > 400 * value.len() as u64, "{came} bytes came");
    assert!(most < before + (1_400 << 20), "from {before} to {most} bytes");
}

// ---- several nodes

#[test]
fn a_batch_is_done_in_every_mode_and_conditions_hold_where_owners_agree() {
    let cluster = Cluster::start(5, &QUICK);
    for (at, mode) in ["sloppy", "async", "quorum", "sync", "chain"].into_iter().enumerate() {
        let mut client = cluster.client(at);
        let key = |number: usize| format!("{mode}{number}");
        let puts: Vec<Value> =
            (0..100).map(|number| json!({"op": "put", "key": key(number), "value": number.to_string()})).collect();
        let query = format!("?mode={mode}");
        assert_eq!(statuses(&ask(&mut client, &query, &puts)), [201; 100], "{mode}");
        let gets: Vec<Value> = (0..100).map(|number| json!({"op": "get", "key": key(number)})).collect();
        for (number, got) in ask(&mut client, &query, &gets).iter().enumerate() {
            assert_eq!(got["value"], number.to_string(), "{mode}: {got}");
        }
        let adds: Vec<Value> = (0..50).map(|number| json!({"op": "incr", "key": key(number % 5), "by": 1})).collect();
        let counted = ask(&mut client, &query, &adds);
        assert!(
            counted[45..].iter().enumerate().all(|(number, one)| one["value"] == number + 10),
            "{mode}: {counted:?}"
        );
    }
    let mut client = cluster.client(0);
    let made =
        ask(&mut client, "?mode=quorum", &[json!({"op": "put", "key": "lock", "value": "1", "if_none_match": "*"})]);
    let etag = &made[0]["etag"];
    let answers = ask(
        &mut client,
        "?mode=quorum",
        &[
            json!({"op": "put", "key": "lock", "value": "2", "if_none_match": "*"}),
            json!({"op": "put", "key": "lock", "value": "3", "if_match": etag}),
            json!({"op": "delete", "key": "lock", "if_match": etag}),
            json!({"op": "delete", "key": "lock", "if_match": "*"}),
        ],
    );
    assert_eq!((statuses(&made), statuses(&answers)), (vec![201], vec![412, 204, 412, 204]));
    assert_eq!(&answers[0]["etag"], etag, "the version there is");
    assert_eq!(
        statuses(&ask(&mut client, "?mode=quorum&w=1", &[json!({"op": "put", "key": "k", "value": ""})])),
        [400]
    );
}

#[test]
fn a_hundred_writes_go_to_a_peer_in_a_few_messages() {
    let cluster = Cluster::behind_proxies(3, &["--memory", "--syncfreq", "3600"]);
    let mut client = cluster.client(0);
    let puts = |round: &str| -> Vec<Value> {
        (0..100).map(|number| json!({"op": "put", "key": format!("{round}{number}"), "value": "v"})).collect()
    };
    // Links are made, and the members found alive, before it counts.
    assert_eq!(statuses(&ask(&mut client, "?w=3", &puts("first"))), [201; 100]);
    let counted = |act: &mut dyn FnMut()| {
        let count = || [1, 2].map(|peer| cluster.proxy(peer).writes());
        let before = count();
        act();
        let after = count();
        [after[0] - before[0], after[1] - before[1]]
    };
    let together = counted(&mut || assert_eq!(statuses(&ask(&mut client, "?w=3", &puts("batch"))), [201; 100]));
    let mut client = cluster.client(0);
    let alone = counted(&mut || {
        (0..100).for_each(|number| drop(client.put(&format!("/kv/alone{number}?w=3"), "v").expect(201)));
    });
    assert!(together.iter().all(|messages| (1..=8).contains(messages)), "{together:?} messages for one batch");
    assert!(alone.iter().all(|messages| *messages >= 100), "{alone:?} messages for writes one by one");
}

#[test]
fn each_line_says_how_far_its_own_write_got_when_owners_are_dead() {
    let mut cluster = Cluster::start(5, &QUICK);
    cluster.nodes[3].kill();
    cluster.nodes[4].kill();
    let mut client = cluster.client(0);
    let puts = |mode: &str| -> Vec<Value> {
        (0..200).map(|number| json!({"op": "put", "key": format!("{mode}{number}"), "value": "v"})).collect()
    };
    let sloppy = ask(&mut client, "", &puts("sloppy"));
    for answer in &sloppy {
        let (status, acked) = (answer["status"].as_u64(), answer["replicas"]["acked"].as_u64());
        assert_eq!(status == Some(201), acked >= Some(2), "{answer}");
        assert!(matches!(status, Some(201 | 202)), "{answer}");
    }
    let quorum = statuses(&ask(&mut client, "?mode=quorum", &puts("quorum")));
    assert!(quorum.contains(&201) && quorum.contains(&503), "{quorum:?}");
    for (number, status) in quorum.into_iter().enumerate() {
        let read = client.get(&format!("/kv/{}?mode=quorum", encode(format!("quorum{number}")))).status;
        assert_eq!(read, if status == 201 { 200 } else { 503 });
    }
}
