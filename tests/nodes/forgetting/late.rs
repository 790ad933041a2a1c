//! Copies of what was forgotten that come late, and writes that only look like them.

use super::kit::{
    QUICK, ROADS, SOON, Watch, assert_equal_and_quiet, await_forgotten, await_unknown, owners_hold, status,
};
use super::support::cluster::Cluster;
use super::support::http::{Request, encode};
use super::support::{eventually, peer, replicas};
use kringle::placement::{NodeId, Partition};
use kringle::protocol::Request as PeerRequest;
use kringle::record::{Actor, Content, Context, Dot, Key, Record, Sibling, Stamp};
use std::time::{SystemTime, UNIX_EPOCH};

fn number(told: &serde_json::Value) -> u64 {
    u64::from_str_radix(told.as_str().expect("a number in hexadecimal"), 16).expect("a number in hexadecimal")
}

/// The name of the only write that node 0 shows under `key`.
#[track_caller]
pub fn dot(cluster: &Cluster, key: &str) -> Dot {
    let listed = cluster.client(0).get(&format!("/kv/{}?siblings=1&r=3", encode(key))).expect(200).json();
    assert_eq!(listed["siblings"].as_array().map(Vec::len), Some(1), "{listed}");
    let only = &listed["siblings"][0];
    Dot { stamp: Stamp(number(&only["stamp"])), actor: Actor(number(&only["actor"])) }
}

/// The record as whoever wrote first on an empty key would have it: this write, and this value if any.
pub fn record(dot: Dot, value: Option<&str>) -> Record {
    let mut context = Context::new();
    context.add(dot);
    let sibling = value.map(|value| Sibling::new(dot, Content::plain(value.to_owned())));
    Record::from_parts(context, sibling.into_iter().collect()).expect("a record")
}

/// A peer that nobody named brings a copy to one node.
#[track_caller]
pub fn bring(cluster: &Cluster, index: usize, key: &str, record: &Record) {
    let key = Key::new(key.to_owned()).expect("a short key");
    let merge = PeerRequest::Merge { key, record: record.clone() };
    let mut client = cluster.client(index);
    let batch = peer::post_as_member(&mut client, "/replicate", NodeId(7), Stamp(0), vec![merge]);
    client.send(&batch).expect(200);
}

/// Writes `key` through one node and deletes it through another, until nothing of it is left: the name of the write.
#[track_caller]
pub fn written_deleted_and_forgotten(cluster: &Cluster, through: usize, key: &str) -> Dot {
    cluster.client(through).put(&format!("/kv/{key}?w=3"), "old").expect(201);
    let written = dot(cluster, key);
    cluster.client((through + 1) % 3).delete(&format!("/kv/{key}?w=3")).expect(204);
    await_unknown(cluster, key);
    written
}

#[test]
fn a_copy_that_comes_after_all_was_forgotten_is_shown_by_nobody_and_forgotten_again() {
    let mut cluster = Cluster::start(3, &QUICK);
    let late: Vec<(String, Dot)> = (0..6)
        .map(|number| format!("late{number}"))
        .map(|key| (key.clone(), written_deleted_and_forgotten(&cluster, 1, &key)))
        .collect();
    await_forgotten(&cluster, 0);
    let keys: Vec<String> = late.iter().map(|(key, _)| key.clone()).collect();
    for restarted in [false, true] {
        if restarted {
            // What makes them known for old is on the disk.
            cluster.nodes.iter_mut().for_each(|node| {
                node.kill();
                node.relaunch();
            });
            cluster.nodes.iter_mut().for_each(|node| node.await_ready());
        }
        let watch = Watch::over(&cluster, &keys, &ROADS);
        for index in 0..3 {
            for (key, dot) in &late {
                bring(&cluster, index, key, &record(*dot, Some("old")));
                cluster.client(index).get(&format!("/kv/{key}?local=1")).expect(404);
            }
            await_forgotten(&cluster, 0);
        }
        watch.saw_nothing();
        keys.iter().for_each(|key| await_unknown(&cluster, key));
        assert_equal_and_quiet(&cluster);
    }
}

