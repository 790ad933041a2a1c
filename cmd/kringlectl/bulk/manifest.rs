//! A backup of one node, as a folder.
//!
//! ```text
//!  manifest.json         what it is, and the BLAKE3 sum of each part and of itself; written last
//!  part-00001.kringle    pieces as the node gave them out, each behind its length: 4 bytes, little-endian
//!  part-00002.kringle
//!  unfinished.json       instead of the manifest, from the beginning on and as long as there is more to come
//! ```
//!
//! A backup without a manifest is none yet. Every bit of every file counts: one that was flipped is found.

use super::about;
use super::sealed::{Sealed, write_whole};
use crate::exit::{Exit, Failed};
use kringle::protocol::{Copies, CopiesFrom};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The number in the manifest.
const VERSION: u64 = 1;
const MANIFEST: &str = "manifest.json";
const UNFINISHED: &str = "unfinished.json";

/// What a backup says of itself.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    kringle_backup: u64,
    /// The node it was taken of.
    pub node: NodeNamed,
    /// The cluster of that node; the restored one is another.
    pub cluster_id: String,
    /// The epoch of its layout.
    pub epoch: u64,
    /// The version of the node's program.
    pub version: String,
    /// When it was begun and ended, for people and in milliseconds since 1970.
    pub begun: String,
    pub begun_ms: u64,
    pub ended: String,
    pub ended_ms: u64,
    /// How many records it has, those of deleted keys included.
    pub records: u64,
    /// How many of these are of deleted keys.
    pub tombstones: u64,
    /// How many rows of the node could not be read, and are not in it.
    pub damaged: u64,
    /// Whether the node had all that it should while it was taken.
    pub whole_node: bool,
    pub parts: Vec<PartNamed>,
    /// The sum of this file, with nothing in place of the sum.
    blake3: String,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct NodeNamed {
    pub id: String,
    pub name: String,
    pub url: String,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct PartNamed {
    /// The name of its file.
    pub file: String,
    pub bytes: u64,
    pub records: u64,
    pub blake3: String,
}

/// A backup that is not done.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
pub struct Unfinished {
    pub manifest: Manifest,
    /// In which partition the next piece begins, and behind which key, in hexadecimal digits.
    partition: u16,
    after: Option<String>,
    /// The sum of this file, with nothing in place of the sum.
    blake3: String,
}

impl Sealed for Manifest {
    fn sum(&mut self) -> &mut String {
        &mut self.blake3
    }
}

impl Sealed for Unfinished {
    fn sum(&mut self) -> &mut String {
        &mut self.blake3
    }
}

impl Manifest {
    /// Of a backup that begins now.
    pub fn begin(node: NodeNamed, cluster_id: String, epoch: u64, version: String) -> Manifest {
        let begun_ms = super::now_ms();
        let begun = date(begun_ms);
        let whole_node = true;
        Manifest {
            kringle_backup: VERSION,
            node,
            cluster_id,
            epoch,
            version,
            begun,
            begun_ms,
            whole_node,
            ..Manifest::default()
        }
    }

    /// The manifest in a folder, if it is just what was written.
    pub fn read(folder: &Path) -> Result<Manifest, Failed> {
        let path = folder.join(MANIFEST);
        let bytes = std::fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound if folder.join(UNFINISHED).exists() => {
                Failed::usage(format!("{}: the backup is not done", folder.display()))
                    .hint("go on with it by kringlectl backup --resume")
            }
            std::io::ErrorKind::NotFound => Failed::usage(format!("{}: there is no backup", folder.display()))
                .hint(format!("a backup is a folder with a {MANIFEST}")),
            _ => about(&path)(error),
        })?;
        let changed = |why: &str| {
            Failed::usage(format!("{}: {why}", path.display()))
                .hint("it was changed since it was written: use another copy of the backup")
        };
        let manifest = Manifest::unsealed(&bytes).map_err(|why| changed(&why))?;
        if manifest.kringle_backup != VERSION {
            let error = format!("a backup of version {}, and this is of {VERSION}", manifest.kringle_backup);
            return Err(Failed::usage(error).hint("use the kringlectl that made it, or a later one"));
        }
        Ok(manifest)
    }

    /// Whether a folder has one.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(MANIFEST).exists()
    }

    /// Writes it, as the last of the backup's files.
    pub fn finish(mut self, folder: &Path) -> Result<Manifest, Failed> {
        self.ended_ms = super::now_ms();
        self.ended = date(self.ended_ms);
        write_whole(&folder.join(MANIFEST), &self.sealed()?)?;
        let unfinished = folder.join(UNFINISHED);
        match std::fs::remove_file(&unfinished) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(about(&unfinished)(error)),
            _ => {}
        }
        Manifest::read(folder)
    }

    /// Adds a part, whole or not at all.
    pub fn add_part(&mut self, folder: &Path, bytes: &[u8], records: u64) -> Result<(), Failed> {
        let file = format!("part-{:05}.kringle", self.parts.len() + 1);
        write_whole(&folder.join(&file), bytes)?;
        let blake3 = blake3::hash(bytes).to_hex().to_string();
        self.parts.push(PartNamed { file, bytes: bytes.len() as u64, records, blake3 });
        Ok(())
    }
}

