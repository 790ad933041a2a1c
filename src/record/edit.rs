//! What a client can have done to a record: the one place in which a new dot is put into one.

use super::counter::{Counted, REMEMBERED_MS, REQUESTS_MAX, RequestId};
use super::{Content, ContentKind, Context, Dot, Record, Sibling, Stamp, counter};
use serde::{Deserialize, Serialize};

/// Most siblings a client's write may leave behind: a client that never reads cannot grow a record without
/// bound. Merges are never refused, so a split that healed may hold more.
pub const SIBLINGS_MAX: usize = 64;

/// What a writer had seen when it wrote: just that is superseded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Seen {
    /// A plain write: all that the node which makes the dot holds. Gives last-writer behaviour.
    Everything,
    /// A write with a context: what that client was shown.
    Only(Context),
    /// The same, and the client's own last write, which others stand beside that it was not shown.
    OnlyAnd(Context, Dot),
}

impl Seen {
    /// The context it came with.
    pub fn context(&self) -> Option<&Context> {
        match self {
            Seen::Everything => None,
            Seen::Only(context) | Seen::OnlyAnd(context, _) => Some(context),
        }
    }

    /// Everything in it: what an answer must have seen that is not older. Nothing for a plain write.
    pub fn since(&self) -> Context {
        let mut since = self.context().cloned().unwrap_or_default();
        if let Seen::OnlyAnd(_, own) = self {
            since.add(*own);
        }
        since
    }

    pub(super) fn covers(&self, sibling: &Sibling) -> bool {
        match self {
            Seen::Everything => true,
            Seen::Only(context) => sibling.is_covered_by(context),
            Seen::OnlyAnd(context, own) => sibling.is_covered_by(context) || sibling.dot == *own,
        }
    }
}

/// What a client wants done to a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Edit {
    /// A value in place of what was seen, or nothing for a delete.
    Write {
        /// What the client had seen.
        seen: Seen,
        /// The value, or nothing for a delete.
        content: Option<Content>,
    },
    /// Something is added to the integer that the key holds. Supersedes nothing but what the same actor had counted
    /// before, so what others count at the same time adds up.
    Add {
        /// How much; may be negative.
        by: i64,
        /// The request's name, where it may be repeated.
        request: Option<RequestId>,
    },
}

/// Why an edit was not made. Nothing changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum Unfit {
    /// Too many siblings would stay: read, resolve, write with the context.
    #[error("the key already has {SIBLINGS_MAX} concurrent values")]
    TooManySiblings,
    /// The key's value is no integer of 64 bits: overwrite or delete it first.
    #[error("the key holds something that is no integer")]
    NotACounter,
    /// The sum would not fit into 64 bits.
    #[error("the counter would leave the range of 64-bit integers")]
    Overflow,
    /// Too many repeatable requests are remembered of the key: try again later, or without a name.
    #[error("the key already remembers {REQUESTS_MAX} requests of the last ten minutes")]
    TooManyRequests,
}

impl Edit {
    /// A client's write, or its delete.
    pub fn write(seen: Seen, content: Option<Content>) -> Edit {
        Edit::Write { seen, content }
    }

    /// The latest stamp that it names.
    pub fn latest_seen(&self) -> Option<Stamp> {
        match self {
            Edit::Write { seen, .. } => seen.since().latest(),
            Edit::Add { .. } => None,
        }
    }

    /// The value it carries.
    pub fn content(&self) -> Option<&Content> {
        match self {
            Edit::Write { content, .. } => content.as_ref(),
            Edit::Add { .. } => None,
        }
    }

    /// Whether making it on a second owner as well would count twice.
    pub fn counts(&self) -> bool {
        matches!(self, Edit::Add { .. })
    }
}

impl Record {
    /// The record with the edit made on it under the name `dot`, which must be new, and made by the store that holds this
    /// record: its actor's earlier dots count as seen by everyone who sees this one. The same record where the edit is a
    /// repetition.
    pub fn edit(&self, edit: &Edit, dot: Dot) -> Result<Record, Unfit> {
        match edit {
            Edit::Write { seen, content } => self.write(seen, dot, content.clone()),
            Edit::Add { by, request } => self.add(*by, *request, dot),
        }
    }

    /// A new write made on this record: supersedes what `seen` covers and adds `content`, or nothing for a delete.
    pub fn write(&self, seen: &Seen, dot: Dot, content: Option<Content>) -> Result<Record, Unfit> {
        let (mut context, mut siblings) = (self.context_before(dot), Vec::new());
        // The client's own last write is taken away where it is held, and not claimed where it is not: its actor's earlier
        // dots would be claimed with it.
        if let Some(shown) = seen.context() {
            context.join(shown);
            siblings.extend(self.siblings.iter().filter(|sibling| !seen.covers(sibling)).cloned());
        }
        let plain = siblings.iter().filter(|sibling| sibling.content.kind == ContentKind::Plain).count();
        if content.is_some() && plain >= SIBLINGS_MAX {
            return Err(Unfit::TooManySiblings);
        }
        siblings.extend(content.map(|content| Sibling::new(dot, content)));
        Ok(self.after(context, siblings, dot, None))
    }

