//! `Entrust`: hands a proposal to the owner that is to have it agreed on: the first one that lives.
//!
//! All who want something of a key turn to the same owner, where they queue: see [`Turns`](super::Turns). One that surely
//! did not begin is passed over for the next; of one that falls silent nobody knows.

use super::order::asking_order;
use crate::operation::{CallId, Command, Event, Failure, Operation};
use crate::placement::{MemberIndex, Partition, Ring};
use crate::protocol::{Answer, Decision, Reach, Refusal, Request};
use crate::record::{Key, Proposal};

/// The machine.
pub struct Entrust {
    key: Key,
    proposal: Option<Box<Proposal>>,
    reach: Reach,
    within_ms: u32,
    /// Owners not asked yet, next one last.
    unasked: Vec<MemberIndex>,
    calls_made: u32,
    awaited: bool,
    last: Decision,
    concluded: bool,
}

impl Entrust {
    /// A proposal, or an identity write, for `key` over the owners that `ring` names, those in `avoid` last; it may take so
    /// long.
    pub fn new(
        key: Key,
        proposal: Option<Proposal>,
        reach: Reach,
        ring: &Ring,
        avoid: &[MemberIndex],
        within_ms: u32,
    ) -> Entrust {
        let mut unasked = asking_order(ring, Partition::of(key.position()), None, &[], avoid);
        unasked.reverse();
        let last = Decision::Unavailable { answered: 0, cause: None };
        let proposal = proposal.map(Box::new);
        Entrust { key, proposal, reach, within_ms, unasked, calls_made: 0, awaited: false, last, concluded: false }
    }

    fn ask_next(&mut self, commands: &mut Vec<Command>) -> Option<Decision> {
        self.awaited = false;
        let Some(to) = self.unasked.pop() else { return Some(self.last.clone()) };
        let Entrust { key, proposal, reach, within_ms, .. } = self;
        let (reach, within_ms) = (*reach, *within_ms);
        let request = Request::Propose { key: key.clone(), proposal: proposal.clone(), reach, within_ms };
        commands.push(Command::Call { call: CallId(self.calls_made), to, request });
        self.calls_made += 1;
        self.awaited = true;
        None
    }

    fn passed_over(&mut self, refusal: Option<Refusal>, commands: &mut Vec<Command>) -> Option<Decision> {
        if let (Some(refusal), Decision::Unavailable { cause, .. }) = (refusal, &mut self.last) {
            cause.get_or_insert(refusal);
        }
        self.ask_next(commands)
    }
}

impl Operation for Entrust {
    type Output = Decision;
    const DELIVERS: bool = true;

    fn on(&mut self, event: Event, commands: &mut Vec<Command>) -> Option<Decision> {
        if self.concluded {
            return None;
        }
        let is_present = |call: CallId| call.0 + 1 == self.calls_made;
        let decision = match event {
            Event::Start => self.ask_next(commands),
            Event::Answered { call, answer } if is_present(call) => match answer {
                // One that is full is not passed over, as it would be brought the key all the same.
                Answer::Decided(decision @ Decision::Unavailable { cause: Some(Refusal::NodeFull { .. }), .. }) => {
                    Some(decision)
                }
                // It is nowhere, and another may reach those that this one did not.
                Answer::Decided(decision @ Decision::Unavailable { .. }) => {
                    self.last = decision;
                    self.ask_next(commands)
                }
                Answer::Decided(decision) => Some(decision),
                Answer::Refused(refusal) => self.passed_over(Some(refusal), commands),
                _ => Some(Decision::Unknown { acked: 0, cause: None }),
            },
            Event::Failed { call, failure } if is_present(call) => match failure {
                Failure::Refused(refusal) => self.passed_over(Some(refusal), commands),
                Failure::Unreachable => self.passed_over(None, commands),
                Failure::Unknown => Some(Decision::Unknown { acked: 0, cause: None }),
            },
            Event::Deadline if self.awaited => Some(Decision::Unknown { acked: 0, cause: None }),
            Event::Deadline => Some(self.last.clone()),
            Event::Answered { .. } | Event::Failed { .. } | Event::Woken => None,
        };
        self.concluded = decision.is_some();
        decision
    }

