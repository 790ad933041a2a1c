//! How far a change of owners has come, by what the members said of themselves: whether reads may go over to the new owners,
//! and whether the change is over.

use crate::placement::{MemberIndex, Partition, Ring};
use crate::protocol::Progress;
use std::collections::BTreeSet;

/// Those who keep a partition now that they did not own before.
pub fn heirs(ring: &Ring) -> BTreeSet<MemberIndex> {
    let new = |at: Partition| ring.beside(at).iter().copied().filter(move |member| !ring.is_owner(*member, at));
    Partition::all().flat_map(new).collect()
}

/// Whether the new owners have all that they are to keep: all heirs, and more than half of those of every partition.
pub fn all_have_taken_in<'a>(ring: &Ring, said: impl Fn(MemberIndex) -> Option<&'a Progress>) -> bool {
    let has = |member: MemberIndex| {
        said(member).is_some_and(|said| said.epoch == ring.epoch() && said.lacking.is_empty() && said.is_filled)
    };
    let is_known_to_lack = |member: MemberIndex| said(member).is_some_and(|said| !said.is_filled);
    // Of those that owned before one may be away, and has what it had; none may be known to have lost it.
    let most = |at: Partition| is_most(ring.beside(at), has);
    heirs(ring).into_iter().all(has) && !ring.members().any(is_known_to_lack) && Partition::all().all(most)
}

/// Whether in every partition more than half of the old owners, and of the new, go by this epoch: nobody can be answered
/// under the one before, in which others were read from.
pub fn all_know<'a>(ring: &Ring, said: impl Fn(MemberIndex) -> Option<&'a Progress>) -> bool {
    let knows = |member: MemberIndex| said(member).is_some_and(|said| said.epoch >= ring.epoch());
    Partition::all().all(|at| is_most(ring.owners(at), knows) && is_most(ring.beside(at), knows))
}

/// Whether it holds for more than half of them, if there are any.
fn is_most(members: &[MemberIndex], holds: impl Fn(MemberIndex) -> bool) -> bool {
    members.is_empty() || 2 * members.iter().filter(|member| holds(**member)).count() > members.len()
}
