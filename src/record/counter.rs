//! Counters: siblings that add up, and the requests that are counted once.
//!
//! ```text
//!  (a,7) "40"  plain      the value is 40 + 3 - 1 = 42: the integer of the last plain write,
//!  (b,9) +3    counter    and what each actor has counted since
//!  (c,8) -1    counter
//! ```
//!
//! An actor's increment replaces its own counter sibling and nobody else's, so increments on both sides of a split add
//! up; a plain write supersedes the counters it has seen like any other sibling. After the PN-counter of Shapiro et al.,
//! "A comprehensive study of Convergent and Commutative Replicated Data Types" (2011), §3.1.3, on a dotted record.

use super::{Content, ContentKind, Context, Record, Sibling};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// For how long after it was counted a repeated request is known, in milliseconds: ten minutes.
pub const REMEMBERED_MS: u64 = 600_000;
/// Most requests remembered of one key: 24 kB.
pub const REQUESTS_MAX: usize = 1_000;

/// The name of a request that may be repeated: a digest of what its client calls it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RequestId(pub u128);

impl RequestId {
    /// Of the client's own word for it.
    pub fn of(word: &[u8]) -> RequestId {
        // A key of its own keeps these digests apart from every other use of the hash.
        const DOMAIN: &[u8; 32] = b"kringle request id digest ....01";
        let hash = blake3::keyed_hash(DOMAIN, word);
        let mut first = [0; 16];
        first.copy_from_slice(&hash.as_bytes()[..16]);
        RequestId(u128::from_le_bytes(first))
    }
}

/// A request that was counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Counted {
    /// Which.
    pub request: RequestId,
    /// Until when it is remembered, in milliseconds since 1970; less than 2⁶³.
    pub until_ms: u64,
    /// Whether it was counted by consensus, under the ballot accepted or an earlier one that led to it: gone with that
    /// ballot's value where another was accepted instead, or its repetition would be taken for done.
    pub agreed: bool,
}

impl Counted {
    const AGREED: u64 = 1 << 63;

    /// All but the request in one word.
    pub(super) fn word(&self) -> u64 {
        self.until_ms | if self.agreed { Counted::AGREED } else { 0 }
    }

    /// What [`Counted::word`] said of a request.
    pub(super) fn of(request: RequestId, word: u64) -> Counted {
        Counted { request, until_ms: word & !Counted::AGREED, agreed: word & Counted::AGREED != 0 }
    }
}

/// A counter sibling's content.
pub(super) fn content(part: i128) -> Content {
    Content { value: part.to_string().into(), kind: ContentKind::Counter, ..Content::default() }
}

/// What a counter sibling stands for. The codec lets no other text in.
pub(super) fn part(sibling: &Sibling) -> i128 {
    parse(&sibling.content.value).unwrap_or_default()
}

/// The number in a counter sibling's value.
pub(super) fn parse(value: &[u8]) -> Option<i128> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// What both remember, but for what is over at the latest write in `context`: a rule that reads nothing but the record,
/// so that copies agree on it.
pub(super) fn join(ours: &[Counted], theirs: &[Counted], context: &Context) -> Vec<Counted> {
    if ours.is_empty() && theirs.is_empty() {
        return Vec::new();
    }
    let now_ms = context.latest().unwrap_or_default().ms();
    let mut joined: Vec<Counted> =
        ours.iter().chain(theirs).filter(|counted| counted.until_ms > now_ms).copied().collect();
    // Of one that both counted, the later.
    joined.sort_unstable_by_key(|counted| (counted.request, counted.agreed, std::cmp::Reverse(counted.until_ms)));
    joined.dedup_by_key(|counted| (counted.request, counted.agreed));
    joined
}

/// What a record remembers that is both, under the joined `context`: of what consensus counted, what the later ballot says.
pub(super) fn merge(ours: &Record, theirs: &Record, context: &Context) -> Vec<Counted> {
    if ours.counted.is_empty() && theirs.counted.is_empty() {
        return Vec::new();
    }
    join(&under(ours, context), &under(theirs, context), context)
}

/// What of it stays where a later ballot may have been accepted.
fn under<'a>(record: &'a Record, context: &Context) -> Cow<'a, [Counted]> {
    if record.context.ballot() == context.ballot() {
        return Cow::Borrowed(&record.counted);
    }
    Cow::Owned(record.counted.iter().filter(|counted| !counted.agreed).copied().collect())
}

