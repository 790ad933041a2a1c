//! A plot of the forest: one partition's leaf sums, their total and how many keys they stand for.

use super::sum::{LeafSum, VersionDigest};
use crate::placement::{LEAVES, leaf};
use crate::record::Position;
use std::collections::BTreeMap;

/// The leaf sums of one partition, 16 KiB when gathered.
pub type Leaves = [LeafSum; LEAVES];

/// One stored key, as the digests see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The hash of the key and its version.
    pub digest: VersionDigest,
    /// Whether it has a value. A tombstone counts in the digests like any other version.
    pub live: bool,
}

/// As many leaves as are kept one by one; with more the whole array costs hardly more room and less time.
const SCATTERED_MAX: usize = 256;

/// Leaf sums as they are kept. Of a store with few keys nearly all leaves are empty: at 100 keys a partition this is
/// 3 KiB instead of 16.
#[derive(Debug)]
enum Kept {
    /// Those that were written.
    Scattered(BTreeMap<u16, LeafSum>),
    /// All.
    All(Box<Leaves>),
}

/// What is known of one partition.
#[derive(Debug, Default)]
pub(super) struct Plot {
    /// Nothing before the first write.
    kept: Option<Kept>,
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
    /// Puts a version in. O(1), with a few steps more while the leaves are scattered.
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

    /// A copy of the leaves; `None` if nothing was ever written.
    pub(super) fn leaves(&self) -> Option<Box<Leaves>> {
        match self.kept.as_ref()? {
            Kept::All(leaves) => Some(leaves.clone()),
            Kept::Scattered(sums) => Some(gathered(sums)),
        }
    }

    fn leaf(&mut self, position: Position) -> &mut LeafSum {
        let kept = self.kept.get_or_insert_with(|| Kept::Scattered(BTreeMap::new()));
        if let Kept::Scattered(sums) = kept
            && sums.len() == SCATTERED_MAX
        {
            *kept = Kept::All(gathered(sums));
        }
        match kept {
            Kept::Scattered(sums) => sums.entry(leaf(position) as u16).or_default(),
            Kept::All(leaves) => &mut leaves[leaf(position)],
        }
    }

    fn count(&mut self, entry: Entry) -> &mut i64 {
        if entry.live { &mut self.live } else { &mut self.tombstones }
    }
}

fn gathered(sums: &BTreeMap<u16, LeafSum>) -> Box<Leaves> {
    let mut leaves = Box::new([LeafSum::EMPTY; LEAVES]);
    sums.iter().for_each(|(leaf, sum)| leaves[usize::from(*leaf)] = *sum);
    leaves
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
        assert_eq!(plot.leaves().unwrap()[0], LeafSum::EMPTY);
    }

    #[test]
    fn few_leaves_and_many_add_up_alike() {
        let mut plot = Plot::default();
        for at in 0..3 * SCATTERED_MAX as u64 {
            let entry = Entry { digest: VersionDigest(u128::from(at) + 1), live: true };
            plot.add(Position(at << 44), entry);
            let leaves = plot.leaves().unwrap();
            assert_eq!(leaves[at as usize], LeafSum(u128::from(at) + 1), "leaf {at}");
            assert_eq!(leaves.iter().filter(|leaf| **leaf != LeafSum::EMPTY).count() as u64, at + 1);
        }
    }
}
