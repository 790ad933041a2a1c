//! The cluster changes while it is written to: nodes join and leave, and the number of replicas is another.

use super::{Ask, SECOND_US, under_every_order, values};
use crate::changes::Wish;
use crate::options::Options;
use crate::world::World;
use bytes::Bytes;
use kringle::coordinator::{GetOutcome, PutOutcome};
use std::collections::BTreeMap;

/// How long a change may take when nothing goes wrong, copies that are handed over included.
const SETTLED_WITHIN_US: u64 = 60 * SECOND_US;

/// So many members, and so many nodes that may become some.
pub(super) fn growing(nodes: usize, spares: usize, keys: usize) -> Options {
    Options { spares, changes: 1, ..Options::quiet(nodes, keys) }
}

impl World {
    pub(super) fn epoch(&self) -> u64 {
        self.ring.epoch()
    }

    /// Waits until a layout of this epoch is gone by.
    pub(super) fn reach(&mut self, epoch: u64) {
        let until = self.now + SETTLED_WITHIN_US;
        self.advance(|world| world.epoch() >= epoch || world.now >= until);
        assert!(self.epoch() >= epoch, "{:?}", self.oracle.violations);
    }

    /// Waits until nothing is left to be done about layouts.
    pub(super) fn settle(&mut self) {
        let until = self.now + SETTLED_WITHIN_US;
        while let Some(what) = self.layouts_left() {
            assert!(self.now < until, "{what}");
            assert!(self.oracle.violations.is_empty(), "{}", self.oracle.violations.join("\n"));
            self.pass(SECOND_US / 4);
        }
    }
}

/// Writes, deletes and reads that go on while the cluster changes.
struct Load {
    /// What each key shows; nothing, if it was deleted.
    shown: BTreeMap<usize, Option<Bytes>>,
    turn: usize,
}

impl Load {
    fn begin(world: &mut World) -> Load {
        let shown = (0..world.keys.len()).map(|key| {
            let write = world.put(key % 3, key);
            (key, Some(world.value(write)))
        });
        Load { shown: shown.collect(), turn: 0 }
    }

    /// A write or a delete of one key, and a read of each, through one node after the other of these.
    fn go_on(&mut self, world: &mut World, through: &[usize]) {
        self.turn += 1;
        let (key, node) = (self.turn % self.shown.len(), through[self.turn % through.len()]);
        let delete = self.turn.is_multiple_of(4);
        let (write, outcome) = world.write(node, key, Ask { delete, ..Ask::default() });
        assert!(matches!(outcome, PutOutcome::Stored { .. }), "{outcome:?}");
        self.shown.insert(key, (!delete).then(|| world.value(write)));
        for (&key, shown) in &self.shown {
            let node = through[(self.turn + key) % through.len()];
            match world.read(node, key, None) {
                GetOutcome::Found { record, .. } => {
                    assert_eq!(values(&record).into_iter().next(), *shown, "key {key} through node {node}");
                }
                other => panic!("key {key} cannot be read through node {node}: {other:?}"),
            }
        }
    }

    /// Goes on until nothing is left to be done about layouts.
    fn go_on_until_settled(&mut self, world: &mut World, through: &[usize]) {
        let until = world.now + SETTLED_WITHIN_US;
        while let Some(what) = world.layouts_left() {
            assert!(world.now < until, "{what}");
            self.go_on(world, through);
            world.pass(SECOND_US / 20);
        }
    }
}

#[test]
pub(super) fn a_node_joins_while_it_is_written_to_and_every_key_is_readable_at_every_moment() {
    under_every_order(&growing(3, 1, 6), |world| {
        let mut load = Load::begin(world);
        world.want(Wish::Join(3), 0);
        world.pass(SECOND_US / 10);
        load.go_on_until_settled(world, &[0, 1, 2, 3]);
        assert!(world.is_member(3) && world.epoch() == 4, "joined in epoch {}", world.epoch());
        world.heal();
        world.look_at_the_disks();
    });
}

#[test]
pub(super) fn a_node_leaves_while_it_is_written_to_and_keeps_nothing() {
    under_every_order(&growing(4, 0, 6), |world| {
        let mut load = Load::begin(world);
        world.want(Wish::Leave(1), 0);
        world.pass(SECOND_US / 10);
        load.go_on_until_settled(world, &[0, 1, 2, 3]);
        assert!(!world.is_member(1) && world.epoch() == 4, "left in epoch {}", world.epoch());
        assert!((0..world.keys.len()).all(|key| world.row(1, key).is_unknown()));
        // Whoever asks it is answered by the others.
        load.go_on(world, &[1]);
        world.heal();
        world.look_at_the_disks();
    });
}

