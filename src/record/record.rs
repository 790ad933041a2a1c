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
//!
//! One sibling at most is what consensus agreed on. Its dot is the ballot under which it was last accepted, which is the
//! context's, and covered by that alone; its id stays the same when it is accepted again: see [`Record::propose`].
//!
//! Some siblings are counters, each the part that one actor counted: they add up, beside the integer in the latest of
//! the others. See [`Edit::Add`](super::Edit::Add) and [`Record::values`].

use super::counter::Counted;
use super::{Actor, Ballot, Context, Dot, Key, Tag, counter};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One live value and the write that made it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sibling {
    /// The write's name; of what consensus agreed on, the ballot under which it was last accepted.
    pub dot: Dot,
    /// What was written.
    pub content: Content,
    /// Of what consensus agreed on: the ballot under which it was first proposed.
    pub agreed: Option<Dot>,
}

impl Sibling {
    /// A value that an actor wrote without consensus.
    pub fn new(dot: Dot, content: Content) -> Sibling {
        Sibling { dot, content, agreed: None }
    }

    /// The write's name for good: its dot, or the ballot under which it was first proposed.
    pub fn id(&self) -> Dot {
        self.agreed.unwrap_or(self.dot)
    }

    /// Siblings are sorted by this, and no two have the same.
    pub(super) fn place(&self) -> (Dot, bool) {
        (self.dot, self.agreed.is_some())
    }

    /// Whether whoever has seen this much has seen the write.
    pub fn is_covered_by(&self, context: &Context) -> bool {
        match self.agreed {
            None => context.covers(self.dot),
            Some(_) => context.ballot().is_some_and(|ballot| ballot.dot() >= self.dot),
        }
    }
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
    /// What the value is. A client's own value is always plain.
    #[serde(skip)]
    pub kind: ContentKind,
}

/// What a sibling's value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ContentKind {
    /// A value as a client wrote it.
    #[default]
    Plain,
    /// What the dot's actor has counted, in decimal digits: see [`Edit::Add`](super::Edit::Add).
    Counter,
}

/// Longest media type kept beside a value, in bytes. RFC 6838 §4.2 allows 127 for each half.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;

impl Content {
    /// A bare value.
    pub fn plain(value: impl Into<Bytes>) -> Content {
        Content { value: value.into(), ..Content::default() }
    }

    /// Whether it is still shown at `now_ms`, in milliseconds since 1970.
    pub fn lives(&self, now_ms: u64) -> bool {
        self.expires_ms.is_none_or(|expires_ms| expires_ms > now_ms)
    }
}

/// A strong digest of (key, context, ballot, dots, counted requests): equal on two nodes when they hold the same version of the key.
/// Values are left out, a dot names its value for good.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Version(pub u128);

/// What a key holds. The siblings are sorted by dot, and each dot is covered by the context.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    pub(super) context: Context,
    pub(super) siblings: Vec<Sibling>,
    /// Requests that were counted not long ago, sorted.
    pub(super) counted: Vec<Counted>,
}

