//! Stories of a write among owners that are still being filled.

use super::*;

fn partly_merged(more: Option<Record>) -> Answer {
    merged(more).in_part(true)
}

#[test]
fn a_copy_on_an_owner_that_is_being_filled_counts_as_a_hint() {
    let mut story = Story::plain();
    story.answer(0, written(1, 9)).answer(1, partly_merged(None));
    assert!(story.outcomes.is_empty(), "one owner that counts is no majority");
    story.answer(2, merged(None));
    assert!(matches!(story.outcome(), PutOutcome::Stored { .. }));
    assert_eq!(story.replicas(), reached(2, 1));
    assert_eq!(story.asked(), ["write o0", "copy o1", "copy o2"], "it keeps its copy itself");
    let mut story = Story::plain();
    story.answer(0, written(1, 9)).answer(1, partly_merged(None)).answer(2, partly_merged(None));
    assert!(matches!(story.outcome(), PutOutcome::Short { .. }));
    assert_eq!(story.replicas(), reached(1, 2));
    // A number that was named is one of owners that count.
    let mut story = Story::new(|_, _, _, options| options.hard = true);
    story.answer(0, written(1, 9)).answer(1, partly_merged(None)).answer(2, partly_merged(None));
    assert!(matches!(story.outcome(), PutOutcome::Unknown { .. }));
}

#[test]
fn an_owner_that_is_being_filled_makes_no_dot_and_another_does() {
    let mut story = Story::plain();
    story.answer(0, Answer::Refused(Refusal::ClockAhead { ahead_ms: 70_000 })).answer(1, written(2, 9));
    assert_eq!(story.asked(), ["write o0", "write o1", "copy o0", "copy o2"], "one whose clock is wrong neither");
    let mut story = Story::plain();
    story.answer(0, Answer::Refused(Refusal::NotFilled)).answer(1, written(2, 9));
    assert_eq!(story.asked(), ["write o0", "write o1", "copy o0", "copy o2"]);
    story.answer(2, partly_merged(None)).answer(3, merged(None));
    assert_eq!(story.replicas(), reached(2, 1));
}

#[test]
fn a_coordinator_that_is_being_filled_keeps_a_write_no_owner_takes_for_all_of_them() {
    let mut story = Story::plain();
    story.answer(0, Answer::Refused(Refusal::NotFilled));
    story.fail(1, Failure::Unreachable).answer(2, Answer::Refused(Refusal::NotFilled));
    assert_eq!(story.asked()[3..], ["write-hint o0"]);
    story.answer(3, written(9, 9));
    assert!(matches!(story.outcome(), PutOutcome::Short { .. }));
    assert_eq!(story.replicas(), reached(0, 3));
    // Not where the client named a number, nor by an owner that failed otherwise.
    let mut story = Story::new(|_, _, _, options| options.hard = true);
    story.answer(0, Answer::Refused(Refusal::NotFilled));
    story.fail(1, Failure::Unreachable).fail(2, Failure::Unreachable);
    let cause = Some(Refusal::NotFilled);
    assert_eq!(story.outcome(), &PutOutcome::Unknown { replicas: reached(0, 0), cause, is_nowhere: true });
}

#[test]
fn a_sibling_that_only_an_owner_holds_that_is_being_filled_is_covered_too() {
    let mut story = Story::plain();
    story.answer(0, written(1, 9)).answer(1, partly_merged(Some(record(7, 3))));
    assert_eq!(story.asked()[3..], ["cover o0"]);
}
