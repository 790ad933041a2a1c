//! A node's disk: a commit log on simulated files, and a base in memory behind it. Both outlive the node's crashes.

use super::plant::Plant;
use kringle::placement::NodeId;
use kringle::storage::sim_files::{Fault, SimFiles};
use kringle::storage::{Durability, LogStore, LogStoreOptions, MemoryBase};
use std::io::ErrorKind;
use std::sync::Arc;

/// The disk, with the data folder on it.
pub(crate) struct Disk {
    files: SimFiles,
    base: MemoryBase,
    /// What the folder's identity says.
    salt: u64,
    pub(crate) id: NodeId,
}

impl Disk {
    /// An empty one: the folder is made by the first start.
    pub(crate) fn new(seed: u64) -> Disk {
        Disk { files: SimFiles::new(seed), base: MemoryBase::new(), salt: seed | 1, id: NodeId(seed | 1) }
    }

    /// A copy of the folder, which nobody uses now.
    pub(crate) fn copy(&self) -> Disk {
        Disk { files: self.files.copy(), base: self.base.copy(), ..*self }
    }

    /// The store on it, with whatever the log holds replayed.
    pub(crate) fn open(&mut self, seed: u64, plant: Option<Plant>) -> LogStore {
        if plant == Some(Plant::LogForgotten) {
            self.files = SimFiles::new(seed);
            self.salt = seed | 1;
        }
        let early = plant == Some(Plant::AcknowledgedBeforeSync);
        let options = LogStoreOptions {
            durability: if early { Durability::None } else { Durability::Sync },
            segment_bytes: 8 << 10,
            recent_bytes_max: 256 << 10,
            recent_bytes_due: 8 << 10,
            log_bytes_due: 64 << 10,
            cache_bytes_max: 16 << 10,
            salt: self.salt,
            seed,
            heal: false,
        };
        let opened = LogStore::open(Arc::new(self.files.clone()), Arc::new(self.base.clone()), options);
        opened.unwrap_or_else(|error| panic!("a disk with nothing worse than a crash cannot be opened: {error}")).0
    }

    /// Stops the machine at the operation `ahead` of the next one.
    pub(crate) fn stop_after(&self, ahead: u64) {
        self.files.fail_at(self.files.operations().all + ahead, Fault::Crash);
    }

    /// Loses what was not synced, in any part.
    pub(crate) fn crash(&self) {
        self.files.crash();
    }

    pub(crate) fn fill(&self, full: bool) {
        self.files.fail_writes(full.then_some(ErrorKind::StorageFull));
    }

    /// Lets the next syncs fail; until the node restarts.
    pub(crate) fn fail_syncs(&self) {
        self.files.fail_syncs(Some(ErrorKind::Other));
    }
}
