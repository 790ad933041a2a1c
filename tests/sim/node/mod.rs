//! A node between the production parts: the synchronous twin of `src/node`. What lasts, what a crash takes, and how it
//! starts and stops; what it does in between is in the files below.

mod answering;
mod committing;
mod filling;
mod forgetting;
mod greeting;
mod handing_over;
mod housekeeping;
mod layouts;
mod letting_go;
mod link;
mod mending;
mod operations;
mod pinging;
mod proposing;
mod steward;
mod syncing;
mod telling;

pub(crate) use answering::{Done, Gathering};
pub(crate) use committing::Submission;
use housekeeping::HOUSEKEEPING_PERIOD_US;
pub(crate) use letting_go::Given;
pub(crate) use link::Link;
use mending::Mending;
pub(crate) use operations::{Machine, Running};
use pinging::Route;
use proposing::Proposing;
pub(crate) use proposing::Turn;
pub(crate) use steward::Then;
pub(crate) use syncing::Reason;

use crate::changes::name_of;
use crate::clocks::WallClock;
use crate::disk::Disk;
use crate::invariants;
use crate::losing::Loss;
use crate::network::Fate;
use crate::options::about;
use crate::plant::Plant;
use crate::rotting::Part;
use crate::world::{Event, World};
use bytes::Bytes;
use filling::Completeness;
use greeting::Greeter;
use handing_over::Pass;
use kringle::antientropy::Schedule;
use kringle::coordinator::Replay;
use kringle::membership::{Clocks, Lack, Liveness, State, View};
use kringle::merkle::Forest;
use kringle::operation::Failure;
use kringle::placement::{MemberIndex, NodeId, Partition, Ring};
use kringle::record::{Actor, Clock, Dot, Record, Row, Stamp};
use kringle::storage::{
    Address, Committer, ContextLedger, Feed, Hint, HintLedger, LogStore, Peek, Rebuild, Said, Store,
};
use layouts::{Errand, Layouts};
use link::Exchange;
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A node: what lasts.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) disk: Disk,
    pub(crate) clock: WallClock,
    /// Counts starts, so that whatever was meant for an earlier life is not taken by a later one.
    pub(crate) life: u32,
    pub(crate) paused_until: u64,
    /// Whether its store says that it was filled.
    pub(crate) filled: bool,
    /// When it started, in moments.
    pub(crate) began: u64,
    /// When it started with less than it once had, until it was filled.
    pub(crate) emptied: Option<u64>,
    /// What its disk lost before it started.
    pub(crate) loss: Option<Loss>,
    actor: Actor,
    /// Whether it is to become a member of the cluster.
    pub(crate) joins: bool,
    /// A copy of its folder that was taken while it was stopped.
    pub(crate) copy: Option<Disk>,
    pub(crate) up: Option<Up>,
}

/// A node: what a crash takes.
pub(crate) struct Up {
    /// The layout that it goes by.
    pub(crate) ring: Arc<Ring>,
    pub(crate) layouts: Layouts,
    pub(crate) store: Arc<LogStore>,
    pub(crate) committer: Committer,
    pub(crate) hints: Arc<HintLedger>,
    pub(crate) forest: Arc<Forest>,
    /// The digests still to be built, if any.
    rebuild: Option<Rebuild>,
    pub(crate) heard: Stamp,
    pub(crate) last: Stamp,
    pub(crate) waiting: VecDeque<Submission>,
    committing: Option<Vec<Submission>>,
    /// What is done before that.
    errands: Vec<Errand>,
    pub(crate) operations: BTreeMap<u64, Running>,
    operations_made: u64,
    pub(crate) links: BTreeMap<(usize, u8), Link>,
    exchanges: BTreeMap<u64, Exchange>,
    pub(crate) gatherings: BTreeMap<u64, Gathering>,
    view: View,
    liveness: Liveness,
    /// The event that counts, of those that wake the liveness.
    liveness_due: u64,
    routes: BTreeMap<usize, Route>,
    /// How far what is kept for each peer has been handed over.
    replays: BTreeMap<usize, Replay>,
    /// Handfuls of hints under way.
    passes: BTreeMap<usize, Pass>,
    /// Since when peers that are alive have not been heard, in milliseconds.
    unheard: BTreeMap<usize, u64>,
    schedule: Schedule,
    /// When it started.
    started: u64,
    /// Peers the present round of sessions has still to turn to.
    round: VecDeque<usize>,
    /// Peers whose return is taken care of, and until when, once the first session was tried.
    returning: BTreeMap<usize, Option<u64>>,
    /// What the peers' clocks said.
    clocks: Clocks,
    /// Which writes it has seen.
    pub(crate) contexts: Arc<ContextLedger>,
    /// What the peers said of those they have seen.
    said: Said,
    /// What read repairs brought, where that is planted to go wrong.
    repairs: Vec<Record>,
    greeters: BTreeMap<usize, Greeter>,
    completeness: Completeness,
    pub(crate) mending: Mending,
    proposing: Proposing,
}

