//! What was deleted or has expired is forgotten, by all owners, as soon as that is safe, and not before; and stays away.

mod contexts;
mod kit;
mod late;
mod race;
mod returns;
mod stand_ins;
use crate::support;

use kit::{
    QUICK, ROADS, SOON, Watch, assert_equal_and_quiet, await_forgotten, await_unknown, keys, left, on_each, status,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use support::cluster::Cluster;
use support::eventually;
use support::http::{Client, Request};
use support::node::{Node, Plan};

/// Three rounds, and what a busy machine takes on top.
const SLACK: Duration = Duration::from_secs(5);

fn put(client: &mut Client, key: &str) {
    client.put(&format!("/kv/{key}?w=3"), "old").expect(201);
}

fn delete(client: &mut Client, key: &str) {
    client.delete(&format!("/kv/{key}?w=3")).expect(204);
}

#[track_caller]
fn assert_absent(cluster: &Cluster, keys: &[String]) {
    for index in 0..cluster.nodes.len() {
        let mut client = cluster.client(index);
        for key in keys {
            client.get(&format!("/kv/{key}?r=3")).expect(404);
            client.get(&format!("/kv/{key}?local=1")).expect(404);
        }
    }
}

// ---- all owners are up

/// Deletes keys and lets others expire on a cluster of three with these flags; all is forgotten in time.
fn forget_in_time(flags: &[&str]) {
    const PERIOD: Duration = Duration::from_secs(1);
    let cluster = Cluster::start(3, &[&["--syncfreq", "1"], flags].concat());
    let (deleted, expired, kept) = (keys("deleted", 200), keys("expired", 100), keys("kept", 20));
    on_each(&cluster, &[0, 1, 2], &kept, put);
    on_each(&cluster, &[0, 1, 2], &deleted, put);
    on_each(&cluster, &[1, 2, 0], &deleted, delete);
    on_each(&cluster, &[0, 1, 2], &expired, |client, key| {
        client.put(&format!("/kv/{key}?w=3&ttl=0.2"), "brief").expect(201);
    });
    let began = Instant::now() + Duration::from_millis(200);
    await_forgotten(&cluster, kept.len());
    let took = Instant::now().saturating_duration_since(began);
    eprintln!("{flags:?}: 300 keys forgotten after {:.1} rounds", took.as_secs_f64() / PERIOD.as_secs_f64());
    assert!(took <= 3 * PERIOD + SLACK, "{took:?}");
    assert_absent(&cluster, &deleted);
    assert_absent(&cluster, &expired);
    assert_equal_and_quiet(&cluster);
    for index in 0..3 {
        assert_eq!(status(&cluster, index)["forgetting"]["for"], json!({}), "node {index}");
        kept.iter().for_each(|key| drop(cluster.client(index).get(&format!("/kv/{key}?r=3")).expect(200)));
    }
    let forgotten: Vec<u64> =
        (0..3).map(|index| status(&cluster, index)["forgetting"]["forgotten"].as_u64().expect("a number")).collect();
    assert!(forgotten.iter().sum::<u64>() >= 300, "each because somebody asked: {forgotten:?}");
}

#[test]
fn with_all_owners_up_what_was_deleted_or_has_expired_is_forgotten_within_three_rounds() {
    forget_in_time(&[]);
}

#[test]
fn so_is_a_single_key_on_a_cluster_that_does_nothing_else() {
    // Long enough for nodes to have grown quiet after their start.
    const KEYS: usize = 10;
    let cluster = Cluster::start(3, &QUICK);
    let limit = 3 * Duration::from_millis(500) + SLACK;
    for number in 0..KEYS {
        let key = format!("k{number}");
        put(&mut cluster.client(number % 3), &key);
        delete(&mut cluster.client((number + 1) % 3), &key);
        let began = Instant::now();
        await_unknown(&cluster, &key);
        let rounds = began.elapsed().as_secs_f64() / 0.5;
        eprintln!("{key}: forgotten after {rounds:.1} rounds");
        assert!(began.elapsed() <= limit, "{key}: {rounds:.1} rounds");
    }
}

#[test]
fn so_it_is_on_nodes_that_keep_all_in_memory() {
    forget_in_time(&["--memory"]);
}

#[test]
fn what_expires_where_nothing_was_due_for_a_while_is_forgotten_as_soon() {
    let node = Plan::new(&["--memory", "--syncfreq", "0.2"]).start();
    let mut client = node.client();
    let forgotten = || {
        let status = node.get("/status").json();
        (status["store"]["keys"] == 0).then_some(()).ok_or(status["store"].to_string())
    };
    for number in 0..200 {
        client.put(&format!("/kv/k{number}?ttl=0.1"), "v").expect(201);
    }
    eventually("the first are forgotten", SOON, forgotten);
    // Rounds that found nothing have left all partitions alone for longer than this test may take.
    let begun = Instant::now();
    eventually("ten rounds have passed", SOON, || {
        (begun.elapsed() > Duration::from_secs(2)).then_some(()).ok_or("not yet".into())
    });
    for number in 0..200 {
        client.put(&format!("/kv/k{number}?ttl=0.1"), "v").expect(201);
    }
    eventually("the others are forgotten", Duration::from_secs(20), forgotten);
}

#[test]
fn a_node_without_peers_forgets_on_its_own() {
    let alone = |node: &Node| {
        let mut client = node.client();
        client.put("/kv/kept", "v").expect(201);
        for number in 0..100 {
            client.put(&format!("/kv/k{number}"), "v").expect(201);
            client.put(&format!("/kv/brief{number}?ttl=0.1"), "v").expect(201);
            client.delete(&format!("/kv/k{number}")).expect(204);
        }
        eventually("all is forgotten", SOON, || {
            let status = node.get("/status").json();
            let left = (&status["store"]["keys"], &status["store"]["tombstones"], &status["forgetting"]["waiting"]);
            (left == (&json!(1), &json!(0), &json!(0))).then_some(()).ok_or(format!("{left:?}"))
        });
    };
    let assert_gone = |node: &Node| {
        let mut client = node.client();
        for number in 0..100 {
            client.get(&format!("/kv/k{number}")).expect(404);
            client.get(&format!("/kv/brief{number}")).expect(404);
        }
        assert_eq!(client.get("/kv/kept").expect(200).text(), "v");
    };
    let memory = Plan::new(&["--memory", "--syncfreq", "0.5"]).start();
    alone(&memory);
    assert_gone(&memory);
    let mut disk = Plan::new(&["--syncfreq", "0.5"]).start();
    alone(&disk);
    disk.kill();
    disk.restart();
    assert_gone(&disk);
    assert_eq!(disk.get("/status").json()["store"]["tombstones"], 0);
}

#[test]
fn what_was_deleted_stays_away_and_is_forgotten_although_all_nodes_are_killed_in_the_middle_of_it() {
    let mut cluster = Cluster::start(3, &QUICK);
    let (deleted, kept) = (keys("deleted", 500), keys("kept", 10));
    on_each(&cluster, &[0, 1, 2], &kept, put);
    on_each(&cluster, &[0, 1, 2], &deleted, put);
    on_each(&cluster, &[0, 1, 2], &deleted, delete);
    let mut client = cluster.client(0);
    let middle = eventually("some of it is forgotten, and not all", SOON, || {
        let tombstones = client.get("/status").json()["store"]["tombstones"].as_u64().expect("a number");
        assert!(tombstones > 0, "too late: there is no middle any more");
        (tombstones < 450).then_some(tombstones).ok_or(format!("{tombstones} left"))
    });
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes.iter_mut().for_each(Node::relaunch);
    let watch = Watch::over(&cluster, &deleted[..50], &ROADS[..1]);
    cluster.nodes.iter_mut().for_each(Node::await_ready);
    eprintln!("killed with {middle} tombstones left of 500, {:?} after the restart", left(&cluster));
    await_forgotten(&cluster, kept.len());
    watch.saw_nothing();
    assert_absent(&cluster, &deleted);
    assert_equal_and_quiet(&cluster);
}

// ---- an owner is down

fn sessions(cluster: &Cluster, index: usize) -> u64 {
    status(cluster, index)["sync"]["sessions"].as_u64().expect("a number")
}

/// Deletes and expires while node 2 is down: that waits, for node 2 by name, and is forgotten once it is back.
fn wait_for_one_that_is_down(flags: &[&str]) {
    let mut cluster = Cluster::start(3, &[&QUICK, flags].concat());
    let (deleted, expired, kept) = (keys("deleted", 60), keys("expired", 30), keys("kept", 10));
    for all in [&deleted, &expired, &kept] {
        on_each(&cluster, &[0, 1, 2], all, put);
    }
    let name = status(&cluster, 2)["node"]["name"].as_str().expect("a name").to_owned();
    cluster.nodes[2].kill();
    on_each(&cluster, &[0, 1], &deleted, |client, key| drop(client.delete(&format!("/kv/{key}?w=2")).expect(204)));
    on_each(&cluster, &[0, 1], &expired, |client, key| {
        client.put(&format!("/kv/{key}?w=2&ttl=0.1"), "brief").expect(204);
    });
    let all_wait = |index: usize| {
        let status = status(&cluster, index);
        let told = (&status["forgetting"]["waiting"], &status["forgetting"]["for"], &status["store"]["tombstones"]);
        let waits = *told.0 == 90 && told.1[name.as_str()] == 90 && *told.2 == 60;
        waits.then_some(()).ok_or(format!("{told:?}, and not 90 for {name}"))
    };
    [0, 1].iter().for_each(|index| eventually("all of it waits", SOON, || all_wait(*index)));
    // However long: several rounds change nothing about it.
    let before = [0, 1].map(|index| sessions(&cluster, index));
    eventually("six more rounds", SOON, || {
        let now = [0, 1].map(|index| sessions(&cluster, index));
        [0, 1].iter().for_each(|index| all_wait(*index).unwrap_or_else(|told| panic!("node {index}: {told}")));
        (now[0] >= before[0] + 6 && now[1] >= before[1] + 6).then_some(()).ok_or(format!("{before:?}, {now:?}"))
    });
    // It holds all the old values, and its peers know better.
    cluster.nodes[2].relaunch();
    let gone = [&deleted[..], &expired[..]].concat();
    let watch = Watch::over(&cluster, &gone, &ROADS[..1]);
    cluster.nodes[2].await_ready();
    await_forgotten(&cluster, kept.len());
    watch.saw_nothing();
    assert_absent(&cluster, &gone);
    assert_equal_and_quiet(&cluster);
    let waits: Vec<Value> = (0..3).map(|index| status(&cluster, index)["forgetting"]["for"].clone()).collect();
    assert!(waits.iter().all(|waits| *waits == json!({})), "{waits:?}");
}

#[test]
fn what_was_deleted_waits_for_an_owner_that_is_down_and_tells_its_name() {
    wait_for_one_that_is_down(&[]);
}

#[test]
fn old_values_of_an_owner_that_nobody_kept_hints_for_stay_away() {
    wait_for_one_that_is_down(&["--hint-max-bytes", "0"]);
}

#[test]
fn what_was_deleted_waits_for_an_owner_that_is_up_and_has_not_compared_itself_since() {
    let mut cluster = Cluster::start(3, &QUICK[..4]);
    // Node 2 compares itself shortly after its start, and then only when asked to.
    for (index, period) in ["0.5", "0.5", "3600"].into_iter().enumerate() {
        cluster.nodes[index].kill();
        cluster.nodes[index].replan(|plan| plan.flag("--syncfreq", period));
        cluster.nodes[index].restart();
    }
    eventually("node 2 has compared itself", SOON, || {
        let sessions = sessions(&cluster, 2);
        (sessions >= 2).then_some(()).ok_or(format!("{sessions} sessions"))
    });
    let deleted = keys("deleted", 20);
    on_each(&cluster, &[0], &deleted, put);
    on_each(&cluster, &[0], &deleted, delete);
    let name = status(&cluster, 2)["node"]["name"].as_str().expect("a name").to_owned();
    let waits = |index: usize| {
        let status = status(&cluster, index);
        let told = (&status["forgetting"]["for"], &status["store"]["tombstones"]);
        (told.0[name.as_str()] == 20 && *told.1 == 20).then_some(()).ok_or(format!("{told:?}, and not 20 for {name}"))
    };
    [0, 1].iter().for_each(|index| eventually("all of it waits for node 2", SOON, || waits(*index)));
    let before = sessions(&cluster, 0);
    eventually("six more sessions", SOON, || {
        [0, 1].iter().for_each(|index| waits(*index).unwrap_or_else(|told| panic!("node {index}: {told}")));
        let now = sessions(&cluster, 0);
        (now >= before + 6).then_some(()).ok_or(format!("{now} sessions after {before}"))
    });
    eventually("it is forgotten once node 2 has compared itself", SOON, || {
        cluster.client(2).send(&Request::new("POST", "/sync")).expect(200);
        let left = left(&cluster);
        left.iter().all(|[_, tombstones, _]| *tombstones == 0).then_some(()).ok_or(format!("{left:?}"))
    });
    assert_absent(&cluster, &deleted);
}
