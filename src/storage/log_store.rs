//! The durable store: a commit log in front of a base.
//!
//! An append is one synced frame in the log, then the rows go into the active table, and only then can be read. Every
//! few seconds [`LogStore::checkpoint`] freezes that table and loads it into the base, after which the log's segments
//! are used again. A start replays the log's tail into a frozen table.
//!
//! Reads look in the cache, the active table, the frozen one, the base, in that order, so whatever is found first is
//! the newest: an append puts its rows into the active table and then, over the ones before, into the cache. The one
//! race is a reader that takes an old row from the base, is overtaken by an append of a new one, and would put the old
//! row into the cache: it reserves the place before it looks anywhere, and the append takes the place away.

use super::base::{Base, BaseError, BaseSnapshot, Mark};
use super::cache::RowCache;
use super::files::Files;
use super::hash::{Hashed, hash_of};
use super::kept_mark::KeptMark;
use super::log::{CommitLog, LogError, LogOpenError, Replayed};
use super::recent::{Table, cost_of};
use super::{
    Address, Durability, Health, Hint, Kind, Page, PageSize, Peek, RowChange, Sequence, Span, Store, StoreError, Usage,
};
use crate::record::{Row, Stamp};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

/// How a [`LogStore`] is set up.
#[derive(Clone, Debug)]
pub struct LogStoreOptions {
    /// When an append counts as done.
    pub durability: Durability,
    /// Bytes of one log segment. Two of them are about a second of the heaviest writing.
    pub segment_bytes: u64,
    /// Bytes of recent rows in one generation; there are at most two. Past the second, appends are refused.
    pub recent_bytes_max: u64,
    /// Bytes of recent rows from which a checkpoint is due.
    pub recent_bytes_due: u64,
    /// Bytes of log from which a checkpoint is due; at four times as many, appends are refused.
    pub log_bytes_due: u64,
    /// Bytes of rows in the cache.
    pub cache_bytes_max: u64,
    /// Names this folder's frames: random, made with the folder, secret enough that no client can forge a frame.
    pub salt: u64,
    /// Random, new with every start: where rows lie in memory.
    pub seed: u64,
    /// Whether a log with acknowledged appends missing is opened all the same, with what can be read of it.
    pub heal: bool,
}

impl Default for LogStoreOptions {
    fn default() -> LogStoreOptions {
        LogStoreOptions {
            durability: Durability::Sync,
            segment_bytes: 8 << 20,
            recent_bytes_max: 32 << 20,
            recent_bytes_due: 16 << 20,
            log_bytes_due: 64 << 20,
            cache_bytes_max: 30 << 20,
            salt: 0,
            seed: 0,
            heal: false,
        }
    }
}

/// Why a store can't be opened. Nothing acknowledged was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreOpenError {
    /// The log.
    #[error("the log: {0}")]
    Log(#[from] LogOpenError),
    /// The base.
    #[error("the base: {0}")]
    Base(#[from] BaseError),
}

/// Why a checkpoint did not go through. Nothing is lost: the rows stay in memory and in the log, call it again.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The log can't be synced or its segments not renamed.
    #[error("the log: {0}")]
    Log(Arc<str>),
    /// The base did not take the rows.
    #[error("the base: {0}")]
    Base(Arc<str>),
}

/// What a checkpoint did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checkpointed {
    /// Rows loaded into the base; 0 when there was nothing to do.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// What the shell should call soon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    /// [`LogStore::checkpoint`], now rather than at its usual time.
    pub checkpoint: bool,
    /// [`LogStore::prepare`].
    pub segment: bool,
}

/// The store. Appends come from one thread, checkpoints from another, reads from any.
pub struct LogStore {
    log: CommitLog,
    base: RwLock<Arc<dyn Base>>,
    /// A read of the base failed since this was last asked.
    suspected: AtomicBool,
    files: Arc<dyn Files>,
    kept_mark: Mutex<KeptMark>,
    tables: RwLock<Tables>,
    cache: RowCache,
    options: LogStoreOptions,
    /// Held by an append from before its frame until its rows are in the active table, and by a freeze.
    appending: Mutex<()>,
    checkpointing: Mutex<()>,
    last_stamp: AtomicU64,
    health: Mutex<Troubles>,
    /// Keeps the folder ours.
    #[cfg_attr(not(feature = "disk"), allow(dead_code))]
    pub(super) lock: Option<std::fs::File>,
}

struct Tables {
    active: Arc<Table>,
    frozen: Option<Arc<Table>>,
}

#[derive(Default)]
struct Troubles {
    fenced: Option<Arc<str>>,
    write: Option<Arc<str>>,
    checkpoint: Option<Arc<str>>,
}

