//! What was missed is repaired: after crashes, a lost copy, dead owners, with hints and without.

use super::{Ask, SECOND_US, short, under_every_order, values};
use crate::options::Options;
use crate::world::World;
use kringle::coordinator::{GetOutcome, PutOutcome};
use std::collections::BTreeSet;

#[test]
pub(super) fn after_ten_crashes_under_load_every_owner_has_every_acknowledged_write() {
    under_every_order(&Options::quiet(3, 4), |world| {
        let mut acknowledged = BTreeSet::new();
        for crash in 0..10 {
            let victim = crash % 3;
            for at in 0..8 {
                // Each value goes on from what is there, so that a lost one would be missed.
                let key = at % 4;
                let node = (victim + 1 + at % 2) % 3;
                let seen = Some((Default::default(), BTreeSet::new()));
                let write = world.ask_write(node, key, Ask { seen, ..Ask::default() });
                acknowledged.insert((key, write));
                world.pass(20_000);
                if at == 3 {
                    world.crash(victim);
                }
                if at == 5 {
                    world.start(victim);
                }
                if at % 4 == 3 {
                    // Somebody reads what is there and resolves it, or 64 values would be too many.
                    let seen = world.see(node, key);
                    let (write, _) = world.write(node, key, Ask { seen: Some(seen), ..Ask::default() });
                    acknowledged.insert((key, write));
                }
            }
        }
        world.heal();
        let told = world.told.as_ref().expect("a story");
        let stored = |write: &usize| matches!(told.puts.get(write), Some(PutOutcome::Stored { .. }));
        assert!(acknowledged.iter().filter(|(_, write)| stored(write)).count() > 60);
        // That each is there, or superseded by what had seen it, is what the disks are judged by.
        world.judge();
    });
}

#[test]
pub(super) fn a_copy_that_was_lost_while_both_peers_are_up_is_brought_by_the_next_session() {
    under_every_order(&Options::quiet(3, 2), |world| {
        world.put(1, 0);
        world.heal();
        // The one that coordinates dies before it can leave a hint; the two others never went away.
        world.network.cut(0, 2);
        let write = world.put(0, 0);
        world.crash(0);
        world.network.heal();
        let pushed = moved(world);
        assert!(!values(&world.row(2, 0)).contains(&world.value(write)), "the copy came through");
        world.pass(13 * SECOND_US);
        assert_eq!(values(&world.row(2, 0)), BTreeSet::from([world.value(write)]));
        assert_eq!(moved(world) - pushed, 1, "one record was needed");
        world.start(0);
        world.heal();
        world.judge();
    });
}

#[test]
pub(super) fn a_bare_write_that_only_one_node_got_is_brought_to_the_others_by_sessions() {
    under_every_order(&Options::quiet(3, 1), |world| {
        let write = world.enter_write(0, false, None);
        world.submit_write(1, 0, write);
        world.pass(SECOND_US / 2);
        let holders = |world: &World| (0..3).filter(|&node| !world.row(node, 0).is_unknown()).count();
        assert_eq!(holders(world), 1);
        world.heal();
        assert_eq!(values(&world.held_by_all(0)), BTreeSet::from([world.value(write)]));
        assert_eq!(world.counters.of("crash"), 0);
        world.judge();
    });
}

/// Records that sessions moved so far, in sessions that moved any.
fn moved(world: &World) -> u64 {
    world.counters.of("session pushed a record") + world.counters.of("session pulled a record")
}

/// Two of three owners die, and are written to; then they return.
fn two_dead_owners(world: &mut World, hints_have_room: bool) {
    let key = world.key_of(&[0, 1, 2], &[]);
    let before = world.put(0, key);
    world.crash(1);
    world.crash(2);
    let mut last = before;
    for _ in 0..3 {
        let (write, outcome) = world.write(0, key, Ask::default());
        let replicas = short(&outcome);
        let hinted = if hints_have_room { 2 } else { 0 };
        assert_eq!((replicas.wanted, replicas.acked, replicas.hinted), (3, 1, hinted));
        last = write;
        world.pass(2 * SECOND_US);
    }
    let (doubtful, refused) = world.write(0, key, Ask { hard: Some(2), ..Ask::default() });
    assert!(matches!(refused, PutOutcome::Unknown { .. }), "{refused:?}");
    assert!(matches!(world.read(0, key, Some(2)), GetOutcome::Unavailable { .. }));
    let GetOutcome::Found { record, .. } = world.read(0, key, None) else { panic!("one owner lives") };
    // What was refused for want of owners may have been stored by the one there is.
    let shown = values(&record);
    assert!([last, doubtful].iter().any(|write| shown == BTreeSet::from([world.value(*write)])), "{shown:?}");
    let handed_over = world.counters.of("hint handed over");
    world.start(1);
    world.start(2);
    world.heal();
    let by_hints = world.counters.of("hint handed over") - handed_over;
    if hints_have_room {
        assert!(by_hints >= 2 && moved(world) == 0, "{by_hints} hints");
    } else {
        assert!(by_hints == 0 && moved(world) >= 2, "{by_hints} hints");
    }
    world.held_by_all(key);
    world.judge();
}

#[test]
pub(super) fn with_two_of_three_owners_dead_writes_tell_the_truth_and_hints_fill_them_on_return() {
    under_every_order(&Options::quiet(3, 2), |world| two_dead_owners(world, true));
}

#[test]
pub(super) fn where_hints_have_no_room_the_dead_are_filled_by_sessions() {
    under_every_order(&Options { hint_bytes_max: 0, ..Options::quiet(3, 2) }, |world| two_dead_owners(world, false));
}
