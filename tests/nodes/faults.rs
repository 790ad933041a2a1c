//! `/faults`: networks cut on purpose, what a cluster makes of it meanwhile, and that it heals.

use crate::support;

use serde_json::{Value, json};
use std::time::Duration;
use support::cluster::Cluster;
use support::http::{Answer, Request};
use support::node::{Node, Plan};
use support::{eventually, replicas};

/// Peers are found gone, and compared with, within seconds.
const FLAGS: [&str; 7] = ["--faults", "--timeout", "1", "--pingfreq", "0.2", "--syncfreq", "0.5"];
/// Long enough for whatever a busy machine makes of it.
const SOON: Duration = Duration::from_secs(60);

fn cut(node: &Node, from: &[&str]) -> Answer {
    node.client().send(&Request::new("PUT", "/faults").json(&json!({ "cut": from })))
}

fn url(node: &Node) -> String {
    format!("http://{}", node.address())
}

fn told(node: &Node) -> Value {
    node.get("/status").expect(200).json()["faults"].clone()
}

#[track_caller]
fn await_equal(cluster: &Cluster) {
    eventually("no hint is left, and every pair of nodes is equal", SOON, || {
        let left = cluster.nodes.iter().map(|node| node.get("/status").json()["hints"]["count"].clone());
        match left.filter(|count| *count != 0).collect::<Vec<_>>() {
            left if left.is_empty() => cluster.first_difference().map_or(Ok(()), Err),
            left => Err(format!("{left:?} hints")),
        }
    });
}

#[test]
fn without_the_flag_nothing_can_be_cut() {
    let node = Node::in_memory();
    let refused = cut(&node, &[]).refusal(403);
    assert!(refused.json()["hint"].as_str().is_some_and(|hint| hint.contains("--faults")), "{refused}");
    node.get("/faults").refusal(403);
    assert_eq!(told(&node), Value::Null);
}

#[test]
fn a_cut_from_nobody_known_or_from_the_node_itself_is_refused_and_changes_nothing() {
    let cluster = Cluster::start(2, &FLAGS);
    let (node, other) = (&cluster.nodes[0], &cluster.nodes[1]);
    let names = cut(node, &[&url(other)]).expect(200).json();
    assert_eq!(names["cut"].as_array().map(Vec::len), Some(1), "{names}");
    let itself = [url(node), node.id().to_string()];
    for from in ["nobody", "http://127.0.0.1:1", &itself[0], &itself[1]] {
        cut(node, &[&url(other), from]).refusal(400);
    }
    for body in ["", "[]", "{}", "{\"cut\":\"n\"}", "{\"cut\":[],\"heal\":true}"] {
        node.client().send(&Request::new("PUT", "/faults").body(body)).refusal(400);
    }
    assert_eq!((told(node), node.get("/faults").expect(200).json()), (names.clone(), names));
    // A page of another site may not.
    let foreign = Request::new("PUT", "/faults").header("Origin", "http://elsewhere").json(&json!({ "cut": [] }));
    node.client().send(&foreign).refusal(403);
}

