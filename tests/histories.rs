//! Random histories on real processes: clients write, read and delete while the cluster is split, nodes are killed and
//! frozen, and disks lost. Now and then all is mended and waited for, and a checker tells whether every acknowledged write
//! is among the siblings, unless a write that saw it covered it, and whether blind writers see last-writer behaviour.
//!
//! Each history has a seed of its own. It decides what is tried, not how the processes come along: the same seed gives a
//! history of the same kind, not the same history.

#[path = "histories/checker.rs"]
mod checker;
#[path = "histories/clients.rs"]
mod clients;
#[path = "histories/faults.rs"]
mod faults;
#[path = "histories/history.rs"]
mod history;
mod support;

use clients::{Clients, keys};
use faults::{FLAGS, Faults, NO_HINTS, look};
use history::{Fate, History, Quiet};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use support::cluster::Cluster;
use support::{eventually, seed, thorough};

/// Rounds of trouble in each history.
const ROUNDS: usize = 4;

/// Long enough for several sessions on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Findings printed, of a history that does not hold.
const FINDINGS_SHOWN: usize = 8;

/// What came of several histories.
#[derive(Default)]
struct Totals {
    histories: usize,
    ok: usize,
    failed: usize,
    unknown: usize,
    reads: usize,
    faults: BTreeMap<&'static str, usize>,
}

impl Totals {
    fn add(&mut self, history: &History, faults: &BTreeMap<&'static str, usize>) {
        self.histories += 1;
        self.ok += history.count(|fate| matches!(fate, Fate::Acknowledged { .. }));
        self.failed += history.count(|fate| fate == Fate::Failed);
        self.unknown += history.count(|fate| fate == Fate::Unknown);
        self.reads += history.reads.len();
        for (fault, count) in faults {
            *self.faults.entry(fault).or_default() += count;
        }
    }

    fn line(&self) -> String {
        let Totals { histories, ok, failed, unknown, reads, faults } = self;
        let faults: Vec<String> = faults.iter().map(|(fault, count)| format!("{count} {fault}")).collect();
        let faults = faults.join(", ");
        format!("{histories} histories: {ok} writes ok, {failed} failed, {unknown} unknown, {reads} reads; {faults}")
    }
}

/// One history on `count` nodes, checked; how it went is added to `totals`.
#[track_caller]
fn live_through(count: usize, rng: &mut ChaCha8Rng, totals: &mut Totals) -> String {
    let began = Instant::now();
    let flags = if rng.random_bool(0.5) { FLAGS.to_vec() } else { [&FLAGS[..], &NO_HINTS].concat() };
    let mut cluster = Cluster::behind_proxies(count, &flags);
    let keys = keys();
    let owners = keys.iter().map(|key| (key.name.clone(), cluster.owners(&key.name))).collect();
    let mut history = History { owners, ..History::default() };
    let mut clients = Clients::start(&cluster, &keys, rng);
    let mut faults = Faults::new(&mut cluster, &clients, &keys, rng);
    faults.run(ROUNDS);
    let Faults { writes, troubles, quiets, losses, done, .. } = faults;
    let deeds = clients.finish();
    (history.writes, history.reads) = ([deeds.writes, writes].concat(), deeds.reads);
    (history.troubles, history.quiets, history.losses) = (troubles, quiets, losses);
    assert_holds(&history);

    // Blind writers see last-writer behaviour: each of these replaces all there was.
    for key in &keys {
        let (node, deletes) = (rng.random_range(0..count), rng.random_bool(0.3));
        let last = clients.replace(&cluster, node, key, "last on", deletes);
        assert!(matches!(last.fate, Fate::Acknowledged { full: true, .. }), "no majority has it: {last:?}");
        history.writes.push(last);
    }
    eventually("all are equal", SOON, || cluster.first_difference().map_or(Ok(()), Err));
    history.quiets.push(Quiet { at: clients.now(), held: look(&cluster, &keys) });
    assert_holds(&history);
    totals.add(&history, &done);
    let mut alone = Totals::default();
    alone.add(&history, &done);
    format!("{} in {:.1} s", alone.line(), began.elapsed().as_secs_f64())
}

#[track_caller]
fn assert_holds(history: &History) {
    let findings = checker::findings(history);
    if let Some(first) = findings.first() {
        let key = history.owners.keys().find(|key| first.contains(&format!("{key}: "))).expect("a key");
        let mut writes: Vec<_> = history.writes.iter().filter(|write| write.key == *key).collect();
        writes.sort_by_key(|write| write.begun);
        writes.iter().for_each(|write| eprintln!("  {write:?}"));
        let quiets: Vec<_> = history.quiets.iter().map(|quiet| (quiet.at, &quiet.held[key])).collect();
        let History { owners, troubles, losses, .. } = history;
        eprintln!("{key}: owners {:?}, {troubles:?}, {losses:?}, quiet {quiets:?}", owners[key]);
        let shown = findings[..findings.len().min(FINDINGS_SHOWN)].join("\n");
        panic!("{} findings:\n{shown}", findings.len());
    }
}

/// Histories on so many nodes, fewer unless there is time.
#[track_caller]
fn live(test: &str, nodes: usize, histories: usize) {
    let (first, histories) = (seed(test), if thorough() { 25 } else { histories });
    let mut totals = Totals::default();
    for number in 0..histories as u64 {
        let seed = first.wrapping_add(number);
        // Printed before anything can go wrong in it.
        let again = format!("KRINGLE_SEED={seed} cargo test --locked --test histories {test} -- --nocapture");
        eprintln!("history {number} on {nodes} nodes, alone and first by: {again}");
        let line = live_through(nodes, &mut ChaCha8Rng::seed_from_u64(seed), &mut totals);
        eprintln!("history {number} on {nodes} nodes: {line}");
    }
    eprintln!("{nodes} nodes: {}", totals.line());
    // What has to have happened for this to show anything.
    assert!(totals.ok > 200 * histories && totals.unknown > 0 && totals.faults["disk lost"] == histories);
}

#[test]
fn no_acknowledged_write_is_missing_on_three_nodes() {
    live("no_acknowledged_write_is_missing_on_three_nodes", 3, 2);
}

#[test]
fn no_acknowledged_write_is_missing_on_five_nodes_of_which_two_keep_each_key_for_others_only() {
    live("no_acknowledged_write_is_missing_on_five_nodes_of_which_two_keep_each_key_for_others_only", 5, 2);
}
