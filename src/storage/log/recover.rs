//! Reading a log back: what the base has not got, in order, and what of it can't be read.

use super::{Segment, segment_name};
use crate::record::Stamp;
use crate::storage::files::Files;
use crate::storage::frame::{Frame, FrameKey};
use crate::storage::{RowChange, Sequence};
use std::collections::BTreeMap;
use std::io;

/// Why a log can't be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum LogOpenError {
    /// A file can't be read, synced or renamed.
    #[error("{name}: {error}")]
    Io {
        /// The file.
        name: String,
        /// What the system said.
        error: io::Error,
    },
    /// Acknowledged data is damaged or missing. Move the data folder away to start empty and be healed by peers.
    #[error("{name} is damaged at byte {offset}: append {} was synced, later frames say so, and can't be read", sequence.0)]
    Rotten {
        /// The file in which the append should lie.
        name: String,
        /// Where the first unreadable frame begins.
        offset: u64,
        /// The append that is missing.
        sequence: Sequence,
    },
    /// A frame is sound and yet not understood: written by a later version, or by a bug.
    #[error("{name} holds a frame at byte {offset} that this version can't read")]
    Foreign {
        /// The file.
        name: String,
        /// Where the frame begins.
        offset: u64,
    },
}

/// What opening found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Replayed {
    /// Appends that the base did not have.
    pub appends: u64,
    /// Their rows.
    pub rows: u64,
    /// Bytes of segments read.
    pub bytes: u64,
    /// What was acknowledged, or may have been, and can't be read any more: in words.
    pub missing: Option<String>,
    /// Whether that is at most the last append, which may have been cut short.
    pub is_tail: bool,
}

/// The log's files as opening finds them: number, and length.
pub(super) struct Found {
    pub(super) segments: BTreeMap<u64, u64>,
    pub(super) free: BTreeMap<u64, u64>,
    pub(super) unfinished: BTreeMap<u64, u64>,
}

impl Found {
    pub(super) fn in_files(files: &dyn Files) -> Result<Found, LogOpenError> {
        let error = |error| LogOpenError::Io { name: "the log's folder".into(), error };
        let names = files.list().map_err(error)?;
        let called = |prefix: &str| -> BTreeMap<u64, u64> {
            names.iter().filter_map(|(name, bytes)| Some((number_in(name, prefix)?, *bytes))).collect()
        };
        Ok(Found { segments: called("segment-"), free: called("free-"), unfinished: called("new-") })
    }

    /// One that no file has.
    pub(super) fn next_number(&self) -> u64 {
        let highest = self.segments.keys().chain(self.free.keys()).chain(self.unfinished.keys()).max();
        highest.map_or(1, |highest| highest + 1)
    }
}

/// Where nothing more could be read.
#[derive(Clone, Copy, Default)]
struct Missing {
    number: u64,
    offset: u64,
    /// Whether the append that is expected next was begun there.
    begun: bool,
}

/// A log as it was read back.
pub(super) struct Recovered {
    /// The segments that hold what the base has not got, oldest first, and the last sequence in each.
    pub(super) held: Vec<(Segment, Sequence)>,
    pub(super) last_sequence: Sequence,
    pub(super) replayed: Replayed,
}

/// What is needed for it.
pub(super) struct Recovery<'a> {
    pub(super) files: &'a dyn Files,
    pub(super) found: &'a Found,
    pub(super) salt: u64,
    pub(super) segment_bytes: u64,
    pub(super) heal: bool,
}

