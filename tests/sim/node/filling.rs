//! Whether a node counts, and how it is filled where it lacks something: the twin of `src/node/filling.rs`. What nodes
//! say of it travels in greetings.

mod taking_in;

use super::answering::Done;
use super::committing::ANY_EPOCH;
use super::greeting::Reply;
use super::{Node, Reason};
use crate::invariants;
use crate::losing::Loss;
use crate::plant::Plant;
use crate::world::{Event, World};
use kringle::antientropy::Report;
use kringle::membership::{Filling, Lack, Life, Memory, Stage, State, Why};
use kringle::placement::{Partition, Ring};
use kringle::protocol::{Greeting, Request};
use kringle::record::{Key, Stamp};
use kringle::storage::{Address, Change, LogStore, Store};
use std::collections::{BTreeMap, BTreeSet};

/// Where the store says whether it was filled.
pub(super) const FILLING_FACT: &str = "filling";
/// Where the store keeps what is remembered of the peers' lives.
const MEMORY_FACT: &str = "lives";
/// How long the start waits for peers that can be connected to and do not answer.
const FIRST_ROUND_US: u64 = 2_000_000;
/// How long to wait after a session before the next one that is needed, and after one that failed.
const SHORT_US: u64 = 100_000;
const LONG_US: u64 = 1_000_000;
/// How often it is looked whether there is something to do, while there is.
const TICK_US: u64 = 50_000;

/// What a node knows of its own completeness, and remembers of the others.
pub(crate) struct Completeness {
    filling: Filling,
    memory: Memory,
    /// The last stamp that was found in the store.
    opened: Stamp,
    /// Whether it is filled, durably.
    counts: bool,
    /// Whether the store could not take how it stands.
    unkept: bool,
    losses: u64,
    /// Random, new with every start.
    entropy: u64,
    /// As they were when the present session began, and the epoch then.
    losses_before: u64,
    epoch_before: u64,
    /// Peers that a session to be filled ended well with, and that are still to say whether what they had seen before it
    /// is so; with how much was lost here by then, and under which epoch it was.
    unconfirmed: BTreeMap<usize, (u64, u64)>,
    /// The first round of greetings was ended.
    timed: bool,
    /// When it is looked next whether there is something to do.
    watched: Option<u64>,
}

/// How a node stands, on its way into the store, and who is to be told.
#[derive(Clone, Debug)]
pub(crate) struct Stand {
    stage: Stage,
    lack: Option<Lack>,
    then: Option<Reply>,
}

impl Stand {
    pub(super) fn lack(&self) -> Option<Lack> {
        self.lack
    }
}

impl Completeness {
    pub(super) fn counts(&self) -> bool {
        self.counts
    }

    pub(super) fn why(&self) -> Option<Why> {
        self.filling.why()
    }

    /// Whether this node, if it is being filled, now has all that the peer of that session had.
    pub(super) fn is_filled_by(&self, report: &Report) -> bool {
        self.filling.stage() == Stage::Filling && report.fills(self.filling.stands())
    }

    /// Whether what it holds is known not to be out of date.
    pub(super) fn is_current(&self) -> bool {
        self.filling.is_current()
    }

    /// How often something was lost.
    pub(super) fn losses(&self) -> u64 {
        self.losses
    }

    /// Another number after each start and each loss.
    pub(super) fn unbroken(&self) -> u64 {
        self.entropy.wrapping_add(self.losses)
    }

    /// What was compared before counts for nothing from now on.
    pub(super) fn count_loss(&mut self) {
        self.losses += 1;
    }

    /// Whether it was filled in this life.
    pub(super) fn is_refilled(&self) -> bool {
        self.filling.is_refilled()
    }

    /// Whether enough peers have said what they remember of it for it to vote.
    pub(super) fn is_confirmed(&self) -> bool {
        self.filling.is_confirmed()
    }

    /// What its store is to say when something is lost.
    pub(super) fn would_say_lost(&self) -> Vec<u8> {
        self.filling.encode_lost(Lack::ROWS)
    }

    /// What its store is told when it is told how the node stands: as it is then, not when that was submitted.
    pub(super) fn says(&self, stand: &mut Stand) -> Change {
        (stand.stage, stand.lack) = (self.filling.stage(), self.filling.lack());
        Change::Fact { name: FILLING_FACT, bytes: self.filling.encode().into() }
    }
}

