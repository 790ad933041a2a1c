//! Members that are dead: removed by an operator, or by the others after a while, or replaced.

use super::kit::{QUICK, SOON, Town, await_layout, guest_of, layout_of};
use super::support::eventually;
use super::support::node::{Node, Plan, reserve_port};
use serde_json::{Value, json};

fn flags<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&QUICK, more].concat()
}

fn await_down(node: &Node, name: &str) {
    await_layout(node, |cluster| {
        let members = cluster["members"].as_array().unwrap();
        members.iter().any(|member| member["name"] == json!(name) && member["state"] == json!("down"))
    });
}

fn name_of(node: &Node) -> String {
    format!("http://localhost:{}", node.port())
}

#[test]
fn a_dead_member_is_removed_on_request_and_a_living_one_is_not() {
    let mut town = Town::start(4, &flags(&["--evict-after", "never"]));
    town.fill(600);
    let dead = name_of(&town.nodes[2]);
    let remove = |node: &Node, whom: &str| node.client().post("/cluster/remove", &json!({ "node": whom }));
    let refused = remove(&town.nodes[0], &dead).refusal(409);
    assert!(refused.text().contains("lives"), "{refused}");
    remove(&town.nodes[0], "http://nobody:1").refusal(400);
    town.nodes[0].client().post("/cluster/remove", &json!({})).refusal(400);
    town.nodes[2].kill();
    await_down(&town.nodes[0], &dead);
    remove(&town.nodes[0], &dead).expect(200);
    let mut gone = town.nodes.remove(2);
    town.await_members(3);
    town.await_tidy();
    assert_eq!(town.copies(), 1_800, "its keys are on others");
    // Back again, it learns that it is no member, and joins as any other node.
    gone.restart();
    town.nodes.push(gone);
    town.await_members(4);
    town.await_tidy();
    assert_eq!(town.copies(), 1_800);
    for node in &town.nodes {
        town.assert_filled(node, 600);
    }
}

#[test]
fn while_another_owner_is_not_filled_a_dead_member_is_not_removed() {
    let mut town = Town::start(5, &flags(&["--evict-after", "never"]));
    town.fill(300);
    let dead = name_of(&town.nodes[2]);
    let remove = |node: &Node| node.client().post("/cluster/remove", &json!({ "node": dead }));
    town.nodes[2].kill();
    await_down(&town.nodes[0], &dead);
    town.nodes[3].kill();
    std::fs::remove_dir_all(town.nodes[3].data()).expect("a folder to lose");
    town.nodes[3].restart();
    let new = town.nodes[3].id();
    await_layout(&town.nodes[0], |cluster| {
        cluster["members"].as_array().unwrap().iter().any(|member| member["id"] == json!(new.to_string()))
    });
    // What these two owned with a third was acknowledged by a majority that may be the dead one and the emptied one.
    let refused = remove(&town.nodes[0]).refusal(409);
    assert!(refused.text().contains("is filled"), "{refused}");
    town.nodes[2].restart();
    eventually("the emptied one is filled", SOON, || {
        let filling = town.nodes[3].get("/status").expect(200).json()["filling"].clone();
        if filling["state"] == json!("filled") { Ok(()) } else { Err(filling.to_string()) }
    });
    town.nodes[2].kill();
    eventually("then it can be done without the dead one", SOON, || {
        let answer = remove(&town.nodes[0]);
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    });
    town.nodes.remove(2);
    town.await_members(4);
    town.await_tidy();
    assert_eq!(town.copies(), 900);
}

#[test]
fn with_the_only_copies_on_it_a_dead_member_is_not_removed() {
    let mut town = Town::start(2, &flags(&["--replicas", "1", "--evict-after", "0.5"]));
    let dead = name_of(&town.nodes[1]);
    town.nodes[1].kill();
    await_down(&town.nodes[0], &dead);
    let refused = town.nodes[0].client().post("/cluster/remove", &json!({ "node": dead })).refusal(409);
    assert!(refused.text().contains("no majority"), "{refused}");
    eventually("the log says why it is not evicted", SOON, || {
        let log = town.nodes[0].log();
        if log.contains("stays a member") { Ok(()) } else { Err("it does not".into()) }
    });
    assert_eq!(layout_of(&town.nodes[0])["members"].as_array().unwrap().len(), 2);
}

