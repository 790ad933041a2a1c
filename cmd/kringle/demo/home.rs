//! Where the nodes of a demo keep what they have: a folder with one for each of them, `n1`, `n2` and so on.
//!
//! Without `--data` it is a temporary one, and goes at the end; or, where the demo was killed, when the next one begins. A
//! node's folder goes with the node, when it is removed from the cluster; so those that are there at a start are its
//! members, and all of them are started. One that was to leave when a demo ended has a mark of it in its folder, and goes then.

use super::console::talk;
use std::fs::{DirBuilder, File, Metadata, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The file that has the cluster's name in it, and is locked as long as its demo lives.
const CLUSTER: &str = "cluster";

/// The file in the folder of a node that is to leave, until the folder goes.
const LEAVING: &str = "leaving";

/// What temporary homes are called, before the process id.
const PREFIX: &str = "kringle-demo-";

/// For so long nobody looks whether a temporary home has been left behind: its demo may not have locked it yet.
const YOUNG: Duration = Duration::from_secs(60);

/// The folder of a demo. A temporary one is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Home {
    folder: PathBuf,
    is_temporary: bool,
    cluster: String,
    /// Locked.
    _lock: File,
}

impl Home {
    /// The folder given, made where it is missing, or a new temporary one that only this user can read. A folder that
    /// another demo uses is refused.
    pub(super) fn make(given: Option<&Path>) -> io::Result<Home> {
        if let Some(folder) = given {
            std::fs::create_dir_all(folder)?;
            return Home::lock(folder.canonicalize()?, false);
        }
        remove_what_was_left();
        // There may be one of this process id, left behind a moment ago.
        let names = std::iter::once(String::new()).chain((1..).map(|again| format!("-{again}")));
        for name in names {
            let folder = std::env::temp_dir().join(format!("{PREFIX}{}{name}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => return Home::lock(folder, true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Takes a folder, and reads the name in it, or makes one up.
    fn lock(folder: PathBuf, is_temporary: bool) -> io::Result<Home> {
        let mut file =
            File::options().create(true).truncate(false).read(true).write(true).open(folder.join(CLUSTER))?;
        if let Err(error) = file.try_lock() {
            return Err(match error {
                TryLockError::WouldBlock => io::Error::other("another demo uses the folder"),
                TryLockError::Error(error) => error,
            });
        }
        let mut cluster = String::new();
        file.read_to_string(&mut cluster)?;
        if cluster.trim().is_empty() {
            cluster = format!("demo-{}", once());
            file.write_all(cluster.as_bytes())?;
        }
        Ok(Home { folder, is_temporary, cluster: cluster.trim().to_owned(), _lock: file })
    }

    /// Itself.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether nothing of it is wanted after the end.
    pub(super) fn is_temporary(&self) -> bool {
        self.is_temporary
    }

    /// The name of this demo's cluster: nodes of another name are refused. Ports go from one demo to another, and nodes look
    /// for their members at the ports that they had.
    pub(super) fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The folder of a node, there or not.
    pub(super) fn of_node(&self, number: u32) -> PathBuf {
        self.folder.join(format!("n{number}"))
    }

    /// Keeps whether a node is to leave, so that whoever starts it again knows.
    pub(super) fn mark_leaving(&self, number: u32, is_leaving: bool) -> io::Result<()> {
        let mark = self.of_node(number).join(LEAVING);
        if is_leaving {
            return File::create(mark).map(drop);
        }
        match std::fs::remove_file(mark) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether a node was to leave.
    pub(super) fn is_leaving(&self, number: u32) -> bool {
        self.of_node(number).join(LEAVING).exists()
    }

    /// The nodes that have a folder here, in order.
    pub(super) fn nodes(&self) -> io::Result<Vec<u32>> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let digits = name.to_str().and_then(|name| name.strip_prefix('n'));
            // Written back, so that n01 is nobody's.
            numbers.extend(
                digits
                    .and_then(|digits| digits.parse::<u32>().ok().filter(|number| number.to_string() == digits))
                    .filter(|number| *number > 0),
            );
        }
        numbers.sort_unstable();
        Ok(numbers)
    }
}

/// A word that no other run has had, nor this one before: by its process id, which comes again, and the time, which two may
/// share.
pub(super) fn once() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}-{}", std::process::id(), since.as_millis(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Removes the temporary homes of demos that were killed and could not do it themselves. What cannot be removed, because it
/// is somebody else's say, stays.
fn remove_what_was_left() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())) {
        let is_old =
            |meta: Metadata| meta.is_dir() && meta.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > YOUNG));
        let lock = || File::open(entry.path().join(CLUSTER)).is_ok_and(|file| file.try_lock().is_ok());
        if entry.metadata().is_ok_and(is_old) && lock() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.is_temporary
            && let Err(error) = std::fs::remove_dir_all(&self.folder)
        {
            talk(&format!("kringle demo: {} is left behind: {error}", self.folder.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_home_is_private_and_goes_with_its_owner() {
        use std::os::unix::fs::PermissionsExt;
        let home = Home::make(None).unwrap();
        let folder = home.folder().to_owned();
        std::fs::create_dir_all(home.of_node(1).join("data")).unwrap();
        assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        let other = Home::make(None).unwrap();
        assert_ne!(other.folder(), folder);
        drop(home);
        assert!(!folder.exists() && other.folder().exists());
    }

    #[test]
    fn what_a_killed_demo_has_left_goes_when_the_next_one_begins() {
        let left = std::env::temp_dir().join(format!("{PREFIX}left-{}", std::process::id()));
        std::fs::create_dir_all(left.join("n1")).unwrap();
        let file = File::create(left.join(CLUSTER)).unwrap();
        file.lock().unwrap();
        File::open(&left).unwrap().set_modified(SystemTime::now() - 2 * YOUNG).unwrap();
        remove_what_was_left();
        assert!(left.exists(), "its demo lives");
        drop(file);
        remove_what_was_left();
        assert!(!left.exists());
    }

    #[test]
    fn a_given_home_stays_and_knows_whose_folders_are_in_it() {
        let above = tempfile::tempdir().unwrap();
        let given = above.path().join("demo");
        let home = Home::make(Some(&given)).unwrap();
        for name in ["n10", "n2", "n02", "n0", "nonsense", "x"] {
            std::fs::create_dir(given.join(name)).unwrap();
        }
        assert_eq!(home.nodes().unwrap(), [2, 10]);
        home.mark_leaving(10, true).unwrap();
        assert!(home.is_leaving(10) && !home.is_leaving(2));
        home.mark_leaving(10, false).unwrap();
        assert!(home.mark_leaving(10, false).is_ok() && !home.is_leaving(10));
        let name = home.cluster().to_owned();
        assert!(Home::make(Some(&given)).is_err(), "two demos in one folder");
        drop(home);
        assert_eq!(Home::make(Some(&given)).unwrap().cluster(), name);
        assert!(given.join("n2").exists());
    }
}
