//! What two nodes say to find where their copies differ, from the widest question to the narrowest.

use super::MalformedMessage;
use super::message::SeenGroups;
use crate::merkle::diff::{Digest, GROUP_PARTITIONS, SUBTREES, Salt, Short, SubtreeLeaves, Subtrees};
use crate::placement::{LEAVES, PARTITIONS, Partition};
use crate::record::{Key, Position, Record, Stamp, Version};
use serde::{Deserialize, Serialize};

/// Most key entries in one question. A session asks about so many keys at a time, however many there are.
pub const ENTRIES_MAX: usize = 1 << 20;

/// Which member asks, in 8 bytes: a hash of its name in the layout. Ids are not known before the first ping.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct MemberTag([u8; 8]);

impl MemberTag {
    /// The tag of the member called `name`.
    pub fn of(name: &str) -> MemberTag {
        let hash = blake3::hash(&[b"kringle member tag", name.as_bytes()].concat());
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_bytes()[..8]);
        MemberTag(first)
    }
}

/// Some of a partition's leaves.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Leaves {
    /// All of them.
    All,
    /// These, ascending.
    Some(Vec<u16>),
}

impl Leaves {
    /// Whether the leaf is one of them.
    pub fn contains(&self, leaf: usize) -> bool {
        match self {
            Leaves::All => true,
            Leaves::Some(leaves) => leaves.binary_search_by_key(&leaf, |&leaf| usize::from(leaf)).is_ok(),
        }
    }
}

/// Keys of a partition that are to be looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bed {
    /// The partition.
    pub partition: Partition,
    /// Which of its leaves.
    pub leaves: Leaves,
}

/// One key as a list names it: 8 bytes, half of them the key, half its version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct KeyEntry {
    /// The low end of the key's position; the high end is the bed's.
    pub position: Short,
    /// Its version.
    pub version: Short,
}

impl KeyEntry {
    /// The entry of a key at `position`, held in `version`.
    pub fn of(position: Position, version: Version, salt: Salt) -> KeyEntry {
        let position = Short((position.0 as u32).to_be_bytes());
        KeyEntry { position, version: Short::of_version(version, salt) }
    }
}

/// One key as its own node knows it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Listed {
    /// The key.
    pub key: Key,
    /// As a list names it.
    pub entry: KeyEntry,
    /// Its record without values.
    pub outline: Record,
    /// About how many bytes its record has.
    pub bytes: u32,
}

/// A record that the asker lacks: at once, where it is small, so that it need not be asked for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Lacking {
    /// Here it is.
    Enclosed(Record),
    /// About how many bytes it has.
    Bytes(u32),
}

/// One difference, as the node tells it that was shown a list. What was on the list is named by its place there.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Difference {
    /// A key that was not on the list.
    Unlisted {
        /// The key.
        key: Key,
        /// What is held of it.
        record: Lacking,
    },
    /// A key that was listed with another version.
    Other {
        /// Its place on the list.
        at: u32,
        /// The record held instead, without its values.
        outline: Record,
        /// About how many bytes that record has.
        bytes: u32,
    },
    /// A listed version of a key that is not held at all.
    Missing {
        /// Its place on the list.
        at: u32,
    },
}

/// The questions of a session.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum SyncRequest {
    /// Is this the root of what you and I both keep? → [`SyncAnswer::Groups`]
    Root {
        /// Who asks.
        from: MemberTag,
        /// Its root; none while it can't tell, which is never equal.
        root: Option<[u8; 32]>,
    },
    /// What are the digests of the partitions in these groups? → [`SyncAnswer::Partitions`]
    Groups {
        /// Who asks.
        from: MemberTag,
        /// The groups.
        groups: Vec<u16>,
    },
    /// What are the upper levels of these partitions' trees? A node asks itself. → [`SyncAnswer::Subtrees`]
    Trees {
        /// The partitions.
        partitions: Vec<Partition>,
        /// Which bytes are shown.
        salt: Salt,
    },
    /// Which leaves lie below the nodes in which you differ from these? → [`SyncAnswer::Leaves`]
    Subtrees {
        /// Which bytes are shown.
        salt: Salt,
        /// The upper levels of the asker's trees.
        trees: Vec<Subtrees>,
    },
    /// In which of these leaves do you differ? A node asks itself. → [`SyncAnswer::Differing`]
    Differing {
        /// The peer's leaves.
        theirs: Vec<SubtreeLeaves>,
        /// Which bytes they show.
        salt: Salt,
    },
    /// Which keys do you hold there? A node asks itself. → [`SyncAnswer::Listed`]
    List {
        /// Where.
        beds: Vec<Bed>,
        /// Which bytes are shown.
        salt: Salt,
    },
    /// These keys are held there; what do you hold otherwise? → [`SyncAnswer::Differences`]
    Compare {
        /// What was written later than this may still be on its way, and is passed over.
        settled: Stamp,
        /// Which bytes are shown.
        salt: Salt,
        /// Where, and what the asker holds there.
        beds: Vec<(Bed, Vec<KeyEntry>)>,
    },
    /// The session has ended; another may begin. → [`SyncAnswer::Done`]
    Done {
        /// Who asked.
        from: MemberTag,
    },
    /// What are your digests of these partitions, of which I hold copies that are no longer mine to keep?
    /// → [`SyncAnswer::Partitions`]
    Offer {
        /// The partitions.
        partitions: Vec<Partition>,
    },
    /// All that I hold of these partitions, which are no longer mine to keep, is with you now, and this is what I had seen of
    /// them before it was compared. → [`SyncAnswer::Done`]
    HandedOver {
        /// What was seen.
        seen: SeenGroups,
        /// What the receiver said of itself before that: if it has lost anything since, it holds less than it was found to.
        unbroken: u64,
    },
}

