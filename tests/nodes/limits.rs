//! How many keys a node keeps, through every door, whoever writes at the same time; and what it says of its load.

use crate::support;

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use support::cluster::Cluster;
use support::http::{Client, Request};
use support::node::{Node, Plan};
use support::{eventually, resp};

/// Long enough for whatever a busy machine makes of it.
const SOON: Duration = Duration::from_secs(60);

fn load(node: &Node) -> Value {
    node.get("/status").expect(200).json()["load"].clone()
}

fn keys(node: &Node) -> u64 {
    node.get("/status").expect(200).json()["store"]["keys"].as_u64().expect("keys")
}

/// A JSON POST.
fn post(target: &str, body: Value) -> Request {
    Request::new("POST", target).json(&body)
}

/// A request for each door that leads to a write of `key`.
fn doors(key: &str) -> Vec<Request> {
    let put = |query: &str| Request::new("PUT", format!("/kv/{key}{query}")).body("v");
    vec![
        put(""),
        put("?mode=async"),
        put("?w=1"),
        put("?mode=quorum"),
        put("?mode=sync"),
        put("?mode=chain"),
        put("?ttl=60"),
        put("?mode=quorum").header("If-None-Match", "*"),
        post("/store", json!({ "key": key, "value": "v" })),
        post("/store?mode=quorum", json!({ "key": key, "value": "v" })),
        Request::new("POST", format!("/put?key={key}&value=v")),
        Request::new("POST", format!("/counters/{key}")),
        Request::new("POST", format!("/counters/{key}?mode=quorum")),
        post("/replicate", json!({ "key": key, "value": "v" })),
    ]
}

const COMMANDS: [&str; 6] = ["SET new v", "SETEX new 60 v", "MSET new v", "INCR new", "SETNX new v", "APPEND new v"];

#[test]
fn a_full_node_refuses_new_keys_at_every_door_and_takes_whatever_is_done_to_those_that_are_there() {
    let mut node = Plan::new(&["--max-keys", "3", "--resp-port", "0"]).start();
    assert_eq!((&load(&node)["max_keys"], &load(&node)["full"]), (&json!(3), &json!(false)));
    let mut client = node.client();
    client.put("/kv/text", "v").expect(201);
    client.put("/kv/agreed?mode=quorum", "v").expect(201);
    client.send(&Request::new("POST", "/counters/visits")).expect(200);
    assert_eq!(load(&node)["full"], true);
    let told = "node full: max keys 3 reached";
    for request in doors("new") {
        let refused = client.send(&request).refusal(507);
        assert_eq!(refused.json()["error"], told, "{request:?}");
    }
    let batch = ["put new", "put text", "incr new", "incr visits", "put newer", "delete new"].map(|line| {
        let (op, key) = line.split_once(' ').expect("an op and a key");
        let value = if op == "put" { json!("v") } else { Value::Null };
        json!({ "op": op, "key": key, "value": value }).to_string().replace(",\"value\":null", "")
    });
    let answer = client.send(&Request::new("POST", "/batch").body(batch.join("\n"))).expect(200).text();
    let lines: Vec<Value> = answer.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let statuses: Vec<u64> = lines.iter().filter_map(|line| line["status"].as_u64()).collect();
    assert_eq!(statuses, [507, 204, 507, 200, 507, 204], "{answer}");
    assert_eq!(lines[0]["error"], told);
    for mode in ["sloppy", "async", "quorum", "sync", "chain"] {
        let mut client = resp::Client::of(&node).in_mode(mode);
        for command in COMMANDS
            .into_iter()
            .filter(|command| mode == "quorum" || !command.contains("NX") && !command.contains("APP"))
        {
            let answer = client.say(command);
            assert!(
                answer.error().starts_with("OOM ") && answer.error().contains(told),
                "{mode}: {command}: {answer:?}"
            );
        }
        assert_eq!(client.say("SET text w"), resp::ok(), "{mode}");
        assert!(client.say("INCR visits").int() > 1, "{mode}");
        // Deleting what is not there is no new key.
        assert_eq!(client.say("DEL new").int(), 0, "{mode}");
    }
    assert_eq!(keys(&node), 3);
    for key in ["text", "agreed", "visits"] {
        client.get(&format!("/kv/{key}")).expect(200);
    }
    client.get("/kv/new?mode=quorum").expect(404);
    // It is so after a restart, and until there is room.
    node.kill();
    node.restart();
    let mut client = node.client();
    eventually("what is there is counted", SOON, || {
        let answer = client.put("/kv/new", "v");
        if answer.status == 507 { Ok(()) } else { Err(answer.to_string()) }
    });
    client.put("/kv/new?mode=quorum", "v").refusal(507);
    client.put("/kv/text", "again").expect(204);
    client.delete("/kv/text").expect(204);
    client.put("/kv/new", "v").expect(201);
    client.put("/kv/newer", "v").refusal(507);
    client.delete("/kv/agreed?mode=quorum").expect(204);
    client.put("/kv/newer?mode=quorum", "v").expect(201);
    client.put("/kv/text?mode=quorum", "v").refusal(507);
    assert_eq!(keys(&node), 3);
}

