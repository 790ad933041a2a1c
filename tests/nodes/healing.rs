//! Whatever happened, the copies become equal again by themselves: crashes under load, lost copies, networks in parts.

use crate::support;

use kringle::placement::NodeId;
use kringle::protocol::Request as PeerRequest;
use kringle::record::{Actor, Content, Dot, Key, Record, Seen, Stamp};
use rand::Rng;
use rand::seq::SliceRandom;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use support::cluster::Cluster;
use support::http::Request;
use support::load::{History, Load, Outcome, Workload};
use support::proxy::{Fault, Way};
use support::{eventually, peer, replicas};

/// Long enough for detection, hints and several sessions on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Peers are found dead, and healed, within seconds. The timeout is short, so that on a busy machine owners are passed
/// over that are only slow, and make the same write a second time, late: none of that may lose another.
const QUICK: [&str; 6] = ["--timeout", "1", "--pingfreq", "0.2", "--syncfreq", "0.5"];

fn status(cluster: &Cluster, index: usize) -> Value {
    cluster.client(index).get("/status").expect(200).json()
}

#[track_caller]
fn await_no_hints(cluster: &Cluster) {
    eventually("no hint is left", SOON, || {
        let left: Vec<Value> =
            (0..cluster.nodes.len()).map(|index| status(cluster, index)["hints"]["count"].clone()).collect();
        left.iter().all(|count| *count == 0).then_some(()).ok_or(format!("{left:?}"))
    });
}

/// Waits until what each pair of nodes both keep is equal, and nothing is on its way.
#[track_caller]
fn await_equal(cluster: &Cluster) {
    await_no_hints(cluster);
    eventually("every pair of nodes is equal", SOON, || cluster.first_difference().map_or(Ok(()), Err));
}

/// A session between equals moves nothing, and none before moved anything for nothing.
#[track_caller]
fn assert_quiet(cluster: &Cluster) {
    let reports = cluster.client(0).send(&Request::new("POST", "/sync")).expect(200).json();
    for report in reports["reports"].as_array().expect("reports") {
        assert_eq!((&report["pushed"], &report["pulled"]), (&json!(0), &json!(0)), "{report}");
    }
    for index in 0..cluster.nodes.len() {
        let sync = status(cluster, index)["sync"].clone();
        assert_eq!((&sync["noop"], &sync["refused"]), (&json!(0), &json!(0)), "node {index}: {sync}");
    }
}

/// Every owner of each key holds what the others hold, and that is what was acknowledged.
#[track_caller]
fn assert_on_all_owners(cluster: &Cluster, history: &History) {
    for key in history.0.keys() {
        let owners = cluster.owners_as_told_by(0, key);
        let held: Vec<Option<Value>> = owners.iter().map(|owner| cluster.held_by(*owner, key)).collect();
        assert!(held.iter().all(|value| *value == held[0]), "{key} on {owners:?}: {held:?}");
    }
    for index in 0..cluster.nodes.len() {
        history.verify_on_all(&mut cluster.client(index), 3);
    }
}

#[test]
fn every_owner_has_every_acknowledged_write_after_ten_crashes_under_load() {
    let mut cluster = Cluster::start(3, &QUICK);
    let mut rng = support::seeded("ten crashes");
    let addresses: Vec<String> = cluster.nodes.iter().map(|node| node.address()).collect();
    let load = Load::start(&addresses, &Workload::default(), &mut rng);
    for _ in 0..10 {
        load.await_more(rng.random_range(1..200), SOON);
        cluster.nodes[1].kill();
        cluster.nodes[1].restart();
    }
    let history = load.finish();
    assert!(history.count(Outcome::Acknowledged) >= 500);
    await_equal(&cluster);
    assert_quiet(&cluster);
    assert_on_all_owners(&cluster, &history);
}

#[test]
fn a_copy_that_was_lost_while_both_were_up_is_brought_by_the_next_session() {
    // No hints, so nothing but a session can bring it.
    let flags = ["--memory", "--timeout", "1", "--syncfreq", "3600", "--hint-max-bytes", "0"];
    let cluster = Cluster::behind_proxies(3, &flags);
    cluster.client(0).put("/kv/before?w=3", "v").expect(201);
    cluster.fault(2, Fault::Cut(Way::ToNode, 0));
    let written = cluster.client(0).put("/kv/lost", "v").expect(201);
    assert!(replicas(&written)["acked"] == 2, "{written}");
    cluster.fault(2, Fault::Pass);
    assert_eq!(cluster.held_by(2, "lost"), None);
    eventually("a session brings it", SOON, || {
        let answer = cluster.client(0).send(&Request::new("POST", "/sync")).json();
        cluster.held_by(2, "lost").is_some().then_some(()).ok_or(answer.to_string())
    });
    await_equal(&cluster);
    assert_quiet(&cluster);
}

