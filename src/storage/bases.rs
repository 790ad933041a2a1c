//! Which base is the live one, and what becomes of one that rotted.
//!
//! ```text
//!  <folder>/base            the first
//!  <folder>/base-<n>        made when those before it had rotted; the highest is the live one
//!  <folder>/base.new        being made: moved to its place whole, so that no start stumbles over half of one
//!  <folder>/set-aside-<n>   rotten, and nothing more to be had from it: kept for people, touched by nobody
//! ```
//!
//! A base that is not the live one any more is read through, as far as it can be read ([`Salvage`](super::Salvage)).
//! Until that is done it keeps its name, so that the next start goes on with it.

use super::base::{Base, BaseError, Mark};
use super::disk::{BaseOpenError, FjallBase, FjallOptions};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The bases of one folder.
#[derive(Clone, Debug)]
pub struct Bases {
    folder: PathBuf,
    options: FjallOptions,
}

impl Bases {
    /// Those in `folder`.
    pub fn new(folder: &Path, options: FjallOptions) -> Bases {
        Bases { folder: folder.into(), options }
    }

    /// The numbers of those there are, ascending.
    pub(super) fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            match entry?.file_name().to_str() {
                Some("base") => numbers.push(0),
                Some(name) => numbers.extend(name.strip_prefix("base-").and_then(|number| number.parse::<u64>().ok())),
                None => {}
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The number of the one before the live one.
    pub fn replaced(&self) -> Option<u64> {
        self.numbers().ok()?.iter().rev().nth(1).copied()
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(if number == 0 { "base".into() } else { format!("base-{number}") })
    }

    /// Opens one of them.
    pub(super) fn open(&self, number: u64) -> Result<FjallBase, BaseOpenError> {
        FjallBase::open(&self.path(number), self.options)
    }

    /// Makes an empty one, live from now on, that counts as having got as far as `mark`.
    pub fn make(&self, mark: Mark) -> Result<FjallBase, BaseError> {
        let making = self.folder.join("base.new");
        if making.exists() {
            std::fs::remove_dir_all(&making).map_err(failed)?;
        }
        let opened = |error: BaseOpenError| BaseError(error.to_string().into());
        FjallBase::open(&making, self.options).map_err(opened)?.load(&mut std::iter::empty(), mark, &mut || ())?;
        let number = self.numbers().map_err(failed)?.last().map_or(0, |last| last + 1);
        std::fs::rename(&making, self.path(number)).map_err(failed)?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        self.open(number).map_err(opened)
    }

    /// Puts one that nobody uses aside. Where it lies now.
    pub fn set_aside(&self, number: u64) -> io::Result<PathBuf> {
        let aside = self.folder.join(format!("set-aside-{number}"));
        std::fs::rename(self.path(number), &aside)?;
        File::open(&self.folder)?.sync_all()?;
        Ok(aside)
    }
}

fn failed(error: io::Error) -> BaseError {
    BaseError(error.to_string().into())
}