    /// Adds to what the dot's actor has counted here.
    fn add(&self, by: i64, request: Option<RequestId>, dot: Dot) -> Result<Record, Unfit> {
        let now_ms = dot.stamp.ms();
        let remembered = || self.counted.iter().filter(|counted| counted.until_ms > now_ms);
        if let Some(request) = request {
            if remembered().any(|counted| counted.request == request) {
                return Ok(self.clone());
            }
            if remembered().count() >= REQUESTS_MAX {
                return Err(Unfit::TooManyRequests);
            }
        }
        self.sum(by, now_ms)?;
        let is_own =
            |sibling: &&Sibling| sibling.dot.actor == dot.actor && sibling.content.kind == ContentKind::Counter;
        let before: i128 = self.siblings.iter().filter(is_own).map(counter::part).sum();
        let mut siblings: Vec<Sibling> = self.siblings.iter().filter(|sibling| !is_own(sibling)).cloned().collect();
        let part = before.checked_add(by.into()).ok_or(Unfit::Overflow)?;
        siblings.push(Sibling::new(dot, counter::content(part)));
        let counted = request.map(|request| Counted { request, until_ms: now_ms + REMEMBERED_MS, agreed: false });
        Ok(self.after(self.context_before(dot), siblings, dot, counted))
    }

    /// What the integer that is held becomes.
    pub(super) fn sum(&self, by: i64, now_ms: u64) -> Result<i128, Unfit> {
        let sum = self.counter(now_ms).ok_or(Unfit::NotACounter)?;
        let in_range = |number: &i128| i64::try_from(*number).is_ok();
        sum.checked_add(by.into()).filter(in_range).ok_or(Unfit::Overflow)
    }

    fn context_before(&self, dot: Dot) -> Context {
        assert!(!self.context.covers(dot), "dot {dot:?} was made twice: {:?}", self.context);
        self.context.clone()
    }

