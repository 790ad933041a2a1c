//! The rows not yet in the base: two generations of small maps, one for each partition.
//!
//! ```text
//!  append ─► active ──freeze──► frozen ──loaded into the base──► gone
//! ```
//!
//! A write of a row that was not written lately finds nothing of its place in the processor's caches. Found by its
//! hash that is one place and the end of a list; in a sorted map it was every address on the way, a microsecond at a
//! million keys. So the rows of a partition lie in the order they came, and are sorted when they are read in order: by
//! the checkpoint, and by scans. They are some tens, so a shard that grows under its lock is soon done.

use super::hash::Hashed;
use super::{Address, Kind, RowChange, Sequence, Span};
use crate::placement::PARTITIONS;
use crate::record::Stamp;
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

/// What keeping a row costs beside its bytes: its place in the map, and two allocations.
const ROW_OVERHEAD_BYTES: u64 = 160;

/// Rows in the order they first came, and where each is, by its hash. Nothing is ever taken out.
#[derive(Default)]
struct Shard {
    rows: Vec<(Hashed, RowChange)>,
    /// 0, or one more than the place of a row: at its hash, or at the next slot that was free. A power of two of them, or
    /// none; at most three quarters are taken.
    slots: Vec<u32>,
}

impl Shard {
    /// The slot of the row, or the one that is free for it.
    fn slot(&self, hash: Hashed, address: &Address) -> usize {
        let mut slot = hash as usize % self.slots.len();
        while let Some((kept, (row, _))) = self.row(slot)
            && (*kept != hash || row != address)
        {
            slot = (slot + 1) % self.slots.len();
        }
        slot
    }

    fn row(&self, slot: usize) -> Option<&(Hashed, RowChange)> {
        self.rows.get((self.slots[slot] as usize).checked_sub(1)?)
    }

    fn get(&self, hash: Hashed, address: &Address) -> Option<Option<Bytes>> {
        if self.slots.is_empty() {
            return None;
        }
        Some(self.row(self.slot(hash, address))?.1.1.clone())
    }

    /// What was there before, if anything was known.
    fn put(&mut self, hash: Hashed, address: Address, row: Option<Bytes>) -> Option<RowChange> {
        if 4 * self.rows.len() >= 3 * self.slots.len() {
            self.grow();
        }
        let slot = self.slot(hash, &address);
        match self.slots[slot] as usize {
            0 => {
                self.rows.push((hash, (address, row)));
                self.slots[slot] = self.rows.len() as u32;
                None
            }
            place => Some(std::mem::replace(&mut self.rows[place - 1].1, (address, row))),
        }
    }

    fn grow(&mut self) {
        let count = (2 * self.slots.len()).max(8);
        self.slots = vec![0; count];
        for (place, (hash, _)) in self.rows.iter().enumerate() {
            let mut slot = *hash as usize % count;
            while self.slots[slot] != 0 {
                slot = (slot + 1) % count;
            }
            self.slots[slot] = place as u32 + 1;
        }
    }
}

/// One generation.
pub(super) struct Table {
    /// Facts, then data by partition, hints by partition, notes by partition: the order of addresses.
    shards: Vec<RwLock<Shard>>,
    rows: AtomicU64,
    bytes: AtomicU64,
    through: Mutex<(Sequence, Stamp)>,
}

impl Table {
    pub(super) fn new() -> Table {
        Table {
            shards: (0..1 + 3 * PARTITIONS).map(|_| RwLock::default()).collect(),
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
            kind if kind == Kind::Due as u8 => 1 + 2 * PARTITIONS + address.slot().min(PARTITIONS),
            _ => 1 + 3 * PARTITIONS,
        }
    }

    /// What is known of the row: nothing, that it is gone, or its bytes.
    pub(super) fn get(&self, hash: Hashed, address: &Address) -> Option<Option<Bytes>> {
        let shard = self.shards[Table::place(address)].read().unwrap_or_else(PoisonError::into_inner);
        shard.get(hash, address)
    }

    /// Puts a row there, or the knowledge that there is none.
    pub(super) fn put(&self, hash: Hashed, address: Address, row: Option<Bytes>) {
        let cost_now = cost(&address, row.as_ref());
        let mut shard = self.shards[Table::place(&address)].write().unwrap_or_else(PoisonError::into_inner);
        let cost_before = match shard.put(hash, address, row) {
            Some((address, row)) => cost(&address, row.as_ref()),
            None => {
                self.rows.fetch_add(1, Ordering::Relaxed);
                0
            }
        };
        self.bytes.fetch_add(cost_now.wrapping_sub(cost_before), Ordering::Relaxed);
    }

    /// Takes note of an append whose rows are all in.
    pub(super) fn reach(&self, sequence: Sequence, last_stamp: Stamp) {
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
            let mut rows = self.sorted(shard, |address| span.contains(address));
            rows.truncate(limit - found.len());
            found.append(&mut rows);
            if found.len() >= limit {
                break;
            }
        }
        found
    }

    /// All rows and removals, in order, one shard's copied at a time.
    pub(super) fn all(&self) -> impl Iterator<Item = RowChange> + '_ {
        (0..self.shards.len()).flat_map(|shard| self.sorted(shard, |_| true))
    }

    fn sorted(&self, shard: usize, wanted: impl Fn(&Address) -> bool) -> Vec<RowChange> {
        let shard = self.shards[shard].read().unwrap_or_else(PoisonError::into_inner);
        let rows = shard.rows.iter().map(|(_, row)| row);
        let mut rows: Vec<RowChange> = rows.filter(|(address, _)| wanted(address)).cloned().collect();
        drop(shard);
        rows.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        rows
    }
}

fn cost(address: &Address, row: Option<&Bytes>) -> u64 {
    address.as_bytes().len() as u64 + row.map_or(0, |row| row.len() as u64) + ROW_OVERHEAD_BYTES
}

/// What an append will cost a table, at most.
pub(super) fn cost_of(rows: &[RowChange]) -> u64 {
    rows.iter().map(|(address, row)| cost(address, row.as_ref())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_whose_addresses_share_a_hash_are_kept_apart_and_come_out_in_order() {
        let (table, names) = (Table::new(), ["c", "a", "b"]);
        for value in ["old", "new"] {
            for name in names {
                table.put(u64::MAX, Address::fact(name), Some(Bytes::from(format!("{name} {value}"))));
            }
        }
        table.put(u64::MAX, Address::fact("b"), None);
        let found = |name| table.get(u64::MAX, &Address::fact(name));
        assert_eq!(found("a"), Some(Some("a new".into())));
        assert_eq!((found("b"), found("d")), (Some(None), None));
        let rows = [("a", Some("a new")), ("b", None), ("c", Some("c new"))];
        let rows = rows.map(|(name, row)| (Address::fact(name), row.map(Bytes::from)));
        assert_eq!(table.all().collect::<Vec<_>>(), rows);
        assert_eq!(table.range(&Span::everything(), 2), rows[..2]);
        assert_eq!((table.rows(), table.bytes()), (3, cost_of(&rows)));
    }
}
