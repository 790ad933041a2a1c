//! Stories of a read, told event by event.

use super::super::Count;
use super::*;
use crate::operation::Failure;
use crate::placement::{ClusterId, Layout, Member, Mode};
use crate::protocol::Refusal;
use crate::record::{Actor, Content, Dot, Seen, Stamp};
use proptest::prelude::*;

struct Story {
    get: Get,
    ring: Arc<Ring>,
    calls: Vec<(MemberIndex, Request)>,
    outcomes: Vec<GetOutcome>,
    /// How long the read last wished to be left alone, in milliseconds.
    wake: Option<u64>,
}

fn key() -> Key {
    Key::new("k").unwrap()
}

fn ring() -> Arc<Ring> {
    let members = (0..5).map(|node| Member::new(format!("http://n{node}:1"))).collect();
    Arc::new(Ring::new(Layout::provisional(ClusterId(1), 3, Mode::Sloppy, members).unwrap()))
}

fn record(stamp: u64) -> Record {
    let dot = Dot { stamp: Stamp(stamp), actor: Actor(stamp) };
    Record::default().write(&Seen::Everything, dot, Some(Content::plain(stamp.to_string()))).unwrap()
}

impl Story {
    /// A read of a majority by the first owner; `change` makes it another.
    fn new(change: impl FnOnce(&Ring, Partition, &mut MemberIndex, &mut GetOptions)) -> Story {
        let (ring, partition) = (ring(), Partition::of(key().position()));
        let mut me = ring.owners(partition)[0];
        let quorum = Quorum::of(Count::Majority, 3).unwrap();
        let (behind, avoid) = (Vec::new(), Vec::new());
        let mut options = GetOptions {
            quorum,
            hard: false,
            all: false,
            hedge_ms: 5,
            patience_ms: 100,
            behind,
            avoid,
            since: Context::new(),
        };
        change(&ring, partition, &mut me, &mut options);
        let get = Get::new(key(), ring.clone(), me, options);
        let mut story = Story { get, ring, calls: Vec::new(), outcomes: Vec::new(), wake: None };
        story.tell(Event::Start);
        story
    }

    fn tell(&mut self, event: Event) {
        let mut commands = Vec::new();
        self.outcomes.extend(self.get.on(event, &mut commands));
        for command in commands {
            match command {
                Command::Call { call, to, request } => {
                    assert_eq!(call.0 as usize, self.calls.len());
                    self.calls.push((to, request));
                }
                Command::Wake { after_ms } => self.wake = Some(after_ms),
            }
        }
    }

    fn found(&mut self, call: u32, record: Option<Record>) -> &mut Story {
        self.tell(Event::Answered { call: CallId(call), answer: Answer::Found { record } });
        self
    }

    fn fail(&mut self, call: u32) -> &mut Story {
        self.tell(Event::Failed { call: CallId(call), failure: Failure::Unreachable });
        self
    }

    /// The owners that count are asked, once, whether they have seen that, and answer.
    fn confirm(&mut self, seen: &Context, answer: impl Fn(usize) -> Option<Record>) {
        assert!(self.outcomes.is_empty());
        let again = |request: &Request| matches!(request, Request::ReadSince { since, .. } if since == seen);
        let calls: Vec<u32> =
            (0..self.calls.len()).filter(|&call| again(&self.calls[call].1)).map(|call| call as u32).collect();
        assert_eq!(calls.len(), 2);
        calls.into_iter().enumerate().for_each(|(at, call)| {
            self.found(call, answer(at));
        });
    }

    fn asked(&self) -> Vec<String> {
        let partition = Partition::of(key().position());
        let (owners, stand_ins) = (self.ring.owners(partition), self.ring.stand_ins(partition));
        let word = |(to, request): &(MemberIndex, Request)| {
            let name = match owners.iter().position(|owner| owner == to) {
                Some(owner) => format!("o{owner}"),
                None => format!("s{}", stand_ins.iter().position(|stand_in| stand_in == to).unwrap()),
            };
            let hint = matches!(request, Request::ReadHint { .. });
            if hint { format!("hint of {name}") } else { name }
        };
        self.calls.iter().map(word).collect()
    }

