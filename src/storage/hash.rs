//! Hashes of addresses, for the tables in memory: worked out once for all that a row is put into.

use super::Address;
use std::hash::{BuildHasherDefault, DefaultHasher, Hasher};

/// The hash of an address under a seed. Two addresses may share one.
pub(super) type Hashed = u64;

/// SipHash over the seed and the address. The seed is drawn at every start, so that nobody can choose keys that collide.
pub(super) fn hash_of(seed: u64, address: &Address) -> Hashed {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(seed);
    hasher.write(address.as_bytes());
    hasher.finish()
}

/// For tables whose keys are hashes already.
pub(super) type AsItIs = BuildHasherDefault<Given>;

/// Takes a number for its own hash.
#[derive(Clone, Default)]
pub(super) struct Given(u64);

impl Hasher for Given {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
