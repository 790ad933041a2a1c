//! Known bugs, planted between the production parts: a simulator that does not find them proves nothing.

/// Each must be caught within 2,000 seeds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plant {
    /// The log acknowledges before it has synced.
    AcknowledgedBeforeSync,
    /// A write is called stored when one owner too few has it.
    QuorumOneShort,
    /// A kept hint counts as an owner's acknowledgement.
    HintCountedAsOwner,
    /// A copy that failed counts as taken.
    FailureCountedAsAcknowledged,
    /// A node keeps its actor over restarts, and its clock starts at the wall's.
    ActorReused,
    /// A start does not replay the log.
    LogForgotten,
    /// A copy replaces the row instead of being merged.
    MergeOverwrites,
    /// A hint is dropped as soon as it has been sent.
    HintDroppedUnheard,
    /// A tombstone goes before every owner has it.
    TombstoneDropped,
    /// A write with a context supersedes whatever it meets.
    ContextIgnored,
    /// An answer comes back for another request of its batch.
    AnswersSwapped,
    /// A read takes a value from a neighbouring key.
    OtherKeyRead,
    /// A session does not see what the asked node holds and the asker lacks.
    OnlyOneDirection,
    /// A session sends records that the other side's version dominates.
    DominatedSent,
    /// Sessions leave out keys with several siblings.
    SiblingsIgnored,
    /// Sessions leave out what was deleted.
    TombstonesIgnored,
    /// Digests that are not built yet count as equal.
    UnbuiltTakenForEqual,
    /// A client is handed the context of the whole record after its write, values it was never shown included.
    ContextOfUnseenValues,
    /// What a peer has seen is taken over also for partitions in which the two were found to differ.
    UnequalSeenJoined,
    /// A stamp from the future, as a message mentions it, is believed.
    FarStampBelieved,
    /// Stamps follow the wall clock, also back.
    ClockFollowsWall,
    /// A read repair replaces the row of the owner that is behind.
    RepairOverwrites,
    /// A hint is dropped although more came to it while it was on its way.
    GrownHintDropped,
    /// A copy that comes late is stored over a tombstone.
    TombstoneOverwritten,
    /// What a peer said it had seen is taken over without asking whether it says so still.
    SeenJoinedUnconfirmed,
    /// An owner that lost its disk counts before it is filled.
    EmptiedCounts,
    /// An owner that lost its disk says that a key is absent.
    EmptiedAnswersAbsent,
    /// An owner that is being filled counts before it knows what its peers had seen.
    FilledUnseen,
    /// An owner is filled by sessions that pass over records for their latest writes.
    FilledWithoutTheYoung,
    /// A node writes under the name it had before it lost its disk.
    ActorOfLostDisk,
    /// A node that had an old disk put back is told nothing of it.
    OldDiskBelieved,
    /// A row that cannot be read counts as absent.
    RottenRowAbsent,
    /// A row is served without a look at its checksum.
    RottenRowServed,
    /// What was seen before a row was lost counts as seen when the others gave what they hold of it.
    SeenDespiteRot,
    /// A scrub counts what is damaged, and nobody repairs it.
    ScrubOnlyReports,
    /// A start goes on as if nothing were missing in the log.
    LogGapOverlooked,
    /// An owner goes on counting when its base was replaced by an empty one.
    ReplacedBaseCounts,
    /// An owner forgets what its own partition context covers, and asks nobody else.
    ForgottenAlone,
    /// A context is shortened by what nothing is left of, without the other owners.
    ContextShortenedAlone,
    /// A copy that comes late is taken where nothing is held any more.
    LateCopyTaken,
    /// A start knows nothing of what its store had seen before.
    ContextsLostAtStart,
    /// A read answers whatever is there, however much more its client has seen.
    SinceIgnored,
    /// A client's own last write is claimed with all that its maker had made before.
    OwnDotWidened,
    /// What a stand-in still keeps for an owner, it says the owner has.
    KeptToldAsDelivered,
    /// What an owner took before it lost its disk, it is told to have.
    DeliveredToAnotherLife,
    /// Of several siblings a copy brings, one is taken.
    SiblingDropped,
    /// A copy's counters replace those that are held.
    CountersOverwritten,
    /// An increment is asked of the next owner when the first was not heard.
    IncrementPassedOn,
    /// A crash takes the promises that were given.
    PromiseLostInCrash,
    /// A copy is let in that a promise forbids.
    CopyDespitePromise,
    /// A read of copies that do not agree shows the latest of them.
    HighestWithoutSettling,
    /// An owner that lost its disk promises and accepts before it is filled.
    UnfilledVotes,
    /// What was kept for a proposal whose fate is not known is kept for the next one as well.
    BallotReused,
    /// What was held when a ballot was promised is proposed upon under a later one that nobody promised.
    KeptUnderFreshBallot,
    /// An owner's acceptance is taken for its neighbour's as well.
    AcceptanceCountedTwice,
    /// Reads switch to new owners before those have taken in what they lack.
    ReadsSwitchEarly,
    /// A write counts where as many of the owners have it that reads ask, whoever stands beside them.
    CountedAmongOwnersOnly,
    /// A batch is answered whatever layout its sender goes by.
    AnsweredUnderAnEarlierEpoch,
    /// Every layout that a node proposes it proposes in the same round.
    RoundReused,
    /// A crash takes the votes that were given about layouts.
    VotesLostInCrash,
    /// Copies that others keep are dropped before those have been offered them.
    DroppedUnoffered,
    /// What one owner held was all there is.
    TakenInFromOne,
}

