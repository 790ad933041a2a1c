//! Same layout, same owners: a layout that went through its bytes gives the same ring, and each key as many distinct
//! owners as there should be. No two nodes ever go by different layouts of one epoch, and the epochs that a node goes by
//! only rise, over crashes as well.

use crate::world::World;
use kringle::placement::{Layout, MemberIndex, Partition, Ring};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A node goes by this layout from now on, or still does after a start.
pub(crate) fn one_layout_an_epoch(world: &mut World, node: usize, layout: &Arc<Layout>) {
    let epoch = layout.epoch();
    let known = world.changes.layouts.entry(epoch).or_insert_with(|| layout.clone());
    if known != layout {
        let what =
            format!("node {node} goes by another layout of epoch {epoch} than others did: {layout:?}, {known:?}");
        world.oracle.violation_inside(what);
    }
    let before = world.changes.epochs.insert(node, epoch).unwrap_or(0);
    if epoch < before {
        world.oracle.violation_inside(format!("node {node} went by epoch {before}, and goes by {epoch}"));
    }
}

pub(crate) fn check(world: &mut World) {
    let layout = world.ring.layout();
    let again = Layout::decode(&layout.encode()).expect("an encoded layout can be read");
    let (ring, width) = (Ring::new(again), layout.table().width());
    let differs = |partition: &Partition| {
        let owners: BTreeSet<_> = ring.owners(*partition).iter().collect();
        ring.owners(*partition) != world.ring.owners(*partition)
            || ring.stand_ins(*partition) != world.ring.stand_ins(*partition)
            || owners.len() != width
    };
    // A member of weight that was not filled owns nothing yet, and rows are as short as without it.
    let keeps = |member: &MemberIndex| !ring.owned_by(*member).is_empty();
    if width != ring.members().filter(keeps).count().min(usize::from(layout.replicas())) {
        world.oracle.violation(format!("{width} owners each do not follow from the layout"));
    }
    if let Some(partition) = (0..world.options.keys).map(|key| world.partition(key)).find(differs) {
        world.oracle.violation(format!("the owners of {partition:?} do not follow from the layout"));
    }
}
