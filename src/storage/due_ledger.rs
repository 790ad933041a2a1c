//! From when on something is due in a partition, as far as rows tell that were written since it was last gone through:
//! whoever knows that nothing was due need not look again before that.

use super::{Address, Kind, RowChange};
use crate::placement::Partition;
use crate::record::Due;
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};

/// Nothing was noted.
const NEVER: u64 = u64::MAX;

/// The times, for every partition. Written by the committer, read and taken by anyone. 8 KiB.
#[derive(Debug)]
pub struct DueLedger(Box<[AtomicU64]>);

impl Default for DueLedger {
    fn default() -> DueLedger {
        DueLedger(Partition::all().map(|_| AtomicU64::new(NEVER)).collect())
    }
}

impl DueLedger {
    /// The earliest time that was noted in the partition since [`DueLedger::take`], in milliseconds since 1970.
    pub fn earliest(&self, partition: Partition) -> Option<u64> {
        Some(self.0[partition.index()].load(Ordering::Acquire)).filter(|ms| *ms != NEVER)
    }

    /// Begins anew with the partition. To be called before its notes are gone through, so that what is noted meanwhile is
    /// not missed.
    pub fn take(&self, partition: Partition) {
        self.0[partition.index()].store(NEVER, Ordering::Release);
    }

    /// What there is to be noted of these rows.
    pub(super) fn among(rows: &[RowChange]) -> Vec<(Partition, u64)> {
        let due = |(address, note): &(Address, Option<Bytes>)| {
            let note = note.as_ref().filter(|_| address.kind() == Kind::Due)?;
            Some((address.partition(), Due::decode(note).ms))
        };
        rows.iter().filter_map(due).collect()
    }

    /// Notes it. To be called when the rows can be read.
    pub(super) fn note(&self, noted: Vec<(Partition, u64)>) {
        for (partition, ms) in noted {
            self.0[partition.index()].fetch_min(ms, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Key;

    #[test]
    fn the_earliest_of_what_was_noted_is_known_until_it_is_taken() {
        let ledger = DueLedger::default();
        let key = Key::new("k").unwrap();
        let here = Partition::of(key.position());
        let note = |ms| Some(Bytes::copy_from_slice(&Due { ms, whole_ms: ms }.encode()));
        let rows = [(Address::due(&key), note(70)), (Address::data(&key), note(5)), (Address::due(&key), note(60))];
        ledger.note(DueLedger::among(&rows));
        ledger.note(DueLedger::among(&[(Address::due(&key), None)]));
        assert_eq!(ledger.earliest(here), Some(60));
        ledger.take(here);
        assert_eq!(ledger.earliest(here), None);
    }
}
