//! What was counted: of each operation how many requests, what became of them, and how long the right answers took.
//!
//! Invariant: `issued` is the sum of all outcomes. Tallies of different clients add up in any order. Latencies are kept
//! in HDR histograms to three digits, from a microsecond to an hour: 180 KiB for each operation that is asked.

use super::mix::Operation;
use super::outcome::{Failed, Outcome, Verified, Wrong};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The longest latency that is told apart from a longer one, in microseconds: an hour.
const LATENCY_MAX_US: u64 = 3_600_000_000;
/// Digits of a latency that are kept.
const DIGITS: u8 = 3;
/// Lies that are told in full.
const EXAMPLES_MAX: usize = 5;

/// One operation's, or all together.
#[derive(Clone, Debug)]
pub struct Counted {
    /// Requests.
    pub issued: u64,
    /// Those answered right.
    pub verified: u64,
    /// What those told.
    pub told: Verified,
    wrong: [u64; Wrong::ALL.len()],
    failed: [u64; Failed::ALL.len()],
    /// Of the verified, in microseconds.
    latency: Histogram<u64>,
}

impl Default for Counted {
    fn default() -> Counted {
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX_US, DIGITS);
        Counted {
            issued: 0,
            verified: 0,
            told: Verified::default(),
            wrong: [0; Wrong::ALL.len()],
            failed: [0; Failed::ALL.len()],
            latency: latency.expect("the bounds and digits of a histogram"),
        }
    }
}

impl Counted {
    fn count(&mut self, outcome: &Outcome, took: Duration) {
        self.issued += 1;
        match outcome {
            Outcome::Verified(told) => {
                self.verified += 1;
                self.told.items += told.items;
                self.told.misses += told.misses;
                self.told.old += told.old;
                self.told.bytes_written += told.bytes_written;
                self.told.bytes_read += told.bytes_read;
                self.latency.saturating_record(took.as_micros().try_into().unwrap_or(LATENCY_MAX_US));
            }
            Outcome::Wrong(wrong, _) => self.wrong[*wrong as usize] += 1,
            Outcome::Failed(failed, _) => self.failed[*failed as usize] += 1,
        }
    }

    fn add(&mut self, other: &Counted) {
        self.issued += other.issued;
        self.verified += other.verified;
        self.told.items += other.told.items;
        self.told.misses += other.told.misses;
        self.told.old += other.told.old;
        self.told.bytes_written += other.told.bytes_written;
        self.told.bytes_read += other.told.bytes_read;
        self.wrong.iter_mut().zip(other.wrong).for_each(|(sum, more)| *sum += more);
        self.failed.iter_mut().zip(other.failed).for_each(|(sum, more)| *sum += more);
        self.latency.add(&other.latency).expect("histograms of the same bounds");
    }

    /// Lies, by kind.
    pub fn wrong(&self) -> impl Iterator<Item = (Wrong, u64)> {
        Wrong::ALL.into_iter().zip(self.wrong)
    }

    /// Requests without an answer to check, by kind.
    pub fn failed(&self) -> impl Iterator<Item = (Failed, u64)> {
        Failed::ALL.into_iter().zip(self.failed)
    }

    /// All lies.
    pub fn wrong_count(&self) -> u64 {
        self.wrong.iter().sum()
    }

    /// All requests without an answer to check.
    pub fn failed_count(&self) -> u64 {
        self.failed.iter().sum()
    }

    /// The latency that this share of the right answers, 0 to 1, does not exceed, or up to a thousandth more; `None` without
    /// any.
    pub fn latency(&self, share: f64) -> Option<Duration> {
        (self.verified > 0).then(|| Duration::from_micros(self.latency.value_at_quantile(share)))
    }
}

/// Everything that was counted.
#[derive(Clone, Default, Debug)]
pub struct Tally {
    operations: BTreeMap<Operation, Counted>,
    /// What is not measured: warm-up.
    unmeasured: u64,
    /// Lies in full, the first few.
    pub examples: Vec<String>,
    /// For each kind of failure, one reason.
    pub reasons: BTreeMap<Failed, String>,
    /// When the last right answer that is measured came.
    pub until: Option<Instant>,
}

impl Tally {
    /// One more request. A lie counts whether it is measured or not.
    pub fn count(&mut self, operation: Operation, outcome: Outcome, took: Duration, measured: bool) {
        if measured || matches!(outcome, Outcome::Wrong(..)) {
            self.operations.entry(operation).or_default().count(&outcome, took);
        } else {
            self.unmeasured += 1;
        }
        match outcome {
            Outcome::Verified(_) if measured => self.until = Some(Instant::now()),
            Outcome::Wrong(wrong, what) => self.lie(wrong, &what),
            Outcome::Failed(failed, why) if measured => drop(self.reasons.entry(failed).or_insert(why)),
            _ => {}
        }
    }

