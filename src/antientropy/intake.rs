//! `Intake`: what a node is to keep and does not hold whole yet, while owners change.
//!
//! A partition that this node is to own is taken in by sessions with its owners, each about everything that both keep. It
//! is whole once more than half of its owners were compared with, all in the epoch in which the change began: whatever was
//! acknowledged before that epoch is on one of those, and whatever came later was written here as well. Only then may reads
//! turn to the new owners. A session that began before does not count, as an owner that did not know of the change might
//! have taken a write after it. Diego Ongaro, "Consensus: Bridging Theory and Practice" (2014), §4.2.1, has new servers
//! catch up before they count, for the same reason.

use crate::placement::{MemberIndex, Partition, Phase, Ring};
use std::collections::BTreeSet;

/// What is left to be taken in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Intake {
    epoch: u64,
    /// What is taken in, and was not held before.
    partitions: BTreeSet<Partition>,
    /// Those of them of which nothing was here when the change began: the copy of a write counts there from the start, as
    /// nothing that was superseded elsewhere can be among it, nor anything be forgotten that was promised.
    clean: BTreeSet<Partition>,
    /// Owners that were compared with.
    compared: BTreeSet<MemberIndex>,
    /// How often this node had lost something by then.
    losses: u64,
}

impl Intake {
    /// What the ring of a layout asks of `me`. `is_empty` says whether nothing is held of a partition.
    pub fn of(ring: &Ring, me: MemberIndex, is_empty: impl Fn(Partition) -> bool) -> Intake {
        let is_filling = ring.layout().change().is_some_and(|change| change.phase() == Phase::Filling);
        let gained = |partition: &&Partition| is_filling && !ring.is_owner(me, **partition);
        let partitions: BTreeSet<Partition> = ring.partitions_of(me).iter().filter(gained).copied().collect();
        let clean = partitions.iter().copied().filter(|partition| is_empty(*partition)).collect();
        Intake { epoch: ring.epoch(), partitions, clean, ..Intake::default() }
    }

    /// The same after a start: what was compared is not known any more, but of what nothing was here when the change began
    /// is, by what [`Intake::encode`] wrote then. All that came since is here, and all that was promised.
    pub fn resumed(ring: &Ring, me: MemberIndex, kept: Option<&[u8]>) -> Intake {
        let kept = kept.and_then(|bytes| postcard::from_bytes::<(u64, BTreeSet<Partition>)>(bytes).ok());
        let clean = kept.filter(|(epoch, _)| *epoch == ring.epoch()).map(|(_, clean)| clean).unwrap_or_default();
        Intake::of(ring, me, |partition| clean.contains(&partition))
    }

    /// What the store is to keep for [`Intake::resumed`].
    pub fn encode(&self) -> Vec<u8> {
        // Numbers always have a form.
        postcard::to_stdvec(&(self.epoch, &self.clean)).unwrap_or_default()
    }

    /// The epoch it belongs to.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What it was carried over to by the very next epoch, if that changes nothing about who owns what: compared stays
    /// compared, as every owner that was then knew of the change. Between others the change may have been given up and begun
    /// anew, and what was written meanwhile came to the owners alone.
    pub fn carried_over(mut self, next: Intake) -> Intake {
        let is_next = self.epoch.checked_add(1) == Some(next.epoch);
        if is_next && self.partitions == next.partitions && !self.partitions.is_empty() {
            self.epoch = next.epoch;
            return self;
        }
        Intake { losses: self.losses, ..next }
    }

    /// A session with this owner about everything that both keep ended well.
    pub fn compared(&mut self, owner: MemberIndex) {
        self.compared.insert(owner);
    }

    /// This node has lost something so often since it started: what was compared before the last time counts for nothing.
    pub fn note_losses(&mut self, losses: u64) {
        if std::mem::replace(&mut self.losses, losses) != losses {
            self.compared.clear();
            self.clean.clear();
        }
    }

    /// Whether the partition is to be taken in and is not whole yet.
    pub fn lacks(&self, ring: &Ring, partition: Partition) -> bool {
        self.partitions.contains(&partition) && !self.is_whole(ring, partition)
    }

    /// Whether a copy of a write, or a vote, counts here though the partition may not be whole yet.
    pub fn counts(&self, ring: &Ring, partition: Partition) -> bool {
        self.clean.contains(&partition) || !self.lacks(ring, partition)
    }

    fn is_whole(&self, ring: &Ring, partition: Partition) -> bool {
        let owners = ring.owners(partition);
        2 * owners.iter().filter(|owner| self.compared.contains(owner)).count() > owners.len()
    }

    /// The partitions that are not whole yet.
    pub fn lacking<'a>(&'a self, ring: &'a Ring) -> impl Iterator<Item = Partition> + 'a {
        self.partitions.iter().copied().filter(|partition| !self.is_whole(ring, *partition))
    }

