//! Rows in memory: those that were written or asked for lately, and the knowledge that some are not there. Bounded in bytes.

use super::hash::{AsItIs, Hashed};
use super::{Address, RowChange};
use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle, GuardResult};
use quick_cache::{OptionsBuilder, Weighter};
use std::time::Duration;

/// What keeping a row costs beside its bytes.
const ROW_OVERHEAD_BYTES: u64 = 150;

/// A row that takes more than this share of the cache is not kept: it would drive out too many others.
const ROW_SHARE: u64 = 64;

/// The cache. What it has is the newest: an append puts its rows here too, over the ones before, and whoever brings a row
/// from the base reserves its place first, which an append meanwhile takes away.
///
/// Its entries lie under a hash of the address; two addresses of one hash drive each other out, and the address in the
/// entry tells them apart. An entry shares the memory of what it was made of: nothing is copied.
pub(super) struct RowCache {
    rows: Rows,
    row_bytes_max: u64,
}

type Rows = Cache<Hashed, RowChange, Weigh, AsItIs>;

#[derive(Clone)]
struct Weigh;

impl Weighter<Hashed, RowChange> for Weigh {
    fn weight(&self, _: &Hashed, (address, row): &RowChange) -> u64 {
        weight(address, row.as_ref())
    }
}

fn weight(address: &Address, row: Option<&Bytes>) -> u64 {
    ROW_OVERHEAD_BYTES + address.as_bytes().len() as u64 + row.map_or(0, |row| row.len() as u64)
}

/// The place of a row that is being brought from the base.
pub(super) struct Reserved<'a> {
    place:
        quick_cache::sync::PlaceholderGuard<'a, Hashed, RowChange, Weigh, AsItIs, DefaultLifecycle<Hashed, RowChange>>,
    row_bytes_max: u64,
}

impl Reserved<'_> {
    /// Puts the row there, unless the place was taken since: by a newer row, or by a row of the same hash. The memory of
    /// both is kept as long as the row is.
    pub(super) fn fill(self, address: Address, row: Option<Bytes>) {
        if weight(&address, row.as_ref()) <= self.row_bytes_max {
            self.place.insert((address, row)).ok();
        }
    }
}

impl RowCache {
    /// Of so many bytes at most.
    pub(super) fn new(bytes_max: u64) -> RowCache {
        let bytes_max = bytes_max.max(4096);
        let options = OptionsBuilder::new()
            .weight_capacity(bytes_max)
            .estimated_items_capacity((bytes_max / 320) as usize)
            .shards(8)
            .build()
            // Fails only where one of them is missing.
            .expect("both capacities are given");
        let rows = Cache::with_options(options, Weigh, AsItIs::default(), DefaultLifecycle::default());
        RowCache { rows, row_bytes_max: bytes_max / ROW_SHARE }
    }

    pub(super) fn get(&self, hash: Hashed, address: &Address) -> Option<Option<Bytes>> {
        let (kept, row) = self.rows.get(&hash)?;
        (kept == *address).then_some(row)
    }

    /// The place of a row that is not here; `None` when it is, or is being brought by another. To be taken before the row
    /// is looked for elsewhere.
    pub(super) fn reserve(&self, hash: Hashed) -> Option<Reserved<'_>> {
        match self.rows.get_value_or_guard(&hash, Some(Duration::ZERO)) {
            GuardResult::Guard(place) => Some(Reserved { place, row_bytes_max: self.row_bytes_max }),
            GuardResult::Value(_) | GuardResult::Timeout => None,
        }
    }

    /// Puts a row there that was just appended, or makes sure that no older one stays or comes.
    pub(super) fn put(&self, hash: Hashed, address: Address, row: Option<Bytes>) {
        if weight(&address, row.as_ref()) > self.row_bytes_max {
            self.rows.remove(&hash);
        } else {
            self.rows.insert(hash, (address, row));
        }
    }

    pub(super) fn clear(&self) {
        self.rows.clear();
    }

    pub(super) fn bytes(&self) -> u64 {
        self.rows.weight()
    }
}
