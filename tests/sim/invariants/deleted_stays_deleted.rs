//! Deleted stays deleted: a write that was superseded in any durable row, by a delete or by another write, is live
//! nowhere in the end, and never again in that row. So nothing comes back by a late batch, a hint or a repair. What was
//! superseded on a disk alone that was lost is forgotten with it.

use crate::oracle::{Oracle, Verdict};
use crate::world::World;
use kringle::record::{Dot, Record};

/// The row that node `node` holds of `key` has changed.
pub(crate) fn note_what_is_gone(oracle: &mut Oracle, node: usize, key: usize, row: &Record) {
    let live = |dot: Dot| row.siblings().iter().any(|sibling| sibling.dot == dot);
    let writes = oracle.writes.iter().filter(|write| write.key == key);
    let dots = writes.flat_map(|write| write.dots.iter().copied());
    let gone: Vec<Dot> = dots.filter(|&dot| row.context().covers(dot) && !live(dot)).collect();
    let known = oracle.gone.entry((node, key)).or_default();
    let back = row.siblings().iter().map(|sibling| sibling.dot).find(|dot| known.contains(dot));
    known.extend(gone);
    if let Some(dot) = back {
        oracle.violation_inside(format!("node {node} had superseded {dot:?} of key {key}, and shows it again"));
    }
}

/// What the owners hold together in the end.
pub(crate) fn check(world: &mut World, key: usize, merged: &Record) {
    let mut back = Vec::new();
    for sibling in merged.siblings() {
        let known = world.oracle.gone.iter().filter(|((_, at), _)| *at == key);
        if let Some(((node, _), _)) = known.clone().find(|(_, gone)| gone.contains(&sibling.dot)) {
            back.push(format!("{:?} of key {key} was superseded on node {node}, and is back", sibling.dot));
        }
        if world.oracle.gone_elsewhere.get(&key).is_some_and(|gone| gone.contains(&sibling.dot)) {
            back.push(format!("{:?} of key {key} was superseded where others keep it now, and is back", sibling.dot));
        }
        let Some(write) = world.oracle.write_of(&sibling.content.value).map(|write| &world.oracle.writes[write]) else {
            continue;
        };
        // One that was made twice, or after the delete, may rightly be new to it.
        let mut deletes = world.oracle.writes.iter().filter(|delete| delete.key == key && delete.value.is_none());
        let delete = deletes.find(|delete| {
            let saw = delete.saw.as_ref().is_some_and(|saw| saw.contains(&sibling.content.value));
            let vanished = delete.dots.iter().all(|&dot| world.oracle.has_vanished(key, dot));
            saw && !vanished && delete.verdict == Verdict::Ok && write.ended < delete.begun && write.dots.len() == 1
        });
        if let Some(delete) = delete {
            back.push(format!("a client that was shown it deleted it: {delete:?}, and it is back: {write:?}"));
        }
    }
    back.into_iter().for_each(|what| world.oracle.violation(what));
}
