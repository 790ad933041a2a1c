//! The bytes of a row, as it lies on disk. What peers send each other of it is the part in the middle, the record: a
//! message has a version and a checksum of its own.
//!
//! ```text
//!                                   ┌───────────── the record ────────────────┐
//!  +---------+-------+------------+----------------------+---------------------+----------+
//!  | version | flags | [promised] | context              | siblings            | checksum |
//!  | 1 = 0x01| 1     | 16         | n, n × (actor,stamp) | m, m × sibling [ids]| 8        |
//!  +---------+-------+------------+----------------------+---------------------+----------+
//!  sibling:  flags 1 | actor's place in the context (varint) | [stamp 8]
//!            | [content type: length (varint), bytes] | [expires 8, ms] | value: length (varint), bytes
//!  ids:      only where there are any, or a ballot: k (varint), k × (request 16, until 8, ms, its top bit:
//!            agreed on), requests rising
//!            | [the ballot accepted: stamp 8, actor 8]
//!
//!  row flags:      bit 0 a promised ballot follows
//!  sibling flags:  bit 0 content type, bit 1 expiry, bit 2 no stamp: it is the context's of its actor, as that of a
//!                  lone value always is; bit 3 agreed on: in place of actor and stamp it has (stamp 8, actor 8) of the
//!                  ballot first proposed under, its dot is the ballot accepted; bits 4–7 kind: 0 plain value, 1 counter,
//!                  its value decimal digits
//!  n, m, lengths:  LEB128; all fixed numbers little-endian
//!  checksum:       first 8 bytes of BLAKE3 over everything before it
//! ```
//!
//! A flag or kind this version does not know is an error, not a guess: the row was written by a later one.

use super::counter::{self, Counted, REQUESTS_MAX, RequestId};
use super::{Actor, Ballot, CONTENT_TYPE_BYTES_MAX, Content, ContentKind, Context, Dot, Record, Sibling, Stamp};
use bytes::{BufMut, Bytes, BytesMut};

const ROW_VERSION: u8 = 1;
const ROW_PROMISED: u8 = 1;
const SIBLING_CONTENT_TYPE: u8 = 1;
const SIBLING_EXPIRES: u8 = 2;
const SIBLING_LATEST: u8 = 4;
const SIBLING_AGREED: u8 = 8;
const SIBLING_COUNTER: u8 = 1 << 4;
/// Bytes of a request that was counted.
const COUNTED_BYTES: usize = 24;
/// Bytes of a checksum.
pub(crate) const CHECKSUM_BYTES: usize = 8;

/// What a node keeps under a key: the record, which merges, and this node's own promise, which does not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Row {
    /// The highest ballot this node has promised for the key. Never leaves the node with the record.
    pub promised: Option<Ballot>,
    /// What the key holds.
    pub record: Record,
}

/// Why bytes are not a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RowError {
    /// The checksum does not fit the bytes: they rotted, or are no row.
    #[error("checksum mismatch")]
    Checksum,
    /// A version, flag or kind of a later version.
    #[error("written by a later version (format {0})")]
    LaterVersion(u8),
    /// The checksum fits, yet the parts break a rule: a bug of the writer.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

impl Row {
    /// A row that has promised nothing.
    pub fn of(record: Record) -> Row {
        Row { promised: None, record }
    }

    /// The row as bytes. One copy of each value, and one BLAKE3 over all.
    pub fn encode(&self) -> Bytes {
        self.encode_behind(&[], BytesMut::new())
    }

