//! Stories: what the random worlds come across by chance, told on purpose. Each is a fixed world with faults and writes
//! at fixed times, played under many orders in which messages arrive and disks are done, and then every node's rows and
//! every answer are looked at.

mod changes;
mod clocks;
mod deletes;
mod emptied;
mod order;
mod repair;
mod returning;
mod rot;
mod seen;
mod splits;

use crate::between::Reading;
use crate::invariants;
use crate::options::Options;
use crate::plant::Plant;
use crate::workload::Wanted;
use crate::world::World;
use bytes::Bytes;
use kringle::coordinator::{GetOutcome, PutOutcome, Replicas};
use kringle::record::{Content, Context, Edit, Record, Seen};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Under how many orders of events each story is played; under more where `KRINGLE_THOROUGH` is set, and where a bug is
/// planted that must be found.
const ORDERS: u64 = 16;
const ORDERS_THOROUGH: u64 = 40;
const SECOND_US: u64 = 1_000_000;
/// How long after faults have stopped everything is as it should be: a round of sessions comes every 10 s, and one that
/// begins while a write is younger than the longest it may be under way leaves it to the next.
const HEALED_WITHIN_US: u64 = 45 * SECOND_US;

/// What clients were answered.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// By the number of the write.
    pub(crate) puts: BTreeMap<usize, PutOutcome>,
    pub(crate) gets: Vec<(usize, GetOutcome)>,
}

thread_local! {
    /// The bug that is planted in the stories told on this thread.
    static PLANTED: Cell<Option<Plant>> = const { Cell::new(None) };
}

fn orders() -> u64 {
    let is_thorough = PLANTED.get().is_some() || std::env::var_os("KRINGLE_THOROUGH").is_some();
    if is_thorough { ORDERS_THOROUGH } else { ORDERS }
}

/// Plays a story under every order.
fn under_every_order(options: &Options, story: impl Fn(&mut World)) {
    for seed in 0..orders() {
        let played = catch_unwind(AssertUnwindSafe(|| {
            let mut world = World::with(options.clone(), ChaCha8Rng::seed_from_u64(seed), PLANTED.get(), false);
            world.told = Some(Answers::default());
            // Nobody asks but the story.
            world.clients[0].left = 0;
            (0..world.nodes.len()).for_each(|node| world.start(node));
            // Every two have met and compared.
            world.pass(8 * SECOND_US);
            story(&mut world);
            let broken = &world.oracle.violations;
            assert!(broken.is_empty(), "{}", broken.join("\n"));
        }));
        if let Err(panic) = played {
            eprintln!("under order {seed}");
            resume_unwind(panic);
        }
    }
}

/// How a client asks.
#[derive(Clone, Default)]
struct Ask {
    /// The number it names, if it does.
    hard: Option<u8>,
    /// What it goes on from; nothing for a plain write.
    seen: Option<(Context, BTreeSet<Bytes>)>,
    delete: bool,
}

impl World {
    /// A client asks `node` to write. The number of the write; its value is "value <number>".
    fn ask_write(&mut self, node: usize, key: usize, ask: Ask) -> usize {
        let (saw, seen) = match ask.seen {
            Some((context, values)) => (Some(values), Seen::Only(context)),
            None => (None, Seen::Everything),
        };
        let wanted = ask.hard.map_or(Wanted::Majority, Wanted::Hard);
        let write = self.enter_write(key, ask.delete, saw);
        let content = self.oracle.writes[write].value.clone().map(Content::plain);
        self.begin_write_of(0, node, write, wanted, Edit::write(seen, content));
        write
    }

    /// The same, and waits for the answer.
    fn write(&mut self, node: usize, key: usize, ask: Ask) -> (usize, PutOutcome) {
        let write = self.ask_write(node, key, ask);
        let told = |world: &World| world.told.as_ref().and_then(|told| told.puts.get(&write)).cloned();
        self.advance(|world| told(world).is_some());
        (write, told(self).unwrap_or_else(|| panic!("not answered: {:?}", self.oracle.violations)))
    }

    /// A plain write that a majority must have taken. Its number.
    fn put(&mut self, node: usize, key: usize) -> usize {
        let (write, outcome) = self.write(node, key, Ask::default());
        assert!(matches!(outcome, PutOutcome::Stored { .. }), "{outcome:?}");
        write
    }

    /// A client asks `node` to read, and waits for the answer.
    fn read(&mut self, node: usize, key: usize, hard: Option<u8>) -> GetOutcome {
        let asked = self.told.as_ref().map_or(0, |told| told.gets.len());
        self.begin_get(Reading {
            client: 0,
            node,
            key,
            begun: self.moment,
            since: Context::new(),
            asked: Context::new(),
            wanted: hard.map_or(Wanted::Majority, Wanted::Hard),
            hedge_ms: 20,
            patience_ms: 100,
            patience: self.patience(node),
            ring: self.ring_of(node),
        });
        let told = |world: &World| world.told.as_ref().and_then(|told| told.gets.get(asked)).cloned();
        self.advance(|world| told(world).is_some());
        told(self).unwrap_or_else(|| panic!("not answered: {:?}", self.oracle.violations)).1
    }

    /// What a read that must succeed shows, to go on from.
    fn see(&mut self, node: usize, key: usize) -> (Context, BTreeSet<Bytes>) {
        match self.read(node, key, None) {
            GetOutcome::Found { record, .. } => (record.context().clone(), values(&record)),
            unavailable => panic!("{unavailable:?}"),
        }
    }

    fn value(&self, write: usize) -> Bytes {
        self.oracle.writes[write].value.clone().expect("no delete")
    }

