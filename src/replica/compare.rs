//! A node's part in a comparison: what its digests say, which keys lie below them, and how they differ from a list.

use crate::merkle::Forest;
use crate::merkle::diff::{self, Salt, Short};
use crate::placement::{MemberIndex, Partition, Ring, leaf};
use crate::protocol::{
    Answer, Bed, Difference, KeyEntry, Lacking, Listed, MemberTag, Refusal, SyncAnswer, SyncRequest,
};
use crate::record::{Key, Record, Row, Stamp};
use crate::storage::{Kind, PageSize, Span, Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};

/// Rows read from the store at a time, in some 60 microseconds. With 256 a scan takes a tenth less time, and clients wait
/// four times as long for a core on which it runs.
const PAGE_ROWS: usize = 64;
/// The largest record that is enclosed in an answer, and most bytes of them in one: together they are no more than a
/// session has on its way at any time.
const ENCLOSED_BYTES_MAX: u32 = 1 << 10;
const ENCLOSED_BYTES_SUM_MAX: u32 = 2 << 20;

/// The partitions that both members keep, ascending.
pub fn shared(ring: &Ring, one: MemberIndex, other: MemberIndex) -> Vec<Partition> {
    ring.partitions_of(one).iter().copied().filter(|&partition| ring.is_holder(other, partition)).collect()
}

/// Whether the question is answered from digests alone, in a fraction of a millisecond.
pub fn is_quick(request: &SyncRequest) -> bool {
    matches!(
        request,
        SyncRequest::Root { .. }
            | SyncRequest::Groups { .. }
            | SyncRequest::Offer { .. }
            | SyncRequest::HandedOver { .. }
            | SyncRequest::Done { .. }
    )
}

/// Answers `me`'s part of a comparison. Unless [`is_quick`], it builds trees or scans the store, and is for a thread
/// that may wait: 0.1 to 0.3 ms a tree, 1 µs a row. `pace` is called every 0.3 ms or sooner.
pub fn compare(
    ring: &Ring,
    me: MemberIndex,
    forest: &Forest,
    store: &dyn Store,
    request: SyncRequest,
    pace: &mut dyn FnMut(),
) -> Answer {
    let with = |from: MemberTag| {
        let member = ring.members().find(|&member| MemberTag::of(&ring.member(member).name) == from);
        member.map_or_else(Vec::new, |member| shared(ring, me, member))
    };
    Answer::Sync(match request {
        SyncRequest::Root { from, root } => {
            let shared = with(from);
            let equal = root.is_some() && diff::root(forest, &shared) == root;
            SyncAnswer::Groups((!equal).then(|| diff::groups(forest, &shared)))
        }
        SyncRequest::Groups { from, groups } => {
            let partitions = diff::in_groups(&with(from), &groups);
            SyncAnswer::Partitions(partitions.into_iter().map(|at| diff::partition(forest, at)).collect())
        }
        SyncRequest::Offer { partitions } => {
            // Of one that is not kept here nothing is said, and it is not taken.
            let kept = partitions.into_iter().filter(|partition| ring.is_holder(me, *partition));
            SyncAnswer::Partitions(kept.map(|at| diff::partition(forest, at)).collect())
        }
        SyncRequest::Trees { partitions, salt } => {
            let subtrees = |at| paced(pace, || diff::subtrees(forest, at, salt));
            SyncAnswer::Subtrees(partitions.into_iter().map(subtrees).collect())
        }
        SyncRequest::Subtrees { trees, salt } => {
            let leaves = |theirs| paced(pace, || diff::leaves_below(forest, theirs, salt));
            SyncAnswer::Leaves(trees.iter().map(leaves).collect())
        }
        SyncRequest::Differing { theirs, salt } => {
            let leaves = |theirs: &diff::SubtreeLeaves| {
                (theirs.partition, paced(pace, || diff::differing_leaves(forest, theirs, salt)))
            };
            SyncAnswer::Differing(theirs.iter().map(leaves).collect())
        }
        SyncRequest::List { beds, salt } => match beds.iter().map(|bed| list(store, bed, salt, pace)).collect() {
            Ok(listed) => SyncAnswer::Listed(listed),
            Err(_) => return Answer::Refused(Refusal::Unreadable),
        },
        SyncRequest::Compare { settled, salt, beds } => {
            let mut room = ENCLOSED_BYTES_SUM_MAX;
            let mut differences = |(bed, theirs): &(Bed, Vec<KeyEntry>)| {
                let mut comparison = Comparison::with(theirs, salt);
                scan(store, bed, pace, |key, record, bytes| comparison.meet(key, record, bytes))?;
                Ok(comparison.differences(settled, &mut room))
            };
            match beds.iter().map(&mut differences).collect::<Result<_, StoreError>>() {
                Ok(differences) => SyncAnswer::Differences(differences),
                Err(_) => return Answer::Refused(Refusal::Unreadable),
            }
        }
        SyncRequest::Done { .. } | SyncRequest::HandedOver { .. } => SyncAnswer::Done,
    })
}

