//! The bytes of the commit log: one frame for each append.
//!
//! ```text
//!  +---------+--------+----------+------------+-----------------+----------+------+
//!  | "KLf1"  | body   | sequence | last stamp | durable through | checksum | rows |
//!  | 4       | length | 8        | 8          | 8               | 16       |      |
//!  |         | 4      |          |            |                 |          |      |
//!  +---------+--------+----------+------------+-----------------+----------+------+
//!  rows:     each: address length 2 | row length 4, or ffffffff for a removal | address | row
//!  durable through: the highest sequence known to be synced when this frame was written
//!  checksum: 16 bytes of BLAKE3 over the 32 bytes before it and the rows, keyed with the folder's salt and the
//!            segment's number: what a recycled segment held before never passes, nor does a frame in a client's value
//!  all numbers little-endian
//! ```

use super::{Address, RowChange, Sequence};
use crate::record::Stamp;
use bytes::Bytes;

const MAGIC: [u8; 4] = *b"KLf1";
const CHECKED_BYTES: usize = 32;
pub(super) const HEADER_BYTES: usize = CHECKED_BYTES + 16;
const REMOVAL: u32 = u32::MAX;

/// What a row takes in a frame beside its own bytes.
const ROW_HEADER_BYTES: usize = 6;

/// Most bytes of rows in one frame. The committer's batches are far smaller; a length in the log is never above it.
pub(super) const BODY_BYTES_MAX: usize = 1 << 30;

/// What makes a frame belong to one segment of one folder.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameKey([u8; 32]);

impl FrameKey {
    pub(super) fn new(salt: u64, segment: u64) -> FrameKey {
        let mut key = *b"................kringle log v001";
        key[..8].copy_from_slice(&salt.to_le_bytes());
        key[8..16].copy_from_slice(&segment.to_le_bytes());
        FrameKey(key)
    }

    fn checksum(&self, head: &[u8], body: &[u8]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(head).update(body);
        let mut first = [0; 16];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        first
    }
}

/// A frame that passed its checksum, as it lies in a segment's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    pub(super) sequence: Sequence,
    pub(super) last_stamp: Stamp,
    pub(super) durable_through: Sequence,
    body: std::ops::Range<usize>,
}

/// How many bytes the frame of these rows takes.
pub(super) fn frame_bytes(rows: &[RowChange]) -> usize {
    let row = |(address, row): &RowChange| {
        ROW_HEADER_BYTES + address.as_bytes().len() + row.as_ref().map_or(0, |row| row.len())
    };
    HEADER_BYTES + rows.iter().map(row).sum::<usize>()
}

/// Writes a frame into `out`, which is emptied first.
pub(super) fn encode(
    out: &mut Vec<u8>,
    key: &FrameKey,
    sequence: Sequence,
    last_stamp: Stamp,
    durable_through: Sequence,
    rows: &[RowChange],
) {
    out.clear();
    out.reserve(frame_bytes(rows));
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; HEADER_BYTES - 4]);
    for (address, row) in rows {
        let address = address.as_bytes();
        out.extend_from_slice(&(address.len() as u16).to_le_bytes());
        out.extend_from_slice(&row.as_ref().map_or(REMOVAL, |row| row.len() as u32).to_le_bytes());
        out.extend_from_slice(address);
        out.extend_from_slice(row.as_deref().unwrap_or_default());
    }
    let body_bytes = (out.len() - HEADER_BYTES) as u32;
    out[4..8].copy_from_slice(&body_bytes.to_le_bytes());
    out[8..16].copy_from_slice(&sequence.0.to_le_bytes());
    out[16..24].copy_from_slice(&last_stamp.0.to_le_bytes());
    out[24..32].copy_from_slice(&durable_through.0.to_le_bytes());
    let checksum = key.checksum(&out[..CHECKED_BYTES], &out[HEADER_BYTES..]);
    out[CHECKED_BYTES..HEADER_BYTES].copy_from_slice(&checksum);
}

impl Frame {
    /// The frame at `offset` of a segment, if a whole and sound one lies there.
    pub(super) fn at(segment: &[u8], offset: usize, key: &FrameKey) -> Option<Frame> {
        Frame::at_if(segment, offset, key, |_| true)
    }

