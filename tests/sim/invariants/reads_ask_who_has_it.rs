//! Reads ask who has it: when reads switch to other owners, any majority of those has every write that a majority had when
//! its client was told. So whoever reads before the switch and whoever reads after it see the same.

use crate::world::World;

/// A layout is gone by for the first time.
pub(crate) fn reads_ask_who_has_it(world: &mut World) {
    let mut broken = Vec::new();
    for write in world.oracle.writes.iter().filter(|write| write.shows) {
        let owners = world.owners(write.key);
        let knows = |&&owner: &&usize| world.oracle.knows(owner, write);
        let is_forgotten = write.dots.iter().any(|&dot| world.oracle.is_forgotten(write.key, dot));
        let lacking = owners.len() - owners.iter().filter(knows).count();
        if 2 * lacking > owners.len() && !is_forgotten {
            let epoch = world.ring.epoch();
            broken.push(format!("in epoch {epoch} {lacking} of the owners {owners:?} do not have {write:?}"));
        }
    }
    broken.into_iter().for_each(|what| world.oracle.violation_inside(what));
}
