//! Chance from a seed: SplitMix64 (Steele, Lea, Flood, 2014), eight bytes of state. For picking whom to ask, not for
//! secrets.

use rand_core::TryRng;
use std::convert::Infallible;
use std::time::Duration;

/// A generator. The same seed gives the same numbers.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn seeded(seed: u64) -> Chance {
        Chance(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// `base` made up to a tenth shorter or longer, so that nodes started together do not stay in step.
    pub(super) fn jittered(&mut self, base: Duration) -> Duration {
        base * 9 / 10 + base * ((self.next() >> 43) as u32) / 5 / (1 << 21)
    }
}

impl TryRng for Chance {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.next() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            let number = self.next().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_paper() {
        let mut chance = Chance::seeded(1_234_567);
        assert_eq!([chance.next(), chance.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn a_jittered_time_is_within_a_tenth() {
        let (base, mut chance) = (Duration::from_secs(10), Chance::seeded(5));
        let times: Vec<Duration> = (0..1_000).map(|_| chance.jittered(base)).collect();
        let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        assert!(*least >= base * 9 / 10 && *most <= base * 11 / 10, "{least:?} to {most:?}");
        assert!(*most - *least > base / 6, "{least:?} to {most:?}");
        assert!(chance.jittered(Duration::from_secs(3_600)) > Duration::from_secs(3_000), "the longest setting fits");
    }
}
