//! Proposals on this node: one at a time for each key, with ballots that were never used before; and identity writes for keys
//! of which a copy was refused because of a promise.

use super::outside::{now, random};
use super::worker::Worker;
use crate::coordinator::{Electorate, Entrust, Kept, Propose, ProposeOptions, Turn, Turns};
use crate::placement::Partition;
use crate::protocol::{Answer, Decision, Reach, Refusal};
use crate::record::{Actor, Ballot, Key, Proposal, Record, Stamp};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Keys remembered whose copies disagree with a promise. What is beyond is met again.
const CONTESTED_MAX: usize = 65_536;
/// How often it is looked whether there are any, and how many are settled at a time.
const LOOK_PERIOD: Duration = Duration::from_millis(200);
const AT_A_TIME: usize = 32;

/// Keys of which a copy was refused because of a promise: an identity write settles what is agreed on.
#[derive(Default)]
pub struct Contested(Mutex<BTreeSet<Key>>);

impl Contested {
    pub(super) fn note(&self, key: Key) {
        let mut keys = self.keys();
        if keys.len() < CONTESTED_MAX {
            keys.insert(key);
        }
    }

    fn keys(&self) -> MutexGuard<'_, BTreeSet<Key>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What one worker needs to propose.
pub(super) struct Proposer {
    /// The name of its ballots: new with every start, as no other proposer may ever have used it.
    actor: Actor,
    /// The latest stamp that any of its ballots has had.
    used: Cell<Stamp>,
    turns: RefCell<Turns<Waiting>>,
}

/// A proposal that waits for its turn.
struct Waiting {
    proposal: Option<Proposal>,
    reach: Reach,
    until: Instant,
    told: Box<dyn FnOnce(Answer)>,
}

impl Default for Proposer {
    fn default() -> Proposer {
        Proposer { actor: Actor(random()), used: Cell::default(), turns: RefCell::default() }
    }
}

impl Worker {
    /// Has the owners of `key`, of which this node is one, agree; concludes within `within_ms`.
    pub(super) fn propose(
        self: &Rc<Self>,
        key: Key,
        proposal: Option<Box<Proposal>>,
        reach: Reach,
        within_ms: u32,
        told: impl FnOnce(Answer) + 'static,
    ) {
        let until = now() + Duration::from_millis(within_ms.into()).min(self.node.settings.timeout);
        let waiting = Waiting { proposal: proposal.map(|proposal| *proposal), reach, until, told: Box::new(told) };
        let came = self.proposer.turns.borrow_mut().come(&key, waiting);
        match came {
            Turn::Now(first, kept) => drop(actix_web::rt::spawn(self.clone().take_turns(key, vec![first], kept))),
            Turn::Waits => {}
            Turn::Full(waiting) => (waiting.told)(Answer::Refused(Refusal::Overloaded)),
        }
    }

    /// Proposes for these, and then for those who have come meanwhile, until nobody waits.
    async fn take_turns(self: Rc<Self>, key: Key, first: Vec<Waiting>, kept: Option<Kept>) {
        let mut next = Some((first, kept));
        while let Some((waiting, mut kept)) = next {
            let (waiting, late): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|waiting| waiting.until > now());
            late.into_iter().for_each(|waiting| (waiting.told)(Answer::Refused(Refusal::TooLate)));
            if !waiting.is_empty() {
                kept = self.run_proposals(&key, waiting, kept).await;
            }
            next = self.proposer.turns.borrow_mut().end(&key, kept, |one, other| one.reach == other.reach);
        }
    }

