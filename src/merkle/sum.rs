//! Sums: many versions under one number, in no order.
//!
//! Addition modulo 2^128 of strong hashes (AdHash; Bellare, Micciancio 1997, "A New Paradigm for Collision-Free
//! Hashing"). It commutes and has an inverse, so a write replaces its old version by one subtraction and one
//! addition. Versions are hashed first and sums are compared between peers that already trust each other: 128
//! bits guard against chance, not against somebody who searches for colliding sets.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{AddAssign, SubAssign};

/// A strong hash of a key and its version (dots and context, never value bytes), made by the record room. Every
/// number is a digest; 0 isn't special.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct VersionDigest(pub u128);

/// The sum of the digests in a leaf, or in a whole partition. The default, 0, is the sum of nothing (and, once in
/// 2^128, of something).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct LeafSum(pub u128);

impl LeafSum {
    /// The sum of nothing.
    pub const EMPTY: LeafSum = LeafSum(0);
}

impl AddAssign<VersionDigest> for LeafSum {
    fn add_assign(&mut self, digest: VersionDigest) {
        self.0 = self.0.wrapping_add(digest.0);
    }
}

impl SubAssign<VersionDigest> for LeafSum {
    fn sub_assign(&mut self, digest: VersionDigest) {
        self.0 = self.0.wrapping_sub(digest.0);
    }
}

impl fmt::Debug for LeafSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeafSum({:032x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_sum_forgets_order_and_what_was_taken_back(mut digests: Vec<u128>, extra: u128) {
            let sum = |digests: &[u128]| {
                let mut sum = LeafSum::EMPTY;
                digests.iter().for_each(|&digest| sum += VersionDigest(digest));
                sum
            };
            let forward = sum(&digests);
            digests.reverse();
            digests.push(extra);
            let mut backward = sum(&digests);
            backward -= VersionDigest(extra);
            prop_assert_eq!(forward, backward);
        }
    }
}
