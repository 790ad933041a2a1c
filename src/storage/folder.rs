//! The data folder: whose it is, and how a store is opened from it.
//!
//! ```text
//!  <folder>/lock             held while a process uses the folder
//!  <folder>/identity.json    {"format":1,"cluster":"<name>","node":"<16 hex>","salt":"<16 hex>","check":"<16 hex>"}
//!  <folder>/identity.copy    the same: without it nothing in the folder can be read, so it is there twice
//!  <folder>/log/             the commit log's segments
//!  <folder>/base/            the base, and what is left of earlier ones: see `bases`
//! ```

use super::base::{Base, BaseError, Mark};
use super::bases::Bases;
use super::disk::{BaseOpenError, FjallBase, FjallOptions};
use super::files::RealFiles;
use super::hints::{HINT_BYTES_MAX, HintLedger};
use super::kept_mark::KeptMark;
use super::log::Replayed;
use super::log_store::{LogStore, LogStoreOptions, StoreOpenError};
use super::{Rebuild, Salvage, Sequence};
use crate::membership::Lack;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions as FileOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The layout of a folder and of everything in it, as this version writes it.
const FORMAT: u32 = 1;

const IDENTITY: &str = "identity.json";
const IDENTITY_COPY: &str = "identity.copy";

/// Whose folder it is. Written once, when it is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster's name.
    pub cluster: Box<str>,
    /// The node's id.
    pub node: u64,
    /// What names the log's frames; random.
    pub salt: u64,
}

#[derive(Serialize, Deserialize)]
struct IdentityFile {
    format: u32,
    cluster: String,
    node: String,
    salt: String,
    /// The first 8 bytes of BLAKE3 over the other fields, each behind a line break.
    check: String,
}

impl IdentityFile {
    fn check(&self) -> String {
        let fields = format!("{}\n{}\n{}\n{}", self.format, self.cluster, self.node, self.salt);
        blake3::hash(fields.as_bytes()).to_hex()[..16].into()
    }
}

/// How to open a folder.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The cluster that this node is told to be of. A folder of another one is refused.
    pub cluster: Box<str>,
    /// The id of the node, random, if the folder is new.
    pub new_node: u64,
    /// Random, drawn at every start: the log's salt if the folder is new, and where rows lie in the cache.
    pub entropy: u64,
    /// The store. Its salt and seed are filled in here.
    pub store: LogStoreOptions,
    /// The base.
    pub base: FjallOptions,
    /// Bytes of hints kept for each target.
    pub hint_bytes_max: u64,
    /// Whether there are peers that have what is lost here. Then a store that rotted is opened without what cannot be
    /// read, else not at all.
    pub heal: bool,
}

impl OpenOptions {
    /// The defaults.
    pub fn new(cluster: &str, new_node: u64, entropy: u64) -> OpenOptions {
        OpenOptions {
            cluster: cluster.into(),
            new_node,
            entropy,
            store: LogStoreOptions::default(),
            base: FjallOptions::default(),
            hint_bytes_max: HINT_BYTES_MAX,
            heal: false,
        }
    }
}

/// A store opened from a folder.
pub struct Opened {
    /// The store. The folder is ours until it is dropped.
    pub store: Arc<LogStore>,
    /// Whose the folder is.
    pub identity: Identity,
    /// Whether the folder was made just now.
    pub is_new: bool,
    /// What the log held that the base did not.
    pub replayed: Replayed,
    /// The hints kept for others.
    pub hints: HintLedger,
    /// Hint rows that could not be read.
    pub hints_damaged: u64,
    /// What rotted and is not there any more, a line each. Unless there is none, this node lacks what it once had.
    pub lost: Vec<String>,
    /// How much that may be.
    pub lack: Option<Lack>,
    /// Bases that rotted, by number: to be gone through for what can still be read, if anything, then to be set aside.
    pub salvages: Vec<(u64, Option<Salvage>)>,
    /// Where bases are made and set aside.
    pub bases: Bases,
    /// To fill the digests with, from a thread of its own, beside the committer.
    pub rebuild: Rebuild,
}

