//! Deleted stays deleted, whoever was away and whatever comes late.

use super::{Ask, SECOND_US, under_every_order, values};
use crate::options::Options;
use crate::world::World;
use bytes::Bytes;
use kringle::coordinator::{GetOutcome, PutOutcome};
use kringle::record::Record;
use kringle::storage::Change;
use std::collections::BTreeSet;

pub(super) fn delete(world: &mut World, node: usize, key: usize) {
    let (_, outcome) = world.write(node, key, Ask { delete: true, ..Ask::default() });
    assert!(matches!(outcome, PutOutcome::Stored { .. }), "{outcome:?}");
}

fn assert_deleted(world: &mut World, key: usize) {
    let record = world.held_by_all(key);
    assert!(record.is_tombstone(), "{record:?}");
    for node in 0..world.nodes.len() {
        let GetOutcome::Found { record, .. } = world.read(node, key, None) else { panic!("all are up") };
        assert!(record.siblings().is_empty(), "node {node} shows {record:?}");
    }
}

#[test]
pub(super) fn a_key_deleted_while_an_owner_was_down_stays_deleted_when_it_returns() {
    under_every_order(&Options::quiet(3, 2), |world| {
        world.put(0, 0);
        world.heal();
        world.crash(2);
        world.pass(10 * SECOND_US);
        delete(world, 0, 0);
        world.start(2);
        world.heal();
        assert_deleted(world, 0);
        world.judge();
    });
}

#[test]
pub(super) fn it_stays_deleted_also_where_the_owner_that_returns_has_newer_data_of_its_own() {
    under_every_order(&Options { hint_bytes_max: 0, ..Options::quiet(3, 3) }, |world| {
        world.put(0, 0);
        world.heal();
        // Alone, the owner takes writes of other keys, later than the delete; nothing of the delete is kept for it.
        world.split(&[&[0, 1], &[2]]);
        world.pass(10 * SECOND_US);
        delete(world, 0, 0);
        world.pass(SECOND_US);
        let own: Vec<Bytes> = (1..3)
            .map(|key| {
                let (write, outcome) = world.write(2, key, Ask::default());
                assert!(matches!(outcome, PutOutcome::Short { .. }), "{outcome:?}");
                world.value(write)
            })
            .collect();
        world.crash(2);
        world.network.heal();
        world.start(2);
        world.heal();
        assert_deleted(world, 0);
        for (key, value) in (1..3).zip(own) {
            assert_eq!(values(&world.held_by_all(key)), BTreeSet::from([value]));
        }
        world.judge();
    });
}

#[test]
pub(super) fn a_copy_of_what_was_deleted_brings_nothing_back_however_late_it_comes() {
    under_every_order(&Options::quiet(3, 1), |world| {
        let mut old: Vec<Record> = Vec::new();
        for node in 0..3 {
            world.put(node, 0);
            old.push(world.row(node, 0));
        }
        world.heal();
        delete(world, 1, 0);
        world.heal();
        for (node, record) in [(0, 2), (1, 0), (2, 1), (0, 0)].map(|(node, at)| (node, old[at].clone())) {
            let key = world.keys[0].clone();
            world.submit_change(node, Change::Merge { key, record });
            world.pass(SECOND_US);
        }
        world.heal();
        assert_deleted(world, 0);
        world.judge();
    });
}