/// Writes on all sides of a split: some keys on each side alone, one on all of them.
#[track_caller]
fn write_on_all_sides(cluster: &Cluster, sides: &[&[usize]]) -> History {
    let mut history = History::default();
    for (number, side) in sides.iter().enumerate() {
        for count in 0..40 {
            let mut client = cluster.client(side[count % side.len()]);
            let key = format!("side{number}-{count}");
            let outcome = history.write(&mut client, &key, format!("{key}:{count}."));
            assert!(matches!(outcome, Outcome::Acknowledged | Outcome::Thin), "{key}: {outcome:?}");
        }
        let answer = cluster.client(side[0]).put("/kv/everyone", format!("of side {number}"));
        assert!(matches!(answer.status, 200..=204), "{answer}");
    }
    history
}

fn heal_from_split(count: usize, sides: &[&[usize]]) {
    let cluster = Cluster::behind_proxies(count, &QUICK);
    cluster.client(0).put("/kv/everyone?w=3", "before").expect(201);
    cluster.split(sides);
    eventually("every side counts the others as gone", SOON, || {
        let alive = |index: usize| status(&cluster, index)["members"].to_string().matches(r#""state":"alive""#).count();
        let wrong = sides.iter().flat_map(|side| side.iter().map(move |index| (*index, side.len())));
        let wrong: Vec<_> = wrong.filter(|(index, size)| alive(*index) != *size).collect();
        wrong.is_empty().then_some(()).ok_or(format!("{wrong:?}"))
    });
    let history = write_on_all_sides(&cluster, sides);
    cluster.unite();
    await_equal(&cluster);
    assert_on_all_owners(&cluster, &history);
    let reads: Vec<_> = (0..count).map(|index| cluster.client(index).get("/kv/everyone?r=3").expect(200)).collect();
    for read in &reads {
        assert_eq!(read.must("Kringle-Siblings"), sides.len().to_string(), "a value of each side: {read}");
        assert_eq!(read.text(), reads[0].text(), "one winner");
    }
    assert_quiet(&cluster);
}

#[test]
fn three_nodes_that_were_cut_from_one_another_hold_what_each_was_told() {
    heal_from_split(3, &[&[0], &[1], &[2]]);
}

#[test]
fn two_nodes_and_three_that_were_cut_apart_hold_what_both_sides_were_told() {
    heal_from_split(5, &[&[0, 1], &[2, 3, 4]]);
}

#[test]
fn what_one_of_three_took_alone_reaches_the_others_when_they_return() {
    let mut cluster = Cluster::start(3, &QUICK);
    [1, 2].iter().for_each(|index| cluster.nodes[*index].kill());
    let mut history = History::default();
    for count in 0..50 {
        let outcome = history.write(&mut cluster.client(0), &format!("k{count}"), format!("k{count}:0."));
        assert_eq!(outcome, Outcome::Thin);
    }
    cluster.client(0).put("/kv/k0?w=2", "x").expect(503);
    cluster.client(0).put("/kv/k0", "after").expect(202);
    history.0.remove("k0");
    [1, 2].iter().for_each(|index| cluster.nodes[*index].restart());
    await_equal(&cluster);
    assert_on_all_owners(&cluster, &history);
    assert_quiet(&cluster);
}

#[test]
fn hashes_are_equal_whatever_the_order_of_arrival() {
    let mut rng = support::seeded("order of arrival");
    let cluster = Cluster::start(3, &["--memory", "--syncfreq", "3600"]);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970");
    let began = Stamp::from_ms(now.as_millis() as u64 - 60_000);
    // Three writes of each key on top of one another, the last of some a delete, and one that knew of none of them.
    let mut copies = Vec::new();
    for number in 0..200u64 {
        let key = Key::new(format!("k{number}")).expect("a short key");
        let dot = |actor: u64, count: u64| Dot { actor: Actor(actor), stamp: Stamp(began.0 + 8 * number + count) };
        let value = |count: u64| (count < 2 || number % 3 > 0).then(|| Content::plain(format!("{count}")));
        let mut record = Record::default();
        for count in 0..3 {
            record = record.write(&Seen::Everything, dot(1, count), value(count)).expect("one value");
            copies.push((key.clone(), record.clone()));
        }
        let aside = Record::default().write(&Seen::Everything, dot(2, 4), value(0)).expect("one value");
        copies.extend((number % 2 == 0).then(|| (key.clone(), aside)));
    }
    for index in 0..3 {
        copies.shuffle(&mut rng);
        for some in copies.chunks(100) {
            let requests =
                some.iter().map(|(key, record)| PeerRequest::Merge { key: key.clone(), record: record.clone() });
            let mut client = cluster.client(index);
            let batch = peer::post_as_member(&mut client, "/replicate", NodeId(7), Stamp(0), requests.collect());
            client.send(&batch).expect(200);
        }
    }
    let hashes: Vec<Value> = (0..3).map(|index| cluster.client(index).get("/store/hash").expect(200).json()).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    assert_quiet(&cluster);
}
