//! What nodes say to each other about who is a member, and what is to become of that.
//!
//! Layouts travel as the bytes of [`Layout::encode`], which carry a checksum and are checked by whoever takes them.

use super::MalformedMessage;
use crate::membership::Round;
use crate::placement::{ClusterId, LAYOUT_BYTES_MAX, Member, Mode, NodeId, Partition};
use serde::{Deserialize, Serialize};

/// The last round of a decree. A proposer needs a handful; beyond the last one nothing could be decided.
pub const ROUNDS_MAX: u64 = 1 << 40;

/// The questions.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum LayoutRequest {
    /// This is the sender, and this the layout it goes by: what do you go by? Whoever is behind learns. → [`LayoutAnswer::Standing`]
    Hello {
        /// The id of the cluster's name: nodes of differently named clusters have nothing to say to each other.
        name: ClusterId,
        /// The sender, as it would be a member.
        member: Member,
        /// Its layout; the provisional one of a fresh node lists whom it was told of.
        layout: Vec<u8>,
    },
    /// How far has the change under way come with you? → [`LayoutAnswer::Progress`]
    Progress,
    /// Promise to accept no layout of that epoch under an earlier round. → [`LayoutAnswer::Promised`]
    Prepare {
        /// The epoch, the one after the receiver's.
        epoch: u64,
        /// The round.
        round: Round,
    },
    /// Accept this layout for its epoch. → [`LayoutAnswer::Accepted`]
    Accept {
        /// The round.
        round: Round,
        /// The layout.
        layout: Vec<u8>,
    },
    /// Have the members agree on a change. → [`LayoutAnswer::Planned`]
    Change {
        /// Which.
        wish: LayoutWish,
    },
}

/// A change of the layout that somebody asks for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum LayoutWish {
    /// A node wants to be a member. One whose name is a member already has lost its disk, or moved.
    Join(Member),
    /// This member is to hand over what it keeps and go.
    Leave(String),
    /// This is to be the mode of requests that name none.
    Mode(Mode),
    /// A key is to have so many owners.
    Replicas(u8),
    /// The change of owners under way is to be given up.
    Abandon,
    /// This member is down, and is no longer to be one.
    Remove(String),
    /// This member is down, and a node takes its place.
    Replace {
        /// Who is down.
        dead: String,
        /// The node.
        with: Member,
    },
    /// A member is to have this zone and weight.
    Refit {
        /// Who.
        name: String,
        /// Its zone; empty, if it shares its fate with none.
        zone: String,
        /// Its weight; 0, where it is to hand over all that it keeps.
        weight: u16,
    },
}

/// The answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum LayoutAnswer {
    /// How the receiver stands.
    Standing {
        /// The id of its cluster's name.
        name: ClusterId,
        /// The receiver, as it is or would be a member, with its id.
        member: Member,
        /// Its layout.
        layout: Vec<u8>,
    },
    /// How far it has come with the change under way.
    Progress(Progress),
    /// It is promised, durably, by the store with this id.
    Promised {
        /// The id.
        by: NodeId,
        /// What it accepted before, if anything.
        accepted: Option<(Round, Vec<u8>)>,
    },
    /// It is accepted, durably, by the store with this id.
    Accepted {
        /// The id.
        by: NodeId,
    },
    /// A later round was promised.
    Outvoted {
        /// The round.
        round: Round,
    },
    /// The change is agreed on.
    Planned {
        /// The epoch in which it begins.
        epoch: u64,
    },
    /// There will be no such change, as things are.
    Declined {
        /// Why, for people.
        why: String,
    },
    /// Too few members could be had; it may still come about.
    Unavailable {
        /// Why, for people.
        why: String,
    },
}

/// How far a member has come with a change of owners.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The epoch of the layout by which it answers.
    pub epoch: u64,
    /// Partitions that it is to keep and has not taken in whole, each with how many keys it has of it.
    pub lacking: Vec<(Partition, u64)>,
    /// Partitions that are not its to keep any more and of which it still has something, with how many keys.
    pub foreign: Vec<(Partition, u64)>,
    /// How many keys it owns.
    pub keys: u64,
    /// Whether it holds all that it owns by what reads go by, as far as it knows.
    pub is_filled: bool,
    /// Another number after each start and each time that it lost rows.
    pub unbroken: u64,
}

impl LayoutRequest {
    /// About how many bytes it takes on the wire.
    pub(super) fn size_hint(&self) -> usize {
        match self {
            LayoutRequest::Hello { layout, .. } | LayoutRequest::Accept { layout, .. } => 256 + layout.len(),
            LayoutRequest::Progress | LayoutRequest::Prepare { .. } | LayoutRequest::Change { .. } => 256,
        }
    }

    /// Holds it to its limits.
    pub(super) fn check(&self) -> Result<(), MalformedMessage> {
        match self {
            LayoutRequest::Prepare { round, .. } | LayoutRequest::Accept { round, .. } if round.number > ROUNDS_MAX => {
                Err(MalformedMessage::Limit("a round that nobody comes to by counting"))
            }
            LayoutRequest::Hello { layout, .. } | LayoutRequest::Accept { layout, .. }
                if layout.len() > LAYOUT_BYTES_MAX =>
            {
                Err(MalformedMessage::Limit("a layout of more members than there may be"))
            }
            _ => Ok(()),
        }
    }
}
