//! A cluster that loses its nodes one by one: every verb goes on with whoever lives.

use crate::foreign::Foreign;
use crate::kit::{LIMIT, User, url};
use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::http::Request;
use crate::support::node::{Node, reserve_port};
use crate::support::proxy::{Fault, Proxy, Way};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

const QUICK: [&str; 5] = ["--memory", "--pingfreq", "0.5", "--timeout", "3"];

#[test]
fn as_long_as_one_node_lives_keys_are_written_read_counted_and_listed() {
    let mut cluster = Cluster::start(3, &QUICK);
    let user = User::of(&cluster.nodes);
    let mut written = BTreeSet::new();
    for round in 0..3 {
        let key = format!("round-{round}");
        user.run(&["put", &key, "x", "--timeout", "30"]).ok();
        written.insert(key);
        for key in &written {
            assert_eq!(user.run(&["get", key, "--timeout", "30"]).ok().text(), "x", "{key} in round {round}");
        }
        user.run(&["incr", &format!("count-{round}"), "--timeout", "30"]).ok();
        let listed = eventually("the list is whole", LIMIT, || {
            let said = user.run(&["list", "round-", "--timeout", "30"]);
            if said.code == Some(0) { Ok(said.text()) } else { Err(said.to_string()) }
        });
        let listed: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
        assert_eq!(listed, written, "in round {round}");
        // The one that is asked first.
        cluster.nodes[round].kill();
    }
    let said = user.run(&["get", "round-0"]).expect(5);
    assert_eq!(said.why().matches("nobody listens there").count(), 3, "each is named: {said}");
}

#[test]
fn a_count_whose_answer_is_lost_is_asked_of_another_node_and_counts_once() {
    let cluster = Cluster::start(3, &QUICK);
    let deaf = Proxy::before(&cluster.nodes[0].address());
    // The node counts, and what it says is lost.
    deaf.set(Fault::Cut(Way::FromNode, 0));
    let endpoints = [format!("http://{}", deaf.address()), url(&cluster.nodes[1])].join(",");
    let user = User::new().with("KRINGLE_ENDPOINTS", endpoints);
    assert_eq!(user.run(&["incr", "n", "--mode", "quorum"]).ok().text(), "1\n");
    assert_eq!(cluster.client(2).get("/counters/n?mode=quorum").json()["value"], 1);
    // A plain write is not made twice: nobody knows whether it was made.
    assert!(user.run(&["put", "k", "v"]).expect(6).why().contains("not known"));
    assert_eq!(cluster.client(2).get("/kv/k").expect(200).must("Kringle-Siblings"), "1");
    // Nor is a count that the other node may not have heard of: it is repeated under its name.
    let said = user.run(&["incr", "s"]).expect(6);
    let id = said.talk.split_once("--id ").and_then(|(_, behind)| behind.split([':', ' ']).next()).expect("a name");
    eventually("it has arrived", LIMIT, || match cluster.client(1).get("/counters/s?r=3").text() {
        text if text.contains(":1}") => Ok(()),
        text => Err(text),
    });
    assert_eq!(user.run(&["incr", "s", "--id", id]).ok().text(), "1\n", "{said}");
}

