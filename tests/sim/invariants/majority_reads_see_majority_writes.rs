//! Majority reads see majority writes: who hears a majority of a key's owners hears of every write that a majority of
//! them had when its client was told, if that was before the read began. So no owner that lost its disk may count before
//! it has back what it had.
//!
//! A disk that was put back from a copy is found out by the peers' memory, and believed where none of them can be asked:
//! a write that is left on less than a majority of the disks by such a one is not looked for.

use crate::oracle::Write;
use crate::world::World;
use kringle::record::Record;

pub(crate) fn majority_reads_see_majority_writes(
    world: &mut World,
    key: usize,
    begun: u64,
    (answered, owners): (usize, usize),
    read: &Record,
) {
    if answered <= owners / 2 {
        return;
    }
    let unseen = |write: &&Write| {
        write.key == key
            && write.shows
            && write.told < begun
            && !write.dots.iter().any(|&dot| read.context().covers(dot) || world.oracle.is_forgotten(key, dot))
    };
    if let Some(write) = world.oracle.writes.iter().find(unseen) {
        let what = format!("{answered} owners of key {key} together show {read:?}, and not {write:?}");
        world.oracle.violation(what);
    }
}
