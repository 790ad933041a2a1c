//! The data folder: whose it is, and how a store is opened from it.
//!
//! ```text
//!  <folder>/lock             held while a process uses the folder
//!  <folder>/identity.json    {"format":1,"cluster":"<name>","node":"<16 hex>","salt":"<16 hex>"}
//!  <folder>/log/             the commit log's segments
//!  <folder>/base/            the base
//! ```

use super::base::BaseError;
use super::disk::{FjallBase, FjallOptions};
use super::files::RealFiles;
use super::hints::{HINT_BYTES_MAX, HintLedger};
use super::log::Replayed;
use super::log_store::{LogStore, LogStoreOptions, StoreOpenError};
use super::{Rebuild, StoreError};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions as FileOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The layout of a folder and of everything in it, as this version writes it.
const FORMAT: u32 = 1;

const IDENTITY: &str = "identity.json";

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
    /// The log or the base is damaged.
    #[error("{}: {error}", folder.display())]
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
    let (identity, is_new) = match read_identity(folder)? {
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
    let base = open_base(folder, options.base).map_err(|error| damaged(error.into()))?;
    let store_options = LogStoreOptions { salt: identity.salt, seed: options.entropy, ..options.store };
    let (mut store, replayed) = LogStore::open(files, Arc::new(base), store_options).map_err(damaged)?;
    store.lock = Some(lock);
    let rebuild = Rebuild::new(&store);
    let unreadable = |error: StoreError| damaged(BaseError(error.to_string().into()).into());
    let (hints, hints_damaged) = HintLedger::scan(&store, options.hint_bytes_max).map_err(unreadable)?;
    Ok(Opened { store: Arc::new(store), identity, is_new, replayed, hints, hints_damaged, rebuild })
}

/// Opens the base. A new one is made beside its place and moved there whole: a process that dies while it is made
/// leaves nothing behind that a later start would stumble over.
fn open_base(folder: &Path, options: FjallOptions) -> Result<FjallBase, BaseError> {
    let (place, making) = (folder.join("base"), folder.join("base.new"));
    if !place.exists() {
        let failed = |error: io::Error| BaseError(error.to_string().into());
        if making.exists() {
            std::fs::remove_dir_all(&making).map_err(failed)?;
        }
        drop(FjallBase::open(&making, options)?);
        std::fs::rename(&making, &place).map_err(failed)?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    }
    FjallBase::open(&place, options)
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

fn read_identity(folder: &Path) -> Result<Option<Identity>, OpenError> {
    let path = folder.join(IDENTITY);
    let not_ours = |reason: String| OpenError::NotOurs { folder: folder.into(), reason };
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A folder that holds a log or a base without saying whose is not one to start afresh in.
            return match folder.join("log").exists() || folder.join("base").exists() {
                true => Err(not_ours(format!("it holds data and no {IDENTITY}"))),
                false => Ok(None),
            };
        }
        Err(error) => return Err(OpenError::Io { path, error }),
    };
    #[derive(Deserialize)]
    struct FormatOnly {
        format: u32,
    }
    let format: FormatOnly =
        serde_json::from_slice(&bytes).map_err(|error| not_ours(format!("{IDENTITY}: {error}")))?;
    if format.format != FORMAT {
        return Err(OpenError::OtherFormat { folder: folder.into(), found: format.format });
    }
    let file: IdentityFile =
        serde_json::from_slice(&bytes).map_err(|error| not_ours(format!("{IDENTITY}: {error}")))?;
    let number = |hex: &str| {
        u64::from_str_radix(hex, 16).map_err(|_| not_ours(format!("{IDENTITY}: {hex:?} is not 16 hex digits")))
    };
    Ok(Some(Identity { node: number(&file.node)?, salt: number(&file.salt)?, cluster: file.cluster.into() }))
}

fn write_identity(folder: &Path, identity: &Identity) -> io::Result<()> {
    let file = IdentityFile {
        format: FORMAT,
        cluster: identity.cluster.to_string(),
        node: format!("{:016x}", identity.node),
        salt: format!("{:016x}", identity.salt),
    };
    let unfinished = folder.join("identity.new");
    let mut out = File::create(&unfinished)?;
    out.write_all(&serde_json::to_vec(&file)?)?;
    out.write_all(b"\n")?;
    out.sync_all()?;
    std::fs::rename(unfinished, folder.join(IDENTITY))?;
    File::open(folder)?.sync_all()
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
