//! The cluster changes while it runs: founding, joining, leaving, and what becomes of data and of requests meanwhile.

#[path = "changes/dead.rs"]
mod dead;
#[path = "changes/draining.rs"]
mod draining;
#[path = "changes/growing.rs"]
mod growing;
#[path = "changes/kit.rs"]
mod kit;
#[path = "changes/losing.rs"]
mod losing;
mod support;
#[path = "changes/watchers.rs"]
mod watchers;

use kit::{QUICK, Town, await_layout, layout_of};
use serde_json::json;
use std::collections::BTreeSet;
use support::eventually;
use support::node::{Plan, reserve_port};

// ---- the first layout

#[test]
fn a_node_without_peers_is_a_cluster_at_once() {
    let node = Plan::new(&["--memory"]).start();
    let cluster = node.get("/cluster").expect(200).json();
    assert_eq!((&cluster["epoch"], &cluster["established"]), (&json!(1), &json!(true)));
    assert_eq!((&cluster["awaiting"], &cluster["transfers"]), (&json!([]), &json!([])));
    let member = &cluster["members"][0];
    assert_eq!(member["id"], json!(node.id().to_string()));
    assert_eq!((&member["role"], &member["state"], &member["share"]), (&json!("member"), &json!("alive"), &json!(1.0)));
    node.put("/kv/k?mode=quorum", "v").expect(201);
    assert_eq!(node.get("/kv/k?mode=quorum").expect(200).text(), "v");
}

#[test]
fn until_all_that_were_named_have_met_modes_that_agree_say_whom_they_await() {
    let ports: Vec<u16> = (0..3).map(|_| reserve_port()).collect();
    let peers = ports.iter().map(|port| format!("localhost:{port}")).collect::<Vec<_>>().join(",");
    let plan = |at: usize| Plan::new(&QUICK).port(ports[at]).flag("--peers", &peers);
    let (first, second) = (plan(0).start(), plan(1).start());
    let last = format!("http://localhost:{}", ports[2]);
    for node in [&first, &second] {
        let cluster = eventually("two of three have met", kit::SOON, || {
            let cluster = node.get("/cluster").expect(200).json();
            if cluster["awaiting"] == json!([last]) { Ok(cluster) } else { Err(cluster.to_string()) }
        });
        assert_eq!((&cluster["epoch"], &cluster["established"]), (&json!(0), &json!(false)));
        assert_eq!(cluster["cluster_id"], json!(null));
        let refused = node.put("/kv/k?mode=quorum", "v").refusal(503);
        assert!(refused.text().contains(&last), "{refused}");
        let refused = node.get("/kv/k?mode=sync").refusal(503);
        assert!(refused.text().contains(&last), "{refused}");
    }
    first.put("/kv/early", "v").expect(201);
    let third = plan(2).start();
    let nodes = [first, second, third];
    let ids: Vec<_> = nodes.iter().map(|node| await_layout(node, |cluster| cluster["epoch"] == json!(1))).collect();
    assert!(ids.iter().all(|cluster| cluster["cluster_id"] == ids[0]["cluster_id"]), "{ids:?}");
    for node in &nodes {
        assert_eq!(node.get("/kv/early").expect(200).text(), "v");
        node.put(&format!("/kv/{}?mode=quorum", node.port()), "v").expect(201);
    }
}

#[test]
fn nodes_that_were_told_of_different_peers_found_one_cluster_of_all() {
    let ports: Vec<u16> = (0..4).map(|_| reserve_port()).collect();
    // A chain: each names the next one only, and the last names nobody but the first.
    let plan = |at: usize| {
        Plan::new(&QUICK).port(ports[at]).flag("--peers", format!("localhost:{}", ports[(at + 1) % ports.len()]))
    };
    let mut nodes: Vec<_> = (0..4).map(|at| plan(at).spawn()).collect();
    nodes.iter_mut().for_each(support::node::Node::await_ready);
    let layouts: Vec<_> = nodes
        .iter()
        .map(|node| {
            await_layout(node, |cluster| {
                cluster["members"].as_array().unwrap().len() == 4 && cluster["epoch"] != json!(0)
            })
        })
        .collect();
    assert!(layouts.iter().all(|layout| layout["cluster_id"] == layouts[0]["cluster_id"]), "{layouts:?}");
}

