//! The base on disk: fjall, an LSM tree in pure Rust. The only file that names it.
//!
//! It is written by bulk ingestion alone: a checkpoint comes sorted, so it becomes one table file beside the others,
//! synced and registered in one step. Memtable and journal stay empty, so nothing rotates under readers (which took
//! 40–160 ms when a checkpoint went through the memtable), nothing is written twice before compaction, and a start has
//! no journal to replay.
//!
//! Rows are looked up in tables that this file holds itself ([`Tables`]), not through the engine: its look-ups wait for a
//! lock under which it finishes a merge, with several syncs: 18 ms were seen.

use super::base::{Base, BaseError, BaseSnapshot, Mark};
use super::{Address, Page, PageSize, RowChange, Sequence, Span};
use crate::record::Stamp;
use bytes::Bytes;
use fjall::compaction::Leveled;
use fjall::{AbstractTree, Database, Guard, Iter, Keyspace, KeyspaceCreateOptions, Readable, Snapshot};
use lsm_tree::table::filter::standard_bloom;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use xxhash_rust::xxh3::xxh3_128;

/// Where the mark lies: before every address. Its value: sequence 8, last stamp 8, little-endian.
const MARK_KEY: [u8; 1] = [0];

/// Bytes of one table file. The engine finishes and syncs the last table of a compaction while readers wait, so this
/// is what bounds their wait: 64 MiB, its default, made it 20–60 ms at 1,000,000 keys, three times as often.
const TABLE_BYTES: u64 = 8 << 20;

/// Tables of checkpoints that wait until they are merged into the sorted levels. Each merge rewrites what it meets
/// there, which is everything where keys are random: twice as many as the engine's default halve that work, and a look-up
/// of what is not there asks a few filters more.
const CHECKPOINTS_PER_MERGE: u8 = 8;

/// Rows between two calls of `pace`.
const PACE_ROWS: usize = 256;

/// How the engine is set up.
#[derive(Clone, Copy, Debug)]
pub struct FjallOptions {
    /// Bytes of blocks kept in memory. Small: rows asked for often are in the store's own cache.
    pub cache_bytes: u64,
    /// Threads for compaction.
    pub threads: usize,
}

impl Default for FjallOptions {
    fn default() -> FjallOptions {
        FjallOptions { cache_bytes: 8 << 20, threads: 1 }
    }
}

/// Looks a row up in the tables that the tree was made of at one moment. They stay readable as long as they are held,
/// whatever they are merged into meanwhile. All rows are in tables: nothing is ever put into a memtable.
type Tables = dyn Fn(&[u8]) -> fjall::Result<Option<Bytes>> + Send + Sync;

/// The tables of now.
fn tables(rows: &Keyspace) -> Arc<Tables> {
    // The engine names no type for it.
    let version = rows.tree.current_version();
    Arc::new(move |address| {
        let hash = standard_bloom::Builder::get_hash(address);
        // As the engine looks: newer tables first, and what one knows hides all that is below.
        let runs = version.iter_levels().flat_map(|level| level.iter());
        for table in runs.filter_map(|run| run.get_for_key(address)) {
            if let Some(found) = table.get(address, u64::MAX, hash)? {
                return Ok((!found.is_tombstone()).then(|| Bytes::copy_from_slice(&found.value)));
            }
        }
        Ok(None)
    })
}

/// The base on disk. One keyspace.
pub struct FjallBase {
    database: Database,
    rows: Keyspace,
    /// Those that hold all that was loaded, be it that they were merged since.
    tables: RwLock<Arc<Tables>>,
    folder: PathBuf,
}

/// Why a base can't be opened.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BaseOpenError {
    /// A file of it is not as it was written. Nothing was changed.
    #[error("{0}")]
    Rotten(BaseError),
    /// The system refused, or another process uses it.
    #[error("{0}")]
    Failed(BaseError),
}