impl World {
    /// What the store of a node says of its own completeness, and remembers of the peers'.
    pub(super) fn completeness(
        &self,
        node: usize,
        ring: &Ring,
        store: &LogStore,
        lack: Option<Lack>,
        entropy: u64,
    ) -> Completeness {
        let read = |name| store.read(&Address::fact(name)).unwrap_or_default();
        let names = self.peers_in(ring, node);
        let mut filling = Filling::new(self.nodes[node].id(), store.last_stamp(), read(FILLING_FACT).as_deref(), names);
        if let Some(lack) = lack {
            filling.lost(lack);
        }
        Completeness {
            // Alone, there is nobody to ask.
            counts: filling.stage() == Stage::Filled,
            filling,
            opened: store.last_stamp(),
            memory: read(MEMORY_FACT).map_or_else(Memory::default, |row| Memory::decode(&row)),
            unkept: false,
            losses: 0,
            entropy,
            losses_before: 0,
            epoch_before: 0,
            unconfirmed: BTreeMap::new(),
            timed: false,
            watched: None,
        }
    }

    /// A start: what is known already is kept before anybody is served.
    pub(super) fn begin_filling(&mut self, node: usize) {
        let wall_ms = self.wall_ms(node);
        let up = self.up(node);
        let Completeness { counts, filling, .. } = &up.completeness;
        let why = filling.why();
        if *counts && filling.stage() == Stage::Filled || why == Some(Why::Rotten) {
            let change = Change::Fact { name: FILLING_FACT, bytes: filling.encode().into() };
            // Where there is no room the folder says so already, of a node that has no peers.
            let is_kept = up.committer.commit(wall_ms, vec![change.clone()]).iter().all(Result::is_ok);
            if why == Some(Why::Rotten) && !is_kept {
                // A node that cannot keep that it lost something does not start: somebody makes room.
                self.nodes[node].disk.fill(false);
                let _ = self.up(node).committer.commit(wall_ms, vec![change]);
            }
        }
        if self.nodes[node].loss == Some(Loss::SinceTheCopy) && why != Some(Why::Unfinished) {
            // Told of it once or not, its disk does not say so: it is to be told again.
            self.nodes[node].emptied = None;
        }
        let up = self.up(node);
        up.committer.note_filling(up.completeness.filling.lack());
        self.nodes[node].filled |= self.completeness_of(node).counts;
        if why == Some(Why::Unfinished) {
            self.counters.hit("stopped while it was filled");
        }
        self.watch_after(node, TICK_US);
    }

    pub(crate) fn completeness_of(&self, node: usize) -> &Completeness {
        &self.nodes[node].up.as_ref().expect("asked of running nodes only").completeness
    }

    /// Whether a node counts, as far as it may tell a peer.
    pub(super) fn counts_for(&self, node: usize, peer: usize) -> bool {
        let completeness = self.completeness_of(node);
        completeness.counts && completeness.filling.has_heard(&self.nodes[peer].name)
    }

    /// Whether the cluster was born, as far as a node knows.
    pub(super) fn is_born(&self, node: usize) -> bool {
        self.completeness_of(node).filling.is_born()
    }

    pub(super) fn remembered(&self, node: usize, peer: usize) -> Option<Life> {
        self.completeness_of(node).memory.of(&self.nodes[peer].name)
    }

    /// Whether it is filled, and that is not durable yet.
    pub(super) fn is_pending(&self, node: usize) -> bool {
        let completeness = self.completeness_of(node);
        !completeness.counts && completeness.filling.stage() == Stage::Filled
    }

    /// Whether a node owns the partition and does not hold it whole, so that its answers count for nothing.
    pub(super) fn is_partial(&mut self, node: usize, partition: Partition) -> bool {
        if self.completeness_of(node).counts {
            return !self.counts_as_heir(node, partition);
        }
        let (ring, me) = (self.ring_of(node), self.me(node));
        let filling = &self.completeness_of(node).filling;
        self.plant != Some(Plant::EmptiedCounts)
            && ring.is_owner(me, partition)
            && (filling.stage() != Stage::Filling || !filling.is_whole(&ring, me, partition))
    }

    /// Whether a node answers the request as an owner that counts for nothing in it.
    pub(super) fn answers_in_part(&mut self, node: usize, request: &Request) -> bool {
        if let Request::Confirm { key, .. } = request {
            let may_vote = self.nodes[node].may_vote();
            let is_owner = self.ring_of(node).is_owner(self.me(node), Partition::of(key.position()));
            if !may_vote && is_owner {
                self.counters.hit("read not confirmed by an owner that may not vote");
            }
            return !may_vote && is_owner;
        }
        let (Request::Write { key, .. }
        | Request::Merge { key, .. }
        | Request::Read { key }
        | Request::ReadSince { key, .. }) = request
        else {
            return false;
        };
        let absent = self.plant == Some(Plant::EmptiedAnswersAbsent) && matches!(request, Request::Read { .. });
        let partial = self.is_partial(node, Partition::of(key.position())) && !absent;
        match partial {
            true => self.counters.hit("answered by an owner that is not filled"),
            false => self.note_whole(node, key),
        }
        partial
    }

