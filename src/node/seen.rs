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
use crate::protocol::{Evidence, SeenGroups};
use crate::record::{Actor, Context, Dot};
use crate::replica;
use crate::storage::{Change, ContextLedger, Said, Unconfirmed, contexts};
use std::sync::{Arc, Mutex, MutexGuard};

/// What was seen here and, as far as they said, at the peers. What is said is locked first, and as long as the contexts
/// learn or lose something by it: what was lost must not be learned again from what was found before.
#[derive(Clone, Default)]
pub struct SeenWrites {
    contexts: Arc<ContextLedger>,
    /// What the peers said.
    said: Arc<Mutex<Said>>,
}

impl SeenWrites {
    pub(super) fn new(contexts: Arc<ContextLedger>) -> SeenWrites {
        SeenWrites { contexts, said: Arc::default() }
    }

    /// What sessions found to be the same until now may have been lost since.
    pub(super) fn take_back(&self) {
        let mut said = self.said();
        said.lost(None);
        self.contexts.change(|contexts| contexts.take_back());
    }

    /// Rows were lost that nobody can name, of what was written under the name `present` among others.
    pub(super) fn forget(&self, present: Actor) {
        let mut said = self.said();
        said.lost(None);
        self.contexts.change(|contexts| contexts.forget(present));
    }

    pub(super) fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Shared {
    /// What this node has seen of the partitions that it shares with `peer`, which is `unbroken` by this number, and what it
    /// has handed over to it; unless that is what `known` stands for. Claims to have seen nothing while it knows of rows
    /// that cannot be read: they were seen, and are not there.
    pub(super) fn evidence_for(&self, peer: &str, unbroken: u64, known: u64) -> Option<Evidence> {
        let ring = self.ring();
        let other = ring.member_by_name(peer)?;
        let seen = match self.rot.status().waiting {
            0 => self.seen(&replica::shared(&ring, self.me(&ring), other)),
            _ => SeenGroups::new(),
        };
        let delivered = contexts::alike(ring.partitions_of(other), &self.hints.delivered(peer, unbroken));
        let evidence = Evidence { seen, delivered };
        (contexts::digest(&evidence) != known).then_some(evidence)
    }

    /// For people: how many actors this node has seen writes of, in the partition where it is most, and in how many
    /// partitions it has taken over what a peer had seen.
    pub fn seen_summary(&self) -> (usize, usize) {
        let all: Vec<Partition> = Partition::all().collect();
        let actors = self.seen(&all).iter().map(|(context, _)| context.entries().len()).max().unwrap_or(0);
        (actors, self.seen.contexts.look(|contexts| contexts.partitions_joined()))
    }

    /// What this node has seen of these partitions.
    pub fn seen(&self, partitions: &[Partition]) -> SeenGroups {
        let (last, present) = self.queue.committed();
        self.seen.contexts.look(|contexts| contexts.of_all(partitions, present, last))
    }

    /// What of `wanted` is known to have been seen in the partition. A row that is read after this was asked holds all of
    /// that, or had it superseded.
    pub fn seen_of(&self, partition: Partition, wanted: &Context) -> Vec<Dot> {
        let (last, present) = self.queue.committed();
        let dots = wanted.entries().iter().map(|&(actor, stamp)| Dot { stamp, actor });
        self.seen.contexts.look(|contexts| dots.filter(|dot| contexts.covers(partition, present, last, *dot)).collect())
    }
}

impl Worker {
    /// A session with `peer` ended, before which it had said `theirs` and so many `losses` were counted: that goes for every
    /// partition in which the two were found to hold the same, if the peer says so still, and nothing was lost since. After
    /// one that was `whole` it goes for all: whatever the peer held was brought here.
    pub(super) fn found_equal(
        &self,
        ring: &Ring,
        peer: MemberIndex,
        theirs: Option<SeenGroups>,
        losses: u64,
        report: &Report,
        whole: bool,
    ) {
        let (Some(theirs), None) = (theirs, &report.failed) else { return };
        let me = self.node.me(ring);
        let equal = contexts::spread(&theirs).filter(|(partition, context)| {
            let both = ring.is_holder(me, *partition) && ring.is_holder(peer, *partition);
            let is_news = || self.node.seen.contexts.look(|contexts| contexts.is_news(*partition, context));
            both && (whole || !report.unequal.contains(partition)) && is_news()
        });
        let news = equal.collect::<Vec<_>>();
        let mut said = self.node.seen.said();
        // Whoever loses something counts it first, and then has what was found taken back.
        if losses == self.node.completeness.losses() {
            said.found_equal(&ring.member(peer).name, news);
        }
    }

