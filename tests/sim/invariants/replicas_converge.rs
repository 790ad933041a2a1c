//! Replicas converge: when all is quiet, every owner of a key holds the same record, the digests of what they share are
//! equal, and nothing is kept for anybody; every member goes by the same layout, no change of owners is under way, and nobody
//! keeps copies of what others own.

use crate::world::World;
use kringle::record::Record;

/// The first difference there is.
pub(crate) fn what_differs(world: &World) -> Option<String> {
    let unfilled = world.nodes.iter().find(|node| !node.filled).map(|node| format!("{} is not filled", node.name));
    unfilled
        .or_else(|| world.layouts_left())
        .or_else(|| super::hints_left(world))
        .or_else(|| super::rot_left(world))
        .or_else(|| {
            (0..world.keys.len()).find_map(|key| {
                let owners = world.owners(key);
                let rows: Vec<Record> = owners.iter().map(|&owner| world.row(owner, key)).collect();
                if rows.iter().any(|row| *row != rows[0]) {
                    return Some(format!("the owners {owners:?} of key {key} hold {rows:?}"));
                }
                let partition = world.partition(key);
                let digest = |&owner: &usize| {
                    let forest = &world.nodes[owner].up.as_ref().expect("it runs").forest;
                    forest.is_built(partition).then(|| forest.partition_digest(partition))
                };
                let digests: Vec<_> = owners.iter().map(digest).collect();
                let equal = digests.iter().all(|digest| digest.is_some() && *digest == digests[0]);
                (!equal).then(|| format!("the owners {owners:?} of key {key} are equal, and their digests {digests:?}"))
            })
        })
}