impl Node {
    pub(crate) fn new(index: usize, seed: u64) -> Node {
        Node {
            name: name_of(index),
            disk: Disk::new(seed),
            clock: WallClock::default(),
            life: 0,
            paused_until: 0,
            filled: false,
            began: 0,
            emptied: None,
            loss: None,
            actor: Actor(0),
            joins: false,
            copy: None,
            up: None,
        }
    }
}

impl Up {
    /// The planted bug: whatever stamps were made or seen, the clock begins with the wall's.
    fn forget_time(&mut self, wall_ms: u64) {
        let clock = Clock::starting_after(Stamp::from_ms(wall_ms));
        let feed = Arc::new(Feed::new(1, 64, 1 << 20));
        let (store, forest, hints) = (self.store.clone(), self.forest.clone(), self.hints.clone());
        let contexts = self.contexts.clone();
        self.committer = Committer::new(store, forest, feed, hints, contexts, self.committer.actor(), clock);
        self.heard = Stamp(0);
    }
}

impl Node {
    /// The id that was made with its folder.
    pub(crate) fn id(&self) -> NodeId {
        self.disk.id
    }

    /// Whether it runs, and counts as an owner.
    pub(crate) fn counts(&self) -> bool {
        self.up.as_ref().is_some_and(|up| up.completeness.counts())
    }

    /// Whether it runs, counts, and was told by enough peers what they remember of it.
    pub(crate) fn may_vote(&self) -> bool {
        self.up.as_ref().is_some_and(|up| up.completeness.counts() && up.completeness.is_confirmed())
    }

    pub(crate) fn is_building(&self) -> bool {
        self.up.as_ref().is_some_and(|up| up.rebuild.is_some() || !up.mending.salvages.is_empty())
    }
}

impl World {
    pub(super) fn up(&mut self, node: usize) -> &mut Up {
        self.nodes[node].up.as_mut().expect("only a running node has events")
    }

    pub(crate) fn deadline_ms(&self) -> u64 {
        self.options.timeout_ms * 9 / 10
    }

    pub(super) fn timeout_us(&self) -> u64 {
        self.options.timeout_ms * 1_000
    }

