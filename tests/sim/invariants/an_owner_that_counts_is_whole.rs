//! An owner that counts is whole: one that lost its disk, or had an old one put back and knows it, answers as an owner
//! only for keys of which it holds again every write that a majority of the owners had when its client was told, before
//! the node started, and that another of them has. What is younger it is handed like any owner, what is in hints as well.

use crate::world::World;

pub(crate) fn an_owner_that_counts_is_whole(world: &mut World, node: usize, key: usize) {
    let Some(since) = world.nodes[node].emptied else { return };
    let owners = world.owners(key);
    if !owners.contains(&node) {
        return;
    }
    if let Some(write) = world.oracle.lacks(node, key, &owners, since) {
        let what = format!("node {node} lost its disk, and counts for key {key} without {write:?}");
        world.oracle.violation_inside(what);
    }
}
