//! Kringle: a replicated key-value store made of equal peers that speak HTTP.
//!
//! Every node takes every request. Consistent hashing decides which nodes keep a key, peers compare Merkle
//! digests of what they share and push only what differs. Modules stand in reading order: nouns first, the
//! shell last. A module may name only modules above it here (`tests/architecture.rs` holds this list to it).
//!
//! | storey | rooms | may know |
//! | --- | --- | --- |
//! | nouns | [`record`], [`placement`], [`merkle`] | nothing outside |
//! | seams | [`membership`], [`protocol`], [`operation`], [`storage`] | nouns |
//! | verbs | [`replica`], [`coordinator`], [`antientropy`], [`watching`] | nouns and seams, never each other |
//! | shell | `config`, `node`, `client`, `resp`, `http`, `remote` | everything below, and the outside world |
//!
//! Invariants that hold everywhere:
//!
//! - Every change of a stored value is [`record::Record::merge`], inside [`storage::Committer`].
//! - Below the shell there is no clock, no chance, no thread and no socket: time and randomness are arguments.
//! - What was asked for under an earlier layout is refused inside the committer.
//! - Placement is computed from the stored [`placement::Layout`] alone.

pub mod record;

pub mod placement;

pub mod merkle;

pub mod membership;

pub mod protocol;

pub mod operation;

pub mod storage;

pub mod replica;

pub mod coordinator;

pub mod antientropy;

pub mod watching;

#[cfg(feature = "shell")]
pub mod config;

#[cfg(feature = "shell")]
pub mod node;

#[cfg(feature = "shell")]
pub mod client;

#[cfg(feature = "resp")]
pub mod resp;

#[cfg(feature = "shell")]
pub mod http;

#[cfg(feature = "shell")]
pub mod remote;
