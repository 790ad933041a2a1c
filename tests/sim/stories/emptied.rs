//! An owner whose data folder was deleted comes back empty at its address.

use super::{Ask, SECOND_US, short, under_every_order, values};
use crate::disk::Disk;
use crate::losing::Loss;
use crate::options::Options;
use crate::world::World;
use kringle::coordinator::{GetOutcome, PutOutcome};
use rand::Rng;
use std::collections::BTreeSet;

/// Deletes the folder of a node that is stopped.
pub(super) fn delete_folder(world: &mut World, node: usize) {
    assert!(world.nodes[node].up.is_none());
    world.nodes[node].disk = Disk::new(world.rng.random());
    world.nodes[node].loss = Some(Loss::All);
    world.note_loss(node, false);
}

#[test]
pub(super) fn an_emptied_owner_answers_no_404_counts_for_nothing_and_is_filled_without_being_read() {
    under_every_order(&Options::quiet(3, 4), |world| {
        let written: Vec<_> = (0..4).map(|key| world.put(key % 3, key)).collect();
        let written: Vec<_> = written.into_iter().map(|write| world.value(write)).collect();
        world.heal();
        let actor = world.nodes[2].up.as_ref().expect("it runs").committer.actor();
        world.crash(1);
        world.crash(2);
        delete_folder(world, 2);
        world.start(2);
        // Of the three owners one is whole, one empty, one away.
        for _ in 0..3 {
            world.pass(2 * SECOND_US);
            for (node, key) in [(0, 0), (2, 0), (0, 1), (2, 1)] {
                if let GetOutcome::Found { record, answered, .. } = world.read(node, key, None) {
                    assert_eq!(values(&record), BTreeSet::from([written[key].clone()]), "a 404 through node {node}");
                    assert!(answered < 2, "the empty one counted");
                }
                let hard = world.read(node, key, Some(2));
                assert!(matches!(hard, GetOutcome::Unavailable { unfilled: 1.., .. }), "{hard:?}");
            }
        }
        assert!(!world.nodes[2].counts());
        let (write, outcome) = world.write(0, 1, Ask::default());
        assert_eq!((short(&outcome).acked, short(&outcome).wanted), (1, 3));
        let (_, refused) = world.write(0, 1, Ask { hard: Some(2), ..Ask::default() });
        assert!(matches!(refused, PutOutcome::Unknown { .. } | PutOutcome::Refused(_)), "{refused:?}");
        let asked = world.told.as_ref().map(|told| told.gets.len());
        world.start(1);
        world.heal();
        assert!(world.nodes[2].counts());
        assert_eq!(world.told.as_ref().map(|told| told.gets.len()), asked, "it was filled without being read");
        assert_ne!(world.nodes[2].up.as_ref().expect("it runs").committer.actor(), actor);
        for key in [0, 2, 3] {
            assert_eq!(values(&world.held_by_all(key)), BTreeSet::from([written[key].clone()]));
        }
        let shown = values(&world.held_by_all(1));
        assert!(!shown.contains(&written[1]) && (shown.len() == 1 || shown.contains(&world.value(write))), "{shown:?}");
        world.look_at_the_disks();
    });
}

#[test]
pub(super) fn an_emptied_owner_that_alone_is_asked_at_once_says_nothing_is_absent() {
    under_every_order(&Options::quiet(3, 2), |world| {
        let written: Vec<_> = (0..2).map(|key| world.put(key, key)).collect();
        world.heal();
        world.crash(2);
        delete_folder(world, 2);
        world.network.split(&[&[2], &[0, 1]]);
        world.start(2);
        for key in 0..2 {
            let alone = world.read(2, key, None);
            assert!(matches!(alone, GetOutcome::Unavailable { .. }), "{alone:?}");
        }
        world.network.heal();
        for (key, &write) in written.iter().enumerate() {
            // It has just met its peers again.
            let read = world.read(2, key, None);
            if let GetOutcome::Found { record, .. } = read {
                assert_eq!(values(&record), BTreeSet::from([world.value(write)]));
            }
        }
        world.heal();
        (0..2).for_each(|key| assert_eq!(values(&world.held_by_all(key)).len(), 1));
        world.look_at_the_disks();
    });
}

fn write_both(world: &mut World) {
    for key in 0..2 {
        world.put(key, key);
    }
}

#[test]
pub(super) fn an_old_disk_that_was_full_when_it_was_known_for_one_is_known_for_one_at_the_next_start() {
    under_every_order(&Options::quiet(3, 2), |world| {
        write_both(world);
        world.heal();
        world.crash(2);
        let copy = world.nodes[2].disk.copy();
        world.start(2);
        world.pass(3 * SECOND_US);
        write_both(world);
        world.heal();
        // Its peers hear how far it is.
        world.pass(3 * SECOND_US);
        world.crash(2);
        (world.nodes[2].disk, world.nodes[2].loss) = (copy, Some(Loss::SinceTheCopy));
        world.note_loss(2, true);
        world.network.split(&[&[2], &[0, 1]]);
        world.start(2);
        world.pass(SECOND_US / 100);
        world.nodes[2].disk.fill(true);
        world.network.heal();
        world.pass(3 * SECOND_US);
        assert!(!world.nodes[2].counts(), "it was told");
        // There is room, and nobody to be filled from.
        world.network.split(&[&[2], &[0, 1]]);
        world.nodes[2].disk.fill(false);
        world.pass(SECOND_US);
        world.crash(2);
        world.start(2);
        world.pass(5 * SECOND_US);
        assert!(!world.nodes[2].counts(), "its folder says so");
        world.network.heal();
        world.heal();
        assert!(world.nodes[2].counts());
        world.look_at_the_disks();
    });
}

#[test]
pub(super) fn an_old_disk_that_was_copied_while_it_was_full_has_room_where_it_is_put_back() {
    under_every_order(&Options::quiet(3, 2), |world| {
        write_both(world);
        world.heal();
        world.crash(2);
        world.nodes[2].disk.fill(true);
        world.copy_disk(2);
        world.nodes[2].disk.fill(false);
        world.start(2);
        world.pass(3 * SECOND_US);
        write_both(world);
        world.heal();
        world.crash(2);
        world.put_disk_back(2);
        world.start(2);
        world.heal();
        world.look_at_the_disks();
    });
}
