//! A member: a node as the layout knows it, and the ways to name it.

use super::identity::NodeId;
use serde::{Deserialize, Serialize};

/// Longest name, and longest url, of a member, in bytes. A DNS name has at most 253, the rest is scheme and port.
pub const NAME_BYTES_MAX: usize = 512;

/// Longest zone of a member, in bytes: it is a label people type.
pub const ZONE_BYTES_MAX: usize = 64;

/// Heaviest a member may be; what has no weight keeps nothing. Weight is relative, and 1 : 64 spans a Raspberry Pi to a rack server.
pub const WEIGHT_MAX: u16 = 64;

/// The name of a member, where it stands alone: in a hint, in what peers ask.
pub type MemberName = Box<str>;

/// One node of the cluster, as all nodes agreed on it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// The canonical URL it first had, 1 to [`NAME_BYTES_MAX`] bytes. Seeds its tokens for life, so it never
    /// changes, and no two members of a layout share one.
    pub name: String,
    /// The random id made with its data directory; `None` until the first ping has told it.
    pub id: Option<NodeId>,
    /// Where it is reached now, 1 to [`NAME_BYTES_MAX`] bytes. Placement doesn't look at it.
    pub url: String,
    /// What it shares a fate with (a rack, a data centre), up to [`ZONE_BYTES_MAX`] bytes. Empty: nothing is
    /// known, and it counts as a zone of its own.
    pub zone: String,
    /// Its capacity relative to the others', 0 to [`WEIGHT_MAX`]. Default 1. One of weight 0 is drained: it is a member like
    /// any other, and owns nothing in any table that is planned from then on.
    pub weight: u16,
}

impl Member {
    /// A member known by its first URL alone: no id yet, no zone, weight 1.
    pub fn new(name: impl Into<String>) -> Member {
        let name = name.into();
        Member { url: name.clone(), name, id: None, zone: String::new(), weight: 1 }
    }

    /// Whether every field keeps its bounds.
    pub(super) fn check(&self) -> Result<(), MemberError> {
        let printable = |text: &str| !text.chars().any(char::is_control);
        let line = |text: &str| !text.is_empty() && text.len() <= NAME_BYTES_MAX && printable(text);
        let member = || self.name.chars().filter(|c| !c.is_control()).take(64).collect();
        if !line(&self.name) {
            Err(MemberError::Name { member: member() })
        } else if !line(&self.url) {
            Err(MemberError::Url { member: member() })
        } else if self.zone.len() > ZONE_BYTES_MAX || !printable(&self.zone) {
            Err(MemberError::Zone { member: member() })
        } else if self.weight > WEIGHT_MAX {
            Err(MemberError::Weight { member: member(), weight: self.weight })
        } else {
            Ok(())
        }
    }
}

/// Which field of a member is out of bounds. Nothing was changed; the same member is refused again.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MemberError {
    /// The name is empty, too long or has control characters.
    #[error("the name of member {member:?} must be 1 to {NAME_BYTES_MAX} printable bytes")]
    Name {
        /// The beginning of its name.
        member: String,
    },
    /// The url is empty, too long or has control characters.
    #[error("the url of member {member:?} must be 1 to {NAME_BYTES_MAX} printable bytes")]
    Url {
        /// The beginning of its name.
        member: String,
    },
    /// The zone is too long or has control characters.
    #[error("the zone of member {member:?} must be at most {ZONE_BYTES_MAX} printable bytes")]
    Zone {
        /// The beginning of its name.
        member: String,
    },
    /// The weight is out of range.
    #[error("the weight of member {member:?} must be 0 to {WEIGHT_MAX}, not {weight}")]
    Weight {
        /// The beginning of its name.
        member: String,
        /// Its weight.
        weight: u16,
    },
}

/// A member's place in its layout's list, which is sorted by name. Means nothing in another layout: a join
/// shifts the numbers behind it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct MemberIndex(pub u16);

impl MemberIndex {
    pub(super) fn new(index: usize) -> MemberIndex {
        MemberIndex(u16::try_from(index).expect("a layout has at most MEMBERS_MAX members"))
    }

    /// As an array index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_out_of_bounds_are_named() {
        let good = Member::new("http://a:1");
        assert_eq!(good.check(), Ok(()));
        assert!(matches!(Member::new("").check(), Err(MemberError::Name { .. })));
        assert!(matches!(Member { url: "x\n".into(), ..good.clone() }.check(), Err(MemberError::Url { .. })));
        assert!(matches!(Member { zone: "z".repeat(65), ..good.clone() }.check(), Err(MemberError::Zone { .. })));
        assert!(matches!(Member { weight: 65, ..good.clone() }.check(), Err(MemberError::Weight { .. })));
        assert_eq!(Member { weight: 0, ..good }.check(), Ok(()));
    }
}
