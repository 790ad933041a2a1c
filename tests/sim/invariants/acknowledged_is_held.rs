//! Acknowledged is held: at the moment a client is told so, that many owners hold the write on their disks, down ones
//! included, and as many as the mode wants. An owner that lost its disk meanwhile counts: it had told the truth.

use crate::workload::Wanted;
use crate::world::World;
use kringle::coordinator::Replicas;

pub(crate) fn acknowledged_is_held(world: &mut World, write: usize, wanted: Wanted, stored: bool, replicas: Replicas) {
    let key = world.oracle.writes[write].key;
    let owners = world.owners(key);
    let (holders, lost_on) = (world.oracle.holders(write), &world.oracle.writes[write].lost_on);
    let present = holders.iter().filter(|node| owners.contains(node)).count();
    let holders = owners.iter().filter(|owner| holders.contains(owner) || lost_on.contains(owner)).count();
    let was_kept = !lost_on.is_empty() || world.oracle.is_kept(write);
    let promised = &mut world.oracle.writes[write];
    promised.on_majority = present > owners.len() / 2;
    promised.shows = promised.on_majority;
    let needed = wanted.needed(owners.len());
    if replicas.acked > holders {
        world.oracle.violation_inside(format!("write {write} counts {replicas:?}, and {holders} owners hold it"));
    }
    if stored && replicas.acked < needed {
        world.oracle.violation_inside(format!("write {write} is stored with {replicas:?}, and {needed} were wanted"));
    }
    if replicas.acked + replicas.hinted > holders && !was_kept {
        world.oracle.violation_inside(format!("write {write} counts {replicas:?}, and nobody keeps it for others"));
    }
    if replicas.acked + replicas.hinted > replicas.wanted || replicas.wanted != owners.len() {
        world.oracle.violation_inside(format!("write {write} has {replicas:?} of {} owners", owners.len()));
    }
}
