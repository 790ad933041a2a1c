//! Greetings: what nodes tell each other of themselves and remember of one another, and which writes they have seen.
//!
//! They travel both ways, in the request and in its reply, and by a lane of their own: at once after the start, until each
//! peer was heard; then when something changed, as often as pings where it is only the last durable stamp. They carry the
//! clocks as well: a node that is ahead of most of its peers makes no writes of its own, and one that is behind says so.

use super::filling::{MEMORY_FACT, SHORT_MAX, SHORT_MIN, TICK};
use super::foreground::Class;
use super::outside::{jittered, now, wall_ms};
use super::shared::Shared;
use super::worker::Worker;
use crate::membership::{ClockState, Life, OwnTime, Word};
use crate::operation::Failure;
use crate::placement::{Partition, Ring};
use crate::protocol::{Answer, Greeting, MemberTag, Refusal, Request};
use crate::storage::Change;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How often a peer is asked what it has seen, and greeted though there is nothing new to tell: twice in a round of
/// sessions, and at least so often. What may be forgotten goes by it, and should be forgotten in three rounds.
const CONTEXTS_PERIOD: Duration = Duration::from_secs(5);
/// For how long after its start a node is in a hurry to be heard.
const YOUNG_MAX: Duration = Duration::from_secs(10);

impl Shared {
    /// By how many milliseconds this node's time is ahead of most of its peers'.
    pub fn clock_ahead_ms(&self) -> u64 {
        self.completeness.clocks().ahead_ms(self.own_time())
    }

    /// By how many milliseconds it is behind that of most of them.
    pub fn clock_behind_ms(&self) -> u64 {
        self.completeness.clocks().behind_ms(self.own_time())
    }

    /// The time that the next stamp would have.
    fn own_time(&self) -> OwnTime {
        let stamp_ms = wall_ms().max(self.queue.last_stamp().ms());
        OwnTime { stamp_ms, steady_ms: self.uptime().as_millis() as u64 }
    }

    /// Why this node makes no stamps now, if most peers would refuse them.
    pub(super) fn is_ahead(&self) -> Option<Refusal> {
        let (own, clocks) = (self.own_time(), self.completeness.clocks());
        clocks.is_ahead(own).then(|| Refusal::ClockAhead { ahead_ms: clocks.ahead_ms(own) })
    }

    /// Takes note of a peer's clock.
    fn note_clock(&self, peer: &str, peer_ms: u64) {
        let own = self.own_time();
        let (state, ahead_ms, behind_ms) = {
            let mut clocks = self.completeness.clocks();
            clocks.note(peer, peer_ms, own);
            (clocks.state(own), clocks.ahead_ms(own), clocks.behind_ms(own))
        };
        if self.completeness.note_clock_state(state) {
            match state {
                ClockState::Ahead => self.events.warn(
                    "clock",
                    format!("this node's time is {ahead_ms} ms ahead of most peers': it passes writes on to them"),
                ),
                ClockState::Behind => self.events.warn(
                    "clock",
                    format!("this node's time is {behind_ms} ms behind most peers': it refuses what they have written"),
                ),
                ClockState::Even => self.events.info(
                    "clock",
                    "this node's time is that of its peers again: it takes writes, and what they have written",
                ),
            }
        }
    }

    /// The last life of `peer` that counted, as far as this node remembers.
    pub fn remembered(&self, peer: &str) -> Option<Life> {
        self.completeness.memory().of(peer)
    }

    fn greeting_for(&self, peer: &str) -> Greeting {
        let nothing = Partition::all()
            .all(|at| self.forest.is_built(at) && self.forest.live(at) == 0 && self.forest.tombstones(at) == 0);
        let holds = !nothing || !self.hints.status().is_empty();
        let (filled, filling) = (self.counts_for(peer), self.completeness.filling());
        let word = Word { filled, holds, born: filling.is_born(), current: filling.is_current() };
        drop(filling);
        let remembered = self.remembered(peer);
        let (from, durable) = (MemberTag::of(&self.name), self.store.last_stamp());
        let unbroken = self.completeness.unbroken();
        Greeting { from, id: self.id, word, durable, wall_ms: wall_ms(), remembered, unbroken, evidence: None }
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
        let is_another = |id| ring.member_by_id(id).is_some_and(|member| ring.member(member).name != self.node.name);
        if greeting.remembered.is_some_and(|life| is_another(life.id)) {
            // It was meant for who was at this address before: what is remembered of that one says nothing of this.
            return told(Answer::Refused(Refusal::OtherNode));
        }
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
        let (changed, is_confirmed) = {
            let mut filling = completeness.filling();
            let changed = filling.heard(peer, greeting.word, greeting.remembered);
            (changed, filling.is_confirmed())
        };
        completeness.note_confirmed(is_confirmed);
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
}

/// Greets one peer as long as both are members: until it was heard, whenever this node has something new to say of itself,
/// and now and then.
pub(super) async fn greet_while_member(worker: Rc<Worker>, peer: String) {
    let node = worker.node.clone();
    let mut asked_contexts = None::<Instant>;
    let mut asked_under = node.epoch();
    let is_member = || {
        let ring = node.ring();
        ring.guest().is_none() && ring.member_by_name(&peer).is_some()
    };
    let contexts_period = (node.settings.sync_period / 2).min(CONTEXTS_PERIOD);
    while !node.is_stopping() && is_member() {
        if asked_under != node.epoch() {
            // It may be asked of other partitions now.
            (asked_contexts, asked_under) = (None, node.epoch());
        }
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
                        || asked_under != node.epoch()
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
    let until = now() + node.settings.timeout;
    match worker.answered(&ring, to, Request::Greet(greeting), Class::Foreground, until).await {
        Some(Ok(Answer::Greeted { greeting: answer, evidence })) if answer.from == MemberTag::of(peer) => {
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
        Some(Err(Failure::Unreachable)) => {
            let changed = node.completeness.filling().silent(peer);
            if changed {
                worker.stage_changed(|| ());
            }
            None
        }
        _ => None,
    }
}
