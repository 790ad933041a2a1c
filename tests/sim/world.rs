//! The world: virtual time, one source of chance, and everything that happens in the order in which it does.

use super::agreed::Agreed;
use super::changes::{Changes, number_of};
use super::counters::Counters;
pub(crate) use super::event::{Event, Parcel};
use super::invariants;
use super::network::{Fate, Network};
use super::node::Node;
use super::options::Options;
use super::oracle::Oracle;
use super::plant::Plant;
use super::stories::Answers;
use super::workload::Client;
use kringle::antientropy::Report as Synced;
use kringle::operation::Event as Told;
use kringle::placement::{MemberIndex, Partition, Ring};
use kringle::record::{Actor, Ballot, Key};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

/// Faults stop after this much simulated time, in microseconds.
const FAULTS_UNTIL_US: u64 = 45_000_000;
/// More events than any run needs: a run that goes on and on is a bug.
const EVENTS_MAX: u64 = 800_000;

struct Scheduled {
    at: u64,
    sequence: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// The world.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) plant: Option<Plant>,
    pub(crate) rng: ChaCha8Rng,
    /// Microseconds since the morning.
    pub(crate) now: u64,
    /// Counts what happens, so that the order of two things is never in doubt.
    pub(crate) moment: u64,
    heap: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    exchanges: u64,
    /// Exchanges that met with nobody.
    pub(crate) refused: BTreeSet<u64>,
    /// Exchanges of which the request has arrived.
    pub(crate) brought: BTreeSet<u64>,
    trace: blake3::Hasher,
    /// Keep a digest of all that happens, which takes longer than to let it happen.
    pub(crate) tracing: bool,
    /// Print what happens.
    telling: bool,
    /// Of the latest layout that any node has gone by.
    pub(crate) ring: Arc<Ring>,
    pub(crate) changes: Changes,
    pub(crate) keys: Vec<Key>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) clients: Vec<Client>,
    pub(crate) agreed: Agreed,
    pub(crate) network: Network,
    pub(crate) oracle: Oracle,
    /// What each node has promised for a key.
    pub(crate) promised: BTreeMap<(usize, usize), invariants::Promised>,
    /// Whose ballots are whose.
    pub(crate) proposers: BTreeMap<Actor, usize>,
    /// What each node has accepted for a key.
    pub(crate) accepted: BTreeSet<(usize, usize, Ballot)>,
    pub(crate) counters: Counters,
    /// What clients were answered, where a story is told: by the number of the question.
    pub(crate) told: Option<Answers>,
    /// The latest time that an honest clock has shown, in milliseconds since 1970.
    pub(crate) latest_honest_ms: u64,
    /// The latest that any clock has shown.
    pub(crate) latest_shown_ms: u64,
    /// No more faults.
    pub(crate) quiet: bool,
    /// No sessions but those asked for.
    pub(crate) only_asked: bool,
    /// What became of those.
    pub(crate) asked: Vec<Synced>,
}

/// What a run came to.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Report {
    pub(crate) violations: Vec<String>,
    pub(crate) counters: Counters,
    pub(crate) events: u64,
    /// The digest of all that happened, in order, where that was traced.
    pub(crate) trace: String,
}

impl World {
    pub(crate) fn new(seed: u64, plant: Option<Plant>, telling: bool) -> World {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let options = Options::draw(&mut rng);
        World::with(options, rng, plant, telling)
    }

    pub(crate) fn with(options: Options, mut rng: ChaCha8Rng, plant: Option<Plant>, telling: bool) -> World {
        let nodes: Vec<Node> = (0..options.nodes + options.spares).map(|at| Node::new(at, rng.random())).collect();
        let (ring, changes) = Changes::begin(&options, &nodes);
        let keys = (0..options.keys + options.agreed)
            .map(|_| Key::new(format!("key {}", rng.random::<u32>())).expect("a short key"));
        let keys = keys.collect();
        let plain = (0..options.clients).map(|_| options.operations_each);
        let lefts = plain.chain((0..options.agreed_clients).map(|_| options.agreed_each));
        let clients = lefts.map(|left| Client { left, ..Client::default() }).collect();
        World {
            plant,
            now: 0,
            moment: 0,
            heap: BinaryHeap::new(),
            scheduled: 0,
            exchanges: 0,
            refused: BTreeSet::new(),
            brought: BTreeSet::new(),
            trace: blake3::Hasher::new(),
            tracing: false,
            telling,
            ring,
            changes,
            keys,
            nodes,
            clients,
            agreed: Agreed::default(),
            network: Network::default(),
            oracle: Oracle::default(),
            promised: BTreeMap::new(),
            proposers: BTreeMap::new(),
            accepted: BTreeSet::new(),
            counters: Counters::default(),
            told: None,
            latest_honest_ms: 0,
            latest_shown_ms: 0,
            quiet: false,
            only_asked: false,
            asked: Vec::new(),
            options,
            rng,
        }
    }

