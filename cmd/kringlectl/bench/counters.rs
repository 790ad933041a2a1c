//! Counters that a run adds to, and the sum that they must come to.
//!
//! ```text
//!  at the end    base + acked  ≤  value  ≤  base + acked + unknown
//! ```
//!
//! An answer lies within `base + 1` and what had been begun by then; in the modes that agree it is also above what had
//! been acknowledged before it was asked for. This holds as long as nobody else adds to them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Most counters a run may have.
pub const COUNTERS_MAX: u16 = 9_999;

/// All counters of a run.
pub struct Counters {
    counters: Vec<Counter>,
}

#[derive(Default)]
struct Counter {
    base: AtomicI64,
    begun: AtomicU64,
    acked: AtomicU64,
    /// Of those acknowledged, which fewer owners have than their mode wants.
    short: AtomicU64,
    not_done: AtomicU64,
}

/// What became of an increment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Added {
    /// It counts.
    Acked,
    /// It counts, on fewer owners than its mode wants.
    Short,
    /// It may count.
    Unknown,
    /// It does not count.
    NotDone,
}

/// What a counter comes to at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sum {
    /// As many as were acknowledged, or some of unknown outcome more.
    Right,
    /// This many acknowledged increments are missing.
    Lost(u64),
    /// This many are there that nobody made.
    Extra(u64),
}

/// The key of the counter of this number.
pub fn key(prefix: &str, number: u16) -> String {
    format!("{prefix}counter-{number:04}")
}

impl Counters {
    /// So many, at 0.
    pub fn new(count: u16) -> Counters {
        Counters { counters: (0..count).map(|_| Counter::default()).collect() }
    }

    /// How many there are.
    pub fn count(&self) -> u16 {
        self.counters.len() as u16
    }

    /// What this one stood at before the run.
    pub fn set_base(&self, number: u16, base: i64) {
        self.counters[usize::from(number)].base.store(base, Ordering::Release);
    }

    /// Begins an increment: what the answer has to exceed in a mode that agrees.
    pub fn begin(&self, number: u16) -> i64 {
        let counter = &self.counters[usize::from(number)];
        counter.begun.fetch_add(1, Ordering::AcqRel);
        counter.base.load(Ordering::Acquire) + counter.acked.load(Ordering::Acquire) as i64
    }

    /// Ends an increment.
    pub fn settle(&self, number: u16, added: Added) {
        let counter = &self.counters[usize::from(number)];
        match added {
            Added::Acked => drop(counter.acked.fetch_add(1, Ordering::AcqRel)),
            Added::Short => {
                counter.acked.fetch_add(1, Ordering::AcqRel);
                counter.short.fetch_add(1, Ordering::AcqRel);
            }
            Added::NotDone => drop(counter.not_done.fetch_add(1, Ordering::AcqRel)),
            Added::Unknown => {}
        }
    }

    /// Whether an answer to an increment can be: `floor` is what [`begin`](Counters::begin) said.
    pub fn can_be(&self, number: u16, answer: i64, floor: i64, agreed: bool) -> bool {
        let counter = &self.counters[usize::from(number)];
        let base = counter.base.load(Ordering::Acquire);
        let least = if agreed { floor + 1 } else { base.min(0) + 1 };
        (least..=base.max(0) + counter.begun.load(Ordering::Acquire) as i64).contains(&answer)
    }

    /// Whether this one was ever added to.
    pub fn is_used(&self, number: u16) -> bool {
        self.counters[usize::from(number)].begun.load(Ordering::Acquire) > 0
    }

    /// Whether all its acknowledged increments were on as many owners as their mode wants.
    pub fn is_firm(&self, number: u16) -> bool {
        self.counters[usize::from(number)].short.load(Ordering::Acquire) == 0
    }

    /// What a value read after the run comes to.
    pub fn sum(&self, number: u16, value: i64) -> Sum {
        let counter = &self.counters[usize::from(number)];
        let (base, acked) = (counter.base.load(Ordering::Acquire), counter.acked.load(Ordering::Acquire));
        let possible = counter.begun.load(Ordering::Acquire) - counter.not_done.load(Ordering::Acquire);
        let added = value.saturating_sub(base);
        match u64::try_from(added) {
            Ok(added) if added > possible => Sum::Extra(added - possible),
            Ok(added) if added >= acked => Sum::Right,
            _ => Sum::Lost((acked as i64).saturating_sub(added).unsigned_abs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whichever of the increments of unknown outcome count, the sum is right; one fewer or more is not.
        #[test]
        fn the_sum_is_right_within_what_is_unknown(
            base in -1_000i64..1_000, fates in prop::collection::vec(0usize..4, 1..60), surfaced: prop::sample::Index,
        ) {
            let counters = Counters::new(1);
            counters.set_base(0, base);
            let fates = fates.into_iter().map(|fate| [Added::Acked, Added::Short, Added::Unknown, Added::NotDone][fate]);
            let (mut acked, mut unknown) = (0, 0);
            for fate in fates {
                counters.begin(0);
                counters.settle(0, fate);
                acked += i64::from(matches!(fate, Added::Acked | Added::Short));
                unknown += i64::from(fate == Added::Unknown);
            }
            let surfaced = surfaced.index(unknown as usize + 1) as i64;
            prop_assert_eq!(counters.sum(0, base + acked + surfaced), Sum::Right);
            prop_assert_eq!(counters.sum(0, base + acked - 1), Sum::Lost(1));
            prop_assert_eq!(counters.sum(0, base + acked + unknown + 3), Sum::Extra(3));
        }
    }

    #[test]
    fn an_answer_is_above_what_was_acknowledged_where_writers_agree() {
        let counters = Counters::new(1);
        counters.set_base(0, 10);
        let floor = counters.begin(0);
        assert!(counters.can_be(0, 11, floor, true) && !counters.can_be(0, 10, floor, true));
        assert!(!counters.can_be(0, 12, floor, true), "only one was begun");
        counters.settle(0, Added::Acked);
        let floor = counters.begin(0);
        assert!(!counters.can_be(0, 11, floor, true), "the first was acknowledged before");
        assert!(counters.can_be(0, 11, floor, false) && counters.can_be(0, 12, floor, true));
    }
}
