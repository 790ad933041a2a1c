//! What of a record may be forgotten once its partition's context says the same, and what is done about copies that come
//! after that.
//!
//! ```text
//!   context   { a: 7, b: 3 }                     { }
//!   siblings  none: a tombstone        ──►       nothing at all
//!
//!   context   { a: 7, b: 3, c: 5, d: 9 }         { d: 9 }
//!   siblings  (d,9) "blue"             ──►       (d,9) "blue"
//! ```

use super::{Context, Dot, Record, Sibling};
use std::borrow::Cow;

/// As many entries as a context may have before those of actors are forgotten of which nothing is left: one for each of
/// three owners.
pub const CONTEXT_ENTRIES_FEW: usize = 3;

/// When something of a key may be forgotten, as it is noted beside its row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    /// From when on anything may, in milliseconds since 1970.
    pub ms: u64,
    /// From when on all of it may, a deleted or expired key's; never, of one that lives on.
    pub whole_ms: u64,
}

impl Due {
    /// As it is kept: both numbers, little-endian.
    pub fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.ms.to_le_bytes());
        bytes[8..].copy_from_slice(&self.whole_ms.to_le_bytes());
        bytes
    }

    /// What [`Due::encode`] wrote; of bytes that are none, that it may be now.
    pub fn decode(bytes: &[u8]) -> Due {
        let number = |at: usize| bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        Due { ms: number(0).unwrap_or(0), whole_ms: number(8).unwrap_or(u64::MAX) }
    }
}

impl Record {
    /// From when on something of it may be forgotten, once all its owners agree: a deleted key and one with more context
    /// than [`CONTEXT_ENTRIES_FEW`] at once, one that expires when it has. Nothing of any other.
    pub fn due(&self) -> Option<Due> {
        if self.is_unknown() {
            return None;
        }
        let spent = self.siblings.iter().map(|sibling| sibling.content.expires_ms).collect::<Option<Vec<u64>>>();
        let over = self.counted.iter().map(|counted| counted.until_ms);
        let spent_ms = spent.map(|expires| expires.into_iter().chain(over).max().unwrap_or(0));
        let is_long = self.context.entries().len() > CONTEXT_ENTRIES_FEW;
        match (spent_ms, is_long) {
            (Some(ms), false) => Some(Due { ms, whole_ms: ms }),
            (Some(whole_ms), true) => Some(Due { ms: 0, whole_ms }),
            (None, true) => Some(Due { ms: 0, whole_ms: u64::MAX }),
            (None, false) => None,
        }
    }

    /// What of it may be forgotten at `now_ms`, in milliseconds since 1970, as far as this copy knows: the context of
    /// everything if nothing is left to show or to remember, else of the actors of which nothing is live, if there are
    /// many.
    pub fn forgettable(&self, now_ms: u64) -> Context {
        if self.is_spent(now_ms) {
            return self.context.clone();
        }
        let mut idle = Context::new();
        if self.context.entries().len() > CONTEXT_ENTRIES_FEW {
            let is_live = |actor| self.siblings.iter().any(|sibling| sibling.dot.actor == actor);
            let entries = self.context.entries().iter().filter(|(actor, _)| !is_live(*actor));
            entries.for_each(|&(actor, stamp)| idle.add(Dot { stamp, actor }));
        }
        idle
    }

    /// Whether nothing that `context` covers is live here at `now_ms`, in milliseconds since 1970.
    pub fn has_superseded(&self, context: &Context, now_ms: u64) -> bool {
        !self.siblings.iter().any(|sibling| sibling.is_covered_by(context) && sibling.content.lives(now_ms))
            && (!self.is_within(context) || self.is_spent(now_ms))
    }

    /// Whether all of it is covered by `context`.
    fn is_within(&self, context: &Context) -> bool {
        context.dominates(&self.context)
    }

