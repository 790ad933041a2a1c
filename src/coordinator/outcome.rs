//! How a write ended, as the client is told.

use crate::protocol::Refusal;
use crate::record::Record;

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
        /// How far it got.
        replicas: Replicas,
    },
    /// It is durable somewhere, on fewer owners than were asked for.
    Short {
        /// The record as its first holder has it.
        record: Record,
        /// How far it got.
        replicas: Replicas,
    },
    /// It is not known to be where it was asked to be; it may still surface.
    Unknown {
        /// How far it got.
        replicas: Replicas,
        /// Why the last owner that refused it did so.
        cause: Option<Refusal>,
    },
    /// An owner said no for a reason that every other owner would share. Nothing was stored.
    Refused(Refusal),
}