#[test]
fn one_node_that_is_told_to_is_cut_off_in_both_directions_and_everything_converges_after_the_heal() {
    let cluster = Cluster::start(3, &FLAGS);
    let [alone, left, right] = [0, 1, 2].map(|index| &cluster.nodes[index]);
    alone.put("/kv/before?mode=quorum", "v").expect(201);
    let (by_url, by_id) = (url(left), right.id().to_string());
    let answered = cut(alone, &[&by_url, &by_id, &by_url]).expect(200).json();
    assert_eq!(answered["cut"].as_array().map(Vec::len), Some(2), "each once: {answered}");
    assert_eq!((told(alone), told(left)), (answered, json!({ "cut": [] })));
    // The others were told nothing, and hear nothing.
    cluster.await_gone(&[&[0], &[1, 2]]);
    assert!(alone.log().contains("cut off from"), "{}", alone.log());
    // Those that agree go on where a majority is, and refuse where none is.
    left.put("/kv/agreed?mode=quorum", "by two").expect(201);
    for mode in ["quorum", "sync", "chain"] {
        alone.put(&format!("/kv/agreed?mode={mode}"), "by one").refusal(503);
        alone.get(&format!("/kv/before?mode={mode}")).refusal(503);
    }
    left.put("/kv/before?mode=sync", "by two").refusal(503);
    // Those that don't go on everywhere, with hints.
    let here = alone.put("/kv/here", "v").expect(202);
    assert_eq!((replicas(&here)["acked"], replicas(&here)["hinted"]), (1, 2), "{here}");
    let there = right.put("/kv/there", "v").expect(201);
    assert_eq!(replicas(&there)["acked"], 2, "{there}");
    for node in [alone, right] {
        let counted = node.client().send(&Request::new("POST", "/counters/visits"));
        assert!(counted.status < 300, "{counted}");
    }
    assert_eq!((cluster.held_by(1, "here"), cluster.held_by(0, "there")), (None, None), "nothing comes through");
    assert_eq!(cut(alone, &[]).expect(200).json(), json!({ "cut": [] }));
    await_equal(&cluster);
    for node in &cluster.nodes {
        for (key, value) in [("agreed", "by two"), ("here", "v"), ("there", "v"), ("visits", "2")] {
            assert_eq!(node.get(&format!("/kv/{key}?r=3")).expect(200).text(), value, "{key}");
        }
    }
    assert!(alone.log().contains("no longer cut off"), "{}", alone.log());
    eventually("all agree again", SOON, || {
        let answer = alone.put("/kv/agreed?mode=sync", "by three");
        if answer.status == 204 { Ok(()) } else { Err(answer.to_string()) }
    });
}

#[test]
fn two_that_are_cut_from_each_other_alone_go_on_by_way_of_the_third() {
    let cluster = Cluster::start(3, &FLAGS);
    let [one, other, third] = [0, 1, 2].map(|index| &cluster.nodes[index]);
    cut(one, &[&url(other)]).expect(200);
    for node in [one, other, third] {
        eventually("a majority is in reach", SOON, || {
            let answer = node.put(&format!("/kv/by-{}?mode=quorum", node.port()), "v");
            if answer.status < 300 { Ok(()) } else { Err(answer.to_string()) }
        });
    }
    // Of the other alone no ping is answered.
    eventually("one knows whom it cannot hear", SOON, || {
        let members = one.get("/status").json()["members"].clone();
        let error_of = |node: &Node| {
            let all = members.as_array().expect("members").iter();
            all.filter(|member| member["id"] == json!(node.id().to_string()) && !member["last_error"].is_null()).count()
        };
        let found = [one, other, third].map(error_of);
        if found == [0, 1, 0] { Ok(()) } else { Err(members.to_string()) }
    });
    cut(one, &[]).expect(200);
    await_equal(&cluster);
}

#[test]
fn a_node_that_is_no_member_yet_is_cut_off_by_its_url_and_joins_after_a_restart_has_healed_it() {
    let mut founder = Plan::new(&FLAGS).start();
    let fresh = Plan::new(&FLAGS).flag("--peers", url(&founder)).flag("--join", "manual").spawn();
    eventually("what it is asked it passes on", SOON, || {
        let passed = fresh.client().try_send(&Request::new("PUT", "/kv/passed").body("v"));
        if passed.as_ref().is_ok_and(|answer| answer.status < 300) { Ok(()) } else { Err(format!("{passed:?}")) }
    });
    cut(&founder, &[&url(&fresh)]).expect(200);
    fresh.client().send(&Request::new("POST", "/cluster/join")).expect(200);
    fresh.put("/kv/held-back", "v").refusal(503);
    founder.get("/kv/held-back").expect(404);
    assert_eq!(founder.get("/cluster").json()["members"].as_array().map(Vec::len), Some(1));
    // Called the same, it is known although it cannot be heard.
    let port = format!("localhost:{}", fresh.port());
    assert_eq!(cut(&founder, &[&port]).expect(200).json()["cut"].as_array().map(Vec::len), Some(1));
    founder.kill();
    founder.restart();
    assert_eq!(told(&founder), json!({ "cut": [] }));
    eventually("it is a member", SOON, || {
        let cluster = founder.get("/cluster").json();
        let members = cluster["members"].as_array().map_or(0, Vec::len);
        if members == 2 && cluster["changing"] == false { Ok(()) } else { Err(cluster.to_string()) }
    });
}
