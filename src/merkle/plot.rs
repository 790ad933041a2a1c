//! A plot of the forest: one partition's leaf sums, their total and how many keys they stand for.

use super::sum::{LeafSum, VersionDigest};
use crate::placement::{LEAVES, leaf};
use crate::record::Position;

/// The leaf sums of one partition, 16 KiB.
pub type Leaves = [LeafSum; LEAVES];

/// One stored key, as the digests see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The hash of the key and its version.
    pub digest: VersionDigest,
    /// Whether it has a value. A tombstone counts in the digests like any other version.
    pub live: bool,
}

/// What is known of one partition.
#[derive(Debug, Default)]
pub(super) struct Plot {
    /// Allocated on the first write.
    pub(super) leaves: Option<Box<Leaves>>,
    /// The sum of all leaves.
    pub(super) digest: LeafSum,
    /// Keys with a value. Below 0 while a delete was applied and its key not yet scanned.
    pub(super) live: i64,
    /// Keys without. Below 0 as well.
    pub(super) tombstones: i64,
    /// Whether the scan at start is through with it.
    pub(super) built: bool,
}

impl Plot {
    /// Puts a version in. O(1).
    pub(super) fn add(&mut self, position: Position, entry: Entry) {
        *self.leaf(position) += entry.digest;
        self.digest += entry.digest;
        *self.count(entry) += 1;
    }

    /// Takes a version out, also one that is not in yet. O(1).
    pub(super) fn remove(&mut self, position: Position, entry: Entry) {
        *self.leaf(position) -= entry.digest;
        self.digest -= entry.digest;
        *self.count(entry) -= 1;
    }

    fn leaf(&mut self, position: Position) -> &mut LeafSum {
        let leaves = self.leaves.get_or_insert_with(|| Box::new([LeafSum::EMPTY; LEAVES]));
        &mut leaves[leaf(position)]
    }

    fn count(&mut self, entry: Entry) -> &mut i64 {
        if entry.live { &mut self.live } else { &mut self.tombstones }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_out_before_it_is_put_in_leaves_nothing() {
        let (mut plot, entry) = (Plot::default(), Entry { digest: VersionDigest(7), live: true });
        plot.remove(Position(0), entry);
        assert_eq!((plot.live, plot.digest == LeafSum::EMPTY), (-1, false));
        plot.add(Position(0), entry);
        assert_eq!((plot.live, plot.digest), (0, LeafSum::EMPTY));
        assert_eq!(plot.leaves.unwrap()[0], LeafSum::EMPTY);
    }
}
