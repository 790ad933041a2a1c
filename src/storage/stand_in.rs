//! Stands in for the placement and merkle rooms until they are here.
#![allow(missing_docs, unreachable_pub)]

use crate::record::{Position, Version};

pub const PARTITIONS: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Partition(u16);

impl Partition {
    pub fn of(position: Position) -> Partition {
        Partition((position.0 >> 54) as u16)
    }
    pub fn try_from_index(index: usize) -> Result<Partition, usize> {
        if index < PARTITIONS {
            Ok(Partition(index as u16))
        } else {
            Err(index)
        }
    }
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
    pub fn all() -> impl ExactSizeIterator<Item = Partition> + DoubleEndedIterator + Clone {
        (0..PARTITIONS as u16).map(Partition)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub version: Version,
    pub live: bool,
}

#[derive(Debug, Default)]
pub struct Forest {
    pub sums: std::sync::Mutex<std::collections::BTreeMap<usize, (u128, i64)>>,
}

impl Forest {
    pub fn new() -> Forest {
        Forest::default()
    }
    pub fn apply(&self, position: Position, old: Option<Entry>, new: Option<Entry>) {
        let mut sums = self.sums.lock().unwrap();
        let sum = sums.entry(Partition::of(position).index()).or_default();
        if let Some(old) = old {
            *sum = (sum.0.wrapping_sub(old.version.0), sum.1 - i64::from(old.live));
        }
        if let Some(new) = new {
            *sum = (sum.0.wrapping_add(new.version.0), sum.1 + i64::from(new.live));
        }
    }
    pub fn add_scanned(&self, position: Position, entry: Entry) {
        self.apply(position, None, Some(entry));
    }
    pub fn mark_built(&self, _partition: Partition) {}
}