    /// A key that `owned` owns, and `foreign` does not.
    fn key_of(&self, owned: &[usize], foreign: &[usize]) -> usize {
        let fits = |key: &usize| {
            let owners = self.owners(*key);
            owned.iter().all(|node| owners.contains(node)) && !foreign.iter().any(|node| owners.contains(node))
        };
        (0..self.keys.len()).find(fits).expect("there are keys enough")
    }

    /// Cuts the network into these sides, until it heals.
    fn split(&mut self, sides: &[&[usize]]) {
        self.network.split(sides);
    }

    /// Waits until all copies are equal and nothing is kept for anybody; how long that took, in microseconds.
    fn heal(&mut self) -> u64 {
        self.network.heal();
        let began = self.now;
        while let Some(what) = invariants::what_differs(self) {
            assert!(self.now < began + HEALED_WITHIN_US, "{what}");
            assert!(self.oracle.violations.is_empty(), "{}", self.oracle.violations.join("\n"));
            self.pass(SECOND_US / 4);
        }
        self.now - began
    }

    /// What all owners of the key hold: the same, in rows and digests, and in what they show first.
    fn held_by_all(&self, key: usize) -> Record {
        let rows: Vec<Record> = self.owners(key).into_iter().map(|owner| self.row(owner, key)).collect();
        assert!(rows.iter().all(|row| *row == rows[0] && row.latest() == rows[0].latest()), "{rows:?}");
        rows[0].clone()
    }

    /// Everybody restarts, and the disks hold what was promised; and no session moved a record for nothing.
    fn judge(&mut self) {
        assert_eq!(self.counters.of("session moved what had come another way"), 0);
        self.look_at_the_disks();
    }
}

fn values(record: &Record) -> BTreeSet<Bytes> {
    record.siblings().iter().map(|sibling| sibling.content.value.clone()).collect()
}

/// How far a write got that was answered with fewer owners than a majority.
fn short(outcome: &PutOutcome) -> Replicas {
    match outcome {
        PutOutcome::Short { replicas, .. } => *replicas,
        other => panic!("{other:?}"),
    }
}

#[test]
fn stories_fail_where_the_bug_they_are_about_is_planted() {
    let told: [(Plant, fn()); 21] = [
        (Plant::RoundReused, changes::two_operators_at_one_node_want_different_layouts_and_there_is_one),
        (Plant::VotesLostInCrash, changes::what_was_voted_for_before_a_crash_is_the_layout_of_its_epoch_after_it),
        (Plant::LogForgotten, repair::after_ten_crashes_under_load_every_owner_has_every_acknowledged_write),
        (Plant::DominatedSent, repair::a_copy_that_was_lost_while_both_peers_are_up_is_brought_by_the_next_session),
        (
            Plant::HintCountedAsOwner,
            repair::with_two_of_three_owners_dead_writes_tell_the_truth_and_hints_fill_them_on_return,
        ),
        (Plant::ContextIgnored, splits::five_nodes_split_three_ways_and_written_on_all_sides_have_all_of_it_after),
        (Plant::TombstoneOverwritten, deletes::a_copy_of_what_was_deleted_brings_nothing_back_however_late_it_comes),
        (Plant::FarStampBelieved, clocks::records_messages_and_clients_from_the_future_change_nothing),
        (Plant::ClockFollowsWall, clocks::a_node_whose_clock_jumps_back_goes_on_with_rising_stamps),
        (
            Plant::MergeOverwrites,
            order::digests_are_equal_whatever_the_order_of_arrival_of_writes_overwrites_and_deletes,
        ),
        (Plant::SiblingsIgnored, splits::three_owners_each_alone_have_all_of_it_after_by_sessions_alone),
        (
            Plant::EmptiedCounts,
            emptied::an_emptied_owner_answers_no_404_counts_for_nothing_and_is_filled_without_being_read,
        ),
        (
            Plant::EmptiedAnswersAbsent,
            emptied::an_emptied_owner_answers_no_404_counts_for_nothing_and_is_filled_without_being_read,
        ),
        (Plant::RottenRowAbsent, rot::a_row_that_rotted_is_not_taken_for_absent_where_the_only_other_owner_lacks_it),
        (Plant::ScrubOnlyReports, rot::a_scrub_makes_good_what_rotted_below_a_sound_copy_in_memory),
        (Plant::LogGapOverlooked, rot::what_rots_in_the_log_comes_back_and_its_owner_counts_for_nothing_until_then),
        (
            Plant::ReplacedBaseCounts,
            rot::a_base_that_rots_is_replaced_and_its_owner_counts_for_nothing_until_it_is_filled,
        ),
        (Plant::TombstoneDropped, deletes::a_key_deleted_while_an_owner_was_down_stays_deleted_when_it_returns),
        (
            Plant::LateCopyTaken,
            returning::a_removed_member_that_returns_when_the_deletes_it_missed_were_forgotten_brings_nothing_back,
        ),
        (
            Plant::LogForgotten,
            returning::nodes_that_restart_in_any_order_and_all_at_once_are_the_same_members_with_the_same_data,
        ),
        (
            Plant::ActorOfLostDisk,
            returning::a_member_of_a_changed_cluster_that_lost_its_disk_takes_its_own_place_and_counts_once_it_is_filled,
        ),
    ];
    let mut missed = Vec::new();
    for (plant, story) in told {
        PLANTED.set(Some(plant));
        if catch_unwind(story).is_ok() {
            missed.push(plant);
        }
    }
    PLANTED.set(None);
    assert!(missed.is_empty(), "told as if nothing had happened: {missed:?}");
}
