//! Clients on real nodes that remember exactly what they asked, when, and what they were told.
//!
//! Each asks one thing after another, of any node, about one of a few keys. One whose request came to an unknown end goes
//! on as another process, for the first is still asking as far as anybody knows. What surely did nothing is no operation.

use super::history::{Act, Etag, OPEN, Operation, Outcome};
use super::support::http::{Answer, Client, Request};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most operations of one key, final reads aside: as many as the checker is known to judge quickly.
const OPERATIONS_MAX: usize = 400;
/// Most changes of a key that come to an unknown end, about: each may have happened at any time since, or never. Once there
/// are so many the key is only looked at. A counter that is set as well has no verdict with three times as many.
const UNKNOWN_MAX: usize = 48;

/// What is done to a key, how often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mix {
    /// Everything.
    Any,
    /// Created and deleted, by many at once.
    Creators,
    /// Replaced by whoever read it last.
    Swaps,
    /// Read and written, without conditions: all that the AP modes offer.
    Plain,
    /// Added to and counted.
    Counter,
    /// A counter that is set and deleted as well.
    ResetCounter,
}

impl Mix {
    pub const ALL: [Mix; 5] = [Mix::Any, Mix::Creators, Mix::Swaps, Mix::Counter, Mix::ResetCounter];

    fn look(self) -> Act {
        if matches!(self, Mix::Counter | Mix::ResetCounter) { Act::Count } else { Act::Read }
    }

    /// The next thing to do: `own` to be written, if anything, `shown` being the versions a client was last told of.
    fn act(self, rng: &mut ChaCha8Rng, own: i64, shown: &[Etag]) -> Act {
        // Mostly what was told last, now and then something older.
        let back = if rng.random_ratio(4, 5) { 0 } else { rng.random_range(0..4) };
        let etag = shown.len().checked_sub(1 + back).map(|at| shown[at].clone());
        let by = [1, 100, 10_000][rng.random_range(0..3)];
        match (self, rng.random_range(0..20), etag) {
            (Mix::Counter, 0..=11, _) | (Mix::ResetCounter, 0..=8, _) => Act::Add(by),
            (Mix::Counter, 19, _) | (Mix::ResetCounter, 18..=19, _) => Act::Read,
            (Mix::ResetCounter, 9, _) => Act::Write(own),
            (Mix::ResetCounter, 10, _) => Act::Delete,
            (Mix::Counter | Mix::ResetCounter, ..) => Act::Count,
            (Mix::Plain, 0..=7, _) => Act::Write(own),
            (Mix::Plain, 8, _) => Act::Delete,
            (Mix::Creators, 0..=8, _) => Act::Create(own),
            (Mix::Creators, 9..=11, _) => Act::Delete,
            (Mix::Creators, 12..=13, Some(etag)) => Act::DeleteIf(etag),
            (Mix::Swaps, 0..=10, Some(etag)) => Act::Replace(own, etag),
            (Mix::Swaps, 11 | 12, _) => Act::Create(own),
            (Mix::Any, 0..=3, _) => Act::Write(own),
            (Mix::Any, 4, _) => Act::Delete,
            (Mix::Any, 5..=6, _) => Act::Create(own),
            (Mix::Any, 7..=9, Some(etag)) => Act::Replace(own, etag),
            (Mix::Any, 10, Some(etag)) => Act::DeleteIf(etag),
            _ => Act::Read,
        }
    }
}

/// A key that clients share.
#[derive(Debug)]
pub struct Shared {
    pub key: String,
    pub mix: Mix,
    begun: AtomicUsize,
    unknown: AtomicUsize,
    pub operations: Mutex<Vec<Operation>>,
}

/// What clients share.
#[derive(Debug)]
pub struct Traffic {
    /// Each request is made in one of them.
    modes: &'static [&'static str],
    /// Whether it has conditions, and an answer always has an ETag.
    is_cp: bool,
    addresses: Vec<String>,
    pub keys: Vec<Shared>,
    /// No request lasts longer.
    limit: Duration,
    began: Instant,
    last: AtomicU64,
    processes: AtomicUsize,
    values: AtomicI64,
    pub over: AtomicBool,
    /// Requests that surely did nothing.
    pub refused: AtomicUsize,
    /// Answers that the contract does not allow, and to what.
    pub wrong: Mutex<Vec<String>>,
}

