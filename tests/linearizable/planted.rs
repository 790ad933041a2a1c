//! Violations that the checker must see, each beside what is alike and allowed, and histories as long as real ones.

use super::checker::{Verdict, check};
use super::history::{Act, OPEN, Operation, Outcome};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::{Duration, Instant};

/// Who, what, what was told, from when to when.
fn told(process: usize, act: Act, outcome: Outcome, invoked: u64, returned: u64) -> Operation {
    Operation { process, node: 0, act, outcome, invoked, returned }
}

fn unknown(process: usize, act: Act, invoked: u64) -> Operation {
    told(process, act, Outcome::Unknown, invoked, OPEN)
}

fn done(etag: &str) -> Outcome {
    Outcome::Done(Some(etag.into()))
}

fn is(value: i64, etag: &str) -> Outcome {
    Outcome::Value(value, Some(etag.into()))
}

fn failed(etag: &str) -> Outcome {
    Outcome::Failed(Some(etag.into()))
}

/// Version 1 is written from 0 to 10.
fn first() -> Operation {
    told(0, Act::Write(1), done("a"), 0, 10)
}

#[track_caller]
fn fine(history: &[Operation]) {
    assert_eq!(check(history), Verdict::Linearizable);
}

#[track_caller]
fn caught(history: &[Operation]) -> String {
    match check(history) {
        Verdict::Violation(why) => why,
        verdict => panic!("{verdict:?}"),
    }
}

#[test]
fn a_stale_read_is_caught_and_one_beside_the_write_is_fine() {
    let write = |from, to| told(1, Act::Write(2), done("b"), from, to);
    let read = |from, to| told(2, Act::Read, is(1, "a"), from, to);
    fine(&[first(), write(20, 40), read(30, 50)]);
    let why = caught(&[first(), write(20, 40), read(41, 50)]);
    assert!(why.contains("2 of 3") && why.contains("Value(1"), "{why}");
    caught(&[first(), told(2, Act::Read, Outcome::Absent, 11, 12)]);
}

#[test]
fn a_value_that_one_reader_saw_and_a_later_one_does_not_is_caught() {
    let write = unknown(1, Act::Write(2), 20);
    let read = |outcome, from| told(2, Act::Read, outcome, from, from + 5);
    fine(&[first(), write.clone(), read(is(1, "a"), 30), read(is(2, "b"), 40), read(is(2, "b"), 50)]);
    caught(&[first(), write.clone(), read(is(2, "b"), 30), read(is(1, "a"), 40)]);
    // An open write comes once.
    let again = told(3, Act::Write(3), done("c"), 50, 60);
    caught(&[first(), write, read(is(2, "b"), 30), again, read(is(3, "c"), 70), read(is(2, "b"), 80)]);
}

#[test]
fn a_value_that_nobody_wrote_or_not_yet_is_caught() {
    caught(&[first(), told(2, Act::Read, is(7, "g"), 20, 30)]);
    let why = caught(&[told(2, Act::Read, is(1, "a"), 0, 5), told(0, Act::Write(1), done("a"), 10, 20)]);
    assert!(why.contains("before it was asked"), "{why}");
}

#[test]
fn two_creators_that_both_win_are_caught() {
    let create = |value, etag, from| told(value as usize, Act::Create(value), done(etag), from, from + 20);
    caught(&[create(1, "a", 0), create(2, "b", 5)]);
    fine(&[create(1, "a", 0), told(2, Act::Create(2), failed("a"), 5, 25)]);
    fine(&[create(1, "a", 0), told(3, Act::Delete, Outcome::Done(None), 7, 9), create(2, "b", 5)]);
    caught(&[told(2, Act::Create(2), failed("a"), 5, 25)]);
}

#[test]
fn a_lost_update_is_caught() {
    let replace = |value, etag, from| told(value as usize, Act::Replace(value, "a".into()), done(etag), from, from + 9);
    fine(&[first(), replace(2, "b", 20), told(3, Act::Replace(3, "a".into()), failed("b"), 20, 40)]);
    caught(&[first(), replace(2, "b", 20), replace(3, "c", 25)]);
    let add = |process, total, from| told(process, Act::Add(1), Outcome::Total(total), from, from + 9);
    fine(&[add(1, 1, 0), add(2, 2, 5)]);
    caught(&[add(1, 1, 0), add(2, 1, 5)]);
}

