//! What the committer is asked, and what it answers. Every change of a stored value is one of these.

use super::StoreError;
use crate::placement::{MemberName, Partition};
use crate::record::{Ballot, Context, Dot, Edit, Key, Record, Stamp, StampAhead, Unfit};
use bytes::Bytes;

/// One change, atomic and durable as a whole or not at all.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    /// A client's write, on an owner of its key: the dot is made here, on the record held here.
    Write {
        /// The key.
        key: Key,
        /// What is to become of it.
        edit: Edit,
        /// Refused where something later than this is known of the key; [`Stamp::MAX`] if it may supersede anything.
        until: Stamp,
    },
    /// A copy of the key's record from elsewhere: replication, repair, hint replay, hand-over.
    Merge {
        /// The key.
        key: Key,
        /// The copy.
        record: Record,
    },
    /// Promise to accept nothing under an earlier ballot. Synced before it is answered, whatever the durability.
    Prepare {
        /// The key.
        key: Key,
        /// The ballot.
        ballot: Ballot,
    },
    /// Accept a proposal, and promise the ballot `next` with it. Synced before it is answered, whatever the durability.
    Accept {
        /// The key.
        key: Key,
        /// What is proposed, under the ballot in its context.
        record: Record,
        /// A ballot of the same proposer's, under which it may propose again without asking.
        next: Option<Ballot>,
    },
    /// Lets go of what was accepted here of a key, as long as this store is being filled: see
    /// [`Committer::note_filling`](super::Committer::note_filling). Nothing, on any other.
    Yield {
        /// The key.
        key: Key,
    },
    /// Counts every ballot up to this stamp, and to all that was made or seen here, as promised for every key: promises were
    /// lost with the store that gave them, and nobody can name them.
    RaiseFloor {
        /// A stamp of which it is known that it is no earlier than any such promise's.
        stamp: Stamp,
    },
    /// What the other owners of a key hold, merged, in place of a row that cannot be read. On a sound row it is a `Merge`.
    Restore {
        /// The key.
        key: Key,
        /// What a majority of the *other* owners hold: whatever was acknowledged with this copy's help is in it.
        record: Record,
    },
    /// Counts a partition's digests anew from its rows, where a scrub found them to differ.
    Recount {
        /// Which.
        partition: Partition,
    },
    /// The second round of a plain write: `dot`, made here, supersedes the older siblings that `other` showed.
    Cover {
        /// The key.
        key: Key,
        /// What another owner was found to hold.
        other: Record,
        /// The write made in the first round.
        dot: Dot,
    },
    /// A client's write no owner could be reached for: the dot is made here, on the hint held here.
    HintWrite {
        /// The key.
        key: Key,
        /// What is to become of it.
        edit: Edit,
        /// The owners it is kept for.
        targets: Vec<MemberName>,
    },
    /// A record kept for owners that could not be reached.
    Hint {
        /// The key.
        key: Key,
        /// The record they should have.
        record: Record,
        /// Who.
        targets: Vec<MemberName>,
    },
    /// `target` now has everything in `record`: it is no longer kept for that target, unless it grew meanwhile.
    HintDelivered {
        /// The key.
        key: Key,
        /// What was delivered.
        record: Record,
        /// To whom.
        target: MemberName,
        /// In which life the target was known to be before it was delivered, if that was known.
        life: Option<u64>,
    },
    /// May what these contexts cover of these keys be forgotten, as far as this store knows? What it answers by is kept with
    /// the answer and synced whatever [`Durability`](super::Durability) says, so that a power cut takes nothing of it back.
    MayForget {
        /// Each with the context of what is to be forgotten.
        keys: Vec<(Key, Context)>,
    },
    /// Every owner of these keys has agreed that what the contexts cover of them may be forgotten. What this store would no
    /// longer agree to stays.
    Forget {
        /// Each with the context of what is forgotten.
        keys: Vec<(Key, Context)>,
    },
    /// These partitions are no longer this store's to keep, and others have all that it holds of them: nothing is claimed to
    /// be known of them from now on, and what is written later is written under another name, which says nothing of them.
    Disclaim {
        /// The partitions.
        partitions: Vec<Partition>,
    },
    /// Drops rows of a partition that was disclaimed, a bounded number at a time.
    LetGo {
        /// Which.
        partition: Partition,
    },
    /// Keeps what was seen in each partition, where that is not done yet.
    KeepContexts,
    /// A fact of the node itself, such as its layout: replaced as a whole.
    Fact {
        /// Its name.
        name: &'static str,
        /// Its bytes.
        bytes: Bytes,
    },
}

