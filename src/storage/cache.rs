//! Rows of the base that were asked for lately, and the knowledge that some are not there. Bounded in bytes.

use super::Address;
use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use std::hash::{BuildHasher, DefaultHasher, Hasher};

/// What keeping a row costs beside its bytes.
const ROW_OVERHEAD_BYTES: u64 = 160;

/// A row that takes more than this share of the cache is not kept: it would drive out too many others.
const ROW_SHARE: u64 = 64;

/// The cache. Whoever inserts must know that the row is the base's current one: see `LogStore::read`.
pub(super) struct RowCache {
    rows: Cache<Address, Option<Bytes>, Weigh, Seeded>,
    row_bytes_max: u64,
}

#[derive(Clone)]
struct Weigh;

impl Weighter<Address, Option<Bytes>> for Weigh {
    fn weight(&self, address: &Address, row: &Option<Bytes>) -> u64 {
        weight(address, row)
    }
}

fn weight(address: &Address, row: &Option<Bytes>) -> u64 {
    ROW_OVERHEAD_BYTES + (address.as_bytes().len() + row.as_ref().map_or(0, Bytes::len)) as u64
}

/// SipHash over a seed and the address: the seed is drawn at every start, so that nobody can choose keys that collide,
/// and a simulation passes its own, so that the same rows stay.
#[derive(Clone)]
struct Seeded(u64);

impl BuildHasher for Seeded {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

impl RowCache {
    pub(super) fn new(bytes_max: u64, seed: u64) -> RowCache {
        let bytes_max = bytes_max.max(4096);
        let options = OptionsBuilder::new()
            .weight_capacity(bytes_max)
            .estimated_items_capacity((bytes_max / 512) as usize)
            .shards(8)
            .build()
            // Fails only where one of them is missing.
            .expect("both capacities are given");
        RowCache {
            rows: Cache::with_options(options, Weigh, Seeded(seed), DefaultLifecycle::default()),
            row_bytes_max: bytes_max / ROW_SHARE,
        }
    }

    pub(super) fn get(&self, address: &Address) -> Option<Option<Bytes>> {
        self.rows.get(address)
    }

    /// Puts a row there, or makes sure that no older one stays.
    pub(super) fn put(&self, address: Address, row: Option<Bytes>) {
        match weight(&address, &row) <= self.row_bytes_max {
            true => self.rows.insert(address, row),
            false => drop(self.rows.remove(&address)),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.rows.weight()
    }
}
