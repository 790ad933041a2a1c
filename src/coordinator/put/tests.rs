//! Stories of a write, told event by event.

use super::super::{Count, Replicas};
use super::*;
use crate::placement::{ClusterId, Layout, Member, Mode};
use crate::record::{Actor, Content, Key, Unfit};
use proptest::prelude::*;
use std::collections::BTreeSet;

mod drained;
mod overtaken;
mod twins;

/// When the client asked.
const NOW_MS: u64 = 1_000_000;

/// A machine under test, and everything it has asked for.
struct Story {
    put: Put,
    ring: Arc<Ring>,
    calls: Vec<(MemberIndex, Request)>,
    wakes: Vec<u64>,
    outcomes: Vec<PutOutcome>,
}

fn ring() -> Arc<Ring> {
    let members = (0..5).map(|node| Member::new(format!("http://n{node}:1"))).collect();
    Arc::new(Ring::new(Layout::provisional(ClusterId(1), 3, Mode::Sloppy, members).unwrap()))
}

fn key() -> Key {
    Key::new("k").unwrap()
}

fn owners(ring: &Ring) -> Vec<MemberIndex> {
    ring.owners(Partition::of(key().position())).to_vec()
}

fn stand_ins(ring: &Ring) -> Vec<MemberIndex> {
    ring.stand_ins(Partition::of(key().position()))
}

fn dot(actor: u64, stamp: u64) -> Dot {
    Dot { stamp: Stamp(stamp), actor: Actor(actor) }
}

/// A record of one write that nobody else knows of.
fn record(actor: u64, stamp: u64) -> Record {
    Record::default().write(&Seen::Everything, dot(actor, stamp), Some(Content::plain("v"))).unwrap()
}

fn written(actor: u64, stamp: u64) -> Answer {
    Answer::Written { created: true, record: record(actor, stamp) }
}

fn edit(seen: Seen) -> Edit {
    Edit::write(seen, Some(Content::plain("v")))
}

fn merged(more: Option<Record>) -> Answer {
    Answer::Merged { applied: true, more }
}

fn refused() -> Answer {
    Answer::Refused(Refusal::ReadOnly { why: "full".into() })
}

impl Story {
    /// A write of a majority, coordinated by an owner; `change` makes it another.
    fn new(change: impl FnOnce(&Ring, &mut Write, &mut MemberIndex, &mut PutOptions)) -> Story {
        Story::within(ring(), change)
    }

    fn within(ring: Arc<Ring>, change: impl FnOnce(&Ring, &mut Write, &mut MemberIndex, &mut PutOptions)) -> Story {
        let mut write = Write { key: key(), edit: Edit::write(Seen::Everything, Some(Content::plain("v"))) };
        let mut me = owners(&ring)[0];
        let quorum = Quorum::of(Count::Majority, 3).unwrap();
        let mut options = PutOptions {
            quorum,
            hard: false,
            covers: true,
            now: Stamp::from_ms(NOW_MS),
            deadline_ms: 4_000,
            avoid: Vec::new(),
            earlier: None,
        };
        change(&ring, &mut write, &mut me, &mut options);
        let put = Put::new(write, ring.clone(), me, options);
        let mut story = Story { put, ring, calls: Vec::new(), wakes: Vec::new(), outcomes: Vec::new() };
        story.tell(Event::Start);
        story
    }

    fn plain() -> Story {
        Story::new(|_, _, _, _| {})
    }

    /// Coordinated by a node that is no owner: the last of the stand-ins.
    fn by_stranger() -> Story {
        Story::new(|ring, _, me, _| *me = stand_ins(ring)[1])
    }

    fn tell(&mut self, event: Event) {
        let mut commands = Vec::new();
        let outcome = self.put.on(event, &mut commands);
        self.outcomes.extend(outcome);
        for command in commands {
            match command {
                Command::Call { call, to, request } => {
                    assert_eq!(call.0 as usize, self.calls.len(), "calls are counted up");
                    self.calls.push((to, request));
                }
                Command::Wake { after_ms } => self.wakes.push(after_ms),
            }
        }
    }

    fn answer(&mut self, call: u32, answer: Answer) -> &mut Story {
        self.tell(Event::Answered { call: CallId(call), answer });
        self
    }

    fn fail(&mut self, call: u32, failure: Failure) -> &mut Story {
        self.tell(Event::Failed { call: CallId(call), failure });
        self
    }

