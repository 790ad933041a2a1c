//! A cluster that fills up gets more nodes, one that empties lets them go, and at no moment is a key unreadable.

use super::SOON;
use super::rig::Demo;
use crate::support::http::{Client, Request};
use crate::support::{eventually, thorough};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Keys that a node takes.
const MAX_KEYS: u32 = 200;

/// What is there, as the writer knows it.
#[derive(Default)]
struct Stored {
    keys: Mutex<BTreeSet<u32>>,
    stop: AtomicBool,
    reads: AtomicU64,
    unreadable: Mutex<Vec<String>>,
}

fn target(key: u32) -> String {
    format!("/kv/scale/{key}")
}

/// Reads what is there, over and over, through a node that stays.
fn read_all(stored: &Stored, port: u16) {
    let mut client = Client::new(&format!("127.0.0.1:{port}"));
    while !stored.stop.load(Ordering::SeqCst) {
        let keys = stored.keys.lock().unwrap().clone();
        for key in keys {
            let answer = client.try_send(&Request::new("GET", target(key)));
            let fine = answer.as_ref().is_ok_and(|answer| answer.status == 200 && answer.text() == key.to_string());
            // One that was deleted meanwhile is not there, and should not be.
            if !fine && stored.keys.lock().unwrap().contains(&key) {
                stored.unreadable.lock().unwrap().push(format!("{key} through {port}: {answer:?}"));
            }
            stored.reads.fetch_add(1, Ordering::SeqCst);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
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
        for port in &ports[..2] {
            scope.spawn(|| read_all(&stored, *port));
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

        for key in 30..count {
            stored.keys.lock().unwrap().remove(&key);
            client.delete(&target(key));
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
