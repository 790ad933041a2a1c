//! A rolling restart: each node of five in turn is told to stop, ends, and starts again on its folder and its port, while
//! clients go on. One that is refused tries once more, at the next node.

mod support;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::cluster::Cluster;
use support::http::{Answer, Client, Request};
use support::load::{History, Outcome, Write, judge};
use support::{eventually, quantile, seed};

const NODES: usize = 5;
const CLIENTS: usize = 5;
const KEYS_PER_CLIENT: usize = 40;
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it rests between two requests: the machine has other work as well.
const REST: Duration = Duration::from_millis(3);
/// Requests between two restarts, at least.
const STEADY: u64 = 500;
/// How long a node may take to let its clients go and to end.
const STOP_LIMIT: Duration = Duration::from_secs(15);
const LIMIT: Duration = Duration::from_secs(60);

/// What one client saw.
#[derive(Default)]
struct Seen {
    history: History,
    requests: u64,
    /// Those whose first try failed.
    retried: u64,
    /// And whose second did too: what both were told.
    failed: Vec<String>,
    /// Reads that did not find what was acknowledged.
    wrong: Vec<String>,
    took: Vec<Duration>,
}

/// A client with its keys, the node it asks, and those it could.
struct Asker {
    number: usize,
    nodes: Vec<Client>,
    at: usize,
    rng: ChaCha8Rng,
    seen: Seen,
}

impl Asker {
    /// Asks, and where that fails the next node, once. No answer where that fails too.
    fn ask(&mut self, request: &Request) -> Option<Answer> {
        self.seen.requests += 1;
        let (began, mut told) = (Instant::now(), vec![]);
        for _ in 0..2 {
            match self.nodes[self.at].try_send(request) {
                Ok(answer) if answer.status < 500 => {
                    self.seen.took.push(began.elapsed());
                    return Some(answer);
                }
                Ok(answer) => told.push(answer.to_string()),
                Err(error) => told.push(error.to_string()),
            }
            self.seen.retried += u64::from(told.len() == 1);
            self.at = (self.at + 1) % self.nodes.len();
        }
        self.seen.failed.push(told.join(", then "));
        None
    }

    fn write(&mut self, key: String) {
        let value = format!("{}:{}", self.number, self.seen.requests);
        let began = Instant::now();
        let answer = self.ask(&Request::new("PUT", format!("/kv/{key}")).body(value.as_str()));
        let said = answer.as_ref().map_or("no answer".to_owned(), |answer| answer.status.to_string());
        // Where the first try failed it may be stored even if the second was refused.
        let outcome = answer.map_or(Outcome::Unknown, |answer| Outcome::of(answer.status));
        assert_ne!(outcome, Outcome::Refused, "{key}: {said}");
        let write = Write { value, outcome, said, took: began.elapsed() };
        self.seen.history.0.entry(key).or_default().push(write);
    }

    fn read(&mut self, key: String) {
        let Some(answer) = self.ask(&Request::new("GET", format!("/kv/{key}"))) else { return };
        let read = (answer.status == 200).then(|| answer.text());
        let none = vec![];
        let writes = self.seen.history.0.get(&key).unwrap_or(&none);
        if let Err(finding) = judge(writes, read.as_deref(), &[Outcome::Acknowledged]) {
            self.seen.wrong.push(format!("{key}: {finding}"));
        }
    }

    fn run(mut self, stop: &AtomicBool, done: &AtomicU64) -> Seen {
        while !stop.load(Ordering::Relaxed) {
            let key = format!("k{}-{}", self.number, self.rng.random_range(0..KEYS_PER_CLIENT));
            match self.rng.random() {
                true => self.write(key),
                false => self.read(key),
            }
            done.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(REST);
        }
        self.seen
    }
}

#[test]
fn through_a_rolling_restart_of_all_nodes_clients_that_try_once_more_are_served_and_nothing_is_lost() {
    let seed = seed("a rolling restart");
    let mut cluster = Cluster::start(NODES, &[]);
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let addresses: Vec<String> = cluster.nodes.iter().map(|node| node.address()).collect();
    let asker = |number: usize| Asker {
        number,
        nodes: addresses.iter().map(|address| Client::new(address).within(PATIENCE)).collect(),
        at: number % NODES,
        rng: ChaCha8Rng::seed_from_u64(seed + number as u64),
        seen: Seen::default(),
    };
    let start = |number| {
        let (asker, stop, done) = (asker(number), stop.clone(), done.clone());
        std::thread::spawn(move || asker.run(&stop, &done))
    };
    let began = Instant::now();
    let clients: Vec<_> = (0..CLIENTS).map(start).collect();
    let await_more = || {
        let goal = done.load(Ordering::Relaxed) + STEADY;
        eventually("clients go on", LIMIT, || match done.load(Ordering::Relaxed) {
            done if done >= goal => Ok(()),
            done => Err(format!("{done} of {goal}")),
        });
    };
    await_more();
    for node in &mut cluster.nodes {
        assert!(node.stop(STOP_LIMIT).success(), "it ends in order");
        node.restart();
        await_more();
    }
    stop.store(true, Ordering::Relaxed);
    let mut all = Seen::default();
    for client in clients {
        let seen = client.join().expect("a client");
        all.history.absorb(seen.history);
        (all.requests, all.retried) = (all.requests + seen.requests, all.retried + seen.retried);
        all.failed.extend(seen.failed);
        all.wrong.extend(seen.wrong);
        all.took.extend(seen.took);
    }
    let Seen { history, requests, retried, failed, wrong, mut took } = all;
    let success = 1.0 - failed.len() as f64 / requests as f64;
    eprintln!(
        "{requests} requests in {:?}, {retried} tried again, {} failed both times: {:.3} % served; {} writes acknowledged, \
         {} of them by fewer owners than wanted; median {:?}, p99 {:?}, longest {:?}",
        began.elapsed(),
        failed.len(),
        100.0 * success,
        history.count(Outcome::Acknowledged) + history.count(Outcome::Thin),
        history.count(Outcome::Thin),
        quantile(&mut took, 0.5),
        quantile(&mut took, 0.99),
        quantile(&mut took, 1.0),
    );
    assert_eq!(wrong, [""; 0], "reads find what was acknowledged");
    assert!(retried >= NODES as u64, "the nodes that stopped had clients: {retried}");
    assert!(success >= 0.999, "{success}: {failed:?}");
    for index in 0..NODES {
        history.verify_on_all(&mut cluster.client(index), 3);
        history.verify(&mut cluster.client(index));
    }
}
