//! Owners that are gone, cut off, or have lost their disk.

use super::support::cluster::Cluster;
use super::support::eventually;
use super::support::http::Request;
use super::support::proxy::{Fault, Way};
use super::{MODES, QUICK, SOON};
use std::time::{Duration, Instant};

#[test]
fn sync_and_chain_refuse_writes_while_any_owner_is_missing_and_go_on_when_it_is_back() {
    for missing in 0..3 {
        let mut cluster = Cluster::start(3, &QUICK);
        let owners = cluster.owners("k");
        cluster.client(0).put("/kv/k?mode=chain", "before").expect(201);
        let gone = owners[missing];
        cluster.nodes[gone].kill();
        let other = (0..3).find(|index| *index != gone).expect("another");
        let left: Vec<usize> = (0..3).filter(|index| *index != gone).collect();
        cluster.await_gone(&[&left]);
        for mode in ["sync", "chain"] {
            let refused = cluster.client(other).put(&format!("/kv/k?mode={mode}"), "refused").refusal(503);
            assert!(
                refused.json()["hint"].as_str().is_some_and(|hint| hint.contains("nothing was stored")),
                "{refused}"
            );
        }
        // A read asks the first owner, or the last, and a majority confirms it.
        let statuses = ["quorum", "sync", "chain"].map(|mode| {
            let read = cluster.client(other).get(&format!("/kv/k?mode={mode}"));
            if read.status == 200 {
                assert_eq!(read.text(), "before", "{mode}");
            }
            read.status
        });
        let wanted = match missing {
            0 => [200, 503, 200],
            1 => [200, 200, 200],
            _ => [200, 200, 503],
        };
        assert_eq!(statuses, wanted, "owner {missing} is gone");
        cluster.nodes[gone].restart();
        eventually("all owners are there again", SOON, || {
            match cluster.client(other).put("/kv/k?mode=chain", "after") {
                answer if answer.status == 204 => Ok(()),
                answer => Err(answer.to_string()),
            }
        });
    }
}

#[test]
fn a_peer_that_never_answers_holds_up_no_majority_and_the_others_no_longer_than_the_timeout() {
    let cluster = Cluster::behind_proxies(3, &["--timeout", "1", "--pingfreq", "10"]);
    let hung = 2;
    cluster.client(0).put("/kv/warm?mode=quorum", "v").expect(201);
    cluster.fault(hung, Fault::Hang);
    let keys: Vec<String> = (0..40).map(|number| format!("k{number}")).collect();
    let first_is_hung = |key: &&String| cluster.owners(key)[0] == hung;
    let (through_it, others): (Vec<&String>, Vec<&String>) = keys.iter().partition(first_is_hung);
    for key in &others {
        let began = Instant::now();
        cluster.client(0).put(&format!("/kv/{key}?mode=quorum"), "v").expect(201);
        assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    }
    // Where the hung one would have them agreed on, nobody knows whether it has, until others are asked in its place.
    for key in through_it.iter().take(3) {
        for mode in MODES {
            let began = Instant::now();
            let answer = cluster.client(1).put(&format!("/kv/{key}?mode={mode}"), "v");
            let allowed: &[u16] = if mode == "quorum" { &[201, 503] } else { &[503] };
            assert!(allowed.contains(&answer.status), "{mode}: {answer}");
            assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        }
    }
    for mode in ["sync", "chain"] {
        cluster.client(0).put(&format!("/kv/{}?mode={mode}", others[0]), "w").refusal(503);
    }
}

