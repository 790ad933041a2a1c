//! Time as the store knows it: a hybrid logical clock.
//!
//! A stamp is the wall clock where that moves forward, and a counter where it does not, so stamps rise on
//! one node whatever its clock does, and a stamp seen from a peer is always exceeded by the next one made here.
//! Kulkarni et al., "Logical Physical Clocks" (2014), §3, packed into one word as in §6.
//!
//! ```text
//!  63                                16 15            0
//! +------------------------------------+---------------+
//! | milliseconds since 1970 (48 bits)  | counter (16)  |
//! +------------------------------------+---------------+
//! ```

use serde::{Deserialize, Serialize};
use std::fmt;

/// How far ahead of this node's own time a stamp from outside may be, in milliseconds, before it is refused.
/// One poisoned clock would otherwise drag the whole cluster's clock with it. Far above any honest skew.
pub const STAMP_AHEAD_MAX_MS: u64 = 60_000;

/// A moment: 48 bits of milliseconds since 1970, 16 bits of counter. Ordered as a plain number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Stamp(pub u64);

impl Stamp {
    /// Later than any moment.
    pub const MAX: Stamp = Stamp(u64::MAX);

    /// The moment so many milliseconds later.
    pub fn plus_ms(self, ms: u64) -> Stamp {
        Stamp(self.0.saturating_add(ms << 16))
    }

    /// The very next one; the last of all stays.
    pub fn following(self) -> Stamp {
        Stamp(self.0.saturating_add(1))
    }

    /// The first stamp of a millisecond.
    pub fn from_ms(ms: u64) -> Stamp {
        Stamp(ms << 16)
    }

    /// The wall-clock part, in milliseconds since 1970.
    pub fn ms(self) -> u64 {
        self.0 >> 16
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A stamp from outside lies further ahead than any honest clock: refused, nothing changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[error("a stamp is {ahead_ms} ms ahead of this node's clock, more than the {STAMP_AHEAD_MAX_MS} ms allowed")]
pub struct StampAhead {
    /// By how much, in milliseconds.
    pub ahead_ms: u64,
}

/// The one clock of a node. Pure: the wall clock is an argument.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    last: Stamp,
}

impl Clock {
    /// A clock that has already made or seen `last`, as read back from the log.
    pub fn starting_after(last: Stamp) -> Clock {
        Clock { last }
    }

    /// The latest stamp made or seen.
    pub fn last(&self) -> Stamp {
        self.last
    }

    /// A new stamp, above every stamp made or seen: `max(wall, last + 1)`.
    pub fn next(&mut self, wall_ms: u64) -> Stamp {
        self.last = Stamp::from_ms(wall_ms).max(self.last.following());
        self.last
    }

    /// Takes note of a stamp from outside, unless it lies too far ahead of both the wall and this clock.
    pub fn observe(&mut self, seen: Stamp, wall_ms: u64) -> Result<(), StampAhead> {
        self.check(seen, wall_ms)?;
        self.last = self.last.max(seen);
        Ok(())
    }

    /// Whether [`Clock::observe`] would take `seen`, changing nothing.
    pub fn check(&self, seen: Stamp, wall_ms: u64) -> Result<(), StampAhead> {
        let own_ms = self.last.ms().max(wall_ms);
        match seen.ms().saturating_sub(own_ms) {
            ahead_ms if ahead_ms > STAMP_AHEAD_MAX_MS => Err(StampAhead { ahead_ms }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_rise_while_the_wall_clock_stands_still_or_jumps_back() {
        let mut clock = Clock::default();
        let walls = [1_000, 1_000, 1_000, 400, 0, 1_001];
        let stamps: Vec<Stamp> = walls.iter().map(|&wall| clock.next(wall)).collect();
        assert!(stamps.windows(2).all(|pair| pair[0] < pair[1]), "{stamps:?}");
        assert_eq!(stamps[5], Stamp::from_ms(1_001));
    }

    #[test]
    fn a_stamp_seen_is_exceeded_by_the_next_one_made() {
        let mut clock = Clock::default();
        clock.observe(Stamp::from_ms(50_000), 0).unwrap();
        assert!(clock.next(10) > Stamp::from_ms(50_000));
    }

    #[test]
    fn a_stamp_too_far_ahead_is_refused_and_moves_nothing() {
        let mut clock = Clock::default();
        assert_eq!(clock.observe(Stamp(u64::MAX), 5), Err(StampAhead { ahead_ms: (u64::MAX >> 16) - 5 }));
        assert_eq!(clock.observe(Stamp::from_ms(60_006), 5), Err(StampAhead { ahead_ms: 60_001 }));
        assert_eq!(clock.last(), Stamp(0));
        clock.observe(Stamp::from_ms(60_005), 5).unwrap();
        // Ahead of the wall, yet not of what this clock already knows.
        clock.observe(Stamp::from_ms(120_000), 5).unwrap();
    }

    #[test]
    fn a_full_counter_runs_into_the_next_millisecond() {
        let mut clock = Clock::starting_after(Stamp((7 << 16) | 0xffff));
        assert_eq!(clock.next(7), Stamp::from_ms(8));
    }
}
