//! What nodes say they have seen: only writes that are held or superseded here, whatever became of them elsewhere.

use super::{SECOND_US, orders, under_every_order};
use crate::invariants;
use crate::options::Options;
use std::cell::Cell;

#[test]
pub(super) fn a_write_whose_sync_failed_counts_as_seen_by_nobody_and_is_new_when_it_is_found_on_the_disk() {
    let found = Cell::new(0u64);
    under_every_order(&Options::quiet(3, 1), |world| {
        world.put(0, 0);
        world.heal();
        // Nobody is told of this write, and its node is fenced; a start may find it all the same.
        world.nodes[1].disk.fail_syncs();
        let write = world.enter_write(0, false, None);
        world.submit_write(1, 0, write);
        // The others ask what node 1 has seen, compare, and ask whether it says so still.
        world.pass(30 * SECOND_US);
        assert_eq!(world.row(1, 0), world.row(0, 0), "not shown");
        world.crash(1);
        world.start(1);
        if world.row(1, 0) != world.row(0, 0) {
            found.set(found.get() + 1);
        }
        for node in 0..3 {
            invariants::contexts_cover_what_is_held(world, node);
        }
        world.heal();
        world.judge();
    });
    assert!((1..orders()).contains(&found.get()), "found on the disk in {} of {} orders", found.get(), orders());
}
