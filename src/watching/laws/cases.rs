//! What a hub promises, case by case.

use super::*;

/// A hub of two members, settled.
fn pair() -> Town {
    let mut town = Town::new(2, 100);
    town.settle();
    town
}

fn whys(told: &[Telling]) -> Vec<(Option<&str>, Why)> {
    let gap = |telling: &Telling| match &telling.tidings {
        Tidings::Gap { member, why } => {
            Some((MEMBERS.iter().find(|name| Some(**name) == member.as_deref()).copied(), *why))
        }
        _ => None,
    };
    told.iter().filter_map(gap).collect()
}

#[test]
fn what_follows_anothers_write_waits_until_that_one_was_asked() {
    let mut town = pair();
    town.play(&Step::Write { member: 0, key: 0, agreed: false });
    town.play(&Step::Learn { from: 0, to: 1, key: 0 });
    town.play(&Step::Write { member: 1, key: 0, agreed: false });
    // The one of the second member comes first.
    let at = town.out.iter().position(|ask| &*ask.member == "b").unwrap();
    town.play(&Step::Serve { which: at });
    town.play(&Step::Arrive { which: 0 });
    assert!(town.writes(&town.told).is_empty());
    town.settle();
    assert_eq!(town.writes(&town.told), [1, 2]);
}

#[test]
fn a_member_that_says_nothing_holds_up_the_others_no_longer_than_it_may() {
    let mut town = pair();
    town.play(&Step::Write { member: 0, key: 0, agreed: false });
    town.play(&Step::Learn { from: 0, to: 1, key: 0 });
    town.play(&Step::Write { member: 1, key: 0, agreed: false });
    let begun = town.now_ms;
    while town.told.is_empty() {
        for ask in std::mem::take(&mut town.out) {
            let page = (&*ask.member == "b").then(|| town.serve(&ask));
            town.hub.heard(ask.call, page, false, town.now_ms);
        }
        town.play(&Step::Wait { ms: 50 });
    }
    assert!(town.now_ms - begun < LOSS_MS + 300, "{}", town.now_ms - begun);
    town.settle();
    assert_eq!(whys(&town.told), [(Some("a"), Why::Silent), (Some("a"), Why::Back)]);
    assert_eq!(town.writes(&town.told), [2], "what the lost one made is not told behind what follows it");
}

#[test]
fn a_restart_and_a_history_that_is_gone_are_told_as_such() {
    let mut town = pair();
    town.play(&Step::Restart { member: 1 });
    town.play(&Step::Write { member: 1, key: 0, agreed: false });
    (0..300).for_each(|_| town.play(&Step::Write { member: 0, key: 0, agreed: false }));
    town.settle();
    let whys: BTreeMap<_, _> = whys(&town.told).into_iter().collect();
    assert_eq!(whys, BTreeMap::from([(Some("a"), Why::Forgotten), (Some("b"), Why::Restarted)]));
    assert!(town.writes(&town.told).contains(&1), "what was made since the restart is told");
}

#[test]
fn a_wider_filter_passes_over_nothing_from_then_on() {
    let mut town = pair();
    town.hub.want(vec![b"0".to_vec()], false);
    town.settle();
    town.play(&Step::Write { member: 0, key: 1, agreed: false });
    // Asked for under the narrow filter, and answered after it is wide.
    (0..town.out.len()).for_each(|_| town.play(&Step::Serve { which: 0 }));
    town.hub.want(vec![b"0".to_vec(), b"1".to_vec()], false);
    assert!(!town.hub.is_settled());
    town.settle();
    assert_eq!(town.writes(&town.told), [1]);
}

/// All questions that are out are answered.
fn answer_all(town: &mut Town) {
    (0..town.out.len()).for_each(|_| town.play(&Step::Serve { which: 0 }));
    (0..town.coming.len()).for_each(|_| town.play(&Step::Arrive { which: 0 }));
}

