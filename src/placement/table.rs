//! The table of owners: for every partition the members that keep it, in the order they are asked.
//!
//! ```text
//! partition 0          partition 1                 width = min(replicas, members that own something)
//! [ owner owner owner ][ owner owner owner ] ...   within a partition: sooner in the walk stands first
//! ```

use super::member::MemberIndex;
use super::partition::{PARTITIONS, Partition};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The owners of every partition, equally many each. Two bytes a slot: 6 KiB for three replicas.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Table {
    slots: Vec<MemberIndex>,
}

impl Table {
    /// A table with these owners of each partition, all rows equally long.
    pub(super) fn from_rows(rows: impl IntoIterator<Item = Vec<MemberIndex>>) -> Table {
        let table = Table { slots: rows.into_iter().flatten().collect() };
        assert_eq!(table.slots.len() % PARTITIONS, 0, "rows of a table are equally long");
        table
    }

    /// How many owners each partition has.
    pub fn width(&self) -> usize {
        self.slots.len() / PARTITIONS
    }

    /// How many slots there are in all: a member's load is counted in them.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The owners of a partition, preferred first. An array index.
    pub fn owners(&self, partition: Partition) -> &[MemberIndex] {
        let width = self.width();
        &self.slots[partition.index() * width..][..width]
    }

    pub(super) fn owners_mut(&mut self, partition: Partition) -> &mut [MemberIndex] {
        let width = self.width();
        &mut self.slots[partition.index() * width..][..width]
    }

    /// The partitions of each of `members` members, ascending.
    pub(super) fn held(&self, members: usize) -> Vec<Vec<Partition>> {
        let mut held = vec![Vec::new(); members];
        for partition in Partition::all() {
            for owner in self.owners(partition) {
                held[owner.index()].push(partition);
            }
        }
        held
    }

    /// The same table, its members under other numbers.
    pub(super) fn renumbered(&self, number: impl Fn(MemberIndex) -> MemberIndex) -> Table {
        Table { slots: self.slots.iter().map(|&owner| number(owner)).collect() }
    }

    /// Whether both name the same owners of a partition, in whatever order. O(width²).
    pub(super) fn owned_alike(&self, other: &Table, partition: Partition) -> bool {
        let (these, those) = (self.owners(partition), other.owners(partition));
        these.len() == those.len() && these.iter().all(|owner| those.contains(owner))
    }

    /// What is wrong with the table for rows of so many `replicas` and owners that are those which may own, if anything is:
    /// for tables from outside. Rows are shorter only where everybody who owns anything is in all of them.
    pub(super) fn check(&self, replicas: usize, may_own: impl Fn(MemberIndex) -> bool) -> Result<(), TableError> {
        let owners = self.slots.iter().collect::<BTreeSet<_>>().len();
        let width = owners.min(replicas);
        if width == 0 || self.slots.len() != PARTITIONS * width {
            return Err(TableError::Size { slots: self.slots.len(), expected: PARTITIONS * width.max(1) });
        }
        for partition in Partition::all() {
            let owners = self.owners(partition);
            let repeated = (1..width).any(|i| owners[..i].contains(&owners[i]));
            if repeated || !owners.iter().all(|&owner| may_own(owner)) {
                return Err(TableError::Owners { partition });
            }
        }
        Ok(())
    }
}

/// Why a table from outside fits no layout. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TableError {
    /// It has more or fewer slots than the layout's partitions, replicas and owners ask for.
    #[error("the table has {slots} slots instead of {expected}")]
    Size {
        /// Its slots.
        slots: usize,
        /// The slots it should have.
        expected: usize,
    },
    /// A partition names an owner twice, or one that is no member.
    #[error("partition {partition} has an owner twice, or one that is no member")]
    Owners {
        /// The first such partition.
        partition: Partition,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(row: [u16; 2]) -> Table {
        Table::from_rows(Partition::all().map(|_| row.map(MemberIndex).to_vec()))
    }

    #[test]
    fn a_table_from_outside_is_checked() {
        let two = |owner: MemberIndex| owner.0 < 2;
        assert_eq!(table([0, 1]).check(2, two), Ok(()));
        assert_eq!(table([0, 1]).check(1, two), Err(TableError::Size { slots: 2048, expected: 1024 }));
        assert_eq!(table([0, 1]).check(3, two), Ok(()), "all that own something own everything");
        let nothing = Table { slots: Vec::new() };
        assert_eq!(nothing.check(3, two), Err(TableError::Size { slots: 0, expected: 1024 }));
        let alternating = Partition::all().map(|at| vec![MemberIndex(u16::from(at.index() % 2 == 0))]);
        let narrow = Table::from_rows(alternating);
        assert_eq!(
            (narrow.check(1, two), narrow.check(2, two).is_err()),
            (Ok(()), true),
            "two might own it, and one does"
        );
        let first = Partition::try_from_index(0).unwrap();
        let twice = |at: Partition| if at == first { [1, 1] } else { [0, 1] };
        let twice = Table::from_rows(Partition::all().map(|at| twice(at).map(MemberIndex).to_vec()));
        assert_eq!(twice.check(2, two), Err(TableError::Owners { partition: first }));
        assert_eq!(table([0, 2]).check(2, two), Err(TableError::Owners { partition: first }));
    }

    #[test]
    fn every_slot_is_held_by_its_owner() {
        let held = table([1, 0]).held(3);
        assert_eq!(held.iter().map(Vec::len).collect::<Vec<_>>(), [PARTITIONS, PARTITIONS, 0]);
    }
}
