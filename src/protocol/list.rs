//! What is asked of a node's keys in their order, and answered: one node's part in a list of the cluster's keys.

use super::MalformedMessage;
use crate::placement::{PARTITIONS, Partition};
use crate::record::{KEY_BYTES_MAX, Key, Record};
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// Most keys in one answer.
pub const LIST_KEYS_MAX: u32 = 16_384;
/// Most bytes of keys in one answer, about.
pub const LIST_BYTES_MAX: u32 = 8 << 20;
/// Most lists in one batch: what they bring fits into one reply.
pub const LISTS_PER_BATCH_MAX: usize = 8;

/// A place in the order of keys, which is that of their bytes: that of the first key which is not below it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Place(#[serde(with = "crate::record::blob")] pub Bytes);

impl Place {
    /// That of a key.
    pub fn of(key: &Key) -> Place {
        Place(Bytes::copy_from_slice(key.as_bytes()))
    }

    /// The first one behind a key.
    pub fn behind(key: &Key) -> Place {
        let mut bytes = BytesMut::with_capacity(key.as_bytes().len() + 1);
        bytes.put_slice(key.as_bytes());
        bytes.put_u8(0);
        Place(bytes.freeze())
    }

    /// The first one behind all keys that start with `prefix`; `None` where there is none.
    pub fn past(prefix: &[u8]) -> Option<Place> {
        let kept = prefix.iter().rposition(|byte| *byte != 0xff)?;
        let mut bytes = BytesMut::from(&prefix[..=kept]);
        bytes[kept] += 1;
        Some(Place(bytes.freeze()))
    }

    /// Whether the key lies before it.
    pub fn is_behind(&self, key: &[u8]) -> bool {
        key < &self.0[..]
    }
}

/// Which keys are wanted, and which of them stand for others.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Filter {
    /// What they start with.
    #[serde(with = "crate::record::blob")]
    pub prefix: Bytes,
    /// What ends a common prefix, if it comes behind `prefix`; empty where there is no such thing.
    #[serde(with = "crate::record::blob")]
    pub delimiter: Bytes,
}

impl Filter {
    /// All that the key shares with those for which it stands: up to the end of the first delimiter behind the prefix.
    pub fn common_prefix<'a>(&self, key: &'a [u8]) -> Option<&'a [u8]> {
        let length = self.delimiter.len();
        let rest = key.get(self.prefix.len()..).filter(|_| length > 0)?;
        let at = rest.windows(length).position(|bytes| bytes == self.delimiter)?;
        Some(&key[..self.prefix.len() + at + length])
    }
}

/// The keys of some partitions, from a place on, in the order of keys over all of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListRequest {
    /// Which partitions, ascending.
    pub partitions: Vec<Partition>,
    /// Which keys.
    pub filter: Filter,
    /// From where on.
    pub from: Place,
    /// How many at most, up to [`LIST_KEYS_MAX`].
    pub keys_max: u32,
    /// After how many bytes of them no further key is added, up to [`LIST_BYTES_MAX`].
    pub bytes_max: u32,
    /// Which list it is, where the next answer is asked for at once: what was read ahead may be kept for it, and be as old as
    /// the first of them. A number that no other list has.
    pub listing: Option<u64>,
}

/// A node's part. Every key of the partitions it counts for, from the place that was asked for up to `next`, is in it, but
/// for those that an entry [stands for](ListEntry::stands_for_all).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ListAnswer {
    /// What is held, ascending, tombstones included.
    pub entries: Vec<ListEntry>,
    /// From where on there may be more; `None` where there is no more.
    pub next: Option<Place>,
    /// The partitions of which the node cannot tell: what it says of them counts for nothing.
    pub lacking: Vec<Partition>,
}

/// One key as a node holds it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ListEntry {
    /// The key.
    pub key: Key,
    /// The [sketch](Record::sketch) of its record.
    pub record: Record,
    /// Whether the keys behind it with the same common prefix were passed over: as this node sees it, this one lives.
    pub stands_for_all: bool,
}

impl ListRequest {
    /// Holds what a peer asks to the limits.
    pub(super) fn check(&self) -> Result<(), MalformedMessage> {
        let is_ascending = self.partitions.windows(2).all(|pair| pair[0] < pair[1]);
        if self.partitions.is_empty() || !is_ascending {
            return Err(MalformedMessage::Limit("a list is of partitions in order, each once"));
        }
        if self.filter.prefix.len() > KEY_BYTES_MAX || self.filter.delimiter.len() > KEY_BYTES_MAX {
            return Err(MalformedMessage::Limit("a prefix or a delimiter is longer than any key"));
        }
        if self.from.0.len() > KEY_BYTES_MAX + 1 {
            return Err(MalformedMessage::Limit("no key is at so long a place"));
        }
        if !(1..=LIST_KEYS_MAX).contains(&self.keys_max) {
            return Err(MalformedMessage::Limit("too many keys in one list, or none"));
        }
        if self.bytes_max > LIST_BYTES_MAX {
            return Err(MalformedMessage::Limit("too many bytes of keys in one list"));
        }
        Ok(())
    }