#[test]
fn a_condition_that_held_over_another_version_is_caught() {
    let other = told(1, Act::Write(2), done("b"), 20, 30);
    caught(&[first(), other.clone(), told(2, Act::Replace(3, "a".into()), done("c"), 40, 50)]);
    caught(&[first(), other.clone(), told(2, Act::DeleteIf("a".into()), Outcome::Done(None), 40, 50)]);
    caught(&[first(), told(2, Act::Replace(3, "a".into()), failed("a"), 40, 50)]);
    // A failed condition is a read.
    caught(&[first(), other.clone(), told(2, Act::Replace(3, "z".into()), failed("a"), 40, 50)]);
    caught(&[first(), other.clone(), told(2, Act::DeleteIf("a".into()), Outcome::Failed(None), 40, 50)]);
    fine(&[first(), other, told(2, Act::Replace(3, "a".into()), failed("b"), 40, 50)]);
}

#[test]
fn an_increment_that_counted_twice_or_not_at_all_is_caught() {
    let add = |process, by, from| unknown(process, Act::Add(by), from);
    let count = |total, from| told(9, Act::Count, Outcome::Total(total), from, from + 5);
    let one = told(0, Act::Add(1), Outcome::Total(1), 0, 10);
    for total in [1, 101] {
        fine(&[one.clone(), add(1, 100, 20), count(total, 30)]);
    }
    caught(&[one.clone(), add(1, 100, 20), count(201, 30)]);
    caught(&[one.clone(), add(1, 100, 20), count(100, 30)]);
    caught(&[one.clone(), add(1, 100, 20), count(101, 30), count(1, 40)]);
    caught(&[one, count(0, 30)]);
}

#[test]
fn a_deleted_key_that_comes_back_is_caught() {
    let delete = told(1, Act::Delete, Outcome::Done(None), 20, 30);
    let read = |outcome, from| told(2, Act::Read, outcome, from, from + 5);
    fine(&[first(), delete.clone(), read(Outcome::Absent, 40)]);
    caught(&[first(), delete, read(is(1, "a"), 40)]);
    let open = unknown(1, Act::Delete, 20);
    fine(&[first(), open.clone(), read(is(1, "a"), 40), read(Outcome::Absent, 50)]);
    caught(&[first(), open, read(Outcome::Absent, 40), read(is(1, "a"), 50)]);
}

#[test]
fn an_etag_of_two_versions_and_two_of_one_are_caught() {
    caught(&[first(), told(1, Act::Write(2), done("a"), 20, 30)]);
    caught(&[first(), told(1, Act::Read, is(1, "b"), 20, 30)]);
}

#[test]
fn an_etag_that_only_a_refusal_told_is_of_one_unknown_write() {
    let (create, write) = (unknown(1, Act::Create(1), 0), unknown(2, Act::Write(2), 0));
    let refused = |etag: &str, from: u64| told(3, Act::Create(from as i64), failed(etag), from, from + 5);
    fine(&[create.clone(), write.clone(), refused("x", 10), refused("y", 20)]);
    caught(&[create.clone(), refused("x", 10), refused("y", 20)]);
    caught(&[create, write, refused("x", 10), refused("y", 20), refused("x", 30)]);
}

