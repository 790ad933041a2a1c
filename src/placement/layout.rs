//! The layout: the numbered agreement on members, replicas, mode and owners.
//!
//! The table of owners is part of it. So who keeps what follows from the stored layout alone: nobody computes it
//! again, and a later change of the algorithm moves nothing in a cluster that already stands.
//!
//! Valid by construction, also when decoded: members sorted by name, each once, one of them at least of a weight; every
//! partition owned by `replicas` distinct ones, or by all that own anything where those are fewer; and the same for the owner
//! set beside it while a [`Change`] is under way.
//!
//! A member of weight 0 is drained: a member like any other that owns nothing once a table was planned with it. Two states
//! lie between: a drain that was given up leaves a member of weight 0 that still owns, a member that was to be given weight
//! again and was not filled has weight and owns nothing. Any table planned later takes from the one and gives to the other.

use super::change::Change;
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
    pub(super) cluster: ClusterId,
    pub(super) epoch: u64,
    pub(super) replicas: u8,
    pub(super) mode: Mode,
    pub(super) members: Vec<Member>,
    pub(super) table: Table,
    pub(super) change: Option<Change>,
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
        Ok(Layout { cluster, epoch: 0, replicas, mode, members, table, change: None })
    }

    /// The first layout of a cluster, epoch 1: as [`Layout::provisional`], and agreed on.
    pub fn found(cluster: ClusterId, replicas: u8, mode: Mode, members: Vec<Member>) -> Result<Layout, LayoutError> {
        Ok(Layout { epoch: 1, ..Layout::provisional(cluster, replicas, mode, members)? })
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

    /// The next layout, in which the member of this name has another id: its disk was lost. Moves nothing.
    pub fn rebind(&self, name: &str, id: NodeId) -> Result<Layout, LayoutError> {
        self.with_member(name, |member| member.id = Some(id))
    }

    /// The next layout, in which the member of this name is reached at another address. Moves nothing.
    pub fn with_url(&self, name: &str, url: &str) -> Result<Layout, LayoutError> {
        self.with_member(name, |member| member.url = url.to_owned())
    }

    fn with_member(&self, name: &str, edit: impl FnOnce(&mut Member)) -> Result<Layout, LayoutError> {
        let index = self.named(name)?;
        let mut next = self.next()?;
        edit(&mut next.members[index.index()]);
        check_members(&next.members)?;
        Ok(next)
    }

    /// The next layout, with another default mode. Moves nothing.
    pub fn with_mode(&self, mode: Mode) -> Result<Layout, LayoutError> {
        Ok(Layout { mode, ..self.next()? })
    }

    /// The member of this name.
    pub(super) fn named(&self, name: &str) -> Result<MemberIndex, LayoutError> {
        let found = self.members.binary_search_by(|member| member.name.as_str().cmp(name));
        found.map(MemberIndex::new).map_err(|_| LayoutError::NoSuchMember { name: name.to_owned() })
    }

    pub(super) fn next(&self) -> Result<Layout, LayoutError> {
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

    /// How many owners a partition should have, 1 to [`REPLICAS_MAX`]; it has no more than there are members that may own.
    /// Speaks of [`Layout::table`]; a change has its own.
    pub fn replicas(&self) -> u8 {
        self.replicas
    }

    /// The default mode of requests.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The members, sorted by name, those joining and leaving among them. Never empty.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The owners of every partition, whom reads ask.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The change of owners under way, if there is one.
    pub fn change(&self) -> Option<&Change> {
        self.change.as_ref()
    }

    /// Whose majority decides on the next epoch: all members, but those joining while they are filled, and but
    /// those leaving once reads have switched. None but they own in [`Layout::table`]; those of weight 0 vote all the same.
    pub fn voters(&self) -> Vec<MemberIndex> {
        let absent = self.change.as_ref().map_or(&[][..], Change::absent);
        let all = (0..self.members.len()).map(MemberIndex::new);
        all.filter(|member| absent.binary_search(member).is_err()).collect()
    }

    /// The layout itself, if it keeps every rule.
    fn checked(self) -> Result<Layout, LayoutError> {
        check_members(&self.members)?;
        let Some(change) = &self.change else {
            check_table(&self.table, self.replicas, &self.members, &[])?;
            return Ok(self);
        };
        change.check(self.members.len())?;
        check_table(&self.table, self.replicas, &self.members, change.absent())?;
        check_table(change.table(), change.replicas(), &self.members, change.absent_beside())?;
        Ok(self)
    }
}

/// A layout as it came from outside.
#[derive(Deserialize)]
pub(super) struct Unchecked {
    pub(super) cluster: ClusterId,
    pub(super) epoch: u64,
    pub(super) replicas: u8,
    pub(super) mode: Mode,
    pub(super) members: Vec<Member>,
    pub(super) table: Table,
    #[serde(default)]
    pub(super) change: Option<Change>,
}

impl TryFrom<Unchecked> for Layout {
    type Error = LayoutError;

    fn try_from(layout: Unchecked) -> Result<Layout, LayoutError> {
        let Unchecked { cluster, epoch, replicas, mode, members, table, change } = layout;
        Layout { cluster, epoch, replicas, mode, members, table, change }.checked()
    }
}

/// How many owners a partition has in a table planned for these members.
pub(super) fn width(replicas: u8, members: &[Member]) -> Result<usize, LayoutError> {
    check_replicas(replicas)?;
    Ok(members.iter().filter(|member| member.weight > 0).count().min(replicas.into()))
}

fn check_replicas(replicas: u8) -> Result<(), LayoutError> {
    if (1..=REPLICAS_MAX).contains(&replicas) { Ok(()) } else { Err(LayoutError::Replicas { replicas }) }
}

/// Whether a table fits these members, of which the absent (sorted) own nothing.
fn check_table(table: &Table, replicas: u8, members: &[Member], absent: &[MemberIndex]) -> Result<(), LayoutError> {
    check_replicas(replicas)?;
    let is_present = |member: MemberIndex| absent.binary_search(&member).is_err();
    let mut present = (0..members.len()).map(MemberIndex::new).filter(|member| is_present(*member)).peekable();
    if present.peek().is_none() {
        return Err(LayoutError::Members { members: 0 });
    }
    // Those that stay when the others go are a layout of their own.
    if present.all(|member| members[member.index()].weight == 0) {
        return Err(LayoutError::Weights { weights: 0 });
    }
    let may_own = |owner: MemberIndex| owner.index() < members.len() && is_present(owner);
    Ok(table.check(replicas.into(), may_own)?)
}

pub(super) fn check_members(members: &[Member]) -> Result<(), LayoutError> {
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
    if (1..=WEIGHTS_MAX).contains(&weights) { Ok(()) } else { Err(LayoutError::Weights { weights }) }
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
    /// The number of owners would fall too far at once.
    #[error(
        "keys can't go from {from} owners to {to} at once: lower the replicas by one at a time, and have one member at a time \
         leave or hand over what it keeps"
    )]
    ReplicasTooFew {
        /// How many owners a partition has.
        from: usize,
        /// How many it would have.
        to: usize,
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
    /// All weights together are too great, or nobody has any.
    #[error("the weights must add up to 1 to {WEIGHTS_MAX}, not {weights}")]
    Weights {
        /// Their sum.
        weights: u32,
    },
    /// The table doesn't fit the members.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A change names members that are none, out of order, or as both joining and leaving: in bytes from outside.
    #[error("the change names members that are none, out of order, or as both joining and leaving")]
    Change,
    /// One change at a time: this one has to be finished or abandoned first.
    #[error("a change of owners is under way, and must be finished or abandoned first")]
    ChangeUnderWay,
    /// There is no change under way, or it isn't at the stage that was asked to end.
    #[error("no change of owners is at the stage that this would end")]
    NoChange,
    /// Nobody was named to join.
    #[error("nobody was named to join")]
    Nobody,
    /// No member has the name.
    #[error("there is no member {name:?}")]
    NoSuchMember {
        /// The name that was given.
        name: String,
    },
    /// A cluster keeps one member.
    #[error("the last member can't leave")]
    LastMember,
    /// A cluster keeps one member that keeps something.
    #[error("{name} is the last member that keeps anything: give another a weight first")]
    LastKeeper {
        /// Its name.
        name: String,
    },
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
    fn a_member_gets_another_id_or_address_and_keeps_its_name_and_slots() {
        let bound = layout().rebind("http://n3:8080", NodeId(7)).unwrap();
        let moved = bound.with_url("http://n3:8080", "http://m:1").unwrap();
        let third = Member { id: Some(NodeId(7)), url: "http://m:1".into(), ..layout().members()[3].clone() };
        assert_eq!((moved.epoch(), &moved.members()[3]), (2, &third));
        assert_eq!(moved.table(), layout().table());
        let nobody = LayoutError::NoSuchMember { name: "n9".into() };
        assert_eq!(moved.rebind("n9", NodeId(1)), Err(nobody.clone()));
        assert_eq!(moved.with_url("n9", "http://m:1"), Err(nobody));
        assert_eq!(moved.rebind("http://n4:8080", NodeId(7)), Err(LayoutError::Id { id: NodeId(7) }));
        assert!(matches!(moved.with_url("http://n4:8080", ""), Err(LayoutError::Member(MemberError::Url { .. }))));
    }

    #[test]
    fn a_founded_layout_is_the_provisional_one_agreed_on() {
        let members = layout().members().iter().rev().cloned().collect();
        let founded = Layout::found(ClusterId::named("test"), 3, Mode::Sloppy, members).unwrap();
        assert_eq!(founded, Layout { epoch: 1, ..layout() });
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
        assert!(matches!(layout().join(vec![member("")]), Err(LayoutError::Member(MemberError::Name { .. }))));
        let last = Layout { epoch: u64::MAX, ..layout() };
        assert_eq!(last.with_mode(Mode::Async), Err(LayoutError::LastEpoch));
    }
}
