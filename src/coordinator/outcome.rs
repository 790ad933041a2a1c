//! How a write ended, as the client is told.

use crate::protocol::Refusal;
use crate::record::{ContentKind, Context, Dot, Edit, Record, Seen};

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
        Edit::Add { .. } => Seen::OnlyAnd(Context::new(), dot),
        Edit::Write { seen, .. } => Seen::OnlyAnd(seen.context().cloned().unwrap_or_default(), dot),
    }
}