    /// Starts a node on what its disk holds.
    pub(crate) fn start(&mut self, node: usize) {
        let seed = self.rng.random();
        let heal = self.nodes.len() > 1;
        let (plant, options) = (self.plant, &self.options);
        let opened = self.nodes[node].disk.open(seed, plant, heal, options.cache_bytes, options.has_changes());
        let (store, replayed) = opened;
        let (store, salvages) = (Arc::new(store), self.nodes[node].disk.salvages());
        let is_missing = replayed.missing.is_some() && self.plant != Some(Plant::LogGapOverlooked);
        let lost = heal && (is_missing || !salvages.is_empty());
        let (hints, _) = HintLedger::scan(&*store, self.options.hint_bytes_max);
        if lost {
            hints.void_names();
        }
        let hints = Arc::new(hints);
        let feed = Arc::new(Feed::new(1, 64, 1 << 20));
        let mut clock = Clock::starting_after(store.last_stamp());
        let mut actor = Actor(self.rng.random());
        if self.plant == Some(Plant::ActorReused) {
            (actor, clock) = (Actor(node as u64 + 1), Clock::default());
        }
        if self.plant == Some(Plant::ActorOfLostDisk) && self.nodes[node].loss == Some(Loss::All) {
            actor = self.nodes[node].actor;
        }
        let (ring, layouts) = self.layouts_at_start(node, &store, &hints, lost);
        let entropy = self.rng.random();
        let lack = lost.then_some(if replayed.is_tail && salvages.is_empty() { Lack::TAIL } else { Lack::ROWS });
        let completeness = self.completeness(node, &ring, &store, lack, entropy);
        let mending = Mending::new(salvages, self.now);
        let forest = Arc::new(Forest::new());
        // Partitions without a key need no scan.
        let inhabited: BTreeSet<Partition> = (0..self.keys.len()).map(|key| self.partition(key)).collect();
        Partition::all().filter(|at| !inhabited.contains(at)).for_each(|at| forest.mark_built(at));
        let rebuild = Rebuild::of(&store, inhabited.into_iter().collect());
        let contexts = Arc::<ContextLedger>::default();
        if self.plant == Some(Plant::PromiseLostInCrash) {
            proposing::forget_promises(&store, &self.keys);
        }
        let (hints2, contexts2) = (hints.clone(), contexts.clone());
        let committer = Committer::new(store.clone(), forest.clone(), feed, hints2, contexts2, actor, clock.clone());
        let proposing = self.proposing(node);
        let peers = self.peers_in(&ring, node);
        let (view, liveness) = (View::of(peers.clone()), self.liveness(node, peers));
        self.nodes[node].life += 1;
        self.nodes[node].paused_until = 0;
        self.nodes[node].up = Some(Up {
            ring,
            layouts,
            store,
            committer,
            hints,
            forest,
            rebuild: Some(rebuild),
            heard: Stamp(0),
            last: clock.last(),
            waiting: VecDeque::new(),
            committing: None,
            errands: Vec::new(),
            operations: BTreeMap::new(),
            operations_made: 0,
            links: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            gatherings: BTreeMap::new(),
            view,
            liveness,
            liveness_due: u64::MAX,
            routes: BTreeMap::new(),
            replays: BTreeMap::new(),
            passes: BTreeMap::new(),
            unheard: BTreeMap::new(),
            schedule: Schedule::default(),
            started: self.now,
            round: VecDeque::new(),
            returning: BTreeMap::new(),
            clocks: Clocks::default(),
            contexts,
            said: Said::default(),
            repairs: Vec::new(),
            greeters: BTreeMap::new(),
            completeness,
            mending,
            proposing,
        });
        self.nodes[node].began = self.moment;
        self.nodes[node].actor = actor;
        self.oracle.actor_seen(node, self.nodes[node].life, actor);
        if self.nodes[node].loss == Some(Loss::All) {
            (self.nodes[node].emptied, self.nodes[node].loss) = (Some(self.moment), None);
        }
        if std::mem::take(&mut self.nodes[node].disk.log_rots) && replayed.missing.is_some() {
            self.counters.hit("rotten log met at a start");
            invariants::promises_to_oneself_are_over(self, node);
            self.note_loss(node, false);
            // Whether the node knows or not.
            self.nodes[node].emptied = Some(self.moment);
        }
        self.begin_layouts(node);
        self.begin_contexts(node, lost);
        self.begin_filling(node);
        if lost {
            self.note_filling(node);
        }
        self.look_at_rows(node, true);
        let life = self.nodes[node].life;
        self.carry_liveness(node);
        self.schedule(self.options.ping_period_us / 2, Event::HandOver { node, life });
        self.schedule(HOUSEKEEPING_PERIOD_US, Event::Housekeeping { node, life });
        let built = about(&mut self.rng, self.options.build_mean_us);
        self.schedule(built, Event::Build { node, life });
        let first = self.first_round_after();
        self.schedule(first, Event::SyncRound { node, life });
        self.schedule_forgetting(node);
        self.schedule_layouts(node);
    }