    fn is_done(&self) -> bool {
        self.concluded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::{ClusterId, Layout, Member, Mode};
    use crate::record::Record;

    fn begin(avoid: &[usize]) -> (Entrust, Vec<Command>, Vec<MemberIndex>) {
        let members = (0..5).map(|number| Member::new(format!("http://n{number}:1"))).collect();
        let ring = Ring::new(Layout::provisional(ClusterId(1), 3, Mode::Quorum, members).unwrap());
        let key = Key::new("k").unwrap();
        let owners = ring.owners(Partition::of(key.position())).to_vec();
        let avoid: Vec<MemberIndex> = avoid.iter().map(|at| owners[*at]).collect();
        let mut entrust = Entrust::new(key, None, Reach::Majority, &ring, &avoid, 900);
        let mut commands = Vec::new();
        assert_eq!(entrust.on(Event::Start, &mut commands), None);
        (entrust, commands, owners)
    }

    fn asked(commands: &[Command]) -> MemberIndex {
        match commands.last() {
            Some(Command::Call { to, request: Request::Propose { .. }, .. }) => *to,
            other => panic!("{other:?}"),
        }
    }

    fn made() -> Decision {
        Decision::Made { created: true, record: Record::default(), acked: 2 }
    }

    #[test]
    fn all_turn_to_the_first_owner_that_is_believed_to_live() {
        let (_, commands, owners) = begin(&[]);
        assert_eq!(asked(&commands), owners[0]);
        let (mut entrust, mut commands, owners) = begin(&[0]);
        assert_eq!(asked(&commands), owners[1]);
        let answered = Event::Answered { call: CallId(0), answer: Answer::Decided(made()) };
        assert_eq!(entrust.on(answered, &mut commands), Some(made()));
        assert!(entrust.is_done());
    }

    #[test]
    fn one_that_surely_did_not_begin_is_passed_over_and_one_that_may_have_is_not() {
        let (mut entrust, mut commands, owners) = begin(&[]);
        let refused = Event::Answered { call: CallId(0), answer: Answer::Refused(Refusal::NotFilled) };
        assert_eq!(entrust.on(refused, &mut commands), None);
        assert_eq!(asked(&commands), owners[1]);
        let unreachable = Event::Failed { call: CallId(1), failure: Failure::Unreachable };
        assert_eq!(entrust.on(unreachable, &mut commands), None);
        assert_eq!(asked(&commands), owners[2]);
        let late = Event::Answered { call: CallId(0), answer: Answer::Decided(made()) };
        assert_eq!(entrust.on(late, &mut commands), None, "it was passed over");
        let silent = Event::Failed { call: CallId(2), failure: Failure::Unknown };
        assert!(matches!(entrust.on(silent, &mut commands), Some(Decision::Unknown { .. })));
    }

    #[test]
    fn one_that_is_full_is_not_passed_over() {
        let (mut entrust, mut commands, _) = begin(&[]);
        let full = Decision::Unavailable { answered: 2, cause: Some(Refusal::NodeFull { max: 9 }) };
        let answered = Event::Answered { call: CallId(0), answer: Answer::Decided(full.clone()) };
        assert_eq!(entrust.on(answered, &mut commands), Some(full));
        assert_eq!(commands.len(), 1, "nobody else was asked: {commands:?}");
    }

    #[test]
    fn where_nobody_began_it_is_said_that_nothing_was_stored() {
        let (mut entrust, mut commands, _) = begin(&[]);
        for call in 0..2 {
            let answer = Answer::Decided(Decision::Unavailable { answered: 1, cause: None });
            assert_eq!(entrust.on(Event::Answered { call: CallId(call), answer }, &mut commands), None);
        }
        let last = Event::Failed { call: CallId(2), failure: Failure::Unreachable };
        let outcome = entrust.on(last, &mut commands);
        assert_eq!(outcome, Some(Decision::Unavailable { answered: 1, cause: None }));
        let (mut entrust, mut commands, _) = begin(&[]);
        assert!(matches!(entrust.on(Event::Deadline, &mut commands), Some(Decision::Unknown { .. })));
    }
}
