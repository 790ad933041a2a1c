//! Whose answers count: this node's as an owner, and those of others, as far as is known here.

use super::shared::Shared;
use crate::membership::Stage;
use crate::placement::{MemberIndex, Partition, Ring};
use crate::protocol::{Refusal, Request};

impl Shared {
    /// Whether this node owns the partition and does not hold it whole, so that its answers count for nothing.
    pub fn is_partial(&self, partition: Partition) -> bool {
        if self.completeness.counts() {
            return !self.counts_as_heir(partition);
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
            Request::Confirm { key, .. } => {
                let ring = self.ring();
                !self.completeness.may_vote() && ring.is_owner(self.me(&ring), Partition::of(key.position()))
            }
            _ if self.completeness.counts() && !self.is_changing() => false,
            Request::Write { key, .. }
            | Request::Merge { key, .. }
            | Request::Read { key }
            | Request::ReadSince { key, .. } => self.is_partial(Partition::of(key.position())),
            _ => false,
        }
    }

    /// Why this node makes no write of its own now, if `request` asks for one: another owner is to make it.
    pub(super) fn declines(&self, request: &Request) -> Option<Refusal> {
        if request.partitions_to_forget().any(|partition| self.is_partial(partition) || self.takes_in(partition)) {
            // What it does not hold was perhaps never here, or lost: it knows of neither.
            return Some(Refusal::NotFilled);
        }
        let is_for_others = matches!(request, Request::Hint { .. } | Request::HintWrite { .. });
        if is_for_others && !self.is_member() {
            return Some(Refusal::NotAMember);
        }
        let key = match request {
            Request::Write { key, .. } => key,
            Request::Prepare { key, .. } | Request::Accept { key, .. } | Request::Propose { key, .. } => {
                if !self.completeness.may_vote() {
                    return Some(Refusal::NotFilled);
                }
                key
            }
            _ => return None,
        };
        if self.is_partial(Partition::of(key.position())) {
            return Some(Refusal::NotFilled);
        }
        if let Request::Prepare { .. } | Request::Accept { .. } = request {
            return None;
        }
        self.is_ahead()
    }

    /// Whether this node counts, as far as it may tell `peer`: which must have said before what it remembers, or it would
    /// take this store for the one it knew.
    pub(super) fn counts_for(&self, peer: &str) -> bool {
        self.completeness.counts() && self.completeness.filling().has_heard(peer)
    }

    /// Whether this member counts as an owner, as far as is known here: it lives, and holds what an owner should.
    pub(super) fn is_sound(&self, ring: &Ring, avoid: &[MemberIndex], member: MemberIndex) -> bool {
        match member == self.me(ring) {
            true => self.completeness.counts(),
            false => !avoid.contains(&member) && self.completeness.filling().is_filled(&ring.member(member).name),
        }
    }
}
