//! Contexts cover what is held: whatever write a node says it has seen in a partition is in its rows there, or was
//! superseded there. What is said too early makes a late copy of a write look like an old one.

use crate::world::World;
use kringle::storage::contexts;

pub(crate) fn contexts_cover_what_is_held(world: &mut World, node: usize) {
    let Some(up) = &world.nodes[node].up else { return };
    let (actor, last) = (up.committer.actor(), up.committer.committed_stamp());
    let mut lies = Vec::new();
    // A row that rotted was seen, and is not there until it is made good: its node says nothing once it knows.
    for key in (0..world.keys.len()).filter(|&key| world.readable_row(node, key).is_some()) {
        let context = up.contexts.look(|contexts| contexts.of(world.partition(key), actor, last));
        // What was forgotten was superseded: see `forgotten_is_superseded`.
        let dots = world.oracle.dots_of(key).filter(|&dot| !world.oracle.is_forgotten(key, dot));
        let dots = dots.map(|dot| (&world.keys[key], dot));
        let uncovered = contexts::uncovered(&context, dots, |_| Some(world.row(node, key)));
        lies.extend(uncovered.into_iter().map(|(_, dot)| format!("node {node} says it has seen {dot:?} of key {key}")));
    }
    lies.into_iter().for_each(|lie| world.oracle.violation_inside(lie));
}