#[test]
fn what_a_narrower_filter_passed_over_before_it_was_told_is_missed_by_nobody() {
    let mut town = pair();
    town.hub.want(vec![b"0".to_vec()], false);
    town.settle();
    let since = town.hub.positions();
    town.play(&Step::Write { member: 0, key: 1, agreed: false });
    // It waits until the other was asked, and that one does not answer yet.
    town.play(&Step::Write { member: 0, key: 0, agreed: true });
    town.play(&Step::Write { member: 0, key: 1, agreed: false });
    let of_b: Vec<Ask> = town.out.extract_if(.., |ask| &*ask.member == "b").collect();
    answer_all(&mut town);
    town.hub.want(vec![b"0".to_vec(), b"1".to_vec()], false);
    answer_all(&mut town);
    assert!(town.told.is_empty() && !town.hub.is_settled());
    town.out.extend(of_b);
    town.settle();
    assert!(town.hub.is_settled());
    assert_eq!(town.writes(&town.told), [2]);
    let missed = catch_up(&town, Hub::catching_up(&town.hub, &since, town.now_ms));
    assert_eq!(town.writes(&missed), [1, 2, 3]);
}

#[test]
fn what_is_made_after_a_restart_is_not_told_as_missed_too() {
    let mut town = pair();
    let since = town.hub.positions();
    town.play(&Step::Write { member: 0, key: 0, agreed: false });
    town.settle();
    let missed = Hub::catching_up(&town.hub, &since, town.now_ms);
    town.play(&Step::Restart { member: 0 });
    town.play(&Step::Write { member: 0, key: 1, agreed: false });
    let missed = catch_up(&town, missed);
    assert_eq!((town.writes(&missed), whys(&missed)), (vec![], vec![(Some("a"), Why::Restarted)]));
    town.settle();
    assert_eq!(town.writes(&town.told), [1, 2]);
}

#[test]
fn where_the_order_was_given_up_a_gap_says_so() {
    let mut town = Town::new(3, 100_000);
    town.settle();
    let mut of_b = Vec::new();
    // The third's write waits for both others; the second does not answer, and the first has more than is held.
    town.play(&Step::Write { member: 2, key: 1, agreed: true });
    for _ in 0..20_000 {
        town.play(&Step::Write { member: 0, key: 0, agreed: true });
        town.known[0][0].clear();
    }
    for _ in 0..40 {
        of_b.extend(town.out.extract_if(.., |ask| &*ask.member == "b"));
        answer_all(&mut town);
        town.play(&Step::Wait { ms: 5 });
    }
    assert!(town.told.is_empty() && town.hub.held() < 18_000, "{}", town.hub.held());
    town.out.extend(of_b);
    town.settle();
    assert_eq!(town.writes(&town.told).len(), 20_001);
    assert_eq!(whys(&town.told), [(Some("a"), Why::Disordered)]);
}

#[test]
fn a_member_that_leaves_is_told_to_its_end() {
    let mut town = pair();
    let since = town.hub.positions();
    town.play(&Step::Write { member: 1, key: 0, agreed: false });
    town.hub.note_members(["a"]);
    answer_all(&mut town);
    // It still makes what it has taken.
    town.play(&Step::Write { member: 1, key: 0, agreed: false });
    town.settle();
    assert_eq!((town.writes(&town.told), whys(&town.told)), (vec![1, 2], vec![]));
    let missed = |since: &Positions| catch_up(&town, Hub::catching_up(&town.hub, since, 0));
    assert_eq!(whys(&missed(&since)), [(None, Why::Left)]);
    let since = Positions::from_word(&town.told[1].id, FeedOf::Changes).unwrap();
    assert_eq!(whys(&missed(&since)), [], "it was told all");
}

#[test]
fn a_member_that_is_back_is_told_from_where_it_left() {
    let mut town = pair();
    town.play(&Step::Write { member: 1, key: 0, agreed: false });
    town.settle();
    town.hub.note_members(["a"]);
    town.settle();
    let since = town.hub.positions();
    town.hub.note_members(["a", "b"]);
    town.play(&Step::Write { member: 1, key: 0, agreed: false });
    town.settle();
    assert_eq!((town.writes(&town.told), whys(&town.told)), (vec![1, 2], vec![]));
    let missed = |since: &Positions| catch_up(&town, Hub::catching_up(&town.hub, since, 0));
    assert_eq!(town.writes(&missed(&since)), [2]);
    // Of one who does not know it, nobody knows what he was told.
    let stranger = Positions::new(FeedOf::Changes, 0, [("a", since.of_member("a").unwrap())]);
    assert_eq!(whys(&missed(&stranger)), [(Some("b"), Why::Back)]);
}
