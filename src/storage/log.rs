//! The commit log: the promise itself. Frames in preallocated segments, one synced frame for each append.
//!
//! ```text
//!  free-…7        new-…c
//!    │ rename       │ zero-filled, synced, renamed          (prepare: ahead of need, off the commit path)
//!    ▼              ▼
//!  segment-…9 (sealed)   segment-…a (current)   segment-…b (prepared)
//!  [1][2][3][4]......    [5][6]...............   .....................
//!    │ every frame in the base
//!    ▼ rename
//!  free-…9
//! ```
//!
//! A segment is written front to back. Its number is never used twice and keys its frames' checksums, so what a
//! recycled segment still holds is noise. A frame that fails its checksum is the torn end of the log, unless some other
//! frame attests that it had been synced: then acknowledged data has rotted. If the base has it, nothing is lost. Else
//! opening fails; or, where peers can give back what is lost, it goes on with what can be read and says what is missing.
//! Rot in the very last frame can't be told from a torn write: there, too, something may be missing.
//!
//! Recovery writes nothing into a segment that holds frames: what lies behind the cut stays behind it. It frees the
//! segments above the cut before anything new is written, so a stale frame can never be taken for a later one.

mod recover;

pub use recover::{LogOpenError, Replayed};

use super::files::Files;
use super::frame::{self, FrameKey};
use super::{Durability, RowChange, Sequence};
use crate::record::Stamp;
use recover::{Found, Recovered, Recovery};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Freed segments kept for use again; beyond that they are removed, to give their room back after a burst.
const FREE_MAX: usize = 6;

/// Zeros written at a time when a segment is made.
const FILL_BYTES: usize = 1 << 20;

/// The log of one store.
pub(super) struct CommitLog {
    files: Arc<dyn Files>,
    salt: u64,
    segment_bytes: u64,
    durability: Durability,
    writer: Mutex<Writer>,
    supply: Mutex<Supply>,
    /// Held while segments are synced outside the writer's lock, and while they are recycled.
    syncing: Mutex<()>,
    /// Copies for those who must not wait for a sync in flight.
    last_sequence: AtomicU64,
    bytes: AtomicU64,
}

/// Where appends go.
struct Writer {
    current: Segment,
    /// Full segments, oldest first, and the last sequence in each.
    sealed: Vec<(Segment, Sequence)>,
    /// Numbers of sealed segments written since they were last synced.
    unsynced: Vec<u64>,
    last_sequence: Sequence,
    durable_through: Sequence,
    /// A failed write may have left a whole frame at the end; it must not survive in front of its successor.
    scarred: bool,
    fenced: Option<Arc<str>>,
    buffer: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Segment {
    number: u64,
    bytes: u64,
    end: u64,
}

/// Segments to be.
struct Supply {
    next_number: u64,
    prepared: Option<Segment>,
    /// Numbers of freed segments of the usual size.
    free: Vec<u64>,
}

/// Why an append or a sync failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum LogError {
    /// Nothing was acknowledged; the next append tries again.
    Write(Arc<str>),
    /// Nothing is acknowledged any more.
    Fenced(Arc<str>),
    /// The rows are more than a frame may hold.
    TooLarge,
}

fn segment_name(number: u64) -> String {
    format!("segment-{number:016x}")
}

fn free_name(number: u64) -> String {
    format!("free-{number:016x}")
}

fn new_name(number: u64) -> String {
    format!("new-{number:016x}")
}

impl CommitLog {
    /// Opens the log and hands every row behind `through`, which the base holds already, to `replay`, in order. What is
    /// replayed is durable when this returns. With `heal` it is opened even if acknowledged appends can't be read.
    pub(super) fn open(
        files: Arc<dyn Files>,
        salt: u64,
        segment_bytes: u64,
        durability: Durability,
        heal: bool,
        through: Sequence,
        mut replay: impl FnMut(Sequence, Stamp, Vec<RowChange>),
    ) -> Result<(CommitLog, Replayed), LogOpenError> {
        let found = Found::in_files(&*files)?;
        let next_number = found.next_number();
        let recovery = Recovery { files: &*files, found: &found, salt, segment_bytes, heal };
        let Recovered { held, last_sequence, replayed } = recovery.run(through, &mut replay)?;
        let io_error = |name: &str| {
            let name = name.to_owned();
            move |error| LogOpenError::Io { name, error }
        };
        for (segment, _) in &held {
            let name = segment_name(segment.number);
            files.sync(&name).map_err(io_error(&name))?;
        }
        let supply = Supply { next_number, prepared: None, free: Vec::new() };
        let bytes = held.iter().map(|(segment, _)| segment.bytes).sum();
        let writer = Writer {
            current: Segment { number: 0, bytes: 0, end: 0 },
            sealed: held,
            unsynced: Vec::new(),
            last_sequence,
            durable_through: last_sequence,
            scarred: false,
            fenced: None,
            buffer: Vec::new(),
        };
        let log = CommitLog {
            files,
            salt,
            segment_bytes,
            durability,
            writer: Mutex::new(writer),
            supply: Mutex::new(supply),
            syncing: Mutex::new(()),
            last_sequence: AtomicU64::new(last_sequence.0),
            bytes: AtomicU64::new(bytes),
        };
        log.tidy(&found)?;
        Ok((log, replayed))
    }

