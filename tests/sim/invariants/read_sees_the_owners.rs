//! A read sees the owners: when all is quiet, a read that asks every owner shows just what they hold together.

use crate::world::World;
use kringle::record::Record;

pub(crate) fn read_sees_the_owners(world: &mut World, key: usize, read: &Record) {
    let held = world.owners(key).into_iter().map(|node| world.row(node, key));
    let merged = held.fold(Record::default(), |merged, row| merged.merge(&row));
    if merged != *read {
        world.oracle.violation(format!("a read of key {key} shows {read:?}, its owners hold {merged:?}"));
    }
}
