//! Chance from a seed: SplitMix64 (Steele, Lea, Flood, 2014). The same seed brings the same keys in the same order to a
//! client; which client is served first is still the machine's to say.

/// A generator.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// One that gives the numbers of this seed.
    pub fn seeded(seed: u64) -> Chance {
        Chance(seed)
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to one less than `end`, each as likely as the others; 0 where `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    /// A number from 0 to less than 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_drawn_stays_within_its_bounds(seed: u64, end in 1u64..) {
            let mut chance = Chance::seeded(seed);
            prop_assert!(chance.below(end) < end);
            prop_assert!((0.0..1.0).contains(&chance.unit()));
        }
    }

    #[test]
    fn the_numbers_are_those_of_the_paper() {
        let mut chance = Chance::seeded(1_234_567);
        assert_eq!([chance.bits(), chance.bits()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }
}
