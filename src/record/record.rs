//! A record: what one key holds, and the one way in which it changes.
//!
//! ```text
//!   context   { a: 7, b: 3 }         every write known here, alive or not
//!   siblings  (a,7) "blue"           the writes that nothing known here has superseded;
//!             (b,3) "green"          more than one where writers did not see each other
//! ```
//!
//! [`Record::merge`] is the join of dotted version vector sets (Almeida et al., "Scalable and Accurate
//! Causality Tracking for Eventually Consistent Stores", 2014, §5): commutative, associative, idempotent and
//! monotone, so copies become equal in whatever order they meet. A tombstone is a record without siblings.

use super::{Actor, Context, Dot, Key};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Most siblings a client's write may leave behind: a client that never reads cannot grow a record without
/// bound. Merges are never refused, so a split that healed may hold more.
pub const SIBLINGS_MAX: usize = 64;

/// One live value and the write that made it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sibling {
    /// The write's name.
    pub dot: Dot,
    /// What was written.
    pub content: Content,
}

/// What a write carries.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Content {
    /// The value, any bytes, also none.
    #[serde(with = "super::blob")]
    pub value: Bytes,
    /// The media type the client named, at most [`CONTENT_TYPE_BYTES_MAX`] bytes.
    pub content_type: Option<Box<str>>,
    /// When it stops being shown, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
}

/// Longest media type kept beside a value, in bytes. RFC 6838 §4.2 allows 127 for each half.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;

impl Content {
    /// A bare value.
    pub fn plain(value: impl Into<Bytes>) -> Content {
        Content { value: value.into(), ..Content::default() }
    }
}

/// What a writer had seen when it wrote: just that is superseded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Seen {
    /// A plain write: all that the node which makes the dot holds. Gives last-writer behaviour.
    Everything,
    /// A write with a context: what that client was shown.
    Only(Context),
}

/// A strong digest of (key, context, dots): equal on two nodes when they hold the same version of the key.
/// Values are left out, a dot names its value for good.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Version(pub u128);

/// A write was refused because too many siblings would stay. Nothing changed; read, resolve, write with the context.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[error("the key already has {SIBLINGS_MAX} concurrent values")]
pub struct TooManySiblings;

/// What a key holds. The siblings are sorted by dot, and each dot is covered by the context.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    context: Context,
    siblings: Vec<Sibling>,
}

impl Record {
    /// A record of these parts, the siblings in any order; `None` when one has a dot that the context does not
    /// cover, or two have the same.
    pub fn from_parts(context: Context, mut siblings: Vec<Sibling>) -> Option<Record> {
        siblings.sort_by_key(|sibling| sibling.dot);
        let covered = siblings.iter().all(|sibling| context.covers(sibling.dot));
        let unique = siblings.windows(2).all(|pair| pair[0].dot != pair[1].dot);
        (covered && unique).then_some(Record { context, siblings })
    }

    /// All writes known here.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The live values, oldest first.
    pub fn siblings(&self) -> &[Sibling] {
        &self.siblings
    }

    /// The live values, oldest first, taken out of the record.
    pub fn into_siblings(self) -> Vec<Sibling> {
        self.siblings
    }

    /// Whether the key was deleted, or never written.
    pub fn is_tombstone(&self) -> bool {
        self.siblings.is_empty()
    }

    /// Whether nothing at all is known of the key.
    pub fn is_unknown(&self) -> bool {
        self.context.is_empty()
    }

    /// The sibling shown to a client that asks for one: the last writer's.
    pub fn winner(&self) -> Option<&Sibling> {
        self.siblings.last()
    }