#[test]
fn an_old_write_that_was_never_here_is_taken_however_old_it_is() {
    let cluster = Cluster::start(3, &QUICK);
    // Before anything else was written, or the cluster began.
    let ms = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis() as u64;
    let ancient = |count: u64| Dot { stamp: Stamp(Stamp::from_ms(ms - 600_000).0 + count), actor: Actor(77) };
    written_deleted_and_forgotten(&cluster, 0, "a");
    written_deleted_and_forgotten(&cluster, 1, "b");
    for (count, key) in [(2, "a"), (1, "b"), (0, "c")] {
        bring(&cluster, count as usize, key, &record(ancient(count), Some("ancient")));
    }
    assert_equal_and_quiet(&cluster);
    for index in 0..3 {
        for key in ["a", "b", "c"] {
            assert_eq!(cluster.held_by(index, key), Some("ancient".into()), "{key} on {index}");
        }
    }
}

#[test]
fn a_key_that_was_deleted_and_forgotten_and_written_again_lives() {
    let cluster = Cluster::start(3, &QUICK);
    for (round, value) in ["first", "second", "third"].into_iter().enumerate() {
        let key = format!("k{round}");
        let old = written_deleted_and_forgotten(&cluster, round, &key);
        cluster.client((round + 2) % 3).put(&format!("/kv/{key}?w=3"), value).expect(201);
        let since = dot(&cluster, &key);
        assert!(since > old, "{since:?} after {old:?}");
        // The old value and the old delete come by once more.
        for index in 0..3 {
            for copy in [record(old, Some("old")), record(Dot { stamp: Stamp(old.stamp.0 + 1), ..old }, None)] {
                bring(&cluster, index, &key, &copy);
                let read = cluster.client(index).get(&format!("/kv/{key}?local=1")).expect(200);
                assert_eq!((read.text().as_str(), read.must("Kringle-Siblings")), (value, "1"), "{read}");
            }
        }
        assert_equal_and_quiet(&cluster);
        for index in 0..3 {
            let read = cluster.client(index).get(&format!("/kv/{key}?r=3")).expect(200);
            assert_eq!((read.text().as_str(), read.must("Kringle-Siblings")), (value, "1"), "{read}");
        }
        cluster.client(0).delete(&format!("/kv/{key}?w=3")).expect(204);
        await_unknown(&cluster, &key);
    }
}

#[test]
fn a_context_from_before_the_delete_goes_on_working_after_it_was_forgotten() {
    let cluster = Cluster::start(3, &QUICK);
    let after = |context: &str, method: &str| Request::new(method, "/kv/a?w=3").header("Kringle-Context", context);
    let old = cluster.client(0).put("/kv/a?w=3", "old").expect(201).must("Kringle-Context").to_owned();
    let deleted = cluster.client(1).delete("/kv/a?w=3").expect(204).must("Kringle-Context").to_owned();
    await_unknown(&cluster, "a");
    // Whoever saw it deleted, and whoever saw only what was deleted, is told that it is gone, not that it must wait.
    for index in 0..3 {
        for context in [&old, &deleted] {
            let read = Request::new("GET", "/kv/a").header("Kringle-Context", context.as_str());
            cluster.client(index).send(&read).expect(404);
        }
    }
    cluster.client(2).send(&after(&old, "PUT").body("since")).expect(201);
    for index in 0..3 {
        let read = cluster.client(index).get("/kv/a?r=3").expect(200);
        assert_eq!((read.text().as_str(), read.must("Kringle-Siblings")), ("since", "1"), "{read}");
    }
    // It has not seen that write, so it deletes nothing of it.
    cluster.client(0).send(&after(&deleted, "DELETE")).expect(204);
    assert_eq!(cluster.client(1).get("/kv/a?r=3").expect(200).text(), "since");
    cluster.client(0).delete("/kv/a?w=3").expect(204);
    await_unknown(&cluster, "a");
    assert_equal_and_quiet(&cluster);
}

