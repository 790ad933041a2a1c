//! Whether this node counts: it greets its peers, hears what they remember of it, and is filled by sessions with them
//! where it lacks something.
//!
//! Greetings travel both ways, in the request and in its reply, and by a lane of their own: at once after the start,
//! until each peer was heard; then when something changed, as often as pings where it is only the last durable stamp.
//! They carry the clocks as well: a node that is ahead of most of its peers makes no writes of its own.

use super::foreground::Class;
use super::outside::{jittered, now, wall_ms};
use super::shared::Shared;
use super::sync;
use super::worker::Worker;
use crate::membership::{Clocks, Filling, Life, Memory, Stage, State, Why, Word};
use crate::operation::Failure;
use crate::placement::{Partition, Ring};
use crate::protocol::{Answer, Greeting, MemberTag, Refusal, Request};
use crate::storage::{Change, Committer, Outcome, Refused};
use serde_json::{Value, json};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Where the store says whether it was filled.
pub(super) const FILLING_FACT: &str = "filling";
/// Where the store keeps what is remembered of the peers' lives.
pub(super) const MEMORY_FACT: &str = "lives";

/// How long the start waits for peers that can be connected to and do not answer. A peer that starts at the same moment
/// on a busy machine should have its say.
const FIRST_ROUND_MAX: Duration = Duration::from_secs(2);
/// How often a peer is asked what it has seen, and greeted though there is nothing new to tell: twice in a round of
/// sessions, and at least so often. What may be forgotten goes by it, and should be forgotten in three rounds.
const CONTEXTS_PERIOD: Duration = Duration::from_secs(5);
/// The shortest and the longest wait before a peer is greeted again that did not answer, or that there is a later stamp
/// to tell: the time between two pings, within these.
const SHORT_MIN: Duration = Duration::from_millis(100);
const SHORT_MAX: Duration = Duration::from_secs(1);
/// For how long after its start a node is in a hurry to be heard.
const YOUNG_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether there is something to do.
const TICK: Duration = Duration::from_millis(50);