    /// Joins two copies of the same key's record. Linear in the siblings of both.
    ///
    /// A sibling survives if both sides have it, or if the side without it has not seen its write.
    pub fn merge(&self, other: &Record) -> Record {
        let mut siblings = Vec::with_capacity(self.siblings.len().max(other.siblings.len()));
        let (mut mine, mut theirs) = (self.siblings.iter().peekable(), other.siblings.iter().peekable());
        loop {
            let order = match (mine.peek(), theirs.peek()) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(left), Some(right)) => left.dot.cmp(&right.dot),
            };
            if order.is_eq() {
                siblings.extend(mine.next().cloned());
                theirs.next();
            } else {
                let (side, absent_from) = if order.is_lt() { (&mut mine, other) } else { (&mut theirs, self) };
                siblings.extend(side.next().filter(|sibling| !absent_from.context.covers(sibling.dot)).cloned());
            }
        }
        let mut context = self.context.clone();
        context.join(&other.context);
        Record { context, siblings }
    }

    /// Whether merging `other` would change nothing here.
    pub fn includes(&self, other: &Record) -> bool {
        self.context.dominates(&other.context)
            && self.siblings.iter().all(|sibling| {
                !other.context.covers(sibling.dot) || other.siblings.iter().any(|theirs| theirs.dot == sibling.dot)
            })
    }

    /// The record without its values: enough to tell, with [`Record::includes`], which of two copies knows more.
    pub fn outline(&self) -> Record {
        let bare = |sibling: &Sibling| Sibling { dot: sibling.dot, content: Content::default() };
        Record { context: self.context.clone(), siblings: self.siblings.iter().map(bare).collect() }
    }

    /// A new write made on this record: supersedes what `seen` covers and adds `content`, or nothing for a delete.
    /// `dot` must be new, and made by the store that holds this record: its actor's earlier dots count as seen by
    /// everyone who sees this one.
    pub fn write(&self, seen: &Seen, dot: Dot, content: Option<Content>) -> Result<Record, TooManySiblings> {
        assert!(!self.context.covers(dot), "dot {dot:?} was made twice: {:?}", self.context);
        let mut context = self.context.clone();
        let mut siblings = match seen {
            Seen::Everything => Vec::new(),
            Seen::Only(seen) => {
                context.join(seen);
                self.siblings.iter().filter(|sibling| !seen.covers(sibling.dot)).cloned().collect()
            }
        };
        if content.is_some() && siblings.len() >= SIBLINGS_MAX {
            return Err(TooManySiblings);
        }
        context.add(dot);
        siblings.extend(content.map(|content| Sibling { dot, content }));
        siblings.sort_by_key(|sibling| sibling.dot);
        Ok(Record { context, siblings })
    }

    /// Merges `other` in and lets the write `dot`, held here, supersede everything older that `other` showed, and nothing
    /// else: the second round of a plain write whose coordinator had not seen all there was. Makes no dot: whoever holds
    /// the superseded sibling drops it because the joined context covers it.
    pub fn cover(&self, other: &Record, dot: Dot) -> Record {
        let mut merged = self.merge(other);
        if merged.context.covers(dot) {
            merged.siblings.retain(|sibling| sibling.dot >= dot || !other.context.covers(sibling.dot));
        }
        merged
    }

    /// The digest of this version of `key`. One BLAKE3 over key, context and dots, about 0.2 µs.
    pub fn version(&self, key: &Key) -> Version {
        // A key of its own keeps these digests apart from every other use of the hash.
        const DOMAIN: &[u8; 32] = b"kringle record version digest 01";
        let mut bytes = Vec::with_capacity(128 + key.as_bytes().len());
        bytes.extend_from_slice(&(key.as_bytes().len() as u32).to_le_bytes());
        bytes.extend_from_slice(key.as_bytes());
        bytes.extend_from_slice(&(self.context.entries().len() as u32).to_le_bytes());
        let dots = self.siblings.iter().map(|sibling| (sibling.dot.actor, sibling.dot.stamp));
        for (Actor(actor), stamp) in self.context.entries().iter().copied().chain(dots) {
            bytes.extend_from_slice(&actor.to_le_bytes());
            bytes.extend_from_slice(&stamp.0.to_le_bytes());
        }
        let hash = blake3::keyed_hash(DOMAIN, &bytes);
        let mut first = [0; 16];
        first.copy_from_slice(&hash.as_bytes()[..16]);
        Version(u128::from_le_bytes(first))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::record::Stamp;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// The dumb twin: a record as the plain set of all writes ever known and the set of those still alive.
    #[derive(Clone, PartialEq, Debug, Default)]
    struct Twin {
        known: BTreeSet<Dot>,
        live: BTreeMap<Dot, Bytes>,
    }

    impl Twin {
        fn merge(&self, other: &Twin) -> Twin {
            let known = self.known.union(&other.known).copied().collect();
            let keep = |from: &Twin, to: &Twin| {
                let kept = |dot: &Dot| to.live.contains_key(dot) || !to.known.contains(dot);
                from.live.iter().filter(|(dot, _)| kept(dot)).map(|(d, v)| (*d, v.clone())).collect::<Vec<_>>()
            };
            let live = keep(self, other).into_iter().chain(keep(other, self)).collect();
            Twin { known, live }
        }
    }

    /// A history over a few replicas: who does what, and in which order copies meet.
    #[derive(Clone, Debug)]
    pub(crate) enum Step {
        Write { at: usize, blind: bool, delete: bool },
        Read { at: usize },
        Merge { from: usize, to: usize },
    }

    pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..3usize, any::<bool>(), prop::bool::weighted(0.2)).prop_map(|(at, blind, delete)| Step::Write {
                at,
                blind,
                delete
            }),
            (0..3usize).prop_map(|at| Step::Read { at }),
            (0..3usize, 0..3usize).prop_map(|(from, to)| Step::Merge { from, to }),
        ];
        prop::collection::vec(step, 0..40)
    }

    /// Plays a history on records and twins side by side; the client keeps the context of its last read.
    fn play(steps: &[Step]) -> [(Record, Twin); 3] {
        let mut replicas: [(Record, Twin); 3] = Default::default();
        let (mut seen, mut seen_twin) = (Context::new(), BTreeSet::new());
        for (at_step, step) in steps.iter().enumerate() {
            match *step {
                Step::Read { at } => {
                    seen = replicas[at].0.context.clone();
                    seen_twin = replicas[at].1.known.clone();
                }
                Step::Merge { from, to } => {
                    let merged = (replicas[to].0.merge(&replicas[from].0), replicas[to].1.merge(&replicas[from].1));
                    replicas[to] = merged;
                }
                Step::Write { at, blind, delete } => {
                    let dot = Dot { stamp: Stamp(at_step as u64 + 1), actor: Actor(at as u64) };
                    let value = Bytes::from(at_step.to_string());
                    let content = (!delete).then(|| Content::plain(value.clone()));
                    let (record, twin) = &mut replicas[at];
                    let seen = if blind { Seen::Everything } else { Seen::Only(seen.clone()) };
                    *record = record.write(&seen, dot, content).unwrap();
                    if blind {
                        twin.live.clear();
                    } else {
                        twin.live.retain(|dot, _| !seen_twin.contains(dot));
                        twin.known.extend(&seen_twin);
                    }
                    twin.known.insert(dot);
                    if !delete {
                        twin.live.insert(dot, value);
                    }
                }
            }
        }
        replicas
    }

    fn live(record: &Record) -> BTreeMap<Dot, Bytes> {
        record.siblings.iter().map(|sibling| (sibling.dot, sibling.content.value.clone())).collect()
    }

    proptest! {
        #[test]
        fn a_record_behaves_as_its_dumb_twin(steps in steps()) {
            for (record, twin) in play(&steps) {
                prop_assert_eq!(live(&record), twin.live);
                for dot in &twin.known {
                    prop_assert!(record.context.covers(*dot));
                }
            }
        }

        #[test]
        fn merging_is_commutative_associative_idempotent_and_monotone(steps in steps()) {
            let [(a, _), (b, _), (c, _)] = play(&steps);
            prop_assert_eq!(a.merge(&b), b.merge(&a));
            prop_assert_eq!(a.merge(&b).merge(&c), a.merge(&b.merge(&c)));
            prop_assert_eq!(&a.merge(&a), &a);
            let merged = a.merge(&b);
            prop_assert!(merged.context.dominates(&a.context) && merged.context.dominates(&b.context));
            prop_assert!(merged.includes(&a) && merged.includes(&b));
            prop_assert_eq!(&merged.merge(&a), &merged);
            prop_assert_eq!(a.includes(&b), a.merge(&b) == a);
        }

        #[test]
        fn equal_versions_mean_equal_records(steps in steps()) {
            let key = Key::new("k").unwrap();
            let [(a, _), (b, _), _] = play(&steps);
            prop_assert_eq!(a.version(&key) == b.version(&key), a == b);
        }
    }

    fn dot(actor: u64, stamp: u64) -> Dot {
        Dot { stamp: Stamp(stamp), actor: Actor(actor) }
    }

    fn write(record: &Record, seen: Seen, dot: Dot, value: &'static str) -> Record {
        record.write(&seen, dot, Some(Content::plain(value))).unwrap()
    }

    #[test]
    fn two_writes_that_saw_the_same_past_are_both_kept() {
        let base = write(&Record::default(), Seen::Everything, dot(1, 1), "base");
        let seen = Seen::Only(base.context().clone());
        let once = write(&base, seen.clone(), dot(1, 2), "left");
        let both = write(&once, seen, dot(1, 3), "right");
        assert_eq!(both.siblings().len(), 2);
        assert_eq!(both.winner().unwrap().content.value, "right");
    }

    #[test]
    fn a_delete_removes_what_it_saw_and_an_unseen_write_survives_it() {
        let base = write(&Record::default(), Seen::Everything, dot(1, 1), "base");
        let deleted = base.write(&Seen::Everything, dot(1, 2), None).unwrap();
        assert!(deleted.is_tombstone() && !deleted.is_unknown());
        let elsewhere = write(&base, Seen::Everything, dot(2, 1), "unseen");
        assert_eq!(live(&deleted.merge(&elsewhere)).into_values().collect::<Vec<_>>(), ["unseen"]);
        assert!(deleted.merge(&base).is_tombstone());
    }

    #[test]
    fn a_second_round_covers_older_siblings_everywhere_and_spares_newer_ones() {
        let mine = write(&Record::default(), Seen::Everything, dot(1, 5), "mine");
        let older = write(&Record::default(), Seen::Everything, dot(2, 3), "older");
        let newer = write(&Record::default(), Seen::Everything, dot(3, 9), "newer");
        let covered = mine.cover(&older.merge(&newer), dot(1, 5));
        assert_eq!(live(&covered).into_keys().collect::<Vec<_>>(), [dot(1, 5), dot(3, 9)]);
        assert_eq!(older.merge(&covered), covered);
    }

    #[test]
    fn the_sixty_fifth_sibling_is_refused_and_a_covering_write_is_not() {
        let mut record = Record::default();
        for stamp in 1..=SIBLINGS_MAX as u64 {
            record = write(&record, Seen::Only(Context::new()), dot(1, stamp), "v");
        }
        let blind = record.write(&Seen::Only(Context::new()), dot(1, 99), Some(Content::plain("v")));
        assert_eq!(blind, Err(TooManySiblings));
        let resolved = write(&record, Seen::Only(record.context().clone()), dot(1, 99), "v");
        assert_eq!(resolved.siblings().len(), 1);
    }
}
