//! Changes in which somebody dies, or is cut off.

use super::kit::{QUICK, SOON, Town, await_layout, json_put, layout_of};
use super::support::cluster::Cluster;
use super::support::eventually;
use super::support::node::{Node, Plan, reserve_port};
use serde_json::json;
use std::time::Duration;

/// A newcomer that is to take in so much that it can be met half-way.
const MUCH: usize = 4_000;

#[test]
fn a_newcomer_that_dies_for_good_is_not_waited_for_and_one_that_returns_is_taken_in() {
    let mut town = Town::start(3, &["--timeout", "0.5", "--pingfreq", "0.2", "--syncfreq", "1"]);
    town.fill(MUCH);
    let mut newcomer = town.newcomer(0);
    await_layout(&town.nodes[0], |cluster| cluster["members"].as_array().unwrap().len() == 4);
    newcomer.kill();
    // It may have been quicker: then it is a member that is down, as any other may be.
    let settled = await_layout(&town.nodes[0], |cluster| cluster["changing"] == json!(false));
    let was_abandoned = settled["members"].as_array().unwrap().len() == 3;
    eprintln!("abandoned: {was_abandoned}");
    for node in &town.nodes {
        town.assert_filled(node, 200);
    }
    newcomer.restart();
    town.nodes.push(newcomer);
    town.await_members(4);
    town.await_tidy();
    town.assert_filled(&town.nodes[3], MUCH);
}

#[test]
fn a_change_completes_though_a_donor_or_whoever_sees_it_through_dies() {
    for victim in [0, 2] {
        let mut town = Town::start(3, &QUICK);
        town.fill(MUCH);
        let newcomer = town.newcomer(1);
        await_layout(&town.nodes[1], |cluster| cluster["members"].as_array().unwrap().len() == 4);
        town.nodes[victim].kill();
        let layout = await_layout(&town.nodes[1], |cluster| cluster["changing"] == json!(false));
        assert_eq!(layout["members"].as_array().unwrap().len(), 4, "{layout}");
        town.nodes[victim].restart();
        town.nodes.push(newcomer);
        town.await_members(4);
        town.await_tidy();
        for node in &town.nodes {
            town.assert_filled(node, 500);
        }
    }
}

#[test]
fn a_minority_cannot_change_the_layout_and_learns_of_the_majoritys() {
    let cluster = Cluster::behind_proxies(3, &QUICK);
    let sides: [&[usize]; 2] = [&[0, 1], &[2]];
    cluster.split(&sides);
    cluster.await_gone(&sides);
    let wish = |mode: &str| json_put("/cluster/mode", &json!({ "mode": mode }));
    let refused = cluster.client(2).send(&wish("chain")).refusal(503);
    assert!(refused.text().contains("must"), "{refused}");
    assert_eq!(layout_of(&cluster.nodes[2])["epoch"], json!(1));
    cluster.client(0).send(&wish("async")).expect(200);
    cluster.unite();
    for node in &cluster.nodes {
        await_layout(node, |layout| layout["epoch"].as_u64() >= Some(2));
    }
    let layouts: Vec<_> = cluster.nodes.iter().map(layout_of).collect();
    assert!(layouts.iter().all(|layout| layout["mode"] == json!("async")), "{layouts:?}");
}

#[test]
fn neither_half_of_an_even_split_changes_the_layout() {
    let cluster = Cluster::behind_proxies(4, &QUICK);
    let sides: [&[usize]; 2] = [&[0, 1], &[2, 3]];
    cluster.split(&sides);
    cluster.await_gone(&sides);
    for index in [1, 3] {
        cluster.client(index).send(&json_put("/cluster/mode", &json!({ "mode": "chain" }))).refusal(503);
        assert_eq!(layout_of(&cluster.nodes[index])["epoch"], json!(1));
    }
    cluster.unite();
    eventually("a change is agreed on again", SOON, || {
        match cluster.client(1).send(&json_put("/cluster/mode", &json!({ "mode": "async" }))) {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.to_string()),
        }
    });
}

