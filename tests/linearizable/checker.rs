//! Whether one key's history is linearizable: the search of Wing and Gong, with the memory that Lowe gave it
//! ("Testing for linearizability", 2017).
//!
//! An operation may come next when no other that is left returned before it was asked. The search tries each that the
//! state allows, and never looks twice at the same set of operations done with the same state behind them. The state
//! is the value and which operation left it. Five things keep a history of hundreds of operations with dozens of
//! unknown outcomes small, and none of them changes a verdict:
//!
//! - what only looks, and may come next, comes next: it changes nothing and is then out of the way;
//! - a write of unknown outcome that somebody saw took effect before the first who saw it returned;
//! - one whose value nobody saw comes, if at all, just before an operation that was told of what it left;
//! - what an unknown operation left, and nobody was told of, is not overwritten: it may as well not have happened;
//! - unknown operations that do the same come in the order in which they were asked.
//!
//! An ETag names one version. Those that nobody was told together with a value or a success are bound to a write of
//! unknown outcome by the search itself. On a key that is added to, values name no write, and ETags are not judged.

use super::history::{Act, OPEN, Operation, Outcome, listed};
use super::meaning::{Effect, Named, Names, Need, Version};
use std::collections::{BTreeMap, HashSet};

/// Most operations of a history.
pub const OPERATIONS_MAX: usize = 512;

/// States that are looked at before the search gives up: some seconds.
const STEPS_MAX: usize = 1_000_000;

/// Operations shown of the longest order that was found.
const SHOWN: usize = 12;

/// What came of a check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Linearizable,
    /// No order explains it; the text shows how far any got.
    Violation(String),
    /// Too many orders to try. Proves nothing, and counts as a failure.
    Unknown,
}

impl Verdict {
    pub fn is_violation(&self) -> bool {
        matches!(self, Verdict::Violation(_))
    }
}

/// Judges the history of one key that began with nothing there.
pub fn check(history: &[Operation]) -> Verdict {
    let mut search = match Search::prepare(history) {
        Ok(search) => search,
        Err(why) => return Verdict::Violation(why),
    };
    let found =
        search.goes_on(Set::default(), State { held: None, bound: vec![UNBOUND; search.strays], untold: false });
    match (found, search.steps) {
        (true, _) => Verdict::Linearizable,
        (false, STEPS_MAX..) => Verdict::Unknown,
        (false, _) => Verdict::Violation(search.explain()),
    }
}

/// The version on a key where versions are not judged.
const ANY: Version = u32::MAX;
/// The version of an ETag that is not bound to one yet.
const UNBOUND: Version = u32::MAX;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    held: Option<(i64, Version)>,
    /// The operation behind each stray ETag.
    bound: Vec<Version>,
    /// What is there was left by unknown operations, and nobody has been told of it.
    untold: bool,
}

#[derive(Clone, Debug)]
struct Step {
    invoked: u64,
    returned: u64,
    needs: Vec<Need>,
    effect: Effect,
    /// The unknown operation asked before this unknown one that does the same.
    behind: Option<usize>,
    /// An unknown write whose value nobody saw.
    is_hidden: bool,
}

impl State {
    /// Whether nothing was changed but what has been told.
    fn is_like(&self, other: &State) -> bool {
        (self.held, &self.bound) == (other.held, &other.bound)
    }
}

/// A set of operations.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
struct Set([u64; OPERATIONS_MAX / 64]);

impl Set {
    fn has(&self, index: usize) -> bool {
        self.0[index / 64] >> (index % 64) & 1 == 1
    }

    fn with(mut self, index: usize) -> Set {
        self.0[index / 64] |= 1 << (index % 64);
        self
    }
}

struct Search {
    operations: Vec<Operation>,
    /// In the order in which they were asked.
    steps_of: Vec<Step>,
    /// Operations whose ETag is known.
    labelled: Vec<bool>,
    strays: usize,
    versions: bool,
    visited: HashSet<(Set, State)>,
    steps: usize,
    order: Vec<usize>,
    /// The longest order found, what it leaves, and what is left to come next.
    deepest: (Vec<usize>, Option<(i64, Version)>, Vec<usize>),
}

