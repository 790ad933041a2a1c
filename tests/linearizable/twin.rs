//! The checker against a twin that is too simple to be wrong: it tries every order of every choice of the operations
//! whose outcome is unknown, and remembers nothing.
//!
//! Small histories are drawn from a register that is one, and then some answers are changed into lies.

use super::checker::{Verdict, check};
use super::history::{Act, Etag, OPEN, Operation, Outcome, listed};
use super::support::thorough;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::cell::Cell;
use std::collections::BTreeMap;

/// A register and the ETags that its versions are known by so far, by the number of the operation that wrote them.
#[derive(Clone, Default)]
struct Register {
    held: Option<(i64, usize)>,
    etags: BTreeMap<usize, Etag>,
}

impl Register {
    /// Whether `etag` is, or may be from now on, what is there.
    fn is(&mut self, etag: &Etag) -> bool {
        let Some((_, version)) = self.held else { return false };
        match self.etags.get(&version) {
            Some(own) => own == etag,
            None => self.names(version, etag),
        }
    }

    /// Gives a version its ETag, unless another has it.
    fn names(&mut self, version: usize, etag: &Etag) -> bool {
        let is_free = !self.etags.values().any(|other| other == etag);
        self.etags.insert(version, etag.clone());
        is_free
    }

    fn shows(&mut self, etag: &Option<Etag>) -> bool {
        etag.as_ref().is_none_or(|etag| self.is(etag))
    }

    /// Carries operation `number` out. Whether its answer is the right one.
    fn answers(&mut self, number: usize, operation: &Operation) -> bool {
        let (value, act) = (self.held.map(|(value, _)| value), &operation.act);
        let met = match act {
            Act::Create(_) => value.is_none(),
            Act::Replace(_, etag) | Act::DeleteIf(etag) if !matches!(operation.outcome, Outcome::Failed(_)) => {
                self.is(etag)
            }
            // Refused with the very ETag that was asked for, or rightly.
            Act::Replace(_, etag) | Act::DeleteIf(etag) => operation.outcome == Outcome::Failed(Some(etag.clone())),
            _ => true,
        };
        match &operation.outcome {
            Outcome::Value(told, etag) => return value == Some(*told) && self.shows(etag),
            Outcome::Absent => return value.is_none(),
            Outcome::Failed(Some(etag)) => return !met && self.is(etag),
            Outcome::Failed(None) if matches!(act, Act::Create(_)) => return !met,
            Outcome::Failed(None) => return value.is_none(),
            Outcome::Total(told) if act.only_looks() => return value.unwrap_or(0) == *told,
            Outcome::Total(_) | Outcome::Done(_) | Outcome::Unknown => {}
        }
        self.held = match act {
            Act::Write(new) | Act::Create(new) | Act::Replace(new, _) => Some((*new, number)),
            Act::Add(by) => Some((value.unwrap_or(0) + by, number)),
            Act::Delete | Act::DeleteIf(_) => None,
            Act::Read | Act::Count => self.held,
        };
        let told = match &operation.outcome {
            Outcome::Total(total) => self.held.is_some_and(|(value, _)| value == *total),
            Outcome::Done(Some(etag)) if act.writes().is_some() => self.names(number, etag),
            _ => true,
        };
        met && told
    }
}

/// Whether any order of those that are left is one.
fn has_an_order(history: &[Operation], left: &[usize], register: &Register) -> bool {
    if left.iter().all(|index| history[*index].returned == OPEN) {
        return true;
    }
    let may_come = |index: usize| left.iter().all(|other| history[*other].returned >= history[index].invoked);
    left.iter().filter(|index| may_come(**index)).any(|index| {
        let mut after = register.clone();
        let rest: Vec<usize> = left.iter().copied().filter(|other| other != index).collect();
        after.answers(*index, &history[*index]) && has_an_order(history, &rest, &after)
    })
}

fn twin(history: &[Operation]) -> bool {
    has_an_order(history, &(0..history.len()).collect::<Vec<_>>(), &Register::default())
}

/// What is drawn for an operation: what it does, to which version, when, how long, and whether its answer is lost or a lie.
type Draw = (u8, u8, u8, u8, u8, u8);