#[test]
fn an_owner_that_lost_its_disk_does_not_vote_before_it_is_refilled() {
    let mut cluster = Cluster::start(3, &QUICK);
    cluster.client(0).put("/kv/k?mode=sync", "old").expect(201);
    cluster.nodes[2].kill();
    cluster.client(0).put("/kv/k?mode=quorum", "new").expect(204);
    cluster.nodes[1].kill();
    let folder = cluster.nodes[2].data().to_owned();
    std::fs::remove_dir_all(&folder).expect("the folder is there");
    cluster.nodes[2].relaunch();
    eventually("it knows that it is to be filled", SOON, || {
        let answer = cluster.client(2).try_send(&Request::new("GET", "/status")).map_err(|error| error.to_string())?;
        let filling = answer.json()["filling"].clone();
        (filling["state"] == "filling").then_some(()).ok_or(filling.to_string())
    });
    // One copy and one empty disk are no majority: neither for what was agreed on, nor for anything else.
    for (method, path) in [("GET", "/kv/k?mode=quorum"), ("PUT", "/kv/k?mode=quorum"), ("PUT", "/kv/fresh?mode=quorum")]
    {
        for index in [0, 2] {
            cluster.client(index).send(&Request::new(method, path).body("x")).refusal(503);
        }
    }
    cluster.nodes[1].restart();
    // A write that every owner must accept; a read in the same mode may be answered by the two others.
    eventually("it is filled and votes", SOON, || match cluster.client(2).put("/kv/other?mode=sync", "v") {
        answer if answer.status < 300 => Ok(()),
        answer => Err(answer.to_string()),
    });
    let held = cluster.client(2).get("/kv/k?mode=sync").expect(200).text();
    // A write whose fate was unknown may have surfaced.
    assert!(["new", "x"].contains(&held.as_str()), "{held}");
    cluster.nodes[0].kill();
    eventually("with the other it is a majority", SOON, || {
        match cluster.client(2).put("/kv/k?mode=quorum", "newest") {
            answer if answer.status == 204 => Ok(()),
            answer => Err(answer.to_string()),
        }
    });
}

#[test]
fn a_copy_that_was_missed_is_brought_by_a_session_and_the_next_read_agrees_at_once() {
    let cluster = Cluster::behind_proxies(3, &QUICK);
    let path = format!("/kv/{}", cluster.key_where("k", |owners| owners[0] != 2));
    cluster.client(0).put(&format!("{path}?mode=sync"), "old").expect(201);
    cluster.fault(2, Fault::Cut(Way::ToNode, 0));
    cluster.client(0).put(&format!("{path}?mode=quorum"), "new").expect(204);
    cluster.fault(2, Fault::Pass);
    eventually("the copies are equal", SOON, || cluster.first_difference().map_or(Ok(()), Err));
    for index in 0..3 {
        assert_eq!(cluster.client(index).get(&format!("{path}?local=1")).expect(200).text(), "new");
        assert_eq!(cluster.client(index).get(&format!("{path}?mode=sync")).expect(200).text(), "new");
    }
    for index in 0..3 {
        let sync = cluster.client(index).get("/status").expect(200).json()["sync"].clone();
        assert_eq!(sync["noop"], 0, "node {index}: {sync}");
    }
}

#[test]
fn all_that_was_agreed_on_is_there_after_a_restart_of_every_node_whatever_the_durability() {
    for durability in ["sync", "none"] {
        let mut cluster = Cluster::start(3, &[&QUICK[..], &["--durability", durability]].concat());
        for number in 0..50 {
            let mode = MODES[number % 3];
            cluster.client(number % 3).put(&format!("/kv/k{number}?mode={mode}"), number.to_string()).expect(201);
        }
        cluster.nodes.iter_mut().for_each(|node| node.kill());
        cluster.nodes.iter_mut().for_each(|node| node.relaunch());
        cluster.nodes.iter_mut().for_each(|node| node.await_ready());
        for number in 0..50 {
            let held = eventually("a majority votes again", SOON, || {
                let path = format!("/kv/k{number}?mode=quorum");
                match cluster.client((number + 1) % 3).get(&path) {
                    answer if answer.status == 200 => Ok(answer.text()),
                    answer => Err(answer.to_string()),
                }
            });
            assert_eq!(held, number.to_string());
            cluster.client(0).put(&format!("/kv/k{number}?mode=quorum"), "again").expect(204);
        }
    }
}