    fn at_if(segment: &[u8], offset: usize, key: &FrameKey, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        let head = segment.get(offset..offset + HEADER_BYTES)?;
        let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap_or_default());
        let body_bytes = u32::from_le_bytes(head[4..8].try_into().unwrap_or_default()) as usize;
        let start = offset + HEADER_BYTES;
        let body = segment.get(start..start.checked_add(body_bytes)?)?;
        let frame = Frame {
            sequence: Sequence(number(8)),
            last_stamp: Stamp(number(16)),
            durable_through: Sequence(number(24)),
            body: start..start + body_bytes,
        };
        let sound =
            head[..4] == MAGIC && wanted(&frame) && key.checksum(&head[..CHECKED_BYTES], body) == head[CHECKED_BYTES..];
        sound.then_some(frame)
    }

    /// The first sound frame that begins behind `offset`, wherever.
    pub(super) fn behind(segment: &[u8], offset: usize, key: &FrameKey) -> Option<Frame> {
        let mut at = offset + 1;
        loop {
            let found = find(segment, at, MAGIC)?;
            match Frame::at(segment, found, key) {
                Some(frame) => return Some(frame),
                None => at = found + 1,
            }
        }
    }

    /// Whether the frame of `sequence` seems to have been written at `offset`, in whole or in part. What a segment held
    /// before it was recycled has a lower one. Where just the bytes by which that is told have rotted, the checksum tells.
    pub(super) fn is_begun(segment: &[u8], offset: usize, sequence: Sequence, key: &FrameKey) -> bool {
        let Some(found) = segment.get(offset..offset + HEADER_BYTES) else { return false };
        let mut head = found.to_vec();
        head[..4].copy_from_slice(&MAGIC);
        head[8..16].copy_from_slice(&sequence.0.to_le_bytes());
        let body_bytes = u32::from_le_bytes(head[4..8].try_into().unwrap_or_default()) as usize;
        let body = segment.get(offset + HEADER_BYTES..).and_then(|rest| rest.get(..body_bytes));
        head[..16] == found[..16]
            || body.is_some_and(|body| key.checksum(&head[..CHECKED_BYTES], body) == head[CHECKED_BYTES..])
    }

    /// The highest `durable through`, at least `least`, of the sound frames that begin behind `offset`, wherever.
    /// For telling a torn end from rot in the middle.
    pub(super) fn attested_behind(segment: &[u8], offset: usize, key: &FrameKey, least: Sequence) -> Option<Sequence> {
        let mut attested: Option<Sequence> = None;
        let mut at = offset;
        while let Some(found) = find(segment, at, MAGIC) {
            let above = attested.map_or(least, |attested| attested.next());
            match Frame::at_if(segment, found, key, |frame| frame.durable_through >= above) {
                Some(frame) => {
                    attested = Some(frame.durable_through);
                    at = frame.end();
                }
                None => at = found + 1,
            }
        }
        attested
    }

    /// Where it begins.
    pub(super) fn start(&self) -> usize {
        self.body.start - HEADER_BYTES
    }

    /// Where the next frame begins.
    pub(super) fn end(&self) -> usize {
        self.body.end
    }

    /// The rows, copied out of the segment so that none keeps it in memory; `None` when they are not well formed, which
    /// behind a checksum is a bug of the writer.
    pub(super) fn rows(&self, segment: &[u8]) -> Option<Vec<RowChange>> {
        let mut body = segment.get(self.body.clone())?;
        let mut rows = Vec::new();
        while !body.is_empty() {
            let (head, rest) = body.split_at_checked(ROW_HEADER_BYTES)?;
            let address_bytes = usize::from(u16::from_le_bytes([head[0], head[1]]));
            let row_bytes = u32::from_le_bytes([head[2], head[3], head[4], head[5]]);
            let (address, rest) = rest.split_at_checked(address_bytes)?;
            let address = Address::from_bytes(Bytes::copy_from_slice(address))?;
            let (row, rest) = match row_bytes {
                REMOVAL => (None, rest),
                row_bytes => {
                    let (row, rest) = rest.split_at_checked(row_bytes as usize)?;
                    (Some(Bytes::copy_from_slice(row)), rest)
                }
            };
            rows.push((address, row));
            body = rest;
        }
        Some(rows)
    }
}

