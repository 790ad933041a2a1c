//! A partition: one of [`PARTITIONS`] equal slices of the position space, and the leaves inside it.
//!
//! ```text
//! position, 64 bits   [ partition: 10 ][ leaf: 10 ][ the rest: 44 ]
//! ```
//!
//! The slices are equal and never move, so ownership is a small table, a partition is one contiguous range of
//! rows on disk, and only the table changes when a member comes or goes (Dynamo, section 6.2, strategy 3).

use crate::record::Position;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::RangeInclusive;

/// How many partitions a cluster has, fixed when it is born. A power of two, so that a partition is the top
/// bits of a position. 1,024 leaves a member of a 100-node cluster about 31 slots, fine enough to balance
/// within 1.10, and keeps the table of owners at 6 KiB.
pub const PARTITIONS: usize = 1 << PARTITION_BITS;

/// How many Merkle leaves a partition has: the next bits of the position. 1,024 × 16 B is 16 KiB of sums.
pub const LEAVES: usize = 1 << LEAF_BITS;

const PARTITION_BITS: u32 = 10;
const LEAF_BITS: u32 = 10;

/// A slice of the position space, `0..PARTITIONS`. Valid by construction, so it indexes arrays without a doubt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Partition(u16);

/// A number that is no partition. Nothing was changed; whoever sent it speaks of another cluster's slices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there is no partition {index}: they are numbered 0 to {}", PARTITIONS - 1)]
pub struct NoSuchPartition {
    /// The number that was given.
    pub index: usize,
}

impl Partition {
    /// The partition of a position: its top 10 bits.
    pub fn of(position: Position) -> Partition {
        Partition((position.0 >> (u64::BITS - PARTITION_BITS)) as u16)
    }

    /// The partition with this number, from `0..PARTITIONS`.
    pub fn try_from_index(index: usize) -> Result<Partition, NoSuchPartition> {
        if index < PARTITIONS { Ok(Partition(index as u16)) } else { Err(NoSuchPartition { index }) }
    }

    /// Its number, in `0..PARTITIONS`.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Its first position, which is also its place on the ring: the walk for owners begins here.
    pub fn start(self) -> Position {
        Position(u64::from(self.0) << (u64::BITS - PARTITION_BITS))
    }

    /// All its positions, both ends included: the last partition ends at `u64::MAX`, which no half-open range can say.
    pub fn positions(self) -> RangeInclusive<u64> {
        let start = self.start().0;
        start..=start | (u64::MAX >> PARTITION_BITS)
    }

    /// All partitions, in order.
    pub fn all() -> impl ExactSizeIterator<Item = Partition> + DoubleEndedIterator + Clone {
        (0..PARTITIONS as u16).map(Partition)
    }
}

/// The Merkle leaf of a position within its partition, in `0..LEAVES`: the 10 bits after the partition's.
pub fn leaf(position: Position) -> usize {
    (position.0 >> (u64::BITS - PARTITION_BITS - LEAF_BITS)) as usize & (LEAVES - 1)
}

impl TryFrom<u16> for Partition {
    type Error = NoSuchPartition;

    fn try_from(index: u16) -> Result<Partition, NoSuchPartition> {
        Partition::try_from_index(usize::from(index))
    }
}

impl From<Partition> for u16 {
    fn from(partition: Partition) -> u16 {
        partition.0
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ends_of_the_space_are_the_first_and_the_last_partition() {
        assert_eq!((Partition::of(Position(0)).index(), leaf(Position(0))), (0, 0));
        assert_eq!((Partition::of(Position(u64::MAX)).index(), leaf(Position(u64::MAX))), (1023, 1023));
        assert_eq!(*Partition::of(Position(u64::MAX)).positions().end(), u64::MAX);
        assert_eq!(Partition::all().len(), PARTITIONS);
    }

    #[test]
    fn numbers_past_the_last_are_refused() {
        assert!(Partition::try_from_index(1023).is_ok());
        assert_eq!(Partition::try_from_index(1024).unwrap_err().index, 1024);
        assert!(postcard::from_bytes::<Partition>(&postcard::to_stdvec(&1024u16).unwrap()).is_err());
    }

    proptest! {
        #[test]
        fn every_position_lies_in_its_partition_and_leaves_follow_positions(position: u64) {
            let partition = Partition::of(Position(position));
            prop_assert!(partition.positions().contains(&position));
            prop_assert_eq!(Partition::of(partition.start()), partition);
            let leaf_width = u64::MAX / (PARTITIONS * LEAVES) as u64 + 1;
            prop_assert_eq!(leaf(Position(position)) as u64, (position - partition.start().0) / leaf_width);
        }
    }
}