/// Why a folder can't be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error("{} is in use by another process", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// It holds the data of another cluster.
    #[error("{} belongs to cluster {found:?}, not to {wanted:?}", folder.display())]
    OtherCluster {
        /// The folder.
        folder: PathBuf,
        /// Its cluster.
        found: Box<str>,
        /// The one asked for.
        wanted: Box<str>,
    },
    /// It was written in a format this version does not know.
    #[error("{} has format {found}, this version reads {FORMAT}", folder.display())]
    OtherFormat {
        /// The folder.
        folder: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It is not empty, and not a data folder.
    #[error("{} is not a data folder: {reason}", folder.display())]
    NotOurs {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The system refused.
    #[error("cannot use {}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The log or the base is damaged, and there is nobody to give back what is lost.
    #[error(
        "{}: {error}; this node is told of no peers that would have what is lost: put the folder back from a copy, move \
         it away to start empty, or name its peers",
        folder.display()
    )]
    Store {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        error: StoreOpenError,
    },
}

/// Opens the store in `folder`, which is made if it is missing.
pub fn open(folder: &Path, options: OpenOptions) -> Result<Opened, OpenError> {
    let io_error = |path: &Path| {
        let path = path.to_owned();
        move |error| OpenError::Io { path, error }
    };
    if folder.exists() && !folder.is_dir() {
        return Err(OpenError::NotOurs { folder: folder.into(), reason: "it is a file".into() });
    }
    std::fs::create_dir_all(folder).map_err(io_error(folder))?;
    let lock = lock(folder)?;
    let (identity, is_new) = match sound_identity(folder)? {
        Some(identity) => (identity, false),
        None => {
            let identity = Identity { cluster: options.cluster.clone(), node: options.new_node, salt: options.entropy };
            write_identity(folder, &identity).map_err(io_error(&folder.join(IDENTITY)))?;
            (identity, true)
        }
    };
    if identity.cluster != options.cluster {
        let (found, wanted) = (identity.cluster, options.cluster);
        return Err(OpenError::OtherCluster { folder: folder.into(), found, wanted });
    }
    let damaged = |error: StoreOpenError| OpenError::Store { folder: folder.into(), error };
    let files = Arc::new(RealFiles::open(&folder.join("log")).map_err(io_error(&folder.join("log")))?);
    let kept = KeptMark::read(&*files).map_err(io_error(&folder.join("log")))?.mark();
    let bases = Bases::new(folder, options.base);
    let mut lost = Vec::new();
    let base = match live_base(&bases, kept.sequence) {
        Ok(base) => base,
        Err(BaseOpenError::Rotten(why)) if options.heal => {
            lost.push(why.to_string());
            bases.make(kept).map_err(|error| damaged(error.into()))?
        }
        Err(BaseOpenError::Rotten(why) | BaseOpenError::Failed(why)) => return Err(damaged(why.into())),
    };
    let salvages = rotten_bases(&bases, &mut lost).map_err(io_error(folder))?;
    let store_options =
        LogStoreOptions { salt: identity.salt, seed: options.entropy, heal: options.heal, ..options.store };
    let (mut store, replayed) = LogStore::open(files, Arc::new(base), store_options).map_err(damaged)?;
    let lack = match (lost.is_empty(), &replayed.missing) {
        (true, None) => None,
        (true, Some(_)) if replayed.is_tail => Some(Lack::TAIL),
        _ => Some(Lack::ROWS),
    };
    lost.extend(replayed.missing.clone());
    store.lock = Some(lock);
    let rebuild = Rebuild::new(&store);
    let (hints, hints_damaged) = HintLedger::scan(&store, options.hint_bytes_max);
    if !lost.is_empty() || !salvages.is_empty() {
        hints.void_names();
    }
    let store = Arc::new(store);
    Ok(Opened { store, identity, is_new, replayed, hints, hints_damaged, lost, lack, salvages, bases, rebuild })
}

