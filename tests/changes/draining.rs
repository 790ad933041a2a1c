//! Draining: a member hands over all that it keeps, stays one, and is given its share again.

use super::growing::await_more;
use super::kit::{QUICK, SOON, Town, await_layout, guest_of, json_put, layout_of};
use super::support::http::{Answer, Request};
use super::support::node::Node;
use super::support::{eventually, seed};
use super::watchers::Watchers;
use serde_json::{Value, json};

fn drain(node: &Node) -> Answer {
    node.client().post("/cluster/drain", &json!({}))
}

fn weigh(through: &Node, member: &Value, weight: u64) -> Answer {
    let id = member["id"].as_str().expect("an id");
    through.client().send(&json_put(&format!("/cluster/members/{id}"), &json!({ "weight": weight })))
}

/// What a layout says of this node.
fn entry(cluster: &Value, node: &Node) -> Value {
    let name = json!(format!("http://localhost:{}", node.port()));
    let members = cluster["members"].as_array().expect("members");
    members.iter().find(|member| member["name"] == name).unwrap_or_else(|| panic!("{name} in {cluster}")).clone()
}

/// Waits until every node goes by a settled layout in which this one has that weight.
fn await_weight(town: &Town, of: usize, weight: u64) -> Value {
    let is_so = |cluster: &Value| {
        cluster["changing"] == json!(false) && entry(cluster, &town.nodes[of])["weight"] == json!(weight)
    };
    town.nodes.iter().for_each(|node| drop(await_layout(node, is_so)));
    entry(&layout_of(&town.nodes[0]), &town.nodes[of])
}

fn await_empty(node: &Node) {
    eventually("it keeps nothing", SOON, || {
        let keys = node.get("/status").expect(200).json()["store"]["keys"].as_u64();
        if keys == Some(0) { Ok(()) } else { Err(format!("{keys:?} keys")) }
    });
}

#[test]
fn whoever_is_drained_keeps_nothing_and_serves_and_clients_notice_nothing() {
    let seed = seed("whoever_is_drained_keeps_nothing_and_serves_and_clients_notice_nothing");
    let town = Town::start(4, &QUICK);
    town.fill(300);
    let watchers = Watchers::start(4, town.addresses(), "", seed);
    let node = &town.nodes[1];
    let dry = node.client().post("/cluster/drain?dry-run=1", &json!({})).expect(200).json();
    let url = &entry(&layout_of(node), node)["url"];
    assert!(dry["moves"].as_array().unwrap().iter().all(|one| one["from"] == *url), "{dry}");
    assert_eq!(layout_of(node)["changing"], json!(false), "nothing has begun");

    let epoch = drain(node).expect(200).json()["epoch"].clone();
    let reached = node.get(&format!("/cluster?epoch={epoch}&wait=60s")).expect(200).json();
    assert_eq!((&reached["changing"], &reached["member"]), (&json!(false), &json!(true)), "{reached}");
    let drained = await_weight(&town, 1, 0);
    assert_eq!(
        (&drained["share"], &drained["role"], &drained["state"]),
        (&json!(0.0), &json!("member"), &json!("alive"))
    );
    await_more(&watchers, 300);
    await_empty(node);
    eventually("it says so", SOON, || match entry(&layout_of(&town.nodes[0]), node) {
        member if member["keys"] == json!(0) => Ok(()),
        member => Err(member.to_string()),
    });
    node.get("/readyz").expect(200);
    assert_eq!(drain(node).expect(200).json()["epoch"], layout_of(node)["epoch"], "it is so already");
    town.assert_filled(node, 300);
    node.put("/kv/through-the-drained?mode=quorum", "v").expect(201);
    assert_eq!(town.nodes[0].get("/kv/through-the-drained").expect(200).text(), "v");
    for key in 0..50 {
        let place = node.get(&format!("/ring?key=filled-{key}")).expect(200).json();
        let named = [&place["owners"], &place["stand_ins"]].map(|list| list.as_array().unwrap().clone()).concat();
        assert!(named.len() == 3 && named.iter().all(|member| member["url"] != *url), "{place}");
    }

    weigh(&town.nodes[3], &drained, 1).expect(200);
    let back = await_weight(&town, 1, 1);
    assert!((back["share"].as_f64().unwrap() - 0.25).abs() < 0.025, "{back}");
    await_more(&watchers, 300);
    let sum = watchers.finish();
    eprintln!("{sum:?}");
    let refused = sum.refused_reads as f64 / (sum.reads + sum.refused_reads) as f64;
    assert!(sum.reads > 300 && refused < 0.01, "reads were refused: {sum:?}");
    town.await_tidy();
    town.nodes.iter().for_each(|node| town.assert_filled(node, 300));
}

