//! Stories of owners that are heard late, when others have written since.

use super::*;

#[test]
fn an_owner_makes_no_dot_that_would_supersede_what_may_have_come_after_the_client_was_told() {
    let until = |story: &Story, call: usize| match &story.calls[call].1 {
        Request::Write { until, .. } => until.ms() - NOW_MS,
        other => panic!("{other:?}"),
    };
    let overtaken = |ms| Answer::Refused(Refusal::Overtaken { latest: Stamp::from_ms(NOW_MS + ms) });
    let mut story = Story::plain();
    let patience_ms = story.put.maker_patience_ms;
    assert!((1..patience_ms).contains(&until(&story, 0)), "a silent owner's time ends before it is passed over");
    story.tell(Event::Woken);
    assert_eq!(
        until(&story, 1),
        patience_ms,
        "while another may answer the client any moment, there is no time at all"
    );
    // The client waits, so whatever this owner knew when it refused came before the client is told.
    story.answer(1, overtaken(9_000));
    assert_eq!(story.asked()[1..], ["write o1", "write o1"]);
    assert!((9_000..9_000 + patience_ms).contains(&until(&story, 2)));
    story.answer(2, written(2, 9)).answer(3, merged(None));
    assert_eq!((story.outcomes.len(), story.calls.len()), (0, 5), "the silent one may have made it too");
    story.tell(Event::Woken);
    assert_eq!(story.asked()[5..], ["hint s0"], "for the silent one");
    story.answer(5, merged(None));
    assert_eq!((story.outcomes.len(), story.calls.len()), (1, 6));
    story.answer(0, overtaken(9_500));
    assert_eq!(story.calls.len(), 6, "the client was told: nobody is asked again");
}

#[test]
fn an_owner_that_is_overtaken_without_end_is_passed_over() {
    let mut story = Story::plain();
    let overtaken = Answer::Refused(Refusal::Overtaken { latest: Stamp::MAX });
    for call in 0..=OVERTAKEN_MAX as u32 {
        story.answer(call, overtaken.clone());
    }
    assert_eq!(story.asked().last().map(String::as_str), Some("write o1"));
}
