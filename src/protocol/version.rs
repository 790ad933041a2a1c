//! Versions of the protocol: a node speaks its own and the previous one, so that a cluster can be upgraded node by node.
//!
//! - Version 1: the requests and answers whose bytes `tests/previous/` keeps.
//! - Version 2: the same in the same form. Whatever is added to it stands behind them, at the end of its enum, and is said to
//!   no peer that speaks version 1; where an answer has to be, it is the nearest that version 1 has. Its layouts may hold members of weight 0, which a node of version 1 cannot read.
//!
//! So what both versions can say has the same bytes in both, and only the number in front of it differs. What a version
//! once said, and in which bytes, never changes.

use super::MalformedMessage;
use std::fmt;

/// The version this node speaks by itself.
pub const PROTOCOL_VERSION: ProtocolVersion = ProtocolVersion(2);

/// The version it goes over to where a peer speaks no later one.
pub const PREVIOUS_VERSION: ProtocolVersion = ProtocolVersion(1);

/// The status with which a node refuses a message of a version that it does not speak.
const REFUSAL_STATUS: u16 = 400;

/// What a node of the previous version answers, with that status, to a message in this node's own. It has executed nothing
/// of it.
const REFUSAL_BY_PREVIOUS: &str = r#"{"error":"the message is in protocol version 2, this node speaks 1","hint":"peers speak application/vnd.kringle, protocol version 1"}"#;

/// A version that this node speaks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProtocolVersion(u8);

impl ProtocolVersion {
    /// The first byte of a message.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The version with this number.
    pub(super) fn of(number: u8) -> Result<ProtocolVersion, MalformedMessage> {
        let version = [PROTOCOL_VERSION, PREVIOUS_VERSION].into_iter().find(|version| version.0 == number);
        version.ok_or(MalformedMessage::OtherVersion(number))
    }

    /// Whether a response with this status and body refuses a message in [`PROTOCOL_VERSION`] because the node speaks
    /// [`PREVIOUS_VERSION`] only: what was asked was surely not done, and may be asked again in that.
    pub fn is_refused_for_previous(status: u16, body: &[u8]) -> bool {
        status == REFUSAL_STATUS && body == REFUSAL_BY_PREVIOUS.as_bytes()
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_refusal_of_the_previous_version_is_taken_for_it() {
        assert!(ProtocolVersion::is_refused_for_previous(400, REFUSAL_BY_PREVIOUS.as_bytes()));
        assert!(!ProtocolVersion::is_refused_for_previous(503, REFUSAL_BY_PREVIOUS.as_bytes()));
        assert!(!ProtocolVersion::is_refused_for_previous(
            400,
            br#"{"error":"the message was damaged on the way","hint":""}"#
        ));
        let of_another = REFUSAL_BY_PREVIOUS.replace("version 2", "version 3");
        assert!(!ProtocolVersion::is_refused_for_previous(400, of_another.as_bytes()));
    }
}
