//! Stories of a write that a silent owner and another one have both made.

use super::*;

/// o0 is silent, o1 makes it, and o2 has a copy: a majority.
fn made_by_another() -> Story {
    let mut story = Story::plain();
    story.tell(Event::Woken);
    story.answer(1, written(2, 9)).answer(3, merged(None));
    assert_eq!(story.asked(), ["write o0", "write o1", "copy o0", "copy o2"]);
    story
}

#[test]
fn a_client_is_told_of_both_of_a_write_that_was_made_twice_and_one_of_them_is_let_go_of() {
    let mut story = made_by_another();
    assert!(story.outcomes.is_empty(), "the silent one may have made it too");
    story.answer(0, written(1, 8));
    assert_eq!(story.asked()[4..], ["copy o0", "copy o1", "copy o2"]);
    for (_, request) in &story.calls[4..] {
        let Request::Merge { record, .. } = request else { panic!("{request:?}") };
        assert!(record.siblings().iter().map(|sibling| sibling.dot).eq([dot(2, 9)]), "{record:?}");
        assert!(record.context().covers(dot(1, 8)));
        assert_eq!(record.merge(&super::record(1, 8)), *record, "whoever holds it lets go of it");
    }
    story.answer(5, merged(None)).answer(6, merged(None));
    assert!(story.outcomes.is_empty(), "a read there would still show it");
    story.answer(4, merged(None));
    match story.outcome() {
        PutOutcome::Stored { seen: Seen::Only(context), replicas, .. } => {
            assert!(context.covers(dot(1, 8)) && context.covers(dot(2, 9)));
            assert_eq!(*replicas, reached(3, 0));
        }
        other => panic!("{other:?}"),
    }
    story.answer(2, merged(None));
    assert!(story.put.is_done());
}

#[test]
fn an_owner_that_surely_made_nothing_is_not_waited_for_and_no_silent_one_for_longer_than_a_copy() {
    for refusal in [Refusal::NotFilled, Refusal::Overtaken { latest: Stamp::MAX }] {
        let mut story = made_by_another();
        story.answer(0, Answer::Refused(refusal));
        assert_eq!((story.replicas(), story.calls.len()), (reached(2, 0), 4));
    }
    let mut story = made_by_another();
    story.tell(Event::Woken);
    assert_eq!(story.replicas(), reached(2, 0));
    story.answer(0, written(1, 8));
    assert!(story.asked()[4..].contains(&"copy o0".into()), "it lets go of its own though the client was told");

    let mut story = Story::new(|ring, _, _, options| options.avoid = vec![owners(ring)[1]]);
    story.tell(Event::Woken);
    story.tell(Event::Woken);
    assert_eq!(story.asked(), ["write o0", "write o2", "write o1"]);
    story.fail(0, Failure::Unknown).answer(1, written(3, 9)).answer(3, merged(None));
    assert_eq!(story.replicas(), reached(2, 0), "whoever is believed down is not waited for");
}

#[test]
fn what_an_earlier_try_left_is_let_go_of() {
    let mut story = Story::new(|_, _, _, options| options.earlier = Some(record(8, 4)));
    story.answer(0, written(1, 9));
    assert_eq!(story.asked()[1..], ["copy o1", "copy o2", "copy o0", "copy o1", "copy o2"]);
    for (_, request) in &story.calls[3..] {
        let Request::Merge { record, .. } = request else { panic!("{request:?}") };
        assert!(record.siblings().iter().map(|sibling| sibling.dot).eq([dot(1, 9)]), "{record:?}");
        assert!(record.context().covers(dot(8, 4)), "whoever still has it drops it");
    }
    story.answer(1, merged(None));
    assert_eq!(story.replicas(), reached(2, 0));
}

#[test]
fn a_write_that_superseded_its_twin_is_the_one_that_stays() {
    let mut story = made_by_another();
    // o0 had been handed the first by somebody else when it made the second.
    let over = record(2, 9).write(&Seen::Everything, dot(1, 10), Some(Content::plain("v"))).unwrap();
    story.answer(0, Answer::Written { created: false, record: over });
    for (_, request) in &story.calls[4..] {
        let Request::Merge { record, .. } = request else { panic!("{request:?}") };
        assert!(record.siblings().iter().map(|sibling| sibling.dot).eq([dot(1, 10)]), "{record:?}");
    }
    story.answer(4, merged(None));
    assert!(matches!(story.outcome(), PutOutcome::Stored { record, .. } if !record.is_tombstone()));
}

#[test]
fn a_write_that_was_kept_for_its_owners_is_taken_by_one_that_made_it_after_all() {
    let mut story = Story::by_stranger();
    story.tell(Event::Woken);
    story.fail(1, Failure::Unreachable).fail(2, Failure::Unreachable);
    assert_eq!(story.asked()[3..], ["write-hint s1"]);
    story.answer(3, written(9, 9));
    assert!(story.outcomes.is_empty());
    story.answer(0, written(1, 8));
    assert_eq!(story.asked()[4..], ["copy o0", "copy o1", "copy o2"]);
    story.answer(4, merged(None));
    assert_eq!(story.replicas(), reached(1, 2));
}

#[test]
fn what_a_second_round_covered_and_what_was_made_twice_stay_gone_in_either_order() {
    let mut story = Story::plain();
    story.tell(Event::Woken);
    story.answer(1, written(2, 9)).answer(3, merged(Some(record(7, 5))));
    assert_eq!(story.asked()[4..], ["cover o1"]);
    story.answer(0, written(1, 8));
    let covering = record(2, 9).cover(&record(7, 5), dot(2, 9));
    story.answer(4, Answer::Written { created: false, record: covering });
    let (_, Request::Merge { record, .. }) = story.calls.last().unwrap() else { panic!() };
    assert!(record.siblings().iter().map(|sibling| sibling.dot).eq([dot(2, 9)]), "{record:?}");
    assert!(record.context().covers(dot(1, 8)) && record.context().covers(dot(7, 5)));
}
