//! Writes that this node coordinates and has not yet handed to all their owners: sessions leave them alone.
//!
//! A write is entered before any owner is asked for it, under the latest stamp this node had made or taken over by then.
//! That stamp travels with the request, so the write's own is later. It is struck out when every owner has answered, or
//! was given up on.

use super::shared::Shared;
use crate::record::Stamp;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

/// The list.
#[derive(Default)]
pub struct UnderWay {
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    begun: BTreeSet<(Stamp, u64)>,
    made: u64,
}

/// One write on the list, struck out when dropped.
pub(super) struct Entry {
    node: Arc<Shared>,
    entry: (Stamp, u64),
}

impl UnderWay {
    /// Enters a write that is about to begin. About 100 ns.
    pub(super) fn enter(node: &Arc<Shared>) -> Entry {
        let mut list = node.under_way.list();
        let entry = (node.queue.last_stamp(), list.made);
        list.made += 1;
        list.begun.insert(entry);
        Entry { node: node.clone(), entry }
    }

    /// Every write on the list has a later stamp; none when there is none.
    pub(super) fn since(&self) -> Option<Stamp> {
        self.list().begun.first().map(|(stamp, _)| *stamp)
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.node.under_way.list().begun.remove(&self.entry);
    }
}
