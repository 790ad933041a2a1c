//! The law of a store: what every place that keeps rows promises, on disk or in memory.

use super::{Address, Span};
use crate::record::Stamp;
use bytes::Bytes;
use std::sync::Arc;

/// The number of an append. Rises by one with each, for the life of a data folder.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The one after it.
    pub fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

/// One row of an append: its address, and its bytes, or nothing to remove it.
pub type RowChange = (Address, Option<Bytes>);

/// When an append counts as done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// When it is synced. The default: acknowledged means it survives a power cut.
    #[default]
    Sync,
    /// When it is written; someone calls [`Store::sync`] this often. A power cut may lose that much.
    Interval {
        /// Milliseconds between two syncs.
        ms: u64,
    },
    /// When it is written; the operating system syncs when it likes.
    None,
}

/// What can be said of a row without waiting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Peek {
    /// This is it, or there is none.
    Known(Option<Bytes>),
    /// Only the base knows: [`Store::read`] it where waiting is allowed.
    Ask,
}

/// How much one page of a scan may hold. It ends behind the row that reaches either bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageSize {
    /// Rows at most; at least 1.
    pub rows_max: usize,
    /// Bytes of rows after which no further row is added.
    pub bytes_max: usize,
}

impl PageSize {
    /// A page of so many rows, and 4 MiB: a page never pins more than one large value beside that.
    pub fn rows(rows_max: usize) -> PageSize {
        PageSize { rows_max, bytes_max: 4 << 20 }
    }
}

/// A page of a scan, in the order of addresses.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// The rows.
    pub rows: Vec<(Address, Bytes)>,
    /// Where the next page begins; `None` when the span is through. A page may be empty and yet not the last.
    pub next: Option<Address>,
}

impl Page {
    /// The first page of rows that come in order.
    pub(super) fn take(rows: impl Iterator<Item = (Address, Bytes)>, size: PageSize) -> Page {
        let mut page = Page::default();
        let mut bytes = 0;
        for (address, row) in rows {
            if page.rows.len() >= size.rows_max.max(1) || bytes >= size.bytes_max && !page.rows.is_empty() {
                page.next = Some(address);
                break;
            }
            bytes += address.as_bytes().len() + row.len();
            page.rows.push((address, row));
        }
        page
    }
}

/// Why a store did not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full or fails on writing. Nothing was acknowledged or made visible, though it may surface after a
    /// crash. Each later append tries again, and the store recovers with the first that succeeds.
    #[error("the store is read-only: {0}")]
    ReadOnly(Arc<str>),
    /// A sync failed. The append may or may not be durable; it is not visible. Nothing more is taken until a restart.
    #[error("the store is fenced until a restart: {0}")]
    Fenced(Arc<str>),
    /// The recent rows or the log are full and the base has not caught up. Nothing changed; try again shortly.
    #[error("the store is overloaded")]
    Overloaded,
    /// The base could not be read. Nothing changed; other rows may be readable.
    #[error("the store cannot be read: {0}")]
    Unreadable(Arc<str>),
}

/// How a store is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Health {
    /// It takes reads and writes.
    #[default]
    Ok,
    /// It takes reads; the last write failed, for this reason. It tries again with each write.
    ReadOnly(Arc<str>),
    /// It takes reads; a sync failed, for this reason. No write until a restart.
    Fenced(Arc<str>),
}

/// What a store takes up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Bytes of the base on disk (or in memory, where that is the base).
    pub base_bytes: u64,
    /// Bytes of the log's segments in use.
    pub log_bytes: u64,
    /// Rows not yet in the base.
    pub recent_rows: u64,
    /// Bytes of those, with what keeping them costs.
    pub recent_bytes: u64,
    /// Bytes of rows in the cache.
    pub cache_bytes: u64,
}

/// Where rows are kept. The contract suite in [`super::contract`] holds every implementation to these lines.
///
/// - **Atomic**: after a crash at any moment the rows of an append are all there or none is. While running, its rows
///   become visible one by one, in order.
/// - **Durable**: as [`Durability`] says, when `append` returns. With `Sync` a row is never visible before it is synced.
/// - **Ordered**: appends are numbered without gaps; after a crash what is there is a prefix of what was appended, and
///   with `Sync` that prefix holds every append that returned.
/// - **One writer**: `append` may be called from several threads, one is let in at a time. Reads never wait for it.
/// - **Owned**: bytes given are kept as they are, not copied: a small row must not be a slice of a large buffer.
pub trait Store: Send + Sync {
    /// The row at `address`, if that can be said at once; it was sound when it came into memory. Never waits for the base; about 0.3 µs.
    fn peek(&self, address: &Address) -> Peek;

    /// The row at `address`. May wait for the base: not for a thread that must not stall.
    fn read(&self, address: &Address) -> Result<Option<Bytes>, StoreError>;

    /// The rows of `span`, in order, one page. Rows changed during the scan are seen as they were or as they are. May wait.
    fn scan(&self, span: &Span, size: PageSize) -> Result<Page, StoreError>;

    /// Puts and removes rows, all or none. Of several entries with one address the last counts. `last_stamp` is kept with it.
    fn append(&self, rows: Vec<RowChange>, last_stamp: Stamp) -> Result<Sequence, StoreError>;

    /// Makes everything appended durable. With [`Durability::Sync`] there is nothing to do. A failure fences the store.
    fn sync(&self) -> Result<(), StoreError>;

    /// The sequence of the last append.
    fn last_sequence(&self) -> Sequence;

    /// The highest stamp ever given to `append`.
    fn last_stamp(&self) -> Stamp;

    /// How it is.
    fn health(&self) -> Health;

    /// What it takes up.
    fn usage(&self) -> Usage;
}
