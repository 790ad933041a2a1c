//! The world: virtual time, one source of chance, and everything that happens in the order in which it does.

use super::counters::Counters;
use super::invariants::{self, Copies};
use super::node::{Done, Machine, Node};
use crate::network::{Fate, Network};
use crate::options::{Options, about};
use crate::oracle::Oracle;
use crate::plant::Plant;
use crate::workload::{Client, Purpose};
use bytes::Bytes;
use kringle::coordinator::{Get, GetOptions, Quorum};
use kringle::operation::{Event as Told, Failure};
use kringle::placement::{ClusterId, Layout, Member, Mode, Partition, Ring};
use kringle::protocol::Lane;
use kringle::record::Key;
use kringle::storage::Address;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// When the simulated day begins, in milliseconds since 1970: late enough that a clock may step back.
const MORNING_MS: u64 = 1_700_000_000_000;
/// Faults stop after this much simulated time, in microseconds, whether the clients are through or not.
const FAULTS_UNTIL_US: u64 = 20_000_000;
/// More events than any run needs: a run that goes on and on is a bug.
const EVENTS_MAX: u64 = 400_000;

/// What can happen.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Client(usize),
    Flush {
        node: usize,
        life: u32,
        to: usize,
        lane: Lane,
    },
    Arrived {
        node: usize,
        from: usize,
        from_life: u32,
        exchange: u64,
        bytes: Bytes,
        tags: Vec<Option<usize>>,
    },
    Replied {
        node: usize,
        life: u32,
        exchange: u64,
        bytes: Bytes,
    },
    Broken {
        node: usize,
        life: u32,
        exchange: u64,
        failure: Failure,
    },
    Committed {
        node: usize,
        life: u32,
    },
    Looked {
        node: usize,
        life: u32,
        address: Address,
        done: Done,
    },
    Wake {
        node: usize,
        life: u32,
        id: u64,
    },
    Deadline {
        node: usize,
        life: u32,
        id: u64,
    },
    /// The time at which the liveness has something to do, as it said then.
    Liveness {
        node: usize,
        life: u32,
        at: u64,
    },
    HandOver {
        node: usize,
        life: u32,
    },
    Housekeeping {
        node: usize,
        life: u32,
    },
    Restart {
        node: usize,
    },
    Replug {
        node: usize,
    },
    RoomAgain {
        node: usize,
    },
    Heal,
    Trouble(Trouble),
}

/// What goes wrong now and then.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Trouble {
    Cut,
    Crash,
    Pause,
    FullDisk,
    SyncFailure,
    ClockStep,
}

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
    trace: blake3::Hasher,
    /// Print what happens.
    telling: bool,
    pub(crate) ring: Arc<Ring>,
    pub(crate) keys: Vec<Key>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) clients: Vec<Client>,
    network: Network,
    pub(crate) oracle: Oracle,
    pub(crate) counters: Counters,
    /// No more faults.
    pub(crate) quiet: bool,
}

/// What a run came to.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Report {
    pub(crate) violations: Vec<String>,
    pub(crate) counters: Counters,
    pub(crate) events: u64,
    /// The digest of all that happened, in order.
    pub(crate) trace: String,
}

impl World {
    pub(crate) fn new(seed: u64, plant: Option<Plant>, telling: bool) -> World {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let options = Options::draw(&mut rng);
        World::with(options, rng, plant, telling)
    }

    fn with(options: Options, mut rng: ChaCha8Rng, plant: Option<Plant>, telling: bool) -> World {
        let names: Vec<String> = (0..options.nodes).map(|node| format!("http://n{node}:8001")).collect();
        let members = names.iter().map(Member::new).collect();
        let layout = Layout::provisional(ClusterId::named("sim"), options.replicas, Mode::Sloppy, members);
        let nodes = names.into_iter().enumerate();
        let nodes = nodes.map(|(index, name)| Node::new(index, name, rng.random())).collect();
        let keys = (0..options.keys).map(|_| Key::new(format!("key {}", rng.random::<u32>())).expect("a short key"));
        let keys = keys.collect();
        let left = options.operations_each;
        World {
            plant,
            now: 0,
            moment: 0,
            heap: BinaryHeap::new(),
            scheduled: 0,
            exchanges: 0,
            trace: blake3::Hasher::new(),
            telling,
            ring: Arc::new(Ring::new(layout.expect("a layout of a few nodes"))),
            keys,
            nodes,
            clients: (0..options.clients).map(|_| Client { left, ..Client::default() }).collect(),
            network: Network::default(),
            oracle: Oracle::default(),
            counters: Counters::default(),
            quiet: false,
            options,
            rng,
        }
    }