/// The live base, made if there is none. One that has not got as far as it once had is rotten, whatever it looks like.
fn live_base(bases: &Bases, kept: Sequence) -> Result<FjallBase, BaseOpenError> {
    let failed = |error: io::Error| BaseOpenError::Failed(BaseError(error.to_string().into()));
    let Some(live) = bases.numbers().map_err(failed)?.pop() else {
        let mark = Mark::default();
        return match kept == mark.sequence {
            true => bases.make(mark).map_err(BaseOpenError::Failed),
            false => Err(BaseOpenError::Rotten(BaseError("there is no base".into()))),
        };
    };
    let base = bases.open(live)?;
    let mark = base.mark().map_err(BaseOpenError::Rotten)?;
    match mark.sequence >= kept {
        true => Ok(base),
        false => {
            let (Sequence(mark), Sequence(kept)) = (mark.sequence, kept);
            let why = format!("the base ends with append {mark}, and had got as far as {kept}");
            Err(BaseOpenError::Rotten(BaseError(why.into())))
        }
    }
}

/// Those behind the live one. Of what cannot be opened nothing is to be had.
fn rotten_bases(bases: &Bases, lost: &mut Vec<String>) -> io::Result<Vec<(u64, Option<Salvage>)>> {
    let mut numbers = bases.numbers()?;
    numbers.pop();
    if lost.is_empty() && !numbers.is_empty() {
        lost.push("an earlier base rotted".into());
    }
    let open = |number| Some(Salvage::new(Arc::new(bases.open(number).ok()?)));
    Ok(numbers.into_iter().map(|number| (number, open(number))).collect())
}

fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join("lock");
    let file = FileOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| OpenError::Io { path: path.clone(), error })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { folder: folder.into() }),
        Err(TryLockError::Error(error)) => Err(OpenError::Io { path, error }),
    }
}

/// Writes a damaged copy of the identity anew from the other, before that one rots as well. Whether it had to. For a
/// folder that is open: an error means that neither can be read.
pub fn mend_identity(folder: &Path) -> Result<bool, OpenError> {
    let read = |name| read_identity(folder, name).ok().flatten();
    let (first, copy) = (read(IDENTITY), read(IDENTITY_COPY));
    sound_identity(folder)?;
    Ok(first.is_none() || first != copy)
}

/// The identity, from the copy if it must be; what was damaged is written anew.
fn sound_identity(folder: &Path) -> Result<Option<Identity>, OpenError> {
    let (first, copy) = (read_identity(folder, IDENTITY), read_identity(folder, IDENTITY_COPY));
    let (found, is_whole) = match (first, copy) {
        (Ok(Some(first)), Ok(Some(copy))) => (Ok(Some(first.clone())), first == copy),
        (Ok(Some(sound)), _) | (_, Ok(Some(sound))) => (Ok(Some(sound)), false),
        (Err(error), _) | (Ok(None), Err(error)) => (Err(error), true),
        (Ok(None), Ok(None)) => (Ok(None), true),
    };
    if let (Ok(Some(identity)), false) = (&found, is_whole) {
        write_identity(folder, identity).map_err(|error| OpenError::Io { path: folder.join(IDENTITY), error })?;
    }
    match found {
        // A folder that holds a log or a base without saying whose is not one to start afresh in.
        Ok(None) if folder.join("log").exists() || folder.join("base").exists() => {
            Err(OpenError::NotOurs { folder: folder.into(), reason: format!("it holds data and no {IDENTITY}") })
        }
        found => found,
    }
}

