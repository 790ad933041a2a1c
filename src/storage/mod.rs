//! Seam: where records are kept, and the one path by which they change.
//!
//! ```text
//!            Change ─► Committer ─► Store::append
//!                                     │
//!     LogStore:   commit log (synced) ─► recent rows ─► (checkpoint, every few seconds) ─► base
//!     reads:      recent rows, cache  ─► base
//! ```
//!
//! [`Store`] is the law, [`MemoryStore`] its dumb twin, [`LogStore`] the durable one. There is no thread and no clock
//! here: the shell calls [`LogStore::checkpoint`], [`LogStore::prepare`] and [`Store::sync`] when they are due.

mod address;
mod ballots;
mod base;
#[cfg(feature = "disk")]
mod bases;
mod cache;
mod change;
mod committer;
pub mod contexts;
#[doc(hidden)]
pub mod contract;
#[cfg(test)]
mod crash;
#[cfg(feature = "disk")]
mod disk;
mod due_ledger;
mod feed;
mod files;
#[cfg(feature = "disk")]
mod folder;
mod frame;
mod hash;
mod hint;
mod hint_names;
mod hints;
mod kept_mark;
mod log;
mod log_store;
mod memory;
mod rebuild;
mod recent;
mod room;
mod said;
mod salvage;
mod scrub;
#[doc(hidden)]
pub mod sim_files;
mod store;

pub use address::{Address, Kind, Span};
pub use base::{Base, BaseError, BaseSnapshot, Mark, MemoryBase};
#[cfg(feature = "disk")]
pub use bases::Bases;
pub use change::{Change, Outcome, Refused};
pub use committer::Committer;
pub use contexts::{CONTEXTS_FACT, ContextLedger, Contexts};
#[cfg(feature = "disk")]
pub use disk::{BaseOpenError, FjallBase, FjallOptions};
pub use due_ledger::DueLedger;
pub use feed::{FEED_VALUE_BYTES_MAX, Feed};
pub use files::{Files, RealFiles};
#[cfg(feature = "disk")]
pub use folder::{Identity, OpenError, OpenOptions, Opened, mend_identity, open};
pub use hint::{Hint, MEMBER_NAME_BYTES_MAX};
pub use hint_names::{HINT_NAMES_FACT, HINT_NAMES_MAX, HintNames};
pub use hints::{HINT_BYTES_MAX, HintLedger, HintPlace, HintStatus};
pub use log::{LogOpenError, Replayed};
pub use log_store::{CheckpointError, Checkpointed, Due, LogStore, LogStoreOptions, StoreOpenError};
pub use memory::MemoryStore;
pub use rebuild::{Rebuild, RebuildStep};
pub use room::{Place, Room};
pub use said::{Said, Unconfirmed};
pub use salvage::Salvage;
pub use scrub::{Found, Scrub};
pub use store::{Durability, Health, Page, PageSize, Peek, RowChange, Sequence, Store, StoreError, Usage};

use crate::merkle::{Entry, VersionDigest};
use crate::record::{Record, Version};

/// What the digests know of a record; nothing, of one that holds nothing.
fn digest_entry(record: &Record, version: Version) -> Option<Entry> {
    (!record.is_unknown()).then(|| Entry { digest: VersionDigest(version.0), live: !record.is_tombstone() })
}