/// Writes keys of its own, each once, until `count` in a row were refused. Those that were stored, and those that were not.
fn fill(mut client: Client, number: usize, mode: &str, count: usize) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut stored, mut refused, mut in_a_row) = (BTreeSet::new(), BTreeSet::new(), 0);
    for at in 0.. {
        let key = format!("k{number}-{at}");
        let answer = client.put(&format!("/kv/{key}?mode={mode}"), "v");
        match answer.status {
            200..=202 => (in_a_row, _) = (0, stored.insert(key)),
            507 => (in_a_row, _) = (in_a_row + 1, refused.insert(key)),
            // Those that agree may find too few of them in time.
            503 => {}
            _ => panic!("{answer}"),
        }
        if in_a_row == count {
            break;
        }
    }
    (stored, refused)
}

/// Clients of these nodes at once, in turn in both kinds of modes.
fn fill_at_once(nodes: &[Node], clients: usize) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut stored, mut refused) = (BTreeSet::new(), BTreeSet::new());
    std::thread::scope(|scope| {
        let writers = (0..clients).map(|number| {
            let client = nodes[number % nodes.len()].client();
            let mode = ["sloppy", "quorum"][number / nodes.len() % 2];
            scope.spawn(move || fill(client, number, mode, 20))
        });
        for writer in writers.collect::<Vec<_>>() {
            let (more, fewer) = writer.join().expect("a writer");
            (stored, refused) = (&stored | &more, &refused | &fewer);
        }
    });
    (stored, refused)
}

#[test]
fn however_many_write_at_once_one_node_keeps_exactly_as_many_keys_as_it_may() {
    let nodes = [Plan::new(&["--memory", "--max-keys", "100", "--workers", "2"]).start()];
    let (stored, refused) = fill_at_once(&nodes, 16);
    assert_eq!((stored.len(), keys(&nodes[0])), (100, 100));
    let mut client = nodes[0].client();
    stored.iter().for_each(|key| drop(client.get(&format!("/kv/{key}")).expect(200)));
    refused.iter().for_each(|key| drop(client.get(&format!("/kv/{key}")).expect(404)));
}

#[test]
fn three_nodes_keep_no_more_than_they_may_and_what_was_under_way_and_their_copies_become_equal() {
    const CLIENTS: usize = 12;
    let cluster = Cluster::start(3, &["--memory", "--max-keys", "60", "--syncfreq", "1", "--timeout", "5"]);
    let (stored, refused) = fill_at_once(&cluster.nodes, CLIENTS);
    eventually("every pair of nodes is equal", SOON, || cluster.first_difference().map_or(Ok(()), Err));
    for node in &cluster.nodes {
        let keys = keys(node);
        assert!((60..=60 + CLIENTS as u64).contains(&keys), "{keys} keys, {} stored", stored.len());
        assert_eq!(load(node)["full"], true);
        let mut client = node.client();
        stored.iter().for_each(|key| drop(client.get(&format!("/kv/{key}?r=3")).expect(200)));
        refused.iter().for_each(|key| drop(client.get(&format!("/kv/{key}?r=3")).expect(404)));
        // All may still be changed.
        let key = stored.iter().next().expect("a key");
        client.put(&format!("/kv/{key}?mode=sync"), "w").expect(204);
        client.put(&format!("/kv/{key}"), "w").expect(204);
        client.put("/kv/new?mode=sync", "w").refusal(507);
    }
}

