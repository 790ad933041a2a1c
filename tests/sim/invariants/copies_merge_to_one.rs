//! Copies merge to one: in whatever order the owners' rows of a key meet, the record, and so the winner, is the same.

use super::Copies;
use crate::world::World;
use kringle::record::Record;

pub(crate) fn check(world: &mut World, copies: &Copies) -> Record {
    let mut order: Vec<usize> = (0..copies.owners.len()).collect();
    let mut met: Vec<Record> = Vec::new();
    for _ in 0..4 {
        world.shuffle(&mut order);
        met.push(order.iter().fold(Record::default(), |merged, &owner| merged.merge(&copies.owners[owner])));
    }
    if met.iter().any(|merged| *merged != met[0]) {
        world.oracle.violation(format!("key {} depends on the order in which its copies meet: {met:?}", copies.key));
    }
    met.swap_remove(0)
}
