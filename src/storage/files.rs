//! The seam to the disk: all that the commit log asks of a file system, so that a simulated one can forget what was
//! not synced, tear what was half written, and fail at any step.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A flat folder of files. Every name is given by the log, short and plain.
pub trait Files: Send + Sync {
    /// The names of all files and their lengths, in any order.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// All bytes of a file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Writes at an offset, making the file and filling it up as needed. Whether it lasts, in part or whole, is open
    /// until [`Files::sync`]; after an error it is open what was written.
    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything written to the file durable; not its name. After an error nothing is known, and trying again
    /// proves nothing.
    fn sync(&self, name: &str) -> io::Result<()>;

    /// Renames a file, atomically; when it returns, every name in the folder is durable. After an error the file has
    /// either name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. It may come back after a crash, until the next rename.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A real folder. Files written to stay open, so that a commit is one `pwrite` and one `fdatasync`.
#[derive(Debug)]
pub struct RealFiles {
    folder: PathBuf,
    /// For syncing names.
    directory: File,
    open: Mutex<BTreeMap<String, Arc<File>>>,
}

impl RealFiles {
    /// The files in `folder`, which is made if it is missing.
    pub fn open(folder: &Path) -> io::Result<RealFiles> {
        std::fs::create_dir_all(folder)?;
        Ok(RealFiles { folder: folder.into(), directory: File::open(folder)?, open: Mutex::default() })
    }

    fn file(&self, name: &str, create: bool) -> io::Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(name) {
            return Ok(file.clone());
        }
        let file = OpenOptions::new().create(create).truncate(false).write(true).open(self.folder.join(name))?;
        let file = Arc::new(file);
        open.insert(name.into(), file.clone());
        Ok(file)
    }
}

impl Files for RealFiles {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                names.push((name, entry.metadata()?.len()));
            }
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.folder.join(name))
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(name, true)?.write_all_at(bytes, offset)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.file(name, false)?.sync_data()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.folder.join(from), self.folder.join(to))?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(to);
        if let Some(file) = open.remove(from) {
            open.insert(to.into(), file);
        }
        drop(open);
        self.directory.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        std::fs::remove_file(self.folder.join(name))
    }
}