impl FjallBase {
    /// Opens the base in `folder`, which is made if it is missing. Checks first what the engine does not: which version
    /// of itself each tree is. It takes an older one for the present, a missing one for none, and removes all the rest.
    pub fn open(folder: &Path, options: FjallOptions) -> Result<FjallBase, BaseOpenError> {
        if std::fs::read_dir(folder).is_ok_and(|mut files| files.next().is_some()) {
            let rotten =
                rotten_trees(folder).map_err(|error| BaseOpenError::Failed(BaseError(error.to_string().into())))?;
            if let Some(name) = rotten.first() {
                return Err(BaseOpenError::Rotten(BaseError(format!("{name} is damaged").into())));
            }
        }
        FjallBase::open_checked(folder, options).map_err(|error| match is_rot(&error) {
            true => BaseOpenError::Rotten(failed(error)),
            false => BaseOpenError::Failed(failed(error)),
        })
    }

    fn open_checked(folder: &Path, options: FjallOptions) -> Result<FjallBase, fjall::Error> {
        let database = Database::builder(folder)
            .cache_size(options.cache_bytes)
            .worker_threads(options.threads.max(1))
            .max_journaling_size(64 << 20)
            .open()?;
        let create = || {
            let strategy =
                Leveled::default().with_table_target_size(TABLE_BYTES).with_l0_threshold(CHECKPOINTS_PER_MERGE);
            KeyspaceCreateOptions::default().max_memtable_size(8 << 20).compaction_strategy(Arc::new(strategy))
        };
        let rows = database.keyspace("rows", create)?;
        let tables = RwLock::new(tables(&rows));
        Ok(FjallBase { database, rows, tables, folder: folder.into() })
    }
}

/// Whether the error says that a file is not as it was written, and not that the system has none of something to give.
fn is_rot(error: &fjall::Error) -> bool {
    let of_io = |error: &io::Error| {
        use io::ErrorKind::{AlreadyExists, InvalidData, InvalidInput, NotFound, UnexpectedEof};
        // Linux, and most others, say 5 (EIO) for a sector that cannot be read.
        let kinds = [AlreadyExists, InvalidData, InvalidInput, NotFound, UnexpectedEof];
        kinds.contains(&error.kind()) || error.raw_os_error() == Some(5)
    };
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => of_io(error),
        fjall::Error::Locked | fjall::Error::Poisoned | fjall::Error::KeyspaceDeleted => false,
        _ => true,
    }
}

/// The trees below `folder` whose present version is not the one that was written last, by the names of the files that
/// say so.
///
/// ```text
///  keyspaces/<n>/current   version 8 | XXH3 of the version's file 16 | 0
///  keyspaces/<n>/v<version>
/// ```
fn rotten_trees(folder: &Path) -> io::Result<Vec<String>> {
    let mut rotten = Vec::new();
    let trees = match std::fs::read_dir(folder.join("keyspaces")) {
        Ok(trees) => trees,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec!["keyspaces".into()]),
        Err(error) => return Err(error),
    };
    for tree in trees {
        let tree = tree?.path();
        let is_sound = || -> io::Result<bool> {
            let current = std::fs::read(tree.join("current"))?;
            let (Some((id, rest)), 25) = (current.split_first_chunk::<8>(), current.len()) else { return Ok(false) };
            let version = std::fs::read(tree.join(format!("v{}", u64::from_le_bytes(*id))))?;
            Ok(rest[..16] == xxh3_128(&version).to_le_bytes())
        };
        let is_sound = match is_sound() {
            Ok(is_sound) => is_sound,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if !is_sound {
            rotten.push(tree.join("current").strip_prefix(folder).unwrap_or(&tree).display().to_string());
        }
    }
    Ok(rotten)
}

fn failed(error: fjall::Error) -> BaseError {
    BaseError(error.to_string().into())
}

