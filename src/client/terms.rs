//! How far a write is to get before its client is told, and whom a read is to ask.

use super::Error;
use crate::config::Wanted;
use crate::coordinator::{Count, Quorum};
use crate::node::Worker;
use crate::placement::{Mode, Ring};
use crate::record::Context;
use std::time::Duration;

/// The part of `--timeout` within which an operation concludes; the rest is for carrying its answer home.
pub(super) const DEADLINE_SHARE: f64 = 0.9;
/// How long a read waits for a silent owner before it asks another, at most; and for all of them, before it asks stand-ins.
pub(super) const READ_PATIENCE_MAX: Duration = Duration::from_millis(100);

/// How far a write is to get before its client is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WriteTerms {
    /// The mode; the cluster's own without it.
    pub mode: Option<Mode>,
    /// How many owners must have it, 1 to the cluster's replicas; what the mode and the node's settings say without it.
    /// Only in the modes that do not agree.
    pub w: Option<u8>,
}

/// Whom a read is to ask.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReadTerms {
    /// The mode; the cluster's own without it.
    pub mode: Option<Mode>,
    /// How many owners must answer, 1 to the cluster's replicas; what the mode and the node's settings say without it.
    /// Only in the modes that do not agree.
    pub r: Option<u8>,
    /// Whether this node alone is asked, for what it holds itself.
    pub local: bool,
    /// Whether every owner is asked, and its answer kept.
    pub explain: bool,
    /// What the client has been shown of the key: an older answer is none.
    pub since: Context,
}

/// The mode of a request that may name one.
pub(super) fn mode(named: Option<Mode>, ring: &Ring) -> Mode {
    named.unwrap_or(ring.layout().mode())
}

/// A number of owners that a request may name.
#[derive(Clone, Copy)]
pub(super) enum Counted {
    W(Option<u8>),
    R(Option<u8>),
}

impl Counted {
    fn parts(self) -> (&'static str, Option<u8>) {
        match self {
            Counted::W(named) => ("w", named),
            Counted::R(named) => ("r", named),
        }
    }

    /// How many owners the request wants, by its own word, or else by the node's setting; and whether it was its own.
    pub(super) fn quorum(self, worker: &Worker, mode: Mode, owners: usize) -> Result<(Quorum, bool), Error> {
        let settings = &worker.node.settings;
        let (name, named) = self.parts();
        if let Some(wanted) = named {
            let most = worker.node.ring().layout().replicas();
            if !(1..=most).contains(&wanted) {
                return Err(Error::NoSuchCount { name, most });
            }
            let quorum = Quorum::of(Count::Exactly(wanted), owners);
            let refused = Error::NotEnoughOwners { needed: usize::from(wanted), owners };
            return quorum.map(|quorum| (quorum, true)).ok_or(refused);
        }
        let default = if name == "w" { settings.w } else { settings.r };
        let wanted = match default {
            _ if mode == Mode::Async => Count::Exactly(1),
            Wanted::Majority => Count::Majority,
            Wanted::Owners(count) => Count::Exactly(count.min(owners) as u8),
        };
        Ok((Quorum::of(wanted, owners).unwrap_or(Quorum::one()), false))
    }

    /// A number of owners has no place where the mode itself says who must agree.
    pub(super) fn refuse_in(self, mode: Mode) -> Result<(), Error> {
        match self.parts() {
            (name, Some(_)) => Err(Error::CountInMode { name, mode }),
            (_, None) => Ok(()),
        }
    }
}