#[test]
fn restarted_in_any_order_or_all_at_once_they_are_the_same_members_with_the_same_data() {
    let mut town = Town::start(2, &QUICK);
    town.grow();
    town.grow();
    town.fill(400);
    town.await_tidy();
    let before = layout_of(&town.nodes[0]);
    for index in [2, 0, 3, 1] {
        town.nodes[index].kill();
        town.nodes[index].restart();
        town.await_members(4);
    }
    town.nodes.iter_mut().for_each(Node::kill);
    town.nodes.iter_mut().for_each(Node::relaunch);
    town.nodes.iter_mut().for_each(Node::await_ready);
    town.await_members(4);
    let after = layout_of(&town.nodes[0]);
    assert_eq!((&before["epoch"], &before["cluster_id"]), (&after["epoch"], &after["cluster_id"]));
    for node in &town.nodes {
        town.assert_filled(node, 400);
    }
    town.await_tidy();
}

#[test]
fn a_member_whose_disk_was_lost_takes_its_own_place_under_its_new_id() {
    let mut town = Town::start(3, &QUICK);
    town.fill(300);
    let old = town.nodes[1].id();
    town.nodes[1].kill();
    std::fs::remove_dir_all(town.nodes[1].data()).expect("a folder to lose");
    town.nodes[1].restart();
    let new = town.nodes[1].id();
    assert_ne!(old, new);
    for node in &town.nodes {
        await_layout(node, |cluster| {
            cluster["members"].as_array().unwrap().iter().any(|member| member["id"] == json!(new.to_string()))
        });
    }
    eventually("it is filled", SOON, || {
        let filling = town.nodes[1].get("/status").expect(200).json()["filling"].clone();
        if filling["state"] == json!("filled") { Ok(()) } else { Err(filling.to_string()) }
    });
    town.await_tidy();
    assert_eq!(town.copies(), 900);
}

#[test]
fn a_member_at_a_new_address_is_the_same_member() {
    let mut town = Town::start(3, &QUICK);
    town.fill(300);
    let id = town.nodes[1].id();
    town.nodes[1].kill();
    let port = reserve_port();
    town.nodes[1].replan(|plan| plan.port(port));
    town.nodes[1].restart();
    assert_eq!(town.nodes[1].id(), id);
    let url = format!("http://127.0.0.1:{port}");
    for node in &town.nodes {
        await_layout(node, |cluster| {
            let members = cluster["members"].as_array().unwrap();
            members.len() == 3
                && members.iter().any(|member| member["url"] == json!(url) && member["state"] == json!("alive"))
        });
    }
    town.nodes[1].put("/kv/at-its-new-address?w=3", "v").expect(201);
    town.await_tidy();
}

#[test]
fn a_node_of_another_cluster_stays_with_its_own_whatever_it_is_told() {
    let (town, mut other) = (Town::start(1, &QUICK), Town::start(1, &QUICK));
    other.fill(10);
    other.nodes[0].kill();
    let address = town.nodes[0].address();
    other.nodes[0].replan(|plan| plan.flag("--peers", &address));
    other.nodes[0].restart();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(layout_of(&town.nodes[0])["members"].as_array().unwrap().len(), 1);
    let theirs = layout_of(&other.nodes[0]);
    assert_eq!(theirs["members"].as_array().unwrap().len(), 1, "{theirs}");
    other.assert_filled(&other.nodes[0], 10);
    // A fresh node of another name does not get in either.
    let stranger = Plan::new(&QUICK).flag("--cluster", "elsewhere").flag("--peers", &address).start();
    let refused = stranger.put("/kv/k?mode=quorum", "v").refusal(503);
    assert!(refused.text().contains("established"), "{refused}");
    assert_eq!(layout_of(&town.nodes[0])["members"].as_array().unwrap().len(), 1);
}
