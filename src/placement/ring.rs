//! The ring: one layout, made ready for look-ups.
//!
//! Never edited: a new layout makes a new ring, and a request uses one from beginning to end. Who owns a key is
//! an array index; stand-ins are asked for rarely, so they are walked for when they are.
//!
//! While a change of owners is under way a partition has two rows: its [owners](Ring::owners), whom reads ask, and
//! those [beside](Ring::beside) them. Both are its holders, and take every write.

use super::fair::Fair;
use super::identity::NodeId;
use super::layout::Layout;
use super::member::{Member, MemberIndex};
use super::partition::Partition;
use super::token::Circle;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A layout with its tokens in ring order. About 15 ms and 3 MiB for 1,000 members of weight 1.
#[derive(Clone, Debug)]
pub struct Ring {
    layout: Arc<Layout>,
    circle: Circle,
    owned: Vec<Vec<Partition>>,
    held: Option<Vec<Vec<Partition>>>,
    differs: Vec<bool>,
    by_id: BTreeMap<NodeId, MemberIndex>,
    guest: Option<Member>,
}

impl Ring {
    /// The ring of a layout. O(T log T) for T tokens.
    pub fn new(layout: impl Into<Arc<Layout>>) -> Ring {
        let layout = layout.into();
        let members = layout.members();
        let known = |(index, member): (usize, &Member)| Some((member.id?, MemberIndex::new(index)));
        let owned = layout.table().held(members.len());
        let (mut held, mut differs) = (None, Vec::new());
        if let Some(change) = layout.change() {
            let beside = change.table().held(members.len());
            held = Some(owned.iter().zip(&beside).map(|(one, other)| union(one, other)).collect());
            differs = Partition::all().map(|at| !layout.table().owned_alike(change.table(), at)).collect();
        }
        Ring {
            circle: Circle::new(members),
            owned,
            held,
            differs,
            by_id: members.iter().enumerate().filter_map(known).collect(),
            guest: None,
            layout,
        }
    }

    /// The ring as a node sees it that is no member. It has an index of its own, one past the last member's, and
    /// owns and holds nothing; no list of members has it, and it isn't found by name or id.
    pub fn with_guest(layout: impl Into<Arc<Layout>>, guest: Member) -> Ring {
        Ring { guest: Some(guest), ..Ring::new(layout) }
    }

    /// The index of the node that looks on without being a member, if it is one that does.
    pub fn guest(&self) -> Option<MemberIndex> {
        self.guest.as_ref().map(|_| MemberIndex::new(self.layout.members().len()))
    }

    /// The layout it was made of.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The number of its layout.
    pub fn epoch(&self) -> u64 {
        self.layout.epoch()
    }

    /// Whether a change of owners is under way.
    pub fn is_changing(&self) -> bool {
        self.layout.change().is_some()
    }

    /// The members that reads ask for a partition, preferred first: distinct ones, as many as the table is wide. An array
    /// index.
    pub fn owners(&self, partition: Partition) -> &[MemberIndex] {
        self.layout.table().owners(partition)
    }

    /// The partition's row in the owner set beside the one that reads use, if it names other members than
    /// [`Ring::owners`], in whatever order; else empty. An array index.
    pub fn beside(&self, partition: Partition) -> &[MemberIndex] {
        match self.layout.change() {
            Some(change) if self.differs[partition.index()] => change.table().owners(partition),
            _ => &[],
        }
    }

    /// The members that take the writes of a partition: its owners in their order, then those beside them.
    pub fn holders(&self, partition: Partition) -> Vec<MemberIndex> {
        let owners = self.owners(partition);
        let others = self.beside(partition).iter().filter(|member| !owners.contains(member));
        owners.iter().chain(others).copied().collect()
    }

    /// The members that don't hold a partition, in the order in which they stand in for those that do: clockwise
    /// from the partition's place (Dynamo, section 4.6). None that is drained, and so is to keep nothing. O(m log m) for m
    /// members.
    pub fn stand_ins(&self, partition: Partition) -> Vec<MemberIndex> {
        self.circle.walk(partition).filter(|&member| !self.is_holder(member, partition)).collect()
    }

    /// A member by its place in this layout, or the guest. Panics on an index of a larger layout.
    pub fn member(&self, index: MemberIndex) -> &Member {
        match &self.guest {
            Some(guest) if self.guest() == Some(index) => guest,
            _ => &self.layout.members()[index.index()],
        }
    }

    /// All members' indexes, in order of their names.
    pub fn members(&self) -> impl ExactSizeIterator<Item = MemberIndex> + use<> {
        (0..self.layout.members().len()).map(MemberIndex::new)
    }

    /// The member with this name. O(log m).
    pub fn member_by_name(&self, name: &str) -> Option<MemberIndex> {
        let found = self.layout.members().binary_search_by(|member| member.name.as_str().cmp(name));
        found.ok().map(MemberIndex::new)
    }

    /// The member with this id, if the layout knows it yet. O(log m).
    pub fn member_by_id(&self, id: NodeId) -> Option<MemberIndex> {
        self.by_id.get(&id).copied()
    }

    /// Whether reads ask the member for the partition.
    pub fn is_owner(&self, member: MemberIndex, partition: Partition) -> bool {
        self.owners(partition).contains(&member)
    }

    /// Whether the member takes the writes of the partition: an owner, or one beside them.
    pub fn is_holder(&self, member: MemberIndex, partition: Partition) -> bool {
        self.is_owner(member, partition) || self.beside(partition).contains(&member)
    }

    /// The partitions for which reads ask the member, ascending. None for a guest.
    pub fn owned_by(&self, member: MemberIndex) -> &[Partition] {
        self.owned.get(member.index()).map_or(&[], Vec::as_slice)
    }