impl Plant {
    pub(crate) const ALL: [Plant; 55] = [
        Plant::AcknowledgedBeforeSync,
        Plant::QuorumOneShort,
        Plant::HintCountedAsOwner,
        Plant::FailureCountedAsAcknowledged,
        Plant::ActorReused,
        Plant::LogForgotten,
        Plant::MergeOverwrites,
        Plant::HintDroppedUnheard,
        Plant::TombstoneDropped,
        Plant::ContextIgnored,
        Plant::AnswersSwapped,
        Plant::OtherKeyRead,
        Plant::OnlyOneDirection,
        Plant::DominatedSent,
        Plant::SiblingsIgnored,
        Plant::TombstonesIgnored,
        Plant::UnbuiltTakenForEqual,
        Plant::ContextOfUnseenValues,
        Plant::UnequalSeenJoined,
        Plant::FarStampBelieved,
        Plant::ClockFollowsWall,
        Plant::RepairOverwrites,
        Plant::GrownHintDropped,
        Plant::TombstoneOverwritten,
        Plant::SeenJoinedUnconfirmed,
        Plant::EmptiedCounts,
        Plant::EmptiedAnswersAbsent,
        Plant::FilledUnseen,
        Plant::FilledWithoutTheYoung,
        Plant::ActorOfLostDisk,
        Plant::OldDiskBelieved,
        Plant::RottenRowAbsent,
        Plant::RottenRowServed,
        Plant::SeenDespiteRot,
        Plant::ScrubOnlyReports,
        Plant::LogGapOverlooked,
        Plant::ReplacedBaseCounts,
        Plant::ForgottenAlone,
        Plant::ContextShortenedAlone,
        Plant::LateCopyTaken,
        Plant::ContextsLostAtStart,
        Plant::SinceIgnored,
        Plant::OwnDotWidened,
        Plant::KeptToldAsDelivered,
        Plant::DeliveredToAnotherLife,
        Plant::SiblingDropped,
        Plant::CountersOverwritten,
        Plant::IncrementPassedOn,
        Plant::PromiseLostInCrash,
        Plant::CopyDespitePromise,
        Plant::HighestWithoutSettling,
        Plant::UnfilledVotes,
        Plant::BallotReused,
        Plant::KeptUnderFreshBallot,
        Plant::AcceptanceCountedTwice,
    ];

    /// Those of changing layouts, but for two that stories tell of.
    pub(crate) const OF_CHANGES: [Plant; 5] = [
        Plant::ReadsSwitchEarly,
        Plant::CountedAmongOwnersOnly,
        Plant::AnsweredUnderAnEarlierEpoch,
        Plant::DroppedUnoffered,
        Plant::TakenInFromOne,
    ];

    /// Those by which something acknowledged goes missing, or a dropped value comes back.
    pub(crate) const LOSING: [Plant; 7] = [
        Plant::AcknowledgedBeforeSync,
        Plant::LogForgotten,
        Plant::MergeOverwrites,
        Plant::HintDroppedUnheard,
        Plant::TombstoneDropped,
        Plant::ContextIgnored,
        Plant::ContextOfUnseenValues,
    ];
}
