//! Acknowledged survives: after everything, each acknowledged value is live, or was superseded by a write that could
//! have seen it: one whose client was shown it, or a plain one that was not over before it began. And no dot that was
//! ever durable on a node is lost sight of, unless it was superseded on all owners (`forgotten_is_superseded`).
//!
//! Where a disk is lost, or something on it rots, this goes for whatever was on some other disk at that moment, in a row
//! or in a hint: what a majority of the owners had is there as long as a minority of their disks is lost at a time. What
//! was on that disk alone is gone (an `async` write, a hint, a dot whose copies were under way) unless it comes back by a
//! message.
//!
//! A known gap: an owner that was passed over may be heard long after its client was told. It makes no dot where
//! something later than the write is known, and "later" is told by clocks: where the coordinator's is far ahead of an
//! owner's and its message was held up for longer than an owner is waited for, a later write looks earlier. Such losses
//! are forgiven in runs whose clocks are wrong, and counted.

use crate::oracle::{Verdict, Write};
use crate::world::World;
use kringle::record::Record;

pub(crate) fn check(world: &mut World, key: usize, merged: &Record) {
    let (mut broken, mut overtaken) = (Vec::new(), 0);
    let here = |write: &&Write| write.key == key;
    for write in world.oracle.writes.iter().filter(here) {
        let is_gone = |dot| world.oracle.has_vanished(key, dot);
        let is_known = |dot| merged.context().covers(dot) || world.oracle.is_forgotten(key, dot);
        for dot in write.dots.iter().filter(|&&dot| !is_known(dot) && !is_gone(dot)) {
            broken.push(format!("the owners of key {key} never heard of {dot:?}, durable once: {write:?}"));
        }
        if write.verdict != Verdict::Ok {
            continue;
        }
        if write.dots.is_empty() {
            broken.push(format!("acknowledged, and no node ever made a dot for it: {write:?}"));
        }
        if !write.dots.is_empty() && write.dots.iter().all(|&dot| is_gone(dot)) {
            continue;
        }
        // One that expires may be gone for that.
        let Some(value) = write.value.as_ref().filter(|_| !write.expires) else { continue };
        if merged.siblings().iter().any(|sibling| sibling.content.value == value) {
            continue;
        }
        let supersedes = |other: &Write, over: u64| match &other.saw {
            _ if other.counts => false,
            Some(saw) => saw.contains(value) || other.own.as_ref() == Some(value),
            None => other.verdict != Verdict::Ok || over > write.begun,
        };
        let others = || {
            let here = world.oracle.writes.iter().filter(here);
            here.filter(|other| other.verdict != Verdict::Fail && !std::ptr::eq(*other, write))
        };
        if others().any(|other| supersedes(other, other.told)) {
            continue;
        }
        if others().any(|other| supersedes(other, other.ended)) {
            overtaken += 1;
            if !world.options.clocks_agree() {
                continue;
            }
        }
        let dots: Vec<_> = merged.siblings().iter().map(|sibling| sibling.dot).collect();
        broken.push(format!("lost: {write:?}; key {key} holds {dots:?} under {:?}", merged.context()));
        broken.extend(world.oracle.writes.iter().filter(here).map(|write| format!("  {write:?}")));
    }
    (0..overtaken).for_each(|_| world.counters.hit("superseded by an earlier write under a wrong clock"));
    broken.into_iter().for_each(|what| world.oracle.violation(what));
}
