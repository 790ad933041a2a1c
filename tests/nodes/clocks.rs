//! Clocks that are wrong: stamps from the future poison nothing, and stamps rise whatever the clock does.

use crate::support;

use kringle::placement::NodeId;
use kringle::protocol::{Answer, Reply};
use kringle::record::{Actor, Content, Context, Dot, Key, Record, Seen, Stamp, context_to_token};
use serde_json::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::clock::FalseClock;
use support::cluster::Cluster;
use support::http::Request;
use support::node::{Node, Plan};
use support::{eventually, peer};

const HOUR_MS: u64 = 3_600_000;
/// What an honest stamp may be off in these tests, a busy machine included.
const HONEST_MS: u64 = 30_000;
const SOON: Duration = Duration::from_secs(30);

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis() as u64
}

fn stamp_of(node: &Node, key: &str) -> Stamp {
    let listed = node.get(&format!("/kv/{key}?siblings=1")).expect(200).json();
    let hex = listed["siblings"][0]["stamp"].as_str().expect("a stamp").to_owned();
    Stamp(u64::from_str_radix(&hex, 16).expect("a stamp in hex"))
}

#[track_caller]
fn assert_honest(stamp: Stamp) {
    let off = stamp.ms().abs_diff(now_ms());
    assert!(off <= HONEST_MS, "{stamp} is {off} ms off");
}

fn record_at(ms: u64, value: &'static str) -> Record {
    let dot = Dot { stamp: Stamp::from_ms(ms), actor: Actor(99) };
    Record::default().write(&Seen::Everything, dot, Some(Content::plain(value))).expect("a first write")
}

/// What a peer with such a clock would send.
fn send(node: &Node, stamp: Stamp, requests: Vec<kringle::protocol::Request>) -> Vec<Answer> {
    let mut client = node.client();
    let batch = peer::post_as_member(&mut client, "/replicate", NodeId(1), stamp, requests);
    let answer = client.send(&batch).expect(200);
    Reply::decode(&answer.body).expect("a reply").0.answers.expect("answers")
}

#[test]
fn a_context_from_the_future_is_refused_and_moves_no_clock() {
    let node = Node::on_disk();
    node.put("/kv/a", "1").expect(201);
    let ahead = Context::from_sorted(vec![(Actor(7), Stamp::from_ms(now_ms() + HOUR_MS))]).expect("one entry");
    let token = context_to_token(&Key::new("a").expect("a key"), &ahead);
    let put = Request::new("PUT", "/kv/a").header("Kringle-Context", token.as_str()).body("2");
    let refused = node.client().send(&put).refusal(400);
    assert!(refused.text().contains("ahead"), "{refused}");
    let delete = Request::new("DELETE", "/kv/a").header("Kringle-Context", token.as_str());
    node.client().send(&delete).refusal(400);
    assert_eq!(node.get("/kv/a").expect(200).text(), "1");
    node.put("/kv/a", "3").expect(204);
    assert_honest(stamp_of(&node, "a"));
}

#[test]
fn stamps_from_the_future_that_peers_send_are_left_outside_and_honest_ones_beside_them_come_in() {
    let mut node = Node::on_disk();
    let merge = |key: &str, ms: u64| kringle::protocol::Request::Merge {
        key: Key::new(key.to_owned()).expect("a key"),
        record: record_at(ms, "theirs"),
    };
    let far = now_ms() + HOUR_MS;
    let answers = send(&node, Stamp::from_ms(far), vec![merge("poison", far), merge("honest", now_ms())]);
    assert!(matches!(&answers[0], Answer::Refused(refusal) if refusal.to_string().contains("ahead")), "{answers:?}");
    assert!(matches!(answers[1], Answer::Merged { applied: true, .. }), "{answers:?}");
    node.get("/kv/poison").expect(404);
    assert_eq!(node.get("/kv/honest").expect(200).text(), "theirs");
    for (round, again) in [false, true].into_iter().enumerate() {
        if again {
            node.kill();
            node.restart();
        }
        node.put(&format!("/kv/own{round}"), "v").expect(201);
        assert_honest(stamp_of(&node, &format!("own{round}")));
    }
}

#[test]
fn a_stamp_that_is_believed_is_exceeded_also_after_a_restart_while_the_clock_is_behind_it() {
    let mut node = Node::on_disk();
    let ahead = now_ms() + 50_000;
    let key = Key::new("a").expect("a key");
    let merge = kringle::protocol::Request::Merge { key, record: record_at(ahead, "theirs") };
    let answers = send(&node, Stamp(0), vec![merge]);
    assert!(matches!(answers[0], Answer::Merged { applied: true, .. }), "{answers:?}");
    let mut last = Stamp::from_ms(ahead);
    for round in 0..30 {
        if round % 10 == 5 {
            node.kill();
            node.restart();
        }
        node.put("/kv/a", round.to_string()).expect(204);
        let read = node.get("/kv/a").expect(200);
        assert_eq!((read.text(), read.must("Kringle-Siblings")), (round.to_string(), "1"), "the last writer wins");
        let stamp = stamp_of(&node, "a");
        assert!(stamp > last, "{stamp} after {last}");
        last = stamp;
    }
}