#[test]
pub(super) fn a_node_that_left_comes_back_and_is_a_member_like_any_other() {
    under_every_order(&growing(4, 0, 6), |world| {
        let mut load = Load::begin(world);
        world.want(Wish::Leave(3), 0);
        world.pass(SECOND_US / 10);
        load.go_on_until_settled(world, &[0, 1, 2, 3]);
        load.go_on(world, &[0, 1, 2, 3]);
        world.want(Wish::Join(3), 0);
        world.pass(SECOND_US / 10);
        load.go_on_until_settled(world, &[0, 1, 2, 3]);
        assert!(world.is_member(3) && world.epoch() == 7, "epoch {}", world.epoch());
        // It hears its peers, and they it.
        world.pass(20 * SECOND_US);
        for node in 0..4 {
            assert!(world.avoid(node).is_empty(), "node {node} takes somebody for down");
        }
        world.heal();
        world.look_at_the_disks();
    });
}

#[test]
pub(super) fn replicas_are_lowered_and_raised_again_while_it_is_written_to() {
    under_every_order(&growing(4, 0, 6), |world| {
        let mut load = Load::begin(world);
        for (replicas, epoch) in [(2, 4), (3, 7)] {
            world.want(Wish::Replicas(replicas), 0);
            world.pass(SECOND_US / 10);
            load.go_on_until_settled(world, &[0, 1, 2, 3]);
            assert_eq!((world.epoch(), world.owners(0).len()), (epoch, usize::from(replicas)));
        }
        world.heal();
        world.look_at_the_disks();
    });
}

#[test]
pub(super) fn a_drained_node_keeps_nothing_stays_a_member_and_takes_its_share_again() {
    under_every_order(&growing(4, 0, 6), |world| {
        let mut load = Load::begin(world);
        for (weight, epoch) in [(0, 4), (1, 7)] {
            world.want(Wish::Weight(1, weight), 0);
            world.pass(SECOND_US / 10);
            load.go_on_until_settled(world, &[0, 1, 2, 3]);
            assert!(world.is_member(1) && world.epoch() == epoch, "epoch {}", world.epoch());
            let keeps = (0..world.keys.len()).filter(|key| !world.row(1, *key).is_unknown()).count();
            let owns = (0..world.keys.len()).filter(|key| world.owners(*key).contains(&1)).count();
            assert_eq!((keeps, owns > 0), (owns, weight > 0));
            // It is started again, and is as it was.
            world.crash(1);
            world.start(1);
            world.pass(5 * SECOND_US);
            load.go_on(world, &[1]);
        }
        world.heal();
        world.look_at_the_disks();
    });
}

#[test]
pub(super) fn with_a_drained_node_and_one_other_a_majority_of_three_changes_the_layout() {
    under_every_order(&growing(3, 0, 4), |world| {
        let mut load = Load::begin(world);
        world.want(Wish::Weight(2, 0), 0);
        world.pass(SECOND_US / 10);
        load.go_on_until_settled(world, &[0, 1, 2]);
        assert_eq!((world.epoch(), world.owners(0).len()), (4, 2));
        world.crash(1);
        world.pass(15 * SECOND_US);
        // The one that keeps nothing and one of the two that do: nobody else is asked.
        world.ask_for(2, Wish::Replicas(4));
        world.reach(5);
        assert!(world.ring_of(2).epoch() >= 5);
        world.start(1);
        world.pass(5 * SECOND_US);
        world.settle();
        world.heal();
        world.look_at_the_disks();
    });
}

#[test]
pub(super) fn a_newcomer_that_is_killed_for_good_while_it_is_filled_is_given_up() {
    under_every_order(&growing(3, 1, 6), |world| {
        let mut load = Load::begin(world);
        world.want(Wish::Join(3), 0);
        world.reach(2);
        world.crash(3);
        world.nodes[3].joins = false;
        load.go_on_until_settled(world, &[0, 1, 2]);
        assert_eq!((world.epoch(), world.members()), (3, vec![0, 1, 2]));
        load.go_on(world, &[0, 1, 2]);
        // It may try again.
        world.start(3);
        world.want(Wish::Join(3), 0);
        world.pass(SECOND_US);
        load.go_on_until_settled(world, &[0, 1, 2, 3]);
        assert_eq!((world.epoch(), world.members()), (6, vec![0, 1, 2, 3]));
        world.heal();
        world.look_at_the_disks();
    });
}

#[test]
pub(super) fn a_donor_that_proposed_the_change_is_killed_while_it_goes_on_and_it_ends_without_it() {
    under_every_order(&growing(3, 1, 6), |world| {
        let mut load = Load::begin(world);
        world.want(Wish::Join(3), 0);
        world.reach(2);
        world.crash(0);
        world.reach(4);
        load.go_on(world, &[1, 2, 3]);
        world.start(0);
        world.pass(3 * SECOND_US);
        load.go_on_until_settled(world, &[0, 1, 2, 3]);
        assert_eq!((world.epoch(), world.members()), (4, vec![0, 1, 2, 3]));
        world.heal();
        world.look_at_the_disks();
    });
}