/// A history of a register, or of a counter, in which some were told lies.
fn history(draws: &[Draw], counter: bool) -> Vec<Operation> {
    let number = draws.len() as u64;
    let mut drawn: Vec<(u64, Operation, u8)> = vec![];
    for (index, &(kind, version, begin, point, end, fate)) in draws.iter().enumerate() {
        let unique = |moment: u64| moment * number + index as u64;
        let invoked = unique(u64::from(begin));
        let at = unique(u64::from(begin) + u64::from(point % 16));
        let returned = unique(u64::from(begin) + u64::from(point % 16) + u64::from(end % 16)).max(at) + number;
        let own = 1_000 * (index as i64 + 1);
        let etag = format!("e{}", usize::from(version) % draws.len());
        let act = match (counter, kind % 8) {
            (true, 0..=2) => Act::Add([1, 1, 10][usize::from(version % 3)]),
            (true, 3..=4) => Act::Count,
            (false, 0..=1) | (true, 5) => Act::Write(own),
            (_, 2 | 6) => Act::Delete,
            (false, 3..=4) | (true, _) => Act::Read,
            (false, 5) => Act::Create(own),
            (false, 7) => Act::DeleteIf(etag),
            (false, _) => Act::Replace(own, etag),
        };
        let operation = Operation { process: index, node: 0, act, outcome: Outcome::Unknown, invoked, returned };
        drawn.push((at, operation, fate));
    }
    drawn.sort_by_key(|(at, ..)| *at);
    let mut held: Option<(i64, String)> = None;
    for (_, operation, fate) in &mut drawn {
        let shown = held.clone();
        let etag = (!counter).then(|| format!("e{}", operation.process));
        let there = shown.as_ref().map(|(_, etag)| etag.clone());
        let value = shown.map_or(0, |(value, _)| value);
        let after = match &operation.act {
            Act::Write(new) => Some(Some(*new)),
            Act::Create(new) => there.is_none().then_some(Some(*new)),
            Act::Replace(new, wanted) => (there.as_ref() == Some(wanted)).then_some(Some(*new)),
            Act::Delete => Some(None),
            Act::DeleteIf(wanted) => (there.as_ref() == Some(wanted)).then_some(None),
            Act::Add(by) => Some(Some(value + by)),
            Act::Read | Act::Count => None,
        };
        // Lost with its effect, lost without, told and a lie, or told.
        let (lost, never, lie) = (*fate % 8 < 2, *fate % 8 == 0, *fate % 16 == 2);
        operation.outcome = match (&operation.act, &after, there) {
            (Act::Read, _, Some(etag)) => Outcome::Value(value, (!counter).then_some(etag)),
            (Act::Read, _, None) => Outcome::Absent,
            (Act::Count, ..) => Outcome::Total(value),
            (Act::Add(by), ..) => Outcome::Total(value + by),
            (_, None, there) => Outcome::Failed(there.filter(|_| !counter)),
            (_, Some(None), _) => Outcome::Done(None),
            (_, Some(Some(_)), _) => Outcome::Done(etag.clone()),
        };
        if lie {
            operation.outcome = match (&operation.act, &operation.outcome) {
                (Act::Read, Outcome::Absent) => Outcome::Value(1_000, None),
                (Act::Read, _) => Outcome::Absent,
                (_, Outcome::Total(total)) => Outcome::Total(total + 1),
                (Act::Create(_) | Act::Replace(..) | Act::DeleteIf(_), Outcome::Failed(_)) => {
                    Outcome::Done(etag.clone())
                }
                (Act::Create(_) | Act::Replace(..) | Act::DeleteIf(_), _) => Outcome::Failed(None),
                (_, outcome) => outcome.clone(),
            };
        }
        if lost {
            (operation.outcome, operation.returned) = (Outcome::Unknown, OPEN);
        }
        if let (Some(after), false) = (after, never) {
            held = after.map(|value| (value, etag.unwrap_or_default()));
        }
    }
    drawn.into_iter().map(|(_, operation, _)| operation).collect()
}

#[test]
fn the_checker_and_a_twin_that_tries_every_order_agree() {
    let cases = if thorough() { 200_000 } else { 4_000 };
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let draw = (any::<u8>(), any::<u8>(), 0..48u8, any::<u8>(), any::<u8>(), any::<u8>());
    let (clean, violations) = (Cell::new(0), Cell::new(0));
    let agree = |(draws, counter): (Vec<Draw>, bool)| {
        let history = history(&draws, counter);
        let expected = twin(&history);
        let count = if expected { &clean } else { &violations };
        count.set(count.get() + 1);
        match check(&history) {
            verdict if (verdict == Verdict::Linearizable) == expected => Ok(()),
            verdict => Err(TestCaseError::fail(format!(
                "the twin says {expected}, the checker {verdict:?}:\n{}",
                listed(&history)
            ))),
        }
    };
    if let Err(error) = runner.run(&(prop::collection::vec(draw, 1..=7), any::<bool>()), agree) {
        panic!("{error}");
    }
    eprintln!("{} linearizable, {} not", clean.get(), violations.get());
    assert!(clean.get() > cases / 10 && violations.get() > cases / 25, "one verdict is hardly tried");
}
