//! What a client wants written, and how a [`Put`](super::Put) is to go about it.

use crate::coordinator::Quorum;
use crate::placement::MemberIndex;
use crate::record::{Edit, Key, Record, Stamp};

/// What a client wants written.
#[derive(Clone, PartialEq, Debug)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// What is to become of it.
    pub edit: Edit,
}

/// How a [`Put`](super::Put) is to go about it.
#[derive(Clone, Debug)]
pub struct PutOptions {
    /// How many owners must have it before the client is told.
    pub quorum: Quorum,
    /// Whether falling short is an error: the client named a number.
    pub hard: bool,
    /// Whether a plain write sees to it that it supersedes older siblings found on other owners.
    pub covers: bool,
    /// This node's time at the start: its wall clock's, and no earlier than any stamp it has heard of.
    pub now: Stamp,
    /// The whole time there is, in milliseconds.
    pub deadline_ms: u64,
    /// Members believed to be down: asked last.
    pub avoid: Vec<MemberIndex>,
    /// What an earlier try of the same left that fell short, as under another layout.
    pub earlier: Option<Record>,
}
