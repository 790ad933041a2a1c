//! Balance: a table in the making, its members' loads, and moving a slot from one member to another.
//!
//! The plain walk of consistent hashing leaves the fullest node well above the mean, so a bound is put on the
//! load (Mirrokni, Thorup, Zadimoghaddam 2018, "Consistent Hashing with Bounded Loads"): what is above it is
//! handed on. As the table is stored, the bound can be the mean itself, rounded up, and not a factor of it.
//!
//! Load counts against weight. A move never lowers the number of zones a partition spans, so where zones differ
//! in size the members of the small ones stay above the bound: copies that die together are worse than a
//! fuller disk.

use super::fair::Fair;
use super::member::{Member, MemberIndex};
use super::partition::Partition;
use super::table::Table;
use super::token::Circle;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Load against weight, comparable without fractions: two that differ, differ by more than the rounding.
pub(super) type Pressure = u64;

/// A table, and what is needed to move its slots. Each slot moves at the cost of the giver's load × width.
pub(super) struct Balance<'a> {
    members: &'a [Member],
    circle: &'a Circle,
    zones: Vec<usize>,
    held: Vec<Vec<Partition>>,
    table: Table,
}

impl<'a> Balance<'a> {
    pub(super) fn new(members: &'a [Member], circle: &'a Circle, table: Table) -> Balance<'a> {
        Balance { members, circle, zones: zones(members), held: table.held(members.len()), table }
    }

    pub(super) fn finish(self) -> Table {
        self.table
    }

    /// Moves slots from the members above their fair share, rounded up, to the least loaded, until none is above
    /// or none can be helped.
    pub(super) fn level(&mut self) {
        let fair = Fair::new(self.members, self.table.width());
        self.relieve(|weight| fair.ceiling(weight), usize::MAX);
    }

    /// Moves slots until every row spans as many zones as it can: each from the most loaded owner whose zone another
    /// shares, to the least loaded member of a zone that the row lacks.
    pub(super) fn spread(&mut self) {
        let most = self.zones.iter().collect::<BTreeSet<_>>().len().min(self.table.width());
        for partition in Partition::all() {
            loop {
                let owners = self.table.owners(partition);
                let spanned: Vec<usize> = owners.iter().map(|owner| self.zones[owner.index()]).collect();
                if spanned.iter().collect::<BTreeSet<_>>().len() >= most {
                    break;
                }
                let is_shared = |zone: usize| spanned.iter().filter(|&&other| other == zone).count() > 1;
                let givers = owners.iter().copied().filter(|owner| is_shared(self.zones[owner.index()]));
                let fresh = (0..self.members.len()).filter(|&at| !spanned.contains(&self.zones[at]));
                let receivers = fresh.map(MemberIndex::new);
                let rank = |&to: &MemberIndex| (self.pressure_with(to, 1), self.circle.distance(partition, to), to);
                let giver = givers.max_by_key(|&from| (self.pressure(from), Reverse(from)));
                let (Some(giver), Some(receiver)) = (giver, receivers.min_by_key(rank)) else { break };
                self.give(partition, giver, receiver);
            }
        }
    }

    /// Moves at most so many slots, from members above 1.10 of their fair share: what a leave couldn't put right by
    /// choosing who is given the leaver's.
    pub(super) fn ease(&mut self, moves_max: usize) {
        let fair = Fair::new(self.members, self.table.width());
        self.relieve(|weight| fair.bound(weight), moves_max);
    }

    /// Moves slots from the members above their bound, by weight, to the least loaded.
    ///
    /// Ends, because the receiver's pressure stays below what the giver's was: the list of pressures, highest
    /// first, only falls.
    fn relieve(&mut self, bound: impl Fn(u16) -> usize, moves_max: usize) {
        let above = |balance: &Self, member: MemberIndex| {
            balance.held[member.index()].len() > bound(balance.members[member.index()].weight)
        };
        let mut moves = 0;
        let mut order = self.order();
        let mut givers: BTreeSet<_> = order.iter().copied().filter(|&(_, member)| above(self, member)).collect();
        while let Some((pressure, giver)) = givers.pop_last() {
            if moves == moves_max {
                return;
            }
            let receivers = order.iter().map(|&(_, member)| member);
            let mut helped = receivers.take_while(|&receiver| self.pressure_with(receiver, 1) < pressure);
            let Some((receiver, partition)) = helped.find_map(|r| Some((r, self.slot_to_move(giver, r)?))) else {
                continue;
            };
            for member in [giver, receiver] {
                order.remove(&(self.pressure(member), member));
                givers.remove(&(self.pressure(member), member));
            }
            self.give(partition, giver, receiver);
            moves += 1;
            for member in [giver, receiver] {
                order.insert((self.pressure(member), member));
                if above(self, member) {
                    givers.insert((self.pressure(member), member));
                }
            }
        }
    }

    /// Hands the newcomer its fair share, rounded down, slot by slot from whoever is then the most loaded; less
    /// where zones forbid it or the givers would end below it.
    pub(super) fn fill(&mut self, newcomer: MemberIndex) {
        let fair = Fair::new(self.members, self.table.width());
        let share = fair.floor(self.members[newcomer.index()].weight);
        let mut givers = self.order();
        givers.remove(&(self.pressure(newcomer), newcomer));
        while self.held[newcomer.index()].len() < share {
            let Some((pressure, giver)) = givers.pop_last() else {
                return;
            };
            if self.pressure_with(newcomer, 1) > pressure {
                return;
            }
            // A giver with nothing to give now has nothing later: each move only adds the newcomer to a row.
            if let Some(partition) = self.slot_to_move(giver, newcomer) {
                self.give(partition, giver, newcomer);
                givers.insert((self.pressure(giver), giver));
            }
        }
    }

    /// Gives newcomers one slot more, to their share rounded up, as long as somebody is above the bound: where many came at
    /// once to few, what rounding down left with those few adds up.
    pub(super) fn top_up(&mut self, newcomers: &[MemberIndex]) {
        let fair = Fair::new(self.members, self.table.width());
        let weight = |member: MemberIndex| self.members[member.index()].weight;
        for &newcomer in newcomers {
            let Some((_, fullest)) = self.order().pop_last() else { return };
            if self.held[fullest.index()].len() <= fair.bound(weight(fullest)) {
                return;
            }
            let has_room = self.held[newcomer.index()].len() < fair.ceiling(weight(newcomer));
            if let Some(partition) = self.slot_to_move(fullest, newcomer).filter(|_| has_room) {
                self.give(partition, fullest, newcomer);
            }
        }
    }

    /// Makes the newcomer an owner of every partition, beside those it has: for clusters still smaller than `replicas`.
    pub(super) fn widen(&mut self, newcomer: MemberIndex) {
        let row = |partition| [self.table.owners(partition), &[newcomer]].concat();
        self.table = Table::from_rows(Partition::all().map(row));
        for partition in Partition::all() {
            settle_last(self.circle, partition, self.table.owners_mut(partition));
        }
        self.held[newcomer.index()].extend(Partition::all());
    }

    /// The giver's slot that goes to the receiver: one that widens the zones if there is one, then the one whose
    /// walk meets the receiver soonest, where consistent hashing would have put it.
    fn slot_to_move(&self, giver: MemberIndex, receiver: MemberIndex) -> Option<Partition> {
        let (from, to) = (self.zones[giver.index()], self.zones[receiver.index()]);
        let rank = |&partition: &Partition| {
            let owners = self.table.owners(partition);
            if owners.contains(&receiver) {
                return None;
            }
            let others = || owners.iter().filter(|&&owner| owner != giver).map(|owner| self.zones[owner.index()]);
            let loses = from != to && !others().any(|zone| zone == from);
            let gains = from != to && !others().any(|zone| zone == to);
            let distance = self.circle.distance(partition, receiver);
            (gains || !loses).then_some((loses || !gains, distance, partition))
        };
        self.held[giver.index()].iter().filter_map(rank).min().map(|(_, _, partition)| partition)
    }

    fn give(&mut self, partition: Partition, giver: MemberIndex, receiver: MemberIndex) {
        self.held[giver.index()].retain(|&held| held != partition);
        self.held[receiver.index()].push(partition);
        let row = self.table.owners_mut(partition);
        let place = row.iter().position(|&owner| owner == giver).expect("a giver owns what it gives");
        row[place..].rotate_left(1);
        *row.last_mut().expect("a row with a giver isn't empty") = receiver;
        settle_last(self.circle, partition, self.table.owners_mut(partition));
    }

    fn order(&self) -> BTreeSet<(Pressure, MemberIndex)> {
        let numbered = (0..self.members.len()).map(MemberIndex::new);
        numbered.map(|member| (self.pressure(member), member)).collect()
    }

    fn pressure(&self, member: MemberIndex) -> Pressure {
        self.pressure_with(member, 0)
    }

    fn pressure_with(&self, member: MemberIndex, more: usize) -> Pressure {
        pressure(self.held[member.index()].len() + more, self.members[member.index()].weight)
    }
}

