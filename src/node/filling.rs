//! Whether this node counts: it hears from its peers what they remember of it, and is filled by sessions with them where it
//! lacks something.

use super::greeting;
use super::outside::{jittered, now, wall_ms};
use super::shared::Shared;
use super::sync;
use super::worker::Worker;
use crate::antientropy::Report;
use crate::membership::{ClockState, Clocks, Filling, Lack, Memory, Stage, State, Why};
use crate::placement::{MemberIndex, Ring};
use crate::record::Stamp;
use crate::storage::{Change, Committer, Outcome, Refused};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::oneshot;

/// Where the store says whether it was filled.
pub(super) const FILLING_FACT: &str = "filling";
/// Where the store keeps what is remembered of the peers' lives.
pub(super) const MEMORY_FACT: &str = "lives";

/// How long the start waits for peers that can be connected to and do not answer. A peer that starts at the same moment
/// on a busy machine should have its say.
const FIRST_ROUND_MAX: Duration = Duration::from_secs(2);
/// The shortest and the longest wait before a peer is greeted again that did not answer, or that there is a later stamp
/// to tell: the time between two pings, within these.
pub(super) const SHORT_MIN: Duration = Duration::from_millis(100);
pub(super) const SHORT_MAX: Duration = Duration::from_secs(1);
/// How often it is looked whether there is something to do.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// What a node knows of its own completeness and of its clock, and remembers of the others'.
pub struct Completeness {
    filling: Mutex<Filling>,
    memory: Mutex<Memory>,
    clocks: Mutex<Clocks>,
    /// How this node's clock stands to its peers', as was said last.
    clock_state: Mutex<ClockState>,
    /// Peers that a session to be filled ended well with, and that are still to say whether what they had seen before it is
    /// so; with how much was lost here by then.
    unconfirmed: Mutex<BTreeMap<String, (u64, u64)>>,
    /// Whether it is filled, durably: what hot paths look at.
    counts: AtomicBool,
    /// Whether enough peers have said what they remember of it for it to vote.
    is_confirmed: AtomicBool,
    /// Whether the store could not take how it stands.
    unkept: AtomicBool,
    losses: AtomicU64,
    /// Random, new with every start.
    entropy: u64,
}

impl Completeness {
    /// Of a node whose store is in this state. `entropy` is random, and new with every start.
    pub(super) fn new(filling: Filling, memory: Memory, entropy: u64) -> Completeness {
        // Alone, there is nobody to ask; what is filled is so durably before anybody is served.
        let counts = AtomicBool::new(filling.stage() == Stage::Filled);
        let is_confirmed = AtomicBool::new(filling.is_confirmed());
        let (filling, memory) = (Mutex::new(filling), Mutex::new(memory));
        Completeness {
            filling,
            memory,
            counts,
            is_confirmed,
            clocks: Mutex::default(),
            clock_state: Mutex::default(),
            unconfirmed: Mutex::default(),
            unkept: AtomicBool::default(),
            losses: AtomicU64::default(),
            entropy,
        }
    }

    /// What the store is to say before anybody is served, if that is known already.
    pub(super) fn to_keep(&self) -> Option<Vec<u8>> {
        let filling = self.filling();
        (self.counts.load(Ordering::Relaxed) || filling.why() == Some(Why::Rotten)).then(|| filling.encode())
    }

    /// Whether this node, if it is being filled, now has all that the peer of that session had.
    pub(super) fn is_filled_by(&self, report: &Report) -> bool {
        let filling = self.filling();
        filling.stage() == Stage::Filling && report.fills(filling.stands())
    }

    /// The most this node may lack, where it is being filled.
    pub(super) fn lack(&self) -> Option<Lack> {
        self.filling().lack()
    }

    /// Something that was held here is there no longer: from now on this node counts for nothing, until it is filled
    /// anew.
    pub(super) fn lost(&self, lack: Lack) {
        let mut filling = self.filling();
        filling.lost(lack);
        self.counts.store(filling.stage() == Stage::Filled, Ordering::Relaxed);
        self.count_loss();
    }

    /// What was compared before counts for nothing from now on.
    pub(super) fn count_loss(&self) {
        self.losses.fetch_add(1, Ordering::SeqCst);
    }

