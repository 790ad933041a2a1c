//! Equal replicas: whatever the order in which the same writes arrived, digests are equal, and a session finds nothing.

use super::{Ask, SECOND_US, under_every_order};
use crate::invariants;
use crate::node::Reason;
use crate::options::Options;
use crate::world::World;
use kringle::coordinator::PutOutcome;
use kringle::record::Record;
use kringle::storage::Change;

#[test]
pub(super) fn digests_are_equal_whatever_the_order_of_arrival_of_writes_overwrites_and_deletes() {
    under_every_order(&Options::quiet(3, 3), |world| {
        // What each of the nodes made of the keys, alone: values, overwritten ones, and deletes.
        world.split(&[&[0], &[1], &[2]]);
        let mut made: Vec<(usize, Record)> = Vec::new();
        for (node, key) in (0..3).flat_map(|node| (0..3).map(move |key| (node, key))) {
            for step in 0..3 {
                let ask = Ask { delete: (node + key + step) % 4 == 3, ..Ask::default() };
                let (_, outcome) = world.write(node, key, ask);
                assert!(matches!(outcome, PutOutcome::Short { .. }), "{outcome:?}");
                made.push((key, world.row(node, key)));
            }
        }
        // They arrive everywhere, in an order of its own at each.
        for node in 0..3 {
            let mut order: Vec<usize> = (0..made.len()).collect();
            world.shuffle(&mut order);
            for at in order {
                let (key, record) = made[at].clone();
                let key = world.keys[key].clone();
                world.submit_change(node, Change::Merge { key, record });
            }
        }
        world.pass(SECOND_US);
        (0..3).for_each(|key| {
            world.held_by_all(key);
        });
        let roots: Vec<_> = (0..3).map(|node| root(world, node)).collect();
        assert!(roots.iter().all(|root| *root == roots[0] && root.is_some()), "{roots:?}");
        let moved =
            |world: &World| world.counters.of("session pushed a record") + world.counters.of("session pulled a record");
        assert_eq!(world.heal().min(moved(world)), 0);
        world.pass(SECOND_US);
        world.only_asked = true;
        world.pass(3 * SECOND_US);
        for (node, peer) in [(0, 1), (1, 2), (2, 0)] {
            let asked = world.asked.len();
            assert!(world.begin_session(node, peer, Reason::Request));
            world.advance(|world| world.asked.len() > asked);
            let report = world.asked[asked].clone();
            invariants::equal_replicas_are_quiet(world, (node, peer), &report);
        }
        assert_eq!(moved(world), 0, "a session moved a record between equals");
        world.judge();
    });
}

/// What `/store/hash` would show of all that the node holds.
fn root(world: &World, node: usize) -> Option<kringle::merkle::TreeHash> {
    let partitions: Vec<_> = kringle::placement::Partition::all().collect();
    world.nodes[node].up.as_ref().and_then(|up| up.forest.root_if_built(&partitions))
}
