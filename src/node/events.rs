//! What happened on this node: one bounded ring of events, each also a line in the log.
//!
//! Changes of state only: a request makes no event.

use super::outside::{random, wall_ms};
use crate::protocol::{News, ToldEvent};
use crate::storage::Feed;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// How many events are kept. Some hours of a quiet node, some minutes of a troubled one, about 200 KB.
const EVENTS_MAX: usize = 1_000;
/// Most bytes of them that are kept for those who follow.
const EVENTS_BYTES_MAX: usize = 1 << 20;

/// One event.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Counts up from 1, without gaps.
    pub sequence: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// `info`, `warn` or `error`.
    pub level: &'static str,
    /// What kind, a stable word for programs.
    pub kind: &'static str,
    /// What, a sentence for people.
    pub text: String,
}

/// The ring.
pub struct Events {
    ring: Mutex<(u64, VecDeque<Event>)>,
    /// The same for those who follow, on this node and on others.
    pub(super) feed: Feed,
}

impl Default for Events {
    fn default() -> Events {
        Events { ring: Mutex::default(), feed: Feed::new(random(), EVENTS_MAX, EVENTS_BYTES_MAX) }
    }
}

impl Events {
    /// Something worth knowing.
    pub fn info(&self, kind: &'static str, text: impl Into<String>) {
        self.push(log::Level::Info, kind, text.into());
    }

    /// Something worth looking at.
    pub fn warn(&self, kind: &'static str, text: impl Into<String>) {
        self.push(log::Level::Warn, kind, text.into());
    }

    /// Something that needs somebody.
    pub fn error(&self, kind: &'static str, text: impl Into<String>) {
        self.push(log::Level::Error, kind, text.into());
    }

    /// The latest `count` events, oldest first.
    pub fn latest(&self, count: usize) -> Vec<Event> {
        let ring = self.ring.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        ring.1.iter().skip(ring.1.len().saturating_sub(count)).cloned().collect()
    }

    fn push(&self, level: log::Level, kind: &'static str, text: String) {
        log::log!(target: &format!("kringle::{kind}"), level, "{text}");
        let mut ring = self.ring.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        ring.0 += 1;
        let level = match level {
            log::Level::Error => "error",
            log::Level::Warn => "warn",
            _ => "info",
        };
        let event = Event { sequence: ring.0, at_ms: wall_ms(), level, kind, text };
        let told =
            ToldEvent { at_ms: event.at_ms, level: level.into(), kind: kind.into(), text: event.text.as_str().into() };
        self.feed.publish([News::Event(Arc::new(told))], None);
        if ring.1.len() == EVENTS_MAX {
            ring.1.pop_front();
        }
        ring.1.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_latest_events_and_counts_all() {
        let events = Events::default();
        (0..EVENTS_MAX + 5).for_each(|count| events.info("test", count.to_string()));
        let kept = events.latest(usize::MAX);
        assert_eq!((kept.len(), kept[0].sequence), (EVENTS_MAX, 6));
        assert_eq!(events.latest(2)[1].text, (EVENTS_MAX + 4).to_string());
    }
}
