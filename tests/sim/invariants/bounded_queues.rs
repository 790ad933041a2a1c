//! Queues are bounded: what a node holds follows from the clients it serves, and when they have gone, nothing is left.

use crate::world::World;
use kringle::protocol::Lane;

/// Calls a single operation may have under way: two rounds over the owners, a hint for each, and a few makers.
const CALLS_PER_OPERATION: usize = 16;

pub(crate) fn queues_are_bounded(world: &mut World, node: usize) {
    let Some(up) = &world.nodes[node].up else { return };
    let (running, waiting) = (up.operations.len(), up.waiting.len());
    let queued: usize = up.links.values().map(|link| link.waiting.len()).sum();
    // An operation outlives its client by one timeout at most, in which its client can begin so many more.
    let begun = world.options.clients * world.options.operations_each + 8;
    // Of an agreed key, one more on the owner that proposes.
    let begun = begun + 2 * world.options.agreed_clients * world.options.agreed_each + 2 * world.options.agreed;
    if running > begun || queued > begun * CALLS_PER_OPERATION || waiting > begun * CALLS_PER_OPERATION {
        world.oracle.violation(format!("node {node} runs {running}, queues {queued} and {waiting}"));
    }
}

pub(crate) fn at_rest_nothing_is_left(world: &mut World) {
    for node in 0..world.nodes.len() {
        let Some(up) = &world.nodes[node].up else { continue };
        // Greetings go on for ever.
        let links = up.links.iter().filter(|((_, lane), _)| *lane != Lane::Gossip as u8);
        let queued: usize = links.map(|(_, link)| link.waiting.len()).sum();
        let (running, waiting, hints) = (up.operations.len(), up.changes_waiting(), up.hints.status());
        if running + queued + waiting + up.gatherings.len() > 0 || !hints.is_empty() {
            world.oracle.violation(format!(
                "at rest node {node} still runs {running}, queues {queued} and {waiting}, answers {}, keeps {hints:?}",
                up.gatherings.len(),
            ));
        }
    }
    if let Some(client) = world.clients.iter().position(|client| client.busy) {
        world.oracle.violation(format!("client {client} was never answered"));
    }
}
