//! Clients of all nodes: each reads, writes and deletes a few keys, blindly or with the context of what it last saw, and
//! remembers what it was told.
//!
//! What is done to a key depends on its kind, for a blind write may cover anything and so hides what else happened.

use super::history::{Fate, Moment, Read, Saw, Write};
use super::support::cluster::Cluster;
use super::support::http::{Answer, Client, Request};
use super::support::{eventually, replicas};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How many there are.
const CLIENTS: usize = 6;

/// How many keys are deleted and left alone.
const GONE: usize = 5;

/// Somewhat longer than a node's deadline.
const REQUEST_LIMIT: Duration = Duration::from_millis(1_500);

/// The longest rest between two requests of one client: the nodes need the processors too.
const REST_MAX: Duration = Duration::from_millis(12);

/// How long the clients may take to get on while nodes are frozen or down.
const SOON: Duration = Duration::from_secs(60);

/// How a key is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// With contexts only.
    Seen,
    /// Blindly only.
    Blind,
    /// Both.
    Mixed,
    /// Not by clients: written to begin with, and deleted once an old copy of a disk has it.
    Gone,
}

/// A key, and who writes it.
#[derive(Clone, Debug)]
pub struct Key {
    pub name: String,
    pub kind: Kind,
    /// The only client that does; all of them if there is none.
    pub owner: Option<usize>,
}

impl Key {
    fn is_written_by(&self, client: usize) -> bool {
        self.kind != Kind::Gone && self.owner.is_none_or(|owner| owner == client)
    }
}

/// The keys of a history.
pub fn keys() -> Vec<Key> {
    let shared = [("seen0", Kind::Seen), ("seen1", Kind::Seen), ("mixed", Kind::Mixed), ("blind", Kind::Blind)];
    let shared = shared.map(|(name, kind)| Key { name: name.into(), kind, owner: None });
    let own = (0..CLIENTS).map(|number| Key { name: format!("own{number}"), kind: Kind::Blind, owner: Some(number) });
    let gone = (0..GONE).map(|number| Key { name: format!("gone{number}"), kind: Kind::Gone, owner: None });
    shared.into_iter().chain(own).chain(gone).collect()
}

/// What a client knows of a key.
#[derive(Clone, Debug)]
struct Known {
    token: String,
    shown: BTreeSet<String>,
    own: Option<String>,
    since: Moment,
}

/// What they did.
#[derive(Default, Debug)]
pub struct Deeds {
    pub writes: Vec<Write>,
    pub reads: Vec<Read>,
}

/// What the clients and whoever makes trouble have in common.
#[derive(Debug)]
struct Shared {
    began: Instant,
    stop: AtomicBool,
    steps: AtomicU64,
    /// Held by each request while it is under way.
    gate: RwLock<()>,
}

/// They ask until they are told to finish, or dropped.
#[derive(Debug)]
pub struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Deeds>>,
    /// What was done to begin with.
    first: Vec<Write>,
}

impl Clients {
    /// Writes each key once, so that there is something to be seen, and then begins.
    #[track_caller]
    pub fn start(cluster: &Cluster, keys: &[Key], rng: &mut ChaCha8Rng) -> Clients {
        let shared = Arc::new(Shared {
            began: Instant::now(),
            stop: AtomicBool::new(false),
            steps: AtomicU64::new(0),
            gate: RwLock::new(()),
        });
        let mut walker = |number: usize| Walker {
            number,
            count: 0,
            nodes: cluster.nodes.iter().map(|node| node.client().within(REQUEST_LIMIT)).collect(),
            keys: keys.iter().filter(|key| key.is_written_by(number)).cloned().collect(),
            known: BTreeMap::new(),
            last: 0,
            deeds: Deeds::default(),
            shared: shared.clone(),
            rng: ChaCha8Rng::seed_from_u64(rng.random()),
        };
        let start = |walker: Walker| std::thread::spawn(move || walker.walk());
        let first = keys.iter().map(|key| shared.replace(cluster, 0, key, "first on", false)).collect();
        let threads = (0..CLIENTS).map(|number| start(walker(number))).collect();
        Clients { shared, threads, first }
    }

