//! What it costs to make copies equal again, beside what pushing everything would have cost.

use crate::copies::{Generation, bytes_of_one, copy_of, give, long_ago};
use crate::fill::fill;
use crate::machine::{Pin, loopback_bytes};
use crate::paced::{Client, one_by_one};
use crate::process::{ask, ask_within, wait_for_ok};
use crate::report::{Target, judged, median};
use crate::scenarios::has_wrk;
use crate::servers::{self, Cluster};
use crate::wrk::{self, Shape, VALUE_BYTES};
use crate::{Options, Outcome};
use kringle::merkle::{Entry, Forest, VersionDigest};
use kringle::protocol::Request;
use kringle::record::{Actor, Clock, Content, Edit, Seen, Stamp};
use kringle::storage::{Change, Committer, Feed, HintLedger, OpenOptions, open};
use serde_json::Value;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

const MILLION: u64 = 1_000_000;
/// As many as Garage was given before the same was asked of it.
const FEW: u64 = 31_000;
/// The longest a session or a hand-over may take here.
const REPAIR_TIME_MAX: Duration = Duration::from_secs(300);
/// Requests a second of a client beside what is measured.
const CLIENT_RATE: u64 = 1_000;
/// How often something is looked for that is waited for. Each look is a kilobyte on the loopback interface.
const LOOK_PERIOD: Duration = Duration::from_millis(200);

pub fn status(url: &str) -> Outcome<Value> {
    let (_, body) = ask(url, "GET", "/status", "")?;
    serde_json::from_str(&body).map_err(|error| format!("{url}/status: {error}"))
}

/// A session of the first node with the second, on request: its report.
pub fn session(from: &str, with: &str) -> Outcome<Value> {
    let (_, body) = ask_within(from, "POST", &format!("/sync?with={with}"), "", REPAIR_TIME_MAX)?;
    let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{from}/sync: {error}"))?;
    if answer["done"] != true {
        return Err(format!("the session failed: {answer}"));
    }
    Ok(answer["reports"][0].clone())
}

pub fn number(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_default()
}

/// Sessions only on request and when a peer returns, so that each is measured by itself.
pub const RARELY: [&str; 2] = ["--syncfreq", "3600"];

pub fn sync(options: &Options) -> Outcome<()> {
    let mut cluster = Cluster::start::<2>(options, &RARELY)?;
    let [one, other] = [0, 1].map(|at| cluster.urls[at].clone());
    let began = long_ago();
    let filling = Instant::now();
    give(&[&one, &other], 0..MILLION, Generation::First, began)?;
    println!("two nodes of {MILLION} keys of {VALUE_BYTES} B, filled in {:.1} s", filling.elapsed().as_secs_f64());
    let record = bytes_of_one(began);
    println!("pushing the whole store would be {:.0} MB: {record} B for each record", (record * MILLION) as f64 / 1e6);

    let mut in_sync = Vec::new();
    let mut report = Value::Null;
    for _ in 0..9 {
        report = session(&one, &other)?;
        in_sync.push(number(&report, "ms") as f64);
    }
    let most = number(&report, "bytes_out").max(number(&report, "bytes_in")) as f64;
    told("in sync", &report);
    println!("in sync, digest bytes the one way and the other: at most {most}, {}", judged(most, Target::AtMost(64.0)));
    println!("in sync, time: {:.1} ms", median(in_sync));

    give(&[&one], 7..8, Generation::Second, began)?;
    let report = session(&one, &other)?;
    told("one key of 1,000,000 differs", &report);
    let bytes = (number(&report, "bytes_out") + number(&report, "bytes_in")).saturating_sub(record) as f64;
    println!("one key, digest bytes both ways: {bytes}, {}", judged(bytes, Target::AtMost(4096.0)));
    let rounds = number(&report, "rounds") as f64;
    println!("one key, round trips: {rounds}, {}", judged(rounds, Target::AtMost(6.0)));

    give(&[&one], 10_000..15_000, Generation::Second, began)?;
    give(&[&other], 15_000..20_000, Generation::Second, began)?;
    let report = session(&one, &other)?;
    told("10,000 keys differ, half of them newer here, half there", &report);
    needed(&report, 10_000, record)?;

    missing(options, &mut cluster, MILLION, began, record)?;
    drop(cluster);

    let mut cluster = Cluster::start::<2>(options, &RARELY)?;
    let [one, other] = [0, 1].map(|at| cluster.urls[at].clone());
    give(&[&one, &other], 0..FEW, Generation::First, began)?;
    println!("two nodes of {FEW} keys");
    missing(options, &mut cluster, FEW, began, record)
}

