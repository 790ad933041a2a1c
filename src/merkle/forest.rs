//! The forest: for every partition its leaf sums, their total and how many keys they stand for.
//!
//! One committer writes, HTTP workers read. Each partition has a lock of its own, held for a few additions by
//! the writer and for one copy of 16 KiB (about a microsecond) by the slowest reader, so nobody waits long.
//! Answers about several partitions are not one moment's: a comparison that finds a difference looks again.
//!
//! At start the sums are rebuilt by a scan of a snapshot while writes go on. Sums commute, so the scan adds rows
//! as they were, [`apply`](Forest::apply) replaces them as writes come, in any interleaving, **provided that**
//! every write after the snapshot is applied and none before it. Until the scan is through a partition is not
//! built: its sums mean nothing, and may be compared with nobody's.

use super::plot::{Entry, Leaves, Plot};
use super::sum::LeafSum;
use super::tree::{TreeHash, root};
use crate::placement::{PARTITIONS, Partition};
use crate::record::Position;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The digests of a store. At most 16 KiB a partition, 16 MiB in all; 3 MiB at 100,000 keys.
#[derive(Debug)]
pub struct Forest {
    plots: Box<[Mutex<Plot>]>,
    /// Counts changes, each after it was made.
    changes: AtomicU64,
    /// Keys with a value, in all partitions.
    live: AtomicI64,
    /// Roots worked out since the last change: one for each peer, while nothing is written.
    roots: Mutex<Roots>,
}

#[derive(Debug, Default)]
struct Roots {
    changes: u64,
    /// Which partitions, and their root, if all of them are built.
    known: Vec<(Vec<Partition>, Option<TreeHash>)>,
}

/// Roots kept at a time.
const ROOTS_KEPT: usize = 64;

impl Default for Forest {
    fn default() -> Forest {
        Forest::new()
    }
}

impl Forest {
    /// A forest of nothing, in which no partition is built yet.
    pub fn new() -> Forest {
        let plots = Partition::all().map(|_| Mutex::default()).collect();
        Forest { plots, changes: AtomicU64::new(0), live: AtomicI64::new(0), roots: Mutex::default() }
    }

    /// A stored key was written: takes its old version out of the sums and puts the new one in. `None` is an
    /// absent key. O(1), about 30 ns.
    pub fn apply(&self, position: Position, old: Option<Entry>, new: Option<Entry>) {
        if old == new {
            return;
        }
        self.change(Partition::of(position), |plot| {
            if let Some(old) = old {
                plot.remove(position, old);
            }
            if let Some(new) = new {
                plot.add(position, new);
            }
        });
    }

    /// The scan at start met a key, as it was in the snapshot. O(1).
    pub fn add_scanned(&self, position: Position, entry: Entry) {
        self.change(Partition::of(position), |plot| plot.add(position, entry));
    }

    /// The scan is through with the partition (an empty one as well): from now on its digests are what is stored.
    pub fn mark_built(&self, partition: Partition) {
        self.change(partition, |plot| plot.built = true);
    }

    /// Takes that back, and leaves the sums: more is to come of what was there before.
    pub fn unbuild(&self, partition: Partition) {
        self.plot(partition).built = false;
    }

    /// Whether the partition may be compared. "Not built" is neither equal nor "nothing missing".
    pub fn is_built(&self, partition: Partition) -> bool {
        self.plot(partition).built
    }

    /// How many partitions are built, up to [`PARTITIONS`]. Takes every lock once, about 10 µs.
    pub fn built(&self) -> usize {
        Partition::all().filter(|&partition| self.is_built(partition)).count()
    }

    /// Whether every partition may be compared. About 10 µs.
    pub fn all_built(&self) -> bool {
        self.built() == PARTITIONS
    }

    /// Forgets all about the partition, so that it is no longer built: for one that is let go of, or scanned anew.
    pub fn forget(&self, partition: Partition) {
        self.change(partition, |plot| *plot = Plot::default());
    }

    /// Replaces all that is known of a built partition by what was just read from the store. Nothing may change there
    /// meanwhile.
    pub fn recount(&self, partition: Partition, entries: impl IntoIterator<Item = (Position, Entry)>) {
        let mut counted = Plot::default();
        counted.built = true;
        entries.into_iter().for_each(|(position, entry)| counted.add(position, entry));
        self.change(partition, |plot| *plot = counted);
    }

    /// The sum of all versions in the partition. O(1).
    pub fn partition_digest(&self, partition: Partition) -> LeafSum {
        self.plot(partition).digest
    }