#[test]
fn a_count_that_may_have_been_made_is_told_as_unknown_whatever_other_endpoints_say() {
    let node = Node::in_memory();
    let deaf = Proxy::before(&node.address());
    deaf.set(Fault::Cut(Way::FromNode, 0));
    let deaf = format!("http://{}", deaf.address());
    let busy = Foreign::saying(503, r#"{"error":"full","hint":"nothing was stored"}"#);
    let nobody = format!("http://127.0.0.1:{}", reserve_port());
    let judging = Foreign::saying(400, r#"{"error":"no number","hint":""}"#);
    for others in [vec![], vec![busy.url()], vec![nobody.clone()], vec![busy.url(), nobody.clone()]] {
        let endpoints = [vec![deaf.clone()], others].concat().join(",");
        let said = User::new().run(&["-e", &endpoints, "incr", "n", "--id", "one"]).expect(6);
        assert!(said.why().contains("not known") && said.talk.contains("--id one"), "{said}");
    }
    assert_eq!(node.get("/counters/n").json()["value"], 1);
    // What was never sent, or judged for what it is, is told as before.
    let of = |endpoints: &[String]| User::new().run(&["-e", &endpoints.join(","), "incr", "n", "--id", "two"]);
    assert!(of(&[busy.url(), nobody.clone()]).expect(5).talk.contains("nothing was stored"));
    assert_eq!(of(&[nobody]).expect(5).why().matches("nobody listens there").count(), 1);
    of(&[deaf, judging.url()]).expect(2);
}

#[test]
fn a_write_to_a_machine_that_takes_no_connection_is_known_to_have_changed_nothing() {
    let full = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = full.local_addr().expect("an address");
    // What is beyond the queue of those that wait to be accepted is dropped, as by a machine that is gone.
    rustix::net::listen(&full, 0).expect("a short queue");
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
        waiting.push(stream);
        assert!(waiting.len() < 100, "the queue has an end");
    }
    for words in [&["put", "k", "v"][..], &["incr", "n", "--id", "one"]] {
        let said = User::new().run(&[&["-e", &format!("http://{address}"), "--timeout", "2"], words].concat());
        assert!(said.expect(5).why().contains("does not take the connection"), "{words:?}");
    }
}

#[test]
fn a_watch_goes_on_with_a_node_that_nobody_named() {
    let mut cluster = Cluster::start(3, &QUICK);
    let user = User::of(&cluster.nodes[..1]);
    let watching = user.start(&["watch", "k", "--values", "-o", "json"]);
    let mut seen = 0;
    // Written until it is told: the watch may be about to begin.
    eventually("the first is told", LIMIT, || {
        cluster.nodes[1].put("/kv/k1", "one");
        if watching.out().contains("\"value\":\"one\"") { Ok(()) } else { Err(watching.talk()) }
    });
    cluster.nodes[0].kill();
    watching.await_talk("going on with another node");
    eventually("changes are told by another", LIMIT, || {
        seen += 1;
        cluster.nodes[1].put("/kv/k2", format!("two-{seen}"));
        if watching.out().contains("\"value\":\"two-") { Ok(()) } else { Err(watching.talk()) }
    });
    assert!(watching.out().lines().all(|line| line.starts_with('{')), "gaps are talk: {}", watching.out());
}

#[test]
fn a_watch_ends_after_as_many_as_were_asked_for_and_a_poll_says_where_the_next_begins() {
    let cluster = Cluster::start(1, &["--memory"]);
    let user = User::of(&cluster.nodes);
    let said = user.run(&["watch", "--wait", "0.1"]).ok();
    let since_of = |talk: &str| talk.lines().find_map(|line| line.strip_prefix("since: ")).expect("an id").to_owned();
    let since = since_of(&said.talk);
    for value in ["1", "2"] {
        user.run(&["put", "k", value]).ok();
    }
    user.run(&["del", "k"]).ok();
    let (mut told, mut next) = (String::new(), since.clone());
    while told.lines().count() < 3 {
        let said = user.run(&["watch", "--since", &next, "--wait", "60", "--timeout", "60"]).ok();
        assert!(!said.out.is_empty(), "nothing more than {told:?}: {said}");
        told += &said.text();
        next = since_of(&said.talk);
    }
    assert_eq!(told.lines().collect::<Vec<_>>(), ["put     k", "put     k", "delete  k"]);
    let said = user.run(&["watch", "--since", &since, "--count", "2"]).ok();
    assert_eq!(said.text(), "put     k\nput     k\n", "{said}");
    user.run(&["watch", "--since", "nonsense", "--count", "1"]).expect(2);
    let events = user.run(&["watch", "--events", "--wait", "0.1"]).ok();
    assert!(events.talk.contains("since: "), "{events}");
}

#[test]
fn a_list_goes_on_where_another_node_broke_off() {
    let cluster = Cluster::start(3, &QUICK);
    let lines: Vec<String> =
        (0..3_000).map(|n| json!({"op": "put", "key": format!("k{n:05}"), "value": "x"}).to_string()).collect();
    cluster.client(1).send(&Request::new("POST", "/batch").body(lines.join("\n"))).expect(200);
    let breaking = Proxy::before(&cluster.nodes[0].address());
    // Through the questions before it, and some way into the list, each time it is asked.
    breaking.set(Fault::Cut(Way::FromNode, 60_000));
    let user = User::new().with("KRINGLE_ENDPOINTS", format!("http://{}", breaking.address()));
    let said = user.run(&["list", "k", "--timeout", "20"]).ok();
    let listed: Vec<String> = said.text().lines().map(str::to_owned).collect();
    let expected: Vec<String> = (0..3_000).map(|n| format!("k{n:05}")).collect();
    assert!(listed == expected, "{} of 3000, each once, in order; {}", listed.len(), said.talk);
    assert!(said.talk.contains("going on from there"), "{}", said.talk);
    let said = user.run(&["list", "k", "-n", "2500", "--timeout", "20"]).ok();
    assert_eq!(said.text().lines().count(), 2_500, "{}", said.talk);
}

#[test]
fn a_node_that_hangs_keeps_nobody_from_an_answer() {
    let cluster = Cluster::start(3, &QUICK);
    let user = User::of(&cluster.nodes);
    user.run(&["put", "a", "1"]).ok();
    cluster.nodes[0].pause();
    assert_eq!(user.run(&["get", "a", "--timeout", "30"]).ok().text(), "1");
    eventually("it is told of", LIMIT, || match user.run(&["status", "--timeout", "15"]) {
        said if said.code == Some(8) && said.text().lines().count() == 4 => Ok(()),
        said => Err(said.to_string()),
    });
    cluster.nodes[0].resume();
}