/// What a node knows of its own completeness and of its clock, and remembers of the others'.
pub struct Completeness {
    filling: Mutex<Filling>,
    memory: Mutex<Memory>,
    clocks: Mutex<Clocks>,
    /// Whether the peers' clocks say that this node's is wrong.
    is_ahead: AtomicBool,
    /// Whether it is filled, durably: what hot paths look at.
    counts: AtomicBool,
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
        let (filling, memory) = (Mutex::new(filling), Mutex::new(memory));
        Completeness {
            filling,
            memory,
            counts,
            clocks: Mutex::default(),
            is_ahead: AtomicBool::default(),
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

    /// Something that was held here is there no longer: from now on this node counts for nothing, until it is filled
    /// anew.
    pub(super) fn lost(&self) {
        let mut filling = self.filling();
        filling.lost();
        self.counts.store(filling.stage() == Stage::Filled, Ordering::Relaxed);
        self.count_loss();
    }

    /// What was compared before counts for nothing from now on.
    pub(super) fn count_loss(&self) {
        self.losses.fetch_add(1, Ordering::SeqCst);
    }

    /// The same, once the store says so as well, and with it what `also` is; where it cannot, nothing is lost yet.
    pub(super) fn lose(&self, committer: &mut Committer, also: Change) -> Result<(), Refused> {
        let bytes = self.filling().encode_lost().into();
        let says = Change::Fact { name: FILLING_FACT, bytes };
        committer.commit(wall_ms(), vec![says, also]).into_iter().collect::<Result<Vec<Outcome>, Refused>>()?;
        self.lost();
        Ok(())
    }

    /// Has the store say how this node stands, on the committer: what it said before is overtaken. A node that is filled
    /// counts from then on.
    fn keep(&self, committer: &mut Committer) {
        let (bytes, stage) = {
            let filling = self.filling();
            (filling.encode(), filling.stage())
        };
        let says = Change::Fact { name: FILLING_FACT, bytes: bytes.into() };
        let kept = committer.commit(wall_ms(), vec![says]).iter().all(Result::is_ok);
        // Under the lock: what is heard meanwhile comes after it.
        let filling = self.filling();
        // Where it could not be kept, `watch` tries again.
        self.unkept.store(!kept, Ordering::Relaxed);
        if kept && stage == Stage::Filled && filling.stage() == Stage::Filled {
            self.counts.store(true, Ordering::Relaxed);
        }
    }

    /// How often something was lost: what was compared before counts for nothing after.
    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Ordering::SeqCst)
    }

    /// Another number after each start and each loss.
    pub(super) fn unbroken(&self) -> u64 {
        self.entropy.wrapping_add(self.losses())
    }

    fn filling(&self) -> MutexGuard<'_, Filling> {
        self.filling.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn clocks(&self) -> MutexGuard<'_, Clocks> {
        self.clocks.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether the node still finds out, after its start, how it stands.
    pub fn is_asking(&self) -> bool {
        !self.filling().has_asked() || self.is_pending()
    }

    /// Whether it is filled, and that is not durable yet.
    fn is_pending(&self) -> bool {
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
    /// Whether this node owns the partition and does not hold it whole, so that its answers count for nothing.
    pub fn is_partial(&self, partition: Partition) -> bool {
        if self.completeness.counts.load(Ordering::Relaxed) {
            return false;
        }
        let ring = self.ring();
        let me = self.me(&ring);
        let filling = self.completeness.filling();
        // What is filled and not yet durably so may count a moment later.
        ring.is_owner(me, partition) && (filling.stage() != Stage::Filling || !filling.is_whole(&ring, me, partition))
    }

    /// Whether this node answers the request as an owner that counts for nothing in it.
    pub(super) fn answers_in_part(&self, request: &Request) -> bool {
        match request {
            _ if self.completeness.counts.load(Ordering::Relaxed) => false,
            Request::Write { key, .. }
            | Request::Merge { key, .. }
            | Request::Read { key }
            | Request::ReadSince { key, .. } => self.is_partial(Partition::of(key.position())),
            _ => false,
        }
    }

    /// Why this node makes no write of its own now, if `request` asks for one: another owner is to make it.
    pub(super) fn declines(&self, request: &Request) -> Option<Refusal> {
        if request.partitions_to_forget().any(|partition| self.is_partial(partition)) {
            // What it does not hold was perhaps never here, or lost: it knows of neither.
            return Some(Refusal::NotFilled);
        }
        let Request::Write { key, .. } = request else { return None };
        let completeness = &self.completeness;
        if self.is_partial(Partition::of(key.position())) {
            return Some(Refusal::NotFilled);
        }
        let is_ahead = completeness.is_ahead.load(Ordering::Relaxed);
        is_ahead.then(|| Refusal::ClockAhead { ahead_ms: completeness.clocks().ahead_ms() })
    }

    /// By how many milliseconds this node's time is ahead of most of its peers'.
    pub fn clock_ahead_ms(&self) -> u64 {
        self.completeness.clocks().ahead_ms()
    }

    /// Takes note of a peer's clock. What counts here is the time that the next stamp would have.
    fn note_clock(&self, peer: &str, peer_ms: u64) {
        let own_ms = wall_ms().max(self.queue.last_stamp().ms());
        let (is_ahead, ahead_ms) = {
            let mut clocks = self.completeness.clocks();
            clocks.note(peer, peer_ms, own_ms);
            (clocks.is_ahead(), clocks.ahead_ms())
        };
        if self.completeness.is_ahead.swap(is_ahead, Ordering::Relaxed) != is_ahead {
            match is_ahead {
                true => self.events.warn(
                    "clock",
                    format!("this node's time is {ahead_ms} ms ahead of most peers': it passes writes on to them"),
                ),
                false => self.events.info("clock", "this node's time is that of its peers again: it takes writes"),
            }
        }
    }

    /// Whether this node counts, as far as it may tell `peer`: which must have said before what it remembers, or it would
    /// take this store for the one it knew.
    fn counts_for(&self, peer: &str) -> bool {
        self.completeness.counts.load(Ordering::Relaxed) && self.completeness.filling().has_heard(peer)
    }

    /// The last life of `peer` that counted, as far as this node remembers.
    pub fn remembered(&self, peer: &str) -> Option<Life> {
        self.completeness.memory().of(peer)
    }

    fn greeting_for(&self, peer: &str) -> Greeting {
        let nothing = Partition::all()
            .all(|at| self.forest.is_built(at) && self.forest.live(at) == 0 && self.forest.tombstones(at) == 0);
        let holds = !nothing || !self.hints.status().is_empty();
        let word = Word { filled: self.counts_for(peer), holds, born: self.completeness.filling().is_born() };
        let remembered = self.remembered(peer);
        let (from, durable) = (MemberTag::of(&self.name), self.store.last_stamp());
        let unbroken = self.completeness.unbroken();
        Greeting { from, id: self.id, word, durable, wall_ms: wall_ms(), remembered, unbroken, evidence: None }
    }

    /// A session with `peer` about everything that both keep, that passed over nothing, ended well. Since it began nothing
    /// may have been lost.
    pub(super) fn compared(&self, peer: &str, losses: u64) {
        let ring = self.ring();
        let mut filling = self.completeness.filling();
        if losses != self.completeness.losses() {
            return;
        }
        filling.compared(peer, &ring, self.me(&ring));
    }
}

