//! Which version of the protocol is spoken to each peer: this node's own, until the peer refuses that.
//!
//! ```text
//!  own ── refused, because of the version ──► previous ── a trial in its own is answered in it ──► own
//! ```
//!
//! Trials are for messages that are small and frequent, which pay for them with one refusal a minute; and at once where the
//! peer itself spoke the later version. What a stranger says in its name can bring about no more than such a trial.
//! All threads share this: what one link was told, those of other threads need not be told again.

use super::outside::now;
use super::shared::Shared;
use crate::placement::NodeId;
use crate::protocol::{PREVIOUS_VERSION, PROTOCOL_VERSION, ProtocolVersion};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long a peer that spoke the previous version is not asked whether it has been upgraded, unless it says so itself.
const TRIAL_PERIOD: Duration = Duration::from_secs(60);
/// Most addresses that are remembered, far more than a cluster has nodes. Past it all are forgotten, and each is learned
/// again by one refusal.
const KEPT_MAX: usize = 4_096;

/// The addresses at which the previous version is spoken.
#[derive(Default)]
pub struct Dialects {
    previous: Mutex<BTreeMap<String, Previous>>,
    /// Whether there are any: mostly there are none, and nobody need look.
    any: AtomicBool,
}

/// What is known of an address at which the previous version is spoken.
struct Previous {
    /// From when on the own version may be tried.
    due: Instant,
    /// When it was refused last.
    refused: Instant,
}

impl Dialects {
    /// The version in which to speak to `url` now. `may_try`: the message is one that may find out whether the peer speaks
    /// the own version again.
    pub(super) fn spoken_to(&self, url: &str, may_try: bool) -> ProtocolVersion {
        if self.any.load(Ordering::Relaxed) { self.choose(url, may_try, now()) } else { PROTOCOL_VERSION }
    }

    /// The peer at `url` refused the own version. Whether that is news.
    pub(super) fn was_refused(&self, url: &str) -> bool {
        self.refuse(url, now())
    }

    /// The peer at `url` answered in this version what it was asked at `asked`. Whether it is news that it speaks the own
    /// one: an answer that was on its way when the own version was refused to somebody else is none.
    pub(super) fn was_answered(&self, url: &str, version: ProtocolVersion, asked: Instant) -> bool {
        if version != PROTOCOL_VERSION || !self.any.load(Ordering::Relaxed) {
            return false;
        }
        let mut previous = self.previous();
        let is_news = previous.get(url).is_some_and(|known| known.refused <= asked);
        if is_news {
            previous.remove(url);
        }
        self.any.store(!previous.is_empty(), Ordering::Relaxed);
        is_news
    }

    fn choose(&self, url: &str, may_try: bool, now: Instant) -> ProtocolVersion {
        match self.previous().get_mut(url) {
            None => PROTOCOL_VERSION,
            Some(known) if may_try && known.due <= now => {
                known.due = now + TRIAL_PERIOD;
                PROTOCOL_VERSION
            }
            Some(_) => PREVIOUS_VERSION,
        }
    }

    fn refuse(&self, url: &str, now: Instant) -> bool {
        let mut previous = self.previous();
        if previous.len() >= KEPT_MAX {
            previous.clear();
        }
        self.any.store(true, Ordering::Relaxed);
        previous.insert(url.to_string(), Previous { due: now + TRIAL_PERIOD, refused: now }).is_none()
    }

    fn try_at_once(&self, url: &str, now: Instant) {
        if let Some(known) = self.previous().get_mut(url) {
            known.due = now;
        }
    }

    fn previous(&self) -> MutexGuard<'_, BTreeMap<String, Previous>> {
        self.previous.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Shared {
    /// The node with the id `sender` asked something in this version.
    pub fn note_version(&self, sender: NodeId, version: ProtocolVersion) {
        if version == PROTOCOL_VERSION && self.dialects.any.load(Ordering::Relaxed) {
            let ring = self.ring();
            if let Some(member) = ring.member_by_id(sender) {
                self.dialects.try_at_once(&self.address_of(ring.member(member)), now());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_refused_is_spoken_to_in_the_previous_version_and_tried_once_a_minute() {
        let (dialects, start) = (Dialects::default(), now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(dialects.spoken_to("a", true), PROTOCOL_VERSION);
        assert!(dialects.refuse("a", at(0)));
        assert!(!dialects.refuse("a", at(0)), "all lanes of a peer are refused at a time");
        let seen = |may_try, seconds| dialects.choose("a", may_try, at(seconds)) == PROTOCOL_VERSION;
        assert_eq!([seen(true, 59), seen(false, 60), seen(true, 60), seen(true, 61)], [false, false, true, false]);
        assert_eq!(dialects.choose("b", false, at(0)), PROTOCOL_VERSION);
        assert!(!dialects.was_answered("a", PREVIOUS_VERSION, at(61)));
        assert!(dialects.was_answered("a", PROTOCOL_VERSION, at(61)));
        assert!(!dialects.was_answered("a", PROTOCOL_VERSION, at(61)));
        assert_eq!(dialects.choose("a", false, at(62)), PROTOCOL_VERSION);
    }

    #[test]
    fn a_peer_that_spoke_the_own_version_is_tried_at_once_and_only_then_believed() {
        let (dialects, start) = (Dialects::default(), now());
        dialects.refuse("a", start);
        dialects.try_at_once("a", start);
        dialects.try_at_once("b", start);
        assert_eq!(dialects.choose("a", false, start), PREVIOUS_VERSION);
        assert_eq!(dialects.choose("a", true, start), PROTOCOL_VERSION);
        assert!(!dialects.refuse("a", start), "it was only said in its name");
        assert_eq!(dialects.choose("a", true, start), PREVIOUS_VERSION);
    }

    #[test]
    fn an_answer_that_was_on_its_way_when_another_request_was_refused_is_no_news() {
        let (dialects, start) = (Dialects::default(), now());
        let at = |seconds| start + Duration::from_secs(seconds);
        dialects.refuse("a", at(5));
        assert!(!dialects.was_answered("a", PROTOCOL_VERSION, at(4)));
        assert_eq!(dialects.choose("a", false, at(6)), PREVIOUS_VERSION);
        assert!(dialects.was_answered("a", PROTOCOL_VERSION, at(6)));
    }

    #[test]
    fn no_more_addresses_are_kept_than_there_may_be() {
        let (dialects, start) = (Dialects::default(), now());
        for number in 0..=KEPT_MAX {
            assert!(dialects.refuse(&number.to_string(), start));
        }
        assert_eq!(dialects.previous().len(), 1);
    }
}
