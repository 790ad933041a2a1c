//! Where the nodes of a demo keep what they have: a folder with one for each of them, `n1`, `n2` and so on.
//!
//! Without `--data` it is a temporary one, and goes at the end. A node's folder goes with the node, when it is removed
//! from the cluster; so those that are there at a start are its members, and all of them are started.

use super::console::talk;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The folder of a demo. A temporary one is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Home {
    folder: PathBuf,
    is_temporary: bool,
}

impl Home {
    /// The folder given, made where it is missing, or a new temporary one that only this user can read.
    pub(super) fn make(given: Option<&Path>) -> io::Result<Home> {
        if let Some(folder) = given {
            std::fs::create_dir_all(folder)?;
            return Ok(Home { folder: folder.canonicalize()?, is_temporary: false });
        }
        // What a demo of the same process id has left behind, because it was killed, is not touched.
        let names = std::iter::once(String::new()).chain((1..).map(|again| format!("-{again}")));
        for name in names {
            let folder = std::env::temp_dir().join(format!("kringle-demo-{}{name}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => return Ok(Home { folder, is_temporary: true }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Itself.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether nothing of it is wanted after the end.
    pub(super) fn is_temporary(&self) -> bool {
        self.is_temporary
    }

    /// The name of this demo's cluster, made up the first time: nodes of another name are refused. Ports go from one demo to
    /// another, and nodes look for their members at the ports that they had.
    pub(super) fn cluster(&self) -> io::Result<String> {
        let file = self.folder.join("cluster");
        if let Ok(name) = std::fs::read_to_string(&file) {
            return Ok(name.trim().to_owned());
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("demo-{}-{}", std::process::id(), since.as_millis());
        std::fs::write(file, &name)?;
        Ok(name)
    }

    /// The folder of a node, there or not.
    pub(super) fn of_node(&self, number: u32) -> PathBuf {
        self.folder.join(format!("n{number}"))
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
    fn a_given_home_stays_and_knows_whose_folders_are_in_it() {
        let above = tempfile::tempdir().unwrap();
        let given = above.path().join("demo");
        let home = Home::make(Some(&given)).unwrap();
        for name in ["n10", "n2", "n02", "n0", "nonsense", "x"] {
            std::fs::create_dir(given.join(name)).unwrap();
        }
        assert_eq!(home.nodes().unwrap(), [2, 10]);
        let name = home.cluster().unwrap();
        drop(home);
        assert_eq!(Home::make(Some(&given)).unwrap().cluster().unwrap(), name);
        assert!(given.join("n2").exists());
    }
}