impl Record {
    /// A record of these parts, the siblings in any order; `None` when one has a dot that the context does not cover, two have
    /// the same, or one was agreed on under another ballot than the context's.
    pub fn from_parts(context: Context, mut siblings: Vec<Sibling>) -> Option<Record> {
        siblings.sort_by_key(Sibling::place);
        let fits = |sibling: &Sibling| match sibling.agreed {
            None => context.covers(sibling.dot),
            Some(_) => context.ballot().map(Ballot::dot) == Some(sibling.dot),
        };
        let unique = siblings.windows(2).all(|pair| pair[0].place() != pair[1].place());
        (siblings.iter().all(fits) && unique).then_some(Record { context, siblings, counted: Vec::new() })
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

    /// What consensus agreed on, if that is a value, and nothing has superseded it since.
    pub fn agreed(&self) -> Option<&Sibling> {
        self.siblings.iter().find(|sibling| sibling.agreed.is_some())
    }

    /// The version that is shown at `now_ms`, in milliseconds since 1970; that of a key without a living value, too.
    pub fn tag(&self, now_ms: u64) -> Tag {
        Tag::of(self.siblings.iter().filter(|sibling| sibling.content.lives(now_ms)).map(Sibling::id))
    }

    /// Whether the key was deleted, or never written.
    pub fn is_tombstone(&self) -> bool {
        self.siblings.is_empty()
    }

    /// Whether nothing at all is known of the key.
    pub fn is_unknown(&self) -> bool {
        self.context.is_empty()
    }

    /// Whether what it shows depends on the time.
    pub fn expires(&self) -> bool {
        self.siblings.iter().any(|sibling| sibling.content.expires_ms.is_some())
    }

    /// The last writer's sibling, whatever it is and however old: what a client is shown are [`Record::values`].
    pub fn latest(&self) -> Option<&Sibling> {
        self.siblings.last()
    }

    /// Whether there is nothing left of it to show or to remember at `now_ms`, in milliseconds since 1970: no sibling, or
    /// expired ones only, and no request that might still be repeated.
    pub fn is_spent(&self, now_ms: u64) -> bool {
        !self.siblings.iter().any(|sibling| sibling.content.lives(now_ms))
            && !self.counted.iter().any(|counted| counted.until_ms > now_ms)
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
                (Some(left), Some(right)) => left.place().cmp(&right.place()),
            };
            if order.is_eq() {
                siblings.extend(mine.next().cloned());
                theirs.next();
            } else {
                let (side, absent_from) = if order.is_lt() { (&mut mine, other) } else { (&mut theirs, self) };
                siblings.extend(side.next().filter(|sibling| !sibling.is_covered_by(&absent_from.context)).cloned());
            }
        }
        let mut context = self.context.clone();
        context.join(&other.context);
        let counted = counter::merge(self, other, &context);
        Record { context, siblings, counted }
    }

    /// Merges in a copy in which the write `kept` was made once more, as `twin`, and lets go of that one; unless it has
    /// superseded the first. Makes no dot, as [`Record::cover`].
    pub fn merge_twin(&self, other: &Record, twin: Dot, kept: Dot) -> Record {
        let mut merged = self.merge(other);
        let is = |dot: Dot| move |sibling: &Sibling| sibling.dot == dot && sibling.agreed.is_none();
        if merged.siblings.iter().any(is(kept)) {
            merged.siblings.retain(|sibling| !is(twin)(sibling));
        }
        merged
    }

    /// Whether merging `other` would change nothing here.
    pub fn includes(&self, other: &Record) -> bool {
        self.context.dominates(&other.context)
            && self.siblings.iter().all(|sibling| {
                !sibling.is_covered_by(&other.context)
                    || other.siblings.iter().any(|theirs| theirs.place() == sibling.place())
            })
            && counter::includes(self, other)
    }

    /// The record without its values: enough to tell, with [`Record::includes`], which of two copies knows more.
    pub fn outline(&self) -> Record {
        let bare = |sibling: &Sibling| Sibling { content: Content::default(), ..*sibling };
        let siblings = self.siblings.iter().map(bare).collect();
        Record { context: self.context.clone(), siblings, counted: Vec::new() }
    }

    /// Merges `other` in and lets the write `dot`, held here, supersede everything older that `other` showed, and nothing
    /// else: the second round of a plain write whose coordinator had not seen all there was. Makes no dot: whoever holds
    /// the superseded sibling drops it because the joined context covers it.
    pub fn cover(&self, other: &Record, dot: Dot) -> Record {
        let mut merged = self.merge(other);
        if merged.context.covers(dot) {
            merged.siblings.retain(|sibling| sibling.dot >= dot || !sibling.is_covered_by(&other.context));
        }
        merged
    }

    /// The digest of this version of `key`. One BLAKE3 over key, context, ballot, dots and counted requests, about 0.2 µs.
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
        for counted in &self.counted {
            bytes.extend_from_slice(&counted.request.0.to_le_bytes());
            bytes.extend_from_slice(&counted.word().to_le_bytes());
        }
        if let Some(ballot) = self.context.ballot() {
            let id = self.agreed().map(Sibling::id).unwrap_or_default();
            for dot in [ballot.dot(), id] {
                bytes.extend_from_slice(&dot.actor.0.to_le_bytes());
                bytes.extend_from_slice(&dot.stamp.0.to_le_bytes());
            }
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
    use crate::record::{Edit, RequestId, SIBLINGS_MAX, Seen, Stamp, Unfit};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// The dumb twin: a record as the plain set of all writes ever known and the set of those still alive. Counters are
    /// lists of increments, each named by its step.
    #[derive(Clone, PartialEq, Debug, Default)]
    pub(crate) struct Twin {
        known: BTreeSet<Dot>,
        live: BTreeMap<Dot, Alive>,
        requests: BTreeSet<u8>,
    }

    #[derive(Clone, PartialEq, Debug)]
    enum Alive {
        Value(Bytes),
        Added(BTreeMap<usize, i8>),
    }

    impl Alive {
        fn shown(&self) -> Bytes {
            match self {
                Alive::Value(value) => value.clone(),
                Alive::Added(added) => added.values().map(|by| i64::from(*by)).sum::<i64>().to_string().into(),
            }
        }
    }

    impl Twin {
        fn merge(&self, other: &Twin) -> Twin {
            let known = self.known.union(&other.known).copied().collect();
            let keep = |from: &Twin, to: &Twin| {
                let kept = |dot: &Dot| to.live.contains_key(dot) || !to.known.contains(dot);
                from.live.iter().filter(|(dot, _)| kept(dot)).map(|(d, v)| (*d, v.clone())).collect::<Vec<_>>()
            };
            let live = keep(self, other).into_iter().chain(keep(other, self)).collect();
            Twin { known, live, requests: self.requests.union(&other.requests).copied().collect() }
        }
    }

    /// A history over a few replicas: who does what, and in which order copies meet.
    #[derive(Clone, Debug)]
    pub(crate) enum Step {
        Write { at: usize, blind: bool, delete: bool },
        Read { at: usize },
        Merge { from: usize, to: usize },
        Add { at: usize, by: i8, request: Option<u8> },
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
            (0..3usize, any::<i8>(), prop::option::of(0..3u8)).prop_map(|(at, by, request)| Step::Add {
                at,
                by,
                request
            }),
        ];
        prop::collection::vec(step, 0..40)
    }

    /// Plays a history on records and twins side by side; the client keeps the context of its last read.
    pub(crate) fn play(steps: &[Step]) -> [(Record, Twin); 3] {
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
                    *record = record.edit(&Edit::write(seen, content), dot).unwrap();
                    if blind {
                        twin.live.clear();
                    } else {
                        twin.live.retain(|dot, _| !seen_twin.contains(dot));
                        twin.known.extend(&seen_twin);
                    }
                    twin.known.insert(dot);
                    if !delete {
                        twin.live.insert(dot, Alive::Value(value));
                    }
                }
                Step::Add { at, by, request } => {
                    let dot = Dot { stamp: Stamp(at_step as u64 + 1), actor: Actor(at as u64) };
                    let (record, twin) = &mut replicas[at];
                    let id = request.map(|request| RequestId(request.into()));
                    *record = record.edit(&Edit::Add { by: by.into(), request: id }, dot).unwrap();
                    if request.is_some_and(|request| !twin.requests.insert(request)) {
                        continue;
                    }
                    let own =
                        |dot: &Dot, alive: &Alive| dot.actor == Actor(at as u64) && matches!(alive, Alive::Added(_));
                    let mut added = BTreeMap::from([(at_step, by)]);
                    for (_, alive) in twin.live.extract_if(.., |dot, alive| own(dot, alive)) {
                        let Alive::Added(before) = alive else { unreachable!("picked out") };
                        added.extend(before);
                    }
                    twin.known.insert(dot);
                    twin.live.insert(dot, Alive::Added(added));
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
                let shown: BTreeMap<Dot, Bytes> = twin.live.iter().map(|(dot, alive)| (*dot, alive.shown())).collect();
                prop_assert_eq!(live(&record), shown);
                let numbers = twin.live.values().map(|alive| (matches!(alive, Alive::Value(_)), alive.shown()));
                let numbers: Vec<(bool, i128)> =
                    numbers.map(|(plain, text)| (plain, std::str::from_utf8(&text).unwrap().parse().unwrap())).collect();
                let base = numbers.iter().rfind(|(plain, _)| *plain).map_or(0, |(_, number)| *number);
                let counted: i128 = numbers.iter().filter(|(plain, _)| !plain).map(|(_, number)| number).sum();
                prop_assert_eq!(record.counter(0), Some(base + counted));
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
        record.edit(&Edit::write(seen, Some(Content::plain(value))), dot).unwrap()
    }

    #[test]
    fn two_writes_that_saw_the_same_past_are_both_kept() {
        let base = write(&Record::default(), Seen::Everything, dot(1, 1), "base");
        let seen = Seen::Only(base.context().clone());
        let once = write(&base, seen.clone(), dot(1, 2), "left");
        let both = write(&once, seen, dot(1, 3), "right");
        assert_eq!(both.siblings().len(), 2);
        assert_eq!(both.latest().unwrap().content.value, "right");
    }

    #[test]
    fn a_delete_removes_what_it_saw_and_an_unseen_write_survives_it() {
        let base = write(&Record::default(), Seen::Everything, dot(1, 1), "base");
        let deleted = base.edit(&Edit::write(Seen::Everything, None), dot(1, 2)).unwrap();
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
        let blind = Edit::write(Seen::Only(Context::new()), Some(Content::plain("v")));
        assert_eq!(record.edit(&blind, dot(1, 99)), Err(Unfit::TooManySiblings));
        let resolved = write(&record, Seen::Only(record.context().clone()), dot(1, 99), "v");
        assert_eq!(resolved.siblings().len(), 1);
    }
}