/// Where `pattern` next occurs. Segments end in zeros, so most of the way is one comparison a byte.
fn find(bytes: &[u8], from: usize, pattern: [u8; 4]) -> Option<usize> {
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|&byte| byte == pattern[0])?;
        if bytes.get(at..at + 4)? == pattern {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Key;
    use proptest::prelude::*;

    fn rows() -> impl Strategy<Value = Vec<RowChange>> {
        let row =
            (prop::collection::vec(any::<u8>(), 1..9), prop::option::of(prop::collection::vec(any::<u8>(), 0..99)));
        prop::collection::vec(row, 0..6).prop_map(|rows| {
            let address = |key: Vec<u8>| Address::data(&Key::new(key).unwrap());
            rows.into_iter().map(|(key, row)| (address(key), row.map(Bytes::from))).collect()
        })
    }

    fn frame(key: &FrameKey, sequence: u64, rows: &[RowChange]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out, key, Sequence(sequence), Stamp(5), Sequence(sequence - 1), rows);
        assert_eq!(out.len(), frame_bytes(rows));
        out
    }

    proptest! {
        #[test]
        fn frames_survive_the_round_trip(rows in rows(), offset in 0..20usize) {
            let key = FrameKey::new(1, 2);
            let mut segment = vec![7; offset];
            segment.extend(frame(&key, 9, &rows));
            let end = segment.len();
            segment.extend([0; 30]);
            let found = Frame::at(&segment, offset, &key).unwrap();
            prop_assert_eq!((found.sequence, found.last_stamp, found.durable_through), (Sequence(9), Stamp(5), Sequence(8)));
            prop_assert_eq!(found.end(), end);
            prop_assert_eq!(found.rows(&segment), Some(rows));
        }

        #[test]
        fn a_changed_bit_another_segment_or_another_folder_is_noticed(rows in rows(), at in any::<prop::sample::Index>(), bit in 0..8) {
            let key = FrameKey::new(1, 2);
            let mut segment = frame(&key, 9, &rows);
            prop_assert_eq!(Frame::at(&segment, 0, &FrameKey::new(1, 3)), None);
            prop_assert_eq!(Frame::at(&segment, 0, &FrameKey::new(2, 2)), None);
            let at = at.index(segment.len());
            segment[at] ^= 1u8 << bit;
            prop_assert_eq!(Frame::at(&segment, 0, &key), None);
            prop_assert!(Frame::is_begun(&segment, 0, Sequence(9), &key), "the last one, too, is missed");
            prop_assert!(!Frame::is_begun(&segment, 0, Sequence(10), &key), "nor taken for the next");
        }

        #[test]
        fn other_bytes_are_no_frame(mut bytes in prop::collection::vec(any::<u8>(), 0..200), magic in any::<bool>()) {
            let key = FrameKey::new(1, 2);
            if magic && bytes.len() > 4 {
                bytes[..4].copy_from_slice(&MAGIC);
            }
            prop_assert_eq!(Frame::at(&bytes, 0, &key), None);
            prop_assert_eq!(Frame::attested_behind(&bytes, 0, &key, Sequence(0)), None);
        }
    }

    #[test]
    fn frames_behind_a_damaged_one_are_found() {
        let key = FrameKey::new(1, 2);
        let row = (Address::fact("layout"), Some(Bytes::from_static(b"KLf1 KLf1")));
        let mut segment = [
            frame(&key, 4, std::slice::from_ref(&row)),
            frame(&key, 5, std::slice::from_ref(&row)),
            frame(&key, 6, &[row]),
        ]
        .concat();
        segment[HEADER_BYTES + 1] ^= 1;
        assert_eq!(Frame::at(&segment, 0, &key), None);
        assert_eq!(Frame::attested_behind(&segment, 0, &key, Sequence(4)), Some(Sequence(5)));
        assert_eq!(Frame::attested_behind(&segment, 0, &key, Sequence(6)), None);
    }

    #[test]
    fn the_bytes_of_a_frame_never_change() {
        let row = (Address::fact("f"), Some(Bytes::from_static(b"v")));
        let bytes = frame(&FrameKey::new(1, 2), 3, &[row]);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex[..64], *"4b4c66310b000000030000000000000005000000000000000200000000000000");
        assert_eq!(hex[96..], *"0400010000000100006676");
    }
}
