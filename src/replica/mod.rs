//! Verbs: how a node answers what a peer, or itself, asks of its store.
//!
//! Pure translation: a request becomes a look-up or a [`Change`] for the committer, and what comes of it becomes
//! the answer. Nothing is decided here that the record's merge does not decide.

mod compare;
mod copies;
mod forgettable;
mod list;

pub use compare::{compare, is_quick, shared};
pub use copies::{Copied, copies};
pub use forgettable::{Candidate, Noted, count_spent, forgettable};
pub use list::{Ahead, Found, list};

use crate::protocol::{
    Answer, Follow, Greeting, LayoutRequest, ListRequest, MemberTag, Reach, Refusal, Request, SyncRequest,
};
use crate::record::{Context, Dot, Key, Proposal, Row};
use crate::storage::{Address, Change, Hint, Kind, Outcome, Refused};
use bytes::Bytes;

/// What must happen before a request can be answered.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// Commit this; [`committed`] turns the result into the answer.
    Commit(Change),
    /// Look this up; [`found`] turns the result into the answer.
    Read(Address),
    /// Note which of these the node has seen in the row's partition, and then look it up; [`found`] and [`having_seen`] turn
    /// the results into the answer.
    ReadSince(Address, Context),
    /// Have the owners agree on it.
    Propose {
        /// The key.
        key: Key,
        /// What is wanted; nothing, for an identity write.
        proposal: Option<Box<Proposal>>,
        /// Who must accept it.
        reach: Reach,
        /// How long it is waited for, in milliseconds.
        within_ms: u32,
    },
    /// Ask [`compare`].
    Compare(SyncRequest),
    /// Take note of how a peer stands, and say how this node does.
    Greet(Greeting),
    /// See what this node has under way as a coordinator, and whether it has hints for one of these.
    UnderWay([MemberTag; 2]),
    /// Hand these packets to the node's liveness.
    Gossip(Vec<Vec<u8>>),
    /// See what the layout is, and what is to become of it.
    Layout(LayoutRequest),
    /// Ask [`list`].
    List(ListRequest),
    /// Tell what there is behind a place of the node's feed, or wait for it.
    Follow(Follow),
}

/// The first step towards answering `request`.
pub fn step(request: Request) -> Step {
    match request {
        Request::Write { key, edit, until } => Step::Commit(Change::Write { key, edit, until }),
        Request::Merge { key, record } => Step::Commit(Change::Merge { key, record }),
        Request::Cover { key, other, dot } => Step::Commit(Change::Cover { key, other, dot }),
        Request::Hint { key, record, targets } => Step::Commit(Change::Hint { key, record, targets }),
        Request::HintWrite { key, edit, targets } => Step::Commit(Change::HintWrite { key, edit, targets }),
        Request::Read { key } => Step::Read(Address::data(&key)),
        Request::ReadSince { key, since } | Request::Confirm { key, since } => {
            Step::ReadSince(Address::data(&key), since)
        }
        Request::Prepare { key, ballot } => Step::Commit(Change::Prepare { key, ballot }),
        Request::Accept { key, record, next } => Step::Commit(Change::Accept { key, record, next }),
        Request::Yield { key } => Step::Commit(Change::Yield { key }),
        Request::Propose { key, proposal, reach, within_ms } => Step::Propose { key, proposal, reach, within_ms },
        Request::MayForget { keys } => Step::Commit(Change::MayForget { keys }),
        Request::Forget { keys } => Step::Commit(Change::Forget { keys }),
        Request::ReadHint { key } => Step::Read(Address::hint(&key)),
        Request::Sync(request) => Step::Compare(request),
        Request::Greet(greeting) => Step::Greet(greeting),
        Request::UnderWay { between } => Step::UnderWay(between),
        Request::Gossip { packets } => Step::Gossip(packets),
        Request::Layout(request) => Step::Layout(request),
        Request::List(request) => Step::List(request),
        Request::Follow(follow) => Step::Follow(follow),
    }
}

/// The answer to a request whose change was committed, or refused.
pub fn committed(result: Result<Outcome, Refused>) -> Answer {
    match result {
        Ok(Outcome::Written { created, record }) => Answer::Written { created, record },
        Ok(Outcome::Merged { applied, more }) => Answer::Merged { applied, more },
        Ok(Outcome::Promised { record }) => Answer::Promised { record },
        Ok(Outcome::Accepted { more }) => Answer::Accepted { more },
        Ok(Outcome::MayForget(may)) => Answer::MayForget(may),
        Ok(Outcome::Forgotten(keys)) => Answer::Forgotten(keys),
        Ok(Outcome::LetGo(_) | Outcome::Done) => Answer::Merged { applied: true, more: None },
        Err(refused) => Answer::Refused(refusal(&refused)),
    }
}

/// The answer of a node that had seen these dots before it looked up the row.
pub fn having_seen(answer: Answer, dots: Vec<Dot>) -> Answer {
    match answer {
        Answer::Found { record } if !dots.is_empty() => {
            Answer::Found { record: Some(record.unwrap_or_default().having_seen(dots)) }
        }
        answer => answer,
    }
}

/// The answer to a request whose row was in memory, where it came sound.
pub fn found_in_memory(address: &Address, row: Option<&Bytes>) -> Answer {
    match row {
        Some(row) if address.kind() == Kind::Data => match Row::decode_kept(row) {
            Ok(row) => Answer::Found { record: Some(row.record) },
            Err(_) => Answer::Refused(Refusal::Damaged),
        },
        row => found(address, row),
    }
}

/// The answer to a request whose row was looked up. A row that cannot be read is refused, never taken for absent.
pub fn found(address: &Address, row: Option<&Bytes>) -> Answer {
    let record = match row {
        None => None,
        Some(row) if address.kind() == Kind::Hint => match Hint::decode(row) {
            Ok(hint) => Some(hint.record),
            Err(_) => return Answer::Refused(Refusal::Damaged),
        },
        Some(row) => match Row::decode(row) {
            Ok(row) => Some(row.record),
            Err(_) => return Answer::Refused(Refusal::Damaged),
        },
    };
    Answer::Found { record }
}

/// What a peer is told of a change that was refused.
pub fn refusal(refused: &Refused) -> Refusal {
    match refused {
        Refused::Overtaken { latest } => Refusal::Overtaken { latest: *latest },
        Refused::StaleEpoch { epoch } => Refusal::StaleEpoch { epoch: *epoch },
        Refused::Promised { ballot } => Refusal::Promised { ballot: *ballot },
        Refused::Unfit(why) => Refusal::Unfit(*why),
        Refused::StampAhead(why) => Refusal::StampAhead(*why),
        Refused::HintsFull { .. } => Refusal::HintsFull,
        Refused::Damaged(_) => Refusal::Damaged,
        Refused::ReadOnly(why) => Refusal::ReadOnly { why: why.to_string() },
        Refused::Fenced(_) => Refusal::Fenced,
        Refused::Overloaded => Refusal::Overloaded,
        Refused::NodeFull { max } => Refusal::NodeFull { max: *max },
        Refused::NoTargets => Refusal::NoTargets,
        Refused::Unreadable(_) => Refusal::Unreadable,
    }
}