fn read_identity(folder: &Path, name: &str) -> Result<Option<Identity>, OpenError> {
    let path = folder.join(name);
    let not_ours = |reason: String| OpenError::NotOurs { folder: folder.into(), reason };
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::Io { path, error }),
    };
    #[derive(Deserialize)]
    struct FormatOnly {
        format: u32,
    }
    let format: FormatOnly = serde_json::from_slice(&bytes).map_err(|error| not_ours(format!("{name}: {error}")))?;
    if format.format != FORMAT {
        return Err(OpenError::OtherFormat { folder: folder.into(), found: format.format });
    }
    let file: IdentityFile = serde_json::from_slice(&bytes).map_err(|error| not_ours(format!("{name}: {error}")))?;
    if file.check != file.check() {
        return Err(not_ours(format!("{name}: what it says does not fit its check")));
    }
    let number =
        |hex: &str| u64::from_str_radix(hex, 16).map_err(|_| not_ours(format!("{name}: {hex:?} is not 16 hex digits")));
    Ok(Some(Identity { node: number(&file.node)?, salt: number(&file.salt)?, cluster: file.cluster.into() }))
}

/// The copy first: whoever finds the other finds it too.
fn write_identity(folder: &Path, identity: &Identity) -> io::Result<()> {
    let mut file = IdentityFile {
        format: FORMAT,
        cluster: identity.cluster.to_string(),
        node: format!("{:016x}", identity.node),
        salt: format!("{:016x}", identity.salt),
        check: String::new(),
    };
    file.check = file.check();
    let bytes = [&serde_json::to_vec(&file)?[..], b"\n"].concat();
    for name in [IDENTITY_COPY, IDENTITY] {
        let unfinished = folder.join("identity.new");
        let mut out = File::create(&unfinished)?;
        out.write_all(&bytes)?;
        out.sync_all()?;
        std::fs::rename(unfinished, folder.join(name))?;
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(folder: &Path, cluster: &str) -> String {
        match open(folder, OpenOptions::new(cluster, 7, 8)) {
            Ok(_) => panic!("opened"),
            Err(error) => error.to_string().replace(&folder.display().to_string(), "<folder>"),
        }
    }

    #[test]
    fn a_folder_keeps_its_identity_and_serves_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let opened = open(folder.path(), OpenOptions::new("bakery", 0xabc, 5)).unwrap();
        assert!(opened.is_new);
        assert_eq!(refused(folder.path(), "bakery"), "<folder> is in use by another process");
        let identity = opened.identity.clone();
        drop(opened);
        let opened = open(folder.path(), OpenOptions::new("bakery", 0xdef, 6)).unwrap();
        assert_eq!((opened.identity.clone(), opened.is_new), (identity, false));
        drop(opened);
        assert_eq!(refused(folder.path(), "butchery"), "<folder> belongs to cluster \"bakery\", not to \"butchery\"");
    }

    #[test]
    fn one_copy_of_the_identity_that_rots_is_mended_from_the_other_before_that_rots_too() {
        let folder = tempfile::tempdir().unwrap();
        let opened = open(folder.path(), OpenOptions::new("bakery", 0xabc, 5)).unwrap();
        assert!(!mend_identity(folder.path()).unwrap());
        for name in [IDENTITY_COPY, IDENTITY] {
            std::fs::write(folder.path().join(name), "rot").unwrap();
            assert!(mend_identity(folder.path()).unwrap(), "{name}");
            assert!(!mend_identity(folder.path()).unwrap(), "{name}");
        }
        let identity = opened.identity.clone();
        drop(opened);
        assert_eq!(open(folder.path(), OpenOptions::new("bakery", 0xdef, 6)).unwrap().identity, identity);
    }

    #[test]
    fn folders_of_another_kind_are_refused_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let identity = folder.path().join(IDENTITY);
        std::fs::write(&identity, r#"{"format":9,"anything":"else"}"#).unwrap();
        assert_eq!(refused(folder.path(), "bakery"), "<folder> has format 9, this version reads 1");
        for junk in ["", "{}", "not json", "{\"format\":1}", "\u{0}"] {
            std::fs::write(&identity, junk).unwrap();
            let line = refused(folder.path(), "bakery");
            assert!(line.starts_with("<folder> is not a data folder: ") && !line.contains('\n'), "{line}");
        }
        std::fs::remove_file(&identity).unwrap();
        std::fs::create_dir(folder.path().join("log")).unwrap();
        assert_eq!(
            refused(folder.path(), "bakery"),
            "<folder> is not a data folder: it holds data and no identity.json"
        );
    }
}