    /// The same, once the store says so as well, and with it what `also` is; where it cannot, nothing is lost yet. What was
    /// promised goes too: votes that wait in the queue by then are given by a store that counts everything as promised.
    pub(super) fn lose(&self, committer: &mut Committer, also: Change) -> Result<(), Refused> {
        let bytes = self.filling().encode_lost(Lack::ROWS).into();
        let says = Change::Fact { name: FILLING_FACT, bytes };
        committer
            .commit(wall_ms(), vec![says, also, Change::RaiseFloor { stamp: Stamp(0) }])
            .into_iter()
            .collect::<Result<Vec<Outcome>, Refused>>()?;
        committer.note_filling(Some(Lack::ROWS));
        self.lost(Lack::ROWS);
        Ok(())
    }

    /// Has the store say how this node stands, on the committer: what it said before is overtaken. A node that is filled
    /// counts from then on, and knows after the next start what it has learned that its peers had seen. `heard` is a stamp no
    /// earlier than any its peers have told of.
    fn keep(&self, committer: &mut Committer, heard: Stamp) {
        let (bytes, stage, lack, is_refilled) = {
            let filling = self.filling();
            (filling.encode(), filling.stage(), filling.lack(), filling.is_refilled())
        };
        let mut changes = vec![Change::Fact { name: FILLING_FACT, bytes: bytes.into() }, Change::KeepContexts];
        if is_refilled {
            // Whoever gave a promise that this node knows no more, some owner it was filled from has seen a later stamp.
            changes.push(Change::RaiseFloor { stamp: heard });
        }
        let kept = committer.commit(wall_ms(), changes).iter().all(Result::is_ok);
        if kept {
            committer.note_filling(lack);
        }
        // Under the lock: what is heard meanwhile comes after it.
        let filling = self.filling();
        // Where it could not be kept, `watch` tries again.
        self.unkept.store(!kept, Ordering::Relaxed);
        if kept && stage == Stage::Filled && filling.stage() == Stage::Filled {
            self.counts.store(true, Ordering::Relaxed);
        }
    }

    /// These are the peers from now on; `new` says whether this node has just become a member. On the committer's thread.
    pub(super) fn note_members(
        &self,
        committer: &mut Committer,
        (ring, me): (&Ring, MemberIndex),
        names: BTreeSet<String>,
        new: bool,
        heard: Stamp,
    ) {
        self.memory().members(|name| names.contains(name));
        let changed = {
            let mut filling = self.filling();
            // By other owners a partition may be whole that was not.
            let changed = filling.members(names, new) | filling.look_again(ring, me);
            self.note_confirmed(filling.is_confirmed());
            changed
        };
        if changed || new {
            self.keep(committer, heard);
        }
    }

    /// Whether it is filled, durably.
    pub(super) fn counts(&self) -> bool {
        self.counts.load(Ordering::Relaxed)
    }

    /// How often something was lost: what was compared before counts for nothing after.
    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Ordering::SeqCst)
    }

    /// Another number after each start and each loss.
    pub(super) fn unbroken(&self) -> u64 {
        self.entropy.wrapping_add(self.losses())
    }

    fn unconfirmed(&self) -> MutexGuard<'_, BTreeMap<String, (u64, u64)>> {
        self.unconfirmed.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn filling(&self) -> MutexGuard<'_, Filling> {
        self.filling.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn clocks(&self) -> MutexGuard<'_, Clocks> {
        self.clocks.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes note of how this node's clock stands; whether that is news.
    pub(super) fn note_clock_state(&self, state: ClockState) -> bool {
        let mut said = self.clock_state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        std::mem::replace(&mut *said, state) != state
    }

    /// Whether this node may vote in what is agreed on: it holds all that an owner should, a majority has confirmed that, and
    /// what it once promised and knows no more is covered by its floor. That a single partition is whole is not enough.
    pub(super) fn may_vote(&self) -> bool {
        self.counts.load(Ordering::Relaxed) && self.is_confirmed.load(Ordering::Relaxed)
    }

    /// Takes note of whether enough peers have said what they remember of this node.
    pub(super) fn note_confirmed(&self, is_confirmed: bool) {
        self.is_confirmed.store(is_confirmed, Ordering::Relaxed);
    }

    /// Whether the node still finds out, after its start, how it stands.
    pub fn is_asking(&self) -> bool {
        !self.filling().has_asked() || self.is_pending()
    }

    /// Whether it is filled, and that is not durable yet.
    pub(super) fn is_pending(&self) -> bool {
        !self.counts.load(Ordering::Relaxed) && self.filling().stage() == Stage::Filled
    }

    /// How it stands, for people: a word, and what there is to say.
    pub fn describe(&self) -> Value {
        let filling = self.filling();
        let (counts, why) = (self.counts.load(Ordering::Relaxed), filling.why().map(|why| why.to_string()));
        match (counts, filling.stage()) {
            (true, _) => json!({ "state": "filled" }),
            (false, Stage::Asking | Stage::Filled) if !filling.has_asked() || why.is_none() => {
                json!({ "state": "asking" })
            }
            (false, _) => {
                json!({ "state": "filling", "why": why, "missing": filling.missing().collect::<Vec<_>>() })
            }
        }
    }
}