    fn note_whole(&mut self, node: usize, key: &Key) {
        if self.nodes[node].emptied.is_some()
            && let Some(key) = self.keys.iter().position(|known| known == key)
        {
            invariants::an_owner_that_counts_is_whole(self, node, key);
        }
    }

    /// A peer has said how it stands, and which life of this node it remembers.
    pub(super) fn take_word(&mut self, node: usize, peer: usize, greeting: &Greeting) {
        let name = self.nodes[peer].name.clone();
        let completeness = &mut self.up(node).completeness;
        let is_first = !completeness.filling.has_heard(&name);
        let (opened, mut remembered) = (completeness.opened, greeting.remembered);
        let Node { loss, began, .. } = self.nodes[node];
        if let Some(life) = remembered.filter(|life| is_first && life.id == self.nodes[node].id()) {
            if loss == Some(Loss::SinceTheCopy) && life.stamp > opened {
                // It is told that it has forgotten something.
                self.nodes[node].emptied.get_or_insert(began);
            }
            remembered = remembered.filter(|_| self.plant != Some(Plant::OldDiskBelieved));
        }
        if self.up(node).completeness.filling.heard(&name, greeting.word, remembered) {
            self.stage_changed(node, None);
        }
        let memory = &mut self.up(node).completeness.memory;
        if greeting.word.filled && memory.note(&name, Life { id: greeting.id, stamp: greeting.durable }) {
            let change = Change::Fact { name: MEMORY_FACT, bytes: memory.encode().into() };
            self.submit_change(node, change);
        }
    }

    /// Something that was held here is there no longer, as its store says: from now on the node counts for nothing, until
    /// it is filled anew.
    pub(super) fn completeness_lost(&mut self, node: usize) {
        let completeness = &mut self.up(node).completeness;
        completeness.filling.lost(Lack::ROWS);
        completeness.counts = completeness.filling.stage() == Stage::Filled;
        completeness.losses += 1;
        self.note_filling(node);
    }

    /// A peer was greeted and cannot be reached.
    pub(super) fn peer_is_silent(&mut self, node: usize, peer: usize) {
        let name = self.nodes[peer].name.clone();
        if self.up(node).completeness.filling.silent(&name) {
            self.stage_changed(node, None);
        }
    }

    /// Makes the stage durable, and lets the node count only then.
    pub(super) fn stage_changed(&mut self, node: usize, then: Option<Reply>) {
        let completeness = &mut self.up(node).completeness;
        if completeness.filling.stage() != Stage::Filled {
            completeness.counts = false;
            self.note_filling(node);
        }
        self.keep_stage(node, then);
    }

    fn keep_stage(&mut self, node: usize, then: Option<Reply>) {
        let mut stand = Stand { stage: Stage::Asking, lack: None, then };
        let change = self.completeness_of(node).says(&mut stand);
        self.submit(node, change, Done::Stage(stand), ANY_EPOCH);
    }

    pub(super) fn note_filling(&mut self, node: usize) {
        // A guest keeps nothing that anybody counts on.
        let Some(why) = self.completeness_of(node).why() else { return };
        self.nodes[node].filled = false;
        self.counters.hit(match why {
            Why::Rotten => "owner that lost something to rot",
            Why::Emptied => "emptied owner noticed",
            Why::RolledBack => "old disk noticed",
            Why::Alone | Why::Newcomer => "new disk among peers that hold data",
            Why::Unfinished => "stopped while it was filled",
        });
        // Whatever it once had is missing until it was filled.
        let started = self.nodes[node].began;
        self.nodes[node].emptied.get_or_insert(started);
        self.watch_after(node, 0);
    }

    /// The store says how the node stands, or could not take it.
    pub(super) fn stage_kept(&mut self, node: usize, Stand { stage, then, .. }: Stand, is_kept: bool) {
        let completeness = &mut self.up(node).completeness;
        completeness.unkept = !is_kept;
        let now_counts =
            is_kept && stage == Stage::Filled && completeness.filling.stage() == Stage::Filled && !completeness.counts;
        if now_counts {
            completeness.counts = true;
            self.now_counts(node);
        }
        if let Some(then) = then {
            self.greet_back(node, then);
        }
    }

    fn now_counts(&mut self, node: usize) {
        self.nodes[node].filled = true;
        if self.nodes[node].emptied.is_some() {
            for key in 0..self.keys.len() {
                invariants::an_owner_that_counts_is_whole(self, node, key);
                invariants::an_owner_that_counts_knows_what_was_forgotten(self, node, key);
            }
            (self.nodes[node].emptied, self.nodes[node].loss) = (None, None);
            self.counters.hit("emptied owner filled");
        }
        self.greet_everyone(node);
    }

    fn watch_after(&mut self, node: usize, after: u64) {
        let (life, at) = (self.nodes[node].life, self.now + after);
        let watched = &mut self.up(node).completeness.watched;
        if watched.is_none_or(|watched| watched > at) {
            *watched = Some(at);
            self.schedule(after, Event::Watch { node, life, at });
        }
    }