#[test]
pub(super) fn a_minority_changes_no_layout_nor_does_half_of_an_even_split_and_there_is_one_after_it_has_healed() {
    under_every_order(&growing(4, 1, 6), |world| {
        let mut load = Load::begin(world);
        for sides in [[&[0, 1][..], &[2, 3, 4][..]], [&[0][..], &[1, 2, 3, 4][..]]] {
            let before = world.epoch();
            world.split(&sides);
            world.pass(10 * SECOND_US);
            // Each side is asked for another layout.
            world.want(Wish::Leave(0), 0);
            world.want(Wish::Join(4), 0);
            world.pass(20 * SECOND_US);
            assert_eq!(world.ring_of(0).epoch(), before, "a minority, or half, has changed the layout");
            if sides[0].len() == 2 {
                assert_eq!(world.epoch(), before, "half has changed the layout");
            }
            world.network.heal();
            world.pass(8 * SECOND_US);
            load.go_on_until_settled(world, &[0, 1, 2, 3]);
        }
        assert!(world.is_member(4));
        world.heal();
        world.look_at_the_disks();
    });
}

#[test]
pub(super) fn two_operators_at_one_node_want_different_layouts_and_there_is_one() {
    under_every_order(&growing(5, 0, 3), |world| {
        Load::begin(world);
        // They come at the same moment, and then nobody hears of the node any more.
        world.ask_for(0, Wish::Replicas(2));
        world.ask_for(0, Wish::Leave(4));
        world.reach(2);
        world.split(&[&[0], &[1, 2, 3, 4]]);
        world.pass(15 * SECOND_US);
        world.ask_for(1, Wish::Replicas(2));
        world.pass(10 * SECOND_US);
        world.network.heal();
        world.pass(10 * SECOND_US);
        world.settle();
        world.heal();
        world.look_at_the_disks();
    });
}

#[test]
pub(super) fn what_a_leaving_node_keeps_for_another_is_handed_over_after_it_has_left() {
    under_every_order(&Options { session_period_us: 3_000 * SECOND_US, ..growing(5, 0, 20) }, |world| {
        Load::begin(world);
        let key = world.key_of(&[2], &[4]);
        world.crash(2);
        world.pass(15 * SECOND_US);
        let write = world.put(4, key);
        world.pass(SECOND_US);
        world.want(Wish::Leave(4), 0);
        world.reach(2);
        world.start(2);
        world.settle();
        assert!(!world.is_member(4));
        world.pass(10 * SECOND_US);
        assert_eq!(values(&world.held_by_all(key)).into_iter().next(), Some(world.value(write)));
        assert!(world.nodes.iter().all(|node| node.up.as_ref().is_some_and(|up| up.hints.status().is_empty())));
        world.heal();
        world.look_at_the_disks();
    });
}

#[test]
pub(super) fn replicas_are_not_lowered_so_far_at_once_that_a_write_would_be_missed() {
    under_every_order(&growing(3, 0, 4), |world| {
        Load::begin(world);
        world.ask_for(0, Wish::Replicas(1));
        world.pass(SECOND_US / 2);
        assert_eq!((world.epoch(), world.counters.of("change of the layout declined")), (1, 1));
        world.ask_for(0, Wish::Replicas(2));
        world.reach(4);
        world.settle();
        world.ask_for(0, Wish::Replicas(1));
        world.reach(7);
        world.settle();
        world.heal();
        world.look_at_the_disks();
    });
}

#[test]
pub(super) fn what_was_voted_for_before_a_crash_is_the_layout_of_its_epoch_after_it() {
    under_every_order(&growing(3, 0, 3), |world| {
        Load::begin(world);
        // Two of three agree, and only the one that proposed it gets to know.
        world.split(&[&[0, 1], &[2]]);
        world.ask_for(0, Wish::Replicas(2));
        world.reach(2);
        world.split(&[&[0], &[1], &[2]]);
        world.crash(1);
        world.network.heal();
        world.split(&[&[0], &[1, 2]]);
        world.start(1);
        world.pass(5 * SECOND_US);
        world.ask_for(1, Wish::Replicas(4));
        world.pass(5 * SECOND_US);
        assert_eq!(world.ring_of(1).layout(), world.ring_of(2).layout());
        world.network.heal();
        world.pass(15 * SECOND_US);
        world.settle();
        world.heal();
        world.look_at_the_disks();
    });
}
