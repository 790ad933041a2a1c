//! What nodes keep for members that are away, how much of it, and how it is handed over.

use crate::support;

use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use support::cluster::Cluster;
use support::{eventually, replicas};

const FLAGS: [&str; 6] = ["--timeout", "1", "--pingfreq", "0.2", "--syncfreq", "1"];

fn hints(cluster: &Cluster, index: usize) -> Value {
    cluster.client(index).get("/status").expect(200).json()["hints"].clone()
}

fn reached(acked: u64, hinted: u64) -> BTreeMap<String, u64> {
    [("wanted", 3), ("acked", acked), ("hinted", hinted)].map(|(name, count)| (name.to_owned(), count)).into()
}

fn await_everywhere(cluster: &Cluster, keys: usize) {
    eventually("all nodes hold every key and no hint is left", Duration::from_secs(30), || {
        let held = (0..3).map(|index| (0..keys).filter(|k| cluster.held_by(index, &format!("k{k}")).is_some()).count());
        let held: Vec<usize> = held.collect();
        let left = hints(cluster, 0)["count"].clone();
        (held == [keys; 3] && left == 0).then_some(()).ok_or(format!("{held:?} of {keys}, {left} hints left"))
    });
}

#[test]
fn past_its_bound_a_hint_is_refused_and_not_counted() {
    let mut cluster = Cluster::start(3, &[&FLAGS[..], &["--hint-max-bytes", "4KiB"]].concat());
    [1, 2].iter().for_each(|index| cluster.nodes[*index].kill());
    // Three rows of a thousand bytes and something have room in 4 KiB, a fourth has not.
    let value = "v".repeat(1_000);
    for key in 0..6 {
        let written = cluster.client(0).put(&format!("/kv/k{key}"), value.as_str()).expect(202);
        assert_eq!(replicas(&written), reached(1, if key < 3 { 2 } else { 0 }), "k{key}: {written}");
    }
    let told = hints(&cluster, 0);
    assert_eq!((&told["count"], &told["bytes_max"]), (&Value::from(6), &Value::from(4_096)), "{told}");
    assert!(told["refused"].as_u64() >= Some(6), "two for each of three keys: {told}");
    let targets = told["by_target"].as_object().expect("targets");
    assert!(targets.len() == 2 && targets.values().all(|kept| kept["bytes"].as_u64() <= Some(4_096)), "{told}");
    // What is kept already may change as long as it stays as small.
    let again = cluster.client(0).put("/kv/k0", value.as_str()).expect(202);
    assert_eq!(replicas(&again), reached(1, 2), "{again}");
    // What found no room is brought by sessions.
    [1, 2].iter().for_each(|index| cluster.nodes[*index].restart());
    await_everywhere(&cluster, 6);
    assert_eq!(hints(&cluster, 0)["by_target"], serde_json::json!({}));
}

#[test]
fn a_node_told_to_keep_no_hints_keeps_none_and_says_so() {
    let mut cluster = Cluster::start(3, &[&FLAGS[..], &["--hint-max-bytes", "0"]].concat());
    cluster.nodes[2].kill();
    cluster.client(0).put("/kv/k0?w=2", "v").expect(201);
    cluster.nodes[1].kill();
    for key in 1..3 {
        let written = cluster.client(0).put(&format!("/kv/k{key}"), "v").expect(202);
        assert_eq!(replicas(&written), reached(1, 0), "{written}");
    }
    assert_eq!(hints(&cluster, 0)["count"], 0);
    [1, 2].iter().for_each(|index| cluster.nodes[*index].restart());
    await_everywhere(&cluster, 3);
}

#[test]
fn hints_are_kept_over_a_restart_of_their_keeper() {
    let mut cluster = Cluster::start(3, &FLAGS);
    [1, 2].iter().for_each(|index| cluster.nodes[*index].kill());
    for key in 0..20 {
        let written = cluster.client(0).put(&format!("/kv/k{key}"), "v").expect(202);
        assert_eq!(replicas(&written), reached(1, 2), "{written}");
    }
    let before = hints(&cluster, 0);
    cluster.nodes[0].kill();
    cluster.nodes[0].restart();
    assert_eq!((&hints(&cluster, 0)["by_target"], before["count"].as_u64()), (&before["by_target"], Some(40)));
    [1, 2].iter().for_each(|index| cluster.nodes[*index].restart());
    await_everywhere(&cluster, 20);
}
