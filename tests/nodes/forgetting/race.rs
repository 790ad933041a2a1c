//! What is deleted and forgotten while the same keys are written, compared, and a node is killed.

use super::kit::{QUICK, SOON, assert_equal_and_quiet, await_forgotten};
use super::support::cluster::Cluster;
use super::support::eventually;
use super::support::http::{Client, Request};
use super::support::load::Outcome;
use super::support::seeded;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const WRITERS: usize = 4;
const KEYS_PER_WRITER: usize = 6;

/// A write of unknown fate may still be on its way to an owner for so long; a later one of the same key waits for it.
const UNKNOWN_FOR: Duration = Duration::from_secs(2);

/// One write of a key, or a delete; all of a key are made by one writer, one after another.
struct Step {
    value: Option<String>,
    outcome: Outcome,
}

type Steps = BTreeMap<String, Vec<Step>>;

/// Whether the key may be `read` after these steps, which reached all owners unless they are unknown.
fn is_right(steps: &[Step], read: Option<&str>) -> bool {
    let last = steps.iter().rposition(|step| matches!(step.outcome, Outcome::Acknowledged | Outcome::Thin));
    let later = steps[last.unwrap_or(0)..].iter().filter(|step| step.outcome != Outcome::Refused);
    later.map(|step| step.value.as_deref()).chain(last.is_none().then_some(None)).any(|allowed| allowed == read)
}

fn write(clients: Vec<String>, number: usize, mut rng: ChaCha8Rng, stop: &AtomicBool, deletes: &AtomicU64) -> Steps {
    let mut clients: Vec<Client> =
        clients.iter().map(|address| Client::new(address).within(Duration::from_secs(5))).collect();
    let (mut steps, mut unknown) = (Steps::new(), BTreeMap::new());
    for count in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("race{number}-{}", rng.random_range(0..KEYS_PER_WRITER));
        if unknown.get(&key).is_some_and(|since: &Instant| since.elapsed() < UNKNOWN_FOR) {
            continue;
        }
        let value = rng.random_bool(0.5).then(|| format!("{number}:{count}"));
        let target = format!("/kv/{key}");
        let request = match &value {
            Some(value) => Request::new("PUT", target).body(value.as_str()),
            None => Request::new("DELETE", target),
        };
        let through = rng.random_range(0..clients.len());
        let outcome = match clients[through].try_send(&request) {
            Ok(answer) => Outcome::of(answer.status),
            Err(_) => Outcome::Unknown,
        };
        match outcome {
            Outcome::Unknown => drop(unknown.insert(key.clone(), Instant::now())),
            _ => drop(deletes.fetch_add(u64::from(value.is_none()), Ordering::Relaxed)),
        }
        steps.entry(key).or_default().push(Step { value, outcome });
    }
    steps
}

/// Asks for sessions, again and again.
fn sync(addresses: Vec<String>, stop: Arc<AtomicBool>) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut sessions = 0;
        for address in addresses.iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let asked = Client::new(address).within(Duration::from_secs(10)).try_send(&Request::new("POST", "/sync"));
            sessions += u64::from(asked.is_ok_and(|answer| answer.status == 200));
        }
        sessions
    })
}

#[test]
fn what_was_acknowledged_last_holds_while_keys_are_deleted_forgotten_and_written_again_in_a_race() {
    let mut cluster = Cluster::start(3, &QUICK);
    let mut rng = seeded("race");
    let addresses: Vec<String> = cluster.nodes.iter().map(|node| node.address()).collect();
    let (stop, deletes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<JoinHandle<Steps>> = (0..WRITERS)
        .map(|number| {
            let (addresses, rng) = (addresses.clone(), ChaCha8Rng::seed_from_u64(rng.random()));
            let (stop, deletes) = (stop.clone(), deletes.clone());
            std::thread::spawn(move || write(addresses, number, rng, &stop, &deletes))
        })
        .collect();
    let syncing = sync(addresses, stop.clone());
    for round in 0..3 {
        let goal = deletes.load(Ordering::Relaxed) + rng.random_range(20..120);
        eventually("some more deletes", SOON, || {
            let done = deletes.load(Ordering::Relaxed);
            (done >= goal).then_some(()).ok_or(format!("{done} of {goal}"))
        });
        cluster.nodes[round % 3].kill();
        cluster.nodes[round % 3].restart();
    }
    stop.store(true, Ordering::Relaxed);
    let mut steps = Steps::new();
    writers.into_iter().for_each(|writer| steps.extend(writer.join().expect("a writer")));
    let sessions = syncing.join().expect("sessions on request");
    let made: usize = steps.values().map(Vec::len).sum();
    let unknown = steps.values().flatten().filter(|step| step.outcome == Outcome::Unknown).count();
    eprintln!("{made} steps, {unknown} of unknown fate, {sessions} sessions on request");
    assert_equal_and_quiet(&cluster);
    let mut live = 0;
    for (key, steps) in &steps {
        let reads: Vec<Option<String>> = (0..3).map(|index| read(&cluster, index, key)).collect();
        assert!(reads.iter().all(|read| *read == reads[0]), "{key}: {reads:?}");
        let told = || steps.iter().rev().take(4).rev().map(|step| (step.value.as_deref(), step.outcome));
        assert!(is_right(steps, reads[0].as_deref()), "{key}: {:?} after {:?}", reads[0], told().collect::<Vec<_>>());
        live += usize::from(reads[0].is_some());
    }
    await_forgotten(&cluster, live);
    assert_equal_and_quiet(&cluster);
}

fn read(cluster: &Cluster, index: usize, key: &str) -> Option<String> {
    let answer = cluster.client(index).get(&format!("/kv/{key}?r=3"));
    assert!(matches!(answer.status, 200 | 404), "{answer}");
    (answer.status == 200).then(|| answer.text())
}
