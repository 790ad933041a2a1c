//! Owners that come back as they were long ago, or as nothing.

use super::kit::{
    QUICK, ROADS, SOON, Watch, assert_equal_and_quiet, await_forgotten, await_unknown, keys, on_each, status,
};
use super::late::{bring, of_the_same_partition, record, written_deleted_and_forgotten};
use super::support::cluster::Cluster;
use super::support::http::Request;
use super::support::{copy_folder, eventually};
use super::{assert_absent, delete, put};
use kringle::placement::PARTITIONS;
use std::time::Duration;

#[track_caller]
fn await_filled(cluster: &Cluster, index: usize) {
    eventually("the node is filled", SOON, || {
        let told = status(cluster, index)["filling"].clone();
        (told["state"] == "filled").then_some(()).ok_or(told.to_string())
    });
}

#[test]
fn nothing_deleted_comes_back_with_an_owner_that_lost_its_disk_after_it_was_forgotten() {
    let mut cluster = Cluster::start(3, &QUICK);
    let (deleted, kept) = (keys("deleted", 60), keys("kept", 60));
    on_each(&cluster, &[0, 1, 2], &kept, put);
    on_each(&cluster, &[0, 1, 2], &deleted, put);
    on_each(&cluster, &[2, 0, 1], &deleted, delete);
    await_forgotten(&cluster, 60);
    cluster.nodes[2].kill();
    std::fs::remove_dir_all(cluster.nodes[2].data()).expect("the folder of node 2");
    cluster.nodes[2].relaunch();
    let watch = Watch::over(&cluster, &deleted, &ROADS);
    cluster.nodes[2].await_ready();
    await_filled(&cluster, 2);
    await_forgotten(&cluster, 60);
    watch.saw_nothing();
    for key in &kept {
        assert_eq!(cluster.held_by(2, key), Some("old".into()), "{key}");
    }
    assert_absent(&cluster, &deleted);
    assert_equal_and_quiet(&cluster);
    // What the lost store had made is forgotten like anything else.
    on_each(&cluster, &[2, 0, 1], &kept, delete);
    await_forgotten(&cluster, 0);
}

#[test]
fn an_owner_that_counts_again_knows_at_once_what_was_forgotten_before_it_lost_its_disk() {
    let mut cluster = Cluster::start(3, &QUICK);
    let late: Vec<_> =
        keys("late", 6).into_iter().map(|key| (written_deleted_and_forgotten(&cluster, 1, &key), key)).collect();
    // What stands beside it has to be brought over, so that no session finds the two sides equal.
    let beside: Vec<String> = late.iter().flat_map(|(_, key)| of_the_same_partition(key, 2)).collect();
    on_each(&cluster, &[0, 1], &beside, put);
    await_forgotten(&cluster, beside.len());
    // From here on nobody has a session but for need.
    for index in [0, 1] {
        cluster.nodes[index].kill();
        cluster.nodes[index].replan(|plan| plan.flag("--syncfreq", "3600"));
        cluster.nodes[index].restart();
        await_filled(&cluster, index);
    }
    cluster.nodes[2].kill();
    cluster.nodes[2].replan(|plan| plan.flag("--syncfreq", "3600"));
    std::fs::remove_dir_all(cluster.nodes[2].data()).expect("the folder of node 2");
    cluster.nodes[2].relaunch();
    let joined = eventually("node 2 counts", SOON, || {
        let mut client = cluster.client(2).within(Duration::from_secs(1));
        let status = client.try_send(&Request::new("GET", "/status")).map_err(|error| error.to_string())?.json();
        let joined = status["seen"]["partitions_joined"].clone();
        (status["filling"]["state"] == "filled").then_some(joined).ok_or(status["filling"].to_string())
    });
    assert_eq!(joined, PARTITIONS, "no sooner than it knows what its peers had seen");
    cluster.nodes[2].await_ready();
    for (dot, key) in &late {
        bring(&cluster, 2, key, &record(*dot, Some("old")));
        cluster.client(2).get(&format!("/kv/{key}?local=1")).expect(404);
    }
    // Nor after another start, without a word from anybody.
    (0..3).for_each(|index| cluster.nodes[index].kill());
    cluster.nodes[2].restart();
    for (dot, key) in &late {
        bring(&cluster, 2, key, &record(*dot, Some("old")));
        cluster.client(2).get(&format!("/kv/{key}?local=1")).expect(404);
    }
    for index in 0..3 {
        cluster.nodes[index].kill();
        cluster.nodes[index].replan(|plan| plan.flag("--syncfreq", "0.5"));
    }
    (0..3).for_each(|index| cluster.nodes[index].relaunch());
    (0..3).for_each(|index| cluster.nodes[index].await_ready());
    late.iter().for_each(|(_, key)| await_unknown(&cluster, key));
    beside.iter().for_each(|key| assert_eq!(cluster.held_by(2, key), Some("old".into()), "{key}"));
    assert_equal_and_quiet(&cluster);
}