    /// The calls as words: what is asked of which owner (`o0`…) or stand-in (`s0`…).
    fn asked(&self) -> Vec<String> {
        let (owners, stand_ins) = (owners(&self.ring), stand_ins(&self.ring));
        let name = |to: MemberIndex| match owners.iter().position(|owner| *owner == to) {
            Some(owner) => format!("o{owner}"),
            None => format!("s{}", stand_ins.iter().position(|stand_in| *stand_in == to).unwrap()),
        };
        let word = |request: &Request| match request {
            Request::Write { .. } => "write",
            Request::Merge { .. } => "copy",
            Request::Cover { .. } => "cover",
            Request::Hint { .. } => "hint",
            Request::HintWrite { .. } => "write-hint",
            Request::MayForget { .. } | Request::Forget { .. } => "forget",
            _ => "read",
        };
        self.calls.iter().map(|(to, request)| format!("{} {}", word(request), name(*to))).collect()
    }

    fn outcome(&self) -> &PutOutcome {
        assert_eq!(self.outcomes.len(), 1, "{:?}", self.outcomes);
        &self.outcomes[0]
    }

    fn replicas(&self) -> Replicas {
        match self.outcome() {
            PutOutcome::Stored { replicas, .. }
            | PutOutcome::Short { replicas, .. }
            | PutOutcome::Unknown { replicas, .. } => *replicas,
            PutOutcome::Refused(refusal) => panic!("{refusal}"),
        }
    }
}

fn reached(acked: usize, hinted: usize) -> Replicas {
    Replicas { wanted: 3, acked, hinted }
}

#[test]
fn a_majority_is_told_at_once_and_the_last_owner_is_still_listened_to() {
    let mut story = Story::plain();
    story.answer(0, written(1, 9)).answer(1, merged(None));
    assert!(matches!(story.outcome(), PutOutcome::Stored { created: true, .. }));
    assert_eq!(story.replicas(), reached(2, 0));
    assert!(!story.put.is_done());
    story.answer(2, merged(None));
    assert!(story.put.is_done());
    assert_eq!(story.asked(), ["write o0", "copy o1", "copy o2"]);
}

#[test]
fn an_owner_that_refuses_or_is_silent_is_passed_over() {
    let mut story = Story::plain();
    story.answer(0, refused());
    assert_eq!(story.asked(), ["write o0", "write o1"]);
    story.tell(Event::Woken);
    assert_eq!(story.asked()[2..], ["write o2"]);
    story.answer(2, written(3, 9));
    assert_eq!(story.asked()[3..], ["copy o0", "copy o1"]);
    story.fail(1, Failure::Unknown).answer(4, merged(None));
    assert_eq!(story.replicas(), reached(2, 0));
}

#[test]
fn without_any_owner_the_coordinator_keeps_the_write_for_all() {
    let mut story = Story::by_stranger();
    for call in 0..3 {
        story.fail(call, Failure::Unreachable);
    }
    assert_eq!(story.asked()[3..], ["write-hint s1"]);
    story.answer(3, written(9, 9));
    assert!(matches!(story.outcome(), PutOutcome::Short { .. }));
    assert_eq!(story.replicas(), reached(0, 3));
    assert!(story.put.is_done());
}

#[test]
fn an_owner_or_a_client_that_names_a_number_makes_no_hint_of_its_own() {
    let mut story = Story::plain();
    for call in 0..3 {
        story.fail(call, Failure::Unreachable);
    }
    assert_eq!(story.outcome(), &PutOutcome::Unknown { replicas: reached(0, 0), cause: None, is_nowhere: true });
    let mut story = Story::new(|ring, _, me, options| (*me, options.hard) = (stand_ins(ring)[0], true));
    for call in 0..3 {
        story.fail(call, Failure::Unreachable);
    }
    assert_eq!(story.outcome(), &PutOutcome::Unknown { replicas: reached(0, 0), cause: None, is_nowhere: true });
    assert!(story.put.is_done());
}

