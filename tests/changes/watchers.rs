//! Clients that never look away: each owns some keys, writes, deletes and reads them through any node, and remembers. What
//! was acknowledged must be there at every moment, and what was deleted must not.

use super::support::http::{Answer, Client, Request};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// Keys of one client.
const KEYS: usize = 12;
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many failed writes each prints.
const SHOWN: u64 = 2;
/// How long one rests between two requests.
const REST: Duration = Duration::from_millis(2);

/// What a key may be found to hold: nothing, or one of these values.
#[derive(Clone, Debug, Default)]
struct Known {
    /// What the last acknowledged write left.
    last: Option<String>,
    /// What may have come since: writes of which nobody knows, or that fewer owners have than were asked for.
    maybe: BTreeSet<Option<String>>,
}

impl Known {
    fn allows(&self, read: &Option<String>) -> bool {
        *read == self.last || self.maybe.contains(read)
    }
}

/// What all of them came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    pub acknowledged: u64,
    pub unknown: u64,
    pub reads: u64,
    pub refused_reads: u64,
}

/// The clients at work.
pub struct Watchers {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    nodes: Arc<RwLock<Vec<String>>>,
    clients: Vec<JoinHandle<(Sum, Vec<String>)>>,
}

impl Watchers {
    /// So many clients of these nodes; each request is made with this query.
    pub fn start(count: u64, nodes: Vec<String>, query: &'static str, seed: u64) -> Watchers {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let nodes = Arc::new(RwLock::new(nodes));
        let client = |number: u64| {
            let (stop, done, nodes) = (stop.clone(), done.clone(), nodes.clone());
            let rng = ChaCha8Rng::seed_from_u64(seed.wrapping_add(number));
            let watcher = Watcher { number, nodes, query, rng, done, sum: Sum::default(), complaints: Vec::new() };
            std::thread::spawn(move || watcher.run(&stop))
        };
        let clients = (0..count).map(client).collect();
        Watchers { stop, done, nodes, clients }
    }

    /// From now on they ask these.
    pub fn turn_to(&self, nodes: Vec<String>) {
        *self.nodes.write().expect("a list") = nodes;
    }

    /// Requests answered so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Lets them come to an end; panics if anything was not as it must be.
    #[track_caller]
    pub fn finish(self) -> Sum {
        self.stop.store(true, Ordering::Relaxed);
        let (mut sum, mut complaints) = (Sum::default(), Vec::new());
        for client in self.clients {
            let (part, more) = client.join().expect("a client ends");
            sum.acknowledged += part.acknowledged;
            sum.unknown += part.unknown;
            sum.reads += part.reads;
            sum.refused_reads += part.refused_reads;
            complaints.extend(more);
        }
        complaints.truncate(10);
        assert!(complaints.is_empty(), "{sum:?}\n{}", complaints.join("\n"));
        sum
    }
}

struct Watcher {
    number: u64,
    nodes: Arc<RwLock<Vec<String>>>,
    query: &'static str,
    rng: ChaCha8Rng,
    done: Arc<AtomicU64>,
    sum: Sum,
    complaints: Vec<String>,
}

impl Watcher {
    fn run(mut self, stop: &AtomicBool) -> (Sum, Vec<String>) {
        let mut known: Vec<Known> = vec![Known::default(); KEYS];
        let mut written = 0;
        while !stop.load(Ordering::Relaxed) {
            let at = self.rng.random_range(0..KEYS);
            let target = format!("/kv/watched-{}-{at}{}", self.number, self.query);
            let address = {
                let nodes = self.nodes.read().expect("a list");
                nodes[self.rng.random_range(0..nodes.len())].clone()
            };
            let mut client = Client::new(&address).within(PATIENCE);
            match self.rng.random_range(0..10) {
                0..=2 => {
                    written += 1;
                    let value = format!("{}:{written}", self.number);
                    let answer = client.try_send(&Request::new("PUT", &*target).body(value.as_str()));
                    self.note_write(&mut known[at], Some(value), answer);
                }
                3 => {
                    let answer = client.try_send(&Request::new("DELETE", &*target));
                    self.note_write(&mut known[at], None, answer);
                }
                _ => match client.try_send(&Request::new("GET", &*target)) {
                    Ok(answer) if answer.status == 200 || answer.status == 404 => {
                        let read = (answer.status == 200).then(|| answer.text());
                        self.sum.reads += 1;
                        if !known[at].allows(&read) {
                            let told = format!("{target} through {address}: {read:?} read, {:?}", known[at]);
                            self.complaints.push(told);
                        }
                    }
                    Ok(answer) if answer.status == 503 => self.sum.refused_reads += 1,
                    Ok(answer) => self.complaints.push(format!("{target}: {answer}")),
                    Err(_) => self.sum.refused_reads += 1,
                },
            }
            self.done.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(REST);
        }
        (self.sum, self.complaints)
    }

    fn note_write(&mut self, known: &mut Known, value: Option<String>, answer: std::io::Result<Answer>) {
        match answer {
            Ok(answer) if matches!(answer.status, 200 | 201 | 204) => {
                self.sum.acknowledged += 1;
                // Whatever else there was is superseded, but for what nobody knows of, which may surface later still.
                known.last = value;
            }
            answer => {
                if self.sum.unknown < SHOWN {
                    eprintln!("not acknowledged: {answer:.600?}");
                }
                self.sum.unknown += 1;
                known.maybe.insert(value);
            }
        }
    }
}