impl Traffic {
    pub fn new(
        modes: &'static [&'static str],
        addresses: Vec<String>,
        keys: Vec<(String, Mix)>,
        limit: Duration,
    ) -> Traffic {
        let count = || AtomicUsize::new(0);
        let shared = |(key, mix)| Shared { key, mix, begun: count(), unknown: count(), operations: Mutex::default() };
        Traffic {
            modes,
            is_cp: !modes.iter().any(|mode| matches!(*mode, "sloppy" | "async")),
            addresses,
            keys: keys.into_iter().map(shared).collect(),
            limit,
            began: Instant::now(),
            last: AtomicU64::new(0),
            processes: AtomicUsize::new(0),
            values: AtomicI64::new(0),
            over: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
            wrong: Mutex::default(),
        }
    }

    /// A moment that no other is equal to.
    pub fn now(&self) -> u64 {
        let now = self.began.elapsed().as_micros() as u64;
        let next = |last: u64| Some(now.max(last + 1));
        // It always has a next.
        let last = self.last.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).unwrap_or_else(|last| last);
        now.max(last + 1)
    }

    /// Asks until it is over, about `pause` between two requests.
    pub fn client(&self, seed: u64, pause: Duration) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut nodes: Vec<Client> = self.addresses.iter().map(|at| Client::new(at).within(self.limit)).collect();
        let mut shown: Vec<Vec<Etag>> = vec![vec![]; self.keys.len()];
        let mut process = self.processes.fetch_add(1, Ordering::SeqCst);
        while !self.over.load(Ordering::SeqCst) {
            std::thread::sleep(pause.mul_f64(rng.random_range(0.0..2.0)));
            let (at, node) = (rng.random_range(0..self.keys.len()), rng.random_range(0..nodes.len()));
            let key = &self.keys[at];
            if key.begun.fetch_add(1, Ordering::SeqCst) >= OPERATIONS_MAX {
                continue;
            }
            // Of a size that no sum of increments comes near.
            let own = (self.values.fetch_add(1, Ordering::SeqCst) + 1) * 100_000_000;
            let act = match key.mix.act(&mut rng, own, &shown[at]) {
                change if key.unknown.load(Ordering::SeqCst) < UNKNOWN_MAX => change,
                _ => key.mix.look(),
            };
            let operation = self.ask(process, node, &mut nodes[node], key, act);
            let told = operation.as_ref().and_then(|operation| match &operation.outcome {
                Outcome::Value(_, etag) | Outcome::Done(etag) | Outcome::Failed(etag) => etag.clone(),
                _ => None,
            });
            shown[at].extend(told);
            if operation.is_some_and(|operation| operation.outcome == Outcome::Unknown) {
                process = self.processes.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// Asks once, and keeps what is worth keeping. Nothing where it surely did nothing.
    pub fn ask(&self, process: usize, node: usize, client: &mut Client, key: &Shared, act: Act) -> Option<Operation> {
        let invoked = self.now();
        let request = self.request(&key.key, &act, self.modes[invoked as usize % self.modes.len()]);
        let answer = client.try_send(&request);
        let returned = self.now();
        let outcome = match self.outcome(&act, &answer) {
            Ok(outcome) => outcome,
            Err(complaint) => {
                self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{act:?}: {complaint}"));
                Some(Outcome::Unknown)
            }
        };
        let Some(outcome) = outcome else {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return None;
        };
        let returned = if outcome == Outcome::Unknown { OPEN } else { returned };
        if outcome == Outcome::Unknown && !act.only_looks() {
            key.unknown.fetch_add(1, Ordering::SeqCst);
        }
        let operation = Operation { process, node, act, outcome, invoked, returned };
        key.operations.lock().unwrap_or_else(PoisonError::into_inner).push(operation.clone());
        Some(operation)
    }

    fn request(&self, key: &str, act: &Act, mode: &str) -> Request {
        let value = format!("/kv/{key}?mode={mode}");
        let counter = format!("/counters/{key}?mode={mode}");
        // Whatever the mode of the others, which see what it did.
        let in_quorum = format!("/kv/{key}?mode=quorum");
        match act {
            Act::Read => Request::new("GET", value),
            Act::Count => Request::new("GET", counter),
            Act::Write(new) => Request::new("PUT", value).body(new.to_string()),
            Act::Delete => Request::new("DELETE", value),
            Act::Create(new) => Request::new("PUT", in_quorum).header("If-None-Match", "*").body(new.to_string()),
            Act::Replace(new, etag) => {
                Request::new("PUT", in_quorum).header("If-Match", etag.as_str()).body(new.to_string())
            }
            Act::DeleteIf(etag) => Request::new("DELETE", in_quorum).header("If-Match", etag.as_str()),
            Act::Add(by) => Request::new("POST", counter).json(&json!({"by": by})),
        }
    }

    /// What an answer means; nothing where the request surely did nothing, and what is wrong where it is none.
    fn outcome(&self, act: &Act, answer: &io::Result<Answer>) -> Result<Option<Outcome>, String> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(None),
            Err(_) => return Ok(Some(Outcome::Unknown)),
        };
        // Values of the AP modes may have siblings, and then an ETag of no one write.
        let etag = answer.header("ETag").filter(|_| self.is_cp).map(str::to_owned);
        let etagged = || match (&etag, self.is_cp) {
            (None, true) => Err(format!("no ETag in {answer}")),
            _ => Ok(etag.clone()),
        };
        let number = |text: &str| text.trim().parse::<i64>().map_err(|_| format!("no number in {answer}"));
        let status = match (answer.status, self.is_cp) {
            (202, false) => 200,
            (status, _) => status,
        };
        Ok(Some(match (act, status) {
            (_, 500..=599 | 408) => Outcome::Unknown,
            (Act::Read, 200) => Outcome::Value(number(&answer.text())?, etagged()?),
            (Act::Read, 404) => Outcome::Absent,
            (Act::Count | Act::Add(_), 200) => {
                let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                Outcome::Total(body["value"].as_i64().ok_or_else(|| format!("no value in {answer}"))?)
            }
            (Act::Write(_) | Act::Create(_) | Act::Replace(..), 200 | 201 | 204) => Outcome::Done(etagged()?),
            (Act::Delete | Act::DeleteIf(_), 200 | 204) => Outcome::Done(None),
            (Act::Create(_), 412) => Outcome::Failed(etagged()?),
            (Act::Replace(..) | Act::DeleteIf(_), 412) => Outcome::Failed(etag),
            _ => return Err(answer.to_string()),
        }))
    }
}
