//! Much at a time: what the cluster holds as a file of lines (`export`, `import`), and what one node holds as it holds it
//! (`backup`, `restore`).
//!
//! | file | for |
//! | --- | --- |
//! | `line` | what stands on a line of an export |
//! | `writer`, `reader` | the file: blocks that are whole or cut off, and the seal behind the last |
//! | `export`, `import` | the verbs |
//! | `sending` | lines on their way into the cluster |
//! | `manifest`, `members` | what a backup says of itself, and which belong together |
//! | `sealed` | files that have their own sum in them |
//! | `backup`, `restore` | the verbs |
//! | `progress` | a bar for whoever sits before a terminal |

mod backup;
mod export;
mod import;
mod line;
mod manifest;
mod members;
mod progress;
mod reader;
mod restore;
mod sealed;
mod sending;
mod writer;

pub use backup::Backup;
pub use export::Export;
pub use import::Import;
pub use restore::Restore;

use crate::exit::Failed;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock, in milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What could not be done with a file, and with which.
fn about(path: &Path) -> impl Fn(std::io::Error) -> Failed + '_ {
    move |error| {
        let failed = Failed::from(error);
        Failed { error: format!("{}: {}", path.display(), failed.error), ..failed }
    }
}
