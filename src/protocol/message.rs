//! What peers ask and answer.

use super::Refusal;
use super::feed::{FeedPage, Follow};
use super::layout::{LayoutAnswer, LayoutRequest};
use super::list::{ListAnswer, ListRequest};
use super::sync::{MemberTag, SyncAnswer, SyncRequest};
use crate::membership::{Life, Word};
use crate::placement::{ClusterId, MemberName, NodeId, Partition};
use crate::record::{Ballot, Context, Dot, Edit, Key, Proposal, Record, Stamp, Unfit};
use serde::{Deserialize, Serialize};

/// Most requests in one batch. Bounds what a node holds for one peer call, and keeps a slow batch short.
pub const REQUESTS_PER_BATCH_MAX: usize = 512;

/// Most keys of which something is forgotten at a time.
pub const FORGET_KEYS_MAX: usize = 64;

/// Most packets of gossip in one request or answer.
pub const PACKETS_MAX: usize = 16;

/// Who speaks to whom, about which cluster, and how long the answer is waited for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// The cluster both must belong to.
    pub cluster: ClusterId,
    /// The sender.
    pub sender: NodeId,
    /// The node meant, where the sender has learned its id; none before the first ping.
    pub receiver: Option<NodeId>,
    /// The epoch of the layout the sender goes by.
    pub epoch: u64,
    /// How long the sender will still wait, in milliseconds.
    pub deadline_ms: u32,
    /// The latest stamp the sender has made or seen.
    pub stamp: Stamp,
    /// Whether no client waits for the answer: it may come after what clients wait for.
    pub background: bool,
}

/// One HTTP request's worth of requests. Gossip, or nothing, for a ping.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Batch {
    /// From whom, to whom.
    pub envelope: Envelope,
    /// At most [`REQUESTS_PER_BATCH_MAX`].
    pub requests: Vec<Request>,
}

/// The response to a [`Batch`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Reply {
    /// The node that answers.
    pub sender: NodeId,
    /// The epoch of its layout.
    pub epoch: u64,
    /// The latest stamp it has made or seen.
    pub stamp: Stamp,
    /// An answer for each request, in order; or why the batch as a whole was refused.
    pub answers: Result<Vec<Answer>, Refusal>,
}