    /// The value shown and how many were heard; or `None` where the read was refused.
    fn value(&self) -> Option<(Option<String>, usize)> {
        assert_eq!(self.outcomes.len(), 1, "{:?}", self.outcomes);
        match &self.outcomes[0] {
            GetOutcome::Found { record, answers, .. } => {
                let value = record.latest().map(|winner| String::from_utf8(winner.content.value.to_vec()).unwrap());
                Some((value, answers.len()))
            }
            GetOutcome::Unavailable { .. } | GetOutcome::Behind { .. } => None,
        }
    }
}

#[test]
fn a_stale_copy_does_not_hide_a_newer_one() {
    let mut story = Story::new(|_, _, _, _| {});
    story.found(0, Some(record(3))).found(1, Some(record(8)));
    assert_eq!(story.value(), Some((Some("8".into()), 2)));
    assert!(story.get.is_done());
    // Each had a value that the other lacked, and is sent both.
    assert_eq!(story.asked(), ["o0", "o1", "o0", "o1"]);
}

#[test]
fn an_owner_that_holds_nothing_is_brought_up_to_date_and_one_that_holds_all_is_left_alone() {
    let mut story = Story::new(|_, _, _, _| {});
    story.found(0, Some(record(8))).found(1, None);
    assert_eq!(story.value(), Some((Some("8".into()), 2)));
    assert_eq!(story.asked(), ["o0", "o1", "o1"]);
    assert_eq!(story.get.repairs(), 1);
}

#[test]
fn another_owner_is_asked_for_one_that_fails_refuses_or_is_silent() {
    let mut story = Story::new(|_, _, _, _| {});
    story.fail(0);
    assert_eq!(story.asked(), ["o0", "o1", "o2"]);
    let mut story = Story::new(|_, _, _, _| {});
    story.tell(Event::Answered { call: CallId(1), answer: Answer::Refused(Refusal::Damaged) });
    assert_eq!(story.asked(), ["o0", "o1", "o2"]);
    let mut story = Story::new(|_, _, _, _| {});
    story.tell(Event::Woken);
    assert_eq!(story.asked(), ["o0", "o1", "o2"]);
    story.found(2, None).found(0, None);
    assert_eq!(story.value(), Some((None, 2)), "two owners say there is nothing");
}

#[test]
fn an_owner_that_is_known_to_be_behind_is_asked_after_the_others_but_before_one_that_is_down() {
    let behind = |at: usize, down: Option<usize>| {
        let mut story = Story::new(|ring, partition, _, options| {
            options.behind = vec![ring.owners(partition)[at]];
            options.avoid = down.map(|at| ring.owners(partition)[at]).into_iter().collect();
        });
        story.tell(Event::Woken);
        story.asked()
    };
    assert_eq!(behind(1, None), ["o0", "o2", "o1"]);
    assert_eq!(behind(1, Some(2)), ["o0", "o1", "o2"]);
    assert_eq!(behind(0, None), ["o0", "o1", "o2"], "this node's own copy costs nothing");
}

#[test]
fn a_further_owner_is_asked_soon_and_stand_ins_only_much_later() {
    let mut story = Story::new(|_, _, _, options| (options.hedge_ms, options.patience_ms) = (7, 100));
    assert_eq!((story.wake, story.get.hedges()), (Some(7), 0));
    story.tell(Event::Woken);
    assert_eq!((story.asked().len(), story.wake, story.get.hedges()), (3, Some(100), 1));
    story.found(2, Some(record(5))).found(0, None);
    assert_eq!(story.value(), Some((Some("5".into()), 2)), "the slow one is not waited for");
}

#[test]
fn owners_believed_down_are_asked_last() {
    let story = Story::new(|ring, partition, _, options| options.avoid = vec![ring.owners(partition)[1]]);
    assert_eq!(story.asked(), ["o0", "o2"]);
}