    /// Stops a node as a power cut does, in the middle of whatever it is doing.
    pub(crate) fn crash(&mut self, node: usize) {
        let Some(mut up) = self.nodes[node].up.take() else { return };
        self.counters.hit("crash");
        if self.network.is_cut() {
            self.counters.hit("crash during a partition");
        }
        if self.wall_ms(node) < up.last.ms() {
            self.counters.hit("crash while the clock is behind");
        }
        let ahead = self.rng.random_range(0..3);
        if let Some(mut batch) = up.committing.take() {
            up.look_up_stages(&mut batch);
            self.counters.hit("crash during a commit");
            self.nodes[node].disk.stop_after(ahead);
            let wall_ms = self.wall_ms(node);
            // Whoever was to be told is not.
            let facts = layouts::facts_of(&up);
            facts.into_iter().for_each(|fact| drop(up.committer.commit(wall_ms, vec![fact])));
            let results = up.committer.commit(wall_ms, batch.into_iter().map(|submission| submission.change).collect());
            if results.iter().all(|result| result.is_err()) {
                self.counters.hit("torn commit gone");
            }
        }
        self.nodes[node].disk.crash();
        self.wishes_hung_up(&mut up);
        for gathering in up.gatherings.into_values() {
            // A connection that was being served is reset, if that can be said to the other side.
            let Gathering { from, from_life, exchange, .. } = gathering;
            if let Fate::Arrives(after) = self.fate(node, from) {
                self.counters.hit("connection reset");
                let failure = Failure::Unknown;
                self.schedule(after, Event::Broken { node: from, life: from_life, exchange, failure });
            }
        }
        for running in up.operations.into_values() {
            if let Some(purpose) = running.purpose {
                self.hung_up(purpose);
            }
        }
        if self.nodes.iter().all(|node| node.up.is_none()) {
            self.counters.hit("crash of all nodes");
        }
    }

    /// Tells the oracle what the disk of a running node holds.
    pub(crate) fn look_at_rows(&mut self, node: usize, recovered: bool) {
        invariants::poison_stays_outside(self, node);
        for key in 0..self.keys.len() {
            let unfilled = self.unfilled(node, key);
            let (row, hint) = (self.readable_row(node, key), self.readable_hint(node, key));
            self.note_unreadable(node, key, Part::Row, row.is_none());
            self.note_unreadable(node, key, Part::Hints, hint.is_none());
            let (row, hint) = (row.unwrap_or_default(), hint.flatten());
            invariants::no_poison_is_held(self, node, &row);
            let known = self.with_what_was_seen(node, key, row.clone());
            if !self.holds(node, key) {
                self.oracle.is_kept_by_others(node, key, &row);
                if row.is_unknown() {
                    invariants::promises_are_over(self, node, key);
                }
            }
            let was_held = self.oracle.rows.get(&(node, key)).is_some_and(|before| !before.is_unknown());
            if self.is_agreed(key) && row.is_unknown() && was_held {
                self.counters.hit("agreed key forgotten");
            }
            self.oracle.row_seen(node, key, &row, &known, &unfilled);
            self.oracle.hint_seen(node, key, hint.as_ref());
            if recovered {
                let found =
                    self.oracle.recovered(node, &row) + hint.map_or(0, |record| self.oracle.recovered(node, &record));
                if found > 0 {
                    self.counters.hit("unacknowledged commit found after a crash");
                }
            }
        }
    }

    /// What cannot be read is lost, unless it is made good.
    fn note_unreadable(&mut self, node: usize, key: usize, part: Part, is_unreadable: bool) {
        if is_unreadable && self.oracle.has(node, key, part) {
            let owners = self.owners_of_all();
            self.oracle.lost(node, key, &[part], false, &owners);
        }
    }

