//! A node's part in a comparison: what its digests say, which keys lie below them, and how they differ from a list.

use crate::merkle::Forest;
use crate::merkle::diff::{self, Digest};
use crate::placement::{MemberIndex, Partition, Ring, leaf};
use crate::protocol::{Answer, Bed, Difference, KeyEntry, Listed, MemberTag, Refusal, SyncAnswer, SyncRequest};
use crate::record::{Position, Row, Stamp};
use crate::storage::{Kind, PageSize, Span, Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};

/// Rows read from the store at a time.
const PAGE_ROWS: usize = 1024;

/// The partitions that both members keep, ascending.
pub fn shared(ring: &Ring, one: MemberIndex, other: MemberIndex) -> Vec<Partition> {
    ring.partitions_of(one).iter().copied().filter(|&partition| ring.is_owner(other, partition)).collect()
}

/// Whether the question is answered from digests alone, in a fraction of a millisecond.
pub fn is_quick(request: &SyncRequest) -> bool {
    matches!(request, SyncRequest::Root { .. } | SyncRequest::Groups { .. } | SyncRequest::Done { .. })
}

/// Answers `me`'s part of a comparison. Unless [`is_quick`], it builds trees or scans the store, and is for a thread
/// that may wait: about 0.15 ms a tree, 1 µs a row.
pub fn compare(ring: &Ring, me: MemberIndex, forest: &Forest, store: &dyn Store, request: SyncRequest) -> Answer {
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
        SyncRequest::Trees { partitions } => {
            SyncAnswer::Subtrees(partitions.into_iter().map(|at| diff::subtrees(forest, at)).collect())
        }
        SyncRequest::Subtrees { trees } => {
            SyncAnswer::Leaves(trees.iter().map(|theirs| diff::leaves_below(forest, theirs)).collect())
        }
        SyncRequest::Differing { theirs } => {
            let leaves = theirs.iter().map(|theirs| (theirs.partition, diff::differing_leaves(forest, theirs)));
            SyncAnswer::Differing(leaves.collect())
        }
        SyncRequest::List { beds } => match beds.iter().map(|bed| list(store, bed)).collect() {
            Ok(listed) => SyncAnswer::Listed(listed),
            Err(_) => return Answer::Refused(Refusal::Unreadable),
        },
        SyncRequest::Compare { settled, beds } => {
            let differences =
                |(bed, theirs): &(Bed, Vec<KeyEntry>)| Ok(differences(list(store, bed)?, theirs, settled));
            match beds.iter().map(differences).collect::<Result<_, StoreError>>() {
                Ok(differences) => SyncAnswer::Differences(differences),
                Err(_) => return Answer::Refused(Refusal::Unreadable),
            }
        }
        SyncRequest::Done { .. } => SyncAnswer::Done,
    })
}

/// The keys in a bed, in key order. Rows that cannot be read are left out, as they are of the digests.
fn list(store: &dyn Store, bed: &Bed) -> Result<Vec<Listed>, StoreError> {
    let mut listed = Vec::new();
    let mut span = Span::partition(Kind::Data, bed.partition);
    loop {
        let page = store.scan(&span, PageSize::rows(PAGE_ROWS))?;
        for (address, row) in &page.rows {
            let Some(key) = address.key().filter(|key| bed.leaves.contains(leaf(key.position()))) else { continue };
            let Ok(Row { record, .. }) = Row::decode(row) else { continue };
            if record.is_unknown() {
                continue;
            }
            let version = Digest((record.version(&key).0 as u64).to_be_bytes());
            let entry = KeyEntry { position: position(key.position()), version };
            let bytes = u32::try_from(row.len()).unwrap_or(u32::MAX);
            listed.push(Listed { key, entry, outline: record.outline(), bytes });
        }
        match page.next {
            Some(next) => span = span.rest(next),
            None => return Ok(listed),
        }
    }
}

fn position(position: Position) -> Digest {
    Digest(position.0.to_be_bytes())
}

/// How `mine` differs from what was listed, as far as it is `settled` here. Keys are told apart by position; two
/// that share one are compared by their versions, which name their key.
fn differences(mine: Vec<Listed>, theirs: &[KeyEntry], settled: Stamp) -> Vec<Difference> {
    let my_versions: BTreeSet<Digest> = mine.iter().map(|listed| listed.entry.version).collect();
    let their_versions: BTreeSet<Digest> = theirs.iter().map(|entry| entry.version).collect();
    let unmatched: BTreeMap<Digest, Digest> = theirs
        .iter()
        .filter(|entry| !my_versions.contains(&entry.version))
        .map(|entry| (entry.position, entry.version))
        .collect();
    let mut answered: BTreeSet<Digest> = BTreeSet::new();
    let mut differences = Vec::new();
    for Listed { key, entry, outline, bytes } in mine {
        if their_versions.contains(&entry.version) {
            continue;
        }
        let is_listed = unmatched.contains_key(&entry.position);
        if is_listed {
            answered.insert(entry.position);
        }
        match is_listed {
            _ if outline.context().latest().is_some_and(|latest| latest > settled) => {}
            true => differences.push(Difference::Other { position: entry.position, outline, bytes }),
            false => differences.push(Difference::Unlisted { key, bytes }),
        }
    }
    let missing = unmatched.into_iter().filter(|(position, _)| !answered.contains(position));
    differences.extend(missing.map(|(_, version)| Difference::Missing { version }));
    differences
}