    /// The bytes of the row behind `front`, in one allocation: that of `out`, whatever it held, where it is of about
    /// the right size.
    pub fn encode_behind(&self, front: &[u8], mut out: BytesMut) -> Bytes {
        let promise = if self.promised.is_some() { 16 } else { 0 };
        let row_bytes = 2 + promise + bytes_about(&self.record) + CHECKSUM_BYTES;
        let bytes = front.len() + row_bytes;
        out.clear();
        if !out.try_reclaim(bytes) || out.capacity() > 2 * bytes {
            out = BytesMut::with_capacity(bytes);
        }
        out.put_slice(front);
        out.put_u8(ROW_VERSION);
        out.put_u8(if self.promised.is_some() { ROW_PROMISED } else { 0 });
        if let Some(ballot) = self.promised {
            put_ballot(&mut out, ballot.stamp, ballot.actor);
        }
        put_record(&mut out, &self.record);
        let checksum = checksum(&out[front.len()..]);
        out.put_slice(&checksum);
        out.freeze()
    }

    /// Reads a row back, checking its checksum and every rule a record keeps. Values share the memory of `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<Row, RowError> {
        if Row::is_sound(bytes) { Row::decode_kept(bytes) } else { Err(RowError::Checksum) }
    }

    /// Whether the checksum fits the bytes.
    pub fn is_sound(bytes: &Bytes) -> bool {
        let body = bytes.len().checked_sub(CHECKSUM_BYTES);
        body.is_some_and(|body| checksum(&bytes[..body]) == bytes[body..])
    }

    /// Reads back a row that has been in memory ever since its checksum was found to fit, or since it was made: every
    /// rule is checked but the checksum, which is half the cost.
    pub fn decode_kept(bytes: &Bytes) -> Result<Row, RowError> {
        let body = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(RowError::Checksum)?;
        let mut input = Input { bytes, at: 0, end: body };
        match input.u8()? {
            ROW_VERSION => {}
            later => return Err(RowError::LaterVersion(later)),
        }
        let promised = match input.u8()? {
            0 => None,
            ROW_PROMISED => Some(input.ballot()?),
            _ => return Err(RowError::LaterVersion(ROW_VERSION)),
        };
        Ok(Row { promised, record: input.record()? })
    }
}

/// The bytes of a record alone, as it travels. Nothing in them tells whether they are whole.
pub(super) fn encode_record(record: &Record) -> Bytes {
    let mut out = BytesMut::with_capacity(bytes_about(record));
    put_record(&mut out, record);
    out.freeze()
}

/// Reads a record that travelled, checking every rule it keeps. Values share the memory of `bytes`.
pub(super) fn decode_record(bytes: &Bytes) -> Result<Record, RowError> {
    Input { bytes, at: 0, end: bytes.len() }.record()
}

/// As many bytes as the record will have, or a few more: recent rows stay in memory as they are made here.
fn bytes_about(record: &Record) -> usize {
    let sibling_bytes = |sibling: &Sibling| {
        let content = &sibling.content;
        let content_type = content.content_type.as_ref().map_or(0, |text| text.len() + 2);
        let stamp = match sibling.agreed {
            Some(_) => 16,
            None if is_latest(record.context(), sibling.dot) => 0,
            None => 8,
        };
        3 + stamp + content_type + 8 * usize::from(content.expires_ms.is_some()) + content.value.len()
    };
    let siblings: usize = record.siblings().iter().map(sibling_bytes).sum();
    let counted = if record.counted.is_empty() { 0 } else { 2 + COUNTED_BYTES * record.counted.len() };
    let ballot = if record.context().ballot().is_some() { 17 } else { 0 };
    3 + 16 * record.context().entries().len() + siblings + counted + ballot
}

fn is_latest(context: &Context, dot: Dot) -> bool {
    context.get(dot.actor) == Some(dot.stamp)
}