fn member_of(ring: &Ring, tag: MemberTag) -> Option<&str> {
    let names = ring.layout().members().iter().map(|member| member.name.as_str());
    names.into_iter().find(|name| MemberTag::of(name) == tag)
}

impl Worker {
    /// Takes note of a greeting, and says how this node stands. If it counts now, it does so before it answers: who has
    /// greeted everybody may rely on it.
    pub(super) fn greeted(&self, greeting: &Greeting, told: impl FnOnce(Answer) + 'static) {
        let ring = self.node.ring();
        let Some(peer) = member_of(&ring, greeting.from).filter(|peer| *peer != self.node.name) else {
            return told(Answer::Refused(Refusal::OtherNode));
        };
        self.take_greeting(peer, greeting);
        let (node, peer) = (self.node.clone(), peer.to_string());
        let (wanted, unbroken) = (greeting.evidence, greeting.unbroken);
        let answer = move || {
            let evidence = wanted.and_then(|known| node.evidence_for(&peer, unbroken, known));
            told(Answer::Greeted { greeting: node.greeting_for(&peer), evidence });
        };
        if self.node.completeness.is_pending() { self.stage_changed(answer) } else { answer() }
    }

    fn take_greeting(&self, peer: &str, greeting: &Greeting) {
        let completeness = &self.node.completeness;
        {
            let mut view = self.node.view();
            if view.peer(peer).and_then(|known| known.id).is_some_and(|known| known != greeting.id) {
                // Another store answers there: what is meant for the one before would be refused.
                view.forget_id(peer);
            }
        }
        self.node.note_clock(peer, greeting.wall_ms);
        self.node.seen.said().note_unbroken(peer, greeting.unbroken);
        let changed = completeness.filling().heard(peer, greeting.word, greeting.remembered);
        if changed {
            self.stage_changed(|| ());
        }
        if greeting.word.filled {
            let mut memory = completeness.memory();
            if memory.note(peer, Life { id: greeting.id, stamp: greeting.durable }) {
                let change = Change::Fact { name: MEMORY_FACT, bytes: memory.encode().into() };
                // Where it cannot be kept now, the next one that is due will be.
                self.commit([(change, Box::new(|_| ()) as _)]);
            }
        }
    }

    fn tell_why(&self) {
        let why = self.node.completeness.filling().why();
        if let Some(why) = why {
            self.node.events.warn("filling", format!("this node counts for no majority until it is filled: {why}"));
        }
    }

    /// Makes the stage durable, and lets the node count only then; `then` runs when it does, or cannot.
    fn stage_changed(&self, then: impl FnOnce() + 'static) {
        if self.node.completeness.filling().stage() != Stage::Filled {
            self.node.completeness.counts.store(false, Ordering::Relaxed);
            self.tell_why();
        }
        self.keep_stage(then);
    }

