//! Where two nodes' digests differ, level by level; each function is one side's part of one message.
//!
//! ```text
//!  asker                              answerer
//!  root of what both keep        ──►  equal; or one digest for each group of 32 partitions
//!  groups that differ            ──►  their partitions' digests, with how many keys they stand for
//!  64 nodes of each partition    ──►  the leaves below each node that differs, those that are not empty
//!  (a partition of few keys goes straight to lists of its keys)
//! ```
//!
//! Digests of partitions and above are 8 bytes: two that differ look alike once in 2^64. Below, where there are
//! thousands of them, they are 4, and which 4 of a hash's 32 bytes is another matter in each session ([`Salt`]): a
//! difference that one overlooks, once in 2^32, the next one finds. A node whose sums are still being built has no
//! digest for the partition, which is neither "equal" nor "nothing there".

use super::forest::Forest;
use super::sum::LeafSum;
use super::tree::{PartitionTree, TreeHash, leaf_hash};
use crate::placement::{LEAVES, Partition};
use crate::record::{Stamp, Version};
use serde::{Deserialize, Serialize};

/// Partitions under one digest: 1,024 in two steps of 32.
pub const GROUP_PARTITIONS: usize = 32;
/// How deep the nodes stand that are sent for a partition: 64 nodes, then 16 leaves. Of the 10 levels the upper ones
/// are shared by all keys that differ in a partition, so they may be the wider step.
pub const SUBTREE_DEPTH: usize = 6;
/// Nodes sent for a partition.
pub const SUBTREES: usize = 1 << SUBTREE_DEPTH;
/// Leaves below each of them.
pub const SUBTREE_LEAVES: usize = LEAVES / SUBTREES;
/// A partition of at most so many keys is compared key by key: 8 bytes each cost about what the levels between cost.
pub const FEW_KEYS: u32 = 40;

/// The first 8 bytes of a strong hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Digest(pub [u8; 8]);

impl Digest {
    fn of_node(hash: &TreeHash) -> Digest {
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        Digest(first)
    }

    /// The low half of a sum, which is the sum of the low halves.
    fn of_sum(sum: LeafSum) -> Digest {
        Digest((sum.0 as u64).to_be_bytes())
    }
}

/// Which bytes of hashes a session shows in its short digests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Salt(u8);

impl Salt {
    /// That of a session which began at `stamp`: another for most others.
    pub fn of(stamp: Stamp) -> Salt {
        Salt((stamp.ms() % 8) as u8)
    }
}

/// Four bytes of a strong hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Short(pub [u8; 4]);

impl Short {
    fn of_node(hash: &TreeHash, salt: Salt) -> Short {
        let (windows, _) = hash.as_chunks::<4>();
        Short(windows[usize::from(salt.0) % windows.len()])
    }

    /// Of a key's version.
    pub fn of_version(version: Version, salt: Salt) -> Short {
        Short(((version.0 >> (32 * (u32::from(salt.0) % 4))) as u32).to_be_bytes())
    }
}

/// One partition as a node tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PartitionDigest {
    /// Which.
    pub partition: Partition,
    /// What it stands for; `None` while it is not built.
    pub built: Option<Built>,
}

/// The digest of a built partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Built {
    /// The digest.
    pub digest: Digest,
    /// Keys it stands for, tombstones included.
    pub keys: u32,
}

/// The upper levels of a partition's tree: [`SUBTREES`] nodes, left to right.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subtrees {
    /// Which partition.
    pub partition: Partition,
    /// Its nodes at [`SUBTREE_DEPTH`].
    pub nodes: Vec<Short>,
}

/// The leaves of a partition below those nodes that differed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SubtreeLeaves {
    /// Which partition.
    pub partition: Partition,
    /// For each node that differed.
    pub below: Vec<Below>,
}

/// The leaves below one node. Empty ones are left out: with few keys in a partition that is most of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Below {
    /// The node's number.
    pub node: u8,
    /// Which of its leaves hold something: the lowest bit is the leftmost.
    pub held: u16,
    /// The digests of those, from left to right.
    pub leaves: Vec<Short>,
}

impl Below {
    fn of(node: usize, sums: &[LeafSum], hashes: &[TreeHash], salt: Salt) -> Below {
        let holds = |at: &usize| sums[*at] != LeafSum::EMPTY;
        let held: Vec<usize> = (0..SUBTREE_LEAVES).filter(holds).collect();
        Below {
            node: node as u8,
            held: held.iter().fold(0, |held, at| held | 1 << at),
            leaves: held.iter().map(|&at| Short::of_node(&hashes[at], salt)).collect(),
        }
    }

    /// Every leaf's digest, from left to right; none for an empty one.
    fn every(&self) -> impl Iterator<Item = Option<Short>> {
        let mut leaves = self.leaves.iter().copied();
        (0..SUBTREE_LEAVES).map(move |at| if self.held >> at & 1 == 1 { leaves.next() } else { None })
    }
}

/// One hash over these partitions; `None` while any is not built. Which partitions they are counts.
pub fn root(forest: &Forest, partitions: &[Partition]) -> Option<TreeHash> {
    forest.root_if_built(partitions)
}