    /// A blind write or delete of `key` through this node, which has to answer.
    #[track_caller]
    pub fn replace(&self, cluster: &Cluster, node: usize, key: &Key, name: &str, deletes: bool) -> Write {
        self.shared.replace(cluster, node, key, name, deletes)
    }

    pub fn now(&self) -> Moment {
        self.shared.now()
    }

    /// Waits until they have done so much more, together.
    #[track_caller]
    pub fn await_more(&self, steps: u64) {
        let goal = self.shared.steps.load(Ordering::Relaxed) + steps;
        eventually("the clients get on", SOON, || match self.shared.steps.load(Ordering::Relaxed) {
            done if done >= goal => Ok(()),
            done => Err(format!("{done} of {goal} steps")),
        });
    }

    /// Waits until no request is under way. None is begun while the guard lives.
    pub fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.shared.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever is held back begins nothing any more.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Ends them. What they did, in no order.
    #[track_caller]
    pub fn finish(&mut self) -> Deeds {
        self.stop();
        let mut all = Deeds { writes: std::mem::take(&mut self.first), reads: vec![] };
        for thread in std::mem::take(&mut self.threads) {
            let deeds = thread.join().expect("a client");
            all.writes.extend(deeds.writes);
            all.reads.extend(deeds.reads);
        }
        all
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn now(&self) -> Moment {
        self.began.elapsed().as_micros() as Moment
    }

    #[track_caller]
    fn replace(&self, cluster: &Cluster, node: usize, key: &Key, name: &str, deletes: bool) -> Write {
        let name = format!("{name} {}", key.name);
        let target = format!("/kv/{}", key.name);
        let request = match deletes {
            true => Request::new("DELETE", target),
            false => Request::new("PUT", target).body(name.as_str()),
        };
        let begun = self.now();
        let answer = cluster.client(node).send(&request);
        let (key, saw, said, fate, told) = (key.name.clone(), Saw::Blind, said(&answer), fate(&answer), self.now());
        Write { key, name, deletes, saw, needed: 2, covers: true, begun, told, fate, node, said }
    }
}

/// One client.
struct Walker {
    number: usize,
    count: usize,
    nodes: Vec<Client>,
    keys: Vec<Key>,
    known: BTreeMap<String, Known>,
    /// The node that it asked last.
    last: usize,
    deeds: Deeds,
    shared: Arc<Shared>,
    rng: ChaCha8Rng,
}

impl Walker {
    fn walk(mut self) -> Deeds {
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.step();
            self.shared.steps.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(REST_MAX.mul_f64(self.rng.random()));
        }
        self.deeds
    }

    fn step(&mut self) {
        let shared = self.shared.clone();
        let _under_way = shared.gate.read().unwrap_or_else(PoisonError::into_inner);
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let key = self.keys.choose(&mut self.rng).expect("a key").clone();
        let knows = self.known.contains_key(&key.name);
        let (reads, blind) = match key.kind {
            Kind::Seen => (if knows { 0.4 } else { 1.0 }, 0.0),
            Kind::Blind => (0.2, 1.0),
            Kind::Mixed => (0.3, if knows { 0.3 } else { 1.0 }),
            Kind::Gone => return,
        };
        match self.rng.random_bool(reads) {
            true => self.read(&key.name),
            false => {
                let blind = self.rng.random_bool(blind);
                self.write(&key.name, blind);
            }
        }
    }

    /// Asks the node it asked last, or another; another if that did not answer.
    fn ask(&mut self, request: &Request) -> (usize, std::io::Result<Answer>) {
        if self.rng.random_bool(0.4) {
            self.last = self.rng.random_range(0..self.nodes.len());
        }
        let node = self.last;
        let answer = self.nodes[node].try_send(request);
        if answer.is_err() {
            self.last = (node + 1) % self.nodes.len();
        }
        (node, answer)
    }