impl LogStore {
    /// Opens the store that `files` and `base` hold, replaying what the base has not got. What is replayed waits in a
    /// frozen table for the first checkpoint.
    pub fn open(
        files: Arc<dyn Files>,
        base: Arc<dyn Base>,
        options: LogStoreOptions,
    ) -> Result<(LogStore, Replayed), StoreOpenError> {
        let mark = base.mark()?;
        let kept_mark = KeptMark::read(&*files).map_err(|error| LogOpenError::Io { name: "mark".into(), error })?;
        let frozen = Table::new();
        let mut last_stamp = mark.last_stamp;
        let (log, replayed) = CommitLog::open(
            files.clone(),
            options.salt,
            options.segment_bytes,
            options.durability,
            options.heal,
            mark.sequence,
            |sequence, stamp, rows| {
                last_stamp = last_stamp.max(stamp);
                for (address, row) in rows {
                    frozen.put(hash_of(options.seed, &address), address, row);
                }
                frozen.reach(sequence, last_stamp);
            },
        )?;
        let frozen = (replayed.appends > 0).then(|| Arc::new(frozen));
        let store = LogStore {
            log,
            base: RwLock::new(base),
            suspected: AtomicBool::new(false),
            files,
            kept_mark: Mutex::new(kept_mark),
            tables: RwLock::new(Tables { active: Arc::new(Table::new()), frozen }),
            cache: RowCache::new(options.cache_bytes_max),
            options,
            appending: Mutex::new(()),
            checkpointing: Mutex::new(()),
            last_stamp: AtomicU64::new(last_stamp.0),
            health: Mutex::default(),
            lock: None,
        };
        Ok((store, replayed))
    }

    /// Makes the next log segment ready, off the commit path. To be called when [`LogStore::due`] says so, from a
    /// thread that may wait for the disk.
    pub fn prepare(&self) -> Result<(), CheckpointError> {
        self.log.prepare().map_err(CheckpointError::Log)
    }

    /// What should be called soon. Cheap: to be asked every few tens of milliseconds.
    pub fn due(&self) -> Due {
        let tables = self.tables();
        let recent = tables.active.bytes() >= self.options.recent_bytes_due;
        let checkpoint = recent || tables.frozen.is_some() || self.log.bytes() >= self.options.log_bytes_due;
        Due { checkpoint, segment: self.log.wants_segment() }
    }

    /// Empties the recent rows into the base, then frees their log segments. One at a time; to be called every few
    /// seconds and when [`LogStore::due`] says so, from a thread of its own. `pace` is called between small pieces of
    /// work: a pause there keeps the foreground fast. Reads and appends go on.
    pub fn checkpoint(&self, pace: &mut dyn FnMut()) -> Result<Checkpointed, CheckpointError> {
        let _checkpointing = self.checkpointing.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.run_checkpoint(pace);
        self.troubles().checkpoint = result.as_ref().err().map(|error| error.to_string().into());
        result
    }

    fn run_checkpoint(&self, pace: &mut dyn FnMut()) -> Result<Checkpointed, CheckpointError> {
        let Some(frozen) = self.freeze() else {
            return Ok(Checkpointed::default());
        };
        // The base must never be ahead of the log: a cut log would then go on with a gap.
        self.log.sync().map_err(|error| CheckpointError::Log(self.note(error).to_string().into()))?;
        let (sequence, last_stamp) = frozen.through();
        let mark = Mark { sequence, last_stamp };
        let mut pace_and_prepare = || {
            self.log.prepare().ok();
            pace();
        };
        let loaded = self.base().load(&mut frozen.all(), mark, &mut pace_and_prepare);
        loaded.map_err(|BaseError(reason)| CheckpointError::Base(reason))?;
        let kept = self.kept_mark.lock().unwrap_or_else(PoisonError::into_inner).write(&*self.files, mark);
        kept.map_err(|error| CheckpointError::Log(format!("writing the mark: {error}").into()))?;
        self.tables.write().unwrap_or_else(PoisonError::into_inner).frozen = None;
        self.log.recycle(sequence).map_err(CheckpointError::Log)?;
        Ok(Checkpointed { rows: frozen.rows(), bytes: frozen.bytes() })
    }

    /// The frozen table, after freezing the active one if there was none and it holds anything.
    fn freeze(&self) -> Option<Arc<Table>> {
        if let Some(frozen) = &self.tables().frozen {
            return Some(frozen.clone());
        }
        let _appending = self.appending.lock().unwrap_or_else(PoisonError::into_inner);
        self.freeze_active();
        self.tables().frozen.clone()
    }