#[test]
fn a_node_that_is_full_takes_the_copies_of_others_and_is_not_passed_over_by_one_that_owns_nothing() {
    let mut nodes: Vec<Node> = Vec::new();
    let full = Plan::new(&["--memory", "--max-keys", "2", "--syncfreq", "1"]).start();
    let url = format!("http://{}", full.address());
    nodes.push(full);
    // It passes on what it is asked.
    let guest = Plan::new(&["--memory", "--join", "manual", "--syncfreq", "1"]).flag("--peers", &url).spawn();
    eventually("what it is asked it passes on", SOON, || {
        let passed = guest.client().try_send(&Request::new("PUT", "/kv/one").body("v"));
        if passed.as_ref().is_ok_and(|answer| answer.status < 300) { Ok(()) } else { Err(format!("{passed:?}")) }
    });
    guest.put("/kv/two?mode=quorum", "v").expect(201);
    for request in doors("three").into_iter().take(10) {
        guest.client().send(&request).refusal(507);
    }
    guest.put("/kv/one", "w").expect(204);
    // As a member it makes keys itself.
    guest.client().send(&Request::new("POST", "/cluster/join")).expect(200);
    eventually("it is a member", SOON, || {
        let cluster = guest.get("/cluster").json();
        let members = cluster["members"].as_array().map_or(0, Vec::len);
        if members == 2 && cluster["changing"] == false { Ok(()) } else { Err(cluster.to_string()) }
    });
    guest.put("/kv/three?w=2", "v").expect(201);
    nodes[0].put("/kv/four", "v").refusal(507);
    assert_eq!((keys(&nodes[0]), keys(&guest)), (3, 3));
}

#[test]
fn the_load_is_that_of_clients_over_whole_seconds_whatever_they_speak() {
    let node = Plan::new(&["--memory", "--resp-port", "0", "--max-load", "50"]).start();
    let told = load(&node);
    assert_eq!((&told["max_load"], &told["max_keys"], &told["full"]), (&json!(50), &Value::Null, &json!(false)));
    let value = "v".repeat(1_000);
    // On a busy machine they may not all come within one window: then once more.
    eventually("all that came is in the rates", SOON, || {
        eventually("nothing else is", SOON, || {
            let rate = load(&node)["requests_per_s"].as_f64();
            if rate == Some(0.0) { Ok(()) } else { Err(format!("{rate:?}")) }
        });
        let (mut client, mut redis) = (node.client(), resp::Client::of(&node));
        for at in 0..10 {
            client.put(&format!("/kv/k{at}"), value.as_str());
            client.get(&format!("/kv/k{at}")).expect(200);
        }
        let line = json!({ "op": "put", "key": "k", "value": value }).to_string();
        client.send(&Request::new("POST", "/batch").body([line.as_str(); 5].join("\n"))).expect(200);
        redis.say("SET k v");
        client.get("/kv?limit=5").expect(200);
        client.get("/ring").expect(200);
        let (mut most, began) = (json!({ "requests_per_s": 0.0 }), std::time::Instant::now());
        while began.elapsed() < Duration::from_secs(5) {
            let rates = load(&node);
            let rate = rates["requests_per_s"].as_f64();
            if rate > most["requests_per_s"].as_f64() {
                most = rates;
            } else if rate == Some(0.0) && most["requests_per_s"] != 0.0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let in_all = |name: &str| (most[name].as_f64().unwrap_or_default() * 3.0).round() as u64;
        let (requests, bytes_in, bytes_out) =
            (in_all("requests_per_s"), in_all("bytes_in_per_s"), in_all("bytes_out_per_s"));
        if requests != 26 {
            return Err(format!("{requests} of 26 requests: {most}"));
        }
        assert!((15_000..16_000).contains(&bytes_in), "ten values and five lines: {most}");
        assert!((10_000..14_000).contains(&bytes_out), "ten values, and what is said of five lines: {most}");
        assert_eq!(in_all("bytes_per_s"), bytes_in + bytes_out, "{most}");
        Ok(())
    });
    let info = resp::Client::of(&node).say("INFO stats").text();
    assert!(info.contains("instantaneous_ops_per_sec:"), "{info}");
}
