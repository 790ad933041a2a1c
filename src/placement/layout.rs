//! The layout: the numbered agreement on members, replicas, mode and owners.
//!
//! The table of owners is part of it. So who keeps what follows from the stored layout alone: nobody computes it
//! again, and a later change of the algorithm moves nothing in a cluster that already stands.
//!
//! Valid by construction, also when decoded: members sorted by name, each once, every partition owned by
//! `min(replicas, members)` distinct ones.

use super::founding;
use super::identity::{ClusterId, NodeId};
use super::member::{Member, MemberError, MemberIndex};
use super::mode::Mode;
use super::table::{Table, TableError};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Most members of a cluster. A view of them is gossiped, a layout of them stored and sent whole (under 1 MiB
/// with everyday names), and beyond four times [`PARTITIONS`](super::PARTITIONS) most would own nothing.
pub const MEMBERS_MAX: usize = 4096;

/// Most owners of a partition. Every write goes to all of them, and 32 are already far beyond need.
pub const REPLICAS_MAX: u8 = 32;

/// Greatest sum of all weights: eight for each of [`MEMBERS_MAX`] members. Bounds the tokens of a ring to 4 million.
pub const WEIGHTS_MAX: u32 = 8 * MEMBERS_MAX as u32;

/// Members, replicas, mode and owners, agreed on under a number. Immutable: a change is a new one with the next epoch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Layout {
    cluster: ClusterId,
    epoch: u64,
    replicas: u8,
    mode: Mode,
    members: Vec<Member>,
    table: Table,
}

impl Layout {
    /// The layout nodes begin with, epoch 0: its table is computed from the members alone, in whatever order
    /// they are given, so that nodes told the same members place keys alike without contact.
    ///
    /// `replicas` is 1 to [`REPLICAS_MAX`]; fewer members than that all own everything.
    pub fn provisional(
        cluster: ClusterId,
        replicas: u8,
        mode: Mode,
        mut members: Vec<Member>,
    ) -> Result<Layout, LayoutError> {
        members.sort_by(|a, b| a.name.cmp(&b.name));
        check_members(&members)?;
        let table = founding::found(&members, width(replicas, &members)?);
        Ok(Layout { cluster, epoch: 0, replicas, mode, members, table })
    }

    /// The next layout, with one member more. Slots move to the newcomer only, its fair share rounded down,
    /// taken from whoever has the most; less where its zone has less to give.
    pub fn join(&self, member: Member) -> Result<Layout, LayoutError> {
        let place = self.members.partition_point(|present| present.name < member.name);
        let mut members = self.members.clone();
        members.insert(place, member);
        check_members(&members)?;
        let table = founding::join(&self.table, &members, MemberIndex::new(place), usize::from(self.replicas));
        Ok(Layout { members, table, ..self.next()? })
    }

    /// The next layout, in which the named members have these ids. Moves nothing.
    pub fn bind(&self, ids: &BTreeMap<String, NodeId>) -> Result<Layout, LayoutError> {
        let mut next = self.next()?;
        for member in &mut next.members {
            member.id = ids.get(&member.name).copied().or(member.id);
        }
        check_members(&next.members)?;
        Ok(next)
    }

    /// The next layout, with another default mode. Moves nothing.
    pub fn with_mode(&self, mode: Mode) -> Result<Layout, LayoutError> {
        Ok(Layout { mode, ..self.next()? })
    }

    fn next(&self) -> Result<Layout, LayoutError> {
        let epoch = self.epoch.checked_add(1).ok_or(LayoutError::LastEpoch)?;
        Ok(Layout { epoch, ..self.clone() })
    }

    /// The cluster it belongs to.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Its number. 0 is provisional: computed, not yet agreed on.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many owners a partition should have, 1 to [`REPLICAS_MAX`]; it has no more than there are members.
    pub fn replicas(&self) -> u8 {
        self.replicas
    }

    /// The default mode of requests.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The members, sorted by name. Never empty.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The owners of every partition.
    pub fn table(&self) -> &Table {
        &self.table
    }
}

/// A layout as it came from outside.
#[derive(Deserialize)]
pub(super) struct Unchecked {
    cluster: ClusterId,
    epoch: u64,
    replicas: u8,
    mode: Mode,
    members: Vec<Member>,
    table: Table,
}

impl TryFrom<Unchecked> for Layout {
    type Error = LayoutError;

    fn try_from(layout: Unchecked) -> Result<Layout, LayoutError> {
        let Unchecked { cluster, epoch, replicas, mode, members, table } = layout;
        check_members(&members)?;
        table.check(members.len(), width(replicas, &members)?)?;
        Ok(Layout { cluster, epoch, replicas, mode, members, table })
    }
}