    /// `peer` was asked what it has seen when so much was `unconfirmed`, and has answered.
    pub(super) fn join_seen(&self, peer: &str, unconfirmed: Unconfirmed) {
        let mut said = self.node.seen.said();
        let asked = unconfirmed.len();
        let confirmed = said.answered(peer, unconfirmed);
        let is_all = confirmed.len() == asked;
        if !confirmed.is_empty() {
            self.node.seen.contexts.change(|contexts| {
                confirmed.iter().for_each(|(partition, context)| {
                    contexts.join(*partition, context);
                });
            });
            drop(said);
            self.keep_seen();
        } else {
            drop(said);
        }
        self.node.confirmed(peer, is_all);
    }

    /// `peer` says that this owner has all that it made under these names in its place, if nothing was lost here since this
    /// node said that it was `unbroken`.
    pub(super) fn join_delivered(&self, ring: &Ring, delivered: &SeenGroups, unbroken: u64) {
        let me = self.node.me(ring);
        let said = self.node.seen.said();
        // Whoever loses something counts it first, and then has what was joined taken back.
        if self.node.completeness.unbroken() != unbroken {
            return;
        }
        let own = contexts::spread(delivered).filter(|(partition, _)| ring.is_holder(me, *partition));
        let news: Vec<_> = self
            .node
            .seen
            .contexts
            .look(|contexts| own.filter(|(partition, names)| contexts.is_news(*partition, names)).collect());
        if !news.is_empty() {
            self.node.seen.contexts.change(|contexts| {
                for (partition, names) in &news {
                    contexts.join(*partition, names);
                }
            });
            drop(said);
            self.keep_seen();
        }
    }

    /// One that keeps these partitions no longer has seen so much of them, and all that it held is here now: whatever was
    /// superseded there is superseded here, and nobody else may be left who could say so.
    /// Not, if something was lost here since this node said that it was `unbroken`. Whether it is so.
    pub(super) fn take_over_seen(&self, ring: &Ring, seen: &SeenGroups, unbroken: u64) -> bool {
        let said = self.node.seen.said();
        // Whoever loses something counts it first, and then has what was joined taken back.
        if !contexts::is_within_bounds(seen) || self.node.completeness.unbroken() != unbroken {
            return false;
        }
        let me = self.node.me(ring);
        let kept = contexts::spread(seen).filter(|(partition, _)| ring.is_holder(me, *partition));
        let changed = self.node.seen.contexts.change(|contexts| {
            kept.fold(false, |changed, (partition, theirs)| contexts.join(partition, &theirs) || changed)
        });
        drop(said);
        if changed {
            self.keep_seen();
        }
        true
    }

    /// What the other owners said last that they have seen of the partition.
    pub(super) fn said_of(&self, ring: &Ring, partition: Partition) -> Vec<(MemberIndex, Context)> {
        let said = self.node.seen.said();
        let of = |owner: &MemberIndex| Some((*owner, said.of(&ring.member(*owner).name, partition)?.clone()));
        ring.holders(partition).iter().filter_map(of).collect()
    }

    /// A row of the partition was lost, and is to be replaced by all that these owners hold of its key, who had said so much
    /// before: what was seen there is no longer known to be held, but for what they have seen as well, if they say so still.
    pub(super) fn void_seen(&self, ring: &Ring, partition: Partition, from: &[(MemberIndex, Context)]) {
        // A session that is under way compares digests in which the row still is.
        self.node.completeness.count_loss();
        let mut said = self.node.seen.said();
        let (last, actor) = self.node.queue.committed();
        let seen = self.node.seen.contexts.look(|contexts| contexts.of(partition, actor, last));
        let from = from.iter().map(|(owner, theirs)| (ring.member(*owner).name.as_str(), theirs.clone()));
        said.replaced(partition, &seen, from);
        self.node.seen.contexts.change(|contexts| contexts.void(partition, actor));
        drop(said);
        self.keep_seen();
    }

    fn keep_seen(&self) {
        // Where it cannot be kept, less is known after a restart, which is never wrong.
        self.commit([(Change::KeepContexts, Box::new(|_| ()) as _)]);
    }
}
