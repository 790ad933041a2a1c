//! Proposals on this node: one at a time for each key, with ballots that were never used before; and identity writes for keys
//! of which it is not settled what is agreed on: a copy was refused because of a promise, or a proposal of this node's ended
//! with nobody knowing. Without the second, a change that was accepted after all would be told to no watcher until somebody
//! proposed for its key again.

use super::outside::{now, random};
use super::worker::Worker;
use crate::coordinator::{Electorate, Entrust, Kept, Propose, ProposeOptions, Turn, Turns};
use crate::placement::Partition;
use crate::protocol::{Answer, Decision, Reach, Refusal};
use crate::record::{Actor, Ballot, Key, Proposal, Record, Row, Stamp};
use crate::replica;
use crate::storage::{Address, Place};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::Bound;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Keys remembered. What is beyond is met again.
const CONTESTED_MAX: usize = 65_536;
/// How often it is looked whether there are any, how many are looked at, and how many are settled at a time.
const LOOK_PERIOD: Duration = Duration::from_millis(200);
const LOOKED_AT: usize = 1_024;
const AT_A_TIME: usize = 32;

/// Keys of which it is not settled what is agreed on: an identity write does that.
#[derive(Default)]
pub struct Contested(Mutex<BTreeSet<Key>>);

impl Contested {
    pub(super) fn note(&self, key: Key) {
        let mut keys = self.keys();
        if keys.len() < CONTESTED_MAX {
            keys.insert(key);
        }
    }

    /// Takes some keys that `can` be settled now, beginning behind `last`, and tells where to begin next; `None` for the
    /// beginning. Those that cannot stay.
    fn take(&self, last: Option<&Key>, can: impl Fn(&Key) -> bool) -> (Vec<Key>, Option<Key>) {
        let mut keys = self.keys();
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut some, mut seen, mut next) = (Vec::new(), 0, None);
        for key in keys.range::<Key, _>((from, Bound::Unbounded)) {
            if some.len() == AT_A_TIME || seen == LOOKED_AT {
                break;
            }
            seen += 1;
            next = Some(key);
            if can(key) {
                some.push(key.clone());
            }
        }
        let next = next.filter(|next| keys.last() != Some(next)).cloned();
        for key in &some {
            keys.remove(key);
        }
        (some, next)
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
        let place = self.place_for(key, &waiting).await;
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
            full: place.as_ref().err().cloned(),
        };
        let until = waiting.iter().map(|waiting| waiting.until).max().unwrap_or_else(now);
        let (proposals, told): (Vec<_>, Vec<_>) =
            waiting.into_iter().map(|waiting| (waiting.proposal, waiting.told)).unzip();
        let electorate = Electorate::of(&ring, Partition::of(key.position()));
        let propose = Propose::new(key.clone(), proposals, electorate, options);
        let Some(proposed) = self.run(propose, ring, until.saturating_duration_since(now())).await else {
            // The machine broke its word.
            let unknown = || Answer::Decided(Decision::Unknown { acked: 0, cause: None });
            node.contested.note(key.clone());
            told.into_iter().for_each(|told| told(unknown()));
            return None;
        };
        drop(place);
        proposer.used.set(proposer.used.get().max(proposed.used));
        node.told_agreed.tell(&node.feed, key, proposed.told);
        if proposed.decisions.iter().any(|decision| matches!(decision, Decision::Unknown { .. })) {
            node.contested.note(key.clone());
        }
        told.into_iter().zip(proposed.decisions).for_each(|(told, decision)| told(Answer::Decided(decision)));
        proposed.kept
    }

    /// A place for the key among those that this node keeps, where their number is limited and the key may get a value here. The
    /// node that proposes decides alone: were those asked that are to accept, some might and some not, and nobody would know.
    async fn place_for(&self, key: &Key, waiting: &[Waiting]) -> Result<Option<Place>, Refusal> {
        let Some(room) = &self.node.room else { return Ok(None) };
        let makes_value = |waiting: &Waiting| {
            waiting.proposal.as_ref().is_some_and(|asked| asked.edit.counts() || asked.edit.content().is_some())
        };
        if !waiting.iter().any(makes_value) {
            return Ok(None);
        }
        let row = self.read(&Address::data(key)).await.unwrap_or_default();
        let has_value = |row: Bytes| Row::decode(&row).is_ok_and(|row| !row.record.is_tombstone());
        match row.is_some_and(has_value) {
            true => Ok(None),
            false => room.propose(key.clone()).map(Some).map_err(|refused| replica::refusal(&refused)),
        }
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
            // It has a value already, wherever it comes from.
            full: None,
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

/// Settles what is contested, where a majority of the owners lives: where none does nothing can be settled, and to try would
/// make this node promise ballot upon ballot.
pub(super) fn settle_contested(worker: &Rc<Worker>) {
    let worker = worker.clone();
    actix_web::rt::spawn(async move {
        let node = worker.node.clone();
        let mut last = None;
        while !node.is_stopping() {
            let (ring, within) = (node.ring(), node.settings.timeout);
            let avoid = node.avoid(&ring);
            let (keys, next) = node.contested.take(last.as_ref(), |key| {
                let electorate = Electorate::of(&ring, Partition::of(key.position()));
                electorate.has_majority(|place| !avoid.contains(&electorate.members()[place]))
            });
            last = next;
            for key in keys {
                let within_ms = within.as_millis() as u32;
                let entrust = Entrust::new(key.clone(), None, Reach::Majority, &ring, &avoid, within_ms);
                let settled = worker.run(entrust, ring.clone(), within).await;
                if matches!(settled, None | Some(Decision::Unavailable { .. } | Decision::Unknown { .. })) {
                    node.contested.note(key);
                }
            }
            tokio::time::sleep(LOOK_PERIOD).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key::new(format!("{number:05}")).unwrap()
    }

    #[test]
    fn what_cannot_be_settled_now_stays_and_keeps_nobody_waiting() {
        let contested = Contested::default();
        assert_eq!(contested.take(None, |_| true), (vec![], None));
        (0..3_000).for_each(|number| contested.note(key(number)));
        let can = |known: &Key| *known >= key(2_000);
        let (mut last, mut settled, mut looks) = (None, Vec::new(), 0);
        while settled.len() < 1_000 {
            let (some, next) = contested.take(last.as_ref(), can);
            assert!(some.len() <= AT_A_TIME);
            settled.extend(some);
            last = next;
            looks += 1;
        }
        assert_eq!(settled, (2_000..3_000).map(key).collect::<Vec<_>>());
        assert!(looks <= 2 + 1_000 / AT_A_TIME + 1, "{looks} looks");
        assert_eq!(contested.keys().len(), 2_000, "the others wait");
        let (some, next) = contested.take(None, |_| true);
        assert_eq!((some.len(), next), (AT_A_TIME, Some(key(AT_A_TIME - 1))));
    }
}
