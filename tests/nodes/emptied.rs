//! Owners that lost their disk, or had an old one put back: they do not pass for what they were, and are refilled.

use crate::support;

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::cluster::Cluster;
use support::http::Request;
use support::{copy_folder, eventually, replicas};

/// Long enough for whatever a busy machine makes of it.
const SOON: Duration = Duration::from_secs(30);

/// Sessions only where they are needed for more than their regularity.
const FLAGS: [&str; 6] = ["--pingfreq", "0.2", "--timeout", "2", "--syncfreq", "3600"];

fn filling(cluster: &Cluster, index: usize) -> Value {
    cluster.client(index).get("/status").expect(200).json()["filling"].clone()
}

#[track_caller]
fn await_filled(cluster: &Cluster, index: usize) {
    eventually("the node is filled", SOON, || {
        let told = filling(cluster, index);
        (told["state"] == "filled").then_some(()).ok_or(told.to_string())
    });
}

/// Up to where one node remembers another to have come; null where it does not remember it.
fn remembered_stamp(cluster: &Cluster, teller: usize, of: usize) -> Value {
    let status = cluster.client(teller).get("/status").expect(200).json();
    let url = format!("http://{}", cluster.nodes[of].address());
    let members = status["members"].as_array().expect("members");
    members.iter().find(|member| member["url"] == url.as_str()).expect("the node")["durable_stamp"].clone()
}

/// The actor of the value that a node shows.
fn actor(cluster: &Cluster, index: usize, key: &str) -> String {
    let listed = cluster.client(index).get(&format!("/kv/{key}?siblings=1")).expect(200).json();
    listed["siblings"][0]["actor"].as_str().expect("an actor").to_owned()
}

fn counts(acked: u64, hinted: u64) -> BTreeMap<String, u64> {
    BTreeMap::from([("wanted", 3), ("acked", acked), ("hinted", hinted)].map(|(name, count)| (name.to_owned(), count)))
}

fn lines(cluster: &Cluster, index: usize, text: &str) -> usize {
    cluster.nodes[index].log().lines().filter(|line| line.contains(text)).count()
}

/// Reads on every road, of every number of owners, until told to stop: how often what was answered.
fn read_on(cluster: &Cluster, index: usize, key: &str, stop: &AtomicBool) -> BTreeMap<(u16, String), u64> {
    let mut told = BTreeMap::new();
    let roads = [
        format!("/kv/{key}"),
        format!("/kv/{key}?r=1"),
        format!("/kv/{key}?mode=async"),
        format!("/store/key?key={key}"),
        format!("/get?key={key}&r=1"),
    ];
    while !stop.load(Ordering::Relaxed) {
        for road in &roads {
            // Until it listens there is no answer, which is none that could be wrong.
            let mut client = cluster.client(index).within(Duration::from_secs(5));
            if let Ok(answer) = client.try_send(&Request::new("GET", road.as_str())) {
                *told.entry((answer.status, road.clone())).or_default() += 1;
            }
        }
    }
    told
}

