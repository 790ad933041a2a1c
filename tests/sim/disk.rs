//! A node's disk: a commit log on simulated files, and a base in memory behind it. Both outlive the node's crashes.

use super::plant::Plant;
use super::rotting::Part;
use bytes::Bytes;
use kringle::placement::NodeId;
use kringle::record::{Key, Row};
use kringle::storage::sim_files::{Fault, SimFiles};
use kringle::storage::{
    Address, Base, Durability, Files, Hint, Kind, LogStore, LogStoreOptions, Mark, MemoryBase, PageSize, Replayed,
    Salvage, Span,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::io::ErrorKind;
use std::sync::Arc;

/// The disk, with the data folder on it.
pub(crate) struct Disk {
    files: SimFiles,
    base: MemoryBase,
    /// Bases that rotted and were replaced, oldest first, until they have been gone through.
    replaced: Vec<MemoryBase>,
    /// Bytes of the log rotted since it was last read.
    pub(crate) log_rots: bool,
    /// What the folder's identity says.
    salt: u64,
    pub(crate) id: NodeId,
}

impl Disk {
    /// An empty one: the folder is made by the first start.
    pub(crate) fn new(seed: u64) -> Disk {
        Disk {
            files: SimFiles::new(seed),
            base: MemoryBase::new(),
            replaced: Vec::new(),
            log_rots: false,
            salt: seed | 1,
            id: NodeId(seed | 1),
        }
    }

    /// A copy of the folder, which nobody uses now.
    pub(crate) fn copy(&self) -> Disk {
        let replaced = self.replaced.iter().map(MemoryBase::copy).collect();
        Disk { files: self.files.copy(), base: self.base.copy(), replaced, ..*self }
    }

    /// The store on it, with whatever the log holds replayed. Where there are peers it is opened without what rotted.
    pub(crate) fn open(
        &mut self,
        seed: u64,
        plant: Option<Plant>,
        heal: bool,
        cache_bytes: u64,
        keeps_layouts: bool,
    ) -> (LogStore, Replayed) {
        if plant == Some(Plant::LogForgotten) {
            self.files = SimFiles::new(seed);
            self.salt = seed | 1;
        }
        let early = plant == Some(Plant::AcknowledgedBeforeSync);
        let options = LogStoreOptions {
            durability: if early { Durability::None } else { Durability::Sync },
            // A layout has to fit into one.
            segment_bytes: if keeps_layouts { 64 << 10 } else { 8 << 10 },
            recent_bytes_max: if keeps_layouts { 1 << 20 } else { 256 << 10 },
            recent_bytes_due: 8 << 10,
            log_bytes_due: if keeps_layouts { 256 << 10 } else { 64 << 10 },
            cache_bytes_max: cache_bytes,
            salt: self.salt,
            seed,
            heal,
        };
        let opened = LogStore::open(Arc::new(self.files.clone()), Arc::new(self.base.clone()), options);
        opened.unwrap_or_else(|error| panic!("a disk with nothing worse than a crash or rot cannot be opened: {error}"))
    }

    /// Walks over the bases that rotted, the last first.
    pub(crate) fn salvages(&self) -> Vec<Salvage> {
        self.replaced.iter().map(|base| Salvage::new(Arc::new(base.clone()))).collect()
    }

    /// Puts an empty base in the place of one that rotted.
    pub(crate) fn replace_base(&mut self, mark: Mark) -> Arc<dyn Base> {
        let fresh = MemoryBase::new();
        fresh.load(&mut std::iter::empty(), mark, &mut || ()).expect("an empty base takes its mark");
        self.replaced.push(std::mem::replace(&mut self.base, fresh.clone()));
        Arc::new(fresh)
    }

    /// The last of the bases that rotted was gone through.
    pub(crate) fn set_aside(&mut self) {
        self.replaced.pop();
    }

    /// The row as it lies in the base; an error if it cannot be got at.
    pub(crate) fn in_base(&self, address: &Address) -> Result<Option<Bytes>, ()> {
        self.base.get(address).map_err(|_| ())
    }

    /// Whether something on it is not as it was written, or was so and is not mended yet.
    pub(crate) fn is_rotten(&self) -> bool {
        let damaged = |kind| match self.base.scan(&Span::kind(kind), PageSize::rows(1_000)) {
            Ok(page) => page.rows.iter().any(|(address, row)| !is_sound(address, row)),
            Err(_) => true,
        };
        let has_rotten_files = || self.base.rotten_files(&mut || ()).is_ok_and(|files| !files.is_empty());
        self.log_rots || !self.replaced.is_empty() || has_rotten_files() || damaged(Kind::Data) || damaged(Kind::Hint)
    }

    /// Whether what is noted in the base cannot be read, which only those see who go through it.
    pub(crate) fn has_unreadable_notes(&self) -> bool {
        self.base.scan(&Span::kind(Kind::Due), PageSize::rows(1_000)).is_err()
    }

    /// Bits of a row flip in the base; whether there is such a row.
    pub(crate) fn rot_row(&self, key: &Key, part: Part, rng: &mut ChaCha8Rng) -> bool {
        let address = if part == Part::Hints { Address::hint(key) } else { Address::data(key) };
        let Ok(Some(row)) = self.in_base(&address) else { return false };
        let mut bytes = row.to_vec();
        let at = rng.random_range(0..bytes.len());
        bytes[at] ^= 1 << rng.random_range(0..8);
        self.base.damage(&address, bytes.into());
        true
    }

    /// Bits flip in what the log holds; whether it holds anything.
    pub(crate) fn rot_log(&mut self, rng: &mut ChaCha8Rng) -> bool {
        let mut written = Vec::new();
        for (name, _) in self.files.list().unwrap_or_default() {
            let bytes = self.files.read(&name).unwrap_or_default();
            let nonzero = (0..bytes.len()).filter(|&at| name.starts_with("segment-") && bytes[at] != 0);
            written.extend(nonzero.map(|at| (name.clone(), at)));
        }
        if written.is_empty() {
            return false;
        }
        // Often in what was written last, which lies nowhere else on this disk.
        let from = if rng.random_ratio(2, 3) { written.len().saturating_sub(500) } else { 0 };
        let (name, at) = &written[rng.random_range(from..written.len())];
        self.files.damage(name, *at, 1 << rng.random_range(0..8));
        self.log_rots = true;
        true
    }

    /// A block of the base can no longer be read: neighbours of one another; whether there is anything in it.
    pub(crate) fn rot_base(&self, rng: &mut ChaCha8Rng) -> bool {
        let page = self.base.scan(&Span::everything(), PageSize::rows(1_000)).unwrap_or_default();
        if page.rows.is_empty() {
            return false;
        }
        let (from, many) = (rng.random_range(0..page.rows.len()), rng.random_range(1..=page.rows.len()));
        page.rows.iter().skip(from).take(many).for_each(|(address, _)| self.base.spoil(address));
        true
    }

    /// The row at this address cannot be read from the base any more.
    pub(crate) fn rot_base_at(&self, address: &Address) {
        self.base.spoil(address);
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

fn is_sound(address: &Address, row: &Bytes) -> bool {
    match address.kind() {
        Kind::Hint => Hint::decode(row).is_ok(),
        _ => Row::is_sound(row),
    }
}
