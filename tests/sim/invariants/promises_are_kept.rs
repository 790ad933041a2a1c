//! Promises are kept: an owner that promised a ballot for a key promises and accepts nothing earlier for it any more, in no
//! life and on no disk; nor does it let a copy in that was accepted earlier, as long as it may vote. What it has accepted
//! already it may be asked to accept again.
//!
//! A node whose clock was far ahead is left out: a ballot of that time is one that no other owner believes, so what it
//! promised with it goes with its disk, and no majority ever did.

use crate::world::World;
use kringle::record::{Ballot, Key};
use kringle::storage::{Change, Outcome, Refused};

/// A change was committed on a node, or refused.
pub(crate) fn promises_are_kept(world: &mut World, node: usize, change: &Change, result: &Result<Outcome, Refused>) {
    let at = |world: &World, key: &Key| world.keys.iter().position(|known| known == key);
    match (change, result) {
        (Change::Prepare { key, ballot }, Ok(Outcome::Promised { .. })) => {
            let Some(key) = at(world, key) else { return };
            let before = world.promised.insert((node, key), *ballot);
            if before >= Some(*ballot) {
                broken(world, node, key, before, *ballot, "promises");
            }
        }
        (Change::Accept { key, record, next }, Ok(Outcome::Accepted { .. })) => {
            let (Some(key), Some(ballot)) = (at(world, key), record.context().ballot()) else { return };
            let before = world.promised.get(&(node, key)).copied();
            // Asked twice in one batch, or again.
            let is_new = world.accepted.insert((node, key, ballot));
            if before > Some(ballot) && is_new && !is_held(world, node, key, ballot) {
                broken(world, node, key, before, ballot, "accepts");
            }
            let promised = before.unwrap_or(ballot).max(ballot).max(next.unwrap_or(ballot));
            world.promised.insert((node, key), promised);
        }
        (Change::Merge { key, record }, Ok(Outcome::Merged { applied: true, .. })) if world.nodes[node].may_vote() => {
            let (Some(key), Some(ballot)) = (at(world, key), record.context().ballot()) else { return };
            let before = world.promised.get(&(node, key)).copied();
            if before > Some(ballot) && !is_held(world, node, key, ballot) {
                broken(world, node, key, before, ballot, "lets in");
            }
        }
        _ => {}
    }
}

/// Whether what is held had been accepted under this ballot, or a later one, before the batch.
fn is_held(world: &World, node: usize, key: usize, ballot: Ballot) -> bool {
    world.oracle.rows.get(&(node, key)).is_some_and(|row| row.context().ballot() >= Some(ballot))
}

fn broken(world: &mut World, node: usize, key: usize, before: Option<Ballot>, ballot: Ballot, does: &str) {
    if world.nodes[node].clock.was_far_ahead {
        return;
    }
    let what = format!("node {node} had promised {before:?} for key {key}, and {does} {ballot:?}");
    world.oracle.violation_inside(what);
}