    /// Makes the active table the frozen one, if that place is free. To be called while nothing is being appended.
    fn freeze_active(&self) -> bool {
        let fresh = Arc::new(Table::new());
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        if tables.frozen.is_some() || tables.active.rows() == 0 {
            return false;
        }
        tables.frozen = Some(std::mem::replace(&mut tables.active, fresh));
        true
    }

    /// Whether there is room for rows of this cost.
    fn make_room(&self, cost: u64) -> Result<(), StoreError> {
        let active = self.tables().active.bytes();
        let is_full = active > 0 && active + cost > self.options.recent_bytes_max && !self.freeze_active();
        if is_full || self.log.bytes() >= 4 * self.options.log_bytes_due {
            return match &self.troubles().checkpoint {
                Some(reason) => Err(StoreError::ReadOnly(reason.clone())),
                None => Err(StoreError::Overloaded),
            };
        }
        Ok(())
    }

    fn note(&self, error: LogError) -> StoreError {
        let mut troubles = self.troubles();
        match error {
            LogError::Write(reason) => {
                troubles.write = Some(reason.clone());
                StoreError::ReadOnly(reason)
            }
            LogError::Fenced(reason) => {
                let reason = troubles.fenced.get_or_insert(reason).clone();
                StoreError::Fenced(reason)
            }
            LogError::TooLarge => StoreError::Overloaded,
        }
    }

    /// A stepper over what was there when the store was opened. To be taken before the first append.
    pub(super) fn snapshot(&self) -> (Option<Arc<Table>>, Box<dyn BaseSnapshot>) {
        let tables = self.tables();
        assert!(tables.active.rows() == 0, "a snapshot for rebuilding digests is taken before the first append");
        (tables.frozen.clone(), self.base().snapshot())
    }

    /// Goes on over another base, an empty one that counts as having got as far as this one: what `make` returns for
    /// that mark. What is not yet in the base stays. To be called while nothing is being appended. Returns the old one.
    pub(super) fn replace_base(
        &self,
        make: impl FnOnce(Mark) -> Result<Arc<dyn Base>, BaseError>,
    ) -> Result<Arc<dyn Base>, BaseError> {
        let _checkpointing = self.checkpointing.lock().unwrap_or_else(PoisonError::into_inner);
        let mark = self.kept_mark.lock().unwrap_or_else(PoisonError::into_inner).mark();
        let fresh = make(mark)?;
        let old = std::mem::replace(&mut *self.base.write().unwrap_or_else(PoisonError::into_inner), fresh);
        // Takes away the places too that readers of the old base reserved.
        self.cache.clear();
        Ok(old)
    }

    /// A read of the base failed that did not go through this store: that of a [`Rebuild`](super::Rebuild).
    pub fn suspect(&self) {
        self.suspected.store(true, Ordering::Relaxed);
    }

    /// Whether a read of the base failed since this was last asked.
    pub fn take_suspicion(&self) -> bool {
        self.suspected.swap(false, Ordering::Relaxed)
    }

    /// The files of the base that are not as they were written. Reads all of it; `pace` is called every few MiB.
    pub fn rotten_files(&self, pace: &mut dyn FnMut()) -> Result<Vec<String>, BaseError> {
        self.base().rotten_files(pace)
    }

    fn base(&self) -> Arc<dyn Base> {
        self.base.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn unreadable(&self, error: BaseError) -> StoreError {
        self.suspect();
        StoreError::Unreadable(error.0)
    }

    fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn troubles(&self) -> MutexGuard<'_, Troubles> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn get(&self, hash: Hashed, address: &Address) -> Option<Option<Bytes>> {
        self.active.get(hash, address).or_else(|| self.frozen.as_ref()?.get(hash, address))
    }
}

/// Whether a row of the base is as it was written. What is not stays out of the cache: rows in memory are not checked
/// again, and one that rotted must be met as what it is each time.
fn is_sound(address: &Address, row: &Bytes) -> bool {
    match address.kind() {
        Kind::Data => Row::is_sound(row),
        Kind::Hint => Hint::decode(row).is_ok(),
        // Facts bring no checksum; whoever reads one checks it.
        Kind::Fact | Kind::Due => true,
    }
}

impl Store for LogStore {
    fn peek(&self, address: &Address) -> Peek {
        let hash = hash_of(self.options.seed, address);
        match self.cache.get(hash, address).or_else(|| self.tables().get(hash, address)) {
            Some(row) => Peek::Known(row),
            None => Peek::Ask,
        }
    }

