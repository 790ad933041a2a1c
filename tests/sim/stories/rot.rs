//! Rot on one of three replicas: no wrong value is shown, nothing healthy is deleted, and it is repaired.

use super::{Ask, SECOND_US, under_every_order, values};
use crate::options::Options;
use crate::rotting::Part;
use crate::world::World;
use bytes::Bytes;
use kringle::coordinator::{GetOutcome, PutOutcome};
use kringle::storage::Address;
use std::collections::BTreeSet;

/// What each key shows, through every node, whatever rots meanwhile: nothing, or what was written to it last.
fn shows_nothing_else(world: &mut World, written: &[Bytes]) -> usize {
    let mut shown = 0;
    for (key, node) in (0..written.len()).flat_map(|key| (0..3).map(move |node| (key, node))) {
        if world.nodes[node].up.is_none() {
            continue;
        }
        for hard in [None, Some(2)] {
            match world.read(node, key, hard) {
                GetOutcome::Found { record, .. } => {
                    assert_eq!(
                        values(&record),
                        BTreeSet::from([written[key].clone()]),
                        "key {key} through node {node}"
                    );
                    shown += 1;
                }
                GetOutcome::Unavailable { .. } | GetOutcome::Behind { .. } => {}
            }
        }
    }
    shown
}

fn written(world: &mut World) -> Vec<Bytes> {
    let keys = 0..world.keys.len();
    keys.map(|key| {
        world.put(key % 3, key);
        let write = world.put((key + 1) % 3, key);
        world.value(write)
    })
    .collect()
}

/// Everything is as it was written, on every disk and after another start.
fn whole_again(world: &mut World, written: &[Bytes]) {
    world.heal();
    assert_eq!(shows_nothing_else(world, written), 6 * written.len(), "everything can be read again");
    for (key, value) in written.iter().enumerate() {
        assert_eq!(values(&world.held_by_all(key)), BTreeSet::from([value.clone()]));
    }
    for node in 0..3 {
        assert!(world.carry_into_base(node) && !world.nodes[node].disk.is_rotten(), "the disk of node {node}");
    }
    world.look_at_the_disks();
}

#[test]
pub(super) fn a_row_that_rotted_is_never_shown_nor_taken_for_absent_and_is_made_good() {
    under_every_order(&Options::quiet(3, 3), |world| {
        let written = written(world);
        world.heal();
        world.carry_into_base(2);
        assert!((0..3).all(|key| world.rot_row(2, key)));
        world.crash(2);
        // One that has the value is away too: what the third and the rotten one say must not pass for all there is.
        world.crash(1);
        world.start(2);
        world.pass(SECOND_US);
        shows_nothing_else(world, &written);
        assert!((0..3).all(|key| world.readable_row(2, key).is_none()), "made good by one of the two others alone");
        world.start(1);
        whole_again(world, &written);
        assert_eq!(world.counters.of("rotten row replaced"), 3);
    });
}

#[test]
pub(super) fn a_scrub_makes_good_what_rotted_below_a_sound_copy_in_memory() {
    under_every_order(&Options { scrub_every_ms: 3_000, ..Options::quiet(3, 2) }, |world| {
        let written = written(world);
        world.heal();
        world.carry_into_base(1);
        assert!((0..2).all(|key| world.rot_row(1, key)));
        world.pass(10 * SECOND_US);
        assert!(world.carry_into_base(1) && !world.nodes[1].disk.is_rotten(), "nobody reads there but the scrub");
        world.crash(1);
        world.start(1);
        whole_again(world, &written);
    });
}

/// The first owner and the rotten one have a write that the second lacks; then only those two are there.
fn rots_where_two_of_three_have_it(options: &Options, rot: impl Fn(&mut World)) {
    under_every_order(options, |world| {
        written(world);
        world.heal();
        world.carry_into_base(2);
        world.network.split(&[&[0, 2], &[1]]);
        let mut written = Vec::new();
        for key in 0..2 {
            let (write, outcome) = world.write(0, key, Ask::default());
            assert!(matches!(outcome, PutOutcome::Stored { .. }), "{outcome:?}");
            written.push(world.value(write));
        }
        rot(world);
        world.crash(2);
        world.crash(0);
        world.network.heal();
        world.start(2);
        for (key, value) in written.iter().enumerate() {
            // Meets what cannot be read, then what is done about it.
            for _ in 0..4 {
                if let GetOutcome::Found { record, .. } = world.read(1, key, Some(2)) {
                    assert_eq!(values(&record), BTreeSet::from([value.clone()]), "key {key}");
                }
                world.pass(SECOND_US);
            }
        }
        world.start(0);
        whole_again(world, &written);
    });
}

#[test]
pub(super) fn a_row_that_rotted_is_not_taken_for_absent_where_the_only_other_owner_lacks_it() {
    rots_where_two_of_three_have_it(&Options::quiet(3, 2), |world| {
        world.carry_into_base(2);
        assert!((0..2).all(|key| world.rot_row(2, key)));
    });
}

#[test]
pub(super) fn what_rots_in_the_log_comes_back_and_its_owner_counts_for_nothing_until_then() {
    rots_where_two_of_three_have_it(&Options::quiet(3, 2), |world| {
        assert!(world.nodes[2].disk.rot_log(&mut world.rng));
    });
}

/// The base of node 2 rots in such a place that a read of some key meets it.
fn rot_base_where_it_is_read(world: &mut World) {
    assert!(world.rot_base(2));
    world.nodes[2].disk.rot_base_at(&Address::data(&world.keys[0]));
}

#[test]
pub(super) fn a_base_that_rots_is_replaced_and_its_owner_counts_for_nothing_until_it_is_filled() {
    rots_where_two_of_three_have_it(&Options::quiet(3, 2), |world| {
        world.carry_into_base(2);
        rot_base_where_it_is_read(world);
    });
}

#[test]
pub(super) fn a_hint_that_rotted_keeps_nobody_from_what_sessions_bring() {
    under_every_order(&Options::quiet(3, 1), |world| {
        world.put(0, 0);
        world.crash(2);
        world.pass(9 * SECOND_US);
        let write = world.put(0, 0);
        let kept: Vec<usize> = (0..2).filter(|&node| world.oracle.has(node, 0, Part::Hints)).collect();
        assert_eq!(kept.len(), 1, "a hint is kept for the one that is away");
        world.carry_into_base(kept[0]);
        assert!(world.rot_hint(kept[0], 0));
        world.crash(kept[0]);
        world.start(kept[0]);
        world.start(2);
        world.heal();
        assert_eq!(values(&world.held_by_all(0)), BTreeSet::from([world.value(write)]));
        world.look_at_the_disks();
    });
}

#[test]
pub(super) fn a_base_that_rots_on_a_full_disk_is_not_replaced_before_the_store_can_say_that_something_is_lost() {
    // Nothing is in memory alone.
    rots_where_two_of_three_have_it(&Options { cache_bytes: 0, ..Options::quiet(3, 2) }, |world| {
        world.carry_into_base(2);
        world.nodes[2].disk.fill(true);
        rot_base_where_it_is_read(world);
        // Meets what cannot be read, and would go on over an empty base.
        (0..2).for_each(|key| drop(world.read(2, key, None)));
        world.pass(5 * SECOND_US);
        world.nodes[2].disk.fill(false);
    });
}
