//! The ring: one layout, made ready for look-ups.
//!
//! Never edited: a new layout makes a new ring, and a request uses one from beginning to end. Who owns a key is
//! an array index; stand-ins are asked for rarely, so they are walked for when they are.

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
    held: Vec<Vec<Partition>>,
    by_id: BTreeMap<NodeId, MemberIndex>,
}

impl Ring {
    /// The ring of a layout. O(T log T) for T tokens.
    pub fn new(layout: impl Into<Arc<Layout>>) -> Ring {
        let layout = layout.into();
        let members = layout.members();
        let known = |(index, member): (usize, &Member)| Some((member.id?, MemberIndex::new(index)));
        Ring {
            circle: Circle::new(members),
            held: layout.table().held(members.len()),
            by_id: members.iter().enumerate().filter_map(known).collect(),
            layout,
        }
    }

    /// The layout it was made of.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The number of its layout.
    pub fn epoch(&self) -> u64 {
        self.layout.epoch()
    }

    /// The members that keep a partition, preferred first: `min(replicas, members)` distinct ones. An array index.
    pub fn owners(&self, partition: Partition) -> &[MemberIndex] {
        self.layout.table().owners(partition)
    }

    /// The members that don't keep a partition, in the order in which they stand in for its owners: clockwise
    /// from the partition's place (Dynamo, section 4.6). O(m log m) for m members.
    pub fn stand_ins(&self, partition: Partition) -> Vec<MemberIndex> {
        let owners = self.owners(partition);
        self.circle.walk(partition).filter(|member| !owners.contains(member)).collect()
    }

    /// A member by its place in this layout. Panics on an index of a larger layout.
    pub fn member(&self, index: MemberIndex) -> &Member {
        &self.layout.members()[index.index()]
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

    /// Whether the member keeps the partition.
    pub fn is_owner(&self, member: MemberIndex, partition: Partition) -> bool {
        self.owners(partition).contains(&member)
    }

    /// The partitions the member keeps, ascending.
    pub fn partitions_of(&self, member: MemberIndex) -> &[Partition] {
        &self.held[member.index()]
    }

    /// The member's part of all owner slots, 0 to 1.
    pub fn share(&self, member: MemberIndex) -> f64 {
        self.held[member.index()].len() as f64 / self.layout.table().slots() as f64
    }

    /// The part of all owner slots the member should have by its weight, 0 to 1. No member can keep a partition
    /// twice, so a very heavy one's is `1 / width`.
    pub fn share_fair(&self, member: MemberIndex) -> f64 {
        let fair = Fair::new(self.layout.members(), self.layout.table().width());
        fair.share(self.member(member).weight) / self.layout.table().slots() as f64
    }

    /// The member's tokens, ascending.
    pub fn tokens(&self, member: MemberIndex) -> &[u64] {
        self.circle.of(member)
    }
}
