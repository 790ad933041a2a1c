//! Where rows end up: what the commit log is emptied into, and what reads fall back to.

use super::{Address, Page, PageSize, RowChange, Sequence, Span};
use crate::record::Stamp;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How far the base has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mark {
    /// Every append up to this one is in it.
    pub sequence: Sequence,
    /// The highest stamp of those.
    pub last_stamp: Stamp,
}

/// Why the base did not do what it was asked: what the engine said. Whether to try again is the caller's to judge.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct BaseError(pub Arc<str>);

/// A sorted map of rows on disk. Written by one checkpoint at a time, read by anyone.
pub trait Base: Send + Sync {
    /// The row at `address`.
    fn get(&self, address: &Address) -> Result<Option<Bytes>, BaseError>;

    /// One page of the rows of `span`, in order.
    fn scan(&self, span: &Span, size: PageSize) -> Result<Page, BaseError>;

    /// The base as it is now, whatever is written to it later. Not to be held for long: it keeps old rows alive.
    fn snapshot(&self) -> Box<dyn BaseSnapshot>;

    /// Takes rows, sorted by address and each address once, and with them the new mark. When it returns they are
    /// durable and visible. After an error, or a crash on the way, any part of the rows may be there; the mark only if
    /// all are. `pace` is called every so often, so that whoever drives this can let others run.
    fn load(
        &self,
        rows: &mut dyn Iterator<Item = RowChange>,
        mark: Mark,
        pace: &mut dyn FnMut(),
    ) -> Result<(), BaseError>;

    /// How far it has got, durably.
    fn mark(&self) -> Result<Mark, BaseError>;

    /// Bytes it takes up.
    fn bytes(&self) -> u64;

    /// Reads back every file it is made of, and names those that are not as they were written. What is there may be
    /// unreadable, but it never passes for something else. `pace` is called between files of a few MiB.
    fn rotten_files(&self, pace: &mut dyn FnMut()) -> Result<Vec<String>, BaseError> {
        let _ = pace;
        Ok(Vec::new())
    }
}

/// A base at one moment.
pub trait BaseSnapshot: Send {
    /// One page of the rows of `span`, in order.
    fn scan(&self, span: &Span, size: PageSize) -> Result<Page, BaseError>;
}

/// A base in memory that forgets at a crash what [`Base::load`] had not finished. For simulation; clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryBase {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Clone, Debug, Default)]
struct Kept {
    rows: Arc<BTreeMap<Address, Bytes>>,
    mark: Mark,
    load_error: Option<Arc<str>>,
    read_error: Option<Arc<str>>,
    /// What nothing can be read of, until it is loaded anew.
    unreadable: Arc<BTreeSet<Address>>,
    rotten: bool,
}

impl MemoryBase {
    /// An empty one.
    pub fn new() -> MemoryBase {
        MemoryBase::default()
    }

    /// Another one with the same rows in it.
    pub fn copy(&self) -> MemoryBase {
        MemoryBase { kept: Arc::new(Mutex::new(self.lock().clone())) }
    }

    /// Lets every load fail so from now on, half-way; `None` lifts it.
    pub fn fail_loads(&self, reason: Option<&str>) {
        self.lock().load_error = reason.map(Into::into);
    }

    /// Lets every read fail so from now on; `None` lifts it.
    pub fn fail_reads(&self, reason: Option<&str>) {
        self.lock().read_error = reason.map(Into::into);
    }

    /// Puts a row there behind everyone's back: rot.
    pub fn damage(&self, address: &Address, row: Bytes) {
        Arc::make_mut(&mut self.lock().rows).insert(address.clone(), row);
    }

    /// Lets no read get at the row, nor past it: rot in a file of the base, which is one of its rotten files for good.
    pub fn spoil(&self, address: &Address) {
        let mut kept = self.lock();
        Arc::make_mut(&mut kept.unreadable).insert(address.clone());
        kept.rotten = true;
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readable(&self) -> Result<MutexGuard<'_, Kept>, BaseError> {
        let kept = self.lock();
        match &kept.read_error {
            Some(reason) => Err(BaseError(reason.clone())),
            None => Ok(kept),
        }
    }
}

fn unreadable() -> BaseError {
    BaseError("a file of it is damaged".into())
}

fn page(
    rows: &BTreeMap<Address, Bytes>,
    unread: &BTreeSet<Address>,
    span: &Span,
    size: PageSize,
) -> Result<Page, BaseError> {
    if span.is_empty() {
        return Ok(Page::default());
    }
    let page = Page::take(rows.range(&span.from..&span.to).map(|(address, row)| (address.clone(), row.clone())), size);
    let until = page.next.as_ref().unwrap_or(&span.to);
    if !unread.is_empty() && span.from < *until && unread.range(&span.from..until).next().is_some() {
        return Err(unreadable());
    }
    Ok(page)
}

impl Base for MemoryBase {
    fn get(&self, address: &Address) -> Result<Option<Bytes>, BaseError> {
        let kept = self.readable()?;
        if kept.unreadable.contains(address) { Err(unreadable()) } else { Ok(kept.rows.get(address).cloned()) }
    }

    fn scan(&self, span: &Span, size: PageSize) -> Result<Page, BaseError> {
        let kept = self.readable()?;
        page(&kept.rows, &kept.unreadable, span, size)
    }

    fn snapshot(&self) -> Box<dyn BaseSnapshot> {
        let kept = self.lock();
        Box::new(MemorySnapshot { rows: kept.rows.clone(), unreadable: kept.unreadable.clone() })
    }

    fn load(
        &self,
        rows: &mut dyn Iterator<Item = RowChange>,
        mark: Mark,
        pace: &mut dyn FnMut(),
    ) -> Result<(), BaseError> {
        let mut count = 0usize;
        for (address, row) in rows {
            let mut kept = self.lock();
            if let Some(reason) = kept.load_error.clone()
                && count >= 1
            {
                return Err(BaseError(reason));
            }
            if kept.unreadable.contains(&address) {
                Arc::make_mut(&mut kept.unreadable).remove(&address);
            }
            let map = Arc::make_mut(&mut kept.rows);
            match row {
                Some(row) => map.insert(address, row),
                None => map.remove(&address),
            };
            drop(kept);
            count += 1;
            if count.is_multiple_of(64) {
                pace();
            }
        }
        let mut kept = self.lock();
        if let Some(reason) = kept.load_error.clone() {
            return Err(BaseError(reason));
        }
        kept.mark = mark;
        Ok(())
    }

    fn mark(&self) -> Result<Mark, BaseError> {
        Ok(self.readable()?.mark)
    }

    fn bytes(&self) -> u64 {
        self.lock().rows.iter().map(|(address, row)| (address.as_bytes().len() + row.len()) as u64).sum()
    }

    fn rotten_files(&self, _: &mut dyn FnMut()) -> Result<Vec<String>, BaseError> {
        Ok(if self.lock().rotten { vec!["table".into()] } else { Vec::new() })
    }
}

struct MemorySnapshot {
    rows: Arc<BTreeMap<Address, Bytes>>,
    unreadable: Arc<BTreeSet<Address>>,
}

impl BaseSnapshot for MemorySnapshot {
    fn scan(&self, span: &Span, size: PageSize) -> Result<Page, BaseError> {
        page(&self.rows, &self.unreadable, span, size)
    }
}