    /// About how many bytes it takes on the wire.
    pub(super) fn size_hint(&self) -> usize {
        let filter = self.filter.prefix.len() + self.filter.delimiter.len();
        2 * self.partitions.len() + filter + self.from.0.len() + 16
    }

    /// Whether `answer` can be one to this: it is a peer's word.
    pub fn is_answered_by(&self, answer: &ListAnswer) -> bool {
        let mut from = self.from.clone();
        let mut partitions = [false; PARTITIONS];
        self.partitions.iter().for_each(|partition| partitions[partition.index()] = true);
        let mut fits = |entry: &ListEntry| {
            let key = entry.key.as_bytes();
            let fits = !from.is_behind(key)
                && answer.next.as_ref().is_none_or(|next| next.is_behind(key))
                && key.starts_with(&self.filter.prefix)
                && partitions[Partition::of(entry.key.position()).index()]
                && (!entry.stands_for_all || self.filter.common_prefix(key).is_some());
            from = Place::behind(&entry.key);
            fits
        };
        answer.entries.len() <= self.keys_max as usize
            && answer.entries.iter().all(&mut fits)
            // Else there would be no end to it.
            && answer.next.as_ref().is_none_or(|next| *next > self.from && next.0.len() <= KEY_BYTES_MAX + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(bytes: &[u8]) -> Key {
        Key::new(bytes.to_vec()).unwrap()
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![Just(0xffu8), Just(b'/'), Just(0), any::<u8>()], 1..6)
    }

    proptest! {
        #[test]
        fn places_lie_between_keys_as_they_are_called(one in name(), other in name()) {
            prop_assert_eq!(Place::of(&key(&one)).is_behind(&other), other < one);
            prop_assert_eq!(Place::behind(&key(&one)).is_behind(&other), other <= one);
            let is_past = Place::past(&one).is_none_or(|past| past.is_behind(&other));
            prop_assert_eq!(is_past, other < one || other.starts_with(&one));
        }

        #[test]
        fn a_common_prefix_ends_with_the_first_delimiter_behind_the_prefix(name in name(), prefix in 0..3usize) {
            let prefix = prefix.min(name.len());
            let filter = Filter { prefix: name[..prefix].to_vec().into(), delimiter: Bytes::from_static(b"/") };
            let end = name[prefix..].iter().position(|byte| *byte == b'/').map(|at| prefix + at + 1);
            prop_assert_eq!(filter.common_prefix(&name), end.map(|end| &name[..end]));
            let none = Filter { delimiter: Bytes::new(), ..filter };
            prop_assert_eq!(none.common_prefix(&name), None);
        }
    }

    /// Keys that are told, and where there may be more.
    type Told = (&'static [&'static [u8]], Option<&'static [u8]>);

    #[test]
    fn an_answer_that_was_not_asked_for_is_none() {
        let mut partitions = [b"p/a", b"p/b"].map(|name| Partition::of(key(name).position())).to_vec();
        partitions.sort_unstable();
        let filter = Filter { prefix: Bytes::from_static(b"p/"), delimiter: Bytes::new() };
        let request = ListRequest {
            partitions,
            filter,
            from: Place(Bytes::from_static(b"p/a")),
            keys_max: 2,
            bytes_max: 1,
            listing: None,
        };
        assert_eq!(request.check(), Ok(()));
        let answer = |keys: &[&[u8]], next: Option<&'static [u8]>| ListAnswer {
            entries: keys
                .iter()
                .map(|name| ListEntry { key: key(name), record: Record::default(), stands_for_all: false })
                .collect(),
            next: next.map(|next| Place(Bytes::from_static(next))),
            lacking: vec![],
        };
        let good: [Told; 3] = [(&[b"p/a", b"p/b"], None), (&[b"p/a"], Some(b"p/b")), (&[], None)];
        for (keys, next) in good {
            assert!(request.is_answered_by(&answer(keys, next)), "{keys:?} {next:?}");
        }
        let refused: [Told; 7] = [
            (&[b"p/b", b"p/a"], None),
            (&[b"p/a", b"p/a"], None),
            (&[b"o/a"], None),
            (&[b"p"], None),
            (&[b"p/a", b"p/b"], Some(b"p/b")),
            (&[], Some(b"p/a")),
            (&[b"p/a", b"p/b", b"p/c"], None),
        ];
        for (keys, next) in refused {
            assert!(!request.is_answered_by(&answer(keys, next)), "{keys:?} {next:?}");
        }
        let unordered = ListRequest { partitions: vec![], ..request.clone() };
        let too_many = ListRequest { keys_max: LIST_KEYS_MAX + 1, ..request.clone() };
        let too_long = ListRequest { from: Place(vec![0; KEY_BYTES_MAX + 2].into()), ..request };
        for refused in [unordered, too_many, too_long] {
            assert!(refused.check().is_err(), "{refused:?}");
        }
    }
}
