//! Founding, growing and shrinking: the first table of a cluster, from its members alone, and the tables after a
//! join, a leave, another number of replicas, and another zone or weight of a member.
//!
//! A member of weight 0 owns nothing in any of them: what one of these owns in the table before goes to the others along
//! with whatever else is planned ([`Draft`]).
//!
//! They are run once, by whoever proposes the layout; the others take the table as it is.

use super::balance::{Balance, zones};
use super::deal::Dealer;
use super::draft::{Draft, keepers};
use super::member::{Member, MemberIndex};
use super::partition::Partition;
use super::table::Table;
use super::token::Circle;

/// The founding table of these members, sorted by name: from each partition's place clockwise the first `width`
/// distinct nodes, distinct zones first, then levelled. `width` is at most the number of members that have weight.
///
/// About 25 ms for 1,000 members of weight 1, most of it hashing and sorting their tokens.
pub(super) fn found(members: &[Member], width: usize) -> Table {
    let (places, members) = keepers(members, None);
    let circle = Circle::new(&members);
    let zones = zones(&members);
    let mut distinct = zones.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let row = |partition| first_owners(circle.walk(partition), &zones, width.min(distinct.len()), width);
    let table = Table::from_rows(Partition::all().map(row));
    let mut balance = Balance::new(&members, &circle, table);
    balance.level();
    balance.finish().renumbered(|owner| places[owner.index()])
}

/// The first nodes of the walk, in its order: one in each of `spanned` zones, and the soonest others up to `width`.
fn first_owners(
    walk: impl Iterator<Item = MemberIndex>,
    zones: &[usize],
    spanned: usize,
    width: usize,
) -> Vec<MemberIndex> {
    let mut seen = Vec::with_capacity(spanned);
    let (mut chosen, mut passed) = (Vec::with_capacity(width), Vec::new());
    for (rank, member) in walk.enumerate() {
        let zone = zones[member.index()];
        if seen.len() < spanned && !seen.contains(&zone) {
            seen.push(zone);
            chosen.push((rank, member));
        } else {
            passed.push((rank, member));
        }
        if seen.len() == spanned && chosen.len() + passed.len() >= width {
            break;
        }
    }
    let missing = width - chosen.len();
    chosen.extend(passed.into_iter().take(missing));
    chosen.sort_unstable();
    chosen.into_iter().map(|(_, member)| member).collect()
}

/// The table once all that have weight own something: `members` has the newcomers, and `table` numbers its owners as
/// `members` does. Slots move only to those that own nothing in it, each one's fair share at most, which is rounded up where
/// somebody would stay above the bound; while there are fewer owners than `replicas` such a one owns everything in addition.
pub(super) fn join(table: &Table, members: &[Member], replicas: usize) -> Table {
    // Where slots are granted anyway, so are those that widen the rows.
    let width = if Draft::owns_without_weight(table, members) { replicas } else { table.width() };
    let draft = Draft::new(table, members, None, width);
    let newcomers = draft.idle_in(table, members.len());
    let missing = replicas.min(draft.members().len()).saturating_sub(draft.width());
    let (widening, filling) = newcomers.split_at(missing.min(newcomers.len()));
    draft.redone(|table, members| {
        let circle = Circle::new(members);
        let mut balance = Balance::new(members, &circle, table);
        widening.iter().for_each(|&newcomer| balance.widen(newcomer));
        filling.iter().for_each(|&newcomer| balance.fill(newcomer));
        balance.top_up(filling);
        balance.finish()
    })
}

/// The table after `leaver` left, its owners numbered as before. Its slots go to members that lack them, and no
/// other slot moves, unless the fullest would stay above its bound ([`Balance::ease`]). Where fewer remain than
/// a row is wide, the rows just lose it.
pub(super) fn leave(table: &Table, members: &[Member], leaver: MemberIndex, replicas: usize) -> Table {
    Draft::new(table, members, Some(leaver), replicas).finish()
}

/// The table after members that own something were given weight 0: as if they had left.
pub(super) fn drain(table: &Table, members: &[Member], replicas: usize) -> Table {
    Draft::new(table, members, None, replicas).finish()
}

/// The table with rows of another width, at most the number of members that have weight. Every row only gains owners, or
/// only loses some, but for those that have no weight.
pub(super) fn resize(table: &Table, members: &[Member], width: usize) -> Table {
    Draft::new(table, members, None, table.width()).redone(|table, members| {
        let circle = Circle::new(members);
        let rows = Partition::all().map(|partition| table.owners(partition).to_vec()).collect();
        let mut dealer = Dealer::new(members, &circle, rows);
        let every_row: Vec<_> = Partition::all().map(|partition| (partition, true)).collect();
        (table.width()..width).for_each(|narrower| dealer.grant(narrower + 1, &every_row));
        (width..table.width()).rev().for_each(|narrower| dealer.narrow(narrower));
        dealer.finish()
    })
}

/// The table after members got other zones or weights: zones are kept apart again, then none is above its fair share,
/// rounded up, as far as zones allow. Only as many slots move as that takes.
pub(super) fn refit(table: &Table, members: &[Member], replicas: usize) -> Table {
    Draft::new(table, members, None, replicas).redone(|table, members| {
        let circle = Circle::new(members);
        let mut balance = Balance::new(members, &circle, table);
        balance.spread();
        balance.level();
        balance.finish()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(walk: &[u16], zones: &[usize], spanned: usize, width: usize) -> Vec<u16> {
        let walk = walk.iter().copied().map(MemberIndex);
        first_owners(walk, zones, spanned, width).into_iter().map(|member| member.0).collect()
    }

    #[test]
    fn distinct_zones_come_first_and_the_walk_keeps_its_order() {
        assert_eq!(owners(&[2, 0, 1, 3], &[0, 1, 2, 3], 3, 3), [2, 0, 1]);
        assert_eq!(owners(&[2, 3, 1, 0], &[0, 1, 2, 2], 3, 3), [2, 1, 0], "3 shares the zone of 2");
        assert_eq!(owners(&[2, 3, 1, 0], &[0, 0, 2, 2], 2, 3), [2, 3, 1], "two zones: 3 fills the place left");
        assert_eq!(owners(&[1, 0], &[0, 0], 1, 2), [1, 0]);
    }

    /// Rows that no founding and no join makes: what the leaver owns, one of the others owns with it, so that only two
    /// can be given it.
    #[test]
    fn where_giving_the_leavers_slots_is_not_enough_a_few_others_move() {
        let members: Vec<Member> = (0..4).map(|i| Member::new(format!("http://n{i}:8080"))).collect();
        let row = |partition: Partition| match partition.index() {
            0..500 => [0, 1],
            500..514 => [0, 2],
            514..528 => [0, 3],
            _ => [2, 3],
        };
        let old = Table::from_rows(Partition::all().map(|at| row(at).map(MemberIndex).to_vec()));
        let new = leave(&old, &members, MemberIndex(0), 2);
        let loads: Vec<usize> = new.held(4).iter().map(Vec::len).collect();
        assert_eq!(loads.iter().sum::<usize>(), 2048);
        assert_eq!((loads[0], loads.iter().max()), (0, Some(&750)), "1.10 of the fair share of 682.7");
        let stays = |at: Partition| old.owners(at).iter().filter(|&&owner| new.owners(at).contains(&owner)).count();
        let moved: usize = Partition::all().map(|at| 2 - stays(at)).sum();
        assert_eq!(moved, 528 + 2 * (760 - 750), "the leaver's, and as few others as it takes");
    }
}