#[test]
fn a_hint_that_comes_after_all_was_forgotten_brings_nothing_back() {
    let mut cluster = Cluster::start(5, &QUICK);
    // One owner misses the write, and a node that is none keeps it for that owner.
    let first = cluster.key_where("k", |_| true);
    let owners = cluster.owners(&first);
    let lost = owners[2];
    let others: Vec<usize> = (0..5).filter(|index| !owners.contains(index)).collect();
    let coordinator = others[0];
    cluster.nodes[lost].kill();
    cluster.client(coordinator).put(&format!("/kv/{first}"), "old");
    let keeper = eventually("somebody keeps a hint", SOON, || {
        let counts: Vec<_> =
            (0..5).filter(|index| *index != lost).map(|index| (index, status(&cluster, index))).collect();
        let keeper = counts.iter().find(|(_, status)| status["hints"]["count"] != 0);
        keeper.map(|(index, _)| *index).ok_or("nobody does".to_string())
    });
    assert!(!owners.contains(&keeper), "{keeper} of {owners:?}");
    cluster.nodes[keeper].kill();
    cluster.nodes[lost].restart();
    eventually("the last owner got it from the others", SOON, || {
        cluster.held_by(lost, &first).map(drop).ok_or("not yet".to_string())
    });
    cluster.client(owners[0]).delete(&format!("/kv/{first}?w=3")).expect(204);
    let teller = owners[0];
    eventually("it is forgotten", SOON, || {
        let held = owners_hold(&cluster, teller, &first);
        held.iter().all(|owner| owner["holds"] == "nothing").then_some(()).ok_or(format!("{held:?}"))
    });
    cluster.nodes[keeper].relaunch();
    let watch = Watch::over(&cluster, std::slice::from_ref(&first), &ROADS);
    cluster.nodes[keeper].await_ready();
    eventually("the hint is handed over", SOON, || {
        let hints = status(&cluster, keeper)["hints"]["count"].clone();
        (hints == 0 && cluster.nodes[keeper].log().contains("handed over")).then_some(()).ok_or(format!("{hints} left"))
    });
    await_unknown(&cluster, &first);
    watch.saw_nothing();
    assert_equal_and_quiet(&cluster);
}

/// Keys of the partition of `key`.
pub fn of_the_same_partition(key: &str, count: usize) -> Vec<String> {
    let partition = |key: &str| Partition::of(Key::new(key.to_owned()).expect("a short key").position());
    let wanted = partition(key);
    (0..).map(|number| format!("beside{number}")).filter(|beside| partition(beside) == wanted).take(count).collect()
}

#[test]
fn a_write_taken_by_a_node_that_was_cut_off_lives_whatever_was_forgotten_meanwhile() {
    let cluster = Cluster::behind_proxies(5, &QUICK);
    // Node 4 owns neither of these, and keeps what it is told for their owners.
    let foreign = cluster.key_where("foreign", |owners| !owners.contains(&4));
    let deleted = cluster.key_where("deleted", |owners| !owners.contains(&4));
    // This one it owns.
    let own = cluster.key_where("own", |owners| owners.contains(&4));
    let beside = of_the_same_partition(&foreign, 5);
    cluster.client(0).put(&format!("/kv/{deleted}?w=3"), "before").expect(201);
    cluster.split(&[&[0, 1, 2, 3], &[4]]);
    eventually("node 4 is counted as gone", SOON, || {
        let alone = |index: usize| status(&cluster, index)["members"].to_string().matches(r#""state":"alive""#).count();
        let alive: Vec<usize> = (0..5).map(alone).collect();
        (alive == [4, 4, 4, 4, 1]).then_some(()).ok_or(format!("{alive:?}"))
    });
    for key in [&foreign, &deleted] {
        let written = cluster.client(4).put(&format!("/kv/{key}"), "cut off").expect(202);
        assert_eq!(replicas(&written)["hinted"], 3, "{written}");
    }
    cluster.client(4).put(&format!("/kv/{own}?w=1"), "cut off").expect(201);
    // The others forget what stands beside it, and the very key.
    for key in &beside {
        cluster.client(1).put(&format!("/kv/{key}?w=3"), "v").expect(201);
        cluster.client(2).delete(&format!("/kv/{key}?w=3")).expect(204);
    }
    cluster.client(3).delete(&format!("/kv/{deleted}?w=3")).expect(204);
    beside.iter().chain([&deleted]).for_each(|key| await_unknown(&cluster, key));
    cluster.unite();
    assert_equal_and_quiet(&cluster);
    for key in [&foreign, &deleted, &own] {
        for owner in cluster.owners(key) {
            assert_eq!(cluster.held_by(owner, key), Some("cut off".into()), "{key} on {owner}");
        }
    }
    beside.iter().for_each(|key| drop(cluster.client(0).get(&format!("/kv/{key}?r=3")).expect(404)));
}
