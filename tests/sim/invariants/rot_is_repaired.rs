//! Rot is repaired: when all is quiet, whatever rotted on a disk was met and made good from the other owners. And a scrub
//! finds, by itself, what nobody reads: also below a sound copy in memory.

use crate::world::World;
use rand::Rng;

/// How long after it rotted a row is whole again on its disk, where scrubs are made every few seconds.
const SCRUBBED_WITHIN_US: u64 = 25_000_000;
const SCRUB_EVERY_MS: u64 = 3_000;

/// The first thing that is still rotten.
pub(crate) fn rot_left(world: &World) -> Option<String> {
    (0..world.nodes.len()).find_map(|node| {
        let host = &world.nodes[node];
        if host.up.as_ref().is_some_and(|up| up.mending.knows_of_any()) || host.is_building() {
            return Some(format!("node {node} is still mending or building"));
        }
        if world.nodes.len() > 1 && host.disk.has_unreadable_notes() {
            return Some(format!("node {node} cannot read its notes, and does not replace its base"));
        }
        let unreadable = |&key: &usize| world.readable_row(node, key).is_none();
        let key = (0..world.keys.len()).find(unreadable)?;
        Some(format!("node {node} cannot read its row of key {key}, and does not repair it"))
    })
}

/// In the quiet a row rots on a node, which nobody reads.
pub(crate) fn a_scrub_finds_what_rots(world: &mut World) {
    let (node, key) = (world.rng.random_range(0..world.nodes.len()), world.rng.random_range(0..world.keys.len()));
    let owners = world.owners(key);
    if owners.len() < 2 || !owners.contains(&node) || !world.may_lose_a_disk() {
        return;
    }
    world.options.scrub_every_ms = SCRUB_EVERY_MS;
    if !world.carry_into_base(node) || !world.rot_row(node, key) {
        return;
    }
    world.counters.hit("row rots in the quiet");
    let until = world.now + SCRUBBED_WITHIN_US;
    while world.oracle.violations.is_empty() && (!world.carry_into_base(node) || world.nodes[node].disk.is_rotten()) {
        if world.now >= until {
            let what = format!("the row of key {key} rotted on node {node}, and no scrub made it good");
            return world.oracle.violation(what);
        }
        world.pass(500_000);
    }
    if let Some(what) = super::what_differs(world) {
        world.oracle.violation(format!("after a scrub, {what}"));
    }
}