impl Search {
    fn prepare(history: &[Operation]) -> Result<Search, String> {
        let unseen = |operation: &&Operation| operation.act.only_looks() && operation.outcome == Outcome::Unknown;
        let mut operations: Vec<Operation> = history.iter().filter(|one| !unseen(one)).cloned().collect();
        operations.sort_by_key(|operation| operation.invoked);
        assert!(operations.len() <= OPERATIONS_MAX, "{} operations", operations.len());
        let versions = !operations.iter().any(|operation| matches!(operation.act, Act::Add(_) | Act::Count));
        let names = match versions {
            true => Names::of(&operations)?,
            false => Names::default(),
        };
        let mut returned: Vec<u64> = operations.iter().map(|operation| operation.returned).collect();
        if versions {
            for operation in operations.iter().filter(|operation| operation.returned != OPEN) {
                for version in names.seen_by(operation) {
                    let version = version as usize;
                    returned[version] = returned[version].min(operation.returned);
                    if operation.returned < operations[version].invoked {
                        return Err(format!(
                            "seen before it was asked:\n{}",
                            listed([operation, &operations[version]])
                        ));
                    }
                }
            }
        }
        let mut last_alike = BTreeMap::new();
        let mut steps_of: Vec<Step> = vec![];
        for (index, operation) in operations.iter().enumerate() {
            let (needs, effect) = names.meaning(operation);
            let (invoked, returned) = (operation.invoked, returned[index]);
            let is_hidden = versions && returned == OPEN && operation.act.writes().is_some();
            let alike = (returned == OPEN).then(|| (needs.clone(), if is_hidden { Effect::Value(0) } else { effect }));
            let behind = alike.and_then(|alike| last_alike.insert(alike, index));
            steps_of.push(Step { invoked, returned, needs, effect, behind, is_hidden });
        }
        let labelled = (0..operations.len()).map(|index| names.labels.contains_key(&(index as Version))).collect();
        Ok(Search {
            operations,
            steps_of,
            labelled,
            strays: names.strays.len(),
            versions,
            visited: HashSet::new(),
            steps: 0,
            order: vec![],
            deepest: Default::default(),
        })
    }

    /// Whether the operations that are not `done` can follow in some order.
    fn goes_on(&mut self, mut done: Set, mut state: State) -> bool {
        let before = self.order.len();
        let (next, hidden) = loop {
            let (next, hidden) = self.next(&done);
            let is_free = |index: &usize| {
                let after = self.after(*index, &state);
                self.steps_of[*index].effect == Effect::Same && after.is_some_and(|after| after.is_like(&state))
            };
            let Some(index) = next.iter().copied().find(is_free) else { break (next, hidden) };
            state.untold = false;
            done = done.with(index);
            self.order.push(index);
        };
        let all_done = next.iter().all(|index| self.steps_of[*index].returned == OPEN);
        if self.order.len() > self.deepest.0.len() || self.deepest.2.is_empty() {
            self.deepest = (self.order.clone(), state.held, next.clone());
        }
        self.steps += 1;
        if !all_done && self.steps < STEPS_MAX && self.visited.insert((done, state.clone())) {
            for index in next {
                for (path, after) in self.ways(index, &done, &hidden, &state) {
                    // What nobody waits for and changes nothing may as well never happen.
                    if after.is_like(&state) && self.steps_of[index].returned == OPEN {
                        continue;
                    }
                    let length = self.order.len();
                    self.order.extend(&path);
                    if self.goes_on(path.iter().fold(done, |done, index| done.with(*index)), after) {
                        return true;
                    }
                    self.order.truncate(length);
                }
            }
        }
        if !all_done {
            self.order.truncate(before);
        }
        all_done
    }

