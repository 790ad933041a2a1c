//! Joining and leaving: shares, what moves, and that clients notice nothing.

use super::kit::{QUICK, SOON, Town, await_layout, json_put, layout_of};
use super::support::http::Request;
use super::support::node::Node;
use super::support::{eventually, seed};
use super::watchers::Watchers;
use serde_json::json;
use std::time::Duration;

#[test]
fn a_newcomer_takes_its_share_and_nothing_else_moves() {
    const KEYS: usize = 3_000;
    let mut town = Town::start(3, &QUICK);
    town.fill(KEYS);
    let newcomer = town.grow();
    town.await_tidy();
    let cluster = layout_of(&town.nodes[0]);
    for member in cluster["members"].as_array().unwrap() {
        let (share, keys) = (member["share"].as_f64().unwrap(), member["keys"].as_u64().unwrap());
        assert!((share - 0.25).abs() < 0.025, "{member}");
        assert!((keys as f64 / KEYS as f64 - 0.75).abs() < 0.08, "{member}");
    }
    assert_eq!(town.copies(), 3 * KEYS as u64, "old copies are gone");
    // What it keeps was sent once, and what it does not keep was not.
    let status = town.nodes[newcomer].get("/status").expect(200).json();
    let (pulled, kept) = (status["sync"]["pulled"].as_u64().unwrap(), status["store"]["keys"].as_u64().unwrap());
    assert!(pulled as f64 <= 1.05 * kept as f64, "{pulled} records came for {kept} keys");
    let sent: u64 = town.nodes[..3].iter().map(pushed).sum();
    assert!(sent as f64 <= 0.05 * kept as f64, "{sent} records were sent beside that");
    for node in &town.nodes {
        town.assert_filled(node, KEYS);
    }
}

fn pushed(node: &Node) -> u64 {
    node.get("/status").expect(200).json()["sync"]["pushed"].as_u64().unwrap()
}

#[test]
fn a_lone_node_becomes_two_and_three_and_each_key_is_then_on_all() {
    let mut town = Town::start(1, &QUICK);
    town.fill(500);
    town.grow();
    town.grow();
    town.await_tidy();
    assert_eq!(town.copies(), 1_500);
    for node in &town.nodes {
        town.assert_filled(node, 500);
        assert_eq!(node.get("/store/hash").expect(200).json()["keys"], json!(500));
    }
}

#[test]
fn whoever_leaves_hands_over_first_passes_requests_on_and_stays_away_until_it_is_told_to_join() {
    let mut town = Town::start(4, &QUICK);
    town.fill(1_000);
    let mut gone = town.let_leave(1);
    town.await_tidy();
    assert_eq!(town.copies(), 3_000);
    town.assert_filled(&gone, 1_000);
    gone.put("/kv/through-the-one-that-left", "v").expect(201);
    assert_eq!(town.nodes[0].get("/kv/through-the-one-that-left").expect(200).text(), "v");
    eventually("it keeps nothing", SOON, || {
        let keys = gone.get("/status").expect(200).json()["store"]["keys"].as_u64();
        if keys == Some(0) { Ok(()) } else { Err(format!("{keys:?} keys")) }
    });
    gone.get("/kv/through-the-one-that-left?local=1").refusal(503);
    let ready = gone.get("/readyz").expect(503).json();
    assert!(ready["checks"]["member"].as_str().unwrap().contains("no member"), "{ready}");
    gone.kill();
    gone.relaunch();
    let ping = Request::new("GET", "/ping");
    eventually("it runs again", SOON, || gone.client().try_send(&ping).map_err(|error| error.to_string()));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(layout_of(&gone)["member"], json!(false), "it is not taken in again by itself");
    gone.client().post("/cluster/join", &json!({})).expect(200);
    await_layout(&gone, |cluster| cluster["member"] == json!(true) && cluster["changing"] == json!(false));
    town.nodes.push(gone);
    town.await_tidy();
    town.assert_filled(&town.nodes[3], 1_000);
}

/// 3 → 5 → 4 → 3 nodes, and replicas 3 → 2 → 3, while clients write, delete and read.
fn clients_notice_nothing(test: &str, query: &'static str) {
    let seed = seed(test);
    let mut town = Town::start(3, &QUICK);
    town.fill(300);
    let watchers = Watchers::start(4, town.addresses(), query, seed);
    town.grow();
    watchers.turn_to(town.addresses());
    town.grow();
    watchers.turn_to(town.addresses());
    let mut left = vec![];
    for leaver in [1, 0] {
        // The one that goes is asked until it has gone, and after: it passes on what it is asked.
        left.push(town.let_leave(leaver));
        await_more(&watchers, 200);
        watchers.turn_to(town.addresses());
    }
    for replicas in [2, 3] {
        let wish = json!({ "replicas": replicas });
        let epoch =
            town.nodes[0].client().send(&json_put("/cluster/replicas", &wish)).expect(200).json()["epoch"].clone();
        for node in &town.nodes {
            await_layout(node, |cluster| {
                cluster["replicas"] == json!(replicas)
                    && cluster["changing"] == json!(false)
                    && cluster["epoch"].as_u64() >= epoch.as_u64()
            });
        }
        await_more(&watchers, 200);
    }
    let sum = watchers.finish();
    eprintln!("{test}: {sum:?}");
    assert!(sum.reads > 1_000 && sum.acknowledged > 300, "{sum:?}");
    let refused = sum.refused_reads as f64 / (sum.reads + sum.refused_reads) as f64;
    assert!(refused < 0.01, "reads were refused: {sum:?}");
    town.await_tidy();
    for node in town.nodes.iter().chain(&left) {
        town.assert_filled(node, 300);
    }
}

fn await_more(watchers: &Watchers, more: u64) {
    let goal = watchers.done() + more;
    eventually("clients go on", Duration::from_secs(30), || match watchers.done() {
        done if done >= goal => Ok(()),
        done => Err(format!("{done} of {goal}")),
    });
}

#[test]
fn through_all_changes_what_was_acknowledged_is_read_and_what_was_deleted_is_not() {
    clients_notice_nothing("through_all_changes_what_was_acknowledged_is_read_and_what_was_deleted_is_not", "");
}

#[test]
fn the_same_holds_in_quorum() {
    clients_notice_nothing("the_same_holds_in_quorum", "?mode=quorum");
}

#[test]
fn the_same_holds_in_sync_and_chain() {
    clients_notice_nothing("the_same_holds_in_sync", "?mode=sync");
    clients_notice_nothing("the_same_holds_in_chain", "?mode=chain");
}
