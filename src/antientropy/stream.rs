//! `Stream`: the records of a session that have to travel, some of them on their way.
//!
//! A sliding window: when one has arrived the next may go, so the pace is the receiver's.

use crate::protocol::{Difference, Lacking, Listed, wire_bytes};
use crate::record::{Key, Record, Stamp};
use std::collections::VecDeque;

/// Records on their way at a time, both directions together: few, so that clients' requests do not queue behind. On two
/// cores that three nodes share about 22,000 records a second; 128 at a time make 39,000 and leave clients no core.
const WINDOW_RECORDS: usize = 32;
/// Bytes of them, unless a single one is larger.
const WINDOW_BYTES: u64 = 4 << 20;

/// A record that has to travel.
pub(super) struct Move {
    pub(super) key: Key,
    pub(super) to_peer: bool,
    /// About how many it has.
    pub(super) bytes: u64,
    /// The record, if the peer has sent it already.
    pub(super) record: Option<Record>,
    /// Whether it goes to the peer and the peer's own knows something that is not here: the answer brings that along, but
    /// where the peer would not take the record it is to be fetched.
    pub(super) is_mutual: bool,
}

impl Move {
    /// What has to travel for a difference that the peer found with what is `listed` here; nothing where this node's
    /// record is younger than `settled`.
    pub(super) fn of(difference: Difference, listed: &[Listed], settled: Stamp) -> Option<Move> {
        let (at, theirs) = match difference {
            Difference::Unlisted { key, record: Lacking::Enclosed(record) } => {
                let bytes = wire_bytes(&record);
                return Some(Move { key, to_peer: false, bytes, record: Some(record), is_mutual: false });
            }
            Difference::Unlisted { key, record: Lacking::Bytes(bytes) } => {
                return Some(Move { key, to_peer: false, bytes: bytes.into(), record: None, is_mutual: false });
            }
            Difference::Other { at, outline, bytes } => (at, Some((outline, bytes))),
            Difference::Missing { at } => (at, None),
        };
        let held = listed.get(at as usize).filter(|held| is_settled(&held.outline, settled))?;
        let wanted = theirs.as_ref().filter(|(outline, _)| outline.includes(&held.outline));
        let bytes = wanted.map_or(held.bytes, |(_, bytes)| *bytes).into();
        let to_peer = wanted.is_none();
        let is_mutual = to_peer && theirs.is_some_and(|(outline, _)| !held.outline.includes(&outline));
        Some(Move { key: held.key.clone(), to_peer, bytes, record: None, is_mutual })
    }
}

fn is_settled(outline: &Record, settled: Stamp) -> bool {
    outline.context().latest().is_none_or(|latest| latest <= settled)
}

/// The records of a session.
#[derive(Default)]
pub(super) struct Stream {
    waiting: VecDeque<Move>,
    records: usize,
    bytes: u64,
}

impl Stream {
    /// Lets a record wait for its turn.
    pub(super) fn push(&mut self, next: Move) {
        self.waiting.push_back(next);
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The next record to be sent on its way, if there is room for it.
    pub(super) fn send_next(&mut self) -> Option<Move> {
        let (records, bytes) = (self.records, self.bytes);
        let has_room = |next: &mut Move| records == 0 || records < WINDOW_RECORDS && bytes + next.bytes <= WINDOW_BYTES;
        let next = self.waiting.pop_front_if(has_room)?;
        self.records += 1;
        self.bytes += next.bytes;
        Some(next)
    }

    /// A record of so many bytes has come to the end of its way.
    pub(super) fn arrived(&mut self, bytes: u64) {
        self.records -= 1;
        self.bytes -= bytes;
    }
}
