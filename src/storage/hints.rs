//! Which hints are kept for whom: an index in memory over the hint rows, so that replay finds the oldest first and
//! a bound per target can be kept without a scan.

use super::{Address, HINT_NAMES_FACT, Hint, HintNames, Kind, PageSize, Span, Store};
use crate::placement::{MemberName, Partition};
use crate::record::{Context, Key, Stamp};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of hint rows kept for one target where nobody says otherwise: a peer that stays away for hours must not fill
/// this disk. Past the bound its writes count fewer owners, and anti-entropy brings the rest.
pub const HINT_BYTES_MAX: u64 = 256 << 20;

/// A hint's place in the order of replay: the latest stamp of its record, and its key.
pub type HintPlace = (Stamp, Key);

/// The index. Written by the committer, read by anyone; each holds a short lock. About 200 bytes a hint.
#[derive(Debug)]
pub struct HintLedger {
    targets: Mutex<BTreeMap<MemberName, Kept>>,
    /// Under which names hints were made, as far as that is committed. Locked before the targets.
    names: Mutex<HintNames>,
    bytes_max: u64,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    /// By the latest stamp of the record, oldest first.
    oldest: BTreeSet<HintPlace>,
    bytes: u64,
}

/// What is kept for one target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HintStatus {
    /// Whom for.
    pub target: MemberName,
    /// How many keys.
    pub count: u64,
    /// Bytes of their rows; a row kept for two targets counts for both.
    pub bytes: u64,
}

/// A hint row as the index knows it: what must be known to take it out again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) targets: Vec<MemberName>,
    pub(super) stamp: Stamp,
    pub(super) bytes: u64,
}

impl Entry {
    pub(super) fn of(hint: &Hint, row_bytes: usize) -> Entry {
        let stamp = hint.record.context().latest().unwrap_or_default();
        Entry { targets: hint.targets.clone(), stamp, bytes: row_bytes as u64 }
    }
}

impl HintLedger {
    /// An empty index that allows `bytes_max` bytes of rows for each target; [`HINT_BYTES_MAX`] unless set.
    pub fn new(bytes_max: u64) -> HintLedger {
        HintLedger { targets: Mutex::default(), names: Mutex::default(), bytes_max, refused: AtomicU64::new(0) }
    }

    /// The index over what `store` holds: a scan of its hint rows, to be done before serving. Also says how many rows
    /// could not be read; they stay where they are. A partition that cannot be read counts as one. The store must be as it
    /// was opened.
    pub fn scan(store: &dyn Store, bytes_max: u64) -> (HintLedger, u64) {
        let ledger = HintLedger::new(bytes_max);
        let damaged = ledger.rescan(store);
        if let (0, Ok(Some(names))) = (damaged, store.read(&Address::fact(HINT_NAMES_FACT))) {
            *ledger.lock_names() = HintNames::decode(&names, store.last_stamp());
        }
        (ledger, damaged)
    }

    /// Forgets all and looks again. What was made before is not known any more to be all there.
    pub(super) fn rescan(&self, store: &dyn Store) -> u64 {
        let mut names = self.lock_names();
        names.void();
        self.lock().clear();
        if let Some(damaged) = self.scan_span(store, Span::kind(Kind::Hint)) {
            return damaged;
        }
        self.lock().clear();
        let of = |partition| self.scan_span(store, Span::partition(Kind::Hint, partition)).unwrap_or(1);
        Partition::all().map(of).sum()
    }

    /// How many rows of the span cannot be read; `None` if the span itself cannot.
    fn scan_span(&self, store: &dyn Store, mut span: Span) -> Option<u64> {
        let mut damaged = 0;
        loop {
            let page = store.scan(&span, PageSize::rows(256)).ok()?;
            for (address, row) in &page.rows {
                match (address.key(), Hint::decode(row)) {
                    (Some(key), Ok(hint)) => self.replace(&key, None, Some(&Entry::of(&hint, row.len()))),
                    _ => damaged += 1,
                }
            }
            match page.next {
                Some(next) => span = span.rest(next),
                None => return Some(damaged),
            }
        }
    }

    /// What is kept, for each target that anything is kept for.
    pub fn status(&self) -> Vec<HintStatus> {
        let of = |(target, kept): (&MemberName, &Kept)| HintStatus {
            target: target.clone(),
            count: kept.oldest.len() as u64,
            bytes: kept.bytes,
        };
        self.lock().iter().map(of).collect()
    }