impl Unfinished {
    /// A backup that goes on there.
    pub fn at(manifest: Manifest, from: &CopiesFrom) -> Unfinished {
        let digits = |key: &kringle::record::Key| key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let after = from.after.as_ref().map(digits);
        Unfinished { manifest, partition: from.partition.into(), after, blake3: String::new() }
    }

    /// Whether a folder has one.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(UNFINISHED).exists()
    }

    /// The one in a folder; nothing, where there is none.
    pub fn read(folder: &Path) -> Result<Option<Unfinished>, Failed> {
        let path = folder.join(UNFINISHED);
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(about(&path)(error)),
            Ok(bytes) => Unfinished::unsealed(&bytes).map(Some).map_err(|why| {
                Failed::usage(format!("{}: {why}", path.display())).hint("remove the folder, and begin anew")
            }),
        }
    }

    /// Where it goes on, as the parameters of a request.
    pub fn from(&self) -> Result<(u16, Option<Vec<u8>>), Failed> {
        let nonsense = || Failed::usage(format!("{UNFINISHED} names a key that is none"));
        let byte = |at: usize, digits: &str| {
            digits.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok()).ok_or_else(nonsense)
        };
        let key = |digits: &String| (0..digits.len()).step_by(2).map(|at| byte(at, digits)).collect::<Result<_, _>>();
        Ok((self.partition, self.after.as_ref().map(key).transpose()?))
    }

    /// Writes it.
    pub fn keep(&self, folder: &Path) -> Result<(), Failed> {
        write_whole(&folder.join(UNFINISHED), &self.sealed()?)
    }
}

impl PartNamed {
    /// Its bytes, if they are just those that were written.
    pub fn read(&self, folder: &Path) -> Result<Vec<u8>, Failed> {
        // A name in a manifest leads nowhere else.
        let path = folder.join(Path::new(&self.file).file_name().unwrap_or_default());
        let changed = |why: String| {
            Failed::usage(format!("{}: {why}", path.display()))
                .hint("use another copy of the backup: nothing can be told of what is missing")
        };
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(changed("it is missing".into())),
            Err(error) => return Err(about(&path)(error)),
        };
        if bytes.len() as u64 != self.bytes {
            return Err(changed(format!("it should have {} bytes, and has {}", self.bytes, bytes.len())));
        }
        if blake3::hash(&bytes).to_hex().as_str() != self.blake3 {
            return Err(changed("its sum is another than it should be".into()));
        }
        Ok(bytes)
    }
}

/// Adds a piece to a part.
pub fn push_piece(part: &mut Vec<u8>, piece: &[u8]) -> Result<(), Failed> {
    let length = u32::try_from(piece.len()).map_err(|_| Failed::new(Exit::Unexpected, "a piece of more than 4 GiB"))?;
    part.extend_from_slice(&length.to_le_bytes());
    part.extend_from_slice(piece);
    Ok(())
}

