//! Acknowledged is held: at the moment a client is told so, that many owners hold the write on their disks, down ones
//! included, and as many as the mode wants; while owners change, as many of the old and of the new. An owner that lost its
//! disk meanwhile counts: it had told the truth.

use crate::workload::Wanted;
use crate::world::World;
use kringle::coordinator::{Quorum, Replicas};
use kringle::placement::Ring;

pub(crate) fn acknowledged_is_held(
    world: &mut World,
    write: usize,
    (wanted, ring): (Wanted, &Ring),
    stored: bool,
    replicas: Replicas,
) {
    let key = world.oracle.writes[write].key;
    let partition = world.partition(key);
    let owners = world.nodes_of(ring, ring.owners(partition));
    let beside = world.nodes_of(ring, ring.beside(partition));
    let (holders, lost_on) = (world.oracle.holders(write), &world.oracle.writes[write].lost_on);
    let present = holders.iter().filter(|node| owners.contains(node)).count();
    let is_on_most =
        |set: &[usize]| set.is_empty() || 2 * set.iter().filter(|at| holders.contains(at)).count() > set.len();
    let latest = &world.ring;
    let sets = [latest.owners(partition), latest.beside(partition)].map(|set| world.nodes_of(latest, set));
    let is_on_most_now = is_on_most(&beside) && sets.iter().all(|set| is_on_most(set));
    let held = |set: &[usize]| set.iter().filter(|at| holders.contains(at) || lost_on.contains(at)).count();
    let (holders, held_beside) = (held(&owners), held(&beside));
    let was_kept = !lost_on.is_empty() || world.oracle.is_kept(write);
    let promised = &mut world.oracle.writes[write];
    // Those who write and read under other layouts have something to go by only where it counts under all of them.
    promised.on_majority = present > owners.len() / 2 && (is_on_most_now || stored && wanted == Wanted::Majority);
    promised.shows = promised.on_majority;
    let needed = wanted.needed(owners.len());
    if replicas.acked > holders {
        world.oracle.violation_inside(format!("write {write} counts {replicas:?}, and {holders} owners hold it"));
    }
    if stored && replicas.acked < needed {
        world.oracle.violation_inside(format!("write {write} is stored with {replicas:?}, and {needed} were wanted"));
    }
    let needed_beside = Quorum::of(wanted.count(), beside.len()).map_or(beside.len(), Quorum::needed);
    if stored && held_beside < needed_beside {
        let what = format!("write {write} is stored with {held_beside} of the owners beside, and not {needed_beside}");
        world.oracle.violation_inside(what);
    }
    if replicas.acked + replicas.hinted > holders && !was_kept {
        world.oracle.violation_inside(format!("write {write} counts {replicas:?}, and nobody keeps it for others"));
    }
    if replicas.acked + replicas.hinted > replicas.wanted || replicas.wanted != owners.len() {
        world.oracle.violation_inside(format!("write {write} has {replicas:?} of {} owners", owners.len()));
    }
}