    fn read(&self, address: &Address) -> Result<Option<Bytes>, StoreError> {
        let hash = hash_of(self.options.seed, address);
        if let Some(row) = self.cache.get(hash, address) {
            return Ok(row);
        }
        let reserved = self.cache.reserve(hash);
        if let Some(row) = self.tables().get(hash, address) {
            return Ok(row);
        }
        let row = self.base().get(address).map_err(|error| self.unreadable(error))?;
        if let Some(reserved) = reserved
            && row.as_ref().is_none_or(|row| is_sound(address, row))
        {
            let (address, row) = row.as_ref().map_or_else(|| (address.clone(), None), |row| address.with_row(row));
            reserved.fill(address, row);
        }
        Ok(row)
    }

    fn scan(&self, span: &Span, size: PageSize) -> Result<Page, StoreError> {
        let tables = {
            let tables = self.tables();
            [tables.frozen.clone(), Some(tables.active.clone())]
        };
        let base = self.base();
        merged_page(span, size, tables.iter().flatten(), |span, size| base.scan(span, size))
            .map_err(|error| self.unreadable(error))
    }

    fn append(&self, rows: Vec<RowChange>, last_stamp: Stamp) -> Result<Sequence, StoreError> {
        let _appending = self.appending.lock().unwrap_or_else(PoisonError::into_inner);
        self.make_room(cost_of(&rows))?;
        let sequence = self.log.append(&rows, last_stamp).map_err(|error| self.note(error))?;
        self.troubles().write = None;
        // The mark of the checkpoint that takes these rows must not fall behind that of the one before.
        let last_stamp = last_stamp.max(Stamp(self.last_stamp.fetch_max(last_stamp.0, Ordering::AcqRel)));
        let active = self.tables().active.clone();
        for (address, row) in rows {
            let hash = hash_of(self.options.seed, &address);
            active.put(hash, address.clone(), row.clone());
            self.cache.put(hash, address, row);
        }
        active.reach(sequence, last_stamp);
        Ok(sequence)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.log.sync().map_err(|error| self.note(error))
    }

    fn last_sequence(&self) -> Sequence {
        self.log.last_sequence()
    }

    fn last_stamp(&self) -> Stamp {
        Stamp(self.last_stamp.load(Ordering::Acquire))
    }

    fn health(&self) -> Health {
        let troubles = self.troubles();
        match (&troubles.fenced, troubles.write.as_ref().or(troubles.checkpoint.as_ref())) {
            (Some(reason), _) => Health::Fenced(reason.clone()),
            (None, Some(reason)) => Health::ReadOnly(reason.clone()),
            (None, None) => Health::Ok,
        }
    }

    fn usage(&self) -> Usage {
        let tables = self.tables();
        let frozen = tables.frozen.as_ref();
        Usage {
            base_bytes: self.base().bytes(),
            log_bytes: self.log.bytes(),
            recent_rows: tables.active.rows() + frozen.map_or(0, |frozen| frozen.rows()),
            recent_bytes: tables.active.bytes() + frozen.map_or(0, |frozen| frozen.bytes()),
            cache_bytes: self.cache.bytes(),
        }
    }
}

/// One page of tables, the later over the earlier, all over a base. The tables must have been taken before the base is
/// read: rows move from them to it, never back.
pub(super) fn merged_page<'a>(
    span: &Span,
    size: PageSize,
    tables: impl Iterator<Item = &'a Arc<Table>> + Clone,
    scan_base: impl Fn(&Span, PageSize) -> Result<Page, BaseError>,
) -> Result<Page, BaseError> {
    let limit = size.rows_max.max(1);
    let mut recent = BTreeMap::new();
    // Beyond the last row of a table that was cut off nothing is known of that table.
    let mut horizon: Option<Address> = None;
    let mut see_no_further = |next: Address| match &mut horizon {
        Some(horizon) => *horizon = next.min(horizon.clone()),
        None => horizon = Some(next),
    };
    for table in tables {
        let rows = table.range(span, limit);
        if rows.len() == limit
            && let Some((last, _)) = rows.last()
        {
            see_no_further(last.successor());
        }
        recent.extend(rows);
    }
    let base = scan_base(span, size)?;
    if let Some(next) = base.next {
        see_no_further(next);
    }
    let mut merged: BTreeMap<Address, Option<Bytes>> =
        base.rows.into_iter().map(|(address, row)| (address, Some(row))).collect();
    merged.extend(recent);
    if let Some(horizon) = &horizon {
        merged.split_off(horizon);
    }
    let mut page = Page::take(merged.into_iter().filter_map(|(address, row)| Some((address, row?))), size);
    page.next = page.next.or(horizon);
    Ok(page)
}