/// The pieces of a part, each as it is and read.
pub fn pieces(part: &[u8]) -> Result<Vec<(&[u8], Copies)>, Failed> {
    let (mut rest, mut pieces) = (part, Vec::new());
    let broken = |why: String| Failed::usage(format!("a part of the backup makes no sense: {why}"));
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let piece = behind.get(..length).ok_or_else(|| broken("it ends within a piece".into()))?;
        pieces.push((piece, Copies::decode(piece).map_err(|error| broken(error.to_string()))?));
        rest = &behind[length..];
    }
    if rest.is_empty() { Ok(pieces) } else { Err(broken("it ends within a length".into())) }
}

/// Reads all of a backup; what it says of itself, if all is there, unchanged, and as it says.
pub fn verify(folder: &Path, mut read: impl FnMut(&PartNamed)) -> Result<Manifest, Failed> {
    let manifest = Manifest::read(folder)?;
    let mut records = 0;
    for part in &manifest.parts {
        let bytes = part.read(folder)?;
        let count: usize = pieces(&bytes)?.iter().map(|(_, copies)| copies.records()).sum();
        if count as u64 != part.records {
            return Err(Failed::usage(format!("{} has {count} records, and should have {}", part.file, part.records)));
        }
        records += count as u64;
        read(part);
    }
    if records != manifest.records {
        return Err(Failed::usage(format!("{records} records are there, and should be {}", manifest.records)));
    }
    Ok(manifest)
}

/// A moment in milliseconds since 1970, as ISO 8601 writes it. After Hinnant, "chrono-compatible low-level date algorithms".
fn date(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March, so that the day that may be missing is the last.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn moments_are_written_as_dates() {
        let written = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399_000, "2000-02-28T23:59:59Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (951_868_800_000, "2000-03-01T00:00:00Z"),
            (1_764_549_600_000, "2025-12-01T00:40:00Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ];
        for (ms, text) in written {
            assert_eq!(date(ms), text);
        }
    }

    fn backup(folder: &Path) -> Manifest {
        let node = NodeNamed { id: "00".into(), name: "n".into(), url: "http://n:1".into() };
        let mut manifest = Manifest::begin(node, "01".into(), 3, "0.1.0".into());
        let copies = Copies {
            cluster: kringle::placement::ClusterId(1),
            node: kringle::placement::NodeId(1),
            portions: vec![],
            damaged: 0,
            next: None,
        };
        let mut part = Vec::new();
        push_piece(&mut part, &copies.encode()).unwrap();
        push_piece(&mut part, &copies.encode()).unwrap();
        manifest.add_part(folder, &part, 0).unwrap();
        manifest.add_part(folder, &part, 0).unwrap();
        manifest.finish(folder).unwrap()
    }

    proptest! {
        #[test]
        fn any_flipped_bit_and_any_byte_too_few_is_found(
            file in 0..3usize, at in any::<prop::sample::Index>(), bit in 0..8,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let manifest = backup(folder.path());
            prop_assert_eq!(&verify(folder.path(), |_| ()).unwrap(), &manifest);
            let path = folder.path().join([MANIFEST, "part-00001.kringle", "part-00002.kringle"][file]);
            let whole = std::fs::read(&path).unwrap();
            let at = at.index(whole.len());
            let mut flipped = whole.clone();
            flipped[at] ^= 1u8 << bit;
            for changed in [&flipped[..], &whole[..at]] {
                std::fs::write(&path, changed).unwrap();
                prop_assert!(verify(folder.path(), |_| ()).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn a_backup_that_is_not_done_is_none_and_says_where_it_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Unfinished::read(folder.path()).unwrap(), None);
        let key = kringle::record::Key::new(b"\x00\xffkey".to_vec()).unwrap();
        let partition = kringle::placement::Partition::of(key.position());
        let from = CopiesFrom { partition, after: Some(key.clone()) };
        let unfinished = Unfinished::at(Manifest::default(), &from);
        unfinished.keep(folder.path()).unwrap();
        let read = Unfinished::read(folder.path()).unwrap().unwrap();
        assert_eq!(read.from().unwrap(), (partition.into(), Some(key.as_bytes().to_vec())));
        let path = folder.path().join(UNFINISHED);
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, whole.replacen("\"records\": 0", "\"records\": 1", 1)).unwrap();
        assert!(Unfinished::read(folder.path()).is_err_and(|failed| failed.error.contains("sum")));
        assert!(Manifest::read(folder.path()).is_err_and(|failed| failed.error.contains("not done")));
    }
}