#[test]
fn fewer_owners_are_enough_unless_the_client_named_a_number() {
    for hard in [false, true] {
        let mut story = Story::new(|_, _, _, options| options.hard = hard);
        story.found(0, Some(record(3))).fail(1).fail(2);
        assert_eq!(story.value(), (!hard).then(|| (Some("3".into()), 1)));
    }
}

#[test]
fn stand_ins_are_asked_only_when_no_owner_can_be_had() {
    let mut story = Story::new(|ring, partition, me, _| *me = ring.stand_ins(partition)[1]);
    story.fail(0).fail(1).fail(2);
    assert_eq!(story.asked()[3..], ["hint of s0", "hint of s1"]);
    story.found(3, None).found(4, Some(record(5)));
    assert_eq!(story.value(), Some((Some("5".into()), 1)));
}

#[test]
fn without_an_owners_word_nothing_is_called_absent() {
    let mut story = Story::new(|_, _, _, _| {});
    story.fail(0).fail(1).fail(2);
    assert_eq!(story.asked()[3..], ["hint of s0", "hint of s1", "hint of o0"]);
    story.found(3, None).found(4, None).found(5, None);
    assert_eq!(story.value(), None);
    assert!(story.get.is_done());
}

#[test]
fn stand_ins_of_silent_owners_are_used_at_the_deadline_or_at_once_when_the_owners_are_down() {
    let mut story = Story::new(|ring, partition, me, _| *me = ring.stand_ins(partition)[0]);
    story.tell(Event::Woken);
    story.tell(Event::Woken);
    assert_eq!(story.asked()[3..], ["hint of s0", "hint of s1"]);
    story.found(3, Some(record(5))).found(4, None);
    assert!(story.outcomes.is_empty(), "an owner may only be slow");
    story.tell(Event::Deadline);
    assert_eq!(story.value(), Some((Some("5".into()), 1)));

    let mut story = Story::new(|ring, partition, me, options| {
        (*me, options.avoid) = (ring.stand_ins(partition)[0], ring.owners(partition).to_vec());
    });
    story.tell(Event::Woken);
    story.tell(Event::Woken);
    story.found(3, Some(record(5))).found(4, None);
    assert_eq!(story.value(), Some((Some("5".into()), 1)));
}

#[test]
fn owners_that_are_down_and_silent_are_not_waited_for_to_the_deadline() {
    let down = |hard: bool, down: usize| {
        let mut story = Story::new(|ring, partition, _, options| {
            options.avoid = ring.owners(partition)[3 - down..].to_vec();
            options.hard = hard;
        });
        story.found(0, Some(record(1)));
        story.tell(Event::Woken);
        assert!(story.outcomes.is_empty(), "the third owner is asked first");
        story.tell(Event::Woken);
        (!story.outcomes.is_empty()).then(|| story.value())
    };
    assert_eq!(down(false, 2), Some(Some((Some("1".into()), 1))));
    assert_eq!(down(false, 1), None, "one that is only slow may still answer");
    assert_eq!(down(true, 2), None, "the client named a number");
}

#[test]
fn an_owner_heard_after_its_stand_ins_counts_first() {
    let mut story = Story::new(|ring, partition, me, _| *me = ring.stand_ins(partition)[0]);
    story.tell(Event::Woken);
    story.tell(Event::Woken);
    story.found(3, Some(record(5))).found(0, Some(record(2))).found(1, Some(record(3)));
    story.confirm(record(5).context(), |_| None);
    assert_eq!(story.value(), Some((Some("5".into()), 3)));
}

#[test]
fn what_is_kept_elsewhere_and_the_owners_have_seen_and_forgotten_is_not_shown() {
    let mut story = Story::new(|_, _, _, _| {});
    story.tell(Event::Answered { call: CallId(0), answer: partial(Some(record(8))) });
    story.found(1, Some(record(3))).found(2, None);
    let forgotten = record(8).context().clone();
    // One of them knows that it was superseded.
    story.confirm(&forgotten, |at| (at == 1).then(|| having_seen(8)));
    assert_eq!(story.value(), Some((Some("3".into()), 3)));
}

