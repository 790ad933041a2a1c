//! Founding, growing and shrinking: the first table of a cluster, from its members alone, and the tables after a
//! join, a leave, another number of replicas, and another zone or weight of a member.
//!
//! They are run once, by whoever proposes the layout; the others take the table as it is.

use super::balance::{Balance, zones};
use super::deal::Dealer;
use super::member::{Member, MemberIndex};
use super::partition::Partition;
use super::table::Table;
use super::token::Circle;

/// The founding table of these members, sorted by name: from each partition's place clockwise the first `width`
/// distinct nodes, distinct zones first, then levelled. `width` is at most the number of members.
///
/// About 25 ms for 1,000 members of weight 1, most of it hashing and sorting their tokens.
pub(super) fn found(members: &[Member], width: usize) -> Table {
    let circle = Circle::new(members);
    let zones = zones(members);
    let mut distinct = zones.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let row = |partition| first_owners(circle.walk(partition), &zones, width.min(distinct.len()), width);
    let table = Table::from_rows(Partition::all().map(row));
    let mut balance = Balance::new(members, &circle, table);
    balance.level();
    balance.finish()
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

/// The table after the newcomers joined: `members` has them, and `table` numbers its owners as `members` does. Slots
/// move only to them, each one's fair share at most; while there are fewer owners than `replicas` a newcomer
/// owns everything in addition.
pub(super) fn join(table: &Table, members: &[Member], newcomers: &[MemberIndex], replicas: usize) -> Table {
    let circle = Circle::new(members);
    let mut balance = Balance::new(members, &circle, table.clone());
    let missing = replicas.saturating_sub(table.width()).min(newcomers.len());
    let (widening, filling) = newcomers.split_at(missing);
    widening.iter().for_each(|&newcomer| balance.widen(newcomer));
    filling.iter().for_each(|&newcomer| balance.fill(newcomer));
    balance.finish()
}

/// The table after `leaver` left, its owners numbered as before. Its slots go to members that lack them, and no
/// other slot moves, unless the fullest would stay above its bound ([`Balance::ease`]). Where fewer remain than
/// a row is wide, the rows just lose it.
pub(super) fn leave(table: &Table, members: &[Member], leaver: MemberIndex, replicas: usize) -> Table {
    let mut remaining = members.to_vec();
    let Member { zone, .. } = remaining.remove(leaver.index());
    let width = replicas.min(remaining.len());
    let circle = Circle::new(&remaining);
    let (mut rows, mut left) = (Vec::new(), Vec::new());
    for partition in Partition::all() {
        let owners = table.owners(partition);
        let others = || owners.iter().filter(|&&owner| owner != leaver);
        if owners.contains(&leaver) {
            // Whether the row has to get a zone again for the one that it loses.
            left.push((partition, zone.is_empty() || !others().any(|owner| members[owner.index()].zone == zone)));
        }
        rows.push(others().map(|owner| MemberIndex(owner.0 - u16::from(*owner > leaver))).collect());
    }
    let mut dealer = Dealer::new(&remaining, &circle, rows);
    if width == table.width() {
        dealer.grant(width, &left);
    }
    let mut balance = Balance::new(&remaining, &circle, dealer.finish());
    balance.ease(left.len() / 20);
    balance.finish().renumbered(|owner| MemberIndex(owner.0 + u16::from(owner >= leaver)))
}

/// The table with rows of another width, at most the number of members. Every row only gains owners, or only
/// loses some.
pub(super) fn resize(table: &Table, members: &[Member], width: usize) -> Table {
    let circle = Circle::new(members);
    let mut dealer = Dealer::new(members, &circle, Partition::all().map(|p| table.owners(p).to_vec()).collect());
    let every_row: Vec<_> = Partition::all().map(|partition| (partition, true)).collect();
    (table.width()..width).for_each(|narrower| dealer.grant(narrower + 1, &every_row));
    (width..table.width()).rev().for_each(|narrower| dealer.narrow(narrower));
    dealer.finish()
}

/// The table after members got other zones or weights: zones are kept apart again, then none is above its fair share,
/// rounded up, as far as zones allow. Only as many slots move as that takes.
pub(super) fn refit(table: &Table, members: &[Member]) -> Table {
    let circle = Circle::new(members);
    let mut balance = Balance::new(members, &circle, table.clone());
    balance.spread();
    balance.level();
    balance.finish()
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