/// One thing asked of one node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Make a dot for a client's write, on the record held there; only owners are asked. → [`Answer::Written`]
    Write {
        /// The key.
        key: Key,
        /// What is to become of it.
        edit: Edit,
        /// Refused where something later than this is known of the key: then others have written since, and the one who
        /// asked may long have been told.
        until: Stamp,
    },
    /// Take a copy of a record. → [`Answer::Merged`]
    Merge {
        /// The key.
        key: Key,
        /// The copy.
        record: Record,
    },
    /// Let the write `dot`, made there, supersede the older siblings in `other`. → [`Answer::Written`]
    Cover {
        /// The key.
        key: Key,
        /// What another owner holds.
        other: Record,
        /// The write.
        dot: Dot,
    },
    /// Keep a record for owners that cannot be reached. → [`Answer::Merged`]
    Hint {
        /// The key.
        key: Key,
        /// The record.
        record: Record,
        /// The owners.
        targets: Vec<MemberName>,
    },
    /// Make a dot for a client's write no owner could be reached for, and keep it for them. → [`Answer::Written`]
    HintWrite {
        /// The key.
        key: Key,
        /// What is to become of it.
        edit: Edit,
        /// The owners.
        targets: Vec<MemberName>,
    },
    /// The record of a key, tombstones included. → [`Answer::Found`]
    Read {
        /// The key.
        key: Key,
    },
    /// The same, saying of `since` as well what was seen there, whatever the record remembers of it. → [`Answer::Found`]
    ReadSince {
        /// The key.
        key: Key,
        /// What else is asked for.
        since: Context,
    },
    /// May what these contexts cover of these keys be forgotten? All of them are of one partition. → [`Answer::MayForget`]
    MayForget {
        /// The keys, at most [`FORGET_KEYS_MAX`], each with the context of what is to be forgotten.
        keys: Vec<(Key, Context)>,
    },
    /// Every owner has agreed: forget it. → [`Answer::Forgotten`]
    Forget {
        /// The keys, as they were agreed to.
        keys: Vec<(Key, Context)>,
    },
    /// The record kept for other owners. → [`Answer::Found`]
    ReadHint {
        /// The key.
        key: Key,
    },
    /// A question of an anti-entropy session. → [`Answer::Sync`]
    Sync(SyncRequest),
    /// How the sender stands. → [`Answer::Greeted`]
    Greet(Greeting),
    /// Which writes are you still handing to their owners? Those a session leaves alone. → [`Answer::UnderWay`]
    UnderWay {
        /// The two members that have the session.
        between: [MemberTag; 2],
    },
    /// What the sender's liveness has to say; past every queue, by `/ping`. → [`Answer::Gossip`]
    Gossip {
        /// Packets, at most [`PACKETS_MAX`].
        packets: Vec<Vec<u8>>,
    },
    /// As `ReadSince`, of an owner that must be able to vote for its answer to count. → [`Answer::Found`]
    Confirm {
        /// The key.
        key: Key,
        /// What else is asked for.
        since: Context,
    },
    /// Let go of what was accepted there of the key, if it is being filled; a node asks itself. → [`Answer::Merged`]
    Yield {
        /// The key.
        key: Key,
    },
    /// Promise to accept nothing under an earlier ballot. → [`Answer::Promised`]
    Prepare {
        /// The key.
        key: Key,
        /// The ballot.
        ballot: Ballot,
    },
    /// Accept a proposal, under the ballot in its context. → [`Answer::Accepted`]
    Accept {
        /// The key.
        key: Key,
        /// What is proposed.
        record: Record,
        /// A ballot to be promised together with it.
        next: Option<Ballot>,
    },
    /// Have the owners agree on an edit of a key, or on what it holds; only owners are asked. → [`Answer::Decided`]
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
    /// Who is a member, and what is to become of that; past every queue, by `/cluster`. → [`Answer::Layout`]
    Layout(LayoutRequest),
    /// The keys of some partitions, in order. → [`Answer::Listed`]
    List(ListRequest),
    /// What was made there, or happened there, behind a place of its feed. → [`Answer::Followed`]
    Follow(Follow),
}

/// What a node answers to one [`Request`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The write is durable there.
    Written {
        /// Whether the key had no live value there before.
        created: bool,
        /// The record with the write in it.
        record: Record,
    },
    /// The record is durable there.
    Merged {
        /// Whether it changed anything.
        applied: bool,
        /// What is held there, when that is more than what came.
        more: Option<Record>,
    },
    /// What is held there; nothing when the key was never heard of.
    Found {
        /// The record.
        record: Option<Record>,
    },
    /// For each key, whether it may be forgotten.
    MayForget(Vec<bool>),
    /// Of so many keys something was forgotten.
    Forgotten(u64),
    /// No.
    Refused(Refusal),
    /// What was asked in an anti-entropy session.
    Sync(SyncAnswer),
    /// What this node has under way as a coordinator.
    UnderWay {
        /// Every write it coordinates that is not on its owners yet has a later stamp. None when there is no such write.
        since: Option<Stamp>,
        /// Whether it is about to hand hints to one of the two.
        hints: bool,
    },
    /// How the one that answers stands.
    Greeted {
        /// The same of it.
        greeting: Greeting,
        /// Which writes it has seen, and has handed over, where that was asked for and is news.
        evidence: Option<Evidence>,
    },
    /// The answer of an owner that is still being filled: true as far as it goes, durable where that was asked for, and
    /// it counts towards no majority. What it does not hold may well be there.
    Partial(Part),
    /// What the receiver's liveness has to say to that.
    Gossip {
        /// Packets, at most [`PACKETS_MAX`].
        packets: Vec<Vec<u8>>,
    },
    /// It is promised, durably.
    Promised {
        /// What is held there.
        record: Record,
    },
    /// It is accepted, durably.
    Accepted {
        /// What is held there, when that is more than what was proposed.
        more: Option<Record>,
    },
    /// How a proposal ended.
    Decided(Decision),
    /// What the receiver says of the layout.
    Layout(LayoutAnswer),
    /// Keys in order, and what is held of them.
    Listed(ListAnswer),
    /// What its feed has behind that place.
    Followed(FeedPage),
}