    /// Ends the first round in time, and has sessions with the peers that are still needed.
    pub(crate) fn watch(&mut self, node: usize, at: u64) {
        let since = self.now - self.up(node).started;
        let completeness = &mut self.up(node).completeness;
        if completeness.watched != Some(at) {
            return;
        }
        completeness.watched = None;
        if !completeness.timed && since >= FIRST_ROUND_US {
            completeness.timed = true;
            if completeness.filling.time_is_up() {
                self.stage_changed(node, None);
            }
        }
        let mut wanted = self.owners_to_take_in_from(node);
        let Completeness { filling, counts, .. } = self.completeness_of(node);
        match filling.stage() {
            Stage::Filled if *counts && wanted.is_empty() => {}
            Stage::Filled if *counts => self.fill_from_some(node, wanted),
            Stage::Filled => {
                self.stage_changed(node, None);
                self.watch_after(node, TICK_US);
            }
            Stage::Asking => self.watch_after(node, TICK_US.max(FIRST_ROUND_US.saturating_sub(since))),
            Stage::Filling => {
                wanted.extend(filling.to_compare());
                // A start that followed would take the folder's word that it was filled.
                if std::mem::take(&mut self.up(node).completeness.unkept) {
                    self.keep_stage(node, None);
                }
                self.fill_from_some(node, wanted);
            }
        }
    }

    /// A session begins: what is lost from now on was not compared by it.
    pub(super) fn note_losses(&mut self, node: usize) {
        let epoch = self.ring_of(node).epoch();
        let completeness = &mut self.up(node).completeness;
        (completeness.losses_before, completeness.epoch_before) = (completeness.losses, epoch);
    }

    /// Whether something was lost since the present session began.
    pub(super) fn has_lost_since(&self, node: usize) -> bool {
        let Completeness { losses, losses_before, .. } = self.completeness_of(node);
        losses != losses_before
    }

    /// A session with a peer is over. Where it passed over nothing that both keep, what the peer held is held here.
    pub(super) fn compared(&mut self, node: usize, peer: usize, reason: Reason, report: &Report) {
        let name = self.nodes[peer].name.clone();
        let careless = self.plant == Some(Plant::FilledUnseen);
        let is_filled = reason == Reason::Filling && self.is_filled_by(node, report);
        let up = self.up(node);
        let Completeness { losses, losses_before, epoch_before, .. } = up.completeness;
        if is_filled && losses == losses_before {
            if up.said.is_unconfirmed(&name) && !careless {
                up.completeness.unconfirmed.insert(peer, (losses, epoch_before));
            } else {
                self.filled_from(node, peer, losses, epoch_before);
            }
        }
        let is_failure = report.failed.is_some() && !report.is_busy();
        if reason == Reason::Filling {
            self.counters.hit("session to be filled");
            self.watch_after(node, if is_failure { LONG_US } else { SHORT_US });
        }
        if self.is_pending(node) {
            self.watch_after(node, TICK_US);
        }
    }

    /// A peer was asked whether it has still seen what it had, and said so of all of it or not.
    pub(super) fn confirmed(&mut self, node: usize, peer: usize, is_all: bool) {
        let name = self.nodes[peer].name.clone();
        let up = self.up(node);
        if up.said.is_unconfirmed(&name) && is_all {
            return;
        }
        let Some((losses, epoch)) = up.completeness.unconfirmed.remove(&peer) else { return };
        if is_all {
            self.filled_from(node, peer, losses, epoch);
        }
        self.watch_after(node, TICK_US);
    }

    fn filled_from(&mut self, node: usize, peer: usize, losses: u64, epoch: u64) {
        let (ring, me, name) = (self.ring_of(node), self.me(node), self.nodes[peer].name.clone());
        let from_one = self.plant == Some(Plant::TakenInFromOne);
        let completeness = &mut self.up(node).completeness;
        if completeness.losses != losses {
            return;
        }
        completeness.filling.compared(&name, &ring, me);
        let counts = completeness.filling.is_filled(&name);
        let intake = self.intake(node);
        // What was compared under an earlier layout was not about what is to be taken in.
        if counts
            && epoch == ring.epoch()
            && intake.epoch() == epoch
            && let Some(owner) = ring.member_by_name(&name)
        {
            intake.compared(owner);
            if from_one {
                ring.members().for_each(|member| intake.compared(member));
            }
            if ring.is_changing() {
                self.counters.hit("owner taken in from");
            }
        }
    }

    fn alive(&self, node: usize, name: &str) -> Option<usize> {
        let view = &self.nodes[node].up.as_ref().expect("it runs").view;
        view.peer(name).filter(|peer| peer.state == State::Alive)?;
        self.nodes.iter().position(|peer| peer.name == name)
    }
}
