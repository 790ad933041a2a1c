//! What the calls of a session are for.

use super::stream::Move;

/// What a call is for.
pub(super) enum Purpose {
    Root,
    Groups,
    Trees,
    Subtrees,
    Differing,
    UnderWay,
    List,
    Compare,
    /// Fetch the peer's record, to merge it here.
    Fetch(Move),
    /// Read this node's record, to send it.
    Load(Move),
    /// Merge this node's record there.
    Push(Move),
    /// Merge the peer's record here. One that came as `more` of a push is no repair of its own.
    Keep {
        bytes: u64,
        is_more: bool,
    },
    /// Let go of what was accepted here alone.
    Yield(Move),
    Over,
}

impl Purpose {
    /// Whether this node is asked, not the peer.
    pub(super) fn is_at_home(&self) -> bool {
        let looks = matches!(self, Purpose::Trees | Purpose::Differing | Purpose::List | Purpose::Load(_));
        looks || matches!(self, Purpose::Keep { .. } | Purpose::Yield(_))
    }

    /// The bytes of the record that travels, if one does.
    pub(super) fn record_bytes(&self) -> Option<u64> {
        match self {
            Purpose::Fetch(moved) | Purpose::Load(moved) | Purpose::Push(moved) | Purpose::Yield(moved) => {
                Some(moved.bytes)
            }
            Purpose::Keep { bytes, .. } => Some(*bytes),
            _ => None,
        }
    }
}