/// Which owners must accept a proposal. The numbers are the wire's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Reach {
    /// More than half of them.
    Majority,
    /// All of them.
    All,
    /// All of them, one after the other in the order of the ring.
    InOrder,
}

/// How a proposal ended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Decision {
    /// As many owners as must have accepted it.
    Made {
        /// Whether the key had no living value before.
        created: bool,
        /// The record accepted.
        record: Record,
        /// How many owners are known to have it.
        acked: u8,
    },
    /// Its condition is not true of what a majority has accepted. Nothing changed.
    Unmet {
        /// What that is.
        record: Record,
    },
    /// It does not fit what a majority has accepted. Nothing changed.
    Unfit(Unfit),
    /// Too few owners could be had. Nothing was accepted anywhere, and nothing will be.
    Unavailable {
        /// How many answered.
        answered: u8,
        /// Why the last one that refused did so.
        cause: Option<Refusal>,
    },
    /// Some owners may have accepted it; it may still surface, or never.
    Unknown {
        /// How many owners are known to have it.
        acked: u8,
        /// Why the last one that refused did so.
        cause: Option<Refusal>,
    },
}

/// What an owner answers while it is being filled. A type of its own, as an answer that held an answer could be nested
/// without end in foreign bytes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Part {
    /// As [`Answer::Found`].
    Found {
        /// The record.
        record: Option<Record>,
    },
    /// As [`Answer::Merged`].
    Merged {
        /// Whether it changed anything.
        applied: bool,
        /// What is held there, when that is more than what came.
        more: Option<Record>,
    },
}

/// What two nodes tell each other of themselves and of one another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Greeting {
    /// Which member speaks.
    pub from: MemberTag,
    /// The id of its store.
    pub id: NodeId,
    /// How it stands.
    pub word: Word,
    /// Its last durable stamp.
    pub durable: Stamp,
    /// Its wall clock, in milliseconds since 1970.
    pub wall_ms: u64,
    /// The last life of the one it speaks to that counted, as far as it remembers.
    pub remembered: Option<Life>,
    /// A number of its own, another after each start and each time that it lost rows: as long as it says the same, it has
    /// all that it ever took.
    pub unbroken: u64,
    /// The digest of the evidence it last had from the one it speaks to, 0 for none; nothing while it wants no other.
    pub evidence: Option<u64>,
}

/// What a node tells another of the writes that it has seen and handed over.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Evidence {
    /// What it has seen in the partitions that both keep.
    pub seen: SeenGroups,
    /// What it made in an owner's place, and the one it speaks to has all of, if that one is unbroken since it said so.
    pub delivered: SeenGroups,
}

/// Contexts, each with the stretches of partitions it is of: see `storage::contexts`.
pub type SeenGroups = Vec<(Context, Vec<(Partition, Partition)>)>;

impl Answer {
    /// The same; of a node that is still being filled, if it is `partial`.
    pub fn in_part(self, partial: bool) -> Answer {
        match self {
            answer if !partial => answer,
            Answer::Found { record } => Answer::Partial(Part::Found { record }),
            Answer::Merged { applied, more } => Answer::Partial(Part::Merged { applied, more }),
            answer => answer,
        }
    }