    fn after(&self, mut context: Context, mut siblings: Vec<Sibling>, dot: Dot, counted: Option<Counted>) -> Record {
        context.add(dot);
        siblings.sort_by_key(Sibling::place);
        let counted = counter::join(&self.counted, counted.as_slice(), &context);
        Record { context, siblings, counted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Actor, Key};

    fn dot(actor: u64, ms: u64) -> Dot {
        Dot { stamp: Stamp::from_ms(ms), actor: Actor(actor) }
    }

    fn add(record: &Record, by: i64, request: Option<u128>, dot: Dot) -> Result<Record, Unfit> {
        record.edit(&Edit::Add { by, request: request.map(RequestId) }, dot)
    }

    fn set(record: &Record, value: &'static str, dot: Dot) -> Record {
        record.write(&Seen::Everything, dot, Some(Content::plain(value))).unwrap()
    }

    fn shown(record: &Record, now_ms: u64) -> Vec<String> {
        let text = |value: &Sibling| String::from_utf8(value.content.value.to_vec()).unwrap();
        record.values(now_ms).iter().map(|value| text(value)).collect()
    }

    #[test]
    fn increments_on_both_sides_of_a_split_add_up_and_a_plain_write_sets_them_all() {
        let base = set(&Record::default(), "40", dot(1, 1));
        let left = add(&add(&base, 3, None, dot(1, 2)).unwrap(), 4, None, dot(1, 3)).unwrap();
        let right = add(&base, -5, None, dot(2, 2)).unwrap();
        let healed = left.merge(&right);
        assert_eq!(healed.counter(9), Some(42));
        assert_eq!(shown(&healed, 9), ["42"]);
        assert_eq!(healed.winner(9).unwrap().dot, dot(1, 3));
        let reset = set(&healed, "7", dot(3, 4));
        assert_eq!(reset.merge(&left).merge(&right).counter(9), Some(7));
        let deleted = healed.write(&Seen::Everything, dot(3, 4), None).unwrap();
        assert_eq!(deleted.merge(&left).counter(9), Some(0));
        assert!(deleted.is_tombstone());
    }

    #[test]
    fn what_is_no_integer_is_not_added_to_and_what_would_overflow_neither() {
        let text = set(&Record::default(), "forty", dot(1, 1));
        assert_eq!(add(&text, 1, None, dot(1, 2)), Err(Unfit::NotACounter));
        let most = set(&Record::default(), "9223372036854775807", dot(1, 1));
        assert_eq!(add(&most, 1, None, dot(1, 2)), Err(Unfit::Overflow));
        assert_eq!(add(&most, -1, None, dot(1, 2)).unwrap().counter(9), Some(i128::from(i64::MAX) - 1));
        let least = add(&Record::default(), i64::MIN, None, dot(1, 1)).unwrap();
        assert_eq!(add(&least, -1, None, dot(2, 2)), Err(Unfit::Overflow));
        // Both sides of a split may come near the end: the sum is shown as it is, and can only be brought back.
        let both = least.merge(&add(&Record::default(), i64::MIN, None, dot(2, 1)).unwrap());
        assert_eq!(both.counter(9), Some(2 * i128::from(i64::MIN)));
        assert_eq!(add(&both, -1, None, dot(1, 3)), Err(Unfit::Overflow));
    }

    #[test]
    fn a_text_beside_counters_is_shown_as_it_is() {
        let counted = add(&Record::default(), 3, None, dot(1, 1)).unwrap();
        let healed = counted.merge(&set(&Record::default(), "text", dot(2, 2)));
        assert_eq!((shown(&healed, 9), healed.counter(9)), (vec!["text".to_string()], None));
    }

    #[test]
    fn a_repeated_request_is_counted_once_for_ten_minutes_wherever_the_record_has_arrived() {
        let once = add(&Record::default(), 3, Some(7), dot(1, 1_000)).unwrap();
        assert_eq!(add(&once, 3, Some(7), dot(1, 1_001)), Ok(once.clone()));
        let elsewhere = Record::default().merge(&once);
        assert_eq!(add(&elsewhere, 3, Some(7), dot(2, 600_999)), Ok(elsewhere.clone()));
        assert_eq!(add(&elsewhere, 3, Some(8), dot(2, 1_002)).unwrap().counter(0), Some(6));
        // A plain write in between does not make it forget.
        let set = set(&once, "1", dot(2, 2_000));
        assert_eq!(add(&set, 3, Some(7), dot(1, 3_000)), Ok(set));
        assert_eq!(add(&once, 3, Some(7), dot(1, 601_001)).unwrap().counter(0), Some(6));
    }

    #[test]
    fn copies_agree_on_which_requests_are_over() {
        let old = add(&Record::default(), 1, Some(1), dot(1, 1_000)).unwrap();
        let new = add(&old, 1, Some(2), dot(1, 700_000)).unwrap();
        assert_eq!(new.counted.len(), 1);
        assert_eq!(old.merge(&new), new);
        assert!(new.includes(&old) && !old.includes(&new));
        assert!(!old.is_spent(1_000) && old.write(&Seen::Everything, dot(1, 2_000), None).unwrap().is_spent(601_001));
    }

    #[test]
    fn the_thousand_and_first_request_within_ten_minutes_is_refused() {
        let mut record = Record::default();
        for request in 0..REQUESTS_MAX as u128 {
            record = add(&record, 1, Some(request), dot(1, 1 + request as u64)).unwrap();
        }
        assert_eq!(add(&record, 1, Some(5_000), dot(1, 5_000)), Err(Unfit::TooManyRequests));
        assert_eq!(add(&record, 1, Some(3), dot(1, 5_000)), Ok(record.clone()));
        assert_eq!(add(&record, 1, None, dot(1, 5_000)).unwrap().counter(0), Some(1_001));
        assert!(add(&record, 1, Some(5_000), dot(1, 700_000)).is_ok());
    }

    #[test]
    fn an_expired_value_is_not_shown_and_does_not_count() {
        let brief = Content { expires_ms: Some(1_000), ..Content::plain("40") };
        let record = Record::default().write(&Seen::Everything, dot(1, 1), Some(brief)).unwrap();
        let record = add(&record, 2, None, dot(2, 2)).unwrap();
        assert_eq!((record.counter(999), record.counter(1_000)), (Some(42), Some(2)));
        let lasting = Record::default().merge(&record).write(&Seen::Everything, dot(1, 3), Some(Content::plain("9")));
        assert_eq!(shown(&lasting.unwrap(), 5_000), ["9"]);
    }

    #[test]
    fn a_client_supersedes_its_own_last_write_and_nothing_it_was_not_shown() {
        let (mine, theirs) = (set(&Record::default(), "mine", dot(1, 2)), set(&Record::default(), "theirs", dot(1, 1)));
        let split = Record::from_parts(mine.context.clone(), [mine.siblings, theirs.siblings].concat()).unwrap();
        let seen = Seen::OnlyAnd(Context::new(), dot(1, 2));
        let next = split.write(&seen, dot(1, 3), Some(Content::plain("next"))).unwrap();
        assert_eq!(shown(&next, 9), ["next", "theirs"]);
        // Where the own write is not held, nothing is claimed of its actor.
        let elsewhere = Record::default().write(&seen, dot(2, 3), Some(Content::plain("next"))).unwrap();
        assert_eq!(shown(&elsewhere.merge(&split), 9), ["next", "mine", "theirs"]);
        assert_eq!(Key::new("k").map(|key| elsewhere.version(&key) == split.version(&key)), Ok(false));
    }
}
