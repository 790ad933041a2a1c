//! Promises are kept: an owner that promised a ballot for a key promises and accepts nothing earlier for it any more, in no
//! life and on no disk; nor does it let a copy in that was accepted earlier, as long as it may vote. What it has accepted
//! already it may be asked to accept again.
//!
//! A node whose clock was far ahead is left out: a ballot of that time is one that no other owner believes, so what it
//! promised with it goes with its disk, and no majority ever did. And what a node promised to a proposal of its own is over
//! when its disk is gone, as the proposal is: whoever else promised as much tells it so while it is refilled.

use crate::world::World;
use kringle::record::{Ballot, Key};
use kringle::storage::{Change, Outcome, Refused};

/// The latest ballots that a node has promised for a key.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Promised {
    to_itself: Option<Ballot>,
    to_others: Option<Ballot>,
}

/// A change was committed on a node, or refused.
pub(crate) fn promises_are_kept(world: &mut World, node: usize, change: &Change, result: &Result<Outcome, Refused>) {
    let at = |world: &World, key: &Key| world.keys.iter().position(|known| known == key);
    match (change, result) {
        (Change::Prepare { key, ballot }, Ok(Outcome::Promised { .. })) => {
            let Some(key) = at(world, key) else { return };
            let before = promised(world, node, key);
            promise(world, node, key, *ballot);
            if before >= Some(*ballot) {
                broken(world, node, key, before, *ballot, "promises");
            }
        }
        (Change::Accept { key, record, next }, Ok(Outcome::Accepted { .. })) => {
            let (Some(key), Some(ballot)) = (at(world, key), record.context().ballot()) else { return };
            let before = promised(world, node, key);
            // Asked twice in one batch, or again.
            let is_new = world.accepted.insert((node, key, ballot));
            if before > Some(ballot) && is_new && !is_held(world, node, key, ballot) {
                broken(world, node, key, before, ballot, "accepts");
            }
            promise(world, node, key, ballot.max(next.unwrap_or(ballot)));
        }
        (Change::Merge { key, record }, Ok(Outcome::Merged { applied: true, .. })) if world.nodes[node].may_vote() => {
            let (Some(key), Some(ballot)) = (at(world, key), record.context().ballot()) else { return };
            let before = promised(world, node, key);
            if before > Some(ballot) && !is_held(world, node, key, ballot) {
                broken(world, node, key, before, ballot, "lets in");
            }
        }
        _ => {}
    }
}

/// Others keep what a node had of a key: what it promised is refused to whoever asks under the layout of that time.
pub(crate) fn promises_are_over(world: &mut World, node: usize, key: usize) {
    world.promised.remove(&(node, key));
}

/// The disk of a node is gone, or an older one: so are the proposals that ran on it.
pub(crate) fn promises_to_oneself_are_over(world: &mut World, node: usize) {
    let of_node = world.promised.iter_mut().filter(|((at, _), _)| *at == node);
    of_node.for_each(|(_, promised)| promised.to_itself = None);
}

fn promised(world: &World, node: usize, key: usize) -> Option<Ballot> {
    world.promised.get(&(node, key)).and_then(|promised| promised.to_itself.max(promised.to_others))
}

fn promise(world: &mut World, node: usize, key: usize, ballot: Ballot) {
    let is_own = world.proposers.get(&ballot.actor) == Some(&node);
    let promised = world.promised.entry((node, key)).or_default();
    let latest = if is_own { &mut promised.to_itself } else { &mut promised.to_others };
    *latest = (*latest).max(Some(ballot));
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
