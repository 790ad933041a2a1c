//! Change: how the owners of a layout change while the cluster runs, in three epochs.
//!
//! ```text
//!              table (reads)   beside it    in members
//! filling      old             new          the old and the joining
//! switched     new             old          the old and the joining
//! settled      new                          all but those that left
//! ```
//!
//! Both tables speak of one list of members, so an index means one member throughout an epoch. Abandoning goes from
//! filling back to the old table; once reads have switched there is only forward. Where nothing moves, as when a member
//! goes that owns nothing, the next epoch is the settled one.

use super::draft::Draft;
use super::founding;
use super::layout::{Layout, LayoutError, check_members, width};
use super::member::{Member, MemberIndex};
use super::partition::Partition;
use super::table::Table;
use serde::{Deserialize, Serialize};

/// How far a change of owners has come. Stored by number, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The new owners are filled; reads ask the old.
    Filling,
    /// Reads ask the new owners; the old still take every write.
    Switched,
}

/// A change of owners under way: the owner set beside the one that reads use, and who comes and goes. While it is
/// there a write needs its count in both sets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Change {
    phase: Phase,
    replicas: u8,
    table: Table,
    joining: Vec<MemberIndex>,
    leaving: Vec<MemberIndex>,
}

impl Change {
    /// How far it has come.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The owner set beside the one that reads use: the new one while filling, the old one once switched.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// How many owners a partition should have in that set.
    pub fn replicas(&self) -> u8 {
        self.replicas
    }

    /// The members that own in the new set alone, ascending.
    pub fn joining(&self) -> &[MemberIndex] {
        &self.joining
    }

    /// The members that own in the old set alone, ascending.
    pub fn leaving(&self) -> &[MemberIndex] {
        &self.leaving
    }

    /// Who owns nothing in the table that reads use, ascending.
    pub(super) fn absent(&self) -> &[MemberIndex] {
        match self.phase {
            Phase::Filling => &self.joining,
            Phase::Switched => &self.leaving,
        }
    }

    /// Who owns nothing in the table beside it, ascending.
    pub(super) fn absent_beside(&self) -> &[MemberIndex] {
        match self.phase {
            Phase::Filling => &self.leaving,
            Phase::Switched => &self.joining,
        }
    }

    /// Whether those joining and leaving are members, ascending, and nobody does both: for changes from outside.
    pub(super) fn check(&self, members: usize) -> Result<(), LayoutError> {
        let listed = |list: &[MemberIndex]| {
            list.windows(2).all(|pair| pair[0] < pair[1]) && list.last().is_none_or(|last| last.index() < members)
        };
        let both = self.joining.iter().any(|member| self.leaving.binary_search(member).is_ok());
        if listed(&self.joining) && listed(&self.leaving) && !both { Ok(()) } else { Err(LayoutError::Change) }
    }
}

impl Layout {
    /// The next layout, in which the newcomers are filled. In the new owner set slots move to them only, each one's
    /// fair share rounded down, taken from whoever has the most; less where its zone has less to give. Members of before
    /// that have weight and own nothing are given their share as well.
    pub fn join(&self, newcomers: Vec<Member>) -> Result<Layout, LayoutError> {
        self.check_settled()?;
        if newcomers.is_empty() {
            return Err(LayoutError::Nobody);
        }
        let mut members = [self.members.as_slice(), &newcomers].concat();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        check_members(&members)?;
        let is_new = |index: &MemberIndex| self.named(&members[index.index()].name).is_err();
        let (joining, staying): (Vec<_>, Vec<_>) = (0..members.len()).map(MemberIndex::new).partition(is_new);
        let table = self.table.renumbered(|old| staying[old.index()]);
        let planned = founding::join(&table, &members, usize::from(self.replicas));
        Layout { members, table, ..self.clone() }.filling(self.replicas, planned, joining, Vec::new())
    }

    /// The next layout, in which the others are filled with what the member of this name owns. No other slot moves,
    /// or only so many as keep the fullest near its fair share, and with them 1.05 × the leaver's at most.
    pub fn leave(&self, name: &str) -> Result<Layout, LayoutError> {
        self.check_settled()?;
        let leaver = self.named(name)?;
        if self.members.len() == 1 {
            return Err(LayoutError::LastMember);
        }
        self.check_keeper(leaver)?;
        // What others may be due doesn't keep one here that owns nothing.
        let planned = match self.owns_nothing(leaver) {
            true => self.table.clone(),
            false => founding::leave(&self.table, &self.members, leaver, usize::from(self.replicas)),
        };
        self.filling(self.replicas, planned, Vec::new(), vec![leaver])
    }

