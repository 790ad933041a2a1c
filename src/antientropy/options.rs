//! How a session is to go about it.

use crate::placement::MemberIndex;
use crate::record::Stamp;

/// How a session is to go about it.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// This node's time at the start: what was written later is passed over.
    pub settled: Stamp,
    /// The pause before keys are compared, in milliseconds.
    pub confirm_ms: u64,
    /// Members that may have writes under way: those that are believed alive, this node and the peer among them.
    pub coordinators: Vec<MemberIndex>,
    /// How long a write may be under way at most, in milliseconds: a coordinator that does not say counts as having begun
    /// one so long before the session.
    pub under_way_ms_max: u64,
    /// Whether nothing is passed over, also what is under way to both: for a node that will count on having all that its
    /// peer had. A record that is passed over for its latest write may hold older ones too.
    pub everything: bool,
    /// Whether what is compared is no longer this node's to keep: what the peer lacks is sent, and nothing is fetched.
    pub offers: bool,
}

impl SessionOptions {
    /// Up to when records are settled.
    pub(super) fn up_to(&self) -> Stamp {
        if self.everything { Stamp(u64::MAX) } else { self.settled }
    }
}
