//! A simulated folder: remembers what was synced, may forget, tear or reorder the rest at a crash, and fails on command.

use super::Files;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a disk writes as one: a crash keeps each such piece of an un-synced write, or not.
const SECTOR_BYTES: usize = 512;

/// What goes wrong at a chosen operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The machine stops in the middle of it; every later operation fails until [`SimFiles::crash`].
    Crash,
    /// It fails with this kind of error; a write may have been done in part, a failed sync loses what it likes.
    Error(io::ErrorKind),
}

/// How many operations were asked for, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Operations {
    /// Writes, syncs, renames and removals together: the index that a fault names.
    pub all: u64,
    /// Writes.
    pub writes: u64,
    /// Syncs.
    pub syncs: u64,
    /// Renames.
    pub renames: u64,
}

/// The folder. Clones share it, so a test keeps one while the store that uses the other is dropped.
#[derive(Clone, Debug)]
pub struct SimFiles {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Clone, Debug, Default)]
struct Disk {
    files: BTreeMap<u64, Contents>,
    names: BTreeMap<String, u64>,
    names_durable: BTreeMap<String, u64>,
    next_file: u64,
    random: u64,
    operations: Operations,
    faults: BTreeMap<u64, Fault>,
    /// Errors for every operation of a kind, until lifted: a full disk, a broken one.
    write_error: Option<io::ErrorKind>,
    sync_error: Option<io::ErrorKind>,
    crashed: bool,
}

#[derive(Clone, Debug, Default)]
struct Contents {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
}

impl SimFiles {
    /// An empty folder. `seed` decides what crashes leave behind.
    pub fn new(seed: u64) -> SimFiles {
        let disk = Disk { random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, ..Disk::default() };
        SimFiles { disk: Arc::new(Mutex::new(disk)) }
    }

    /// Another folder with the same files in it, as they were made durable. What goes wrong with this one, as on a full
    /// disk, does not go along.
    pub fn copy(&self) -> SimFiles {
        let mut disk = self.lock().clone();
        for contents in disk.files.values_mut() {
            *contents = Contents { now: contents.durable.clone(), durable: contents.durable.clone(), pending: vec![] };
        }
        disk.names = disk.names_durable.clone();
        disk.lift_faults();
        SimFiles { disk: Arc::new(Mutex::new(disk)) }
    }

    /// Lets the operation with this index (from 0, over writes, syncs, renames and removals) go wrong.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.lock().faults.insert(operation, fault);
    }

    /// Lets every write fail so from now on; `None` lifts it.
    pub fn fail_writes(&self, error: Option<io::ErrorKind>) {
        self.lock().write_error = error;
    }

    /// Lets every sync fail so from now on; `None` lifts it.
    pub fn fail_syncs(&self, error: Option<io::ErrorKind>) {
        self.lock().sync_error = error;
    }

    /// How much was done so far.
    pub fn operations(&self) -> Operations {
        self.lock().operations
    }

    /// Whether a [`Fault::Crash`] has struck and [`SimFiles::crash`] is due.
    pub fn is_crashed(&self) -> bool {
        self.lock().crashed
    }

    /// The power goes and comes back: of what was not synced, any part may be left. Faults are lifted.
    pub fn crash(&self) {
        let mut disk = self.lock();
        let disk = &mut *disk;
        let names = std::mem::take(&mut disk.names);
        disk.names = disk.names_durable.clone();
        for (name, file) in names {
            // A name that was never made durable may have lasted all the same.
            if !disk.names.contains_key(&name) && !disk.names.values().any(|&held| held == file) && disk.chance(2) {
                disk.names.insert(name, file);
            }
        }
        disk.names_durable = disk.names.clone();
        for id in disk.files.keys().copied().collect::<Vec<_>>() {
            let mut contents = disk.files.remove(&id).unwrap_or_default();
            // Nothing, everything, a torn end, or any piece of anything.
            let manner = disk.draw(4);
            let pending = std::mem::take(&mut contents.pending);
            let last = pending.len();
            for (at, (offset, bytes)) in pending.into_iter().enumerate() {
                for (piece, chunk) in bytes.chunks(SECTOR_BYTES).enumerate() {
                    let kept = match manner {
                        0 => false,
                        1 => true,
                        2 => at + 1 < last || disk.chance(2),
                        _ => disk.chance(2),
                    };
                    if kept {
                        put(&mut contents.durable, offset + piece * SECTOR_BYTES, chunk);
                    }
                }
            }
            contents.now = contents.durable.clone();
            disk.files.insert(id, contents);
        }
        disk.lift_faults();
    }

    /// Changes bytes behind everyone's back, durably: rot.
    pub fn damage(&self, name: &str, offset: usize, mask: u8) {
        let mut disk = self.lock();
        let id = disk.names[name];
        if let Some(contents) = disk.files.get_mut(&id) {
            for bytes in [&mut contents.now, &mut contents.durable] {
                bytes.get_mut(offset).into_iter().for_each(|byte| *byte ^= mask);
            }
        }
    }

    /// Puts a file there, durably.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut disk = self.lock();
        let id = disk.next_file;
        disk.next_file += 1;
        disk.files.insert(id, Contents { now: bytes.into(), durable: bytes.into(), pending: Vec::new() });
        disk.names.insert(name.into(), id);
        disk.names_durable.insert(name.into(), id);
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put(into: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if into.len() < offset + bytes.len() {
        into.resize(offset + bytes.len(), 0);
    }
    into[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl Disk {
    /// xorshift64*: enough to choose what a crash leaves.
    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.draw(one_in) == 0
    }

    fn lift_faults(&mut self) {
        self.faults.clear();
        self.write_error = None;
        self.sync_error = None;
        self.crashed = false;
    }

    /// Counts an operation; says what goes wrong with it.
    fn operation(&mut self) -> io::Result<Option<Fault>> {
        if self.crashed {
            return Err(io::Error::other("the machine has stopped"));
        }
        let fault = self.faults.remove(&self.operations.all);
        self.operations.all += 1;
        self.crashed = fault == Some(Fault::Crash);
        Ok(fault)
    }

    fn id(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, name.to_owned()))
    }
}

