//! Founding and growing: the first table of a cluster, from its members alone, and the table after a join.
//!
//! Both are run once, by whoever proposes the layout; the others take the table as it is.

use super::balance::{Balance, zones};
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

/// The table after `newcomer` joined: `members` has it, `table` speaks of the members without it. Slots move
/// only to it, its fair share at most; while there are fewer owners than `replicas` it owns everything in addition.
pub(super) fn join(table: &Table, members: &[Member], newcomer: MemberIndex, replicas: usize) -> Table {
    let shifted = |&old: &MemberIndex| if old < newcomer { old } else { MemberIndex(old.0 + 1) };
    let row = |partition| table.owners(partition).iter().map(shifted).collect();
    let renumbered = Table::from_rows(Partition::all().map(row));
    let circle = Circle::new(members);
    let mut balance = Balance::new(members, &circle, renumbered);
    if table.width() < replicas {
        balance.widen(newcomer);
    } else {
        balance.fill(newcomer);
    }
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
}
