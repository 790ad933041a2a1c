//! Trees over sums: one hash over many partitions, and the levels between a partition and its leaves. The only
//! file that names `rs_merkle`.
//!
//! ```text
//! depth 0    1 node          what hashing covers   leaf of a partition tree   0 ‖ sum
//!   ...                                            leaf of a root             1 ‖ partition ‖ sum
//! depth 10   1,024 leaves                          two nodes                  2 ‖ left ‖ right
//! ```                                              no partition at all        3
//!
//! `rs_merkle::MerkleTree` hides its levels and can't replace a leaf, so its `PartialTree` is used. A tree is
//! built when a session descends into a partition, and dropped: 0.3 ms cost less than keeping 64 KiB for each.

use super::sum::LeafSum;
use crate::placement::{LEAVES, Partition};
use rs_merkle::{Hasher, PartialTree};
use std::sync::LazyLock;

/// The hash of a node: 32 bytes of BLAKE3.
pub type TreeHash = [u8; 32];

/// How deep the leaves of a partition's tree stand: [`LEAVES`] is 2 to this.
pub const TREE_DEPTH: usize = LEAVES.ilog2() as usize;

/// The first byte of what is hashed, so that a node of one kind is never taken for one of another.
mod domain {
    pub(super) const LEAF: u8 = 0;
    pub(super) const PARTITION: u8 = 1;
    pub(super) const PAIR: u8 = 2;
    pub(super) const NOTHING: u8 = 3;
}

#[derive(Clone)]
struct Blake3;

impl Hasher for Blake3 {
    type Hash = TreeHash;

    fn hash(data: &[u8]) -> TreeHash {
        blake3::hash(data).into()
    }

    /// A node without a sibling is passed up as it is; leaves name their partitions, so no two sets look alike.
    fn concat_and_hash(left: &TreeHash, right: Option<&TreeHash>) -> TreeHash {
        let Some(right) = right else { return *left };
        let known = if left == right { EMPTY.iter().find(|[node, _]| node == left) } else { None };
        known.map_or_else(|| pair_hash(left, right), |[_, above]| *above)
    }
}

/// Of each level, from the leaves upwards, the node over empty leaves alone, and the one above two of those. Where a
/// partition has fewer keys than leaves, that is most of its tree: known, it is built in a third of the time.
static EMPTY: LazyLock<[[TreeHash; 2]; TREE_DEPTH]> = LazyLock::new(|| {
    let mut above = sum_hash(&LeafSum::EMPTY);
    std::array::from_fn(|_| {
        let node = above;
        above = pair_hash(&node, &node);
        [node, above]
    })
});

fn pair_hash(left: &TreeHash, right: &TreeHash) -> TreeHash {
    let mut pair = [domain::PAIR; 65];
    pair[1..33].copy_from_slice(left);
    pair[33..].copy_from_slice(right);
    Blake3::hash(&pair)
}

/// One hash over these partitions and their digests, in whatever order they come. Which partitions they are
/// counts, also where they are empty. About 0.2 µs a partition.
pub fn root(digests: impl IntoIterator<Item = (Partition, LeafSum)>) -> TreeHash {
    let mut digests: Vec<_> = digests.into_iter().collect();
    digests.sort_unstable();
    let leaf = |&(partition, sum): &(Partition, LeafSum)| {
        let mut leaf = [domain::PARTITION; 19];
        leaf[1..3].copy_from_slice(&u16::from(partition).to_be_bytes());
        leaf[3..].copy_from_slice(&sum.0.to_be_bytes());
        Blake3::hash(&leaf)
    };
    let layers = layers(&digests.iter().map(leaf).collect::<Vec<_>>());
    layers.first().and_then(|top| top.first()).copied().unwrap_or_else(|| Blake3::hash(&[domain::NOTHING]))
}

/// The tree over one partition's leaves. 64 KiB.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionTree {
    /// Top first; the layer at depth d has 2^d nodes.
    layers: Vec<Vec<TreeHash>>,
}

impl PartitionTree {
    /// The tree of these leaves. About 0.3 ms; 0.1 ms where nine in ten are empty.
    pub fn build(leaves: &[LeafSum; LEAVES]) -> PartitionTree {
        let layers = layers(&leaves.iter().map(leaf_hash).collect::<Vec<_>>());
        assert_eq!(layers.len(), TREE_DEPTH + 1, "a tree of {LEAVES} leaves");
        PartitionTree { layers }
    }

    /// The nodes at a depth, left to right: 0 is the root alone, [`TREE_DEPTH`] the leaves; `None` below them.
    pub fn layer(&self, depth: usize) -> Option<&[TreeHash]> {
        self.layers.get(depth).map(Vec::as_slice)
    }

    /// The nodes of the leaves.
    pub(super) fn leaves(&self) -> &[TreeHash] {
        &self.layers[TREE_DEPTH]
    }

    /// The top node: equal roots, equal leaves.
    pub fn root(&self) -> TreeHash {
        self.layers[0][0]
    }
}

/// The node of one leaf, as it stands at [`TREE_DEPTH`].
pub(super) fn leaf_hash(sum: &LeafSum) -> TreeHash {
    if *sum == LeafSum::EMPTY { EMPTY[0][0] } else { sum_hash(sum) }
}

