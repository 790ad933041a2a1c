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
//! here: the shell calls [`LogStore::checkpoint`], [`LogStore::prepare`] and [`Store::sync`] when it sees fit.

mod address;
mod change;
mod committer;
mod feed;
mod hint;
mod hints;
mod memory;
mod store;

pub use address::{Address, Kind, Span};
pub use change::{Change, MemberName, Outcome, Refused};
pub use committer::Committer;
pub use feed::{Committed, Feed, Gap};
pub use hint::{Hint, MEMBER_NAME_BYTES_MAX};
pub use hints::{HINT_BYTES_MAX, HintLedger, HintStatus};
pub use memory::MemoryStore;
pub use store::{Durability, Health, Page, PageSize, Peek, RowChange, Sequence, Store, StoreError, Usage};

use crate::merkle::{Entry, VersionDigest};
use crate::record::{Record, Version};

/// What the digests know of a record.
fn digest_entry(record: &Record, version: Version) -> Entry {
    Entry { digest: VersionDigest(version.0), live: !record.is_tombstone() }
}
mod shim;
pub use shim::*;