/// A digest for each group of [`GROUP_PARTITIONS`] of these partitions; `None` where one of them is not built.
pub fn groups(forest: &Forest, partitions: &[Partition]) -> Vec<Option<Digest>> {
    let root = |group: &[Partition]| {
        let built = group.iter().all(|&partition| forest.is_built(partition));
        built.then(|| Digest::of_node(&forest.root(group.iter().copied())))
    };
    partitions.chunks(GROUP_PARTITIONS).map(root).collect()
}

/// The groups that can't be shown to be equal.
pub fn differing_groups(mine: &[Option<Digest>], theirs: &[Option<Digest>]) -> Vec<u16> {
    let differs = |at: &usize| match (mine[*at], theirs.get(*at).copied().flatten()) {
        (Some(mine), Some(theirs)) => mine != theirs,
        _ => true,
    };
    (0..mine.len()).filter(differs).map(|at| at as u16).collect()
}

/// The partitions in these groups. Numbers of groups there are none of are passed over.
pub fn in_groups(partitions: &[Partition], groups: &[u16]) -> Vec<Partition> {
    let group = |&group: &u16| partitions.chunks(GROUP_PARTITIONS).nth(usize::from(group)).unwrap_or_default();
    groups.iter().flat_map(group).copied().collect()
}

/// The partition as this node tells it.
pub fn partition(forest: &Forest, partition: Partition) -> PartitionDigest {
    let built = forest.is_built(partition).then(|| {
        let keys = forest.live(partition).saturating_add(forest.tombstones(partition));
        let digest = Digest::of_sum(forest.partition_digest(partition));
        Built { digest, keys: keys.clamp(0, i64::from(u32::MAX)) as u32 }
    });
    PartitionDigest { partition, built }
}

/// The upper levels of the partition's tree. About 0.3 ms, 0.1 ms where most leaves are empty.
pub fn subtrees(forest: &Forest, partition: Partition, salt: Salt) -> Subtrees {
    let tree = tree(forest, partition);
    let nodes = tree.layer(SUBTREE_DEPTH).unwrap_or_default();
    let nodes = nodes.iter().map(|node| Short::of_node(node, salt)).collect();
    Subtrees { partition, nodes }
}

/// The leaves below the nodes in which this node's tree differs from `theirs`. About 0.3 ms, 0.1 ms where most leaves
/// are empty.
pub fn leaves_below(forest: &Forest, theirs: &Subtrees, salt: Salt) -> SubtreeLeaves {
    let sums = forest.leaves(theirs.partition).unwrap_or_else(|| Box::new([LeafSum::EMPTY; LEAVES]));
    let tree = PartitionTree::build(&sums);
    let (nodes, leaves) = (tree.layer(SUBTREE_DEPTH).unwrap_or_default(), tree.leaves());
    let below = nodes
        .iter()
        .zip(&theirs.nodes)
        .enumerate()
        .filter(|(_, (mine, theirs))| Short::of_node(mine, salt) != **theirs)
        .map(|(node, _)| {
            let below = node * SUBTREE_LEAVES..(node + 1) * SUBTREE_LEAVES;
            Below::of(node, &sums[below.clone()], &leaves[below], salt)
        })
        .collect();
    SubtreeLeaves { partition: theirs.partition, below }
}

/// The leaves in which this node differs from those of `theirs`, ascending.
pub fn differing_leaves(forest: &Forest, theirs: &SubtreeLeaves, salt: Salt) -> Vec<u16> {
    let mine = forest.leaves(theirs.partition);
    let sum = |leaf: usize| mine.as_ref().map_or(LeafSum::EMPTY, |mine| mine[leaf]);
    let digest = |leaf: usize| match sum(leaf) {
        LeafSum::EMPTY => None,
        sum => Some(Short::of_node(&leaf_hash(&sum), salt)),
    };
    let mut differing: Vec<u16> = theirs
        .below
        .iter()
        .filter(|below| usize::from(below.node) < SUBTREES)
        .flat_map(|below| (usize::from(below.node) * SUBTREE_LEAVES..).zip(below.every()))
        .filter(|&(leaf, theirs)| digest(leaf) != theirs)
        .map(|(leaf, _)| leaf as u16)
        .collect();
    differing.sort_unstable();
    differing.dedup();
    differing
}

