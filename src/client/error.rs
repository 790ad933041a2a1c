//! What can keep a client's wish from being fulfilled. Each face of the node has words of its own for it.

use crate::coordinator::Replicas;
use crate::placement::{Mode, Partition};
use crate::protocol::Refusal;
use crate::record::{Key, Record};
use crate::storage::StoreError;

/// Why a wish was not fulfilled, or is not known to be.
#[derive(Debug)]
pub enum Error {
    /// Conditions were attached in a mode that promises nothing of them. Nothing was stored.
    NoConditions(Mode),
    /// A number of owners was named that no key has: `w` or `r`, 1 to `most`. Nothing was stored.
    NoSuchCount {
        /// Which of the two.
        name: &'static str,
        /// The cluster's replicas.
        most: u8,
    },
    /// A number of owners was named in a mode that says itself who must agree. Nothing was stored.
    CountInMode {
        /// Which of the two.
        name: &'static str,
        /// The mode.
        mode: Mode,
    },
    /// Fewer owners than wished have the write, or nobody. It may still surface.
    NotReplicated {
        /// How far it got.
        replicas: Replicas,
        /// How many owners it was to reach.
        needed: usize,
        /// Why the last owner that refused it did so.
        cause: Option<Refusal>,
        /// Whether it may be made once more without counting twice.
        may_repeat: bool,
    },
    /// The request wants more owners than there are. Nothing was stored, and nothing will surface.
    NotEnoughOwners {
        /// How many it wants.
        needed: usize,
        /// How many there are.
        owners: usize,
    },
    /// Fewer owners than wished answered a read.
    NotAnswered {
        /// How many did.
        answered: usize,
        /// How many were needed.
        needed: usize,
        /// How many others are still being filled from their peers.
        unfilled: usize,
        /// Whether the mode is one that agrees.
        agrees: bool,
    },
    /// Of some partitions fewer owners than wished told what there is of keys: any of the keys asked for may be there.
    NotListed {
        /// One of them.
        partition: Partition,
        /// How many there are.
        partitions: usize,
        /// How many of its owners did.
        answered: usize,
        /// How many were needed.
        needed: usize,
    },
    /// Whoever answered had not seen all that the client's context shows.
    Behind {
        /// How many answered.
        answered: usize,
    },
    /// Too few owners agreed, and none has it. Nothing was stored, and nothing will surface.
    NotAgreed {
        /// How many could be had.
        answered: usize,
        /// How many were needed.
        needed: usize,
        /// Why the last one that refused did so.
        cause: Option<Refusal>,
    },
    /// The condition of a write is not true. Nothing was stored.
    Unmet {
        /// The key.
        key: Key,
        /// What it holds, agreed on.
        record: Box<Record>,
        /// When that was found, in milliseconds since 1970.
        now_ms: u64,
    },
    /// A node said no.
    Refused(Refusal),
    /// The members have not agreed yet on who they are. Nothing was stored.
    NotEstablished {
        /// The mode that waits for it.
        mode: Mode,
        /// The nodes still to agree.
        awaiting: Vec<String>,
    },
    /// This node does not keep the key, or not all of it yet.
    NotHere,
    /// This node's store did.
    Store(StoreError),
    /// The node broke its own word. A write may still surface.
    Bug(&'static str),
}

impl Error {
    /// Whether the same may go well in a moment, where the layout is changing, and asking again does no harm.
    pub(super) fn is_worth_another_try(&self) -> bool {
        match self {
            Error::NotReplicated { may_repeat, .. } => *may_repeat,
            Error::NotAnswered { .. } | Error::NotListed { .. } | Error::NotAgreed { .. } | Error::Behind { .. } => {
                true
            }
            Error::Refused(Refusal::StaleEpoch { .. }) => true,
            _ => false,
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Error {
        Error::Store(error)
    }
}