    /// The same in the words of the previous version, where it has none for it.
    pub(super) fn in_previous_version(&self) -> Option<Answer> {
        let translated = |cause: &Option<Refusal>| cause.as_ref().and_then(Refusal::in_previous_version);
        match self {
            Answer::Refused(refusal) => refusal.in_previous_version().map(Answer::Refused),
            Answer::Decided(Decision::Unavailable { answered, cause }) => {
                let cause = Some(translated(cause)?);
                Some(Answer::Decided(Decision::Unavailable { answered: *answered, cause }))
            }
            Answer::Decided(Decision::Unknown { acked, cause }) => {
                let cause = Some(translated(cause)?);
                Some(Answer::Decided(Decision::Unknown { acked: *acked, cause }))
            }
            _ => None,
        }
    }

    /// What was answered, whether it counts or not.
    pub fn content(self) -> Answer {
        match self {
            Answer::Partial(Part::Found { record }) => Answer::Found { record },
            Answer::Partial(Part::Merged { applied, more }) => Answer::Merged { applied, more },
            answer => answer,
        }
    }
}

impl Request {
    /// Whether it asks for a vote of an owner, which only one may give that still has what it once promised.
    pub fn asks_for_a_vote(&self) -> bool {
        matches!(self, Request::Prepare { .. } | Request::Accept { .. } | Request::Propose { .. })
    }

    /// The partitions of the keys that are to be forgotten.
    pub fn partitions_to_forget(&self) -> impl Iterator<Item = Partition> + '_ {
        let keys = match self {
            Request::MayForget { keys } | Request::Forget { keys } => keys.as_slice(),
            _ => &[],
        };
        keys.iter().map(|(key, _)| Partition::of(key.position()))
    }

    /// The key it is about, if it is about one.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Request::Write { key, .. }
            | Request::Merge { key, .. }
            | Request::Cover { key, .. }
            | Request::Prepare { key, .. }
            | Request::Accept { key, .. }
            | Request::Propose { key, .. }
            | Request::Hint { key, .. }
            | Request::HintWrite { key, .. }
            | Request::Read { key }
            | Request::ReadSince { key, .. }
            | Request::Confirm { key, .. }
            | Request::Yield { key }
            | Request::ReadHint { key } => Some(key),
            Request::MayForget { .. }
            | Request::Forget { .. }
            | Request::Sync(_)
            | Request::UnderWay { .. }
            | Request::Greet(_)
            | Request::Layout(_)
            | Request::List(_)
            | Request::Follow(_)
            | Request::Gossip { .. } => None,
        }
    }

    /// About how many bytes it takes on the wire.
    pub fn size_hint(&self) -> usize {
        let values = |record: &Record| record.siblings().iter().map(|s| s.content.value.len() + 64).sum::<usize>();
        let body = match self {
            Request::Write { edit, .. } | Request::HintWrite { edit, .. } => {
                edit.content().map_or(0, |content| content.value.len())
            }
            Request::Merge { record, .. } | Request::Hint { record, .. } | Request::Accept { record, .. } => {
                values(record)
            }
            Request::Propose { proposal, .. } => {
                let content = proposal.as_ref().and_then(|proposal| proposal.edit.content());
                content.map_or(0, |content| content.value.len())
            }
            Request::Cover { other, .. } => values(other),
            Request::Read { .. }
            | Request::ReadHint { .. }
            | Request::Prepare { .. }
            | Request::Yield { .. }
            | Request::Greet(_) => 0,
            Request::ReadSince { since, .. } | Request::Confirm { since, .. } => 20 * since.entries().len(),
            Request::MayForget { keys } | Request::Forget { keys } => {
                let bytes = |(key, context): &(Key, Context)| key.as_bytes().len() + 20 * context.entries().len();
                keys.iter().map(bytes).sum()
            }
            Request::Sync(request) => request.size_hint(),
            Request::UnderWay { .. } => 16,
            Request::Follow(follow) => follow.prefixes.iter().map(|prefix| prefix.len() + 2).sum(),
            Request::Layout(request) => request.size_hint(),
            Request::List(request) => request.size_hint(),
            Request::Gossip { packets } => packets.iter().map(|packet| packet.len() + 4).sum(),
        };
        body + self.key().map_or(0, |key| key.as_bytes().len()) + 96
    }
}
