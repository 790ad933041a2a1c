//! What can happen in a world.

use super::faults::Trouble;
use super::node::Done;
use bytes::Bytes;
use kringle::operation::Failure;
use kringle::protocol::{Lane, SyncRequest};
use kringle::storage::Address;
use std::fmt;

/// Bytes on their way, of which a line about them tells only how many they are.
#[derive(Clone)]
pub(crate) struct Parcel(pub(crate) Bytes);

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What can happen.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Client(usize),
    Flush {
        node: usize,
        life: u32,
        to: usize,
        lane: Lane,
    },
    Arrived {
        node: usize,
        from: usize,
        from_life: u32,
        exchange: u64,
        bytes: Parcel,
        tags: Vec<Option<usize>>,
    },
    Replied {
        node: usize,
        life: u32,
        exchange: u64,
        bytes: Parcel,
    },
    Broken {
        node: usize,
        life: u32,
        exchange: u64,
        failure: Failure,
    },
    Committed {
        node: usize,
        life: u32,
    },
    Looked {
        node: usize,
        life: u32,
        address: Address,
        partial: bool,
        done: Done,
    },
    Compare {
        node: usize,
        life: u32,
        request: SyncRequest,
        done: Done,
    },
    Wake {
        node: usize,
        life: u32,
        id: u64,
    },
    Deadline {
        node: usize,
        life: u32,
        id: u64,
    },
    /// The time at which the liveness has something to do, as it said then.
    Liveness {
        node: usize,
        life: u32,
        at: u64,
    },
    HandOver {
        node: usize,
        life: u32,
    },
    Housekeeping {
        node: usize,
        life: u32,
    },
    Build {
        node: usize,
        life: u32,
    },
    Greet {
        node: usize,
        life: u32,
        peer: usize,
        at: u64,
    },
    /// What there is to do until a node counts.
    Watch {
        node: usize,
        life: u32,
        at: u64,
    },
    /// It is looked whether something may be forgotten.
    Forget {
        node: usize,
        life: u32,
    },
    SyncRound {
        node: usize,
        life: u32,
    },
    SyncReturned {
        node: usize,
        life: u32,
        peer: usize,
    },
    /// A node turns to those that go by another layout.
    Learn {
        node: usize,
        life: u32,
        at: u64,
    },
    /// A node that is to be a member asks for it.
    Belong {
        node: usize,
        life: u32,
    },
    /// It is looked how far the change of owners has come.
    Steward {
        node: usize,
        life: u32,
    },
    /// Whoever has not said by now how far it has come is not waited for.
    StewardDecides {
        node: usize,
        life: u32,
        round: u64,
    },
    /// It is looked whether there are copies that others keep now.
    LetGo {
        node: usize,
        life: u32,
    },
    /// A client's request is tried again under another layout: the number of what is kept of it.
    Again {
        node: usize,
        life: u32,
        number: u64,
    },
    /// An operator wants another layout.
    Wish(usize),
    Restart {
        node: usize,
    },
    Replug {
        node: usize,
    },
    RoomAgain {
        node: usize,
    },
    ClockGoesOn {
        node: usize,
    },
    Heal,
    Trouble(Trouble),
}