    /// The next layout, in which `newcomer` is filled with all that the member of this name owns, and nothing else moves.
    /// It is drained if that one was.
    pub fn replace(&self, name: &str, newcomer: Member) -> Result<Layout, LayoutError> {
        self.check_settled()?;
        let newcomer = match self.members[self.named(name)?.index()].weight {
            0 => Member { weight: 0, ..newcomer },
            _ => newcomer,
        };
        let mut members = [self.members.as_slice(), std::slice::from_ref(&newcomer)].concat();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        check_members(&members)?;
        let at = |name: &str| members.iter().position(|member| member.name == name).map(MemberIndex::new);
        let no_member = || LayoutError::NoSuchMember { name: name.to_owned() };
        let (leaver, joiner) = (at(name).ok_or_else(no_member)?, at(&newcomer.name).ok_or_else(no_member)?);
        let table = self.table.renumbered(|old| if old < joiner { old } else { MemberIndex(old.0 + 1) });
        let planned = table.renumbered(|owner| if owner == leaver { joiner } else { owner });
        let both = Layout { members, table, ..self.clone() };
        if newcomer.weight == 0 {
            both.check_keeper(leaver)?;
        }
        both.filling(self.replicas, planned, vec![joiner], vec![leaver])
    }

    /// The next layout, in which every partition gains or loses owners, level and with its zones kept apart. It loses so few
    /// at a time that more than half of the old owners and more than half of the new always have one in common. Where
    /// the members are too few for it to make a difference, only the number changes, and at once.
    pub fn with_replicas(&self, replicas: u8) -> Result<Layout, LayoutError> {
        self.check_settled()?;
        let width = width(replicas, &self.members)?;
        if width == self.table.width() && !Draft::owns_without_weight(&self.table, &self.members) {
            return Ok(Layout { replicas, ..self.next()? });
        }
        self.filling(replicas, founding::resize(&self.table, &self.members, width), Vec::new(), Vec::new())
    }

    /// The next layout, in which the member of this name has this zone and weight, and as many slots move as that takes:
    /// none, if the table fits already. With weight 0 it hands over all that it owns, as if it left; having weight again it is
    /// filled, as if it joined. Given up, it keeps the zone and the weight, and the table it had.
    pub fn refit(&self, name: &str, zone: &str, weight: u16) -> Result<Layout, LayoutError> {
        self.check_settled()?;
        let (index, mut members, replicas) = (self.named(name)?, self.members.clone(), usize::from(self.replicas));
        let member = &mut members[index.index()];
        (member.zone, member.weight) = (zone.to_owned(), weight);
        if weight == 0 {
            self.check_keeper(index)?;
        }
        check_members(&members)?;
        let planned = match (weight, self.owns_nothing(index)) {
            (0, true) => self.table.clone(),
            (0, false) => founding::drain(&self.table, &members, replicas),
            (_, true) => founding::join(&self.table, &members, replicas),
            (_, false) => founding::refit(&self.table, &members, replicas),
        };
        Layout { members, ..self.clone() }.filling(self.replicas, planned, Vec::new(), Vec::new())
    }

    /// The next layout, in which reads ask the new owners, and the old stand beside them.
    pub fn switch(&self) -> Result<Layout, LayoutError> {
        let change = self.change_at(Phase::Filling)?.clone();
        let (replicas, table) = (change.replicas, change.table);
        let beside = Change { phase: Phase::Switched, replicas: self.replicas, table: self.table.clone(), ..change };
        Ok(Layout { replicas, table, change: Some(beside), ..self.next()? })
    }

    /// The next layout, of the new owners alone: the leaving have left.
    pub fn settle(&self) -> Result<Layout, LayoutError> {
        self.without(self.change_at(Phase::Switched)?.leaving())
    }

    /// The next layout, of the old owners alone: the joining have not joined.
    pub fn abandon(&self) -> Result<Layout, LayoutError> {
        self.without(self.change_at(Phase::Filling)?.joining())
    }

    /// The next layout, with this owner set beside the present one; without, where the two are the same.
    fn filling(
        &self,
        replicas: u8,
        table: Table,
        joining: Vec<MemberIndex>,
        leaving: Vec<MemberIndex>,
    ) -> Result<Layout, LayoutError> {
        if table == self.table {
            return Layout { replicas, ..self.clone() }.without(&leaving);
        }
        let (from, to, most) = (self.table.width(), table.width(), |of: usize| of / 2 + 1);
        if to < from && most(to) + most(from) <= from {
            // Owners that stay take nothing in: a write that most of the old have might be on none of most of the new.
            return Err(LayoutError::ReplicasTooFew { from, to });
        }
        let change = Change { phase: Phase::Filling, replicas, table, joining, leaving };
        Ok(Layout { change: Some(change), ..self.next()? })
    }

