//! Poison stays outside: stamps from the future, whoever sends them, move no clock but that of the node whose own was set
//! wrong. Nor do they get into what the others keep.

use crate::world::World;
use kringle::record::Record;

/// The counter in a stamp may run ahead of its millisecond by so much in a run.
const SLACK_MS: u64 = 1_000;

/// Takes note of the latest time that any honest clock has shown, and any clock. Before each step of a clock, and each
/// check.
pub(crate) fn note_the_time(world: &mut World) {
    let shown = (0..world.nodes.len()).map(|node| world.wall_ms(node)).max().unwrap_or(0);
    world.latest_shown_ms = world.latest_shown_ms.max(shown);
    let honest = (0..world.nodes.len()).filter(|&node| !world.nodes[node].clock.is_far_ahead);
    let latest = honest.map(|node| world.wall_ms(node)).max().unwrap_or(0);
    world.latest_honest_ms = world.latest_honest_ms.max(latest);
}

pub(crate) fn poison_stays_outside(world: &mut World, node: usize) {
    note_the_time(world);
    let Some(up) = &world.nodes[node].up else { return };
    if world.nodes[node].clock.was_far_ahead {
        return;
    }
    let (until_ms, time) = (world.latest_honest_ms + SLACK_MS, up.last.max(up.heard));
    if time.ms() > until_ms {
        let what = format!("node {node} takes {time} for the time: no honest clock has shown more than {until_ms} ms");
        world.oracle.violation_inside(what);
    }
}

/// `row` is one that the node holds; after [`poison_stays_outside`].
pub(crate) fn no_poison_is_held(world: &mut World, node: usize, row: &Record) {
    let (until_ms, latest) = (world.latest_honest_ms + SLACK_MS, row.context().latest().unwrap_or_default());
    if !world.nodes[node].clock.was_far_ahead && latest.ms() > until_ms {
        world.oracle.violation_inside(format!("node {node} holds a write of {latest}, after {until_ms} ms"));
    }
}