    /// Plays the whole run, and says what it came to.
    pub(crate) fn run(mut self) -> Report {
        for node in 0..self.nodes.len() {
            let Options { skew_ms, drift_ppm, .. } = self.options;
            self.nodes[node].clock_offset_us = 1_000 * self.rng.random_range(-skew_ms..=skew_ms);
            self.nodes[node].clock_drift_ppm = self.rng.random_range(-drift_ppm..=drift_ppm);
            self.start(node);
        }
        for client in 0..self.clients.len() {
            self.schedule(client as u64, Event::Client(client));
        }
        let o = &self.options;
        for (trouble, every_ms) in [
            (Trouble::Cut, o.cut_every_ms),
            (Trouble::Crash, o.crash_every_ms),
            (Trouble::Pause, o.pause_every_ms),
            (Trouble::FullDisk, o.full_disk_every_ms),
            (Trouble::SyncFailure, o.sync_failure_every_ms),
            (Trouble::ClockStep, o.clock_step_every_ms),
        ] {
            if every_ms > 0 {
                let after = about(&mut self.rng, 1_000 * every_ms);
                self.schedule(after, Event::Trouble(trouble));
            }
        }
        self.advance(|world| world.now >= FAULTS_UNTIL_US || world.clients.iter().all(|c| c.left == 0 && !c.busy));
        self.calm_down();
        self.last_looks();
        if self.oracle.violations.is_empty() {
            self.look_at_the_disks();
        }
        Report {
            violations: self.oracle.violations,
            counters: self.counters,
            events: self.moment,
            trace: self.trace.finalize().to_hex().to_string(),
        }
    }

    /// Lets things happen until `until`, or a promise is broken.
    fn advance(&mut self, until: impl Fn(&World) -> bool) {
        while self.oracle.violations.is_empty() && !until(self) {
            let Some(Reverse(next)) = self.heap.pop() else { break };
            assert!(next.at >= self.now, "time goes backwards");
            self.now = next.at;
            self.moment += 1;
            assert!(self.moment < EVENTS_MAX, "a run without an end");
            self.happen(next);
        }
    }

    /// Faults stop, everyone comes back, and there is time for everything to be settled.
    fn calm_down(&mut self) {
        self.quiet = true;
        self.network.heal();
        for node in 0..self.nodes.len() {
            self.nodes[node].paused_until = 0;
            self.nodes[node].clock_drift_ppm = 0;
            self.crash(node);
        }
        let fastest = self.nodes.iter().map(|node| node.clock_offset_us).max().unwrap_or(0);
        for node in 0..self.nodes.len() {
            self.nodes[node].clock_offset_us = fastest;
            self.start(node);
        }
        self.clients.iter_mut().for_each(|client| client.left = 0);
        // Two rounds of pings and hand-overs, and the longest an operation may live.
        let settled = self.now + 6_000_000 + 4_000 * self.options.timeout_ms;
        self.advance(|world| world.now >= settled);
    }

    fn last_looks(&mut self) {
        for key in 0..self.keys.len() {
            let node = self.rng.random_range(0..self.nodes.len());
            let (ring, me) = (self.ring.clone(), self.nodes[node].me);
            let avoid = self.avoid(node);
            let options =
                GetOptions { quorum: Quorum::one(), hard: false, all: true, hedge_ms: 5, patience_ms: 100, avoid };
            let get = Get::new(self.keys[key].clone(), ring, me, options);
            self.start_operation(node, Machine::Get(Box::new(get)), Purpose::LastLook { key }, None);
        }
        let settled = self.now + 2_000 * self.options.timeout_ms;
        self.advance(|world| world.now >= settled);
        invariants::at_rest_nothing_is_left(self);
    }

    /// Restarts everyone once more, and judges what the disks hold.
    fn look_at_the_disks(&mut self) {
        for node in 0..self.nodes.len() {
            self.crash(node);
            self.start(node);
        }
        let keys = 0..self.keys.len();
        let copies: Vec<Copies> = keys
            .map(|key| {
                let owners = self.owners(key).into_iter().map(|node| self.row(node, key)).collect();
                Copies { key, owners }
            })
            .collect();
        invariants::check_the_end(self, &copies);
    }

    fn happen(&mut self, scheduled: Scheduled) {
        let Scheduled { at, event, .. } = scheduled;
        if let Some(node) = self.who(&event)
            && self.is_paused(node)
        {
            let after = self.nodes[node].paused_until - self.now;
            return self.schedule(after, event);
        }
        let line = format!("{at} {event:?}");
        self.trace.update(line.as_bytes());
        if self.telling {
            eprintln!("{line}");
        }
        match event {
            Event::Client(client) => self.client(client),
            Event::Flush { node, life, to, lane } if self.lives(node, life) => self.flush(node, to, lane),
            Event::Arrived { node, from, from_life, exchange, bytes, tags } => {
                self.arrived(node, (from, from_life, exchange), &bytes, tags);
            }
            Event::Replied { node, life, exchange, bytes } if self.lives(node, life) => {
                self.ended(node, exchange, Ok(&bytes));
            }
            Event::Broken { node, life, exchange, failure } if self.lives(node, life) => {
                self.ended(node, exchange, Err(failure));
            }
            Event::Committed { node, life } if self.lives(node, life) => self.committed(node),
            Event::Looked { node, life, address, done } if self.lives(node, life) => self.looked(node, &address, done),
            Event::Wake { node, life, id } if self.lives(node, life) => self.woken(node, id),
            Event::Deadline { node, life, id } if self.lives(node, life) => self.event(node, id, Told::Deadline),
            Event::Liveness { node, life, at } if self.lives(node, life) => self.liveness_due(node, at),
            Event::HandOver { node, life } if self.lives(node, life) => {
                self.hand_over(node);
                let after = super::node::PING_PERIOD_US + self.rng.random_range(0..100_000);
                self.schedule(after, Event::HandOver { node, life });
                invariants::queues_are_bounded(self, node);
            }
            Event::Housekeeping { node, life } if self.lives(node, life) => self.housekeeping(node),
            Event::Restart { node } if self.nodes[node].up.is_none() => self.start(node),
            Event::Replug { node } if !self.quiet => self.crash_and_restart(node),
            Event::RoomAgain { node } => self.nodes[node].disk.fill(false),
            Event::Heal => self.network.heal(),
            Event::Trouble(trouble) if !self.quiet => self.trouble(trouble),
            // Meant for an earlier life of the node.
            _ => {}
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
            | Event::Wake { node, .. }
            | Event::Deadline { node, .. }
            | Event::Liveness { node, .. }
            | Event::HandOver { node, .. }
            | Event::Housekeeping { node, .. } => Some(*node),
            _ => None,
        }
    }

