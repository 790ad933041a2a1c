//! A draft: the table of the members that are to own something, numbered among themselves, before it is levelled.
//!
//! ```text
//! members   a  b  c(weight 0)  d(leaves)  e        rows  [a c] [b d] [a e]
//! keepers   0  1                          2              [0 ?] [1 ?] [0 2]     ?: granted to one that lacks it
//! ```
//!
//! Whoever leaves, or has no weight, is in no row of it. So the functions that plan tables never meet a weight of 0.

use super::balance::{Balance, zones};
use super::deal::Dealer;
use super::member::{Member, MemberIndex};
use super::partition::Partition;
use super::table::Table;
use super::token::Circle;

/// A table among those that may own, and their places among all members.
pub(super) struct Draft {
    places: Vec<MemberIndex>,
    members: Vec<Member>,
    table: Table,
}

/// The members that may own in a planned table: those that have weight and stay. With them their places among all.
pub(super) fn keepers(members: &[Member], leaver: Option<MemberIndex>) -> (Vec<MemberIndex>, Vec<Member>) {
    let numbered = members.iter().enumerate().map(|(index, member)| (MemberIndex::new(index), member));
    numbered.filter(|(at, member)| member.weight > 0 && Some(*at) != leaver).map(|(at, it)| (at, it.clone())).unzip()
}

impl Draft {
    /// Whether somebody without weight owns something.
    pub(super) fn owns_without_weight(table: &Table, members: &[Member]) -> bool {
        let held = table.held(members.len());
        members.iter().zip(held).any(|(member, held)| member.weight == 0 && !held.is_empty())
    }

    /// The table without those that may not own. Their slots go to members that lack them, and rows get as wide as
    /// `width` and the number of members allow; no other slot moves, unless the fullest would stay above its bound
    /// ([`Balance::ease`]). Somebody must be left.
    pub(super) fn new(table: &Table, members: &[Member], leaver: Option<MemberIndex>, width: usize) -> Draft {
        let (places, keepers) = keepers(members, leaver);
        let (width, zones) = (width.min(keepers.len()), zones(members));
        let place = |owner: &MemberIndex| places.binary_search(owner).ok().map(MemberIndex::new);
        let (mut rows, mut missing) = (Vec::<Vec<MemberIndex>>::new(), Vec::new());
        for partition in Partition::all() {
            let owners = table.owners(partition);
            let (stay, go): (Vec<MemberIndex>, Vec<MemberIndex>) =
                owners.iter().copied().partition(|owner| place(owner).is_some());
            // Whether the row has to get a zone again for each one that it loses, or gains one.
            let is_last = |gone: &MemberIndex| stay.iter().all(|owner| zones[owner.index()] != zones[gone.index()]);
            let fresh = go.iter().map(is_last).chain(std::iter::repeat(true));
            missing.push(fresh.take(width.saturating_sub(stay.len())).collect::<Vec<bool>>());
            rows.push(stay.iter().filter_map(place).collect());
        }
        let lost: usize = missing.iter().map(Vec::len).sum();
        if lost == 0 {
            return Draft { table: Table::from_rows(rows), places, members: keepers };
        }
        let circle = Circle::new(&keepers);
        let mut dealer = Dealer::new(&keepers, &circle, rows);
        for round in 0..missing.iter().map(Vec::len).max().unwrap_or(0) {
            let asks = |partition: Partition| Some((partition, *missing[partition.index()].get(round)?));
            dealer.grant(width, &Partition::all().filter_map(asks).collect::<Vec<_>>());
        }
        let mut balance = Balance::new(&keepers, &circle, dealer.finish());
        balance.ease(lost / 20);
        let table = balance.finish();
        Draft { table, places, members: keepers }
    }

    /// Those that may own in it.
    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// How many owners each partition has in it so far.
    pub(super) fn width(&self) -> usize {
        self.table.width()
    }

    /// Those that may own in it, and own nothing in a table of all of `members`. Numbered as in the draft.
    pub(super) fn idle_in(&self, table: &Table, members: usize) -> Vec<MemberIndex> {
        let held = table.held(members);
        let idle = |(_, place): &(usize, &MemberIndex)| held[place.index()].is_empty();
        self.places.iter().enumerate().filter(idle).map(|(index, _)| MemberIndex::new(index)).collect()
    }

    /// The table that comes of it by this, its owners numbered as all members are.
    pub(super) fn redone(self, redo: impl FnOnce(Table, &[Member]) -> Table) -> Table {
        redo(self.table, &self.members).renumbered(|owner| self.places[owner.index()])
    }

    /// The same, as it is.
    pub(super) fn finish(self) -> Table {
        self.redone(|table, _| table)
    }
}
