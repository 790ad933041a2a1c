//! Races and accidents with a known end, in each mode that promises linearizability.

use super::CP;
use super::rig::{QUICK, REQUEST_LIMIT};
use super::support::cluster::Cluster;
use super::support::http::{Answer, Client, Request};
use super::support::proxy::{Fault, Way};
use super::support::{eventually, seeded, thorough};
use rand::Rng;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// Long enough for whatever a busy machine makes of it.
const SOON: Duration = Duration::from_secs(60);

/// An ETag that no version has.
const NO_VERSION: &str = "\"00000000000000000000000000000000\"";

fn at(key: &str, mode: &str) -> String {
    format!("/kv/{key}?mode={mode}")
}

fn create(key: &str, mode: &str, value: &str) -> Request {
    Request::new("PUT", at(key, mode)).header("If-None-Match", "*").body(value)
}

fn replace(key: &str, mode: &str, etag: &str, value: &str) -> Request {
    Request::new("PUT", at(key, mode)).header("If-Match", etag).body(value)
}

/// Asks until the answer is one of these. What may have happened before is no concern of the caller's.
#[track_caller]
fn until(cluster: &Cluster, index: usize, request: &Request, wanted: &[u16]) -> Answer {
    eventually("the request is answered", SOON, || {
        let mut client = cluster.client(index).within(REQUEST_LIMIT);
        let answer = client.try_send(request).map_err(|error| error.to_string())?;
        if wanted.contains(&answer.status) { Ok(answer) } else { Err(answer.to_string()) }
    })
}

#[test]
fn of_many_that_create_one_key_at_once_one_does_and_the_others_are_told_its_version() {
    let cluster = Cluster::start(3, &QUICK);
    for mode in CP {
        for round in 0..if thorough() { 200 } else { 10 } {
            let key = format!("{mode}{round}");
            let barrier = Barrier::new(9);
            let answers: Vec<(usize, Option<Answer>)> = std::thread::scope(|scope| {
                let racing = |number: usize| {
                    let (mut client, barrier, key) = (cluster.client(number % 3), &barrier, &key);
                    client.get("/ping");
                    scope.spawn(move || {
                        barrier.wait();
                        (number, client.try_send(&create(key, "quorum", &number.to_string())).ok())
                    })
                };
                let threads: Vec<_> = (0..9).map(racing).collect();
                threads.into_iter().map(|thread| thread.join().expect("a creator")).collect()
            });
            let with = |status: u16| -> Vec<(usize, &Answer)> {
                let known =
                    answers.iter().filter_map(|(number, answer)| answer.as_ref().map(|answer| (*number, answer)));
                known.filter(|(_, answer)| answer.status == status).collect()
            };
            let (won, lost, unknown) = (with(201), with(412), with(503).len());
            assert_eq!(won.len() + lost.len() + unknown, 9, "{mode}: {answers:?}");
            assert!(won.len() <= 1 && won.len() + unknown >= 1, "{mode}: {} have won, {answers:?}", won.len());
            let shown = until(&cluster, round % 3, &Request::new("GET", at(&key, mode)), &[200]);
            for (_, answer) in &lost {
                assert_eq!(answer.must("ETag"), shown.must("ETag"), "{mode}");
            }
            if let Some((winner, answer)) = won.first() {
                assert_eq!((shown.text(), shown.must("ETag")), (winner.to_string(), answer.must("ETag")), "{mode}");
            }
            // Whoever knows the version may take it away, once, and then it may be created again.
            let gone = Request::new("DELETE", at(&key, "quorum")).header("If-Match", shown.must("ETag"));
            until(&cluster, 1, &gone, &[204, 412]);
            until(&cluster, 0, &Request::new("GET", at(&key, mode)), &[404]);
            until(&cluster, 2, &gone, &[412]);
            until(&cluster, 0, &create(&key, "quorum", "again"), &[201, 412]);
            assert_eq!(until(&cluster, 1, &Request::new("GET", at(&key, mode)), &[200]).text(), "again", "{mode}");
        }
    }
}

