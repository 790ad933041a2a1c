//! Acknowledged survives: after everything, each acknowledged value is live, or was superseded by a write that could
//! have seen it: one whose client was shown it, or a plain one that was not over before it began. And no dot that was
//! ever durable on a node is forgotten.

use crate::oracle::{Verdict, Write};
use crate::world::World;
use kringle::record::Record;

pub(crate) fn check(world: &mut World, key: usize, merged: &Record) {
    let mut broken = Vec::new();
    let here = |write: &&Write| write.key == key;
    for write in world.oracle.writes.iter().filter(here) {
        for dot in write.dots.iter().filter(|&&dot| !merged.context().covers(dot)) {
            broken.push(format!("the owners of key {key} never heard of {dot:?}, durable once: {write:?}"));
        }
        if write.verdict != Verdict::Ok {
            continue;
        }
        if write.dots.is_empty() {
            broken.push(format!("acknowledged, and no node ever made a dot for it: {write:?}"));
        }
        let Some(value) = &write.value else { continue };
        if merged.siblings().iter().any(|sibling| sibling.content.value == value) {
            continue;
        }
        let supersedes = |other: &&Write| match &other.saw {
            Some(saw) => saw.contains(value),
            None => other.verdict != Verdict::Ok && other.verdict != Verdict::Fail || other.ended > write.begun,
        };
        let others = world.oracle.writes.iter().filter(here).filter(|other| !std::ptr::eq(*other, write));
        if !others.filter(|other| other.verdict != Verdict::Fail).any(|other| supersedes(&other)) {
            let dots: Vec<_> = merged.siblings().iter().map(|sibling| sibling.dot).collect();
            broken.push(format!("lost: {write:?}; key {key} holds {dots:?} under {:?}", merged.context()));
        }
    }
    broken.into_iter().for_each(|what| world.oracle.violation(what));
}