    fn owns_nothing(&self, member: MemberIndex) -> bool {
        Partition::all().all(|partition| !self.table.owners(partition).contains(&member))
    }

    /// Whether the others could keep something without this member.
    fn check_keeper(&self, member: MemberIndex) -> Result<(), LayoutError> {
        let others = self.members.iter().enumerate().filter(|(index, _)| *index != member.index());
        let name = || self.members[member.index()].name.clone();
        let is_alone = others.map(|(_, other)| other.weight).max().unwrap_or(0) == 0;
        if is_alone { Err(LayoutError::LastKeeper { name: name() }) } else { Ok(()) }
    }

    /// The next layout, with no change and without these members, which own nothing in its table.
    fn without(&self, gone: &[MemberIndex]) -> Result<Layout, LayoutError> {
        let stays = |(index, _): &(usize, &Member)| gone.binary_search(&MemberIndex::new(*index)).is_err();
        let members = self.members.iter().enumerate().filter(stays).map(|(_, member)| member.clone()).collect();
        let before = |member: MemberIndex| gone.partition_point(|&other| other < member);
        let table = self.table.renumbered(|member| MemberIndex::new(member.index() - before(member)));
        Ok(Layout { members, table, change: None, ..self.next()? })
    }

    fn check_settled(&self) -> Result<(), LayoutError> {
        if self.change.is_some() { Err(LayoutError::ChangeUnderWay) } else { Ok(()) }
    }