#[test]
fn sixteen_clients_that_swap_one_value_all_get_on_and_lose_no_update() {
    const CLIENTS: usize = 16;
    const EACH: usize = 4;
    let cluster = Cluster::start(3, &QUICK);
    for mode in CP {
        let key = format!("swapped-{mode}");
        until(&cluster, 0, &Request::new("PUT", at(&key, mode)).body("0"), &[201, 204]);
        let (unknown, began) = (AtomicI64::new(0), Instant::now());
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                let (cluster, unknown, key) = (&cluster, &unknown, &key);
                scope.spawn(move || {
                    let mut client = cluster.client(number % 3).within(REQUEST_LIMIT);
                    for swap in 0..EACH {
                        eventually(&format!("client {number} swaps {swap} times in mode {mode}"), SOON, || {
                            let sent = client.try_send(&Request::new("GET", at(key, mode)));
                            let read = sent.ok().filter(|answer| answer.status == 200).ok_or("no read")?;
                            let next = read.text().parse::<i64>().expect("a number") + 1;
                            match client.try_send(&replace(key, "quorum", read.must("ETag"), &next.to_string())) {
                                Ok(answer) if answer.status == 204 => Ok(()),
                                Ok(answer) if answer.status == 412 => Err("another was quicker".to_string()),
                                Ok(answer) if answer.status != 503 => panic!("neither swapped nor refused: {answer}"),
                                other => {
                                    unknown.fetch_add(1, Ordering::SeqCst);
                                    Err(format!("{other:?}"))
                                }
                            }
                        });
                    }
                });
            }
        });
        let (least, unknown) = ((CLIENTS * EACH) as i64, unknown.load(Ordering::SeqCst));
        let shown: i64 =
            until(&cluster, 1, &Request::new("GET", at(&key, mode)), &[200]).text().parse().expect("a number");
        eprintln!("{mode}: {least} swaps by {CLIENTS} clients in {:.1?}, {unknown} unknown", began.elapsed());
        assert!(
            (least..=least + unknown).contains(&shown),
            "{mode}: {shown} after {least} swaps and {unknown} unknown"
        );
    }
}

/// The coordinator is killed while owners accept what it proposes, one of which is slow, deaf, or hung.
#[test]
fn a_value_that_one_reader_saw_is_never_unseen_also_when_its_writer_dies_between_two_owners() {
    let mut rng = seeded("a_value_that_one_reader_saw_is_never_unseen_also_when_its_writer_dies_between_two_owners");
    let mut cluster = Cluster::behind_proxies(3, &QUICK);
    for mode in CP {
        // How often the write was acknowledged, surfaced without, or never did.
        let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
        for round in 0..if thorough() { 100 } else { 6 } {
            let key = format!("{mode}{round}");
            let writer = if rng.random() { cluster.owners(&key)[0] } else { rng.random_range(0..3) };
            let slow = (writer + rng.random_range(1..3)) % 3;
            until(&cluster, writer, &Request::new("PUT", at(&key, mode)).body("old"), &[201, 204]);
            cluster.fault(
                slow,
                match round % 4 {
                    0 => Fault::Delay(Duration::from_millis(15)),
                    1 => Fault::BlackHole(Way::FromNode),
                    2 => Fault::Hang,
                    _ => Fault::Pass,
                },
            );
            let mut client = cluster.client(writer).within(REQUEST_LIMIT);
            client.get("/ping");
            let request = Request::new("PUT", at(&key, mode)).body("new");
            let writing = std::thread::spawn(move || client.try_send(&request));
            let most = [6_000, 40_000][round % 2];
            std::thread::sleep(Duration::from_micros(rng.random_range(0..most)));
            cluster.nodes[writer].kill();
            let written = writing.join().expect("the writer").is_ok_and(|answer| matches!(answer.status, 200..=204));
            cluster.fault(slow, Fault::Pass);
            // Some modes answer no read until the writer is back.
            let reads = Request::new("GET", at(&key, mode));
            let mut seen: Vec<(usize, String)> = vec![];
            for turn in 0..6 {
                let node = (writer + 1 + turn % 2) % 3;
                let answer = cluster.client(node).within(REQUEST_LIMIT).try_send(&reads);
                seen.extend(answer.ok().filter(|answer| answer.status == 200).map(|answer| (node, answer.text())));
            }
            cluster.nodes[writer].restart();
            for turn in 0..9 {
                seen.push((turn % 3, until(&cluster, turn % 3, &reads, &[200]).text()));
            }
            let first_new = seen.iter().position(|(_, value)| value == "new").unwrap_or(seen.len());
            let went_back = seen[first_new..].iter().any(|(_, value)| value != "new");
            assert!(!went_back, "{mode}, written through node {writer}: {seen:?}");
            assert!(!written || first_new == 0, "{mode}, acknowledged by node {writer}: {seen:?}");
            let end = match (written, first_new < seen.len()) {
                (true, _) => "acknowledged",
                (false, true) => "surfaced",
                (false, false) => "never",
            };
            *ends.entry(end).or_default() += 1;
        }
        eprintln!("{mode}: {ends:?}");
    }
}