/// Whether joining `theirs` would change nothing, under a context that dominates theirs.
pub(super) fn includes(ours: &Record, theirs: &Record) -> bool {
    theirs.counted.is_empty() || merge(ours, theirs, &ours.context) == ours.counted
}

/// Whether a client would take them for the same value.
fn is_equal(one: &Content, other: &Content) -> bool {
    one.value == other.value && one.content_type == other.content_type
}

/// Has a value that is there twice shown until the later of the two is gone.
fn keep_longer(shown: &mut Cow<'_, Sibling>, other_expires_ms: Option<u64>) {
    if let Some(expires_ms) = shown.content.expires_ms
        && other_expires_ms.is_none_or(|other| other > expires_ms)
    {
        shown.to_mut().content.expires_ms = other_expires_ms;
    }
}

impl Record {
    /// The integer a client sees at `now_ms`, in milliseconds since 1970: that of the last plain value, 0 without one, and
    /// all counters. `None` where the last plain value is no integer of 64 bits.
    pub fn counter(&self, now_ms: u64) -> Option<i128> {
        let living = || self.siblings.iter().filter(|sibling| sibling.content.lives(now_ms));
        let plain =
            living().filter(|sibling| sibling.content.kind == ContentKind::Plain).max_by_key(|plain| plain.id());
        let base = match plain {
            None => 0,
            Some(plain) => std::str::from_utf8(&plain.content.value).ok()?.parse::<i64>().ok()?.into(),
        };
        let counters = living().filter(|sibling| sibling.content.kind == ContentKind::Counter);
        Some(counters.map(part).fold(base, i128::saturating_add))
    }

    /// The record without what has expired at `now_ms`, in milliseconds since 1970.
    pub fn living(&self, now_ms: u64) -> Cow<'_, Record> {
        if self.siblings.iter().all(|sibling| sibling.content.lives(now_ms)) {
            return Cow::Borrowed(self);
        }
        let mut living = self.clone();
        living.siblings.retain(|sibling| sibling.content.lives(now_ms));
        Cow::Owned(living)
    }

    /// What a client is shown at `now_ms`, in milliseconds since 1970, the winner first: the values that have not expired,
    /// newest first, equal ones once, until the last of them expires. The winner has the counters in it, as digits, if it is an integer or there is no other.
    pub fn values(&self, now_ms: u64) -> Vec<Cow<'_, Sibling>> {
        let mut values: Vec<Cow<'_, Sibling>> = Vec::with_capacity(1);
        let mut latest_counter = None;
        // By when they were first written: that something was accepted once more makes it no younger.
        let mut newest_first: Vec<&Sibling> = self.siblings.iter().collect();
        newest_first.sort_by_key(|sibling| std::cmp::Reverse(sibling.id()));
        for sibling in newest_first.into_iter().filter(|sibling| sibling.content.lives(now_ms)) {
            match sibling.content.kind {
                ContentKind::Counter => latest_counter = latest_counter.or(Some(sibling)),
                ContentKind::Plain => {
                    match values.iter_mut().find(|shown| is_equal(&shown.content, &sibling.content)) {
                        None => values.push(Cow::Borrowed(sibling)),
                        Some(shown) => keep_longer(shown, sibling.content.expires_ms),
                    }
                }
            }
        }
        if let (Some(latest), Some(number)) = (latest_counter, self.counter(now_ms)) {
            let base = values.first().map(|base| base.content.clone());
            let content = Content {
                value: number.to_string().into(),
                ..base.unwrap_or_else(|| Content { content_type: Some("text/plain".into()), ..Content::default() })
            };
            let dot = values.first().map_or(latest.dot, |base| base.dot.max(latest.dot));
            let winner = Cow::Owned(Sibling::new(dot, content));
            match values.first_mut() {
                Some(first) => *first = winner,
                None => values.push(winner),
            }
        }
        values
    }

    /// The first of [`Record::values`].
    pub fn winner(&self, now_ms: u64) -> Option<Cow<'_, Sibling>> {
        match self.siblings.as_slice() {
            [only] if only.content.kind == ContentKind::Plain => {
                only.content.lives(now_ms).then_some(Cow::Borrowed(only))
            }
            _ => self.values(now_ms).into_iter().next(),
        }
    }
}