impl Shared {
    /// A session with `peer` about everything that both keep, that passed over nothing, ended well. Since it began nothing
    /// may have been lost. It counts once what the peer had seen is joined as well: before that, a late copy of what all
    /// have forgotten would be new here.
    pub(super) fn compared(&self, peer: &str, losses: u64, epoch: u64) {
        if self.seen.said().is_unconfirmed(peer) {
            self.completeness.unconfirmed().insert(peer.to_string(), (losses, epoch));
        } else {
            self.filled_from(peer, losses, epoch);
        }
    }

    /// Whether this node, if it is being filled or takes something in, now has all that the peer of that session had.
    pub(super) fn is_filled_by(&self, report: &Report) -> bool {
        let ring = self.ring();
        let takes_in = ring.is_changing() && self.intake().lacking(&ring).next().is_some();
        // A store that has lost nothing is an acceptor like any other: what it accepted stands, and its own vote may be what
        // settles a key of which a peer refuses that.
        let stands = self.completeness.counts.load(Ordering::Relaxed);
        self.completeness.is_filled_by(report) || takes_in && report.fills(stands)
    }

    /// `peer` was asked whether it has still seen what it had, and said so of all of it or not. Where not, it is compared
    /// with once more.
    pub(super) fn confirmed(&self, peer: &str, is_all: bool) {
        let losses = match self.seen.said().is_unconfirmed(peer) && is_all {
            true => None,
            false => self.completeness.unconfirmed().remove(peer),
        };
        if let Some((losses, epoch)) = losses.filter(|_| is_all) {
            self.filled_from(peer, losses, epoch);
        }
    }

    fn filled_from(&self, peer: &str, losses: u64, epoch: u64) {
        let mut filling = self.completeness.filling();
        let ring = self.ring();
        if losses != self.completeness.losses() {
            return;
        }
        filling.compared(peer, &ring, self.me(&ring));
        let counts = filling.is_filled(peer);
        drop(filling);
        let mut intake = self.intake();
        // What was compared under an earlier layout was not about what is to be taken in.
        if counts
            && epoch == ring.epoch()
            && intake.epoch() == epoch
            && let Some(owner) = ring.member_by_name(peer)
        {
            intake.compared(owner);
        }
    }

    /// The owners that a session is needed with to take in what this node is to own.
    fn owners_to_take_in_from(&self) -> Vec<String> {
        let ring = self.ring();
        if !ring.is_changing() {
            return Vec::new();
        }
        let owners = self.intake().to_compare(&ring);
        owners.into_iter().map(|owner| ring.member(owner).name.clone()).collect()
    }

    /// Whether `peer` has said what it has seen, of what is to be taken in from it as well.
    fn has_said_enough(&self, peer: &str) -> bool {
        let ring = self.ring();
        let Some(owner) = ring.member_by_name(peer) else { return false };
        let first = match ring.is_changing() {
            true => self.intake().lacking(&ring).find(|partition| ring.is_owner(owner, *partition)),
            false => None,
        };
        let said = self.seen.said();
        said.by(peer).is_some() && first.is_none_or(|partition| said.of(peer, partition).is_some())
    }
}

impl Worker {
    fn tell_why(&self) {
        let why = self.node.completeness.filling().why();
        if let Some(why) = why {
            self.node.events.warn("filling", format!("this node counts for no majority until it is filled: {why}"));
        }
    }

