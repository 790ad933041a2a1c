//! The context of a key stays small however many stores its owners have been, and loses nothing by it.

use super::kit::{QUICK, SOON, assert_equal_and_quiet, owners_hold};
use super::support::cluster::Cluster;
use super::support::http::Request;
use super::support::node::Node;
use super::support::{eventually, thorough};
use std::time::Instant;

/// An actor and a stamp, 8 bytes each: three of them, and their count, are less than 64.
const ENTRIES_MAX: usize = 3;

#[test]
fn a_keys_context_has_an_entry_for_each_owner_at_most_however_often_they_were_killed() {
    let rounds = if thorough() { 100 } else { 12 };
    let mut cluster = Cluster::start(3, &QUICK);
    let keys = ["a", "b", "c"];
    let (mut contexts, mut last) = (vec![], String::new());
    let began = Instant::now();
    for round in 0..rounds {
        cluster.nodes.iter_mut().for_each(Node::kill);
        cluster.nodes.iter_mut().for_each(Node::relaunch);
        cluster.nodes.iter_mut().for_each(Node::await_ready);
        for index in 0..3 {
            last = format!("{round}-{index}");
            for key in keys {
                // Owners that have just come back need a moment to be reached.
                let written = eventually("a write to all owners", SOON, || {
                    let written = cluster.client(index).put(&format!("/kv/{key}?w=3"), last.as_str());
                    matches!(written.status, 201 | 204).then(|| written.clone()).ok_or(written.to_string())
                });
                if round == rounds / 2 && index == 1 && key == "a" {
                    contexts.push(written.must("Kringle-Context").to_owned());
                }
            }
        }
    }
    eprintln!("{rounds} kills of three nodes in {:?}", began.elapsed());
    for key in keys {
        eventually(&format!("the context of {key} is small"), SOON, || {
            let owners = owners_hold(&cluster, 0, key);
            let clock = |owner: &serde_json::Value| owner["clock"].as_object().map_or(usize::MAX, serde_json::Map::len);
            let sizes: Vec<usize> = owners.iter().map(clock).collect();
            (sizes.len() == 3 && sizes.iter().all(|size| (1..=ENTRIES_MAX).contains(size)))
                .then_some(())
                .ok_or(format!("{sizes:?}"))
        });
    }
    assert_equal_and_quiet(&cluster);
    for index in 0..3 {
        for key in keys {
            let read = cluster.client(index).get(&format!("/kv/{key}?r=3")).expect(200);
            assert_eq!((read.text(), read.must("Kringle-Siblings")), (last.clone(), "1"), "{key}: {read}");
        }
    }
    // A client from before has seen writes that no record names any more: it is shown what superseded them.
    let after = |method: &str, context: &str| Request::new(method, "/kv/a?w=3").header("Kringle-Context", context);
    let old = contexts.pop().expect("a context from before");
    for index in 0..3 {
        let read = Request::new("GET", "/kv/a").header("Kringle-Context", old.as_str());
        assert_eq!(cluster.client(index).send(&read).expect(200).text(), last);
    }
    // And it overwrites nothing that it has not seen.
    cluster.client(1).send(&after("PUT", &old).body("beside")).expect(204);
    let both = cluster.client(2).get("/kv/a?r=3").expect(200);
    assert_eq!((both.text().as_str(), both.must("Kringle-Siblings")), ("beside", "2"), "{both}");
    cluster.client(0).send(&after("PUT", both.must("Kringle-Context")).body("resolved")).expect(204);
    for index in 0..3 {
        let read = cluster.client(index).get("/kv/a?r=3").expect(200);
        assert_eq!((read.text().as_str(), read.must("Kringle-Siblings")), ("resolved", "1"), "{read}");
    }
}
