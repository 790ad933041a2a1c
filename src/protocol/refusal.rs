//! Why a node said no. Each line says whether anything changed, and who should act.

use crate::record::{Ballot, Stamp, StampAhead, Unfit};
use serde::{Deserialize, Serialize};

/// A node's no. Nothing was changed unless the line says otherwise.
#[derive(Clone, PartialEq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// The edit does not fit what the key holds; the client must act.
    #[error(transparent)]
    Unfit(Unfit),
    /// Others have written the key since the write began; one who still waits for it may ask again.
    #[error("the key was written again since the write began")]
    Overtaken {
        /// The latest stamp known of the key there.
        latest: Stamp,
    },
    /// A later ballot was promised; the proposer may begin anew with one that is later still.
    #[error("another proposal of this key came first")]
    Promised {
        /// The ballot.
        ballot: Ballot,
    },
    /// A clock is wrong: the client's, the peer's, or this node's.
    #[error(transparent)]
    StampAhead(StampAhead),
    /// The node keeps no more hints for that member; an operator must bring the member back.
    #[error("no room for more hints")]
    HintsFull,
    /// What the node holds for the key cannot be read; it is left as it is.
    #[error("the stored row is damaged")]
    Damaged,
    /// A hint for nobody; a bug of the sender.
    #[error("the hint names nobody it is for")]
    NoTargets,
    /// The node cannot read its disk; another owner may answer.
    #[error("the node cannot read its store")]
    Unreadable,
    /// The node's disk is full or failing; another owner may take it. A write may still surface there after a crash.
    #[error("the node is read-only: {why}")]
    ReadOnly {
        /// What its disk says, for people.
        why: String,
    },
    /// The node could not sync: this write may be durable there. It needs a restart.
    #[error("the node is fenced until a restart")]
    Fenced,
    /// The node has more to do than it can; try again shortly.
    #[error("the node is overloaded")]
    Overloaded,
    /// The node belongs to another cluster; an operator mixed up addresses.
    #[error("the node belongs to another cluster")]
    OtherCluster,
    /// The address now belongs to another node than the sender knew; learn its id anew and try again.
    #[error("another node answers at this address")]
    OtherNode,
    /// The sender's layout is older than this node's.
    #[error("the layout has moved on to epoch {epoch}")]
    StaleEpoch {
        /// The epoch of the node that refuses.
        epoch: u64,
    },
    /// The node is an owner that does not hold its share yet, and makes no writes of its own; another owner does.
    #[error("the node is still being filled from its peers")]
    NotFilled,
    /// The node's clock is far ahead of its peers', and it makes no writes of its own; an operator must set it right.
    #[error("the node's clock is {ahead_ms} ms ahead of most of its peers'")]
    ClockAhead {
        /// By how much, in milliseconds.
        ahead_ms: u64,
    },
    /// The time the sender gave had already passed.
    #[error("the deadline had passed")]
    TooLate,
    /// The node is no member of the cluster, and keeps nothing for it; a member may answer.
    #[error("the node is no member of the cluster")]
    NotAMember,
    /// The key has no value, and as many keys as may have one on the node that was to make it; the client, or an operator,
    /// must act. Said to no peer of the previous version, which hears that the node is read-only.
    #[error("node full: max keys {max} reached")]
    NodeFull {
        /// How many that is.
        max: u64,
    },
}

impl Refusal {
    /// Whether it is about the one thing asked, so that the next may fare better; any other is about the node, which
    /// will answer the same to whatever is asked for the time being.
    pub fn is_about_request(&self) -> bool {
        match self {
            Refusal::Unfit(_)
            | Refusal::Overtaken { .. }
            | Refusal::Promised { .. }
            | Refusal::StampAhead(_)
            | Refusal::HintsFull
            | Refusal::Damaged
            | Refusal::NoTargets
            | Refusal::NodeFull { .. }
            | Refusal::Unreadable => true,
            Refusal::ReadOnly { .. }
            | Refusal::Fenced
            | Refusal::Overloaded
            | Refusal::OtherCluster
            | Refusal::OtherNode
            | Refusal::StaleEpoch { .. }
            | Refusal::NotFilled
            | Refusal::ClockAhead { .. }
            | Refusal::NotAMember
            | Refusal::TooLate => false,
        }
    }

    /// The same in the words of the previous version, where it has none for it: such a peer tries another owner, and tells
    /// its client why.
    pub(super) fn in_previous_version(&self) -> Option<Refusal> {
        match self {
            Refusal::NodeFull { .. } => Some(Refusal::ReadOnly { why: self.to_string() }),
            _ => None,
        }
    }
}
