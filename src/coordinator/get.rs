//! `Get`: a client's read in the AP modes.
//!
//! Asks as many owners as the request wants, this node first if it is one; another for each that fails or is
//! silent for a while. What they hold is merged, so a stale copy cannot hide a newer one that was read. If no
//! owner can be reached, or all of them stay silent, the stand-ins are asked, this node included; where they know nothing
//! either the answer is "unknown", never "absent". After DeCandia et al., "Dynamo" (2007), §4.5.

use super::Quorum;
use super::put::asking_order;
use crate::operation::{CallId, Command, Event, Operation};
use crate::placement::{MemberIndex, Partition, Ring};
use crate::protocol::{Answer, Request};
use crate::record::{Key, Record};
use std::sync::Arc;

/// How a read ended.
#[derive(Clone, PartialEq, Debug)]
pub enum GetOutcome {
    /// Owners, or at least stand-ins, were heard.
    Found {
        /// What they hold, merged; nothing known when the key was never written.
        record: Record,
        /// Who answered, and with what.
        answers: Vec<(MemberIndex, Option<Record>)>,
    },
    /// Too few owners could be reached.
    Unavailable {
        /// How many answered.
        answered: usize,
        /// How many were wanted.
        needed: usize,
    },
}

/// How a [`Get`] is to go about it.
#[derive(Clone, Debug)]
pub struct GetOptions {
    /// How many owners are asked.
    pub quorum: Quorum,
    /// Whether fewer answers are an error: the client named a number.
    pub hard: bool,
    /// Whether every owner is waited for, whatever the quorum.
    pub all: bool,
    /// How long an owner may be silent before another is asked too, in milliseconds.
    pub patience_ms: u64,
    /// Members believed to be down: asked last.
    pub avoid: Vec<MemberIndex>,
}

/// Most stand-ins a read turns to when no owner answers.
const STAND_INS_ASKED_MAX: usize = 8;

/// The machine.
pub struct Get {
    key: Key,
    ring: Arc<Ring>,
    partition: Partition,
    me: MemberIndex,
    options: GetOptions,
    /// Owners not asked yet, next one last.
    unasked: Vec<MemberIndex>,
    calls: Vec<Option<Asked>>,
    /// Owners asked and not heard.
    owners_awaited: usize,
    stand_ins_awaited: usize,
    answers: Vec<(MemberIndex, Option<Record>)>,
    /// What stand-ins keep for the owners.
    kept: Vec<(MemberIndex, Option<Record>)>,
    standing_in: bool,
    concluded: bool,
}

/// Whom a call went to, and as what.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Owner(MemberIndex),
    StandIn(MemberIndex),
}

impl Get {
    /// A read coordinated by `me` over the owners that `ring` names.
    pub fn new(key: Key, ring: Arc<Ring>, me: MemberIndex, options: GetOptions) -> Get {
        let partition = Partition::of(key.position());
        let mut unasked = asking_order(&ring, partition, me, &options.avoid);
        unasked.reverse();
        Get {
            key,
            ring,
            partition,
            me,
            options,
            unasked,
            calls: Vec::with_capacity(2),
            owners_awaited: 0,
            stand_ins_awaited: 0,
            answers: Vec::with_capacity(2),
            kept: Vec::new(),
            standing_in: false,
            concluded: false,
        }
    }

    fn ask(&mut self, asked: Asked, commands: &mut Vec<Command>) {
        let call = CallId(self.calls.len() as u32);
        self.calls.push(Some(asked));
        let key = self.key.clone();
        let (to, request) = match asked {
            Asked::Owner(member) => {
                self.owners_awaited += 1;
                (member, Request::Read { key })
            }
            Asked::StandIn(member) => {
                self.stand_ins_awaited += 1;
                (member, Request::ReadHint { key })
            }
        };
        commands.push(Command::Call { call, to, request });
    }

    fn ask_next(&mut self, commands: &mut Vec<Command>) {
        if let Some(member) = self.unasked.pop() {
            self.ask(Asked::Owner(member), commands);
            commands.push(Command::Wake { after_ms: self.options.patience_ms });
        }
    }

    fn wanted(&self) -> usize {
        if self.options.all { self.ring.owners(self.partition).len() } else { self.options.quorum.needed() }
    }

    /// Asks the stand-ins, once, if no owner has answered.
    fn ask_stand_ins(&mut self, commands: &mut Vec<Command>) {
        if self.standing_in || self.options.hard || self.concluded || !self.answers.is_empty() {
            return;
        }
        self.standing_in = true;
        let mut stand_ins = self.ring.stand_ins(self.partition);
        stand_ins.truncate(STAND_INS_ASKED_MAX);
        if !stand_ins.contains(&self.me) {
            stand_ins.push(self.me);
        }
        for member in stand_ins {
            self.ask(Asked::StandIn(member), commands);
        }
    }