fn page(rows: Iter, size: PageSize) -> Result<Page, BaseError> {
    let mut error = None;
    let decoded = rows.map_while(|row: Guard| match row.into_inner() {
        Ok((key, row)) => match Address::from_bytes(Bytes::copy_from_slice(&key)) {
            Some(address) => Some((address, Bytes::copy_from_slice(&row))),
            None => {
                error = Some(BaseError(format!("a row at no address: {}", key.escape_ascii()).into()));
                None
            }
        },
        Err(cause) => {
            error = Some(failed(cause));
            None
        }
    });
    let page = Page::take(decoded, size);
    error.map_or(Ok(page), Err)
}

impl Base for FjallBase {
    fn get(&self, address: &Address) -> Result<Option<Bytes>, BaseError> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner).clone();
        tables(address.as_bytes()).map_err(failed)
    }

    fn scan(&self, span: &Span, size: PageSize) -> Result<Page, BaseError> {
        match span.is_empty() {
            true => Ok(Page::default()),
            false => page(self.rows.range(span.from.as_bytes()..span.to.as_bytes()), size),
        }
    }

    fn snapshot(&self) -> Box<dyn BaseSnapshot> {
        Box::new(FjallSnapshot { snapshot: self.database.snapshot(), rows: self.rows.clone() })
    }

    fn load(
        &self,
        rows: &mut dyn Iterator<Item = RowChange>,
        mark: Mark,
        pace: &mut dyn FnMut(),
    ) -> Result<(), BaseError> {
        let mut table = self.rows.start_ingestion().map_err(failed)?;
        let mark = [mark.sequence.0.to_le_bytes(), mark.last_stamp.0.to_le_bytes()].concat();
        table.write(MARK_KEY, mark).map_err(failed)?;
        for (count, (address, row)) in rows.enumerate() {
            match row {
                // Both as they are, not copied.
                Some(row) => table.write(address.to_bytes(), row).map_err(failed)?,
                None => table.write_tombstone(address.to_bytes()).map_err(failed)?,
            }
            if count % PACE_ROWS == PACE_ROWS - 1 {
                pace();
            }
        }
        table.finish().map_err(failed)?;
        // What was merged since the last load goes with the tables of then: the engine keeps it about as long itself.
        let now = tables(&self.rows);
        let before = std::mem::replace(&mut *self.tables.write().unwrap_or_else(PoisonError::into_inner), now);
        // Not under the lock: the last one to hold a table removes its file.
        drop(before);
        Ok(())
    }

    fn mark(&self) -> Result<Mark, BaseError> {
        let Some(bytes) = self.rows.get(MARK_KEY).map_err(failed)? else {
            return Ok(Mark::default());
        };
        let number = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        match (bytes.len(), number(0), number(8)) {
            (16, Some(sequence), Some(stamp)) => Ok(Mark { sequence: Sequence(sequence), last_stamp: Stamp(stamp) }),
            _ => Err(BaseError("its mark is damaged".into())),
        }
    }

    fn bytes(&self) -> u64 {
        self.rows.disk_space()
    }

    fn rotten_files(&self, pace: &mut dyn FnMut()) -> Result<Vec<String>, BaseError> {
        let mut rotten = Vec::new();
        // A version that is held keeps its files.
        let version = self.rows.tree.current_version();
        for table in version.iter_tables() {
            let is_sound = match std::fs::read(&*table.path) {
                Ok(bytes) => xxh3_128(&bytes) == table.checksum().into_u128(),
                Err(error) if [Some(5), Some(2)].contains(&error.raw_os_error()) => false,
                Err(error) => return Err(BaseError(error.to_string().into())),
            };
            if !is_sound {
                rotten.push(table.path.strip_prefix(&self.folder).unwrap_or(&table.path).display().to_string());
            }
            pace();
        }
        // The engine may be replacing a version just now: what is rotten stays so.
        let mut trees = Vec::new();
        for _ in 0..5 {
            trees = rotten_trees(&self.folder).map_err(|error| BaseError(error.to_string().into()))?;
            if trees.is_empty() {
                break;
            }
            pace();
        }
        rotten.extend(trees);
        Ok(rotten)
    }
}