fn tree(forest: &Forest, partition: Partition) -> PartitionTree {
    match forest.leaves(partition) {
        Some(leaves) => PartitionTree::build(&leaves),
        None => PartitionTree::build(&[LeafSum::EMPTY; LEAVES]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::{Entry, VersionDigest};
    use crate::record::Position;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    type Rows = BTreeMap<u64, u128>;

    fn forest(rows: &Rows) -> Forest {
        let forest = Forest::new();
        for (&position, &digest) in rows {
            forest.add_scanned(Position(position), Entry { digest: VersionDigest(digest), live: true });
        }
        Partition::all().for_each(|partition| forest.mark_built(partition));
        forest
    }

    fn place(position: u64) -> (Partition, u16) {
        (Partition::of(Position(position)), crate::placement::leaf(Position(position)) as u16)
    }

    /// Every level, as two nodes would go through them.
    fn descend(mine: &Forest, theirs: &Forest, shared: &[Partition], salt: Salt) -> BTreeSet<(Partition, u16)> {
        if root(mine, shared) == root(theirs, shared) {
            return BTreeSet::new();
        }
        let differing = differing_groups(&groups(mine, shared), &groups(theirs, shared));
        in_groups(shared, &differing)
            .into_iter()
            .filter(|&at| partition(mine, at) != partition(theirs, at))
            .flat_map(|at| {
                let leaves = differing_leaves(mine, &leaves_below(theirs, &subtrees(mine, at, salt), salt), salt);
                leaves.into_iter().map(move |leaf| (at, leaf))
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn exactly_the_leaves_that_differ_are_found(
            common in prop::collection::btree_map(any::<u64>(), any::<u128>(), 0..200),
            mine in prop::collection::btree_map(any::<u64>(), any::<u128>(), 0..20),
            theirs in prop::collection::btree_map(any::<u64>(), any::<u128>(), 0..20),
            unshared in 0..100usize,
            salt in 0..20u64,
        ) {
            let both = |more: &Rows| -> Rows { common.iter().chain(more).map(|(at, digest)| (*at, *digest)).collect() };
            let shared: Vec<Partition> = Partition::all().filter(|at| at.index() % 101 != unshared).collect();
            // The dumb twin sorts every row under its leaf and compares the leaves' contents.
            let by_leaf = |rows: &Rows| {
                let mut leaves: BTreeMap<(Partition, u16), BTreeSet<(u64, u128)>> = BTreeMap::new();
                rows.iter().for_each(|(at, digest)| { leaves.entry(place(*at)).or_default().insert((*at, *digest)); });
                leaves
            };
            let (left, right) = (both(&mine), both(&theirs));
            let (left_leaves, right_leaves) = (by_leaf(&left), by_leaf(&right));
            let expected: BTreeSet<(Partition, u16)> = left_leaves.keys().chain(right_leaves.keys())
                .filter(|at| shared.contains(&at.0) && left_leaves.get(at) != right_leaves.get(at))
                .copied()
                .collect();
            let salt = Salt::of(Stamp::from_ms(salt));
            prop_assert_eq!(descend(&forest(&left), &forest(&right), &shared, salt), expected);
        }
    }

    #[test]
    fn what_is_not_built_is_neither_equal_nor_empty() {
        let (mine, theirs) = (forest(&Rows::new()), forest(&Rows::new()));
        let shared: Vec<Partition> = Partition::all().collect();
        theirs.forget(shared[40]);
        assert_eq!(root(&theirs, &shared), None);
        let differing = differing_groups(&groups(&mine, &shared), &groups(&theirs, &shared));
        assert_eq!(differing, [1]);
        let unbuilt: Vec<Partition> =
            in_groups(&shared, &differing).into_iter().filter(|&at| partition(&theirs, at).built.is_none()).collect();
        assert_eq!(unbuilt, [shared[40]]);
    }

    #[test]
    fn numbers_that_mean_nothing_are_passed_over() {
        let mine = forest(&Rows::new());
        let shared: Vec<Partition> = Partition::all().take(40).collect();
        assert!(in_groups(&shared, &[2, 9, u16::MAX]).is_empty());
        let strange = SubtreeLeaves {
            partition: shared[0],
            below: vec![Below { node: 200, held: 1, leaves: vec![Short([1; 4])] }],
        };
        let salt = Salt(u8::MAX);
        assert!(differing_leaves(&mine, &strange, salt).is_empty());
        let torn =
            SubtreeLeaves { partition: shared[0], below: vec![Below { node: 2, held: u16::MAX, leaves: vec![] }] };
        assert!(
            differing_leaves(&mine, &torn, salt).is_empty(),
            "what is not told is taken for empty, as here everything is"
        );
        let short = Subtrees { partition: shared[0], nodes: vec![Short([1; 4])] };
        assert_eq!(leaves_below(&mine, &short, salt).below.len(), 1);
    }

    #[test]
    fn sessions_show_different_bytes_so_that_what_one_overlooks_another_finds() {
        let (hash, other) = ([1; 32], std::array::from_fn(|at| u8::from(at < 28)));
        let salts: Vec<Salt> = (0..8).map(|ms| Salt::of(Stamp::from_ms(ms))).collect();
        let differs = |salt: &Salt| Short::of_node(&hash, *salt) != Short::of_node(&other, *salt);
        assert_eq!(salts.iter().filter(|salt| differs(salt)).count(), 1, "all but the last four bytes are alike");
        let (version, other) = (Version(u128::MAX), Version(u128::MAX >> 32));
        let differs = |salt: &Salt| Short::of_version(version, *salt) != Short::of_version(other, *salt);
        assert_eq!(salts.iter().filter(|salt| differs(salt)).count(), 2);
    }
}