    /// Requests of which there is nothing but their number.
    pub fn count_unsent(&mut self, operation: Operation, count: u64) {
        if count > 0 {
            let counted = self.operations.entry(operation).or_default();
            counted.issued += count;
            counted.failed[Failed::Unsent as usize] += count;
            let why = "no client was free; see --clients".to_owned();
            self.reasons.insert(Failed::Unsent, why);
        }
    }

    /// A lie that one request alone does not show.
    pub fn lie(&mut self, wrong: Wrong, what: &str) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("{}: {what}", wrong.name()));
        }
    }

    /// Adds another one.
    pub fn add(&mut self, other: Tally) {
        for (operation, counted) in other.operations {
            self.operations.entry(operation).or_default().add(&counted);
        }
        self.unmeasured += other.unmeasured;
        self.until = self.until.max(other.until);
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES_MAX);
        for (failed, why) in other.reasons {
            self.reasons.entry(failed).or_insert(why);
        }
    }

    /// Each operation that was asked.
    pub fn operations(&self) -> impl Iterator<Item = (Operation, &Counted)> {
        self.operations.iter().map(|(operation, counted)| (*operation, counted))
    }

    /// All operations together.
    pub fn all(&self) -> Counted {
        let mut all = Counted::default();
        self.operations.values().for_each(|counted| all.add(counted));
        all
    }

    /// Requests that only warmed up.
    pub fn unmeasured(&self) -> u64 {
        self.unmeasured
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn outcome(kind: usize) -> Outcome {
        match kind {
            0 => Outcome::Verified(Verified { items: 1, bytes_read: 7, ..Verified::default() }),
            1..=5 => Outcome::Wrong(Wrong::ALL[kind - 1], "what it was".into()),
            _ => Outcome::Failed(Failed::ALL[kind - 6], "why".into()),
        }
    }

    proptest! {
        /// Whoever counts what: the sum is the same, and every request has one outcome.
        #[test]
        fn tallies_add_up(
            requests in prop::collection::vec((0usize..6, 0usize..13, 1u64..10_000_000, any::<bool>(), 0usize..3), 0..80),
        ) {
            let (mut one, mut parts) = (Tally::default(), vec![Tally::default(); 3]);
            for (operation, kind, us, measured, client) in &requests {
                let (operation, took) = (Operation::ALL[*operation], Duration::from_micros(*us));
                one.count(operation, outcome(*kind), took, *measured);
                parts[*client].count(operation, outcome(*kind), took, *measured);
            }
            let mut sum = Tally::default();
            parts.into_iter().for_each(|part| sum.add(part));
            prop_assert_eq!(one.all().issued + one.unmeasured(), requests.len() as u64);
            for ((operation, counted), (other, added)) in one.operations().zip(sum.operations()) {
                prop_assert_eq!(operation, other);
                prop_assert_eq!(counted.issued, counted.verified + counted.wrong_count() + counted.failed_count());
                prop_assert_eq!((counted.issued, counted.told), (added.issued, added.told));
                prop_assert_eq!((counted.wrong, counted.failed), (added.wrong, added.failed));
                prop_assert_eq!(&counted.latency, &added.latency);
            }
            prop_assert!(sum.examples.len() <= EXAMPLES_MAX);
        }

        #[test]
        fn a_percentile_is_within_a_thousandth_of_the_latency_that_stands_there(
            mut us in prop::collection::vec(1u64..1_000_000_000, 1..200), share in 0.0f64..=1.0,
        ) {
            let mut counted = Counted::default();
            us.iter().for_each(|us| counted.count(&outcome(0), Duration::from_micros(*us)));
            us.sort_unstable();
            let rank = ((share * us.len() as f64).ceil() as usize).clamp(1, us.len());
            let said = counted.latency(share).unwrap().as_micros() as u64;
            let near = |us: u64| said >= us && said <= us + us / 1_000 + 1;
            // Where the share falls between two by rounding, either will do.
            prop_assert!((rank.saturating_sub(2)..rank + 1).filter_map(|at| us.get(at)).any(|us| near(*us)), "{}", said);
        }
    }

    #[test]
    fn a_lie_counts_while_warming_up_too() {
        let mut tally = Tally::default();
        tally.count(Operation::Get, outcome(0), Duration::from_millis(1), false);
        tally.count(Operation::Get, outcome(1), Duration::from_millis(1), false);
        assert_eq!((tally.all().issued, tally.all().wrong_count(), tally.unmeasured()), (1, 1, 1));
        assert_eq!(tally.examples, ["stale: what it was"]);
    }

    #[test]
    fn nothing_counted_has_no_percentiles() {
        assert_eq!(Counted::default().latency(0.99), None);
    }
}
