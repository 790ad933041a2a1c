//! Where a row lies: its kind, its partition, its key, in that order, so that rows lie in key order inside a partition.
//!
//! ```text
//!  +--------+---------------+------------+
//!  | kind 1 | partition 2,  | key        |
//!  |        | big-endian    | 1 – 4096   |
//!  +--------+---------------+------------+
//!  kind: 1 fact, 2 data, 3 hint, 4 due. 0 is the base's own mark and never an address.
//! ```

use super::RowChange;
use crate::placement::{PARTITIONS, Partition};
use crate::record::Key;
use bytes::{BufMut, Bytes, BytesMut};
use std::fmt;

/// Bytes before the key.
const PREFIX_BYTES: usize = 3;

/// What a row is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A fact of the node itself, such as its layout: partition 0, the fact's name as key.
    Fact = 1,
    /// A key's own row.
    Data = 2,
    /// A key's record kept for other owners.
    Hint = 3,
    /// A note that something of the key's own row may be forgotten in time: see [`crate::record::Record::due`].
    Due = 4,
}

/// The address of a row. Ordered as its bytes are, which is the order of scans. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    bytes: Bytes,
}

impl Address {
    fn new(kind: Kind, partition: Partition, key: &[u8]) -> Address {
        let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + key.len());
        bytes.put_u8(kind as u8);
        bytes.put_u16(partition.index() as u16);
        bytes.put_slice(key);
        Address { bytes: bytes.freeze() }
    }

    /// Where the row of `key` lies. Copies the key.
    pub fn data(key: &Key) -> Address {
        Address::new(Kind::Data, Partition::of(key.position()), key.as_bytes())
    }

    /// Where the record of `key` lies that is kept for other owners.
    pub fn hint(key: &Key) -> Address {
        Address::new(Kind::Hint, Partition::of(key.position()), key.as_bytes())
    }

    /// Where it is noted that something of the row of `key` may be forgotten.
    pub fn due(key: &Key) -> Address {
        Address::new(Kind::Due, Partition::of(key.position()), key.as_bytes())
    }

    /// Where the fact called `name` lies.
    pub fn fact(name: &str) -> Address {
        let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + name.len());
        bytes.put_slice(&[Kind::Fact as u8, 0, 0]);
        bytes.put_slice(name.as_bytes());
        Address { bytes: bytes.freeze() }
    }

    /// From the bytes of an address; `None` when they are none. Does not check that the key hashes to its partition.
    pub fn from_bytes(bytes: Bytes) -> Option<Address> {
        let [kind, high, low, _, ..] = *bytes else { return None };
        let partition = usize::from(u16::from_be_bytes([high, low]));
        let fits = match kind {
            kind if kind == Kind::Fact as u8 => partition == 0,
            kind if (Kind::Data as u8..=Kind::Due as u8).contains(&kind) => partition < PARTITIONS,
            _ => false,
        };
        fits.then_some(Address { bytes })
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same bytes, to keep.
    pub fn to_bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// This address and the row behind it, out of one allocation that holds both: what stays in memory for long is
    /// best kept so. `together` must begin with this address.
    pub(super) fn split_off_row(&self, mut together: Bytes) -> RowChange {
        assert!(together.starts_with(&self.bytes), "a row behind another address");
        let bytes = together.split_to(self.bytes.len());
        (Address { bytes }, Some(together))
    }

    /// A copy of both in one allocation.
    pub(super) fn with_row(&self, row: &[u8]) -> RowChange {
        let mut together = BytesMut::with_capacity(self.bytes.len() + row.len());
        together.put_slice(&self.bytes);
        together.put_slice(row);
        self.split_off_row(together.freeze())
    }

    /// What kind of row lies there.
    pub fn kind(&self) -> Kind {
        match self.bytes[0] {
            1 => Kind::Fact,
            2 => Kind::Data,
            3 => Kind::Hint,
            _ => Kind::Due,
        }
    }

    /// The partition it belongs to.
    pub fn partition(&self) -> Partition {
        // An address is made of a partition, or by `from_bytes`, which checks it.
        Partition::try_from_index(self.slot()).expect("only the end of a span lies behind the last partition")
    }

    /// The number in the partition's place, which at the end of a span may be that of none.
    pub(super) fn slot(&self) -> usize {
        usize::from(u16::from_be_bytes([self.bytes[1], self.bytes[2]]))
    }

    /// The bytes of the key, or of the fact's name.
    pub fn key_bytes(&self) -> Bytes {
        self.bytes.slice(PREFIX_BYTES..)
    }

    /// The key; `None` for a fact.
    pub fn key(&self) -> Option<Key> {
        if self.kind() == Kind::Fact { None } else { Key::new(self.key_bytes()).ok() }
    }

    /// The first address behind this one.
    pub fn successor(&self) -> Address {
        let mut bytes = BytesMut::with_capacity(self.bytes.len() + 1);
        bytes.put_slice(&self.bytes);
        bytes.put_u8(0);
        Address { bytes: bytes.freeze() }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}/{}", self.kind(), self.slot(), self.bytes[PREFIX_BYTES..].escape_ascii())
    }
}

