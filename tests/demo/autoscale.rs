//! A cluster that fills up gets more nodes, one that empties lets them go, and at no moment is a key unreadable.

use super::SOON;
use super::rig::Demo;
use crate::support::http::{Client, Request};
use crate::support::{eventually, thorough};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Keys that a node takes.
const MAX_KEYS: u32 = 200;

/// The longest that a node may be too busy to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is there, as the writer knows it.
#[derive(Default)]
struct Stored {
    keys: Mutex<BTreeSet<u32>>,
    stop: AtomicBool,
    /// The ports of the members.
    ports: Mutex<BTreeSet<u16>>,
    reads: AtomicU64,
    /// The ports of the members that a key was read through.
    read_through: Mutex<BTreeSet<u16>>,
    unreadable: Mutex<Vec<String>>,
}

fn target(key: u32) -> String {
    format!("/kv/scale/{key}")
}

/// Goes on looking who is a member, by one that stays.
fn watch_members(stored: &Stored, port: u16) {
    let mut client = Client::new(&format!("127.0.0.1:{port}"));
    while !stored.stop.load(Ordering::SeqCst) {
        if let Ok(answer) = client.try_send(&Request::new("GET", "/cluster"))
            && answer.status == 200
        {
            let cluster = answer.json();
            let members = cluster["members"].as_array().cloned().unwrap_or_default();
            let port_of = |member: &Value| member["url"].as_str()?.rsplit(':').next()?.parse().ok();
            *stored.ports.lock().unwrap() = members.iter().filter_map(port_of).collect();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Reads what is there, over and over, through all members by turns.
fn read_all(stored: &Stored) {
    let mut clients = BTreeMap::new();
    let mut turn = 0;
    while !stored.stop.load(Ordering::SeqCst) {
        let keys = stored.keys.lock().unwrap().clone();
        for key in keys {
            let ports: Vec<u16> = stored.ports.lock().unwrap().iter().copied().collect();
            if ports.is_empty() || stored.stop.load(Ordering::SeqCst) {
                break;
            }
            turn += 1;
            let port = ports[turn % ports.len()];
            let client = clients.entry(port).or_insert_with(|| Client::new(&format!("127.0.0.1:{port}")));
            read(stored, client, port, key);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads a key. That it is not there, or something else is, counts at once; a node that is too busy to answer, on a machine
/// that all of them share, is asked again for a while.
fn read(stored: &Stored, client: &mut Client, port: u16, key: u32) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = client.try_send(&Request::new("GET", target(key)));
        let is_busy = !answer.as_ref().is_ok_and(|answer| answer.status != 503);
        if answer.as_ref().is_ok_and(|answer| answer.status == 200 && answer.text() == key.to_string()) {
            stored.reads.fetch_add(1, Ordering::SeqCst);
            stored.read_through.lock().unwrap().insert(port);
            return;
        }
        // One that was deleted meanwhile is not there, and should not be; and one that has left does not answer.
        let is_over = !stored.keys.lock().unwrap().contains(&key) || stored.stop.load(Ordering::SeqCst);
        if is_over || is_busy && !stored.ports.lock().unwrap().contains(&port) {
            return;
        }
        if !is_busy || Instant::now() >= deadline {
            stored.unreadable.lock().unwrap().push(format!("{key} through {port}: {answer:?}"));
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Deletes a key, as often as it takes.
fn delete(stored: &Stored, client: &mut Client, key: u32) {
    stored.keys.lock().unwrap().remove(&key);
    let mut tries = 0;
    eventually(&format!("key {key} is deleted"), SOON, || {
        tries += 1;
        match client.delete(&target(key)) {
            answer if matches!(answer.status, 202 | 204) => Ok(()),
            // An earlier try was carried out, and not answered so.
            answer if answer.status == 404 && tries > 1 => Ok(()),
            answer => Err(answer.to_string()),
        }
    });
}

/// Stores a key, as often as it takes: a full cluster refuses it until there is another node.
fn store(stored: &Stored, client: &mut Client, key: u32) {
    eventually(&format!("key {key} is stored"), 2 * SOON, || {
        let answer = client.put(&target(key), key.to_string());
        match answer.status {
            201 | 202 | 204 => Ok(()),
            507 => {
                assert!(answer.text().contains("max keys 200 reached"), "{answer}");
                std::thread::sleep(Duration::from_millis(50));
                Err(answer.to_string())
            }
            _ => Err(answer.to_string()),
        }
    });
    stored.keys.lock().unwrap().insert(key);
}

/// Waits until so many nodes are there and the cluster has agreed on it; more than `most` were never seen.
fn await_nodes(demo: &mut Demo, port: u16, count: usize, most: usize) {
    eventually(&format!("there are {count} nodes"), 3 * SOON, || {
        let ports = demo.ask("status")[0].matches(',').count() + 1;
        assert!(ports <= most, "{ports} nodes, and {most} are the most there may be: {}", demo.talk());
        let cluster = Client::new(&format!("127.0.0.1:{port}")).get("/cluster").json();
        let members = cluster["members"].as_array().map_or(0, Vec::len);
        match ports == count && members == count && cluster["changing"] == false {
            true => Ok(()),
            false => Err(format!("{ports} nodes, {members} members; {}", demo.talk())),
        }
    });
}

#[test]
fn a_cluster_that_fills_up_grows_to_its_maximum_and_shrinks_again_with_every_key_readable() {
    // At the maximum, these are still more than 80 % of what the nodes take.
    let (most, count) = if thorough() { (9, 500) } else { (5, 280) };
    let max_nodes = most.to_string();
    let mut demo = Demo::start(&[
        "--nodes",
        "3",
        "--autoscale",
        "--max-nodes",
        &max_nodes,
        "--max-keys",
        "200",
        "--scale-check",
        "200ms",
        "--scale-cooldown",
        "500ms",
    ]);
    let ports = demo.ports();
    let stored = Stored::default();
    let mut client = Client::new(&format!("127.0.0.1:{}", ports[0]));
    std::thread::scope(|scope| {
        let _stops = Stops(&stored.stop);
        scope.spawn(|| watch_members(&stored, ports[0]));
        for _ in 0..2 {
            scope.spawn(|| read_all(&stored));
        }
        for key in 0..count {
            store(&stored, &mut client, key);
        }
        await_nodes(&mut demo, ports[0], most, most);
        for key in 0..count {
            assert_eq!(client.get(&target(key)).text(), key.to_string(), "key {key}");
        }
        // The newest nodes keep their share of it.
        let newest = demo.ask("status").iter().filter_map(|line| line.split(['(', ')']).nth(1)?.parse().ok()).max();
        let newest: u16 = newest.expect("a port");
        let status = Client::new(&format!("127.0.0.1:{newest}")).get("/status").expect(200).json();
        assert!(status["store"]["keys"].as_u64() > Some(u64::from(MAX_KEYS) / 4), "{status}");

        eventually("keys are read through every node", SOON, || {
            let read_through = stored.read_through.lock().unwrap().clone();
            if read_through.len() == most { Ok(()) } else { Err(format!("{read_through:?}")) }
        });

        for key in 30..count {
            delete(&stored, &mut client, key);
        }
        await_nodes(&mut demo, ports[0], 3, most);
        for key in 0..30 {
            assert_eq!(client.get(&target(key)).text(), key.to_string(), "key {key}");
        }
    });
    let unreadable = stored.unreadable.lock().unwrap();
    assert!(unreadable.is_empty(), "{} of {:?} reads: {:?}", unreadable.len(), stored.reads, unreadable.first());
    assert!(stored.reads.load(Ordering::SeqCst) > 1_000, "hardly anything was read: {:?}", stored.reads);
    let talk = demo.talk();
    assert!(talk.contains("adding a node to 3") && talk.contains("of its keys"), "{talk}");
    assert_eq!(talk.matches(" added: ").count(), most - 3, "{talk}");
    assert_eq!(talk.matches(" removed: ").count(), most - 3, "{talk}");
}

/// Ends those who read, however the test ends.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