fn sum_hash(sum: &LeafSum) -> TreeHash {
    let mut leaf = [domain::LEAF; 17];
    leaf[1..].copy_from_slice(&sum.0.to_be_bytes());
    Blake3::hash(&leaf)
}

/// All levels over these leaves, the top first; none over no leaves. `rs_merkle` repeats the top above itself when
/// the leaves are a power of two: only the first level of one node is kept.
fn layers(leaves: &[TreeHash]) -> Vec<Vec<TreeHash>> {
    if leaves.is_empty() {
        return Vec::new();
    }
    let tree = PartialTree::<Blake3>::from_leaves(leaves).expect("a whole row of leaves needs no helper nodes");
    let top = tree.layers().iter().position(|layer| layer.len() == 1).expect("every tree ends in one node");
    let nodes = |layer: &Vec<(usize, TreeHash)>| layer.iter().map(|&(_, hash)| hash).collect();
    tree.layers()[..=top].iter().rev().map(nodes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn partition(index: usize) -> Partition {
        Partition::try_from_index(index).unwrap()
    }

    fn hex(hash: TreeHash) -> String {
        blake3::Hash::from(hash).to_hex()[..16].to_owned()
    }

    fn leaves(set: &[(usize, u128)]) -> [LeafSum; LEAVES] {
        let mut leaves = [LeafSum::EMPTY; LEAVES];
        set.iter().for_each(|&(at, sum)| leaves[at] = LeafSum(sum));
        leaves
    }

    /// Nodes of different builds must find equal data equal: change these only with the wire format.
    #[test]
    fn roots_never_change() {
        let some = [(partition(0), LeafSum(7)), (partition(9), LeafSum(u128::MAX)), (partition(1023), LeafSum(0))];
        let tree = PartitionTree::build(&leaves(&[(0, 1), (1023, u128::MAX)]));
        let seen = [root([]), root(some), PartitionTree::build(&leaves(&[])).root(), tree.root()].map(hex);
        assert_eq!(seen, ["e1e0e81d6ea39b0c", "89d1f3058344ada0", "647cc43b6549b87e", "9246dc9cb0af05e8"]);
    }

    #[test]
    fn which_partitions_are_asked_counts_even_when_they_are_empty() {
        let empty = |index| (partition(index), LeafSum::EMPTY);
        let sets =
            [vec![], vec![empty(0)], vec![empty(1)], vec![empty(0), empty(1)], vec![empty(0), empty(1), empty(2)]];
        for (i, set) in sets.iter().enumerate() {
            for other in &sets[..i] {
                assert_ne!(root(set.clone()), root(other.clone()), "{set:?} {other:?}");
            }
        }
        assert_eq!(root([empty(1), empty(0)]), root([empty(0), empty(1)]));
    }

    #[test]
    fn one_leaf_changes_exactly_the_path_above_it() {
        let (one, two) = (PartitionTree::build(&leaves(&[])), PartitionTree::build(&leaves(&[(700, 1)])));
        for depth in 0..=TREE_DEPTH {
            let (one, two) = (one.layer(depth).unwrap(), two.layer(depth).unwrap());
            assert_eq!(one.len(), 1 << depth);
            let differing: Vec<usize> = (0..one.len()).filter(|&i| one[i] != two[i]).collect();
            assert_eq!(differing, [700 >> (TREE_DEPTH - depth)]);
        }
        assert_eq!(two.layer(TREE_DEPTH + 1), None);
    }

    /// The dumb twin of a root: pair, and pair again; who stands alone goes up as it is.
    fn paired(level: Vec<TreeHash>) -> TreeHash {
        if let [top] = level[..] {
            return top;
        }
        let pair = |pair: &[TreeHash]| match pair {
            [left, right] => Blake3::hash(&[&[domain::PAIR], &left[..], &right[..]].concat()),
            alone => alone[0],
        };
        paired(level.chunks(2).map(pair).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn every_level_is_the_level_below_in_pairs(hashes in prop::collection::vec(any::<TreeHash>(), 1..70)) {
            let layers = layers(&hashes);
            prop_assert_eq!(&layers[0], &[paired(hashes.clone())]);
            prop_assert_eq!(layers.last(), Some(&hashes));
            prop_assert!(layers.windows(2).all(|two| two[0].len() == two[1].len().div_ceil(2)));
        }

        #[test]
        fn a_tree_of_few_keys_is_the_one_that_is_hashed_node_by_node(
            set in prop::collection::vec((0..LEAVES, any::<u128>()), 0..200),
        ) {
            let leaves = leaves(&set);
            let hashes = leaves.iter().map(|sum| Blake3::hash(&[&[domain::LEAF], &sum.0.to_be_bytes()[..]].concat()));
            prop_assert_eq!(PartitionTree::build(&leaves).root(), paired(hashes.collect()));
        }

        #[test]
        fn leaves_that_changed_places_are_noticed(a in 0..LEAVES, b in 0..LEAVES, sum: u128) {
            prop_assume!(a != b && sum != 0);
            let of = |at| PartitionTree::build(&leaves(&[(at, sum)])).root();
            prop_assert_ne!(of(a), of(b));
        }
    }
}
