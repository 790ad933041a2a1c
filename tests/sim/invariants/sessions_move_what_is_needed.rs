//! Sessions move what is needed: where nobody else writes, sessions leave their two nodes equal, and move no record that
//! was not missing.

use crate::world::World;
use kringle::antientropy::Report;
use kringle::record::Record;

/// How many records must travel until both hold the same, and for how many keys.
pub(crate) fn records_needed(world: &World, node: usize, peer: usize) -> (u64, u64) {
    let needed =
        |(mine, theirs): (Record, Record)| u64::from(!theirs.includes(&mine)) + u64::from(!mine.includes(&theirs));
    let each = shared(world, node, peer).into_iter().map(needed);
    each.fold((0, 0), |(records, keys), needed| (records + needed, keys + needed.min(1)))
}

fn shared(world: &World, node: usize, peer: usize) -> Vec<(Record, Record)> {
    let both = |key: &usize| world.owners(*key).contains(&node) && world.owners(*key).contains(&peer);
    (0..world.keys.len()).filter(both).map(|key| (world.row(node, key), world.row(peer, key))).collect()
}

pub(crate) fn a_session_moves_what_is_needed(
    world: &mut World,
    (node, peer): (usize, usize),
    (needed, keys): (u64, u64),
    report: &Report,
) -> bool {
    if report.failed.is_some() {
        return false;
    }
    let equal = shared(world, node, peer).iter().all(|(mine, theirs)| mine == theirs);
    let moved = report.pushed + report.pulled;
    if needed > keys && moved > 0 {
        world.counters.hit("session settled concurrent writes");
    }
    // A write younger than the longest that one may be under way is passed over where a coordinator stays silent.
    if !equal && report.not_built == 0 && report.rounds <= 1 {
        world.oracle.violation(format!("nodes {node} and {peer} differ, and a session sees nothing: {report:?}"));
    }
    if report.noop > 0 || report.refused > 0 || moved > needed || equal && moved < needed {
        world.oracle.violation(format!("nodes {node} and {peer} needed {needed} records, and got {report:?}"));
    }
    equal && report.not_built == 0
}