fn put_record(out: &mut BytesMut, record: &Record) {
    let context = record.context();
    put_context(out, context);
    put_varint(out, record.siblings().len() as u64);
    for sibling in record.siblings() {
        let content = &sibling.content;
        let latest = sibling.agreed.is_none() && is_latest(context, sibling.dot);
        let mut flags = 0;
        flags |= if content.content_type.is_some() { SIBLING_CONTENT_TYPE } else { 0 };
        flags |= if content.expires_ms.is_some() { SIBLING_EXPIRES } else { 0 };
        flags |= if latest { SIBLING_LATEST } else { 0 };
        flags |= if sibling.agreed.is_some() { SIBLING_AGREED } else { 0 };
        flags |= if content.kind == ContentKind::Counter { SIBLING_COUNTER } else { 0 };
        out.put_u8(flags);
        if let Some(id) = sibling.agreed {
            put_ballot(out, id.stamp, id.actor);
        } else {
            let place = context.entries().partition_point(|entry| entry.0 < sibling.dot.actor);
            put_varint(out, place as u64);
            if !latest {
                out.put_u64_le(sibling.dot.stamp.0);
            }
        }
        if let Some(content_type) = &content.content_type {
            put_varint(out, content_type.len() as u64);
            out.put_slice(content_type.as_bytes());
        }
        if let Some(expires_ms) = content.expires_ms {
            out.put_u64_le(expires_ms);
        }
        put_varint(out, content.value.len() as u64);
        out.put_slice(&content.value);
    }
    if !record.counted.is_empty() || context.ballot().is_some() {
        put_varint(out, record.counted.len() as u64);
        for counted in &record.counted {
            out.put_u128_le(counted.request.0);
            out.put_u64_le(counted.word());
        }
    }
    if let Some(ballot) = context.ballot() {
        put_ballot(out, ballot.stamp, ballot.actor);
    }
}

fn put_ballot(out: &mut BytesMut, stamp: Stamp, actor: Actor) {
    out.put_u64_le(stamp.0);
    out.put_u64_le(actor.0);
}

/// The checksum of a row, or of a message: the first bytes of BLAKE3.
pub(crate) fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut first = [0; CHECKSUM_BYTES];
    first.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECKSUM_BYTES]);
    first
}

/// Appends a context: its length, then (actor, stamp) pairs in order.
pub(super) fn put_context(out: &mut impl BufMut, context: &Context) {
    put_varint(out, context.entries().len() as u64);
    for (actor, stamp) in context.entries() {
        out.put_u64_le(actor.0);
        out.put_u64_le(stamp.0);
    }
}

fn put_varint(out: &mut impl BufMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

/// A reader that never runs past the end and never allocates from a declared length.
pub(super) struct Input<'a> {
    pub(super) bytes: &'a Bytes,
    pub(super) at: usize,
    pub(super) end: usize,
}

