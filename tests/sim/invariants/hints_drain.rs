//! Hints drain: when all are back and all is quiet, nothing is kept for anybody for long.

use crate::world::World;

/// The first hints that are still kept.
pub(crate) fn hints_left(world: &World) -> Option<String> {
    let running = world.nodes.iter().enumerate().filter_map(|(at, node)| Some((at, node.up.as_ref()?)));
    let mut left = running.map(|(node, up)| (node, up.hints.status())).filter(|(_, hints)| !hints.is_empty());
    left.next().map(|(node, hints)| format!("node {node} still keeps {hints:?}"))
}
