//! How a write ended, as the client is told.

use crate::protocol::Refusal;
use crate::record::{ContentKind, Context, Dot, Edit, Record, Seen, Sibling};

/// How far a write got.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Replicas {
    /// Owners of the key.
    pub wanted: usize,
    /// Owners that have it durably.
    pub acked: usize,
    /// Further owners for whom another node keeps it durably.
    pub hinted: usize,
}

/// How a write ended.
#[derive(Clone, PartialEq, Debug)]
pub enum PutOutcome {
    /// As many owners have it as were asked for.
    Stored {
        /// Whether the key had no live value before.
        created: bool,
        /// The record as its first owner has it.
        record: Record,
        /// What the client may say it has seen.
        seen: Seen,
        /// How far it got.
        replicas: Replicas,
    },
    /// It is durable somewhere, on fewer owners than were asked for.
    Short {
        /// The record as its first holder has it.
        record: Record,
        /// What the client may say it has seen.
        seen: Seen,
        /// How far it got.
        replicas: Replicas,
    },
    /// It is not known to be where it was asked to be; it may still surface.
    Unknown {
        /// How far it got.
        replicas: Replicas,
        /// Why the last owner that refused it did so.
        cause: Option<Refusal>,
        /// Whether nobody can have made it.
        is_nowhere: bool,
    },
    /// An owner said no for a reason that every other owner would share. Nothing was stored.
    Refused(Refusal),
}

/// What a client may say it has seen after its own edit, which made `dot` and left `record`. Where another value is live
/// beside its own, the record's context covers that too, and a next write with it would supersede a value the client was
/// never shown: there it is what it had seen before, and its own write. A counter shows all there is in one sum, beside
/// one value at most.
pub(super) fn seen_by_writer(edit: &Edit, dot: Dot, record: &Record) -> Seen {
    let plain = || record.siblings().iter().filter(|sibling| sibling.content.kind == ContentKind::Plain);
    match edit {
        Edit::Add { .. } if plain().count() <= 1 => Seen::Only(record.context().clone()),
        Edit::Write { content, .. }
            if record.siblings().iter().all(|sibling| Some(&sibling.content) == content.as_ref()) =>
        {
            Seen::Only(record.context().clone())
        }
        // A repetition made no dot: this one may be anybody's.
        Edit::Add { .. } if plain().any(|sibling| sibling.dot == dot) => Seen::Only(Context::new()),
        Edit::Add { .. } => seen_and_own(Context::new(), dot, record),
        Edit::Write { seen, .. } => seen_and_own(seen.context().cloned().unwrap_or_default(), dot, record),
    }
}

/// What was seen before, and an own write that left `record`. Its actor's earlier dots are claimed with it, which is exact
/// where the record shows none of them: they were superseded. Then whoever writes next with it supersedes the own write
/// wherever that is, held there or still on its way.
fn seen_and_own(mut before: Context, own: Dot, record: &Record) -> Seen {
    let is_earlier = |sibling: &Sibling| {
        sibling.agreed.is_none() && sibling.dot.actor == own.actor && sibling.dot < own && !before.covers(sibling.dot)
    };
    if record.siblings().iter().any(is_earlier) {
        return Seen::OnlyAnd(before, own);
    }
    before.add(own);
    Seen::Only(before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Actor, Content, Stamp};

    fn dot(actor: u64, stamp: u64) -> Dot {
        Dot { stamp: Stamp(stamp), actor: Actor(actor) }
    }

    fn edit(seen: Seen, value: &'static str) -> Edit {
        Edit::write(seen, Some(Content::plain(value)))
    }

    #[test]
    fn an_own_write_is_superseded_wherever_it_is_also_where_others_stand_beside_it() {
        let base = Record::default().edit(&edit(Seen::Everything, "base"), dot(1, 1)).unwrap();
        let unseen = base.edit(&edit(Seen::Only(base.context().clone()), "unseen"), dot(2, 2)).unwrap();
        let own = edit(Seen::Only(base.context().clone()), "own");
        let held = unseen.edit(&own, dot(3, 3)).unwrap();
        let seen = seen_by_writer(&own, dot(3, 3), &held);
        let next = edit(seen, "next");
        // Made where the own write has not arrived.
        let elsewhere = unseen.edit(&next, dot(4, 4)).unwrap();
        let left = elsewhere.merge(&held);
        assert!(left.siblings().iter().map(|sibling| sibling.dot).eq([dot(2, 2), dot(4, 4)]), "{left:?}");
    }

    #[test]
    fn an_earlier_write_of_the_same_actor_that_was_not_shown_is_not_claimed() {
        let first = edit(Seen::Only(Context::new()), "not shown");
        let held = Record::default().edit(&first, dot(3, 2)).unwrap();
        let own = edit(Seen::Only(Context::new()), "own");
        let held = held.edit(&own, dot(3, 3)).unwrap();
        let seen = seen_by_writer(&own, dot(3, 3), &held);
        assert_eq!(seen, Seen::OnlyAnd(Context::new(), dot(3, 3)));
        let left = held.edit(&edit(seen, "next"), dot(4, 4)).unwrap();
        assert!(left.siblings().iter().map(|sibling| sibling.dot).eq([dot(3, 2), dot(4, 4)]), "{left:?}");
    }
}