    /// A call came back; who was asked.
    fn take(&mut self, call: CallId) -> Option<Asked> {
        let asked = self.calls.get_mut(call.0 as usize)?.take()?;
        match asked {
            Asked::Owner(_) => self.owners_awaited -= 1,
            Asked::StandIn(_) => self.stand_ins_awaited -= 1,
        }
        Some(asked)
    }

    fn conclude(&mut self, must: bool) -> Option<GetOutcome> {
        let known = self.kept.iter().any(|(_, record)| record.is_some());
        // Owners that are only slow are waited for to the end: what is kept for them is not all they hold.
        let down = |call: &Option<Asked>| match call {
            Some(Asked::Owner(member)) => self.options.avoid.contains(member),
            _ => true,
        };
        let stood_in = self.standing_in && self.stand_ins_awaited == 0 && known && self.calls.iter().all(down);
        let over = self.owners_awaited + self.stand_ins_awaited == 0;
        if self.concluded || !(self.answers.len() >= self.wanted() || must || over || stood_in) {
            return None;
        }
        self.concluded = true;
        let (answered, needed) = (self.answers.len(), self.options.quorum.needed());
        if answered == 0 && !known || self.options.hard && !self.options.quorum.is_reached(answered) {
            return Some(GetOutcome::Unavailable { answered, needed });
        }
        // Where an owner was heard after all, what is kept for it counts too: nobody knows whether it has arrived.
        let mut answers = std::mem::take(&mut self.answers);
        answers.extend(std::mem::take(&mut self.kept).into_iter().filter(|(_, record)| record.is_some()));
        let mut held = answers.iter().filter_map(|(_, record)| record.as_ref());
        let first = held.next().cloned().unwrap_or_default();
        let record = held.fold(first, |merged, record| if merged == *record { merged } else { merged.merge(record) });
        Some(GetOutcome::Found { record, answers })
    }
}

impl Operation for Get {
    type Output = GetOutcome;

    fn on(&mut self, event: Event, commands: &mut Vec<Command>) -> Option<GetOutcome> {
        let must = matches!(event, Event::Deadline);
        match event {
            Event::Start => (0..self.wanted()).for_each(|_| self.ask_next(commands)),
            Event::Woken if self.unasked.is_empty() => self.ask_stand_ins(commands),
            Event::Woken => self.ask_next(commands),
            Event::Answered { call, answer } => match (self.take(call)?, answer) {
                (Asked::Owner(member), Answer::Found { record }) => self.answers.push((member, record)),
                (Asked::StandIn(member), Answer::Found { record }) => self.kept.push((member, record)),
                (Asked::Owner(_), _) => self.ask_next(commands),
                (Asked::StandIn(_), _) => {}
            },
            Event::Failed { call, .. } => {
                if let Asked::Owner(_) = self.take(call)? {
                    self.ask_next(commands);
                }
            }
            Event::Deadline => {}
        }
        if self.owners_awaited == 0 && !must {
            self.ask_stand_ins(commands);
        }
        self.conclude(must)
    }

    fn is_done(&self) -> bool {
        self.concluded
    }
}

#[cfg(test)]
mod tests {
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
            let mut options = GetOptions { quorum, hard: false, all: false, patience_ms: 100, avoid: Vec::new() };
            change(&ring, partition, &mut me, &mut options);
            let get = Get::new(key(), ring.clone(), me, options);
            let mut story = Story { get, ring, calls: Vec::new(), outcomes: Vec::new() };
            story.tell(Event::Start);
            story
        }

        fn tell(&mut self, event: Event) {
            let mut commands = Vec::new();
            self.outcomes.extend(self.get.on(event, &mut commands));
            for command in commands {
                if let Command::Call { call, to, request } = command {
                    assert_eq!(call.0 as usize, self.calls.len());
                    self.calls.push((to, request));
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
                GetOutcome::Found { record, answers } => {
                    let value = record.winner().map(|winner| String::from_utf8(winner.content.value.to_vec()).unwrap());
                    Some((value, answers.len()))
                }
                GetOutcome::Unavailable { .. } => None,
            }
        }
    }

    #[test]
    fn a_stale_copy_does_not_hide_a_newer_one() {
        let mut story = Story::new(|_, _, _, _| {});
        story.found(0, Some(record(3))).found(1, Some(record(8)));
        assert_eq!(story.value(), Some((Some("8".into()), 2)));
        assert!(story.get.is_done());
        assert_eq!(story.asked(), ["o0", "o1"]);
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
    fn an_owner_heard_after_its_stand_ins_counts_first() {
        let mut story = Story::new(|ring, partition, me, _| *me = ring.stand_ins(partition)[0]);
        story.tell(Event::Woken);
        story.tell(Event::Woken);
        story.found(3, Some(record(5))).found(0, Some(record(2))).found(1, Some(record(3)));
        assert_eq!(story.value(), Some((Some("5".into()), 3)));
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
                        GetOutcome::Unavailable { answered, .. } => prop_assert_eq!(*answered, heard),
                    }
                }
            }
            prop_assert_eq!(story.outcomes.len(), 1);
            prop_assert!(story.get.is_done());
        }
    }
}