    /// After replay: first frees what lies above the end of the log (stale, or never used), then what the base covers,
    /// oldest first; then makes sure of a segment to write to.
    fn tidy(&self, found: &Found) -> Result<(), LogOpenError> {
        let io_error = |name: String| move |error| LogOpenError::Io { name, error };
        let mut writer = self.writer();
        let mut supply = self.supply();
        for &number in found.unfinished.keys() {
            self.files.remove(&new_name(number)).map_err(io_error(new_name(number)))?;
        }
        for (&number, &bytes) in &found.free {
            self.keep_or_remove(&mut supply, number, bytes).map_err(io_error(free_name(number)))?;
        }
        let end = writer.sealed.last().map_or(0, |(segment, _)| segment.number);
        let (above, below): (Vec<_>, Vec<_>) = found.segments.iter().partition(|&(&number, _)| number > end);
        let is_held = |number: u64| writer.sealed.iter().any(|(segment, _)| segment.number == number);
        for (&number, &bytes) in above.into_iter().chain(below.into_iter().filter(|&(&number, _)| !is_held(number))) {
            self.files.rename(&segment_name(number), &free_name(number)).map_err(io_error(segment_name(number)))?;
            self.keep_or_remove(&mut supply, number, bytes).map_err(io_error(free_name(number)))?;
        }
        // A full disk is no reason not to open: the first append will say so.
        if self.prepare_into(&mut supply, self.segment_bytes).is_ok()
            && let Some(segment) = supply.prepared.take()
        {
            self.bytes.fetch_add(segment.bytes, Ordering::Relaxed);
            writer.current = segment;
        }
        Ok(())
    }

    /// Appends a frame, and syncs it if the durability says so. When it fails nothing is acknowledged.
    pub(super) fn append(&self, rows: &[RowChange], last_stamp: Stamp) -> Result<Sequence, LogError> {
        let mut writer = self.writer();
        let writer = &mut *writer;
        if let Some(reason) = &writer.fenced {
            return Err(LogError::Fenced(reason.clone()));
        }
        let bytes = frame::frame_bytes(rows);
        if bytes - frame::HEADER_BYTES > frame::BODY_BYTES_MAX {
            return Err(LogError::TooLarge);
        }
        if bytes as u64 > writer.current.bytes - writer.current.end {
            self.roll(writer, bytes as u64)?;
        }
        let sequence = writer.last_sequence.next();
        let key = FrameKey::new(self.salt, writer.current.number);
        let mut buffer = std::mem::take(&mut writer.buffer);
        frame::encode(&mut buffer, &key, sequence, last_stamp, writer.durable_through, rows);
        let name = segment_name(writer.current.number);
        let written = self.files.write(&name, writer.current.end, &buffer);
        if buffer.capacity() <= FILL_BYTES {
            writer.buffer = buffer;
        }
        if let Err(error) = written {
            writer.scarred = true;
            return Err(LogError::Write(format!("writing {name}: {error}").into()));
        }
        writer.scarred = false;
        if self.durability == Durability::Sync {
            if let Err(error) = self.files.sync(&name) {
                return Err(fence(writer, &name, &error));
            }
            writer.durable_through = sequence;
        }
        writer.current.end += bytes as u64;
        writer.last_sequence = sequence;
        self.last_sequence.store(sequence.0, Ordering::Release);
        Ok(sequence)
    }

    /// Seals the current segment and goes on in the prepared one, or in one made now.
    fn roll(&self, writer: &mut Writer, bytes: u64) -> Result<(), LogError> {
        let current = writer.current;
        if writer.scarred {
            // The frame that failed goes into another segment now, so its remains here must go, durably.
            let name = segment_name(current.number);
            let room = (current.bytes - current.end).min(frame::HEADER_BYTES as u64) as usize;
            let wiped = self.files.write(&name, current.end, &vec![0; room]);
            wiped.map_err(|error| LogError::Write(format!("writing {name}: {error}").into()))?;
            self.files.sync(&name).map_err(|error| fence(writer, &name, &error))?;
            writer.scarred = false;
        }
        let mut supply = self.supply();
        if supply.prepared.is_none_or(|prepared| prepared.bytes < bytes) {
            let bytes = if bytes <= self.segment_bytes { self.segment_bytes } else { bytes.next_multiple_of(1 << 20) };
            let unfit = supply.prepared.take();
            let prepared = self.prepare_into(&mut supply, bytes);
            if let Some(unfit) = unfit {
                // Too small for this frame. Numbers rise along the log, so it can't come after: it is renamed again.
                let freed = self.files.rename(&segment_name(unfit.number), &free_name(unfit.number));
                if freed.is_ok() {
                    self.keep_or_remove(&mut supply, unfit.number, unfit.bytes).ok();
                }
            }
            prepared.map_err(|error| LogError::Write(format!("making room for the log: {error}").into()))?;
        }
        if let Some(next) = supply.prepared.take() {
            self.bytes.fetch_add(next.bytes, Ordering::Relaxed);
            if current.end > 0 {
                writer.sealed.push((current, writer.last_sequence));
                if writer.durable_through < writer.last_sequence {
                    writer.unsynced.push(current.number);
                }
            }
            writer.current = next;
        }
        Ok(())
    }