#[test]
fn a_hint_for_a_failed_copy_goes_to_one_candidate_after_another() {
    let mut story = Story::plain();
    story.answer(0, written(1, 9)).fail(1, Failure::Unreachable).fail(2, Failure::Unknown);
    assert_eq!(story.asked()[3..], ["hint s0", "hint s0"]);
    story.answer(3, merged(None)).fail(4, Failure::Unreachable);
    assert_eq!(story.asked()[5..], ["hint s1"]);
    assert!(story.outcomes.is_empty());
    story.fail(5, Failure::Unreachable);
    assert_eq!(story.asked()[6..], ["hint o0"], "the coordinator itself comes last");
    story.answer(6, merged(None));
    assert!(matches!(story.outcome(), PutOutcome::Short { .. }));
    assert_eq!(story.replicas(), reached(1, 2));
}

#[test]
fn a_hint_that_nobody_keeps_is_not_counted() {
    let mut story = Story::plain();
    story.answer(0, written(1, 9)).fail(1, Failure::Unreachable).fail(2, Failure::Unreachable);
    for call in 3..9 {
        story.answer(call, Answer::Refused(Refusal::HintsFull));
    }
    assert_eq!(story.replicas(), reached(1, 0));
    assert!(story.put.is_done());
}

#[test]
fn owners_known_to_be_down_get_a_copy_and_a_hint_at_once() {
    let mut story = Story::new(|ring, _, _, options| options.avoid = owners(ring)[1..].to_vec());
    story.answer(0, written(1, 9));
    assert_eq!(story.asked()[1..], ["copy o1", "hint s0", "copy o2", "hint s0"]);
    story.answer(2, merged(None)).answer(4, merged(None));
    // They may be up after all, so they have a moment, and no more than that.
    assert!(story.outcomes.is_empty() && *story.wakes.last().unwrap() == 50);
    story.tell(Event::Woken);
    assert_eq!(story.replicas(), reached(1, 2));
    // They were not down after all, or fail: the hints stay one each.
    story.answer(1, merged(None)).fail(3, Failure::Unknown);
    assert!(story.put.is_done());
    assert_eq!(story.calls.len(), 5);
}

#[test]
fn a_stand_in_known_to_be_down_is_asked_last() {
    let mut story = Story::new(|ring, _, _, options| options.avoid = vec![owners(ring)[1], stand_ins(ring)[0]]);
    story.answer(0, written(1, 9));
    assert_eq!(story.asked()[1..], ["copy o2", "copy o1", "hint s1"]);
}

#[test]
fn a_silent_copy_becomes_a_hint_after_half_the_time_and_may_still_be_taken() {
    let mut story = Story::plain();
    story.answer(0, written(1, 9));
    assert_eq!(story.wakes, [500, 2_000]);
    story.tell(Event::Woken);
    assert_eq!(story.asked()[3..], ["hint s0", "hint s0"]);
    story.answer(3, merged(None)).answer(1, merged(None));
    assert_eq!(story.replicas(), reached(2, 0), "an owner that took it needs no hint");
}

#[test]
fn a_named_number_that_is_missed_is_an_error_and_hints_do_not_end_the_wait() {
    let mut story = Story::new(|ring, _, _, options| {
        (options.hard, options.avoid) = (true, owners(ring)[1..].to_vec());
    });
    story.answer(0, written(1, 9)).answer(2, merged(None)).answer(4, merged(None));
    assert!(story.outcomes.is_empty(), "both owners may still take it");
    story.answer(1, merged(None));
    assert!(matches!(story.outcome(), PutOutcome::Stored { .. }));

    let mut story = Story::new(|_, _, _, options| options.hard = true);
    story.answer(0, written(1, 9)).fail(1, Failure::Unreachable).fail(2, Failure::Unreachable);
    assert_eq!(story.outcome(), &PutOutcome::Unknown { replicas: reached(1, 0), cause: None, is_nowhere: false });
    assert!(!story.put.is_done(), "the hints are still on their way");
}

#[test]
fn at_the_deadline_what_is_known_is_said_and_nobody_else_is_asked() {
    let mut story = Story::by_stranger();
    story.tell(Event::Deadline);
    assert_eq!(story.outcome(), &PutOutcome::Unknown { replicas: reached(0, 0), cause: None, is_nowhere: false });
    story.fail(0, Failure::Unreachable);
    assert_eq!(story.asked(), ["write o0"]);
    assert!(story.put.is_done());
}

#[test]
fn a_maker_that_answers_after_the_deadline_is_still_copied() {
    let mut story = Story::plain();
    story.tell(Event::Deadline);
    story.answer(0, written(1, 9));
    assert_eq!(story.asked(), ["write o0", "copy o1", "copy o2"]);
    story.fail(1, Failure::Unknown).answer(2, merged(None)).answer(3, merged(None));
    assert!(story.put.is_done());
    assert_eq!(story.outcomes.len(), 1);
}