#[test]
fn twenty_nodes_that_start_at_once_agree_within_seconds_and_settle() {
    let town = Town::start(20, &["--memory", "--workers", "1", "--timeout", "5", "--pingfreq", "1"]);
    let ids: BTreeSet<String> = town.nodes.iter().map(|node| layout_of(node)["cluster_id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    town.fill(200);
    town.assert_filled(&town.nodes[19], 200);
    let shares: Vec<f64> = layout_of(&town.nodes[0])["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member["share"].as_f64().unwrap())
        .collect();
    assert!(shares.iter().all(|share| (share * 20.0 - 1.0).abs() < 0.1), "{shares:?}");
}

// ---- asking for a change

#[test]
fn the_default_mode_is_switched_on_any_node_and_goes_for_all_also_after_a_restart() {
    let mut town = Town::start(3, &QUICK);
    town.nodes[0].put("/kv/k", "sloppy").expect(201);
    let switched =
        town.nodes[1].client().send(&kit::json_put("/cluster/mode", &json!({ "mode": "quorum" }))).expect(200);
    let epoch = switched.json()["epoch"].as_u64().unwrap();
    for node in &town.nodes {
        await_layout(node, |cluster| cluster["epoch"].as_u64() >= Some(epoch));
        assert_eq!(node.get("/config").expect(200).json()["mode"], json!("quorum"));
        node.put("/kv/k", "agreed").expect(204);
    }
    assert_eq!(
        town.nodes[2].client().post("/config", &json!({ "mode": "async" })).expect(200).json()["epoch"],
        json!(epoch + 1)
    );
    town.nodes.iter_mut().for_each(support::node::Node::kill);
    town.nodes.iter_mut().for_each(support::node::Node::relaunch);
    for node in &mut town.nodes {
        node.await_ready();
        await_layout(node, |cluster| cluster["mode"] == json!("async"));
    }
}

#[test]
fn a_wish_that_makes_no_sense_is_refused_and_changes_nothing() {
    let town = Town::start(1, &QUICK);
    let node = &town.nodes[0];
    let mut client = node.client();
    for body in ["", "{", "[]", r#"{"mode":"strong"}"#, r#"{"mode":7}"#, r#"{"mode":"quorum","more":1}"#] {
        let request = support::http::Request::new("PUT", "/cluster/mode").body(body);
        client.send(&request).refusal(400);
        client.send(&support::http::Request::new("POST", "/config").body(body)).refusal(400);
    }
    for body in [r#"{"replicas":0}"#, r#"{"replicas":17}"#, r#"{"replicas":-1}"#, r#"{"replicas":"3"}"#, "{}"] {
        client.send(&support::http::Request::new("PUT", "/cluster/replicas").body(body)).refusal(400);
    }
    for (path, method) in [
        ("/cluster/mode", "GET"),
        ("/cluster", "DELETE"),
        ("/cluster/leave", "GET"),
        ("/cluster/drain", "PUT"),
        ("/config", "PUT"),
    ] {
        client.send(&support::http::Request::new(method, path)).refusal(405).must("Allow");
    }
    client.get("/cluster?epoch=x").refusal(400);
    client.get("/cluster?wait=long").refusal(400);
    client.get("/cluster?wait=1").refusal(400);
    for path in ["/cluster/join", "/cluster/leave", "/cluster/drain", "/cluster/abandon"] {
        client.send(&support::http::Request::new("POST", path).body(r#"{"now":true}"#)).refusal(400);
    }
    client.get("/cluster?unknown=1").refusal(400);
    let alone = client.post("/cluster/leave", &json!({})).refusal(409);
    assert!(alone.text().contains("last"), "{alone}");
    let alone = client.post("/cluster/drain", &json!({})).refusal(409);
    assert!(alone.text().contains("the last member that keeps anything"), "{alone}");
    assert_eq!(layout_of(node)["epoch"], json!(1));
}

#[test]
fn whoever_waits_for_an_epoch_is_told_when_it_is_there_or_the_time_is_over() {
    let town = Town::start(1, &QUICK);
    let node = &town.nodes[0];
    let began = std::time::Instant::now();
    node.get("/cluster?epoch=9&wait=0.3s").expect(200);
    assert!(began.elapsed() >= std::time::Duration::from_millis(300));
    let waiting = node.client();
    let waiting = std::thread::spawn(move || {
        let mut client = waiting;
        client.get("/cluster?epoch=2&wait=30s").expect(200).json()
    });
    node.client().send(&kit::json_put("/cluster/mode", &json!({ "mode": "quorum" }))).expect(200);
    assert_eq!(waiting.join().unwrap()["epoch"], json!(2));
}