    /// A copy of the partition's leaves, at one moment; `None` if it was never written, when all are empty.
    pub fn leaves(&self, partition: Partition) -> Option<Box<Leaves>> {
        self.plot(partition).leaves()
    }

    /// How many keys of the partition have a value. May be below the truth, even below 0, until it is built.
    pub fn live(&self, partition: Partition) -> i64 {
        self.plot(partition).live
    }

    /// How many keys of all partitions have a value. May be below the truth until all of them are built. O(1).
    pub fn live_of_all(&self) -> u64 {
        self.live.load(Ordering::Acquire).max(0) as u64
    }

    /// How many keys of the partition are tombstones. May be below the truth, even below 0, until it is built.
    pub fn tombstones(&self, partition: Partition) -> i64 {
        self.plot(partition).tombstones
    }

    /// One hash over these partitions' digests, in whatever order they are named: a session's first question.
    /// About 0.2 ms for all partitions.
    pub fn root(&self, partitions: impl IntoIterator<Item = Partition>) -> TreeHash {
        root(partitions.into_iter().map(|partition| (partition, self.partition_digest(partition))))
    }

    /// The same if all of them are built. Worked out once for as long as nothing changes, so that nodes in sync ask and
    /// answer for nothing.
    pub fn root_if_built(&self, partitions: &[Partition]) -> Option<TreeHash> {
        // A change that is made meanwhile is counted after it was made: then this root is kept under a number that has
        // passed, and not used again.
        let changes = self.changes.load(Ordering::Acquire);
        let kept = || self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let roots = kept();
            if roots.changes == changes
                && let Some((_, root)) = roots.known.iter().find(|(known, _)| known == partitions)
            {
                return *root;
            }
        }
        let built = partitions.iter().all(|&partition| self.is_built(partition));
        let root = built.then(|| self.root(partitions.iter().copied()));
        let mut roots = kept();
        if roots.changes != changes || roots.known.len() == ROOTS_KEPT {
            *roots = Roots { changes, known: Vec::new() };
        }
        roots.known.push((partitions.to_vec(), root));
        root
    }

    fn change(&self, partition: Partition, change: impl FnOnce(&mut Plot)) {
        let gained = {
            let mut plot = self.plot(partition);
            let before = plot.live;
            change(&mut plot);
            plot.live - before
        };
        if gained != 0 {
            self.live.fetch_add(gained, Ordering::AcqRel);
        }
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Nothing below a lock can fail half-way, so what a panicking thread left behind is whole.
    fn plot(&self, partition: Partition) -> MutexGuard<'_, Plot> {
        self.plots[partition.index()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::VersionDigest;
    use crate::placement::LEAVES;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// The dumb twin: what is stored, from which everything is computed anew.
    type Store = BTreeMap<u64, Entry>;

    fn rebuilt(store: &Store) -> Forest {
        let forest = Forest::new();
        for (&position, &entry) in store {
            forest.add_scanned(Position(position), entry);
        }
        forest
    }

    fn write(forest: &Forest, store: &mut Store, position: u64, new: Option<Entry>) {
        let old = match new {
            Some(entry) => store.insert(position, entry),
            None => store.remove(&position),
        };
        forest.apply(Position(position), old, new);
    }

    fn check_same(forest: &Forest, twin: &Forest) {
        for partition in Partition::all() {
            let seen = |f: &Forest| (f.partition_digest(partition), f.live(partition), f.tombstones(partition));
            assert_eq!(seen(forest), seen(twin), "partition {partition}");
            let leaves = |f: &Forest| f.leaves(partition).unwrap_or_else(|| Box::new([LeafSum::EMPTY; LEAVES]));
            assert!(leaves(forest) == leaves(twin), "leaves of partition {partition}");
            let total = leaves(forest).iter().fold(0u128, |sum, leaf| sum.wrapping_add(leaf.0));
            assert_eq!(LeafSum(total), forest.partition_digest(partition));
        }
        assert_eq!(forest.root(Partition::all()), twin.root(Partition::all()));
        let live: i64 = Partition::all().map(|partition| forest.live(partition)).sum();
        assert_eq!(forest.live_of_all() as i64, live);
    }

    fn entry() -> impl Strategy<Value = Entry> {
        (any::<u128>(), any::<bool>()).prop_map(|(digest, live)| Entry { digest: VersionDigest(digest), live })
    }

    /// Few positions, the ends of the space among them, so that keys are overwritten and leaves are shared.
    fn writes() -> impl Strategy<Value = Vec<(u64, Option<Entry>)>> {
        let position = prop::sample::select(vec![0, 1, u64::MAX, u64::MAX - 1, 1 << 54, 1 << 44, 3 << 60]);
        prop::collection::vec((position, prop::option::of(entry())), 0..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn writes_in_any_order_leave_the_digests_of_what_is_stored(writes in writes()) {
            let (forest, mut store) = (Forest::new(), Store::new());
            for (position, new) in writes {
                write(&forest, &mut store, position, new);
            }
            check_same(&forest, &rebuilt(&store));
        }

        #[test]
        fn a_scan_among_writes_ends_like_a_scan_after_them(
            before in writes(),
            during in writes(),
            turns in prop::collection::vec(any::<bool>(), 120),
        ) {
            let mut store = Store::new();
            before.iter().for_each(|&(position, new)| write(&Forest::new(), &mut store, position, new));
            let (forest, snapshot) = (Forest::new(), store.clone());
            let (mut scan, mut writes) = (snapshot.iter(), during.into_iter());
            for scans in turns {
                if scans {
                    scan.next().into_iter().for_each(|(&at, &entry)| forest.add_scanned(Position(at), entry));
                } else if let Some((position, new)) = writes.next() {
                    write(&forest, &mut store, position, new);
                }
            }
            scan.for_each(|(&at, &entry)| forest.add_scanned(Position(at), entry));
            writes.for_each(|(position, new)| write(&forest, &mut store, position, new));
            check_same(&forest, &rebuilt(&store));
        }
    }

    #[test]
    fn one_changed_version_changes_the_root_of_its_partition_alone() {
        let forest = Forest::new();
        let (here, elsewhere) = (Partition::of(Position(0)), Partition::of(Position(u64::MAX)));
        let before = (forest.root([here]), forest.root([elsewhere]));
        forest.apply(Position(5), None, Some(Entry { digest: VersionDigest(1), live: true }));
        assert_ne!(forest.root([here]), before.0);
        assert_eq!(forest.root([elsewhere]), before.1);
        assert!(forest.leaves(elsewhere).is_none(), "what was never written takes no memory");
    }

    #[test]
    fn a_root_that_was_kept_is_the_root_of_what_is_stored_now() {
        let (forest, all) = (Forest::new(), Partition::all().collect::<Vec<_>>());
        assert_eq!(forest.root_if_built(&all), None);
        all.iter().for_each(|&partition| forest.mark_built(partition));
        let mut roots = Vec::new();
        for at in 0..5 {
            forest.apply(Position(at << 40), None, Some(Entry { digest: VersionDigest(7), live: true }));
            for partitions in [&all[..], &all[..1], &all[1..]] {
                let expected = Some(forest.root(partitions.iter().copied()));
                assert_eq!((forest.root_if_built(partitions), forest.root_if_built(partitions)), (expected, expected));
            }
            roots.push(forest.root_if_built(&all));
        }
        roots.sort_unstable();
        roots.dedup();
        assert_eq!(roots.len(), 5, "every change has a root of its own");
        forest.forget(all[0]);
        assert_eq!((forest.root_if_built(&all), forest.root_if_built(&all[1..]).is_some()), (None, true));
    }

    #[test]
    fn counts_below_zero_are_made_good_by_the_scan() {
        let (forest, here) = (Forest::new(), Partition::of(Position(0)));
        let value = Entry { digest: VersionDigest(1), live: true };
        let tombstone = Entry { digest: VersionDigest(2), live: false };
        forest.apply(Position(0), Some(value), Some(tombstone));
        assert_eq!((forest.live(here), forest.tombstones(here)), (-1, 1));
        forest.add_scanned(Position(0), value);
        assert_eq!((forest.live(here), forest.tombstones(here)), (0, 1));
        assert_eq!(forest.partition_digest(here), LeafSum(2));
    }

    #[test]
    fn a_partition_is_compared_only_once_it_is_built() {
        let forest = Forest::new();
        let first = Partition::of(Position(0));
        assert!(!forest.is_built(first) && !forest.all_built());
        Partition::all().for_each(|partition| forest.mark_built(partition));
        assert!(forest.all_built());
        forest.apply(Position(0), None, Some(Entry { digest: VersionDigest(9), live: true }));
        forest.forget(first);
        assert_eq!((forest.is_built(first), forest.live(first), forest.built()), (false, 0, PARTITIONS - 1));
        assert_eq!(forest.partition_digest(first), LeafSum::EMPTY);
    }
}