#[test]
fn a_reason_that_all_owners_share_is_final_unless_another_may_have_taken_the_write() {
    let too_many = || Answer::Refused(Refusal::Unfit(Unfit::TooManySiblings));
    let mut story = Story::plain();
    story.answer(0, too_many());
    assert_eq!(story.outcome(), &PutOutcome::Refused(Refusal::Unfit(Unfit::TooManySiblings)));
    assert!(story.put.is_done());

    let mut story = Story::plain();
    story.tell(Event::Woken);
    story.answer(1, too_many());
    assert!(matches!(story.outcome(), PutOutcome::Unknown { cause: Some(_), .. }), "o0 is only silent");

    let mut story = Story::plain();
    story.fail(0, Failure::Unknown).answer(1, too_many());
    assert!(matches!(story.outcome(), PutOutcome::Unknown { cause: Some(_), .. }), "o0 may have it");

    let mut story = Story::plain();
    story.fail(0, Failure::Unreachable).answer(1, too_many());
    assert!(matches!(story.outcome(), PutOutcome::Refused(_)));

    for failing_disk in [refused(), Answer::Refused(Refusal::Fenced)] {
        let mut story = Story::plain();
        story.answer(0, failing_disk).answer(1, too_many());
        assert!(matches!(story.outcome(), PutOutcome::Unknown { cause: Some(_), .. }), "it may surface after a crash");
    }
}

#[test]
fn an_older_sibling_that_was_not_seen_is_covered_before_the_client_is_told() {
    let mut story = Story::plain();
    story.answer(0, written(1, 9)).answer(1, merged(Some(record(7, 5))));
    assert_eq!(story.asked()[3..], ["cover o0"]);
    assert!(story.outcomes.is_empty());
    let covering = record(1, 9).cover(&record(7, 5), dot(1, 9));
    story.answer(3, Answer::Written { created: false, record: covering });
    assert_eq!(story.asked()[4..], ["copy o1", "copy o2"]);
    story.answer(2, merged(None));
    assert!(story.outcomes.is_empty(), "three have the write, one of them the second round");
    story.answer(4, merged(None));
    assert!(matches!(story.outcome(), PutOutcome::Stored { record, .. } if record.siblings().len() == 1));
    assert_eq!(story.replicas(), reached(3, 0));
    story.answer(5, merged(None));
    assert!(story.put.is_done());
}

#[test]
fn newer_siblings_async_writes_and_writes_with_a_context_need_no_second_round() {
    for (stamp, covers, seen) in [
        (11, true, Seen::Everything),
        (5, false, Seen::Everything),
        (5, true, Seen::Only(crate::record::Context::new())),
    ] {
        let mut story = Story::new(|_, write, _, options| (write.edit, options.covers) = (edit(seen), covers));
        story.answer(0, written(1, 9)).answer(1, merged(Some(record(7, stamp))));
        assert!(matches!(story.outcome(), PutOutcome::Stored { .. }), "{stamp} {covers}");
    }
}

#[test]
fn what_is_found_after_the_client_was_told_is_left_alone() {
    let mut story = Story::plain();
    story.answer(0, written(1, 9)).answer(1, merged(None)).answer(2, merged(Some(record(7, 5))));
    assert_eq!(story.calls.len(), 3);
    assert!(story.put.is_done());
}

#[test]
fn a_second_round_is_carried_on_when_its_maker_is_gone() {
    let mut story = Story::plain();
    story.answer(0, written(1, 9)).answer(1, merged(Some(record(7, 5)))).fail(3, Failure::Unknown);
    assert_eq!(story.asked()[4..], ["copy o0", "copy o1", "copy o2"]);
    let Request::Merge { record: covering, .. } = &story.calls[5].1 else { panic!() };
    assert_eq!((covering.siblings().len(), covering.context().covers(dot(7, 5))), (1, true));
    story.answer(5, merged(None));
    assert!(story.outcomes.is_empty());
    story.answer(6, merged(None));
    assert_eq!(story.replicas(), reached(3, 0));
}