    fn keep_stage(&self, then: impl FnOnce() + 'static) {
        let completeness = self.node.completeness.clone();
        let (tell, told) = oneshot::channel();
        self.node.queue.between_batches(Box::new(move |committer| {
            completeness.keep(committer);
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
    let ring = worker.node.ring();
    for member in ring.layout().members().iter().filter(|member| member.name != worker.node.name) {
        actix_web::rt::spawn(greet_for_ever(worker.clone(), member.name.clone()));
    }
    actix_web::rt::spawn(watch(worker.clone()));
}

/// Greets one peer: until it was heard, whenever this node has something new to say of itself, and now and then.
async fn greet_for_ever(worker: Rc<Worker>, peer: String) {
    let node = worker.node.clone();
    let mut asked_contexts = None::<Instant>;
    let contexts_period = (node.settings.sync_period / 2).min(CONTEXTS_PERIOD);
    while !node.is_stopping() {
        let is_young = now().duration_since(node.started) < YOUNG_MAX;
        let short = if is_young { SHORT_MIN } else { node.settings.ping_period.clamp(SHORT_MIN, SHORT_MAX) };
        let wants_contexts = node.seen.said().is_unconfirmed(&peer)
            || asked_contexts.is_none_or(|asked| now().duration_since(asked) >= contexts_period);
        let told = greet(&worker, &peer, wants_contexts).await;
        let said = now();
        if wants_contexts && told.is_some() {
            asked_contexts = Some(said);
        }
        loop {
            tokio::time::sleep(jittered(TICK)).await;
            let waited = now().duration_since(said);
            let is_due = match &told {
                Some(told) => {
                    told.word.filled != node.counts_for(&peer)
                        || (told.durable != node.store.last_stamp() || node.seen.said().is_unconfirmed(&peer))
                            && waited >= short
                        || waited >= contexts_period.max(short)
                }
                None => waited >= short,
            };
            if is_due || node.is_stopping() {
                break;
            }
        }
    }
}

/// One greeting; what this node said of itself, if it was answered.
async fn greet(worker: &Rc<Worker>, peer: &str, wants_contexts: bool) -> Option<Greeting> {
    let node = &worker.node;
    let ring = node.ring();
    let to = ring.member_by_name(peer)?;
    let mut greeting = node.greeting_for(peer);
    greeting.evidence = wants_contexts.then(|| node.seen.said().digest_of(peer));
    let unconfirmed = node.seen.said().unconfirmed(peer);
    let (tell, told) = oneshot::channel();
    let answered = move |result: Result<Answer, Failure>| {
        let _ = tell.send(result);
    };
    worker.send(
        &ring,
        to,
        Request::Greet(greeting),
        Class::Foreground,
        now() + node.settings.timeout,
        Box::new(answered),
    );
    match told.await {
        Ok(Ok(Answer::Greeted { greeting: answer, evidence })) if answer.from == MemberTag::of(peer) => {
            worker.take_greeting(peer, &answer);
            if let Some(evidence) = evidence {
                worker.join_delivered(&ring, &evidence.delivered, greeting.unbroken);
                node.seen.said().note(peer, evidence);
            }
            if wants_contexts {
                worker.join_seen(peer, unconfirmed);
            }
            Some(greeting)
        }
        Ok(Err(Failure::Unreachable)) => {
            let changed = node.completeness.filling().silent(peer);
            if changed {
                worker.stage_changed(|| ());
            }
            None
        }
        _ => None,
    }
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
        let (stage, wanted) = {
            let filling = node.completeness.filling();
            (filling.stage(), filling.to_compare())
        };
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
    if state != Some(State::Alive) {
        return TICK;
    }
    match sync::to_fill(worker, peer).await {
        Some(account) if account.report.failed.is_some() => SHORT_MAX,
        // It is over, or the peer is busy with others.
        _ => SHORT_MIN,
    }
}