    async fn run_proposals(self: &Rc<Self>, key: &Key, waiting: Vec<Waiting>, kept: Option<Kept>) -> Option<Kept> {
        let (node, proposer) = (&self.node, &self.proposer);
        // A ballot of a time to come would be promised here and nowhere else, until then.
        if let Some(refusal) = node.is_ahead() {
            waiting.into_iter().for_each(|waiting| (waiting.told)(Answer::Refused(refusal.clone())));
            return kept;
        }
        let (ring, now_stamp) = (node.ring(), node.now_stamp());
        let stamp = proposer.used.get().max(now_stamp).following();
        proposer.used.set(stamp);
        let options = ProposeOptions {
            reach: waiting.first().map_or(Reach::Majority, |first| first.reach),
            ballot: Ballot { stamp, actor: proposer.actor },
            now: now_stamp,
            kept,
            epoch: ring.epoch(),
            avoid: node.avoid(&ring),
            chance: random(),
        };
        let until = waiting.iter().map(|waiting| waiting.until).max().unwrap_or_else(now);
        let (proposals, told): (Vec<_>, Vec<_>) =
            waiting.into_iter().map(|waiting| (waiting.proposal, waiting.told)).unzip();
        let electorate = Electorate::of(&ring, Partition::of(key.position()));
        let propose = Propose::new(key.clone(), proposals, electorate, options);
        let Some(proposed) = self.run(propose, ring, until.saturating_duration_since(now())).await else {
            // The machine broke its word.
            let unknown = || Answer::Decided(Decision::Unknown { acked: 0, cause: None });
            told.into_iter().for_each(|told| told(unknown()));
            return None;
        };
        proposer.used.set(proposer.used.get().max(proposed.used));
        node.told_agreed.tell(&node.feed, key, proposed.told);
        told.into_iter().zip(proposed.decisions).for_each(|(told, decision)| told(Answer::Decided(decision)));
        proposed.kept
    }
}

impl Worker {
    /// Has the owners of `key` agree on what they hold, and on a copy of it from elsewhere, which counts like an acceptor's.
    /// This node need not be an owner. Concludes within `within`.
    pub(super) async fn agree_on_copy(self: &Rc<Self>, key: &Key, copy: Record, within: Duration) -> Decision {
        let unavailable = |cause| Decision::Unavailable { answered: 0, cause };
        let node = &self.node;
        if let Some(refusal) = node.is_ahead() {
            return unavailable(Some(refusal));
        }
        let (ring, now_stamp) = (node.ring(), node.now_stamp());
        let accepted = copy.context().ballot().map_or(Stamp::default(), |ballot| ballot.stamp);
        let options = ProposeOptions {
            reach: Reach::Majority,
            // A name of its own: the key's other proposals of this node wait for one another, and not for this one.
            ballot: Ballot { stamp: now_stamp.max(accepted).following(), actor: Actor(random()) },
            now: now_stamp,
            kept: None,
            epoch: ring.epoch(),
            avoid: node.avoid(&ring),
            chance: random(),
        };
        let electorate = Electorate::of(&ring, Partition::of(key.position()));
        let propose = Propose::new(key.clone(), vec![None], electorate, options).bringing(copy);
        let unknown = Decision::Unknown { acked: 0, cause: None };
        let decision = match self.run(propose, ring, within).await {
            Some(proposed) => {
                node.told_agreed.tell(&node.feed, key, proposed.told);
                proposed.decisions.into_iter().next().unwrap_or(unknown)
            }
            // The machine broke its word.
            None => unknown,
        };
        if matches!(decision, Decision::Unknown { .. }) {
            // What was accepted of it, if anything was, is settled once it can be.
            node.contested.note(key.clone());
        }
        decision
    }
}

/// Settles keys of which a copy was refused because of a promise.
pub(super) fn settle_contested(worker: &Rc<Worker>) {
    let worker = worker.clone();
    actix_web::rt::spawn(async move {
        let node = worker.node.clone();
        while !node.is_stopping() {
            let keys: Vec<Key> = {
                let mut contested = node.contested.keys();
                let some: Vec<Key> = contested.iter().take(AT_A_TIME).cloned().collect();
                contested.retain(|key| !some.contains(key));
                some
            };
            for key in keys {
                let ring = node.ring();
                let within_ms = node.settings.timeout.as_millis() as u32;
                let entrust = Entrust::new(key, None, Reach::Majority, &ring, &node.avoid(&ring), within_ms);
                // What is not settled now is met again by whoever brings the copy again.
                worker.run(entrust, ring, node.settings.timeout).await;
            }
            tokio::time::sleep(LOOK_PERIOD).await;
        }
    });
}
