//! Dealing: every row of many gets one owner more, or keeps all but one, so that the loads end up level.
//!
//! Each row has members it may choose from, by what it lacks and by zones. The first choice is the walk's, as long as
//! there is room; then loads above the fair share are passed on along chains of rows: a row takes back its choice from
//! a full member and chooses another, which in turn is relieved by another row. No chain left means that no other
//! choice is more level (the optimal semi-matchings of Harvey, Ladner, Lovász and Tamir 2006).

use super::balance::{Pressure, pressure, settle_last, zones};
use super::fair::Fair;
use super::member::{Member, MemberIndex};
use super::partition::Partition;
use super::table::Table;
use super::token::Circle;
use std::cmp::Reverse;
use std::collections::VecDeque;

/// Rows in the making, and their members' loads.
pub(super) struct Dealer<'a> {
    members: &'a [Member],
    circle: &'a Circle,
    zones: Vec<usize>,
    rows: Vec<Vec<MemberIndex>>,
    loads: Vec<usize>,
}

/// A row's choice: whom it has chosen, and whom it could have instead.
struct Choice {
    partition: Partition,
    chosen: Vec<MemberIndex>,
    passed: Vec<MemberIndex>,
}

/// A row that chooses another member instead of one.
struct Step {
    choice: usize,
    from: MemberIndex,
    to: MemberIndex,
}