/// The second of two nodes is away while the first is given 10,000 more, and returns.
fn missing(options: &Options, cluster: &mut Cluster, keys: u64, began: Stamp, record: u64) -> Outcome<()> {
    let [one, other] = [0, 1].map(|at| cluster.urls[at].clone());
    cluster.kill(1);
    give(&[&one], keys..keys + 10_000, Generation::First, began)?;
    wait_for(|| Ok(status(&one)?["members"].to_string().contains(r#""state":"down""#)))?;
    let bytes_before = loopback_bytes();
    let returned = cluster.launch(options, 1)?;
    wait_for_ok(&other, "/readyz")?;
    let ready = returned.elapsed().as_secs_f64();
    wait_equal(&[&one, &other], returned)?;
    let equal = returned.elapsed().as_secs_f64();
    let each = (loopback_bytes() - bytes_before) as f64 / 1e4;
    let judgement = judged(equal, Target::AtMost(10.0));
    println!("10,000 missing items: node started, ready after {ready:.2} s, equal after {equal:.2} s, {judgement}");
    for url in [&one, &other] {
        for report in status(url)?["sync"]["last"].as_array().into_iter().flatten() {
            if number(report, "pushed") + number(report, "pulled") >= 5_000 && report["reason"] != "request" {
                told("10,000 missing items", report);
                needed(report, 10_000, record)?;
            }
        }
    }
    let judgement = judged(each, Target::AtMost(300.0));
    println!("10,000 missing items: {each:.0} B each, all that passed the loopback interface, {judgement}");
    Ok(())
}

pub fn told(what: &str, report: &Value) {
    let show = |name: &str| format!("{name} {}", number(report, name));
    let names =
        ["rounds", "bytes_out", "bytes_in", "partitions", "leaves", "pushed", "pulled", "noop", "refused", "ms"];
    println!("{what}: {}", names.map(show).join(", "));
}

/// What moved against what had to, and what finding it took.
fn needed(report: &Value, wanted: u64, record: u64) -> Outcome<()> {
    let bytes = number(report, "bytes_out") + number(report, "bytes_in");
    // Two siblings' worth of context more for the second generation is left with the digests.
    let digests = bytes.saturating_sub(wanted * record) as f64 / wanted as f64;
    println!("  {:.0} B each in all; digests {digests:.0} B each, {}", bytes as f64 / wanted as f64, {
        judged(digests, Target::AtMost(320.0))
    });
    let sent = number(report, "pushed") + number(report, "pulled") + number(report, "noop");
    let share = sent as f64 / wanted as f64;
    println!("  values sent / needed: {share:.4}, {}", judged(share, Target::AtMost(1.0)));
    if number(report, "pushed") + number(report, "pulled") != wanted {
        return Err(format!("{wanted} records had to move: {report}"));
    }
    Ok(())
}

fn wait_equal(urls: &[&str], since: Instant) -> Outcome<()> {
    loop {
        let hashes: Vec<_> = urls.iter().map(|url| ask(url, "GET", "/store/hash", "")).collect();
        if hashes.iter().all(|hash| matches!(hash, Ok((200, _)))) && hashes.windows(2).all(|two| two[0] == two[1]) {
            return Ok(());
        }
        if since.elapsed() > REPAIR_TIME_MAX {
            return Err(format!("not equal after {REPAIR_TIME_MAX:?}: {hashes:?}"));
        }
        std::thread::sleep(LOOK_PERIOD);
    }
}

pub fn wait_for(mut is_true: impl FnMut() -> Outcome<bool>) -> Outcome<()> {
    let begun = Instant::now();
    while !is_true()? {
        if begun.elapsed() > REPAIR_TIME_MAX {
            return Err(format!("what was waited for did not happen within {REPAIR_TIME_MAX:?}"));
        }
        std::thread::sleep(LOOK_PERIOD);
    }
    Ok(())
}

pub fn restart(options: &Options) -> Outcome<()> {
    let mut cluster = Cluster::start::<1>(options, &RARELY)?;
    let url = cluster.urls[0].clone();
    give(&[&url], 0..MILLION, Generation::First, long_ago())?;
    let (mut readies, mut digests) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        // Something for the log to hold, and for the base to be behind of.
        fill(&url, Shape::Put, 50_000)?;
        cluster.kill(0);
        let begun = cluster.launch(options, 0)?;
        wait_for_ok(&url, "/readyz")?;
        readies.push(begun.elapsed().as_secs_f64());
        wait_for_ok(&url, "/store/hash")?;
        digests.push(begun.elapsed().as_secs_f64());
        let keys = status(&url)?["store"]["keys"].clone();
        if keys != MILLION {
            return Err(format!("{keys} of {MILLION} keys are there after the restart"));
        }
    }
    let (ready, digests) = (median(readies), median(digests));
    println!("{MILLION} keys after kill -9: serving after {ready:.2} s, {}", judged(ready, Target::AtMost(3.0)));
    println!("{MILLION} keys after kill -9: digests after {digests:.2} s, {}", judged(digests, Target::AtMost(5.0)));
    Ok(())
}

pub fn hash(options: &Options) -> Outcome<()> {
    let cluster = Cluster::start::<1>(options, &RARELY)?;
    let url = &cluster.urls[0];
    give(&[url], 0..MILLION, Generation::First, long_ago())?;
    for rate in [CLIENT_RATE, 5 * CLIENT_RATE] {
        let asking = || one_by_one(url, "/store/hash", options.duration());
        let (_, times) = Client { url, keys: MILLION, rate, free: true }.during(asking)?;
        let times = times?;
        let [p50, p99] = [500, 990].map(|share| times.per_mille(share));
        println!(
            "/store/hash at {MILLION} keys, {rate} requests/s beside it, half of them writes: {} asked, p50 {p50:.2} ms, {}; \
             p99 {p99:.2} ms",
            times.count(),
            judged(p50, Target::AtMost(1.0)),
        );
    }
    Ok(())
}

/// What a write's digests cost, computed as the committer does, against a commit and against a whole durable `PUT`.
pub fn upkeep(options: &Options) -> Outcome<()> {
    const KEYS: u64 = 100_000;
    const BATCH: u64 = 64;
    has_wrk()?;
    let began = long_ago();
    let records: Vec<_> = (0..KEYS)
        .map(|key| (copy_of(key, Generation::First, began), copy_of(key, Generation::Second, began)))
        .filter_map(|pair| match pair {
            (Request::Merge { key, record: first }, Request::Merge { record: second, .. }) => {
                Some((key, first, second))
            }
            _ => None,
        })
        .collect();
    let forest = Forest::new();
    let entry = |version: u128| Some(Entry { digest: VersionDigest(version), live: true });
    let begun = Instant::now();
    for (key, first, second) in &records {
        let (before, after) = (black_box(first).version(key), black_box(second).version(key));
        forest.apply(key.position(), entry(before.0), entry(after.0));
    }
    let digests_us = begun.elapsed().as_secs_f64() * 1e6 / KEYS as f64;

    let folder = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).map_err(|error| error.to_string())?;
    let opened = open(folder.path(), OpenOptions::new("bench", 1, 2)).map_err(|error| error.to_string())?;
    let feed = Arc::new(Feed::new(1, 10_000, 1 << 20));
    let forest = Arc::new(Forest::new());
    let hints = Arc::new(HintLedger::new(1 << 20));
    let clock = Clock::starting_after(Stamp(0));
    let mut committer = Committer::new(opened.store.clone(), forest, feed, hints, Arc::default(), Actor(7), clock);
    let mut commit_us = 0.0;
    for round in 0..2 {
        let mut took = Duration::ZERO;
        for batch in records.chunks(BATCH as usize) {
            let write = |(key, _, second): &(kringle::record::Key, _, kringle::record::Record)| Change::Write {
                key: key.clone(),
                edit: Edit::write(
                    Seen::Everything,
                    second.siblings().first().map(|sibling| Content::plain(sibling.content.value.clone())),
                ),
                until: Stamp::MAX,
            };
            let changes = batch.iter().map(write).collect();
            let begun = Instant::now();
            let outcomes = committer.commit(1 + round, changes);
            took += begun.elapsed();
            if outcomes.iter().any(Result::is_err) {
                return Err("a write was refused".into());
            }
            if opened.store.due().checkpoint {
                opened.store.checkpoint(&mut || ()).map_err(|error| error.to_string())?;
            }
        }
        commit_us = took.as_secs_f64() * 1e6 / KEYS as f64;
    }

    let node = servers::kringle(options, Pin::Client)?;
    fill(&node.url, Shape::Put, KEYS)?;
    let load = wrk::run(&node, Shape::Put, KEYS, options.connections, options, Pin::Client)?;
    let put_us = 1e6 / load.per_second;
    println!(
        "a write's digests, both versions' hashes and the sums: {digests_us:.2} us; a synced commit, {BATCH} at a time: \
         {commit_us:.2} us; a durable PUT: {put_us:.2} us ({:.0}/s), {:.2} us of the node's processor time",
        load.per_second, load.server_us
    );
    let share = 100.0 * digests_us / put_us;
    println!("digests, percent of write throughput: {share:.1}, {}", judged(share, Target::AtMost(5.0)));
    println!("  of a bare commit, without HTTP: {:.1} percent", 100.0 * digests_us / commit_us);
    Ok(())
}
