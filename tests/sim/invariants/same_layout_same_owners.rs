//! Same layout, same owners: a layout that went through its bytes gives the same ring, and each key as many distinct
//! owners as there should be.

use crate::world::World;
use kringle::placement::{Layout, Partition, Ring};
use std::collections::BTreeSet;

pub(crate) fn check(world: &mut World) {
    let layout = world.ring.layout();
    let again = Layout::decode(&layout.encode()).expect("an encoded layout can be read");
    let (ring, width) = (Ring::new(again), layout.members().len().min(usize::from(layout.replicas())));
    let differs = |partition: &Partition| {
        let owners: BTreeSet<_> = ring.owners(*partition).iter().collect();
        ring.owners(*partition) != world.ring.owners(*partition)
            || ring.stand_ins(*partition) != world.ring.stand_ins(*partition)
            || owners.len() != width
    };
    if let Some(partition) = (0..world.options.keys).map(|key| world.partition(key)).find(differs) {
        world.oracle.violation(format!("the owners of {partition:?} do not follow from the layout"));
    }
}