    /// The record without what `context` covers, which its partition's context remembers: expired values, and the entries
    /// of actors of which nothing is left. Nothing at all, where that was everything.
    pub fn forget(&self, context: &Context, now_ms: u64) -> Record {
        if !self.has_superseded(context, now_ms) {
            return self.clone();
        }
        if self.is_within(context) {
            return Record::default();
        }
        let siblings: Vec<Sibling> =
            self.siblings.iter().filter(|sibling| !sibling.is_covered_by(context)).cloned().collect();
        let is_kept = |&&(actor, stamp): &&(super::Actor, super::Stamp)| {
            !context.covers(Dot { stamp, actor }) || siblings.iter().any(|sibling| sibling.dot.actor == actor)
        };
        let mut kept = Context::new();
        self.context.entries().iter().filter(is_kept).for_each(|&(actor, stamp)| kept.add(Dot { stamp, actor }));
        // What was accepted is remembered as long as there is anything to remember: only a mark of all keys may stand for it.
        let kept = kept.with_ballot(self.context.ballot());
        Record { context: kept, siblings, counted: self.counted.clone() }
    }

    /// `other` without the siblings that were superseded here, though nothing in this record says so: `seen` tells of
    /// which dots that this record does not cover it is known that they were once here.
    pub fn without_superseded<'a>(&self, other: &'a Record, seen: impl Fn(Dot) -> bool) -> Cow<'a, Record> {
        let is_old =
            |sibling: &Sibling| sibling.agreed.is_none() && !self.context.covers(sibling.dot) && seen(sibling.dot);
        if !other.siblings.iter().any(is_old) {
            return Cow::Borrowed(other);
        }
        let mut rest = other.clone();
        rest.siblings.retain(|sibling| !is_old(sibling));
        Cow::Owned(rest)
    }

    /// The record as one that says of these dots as well that they were seen here: the caller knows that they were.
    pub fn having_seen(mut self, dots: impl IntoIterator<Item = Dot>) -> Record {
        dots.into_iter().for_each(|dot| self.context.add(dot));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::record::tests::{play, steps};
    use crate::record::{Actor, Content, Edit, RequestId, Seen, Stamp};
    use proptest::prelude::*;

    fn dot(actor: u64, ms: u64) -> Dot {
        Dot { stamp: Stamp::from_ms(ms), actor: Actor(actor) }
    }

    fn due(ms: u64, whole_ms: u64) -> Option<Due> {
        let due = Due { ms, whole_ms };
        assert_eq!(Due::decode(&due.encode()), due);
        Some(due)
    }

    fn after(record: &Record, content: Option<Content>, dot: Dot) -> Record {
        record.write(&Seen::Everything, dot, content).unwrap()
    }

    fn context(dots: &[Dot]) -> Context {
        let mut context = Context::new();
        dots.iter().for_each(|dot| context.add(*dot));
        context
    }

    #[test]
    fn a_deleted_key_is_forgotten_whole_and_a_live_one_keeps_what_its_values_need() {
        let tombstone = after(&after(&Record::default(), Some(Content::plain("v")), dot(1, 1)), None, dot(2, 2));
        assert_eq!((tombstone.due(), tombstone.forgettable(5)), (due(0, 0), tombstone.context().clone()));
        assert_eq!(tombstone.forget(tombstone.context(), 5), Record::default());
        let few = (1..=3).fold(Record::default(), |record, at| after(&record, Some(Content::plain("v")), dot(at, at)));
        assert_eq!((few.due(), few.forgettable(9)), (None, Context::new()));
        let many = after(&few, Some(Content::plain("last")), dot(4, 4));
        let idle = context(&[dot(1, 1), dot(2, 2), dot(3, 3)]);
        assert_eq!((many.due(), many.forgettable(9)), (due(0, u64::MAX), idle.clone()));
        let short = many.forget(&idle, 9);
        assert_eq!((short.context().clone(), short.siblings()), (context(&[dot(4, 4)]), many.siblings()));
    }

    #[test]
    fn what_expires_is_due_when_it_has_and_forgotten_no_earlier() {
        let brief = |value, expires_ms| Content { expires_ms: Some(expires_ms), ..Content::plain(value) };
        let record = after(&Record::default(), Some(brief("v", 1_000)), dot(1, 1));
        assert_eq!(record.due(), due(1_000, 1_000));
        assert_eq!((record.forgettable(999), record.forget(record.context(), 999)), (Context::new(), record.clone()));
        assert_eq!(record.forgettable(1_000), record.context().clone());
        assert_eq!(record.forget(record.context(), 1_000), Record::default());
        let beside = record.merge(&after(&Record::default(), Some(Content::plain("lasts")), dot(2, 1)));
        assert_eq!((beside.due(), beside.forgettable(2_000)), (None, Context::new()));
    }

    #[test]
    fn a_key_is_not_forgotten_before_its_last_request_may_no_longer_be_repeated() {
        let add = Edit::Add { by: 1, request: Some(RequestId(7)) };
        let counted = Record::default().edit(&add, dot(1, 1_000)).unwrap();
        let deleted = after(&counted, None, dot(1, 2_000));
        assert_eq!(deleted.due(), due(601_000, 601_000));
        assert!(!deleted.has_superseded(deleted.context(), 600_999));
        assert_eq!(deleted.forget(deleted.context(), 600_999), deleted);
        assert_eq!(deleted.forget(deleted.context(), 601_000), Record::default());
    }

    #[test]
    fn what_is_newer_than_was_agreed_on_stays() {
        let old = after(&Record::default(), Some(Content::plain("old")), dot(1, 1));
        let deleted = after(&old, None, dot(1, 2));
        let again = after(&deleted, Some(Content::plain("new")), dot(1, 3));
        assert_eq!(again.forget(deleted.context(), 9), again, "its actor's entry is that of a live value");
        let by_another = after(&deleted, Some(Content::plain("new")), dot(2, 3));
        let rest = by_another.forget(deleted.context(), 9);
        assert_eq!((rest.context().clone(), rest.siblings().len()), (context(&[dot(2, 3)]), 1));
        assert_eq!(old.forget(deleted.context(), 9), old, "live here, whatever others said");
    }

    #[test]
    fn a_late_copy_of_what_was_forgotten_is_told_from_what_is_new() {
        let old = after(&Record::default(), Some(Content::plain("old")), dot(1, 1));
        let (seen, unseen) = (context(&[dot(1, 2)]), context(&[dot(9, 9)]));
        let nothing = Record::default();
        assert!(nothing.without_superseded(&old, |dot| seen.covers(dot)).is_tombstone());
        assert_eq!(*nothing.without_superseded(&old, |dot| unseen.covers(dot)), old);
        assert_eq!(*old.without_superseded(&old, |dot| seen.covers(dot)), old, "it is held");
    }

    proptest! {
        /// The law that collection rests on: copies that have forgotten what all of them superseded merge to the same values
        /// as copies that have not, with each other and with any late copy, as long as the partition's context tells.
        #[test]
        fn forgetting_what_all_have_superseded_changes_nothing_that_is_shown(steps in steps()) {
            let late = play(&steps).map(|(record, _)| record);
            let all = late.iter().fold(Record::default(), |all, record| all.merge(record));
            let forgotten = all.forgettable(u64::MAX);
            let short = all.forget(&forgotten, u64::MAX);
            let seen = all.context().clone();
            let shown = |record: &Record| record.siblings().to_vec();
            prop_assert_eq!(shown(&short), shown(&all));
            for copy in &late {
                let news = short.without_superseded(copy, |dot| seen.covers(dot));
                prop_assert_eq!(shown(&short.merge(&news)), shown(&all), "a late copy");
            }
            // Writes that are new are never taken for old.
            for at in 0..6u64 {
                let new = Dot { stamp: Stamp(1 << 40 | at), actor: Actor(at % 4) };
                let written = all.write(&Seen::Only(Context::new()), new, Some(Content::plain("new")));
                let Ok(written) = written else { continue };
                let news = short.without_superseded(&written, |dot| seen.covers(dot));
                prop_assert_eq!(shown(&short.merge(&news)), shown(&written));
            }
        }
    }
}