#[test]
fn an_owner_whose_folder_was_deleted_never_says_that_a_key_is_missing_and_is_refilled_without_being_read() {
    let mut cluster = Cluster::start(3, &FLAGS);
    for number in 0..300 {
        cluster.client(number % 3).put(&format!("/kv/k{number}?w=3"), "v".repeat(100)).expect(201);
    }
    cluster.client(2).put("/kv/mine?w=3", "before").expect(201);
    let (old_actor, old_id) = (actor(&cluster, 2, "mine"), cluster.client(2).get("/ping").json()["node"].clone());
    cluster.nodes[2].kill();
    std::fs::remove_dir_all(cluster.nodes[2].data()).expect("the folder of node 2");
    cluster.nodes[2].relaunch();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers = [2, 2, 0].map(|index| {
            let (cluster, stop) = (&cluster, &stop);
            scope.spawn(move || read_on(cluster, index, "k7", stop))
        });
        let began = Instant::now();
        // Looked at, not read: whoever asks for a key would be answered by its owners.
        eventually("it holds everything and counts", SOON, || {
            let mut client = cluster.client(2).within(Duration::from_secs(1));
            let status = client.try_send(&Request::new("GET", "/status")).map_err(|error| error.to_string())?.json();
            let filled = status["filling"]["state"] == "filled" && status["store"]["keys"] == 301;
            filled.then_some(()).ok_or(status["filling"].to_string())
        });
        eprintln!("filled {:?} after its start", began.elapsed());
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            let told = reader.join().expect("a reader");
            assert!(told.keys().all(|(status, _)| [200, 503].contains(status)), "{told:?}");
            assert!(told.keys().any(|(status, _)| *status == 200), "{told:?}");
        }
    });
    for number in 0..300 {
        assert!(cluster.held_by(2, &format!("k{number}")).is_some(), "k{number}");
    }
    let sync = cluster.client(2).get("/status").json()["sync"].clone();
    assert_eq!((&sync["pulled"], &sync["noop"]), (&json!(301), &json!(0)), "{sync}");
    let repairs: Vec<Value> =
        (0..3).map(|index| cluster.client(index).get("/status").json()["sync"]["read_repairs"].clone()).collect();
    assert_eq!(repairs, [0, 0, 0], "no read filled it");
    assert_eq!(lines(&cluster, 2, "counts for no majority"), 1, "one line when it begins");
    eventually("and one when it is done", SOON, || match lines(&cluster, 2, "filled from its peers") {
        1 => Ok(()),
        lines => Err(format!("{lines} lines")),
    });

    // Its id and its actor are new, and it counts again.
    cluster.client(2).put("/kv/mine?w=3", "since").expect(204);
    assert_ne!(actor(&cluster, 2, "mine"), old_actor);
    assert_ne!(cluster.client(2).get("/ping").json()["node"], old_id);
    cluster.nodes[0].kill();
    let written = cluster.client(2).put("/kv/k1?w=2", "w").expect(204);
    assert_eq!(replicas(&written)["acked"], 2);
    cluster.client(2).get("/kv/k1?r=2").expect(200);
    // Its peers know its new life; a restart is nothing to be told twice.
    cluster.nodes[2].kill();
    cluster.nodes[2].restart();
    await_filled(&cluster, 2);
    assert_eq!(lines(&cluster, 2, "counts for no majority"), 1);
}

#[test]
fn until_it_is_refilled_from_all_it_needs_an_emptied_owner_counts_towards_no_majority() {
    let mut cluster = Cluster::start(3, &FLAGS);
    for number in 0..20 {
        cluster.client(0).put(&format!("/kv/k{number}?w=3"), "v").expect(201);
    }
    eventually("node 0 remembers node 2", SOON, || {
        let stamp = remembered_stamp(&cluster, 0, 2);
        stamp.is_string().then_some(()).ok_or(stamp.to_string())
    });
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    std::fs::remove_dir_all(cluster.nodes[2].data()).expect("the folder of node 2");
    cluster.nodes[2].restart();
    eventually("it has everything that node 0 can give", SOON, || {
        let held = (0..20).filter(|number| cluster.held_by(2, &format!("k{number}")).is_some()).count();
        (held == 20).then_some(()).ok_or(format!("{held} of 20"))
    });
    let told = eventually("it knows what node 0 had seen as well", SOON, || {
        let told = filling(&cluster, 2);
        (told["missing"].as_array().map(Vec::len) == Some(1)).then(|| told.clone()).ok_or(told.to_string())
    });
    assert_eq!(told["state"], "filling", "node 1 is still needed: {told}");
    assert!(told["why"].as_str().is_some_and(|why| why.contains("lost or replaced")), "{told}");
    for index in [0, 2] {
        let mut client = cluster.client(index);
        // One owner has it; the other two will get it: one holds it already, and does not count.
        let written = client.put(&format!("/kv/new{index}"), "v").expect(202);
        assert_eq!(replicas(&written), counts(1, 2), "node {index}");
        client.put("/kv/k1?w=2", "w").refusal(503);
        client.put("/kv/k1?w=1", "w").expect(204);
        let read = client.get("/kv/k1").expect(200);
        assert_eq!(read.must("Kringle-Replicas"), "wanted=2, answered=1", "node {index}");
        let refused = client.get("/kv/k1?r=2").refusal(503);
        assert!(refused.text().contains("being filled"), "{refused}");
    }
    let dots = |key: &str| cluster.client(0).get(&format!("/kv/{key}?siblings=1")).json()["siblings"][0].clone();
    assert_eq!(dots("new0")["actor"], dots("new2")["actor"], "it passes writes on to an owner that counts");

    cluster.nodes[1].restart();
    await_filled(&cluster, 2);
    for index in 0..3 {
        let written = cluster.client(index).put("/kv/k1?w=3", "x").expect(204);
        assert_eq!(replicas(&written), counts(3, 0));
        cluster.client(index).get("/kv/k1?r=3").expect(200);
    }
}