/// How many owners a partition of these members has.
fn width(replicas: u8, members: &[Member]) -> Result<usize, LayoutError> {
    let allowed = (1..=REPLICAS_MAX).contains(&replicas);
    if allowed { Ok(members.len().min(replicas.into())) } else { Err(LayoutError::Replicas { replicas }) }
}

fn check_members(members: &[Member]) -> Result<(), LayoutError> {
    if !(1..=MEMBERS_MAX).contains(&members.len()) {
        return Err(LayoutError::Members { members: members.len() });
    }
    members.iter().try_for_each(Member::check)?;
    if let Some(pair) = members.windows(2).find(|pair| pair[0].name >= pair[1].name) {
        return Err(LayoutError::Name { name: pair[1].name.clone() });
    }
    let mut ids = BTreeSet::new();
    if let Some(id) = members.iter().filter_map(|member| member.id).find(|&id| !ids.insert(id)) {
        return Err(LayoutError::Id { id });
    }
    let weights = members.iter().map(|member| u32::from(member.weight)).sum();
    if weights > WEIGHTS_MAX { Err(LayoutError::Weights { weights }) } else { Ok(()) }
}

/// Why there is no such layout. Nothing was changed, and the same request fails the same way.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LayoutError {
    /// No members, or too many.
    #[error("a cluster has 1 to {MEMBERS_MAX} members, not {members}")]
    Members {
        /// How many there are.
        members: usize,
    },
    /// The number of replicas is out of range.
    #[error("replicas must be 1 to {REPLICAS_MAX}, not {replicas}")]
    Replicas {
        /// The number that was given.
        replicas: u8,
    },
    /// A field of a member is out of bounds.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// Two members have one name, or (in bytes from outside) they aren't sorted by it.
    #[error("the name {name:?} is taken or out of order")]
    Name {
        /// The name.
        name: String,
    },
    /// Two members have one id: a data directory was copied.
    #[error("the id {id} belongs to two members")]
    Id {
        /// The id.
        id: NodeId,
    },
    /// All weights together are too great.
    #[error("the weights add up to {weights}, more than {WEIGHTS_MAX}")]
    Weights {
        /// Their sum.
        weights: u32,
    },
    /// The table doesn't fit the members.
    #[error(transparent)]
    Table(#[from] TableError),
    /// There is no number after this epoch's.
    #[error("no epoch can follow the last one")]
    LastEpoch,
    /// Written in a version this build doesn't read.
    #[error("a layout of version {version} can't be read by this build")]
    Version {
        /// The version.
        version: u8,
    },
    /// Not a layout, or a damaged one.
    #[error("the bytes are no layout, or a damaged one")]
    Corrupt,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let members = (0..5).map(|i| Member::new(format!("http://n{i}:8080"))).collect();
        Layout::provisional(ClusterId::named("test"), 3, Mode::Sloppy, members).unwrap()
    }

    #[test]
    fn ids_and_mode_change_and_the_table_stays() {
        let bound = layout().bind(&BTreeMap::from([("http://n3:8080".to_owned(), NodeId(7))])).unwrap();
        assert_eq!((bound.epoch(), bound.members()[3].id), (1, Some(NodeId(7))));
        let switched = bound.with_mode(Mode::Async).unwrap();
        assert_eq!((switched.epoch(), switched.mode()), (2, Mode::Async));
        assert_eq!(switched.table(), layout().table());
    }

    #[test]
    fn what_is_no_layout_is_refused_by_name() {
        let member = |name: &str| Member::new(name);
        let made = |replicas, members| Layout::provisional(ClusterId(1), replicas, Mode::Async, members);
        assert_eq!(made(3, vec![]), Err(LayoutError::Members { members: 0 }));
        assert_eq!(made(0, vec![member("a")]), Err(LayoutError::Replicas { replicas: 0 }));
        assert_eq!(made(33, vec![member("a")]), Err(LayoutError::Replicas { replicas: 33 }));
        assert_eq!(made(3, vec![member("a"), member("a")]), Err(LayoutError::Name { name: "a".into() }));
        let twin = |name: &str| Member { id: Some(NodeId(1)), ..member(name) };
        assert_eq!(made(3, vec![twin("a"), twin("b")]), Err(LayoutError::Id { id: NodeId(1) }));
        assert!(matches!(layout().join(member("")), Err(LayoutError::Member(MemberError::Name { .. }))));
        let last = Layout { epoch: u64::MAX, ..layout() };
        assert_eq!(last.with_mode(Mode::Async), Err(LayoutError::LastEpoch));
    }
}