    /// Makes the stage durable, and lets the node count only then; `then` runs when it does, or cannot.
    pub(super) fn stage_changed(&self, then: impl FnOnce() + 'static) {
        if self.node.completeness.filling().stage() != Stage::Filled {
            self.node.completeness.counts.store(false, Ordering::Relaxed);
            self.tell_why();
        }
        self.keep_stage(then);
    }

    fn keep_stage(&self, then: impl FnOnce() + 'static) {
        let (completeness, heard) = (self.node.completeness.clone(), self.node.queue.latest_stamp());
        let (tell, told) = oneshot::channel();
        self.node.queue.between_batches(Box::new(move |committer| {
            completeness.keep(committer, heard);
            let _ = tell.send(());
        }));
        actix_web::rt::spawn(async move {
            // Dropped where the node is stopping.
            let _ = told.await;
            then();
        });
    }
}

/// Greets every peer, and fills this node from them while it lacks something.
pub(super) fn keep_filled(worker: &Rc<Worker>) {
    actix_web::rt::spawn(watch(worker.clone()));
    let worker = worker.clone();
    actix_web::rt::spawn(async move {
        let greeted = Rc::<RefCell<BTreeSet<String>>>::default();
        while !worker.node.is_stopping() {
            let changed = worker.node.layouts.changed.notified();
            let ring = worker.node.ring();
            let members = ring.layout().members().iter().filter(|_| ring.guest().is_none());
            for member in members.filter(|member| member.name != worker.node.name) {
                if greeted.borrow_mut().insert(member.name.clone()) {
                    let (worker, greeted, name) = (worker.clone(), greeted.clone(), member.name.clone());
                    actix_web::rt::spawn(async move {
                        greeting::greet_while_member(worker, name.clone()).await;
                        greeted.borrow_mut().remove(&name);
                    });
                }
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(SHORT_MAX) => {}
            }
        }
    });
}

/// Ends the first round in time, has sessions with the peers that are still needed, and tells when the node is filled.
async fn watch(worker: Rc<Worker>) {
    let node = worker.node.clone();
    let began = now();
    let (mut was_filling, mut was_alone, mut timed) = (false, false, false);
    while !node.is_stopping() {
        if !timed && now().duration_since(began) >= FIRST_ROUND_MAX {
            timed = true;
            let changed = node.completeness.filling().time_is_up();
            if changed {
                worker.stage_changed(|| ());
            }
        }
        let (stage, mut wanted) = {
            let filling = node.completeness.filling();
            (filling.stage(), filling.to_compare())
        };
        wanted.extend(node.owners_to_take_in_from());
        let counts = node.completeness.counts.load(Ordering::Relaxed);
        match stage {
            Stage::Filled if !counts => worker.stage_changed(|| ()),
            Stage::Filled => {
                if std::mem::take(&mut was_filling) {
                    let ms = now().duration_since(began).as_millis();
                    node.events.info("filling", format!("filled from its peers, {ms} ms after the start: it counts"));
                } else if std::mem::take(&mut was_alone) {
                    node.events.info("filling", "enough peers never knew it otherwise: this new node counts");
                }
            }
            Stage::Filling => {
                (was_filling, was_alone) = (true, false);
                // A start that followed would take the folder's word that it was filled.
                if node.completeness.unkept.swap(false, Ordering::Relaxed) {
                    worker.keep_stage(|| ());
                }
            }
            Stage::Asking if !was_alone && !node.completeness.is_asking() => {
                was_alone = true;
                worker.tell_why();
            }
            Stage::Asking => {}
        }
        let mut pause = TICK;
        for peer in wanted {
            pause = pause.max(fill_from(&worker, &peer).await);
        }
        tokio::time::sleep(jittered(pause)).await;
    }
}

/// A session with `peer`, if it is alive; how long to wait before the next.
async fn fill_from(worker: &Rc<Worker>, peer: &str) -> Duration {
    let state = worker.node.view().peer(peer).map(|peer| peer.state);
    // What it has seen is of use only if it was said before the session.
    if state != Some(State::Alive) || !worker.node.has_said_enough(peer) {
        return TICK;
    }
    match sync::to_fill(worker, peer).await {
        Some(account) if account.report.failed.is_some() => SHORT_MAX,
        // It is over, or the peer is busy with others.
        _ => SHORT_MIN,
    }
}
