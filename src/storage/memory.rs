//! The dumb twin: a sorted map. What `--memory` runs on, and what every other store is compared with.

use super::{Address, Health, Page, PageSize, Peek, RowChange, Sequence, Span, Store, StoreError, Usage};
use crate::record::Stamp;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

/// A store that keeps nothing beyond the process. Every append is as durable as the process is.
#[derive(Debug, Default)]
pub struct MemoryStore {
    kept: RwLock<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    rows: BTreeMap<Address, Bytes>,
    bytes: u64,
    last_sequence: Sequence,
    last_stamp: Stamp,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }
}

impl Store for MemoryStore {
    fn peek(&self, address: &Address) -> Peek {
        Peek::Known(self.kept.read().unwrap_or_else(PoisonError::into_inner).rows.get(address).cloned())
    }

    fn read(&self, address: &Address) -> Result<Option<Bytes>, StoreError> {
        Ok(self.kept.read().unwrap_or_else(PoisonError::into_inner).rows.get(address).cloned())
    }

    fn scan(&self, span: &Span, size: PageSize) -> Result<Page, StoreError> {
        if span.is_empty() {
            return Ok(Page::default());
        }
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let rows = kept.rows.range(&span.from..&span.to).map(|(address, row)| (address.clone(), row.clone()));
        Ok(Page::take(rows, size))
    }

    fn append(&self, rows: Vec<RowChange>, last_stamp: Stamp) -> Result<Sequence, StoreError> {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        for (address, row) in rows {
            let bytes = address.as_bytes().len() as u64;
            let after = row.as_ref().map_or(0, |row| bytes + row.len() as u64);
            let before = match row {
                Some(row) => kept.rows.insert(address, row),
                None => kept.rows.remove(&address),
            };
            kept.bytes = kept.bytes + after - before.map_or(0, |row| bytes + row.len() as u64);
        }
        kept.last_sequence = kept.last_sequence.next();
        kept.last_stamp = kept.last_stamp.max(last_stamp);
        Ok(kept.last_sequence)
    }

    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn last_sequence(&self) -> Sequence {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).last_sequence
    }

    fn last_stamp(&self) -> Stamp {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).last_stamp
    }

    fn health(&self) -> Health {
        Health::Ok
    }

    fn usage(&self) -> Usage {
        Usage { base_bytes: self.kept.read().unwrap_or_else(PoisonError::into_inner).bytes, ..Usage::default() }
    }
}
