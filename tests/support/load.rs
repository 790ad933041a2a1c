//! Writers that remember. Each thread owns its keys, so the order of a key's writes is known; each value is
//! unique, so what is read later names the write it came from.
//!
//! A write is *acknowledged* (200, 201, 204), acknowledged *thinly* (202: fewer owners have it than wanted),
//! *refused* (any 4xx, 507: nothing stored) or *unknown* (503, other 5xx, no answer: it may surface).
//! [`History::verify`] holds the store to that: an acknowledged write is read back, or a later write of the same
//! key that was not refused. A thin one must be found too, but only a read of every owner is bound to find it.

use super::http::{Client, Request, encode};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a writer waits before trying again where nobody answers.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// How long a read may be refused for want of owners.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// The most findings printed when a history does not hold.
const FINDINGS_SHOWN: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Acknowledged,
    Thin,
    Refused,
    Unknown,
}

impl Outcome {
    /// What a write's status promises.
    pub fn of(status: u16) -> Outcome {
        match status {
            200 | 201 | 204 => Outcome::Acknowledged,
            202 => Outcome::Thin,
            400..=499 | 507 => Outcome::Refused,
            _ => Outcome::Unknown,
        }
    }
}

/// One write of a key.
#[derive(Clone, Debug)]
pub struct Write {
    pub value: String,
    pub outcome: Outcome,
    /// The status, or why there was no answer.
    pub said: String,
    pub took: Duration,
}

/// All writes of each key, in their order.
#[derive(Clone, Default, Debug)]
pub struct History(pub BTreeMap<String, Vec<Write>>);

impl History {
    /// One write, remembered.
    pub fn write(&mut self, client: &mut Client, key: &str, value: String) -> Outcome {
        self.write_to(client, &format!("/kv/{}", encode(key)), key, value)
    }

    /// One write to this target, remembered under `key`.
    pub fn write_to(&mut self, client: &mut Client, target: &str, key: &str, value: String) -> Outcome {
        let started = Instant::now();
        let (outcome, said) = match client.try_send(&Request::new("PUT", target).body(value.as_str())) {
            Ok(answer) => (Outcome::of(answer.status), answer.status.to_string()),
            Err(error) => (Outcome::Unknown, error.to_string()),
        };
        let write = Write { value, outcome, said, took: started.elapsed() };
        self.0.entry(key.to_owned()).or_default().push(write);
        outcome
    }

    pub fn absorb(&mut self, other: History) {
        for (key, writes) in other.0 {
            self.0.entry(key).or_default().extend(writes);
        }
    }

    pub fn count(&self, outcome: Outcome) -> usize {
        self.writes().filter(|write| write.outcome == outcome).count()
    }

    pub fn writes(&self) -> impl Iterator<Item = &Write> {
        self.0.values().flatten()
    }

    /// Reads every key through `client`'s node as any client would, and explains, key by key, what does not hold.
    #[track_caller]
    pub fn verify(&self, client: &mut Client) {
        self.verify_by(client, "", &[Outcome::Acknowledged]);
    }

    /// Reads every key from `owners` owners, all of them: so thin writes must be there as well.
    #[track_caller]
    pub fn verify_on_all(&self, client: &mut Client, owners: usize) {
        self.verify_by(client, &format!("?r={owners}"), &[Outcome::Acknowledged, Outcome::Thin]);
    }

    #[track_caller]
    fn verify_by(&self, client: &mut Client, query: &str, binding: &[Outcome]) {
        let mut findings = vec![];
        for (key, writes) in &self.0 {
            let target = format!("/kv/{}{query}", encode(key));
            // Peers that have just come back may need a moment to be reached again.
            let answer = super::eventually("a read succeeds", READ_LIMIT, || match client.get(&target) {
                answer if answer.status == 503 => Err(answer.to_string()),
                answer => Ok(answer),
            });
            let read = match answer.status {
                200 => Some(answer.text()),
                404 => None,
                _ => panic!("{key} cannot be read: {answer}"),
            };
            if let Err(finding) = judge(writes, read.as_deref(), binding) {
                findings.push(format!("{key}: {finding}"));
            }
        }
        let shown = findings[..findings.len().min(FINDINGS_SHOWN)].join("\n");
        assert!(findings.is_empty(), "{} of {} keys do not hold:\n{shown}", findings.len(), self.0.len());
    }
}