/// What clients of a register, or of a counter, would have seen, each operation at one moment of those it lasts. One of
/// twelve is never answered; half of these are carried out, now or much later.
fn long(seed: u64, counter: bool) -> Vec<Operation> {
    const CLIENTS: u64 = 5;
    const EACH: u64 = 80;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut drawn = vec![];
    for client in 0..CLIENTS {
        let (mut now, mut process) = (0, client);
        for number in 0..EACH {
            let unique = |moment: u64| moment * CLIENTS + client;
            let (invoked, at, end) = (now, now + rng.random_range(1..500), rng.random_range(1..500));
            now = at + end + rng.random_range(1..300);
            let open = rng.random_ratio(1, 12);
            let late = if open && rng.random() { rng.random_range(0..20_000) } else { 0 };
            let never = open && rng.random();
            let own = (client * EACH + number + 1) as i64 * 1_000_000;
            let draw = (rng.random_range(0..10), rng.random_range(0..3), own);
            let returned = if open { OPEN } else { unique(at + end) };
            let operation = told(process as usize, Act::Read, Outcome::Unknown, unique(invoked), returned);
            drawn.push((unique(at + late), never, draw, operation));
            process += if open { CLIENTS } else { 0 };
        }
    }
    drawn.sort_by_key(|(at, ..)| *at);
    let (mut held, mut recent): (Option<i64>, Vec<String>) = (None, vec!["none".into()]);
    for (_, never, (kind, by, own), operation) in &mut drawn {
        let etag = |value: i64| format!("e{value}");
        let wanted = recent[recent.len().saturating_sub(1 + *by)].clone();
        let holds = held.map(etag) == Some(wanted.clone());
        let shown = |held: Option<i64>| {
            held.map_or(Outcome::Absent, |value| Outcome::Value(value, (!counter).then(|| etag(value))))
        };
        let wrote = |value: i64| (Some(value), Outcome::Done((!counter).then(|| etag(value))));
        let refused = (held, Outcome::Failed(held.map(etag)));
        let add = [1, 100, 10_000][*by];
        let (act, (after, outcome)) = match (counter, *kind) {
            (false, 0..=2) => (Act::Read, (held, shown(held))),
            (false, 3..=4) => (Act::Write(*own), wrote(*own)),
            (false, 5) | (true, 9) => (Act::Delete, (None, Outcome::Done(None))),
            (false, 6) => (Act::Create(*own), if held.is_none() { wrote(*own) } else { refused }),
            (false, 7..=8) => (Act::Replace(*own, wanted), if holds { wrote(*own) } else { refused }),
            (false, _) => (Act::DeleteIf(wanted), if holds { (None, Outcome::Done(None)) } else { refused }),
            (true, 0..=2) => (Act::Count, (held, Outcome::Total(held.unwrap_or(0)))),
            (true, 3) => (Act::Read, (held, shown(held))),
            (true, 8) => (Act::Write(*own), wrote(*own)),
            (true, _) => {
                let total = held.unwrap_or(0) + add;
                (Act::Add(add), (Some(total), Outcome::Total(total)))
            }
        };
        operation.act = act;
        if operation.returned != OPEN {
            operation.outcome = outcome;
            recent.extend(held.map(etag));
        }
        if !*never {
            held = after;
        }
    }
    drawn.into_iter().map(|(.., operation)| operation).collect()
}

#[test]
fn histories_of_400_operations_are_judged_within_seconds() {
    let mut slowest = Duration::ZERO;
    for seed in 0..20 {
        for counter in [false, true] {
            let history = long(seed, counter);
            let open = history.iter().filter(|one| one.returned == OPEN && !one.act.only_looks()).count();
            let began = Instant::now();
            assert_eq!(check(&history), Verdict::Linearizable, "seed {seed}, counter: {counter}");
            let took = began.elapsed();
            assert!(open > 10, "{open} of unknown outcome");
            slowest = slowest.max(took);
        }
    }
    eprintln!("40 histories of 400 operations, the slowest judged in {slowest:?}");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}

#[test]
fn one_wrong_answer_among_400_operations_is_caught() {
    let mut slowest = Duration::ZERO;
    for seed in 0..20 {
        for counter in [false, true] {
            let mut history = long(seed, counter);
            let told = |one: &Operation| matches!(one.outcome, Outcome::Value(..) | Outcome::Total(_));
            let at: Vec<usize> = (100..history.len()).filter(|index| told(&history[*index])).collect();
            let wrong = at[seed as usize % at.len()];
            let stale = history[..60].iter().rev().find_map(|one| match &one.outcome {
                Outcome::Value(..) => Some(one.outcome.clone()),
                _ => None,
            });
            history[wrong].outcome = match (&history[wrong].outcome, stale) {
                (Outcome::Total(total), _) => Outcome::Total(total + 7),
                (_, Some(stale)) => stale,
                (_, None) => Outcome::Value(-1, None),
            };
            let began = Instant::now();
            let verdict = check(&history);
            assert!(verdict.is_violation(), "seed {seed}, counter: {counter}, operation {wrong}: {verdict:?}");
            slowest = slowest.max(began.elapsed());
        }
    }
    eprintln!("40 wrong histories, the slowest judged in {slowest:?}");
}
