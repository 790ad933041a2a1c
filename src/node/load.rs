//! `Load`: how many requests clients make of this node, and how many bytes they bring and take, over the last whole seconds.
//!
//! ```text
//!   seconds   ... | 41 | 42 | 43 | 44 |      now is within the 44th: told is the mean of 41 to 43
//! ```
//!
//! Each worker counts for itself, in a small ring of seconds that nobody else writes to: a request costs two loads and stores
//! to its own memory, and one look at the clock. Whoever asks adds up what all have.

use super::worker::Worker;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Whole seconds that are looked back over: short enough to follow what comes, long enough not to jump with it.
const WINDOW_S: u64 = 3;
/// Seconds that are kept: the window, the present one, and some before one of the window is written over while it is read.
const KEPT_S: usize = 8;

/// The load of one node.
#[derive(Default)]
pub struct Load(Mutex<Vec<Arc<Seconds>>>);

/// What came in a second, on the mean.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Rates {
    /// Requests of clients: each line of a batch is one, and each command of the Redis protocol. Lists, watchers, and what
    /// operators and other nodes ask are none.
    pub requests_per_s: f64,
    /// Bytes of their bodies; of commands, all.
    pub bytes_in_per_s: f64,
    /// Bytes of the bodies that they were answered; of replies, all.
    pub bytes_out_per_s: f64,
    /// Both.
    pub bytes_per_s: f64,
}

/// What one worker has counted.
#[derive(Default)]
pub(super) struct Seconds([Second; KEPT_S]);

#[derive(Default)]
struct Second {
    /// Which one, from 1 on; 0 for none.
    number: AtomicU64,
    requests: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Load {
    /// Where one more worker counts.
    pub(super) fn register(&self) -> Arc<Seconds> {
        let seconds = Arc::<Seconds>::default();
        self.all().push(seconds.clone());
        seconds
    }

    /// What came of late, where the present second is the one that began so many after the start.
    pub fn rates(&self, second: u64) -> Rates {
        let window = second.saturating_sub(WINDOW_S)..second;
        let length = (window.end - window.start).max(1) as f64;
        let (mut requests, mut bytes_in, mut bytes_out) = (0, 0, 0);
        for seconds in self.all().iter() {
            for at in window.clone() {
                let (more, came, went) = seconds.of(at);
                (requests, bytes_in, bytes_out) = (requests + more, bytes_in + came, bytes_out + went);
            }
        }
        Rates {
            requests_per_s: requests as f64 / length,
            bytes_in_per_s: bytes_in as f64 / length,
            bytes_out_per_s: bytes_out as f64 / length,
            bytes_per_s: (bytes_in + bytes_out) as f64 / length,
        }
    }

    fn all(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Seconds>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seconds {
    /// Counts. To be called by one thread alone.
    fn note(&self, second: u64, requests: u64, bytes_in: u64, bytes_out: u64) {
        let kept = &self.0[second as usize % KEPT_S];
        if kept.number.load(Ordering::Relaxed) != second + 1 {
            kept.number.store(0, Ordering::Release);
            [&kept.requests, &kept.bytes_in, &kept.bytes_out]
                .iter()
                .for_each(|count| count.store(0, Ordering::Relaxed));
            kept.number.store(second + 1, Ordering::Release);
        }
        for (count, more) in [(&kept.requests, requests), (&kept.bytes_in, bytes_in), (&kept.bytes_out, bytes_out)] {
            count.store(count.load(Ordering::Relaxed) + more, Ordering::Relaxed);
        }
    }

    fn of(&self, second: u64) -> (u64, u64, u64) {
        let kept = &self.0[second as usize % KEPT_S];
        let counted = [&kept.requests, &kept.bytes_in, &kept.bytes_out].map(|count| count.load(Ordering::Acquire));
        match kept.number.load(Ordering::Acquire) == second + 1 {
            true => counted.into(),
            false => (0, 0, 0),
        }
    }
}

impl Worker {
    /// Counts requests of clients, the bytes that came with them, and those that they were answered with.
    pub fn count(&self, requests: u64, bytes_in: u64, bytes_out: u64) {
        self.load.note(self.node.uptime().as_secs(), requests, bytes_in, bytes_out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_workers_counted_in_the_last_three_whole_seconds_is_told_as_a_mean() {
        let load = Load::default();
        assert_eq!(load.rates(0), Rates::default());
        let (one, other) = (load.register(), load.register());
        one.note(0, 9, 90, 900);
        assert_eq!(load.rates(0), Rates::default(), "the present second is not over");
        assert_eq!((load.rates(1).requests_per_s, load.rates(2).requests_per_s), (9.0, 4.5), "since the start");
        for second in 1..100 {
            one.note(second, 1, 10, 100);
            one.note(second, 1, 10, 100);
            other.note(second, 4, 0, 5);
        }
        let rates = Rates { requests_per_s: 6.0, bytes_in_per_s: 20.0, bytes_out_per_s: 205.0, bytes_per_s: 225.0 };
        assert_eq!((load.rates(100), load.rates(99)), (rates, rates));
        assert_eq!(load.rates(102).requests_per_s, 2.0, "nothing came in the last two");
        assert_eq!(load.rates(103), Rates::default());
        one.note(108, 3, 0, 0);
        assert_eq!(load.rates(109).requests_per_s, 1.0, "what was counted long ago in its place is gone");
    }
}