fn paced<T>(pace: &mut dyn FnMut(), act: impl FnOnce() -> T) -> T {
    let result = act();
    pace();
    result
}

/// Shows the records in a bed, in key order. Rows that cannot be read are left out, as they are of the digests.
fn scan(
    store: &dyn Store,
    bed: &Bed,
    pace: &mut dyn FnMut(),
    mut show: impl FnMut(Key, Record, u32),
) -> Result<(), StoreError> {
    let mut span = Span::partition(Kind::Data, bed.partition);
    loop {
        let page = store.scan(&span, PageSize::rows(PAGE_ROWS))?;
        for (address, row) in &page.rows {
            let Some(key) = address.key().filter(|key| bed.leaves.contains(leaf(key.position()))) else { continue };
            let Ok(Row { record, .. }) = Row::decode(row) else { continue };
            if !record.is_unknown() {
                show(key, record, u32::try_from(row.len()).unwrap_or(u32::MAX));
            }
        }
        pace();
        match page.next {
            Some(next) => span = span.rest(next),
            None => return Ok(()),
        }
    }
}

/// The keys in a bed, in key order.
fn list(store: &dyn Store, bed: &Bed, salt: Salt, pace: &mut dyn FnMut()) -> Result<Vec<Listed>, StoreError> {
    let mut listed = Vec::new();
    scan(store, bed, pace, |key, record, bytes| {
        let entry = KeyEntry::of(key.position(), record.version(&key), salt);
        listed.push(Listed { key, entry, outline: record.outline(), bytes });
    })?;
    Ok(listed)
}

/// A list of a peer's, against what is held here. Keys are told apart by position; of two that share one the later
/// session finds what the earlier could not tell.
struct Comparison<'a> {
    theirs: &'a [KeyEntry],
    salt: Salt,
    /// Their entries, each with its place.
    listed: BTreeMap<KeyEntry, usize>,
    /// Which of them are held here too.
    matched: BTreeSet<usize>,
    /// What is held here and not listed in that version.
    others: Vec<(Key, KeyEntry, Record, u32)>,
}

impl Comparison<'_> {
    fn with(theirs: &[KeyEntry], salt: Salt) -> Comparison<'_> {
        let listed = theirs.iter().enumerate().map(|(at, entry)| (*entry, at)).collect();
        Comparison { theirs, salt, listed, matched: BTreeSet::new(), others: Vec::new() }
    }

    /// A record held here.
    fn meet(&mut self, key: Key, record: Record, bytes: u32) {
        let entry = KeyEntry::of(key.position(), record.version(&key), self.salt);
        match self.listed.get(&entry) {
            Some(at) => {
                self.matched.insert(*at);
            }
            None if bytes <= ENCLOSED_BYTES_MAX => self.others.push((key, entry, record, bytes)),
            None => self.others.push((key, entry, record.outline(), bytes)),
        }
    }

    /// The differences, as far as what is held here is `settled`. Small records that were not listed are enclosed while
    /// there is `room` for them.
    fn differences(self, settled: Stamp, room: &mut u32) -> Vec<Difference> {
        let unmatched = self.theirs.iter().enumerate().filter(|(at, _)| !self.matched.contains(at));
        let mut unmatched: BTreeMap<Short, (usize, bool)> =
            unmatched.map(|(at, entry)| (entry.position, (at, false))).collect();
        let mut differences = Vec::new();
        for (key, entry, record, bytes) in self.others {
            let listed = unmatched.get_mut(&entry.position).map(|(at, is_met)| {
                *is_met = true;
                *at as u32
            });
            if record.context().latest().is_some_and(|latest| latest > settled) {
                continue;
            }
            differences.push(match listed {
                Some(at) => Difference::Other { at, outline: record.outline(), bytes },
                None if bytes <= ENCLOSED_BYTES_MAX && bytes <= *room => {
                    *room -= bytes;
                    Difference::Unlisted { key, record: Lacking::Enclosed(record) }
                }
                None => Difference::Unlisted { key, record: Lacking::Bytes(bytes) },
            });
        }
        let missing = unmatched.into_values().filter(|(_, is_met)| !is_met);
        differences.extend(missing.map(|(at, _)| Difference::Missing { at: at as u32 }));
        differences
    }
}
