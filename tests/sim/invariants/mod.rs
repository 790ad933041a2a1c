//! What must hold, one promise a file. Some are checked on the way, all at the end, when faults have stopped, hints are
//! handed over, and every node has been restarted once more.

mod accepted_stays;
mod acknowledged_is_held;
mod acknowledged_survives;
mod an_owner_that_counts_is_whole;
mod an_owner_that_counts_knows_what_was_forgotten;
mod bounded_queues;
mod contexts_cover_what_is_held;
mod copies_merge_to_one;
mod counted_once;
mod damaged_rows_are_refused;
mod deleted_stays_deleted;
mod equal_replicas_are_quiet;
mod forgotten_is_superseded;
mod hints_drain;
mod linearizable;
mod majority_reads_see_majority_writes;
mod no_phantom_value;
mod no_session_goes_back;
mod poison_stays_outside;
mod promises_are_kept;
mod read_sees_the_owners;
mod reads_ask_who_has_it;
mod replicas_converge;
mod rot_is_repaired;
mod same_layout_same_owners;
mod sessions_move_what_is_needed;
mod stamps_rise;

pub(crate) use accepted_stays::accepted_stays;
pub(crate) use acknowledged_is_held::acknowledged_is_held;
pub(crate) use an_owner_that_counts_is_whole::an_owner_that_counts_is_whole;
pub(crate) use an_owner_that_counts_knows_what_was_forgotten::an_owner_that_counts_knows_what_was_forgotten;
pub(crate) use bounded_queues::{at_rest_nothing_is_left, queues_are_bounded};
pub(crate) use contexts_cover_what_is_held::contexts_cover_what_is_held;
pub(crate) use damaged_rows_are_refused::a_damaged_row_is_refused;
pub(crate) use deleted_stays_deleted::note_what_is_gone;
pub(crate) use equal_replicas_are_quiet::equal_replicas_are_quiet;
pub(crate) use forgotten_is_superseded::forgotten_is_superseded;
pub(crate) use hints_drain::hints_left;
pub(crate) use majority_reads_see_majority_writes::majority_reads_see_majority_writes;
pub(crate) use no_session_goes_back::no_session_goes_back;
pub(crate) use poison_stays_outside::{no_poison_is_held, note_the_time, poison_stays_outside};
pub(crate) use promises_are_kept::{Promised, promises_are_kept, promises_are_over, promises_to_oneself_are_over};
pub(crate) use read_sees_the_owners::read_sees_the_owners;
pub(crate) use reads_ask_who_has_it::reads_ask_who_has_it;
pub(crate) use replicas_converge::what_differs;
pub(crate) use rot_is_repaired::{a_scrub_finds_what_rots, rot_left};
pub(crate) use same_layout_same_owners::one_layout_an_epoch;
pub(crate) use sessions_move_what_is_needed::{a_session_moves_what_is_needed, records_needed};
pub(crate) use stamps_rise::a_dot_was_made;

use super::world::World;
use kringle::record::Record;

/// What the nodes' disks hold of one key.
pub(crate) struct Copies {
    pub(crate) key: usize,
    /// The rows of its owners, with what else they say they have seen of it.
    pub(crate) owners: Vec<Record>,
}

/// The promises about what is there in the end.
pub(crate) fn check_the_end(world: &mut World, copies: &[Copies]) {
    same_layout_same_owners::check(world);
    (0..world.nodes.len()).for_each(|node| contexts_cover_what_is_held(world, node));
    linearizable::check(world);
    for copies in copies {
        let merged = copies_merge_to_one::check(world, copies);
        no_phantom_value::check(world, copies.key, &merged);
        acknowledged_survives::check(world, copies.key, &merged);
        deleted_stays_deleted::check(world, copies.key, &merged);
        counted_once::check(world, copies.key, &merged);
    }
}