impl<'a> Dealer<'a> {
    /// The owners of every partition, in order of the partitions.
    pub(super) fn new(members: &'a [Member], circle: &'a Circle, rows: Vec<Vec<MemberIndex>>) -> Dealer<'a> {
        let mut loads = vec![0; members.len()];
        rows.iter().flatten().for_each(|owner| loads[owner.index()] += 1);
        Dealer { members, circle, zones: zones(members), rows, loads }
    }

    /// The rows as a table: equally long again.
    pub(super) fn finish(self) -> Table {
        Table::from_rows(self.rows)
    }

    /// Gives each of these rows one owner more, after which all rows are `width` wide. With a row stands whether it
    /// has to get a zone that it hasn't, if there is a member of one.
    pub(super) fn grant(&mut self, width: usize, rows: &[(Partition, bool)]) {
        let fair = Fair::new(self.members, width);
        let mut choices: Vec<Choice> = rows.iter().map(|&(at, fresh)| self.choose_more(at, fresh, fair)).collect();
        self.even_out(&mut choices, fair);
        for Choice { partition, chosen, .. } in choices {
            for member in chosen {
                let row = &mut self.rows[partition.index()];
                row.push(member);
                settle_last(self.circle, partition, row);
            }
        }
    }

    /// Takes one owner from every row, after which all are `width` wide: one whose zone another owner shares, if
    /// there is one.
    pub(super) fn narrow(&mut self, width: usize) {
        let fair = Fair::new(self.members, width);
        let mut choices: Vec<Choice> = Partition::all().map(|at| self.choose_less(at, fair)).collect();
        self.even_out(&mut choices, fair);
        for Choice { partition, passed, .. } in choices {
            self.rows[partition.index()].retain(|owner| !passed.contains(owner));
        }
    }

    /// The soonest in the walk that has room, one of a zone that the row hasn't before others; else the least loaded.
    fn choose_more(&mut self, partition: Partition, fresh: bool, fair: Fair) -> Choice {
        let row = &self.rows[partition.index()];
        let known = |member: MemberIndex| row.iter().any(|&owner| self.zone(owner) == self.zone(member));
        let lacking = (0..self.members.len()).map(MemberIndex::new).filter(|member| !row.contains(member));
        let mut passed: Vec<MemberIndex> = lacking.collect();
        if fresh && passed.iter().any(|&member| !known(member)) {
            passed.retain(|&member| !known(member));
        }
        let rank = |&member: &MemberIndex| {
            let room = self.loads[member.index()] < fair.floor(self.members[member.index()].weight);
            let full = if room { 0 } else { self.pressure(member, 1) };
            (full, known(member), self.circle.distance(partition, member), member)
        };
        let chosen: Vec<MemberIndex> = passed.iter().copied().min_by_key(rank).into_iter().collect();
        passed.retain(|member| !chosen.contains(member));
        chosen.iter().for_each(|member| self.loads[member.index()] += 1);
        Choice { partition, chosen, passed }
    }

    /// All but the latest in the walk that has more than its share; else all but the most loaded.
    fn choose_less(&mut self, partition: Partition, fair: Fair) -> Choice {
        let row = &self.rows[partition.index()];
        let alone =
            |member: MemberIndex| row.iter().filter(|&&owner| self.zone(owner) == self.zone(member)).count() == 1;
        let mut chosen = row.clone();
        if row.iter().any(|&member| !alone(member)) {
            chosen.retain(|&member| !alone(member));
        }
        let rank = |&member: &MemberIndex| {
            let more = self.loads[member.index()] > fair.floor(self.members[member.index()].weight);
            let load = if more { Pressure::MAX } else { self.pressure(member, 0) };
            (load, self.circle.distance(partition, member), member)
        };
        let passed: Vec<MemberIndex> = chosen.iter().copied().max_by_key(rank).into_iter().collect();
        chosen.retain(|member| !passed.contains(member));
        passed.iter().for_each(|member| self.loads[member.index()] -= 1);
        Choice { partition, chosen, passed }
    }

    /// Passes load on from the members above their fair share, rounded up, the most loaded first, until none is
    /// above or none can be helped.
    ///
    /// Ends, because who takes ends below what the giver had. A member that can't be helped never can be while its own
    /// load stays: whom its chains reach have no room, and later chains only add to them.
    fn even_out(&mut self, choices: &mut [Choice], fair: Fair) {
        let mut chosen_by = vec![Vec::new(); self.members.len()];
        for (at, choice) in choices.iter().enumerate() {
            choice.chosen.iter().for_each(|member| chosen_by[member.index()].push(at));
        }
        let mut stuck = vec![false; self.members.len()];
        loop {
            let above = |member: &MemberIndex| {
                !stuck[member.index()] && self.loads[member.index()] > fair.ceiling(self.members[member.index()].weight)
            };
            let numbered = (0..self.members.len()).map(MemberIndex::new);
            let Some(giver) = numbered.filter(above).max_by_key(|&member| (self.pressure(member, 0), Reverse(member)))
            else {
                return;
            };
            let Some(chain) = self.chain(giver, choices, &chosen_by) else {
                stuck[giver.index()] = true;
                continue;
            };
            for Step { choice, from, to } in chain {
                choices[choice].chosen.retain(|&member| member != from);
                choices[choice].chosen.push(to);
                choices[choice].passed.retain(|&member| member != to);
                choices[choice].passed.push(from);
                chosen_by[from.index()].retain(|&at| at != choice);
                chosen_by[to.index()].push(choice);
                self.loads[from.index()] -= 1;
                self.loads[to.index()] += 1;
                stuck[to.index()] = false;
            }
        }
    }

    /// The shortest chain that takes one row from the giver and ends at a member that is then still less loaded than
    /// the giver is now. O(choices × members).
    fn chain(&self, giver: MemberIndex, choices: &[Choice], chosen_by: &[Vec<usize>]) -> Option<Vec<Step>> {
        let limit = self.pressure(giver, 0);
        let mut reached: Vec<Option<(usize, MemberIndex)>> = vec![None; self.members.len()];
        let mut queue = VecDeque::from([giver]);
        while let Some(from) = queue.pop_front() {
            for &choice in &chosen_by[from.index()] {
                for &to in &choices[choice].passed {
                    if to == giver || reached[to.index()].is_some() {
                        continue;
                    }
                    reached[to.index()] = Some((choice, from));
                    if self.pressure(to, 1) < limit {
                        return Some(trace(&reached, to));
                    }
                    queue.push_back(to);
                }
            }
        }
        None
    }

    fn zone(&self, member: MemberIndex) -> usize {
        self.zones[member.index()]
    }

    fn pressure(&self, member: MemberIndex, more: usize) -> Pressure {
        pressure(self.loads[member.index()] + more, self.members[member.index()].weight)
    }
}

/// The steps that led to a member, the last first.
fn trace(reached: &[Option<(usize, MemberIndex)>], end: MemberIndex) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut to = end;
    while let Some((choice, from)) = reached[to.index()] {
        steps.push(Step { choice, from, to });
        to = from;
    }
    steps
}
