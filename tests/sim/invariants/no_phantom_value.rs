//! No phantom value: whatever a key holds was written to it, by a write that was not refused.

use crate::world::World;
use kringle::record::Record;

pub(crate) fn check(world: &mut World, key: usize, merged: &Record) {
    // What agreed keys hold was read in the end, and that is part of their history.
    if world.is_counter(key) || world.is_agreed(key) {
        return;
    }
    for sibling in merged.siblings() {
        world.oracle.value_shown(key, &sibling.content.value);
    }
}
