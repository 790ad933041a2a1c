//! The rows not yet in the base: two generations of small sorted maps, one for each partition.
//!
//! ```text
//!  append ─► active ──freeze──► frozen ──loaded into the base──► gone
//! ```
//!
//! Sorted maps rather than hash maps: nothing ever rehashes under a lock, a scan of a partition is a range, a
//! checkpoint comes out in the order of the base, and nobody can choose keys that collide. A map of a partition
//! holds some tens of rows, so a look-up is a handful of comparisons.

use super::{Address, Kind, RowChange, Sequence, Span};
use crate::placement::PARTITIONS;
use crate::record::Stamp;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

/// What keeping a row costs beside its bytes: its place in the map, and two allocations.
const ROW_OVERHEAD_BYTES: u64 = 160;

/// One generation.
pub(super) struct Table {
    /// Facts, then data by partition, then hints by partition: the order of addresses.
    shards: Vec<RwLock<BTreeMap<Address, Option<Bytes>>>>,
    rows: AtomicU64,
    bytes: AtomicU64,
    through: Mutex<(Sequence, Stamp)>,
}

impl Table {
    pub(super) fn new() -> Table {
        Table {
            shards: (0..1 + 2 * PARTITIONS).map(|_| RwLock::default()).collect(),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            through: Mutex::default(),
        }
    }

    /// The shard of an address; of the end of a span, the one behind its last.
    fn place(address: &Address) -> usize {
        match address.as_bytes()[0] {
            kind if kind <= Kind::Fact as u8 => address.slot().min(1),
            kind if kind == Kind::Data as u8 => 1 + address.slot().min(PARTITIONS),
            kind if kind == Kind::Hint as u8 => 1 + PARTITIONS + address.slot().min(PARTITIONS),
            _ => 1 + 2 * PARTITIONS,
        }
    }

    /// What is known of the row: nothing, that it is gone, or its bytes.
    pub(super) fn get(&self, address: &Address) -> Option<Option<Bytes>> {
        let shard = self.shards[Table::place(address)].read().unwrap_or_else(PoisonError::into_inner);
        shard.get(address).cloned()
    }

    pub(super) fn put(&self, rows: impl Iterator<Item = RowChange>, sequence: Sequence, last_stamp: Stamp) {
        for (address, row) in rows {
            let cost = cost(&address, row.as_ref());
            let mut shard = self.shards[Table::place(&address)].write().unwrap_or_else(PoisonError::into_inner);
            let address_bytes = address.as_bytes().len() as u64;
            match shard.insert(address, row) {
                None => {
                    self.rows.fetch_add(1, Ordering::Relaxed);
                    self.bytes.fetch_add(cost, Ordering::Relaxed);
                }
                Some(before) => {
                    let before = address_bytes + before.map_or(0, |row| row.len() as u64) + ROW_OVERHEAD_BYTES;
                    self.bytes.fetch_add(cost.wrapping_sub(before), Ordering::Relaxed);
                }
            }
        }
        let mut through = self.through.lock().unwrap_or_else(PoisonError::into_inner);
        *through = (through.0.max(sequence), through.1.max(last_stamp));
    }

    /// The last append in it, and the highest stamp.
    pub(super) fn through(&self) -> (Sequence, Stamp) {
        *self.through.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The first `limit` rows and removals of a span.
    pub(super) fn range(&self, span: &Span, limit: usize) -> Vec<RowChange> {
        let mut found = Vec::new();
        if span.is_empty() {
            return found;
        }
        for shard in Table::place(&span.from)..=Table::place(&span.to).min(self.shards.len() - 1) {
            let shard = self.shards[shard].read().unwrap_or_else(PoisonError::into_inner);
            let rows = shard.range(&span.from..&span.to).take(limit - found.len());
            found.extend(rows.map(|(address, row)| (address.clone(), row.clone())));
            if found.len() >= limit {
                break;
            }
        }
        found
    }

    /// All rows and removals, in order, one shard's copied at a time.
    pub(super) fn all(&self) -> impl Iterator<Item = RowChange> + '_ {
        self.shards.iter().flat_map(|shard| {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            shard.iter().map(|(address, row)| (address.clone(), row.clone())).collect::<Vec<_>>()
        })
    }
}

fn cost(address: &Address, row: Option<&Bytes>) -> u64 {
    address.as_bytes().len() as u64 + row.map_or(0, |row| row.len() as u64) + ROW_OVERHEAD_BYTES
}

/// What an append will cost a table, at most.
pub(super) fn cost_of(rows: &[RowChange]) -> u64 {
    rows.iter().map(|(address, row)| cost(address, row.as_ref())).sum()
}