#[test]
fn with_a_drained_member_there_is_a_majority_and_it_starts_again_with_its_disk_or_without() {
    let mut town = Town::start(3, &QUICK);
    town.fill(200);
    drain(&town.nodes[2]).expect(200);
    await_weight(&town, 2, 0);
    await_empty(&town.nodes[2]);
    town.await_tidy();
    assert_eq!(town.copies(), 400, "two keep each key now");
    town.nodes[0].kill();
    eventually("two of three change the layout, one of them drained", SOON, || {
        match town.nodes[2].client().send(&json_put("/cluster/mode", &json!({ "mode": "async" }))) {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.to_string()),
        }
    });
    town.assert_filled(&town.nodes[2], 200);
    town.nodes[0].restart();
    town.await_members(3);
    let is_filled = |node: &Node| {
        eventually("it is filled", SOON, || {
            let filling = node.get("/status").expect(200).json()["filling"].clone();
            if filling["state"] == json!("filled") { Ok(()) } else { Err(filling.to_string()) }
        });
    };
    town.nodes[2].kill();
    town.nodes[2].restart();
    is_filled(&town.nodes[2]);
    town.assert_filled(&town.nodes[2], 200);
    town.nodes[2].kill();
    std::fs::remove_dir_all(town.nodes[2].data()).expect("a folder to lose");
    town.nodes[2].restart();
    is_filled(&town.nodes[2]);
    let id = json!(town.nodes[2].id().to_string());
    let cluster = await_layout(&town.nodes[0], |cluster| entry(cluster, &town.nodes[2])["id"] == id);
    let drained = entry(&cluster, &town.nodes[2]);
    assert_eq!((&drained["weight"], &drained["share"]), (&json!(0), &json!(0.0)), "it is drained still");
    weigh(&town.nodes[2], &drained, 2).expect(200);
    assert!((await_weight(&town, 2, 2)["share"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9);
    town.await_tidy();
    assert_eq!(town.copies(), 600);
    town.nodes.iter().for_each(|node| town.assert_filled(node, 200));
}

#[test]
fn the_last_that_keeps_anything_is_not_drained_and_the_drained_go_at_once() {
    let mut town = Town::start(2, &[&QUICK[..], &["--evict-after", "never"]].concat());
    town.fill(100);
    town.nodes[0].client().send(&Request::new("POST", "/cluster/drain").body(r#"{"weight":0}"#)).refusal(400);
    town.nodes[0].get("/cluster/drain").refusal(405);
    // By a call to another, which is the same.
    let second = entry(&layout_of(&town.nodes[0]), &town.nodes[1]);
    weigh(&town.nodes[0], &second, 0).expect(200);
    await_weight(&town, 1, 0);
    await_empty(&town.nodes[1]);
    let before = layout_of(&town.nodes[0])["epoch"].as_u64().unwrap();
    let refused = drain(&town.nodes[0]).refusal(409);
    assert!(refused.text().contains("the last member that keeps anything"), "{refused}");
    town.nodes[0].client().post("/cluster/leave", &json!({})).refusal(409);

    // A fresh node takes the place of one that is down, as it was.
    town.nodes[1].kill();
    let (dead, fresh) = (format!("http://localhost:{}", town.nodes[1].port()), guest_of(&town.nodes[0].address()));
    drain(&fresh).refusal(409);
    // Of two one is no majority.
    town.nodes[0].client().post("/cluster/replace", &json!({ "dead": dead, "with": fresh.address() })).refusal(409);
    town.nodes[1].restart();
    fresh.client().post("/cluster/join", &json!({})).expect(200);
    town.nodes.push(fresh);
    town.await_members(3);
    town.nodes[1].kill();
    await_layout(&town.nodes[0], |cluster| entry(cluster, &town.nodes[1])["state"] == json!("down"));
    let other = guest_of(&town.nodes[0].address());
    let epoch = layout_of(&town.nodes[0])["epoch"].as_u64().unwrap();
    assert!(epoch > before);
    let with = json!({ "dead": dead, "with": other.address() });
    town.nodes[0].client().post("/cluster/replace", &with).expect(200);
    town.nodes[1] = other;
    town.await_members(3);
    let placed = entry(&layout_of(&town.nodes[0]), &town.nodes[1]);
    assert_eq!((layout_of(&town.nodes[0])["epoch"].as_u64(), &placed["weight"]), (Some(epoch + 1), &json!(0)));
    let gone = town.let_leave(1);
    assert_eq!(layout_of(&town.nodes[0])["epoch"].as_u64(), Some(epoch + 2), "nothing had to move");
    town.assert_filled(&gone, 100);
    town.await_tidy();
    assert_eq!(town.copies(), 200);
}