impl Recovery<'_> {
    /// Hands every row behind `through` to `replay`.
    pub(super) fn run(
        &self,
        through: Sequence,
        replay: &mut dyn FnMut(Sequence, Stamp, Vec<RowChange>),
    ) -> Result<Recovered, LogOpenError> {
        let io_error = |name: &str| {
            let name = name.to_owned();
            move |error| LogOpenError::Io { name, error }
        };
        let mut expected = through.next();
        let mut replayed = Replayed::default();
        let mut held: BTreeMap<u64, (Segment, Sequence)> = BTreeMap::new();
        let mut attested = Sequence(0);
        // Where the frame that is expected should have been: behind the last good one.
        let mut missing: Option<Missing> = None;
        for leave_gaps in [false, true] {
            if leave_gaps && (!self.heal || attested < expected) {
                break;
            }
            for &number in self.found.segments.keys() {
                let name = segment_name(number);
                let bytes = self.files.read(&name).map_err(io_error(&name))?;
                replayed.bytes += bytes.len() as u64;
                let key = FrameKey::new(self.salt, number);
                let mut offset = 0;
                // Past what can't be read, if nothing that is wanted can be among it.
                let behind = |offset: usize, expected: Sequence| {
                    Frame::behind(&bytes, offset, &key).filter(|frame| leave_gaps || frame.sequence <= expected)
                };
                while let Some(frame) = Frame::at(&bytes, offset, &key).or_else(|| behind(offset, expected)) {
                    attested = attested.max(frame.durable_through);
                    if frame.sequence > expected && leave_gaps {
                        let (from, to) = (expected.0, frame.sequence.0 - 1);
                        let lost = replayed.missing.get_or_insert_with(|| "the log can't be read where it had".into());
                        lost.push_str(&format!(" appends {from} to {to} (before byte {} of {name})", frame.start()));
                        expected = frame.sequence;
                    }
                    if frame.sequence == expected {
                        let foreign = || LogOpenError::Foreign { name: name.clone(), offset: frame.start() as u64 };
                        let rows = frame.rows(&bytes).ok_or_else(foreign)?;
                        replayed.appends += 1;
                        replayed.rows += rows.len() as u64;
                        replay(frame.sequence, frame.last_stamp, rows);
                        let segment = Segment { number, bytes: bytes.len() as u64, end: frame.end() as u64 };
                        held.insert(number, (segment, frame.sequence));
                        expected = expected.next();
                        missing = None;
                    }
                    offset = frame.end();
                }
                if let Some(sequence) = Frame::attested_behind(&bytes, offset, &key, attested.next()) {
                    attested = sequence;
                }
                // Segments are made whole: one that is shorter was cut, and nobody knows what it held.
                let is_cut = (bytes.len() as u64) < self.segment_bytes;
                let begun = is_cut || Frame::is_begun(&bytes, offset, expected, &key);
                // Behind the end of one segment, it may be the first of another.
                if missing.is_none_or(|missing| begun && !missing.begun) && (offset < bytes.len() || is_cut) {
                    missing = Some(Missing { number, offset: offset as u64, begun });
                }
            }
        }
        if attested >= expected {
            if !self.heal {
                let last =
                    Missing { number: self.found.segments.keys().last().copied().unwrap_or(0), ..Missing::default() };
                let Missing { number, offset, .. } = missing.unwrap_or(last);
                return Err(LogOpenError::Rotten { name: segment_name(number), offset, sequence: expected });
            }
            let lost = replayed.missing.get_or_insert_with(|| "the log can't be read where it had".into());
            lost.push_str(&format!(" appends {} to {}", expected.0, attested.0));
            // Their numbers were given to others once: they are not given again.
            expected = attested.next();
        } else if missing.is_some_and(|missing| missing.begun) && replayed.missing.is_none() {
            replayed.missing = Some(format!("append {} was begun in the log and can't be read", expected.0));
            replayed.is_tail = true;
        }
        Ok(Recovered { held: held.into_values().collect(), last_sequence: Sequence(expected.0 - 1), replayed })
    }
}

fn number_in(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix).filter(|digits| digits.len() == 16)?;
    // No log lives long enough to count beyond: such a name is not ours.
    u64::from_str_radix(digits, 16).ok().filter(|&number| number < 1 << 63)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sim_files::SimFiles;
    use crate::storage::{Address, LogStore, LogStoreOptions, MemoryBase, Store};
    use bytes::Bytes;
    use std::sync::Arc;

    const FRAME_BYTES: usize = 48 + 6 + 4 + 500;

    #[test]
    fn the_last_append_is_missed_wherever_it_rots() {
        // Five fill a segment: the eleventh is the first of another.
        for (appends, offset) in [11, 12].into_iter().flat_map(|appends| (0..FRAME_BYTES).map(move |at| (appends, at)))
        {
            let files = SimFiles::new(1);
            let options = LogStoreOptions { segment_bytes: 3_000, heal: true, ..LogStoreOptions::default() };
            let open =
                || LogStore::open(Arc::new(files.clone()), Arc::new(MemoryBase::new()), options.clone()).unwrap();
            let (store, _) = open();
            for at in 0..appends {
                let row = (Address::fact("x"), Some(Bytes::from(vec![at; 500])));
                store.append(vec![row], Stamp(1)).unwrap();
            }
            drop(store);
            let mut segments: Vec<String> = files.list().unwrap().into_iter().map(|(name, _)| name).collect();
            segments.retain(|name| name.starts_with("segment-"));
            let last = segments.into_iter().max().unwrap();
            files.damage(&last, (usize::from(appends) - 11) * FRAME_BYTES + offset, 4);
            let (store, replayed) = open();
            assert!(replayed.missing.is_some(), "byte {offset} of append {appends}");
            assert_eq!(store.last_sequence(), Sequence(u64::from(appends) - 1));
        }
    }
}
