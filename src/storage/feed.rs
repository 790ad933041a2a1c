//! What was committed, in order: the source of watches. A bounded ring; who falls behind it is told of the gap.

use super::Sequence;
use crate::record::{Key, Version};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One change of a key's row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// The append it came with. Several changes may share one.
    pub sequence: Sequence,
    /// The key.
    pub key: Key,
    /// Its version since.
    pub version: Version,
}

/// What was asked for is no longer, or not yet, in the ring: read the keys themselves, then go on from `latest`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the feed goes from {} to {}", oldest.0, latest.0)]
pub struct Gap {
    /// The oldest sequence that can be gone on from.
    pub oldest: Sequence,
    /// The latest.
    pub latest: Sequence,
}

/// The ring of committed changes. Written by the committer, read by anyone; each holds a short lock.
#[derive(Debug)]
pub struct Feed {
    ring: Mutex<Ring>,
    events_max: usize,
}

#[derive(Debug)]
struct Ring {
    events: VecDeque<Committed>,
    /// Everything after this sequence, up to `latest`, is in the ring.
    complete_after: Sequence,
    latest: Sequence,
}

impl Feed {
    /// A feed that begins after `last`, the store's last sequence, and remembers `events_max` changes.
    pub fn new(last: Sequence, events_max: usize) -> Feed {
        let ring = Ring { events: VecDeque::with_capacity(events_max), complete_after: last, latest: last };
        Feed { ring: Mutex::new(ring), events_max: events_max.max(1) }
    }

    /// Adds the changes of append `sequence`. The oldest go when the ring is full.
    pub fn publish(&self, sequence: Sequence, changes: impl IntoIterator<Item = (Key, Version)>) {
        let mut ring = self.lock();
        assert!(sequence > ring.latest, "{sequence:?} published after {:?}", ring.latest);
        ring.latest = sequence;
        for (key, version) in changes {
            if ring.events.len() >= self.events_max
                && let Some(oldest) = ring.events.pop_front()
            {
                ring.complete_after = oldest.sequence;
            }
            ring.events.push_back(Committed { sequence, key, version });
        }
    }

    /// The changes after `sequence`, oldest first: `max` of them, and as many more as share the last one's sequence,
    /// so that the last one's sequence is where to go on.
    pub fn since(&self, sequence: Sequence, max: usize) -> Result<Vec<Committed>, Gap> {
        let ring = self.lock();
        if sequence < ring.complete_after || sequence > ring.latest {
            return Err(Gap { oldest: ring.complete_after, latest: ring.latest });
        }
        let start = ring.events.partition_point(|event| event.sequence <= sequence);
        let mut end = ring.events.len().min(start.saturating_add(max));
        while end > start && end < ring.events.len() && ring.events[end].sequence == ring.events[end - 1].sequence {
            end += 1;
        }
        Ok(ring.events.range(start..end).cloned().collect())
    }

    /// The sequence of the last append published.
    pub fn latest(&self) -> Sequence {
        self.lock().latest
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(name: &str) -> (Key, Version) {
        (Key::new(name.as_bytes().to_vec()).unwrap(), Version(name.len() as u128))
    }

    fn sequences(events: Result<Vec<Committed>, Gap>) -> Vec<u64> {
        events.unwrap().iter().map(|event| event.sequence.0).collect()
    }

    #[test]
    fn a_reader_goes_on_from_the_last_sequence_it_saw() {
        let feed = Feed::new(Sequence(10), 100);
        feed.publish(Sequence(11), [change("a")]);
        feed.publish(Sequence(12), []);
        feed.publish(Sequence(13), [change("b"), change("c")]);
        assert_eq!(sequences(feed.since(Sequence(10), 1)), [11]);
        // An append is never cut in two.
        assert_eq!(sequences(feed.since(Sequence(11), 1)), [13, 13]);
        assert_eq!(sequences(feed.since(Sequence(13), 1)), [0; 0]);
    }

    #[test]
    fn who_fell_behind_or_comes_from_another_history_is_told() {
        let feed = Feed::new(Sequence(0), 3);
        feed.publish(Sequence(1), [change("a"), change("b")]);
        feed.publish(Sequence(2), [change("c"), change("d")]);
        // One of the first append's two changes is gone, so it can't be shown whole.
        let gap = Gap { oldest: Sequence(1), latest: Sequence(2) };
        assert_eq!(feed.since(Sequence(0), 9), Err(gap));
        assert_eq!(sequences(feed.since(Sequence(1), 9)), [2, 2]);
        assert_eq!(feed.since(Sequence(3), 9), Err(gap));
    }
}
