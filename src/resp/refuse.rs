//! Errors as lines. The first word tells programs what became of a write:
//!
//! | word | a write |
//! | --- | --- |
//! | `ERR` | was not made: it makes no sense, or does not fit what the key holds |
//! | `OOM` | was not made: the key has no value, and the node keeps as many keys as it may |
//! | `UNAVAILABLE` | was not made: too few nodes could be had; the same may go well later |
//! | `TRYAGAIN` | was not made: others wrote the key each time it was tried |
//! | `UNCERTAIN` | is on fewer nodes than the mode wants, or nobody knows: it may still surface |

use super::reply::Reply;
use crate::client::Error;
use crate::placement::Mode;
use crate::protocol::Refusal;
use crate::record::{KeyError, Unfit};

pub(super) const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
pub(super) const SYNTAX: &str = "ERR syntax error";

/// The line for what kept a wish from being fulfilled.
pub(super) fn line(error: Error) -> Reply {
    let caused = |cause: Option<Refusal>| cause.map_or_else(String::new, |cause| format!(": {cause}"));
    Reply::Error(match error {
        Error::NoConditions(mode) => needs_quorum(mode),
        Error::NoSuchCount { name, most } => format!("ERR {name} must be a number from 1 to {most}"),
        Error::CountInMode { name, mode } => format!("ERR {name} has no meaning in mode {mode}"),
        Error::NotReplicated { replicas, needed, cause, may_repeat: _ } => {
            let acked = replicas.acked;
            format!(
                "UNCERTAIN {acked} of the {needed} owners asked for have the write, and it may still surface{}",
                caused(cause)
            )
        }
        Error::NotEnoughOwners { needed, owners } => {
            format!("UNAVAILABLE {needed} owners were asked for and the key has {owners}: nothing was stored")
        }
        Error::NotAnswered { answered, needed, .. } => {
            format!("UNAVAILABLE {answered} of the {needed} owners needed answered")
        }
        Error::NotListed { partition, partitions, answered, needed } => format!(
            "UNAVAILABLE of {partitions} partitions, such as {}, {answered} of the {needed} owners needed told their keys",
            partition.index()
        ),
        Error::Behind { answered } => format!("UNAVAILABLE {answered} owners answered, and none had what was seen"),
        Error::NotAgreed { answered, needed, cause } => format!(
            "UNAVAILABLE {answered} of the {needed} owners that must agree could be had, and nothing was stored{}",
            caused(cause)
        ),
        Error::Unmet { .. } => "TRYAGAIN the key has changed meanwhile, and nothing was stored".to_owned(),
        Error::Refused(Refusal::Unfit(Unfit::NotACounter)) => NOT_AN_INTEGER.to_owned(),
        Error::Refused(Refusal::Unfit(Unfit::Overflow)) => "ERR increment or decrement would overflow".to_owned(),
        Error::Refused(Refusal::Unfit(why)) => format!("ERR {why}"),
        Error::Refused(why @ Refusal::StampAhead(_)) => format!("ERR {why}"),
        // Redis's word for it, which its clients know.
        Error::Refused(why @ Refusal::NodeFull { .. }) => format!("OOM command not allowed, {why}: nothing was stored"),
        Error::Refused(why @ Refusal::Fenced) => format!("UNCERTAIN {why}: a write may still surface"),
        Error::Refused(why) => format!("UNAVAILABLE {why}"),
        Error::NotEstablished { mode, .. } => {
            format!("UNAVAILABLE the cluster is not established yet, and mode {mode} waits for that")
        }
        Error::NotHere => "UNAVAILABLE this node does not keep the key".to_owned(),
        Error::Store(error) => format!("UNAVAILABLE {error}"),
        Error::Bug(what) => format!("UNCERTAIN {what}: this is a bug of the node, and a write may still surface"),
    })
}

/// What only one mode can do.
pub(super) fn needs_quorum(mode: Mode) -> String {
    format!("ERR mode {mode} cannot do this in one step: send KRINGLE.MODE quorum first, in which owners agree")
}

pub(super) fn key(error: KeyError) -> Reply {
    match error {
        KeyError::Empty => Reply::error("ERR the key is empty: it has at least one byte here"),
        KeyError::TooLong { max, .. } => {
            Reply::Error(format!("ERR the key is longer than {max} bytes, which --key-max allows"))
        }
    }
}

pub(super) fn syntax() -> Reply {
    Reply::error(SYNTAX)
}