    fn write(&mut self, key: &str, blind: bool) {
        let (query, needed) = match self.rng.random_range(0..12) {
            0 => ("?w=1", 1),
            1 => ("?w=2", 2),
            2 => ("?w=3", 3),
            3 | 4 => ("?mode=async", 1),
            _ => ("", 2),
        };
        let deletes = self.rng.random_bool(0.2);
        let name = format!("{}{}-{}", if deletes { "x" } else { "v" }, self.number, self.count);
        self.count += 1;
        let target = format!("/kv/{key}{query}");
        let mut request = match deletes {
            true => Request::new("DELETE", target),
            false => Request::new("PUT", target).body(name.as_str()),
        };
        let known = self.known.get(key).filter(|_| !blind).cloned();
        let saw = match &known {
            None => Saw::Blind,
            Some(Known { token, shown, own, since }) => {
                request = request.header("Kringle-Context", token);
                Saw::Only { shown: shown.clone(), own: own.clone(), since: *since }
            }
        };
        let begun = self.shared.now();
        let (node, answer) = self.ask(&request);
        let told = self.shared.now();
        let (fate, said) = match &answer {
            Ok(answer) => (fate(answer), format!("{} for {query:?}", said(answer))),
            // Nobody listened.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => (Fate::Failed, error.to_string()),
            Err(error) => (Fate::Unknown, format!("{error} for {query:?}")),
        };
        if let (Ok(answer), Fate::Acknowledged { .. }) = (&answer, fate) {
            let (shown, since) = known.map_or((BTreeSet::new(), begun), |known| (known.shown, known.since));
            let own = (!deletes).then(|| name.clone());
            let token = answer.must("Kringle-Context").to_owned();
            self.known.insert(key.to_owned(), Known { token, shown, own, since });
        }
        let covers = !query.contains("async");
        self.deeds.writes.push(Write {
            key: key.to_owned(),
            name,
            deletes,
            saw,
            needed,
            covers,
            begun,
            told,
            fate,
            node,
            said,
        });
    }

    fn read(&mut self, key: &str) {
        let query = ["", "", "&r=1", "&r=2", "&mode=async"].choose(&mut self.rng).expect("a query");
        let mut request = Request::new("GET", format!("/kv/{key}?siblings=1{query}"));
        if let Some(known) = self.known.get(key).filter(|_| self.rng.random_bool(0.5)) {
            request = request.header("Kringle-Context", &known.token);
        }
        let since = self.shared.now();
        let (node, answer) = self.ask(&request);
        let Ok(answer) = answer else { return };
        let shown = match answer.status {
            200 => values(&answer),
            404 => BTreeSet::new(),
            503 => return,
            _ => panic!("a read of {key}: {answer}"),
        };
        match answer.header("Kringle-Context") {
            Some(token) => {
                let known = Known { token: token.to_owned(), shown: shown.clone(), own: None, since };
                self.known.insert(key.to_owned(), known);
            }
            None => drop(self.known.remove(key)),
        }
        let said = format!("{} for {query:?} by node {node}", answer.status);
        self.deeds.reads.push(Read { key: key.to_owned(), shown, told: self.shared.now(), said });
    }
}

/// The values that `?siblings=1` lists.
#[track_caller]
pub fn values(answer: &Answer) -> BTreeSet<String> {
    let listed = answer.json();
    let siblings = listed["siblings"].as_array().unwrap_or_else(|| panic!("no siblings in {answer}"));
    siblings.iter().map(|sibling| sibling["value"].as_str().expect("text").to_owned()).collect()
}

/// What the answer to a write promises.
#[track_caller]
pub fn fate(answer: &Answer) -> Fate {
    match answer.status {
        200 | 201 | 202 | 204 => {
            Fate::Acknowledged { owners: replicas(answer)["acked"] as usize, full: answer.status != 202 }
        }
        409 => Fate::Failed,
        503 => Fate::Unknown,
        _ => panic!("a write: {answer}"),
    }
}

fn said(answer: &Answer) -> String {
    format!("{} ({})", answer.status, answer.header("Kringle-Replicas").unwrap_or("no replicas"))
}