#[test]
fn an_emptied_owner_alone_answers_no_read_and_keeps_every_write_for_all_owners() {
    let mut cluster = Cluster::start(3, &FLAGS);
    for number in 0..20 {
        cluster.client(0).put(&format!("/kv/k{number}?w=3"), "v").expect(201);
    }
    (0..3).for_each(|index| cluster.nodes[index].kill());
    std::fs::remove_dir_all(cluster.nodes[2].data()).expect("the folder of node 2");
    cluster.nodes[2].restart();
    let mut client = cluster.client(2);
    for number in 0..20 {
        for road in
            [format!("/kv/k{number}"), format!("/kv/k{number}?r=1"), format!("/store/key?key=k{number}&mode=async")]
        {
            let refused = client.get(&road).refusal(503);
            assert!(refused.text().contains("being filled"), "{road}: {refused}");
        }
    }
    let written = client.put("/kv/k1", "kept").expect(202);
    assert_eq!(replicas(&written), counts(0, 3));
    client.put("/kv/k1?w=1", "refused").refusal(503);
    assert_eq!(client.get("/kv/k1").expect(200).text(), "kept");
    assert_eq!(replicas(&client.delete("/kv/k2").expect(202)), counts(0, 3));
    client.get("/kv/k2").refusal(503);
    assert_ne!(filling(&cluster, 2)["state"], "filled");

    // Its hints go to the others, what they hold comes here, and then it counts.
    cluster.nodes[0].restart();
    cluster.nodes[1].restart();
    await_filled(&cluster, 2);
    eventually("all three are equal", SOON, || {
        let hashes: Vec<Value> = (0..3).map(|index| cluster.client(index).get("/store/hash").json()).collect();
        let equal = hashes.iter().all(|told| *told == hashes[0]);
        equal.then_some(()).ok_or(format!("{hashes:?}"))
    });
    for index in 0..3 {
        let values = cluster.client(index).get("/kv/k1?siblings=1&r=3").expect(200).text();
        assert!(values.contains("kept") && values.contains("\"v\""), "neither write saw the other: {values}");
        assert_eq!(cluster.client(index).get("/kv/k3?r=3").expect(200).text(), "v");
    }
}

