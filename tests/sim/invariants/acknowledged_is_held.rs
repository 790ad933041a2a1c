//! Acknowledged is held: at the moment a client is told so, that many owners hold the write on their disks, down ones
//! included, and as many as the mode wants.

use crate::workload::Wanted;
use crate::world::World;
use kringle::coordinator::Replicas;

pub(crate) fn acknowledged_is_held(world: &mut World, write: usize, wanted: Wanted, stored: bool, replicas: Replicas) {
    let key = world.oracle.writes[write].key;
    let owners = world.owners(key);
    let holders = world.oracle.holders(write).into_iter().filter(|node| owners.contains(node)).count();
    let needed = wanted.needed(owners.len());
    if replicas.acked > holders {
        world.oracle.violation_inside(format!("write {write} counts {replicas:?}, and {holders} owners hold it"));
    }
    if stored && replicas.acked < needed {
        world.oracle.violation_inside(format!("write {write} is stored with {replicas:?}, and {needed} were wanted"));
    }
    if replicas.acked + replicas.hinted > holders && !world.oracle.is_kept(write) {
        world.oracle.violation_inside(format!("write {write} counts {replicas:?}, and nobody keeps it for others"));
    }
    if replicas.acked + replicas.hinted > replicas.wanted || replicas.wanted != owners.len() {
        world.oracle.violation_inside(format!("write {write} has {replicas:?} of {} owners", owners.len()));
    }
}
