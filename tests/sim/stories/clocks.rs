//! Clocks that are wrong, and stamps from the future.

use super::{Ask, SECOND_US, under_every_order, values};
use crate::clocks::HOUR_MS;
use crate::options::Options;
use crate::world::World;
use kringle::coordinator::PutOutcome;
use kringle::record::{Context, Record, Stamp};
use std::collections::BTreeSet;

const HOUR_US: i64 = 1_000 * HOUR_MS as i64;
/// What an honest stamp may be off here.
const HONEST_MS: u64 = 10_000;

/// The stamp of the last write of the record.
fn latest(record: &Record) -> Stamp {
    record.context().latest().expect("a write")
}

#[track_caller]
fn assert_honest(world: &World, honest: usize, record: &Record) {
    let off = latest(record).ms().abs_diff(world.wall_ms(honest));
    assert!(off < HONEST_MS, "{} is {off} ms off", latest(record));
}

#[test]
pub(super) fn a_node_an_hour_ahead_passes_writes_on_and_poisons_nobody() {
    under_every_order(&Options::quiet(3, 3), |world| {
        world.set_clock(2, HOUR_US, true);
        // It has heard its peers' clocks, and they its.
        world.pass(12 * SECOND_US);
        for key in 0..3 {
            let write = world.put(2, key);
            world.pass(SECOND_US);
            assert_eq!(values(&world.row(0, key)), BTreeSet::from([world.value(write)]));
            let rows: Vec<Record> = (0..3).map(|node| world.row(node, key)).collect();
            rows.iter().for_each(|row| assert_honest(world, 0, row));
        }
        assert!(world.counters.of("declined for a clock ahead") > 0);
        world.heal();
        world.judge();
    });
}

#[test]
pub(super) fn records_messages_and_clients_from_the_future_change_nothing() {
    under_every_order(&Options { poison_permille: 300, ..Options::quiet(3, 1) }, |world| {
        let mut last = world.put(0, 0);
        for round in 0..20 {
            world.send_poison(round % 3);
            let mut context = Context::new();
            world.poison_context(&mut context);
            let ask = Ask { seen: Some((context, BTreeSet::new())), ..Ask::default() };
            let (_, refused) = world.write(round % 3, 0, ask);
            assert!(matches!(refused, PutOutcome::Refused(_)), "{refused:?}");
            last = world.put((round + 1) % 3, 0);
            world.pass(SECOND_US / 4);
        }
        world.options.poison_permille = 0;
        world.heal();
        let record = world.held_by_all(0);
        assert_eq!(values(&record), BTreeSet::from([world.value(last)]));
        assert_honest(world, 0, &record);
        for name in ["stamp not believed", "write from the future refused", "message with a stamp from the future"] {
            assert!(world.counters.of(name) > 0, "{name}");
        }
        world.judge();
    });
}

/// Writes to one key through one node while its clock does what `wrong` says, each of which supersedes the one before.
fn stamps_rise_while(wrong: impl Fn(&mut World, usize)) {
    under_every_order(&Options::quiet(3, 1), |world| {
        world.put(0, 0);
        let mut before = latest(&world.row(0, 0));
        for round in 0..12 {
            wrong(world, round);
            if round % 4 == 3 {
                world.crash(0);
                world.start(0);
                // It asks its peers how it stands before it counts.
                world.pass(3 * SECOND_US);
            }
            let write = world.put(0, 0);
            let row = world.row(0, 0);
            assert!(latest(&row) > before, "{} after {before}", latest(&row));
            assert_eq!(values(&row), BTreeSet::from([world.value(write)]), "the last writer wins");
            before = latest(&row);
            world.pass(SECOND_US / 2);
        }
        world.heal();
        world.judge();
    });
}

#[test]
pub(super) fn a_node_whose_clock_jumps_back_goes_on_with_rising_stamps() {
    stamps_rise_while(|world, round| world.set_clock(0, -(round as i64) * 600_000_000, false));
}

#[test]
pub(super) fn a_node_whose_clock_stands_still_goes_on_with_rising_stamps() {
    stamps_rise_while(|world, round| {
        if round == 1 {
            world.nodes[0].clock.stopped_at = Some(world.now);
        }
    });
}
