//! What a session did, in numbers.

use crate::operation::Failure;
use crate::placement::Partition;
use serde::{Serialize, Serializer};
use std::collections::BTreeSet;

/// The account of one session. Bytes are those of the messages, without HTTP around them.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Report {
    /// Round trips that waited for one another: each level of the comparison is one, with all its partitions, and the
    /// stream of records, in which the answer to one record lets a later one go, is one more, unless all of them came
    /// with the comparison. At most 5. What members are asked about writes and hints travels beside the second round, and
    /// is none.
    pub rounds: u64,
    /// Bytes sent, records included; all but a few to the peer.
    pub bytes_out: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Partitions that differed.
    pub partitions: u64,
    /// Partitions that could not be compared: one of the two is still building its digests, or does not keep them.
    pub not_built: u64,
    /// Leaves looked into; a partition of few keys counts as one.
    pub leaves: u64,
    /// Records the peer took from this node, and that changed something there.
    pub pushed: u64,
    /// Records this node took from the peer, and that changed something here.
    pub pulled: u64,
    /// Records sent either way that changed nothing: something else was quicker, or there is a bug.
    pub noop: u64,
    /// Records that one of the two would not take, or could not read.
    pub refused: u64,
    /// Those of them that the peer would not take.
    pub declined: u64,
    /// Those of these that it would not take as it had promised a later ballot: an identity write settles them.
    pub contested: u64,
    /// Why it ended before its time.
    pub failed: Option<Cause>,
    /// The partitions that differed or could not be compared: all others were equal.
    #[serde(skip)]
    pub unequal: BTreeSet<Partition>,
}

/// Why a session ended before its time. What it had moved by then is moved; the next one goes on.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Cause {
    /// The peer, or this node, did not do its part.
    #[error("{}", said(.0))]
    Failure(Failure),
    /// It took longer than it may.
    #[error("it took too long")]
    Deadline,
    /// Hints for one of the two are on their way, and go first: to be tried again shortly.
    #[error("hints are on their way and go first")]
    HintsFirst,
    /// An answer to another question than was asked: a bug of the peer.
    #[error("the peer answered something else than it was asked")]
    Nonsense,
}

impl Serialize for Cause {
    /// As a sentence, for people.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Report {
    /// Whether anything was changed anywhere.
    pub fn has_moved(&self) -> bool {
        self.pushed + self.pulled > 0
    }

    /// Whether each of the two now has all that the other had: nothing was passed over, left out or cut short.
    pub fn is_whole(&self) -> bool {
        self.failed.is_none() && self.refused == 0 && self.not_built == 0
    }

    /// Whether a node that is being filled now has all that the peer had. What the peer would not take is the peer's affair,
    /// such as where its clock is behind. But what it refused because of a promise may be out of date, and this node waits until
    /// that is settled, unless what it accepted [`stands`].
    ///
    /// [`stands`]: crate::membership::Filling::stands
    pub fn fills(&self, stands: bool) -> bool {
        let waits_for = self.refused - self.declined + if stands { 0 } else { self.contested };
        self.failed.is_none() && waits_for == 0 && self.not_built == 0
    }

    /// Whether the peer has more to do than another session: to be tried again shortly.
    pub fn is_busy(&self) -> bool {
        let busy = Cause::Failure(Failure::Refused(crate::protocol::Refusal::Overloaded));
        self.rounds == 1 && self.failed == Some(busy) || self.gave_way_to_hints()
    }

    /// Whether it is to be tried again once hints have been handed over.
    pub fn gave_way_to_hints(&self) -> bool {
        self.failed == Some(Cause::HintsFirst)
    }
}

fn said(failure: &Failure) -> String {
    match failure {
        Failure::Refused(refusal) => refusal.to_string(),
        Failure::Unreachable => "the peer cannot be reached".into(),
        Failure::Unknown => "the peer did not answer".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_filled_by_a_session_unless_it_lacks_something_or_may_hold_what_is_out_of_date() {
        let whole = Report::default();
        assert!(whole.fills(true) && whole.fills(false) && whole.is_whole());
        let behind = Report { refused: 2, declined: 2, ..whole.clone() };
        assert!(behind.fills(true) && behind.fills(false) && !behind.is_whole(), "a peer whose clock is behind");
        let promised = Report { refused: 2, declined: 2, contested: 1, ..whole.clone() };
        assert!(promised.fills(true) && !promised.fills(false));
        let unreadable = Report { refused: 3, ..promised };
        assert!(!unreadable.fills(true), "what this node would not take, or could not read, it lacks");
        for lacking in [Report { not_built: 1, ..whole.clone() }, Report { failed: Some(Cause::Deadline), ..whole }] {
            assert!(!lacking.fills(true));
        }
    }
}
