//! Rows of the base that were asked for lately, and the knowledge that some are not there. Bounded in bytes.

use super::Address;
use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use std::hash::{DefaultHasher, Hasher};

/// What keeping a row costs beside its bytes.
const ROW_OVERHEAD_BYTES: u64 = 112;

/// A row that takes more than this share of the cache is not kept: it would drive out too many others.
const ROW_SHARE: u64 = 64;

/// The cache. Whoever inserts must know that the row is the base's current one: see `LogStore::read`.
///
/// ```text
///  hash of the address ─► | length of the address 2 | address | 1 and the row, or 0 for "there is none" |
/// ```
///
/// One allocation a row: with a map from address to row the bookkeeping would outweigh a small row. Two addresses of one
/// hash drive each other out, and the address in the entry tells them apart.
pub(super) struct RowCache {
    rows: Cache<u64, Bytes, Weigh>,
    seed: u64,
    row_bytes_max: u64,
}

#[derive(Clone)]
struct Weigh;

impl Weighter<u64, Bytes> for Weigh {
    fn weight(&self, _: &u64, entry: &Bytes) -> u64 {
        ROW_OVERHEAD_BYTES + entry.len() as u64
    }
}

impl RowCache {
    /// `seed` is drawn at every start, so that nobody can choose keys that collide; a simulation passes its own, so that
    /// the same rows stay.
    pub(super) fn new(bytes_max: u64, seed: u64) -> RowCache {
        let bytes_max = bytes_max.max(4096);
        let options = OptionsBuilder::new()
            .weight_capacity(bytes_max)
            .estimated_items_capacity((bytes_max / 320) as usize)
            .shards(8)
            .build()
            // Fails only where one of them is missing.
            .expect("both capacities are given");
        let rows = Cache::with_options(options, Weigh, Default::default(), DefaultLifecycle::default());
        RowCache { rows, seed, row_bytes_max: bytes_max / ROW_SHARE }
    }

    /// SipHash over the seed and the address.
    fn hash(&self, address: &Address) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.seed);
        hasher.write(address.as_bytes());
        hasher.finish()
    }

    pub(super) fn get(&self, address: &Address) -> Option<Option<Bytes>> {
        let entry = self.rows.get(&self.hash(address))?;
        let length = usize::from(u16::from_le_bytes([*entry.first()?, *entry.get(1)?]));
        if entry.get(2..2 + length)? != address.as_bytes() {
            return None;
        }
        Some((*entry.get(2 + length)? == 1).then(|| entry.slice(3 + length..)))
    }

    /// Puts a row there, or makes sure that no older one stays.
    pub(super) fn put(&self, address: &Address, row: Option<&Bytes>) {
        let bytes = address.as_bytes();
        let size = 3 + bytes.len() + row.map_or(0, |row| row.len());
        let hash = self.hash(address);
        // An address is at most a key and a few bytes long.
        let Ok(length) = u16::try_from(bytes.len()) else { return };
        if size as u64 + ROW_OVERHEAD_BYTES > self.row_bytes_max {
            self.rows.remove(&hash);
            return;
        }
        let mut entry = Vec::with_capacity(size);
        entry.extend_from_slice(&length.to_le_bytes());
        entry.extend_from_slice(bytes);
        entry.push(u8::from(row.is_some()));
        entry.extend_from_slice(row.map_or(&[], |row| row));
        self.rows.insert(hash, entry.into());
    }

    pub(super) fn clear(&self) {
        self.rows.clear();
    }

    pub(super) fn bytes(&self) -> u64 {
        self.rows.weight()
    }
}