fn outcome(fault: Option<Fault>) -> io::Result<()> {
    match fault {
        None => Ok(()),
        Some(Fault::Crash) => Err(io::Error::other("the machine has stopped")),
        Some(Fault::Error(kind)) => Err(kind.into()),
    }
}

impl Files for SimFiles {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let disk = self.lock();
        match disk.crashed {
            true => Err(io::Error::other("the machine has stopped")),
            false => Ok(disk.names.iter().map(|(name, id)| (name.clone(), disk.files[id].now.len() as u64)).collect()),
        }
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let disk = self.lock();
        let id = disk.id(name)?;
        Ok(disk.files[&id].now.clone())
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.lock();
        let fault = disk.operation()?.or(disk.write_error.map(Fault::Error));
        disk.operations.writes += 1;
        let id = match disk.names.get(name) {
            Some(&id) => id,
            None => {
                let id = disk.next_file;
                disk.next_file += 1;
                disk.names.insert(name.into(), id);
                disk.files.insert(id, Contents::default());
                id
            }
        };
        let done = match fault {
            // Often none or all of it: a whole write that was reported as failed is the nastiest.
            Some(Fault::Error(_)) => match disk.draw(4) {
                0 => bytes.len(),
                1 => 0,
                _ => disk.draw(bytes.len() as u64 + 1) as usize,
            },
            _ => bytes.len(),
        };
        if let Some(contents) = disk.files.get_mut(&id) {
            put(&mut contents.now, offset as usize, &bytes[..done]);
            contents.pending.push((offset as usize, bytes[..done].to_vec()));
        }
        outcome(fault)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let mut disk = self.lock();
        let fault = disk.operation()?.or(disk.sync_error.map(Fault::Error));
        disk.operations.syncs += 1;
        let id = disk.id(name)?;
        let disk = &mut *disk;
        let mut contents = disk.files.remove(&id).unwrap_or_default();
        match fault {
            Some(Fault::Crash) => {}
            // As Linux does: the pages count as clean, whether they reached the disk or not.
            Some(Fault::Error(_)) => {
                for (offset, bytes) in std::mem::take(&mut contents.pending) {
                    if disk.chance(2) {
                        put(&mut contents.durable, offset, &bytes);
                    }
                }
            }
            None => {
                for (offset, bytes) in std::mem::take(&mut contents.pending) {
                    put(&mut contents.durable, offset, &bytes);
                }
            }
        }
        disk.files.insert(id, contents);
        outcome(fault)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.lock();
        let fault = disk.operation()?;
        disk.operations.renames += 1;
        let id = disk.id(from)?;
        if fault.is_none() || disk.chance(2) {
            disk.names.remove(from);
            disk.names.insert(to.into(), id);
            if fault.is_none() || disk.chance(2) {
                disk.names_durable = disk.names.clone();
            }
        }
        outcome(fault)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.lock();
        let fault = disk.operation()?;
        disk.id(name)?;
        if fault.is_none() || disk.chance(2) {
            disk.names.remove(name);
        }
        outcome(fault)
    }
}
