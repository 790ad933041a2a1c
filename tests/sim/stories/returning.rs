//! Members of a cluster that has changed come back: after an eviction, after restarts in any order, and with an empty disk.

use super::changes::growing;
use super::deletes::delete;
use super::emptied::delete_folder;
use super::{SECOND_US, under_every_order, values};
use crate::changes::Wish;
use crate::world::World;
use kringle::coordinator::GetOutcome;
use std::collections::BTreeSet;

/// No owner holds anything of the key any more, the tombstone included.
fn is_forgotten(world: &World, key: usize) -> bool {
    world.owners(key).into_iter().all(|owner| world.row(owner, key).is_unknown())
}

/// Waits until nobody holds anything of these keys.
fn await_forgotten(world: &mut World, keys: &[usize]) {
    let until = world.now + 120 * SECOND_US;
    while let Some(key) = keys.iter().find(|&&key| !is_forgotten(world, key)) {
        assert!(world.now < until, "key {key} is still remembered");
        world.pass(SECOND_US / 4);
    }
}

#[test]
pub(super) fn a_removed_member_that_returns_when_the_deletes_it_missed_were_forgotten_brings_nothing_back() {
    under_every_order(&growing(4, 0, 8), |world| {
        let mut shown: Vec<_> = (0..8).map(|key| Some(world.put(key % 4, key))).collect();
        world.heal();
        // Everybody has seen what everybody has made.
        world.pass(30 * SECOND_US);
        let held: Vec<usize> = (0..8).filter(|&key| world.owners(key).contains(&3)).collect();
        assert!(held.len() > 2, "it holds {held:?}");
        world.crash(3);
        world.pass(15 * SECOND_US);
        let (gone, kept) = held.split_at(held.len() / 2);
        for &key in gone {
            delete(world, 0, key);
            shown[key] = None;
        }
        world.ask_for(1, Wish::Remove(3));
        world.reach(4);
        world.settle();
        // One that it holds as it was is written again meanwhile.
        shown[kept[0]] = Some(world.put(1, kept[0]));
        await_forgotten(world, gone);
        world.nodes[3].joins = true;
        world.start(3);
        world.pass(3 * SECOND_US);
        world.reach(7);
        world.settle();
        assert!(world.is_member(3), "it joins again by itself");
        world.heal();
        for (key, write) in shown.iter().enumerate() {
            let wanted: BTreeSet<_> = write.iter().map(|&write| world.value(write)).collect();
            for node in 0..4 {
                match world.read(node, key, None) {
                    GetOutcome::Found { record, .. } => assert_eq!(values(&record), wanted, "key {key}, node {node}"),
                    other => panic!("key {key} through node {node}: {other:?}"),
                }
            }
        }
        world.look_at_the_disks();
    });
}

#[test]
pub(super) fn nodes_that_restart_in_any_order_and_all_at_once_are_the_same_members_with_the_same_data() {
    under_every_order(&growing(3, 1, 6), |world| {
        let written: Vec<_> = (0..6).map(|key| world.put(key % 3, key)).collect();
        // One came later, through the others.
        world.want(Wish::Join(3), 0);
        world.reach(4);
        world.settle();
        let layout = world.ring_of(0).layout().clone();
        for node in [0, 3, 2, 1] {
            world.crash(node);
            world.pass(SECOND_US / 2);
            world.start(node);
            world.pass(8 * SECOND_US);
        }
        (0..4).for_each(|node| world.crash(node));
        for node in [2, 0, 3, 1] {
            world.start(node);
            world.pass(SECOND_US / 3);
        }
        world.pass(8 * SECOND_US);
        world.settle();
        for node in 0..4 {
            assert_eq!(*world.ring_of(node).layout(), layout, "node {node}");
        }
        world.heal();
        for (key, &write) in written.iter().enumerate() {
            assert_eq!(values(&world.held_by_all(key)), BTreeSet::from([world.value(write)]));
        }
        world.look_at_the_disks();
    });
}

#[test]
pub(super) fn a_member_of_a_changed_cluster_that_lost_its_disk_takes_its_own_place_and_counts_once_it_is_filled() {
    under_every_order(&growing(3, 1, 6), |world| {
        let written: Vec<_> = (0..6).map(|key| world.put(key % 3, key)).collect();
        world.want(Wish::Join(3), 0);
        world.reach(4);
        world.settle();
        world.heal();
        let (actor, id) = (world.nodes[1].up.as_ref().expect("it runs").committer.actor(), world.nodes[1].id());
        world.crash(1);
        world.pass(15 * SECOND_US);
        delete_folder(world, 1);
        world.nodes[1].joins = true;
        world.start(1);
        world.pass(5 * SECOND_US);
        let until = world.now + 60 * SECOND_US;
        world.advance(|world| world.is_member(1) || world.now >= until);
        assert!(world.is_member(1), "it takes its place: {:?}", world.ring_of(1).layout());
        world.settle();
        world.heal();
        assert_eq!(world.members().len(), 4);
        assert_ne!(world.nodes[1].id(), id, "another store");
        assert_ne!(world.nodes[1].up.as_ref().expect("it runs").committer.actor(), actor);
        assert!(world.nodes[1].counts());
        for (key, &write) in written.iter().enumerate() {
            assert_eq!(values(&world.held_by_all(key)), BTreeSet::from([world.value(write)]));
        }
        world.look_at_the_disks();
    });
}