    /// Plays the whole run, and says what it came to.
    pub(crate) fn run(mut self) -> Report {
        for node in 0..self.nodes.len() {
            let Options { skew_ms, drift_ppm, .. } = self.options;
            self.nodes[node].clock.offset_us = 1_000 * self.rng.random_range(-skew_ms..=skew_ms);
            self.nodes[node].clock.drift_ppm = self.rng.random_range(-drift_ppm..=drift_ppm);
            self.start(node);
        }
        for client in 0..self.clients.len() {
            self.schedule(client as u64, Event::Client(client));
        }
        self.schedule_troubles();
        self.schedule_wishes();
        self.advance(|world| world.now >= FAULTS_UNTIL_US);
        self.end();
        Report {
            violations: self.oracle.violations,
            counters: self.counters,
            events: self.moment,
            trace: self.trace.finalize().to_hex().to_string(),
        }
    }

    /// Lets things happen until `until`, or a promise is broken.
    pub(crate) fn advance(&mut self, until: impl Fn(&World) -> bool) {
        while self.oracle.violations.is_empty() && !until(self) {
            let Some(Reverse(next)) = self.heap.pop() else { break };
            assert!(next.at >= self.now, "time goes backwards");
            self.now = next.at;
            self.moment += 1;
            assert!(self.moment < EVENTS_MAX, "a run without an end");
            self.happen(next);
        }
    }

    fn happen(&mut self, scheduled: Scheduled) {
        let Scheduled { at, event, .. } = scheduled;
        if let Some(node) = self.who(&event)
            && self.is_paused(node)
        {
            let after = self.nodes[node].paused_until - self.now;
            return self.schedule(after, event);
        }
        self.note(at, &event);
        match event {
            Event::Client(client) => self.client(client),
            Event::Flush { node, life, to, lane } if self.lives(node, life) => self.flush(node, to, lane),
            Event::Arrived { node, from, from_life, exchange, bytes, tags } => {
                self.arrived(node, (from, from_life, exchange), &bytes.0, tags);
            }
            Event::Replied { node, life, exchange, bytes } if self.lives(node, life) => {
                self.ended(node, exchange, Ok(&bytes.0));
            }
            Event::Broken { node, life, exchange, failure } if self.lives(node, life) => {
                self.ended(node, exchange, Err(failure));
            }
            Event::Committed { node, life } if self.lives(node, life) => self.committed(node),
            Event::Looked { node, life, address, partial, done } if self.lives(node, life) => {
                self.looked(node, &address, partial, done);
            }
            Event::Wake { node, life, id } if self.lives(node, life) => self.woken(node, id),
            Event::Deadline { node, life, id } if self.lives(node, life) => self.event(node, id, Told::Deadline),
            Event::Liveness { node, life, at } if self.lives(node, life) => self.liveness_due(node, at),
            Event::HandOver { node, life } if self.lives(node, life) => {
                self.hand_over(node);
                let after = self.options.ping_period_us + self.rng.random_range(0..100_000);
                self.schedule(after, Event::HandOver { node, life });
                invariants::queues_are_bounded(self, node);
            }
            Event::Housekeeping { node, life } if self.lives(node, life) => self.housekeeping(node),
            Event::Build { node, life } if self.lives(node, life) => self.build(node),
            Event::Greet { node, life, peer, at } if self.lives(node, life) => self.greet(node, peer, at),
            Event::Watch { node, life, at } if self.lives(node, life) => self.watch(node, at),
            Event::SyncRound { node, life } if self.lives(node, life) => self.sync_round(node),
            Event::Forget { node, life } if self.lives(node, life) => self.forget_round(node),
            Event::SyncReturned { node, life, peer } if self.lives(node, life) => self.sync_returned(node, peer),
            Event::Compare { node, life, request, done } if self.lives(node, life) => self.compare(node, request, done),
            Event::Learn { node, life, at } if self.lives(node, life) => self.learn(node, at),
            Event::Belong { node, life } if self.lives(node, life) => self.belong(node),
            Event::Steward { node, life } if self.lives(node, life) => self.steward(node),
            Event::StewardDecides { node, life, round } if self.lives(node, life) => self.steward_decides(node, round),
            Event::LetGo { node, life } if self.lives(node, life) => self.let_go(node),
            Event::Again { node, life, number } => self.try_request_again((node, life), number),
            Event::Wish(number) if !self.quiet => self.wish(number),
            Event::Restart { node } if self.nodes[node].up.is_none() => self.start(node),
            Event::Replug { node } if !self.quiet => self.crash_and_restart(node),
            Event::RoomAgain { node } => self.nodes[node].disk.fill(false),
            Event::ClockGoesOn { node } => {
                invariants::note_the_time(self);
                self.nodes[node].clock.stopped_at = None;
            }
            Event::Heal => self.network.heal(),
            Event::Trouble(trouble) if !self.quiet => self.trouble(trouble),
            // Meant for an earlier life of the node.
            _ => {}
        }
    }