#[test]
fn a_member_that_stays_away_is_evicted_and_resurrects_nothing_when_it_returns() {
    let mut town = Town::start(4, &flags(&["--evict-after", "1"]));
    town.fill(200);
    town.await_tidy();
    town.nodes[3].kill();
    let mut away = town.nodes.pop().unwrap();
    town.await_members(3);
    let mut client = town.nodes[0].client();
    for key in 0..100 {
        client.delete(&format!("/kv/filled-{key}")).expect(204);
    }
    // What it alone is known to have written waits for it, all else is forgotten.
    await_tombstones(&town, |left| left <= 50);
    away.restart();
    town.nodes.push(away);
    town.await_members(4);
    town.await_tidy();
    for node in &town.nodes {
        let mut client = node.client();
        for key in 0..100 {
            client.get(&format!("/kv/filled-{key}")).expect(404);
        }
        for key in 100..200 {
            assert_eq!(client.get(&format!("/kv/filled-{key}")).expect(200).text(), format!("value {key}"));
        }
    }
    assert_eq!(town.copies(), 300);
    await_tombstones(&town, |left| left == 0);
}

fn await_tombstones(town: &Town, are_so_many: impl Fn(u64) -> bool) {
    eventually("what was deleted is forgotten", SOON, || {
        let left = |node: &Node| node.get("/status").expect(200).json()["store"]["tombstones"].as_u64().unwrap();
        let left: Vec<u64> = town.nodes.iter().map(left).collect();
        if left.iter().all(|left| are_so_many(*left)) { Ok(()) } else { Err(format!("{left:?} tombstones")) }
    });
}

#[test]
fn a_fresh_node_takes_the_place_of_a_dead_one_and_nothing_else_moves() {
    let mut town = Town::start(4, &flags(&["--evict-after", "never"]));
    town.fill(600);
    town.await_tidy();
    let before = shares(&town.nodes[0]);
    let (dead, member) = (name_of(&town.nodes[1]), town.nodes[0].address());
    let fresh = guest_of(&member);
    let replace = |with: &str| town.nodes[0].client().post("/cluster/replace", &json!({ "dead": dead, "with": with }));
    replace(&fresh.address()).refusal(409);
    town.nodes[1].kill();
    await_down(&town.nodes[0], &dead);
    let refused = town.nodes[0].client().post("/cluster/replace", &json!({ "dead": dead, "with": "localhost:1" }));
    assert!(refused.refusal(400).text().contains("no fresh node"));
    let told = town.nodes[0].client().post("/cluster/replace", &json!({ "dead": dead, "with": fresh.address() }));
    told.expect(200);
    town.nodes[1] = fresh;
    town.await_members(4);
    town.await_tidy();
    let after = shares(&town.nodes[0]);
    let same = before.iter().filter(|(name, _)| *name != dead).all(|one| after.contains(one));
    assert!(same, "{before:?} {after:?}");
    assert_eq!(town.copies(), 1_800);
    for node in &town.nodes {
        town.assert_filled(node, 600);
    }
}

fn shares(node: &Node) -> Vec<(String, u64)> {
    let cluster = layout_of(node);
    let share = |member: &Value| {
        (member["name"].as_str().unwrap().to_owned(), (member["share"].as_f64().unwrap() * 1e6).round() as u64)
    };
    cluster["members"].as_array().unwrap().iter().map(share).collect()
}

#[test]
fn copies_go_to_different_zones_and_heavier_nodes_take_more() {
    let mut town = Town::start(1, &flags(&["--zone", "a", "--replicas", "2"]));
    for (zone, weight) in [("a", "1"), ("b", "2"), ("b", "1")] {
        let (port, peer) = (reserve_port(), town.nodes[0].address());
        let plan = Plan::new(&flags(&["--zone", zone, "--weight", weight])).port(port).flag("--peers", peer);
        town.nodes.push(plan.start());
        town.await_members(town.nodes.len());
    }
    let cluster = layout_of(&town.nodes[0]);
    let members = cluster["members"].as_array().unwrap();
    let zone_of = |url: &Value| {
        let member = members.iter().find(|member| member["url"] == *url).unwrap();
        member["zone"].as_str().unwrap().to_owned()
    };
    for number in 0..200 {
        let place = town.nodes[0].get(&format!("/ring?key=zoned-{number}")).expect(200).json();
        let owners = place["owners"].as_array().unwrap();
        assert_ne!(zone_of(&owners[0]["url"]), zone_of(&owners[1]["url"]), "{place}");
    }
    let share = |at: usize| {
        let name = name_of(&town.nodes[at]);
        members.iter().find(|member| member["name"] == json!(name)).unwrap()["share"].as_f64().unwrap()
    };
    assert!(share(2) > 1.5 * share(3), "{cluster}");
}