/// Whether `read` may be what a key with these writes holds, where writes with `binding` outcomes must be there.
pub fn judge(writes: &[Write], read: Option<&str>, binding: &[Outcome]) -> Result<(), String> {
    let acknowledged = writes.iter().rposition(|write| binding.contains(&write.outcome));
    let found = read.map(|value| writes.iter().position(|write| write.value == value));
    let story = |finding: &str| {
        let first = acknowledged.unwrap_or(0).saturating_sub(1);
        let told: Vec<String> =
            writes[first..].iter().map(|write| format!("{} ({})", brief(&write.value), write.said)).collect();
        Err(format!("{finding}; read {:?} after …, {}", read.map(brief), told.join(", ")))
    };
    match (acknowledged, found) {
        (Some(_), None) => story("an acknowledged write is gone"),
        (None, None) => Ok(()),
        (_, Some(None)) => story("a value nobody wrote"),
        (_, Some(Some(at))) if writes[at].outcome == Outcome::Refused => story("a refused write was stored"),
        (Some(last), Some(Some(at))) if at < last => story("a value from before the last acknowledged write"),
        _ => Ok(()),
    }
}

/// Values may be long; their beginning is unique.
fn brief(value: &str) -> &str {
    value.split('.').next().unwrap_or(value)
}

/// What the writers do.
#[derive(Clone, Debug)]
pub struct Workload {
    pub writers: usize,
    pub keys_per_writer: usize,
    pub value_bytes: usize,
    /// No writer waits longer for an answer.
    pub patience: Duration,
    /// Distinguishes the keys and values of several loads of one test.
    pub name: String,
}

impl Default for Workload {
    fn default() -> Workload {
        let patience = Duration::from_secs(10);
        Workload { writers: 4, keys_per_writer: 25, value_bytes: 100, patience, name: "w".into() }
    }
}

/// Writers at work. They end with [`Load::finish`], or when this is dropped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writers: Vec<JoinHandle<History>>,
}

impl Load {
    /// Starts writing to these addresses, each writer to its own first and to the next where that one fails.
    pub fn start(addresses: &[String], workload: &Workload, rng: &mut ChaCha8Rng) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writers = (0..workload.writers)
            .map(|number| {
                let writer = Writer {
                    number,
                    clients: addresses.iter().map(|address| Client::new(address).within(workload.patience)).collect(),
                    workload: workload.clone(),
                    rng: ChaCha8Rng::seed_from_u64(rng.random()),
                    stop: stop.clone(),
                    acknowledged: acknowledged.clone(),
                };
                std::thread::spawn(move || writer.run())
            })
            .collect();
        Load { stop, acknowledged, writers }
    }

    /// Writes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more writes are acknowledged.
    #[track_caller]
    pub fn await_more(&self, count: u64, limit: Duration) {
        let goal = self.acknowledged() + count;
        super::eventually(&format!("{count} more acknowledged writes"), limit, || match self.acknowledged() {
            done if done >= goal => Ok(()),
            done => Err(format!("{} short", goal - done)),
        });
    }

    /// Lets the requests under way end, and hands over what was done.
    pub fn finish(mut self) -> History {
        self.stop.store(true, Ordering::Relaxed);
        let mut history = History::default();
        for writer in std::mem::take(&mut self.writers) {
            history.absorb(writer.join().expect("a writer"));
        }
        history
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Writer {
    number: usize,
    clients: Vec<Client>,
    workload: Workload,
    rng: ChaCha8Rng,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

impl Writer {
    fn run(mut self) -> History {
        let Workload { name, keys_per_writer, value_bytes, .. } = self.workload.clone();
        let mut history = History::default();
        let mut target = self.number % self.clients.len();
        for count in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let key = format!("{name}{}-{}", self.number, self.rng.random_range(0..keys_per_writer));
            let unique = format!("{name}{}:{count}.", self.number);
            let filler = ".".repeat(value_bytes.saturating_sub(unique.len()));
            match history.write(&mut self.clients[target], &key, unique + &filler) {
                Outcome::Acknowledged | Outcome::Thin => {
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Outcome::Refused | Outcome::Unknown => {
                    target = (target + 1) % self.clients.len();
                    std::thread::sleep(RETRY_INTERVAL);
                }
            }
        }
        history
    }
}