impl Input<'_> {
    /// The place of the next `count` bytes.
    fn skip(&mut self, count: usize) -> Result<std::ops::Range<usize>, RowError> {
        let from = self.at;
        if count > self.end - from {
            return Err(RowError::Malformed("too short"));
        }
        self.at += count;
        Ok(from..self.at)
    }

    /// The next `count` bytes, sharing memory.
    fn take(&mut self, count: usize) -> Result<Bytes, RowError> {
        Ok(self.bytes.slice(self.skip(count)?))
    }

    pub(super) fn u8(&mut self) -> Result<u8, RowError> {
        let place = self.skip(1)?;
        Ok(self.bytes[place][0])
    }

    pub(super) fn u64(&mut self) -> Result<u64, RowError> {
        let mut number = [0; 8];
        let place = self.skip(8)?;
        number.copy_from_slice(&self.bytes[place]);
        Ok(u64::from_le_bytes(number))
    }

    fn length(&mut self) -> Result<usize, RowError> {
        let mut number = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.u8()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number as usize);
            }
        }
        Err(RowError::Malformed("a length without end"))
    }

    pub(super) fn context(&mut self) -> Result<Context, RowError> {
        let count = self.length()?;
        let mut entries = Vec::with_capacity(count.min(64));
        for _ in 0..count {
            entries.push((Actor(self.u64()?), Stamp(self.u64()?)));
        }
        Context::from_sorted(entries).ok_or(RowError::Malformed("a context out of order"))
    }

    /// A record that ends where the input does.
    fn record(&mut self) -> Result<Record, RowError> {
        let context = self.context()?;
        let count = self.length()?;
        let mut siblings = Vec::with_capacity(count.min(64));
        for _ in 0..count {
            siblings.push(self.sibling(&context)?);
        }
        let mut counted = Vec::new();
        let mut ballot = None;
        if self.at < self.end {
            counted = self.counted()?;
            ballot = if self.at < self.end { Some(self.ballot()?) } else { None };
            let is_needless = counted.is_empty() && ballot.is_none();
            if is_needless {
                return Err(RowError::Malformed("a list of no requests"));
            }
        }
        self.end()?;
        let context = context.with_ballot(ballot);
        if counter::join(&counted, &[], &context) != counted {
            return Err(RowError::Malformed("requests out of order, or over"));
        }
        for sibling in siblings.iter_mut().filter(|sibling| sibling.agreed.is_some()) {
            sibling.dot = ballot.map(Ballot::dot).ok_or(RowError::Malformed("agreed on under no ballot"))?;
        }
        let record = Record::from_parts(context, siblings);
        let record = record.ok_or(RowError::Malformed("a sibling outside the context"))?;
        Ok(Record { counted, ..record })
    }

    fn ballot(&mut self) -> Result<Ballot, RowError> {
        Ok(Ballot { stamp: Stamp(self.u64()?), actor: Actor(self.u64()?) })
    }

    fn counted(&mut self) -> Result<Vec<Counted>, RowError> {
        let count = self.length()?;
        let mut counted = Vec::with_capacity(count.min(REQUESTS_MAX));
        for _ in 0..count {
            let low = u128::from(self.u64()?);
            let request = RequestId(low | u128::from(self.u64()?) << 64);
            counted.push(Counted::of(request, self.u64()?));
        }
        Ok(counted)
    }

    /// The dot of one that was agreed on is filled in by its caller, who knows the ballot.
    fn sibling(&mut self, context: &Context) -> Result<Sibling, RowError> {
        let flags = self.u8()?;
        if flags & !(SIBLING_CONTENT_TYPE | SIBLING_EXPIRES | SIBLING_LATEST | SIBLING_AGREED | SIBLING_COUNTER) != 0 {
            return Err(RowError::LaterVersion(ROW_VERSION));
        }
        let mut agreed = None;
        let mut dot = Dot::default();
        if flags & SIBLING_AGREED == 0 {
            let place = self.length()?;
            let (actor, latest) =
                *context.entries().get(place).ok_or(RowError::Malformed("an actor outside the context"))?;
            dot = Dot { stamp: if flags & SIBLING_LATEST == 0 { Stamp(self.u64()?) } else { latest }, actor };
        } else {
            agreed = Some(self.ballot()?.dot());
        }
        let content_type = match flags & SIBLING_CONTENT_TYPE {
            0 => None,
            _ => {
                let length = self.length()?;
                let bytes = self.take(length)?;
                let text = std::str::from_utf8(&bytes).ok().filter(|text| text.len() <= CONTENT_TYPE_BYTES_MAX);
                Some(text.ok_or(RowError::Malformed("a content type"))?.into())
            }
        };
        let expires_ms = if flags & SIBLING_EXPIRES == 0 { None } else { Some(self.u64()?) };
        let length = self.length()?;
        let value = self.take(length)?;
        let kind = if flags & SIBLING_COUNTER == 0 { ContentKind::Plain } else { ContentKind::Counter };
        if kind == ContentKind::Counter && counter::parse(&value).is_none() {
            return Err(RowError::Malformed("a counter that is no number"));
        }
        Ok(Sibling { dot, content: Content { value, content_type, expires_ms, kind }, agreed })
    }

    pub(super) fn end(&self) -> Result<(), RowError> {
        (self.at == self.end).then_some(()).ok_or(RowError::Malformed("bytes after the end"))
    }
}

#[cfg(test)]
mod tests;
