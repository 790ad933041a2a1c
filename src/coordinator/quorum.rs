//! How many owners must agree, and of which sets of them.

use crate::placement::{MemberIndex, Partition, Ring};

/// How many owners a request wants, before it is known how many there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Count {
    /// More than half of them.
    Majority,
    /// Just so many; the request named the number, so falling short is an error.
    Exactly(u8),
}

/// A number of owners out of those there are; never zero, never more than there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quorum {
    needed: usize,
    count: Count,
}

impl Quorum {
    /// What `count` means among `owners` owners; `None` when there are not that many.
    pub fn of(count: Count, owners: usize) -> Option<Quorum> {
        let needed = match count {
            Count::Majority => owners / 2 + 1,
            Count::Exactly(exactly) => usize::from(exactly),
        };
        (1..=owners).contains(&needed).then_some(Quorum { needed, count })
    }

    /// One owner.
    pub fn one() -> Quorum {
        Quorum { needed: 1, count: Count::Exactly(1) }
    }

    /// How many.
    pub fn needed(self) -> usize {
        self.needed
    }

    /// Whether `agreed` owners are enough.
    pub fn is_reached(self, agreed: usize) -> bool {
        agreed >= self.needed
    }

    /// What the same count means in another set of owners: all of them, where it has fewer than were asked for.
    fn elsewhere(self, owners: usize) -> Quorum {
        Quorum::of(self.count, owners).unwrap_or(Quorum { needed: owners, ..self })
    }
}

/// Those who keep a partition, and the sets of them in each of which a write must find its count: the owners, and while
/// these change, those that they are to be, or were.
///
/// A write that was accepted in both sets is found by whoever asks either, so that nodes may go over from one to the other
/// at different moments. After Ongaro, Ousterhout, "In Search of an Understandable Consensus Algorithm" (2014), §6.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Electorate {
    members: Vec<MemberIndex>,
    /// Places in the list of members. The first set is the owners'.
    sets: Vec<Vec<usize>>,
}

impl Electorate {
    /// Those who keep the partition: the owners in their order, and then the others.
    pub fn of(ring: &Ring, partition: Partition) -> Electorate {
        Electorate::beginning_with(ring, partition, ring.owners(partition).to_vec())
    }

    /// These owners, that do not change.
    pub fn of_owners(owners: Vec<MemberIndex>) -> Electorate {
        Electorate { sets: vec![(0..owners.len()).collect()], members: owners }
    }

    /// The same, with `owners` being all the owners in another order.
    pub(super) fn beginning_with(ring: &Ring, partition: Partition, owners: Vec<MemberIndex>) -> Electorate {
        let beside = ring.beside(partition);
        let (first, mut members) = ((0..owners.len()).collect(), owners);
        members.extend(beside.iter().filter(|member| !ring.is_owner(**member, partition)));
        let places = |beside: &[MemberIndex]| {
            members.iter().enumerate().filter(|(_, member)| beside.contains(member)).map(|(place, _)| place).collect()
        };
        let sets = if beside.is_empty() { vec![first] } else { vec![first, places(beside)] };
        Electorate { members, sets }
    }

    /// All of them.
    pub fn members(&self) -> &[MemberIndex] {
        &self.members
    }

    /// How many owners there are. They are the first of the members.
    pub fn owners(&self) -> usize {
        self.sets[0].len()
    }

    /// Whether those for which `is` holds, by their places, are enough in every set.
    pub fn is_reached(&self, quorum: Quorum, is: impl Fn(usize) -> bool) -> bool {
        let count = |set: &[usize]| set.iter().filter(|place| is(**place)).count();
        self.sets.iter().enumerate().all(|(number, set)| match number {
            0 => quorum.is_reached(count(set)),
            _ => quorum.elsewhere(set.len()).is_reached(count(set)),
        })
    }

    /// Whether those for which `is` holds are more than half of every set.
    pub fn has_majority(&self, is: impl Fn(usize) -> bool) -> bool {
        self.sets.iter().all(|set| 2 * set.iter().filter(|place| is(**place)).count() > set.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::{ClusterId, Layout, Member, Mode};

    #[test]
    fn while_owners_change_a_count_is_needed_among_the_old_and_among_the_new() {
        let members = |numbers: std::ops::Range<u32>| numbers.map(|i| Member::new(format!("http://n{i}:1"))).collect();
        let layout = Layout::found(ClusterId(1), 3, Mode::Sloppy, members(0..3)).unwrap();
        let ring = Ring::new(layout.join(members(3..6)).unwrap());
        let changing = Partition::all().find(|at| ring.holders(*at).len() >= 5).expect("half of all slots move");
        let electorate = Electorate::of(&ring, changing);
        assert_eq!((electorate.members(), electorate.owners()), (&*ring.holders(changing), 3));
        let (majority, all) = (Quorum::of(Count::Majority, 3).unwrap(), electorate.members().len());
        let is_new = |place: usize| ring.beside(changing).contains(&electorate.members()[place]);
        for has in 0..1u32 << all {
            let is = |place: usize| has & 1 << place != 0;
            let old = (0..3).filter(|place| is(*place)).count();
            let new = (0..all).filter(|place| is(*place) && is_new(*place)).count();
            assert_eq!(electorate.has_majority(is), old >= 2 && new >= 2, "{has:b}");
            assert_eq!(electorate.is_reached(majority, is), old >= 2 && new >= 2, "{has:b}");
            assert_eq!(electorate.is_reached(Quorum::one(), is), old >= 1 && new >= 1, "{has:b}");
        }
    }

    #[test]
    fn a_number_of_owners_is_as_many_as_there_are_where_there_are_fewer() {
        let all_three = Quorum::of(Count::Exactly(3), 3).unwrap();
        assert_eq!(all_three.elsewhere(2).needed(), 2);
        assert_eq!(Quorum::of(Count::Majority, 1).unwrap().elsewhere(2).needed(), 2);
    }

    #[test]
    fn a_majority_is_more_than_half() {
        let majorities: Vec<usize> =
            (1..=7).map(|owners| Quorum::of(Count::Majority, owners).unwrap().needed()).collect();
        assert_eq!(majorities, [1, 2, 2, 3, 3, 4, 4]);
    }

    #[test]
    fn no_quorum_is_empty_or_larger_than_the_owners() {
        assert_eq!(Quorum::of(Count::Exactly(0), 3), None);
        assert_eq!(Quorum::of(Count::Exactly(4), 3), None);
        assert_eq!(Quorum::of(Count::Majority, 0), None);
        assert!(Quorum::of(Count::Exactly(3), 3).unwrap().is_reached(3));
    }
}
