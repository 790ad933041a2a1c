//! `Foreground`: whether clients are being served, here or on their coordinators' behalf.
//!
//! Work that nobody waits for asks it and holds back while they are. It costs a request one store to memory.

use super::outside::now;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A client that was served so lately may come again at any moment.
const SERVED_WITHIN: Duration = Duration::from_millis(100);
/// How long work in the background goes on at a time while clients are served, unless a piece of it takes longer. A
/// thread that serves them and wakes on the same core waits so long, and seldom less: a kernel lets a thread that runs
/// finish its slice, which is longer.
const SPELL: Duration = Duration::from_micros(50);
/// How many times as long it then leaves the processor to others: it takes a fifth of one at most.
const RESTS: u32 = 4;

/// Whether somebody waits for what is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// A client does.
    Foreground,
    /// Nobody: sessions and hints, which may give way to clients.
    Background,
}

/// When clients were last served.
pub struct Foreground {
    started: Instant,
    /// How long a client that was served counts as being served.
    memory: Duration,
    /// When that was, in microseconds after the start; 0 for never.
    last_us: AtomicU64,
}

impl Default for Foreground {
    fn default() -> Foreground {
        Foreground::remembering(SERVED_WITHIN)
    }
}

impl Foreground {
    /// One for which a client that was served counts so long.
    pub fn remembering(memory: Duration) -> Foreground {
        Foreground { started: now(), memory, last_us: AtomicU64::new(0) }
    }

    /// A client is being served.
    pub fn note(&self) {
        self.last_us.store(self.now_us(), Ordering::Relaxed);
    }

    /// Whether one was a moment ago.
    pub fn is_busy(&self) -> bool {
        let last_us = self.last_us.load(Ordering::Relaxed);
        last_us > 0 && self.now_us().saturating_sub(last_us) < self.memory.as_micros() as u64
    }

    fn now_us(&self) -> u64 {
        now().duration_since(self.started).as_micros() as u64 + 1
    }

    /// What a thread that works in the background calls between small pieces of work: it gives way to clients, but rests
    /// no longer than `rest_max` in all, as somebody may wait for what it does.
    pub(super) fn giving_way(&self, rest_max: Duration) -> impl FnMut() {
        let (mut since, mut left) = (now(), rest_max);
        move || {
            let worked = now().duration_since(since);
            if worked >= SPELL {
                if self.is_busy() {
                    let rest = (RESTS * worked).min(left);
                    std::thread::sleep(rest);
                    left -= rest;
                }
                since = now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_count_as_served_for_a_moment_after_they_were() {
        let foreground = Foreground::remembering(Duration::from_secs(3_600));
        assert!(!foreground.is_busy(), "nobody has been served yet");
        foreground.note();
        assert!(foreground.is_busy());
        let forgetful = Foreground::remembering(Duration::ZERO);
        forgetful.note();
        assert!(!forgetful.is_busy());
    }

    #[test]
    fn work_in_the_background_rests_beside_clients_and_no_longer_than_it_may() {
        let worked = |spells, spell, rest_max| {
            let foreground = Foreground::remembering(Duration::from_secs(3_600));
            foreground.note();
            let mut give_way = foreground.giving_way(rest_max);
            let began = now();
            for _ in 0..spells {
                std::thread::sleep(spell);
                give_way();
            }
            now().duration_since(began)
        };
        let took = worked(20, SPELL, Duration::from_secs(3_600));
        assert!(took >= 20 * (1 + RESTS) * SPELL, "{took:?}");
        let long = Duration::from_millis(200);
        let took = worked(1, long, Duration::from_millis(1));
        assert!(took < RESTS * long, "{took:?}");
    }
}
