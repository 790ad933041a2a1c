//! Backups of all members together, as a folder of folders.
//!
//! ```text
//!  members.json    whose backups belong to it, with a sum of itself; written before the first piece
//!  <id>/           the backup of the member with this id
//! ```
//!
//! A member of which there is no backup is missed: what only it had is in no other's.

use super::about;
use super::manifest::{Manifest, Unfinished};
use super::sealed::{Sealed, write_whole};
use crate::exit::Failed;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The number in the file.
const VERSION: u64 = 1;
const MEMBERS: &str = "members.json";

/// Whose backups belong together.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct Members {
    kringle_backup_members: u64,
    pub cluster_id: String,
    /// The epoch of the layout in which they were members.
    pub epoch: u64,
    pub members: Vec<MemberNamed>,
    /// The sum of this file, with nothing in place of the sum.
    blake3: String,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct MemberNamed {
    /// Its id, which names its folder; none, where it has not been met yet.
    pub id: Option<String>,
    pub name: String,
}

impl Sealed for Members {
    fn sum(&mut self) -> &mut String {
        &mut self.blake3
    }
}

impl Members {
    /// As `GET /cluster` tells of them.
    pub fn of(cluster: &serde_json::Value) -> Members {
        let members = cluster["members"].as_array().into_iter().flatten();
        let named = members.map(|member| MemberNamed {
            id: member["id"].as_str().map(str::to_owned),
            name: member["name"].as_str().unwrap_or("a member").to_owned(),
        });
        Members {
            kringle_backup_members: VERSION,
            cluster_id: cluster["cluster_id"].as_str().unwrap_or_default().to_owned(),
            epoch: cluster["epoch"].as_u64().unwrap_or_default(),
            members: named.collect(),
            blake3: String::new(),
        }
    }

    /// Those a folder is for; nothing, where it does not say.
    pub fn read(folder: &Path) -> Result<Option<Members>, Failed> {
        let path = folder.join(MEMBERS);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(about(&path)(error)),
        };
        let members = Members::unsealed(&bytes).map_err(|why| {
            Failed::usage(format!("{}: {why}", path.display())).hint(
                "it was changed since it was written: use another copy of the backup, or name the members' folders",
            )
        })?;
        if members.kringle_backup_members != VERSION {
            let error = format!("backups of version {}, and this is of {VERSION}", members.kringle_backup_members);
            return Err(Failed::usage(error).hint("use the kringlectl that made them, or a later one"));
        }
        Ok(Some(members))
    }

    /// Writes it.
    pub fn keep(&self, folder: &Path) -> Result<(), Failed> {
        write_whole(&folder.join(MEMBERS), &self.sealed()?)
    }

    /// Fails for one of them of which there is no backup that is done.
    fn check(&self, folder: &Path) -> Result<(), Failed> {
        for MemberNamed { id, name } in &self.members {
            let within = id.as_ref().map(|id| folder.join(Path::new(id).file_name().unwrap_or_default()));
            let missing = match within {
                Some(within) if Manifest::is_in(&within) => {
                    let manifest = Manifest::read(&within)?;
                    if Some(&manifest.node.id) == id.as_ref() {
                        continue;
                    }
                    format!("{} is a backup of node {}, and not of {name}", within.display(), manifest.node.id)
                }
                Some(within) if within.is_dir() => format!("{}: the backup of {name} is not done", within.display()),
                _ => format!("{}: there is no backup of {name}", folder.display()),
            };
            return Err(Failed::usage(missing).hint(
                "go on with it by kringlectl backup --resume; to do with less, name the folders of single members",
            ));
        }
        Ok(())
    }
}

/// The backups in these folders: each is one, or has some, one for each node.
pub fn find(folders: &[PathBuf]) -> Result<Vec<PathBuf>, Failed> {
    let mut found = Vec::new();
    for folder in folders {
        if Manifest::is_in(folder) || Unfinished::is_in(folder) {
            found.push(folder.clone());
            continue;
        }
        if let Some(members) = Members::read(folder)? {
            members.check(folder)?;
        }
        let mut within: Vec<PathBuf> = std::fs::read_dir(folder)
            .map_err(about(folder))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| Manifest::is_in(path) || Unfinished::is_in(path) || is_empty(path))
            .collect();
        if within.is_empty() {
            // Says why.
            Manifest::read(folder)?;
        }
        if let Some(empty) = within.iter().find(|path| is_empty(path)) {
            return Err(Failed::usage(format!("{}: the backup is not done", empty.display()))
                .hint("go on with it by kringlectl backup --resume, or remove the empty folder"));
        }
        within.sort();
        found.extend(within);
    }
    Ok(found)
}

/// Whether it is a folder with nothing in it, as one of a backup that was cut off before its first file.
fn is_empty(path: &Path) -> bool {
    path.read_dir().is_ok_and(|mut entries| entries.next().is_none())
}

/// Warns where backups that are to be restored together were taken of different layouts: what went from one node to another
/// in between is in neither.
pub fn warn_of_epochs<'a>(manifests: impl IntoIterator<Item = &'a Manifest>) -> bool {
    let mut epochs: Vec<(&str, u64)> = manifests.into_iter().map(|one| (one.cluster_id.as_str(), one.epoch)).collect();
    epochs.sort_unstable();
    epochs.dedup();
    let differ = epochs.windows(2).any(|pair| pair[0].0 == pair[1].0);
    if differ {
        talk!(
            "the layout changed between the backups of one node and another: keys that changed owners may be in neither"
        );
    }
    differ
}