/// A stretch of addresses, from the first (included) to the last (excluded).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first address that belongs to it.
    pub from: Address,
    /// The first address that no longer does.
    pub to: Address,
}

impl Span {
    /// Every row there is.
    pub fn everything() -> Span {
        Span { from: Span::edge(Kind::Fact as u32, 0), to: Span::edge(Kind::Due as u32 + 1, 0) }
    }

    /// Every row of a kind.
    pub fn kind(kind: Kind) -> Span {
        Span { from: Span::edge(kind as u32, 0), to: Span::edge(kind as u32 + 1, 0) }
    }

    /// Every row of a kind in one partition.
    pub fn partition(kind: Kind, partition: Partition) -> Span {
        let place = partition.index() as u32;
        Span { from: Span::edge(kind as u32, place), to: Span::edge(kind as u32, place + 1) }
    }

    /// The rows of this span whose key starts with `prefix`; this span is one partition's.
    pub fn starting_with(self, prefix: &[u8]) -> Span {
        let mut from = BytesMut::from(&self.from.as_bytes()[..PREFIX_BYTES]);
        from.put_slice(prefix);
        let mut to = from.clone();
        while to.len() > PREFIX_BYTES && to.last() == Some(&0xff) {
            to.truncate(to.len() - 1);
        }
        let to = match to[PREFIX_BYTES..].last_mut() {
            Some(last) => {
                *last += 1;
                Address { bytes: to.freeze() }
            }
            None => self.to,
        };
        Span { from: Address { bytes: from.freeze() }, to }
    }

    /// What is left of it from the key with these bytes on, whether there is one; this span is one partition's.
    pub fn from_key(self, key: &[u8]) -> Span {
        let mut from = BytesMut::with_capacity(PREFIX_BYTES + key.len());
        from.put_slice(&self.from.as_bytes()[..PREFIX_BYTES]);
        from.put_slice(key);
        let from = Address { bytes: from.freeze() };
        Span { from: from.max(self.from), to: self.to }
    }

    /// What is left of it from `from` on.
    pub fn rest(&self, from: Address) -> Span {
        Span { from, to: self.to.clone() }
    }

    /// Whether nothing can lie in it.
    pub fn is_empty(&self) -> bool {
        self.from >= self.to
    }

    /// Whether `address` lies in it.
    pub fn contains(&self, address: &Address) -> bool {
        self.from <= *address && *address < self.to
    }

    /// The boundary before a partition of a kind; partition 65536 runs over into the next kind.
    fn edge(kind: u32, partition: u32) -> Address {
        let number = ((kind << 16) + partition).to_be_bytes();
        Address { bytes: Bytes::copy_from_slice(&number[1..]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(bytes: &[u8]) -> Key {
        Key::new(bytes.to_vec()).unwrap()
    }

    proptest! {
        #[test]
        fn an_address_comes_back_from_its_bytes(name in prop::collection::vec(any::<u8>(), 1..40)) {
            let key = key(&name);
            for address in [Address::data(&key), Address::hint(&key), Address::due(&key)] {
                let back = Address::from_bytes(address.bytes.clone()).unwrap();
                prop_assert_eq!(back.key(), Some(key.clone()));
                prop_assert_eq!(back.partition(), Partition::of(key.position()));
                prop_assert_eq!(back, address);
            }
        }

        #[test]
        fn other_bytes_are_no_address(bytes in prop::collection::vec(any::<u8>(), 0..8)) {
            if let Some(address) = Address::from_bytes(bytes.into()) {
                prop_assert!(Span::everything().contains(&address));
            }
        }

        #[test]
        fn a_prefix_selects_the_keys_that_start_with_it(
            prefix in prop::collection::vec(prop_oneof![Just(0xffu8), any::<u8>()], 0..3),
            name in prop::collection::vec(prop_oneof![Just(0xffu8), any::<u8>()], 1..5),
        ) {
            let address = Address::data(&key(&name));
            let span = Span::partition(Kind::Data, address.partition()).starting_with(&prefix);
            prop_assert_eq!(span.contains(&address), name.starts_with(&prefix));
        }
    }

    #[test]
    fn spans_hold_their_own_rows_and_no_others() {
        let (data, hint, fact) = (Address::data(&key(b"k")), Address::hint(&key(b"k")), Address::fact("layout"));
        assert!(Span::kind(Kind::Data).contains(&data) && !Span::kind(Kind::Data).contains(&hint));
        assert!(Span::kind(Kind::Hint).contains(&hint) && Span::kind(Kind::Fact).contains(&fact));
        let partition = data.partition();
        assert!(Span::partition(Kind::Data, partition).contains(&data));
        let other = Partition::try_from_index(partition.index() ^ 1).unwrap();
        assert!(!Span::partition(Kind::Data, other).contains(&data));
        assert!([&data, &hint, &fact].into_iter().all(|address| Span::everything().contains(address)));
    }
}
