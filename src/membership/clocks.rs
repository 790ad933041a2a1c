//! Whose clock is wrong: how far this node's time is ahead of its peers'.
//!
//! A node that is further ahead than most of its peers makes stamps that they refuse. It passes writes on to them
//! instead, so that a clock that was set wrong delays nobody and colours no stamp.

use crate::record::STAMP_AHEAD_MAX_MS;
use std::collections::BTreeMap;

/// What the peers' clocks said when they were last heard, and how long ago that is by a clock that only moves on, so that a
/// step of this node's own clock is noticed before anybody is heard again.
#[derive(Clone, Debug, Default)]
pub struct Clocks {
    heard: BTreeMap<String, Heard>,
}

/// All in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Heard {
    /// What the peer said, since 1970.
    peer_ms: u64,
    /// When, by the clock that only moves on.
    steady_ms: u64,
}

/// This node's time, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnTime {
    /// That of the next stamp, since 1970.
    pub stamp_ms: u64,
    /// By a clock that only moves on, from any beginning.
    pub steady_ms: u64,
}

/// How a node's clock stands to those of more than half of the peers that were heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClockState {
    /// Neither side refuses the other's stamps for it.
    #[default]
    Even,
    /// They would refuse stamps made here.
    Ahead,
    /// What they stamp is refused here.
    Behind,
}

impl Clocks {
    /// `peer` says that it is `peer_ms`, in milliseconds since 1970.
    pub fn note(&mut self, peer: &str, peer_ms: u64, own: OwnTime) {
        self.heard.insert(peer.to_string(), Heard { peer_ms, steady_ms: own.steady_ms });
    }

    /// By how much this node is ahead of each peer; negative where it is behind.
    fn ahead(&self, own: OwnTime) -> impl Iterator<Item = i128> {
        self.heard.values().map(move |heard| {
            let since = i128::from(own.steady_ms) - i128::from(heard.steady_ms);
            i128::from(own.stamp_ms) - i128::from(heard.peer_ms) - since
        })
    }

    /// By how much this node is ahead of more than half of the peers that were heard, at least; 0 where it is not.
    pub fn ahead_ms(&self, own: OwnTime) -> u64 {
        reached_by_most(self.ahead(own))
    }

    /// By how much this node is behind more than half of the peers that were heard, at least; 0 where it is not.
    pub fn behind_ms(&self, own: OwnTime) -> u64 {
        reached_by_most(self.ahead(own).map(|ahead| -ahead))
    }

    /// Whether the peers would refuse stamps made here.
    pub fn is_ahead(&self, own: OwnTime) -> bool {
        self.is_so_of_most(own, |ahead| ahead > i128::from(STAMP_AHEAD_MAX_MS))
    }

    /// Whether it is so of more than half of the peers that were heard. Asked of every write: it sorts nothing.
    fn is_so_of_most(&self, own: OwnTime, is_so: impl Fn(i128) -> bool) -> bool {
        2 * self.ahead(own).filter(|ahead| is_so(*ahead)).count() > self.heard.len()
    }

    /// How this node's clock stands.
    pub fn state(&self, own: OwnTime) -> ClockState {
        match (self.is_ahead(own), self.is_so_of_most(own, |ahead| -ahead > i128::from(STAMP_AHEAD_MAX_MS))) {
            (true, _) => ClockState::Ahead,
            (false, true) => ClockState::Behind,
            (false, false) => ClockState::Even,
        }
    }
}

/// The greatest that more than half of them reach; 0 where that is none, or below.
fn reached_by_most(differences: impl Iterator<Item = i128>) -> u64 {
    let mut differences: Vec<i128> = differences.collect();
    differences.sort_unstable_by(|left, right| right.cmp(left));
    differences.get(differences.len() / 2).map_or(0, |&most| u64::try_from(most.max(0)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(stamp_ms: u64) -> OwnTime {
        OwnTime { stamp_ms, steady_ms: 5_000 }
    }

    fn ahead(of: &[i64]) -> u64 {
        let now = 10_000_000;
        let of_peers = |by: &dyn Fn(i64) -> i64| {
            let mut clocks = Clocks::default();
            let peers = of.iter().enumerate();
            peers.for_each(|(peer, ahead)| clocks.note(&peer.to_string(), (now - by(*ahead)) as u64, own(now as u64)));
            let (ahead, behind) = (clocks.ahead_ms(own(now as u64)), clocks.behind_ms(own(now as u64)));
            (ahead, behind, clocks.state(own(now as u64)))
        };
        let (ahead, behind, state) = of_peers(&|ahead| ahead);
        let turned = match state {
            ClockState::Even => ClockState::Even,
            ClockState::Ahead => ClockState::Behind,
            ClockState::Behind => ClockState::Ahead,
        };
        assert_eq!(of_peers(&|ahead| -ahead), (behind, ahead, turned), "{of:?}");
        assert_eq!(state == ClockState::Ahead, ahead > STAMP_AHEAD_MAX_MS, "{of:?}");
        ahead
    }

    #[test]
    fn a_node_is_ahead_of_more_than_half_of_its_peers_or_not_at_all() {
        assert_eq!([ahead(&[]), ahead(&[70_000]), ahead(&[-5])], [0, 70_000, 0]);
        assert_eq!(ahead(&[70_000, 0]), 0, "of one of two: which of the three is wrong is not known");
        assert_eq!(ahead(&[70_000, 80_000]), 70_000);
        assert_eq!(ahead(&[70_000, 80_000, -9_000_000]), 70_000);
        assert_eq!(ahead(&[70_000, 0, 0]), 0);
        assert_eq!(ahead(&[-70_000, -80_000, 9_000_000]), 0);
    }

    #[test]
    fn the_latest_word_of_a_peer_counts_whatever_it_is() {
        let mut clocks = Clocks::default();
        clocks.note("a", 0, own(u64::MAX));
        assert!(clocks.is_ahead(own(u64::MAX)));
        clocks.note("a", u64::MAX, own(0));
        assert!(!clocks.is_ahead(own(0)));
        clocks.note("a", 0, own(STAMP_AHEAD_MAX_MS));
        assert!(!clocks.is_ahead(own(STAMP_AHEAD_MAX_MS)), "what peers just take is no reason");
    }

    #[test]
    fn a_step_of_the_own_clock_is_noticed_before_anybody_is_heard_again_and_time_that_passes_is_none() {
        let mut clocks = Clocks::default();
        ["a", "b"].iter().for_each(|peer| clocks.note(peer, 1_000_000, own(1_000_000)));
        let later = |stamp_ms| OwnTime { stamp_ms, steady_ms: 5_000 + 600_000 };
        assert_eq!(clocks.ahead_ms(later(1_600_000)), 0);
        assert!(clocks.is_ahead(later(1_600_000 + 3_600_000)));
        // One that is heard then says so as well: it is this clock that is wrong.
        clocks.note("a", 1_600_000, later(5_200_000));
        assert_eq!(clocks.ahead_ms(later(5_200_000)), 3_600_000);
        // Unless the others' clocks have moved as far.
        clocks.note("a", 5_200_000, later(5_200_000));
        clocks.note("b", 5_200_000, later(5_200_000));
        assert!(!clocks.is_ahead(later(5_200_000)));
    }
}
