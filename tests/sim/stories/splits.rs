//! Splits: all sides are written to, and when they meet nothing is missing.

use super::{Ask, SECOND_US, under_every_order, values};
use crate::options::Options;
use crate::world::World;
use bytes::Bytes;
use kringle::coordinator::{GetOutcome, PutOutcome};
use std::collections::BTreeSet;

/// Every side writes every key, through each of its nodes; then they meet.
fn written_on_all_sides(world: &mut World, sides: &[&[usize]]) {
    let keys = world.keys.len();
    (0..keys).for_each(|key| {
        world.put(0, key);
    });
    let mut seen = Vec::new();
    for key in 0..keys {
        seen.push(world.see(0, key));
    }
    world.split(sides);
    // Some write at once, others when everybody has noticed.
    let mut written: Vec<BTreeSet<Bytes>> = vec![BTreeSet::new(); keys];
    for round in 0..2 {
        for (side, key) in sides.iter().flat_map(|side| (0..keys).map(move |key| (side, key))) {
            let node = side[(key + round) % side.len()];
            let ask = Ask { seen: Some(seen[key].clone()), ..Ask::default() };
            let (write, outcome) = world.write(node, key, ask);
            assert!(matches!(outcome, PutOutcome::Stored { .. } | PutOutcome::Short { .. }), "{outcome:?}");
            written[key].insert(world.value(write));
        }
        world.pass(15 * SECOND_US);
    }
    assert!(world.counters.of("peer down") > 0, "nobody noticed");
    world.heal();
    for (key, written) in written.iter().enumerate() {
        let record = world.held_by_all(key);
        assert!(values(&record).is_superset(written), "key {key}: {:?} of {written:?}", values(&record));
        // No write had seen another: all of them are there, beside nothing else.
        assert_eq!(values(&record), *written);
        for node in 0..world.nodes.len() {
            let GetOutcome::Found { record: shown, .. } = world.read(node, key, None) else { panic!("all are up") };
            assert_eq!(shown.latest(), record.latest(), "through node {node}");
        }
    }
    assert!(world.nodes.iter().all(|node| node.up.as_ref().is_some_and(|up| up.hints.status().is_empty())));
    world.judge();
}

#[test]
pub(super) fn five_nodes_split_three_ways_and_written_on_all_sides_have_all_of_it_after() {
    under_every_order(&Options::quiet(5, 3), |world| written_on_all_sides(world, &[&[0, 1], &[2, 3], &[4]]));
}

#[test]
pub(super) fn two_nodes_against_three_written_on_both_sides_have_all_of_it_after() {
    under_every_order(&Options::quiet(5, 3), |world| written_on_all_sides(world, &[&[0, 1], &[2, 3, 4]]));
}

#[test]
pub(super) fn three_owners_each_alone_have_all_of_it_after_by_sessions_alone() {
    let options = Options { hint_bytes_max: 0, ..Options::quiet(3, 3) };
    under_every_order(&options, |world| written_on_all_sides(world, &[&[0], &[1], &[2]]));
}

#[test]
pub(super) fn a_plain_write_after_a_split_has_healed_leaves_one_value() {
    under_every_order(&Options::quiet(5, 1), |world| {
        world.split(&[&[0, 1], &[2, 3, 4]]);
        for node in 0..5 {
            world.write(node, 0, Ask::default());
        }
        world.heal();
        let last = world.put(3, 0);
        world.heal();
        assert_eq!(values(&world.held_by_all(0)), BTreeSet::from([world.value(last)]));
        world.judge();
    });
}