    /// What is kept for `target`, oldest record first; only what comes after the place `after`, if one is given.
    pub fn oldest(&self, target: &str, after: Option<&HintPlace>, limit: usize) -> Vec<HintPlace> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        match self.lock().get(target) {
            Some(kept) => kept.oldest.range((from, Bound::Unbounded)).take(limit).cloned().collect(),
            None => Vec::new(),
        }
    }

    /// Under which names hints were made here that `target` has all of, each with the stamp up to which it was used: it was
    /// in this `life` before the first of them, and if it is still, it may say that it has seen them. See [`HintNames`].
    pub fn delivered(&self, target: &str, life: u64) -> Context {
        // In this order: what was made under a closed name is in the index.
        let names = self.lock_names();
        if self.has_any(target) { Context::new() } else { names.taken_by(target, life) }
    }

    /// Hints may have been lost: nothing is said any more of those that were made before.
    pub fn void_names(&self) {
        self.lock_names().void();
    }

    /// Under which names hints were made.
    pub(super) fn names(&self) -> HintNames {
        self.lock_names().clone()
    }

    /// The same, as it is committed now.
    pub(super) fn note_names(&self, names: &HintNames) {
        self.lock_names().clone_from(names);
    }

    /// Whether anything is kept for `target`.
    pub fn has_any(&self, target: &str) -> bool {
        self.lock().contains_key(target)
    }

    /// All for whom anything is kept.
    pub fn targets(&self) -> Vec<MemberName> {
        self.lock().keys().cloned().collect()
    }

    /// Where the row of such a key lies.
    pub fn address(key: &Key) -> Address {
        Address::hint(key)
    }

    /// Bytes kept for `target`.
    pub fn bytes(&self, target: &str) -> u64 {
        self.lock().get(target).map_or(0, |kept| kept.bytes)
    }

    /// Bytes that may be kept for each target.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// How many hints found no room, since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// A hint found no room.
    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets the hint of `key`, whose row cannot be read. Looks through all there are. How long that row
    /// was is not known, so its bytes stay counted until the target's last hint is gone. It was not delivered.
    pub(super) fn forget(&self, key: &Key) {
        let mut names = self.lock_names();
        names.void();
        let mut targets = self.lock();
        for kept in targets.values_mut() {
            kept.oldest.retain(|(_, other)| other != key);
            if kept.oldest.is_empty() {
                kept.bytes = 0;
            }
        }
        targets.retain(|_, kept| !kept.oldest.is_empty());
    }

    /// Follows a change of the hint row of `key`.
    pub(super) fn replace(&self, key: &Key, before: Option<&Entry>, after: Option<&Entry>) {
        let mut targets = self.lock();
        if let Some(entry) = before {
            for target in &entry.targets {
                if let Some(kept) = targets.get_mut(target) {
                    kept.oldest.remove(&(entry.stamp, key.clone()));
                    kept.bytes -= entry.bytes;
                    if kept.oldest.is_empty() {
                        targets.remove(target);
                    }
                }
            }
        }
        if let Some(entry) = after {
            for target in &entry.targets {
                let kept = targets.entry(target.clone()).or_default();
                kept.oldest.insert((entry.stamp, key.clone()));
                kept.bytes += entry.bytes;
            }
        }
    }

    fn lock_names(&self) -> MutexGuard<'_, HintNames> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<MemberName, Kept>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(targets: &[&str], stamp: u64, bytes: u64) -> Entry {
        Entry { targets: targets.iter().map(|&name| name.into()).collect(), stamp: Stamp(stamp), bytes }
    }

    fn key(name: &str) -> Key {
        Key::new(name.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn the_oldest_come_first_and_bytes_follow_every_change() {
        let ledger = HintLedger::new(1_000);
        let (first, second) = (entry(&["a", "b"], 9, 10), entry(&["a"], 3, 5));
        ledger.replace(&key("young"), None, Some(&first));
        ledger.replace(&key("old"), None, Some(&second));
        let keys = |after: Option<&HintPlace>, limit| -> Vec<Key> {
            ledger.oldest("a", after, limit).into_iter().map(|(_, key)| key).collect()
        };
        assert_eq!(keys(None, 9), [key("old"), key("young")]);
        assert_eq!(keys(None, 1), [key("old")]);
        assert_eq!(keys(Some(&(Stamp(3), key("old"))), 9), [key("young")], "those before it are passed over");
        assert!(ledger.has_any("b") && !ledger.has_any("c"));
        assert_eq!(ledger.targets(), ["a", "b"].map(Box::<str>::from));
        assert_eq!((ledger.bytes("a"), ledger.bytes("b"), ledger.bytes("c")), (15, 10, 0));
        ledger.replace(&key("young"), Some(&first), Some(&entry(&["a"], 12, 20)));
        assert_eq!(ledger.status(), [HintStatus { target: "a".into(), count: 2, bytes: 25 }]);
        ledger.replace(&key("young"), Some(&entry(&["a"], 12, 20)), None);
        ledger.replace(&key("old"), Some(&second), None);
        assert_eq!(ledger.status(), []);
    }
}
