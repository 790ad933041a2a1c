//! Nodes that come and go because somebody typed so.

use crate::kit::{LIMIT, User, url};
use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::node::{Node, Plan};
use crate::support::proxy::Proxy;
use serde_json::{Value, json};

const QUICK: [&str; 7] = ["--memory", "--pingfreq", "0.2", "--syncfreq", "1", "--timeout", "5"];

fn urls(user: &User) -> Vec<String> {
    let members = user.json(&["members"])["members"].as_array().cloned().unwrap_or_default();
    members.iter().filter_map(|member| member["url"].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_node_is_joined_drained_and_let_go_and_a_dead_one_removed() {
    let mut cluster = Cluster::start(3, &QUICK);
    let user = User::of(&cluster.nodes);
    let lines: String = (0..300).map(|n| format!("{{\"op\":\"put\",\"key\":\"k{n}\",\"value\":\"x\"}}\n")).collect();
    user.run_with(&["batch"], lines.as_bytes()).ok();
    let fresh = Plan::new(&QUICK).flag("--join", "manual").flag("--peers", url(&cluster.nodes[0])).spawn();
    let fresh_url = url(&fresh);
    eventually("it has met the cluster", LIMIT, || {
        let said = user.run(&["join", &fresh_url, "--dry-run", "-o", "json"]);
        match said.code {
            Some(0) if said.json()["moves"].as_array().is_some_and(|moves| !moves.is_empty()) => Ok(()),
            _ => Err(said.to_string()),
        }
    });
    assert_eq!(urls(&user).len(), 3, "nothing was changed");
    // By an address that is not the one it is listed under.
    let elsewhere = Proxy::before(&fresh.address());
    let said = user.run(&["join", &format!("http://{}", elsewhere.address()), "--wait", "60"]).ok();
    assert!(said.text().starts_with("epoch ") && said.talk.contains("4 nodes that live go by it"), "{said}");
    assert_eq!(urls(&user).len(), 4);
    let said = user.run(&["drain", &fresh_url, "--yes", "-o", "json"]).ok();
    assert_eq!(said.json()["settled"], true, "{said}");
    let members = user.json(&["members"]);
    let drained = members["members"].as_array().unwrap().iter().find(|member| member["url"] == *fresh_url).unwrap();
    assert_eq!((&drained["share"], &drained["weight"]), (&json!(0.0), &json!(0)), "{members}");
    // By its name, and asked at a terminal first.
    let mut asked = user.at_a_terminal(&["leave", &fresh_url]);
    asked.await_out(0, "Go on? [y/N] ");
    asked.write(b"n\n");
    assert_eq!(asked.end().code, Some(1));
    assert_eq!(urls(&user).len(), 4, "it was not confirmed");
    let mut asked = user.at_a_terminal(&["leave", &fresh_url]);
    asked.await_out(0, "Go on? [y/N] ");
    asked.write(b"y\n");
    let said = asked.end().ok();
    assert!(said.text().contains("3 nodes that live go by it"), "{said}");
    assert_eq!(urls(&user).len(), 3);

    let dead = url(&cluster.nodes[2]);
    user.run(&["remove", &dead]).expect(4);
    cluster.nodes[2].kill();
    eventually("its death is known", LIMIT, || match user.run(&["remove", &dead, "--no-wait"]) {
        said if said.code == Some(0) => Ok(()),
        said => Err(said.to_string()),
    });
    eventually("it is no member", LIMIT, || {
        let urls = urls(&user);
        if urls.contains(&dead) { Err(format!("{urls:?}")) } else { Ok(()) }
    });
    let listed = user.run(&["list", "k"]).ok().text();
    assert_eq!(listed.lines().count(), 300, "nothing was lost on the way");
    user.run(&["leave", "nobody"]).expect(2);
}

#[test]
fn mode_and_replicas_are_shown_changed_and_waited_for() {
    let cluster = Cluster::start(3, &QUICK);
    let user = User::of(&cluster.nodes);
    let config = || -> Value { user.json(&["mode"]) };
    assert_eq!((&config()["mode"], &config()["replicas"]), (&json!("sloppy"), &json!(3)));
    let before = config()["epoch"].as_u64().unwrap();
    let said = user.run(&["mode", "quorum"]).ok();
    assert_eq!(said.text(), format!("epoch {}\n", before + 1));
    for node in &cluster.nodes {
        assert_eq!(node.get("/config").json()["mode"], "quorum", "every node goes by it when it returns");
    }
    let outlook = user.run(&["replicas", "2", "--dry-run"]).ok();
    assert!(outlook.talk.contains("nothing was changed"), "{outlook}");
    assert_eq!(config()["replicas"], 3);
    user.run(&["replicas", "2"]).ok();
    assert_eq!(config()["replicas"], 2);
    // What nobody hears is said to nobody, and done all the same.
    user.run_unheard(&["mode", "sync"]).ok();
    assert_eq!(config()["mode"], "sync");
    user.run_unheard(&["mode", "sloopy"]).expect(2);
    user.run(&["replicas", "17"]).expect(2);
    user.run(&["mode", "sloopy"]).expect(2);
    user.run(&["abandon"]).expect(4);
}

#[test]
fn a_dead_member_is_replaced_by_a_fresh_node() {
    let mut cluster = Cluster::start(3, &QUICK);
    let user = User::of(&cluster.nodes[..2]);
    user.run(&["put", "a", "1"]).ok();
    let dead = url(&cluster.nodes[2]);
    cluster.nodes[2].kill();
    let fresh: Node = Plan::new(&QUICK).flag("--join", "manual").flag("--peers", url(&cluster.nodes[0])).spawn();
    let with = url(&fresh);
    eventually("it is replaced", LIMIT, || match user.run(&["replace", &dead, &with]) {
        said if said.code == Some(0) => Ok(()),
        said => Err(said.to_string()),
    });
    let urls = urls(&user);
    assert!(urls.contains(&with) && !urls.contains(&dead), "{urls:?}");
    assert_eq!(user.run(&["-e", &with, "get", "a"]).ok().text(), "1");
}