#[test]
fn a_minority_and_whoever_is_cut_off_from_all_is_refused_in_time() {
    let cluster = Cluster::behind_proxies(3, &QUICK);
    for mode in CP {
        until(&cluster, 0, &Request::new("PUT", at("known", mode)).body("1"), &[201, 204]);
    }
    let asks = |mode: &str, tag: &str| {
        let add = Request::new("POST", format!("/counters/added-{tag}?mode={mode}")).json(&json!({"by": 1}));
        [
            Request::new("GET", at("known", mode)),
            Request::new("GET", at("absent", mode)),
            Request::new("PUT", at(&format!("new-{tag}"), mode)).body("2"),
            Request::new("DELETE", at(&format!("gone-{tag}"), mode)),
            create(&format!("created-{tag}"), "quorum", "2"),
            create("known", "quorum", "2"),
            replace("known", "quorum", NO_VERSION, "2"),
            add,
        ]
    };
    let refused = |tag: &str| {
        for mode in CP {
            for request in asks(mode, tag) {
                let began = Instant::now();
                let answer = cluster.client(0).send(&request).refusal(503);
                // The timeout is 1 s, and the machine may be busy.
                assert!(began.elapsed() < Duration::from_millis(1_800), "{tag}: {:?} for {answer}", began.elapsed());
            }
        }
    };
    for index in [1, 2] {
        cluster.fault(index, Fault::Hang);
    }
    refused("hung");
    for index in [1, 2] {
        cluster.fault(index, Fault::Pass);
    }
    cluster.split(&[&[0], &[1, 2]]);
    refused("split");
    // A majority goes on in one mode, and where every owner is wanted it is told so in time.
    until(&cluster, 1, &Request::new("PUT", at("known", "quorum")).body("3"), &[204]);
    assert_eq!(until(&cluster, 2, &Request::new("GET", at("known", "quorum")), &[200]).text(), "3");
    for mode in ["sync", "chain"] {
        cluster.client(1).send(&Request::new("PUT", at("others", mode)).body("4")).refusal(503);
    }
    cluster.await_gone(&[&[0], &[1, 2]]);
    refused("known-split");
    cluster.unite();
    for mode in CP {
        until(&cluster, 0, &Request::new("GET", at("known", mode)), &[200]);
        until(&cluster, 0, &Request::new("PUT", at("known", mode)).body("5"), &[204]);
    }
}

#[test]
fn increments_through_all_nodes_while_nodes_are_killed_are_counted_once_each() {
    let mut rng = seeded("increments_through_all_nodes_while_nodes_are_killed_are_counted_once_each");
    let mut cluster = Cluster::start(3, &QUICK);
    for mode in CP {
        let counter = format!("/counters/{mode}?mode={mode}");
        let (known, unknown, over) = (AtomicI64::new(0), AtomicI64::new(0), AtomicBool::new(false));
        let addresses: Vec<String> = cluster.nodes.iter().map(|node| node.address()).collect();
        std::thread::scope(|scope| {
            for number in 0..6 {
                let (counter, known, unknown, over, addresses) = (&counter, &known, &unknown, &over, &addresses);
                scope.spawn(move || {
                    let mut nodes: Vec<Client> =
                        addresses.iter().map(|at| Client::new(at).within(REQUEST_LIMIT)).collect();
                    let mut turn = number;
                    while !over.load(Ordering::SeqCst) {
                        turn += 1;
                        let sent = nodes[turn % 3].try_send(&Request::new("POST", counter.as_str()));
                        match sent.map_err(|error| error.kind()).map(|answer| answer.status) {
                            Ok(200) => known.fetch_add(1, Ordering::SeqCst),
                            Err(std::io::ErrorKind::ConnectionRefused) => 0,
                            Ok(503) | Err(_) => unknown.fetch_add(1, Ordering::SeqCst),
                            Ok(status) => panic!("neither counted nor unknown: {status}"),
                        };
                    }
                });
            }
            let over = Over(&over);
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(if thorough() { 30 } else { 4 }) {
                std::thread::sleep(Duration::from_millis(rng.random_range(100..900)));
                let victim = rng.random_range(0..3);
                cluster.nodes[victim].kill();
                std::thread::sleep(Duration::from_millis(rng.random_range(0..600)));
                cluster.nodes[victim].restart();
            }
            drop(over);
        });
        let (known, unknown) = (known.load(Ordering::SeqCst), unknown.load(Ordering::SeqCst));
        for index in 0..3 {
            let shown = until(&cluster, index, &Request::new("GET", counter.as_str()), &[200]).json()["value"].clone();
            let shown = shown.as_i64().expect("a number");
            assert!((known..=known + unknown).contains(&shown), "{mode}: {shown} of {known} and {unknown} unknown");
        }
        eprintln!("{mode}: {known} increments, {unknown} unknown");
        assert!(known > 0, "{mode}: nothing was counted");
    }
}

/// Ends the clients' work, however the test's ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn conditions_are_refused_in_modes_that_promise_nothing_of_them_and_nothing_is_written() {
    let cluster = Cluster::start(3, &QUICK);
    for mode in ["sloppy", "async", "sync", "chain"] {
        let key = format!("conditional-{mode}");
        for request in [create(&key, mode, "1"), replace(&key, mode, NO_VERSION, "1")] {
            let refused = cluster.client(0).send(&request);
            assert!((400..500).contains(&refused.status), "{refused}");
            refused.clone().refusal(refused.status);
        }
        cluster.client(1).get(&at(&key, mode)).expect(404);
    }
}
