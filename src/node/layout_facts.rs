//! What the store keeps of layouts.

use super::foreground::Class;
use super::opening::StartError;
use super::queue::ANY_EPOCH;
use super::worker::Worker;
use crate::placement::Layout;
use crate::storage::{Address, Change, Store};
use std::rc::Rc;
use std::sync::atomic::Ordering;

/// Where the layout lies in the store, and the votes about the next one.
pub(super) const LAYOUT_FACT: &str = "layout";
pub(super) const REGISTER_FACT: &str = "layout-votes";
/// Where it is kept of what nothing was here when the change of owners began.
pub(super) const INTAKE_FACT: &str = "layout-intake";
/// Where it is kept that the node was told to leave its cluster: it does not join again by itself.
const LEFT_FACT: &str = "left";
const LEFT: &[u8] = b"left";
/// What is kept instead of votes that were lost; no register reads so.
pub(super) const LOST: &[u8] = b"lost votes of a layout";

/// What a store keeps of layouts.
pub(super) struct Kept {
    /// The layout that it went by last.
    pub(super) layout: Option<Layout>,
    /// Its votes about the next one.
    pub(super) votes: Option<Vec<u8>>,
    /// Whether it has left its cluster.
    pub(super) has_left: bool,
}

impl Kept {
    /// Of this store. The error says what is there and cannot be read: whoever began anew without it might found another
    /// cluster, or vote twice.
    pub(super) fn read(store: &dyn Store) -> Result<Kept, StartError> {
        let read = |name| store.read(&Address::fact(name));
        let layout = read(LAYOUT_FACT)?.map(|bytes| Layout::decode(&bytes)).transpose()?;
        let votes = read(REGISTER_FACT)?.map(|bytes| bytes.to_vec());
        Ok(Kept { layout, votes, has_left: read(LEFT_FACT)?.is_some_and(|bytes| bytes == LEFT) })
    }

    /// Of a store that has lost what it kept of it.
    pub(super) fn lost() -> Kept {
        Kept { layout: None, votes: Some(LOST.to_vec()), has_left: false }
    }
}

/// Keeps whether the node was told to leave, before anything comes of it; whether that was kept.
pub async fn keep_left(worker: &Rc<Worker>, left: bool) -> bool {
    let bytes = if left { bytes::Bytes::from_static(LEFT) } else { bytes::Bytes::new() };
    let change = Change::Fact { name: LEFT_FACT, bytes };
    let is_kept = matches!(worker.committed(Class::Foreground, ANY_EPOCH, change).await, Some(Ok(_)));
    if is_kept {
        worker.node.layouts.joins.store(!left, Ordering::Relaxed);
    }
    is_kept
}
