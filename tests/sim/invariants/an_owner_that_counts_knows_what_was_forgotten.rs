//! An owner that counts knows what was forgotten: one that was filled anew takes a late copy of what all had forgotten for
//! what it is, if all the other owners would.
//!
//! Where something rots an owner may have said nothing of what it has seen when it was asked: such runs are left out.

use crate::world::World;

pub(crate) fn an_owner_that_counts_knows_what_was_forgotten(world: &mut World, node: usize, key: usize) {
    let owners = world.owners(key);
    let others: Vec<usize> = owners.iter().copied().filter(|&owner| owner != node).collect();
    let is_up = |owner: &usize| world.nodes[*owner].up.is_some() && world.nodes[*owner].emptied.is_none();
    if !owners.contains(&node) || others.is_empty() || !others.iter().all(is_up) || world.options.rot_every_ms > 0 {
        return;
    }
    let knows: Vec<_> = owners.iter().map(|&owner| (owner, world.known_row(owner, key))).collect();
    let is_known = |at: usize, dot| knows.iter().any(|(owner, known)| *owner == at && known.context().covers(dot));
    let forgotten = world.oracle.dots_of(key).filter(|&dot| world.oracle.is_forgotten(key, dot));
    let unknown = forgotten.filter(|&dot| !is_known(node, dot) && others.iter().all(|&other| is_known(other, dot)));
    let broken: Vec<String> =
        unknown.map(|dot| format!("node {node} counts, and would take {dot:?} of key {key} for new")).collect();
    broken.into_iter().for_each(|what| world.oracle.violation_inside(what));
}
