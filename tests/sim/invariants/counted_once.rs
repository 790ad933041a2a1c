//! Counted once: in the end a counter is the number of increments that were acknowledged, and at most those whose fate
//! their clients do not know. Where disks are lost or rot an acknowledged one may be lost with them, as any write may;
//! where the network brings a message twice, which no connection does, it may count twice.

use crate::oracle::Verdict;
use crate::world::World;
use kringle::record::Record;

pub(crate) fn check(world: &mut World, key: usize, merged: &Record) {
    if !world.is_counter(key) {
        return;
    }
    let of =
        |verdict| world.oracle.writes.iter().filter(|write| write.counts && write.verdict == verdict).count() as i128;
    let (acknowledged, unknown) = (of(Verdict::Ok), of(Verdict::Info));
    let counted = merged.counter(0).unwrap_or(i128::MIN);
    let options = &world.options;
    let keeps_disks = options.lost_disk_every_ms + options.old_disk_every_ms + options.rot_every_ms == 0;
    let is_short = keeps_disks && counted < acknowledged;
    let is_long = options.repeat_permille == 0 && counted > acknowledged + unknown;
    if is_short || is_long {
        let what =
            format!("key {key} counts {counted} after {acknowledged} acknowledged and {unknown} of unknown fate");
        world.oracle.violation(what);
    }
    if counted > acknowledged {
        world.counters.hit("increment of unknown fate counted");
    }
}
