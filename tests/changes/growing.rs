//! Joining and leaving: shares, what moves, and that clients notice nothing.

use super::kit::{QUICK, SOON, Town, await_layout, guest_of, json_put, layout_of};
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

pub fn await_more(watchers: &Watchers, more: u64) {
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

#[test]
fn a_dry_run_says_what_would_move_and_changes_nothing() {
    let mut town = Town::start(4, &QUICK);
    town.fill(400);
    let newcomer = guest_of(&town.nodes[0].address());
    let before = layout_of(&town.nodes[0]);
    let dry = |node: &Node, method: &str, path: &str, body: &str| {
        node.client().send(&Request::new(method, format!("{path}?dry-run=1")).body(body))
    };
    let outlook = dry(&newcomer, "POST", "/cluster/join", "").expect(200).json();
    assert_eq!(
        (&outlook["dry_run"], outlook["epoch"].as_u64()),
        (&json!(true), before["epoch"].as_u64().map(|epoch| epoch + 1))
    );
    let url = newcomer.get("/status").json()["node"]["url"].clone();
    assert!(outlook["moves"].as_array().unwrap().iter().all(|one| one["to"] == url), "{outlook}");
    let joins = outlook["keys"].as_f64().unwrap();
    // Three copies of each key, of which the fifth node takes a fifth. Keys are counted where a member says how many it has.
    assert!((100.0..=400.0).contains(&joins), "{outlook}");
    assert!(outlook["bytes"].as_u64() >= outlook["keys"].as_u64());

    let leaves = dry(&town.nodes[1], "POST", "/cluster/leave", "").expect(200).json();
    let from = town.nodes[1].get("/status").json()["node"]["url"].clone();
    assert!(leaves["moves"].as_array().unwrap().iter().any(|one| one["from"] == from), "{leaves}");
    let fewer = dry(&town.nodes[0], "PUT", "/cluster/replicas", r#"{"replicas":2}"#).expect(200).json();
    assert_eq!(fewer["keys"], json!(0), "copies are dropped, none is sent");
    assert!(fewer["moves"].as_array().unwrap().iter().all(|one| one["to"].is_null()), "{fewer}");
    let same = dry(&town.nodes[0], "PUT", "/cluster/replicas", r#"{"replicas":3}"#).expect(200).json();
    assert_eq!((&same["moves"], same["epoch"].as_u64()), (&json!([]), before["epoch"].as_u64()));
    dry(&town.nodes[0], "POST", "/cluster/abandon", "").refusal(409);
    dry(&town.nodes[0], "PUT", "/cluster/replicas", r#"{"replicas":0}"#).refusal(400);
    dry(&newcomer, "POST", "/cluster/leave", "").refusal(409);
    town.nodes[0].client().post("/cluster/leave?dry-run=perhaps", &json!({})).refusal(400);
    let after = layout_of(&town.nodes[0]);
    assert_eq!((&after["epoch"], &after["members"].as_array().unwrap().len()), (&before["epoch"], &4));

    // What was foretold comes about.
    newcomer.client().post("/cluster/join", &json!({})).expect(200);
    town.nodes.push(newcomer);
    town.await_members(5);
    town.await_tidy();
    assert_eq!(town.copies(), 1_200);
    let took = layout_of(town.nodes.last().unwrap())["members"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|member| (member["url"] == url).then(|| member["keys"].as_f64().unwrap()));
    let took = took.expect("the newcomer is listed");
    assert!((0.5..=1.5).contains(&(joins / took)), "{joins} foretold, {took} taken");
}

#[test]
fn a_member_gets_another_weight_and_zone_and_takes_its_share() {
    let town = Town::start(4, &QUICK);
    town.fill(400);
    let id = town.nodes[2].id().to_string();
    let put =
        |body: &str| town.nodes[0].client().send(&Request::new("PUT", format!("/cluster/members/{id}")).body(body));
    for body in [
        "{}",
        r#"{"weight":-1}"#,
        r#"{"zone":7}"#,
        r#"{"zone":"a b"}"#,
        r#"{"weight":65}"#,
        r#"{"weight":2,"more":1}"#,
        "[]",
        "",
    ] {
        put(body).refusal(400);
    }
    town.nodes[0].client().send(&Request::new("PUT", "/cluster/members/nobody").body(r#"{"weight":2}"#)).refusal(400);
    town.nodes[0].get(&format!("/cluster/members/{id}")).refusal(405);
    let told = put(r#"{"weight":3,"zone":"cellar"}"#).expect(200).json();
    for node in &town.nodes {
        let cluster = await_layout(node, |cluster| {
            cluster["epoch"].as_u64() >= told["epoch"].as_u64() && cluster["changing"] == json!(false)
        });
        let member =
            cluster["members"].as_array().unwrap().iter().find(|member| member["id"] == json!(id)).unwrap().clone();
        assert_eq!((&member["weight"], &member["zone"]), (&json!(3), &json!("cellar")));
        // Nobody owns a partition twice: of three copies each, the heaviest has one of all.
        assert!(member["share"].as_f64().unwrap() > 0.30, "{member}");
    }
    town.await_tidy();
    assert_eq!(town.copies(), 1_200);
    town.assert_filled(&town.nodes[2], 400);
    let again = put(r#"{"weight":3}"#).expect(200).json();
    assert_eq!(again["epoch"], layout_of(&town.nodes[0])["epoch"], "it is so already");
    put(r#"{"zone":""}"#).expect(200);
    await_layout(&town.nodes[1], |cluster| {
        let members = cluster["members"].as_array().unwrap();
        members.iter().any(|member| member["id"] == json!(id) && member["zone"] == json!(""))
    });
}