/// What a change did.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// `Write`, `Cover` or `HintWrite`: the record as it is now, durable here.
    Written {
        /// Whether the key had no live value before.
        created: bool,
        /// The record, with the new dot in it.
        record: Record,
    },
    /// `Merge`, `Restore`, `Yield` or `Hint`.
    Merged {
        /// Whether anything changed.
        applied: bool,
        /// What is held now, when that is more than what came.
        more: Option<Record>,
    },
    /// `Prepare`: it is promised, and this is what is held.
    Promised {
        /// The record.
        record: Record,
    },
    /// `Accept`: it is accepted.
    Accepted {
        /// What is held now, when that is more than what was proposed.
        more: Option<Record>,
    },
    /// `MayForget`: for each key, whether.
    MayForget(Vec<bool>),
    /// `Forget`: of how many keys something was forgotten.
    Forgotten(u64),
    /// `LetGo`: so many rows are gone; none, if none was left.
    LetGo(u64),
    /// `HintDelivered`, `Fact`, `KeepContexts`, `RaiseFloor`, `Recount` or `Disclaim`.
    Done,
}

/// Why a change did not happen. Nothing was stored, unless the line says otherwise.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Refused {
    /// The edit does not fit what is held; the client must act.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Others have written since this write began; it may be tried again by one who still waits for it.
    #[error("the key was written again since the write began")]
    Overtaken {
        /// The latest stamp known of the key.
        latest: Stamp,
    },
    /// A later ballot was promised; a proposer may try again with one that is later still.
    #[error("a later ballot was promised")]
    Promised {
        /// The ballot.
        ballot: Ballot,
    },
    /// It was asked for under an earlier layout.
    #[error("the layout has moved on to epoch {epoch}")]
    StaleEpoch {
        /// The present one's epoch.
        epoch: u64,
    },
    /// A stamp from too far in the future.
    #[error(transparent)]
    StampAhead(#[from] StampAhead),
    /// As many hints are kept for this target as there may be.
    #[error("no room for more hints for {target}")]
    HintsFull {
        /// For whom.
        target: MemberName,
    },
    /// The stored row cannot be read; only `Restore` may replace it. Anything else merged over it would pass for all
    /// this node ever held.
    #[error("the stored row is damaged: {0}")]
    Damaged(crate::record::RowError),
    /// As many keys have a value here as may; those that have one may change.
    #[error("node full: max keys {max} reached")]
    NodeFull {
        /// How many that is.
        max: u64,
    },
    /// A hint for nobody.
    #[error("a hint must name the owners it is kept for")]
    NoTargets,
    /// The base could not be read, so there was nothing to merge with.
    #[error("the store cannot be read: {0}")]
    Unreadable(std::sync::Arc<str>),
    /// The disk is full or fails; writes are taken again when it recovers. This one may surface after a crash.
    #[error("the store is read-only: {0}")]
    ReadOnly(std::sync::Arc<str>),
    /// A sync failed: what is durable is unknown (this change may be), and nothing is acknowledged until a restart.
    #[error("the store is fenced until a restart: {0}")]
    Fenced(std::sync::Arc<str>),
    /// More is waiting than the store can write; try again shortly.
    #[error("the store is overloaded")]
    Overloaded,
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Refused {
        match error {
            StoreError::ReadOnly(reason) => Refused::ReadOnly(reason),
            StoreError::Fenced(reason) => Refused::Fenced(reason),
            StoreError::Overloaded => Refused::Overloaded,
            StoreError::Unreadable(reason) => Refused::Unreadable(reason),
        }
    }
}
