//! Which key is asked for: every one as often, few often and many rarely, or one after the other.
//!
//! A key is a prefix and a number of seven digits, so that keys sort as their numbers do.

use super::chance::Chance;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Digits of a key's number.
const DIGITS: usize = 7;

/// Most keys a run may have: what is kept of each takes 16 bytes here.
pub const KEYS_MAX: u32 = 9_999_999;

/// The key of this number.
pub fn key(prefix: &str, number: u32) -> String {
    format!("{prefix}{number:0DIGITS$}")
}

/// The number of a key, if it is one of [`key`]'s.
pub fn number(prefix: &str, key: &str) -> Option<u32> {
    let digits = key.strip_prefix(prefix)?;
    let plain = digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// In which order keys come.
#[derive(Debug)]
pub enum Order {
    /// Every key is as likely.
    Uniform,
    /// The key of number `n` is as likely as `1 / (n + 1)^s`.
    Zipf(Zipf),
    /// One after the other, over and over, whoever asks.
    Sequential(AtomicU64),
}

impl Order {
    /// The number of the next key out of `count`.
    pub fn next(&self, count: u32, chance: &mut Chance) -> u32 {
        match self {
            Order::Uniform => chance.below(u64::from(count)) as u32,
            Order::Zipf(zipf) => zipf.draw(chance),
            Order::Sequential(next) => (next.fetch_add(1, Ordering::Relaxed) % u64::from(count)) as u32,
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Order::Uniform => f.write_str("uniform"),
            Order::Zipf(zipf) => write!(f, "zipf {}", zipf.exponent),
            Order::Sequential(_) => f.write_str("sequential"),
        }
    }
}

/// Zipf's law over `0..count` by rejection from its hull (Hörmann and Derflinger, 1996): no table, a constant number of
/// draws.
#[derive(Debug)]
pub struct Zipf {
    count: f64,
    exponent: f64,
    /// The area under the hull.
    area: f64,
}

impl Zipf {
    /// Over this many keys, at least one; `exponent` is above 0, at 1 it is the classic law.
    pub fn new(count: u32, exponent: f64) -> Zipf {
        assert!(count > 0 && exponent > 0.0, "{count} keys by 1 / n^{exponent}");
        let count = f64::from(count);
        let area = match exponent == 1.0 {
            true => 1.0 + count.ln(),
            false => (count.powf(1.0 - exponent) - exponent) / (1.0 - exponent),
        };
        Zipf { count, exponent, area }
    }

    /// Where below the hull, from its left, this share of its area ends.
    fn hull(&self, share: f64) -> f64 {
        let area = share * self.area;
        match (area <= 1.0, self.exponent == 1.0) {
            (true, _) => area,
            (_, true) => (area - 1.0).exp(),
            _ => (area * (1.0 - self.exponent) + self.exponent).powf(1.0 / (1.0 - self.exponent)),
        }
    }

    fn draw(&self, chance: &mut Chance) -> u32 {
        loop {
            let place = self.hull(chance.unit());
            let rank = (place + 1.0).floor().min(self.count);
            let law = rank.powf(-self.exponent);
            let hull = if rank > 1.0 { place.powf(-self.exponent) } else { 1.0 };
            if chance.unit() * hull < law {
                return rank as u32 - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_order_stays_among_the_keys(seed: u64, count in 1u32..=KEYS_MAX, exponent in 0.01f64..8.0) {
            let mut chance = Chance::seeded(seed);
            let orders = [Order::Uniform, Order::Zipf(Zipf::new(count, exponent)), Order::Sequential(AtomicU64::new(seed))];
            for order in orders {
                for _ in 0..20 {
                    prop_assert!(order.next(count, &mut chance) < count, "{:?}", order);
                }
            }
        }

        #[test]
        fn a_key_says_its_number(prefix in ".{0,8}", of in 0u32..=KEYS_MAX) {
            prop_assert_eq!(number(&prefix, &key(&prefix, of)), Some(of));
        }

        #[test]
        fn keys_sort_as_their_numbers_do(one in 0u32..=KEYS_MAX, other in 0u32..=KEYS_MAX) {
            prop_assert_eq!(key("k", one).cmp(&key("k", other)), one.cmp(&other));
        }
    }

    #[test]
    fn zipf_draws_by_its_law() {
        const DRAWS: usize = 200_000;
        for exponent in [0.5, 0.99, 1.0, 1.5, 3.0] {
            let (zipf, mut chance) = (Zipf::new(100, exponent), Chance::seeded(7));
            let mut drawn = [0usize; 100];
            (0..DRAWS).for_each(|_| drawn[zipf.draw(&mut chance) as usize] += 1);
            let law = |rank: usize| (rank as f64 + 1.0).powf(-exponent);
            let sum: f64 = (0..100).map(law).sum();
            for (rank, count) in drawn.into_iter().enumerate() {
                let expected = law(rank) / sum * DRAWS as f64;
                // Five standard deviations of a count: once in two million.
                let slack = 5.0 * expected.sqrt() + 1.0;
                assert!((count as f64 - expected).abs() <= slack, "{exponent}, {rank}: {count}, not {expected:.0}");
            }
        }
    }

    #[test]
    fn what_is_no_key_of_a_run_has_no_number() {
        for other in ["bench/", "bench/12", "bench/00000012", "bench/+000012", "else/0000012", "bench/counter-01"] {
            assert_eq!(number("bench/", other), None, "{other}");
        }
    }
}
