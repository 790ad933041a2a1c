//! Files of JSON that have their own BLAKE3 sum in them: whole and as they were written, or known not to be.

use super::about;
use crate::exit::{Exit, Failed};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Write;
use std::path::Path;

/// What is kept in such a file.
pub trait Sealed: Serialize + DeserializeOwned + Clone {
    /// The place of the sum, which is that of the file with nothing in this place.
    fn sum(&mut self) -> &mut String;

    /// Its bytes, with its sum.
    fn sealed(&self) -> Result<Vec<u8>, Failed> {
        let text = |one: &Self| {
            let text = serde_json::to_string_pretty(one).map_err(|error| Failed::new(Exit::Unexpected, error))?;
            Ok::<_, Failed>(format!("{text}\n").into_bytes())
        };
        let mut one = self.clone();
        one.sum().clear();
        *one.sum() = blake3::hash(&text(&one)?).to_hex().to_string();
        text(&one)
    }

    /// What such bytes are of, if they are just what was written; else why they are not.
    fn unsealed(bytes: &[u8]) -> Result<Self, String> {
        let one: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match one.sealed() {
            Ok(sealed) if sealed == bytes => Ok(one),
            Ok(_) => Err("its sum does not fit".into()),
            Err(failed) => Err(failed.error),
        }
    }
}

/// Writes a file whole or not at all, and has it on the disk.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Failed> {
    let fresh = path.with_extension("new");
    let write = || {
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)
    };
    write().map_err(about(path))
}