struct FjallSnapshot {
    snapshot: Snapshot,
    rows: Keyspace,
}

impl BaseSnapshot for FjallSnapshot {
    fn scan(&self, span: &Span, size: PageSize) -> Result<Page, BaseError> {
        match span.is_empty() {
            true => Ok(Page::default()),
            false => page(self.snapshot.range(&self.rows, span.from.as_bytes()..span.to.as_bytes()), size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(name: &str, value: &'static str) -> RowChange {
        (Address::fact(name), Some(Bytes::from_static(value.as_bytes())))
    }

    fn load(base: &FjallBase, rows: Vec<RowChange>, sequence: u64) {
        let mark = Mark { sequence: Sequence(sequence), last_stamp: Stamp(sequence * 10) };
        base.load(&mut rows.into_iter(), mark, &mut || ()).unwrap();
    }

    fn values(page: Page) -> Vec<Bytes> {
        page.rows.into_iter().map(|(_, row)| row).collect()
    }

    #[test]
    fn a_snapshot_stays_as_it_was_while_loads_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let base = FjallBase::open(folder.path(), FjallOptions::default()).unwrap();
        load(&base, vec![fact("a", "old"), fact("b", "old")], 1);
        let snapshot = base.snapshot();
        for round in 2..12 {
            load(&base, vec![fact("a", "new"), (Address::fact("b"), None), fact("c", "new")], round);
        }
        let all = Span::everything();
        assert_eq!(values(snapshot.scan(&all, PageSize::rows(9)).unwrap()), ["old", "old"]);
        assert_eq!(values(base.scan(&all, PageSize::rows(9)).unwrap()), ["new", "new"]);
    }

    #[test]
    fn rows_are_found_while_tables_are_merged_and_after() {
        let folder = tempfile::tempdir().unwrap();
        let base = FjallBase::open(folder.path(), FjallOptions::default()).unwrap();
        let mut twin = std::collections::BTreeMap::new();
        for round in 0..60u64 {
            let rows = (0..100u64).filter(|number| (number * 7 + round * 13) % 5 < 2);
            let rows = rows.map(|number| {
                let value = ((number + round) % 4 > 0).then(|| Bytes::from(format!("{number} of {round}")));
                (Address::fact(&format!("{number:03}")), value)
            });
            let rows: Vec<RowChange> = rows.collect();
            twin.extend(rows.clone());
            load(&base, rows, round + 1);
            for number in 0..=100 {
                let address = Address::fact(&format!("{number:03}"));
                let known = twin.get(&address).cloned().flatten();
                assert_eq!(base.get(&address).unwrap(), known, "{number} in round {round}");
            }
        }
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while base.rows.tree.current_version().iter_tables().count() > 20 {
            assert!(std::time::Instant::now() < deadline, "nothing was merged");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        for (address, known) in twin {
            assert_eq!(base.get(&address).unwrap(), known);
        }
    }

    #[test]
    fn what_was_loaded_is_there_after_opening_again() {
        let folder = tempfile::tempdir().unwrap();
        let base = FjallBase::open(folder.path(), FjallOptions::default()).unwrap();
        assert_eq!(base.mark().unwrap(), Mark::default());
        load(&base, vec![fact("a", "1")], 7);
        drop(base);
        let base = FjallBase::open(folder.path(), FjallOptions::default()).unwrap();
        assert_eq!(base.mark().unwrap(), Mark { sequence: Sequence(7), last_stamp: Stamp(70) });
        assert_eq!(base.get(&Address::fact("a")).unwrap(), Some(Bytes::from_static(b"1")));
        assert_eq!(base.get(&Address::fact("b")).unwrap(), None);
    }
}