#[test]
fn for_writes_of_a_store_that_was_lost_at_once_it_is_waited_and_the_status_tells_so() {
    let mut cluster = Cluster::start(3, &[&QUICK[..], &["--memory"]].concat());
    on_each(&cluster, &[0, 1, 2], &keys("before", 6), put);
    on_each(&cluster, &[0, 1, 2], &keys("before", 6), delete);
    await_forgotten(&cluster, 0);
    put(&mut cluster.client(2), "lost");
    cluster.nodes[2].kill();
    cluster.nodes[2].restart();
    await_filled(&cluster, 2);
    delete(&mut cluster.client(0), "lost");
    for index in 0..3 {
        eventually(&format!("node {index} tells for whom it waits"), SOON, || {
            let told = status(&cluster, index)["forgetting"].clone();
            let whom: Vec<&String> = told["for"].as_object().expect("names").keys().collect();
            let tells = told["waiting"] == 1 && whom.len() == 1 && whom[0].contains("a store that is gone");
            tells.then_some(()).ok_or(told.to_string())
        });
    }
    // Only for those: what is made since goes like anything else.
    put(&mut cluster.client(2), "since");
    delete(&mut cluster.client(1), "since");
    await_unknown(&cluster, "since");
    cluster.client(2).get("/kv/lost?r=3").expect(404);
}

#[test]
fn nothing_deleted_comes_back_with_an_old_disk_that_still_has_it() {
    let mut cluster = Cluster::start(3, &QUICK);
    let (deleted, rewritten, kept) = (keys("deleted", 40), keys("rewritten", 20), keys("kept", 40));
    for all in [&deleted, &rewritten, &kept] {
        on_each(&cluster, &[0, 1, 2], all, put);
    }
    assert!(cluster.nodes[2].stop(SOON).success());
    let home = tempfile::tempdir().expect("a folder for the copy");
    copy_folder(cluster.nodes[2].data(), home.path());
    cluster.nodes[2].restart();
    await_filled(&cluster, 2);
    on_each(&cluster, &[2, 0, 1], &deleted, delete);
    on_each(&cluster, &[2, 0, 1], &rewritten, delete);
    await_forgotten(&cluster, 40);
    on_each(&cluster, &[0, 1], &rewritten, |client, key| {
        drop(client.put(&format!("/kv/{key}?w=3"), "new").expect(201))
    });
    cluster.nodes[2].kill();
    std::fs::remove_dir_all(cluster.nodes[2].data()).expect("the folder of node 2");
    copy_folder(home.path(), cluster.nodes[2].data());
    cluster.nodes[2].relaunch();
    let watch = Watch::over(&cluster, &deleted, &ROADS);
    cluster.nodes[2].await_ready();
    await_filled(&cluster, 2);
    await_forgotten(&cluster, 60);
    watch.saw_nothing();
    assert_absent(&cluster, &deleted);
    for index in 0..3 {
        for key in &kept {
            assert_eq!(cluster.client(index).get(&format!("/kv/{key}?r=3")).expect(200).text(), "old");
        }
        for key in &rewritten {
            let read = cluster.client(index).get(&format!("/kv/{key}?r=3")).expect(200);
            assert_eq!((read.text().as_str(), read.must("Kringle-Siblings")), ("new", "1"), "{key}: {read}");
            assert_eq!(cluster.held_by(index, key), Some("new".into()), "{key} on {index}");
        }
    }
    assert_equal_and_quiet(&cluster);
}
