//! How long a peer's answers take: the 95th percentile of the recent ones, after which a read asks another owner too.
//!
//! A window of the last answers, looked through anew every few: exact, quick to follow a change, and a cost of some
//! tens of nanoseconds an answer. One per link, so it needs no lock.

use std::time::Duration;

/// Answers that are remembered. A window of a few hundred milliseconds under load, and 6 answers above the percentile.
const WINDOW: usize = 128;
/// Answers between two looks through the window; the first look is after as many.
const LOOK_EVERY: usize = 16;

/// The last answers of one peer.
#[derive(Debug)]
pub struct Latency {
    window: [u32; WINDOW],
    /// Answers noted so far.
    noted: usize,
    p95_us: Option<u32>,
}

impl Default for Latency {
    fn default() -> Latency {
        Latency { window: [0; WINDOW], noted: 0, p95_us: None }
    }
}

impl Latency {
    /// An answer took so long.
    pub fn note(&mut self, took: Duration) {
        self.window[self.noted % WINDOW] = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.noted += 1;
        if self.noted.is_multiple_of(LOOK_EVERY) {
            let mut seen = self.window;
            let seen = &mut seen[..self.noted.min(WINDOW)];
            let rank = (seen.len() * 95).div_ceil(100) - 1;
            self.p95_us = Some(*seen.select_nth_unstable(rank).1);
        }
    }

    /// What 95 of 100 recent answers did not exceed; nothing while too few came to tell.
    pub fn p95(&self) -> Option<Duration> {
        self.p95_us.map(|us| Duration::from_micros(u64::from(us)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(answers_ms: impl IntoIterator<Item = u64>) -> Option<u64> {
        let mut latency = Latency::default();
        answers_ms.into_iter().for_each(|ms| latency.note(Duration::from_millis(ms)));
        latency.p95().map(|p95| p95.as_millis() as u64)
    }

    #[test]
    fn few_answers_tell_nothing() {
        assert_eq!(noted([1; LOOK_EVERY - 1]), None);
        assert_eq!(noted([1; LOOK_EVERY]), Some(1));
    }

    #[test]
    fn one_slow_answer_among_many_does_not_count() {
        assert_eq!(noted((0..WINDOW as u64).map(|at| if at % 32 == 0 { 900 } else { 2 })), Some(2));
        assert_eq!(noted((0..WINDOW as u64).map(|at| if at % 16 == 0 { 900 } else { 2 })), Some(900));
        assert_eq!(noted(1..=100), Some(92), "looked through at 96 answers");
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let slow_once = std::iter::repeat_n(700, 1_008).chain(std::iter::repeat_n(3, WINDOW));
        assert_eq!(noted(slow_once), Some(3));
    }

    #[test]
    fn no_duration_is_too_long() {
        let mut latency = Latency::default();
        (0..LOOK_EVERY).for_each(|_| latency.note(Duration::MAX));
        assert_eq!(latency.p95(), Some(Duration::from_micros(u64::from(u32::MAX))));
    }
}