#[test]
fn at_the_deadline_what_no_owner_has_spoken_of_is_not_shown_beside_what_they_said() {
    for answered in [false, true] {
        let mut story = Story::new(|_, _, _, _| {});
        story.tell(Event::Answered { call: CallId(0), answer: partial(Some(record(8))) });
        story.found(1, Some(record(3))).found(2, None);
        if answered {
            story.found(3, None);
        }
        story.tell(Event::Deadline);
        assert_eq!(story.value(), Some((Some("3".into()), 2)));
    }
}

#[test]
fn a_read_that_nobody_confirms_shows_what_is_kept() {
    let mut story = Story::new(|_, _, _, _| {});
    story.tell(Event::Answered { call: CallId(0), answer: partial(Some(record(8))) });
    story.found(1, Some(record(3))).found(2, None);
    story.fail(3).fail(4);
    assert_eq!(story.value(), Some((Some("8".into()), 3)));
    assert!(story.get.is_done());
}

/// What an owner answers that holds nothing, and has seen that write.
fn having_seen(stamp: u64) -> Record {
    Record::default().having_seen([Dot { stamp: Stamp(stamp), actor: Actor(stamp) }])
}

#[test]
fn nothing_older_is_shown_than_what_the_client_has_seen() {
    let since = |stamp: u64| {
        move |_: &Ring, _: Partition, _: &mut MemberIndex, options: &mut GetOptions| {
            (options.quorum, options.since) = (Quorum::one(), record(stamp).context().clone());
        }
    };
    let mut story = Story::new(since(5));
    assert!(matches!(&story.calls[0].1, Request::ReadSince { since, .. } if since == record(5).context()));
    story.found(0, Some(record(3)));
    assert_eq!(story.calls.len(), 2, "another owner is asked");
    story.found(1, Some(record(5)));
    assert_eq!(story.value(), Some((Some("5".into()), 2)));
    // Nobody has it: the stand-ins are asked as well, and then the read is refused rather than stale.
    let mut story = Story::new(since(5));
    story.found(0, Some(record(3))).found(1, None).found(2, Some(record(2)));
    assert!(story.outcomes.is_empty() && story.calls.len() > 3);
    (3..story.calls.len() as u32).for_each(|call| {
        story.found(call, None);
    });
    assert_eq!(story.outcomes, [GetOutcome::Behind { answered: 3 }]);
    // It was deleted, and forgotten by all.
    let mut story = Story::new(since(5));
    story.found(0, Some(having_seen(5)));
    assert_eq!(story.value(), Some((None, 1)));
    // At the deadline, whoever was silent.
    let mut story = Story::new(since(5));
    story.found(0, Some(record(3))).tell(Event::Deadline);
    assert_eq!(story.outcomes, [GetOutcome::Behind { answered: 1 }]);
}

#[test]
fn a_look_at_all_owners_waits_for_each() {
    let mut story = Story::new(|_, _, _, options| options.all = true);
    assert_eq!(story.asked(), ["o0", "o1", "o2"]);
    story.found(0, None).found(1, None);
    assert!(story.outcomes.is_empty());
    story.found(2, Some(record(4)));
    assert_eq!(story.value(), Some((Some("4".into()), 3)));
}

