//! No session goes back: whoever passes back the context it got is never answered from an older record. With its own
//! writes in that context it reads its own writes; with what it read, it never goes back; on any node.

use crate::world::World;
use kringle::record::{Context, Record};

/// A client that had seen `since` was answered with `record`.
pub(crate) fn no_session_goes_back(world: &mut World, key: usize, since: &Context, record: &Record) {
    if !since.is_empty() {
        world.counters.hit("read with a context");
    }
    if !record.context().dominates(since) {
        let shown = record.context();
        world.oracle.violation(format!("a client that had seen {since:?} of key {key} was shown {shown:?}"));
    }
}
