//! What a cluster tells of itself: tables for people, JSON and CSV for programs, and a verdict as exit code.

use crate::kit::{LIMIT, User, assert_narrow, url};
use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::http::Request;
use crate::support::node::{Node, Plan, reserve_port};
use crate::support::proxy::{Fault, Proxy};
use serde_json::{Value, json};
use std::time::Duration;

/// Sessions only when they are asked for; who dies is noticed soon.
const QUIET: [&str; 7] = ["--memory", "--syncfreq", "3600", "--pingfreq", "0.5", "--timeout", "5"];

/// The rows of a table or of CSV, taken apart at blanks or commas.
fn cells(text: &str) -> Vec<Vec<String>> {
    text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

#[test]
fn a_cluster_that_loses_nodes_is_told_so_by_tables_and_exit_codes() {
    let mut cluster = Cluster::start(3, &QUIET);
    let user = User::of(&cluster.nodes);
    user.run(&["put", "hello", "world"]).ok();
    eventually("all is well", LIMIT, || match user.run(&["status"]) {
        said if said.code == Some(0) => Ok(()),
        said => Err(said.to_string()),
    });
    let said = user.run(&["status"]).ok();
    assert_narrow(&said.text());
    assert_narrow(&said.talk);
    let rows = cells(&said.text());
    assert_eq!(&rows[0][..4], ["NODE", "STATE", "ZONE", "OWNS"], "{said}");
    assert_eq!(rows.len(), 4, "{said}");
    assert_eq!(&rows[1][..4], [&cluster.nodes[0].address(), "alive", "-", "33.3%"], "{said}");
    assert!(said.talk.starts_with("healthy: mode sloppy, 3 replicas, epoch 1, 3 nodes"), "{said}");
    let json = user.json(&["status"]);
    assert_eq!((&json["health"], json["nodes"].as_array().map(Vec::len)), (&json!("healthy"), Some(3)), "{json}");
    assert_eq!(json["nodes"][0]["version"], env!("CARGO_PKG_VERSION"));
    let csv = user.run(&["status", "-o", "csv"]).ok().text();
    assert!(csv.starts_with("node,state,zone,owns,keys,hints,last_sync_ms,version\nhttp://127.0.0.1:"), "{csv}");
    let members = user.run(&["members"]).ok();
    assert_eq!(cells(&members.text()).len(), 4, "{members}");
    assert_eq!(user.json(&["ring"])["partitions"], 1024);
    assert!(user.run(&["ring"]).ok().text().contains("33.3%"));
    let health = user.run(&["health"]).ok();
    assert!(health.text().contains("store") && !health.text().contains(" no "), "{health}");
    user.run(&["health", "--local"]).ok();

    // As it looks at a terminal: bold, narrow, and plain where that is asked for.
    let at = |user: &User| {
        let mut at = user.at_a_terminal(&["status"]);
        at.close_after(b"");
        at.end().ok().text()
    };
    let drawn = at(&user);
    assert!(drawn.contains("\x1b[1mNODE"), "{drawn:?}");
    assert_narrow(&drawn.replace("\x1b[1m", "").replace("\x1b[0m", "").replace('\r', ""));
    let user = user.with("NO_COLOR", "1");
    assert!(!at(&user).contains('\x1b'));

    cluster.nodes[2].kill();
    let gone = url(&cluster.nodes[2]);
    eventually("its death is known", LIMIT, || match user.run(&["status", "-o", "json"]) {
        said if said.code == Some(8) && said.json()["nodes"][2]["state"] == "down" => Ok(()),
        said => Err(said.to_string()),
    });
    let said = user.run(&["status"]).expect(8);
    assert!(said.talk.contains("degraded: ") && said.talk.contains(&format!("{gone} is down")), "{said}");
    user.run(&["health"]).expect(8);
    user.run(&["mode", "quorum"]).ok();
    cluster.nodes[1].kill();
    eventually("the second death is known", LIMIT, || match user.run(&["status"]) {
        said if said.code == Some(5) => Ok(()),
        said => Err(said.to_string()),
    });
    cluster.nodes[0].kill();
    assert!(user.run(&["status"]).expect(5).why().contains("no endpoint answers"));
    assert!(user.run(&["health"]).expect(5).out.is_empty());
}

#[test]
fn a_node_whose_own_url_is_not_for_outsiders_is_asked_where_it_was_named() {
    let inside = format!("http://127.0.0.1:{}", reserve_port());
    let node = Plan::new(&["--memory", "--advertise", &inside]).start();
    let user = User::of([&node]);
    let said = user.run(&["status"]).ok();
    assert!(said.text().contains(inside.trim_start_matches("http://")) && said.talk.starts_with("healthy: "), "{said}");
    assert!(user.run(&["health"]).ok().text().contains("1 of 1 nodes"));
    // It is the last one that keeps anything.
    assert!(user.run(&["drain", &inside]).expect(4).why().contains("last"));
}

#[test]
fn a_key_is_found_with_its_owners_and_their_versions() {
    let cluster = Cluster::start(4, &QUIET);
    let user = User::of(&cluster.nodes[..1]);
    user.run(&["put", "a/b", "world"]).ok();
    eventually("every owner has it", LIMIT, || {
        let place = user.json(&["locate", "a/b"]);
        let owners = place["owners"].as_array().cloned().unwrap_or_default();
        match owners.len() == 3 && owners.iter().all(|owner| owner["siblings"][0]["value"] == "world") {
            true => Ok(()),
            false => Err(place.to_string()),
        }
    });
    let place = user.json(&["locate", "a/b"]);
    let urls: Vec<Value> = place["owners"].as_array().unwrap().iter().map(|owner| owner["url"].clone()).collect();
    let expected: Vec<Value> =
        cluster.owners("a/b").into_iter().map(|index| json!(url(&cluster.nodes[index]))).collect();
    assert_eq!(urls, expected, "in the order of preference");
    let said = user.run(&["locate", "a/b"]).ok();
    assert!(said.text().starts_with("position ") && said.text().contains(", 3 owners\n"), "{said}");
    assert_eq!(said.text().matches("world").count(), 3, "{said}");
    assert!(said.talk.contains("stand-ins"), "{said}");
    assert_narrow(&said.text());
    assert!(user.run(&["locate", "absent"]).ok().text().contains("nothing"));
}

#[test]
fn copies_that_differ_are_named_by_partition_and_made_equal() {
    let cluster = Cluster::start(3, &QUIET);
    let user = User::of(&cluster.nodes[..1]);
    let (one, other) = (url(&cluster.nodes[0]), url(&cluster.nodes[1]));
    // Nobody compares itself any more by itself.
    eventually("all is equal after the start", LIMIT, || {
        let status = user.run(&["sync", "status", "-o", "json"]).ok().json();
        let rows = status.as_array().cloned().unwrap_or_default();
        let quiet =
            rows.len() == 3 && rows.iter().all(|row| row["equal"] == "2/2" && row["sessions"].as_u64() >= Some(2));
        if quiet { Ok(()) } else { Err(status.to_string()) }
    });
    user.run(&["sync", "diff", &one, &other]).ok();
    let pair = json!({ "key": "only-here", "value": "x" }).to_string();
    cluster.client(0).send(&Request::new("POST", "/replicate").body(pair)).expect(200);
    let said = user.run(&["sync", "diff", &one, &other, "-o", "json"]).expect(8);
    let diff = said.json();
    // To ask who holds it would repair it.
    let partition = cluster.client(0).get("/ring?key=only-here").json();
    assert_eq!(diff["differing"].as_array().map(Vec::len), Some(1), "{diff}");
    let found = &diff["differing"][0];
    assert_eq!(
        (&found["partition"], &found["keys_a"], &found["keys_b"]),
        (&partition["partition"], &json!(1), &json!(0))
    );
    let position: u64 = partition["position"].as_str().map(|text| u64::from_str_radix(text, 16).unwrap()).unwrap();
    let bound = |name: &str| u64::from_str_radix(found[name].as_str().unwrap(), 16).unwrap();
    assert!((bound("first_position")..=bound("last_position")).contains(&position), "{found}");
    let status = user.run(&["sync", "status"]).ok();
    assert!(status.text().contains("0/2") && status.text().contains("1/2"), "{status}");
    assert_narrow(&status.text());
    let said = user.run(&["sync", "run", "--with", &other, "-o", "json"]).ok();
    assert_eq!(
        (said.json()[0]["pushed"].as_u64(), said.json()[0]["partitions"].as_u64()),
        (Some(1), Some(1)),
        "{said}"
    );
    user.run(&["sync", "diff", &one, &other]).ok();
    let said = user.run(&["sync", "run", "--all"]).ok();
    assert_eq!(cells(&said.text()).len(), 7, "each with each: {said}");
    assert_narrow(&said.text());
    assert!(user.run(&["sync", "diff", &one, "nobody-of-that-name"]).expect(2).talk.contains(&other));
    // The query below it.
    let client = || cluster.client(0);
    let whole = client().get("/store/hash?by=partition").expect(200).json();
    assert_eq!(whole["partitions"].as_array().map(Vec::len), Some(1024));
    assert_eq!(whole["hash"], client().get("/store/hash").json()["hash"]);
    client().get("/store/hash?by=leaf").refusal(400);
}

#[test]
fn the_fastest_endpoint_is_asked_and_one_that_hangs_is_not() {
    let nodes = [Node::in_memory(), Node::in_memory(), Node::in_memory()];
    let proxies: Vec<Proxy> = nodes.iter().map(|node| Proxy::before(&node.address())).collect();
    proxies[0].set(Fault::Hang);
    proxies[1].set(Fault::Delay(Duration::from_millis(700)));
    for (index, node) in nodes.iter().enumerate() {
        node.put("/kv/who", index.to_string());
    }
    let urls: Vec<String> = proxies.iter().map(|proxy| format!("http://{}", proxy.address())).collect();
    let user = User::new().with("KRINGLE_ENDPOINTS", urls.join(","));
    let said = user.run(&["--fastest", "get", "who"]).ok();
    assert_eq!(said.text(), "2");
    assert!(said.talk.contains(&format!("asking {}", urls[2])), "{said}");
    // Without it the first is asked, waited for, and then the next.
    assert_eq!(user.run(&["get", "who", "--timeout", "6"]).ok().text(), "1");
}

#[test]
fn top_goes_on_looking_and_is_plain_in_a_pipe() {
    let cluster = Cluster::start(2, &QUIET);
    let user = User::of(&cluster.nodes);
    let said = user.run(&["top", "--interval", "0.2", "--count", "2"]).ok();
    let text = said.text();
    assert_eq!(text.matches("NODE").count(), 2, "{text}");
    assert!(!text.contains('\x1b'), "{text:?}");
    assert_narrow(&text);
    let looks = user.run(&["top", "--interval", "0.2", "--count", "2", "-o", "json"]).ok().lines();
    assert_eq!(looks.len(), 2);
    assert!(looks[0]["nodes"][0]["keys/s"].is_null() && looks[1]["nodes"][0]["keys/s"].is_number(), "{looks:?}");
    let mut at = user.at_a_terminal(&["top", "--interval", "0.2"]);
    let first = at.await_out(0, "NODE");
    assert!(first.contains("\x1b[2J\x1b[H\x1b[J"), "{first:?}");
    let again = at.await_out(first.len(), "NODE");
    assert!(again.contains("\x1b[H\x1b[J") && !again.contains("\x1b[2J"), "drawn over: {again:?}");
    // Ctrl-C.
    at.write(b"\x03");
    assert_eq!(at.end().code, Some(130));
}
