//! Filling the digests after a start, partition by partition, while the store already serves.
//!
//! The scan runs over what was there when the store was opened; everything committed since is applied by the committer
//! as a difference. Sums commute, so the two meet in any order.

use super::base::{BaseError, BaseSnapshot};
use super::log_store::merged_page;
use super::recent::Table;
use super::{Kind, LogStore, PageSize, Span};
use crate::merkle::Forest;
use crate::placement::Partition;
use crate::record::{Key, Row};
use std::sync::Arc;

/// The scan. Drop it when it is through: it keeps old rows of the base alive.
pub struct Rebuild {
    frozen: Option<Arc<Table>>,
    base: Box<dyn BaseSnapshot>,
    partitions: std::vec::IntoIter<Partition>,
    damaged: u64,
    /// Their keys, since they were last asked for.
    damaged_keys: Vec<Key>,
}

/// What a step did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RebuildStep {
    /// This partition is built.
    Built(Partition),
    /// Every partition is. So many rows could not be read; they are in no digest.
    Done {
        /// How many.
        damaged: u64,
    },
}

impl Rebuild {
    /// To be made before the first append, with a forest that nothing was applied to.
    pub fn new(store: &LogStore) -> Rebuild {
        Rebuild::of(store, Partition::all().collect())
    }

    /// The same for some partitions only. The others stay as they are.
    pub fn of(store: &LogStore, partitions: Vec<Partition>) -> Rebuild {
        let (frozen, base) = store.snapshot();
        Rebuild { frozen, base, partitions: partitions.into_iter(), damaged: 0, damaged_keys: Vec::new() }
    }

    /// The keys whose rows could not be read, as far as they were not taken before.
    pub fn take_damaged(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.damaged_keys)
    }

    /// Scans one partition into `forest`. About 1 µs a row. After an error that partition is not built, its digests are
    /// of no use, and the store wants a restart; the others can be gone on with.
    pub fn step(&mut self, forest: &Forest) -> Result<RebuildStep, BaseError> {
        let Some(partition) = self.partitions.next() else {
            return Ok(RebuildStep::Done { damaged: self.damaged });
        };
        let mut span = Span::partition(Kind::Data, partition);
        loop {
            let tables = self.frozen.iter();
            let page = merged_page(&span, PageSize::rows(1024), tables, |span, size| self.base.scan(span, size))?;
            for (address, row) in &page.rows {
                match (address.key(), Row::decode(row)) {
                    (Some(key), Ok(row)) => {
                        if let Some(entry) = super::digest_entry(&row.record, row.record.version(&key)) {
                            forest.add_scanned(key.position(), entry);
                        }
                    }
                    (key, _) => {
                        self.damaged += 1;
                        self.damaged_keys.extend(key);
                    }
                }
            }
            match page.next {
                Some(next) => span = span.rest(next),
                None => break,
            }
        }
        forest.mark_built(partition);
        Ok(RebuildStep::Built(partition))
    }
}