    /// The bytes at an address, as a running node could read them; an error where it could not. Leaves no trace in caches.
    fn bytes_at(&self, node: usize, address: &Address) -> Result<Option<Bytes>, ()> {
        let up = self.nodes[node].up.as_ref().expect("asked of running nodes only");
        match up.store.peek(address) {
            Peek::Known(row) => Ok(row),
            Peek::Ask => self.nodes[node].disk.in_base(address),
        }
    }

    /// What a running node holds of a key, if that can be read.
    pub(crate) fn readable_row(&self, node: usize, key: usize) -> Option<Record> {
        match self.bytes_at(node, &Address::data(&self.keys[key])).ok()? {
            Some(row) => Row::decode(&row).ok().map(|row| row.record),
            None => Some(Record::default()),
        }
    }

    /// What it keeps of a key for others, if that can be read.
    fn readable_hint(&self, node: usize, key: usize) -> Option<Option<Record>> {
        match self.bytes_at(node, &Address::hint(&self.keys[key])).ok()? {
            Some(row) => Hint::decode(&row).ok().map(|hint| Some(hint.record)),
            None => Some(None),
        }
    }

    /// What a running node holds of a key; nothing where that cannot be read.
    pub(crate) fn row(&self, node: usize, key: usize) -> Record {
        self.readable_row(node, key).unwrap_or_default()
    }

    /// The same as it is known: with what the partition's context says was seen of the key, held or not.
    pub(crate) fn known_row(&self, node: usize, key: usize) -> Record {
        self.with_what_was_seen(node, key, self.row(node, key))
    }

    fn with_what_was_seen(&self, node: usize, key: usize, row: Record) -> Record {
        let up = self.nodes[node].up.as_ref().expect("asked of running nodes only");
        let (actor, last, partition) = (up.committer.actor(), up.committer.committed_stamp(), self.partition(key));
        let seen = up.contexts.look(|contexts| contexts.of(partition, actor, last));
        row.having_seen(seen.entries().iter().map(|&(actor, stamp)| Dot { stamp, actor }))
    }

    pub(super) fn hint_row(&self, node: usize, key: usize) -> Option<Record> {
        self.readable_hint(node, key).flatten()
    }

    /// What time it is for the node: its wall clock's, and no earlier than any stamp it has made or heard of.
    pub(crate) fn now_stamp(&self, node: usize) -> Stamp {
        let up = self.nodes[node].up.as_ref().expect("asked of running nodes only");
        Stamp::from_ms(self.wall_ms(node)).max(up.last).max(up.heard)
    }

    /// What the stamp a peer mentioned tells, unless it lies too far ahead to be believed.
    pub(super) fn hear(&mut self, node: usize, stamp: Stamp) {
        let wall_ms = self.wall_ms(node);
        let up = self.up(node);
        if Clock::starting_after(up.last).check(stamp, wall_ms).is_ok() {
            up.heard = up.heard.max(stamp);
        } else {
            self.counters.hit("stamp not believed");
            if self.plant == Some(Plant::FarStampBelieved) {
                self.up(node).heard = stamp;
            }
        }
    }

    /// Members for which this node keeps hints.
    pub(crate) fn behind(&self, node: usize) -> Vec<MemberIndex> {
        let up = self.nodes[node].up.as_ref().expect("asked of running nodes only");
        up.hints.targets().iter().filter_map(|name| up.ring.member_by_name(name)).collect()
    }

    /// Members this node believes to be down.
    pub(crate) fn avoid(&self, node: usize) -> Vec<MemberIndex> {
        let up = self.nodes[node].up.as_ref().expect("asked of running nodes only");
        let down = up.view.peers().iter().filter(|peer| peer.state != State::Alive);
        down.filter_map(|peer| up.ring.member_by_name(&peer.name)).collect()
    }
}
