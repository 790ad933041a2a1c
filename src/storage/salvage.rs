//! What can still be read of a base that rotted, as changes: merged in like a peer's copies.
//!
//! The engine gives each row's newest version or an error, never an older one for want of the newest, and even an old
//! copy would do no harm: it is merged. Where a block cannot be read the rest of its partition is left to the peers.

use super::base::Base;
use super::{Change, Hint, Kind, PageSize, Span};
use crate::placement::Partition;
use crate::record::Row;
use std::collections::VecDeque;
use std::sync::Arc;

/// Rows in a page; a page that cannot be read is gone through row by row.
const PAGE: PageSize = PageSize { rows_max: 256, bytes_max: 1 << 20 };

/// A walk over a rotten base.
pub struct Salvage {
    base: Arc<dyn Base>,
    spans: VecDeque<Span>,
    careful: bool,
    rows: u64,
    unreadable: u64,
}

impl Salvage {
    /// From its beginning.
    pub fn new(base: Arc<dyn Base>) -> Salvage {
        let of = |kind| Partition::all().map(move |partition| Span::partition(kind, partition));
        // Hints first: nobody else may have what they hold.
        let spans = of(Kind::Hint).chain(of(Kind::Data)).collect();
        Salvage { base, spans, careful: false, rows: 0, unreadable: 0 }
    }

    /// Rows found, and spans that could not be read to their end.
    pub fn tally(&self) -> (u64, u64) {
        (self.rows, self.unreadable)
    }

    /// The next of them, perhaps none; `None` when it is through.
    pub fn step(&mut self) -> Option<Vec<Change>> {
        let span = self.spans.pop_front()?;
        let size = if self.careful { PageSize { rows_max: 1, ..PAGE } } else { PAGE };
        let page = match self.base.scan(&span, size) {
            Ok(page) => page,
            Err(_) if !self.careful => {
                self.careful = true;
                self.spans.push_front(span);
                return Some(Vec::new());
            }
            Err(_) => {
                self.careful = false;
                self.unreadable += 1;
                return Some(Vec::new());
            }
        };
        match page.next {
            Some(next) => self.spans.push_front(span.rest(next)),
            None => self.careful = false,
        }
        let mut changes = Vec::with_capacity(page.rows.len());
        for (address, row) in page.rows {
            let Some(key) = address.key() else { continue };
            if address.kind() == Kind::Hint {
                let hint = Hint::decode(&row).ok();
                changes.extend(hint.map(|Hint { targets, record }| Change::Hint { key, record, targets }));
            } else if let Ok(Row { record, .. }) = Row::decode(&row) {
                changes.push(Change::Merge { key, record });
            }
        }
        self.rows += changes.len() as u64;
        Some(changes)
    }
}