#[test]
fn a_deadline_in_the_second_round_tells_what_the_first_came_to() {
    let mut story = Story::plain();
    story.answer(0, written(1, 9)).answer(1, merged(Some(record(7, 5))));
    story.tell(Event::Deadline);
    assert_eq!(story.replicas(), reached(2, 0));
    story.fail(3, Failure::Unknown);
    assert_eq!(story.calls.len(), 4, "too late to cover anything");
}

/// Any order of what may happen, as numbers to be read against the calls under way.
fn events() -> impl Strategy<Value = Vec<(u8, u8, u8)>> {
    prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 0..60)
}

proptest! {
    #[test]
    fn whatever_happens_a_write_concludes_once_and_counts_only_what_was_said(
        events in events(),
        (stranger, hard, covers, with_context) in any::<(bool, bool, bool, bool)>(),
        (needed, avoided) in (1u8..=3, 0u8..32),
    ) {
        let mut story = Story::new(|ring, write, me, options| {
            let avoid = ring.members().filter(|member| avoided & 1 << member.0 != 0).collect();
            options.quorum = Quorum::of(Count::Exactly(needed), 3).unwrap();
            (options.hard, options.covers, options.avoid) = (hard, covers, avoid);
            *me = if stranger { stand_ins(ring)[1] } else { owners(ring)[1] };
            options.avoid.retain(|member| member != me);
            if with_context {
                write.edit = edit(Seen::Only(crate::record::Context::new()));
            }
        });
        let owners = owners(&story.ring);
        let (mut open, mut known): (Vec<u32>, usize) = (Vec::new(), 0);
        let (mut acked, mut kept, mut stamp) = (BTreeSet::new(), 0usize, 10);
        let mut step = |story: &mut Story, (kind, which, how): (u8, u8, u8)| {
            open.extend(known as u32..story.calls.len() as u32);
            known = story.calls.len();
            let told = story.outcomes.len();
            match kind % 8 {
                0 => story.tell(Event::Woken),
                1 if how < 40 => story.tell(Event::Deadline),
                _ if open.is_empty() => {}
                _ => {
                    let call = open.swap_remove(usize::from(which) % open.len());
                    let (to, request) = story.calls[call as usize].clone();
                    stamp += 1;
                    match how % 6 {
                        0 => drop(story.fail(call, Failure::Unreachable)),
                        1 => drop(story.fail(call, Failure::Unknown)),
                        2 => drop(story.answer(call, refused())),
                        3 if how > 200 => drop(story.answer(call, Answer::Found { record: None })),
                        _ => {
                            let answer = match &request {
                                Request::Write { .. } | Request::HintWrite { .. } => written(u64::from(to.0) + 1, stamp),
                                Request::Cover { other, dot, .. } => {
                                    let record = record(dot.actor.0, dot.stamp.0).cover(other, *dot);
                                    Answer::Written { created: false, record }
                                }
                                _ => merged((how % 2 == 0).then(|| record(77, u64::from(how) % 40))),
                            };
                            match &request {
                                Request::Hint { .. } | Request::HintWrite { .. } => kept += 1,
                                _ => drop(acked.insert(to)),
                            }
                            story.answer(call, answer);
                        }
                    }
                }
            }
            if story.outcomes.len() > told {
                let replicas = match &story.outcomes[told] {
                    PutOutcome::Stored { replicas, .. } => {
                        assert!(replicas.acked >= usize::from(needed));
                        *replicas
                    }
                    PutOutcome::Short { replicas, .. } => {
                        assert!(!hard && replicas.acked < usize::from(needed));
                        assert!(replicas.acked + replicas.hinted > 0);
                        *replicas
                    }
                    PutOutcome::Unknown { replicas, .. } => *replicas,
                    PutOutcome::Refused(refusal) => panic!("nobody said so: {refusal}"),
                };
                assert!(replicas.acked <= acked.iter().filter(|to| owners.contains(to)).count());
                assert!(replicas.hinted <= 3 * kept);
                assert!(replicas.acked + replicas.hinted <= replicas.wanted);
            }
            open.len() + story.calls.len() - known
        };
        for event in events {
            step(&mut story, event);
        }
        // Every call comes back in the end, for the driver sees to it; then the machine is through.
        for round in 0..200 {
            if step(&mut story, (2, 0, round % 2)) == 0 {
                break;
            }
        }
        prop_assert!(story.put.is_done(), "{:?}", story.asked());
        prop_assert_eq!(story.outcomes.len(), 1);
    }
}

mod filling;