#[test]
fn stamps_rise_while_the_clock_jumps_back_or_stands_still() {
    let clock = FalseClock::new("+0");
    let mut node = Plan::new(&[]).under(clock.under()).start();
    let mut last = Stamp(0);
    let mut rises = |node: &Node, what: &str| {
        for round in 0..20 {
            node.put("/kv/a", format!("{what}{round}"));
            assert_eq!(node.get("/kv/a").expect(200).text(), format!("{what}{round}"), "the last writer wins");
            let stamp = stamp_of(node, "a");
            assert!(stamp > last, "{what}: {stamp} after {last}");
            last = stamp;
        }
        last
    };
    assert_honest(rises(&node, "right"));
    clock.set(&format!("-{HOUR_MS}"));
    let back = rises(&node, "an hour back");
    assert_honest(back);
    node.kill();
    node.restart();
    rises(&node, "an hour back, after a restart");
    clock.set(&format!("={}", now_ms() - 1_000));
    let still = rises(&node, "standing still");
    clock.set("=0");
    rises(&node, "in 1970");
    assert!(still.ms() - back.ms() < HONEST_MS);
    clock.set("+0");
    assert_honest(rises(&node, "right again"));
}

#[test]
fn a_node_whose_clock_is_an_hour_ahead_passes_writes_on_and_colours_no_stamp() {
    let clock = FalseClock::new("+0");
    let mut cluster = Cluster::start(3, &["--pingfreq", "0.2", "--timeout", "2", "--syncfreq", "0.5"]);
    cluster.nodes[2].kill();
    cluster.nodes[2].replan(|plan| plan.under(clock.under()));
    clock.set(&format!("+{HOUR_MS}"));
    cluster.nodes[2].restart();
    let ahead = || cluster.client(2).get("/status").json()["clock"]["ahead_ms"].as_u64().unwrap_or(0);
    eventually("it knows that its clock is wrong", SOON, || {
        let ms = ahead();
        (ms.abs_diff(HOUR_MS) < HONEST_MS).then_some(()).ok_or(format!("{ms} ms"))
    });
    for number in 0..30 {
        let index = [2, 2, 0][number % 3];
        cluster.client(index).put(&format!("/kv/k{number}?w=3"), "v").expect(201);
        assert_honest(stamp_of(&cluster.nodes[index], &format!("k{number}")));
    }
    // A lone pair is kept there under the stamp it makes, and nobody else takes it over.
    let pair = r#"{"key": "poison", "value": "from the future"}"#;
    cluster.client(2).send(&Request::new("POST", "/replicate").body(pair)).expect(200);
    assert!(cluster.held_by(2, "poison").is_some());
    cluster.client(2).send(&Request::new("POST", "/sync")).expect(200);
    for index in 0..2 {
        assert_eq!(cluster.held_by(index, "poison"), None, "node {index}");
        cluster.client(index).put(&format!("/kv/since{index}?w=3"), "v").expect(201);
        assert_honest(stamp_of(&cluster.nodes[index], &format!("since{index}")));
    }
    // Its own stamps stay in the future after its clock was put right, and so it goes on passing writes on.
    clock.set("+0");
    for number in 0..30 {
        cluster.client(2).put(&format!("/kv/k{number}?w=2"), "w").expect(204);
        assert_honest(stamp_of(&cluster.nodes[0], &format!("k{number}")));
    }
    let warned: Vec<Value> = cluster.client(2).get("/status").json()["events"].as_array().expect("events").clone();
    assert_eq!(warned.iter().filter(|event| event["kind"] == "clock").count(), 1, "{warned:?}");
}

#[test]
fn a_node_whose_clock_is_an_hour_behind_says_so_and_takes_what_was_written_once_it_is_right() {
    let clock = FalseClock::new("+0");
    let mut cluster = Cluster::start(3, &["--pingfreq", "0.2", "--timeout", "2", "--syncfreq", "0.5"]);
    cluster.nodes[2].kill();
    // What it has kept would tell it the time.
    std::fs::remove_dir_all(cluster.nodes[2].data()).expect("its folder");
    cluster.nodes[2].replan(|plan| plan.under(clock.under()));
    clock.set(&format!("-{HOUR_MS}"));
    cluster.nodes[2].restart();
    let status = || cluster.client(2).get("/status").json();
    eventually("it knows that its clock is wrong", SOON, || {
        let ms = status()["clock"]["behind_ms"].as_u64().unwrap_or(0);
        (ms.abs_diff(HOUR_MS) < HONEST_MS).then_some(()).ok_or(format!("{ms} ms"))
    });
    assert_eq!(status()["clock"]["ahead_ms"], 0);
    cluster.client(0).put("/kv/a?w=2", "v").expect(201);
    assert_honest(stamp_of(&cluster.nodes[0], "a"));
    let said = || -> Vec<String> {
        let events = status()["events"].as_array().cloned().unwrap_or_default();
        let clock = events.iter().filter(|event| event["kind"] == "clock");
        clock.map(|event| event["text"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let warned = said();
    assert!(warned.len() == 1 && warned[0].contains("behind most peers'"), "{warned:?}");
    assert_eq!(cluster.held_by(2, "a"), None);
    clock.set("+0");
    eventually("it is up to date", SOON, || {
        cluster.held_by(2, "a").map(|_| ()).ok_or_else(|| status()["sync"].to_string())
    });
    eventually("it says so", SOON, || (said().len() == 2).then_some(()).ok_or_else(|| format!("{:?}", said())));
}
