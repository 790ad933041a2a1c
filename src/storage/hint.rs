//! The bytes of a hint: a key's row kept for owners that could not be reached, and who they are.
//!
//! ```text
//!  +---------+----------------------------------+-----------+----------+
//!  | version | targets                          | row       | checksum |
//!  | 1 = 0x01| n 2, n × (length 2, name)        | (a Row)   | 8        |
//!  +---------+----------------------------------+-----------+----------+
//!  numbers little-endian; names sorted, none twice; checksum: first 8 bytes of BLAKE3 over version and targets
//!  (the row carries its own)
//! ```

use crate::placement::MemberName;
use crate::record::{Record, Row, RowError};
use bytes::{Buf, BufMut, Bytes, BytesMut};

const HINT_VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 8;

/// Longest name of a member, in bytes: a URL's, far beyond any real one.
pub const MEMBER_NAME_BYTES_MAX: usize = 2048;

/// A record kept for others. At least one target, sorted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hint {
    /// Who has not got it yet.
    pub targets: Vec<MemberName>,
    /// What they should get.
    pub record: Record,
}

impl Hint {
    /// Adds targets, keeping them sorted and single.
    pub fn add_targets(&mut self, targets: &[MemberName]) {
        self.targets.extend_from_slice(targets);
        self.targets.sort();
        self.targets.dedup();
    }

    /// The hint as bytes.
    pub fn encode(&self) -> Bytes {
        let row = Row::of(self.record.clone()).encode();
        let names: usize = self.targets.iter().map(|target| 2 + target.len()).sum();
        let mut out = BytesMut::with_capacity(3 + names + row.len() + CHECKSUM_BYTES);
        out.put_u8(HINT_VERSION);
        out.put_u16_le(self.targets.len() as u16);
        for target in &self.targets {
            out.put_u16_le(target.len() as u16);
            out.put_slice(target.as_bytes());
        }
        let checksum = checksum(&out);
        out.put_slice(&row);
        out.put_slice(&checksum);
        out.freeze()
    }

    /// Reads a hint back, checking everything. Values share the memory of `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<Hint, RowError> {
        let short = RowError::Malformed("too short");
        let mut input = bytes.clone();
        if input.is_empty() {
            return Err(RowError::Checksum);
        }
        let version = input.get_u8();
        let count = input.try_get_u16_le().map_err(|_| short)?;
        let mut targets: Vec<MemberName> = Vec::with_capacity(usize::from(count).min(64));
        for _ in 0..count {
            let length = usize::from(input.try_get_u16_le().map_err(|_| short)?);
            if length > input.len() {
                return Err(short);
            }
            let name = input.split_to(length);
            targets.push(std::str::from_utf8(&name).map_err(|_| RowError::Checksum)?.into());
        }
        let row_bytes = input.len().checked_sub(CHECKSUM_BYTES).ok_or(short)?;
        let row = input.split_to(row_bytes);
        if checksum(&bytes[..bytes.len() - row_bytes - CHECKSUM_BYTES]) != *input {
            return Err(RowError::Checksum);
        }
        if version != HINT_VERSION {
            return Err(RowError::LaterVersion(version));
        }
        Ok(Hint { targets, record: Row::decode(&row)?.record })
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut first = [0; CHECKSUM_BYTES];
    first.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECKSUM_BYTES]);
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Actor, Content, Dot, Seen, Stamp};
    use proptest::prelude::*;

    fn hint(targets: Vec<String>, value: Vec<u8>) -> Hint {
        let dot = Dot { stamp: Stamp(7), actor: Actor(1) };
        let record = Record::default().write(&Seen::Everything, dot, Some(Content::plain(value))).unwrap();
        let mut hint = Hint { targets: vec![], record };
        hint.add_targets(&targets.iter().map(|name| name.as_str().into()).collect::<Vec<_>>());
        hint
    }

    proptest! {
        #[test]
        fn hints_survive_the_round_trip(
            targets in prop::collection::vec("[a-z:/.0-9]{0,30}", 0..5),
            value in prop::collection::vec(any::<u8>(), 0..99),
        ) {
            let hint = hint(targets, value);
            prop_assert_eq!(Hint::decode(&hint.encode()), Ok(hint));
        }

        #[test]
        fn a_changed_bit_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8) {
            let mut bytes = hint(vec!["http://a:1".into(), "http://b:2".into()], vec![1; 40]).encode().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            prop_assert!(Hint::decode(&bytes.into()).is_err());
        }

        #[test]
        fn other_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            prop_assert!(Hint::decode(&bytes.into()).is_err());
        }
    }
}