    fn note(&mut self, at: u64, event: &Event) {
        if !self.tracing && !self.telling {
            return;
        }
        let line = format!("{at} {event:?}");
        self.trace.update(line.as_bytes());
        if let Event::Arrived { bytes, .. } | Event::Replied { bytes, .. } = event {
            self.trace.update(&bytes.0);
        }
        if self.telling {
            eprintln!("{line}");
        }
    }

    /// Which node an event waits for while that is paused.
    fn who(&self, event: &Event) -> Option<usize> {
        match event {
            Event::Flush { node, .. }
            | Event::Arrived { node, .. }
            | Event::Replied { node, .. }
            | Event::Broken { node, .. }
            | Event::Committed { node, .. }
            | Event::Looked { node, .. }
            | Event::Compare { node, .. }
            | Event::Build { node, .. }
            | Event::Greet { node, .. }
            | Event::Watch { node, .. }
            | Event::SyncRound { node, .. }
            | Event::Forget { node, .. }
            | Event::SyncReturned { node, .. }
            | Event::Learn { node, .. }
            | Event::Belong { node, .. }
            | Event::Steward { node, .. }
            | Event::StewardDecides { node, .. }
            | Event::LetGo { node, .. }
            | Event::Again { node, .. }
            | Event::Wake { node, .. }
            | Event::Deadline { node, .. }
            | Event::Liveness { node, .. }
            | Event::HandOver { node, .. }
            | Event::Housekeeping { node, .. } => Some(*node),
            _ => None,
        }
    }

    pub(crate) fn fate(&mut self, from: usize, to: usize) -> Fate {
        let fate = self.network.fate(&mut self.rng, &self.options, self.quiet, from, to);
        if matches!(fate, Fate::Jammed(_)) {
            self.counters.hit("messages jammed");
        }
        fate
    }

    pub(crate) fn schedule(&mut self, after: u64, event: Event) {
        self.scheduled += 1;
        self.heap.push(Reverse(Scheduled { at: self.now + after, sequence: self.scheduled, event }));
    }

    pub(crate) fn next_exchange(&mut self) -> u64 {
        self.exchanges += 1;
        self.exchanges
    }

    pub(crate) fn lives(&self, node: usize, life: u32) -> bool {
        self.nodes[node].up.is_some() && self.nodes[node].life == life
    }

    pub(crate) fn is_paused(&self, node: usize) -> bool {
        self.nodes[node].up.is_some() && self.nodes[node].paused_until > self.now
    }

    pub(crate) fn partition(&self, key: usize) -> Partition {
        Partition::of(self.keys[key].position())
    }

    /// The owners of a key, by the latest layout.
    pub(crate) fn owners(&self, key: usize) -> Vec<usize> {
        self.nodes_of(&self.ring, self.ring.owners(self.partition(key)))
    }

    /// The nodes that these members of a ring are.
    pub(crate) fn nodes_of(&self, ring: &Ring, members: &[MemberIndex]) -> Vec<usize> {
        members.iter().map(|member| number_of(&ring.member(*member).name)).collect()
    }

    /// The members of the latest layout.
    pub(crate) fn members(&self) -> Vec<usize> {
        self.nodes_of(&self.ring, &self.ring.members().collect::<Vec<_>>())
    }

    pub(crate) fn shuffle<T>(&mut self, order: &mut [T]) {
        order.shuffle(&mut self.rng);
    }
}