    fn change_at(&self, phase: Phase) -> Result<&Change, LayoutError> {
        self.change.as_ref().filter(|change| change.phase == phase).ok_or(LayoutError::NoChange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::{ClusterId, Mode, NodeId};

    fn member(i: usize) -> Member {
        Member::new(format!("http://n{i}:8080"))
    }

    fn layout(members: usize) -> Layout {
        Layout::found(ClusterId::named("test"), 3, Mode::Sloppy, (0..members).map(member).collect()).unwrap()
    }

    fn indexes(numbers: &[u16]) -> Vec<MemberIndex> {
        numbers.iter().copied().map(MemberIndex).collect()
    }

    #[test]
    fn a_join_is_filled_then_switched_then_settled() {
        let old = layout(4);
        let filling = old.join(vec![member(7), Member::new("http://n2:1")]).unwrap();
        let change = filling.change().unwrap();
        assert_eq!((filling.epoch(), change.phase(), change.replicas()), (2, Phase::Filling, 3));
        assert_eq!((change.joining(), change.leaving()), (&*indexes(&[2, 5]), &[][..]), "in order of their names");
        assert_eq!(filling.voters(), indexes(&[0, 1, 3, 4]));
        let planned = change.table().clone();

        let switched = filling.switch().unwrap();
        assert_eq!((switched.epoch(), switched.table()), (3, &planned));
        let change = switched.change().unwrap();
        assert_eq!((change.phase(), change.table()), (Phase::Switched, filling.table()));
        assert_eq!((change.joining(), switched.voters()), (&*indexes(&[2, 5]), indexes(&[0, 1, 2, 3, 4, 5])));

        let settled = switched.settle().unwrap();
        assert_eq!((settled.epoch(), settled.table(), settled.change()), (4, &planned, None));
        assert_eq!(settled.members(), switched.members());
    }

    #[test]
    fn a_leave_is_filled_then_switched_then_settled() {
        let old = layout(5);
        let filling = old.leave(&member(1).name).unwrap();
        let change = filling.change().unwrap();
        assert_eq!((change.joining(), change.leaving()), (&[][..], &*indexes(&[1])));
        assert_eq!((filling.table(), filling.voters().len()), (old.table(), 5), "the leaver still has a voice");
        let switched = filling.switch().unwrap();
        assert_eq!(switched.voters(), indexes(&[0, 2, 3, 4]));
        assert_eq!(switched.change().unwrap().table(), old.table());
        let settled = switched.settle().unwrap();
        assert!(settled.members().iter().eq([0, 2, 3, 4].map(member).iter()));
        assert!(Partition::all().all(|partition| settled.table().owners(partition).len() == 3));
        assert_eq!(settled.voters().len(), 4);
    }

    #[test]
    fn a_newcomer_takes_the_place_of_a_member_and_nothing_else_moves() {
        let old = layout(5);
        for (dead, newcomer) in [(0, "http://a:1"), (2, "http://n25:1"), (4, "http://z:1")] {
            let filling = old.replace(&member(dead).name, Member::new(newcomer)).unwrap();
            let settled = filling.switch().unwrap().settle().unwrap();
            assert_eq!(settled.members().len(), 5);
            for partition in Partition::all() {
                let names = |layout: &Layout| -> Vec<String> {
                    let owners = layout.table().owners(partition).iter();
                    owners.map(|owner| layout.members()[owner.index()].name.clone()).collect()
                };
                let expected = names(&old).into_iter();
                let expected = expected.map(|name| if name == member(dead).name { newcomer.to_owned() } else { name });
                assert_eq!(names(&settled), expected.collect::<Vec<_>>());
            }
            assert_eq!(filling.abandon().unwrap(), Layout { epoch: 3, ..old.clone() });
        }
        assert_eq!(old.replace("x", Member::new("y")), Err(LayoutError::NoSuchMember { name: "x".into() }));
        let taken = old.replace(&member(0).name, member(1));
        assert_eq!(taken, Err(LayoutError::Name { name: member(1).name }));
    }

    #[test]
    fn an_abandoned_change_leaves_the_old_members_and_table() {
        let old = layout(4);
        let begun = [old.join(vec![Member::new("a")]), old.leave(&member(0).name), old.with_replicas(2)];
        for filling in begun.map(Result::unwrap) {
            let back = filling.abandon().unwrap();
            assert_eq!(back, Layout { epoch: 3, ..old.clone() });
            assert_eq!(filling.switch().unwrap().abandon(), Err(LayoutError::NoChange), "reads have switched");
        }
    }

    #[test]
    fn the_number_of_replicas_changes_with_the_table_or_alone() {
        let old = layout(4);
        let wider = old.with_replicas(9).unwrap();
        assert_eq!((wider.replicas(), wider.change().unwrap().replicas()), (3, 9));
        let switched = wider.switch().unwrap();
        assert_eq!((switched.replicas(), switched.change().unwrap().replicas()), (9, 3));
        let settled = switched.settle().unwrap();
        assert_eq!((settled.replicas(), settled.table().width()), (9, 4));
        let fewer = settled.with_replicas(4).unwrap();
        assert_eq!((fewer.replicas(), fewer.epoch(), fewer.change()), (4, 5, None), "four members, all own all");
        assert_eq!(fewer.table(), settled.table());
    }

    #[test]
    fn replicas_are_lowered_only_so_far_at_once_that_old_and_new_majorities_meet() {
        for (from, to, is_fine) in
            [(3, 2, true), (3, 1, false), (2, 1, true), (4, 2, true), (5, 3, false), (5, 4, true)]
        {
            let wide = Layout { replicas: from, ..layout(6) };
            let wide = Layout::found(wide.cluster, from, wide.mode, wide.members).unwrap();
            let refused = Err(LayoutError::ReplicasTooFew { from: from.into(), to: to.into() });
            assert_eq!(wide.with_replicas(to) != refused, is_fine, "{from} to {to}");
        }
    }

    #[test]
    fn what_cannot_be_changed_is_refused_by_name() {
        let old = layout(3);
        assert_eq!(old.join(vec![]), Err(LayoutError::Nobody));
        assert_eq!(old.join(vec![member(2)]), Err(LayoutError::Name { name: member(2).name }));
        assert_eq!(old.leave("x"), Err(LayoutError::NoSuchMember { name: "x".into() }));
        assert_eq!(layout(1).leave(&member(0).name), Err(LayoutError::LastMember));
        assert_eq!(old.with_replicas(0), Err(LayoutError::Replicas { replicas: 0 }));
        assert_eq!(old.with_replicas(33), Err(LayoutError::Replicas { replicas: 33 }));
        for none in [old.switch(), old.settle(), old.abandon()] {
            assert_eq!(none, Err(LayoutError::NoChange));
        }
        let filling = old.join(vec![member(3)]).unwrap();
        assert_eq!(filling.settle(), Err(LayoutError::NoChange), "not before reads have switched");
        let again = [filling.join(vec![member(4)]), filling.leave(&member(0).name), filling.with_replicas(2)];
        assert!(again.iter().all(|refused| *refused == Err(LayoutError::ChangeUnderWay)));
    }

    #[test]
    fn mode_ids_and_addresses_change_during_a_change() {
        let filling = layout(3).join(vec![member(3)]).unwrap();
        let next = filling.with_mode(Mode::Quorum).unwrap();
        let next = next.rebind(&member(3).name, NodeId(7)).unwrap();
        let next = next.with_url(&member(0).name, "http://other:1").unwrap();
        assert_eq!((next.epoch(), next.mode(), next.change()), (5, Mode::Quorum, filling.change()));
        assert_eq!(next.members()[3].id, Some(NodeId(7)));
    }
}
