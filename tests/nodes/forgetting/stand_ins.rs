//! Writes that a node made in the place of owners it could not reach: deleted, they are forgotten like any other.

use super::SLACK;
use super::kit::{QUICK, ROADS, SOON, Watch, assert_equal_and_quiet, await_unknown, status};
use super::late::{bring, dot, record};
use super::support::cluster::Cluster;
use super::support::{eventually, replicas};
use std::time::{Duration, Instant};

const STRANGER: usize = 4;

/// Node 4, cut off from the owners of these keys, takes a write for each.
fn write_cut_off(cluster: &Cluster, keys: &[String]) {
    let sides: [&[usize]; 2] = [&[0, 1, 2, 3], &[STRANGER]];
    cluster.split(&sides);
    cluster.await_gone(&sides);
    for key in keys {
        let written = cluster.client(STRANGER).put(&format!("/kv/{key}"), "cut off").expect(202);
        assert_eq!(replicas(&written)["hinted"], 3, "{written}");
    }
}

#[track_caller]
fn await_handed_over(cluster: &Cluster, keys: &[String]) {
    eventually("all that was taken for others is handed over", SOON, || {
        let hints = status(cluster, STRANGER)["hints"]["count"].clone();
        (hints == 0).then_some(()).ok_or(format!("{hints} hints"))
    });
    for key in keys {
        for owner in cluster.owners(key) {
            assert_eq!(cluster.held_by(owner, key), Some("cut off".into()), "{key} on {owner}");
        }
    }
}

fn foreign_keys(cluster: &Cluster, count: usize) -> Vec<String> {
    let key = |number| cluster.key_where(&format!("foreign{number}-"), |owners| !owners.contains(&STRANGER));
    (0..count).map(key).collect()
}

#[test]
fn what_a_stranger_took_for_all_owners_is_forgotten_once_it_is_deleted_and_stays_away() {
    let cluster = Cluster::behind_proxies(5, &QUICK);
    let keys = foreign_keys(&cluster, 4);
    write_cut_off(&cluster, &keys);
    cluster.unite();
    await_handed_over(&cluster, &keys);
    let made: Vec<_> = keys.iter().map(|key| dot(&cluster, key)).collect();
    for (key, number) in keys.iter().zip(0..) {
        let owner = cluster.owners(key)[number % 3];
        cluster.client(owner).delete(&format!("/kv/{key}?w=3")).expect(204);
    }
    let began = Instant::now();
    keys.iter().for_each(|key| await_unknown(&cluster, key));
    let took = began.elapsed();
    eprintln!("forgotten after {:.1} rounds", took.as_secs_f64() / 0.5);
    assert!(took <= 3 * Duration::from_millis(500) + SLACK, "{took:?}");
    // A hint of it that comes late, to whichever owner.
    let watch = Watch::over(&cluster, &keys, &ROADS);
    for (key, dot) in keys.iter().zip(&made) {
        for owner in cluster.owners(key) {
            bring(&cluster, owner, key, &record(*dot, Some("cut off")));
            cluster.client(owner).get(&format!("/kv/{key}?local=1")).expect(404);
        }
    }
    keys.iter().for_each(|key| await_unknown(&cluster, key));
    watch.saw_nothing();
    assert_equal_and_quiet(&cluster);
}

#[test]
fn so_it_is_although_the_stranger_was_killed_before_it_could_hand_over_and_the_owners_too() {
    let mut cluster = Cluster::behind_proxies(5, &QUICK);
    let keys = foreign_keys(&cluster, 2);
    write_cut_off(&cluster, &keys);
    for index in 0..5 {
        cluster.nodes[index].kill();
    }
    cluster.unite();
    cluster.nodes.iter_mut().for_each(|node| node.relaunch());
    cluster.nodes.iter_mut().for_each(|node| node.await_ready());
    await_handed_over(&cluster, &keys);
    for key in &keys {
        cluster.client(cluster.owners(key)[0]).delete(&format!("/kv/{key}?w=3")).expect(204);
    }
    keys.iter().for_each(|key| await_unknown(&cluster, key));
    assert_equal_and_quiet(&cluster);
}
