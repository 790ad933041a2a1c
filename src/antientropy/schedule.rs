//! `Schedule`: when a node may be in a session, and with whom.
//!
//! A node is in one session at a time, its own or another's with it: two peers that both noticed its return would
//! otherwise send it everything twice. The first to find a difference has it to itself until it says it is
//! done; others are told to come again, and then mostly find nothing left to do. What hints hold for a peer that was
//! away arrives before anything is compared with it.
//!
//! Times are the caller's, in milliseconds since the node started, and never go back.

use crate::protocol::MemberTag;
use std::collections::BTreeMap;

/// How long a node keeps itself free for a peer that began a session and was not heard of again.
const ENGAGED_MS_MAX: u64 = 30_000;
/// The longest wait, after a start or a peer's return, before a comparison: what hints hold for the one that was away
/// should arrive first, and what nobody kept for it should not wait longer.
pub const FIRST_AFTER_MS_MAX: u64 = 3_000;
/// How long to wait, about, before a session that gave way to hints is tried again. Its beginning costs both nodes about a
/// millisecond of a thread that serves clients, and hints take seconds.
pub const AFTER_HINTS_MS: u64 = 1_000;
/// How long after its return, or after it last took some, a peer's hints go before any comparison with it. Hints it would
/// not take must not keep it from being compared.
const HINTS_FIRST_MS_MAX: u64 = 10_000;

/// With whom this node is in a session.
#[derive(Clone, Debug, Default)]
enum Engaged {
    #[default]
    Nobody,
    OwnSession,
    With {
        peer: MemberTag,
        until_ms: u64,
    },
}

/// The book kept about sessions under way and peers that were away.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    engaged: Engaged,
    /// When each peer that was away was heard again.
    returned: BTreeMap<String, u64>,
    /// When each peer last took hints that were kept here.
    took_hints: BTreeMap<String, u64>,
}

impl Schedule {
    /// Whether the peer may have a session with this node now; if so, nobody else may until it is done.
    pub fn admit(&mut self, peer: MemberTag, now_ms: u64) -> bool {
        let free = match self.engaged {
            Engaged::Nobody => true,
            Engaged::OwnSession => false,
            Engaged::With { peer: with, until_ms } => with == peer || until_ms <= now_ms,
        };
        if free {
            self.engaged = Engaged::With { peer, until_ms: now_ms + ENGAGED_MS_MAX };
        }
        free
    }

    /// A question of the session under way has come, if it is a peer's: it is not over yet.
    pub fn note_question(&mut self, now_ms: u64) {
        if let Engaged::With { until_ms, .. } = &mut self.engaged {
            *until_ms = now_ms + ENGAGED_MS_MAX;
        }
    }

    /// The peer's session with this node is over.
    pub fn release(&mut self, peer: MemberTag) {
        if matches!(self.engaged, Engaged::With { peer: with, .. } if with == peer) {
            self.engaged = Engaged::Nobody;
        }
    }

    /// Whether this node may begin a session of its own; if so, nobody may have one with it until [`Schedule::end`].
    pub fn begin(&mut self, now_ms: u64) -> bool {
        let free = match self.engaged {
            Engaged::Nobody => true,
            Engaged::OwnSession => false,
            Engaged::With { until_ms, .. } => until_ms <= now_ms,
        };
        if free {
            self.engaged = Engaged::OwnSession;
        }
        free
    }

    /// This node's own session is over.
    pub fn end(&mut self) {
        self.engaged = Engaged::Nobody;
    }

    /// A peer that was away has been heard.
    pub fn note_return(&mut self, peer: &str, now_ms: u64) {
        self.returned.insert(peer.into(), now_ms);
    }

    /// A peer has taken hints that were kept here.
    pub fn note_hints_taken(&mut self, peer: &str, now_ms: u64) {
        self.took_hints.insert(peer.into(), now_ms);
    }

    /// Whether the peer has just returned, so that hints for it may be on their way from anywhere: three pings long,
    /// in which everyone else notices it too.
    pub fn is_settling(&self, peer: &str, ping_period_ms: u64, now_ms: u64) -> bool {
        let grace_ms = (3 * ping_period_ms).min(FIRST_AFTER_MS_MAX);
        self.returned.get(peer).is_some_and(|returned_ms| now_ms.saturating_sub(*returned_ms) < grace_ms)
    }

    /// Whether hints kept here for the peer would go before a comparison with it. A start counts as its return.
    pub fn hints_go_first(&self, peer: &str, now_ms: u64) -> bool {
        let since_ms = self.returned.get(peer).max(self.took_hints.get(peer)).copied().unwrap_or(0);
        now_ms.saturating_sub(since_ms) < HINTS_FIRST_MS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_in_one_session_at_a_time() {
        let (mut schedule, a, b) = (Schedule::default(), MemberTag::of("a"), MemberTag::of("b"));
        assert!(schedule.admit(a, 0) && schedule.admit(a, 1), "the same peer may ask again");
        assert!(!schedule.admit(b, 2) && !schedule.begin(2));
        schedule.release(b);
        assert!(!schedule.admit(b, 3), "only the one that is in the session ends it");
        schedule.release(a);
        assert!(schedule.begin(4));
        assert!(!schedule.begin(5) && !schedule.admit(a, u64::MAX), "its own session ends by itself");
        schedule.release(a);
        assert!(!schedule.admit(a, 6));
        schedule.end();
        assert!(schedule.admit(b, 7));
    }

    #[test]
    fn a_peer_that_is_not_heard_of_again_does_not_keep_others_out() {
        let (mut schedule, a, b) = (Schedule::default(), MemberTag::of("a"), MemberTag::of("b"));
        assert!(schedule.admit(a, 0));
        assert!(!schedule.admit(b, ENGAGED_MS_MAX - 1));
        assert!(schedule.admit(b, ENGAGED_MS_MAX));
        assert!(schedule.begin(2 * ENGAGED_MS_MAX));
    }

    #[test]
    fn a_long_session_keeps_others_out_as_long_as_it_asks() {
        let (mut schedule, a, b) = (Schedule::default(), MemberTag::of("a"), MemberTag::of("b"));
        assert!(schedule.admit(a, 0));
        schedule.note_question(ENGAGED_MS_MAX - 1);
        assert!(!schedule.admit(b, 2 * ENGAGED_MS_MAX - 2));
        assert!(schedule.admit(b, 2 * ENGAGED_MS_MAX - 1));
        schedule.release(b);
        schedule.note_question(0);
        assert!(schedule.begin(1), "a question after the end engages nobody");
    }

    #[test]
    fn a_peer_that_returns_has_a_moment_and_its_hints_first() {
        let mut schedule = Schedule::default();
        assert!(!schedule.is_settling("a", 1_000, 0) && schedule.hints_go_first("a", HINTS_FIRST_MS_MAX - 1));
        assert!(!schedule.hints_go_first("a", HINTS_FIRST_MS_MAX));
        schedule.note_return("a", 50_000);
        assert!(schedule.is_settling("a", 100, 50_299) && !schedule.is_settling("a", 100, 50_300));
        assert!(
            !schedule.is_settling("a", 60_000, 50_000 + FIRST_AFTER_MS_MAX) && !schedule.is_settling("b", 100, 50_000)
        );
        assert!(schedule.hints_go_first("a", 59_999) && !schedule.hints_go_first("a", 60_000));
        schedule.note_hints_taken("a", 59_000);
        assert!(schedule.hints_go_first("a", 68_999), "a long hand-over is not compared halfway");
        assert!(!schedule.hints_go_first("a", 69_000), "one that stopped is");
    }
}