    /// The partitions the member holds, as an owner or beside them, ascending. None for a guest.
    pub fn partitions_of(&self, member: MemberIndex) -> &[Partition] {
        self.held.as_ref().unwrap_or(&self.owned).get(member.index()).map_or(&[], Vec::as_slice)
    }

    /// The member's part of all owner slots, 0 to 1.
    pub fn share(&self, member: MemberIndex) -> f64 {
        self.owned_by(member).len() as f64 / self.layout.table().slots() as f64
    }

    /// The part of all owner slots the member should have by its weight, 0 to 1. No member can keep a partition
    /// twice, so a very heavy one's is `1 / width`. 0 for those that may own none: a guest, one without weight, and while
    /// owners change those joining before reads switch and those leaving after.
    pub fn share_fair(&self, member: MemberIndex) -> f64 {
        let mut keepers = self.layout.voters();
        keepers.retain(|voter| self.member(*voter).weight > 0);
        if keepers.binary_search(&member).is_err() {
            return 0.0;
        }
        let members: Vec<Member> = keepers.into_iter().map(|keeper| self.member(keeper).clone()).collect();
        let fair = Fair::new(&members, self.layout.table().width());
        fair.share(self.member(member).weight) / self.layout.table().slots() as f64
    }

    /// The member's tokens, ascending. None for a guest, nor for one without weight: no walk meets them.
    pub fn tokens(&self, member: MemberIndex) -> &[u64] {
        if self.guest() == Some(member) { &[] } else { self.circle.of(member) }
    }
}

/// What is in one list or the other, both ascending.
fn union(one: &[Partition], other: &[Partition]) -> Vec<Partition> {
    let mut all = [one, other].concat();
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::{ClusterId, Mode};

    fn layout(members: usize) -> Layout {
        let members = (0..members).map(|i| Member::new(format!("http://n{i}:8080"))).collect();
        Layout::found(ClusterId::named("test"), 3, Mode::Sloppy, members).unwrap()
    }

    #[test]
    fn a_guest_has_an_index_and_nothing_else() {
        let me = Member { id: Some(NodeId(9)), ..Member::new("http://m:1") };
        let ring = Ring::with_guest(layout(4), me.clone());
        let guest = ring.guest().unwrap();
        assert_eq!((guest, ring.member(guest)), (MemberIndex(4), &me));
        assert_eq!(ring.member(MemberIndex(3)).name, "http://n3:8080");
        assert!(ring.members().all(|member| member != guest));
        assert_eq!((ring.member_by_name(&me.name), ring.member_by_id(NodeId(9))), (None, None));
        assert!(ring.owned_by(guest).is_empty() && ring.partitions_of(guest).is_empty());
        assert_eq!((ring.share(guest), ring.share_fair(guest), ring.tokens(guest)), (0.0, 0.0, &[][..]));
        for partition in Partition::all() {
            assert!(!ring.is_holder(guest, partition) && !ring.stand_ins(partition).contains(&guest));
        }
        assert_eq!(Ring::new(layout(4)).guest(), None);
    }

    #[test]
    fn nobody_stands_beside_the_owners_of_a_settled_layout() {
        let ring = Ring::new(layout(4));
        assert!(!ring.is_changing());
        for partition in Partition::all() {
            assert!(ring.beside(partition).is_empty());
            assert_eq!(ring.holders(partition), ring.owners(partition));
        }
        assert!(ring.members().all(|member| ring.owned_by(member) == ring.partitions_of(member)));
    }

    #[test]
    fn holders_are_the_owners_and_those_beside_them() {
        let filling = layout(4).join(vec![Member::new("http://n2:1")]).unwrap();
        let newcomer = MemberIndex(2);
        for ring in [Ring::new(filling.clone()), Ring::new(filling.switch().unwrap())] {
            assert!(ring.is_changing());
            let change = ring.layout().change().unwrap();
            for partition in Partition::all() {
                let (owners, holders) = (ring.owners(partition), ring.holders(partition));
                let moved = owners.contains(&newcomer) != change.table().owners(partition).contains(&newcomer);
                assert_eq!(ring.beside(partition), if moved { change.table().owners(partition) } else { &[] });
                assert_eq!((holders.len(), &holders[..3]), (3 + usize::from(moved), owners));
                for member in ring.members() {
                    let holds = holders.contains(&member);
                    assert_eq!(ring.is_holder(member, partition), holds);
                    assert_eq!(ring.is_owner(member, partition), owners.contains(&member));
                    assert_eq!(ring.stand_ins(partition).contains(&member), !holds);
                    assert_eq!(ring.partitions_of(member).contains(&partition), holds);
                    assert_eq!(ring.owned_by(member).contains(&partition), owners.contains(&member));
                }
            }
            assert!(ring.members().all(|member| ring.partitions_of(member).is_sorted()));
        }
        let (filling, switched) = (Ring::new(filling.clone()), Ring::new(filling.switch().unwrap()));
        assert_eq!((filling.share(newcomer), filling.share_fair(newcomer)), (0.0, 0.0));
        assert!((filling.share_fair(MemberIndex(0)) - 0.25).abs() < 1e-9, "a quarter of the old table");
        assert!((switched.share_fair(newcomer) - 0.2).abs() < 1e-9, "a fifth of the new one");
        assert_eq!(filling.partitions_of(newcomer), switched.owned_by(newcomer));
    }

    #[test]
    fn rows_that_name_the_same_members_in_another_order_do_not_differ() {
        let ring = Ring::new(layout(4).leave("http://n1:8080").unwrap());
        for partition in Partition::all() {
            assert_eq!(ring.beside(partition).is_empty(), !ring.is_owner(MemberIndex(1), partition));
        }
    }
}
