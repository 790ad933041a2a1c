//! Sketches: records as lists carry them, small whatever their values.
//!
//! A list shows no value, and must merge copies all the same as a read does, count different values, and tell how long the
//! newest is. So a sketch is a record in every way, but where a plain value is long another one stands:
//!
//! ```text
//!  value of 0 – 23 bytes     itself: integers among them, which counters add to
//!  value of 24 bytes or more BLAKE3, its first 16 bytes | length 8, little-endian, below 2⁵⁶
//! ```
//!
//! What is made of a sketch is a sketch. It is shown, and never stored.

use super::{Content, ContentKind, Record, Sibling};
use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of what stands in a long value's place, and of the shortest value that is long.
const STAND_IN_BYTES: usize = 24;
/// Bytes of the hash in it.
const HASH_BYTES: usize = 16;

impl Record {
    /// The sketch of this record. Shares no memory with its values; a BLAKE3 over each long one.
    pub fn sketch(&self) -> Record {
        let sketched = |sibling: &Sibling| Sibling { content: sketched(&sibling.content), ..*sibling };
        // Which requests were counted makes no difference to what is shown.
        let siblings = self.siblings.iter().map(sketched).collect();
        Record { context: self.context.clone(), siblings, counted: Vec::new() }
    }
}

impl Content {
    /// How many bytes the value has of which a sketch has this.
    pub fn sketched_bytes(&self) -> u64 {
        match self.value.split_first_chunk::<HASH_BYTES>() {
            // A sum of counters may have as many digits, and ends in none that is 0.
            Some((_, length)) if self.value.len() == STAND_IN_BYTES && length.last() == Some(&0) => {
                length.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
            }
            _ => self.value.len() as u64,
        }
    }
}

fn sketched(content: &Content) -> Content {
    let value = &content.value;
    let is_short = value.len() < STAND_IN_BYTES || content.kind == ContentKind::Counter;
    let value = match is_short {
        true => Bytes::copy_from_slice(value),
        false => {
            let mut stand_in = BytesMut::with_capacity(STAND_IN_BYTES);
            stand_in.put_slice(&blake3::hash(value).as_bytes()[..HASH_BYTES]);
            stand_in.put_u64_le(value.len() as u64);
            stand_in.freeze()
        }
    };
    Content { value, content_type: content.content_type.clone(), ..*content }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::record::tests::{play, steps};
    use crate::record::{Actor, Dot, Edit, Seen, Stamp};
    use proptest::prelude::*;

    fn dot(actor: u64, ms: u64) -> Dot {
        Dot { stamp: Stamp::from_ms(ms), actor: Actor(actor) }
    }

    fn set(value: Vec<u8>, dot: Dot) -> Record {
        Record::default().write(&Seen::Everything, dot, Some(Content::plain(value))).unwrap()
    }

    /// What a list tells of a record.
    fn told(record: &Record) -> (usize, Option<u64>, crate::record::Tag) {
        let bytes = record.winner(0).map(|winner| winner.content.sketched_bytes());
        (record.values(0).len(), bytes, record.tag(0))
    }

    proptest! {
        #[test]
        fn sketches_merge_as_their_records_do(steps in steps()) {
            let replicas = play(&steps);
            for (one, _) in &replicas {
                for (other, _) in &replicas {
                    let merged = one.merge(other);
                    let sketch = one.sketch().merge(&other.sketch());
                    prop_assert_eq!(&merged.sketch(), &sketch);
                    let shown = merged.winner(0).map(|winner| winner.content.value.len() as u64);
                    prop_assert_eq!(told(&sketch), (merged.values(0).len(), shown, merged.tag(0)));
                }
            }
        }

        #[test]
        fn a_sketch_tells_the_length_of_a_value_and_is_small(bytes in 0..5_000usize, byte: u8) {
            let sketch = set(vec![byte; bytes], dot(1, 1)).sketch();
            prop_assert_eq!(told(&sketch).1, Some(bytes as u64));
            prop_assert!(sketch.siblings()[0].content.value.len() <= STAND_IN_BYTES);
        }
    }

    #[test]
    fn long_values_that_are_equal_count_as_one_and_others_as_two() {
        let (long, other) = (vec![7; 100], [vec![7; 99], vec![8]].concat());
        let beside =
            |one: &[u8], two: &[u8]| set(one.into(), dot(1, 1)).sketch().merge(&set(two.into(), dot(2, 2)).sketch());
        assert_eq!(told(&beside(&long, &long)).0, 1);
        assert_eq!(told(&beside(&long, &other)).0, 2);
    }

    #[test]
    fn counters_add_up_in_a_sketch_however_many_digits_they_have() {
        let part =
            |actor, ms| Record::default().edit(&Edit::Add { by: i64::MAX, request: None }, dot(actor, ms)).unwrap();
        let mut sum = set(b"1".to_vec(), dot(1, 1));
        for actor in 2..40 {
            sum = sum.sketch().merge(&part(actor, actor).sketch());
        }
        let digits = sum.counter(0).unwrap().to_string().len() as u64;
        assert_eq!(told(&sum).1, Some(digits));
    }
}