    fn trouble(&mut self, trouble: Trouble) {
        let node = self.rng.random_range(0..self.nodes.len());
        let every_ms = match trouble {
            Trouble::Cut => {
                self.cut();
                let after = self.rng.random_range(100_000..4_000_000);
                self.schedule(after, Event::Heal);
                self.options.cut_every_ms
            }
            Trouble::Crash => {
                // Mostly one, sometimes all: a power cut of the room.
                let all = self.rng.random_ratio(1, 6);
                for node in (0..self.nodes.len()).filter(|&other| all || other == node) {
                    self.crash_and_restart(node);
                }
                self.options.crash_every_ms
            }
            Trouble::Pause => {
                self.counters.hit("pause");
                self.nodes[node].paused_until = self.now + self.rng.random_range(10_000..3_000_000);
                self.options.pause_every_ms
            }
            Trouble::FullDisk => {
                self.counters.hit("full disk");
                self.nodes[node].disk.fill(true);
                let after = self.rng.random_range(100_000..3_000_000);
                self.schedule(after, Event::RoomAgain { node });
                self.options.full_disk_every_ms
            }
            Trouble::SyncFailure => {
                if self.nodes[node].up.is_some() {
                    self.counters.hit("sync failed");
                    self.nodes[node].disk.fail_syncs();
                    // An operator restarts it some time later; the disk has been seen to.
                    let after = self.rng.random_range(500_000..3_000_000);
                    self.schedule(after, Event::Replug { node });
                }
                self.options.sync_failure_every_ms
            }
            Trouble::ClockStep => {
                self.counters.hit("clock stepped");
                self.nodes[node].clock_offset_us = 1_000 * self.rng.random_range(-20_000..=20_000);
                self.options.clock_step_every_ms
            }
        };
        if every_ms > 0 {
            let after = about(&mut self.rng, 1_000 * every_ms).max(10_000);
            self.schedule(after, Event::Trouble(trouble));
        }
    }

    fn crash_and_restart(&mut self, node: usize) {
        if self.nodes[node].up.is_some() {
            self.crash(node);
            let after = *super::options::pick(&mut self.rng, &[1_000, 100_000, 1_000_000, 5_000_000]);
            self.schedule(after, Event::Restart { node });
        }
    }

    fn cut(&mut self) {
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        self.shuffle(&mut order);
        if self.rng.random() {
            self.counters.hit("one-way cut");
            if let [from, to, ..] = order[..] {
                self.network.cut(from, to);
            }
        } else {
            self.counters.hit("partition");
            let (left, right) = order.split_at(self.rng.random_range(0..order.len()));
            for (&one, &other) in left.iter().flat_map(|one| right.iter().map(move |other| (one, other))) {
                self.network.cut(one, other);
                self.network.cut(other, one);
            }
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

    fn lives(&self, node: usize, life: u32) -> bool {
        self.nodes[node].up.is_some() && self.nodes[node].life == life
    }

    pub(crate) fn is_paused(&self, node: usize) -> bool {
        self.nodes[node].up.is_some() && self.nodes[node].paused_until > self.now
    }

    /// What a node's clock shows.
    pub(crate) fn wall_ms(&self, node: usize) -> u64 {
        let Node { clock_offset_us, clock_drift_ppm, .. } = self.nodes[node];
        let now = self.now as i64;
        MORNING_MS.saturating_add_signed((now + clock_offset_us + now / 1_000_000 * clock_drift_ppm) / 1_000)
    }

    pub(crate) fn partition(&self, key: usize) -> Partition {
        Partition::of(self.keys[key].position())
    }

    pub(crate) fn owners(&self, key: usize) -> Vec<usize> {
        self.ring.owners(self.partition(key)).iter().map(|member| member.index()).collect()
    }

    pub(crate) fn shuffle(&mut self, order: &mut [usize]) {
        order.shuffle(&mut self.rng);
    }
}