#[test]
fn a_folder_put_back_from_a_copy_is_treated_as_emptied_and_what_it_holds_is_merged() {
    let mut cluster = Cluster::start(3, &FLAGS);
    for number in 0..40 {
        cluster.client(0).put(&format!("/kv/k{number}?w=3"), "old").expect(201);
    }
    assert!(cluster.nodes[2].stop(SOON).success());
    let home = tempfile::tempdir().expect("a folder for the copy");
    copy_folder(cluster.nodes[2].data(), home.path());
    cluster.nodes[2].restart();
    await_filled(&cluster, 2);
    for number in 0..20 {
        cluster.client(2).put(&format!("/kv/k{number}?w=3"), "new").expect(204);
    }
    for number in 20..30 {
        cluster.client(2).delete(&format!("/kv/k{number}?w=3")).expect(204);
    }
    cluster.client(2).put("/kv/last?w=3", "new").expect(201);
    let last = cluster.client(0).get("/kv/last?siblings=1").json()["siblings"][0]["stamp"].clone();
    eventually("its peers know how far it has come", SOON, || {
        let stamps = [0, 1].map(|teller| remembered_stamp(&cluster, teller, 2));
        stamps.iter().all(|stamp| stamp.as_str() >= last.as_str()).then_some(()).ok_or(format!("{stamps:?} of {last}"))
    });
    cluster.nodes[2].kill();
    std::fs::remove_dir_all(cluster.nodes[2].data()).expect("the folder of node 2");
    copy_folder(home.path(), cluster.nodes[2].data());
    cluster.nodes[2].relaunch();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers = ["last", "k3"].map(|key| {
            let (cluster, stop) = (&cluster, &stop);
            scope.spawn(move || read_on(cluster, 2, key, stop))
        });
        cluster.nodes[2].client();
        eventually("it is filled and has what was written since", SOON, || {
            let mut client = cluster.client(2).within(Duration::from_secs(1));
            let status = client.try_send(&Request::new("GET", "/status")).map_err(|error| error.to_string())?.json();
            let (state, keys) = (&status["filling"]["state"], &status["store"]["keys"]);
            (*state == "filled" && *keys == 31).then_some(()).ok_or(format!("{state}, {keys} keys"))
        });
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            let told = reader.join().expect("a reader");
            assert!(told.keys().all(|(status, _)| [200, 503].contains(status)), "{told:?}");
        }
    });
    assert_eq!(lines(&cluster, 2, "put back from a copy"), 1);
    for number in 0..40 {
        let held = cluster.held_by(2, &format!("k{number}"));
        let expected = match number {
            0..20 => Some(json!("new")),
            20..30 => None,
            _ => Some(json!("old")),
        };
        assert_eq!(held, expected, "k{number}");
        let read = cluster.client(0).get(&format!("/kv/k{number}?r=3"));
        assert_eq!(read.status, if expected.is_some() { 200 } else { 404 }, "{read}");
    }
}

#[test]
fn a_node_in_memory_comes_back_empty_each_time_and_is_refilled_each_time() {
    let mut cluster = Cluster::start(3, &[&["--memory"][..], &FLAGS].concat());
    for number in 0..50 {
        cluster.client(0).put(&format!("/kv/k{number}?w=3"), "v").expect(201);
    }
    for index in [2, 1, 0, 2] {
        cluster.nodes[index].kill();
        cluster.nodes[index].restart();
        // It may be asked as soon as it is ready.
        for number in 0..50 {
            let read = cluster.client(index).get(&format!("/kv/k{number}?r=1"));
            assert_eq!(read.status, 200, "k{number} on node {index}: {read}");
        }
        await_filled(&cluster, index);
        for number in 0..50 {
            assert!(cluster.held_by(index, &format!("k{number}")).is_some(), "k{number} on node {index}");
        }
    }
}

#[test]
fn a_node_that_starts_late_is_filled_before_it_counts() {
    let mut cluster = Cluster::start(3, &[&["--memory"][..], &FLAGS].concat());
    // A cluster that never saw node 2: the other two forget it with everything else.
    (0..3).for_each(|index| cluster.nodes[index].kill());
    cluster.nodes[0].relaunch();
    cluster.nodes[1].relaunch();
    await_filled_soon(&cluster, &[0, 1]);
    for number in 0..50 {
        cluster.client(0).put(&format!("/kv/k{number}"), "v").expect(201);
    }
    cluster.nodes[2].restart();
    for number in 0..50 {
        cluster.client(2).get(&format!("/kv/k{number}?r=1")).expect(200);
    }
    await_filled(&cluster, 2);
    for number in 0..50 {
        assert!(cluster.held_by(2, &format!("k{number}")).is_some(), "k{number}");
    }
}

/// Waits for nodes that may not even listen yet.
fn await_filled_soon(cluster: &Cluster, nodes: &[usize]) {
    for index in nodes {
        eventually("the node is filled", SOON, || {
            let mut client = cluster.client(*index).within(Duration::from_secs(1));
            let status = client.try_send(&Request::new("GET", "/status")).map_err(|error| error.to_string())?.json();
            (status["filling"]["state"] == "filled").then_some(()).ok_or(status["filling"].to_string())
        });
    }
}
