//! What a node holds, some of it at a time, as a backup keeps it and as it is brought back.

use super::MalformedMessage;
use crate::placement::{ClusterId, NodeId, Partition};
use crate::record::{Context, Key, Record};
use serde::{Deserialize, Serialize};

/// Bytes of records after which no other partition is begun, about.
pub const COPIES_BYTES: usize = 1 << 20;
/// Bytes of records after which a partition is gone on with the next time, about. What a backup says of what a partition has
/// seen is believed of one that fits in one piece.
pub const COPIES_BYTES_MAX: usize = 8 << 20;

/// A piece of what a node holds, in the order of partitions, and of keys within them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Copies {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node that holds it.
    pub node: NodeId,
    /// What it holds, partition by partition; of those that are left out it holds nothing.
    pub portions: Vec<Portion>,
    /// How many rows could not be read, and are not in it.
    pub damaged: u32,
    /// Where the next piece begins; nothing behind the last.
    pub next: Option<CopiesFrom>,
}

/// Where a piece begins.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CopiesFrom {
    /// In which partition.
    pub partition: Partition,
    /// Behind which of its keys; before all of them without one.
    pub after: Option<Key>,
}

/// What a node holds of one partition.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Portion {
    /// The partition.
    pub partition: Partition,
    /// Which writes the node had seen in it before its rows were read: what of these is not among them was superseded.
    /// Nothing, where some rows cannot be read.
    pub seen: Context,
    /// Whether these are all the rows of the partition.
    pub is_whole: bool,
    /// Records as they are stored, tombstones included. A node's promises are its own, and not in them.
    pub records: Vec<(Key, Record)>,
}

impl Copies {
    /// How many records it has.
    pub fn records(&self) -> usize {
        self.portions.iter().map(|portion| portion.records.len()).sum()
    }

    /// Holds what came from outside to the order of things.
    pub(super) fn check(&self) -> Result<(), MalformedMessage> {
        if !self.portions.windows(2).all(|pair| pair[0].partition < pair[1].partition) {
            return Err(MalformedMessage::Limit("partitions of a backup come in order, each once"));
        }
        for portion in &self.portions {
            let is_of_it = |(key, _): &(Key, Record)| Partition::of(key.position()) == portion.partition;
            let rises = portion.records.windows(2).all(|pair| pair[0].0 < pair[1].0);
            if !rises || !portion.records.iter().all(is_of_it) {
                return Err(MalformedMessage::Limit("keys of a partition come in order, each once"));
            }
        }
        Ok(())
    }
}