proptest! {
    #[test]
    fn whatever_happens_a_read_concludes_once_and_shows_all_that_owners_said(
        events in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 0..30),
        (hard, all, stranger) in any::<(bool, bool, bool)>(),
        needed in 1u8..=3,
    ) {
        let mut story = Story::new(|ring, partition, me, options| {
            options.quorum = Quorum::of(Count::Exactly(needed), 3).unwrap();
            (options.hard, options.all) = (hard, all);
            if stranger {
                *me = ring.stand_ins(partition)[0];
            }
        });
        let (mut open, mut known, mut stamp): (Vec<u32>, usize, u64) = (Vec::new(), 0, 0);
        let (mut said, mut heard) = (Record::default(), 0usize);
        let last = [(2, 0, 0); 40];
        for (kind, which, how) in events.into_iter().chain(last) {
            open.extend(known as u32..story.calls.len() as u32);
            known = story.calls.len();
            let over = !story.outcomes.is_empty();
            match kind % 8 {
                0 => story.tell(Event::Woken),
                1 if how < 60 => story.tell(Event::Deadline),
                _ if open.is_empty() => {}
                _ => {
                    let call = open.swap_remove(usize::from(which) % open.len());
                    if how % 3 == 0 {
                        story.fail(call);
                    } else {
                        stamp += 1;
                        let record = (how % 3 == 1).then(|| record(stamp));
                        if !over && matches!(story.calls[call as usize].1, Request::Read { .. }) {
                            said = said.merge(&record.clone().unwrap_or_default());
                            heard += 1;
                        }
                        story.found(call, record);
                    }
                }
            }
            if !over && let Some(outcome) = story.outcomes.first() {
                match outcome {
                    GetOutcome::Found { record, .. } => {
                        prop_assert!(record.includes(&said));
                        prop_assert!(heard > 0 || !record.is_unknown(), "absent without an owner's word");
                        prop_assert!(!hard || heard >= usize::from(needed));
                    }
                    GetOutcome::Unavailable { answered, .. } | GetOutcome::Behind { answered } => {
                        prop_assert_eq!(*answered, heard);
                    }
                }
            }
        }
        prop_assert_eq!(story.outcomes.len(), 1);
        prop_assert!(story.get.is_done());
    }
}

fn partial(record: Option<Record>) -> Answer {
    Answer::Partial(Part::Found { record })
}

#[test]
fn an_owner_that_is_being_filled_is_passed_over_and_what_it_holds_is_shown() {
    let mut story = Story::new(|_, _, _, _| {});
    story.tell(Event::Answered { call: CallId(0), answer: partial(Some(record(8))) });
    assert_eq!(story.asked(), ["o0", "o1", "o2"]);
    story.found(1, Some(record(3))).found(2, None);
    story.confirm(record(8).context(), |_| None);
    // Two owners that count, and what the third held.
    assert_eq!(story.value(), Some((Some("8".into()), 3)));
    assert!(matches!(story.outcomes[0], GetOutcome::Found { answered: 2, .. }));
}

#[test]
fn what_an_owner_lacks_that_is_being_filled_is_unknown_and_never_absent() {
    let mut story = Story::new(|_, _, _, _| {});
    story.tell(Event::Answered { call: CallId(0), answer: partial(None) });
    story.fail(1).fail(2);
    for call in 3..story.calls.len() as u32 {
        story.found(call, None);
    }
    assert_eq!(story.outcomes, [GetOutcome::Unavailable { answered: 0, needed: 2, unfilled: 1 }]);
    // What it holds is shown, and counts for nothing.
    let mut story = Story::new(|_, _, _, _| {});
    story.tell(Event::Answered { call: CallId(0), answer: partial(Some(record(8))) });
    story.fail(1).fail(2);
    for call in 3..story.calls.len() as u32 {
        story.found(call, None);
    }
    assert_eq!(story.value(), Some((Some("8".into()), 1)));
    assert!(matches!(story.outcomes[0], GetOutcome::Found { answered: 0, .. }));
}

#[test]
fn a_delete_that_only_an_owner_knows_that_is_being_filled_proves_nothing() {
    let dot = Dot { stamp: Stamp(9), actor: Actor(9) };
    let tombstone = record(3).write(&Seen::Everything, dot, None).unwrap();
    let mut story = Story::new(|_, _, _, _| {});
    story.tell(Event::Answered { call: CallId(0), answer: partial(Some(tombstone)) });
    story.fail(1).fail(2);
    for call in 3..story.calls.len() as u32 {
        story.found(call, None);
    }
    assert!(matches!(story.outcomes[..], [GetOutcome::Unavailable { .. }]), "{:?}", story.outcomes);
}

#[test]
fn a_named_number_of_owners_is_one_of_owners_that_count() {
    let mut story = Story::new(|_, _, _, options| options.hard = true);
    story.tell(Event::Answered { call: CallId(0), answer: partial(Some(record(8))) });
    story.found(1, Some(record(8))).fail(2);
    assert_eq!(story.outcomes, [GetOutcome::Unavailable { answered: 1, needed: 2, unfilled: 1 }]);
}