    /// What may come next: asked before any other that is left returned. The soonest to return first; hidden ones apart.
    fn next(&self, done: &Set) -> (Vec<usize>, Vec<usize>) {
        let (mut next, mut soonest) = (vec![], OPEN);
        for (index, step) in self.steps_of.iter().enumerate().filter(|(index, _)| !done.has(*index)) {
            if step.invoked > soonest {
                break;
            }
            soonest = soonest.min(step.returned);
            if step.behind.is_none_or(|before| done.has(before)) {
                next.push(index);
            }
        }
        next.retain(|index| self.steps_of[*index].invoked <= soonest);
        next.sort_by_key(|index| self.steps_of[*index].returned);
        let (hidden, next) = next.into_iter().partition(|index| self.steps_of[*index].is_hidden);
        (next, hidden)
    }

    /// How an operation may come next: by itself, or with hidden writes just before it that it needs; what that leaves.
    fn ways(&self, index: usize, done: &Set, hidden: &[usize], state: &State) -> Vec<(Vec<usize>, State)> {
        let mut ways: Vec<(Vec<usize>, State)> =
            self.after(index, state).into_iter().map(|after| (vec![index], after)).collect();
        let tells = |need: &Need| match need {
            Need::Something => state.held.is_none(),
            Need::Version(Named::Stray(stray)) => state.bound[*stray] == UNBOUND,
            _ => false,
        };
        if self.steps_of[index].needs.iter().any(tells) {
            let done = done.with(index);
            for write in hidden.iter().copied().filter(|write| !done.has(*write)) {
                for (mut path, met) in self.ways(write, &done, hidden, state) {
                    if let Some(after) = self.after(index, &met) {
                        path.push(index);
                        ways.push((path, after));
                    }
                }
            }
        }
        ways
    }

    /// The state behind an operation, if it can have been told what it was told in this one.
    fn after(&self, index: usize, state: &State) -> Option<State> {
        let step = &self.steps_of[index];
        let mut next = state.clone();
        for need in &step.needs {
            let holds = match (need, state.held) {
                (Need::Anything, _) | (Need::Nothing, None) | (Need::Something, Some(_)) => true,
                (Need::Value(value), Some((held, _))) => held == *value,
                (Need::Total(total), held) => held.map_or(0, |(held, _)| held) == *total,
                (Need::Version(Named::By(version)), Some((_, held))) => held == *version,
                (Need::Version(Named::Stray(stray)), Some((_, held))) => {
                    let free =
                        next.bound[*stray] == UNBOUND && !self.labelled[held as usize] && !next.bound.contains(&held);
                    if free {
                        next.bound[*stray] = held;
                    }
                    next.bound[*stray] == held
                }
                _ => false,
            };
            if !holds {
                return None;
            }
        }
        let is_open = step.returned == OPEN;
        let overwrites = step.needs == [Need::Anything] && !matches!(step.effect, Effect::Plus(_));
        if overwrites && state.untold {
            return None;
        }
        next.untold = is_open;
        let version = if self.versions { index as Version } else { ANY };
        next.held = match step.effect {
            Effect::Same => next.held,
            Effect::Nothing => None,
            Effect::Value(value) => Some((value, version)),
            Effect::Plus(by) => Some((next.held.map_or(0, |(held, _)| held) + by, version)),
        };
        Some(next)
    }

    fn explain(&self) -> String {
        let (order, held, left) = &self.deepest;
        let of = |indices: &[usize]| listed(indices.iter().map(|index| &self.operations[*index]));
        let known: Vec<usize> = left.iter().copied().filter(|index| self.steps_of[*index].returned != OPEN).collect();
        let there = held.map_or("nothing".to_string(), |(value, _)| value.to_string());
        format!(
            "{} of {} operations have an order; the last of them:\n{}which leaves {there}, and none of these can follow:\n{}",
            order.len(),
            self.operations.len(),
            of(&order[order.len().saturating_sub(SHOWN)..]),
            of(&known),
        )
    }
}
