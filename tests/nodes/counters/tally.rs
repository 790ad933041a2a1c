//! Clients that add to one counter and remember what they were told.

use super::support::cluster::Cluster;
use super::support::eventually;
use super::support::http::{Answer, Client};
use super::support::node::Node;
use super::{SOON, counter, increment, read, value};
use serde_json::Value;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What clients know of the increments they asked for.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    pub acknowledged: i64,
    /// They may have been counted or not.
    pub unknown: i64,
}

impl Tally {
    #[track_caller]
    pub fn take(&mut self, by: i64, outcome: &io::Result<Answer>) {
        match outcome.as_ref().map(|answer| answer.status) {
            Ok(200 | 202) => self.acknowledged += by,
            Ok(503) | Err(_) => self.unknown += by,
            Ok(_) => panic!("an increment is neither counted nor unknown: {outcome:?}"),
        }
    }

    /// All owners come to show the same, which is what was acknowledged and perhaps some of the unknown.
    #[track_caller]
    pub fn assert_shown(self, cluster: &Cluster, key: &str) {
        let owners = cluster.owners(key);
        let shown = eventually("all owners agree and nothing is on its way", SOON, || {
            let held: Vec<i64> = owners
                .iter()
                .map(|owner| value(&cluster.client(*owner).get(&format!("{}?local=1", counter(key))).expect(200)))
                .collect();
            let hints: Vec<Value> =
                (0..cluster.nodes.len()).map(|index| hints(&cluster.client(index).get("/status").json())).collect();
            // What hung on its way may come late, to all that have agreed by then: whoever reads must agree as well.
            let read: Vec<i64> = (0..cluster.nodes.len()).map(|index| read(&mut cluster.client(index), key)).collect();
            let settled =
                held.iter().chain(&read).all(|shown| *shown == held[0]) && hints.iter().all(|count| *count == 0);
            // Too few may be more in a moment; too many stay too many.
            (settled && held[0] >= self.acknowledged)
                .then_some(held[0])
                .ok_or(format!("{held:?}, {read:?} through all, {hints:?} hints left, {self:?}"))
        });
        assert!(shown <= self.acknowledged + self.unknown, "{key} shows {shown} after {self:?}");
    }
}

fn hints(status: &Value) -> Value {
    status["hints"]["count"].clone()
}

/// Clients that add 1 as fast as they go, each increment through the next node, as many as they are allowed.
pub struct Clients {
    pace: Arc<Pace>,
    threads: Vec<JoinHandle<Tally>>,
}

#[derive(Default)]
struct Pace {
    /// Increments that may be begun.
    allowed: AtomicU64,
    /// Increments begun.
    begun: AtomicU64,
    /// Increments that were answered, or never will be.
    ended: AtomicU64,
    /// No more will be allowed.
    over: AtomicBool,
}

impl Clients {
    pub fn start(count: usize, cluster: &Cluster, key: &'static str) -> Clients {
        let pace = Arc::new(Pace::default());
        let addresses: Vec<String> = cluster.nodes.iter().map(Node::address).collect();
        let begin = |number: usize| {
            let limit = Duration::from_secs(5);
            let mut nodes: Vec<Client> = addresses.iter().map(|address| Client::new(address).within(limit)).collect();
            nodes.rotate_left(number % addresses.len());
            let pace = pace.clone();
            std::thread::spawn(move || pace.count(&mut nodes, key))
        };
        Clients { threads: (0..count).map(begin).collect(), pace }
    }

    /// Allows so many more, and waits until all that were allowed before and `awaited` of these have ended.
    #[track_caller]
    pub fn allow(&self, more: u64, awaited: u64) {
        let before = self.pace.allowed.fetch_add(more, Ordering::SeqCst);
        eventually("the clients get on", SOON, || {
            assert!(!self.threads.iter().any(JoinHandle::is_finished), "a client gave up");
            let ended = self.pace.ended.load(Ordering::SeqCst);
            (ended >= before + awaited).then_some(()).ok_or(format!("{ended} of {} increments", before + awaited))
        });
    }

    /// Lets them end what they were allowed, and tells what came of it all.
    pub fn finish(self) -> Tally {
        self.pace.over.store(true, Ordering::SeqCst);
        self.threads.into_iter().map(|thread| thread.join().expect("a client")).fold(Tally::default(), |sum, tally| {
            Tally { acknowledged: sum.acknowledged + tally.acknowledged, unknown: sum.unknown + tally.unknown }
        })
    }
}

impl Pace {
    fn count(&self, nodes: &mut [Client], key: &str) -> Tally {
        let (mut tally, mut turn) = (Tally::default(), 0);
        while self.may_begin() {
            loop {
                let at = turn % nodes.len();
                turn += 1;
                let outcome = nodes[at].try_send(&increment(key, 1));
                // Nobody has taken it: another is asked.
                if !outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
                    tally.take(1, &outcome);
                    break;
                }
            }
            self.ended.fetch_add(1, Ordering::SeqCst);
        }
        tally
    }

    /// Waits for leave to begin another. None is given any more: false.
    fn may_begin(&self) -> bool {
        let number = self.begun.fetch_add(1, Ordering::SeqCst);
        eventually("the test goes on", 2 * SOON, || match self.allowed.load(Ordering::SeqCst) {
            allowed if number < allowed => Ok(true),
            _ if self.over.load(Ordering::SeqCst) => Ok(false),
            allowed => Err(format!("{allowed} are allowed")),
        })
    }
}