    /// The owners that a session is still needed with, the one that most is lacked from first.
    pub fn to_compare(&self, ring: &Ring) -> Vec<MemberIndex> {
        let mut lacked = std::collections::BTreeMap::<MemberIndex, usize>::new();
        for partition in self.lacking(ring) {
            for owner in ring.owners(partition).iter().filter(|owner| !self.compared.contains(owner)) {
                *lacked.entry(*owner).or_default() += 1;
            }
        }
        let mut owners: Vec<MemberIndex> = lacked.keys().copied().collect();
        owners.sort_by_key(|owner| std::cmp::Reverse(lacked[owner]));
        owners
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::{ClusterId, Layout, Member, Mode};

    fn joined() -> (Ring, MemberIndex) {
        let member = |i| Member::new(format!("http://n{i}:1"));
        let layout = Layout::found(ClusterId(1), 3, Mode::Sloppy, (0..3).map(member).collect()).unwrap();
        let ring = Ring::new(layout.join(vec![member(3)]).unwrap());
        let newcomer = ring.member_by_name("http://n3:1").unwrap();
        (ring, newcomer)
    }

    #[test]
    fn a_partition_is_whole_once_more_than_half_of_its_owners_were_compared_with() {
        let (ring, newcomer) = joined();
        let mut intake = Intake::of(&ring, newcomer, |_| true);
        assert_eq!(intake.lacking(&ring).count(), 768);
        assert_eq!(intake.to_compare(&ring).len(), 3);
        let first = intake.to_compare(&ring)[0];
        intake.compared(first);
        assert_eq!(intake.lacking(&ring).count(), 768, "one of three is no majority");
        let second = intake.to_compare(&ring)[0];
        assert_ne!(first, second);
        intake.compared(second);
        assert_eq!(intake.lacking(&ring).count(), 0);
        assert!(intake.to_compare(&ring).is_empty());
        intake.note_losses(1);
        assert_eq!(intake.lacking(&ring).count(), 768, "what was lost is compared anew");
    }

    #[test]
    fn who_owned_before_takes_nothing_in() {
        let (ring, newcomer) = joined();
        for member in ring.members().filter(|member| *member != newcomer) {
            assert_eq!(Intake::of(&ring, member, |_| true).lacking(&ring).count(), 0);
        }
        let switched = Ring::new(ring.layout().switch().unwrap());
        assert_eq!(Intake::of(&switched, newcomer, |_| true).lacking(&switched).count(), 0);
    }

    #[test]
    fn a_copy_counts_at_once_where_nothing_was_before_and_else_once_the_partition_is_whole() {
        let (ring, newcomer) = joined();
        let taken: Vec<Partition> = ring.partitions_of(newcomer).to_vec();
        let mut intake = Intake::of(&ring, newcomer, |partition| partition != taken[5]);
        assert!(intake.counts(&ring, taken[0]) && !intake.counts(&ring, taken[5]));
        assert!(intake.lacks(&ring, taken[0]));
        intake.to_compare(&ring).into_iter().for_each(|owner| intake.compared(owner));
        assert!(intake.counts(&ring, taken[5]));
    }

    #[test]
    fn an_epoch_that_moves_nothing_takes_nothing_back() {
        let (ring, newcomer) = joined();
        let mut intake = Intake::of(&ring, newcomer, |_| true);
        intake.to_compare(&ring).into_iter().for_each(|owner| intake.compared(owner));
        let other_mode = Ring::new(ring.layout().with_mode(Mode::Quorum).unwrap());
        let carried = intake.clone().carried_over(Intake::of(&other_mode, newcomer, |_| false));
        assert_eq!((carried.lacking(&other_mode).count(), carried.epoch()), (0, other_mode.epoch()));
        let abandoned = Ring::new(ring.layout().abandon().unwrap());
        let me = abandoned.members().next().unwrap();
        assert_eq!(intake.carried_over(Intake::of(&abandoned, me, |_| false)).lacking(&abandoned).count(), 0);
    }

    #[test]
    fn a_change_that_was_given_up_and_begun_anew_is_taken_in_anew() {
        let (ring, newcomer) = joined();
        let mut intake = Intake::of(&ring, newcomer, |_| true);
        intake.to_compare(&ring).into_iter().for_each(|owner| intake.compared(owner));
        // This node was away meanwhile: what was written in between came to the owners alone.
        let settled = ring.layout().abandon().unwrap();
        let again = Ring::new(settled.join(vec![Member::new("http://n3:1")]).unwrap());
        let carried = intake.carried_over(Intake::of(&again, newcomer, |_| false));
        assert_eq!(carried.lacking(&again).count(), 768);
        assert!(!carried.counts(&again, again.partitions_of(newcomer)[0]));
    }

    #[test]
    fn a_start_knows_of_what_nothing_was_here_when_the_change_began() {
        let (ring, newcomer) = joined();
        let taken: Vec<Partition> = ring.partitions_of(newcomer).to_vec();
        let mut intake = Intake::of(&ring, newcomer, |partition| partition != taken[5]);
        intake.to_compare(&ring).into_iter().for_each(|owner| intake.compared(owner));
        let kept = intake.encode();
        let resumed = Intake::resumed(&ring, newcomer, Some(&kept));
        assert_eq!(resumed.lacking(&ring).count(), 768, "what was compared is not known any more");
        assert!(resumed.counts(&ring, taken[0]) && !resumed.counts(&ring, taken[5]));
        let other = Ring::new(ring.layout().with_mode(Mode::Quorum).unwrap());
        let foreign = Intake::resumed(&other, newcomer, Some(&kept));
        assert!(!foreign.counts(&other, taken[0]), "it was kept of another epoch");
        assert_eq!(Intake::resumed(&ring, newcomer, Some(b"junk")), Intake::of(&ring, newcomer, |_| false));
    }
}
