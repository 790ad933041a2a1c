//! Which writes this node has seen, partition by partition: kept durably, told to peers in greetings, and joined with
//! theirs when a session finds that both hold the same rows.
//!
//! What a peer says rides on the reply to a greeting, now and then and where it is news, so that a session between
//! equals stays one small request. It is joined once a session that began later found the same rows, and the peer says
//! so still after that: see [`Said`].

use super::shared::Shared;
use super::worker::Worker;
use crate::antientropy::Report;
use crate::placement::{MemberIndex, Partition, Ring};
use crate::protocol::SeenGroups;
use crate::record::Actor;
use crate::replica;
use crate::storage::{Change, Contexts, Said, Unconfirmed, contexts};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard};

/// Where the store keeps them.
pub(super) const CONTEXTS_FACT: &str = "contexts";

/// What was seen here and, as far as they said, at the peers.
#[derive(Default)]
pub struct SeenWrites {
    contexts: Mutex<Contexts>,
    /// What the peers said.
    said: Mutex<Said>,
}

impl SeenWrites {
    pub(super) fn new(contexts: Contexts) -> SeenWrites {
        SeenWrites { contexts: Mutex::new(contexts), said: Mutex::default() }
    }

    fn contexts(&self) -> MutexGuard<'_, Contexts> {
        self.contexts.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Shared {
    /// What this node has seen of the partitions that it shares with `peer`, unless that is what `known` stands for. Claims
    /// nothing while it knows of rows that cannot be read: they were seen, and are not there.
    pub(super) fn seen_with(&self, peer: &str, known: u64) -> Option<SeenGroups> {
        let ring = self.ring();
        let other = ring.member_by_name(peer)?;
        let groups = match self.rot.status().waiting {
            0 => self.seen(&replica::shared(&ring, self.me(&ring), other)),
            _ => SeenGroups::new(),
        };
        (contexts::digest(&groups) != known).then_some(groups)
    }

    /// For people: how many actors this node has seen writes of, in the partition where it is most, and in how many
    /// partitions it has taken over what a peer had seen.
    pub fn seen_summary(&self) -> (usize, usize) {
        let all: Vec<Partition> = Partition::all().collect();
        let actors = self.seen(&all).iter().map(|(context, _)| context.entries().len()).max().unwrap_or(0);
        (actors, self.seen.contexts().partitions_joined())
    }

    /// Rows were lost that nobody can name. What the store is to say of what it has seen, from now on.
    pub(super) fn forget_seen(&self) -> Vec<u8> {
        self.seen.said().lost(None);
        let mut contexts = self.seen.contexts();
        contexts.forget(Actor(self.queue.actor.load(Ordering::Acquire)));
        contexts.encode()
    }

    /// What this node has seen of these partitions.
    pub fn seen(&self, partitions: &[Partition]) -> SeenGroups {
        let (last, present) = self.queue.committed();
        self.seen.contexts().of_all(partitions, present, last)
    }
}

impl Worker {
    /// A session with `peer` ended, before which it had said `theirs`: that goes for every partition in which the two were
    /// found to hold the same, if the peer says so still.
    pub(super) fn found_equal(&self, ring: &Ring, peer: MemberIndex, theirs: Option<SeenGroups>, report: &Report) {
        let (Some(theirs), None) = (theirs, &report.failed) else { return };
        let me = self.node.me(ring);
        let news = {
            let contexts = self.node.seen.contexts();
            let equal = contexts::spread(&theirs).filter(|(partition, context)| {
                let both = ring.is_owner(me, *partition) && ring.is_owner(peer, *partition);
                both && !report.unequal.contains(partition) && contexts.is_news(*partition, context)
            });
            equal.collect::<Vec<_>>()
        };
        self.node.seen.said().found_equal(&ring.member(peer).name, news);
    }

    /// `peer` was asked what it has seen when so much was `unconfirmed`, and has answered.
    pub(super) fn join_seen(&self, peer: &str, unconfirmed: Unconfirmed) {
        let confirmed = self.node.seen.said().answered(peer, unconfirmed);
        let mut contexts = self.node.seen.contexts();
        let mut news = false;
        for (partition, context) in confirmed {
            news |= contexts.join(partition, &context);
        }
        if news {
            self.keep_seen(&contexts);
        }
    }

    /// A row of the partition was lost: what was seen there is no longer known to be held.
    pub(super) fn void_seen(&self, partition: Partition) {
        self.node.seen.said().lost(Some(partition));
        let mut contexts = self.node.seen.contexts();
        contexts.void(partition, Actor(self.node.queue.actor.load(Ordering::Acquire)));
        self.keep_seen(&contexts);
    }

    fn keep_seen(&self, contexts: &Contexts) {
        let change = Change::Fact { name: CONTEXTS_FACT, bytes: contexts.encode().into() };
        // Where it cannot be kept, less is known after a restart, which is never wrong.
        self.commit([(change, Box::new(|_| ()) as _)]);
    }
}