    /// Makes the next segment ready, if it is not. To be called often, off the commit path; most calls do nothing.
    pub(super) fn prepare(&self) -> Result<(), Arc<str>> {
        let mut supply = self.supply();
        match supply.prepared {
            Some(_) => Ok(()),
            None => self
                .prepare_into(&mut supply, self.segment_bytes)
                .map_err(|error| format!("making room for the log: {error}").into()),
        }
    }

    /// Whether [`CommitLog::prepare`] has something to do. False when a segment is being made just now.
    pub(super) fn wants_segment(&self) -> bool {
        self.supply.try_lock().is_ok_and(|supply| supply.prepared.is_none())
    }

    fn prepare_into(&self, supply: &mut Supply, bytes: u64) -> io::Result<()> {
        let number = supply.next_number;
        // A number is spent even when this fails half-way: nobody knows then which names exist.
        supply.next_number += 1;
        if bytes == self.segment_bytes
            && let Some(free) = supply.free.pop()
        {
            self.christen(&free_name(free), number)?;
            supply.prepared = Some(Segment { number, bytes, end: 0 });
            return Ok(());
        }
        let name = new_name(number);
        let zeros = vec![0; FILL_BYTES.min(bytes as usize)];
        let fill = || {
            let mut offset = 0;
            while offset < bytes {
                let count = (bytes - offset).min(zeros.len() as u64);
                self.files.write(&name, offset, &zeros[..count as usize])?;
                offset += count;
            }
            self.files.sync(&name)
        };
        if let Err(error) = fill() {
            // On a full disk half a segment is room that others need.
            self.files.remove(&name).ok();
            return Err(error);
        }
        self.christen(&name, number)?;
        supply.prepared = Some(Segment { number, bytes, end: 0 });
        Ok(())
    }

    /// Makes a file a segment, or lets go of it: when that fails it has either name.
    fn christen(&self, name: &str, number: u64) -> io::Result<()> {
        self.files.rename(name, &segment_name(number)).inspect_err(|_| {
            self.files.remove(name).or_else(|_| self.files.remove(&segment_name(number))).ok();
        })
    }

    fn keep_or_remove(&self, supply: &mut Supply, number: u64, bytes: u64) -> io::Result<()> {
        if supply.free.len() >= FREE_MAX || bytes != self.segment_bytes {
            return self.files.remove(&free_name(number));
        }
        supply.free.push(number);
        Ok(())
    }

    /// Makes everything appended so far durable. Appends go on meanwhile.
    pub(super) fn sync(&self) -> Result<(), LogError> {
        let _syncing = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let (numbers, through) = {
            let mut writer = self.writer();
            if let Some(reason) = &writer.fenced {
                return Err(LogError::Fenced(reason.clone()));
            }
            if writer.durable_through == writer.last_sequence {
                return Ok(());
            }
            let mut numbers = std::mem::take(&mut writer.unsynced);
            numbers.push(writer.current.number);
            (numbers, writer.last_sequence)
        };
        for number in numbers {
            let name = segment_name(number);
            if let Err(error) = self.files.sync(&name) {
                return Err(fence(&mut self.writer(), &name, &error));
            }
        }
        let mut writer = self.writer();
        writer.durable_through = writer.durable_through.max(through);
        Ok(())
    }

    /// Frees the segments whose every frame is at or below `through`, oldest first.
    pub(super) fn recycle(&self, through: Sequence) -> Result<(), Arc<str>> {
        let _syncing = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let oldest = self.writer().sealed.first().copied();
            let Some((segment, _)) = oldest.filter(|(_, last)| *last <= through) else {
                return Ok(());
            };
            let (name, free) = (segment_name(segment.number), free_name(segment.number));
            let reason = |verb: &str, name: &str, error: io::Error| Arc::from(format!("{verb} {name}: {error}"));
            self.files.rename(&name, &free).map_err(|error| reason("renaming", &name, error))?;
            let mut writer = self.writer();
            writer.sealed.remove(0);
            writer.unsynced.retain(|&number| number != segment.number);
            self.bytes.fetch_sub(segment.bytes, Ordering::Relaxed);
            drop(writer);
            let kept = self.keep_or_remove(&mut self.supply(), segment.number, segment.bytes);
            kept.map_err(|error| reason("removing", &free, error))?;
        }
    }

    /// The sequence of the last append that was acknowledged.
    pub(super) fn last_sequence(&self) -> Sequence {
        Sequence(self.last_sequence.load(Ordering::Acquire))
    }

    /// Bytes of the segments that hold frames.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn supply(&self) -> MutexGuard<'_, Supply> {
        self.supply.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fence(writer: &mut Writer, name: &str, error: &io::Error) -> LogError {
    let reason: Arc<str> = format!("syncing {name}: {error}").into();
    writer.fenced.get_or_insert_with(|| reason.clone());
    LogError::Fenced(reason)
}