/// Load against weight.
pub(super) fn pressure(load: usize, weight: u16) -> Pressure {
    ((load as u64) << 32) / u64::from(weight)
}

/// Moves the last owner of a row forward to its place in the walk; the others keep their order.
pub(super) fn settle_last(circle: &Circle, partition: Partition, row: &mut [MemberIndex]) {
    let Some((last, others)) = row.split_last() else { return };
    let distance = circle.distance(partition, *last);
    let behind = |&owner: &MemberIndex| circle.distance(partition, owner) > distance;
    let place = others.iter().position(behind).unwrap_or(others.len());
    row[place..].rotate_right(1);
}

/// Each member's zone, as a number. A member that names none is a zone of its own: nothing is known of its fate.
pub(super) fn zones(members: &[Member]) -> Vec<usize> {
    let mut numbers = BTreeMap::new();
    let number = |(index, member): (usize, &'_ Member)| match member.zone.as_str() {
        "" => index,
        _ => *numbers.entry(member.zone.clone()).or_insert(index),
    };
    members.iter().enumerate().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_without_a_zone_stand_alone() {
        let mut members: Vec<Member> = ["a", "b", "c", "d"].map(Member::new).into();
        members[1].zone = "z".into();
        members[3].zone = "z".into();
        assert_eq!(zones(&members), [0, 1, 2, 1]);
    }
}
