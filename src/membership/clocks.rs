//! Whose clock is wrong: how far this node's time is ahead of its peers'.
//!
//! A node that is further ahead than most of its peers makes stamps that they refuse. It passes writes on to them
//! instead, so that a clock that was set wrong delays nobody and colours no stamp.

use crate::record::STAMP_AHEAD_MAX_MS;
use std::collections::BTreeMap;

/// What the peers' clocks said when they were last heard.
#[derive(Clone, Debug, Default)]
pub struct Clocks {
    /// By how many milliseconds this node was ahead of each; negative where it was behind.
    ahead_ms: BTreeMap<String, i64>,
}

impl Clocks {
    /// `peer` says that it is `peer_ms`, while here it is `own_ms`; both in milliseconds since 1970.
    pub fn note(&mut self, peer: &str, peer_ms: u64, own_ms: u64) {
        let ahead = i128::from(own_ms) - i128::from(peer_ms);
        let ahead = i64::try_from(ahead).unwrap_or(if ahead > 0 { i64::MAX } else { i64::MIN });
        self.ahead_ms.insert(peer.to_string(), ahead);
    }

    /// By how much this node is ahead of more than half of the peers that were heard, at least; 0 where it is not.
    pub fn ahead_ms(&self) -> u64 {
        let mut ahead: Vec<i64> = self.ahead_ms.values().copied().collect();
        ahead.sort_unstable_by(|left, right| right.cmp(left));
        ahead.get(ahead.len() / 2).map_or(0, |&ahead| u64::try_from(ahead).unwrap_or(0))
    }

    /// Whether the peers would refuse stamps made here.
    pub fn is_ahead(&self) -> bool {
        self.ahead_ms() > STAMP_AHEAD_MAX_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ahead(of: &[i64]) -> u64 {
        let mut clocks = Clocks::default();
        let now = 10_000_000;
        of.iter().enumerate().for_each(|(peer, by)| clocks.note(&peer.to_string(), (now - by) as u64, now as u64));
        clocks.ahead_ms()
    }

    #[test]
    fn a_node_is_ahead_of_more_than_half_of_its_peers_or_not_at_all() {
        assert_eq!([ahead(&[]), ahead(&[70_000]), ahead(&[-5])], [0, 70_000, 0]);
        assert_eq!(ahead(&[70_000, 0]), 0, "of one of two: which of the three is wrong is not known");
        assert_eq!(ahead(&[70_000, 80_000]), 70_000);
        assert_eq!(ahead(&[70_000, 80_000, -9_000_000]), 70_000);
        assert_eq!(ahead(&[70_000, 0, 0]), 0);
    }

    #[test]
    fn the_latest_word_of_a_peer_counts_whatever_it_is() {
        let mut clocks = Clocks::default();
        clocks.note("a", 0, u64::MAX);
        assert!(clocks.is_ahead());
        clocks.note("a", u64::MAX, 0);
        assert!(!clocks.is_ahead());
        clocks.note("a", 0, STAMP_AHEAD_MAX_MS);
        assert!(!clocks.is_ahead(), "what peers just take is no reason");
    }
}