/// The answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum SyncAnswer {
    /// Nothing when the roots are equal; else a digest of each group, where it is built.
    Groups(Option<Vec<Option<Digest>>>),
    /// The partitions' digests.
    Partitions(Vec<crate::merkle::diff::PartitionDigest>),
    /// The upper levels.
    Subtrees(Vec<Subtrees>),
    /// The leaves below what differed.
    Leaves(Vec<SubtreeLeaves>),
    /// For each partition asked about, the leaves that differ, ascending.
    Differing(Vec<(Partition, Vec<u16>)>),
    /// The keys of each bed.
    Listed(Vec<Vec<Listed>>),
    /// The differences in each bed.
    Differences(Vec<Vec<Difference>>),
    /// So be it.
    Done,
}

impl SyncRequest {
    /// About how many bytes it takes on the wire.
    pub(super) fn size_hint(&self) -> usize {
        match self {
            SyncRequest::Root { .. } | SyncRequest::Done { .. } => 0,
            SyncRequest::HandedOver { seen, .. } => {
                seen.iter().map(|(context, stretches)| 20 * context.entries().len() + 4 * stretches.len()).sum()
            }
            SyncRequest::Groups { groups, .. } => 2 * groups.len(),
            SyncRequest::Trees { partitions, .. } | SyncRequest::Offer { partitions } => 2 * partitions.len(),
            SyncRequest::Subtrees { trees, .. } => trees.iter().map(|tree| 8 + 4 * tree.nodes.len()).sum(),
            SyncRequest::Differing { theirs, .. } => 16 * theirs.len(),
            SyncRequest::List { beds, .. } => 16 * beds.len(),
            SyncRequest::Compare { beds, .. } => beds.iter().map(|(_, entries)| 16 + 8 * entries.len()).sum(),
        }
    }

    /// Holds it to its limits: no question takes more work than one about everything there is.
    pub(super) fn check(&self) -> Result<(), MalformedMessage> {
        let leaves = |bed: &Bed| match &bed.leaves {
            Leaves::All => true,
            Leaves::Some(leaves) => leaves.len() <= LEAVES && leaves.is_sorted(),
        };
        let fits = match self {
            SyncRequest::Root { .. } | SyncRequest::Done { .. } => true,
            SyncRequest::Groups { groups, .. } => groups.len() <= PARTITIONS / GROUP_PARTITIONS,
            SyncRequest::Offer { partitions } => partitions.len() <= PARTITIONS,
            SyncRequest::HandedOver { seen, .. } => seen.len() <= PARTITIONS,
            // Only for oneself: the answers may be long.
            SyncRequest::Trees { .. } | SyncRequest::Differing { .. } | SyncRequest::List { .. } => false,
            SyncRequest::Subtrees { trees, .. } => {
                trees.len() <= PARTITIONS && trees.iter().all(|tree| tree.nodes.len() == SUBTREES)
            }
            SyncRequest::Compare { beds, .. } => {
                beds.len() <= PARTITIONS
                    && beds.iter().all(|(bed, _)| leaves(bed))
                    && beds.iter().map(|(_, entries)| entries.len()).sum::<usize>() <= ENTRIES_MAX
            }
        };
        fits.then_some(()).ok_or(MalformedMessage::Limit("a comparison of more than there is"))
    }
}
