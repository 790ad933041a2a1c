//! The lanes in which requests travel to a peer.

use super::message::Request;

/// Requests that wait for different things travel apart, so that a read never waits behind a write's fsync.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lane {
    /// Whatever ends in the committer.
    Writes,
    /// Whatever is only looked up.
    Reads,
    /// Records that sessions and hints move, looked up or committed: they give way to clients.
    Repairs,
    /// Proposals handed to an owner: each is over when other owners have answered.
    Proposals,
    /// Comparison, which may take a while.
    Digests,
    /// What nodes say of themselves.
    Gossip,
    /// Who is a member, and what is to become of that.
    Layout,
    /// Lists of keys, each of which takes many reads' time.
    Lists,
    /// What a node has to tell now.
    Following,
    /// The same, waited for: nothing that is wanted at once may stand behind it.
    Awaiting,
}

impl Lane {
    /// All lanes.
    pub const ALL: [Lane; 10] = [
        Lane::Writes,
        Lane::Reads,
        Lane::Repairs,
        Lane::Proposals,
        Lane::Digests,
        Lane::Gossip,
        Lane::Layout,
        Lane::Lists,
        Lane::Following,
        Lane::Awaiting,
    ];

    /// Whether the previous version of the protocol has requests that travel in it. Any other is said to no peer that
    /// speaks that.
    pub fn is_in_previous_version(self) -> bool {
        !matches!(self, Lane::Lists | Lane::Following | Lane::Awaiting)
    }

    /// The endpoint the lane's batches are posted to.
    pub fn path(self) -> &'static str {
        match self {
            Lane::Writes | Lane::Repairs | Lane::Proposals => "/replicate",
            Lane::Reads | Lane::Lists | Lane::Following | Lane::Awaiting => "/store/key",
            Lane::Digests => "/store/hash",
            Lane::Gossip => "/ping",
            Lane::Layout => "/cluster",
        }
    }
}

impl Request {
    /// The lane it travels in where no client waits for it.
    pub fn lane_in_background(&self) -> Lane {
        match self.lane() {
            Lane::Writes | Lane::Reads => Lane::Repairs,
            other => other,
        }
    }

    /// The lane it travels in.
    pub fn lane(&self) -> Lane {
        match self {
            Request::Read { .. } | Request::ReadSince { .. } | Request::ReadHint { .. } | Request::Confirm { .. } => {
                Lane::Reads
            }
            Request::Sync(_) => Lane::Digests,
            Request::Propose { .. } => Lane::Proposals,
            Request::Layout(_) => Lane::Layout,
            Request::List(_) => Lane::Lists,
            Request::Follow(follow) if follow.wait_ms > 0 => Lane::Awaiting,
            Request::Follow(_) => Lane::Following,
            Request::Greet(_) | Request::UnderWay { .. } | Request::Gossip { .. } => Lane::Gossip,
            _ => Lane::Writes,
        }
    }

    /// Whether it is about who keeps what: asked under another layout than the receiver's it is not answered. What nodes
    /// say of themselves and of the layout, and have to tell, is.
    pub fn is_bound_to_epoch(&self) -> bool {
        !matches!(self.lane(), Lane::Gossip | Lane::Layout | Lane::Following | Lane::Awaiting)
    }
}
