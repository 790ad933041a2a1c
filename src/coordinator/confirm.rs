//! `Confirm`: a read in the modes that agree. Answered with a copy whose ballot a majority of the owners confirms.
//!
//! Of a key that a majority of its owners last accepted under one ballot, that is what was agreed on: had anything later been
//! acknowledged before the read began, one of them would have accepted that. Where no majority has one ballot, something is
//! on its way, or was left half-way, and only an identity write can tell which: the machine says so, and whoever runs it
//! asks for one. An owner that may not vote answers for what it is worth, and does not count: an old disk that was put back
//! shows what was once agreed on, too.

use super::order::asking_order;
use crate::operation::{CallId, Command, Event, Operation};
use crate::placement::{MemberIndex, Partition, Ring};
use crate::protocol::{Answer, Request};
use crate::record::{Ballot, Context, Key, Record};

/// Whose copy is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Any owner's.
    Any,
    /// The first owner's.
    First,
    /// The last owner's.
    Last,
}

/// How a [`Confirm`] is to go about it.
#[derive(Clone, Debug)]
pub struct ConfirmOptions {
    /// Whose copy is read.
    pub source: Source,
    /// How long an owner may be silent before another is asked too, in milliseconds.
    pub hedge_ms: u64,
    /// Members believed to be down: asked last.
    pub avoid: Vec<MemberIndex>,
    /// What the client has seen of the key without consensus: nothing older is an answer.
    pub since: Context,
}

/// How a confirmed read ended.
#[derive(Clone, PartialEq, Debug)]
pub enum ConfirmOutcome {
    /// This is held.
    Found {
        /// What those hold that agree, merged.
        record: Record,
        /// Who answered, and with what.
        answers: Vec<(MemberIndex, Option<Record>)>,
    },
    /// A majority answered, and does not agree: an identity write is needed.
    Unsettled,
    /// Too few owners answered, or not the one whose copy is read.
    Unavailable {
        /// How many answered.
        answered: usize,
        /// How many further ones answered that are still being filled.
        unfilled: usize,
    },
}

/// The machine.
pub struct Confirm {
    key: Key,
    options: ConfirmOptions,
    owners: usize,
    /// Whose copy must be among those that agree.
    must: Option<MemberIndex>,
    /// Owners not asked yet, next one last.
    unasked: Vec<MemberIndex>,
    calls: Vec<Option<MemberIndex>>,
    answers: Vec<(MemberIndex, Option<Record>)>,
    unfilled: usize,
    concluded: bool,
}

impl Confirm {
    /// A read coordinated by `me` over the owners that `ring` names.
    pub fn new(key: Key, ring: &Ring, me: MemberIndex, options: ConfirmOptions) -> Confirm {
        let partition = Partition::of(key.position());
        let owners = ring.owners(partition);
        let must = match options.source {
            Source::Any => None,
            Source::First => owners.first().copied(),
            Source::Last => owners.last().copied(),
        };
        let mut unasked = asking_order(ring, partition, Some(me), &[], &options.avoid);
        unasked.sort_by_key(|owner| Some(*owner) != must);
        unasked.reverse();
        let owners = owners.len();
        let (calls, answers) = (Vec::with_capacity(owners), Vec::with_capacity(owners));
        Confirm { key, options, owners, must, unasked, calls, answers, unfilled: 0, concluded: false }
    }

    fn majority(&self) -> usize {
        self.owners / 2 + 1
    }

    fn ask_next(&mut self, commands: &mut Vec<Command>) {
        let Some(to) = self.unasked.pop() else { return };
        let (key, since) = (self.key.clone(), self.options.since.clone());
        let request = Request::Confirm { key, since };
        commands.push(Command::Call { call: CallId(self.calls.len() as u32), to, request });
        self.calls.push(Some(to));
        commands.push(Command::Wake { after_ms: self.options.hedge_ms });
    }

    fn awaited(&self) -> usize {
        self.calls.iter().flatten().count()
    }

    /// What a majority agrees on, where it does, with what any other that answered holds beside it.
    fn agreed(&self) -> Option<Record> {
        let ballot = |record: &Option<Record>| record.as_ref().and_then(|record| record.context().ballot());
        self.answers.iter().find_map(|(_, first)| {
            let same = || self.answers.iter().filter(|(_, record)| ballot(record) == ballot(first));
            let has_source = self.must.is_none_or(|must| same().any(|(owner, _)| *owner == must));
            let holds = has_source && same().count() >= self.majority();
            let others = || self.answers.iter().filter(|(_, record)| ballot(record) != ballot(first));
            let beside = || others().filter_map(|(_, record)| record.as_ref().map(Record::without_agreement));
            holds.then(|| {
                let agreed = merged(same().filter_map(|(_, record)| record.as_ref()));
                beside().fold(agreed, |agreed, beside| agreed.merge(&beside))
            })
        })
    }

    fn conclude(&mut self, must: bool, commands: &mut Vec<Command>) -> Option<ConfirmOutcome> {
        if let Some(record) = self.agreed() {
            let is_last = must || self.awaited() == 0 && self.unasked.is_empty();
            if is_last || is_since(&record, &self.options.since) {
                return Some(ConfirmOutcome::Found { record, answers: std::mem::take(&mut self.answers) });
            }
            // Beside it the client has seen something that another owner holds.
            if self.awaited() == 0 {
                self.ask_next(commands);
            }
            return None;
        }
        let is_missing = |owner: &MemberIndex| !self.answers.iter().any(|(who, _)| who == owner);
        let lacks_source = self.must.as_ref().is_some_and(is_missing);
        let could_come = |owner: &MemberIndex| self.calls.contains(&Some(*owner)) || self.unasked.contains(owner);
        let source_is_gone = lacks_source && !self.must.as_ref().is_some_and(could_come);
        if !must && !source_is_gone {
            if self.awaited() > 0 {
                return None;
            }
            if !self.unasked.is_empty() {
                self.ask_next(commands);
                return None;
            }
        }
        let (answered, unfilled) = (self.answers.len(), self.unfilled);
        if lacks_source || answered < self.majority() || must {
            return Some(ConfirmOutcome::Unavailable { answered, unfilled });
        }
        Some(ConfirmOutcome::Unsettled)
    }
}

/// Copies of the same ballot differ in nothing but what was written beside it.
fn merged<'a>(mut copies: impl Iterator<Item = &'a Record>) -> Record {
    let first = copies.next().cloned().unwrap_or_default();
    copies.fold(first, |merged, record| if merged == *record { merged } else { merged.merge(record) })
}

impl Operation for Confirm {
    type Output = ConfirmOutcome;

    fn on(&mut self, event: Event, commands: &mut Vec<Command>) -> Option<ConfirmOutcome> {
        if self.concluded {
            return None;
        }
        let must = matches!(event, Event::Deadline);
        match event {
            Event::Start => (0..self.majority()).for_each(|_| self.ask_next(commands)),
            Event::Answered { call, answer } => {
                let owner = self.calls.get_mut(call.0 as usize).and_then(Option::take)?;
                match answer {
                    Answer::Found { record } => self.answers.push((owner, record)),
                    Answer::Partial(_) => {
                        self.unfilled += 1;
                        self.ask_next(commands);
                    }
                    _ => self.ask_next(commands),
                }
            }
            Event::Failed { call, .. } => {
                self.calls.get_mut(call.0 as usize).and_then(Option::take)?;
                self.ask_next(commands);
            }
            Event::Woken => self.ask_next(commands),
            Event::Deadline => {}
        }
        let outcome = self.conclude(must, commands);
        self.concluded = outcome.is_some();
        outcome
    }

    fn is_done(&self) -> bool {
        self.concluded
    }
}

/// Whether what was agreed on goes with a client's context: of what was written without consensus it must have seen as much.
/// What was agreed on is never older than anything a client was told of.
pub fn is_since(record: &Record, since: &Context) -> bool {
    record.context().dominates(&since.clone().with_ballot(None::<Ballot>))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Failure;
    use crate::placement::{ClusterId, Layout, Member, Mode};
    use crate::protocol::Part;
    use crate::record::{Actor, Content, Dot, Edit, Proposal, Seen, Stamp};

    fn ring() -> Ring {
        let members = (0..3).map(|number| Member::new(format!("http://n{number}:1"))).collect();
        Ring::new(Layout::provisional(ClusterId(1), 3, Mode::Quorum, members).unwrap())
    }

    fn held(stamp: u64) -> Option<Record> {
        let edit = Edit::write(Seen::Everything, Some(Content::plain(stamp.to_string())));
        let ballot = Ballot { stamp: Stamp(stamp), actor: Actor(1) };
        let proposal = Proposal { edit, condition: None };
        Some(Record::default().reballot(ballot).propose(&proposal, ballot.dot(), 0).unwrap())
    }

    /// Asks, and answers what is asked in turn with what each place of the owners holds; `None` fails.
    fn run(source: Source, held: [Option<Option<Record>>; 3]) -> (ConfirmOutcome, usize) {
        run_since(source, Context::new(), held)
    }

    fn run_since(source: Source, since: Context, held: [Option<Option<Record>>; 3]) -> (ConfirmOutcome, usize) {
        let (ring, key) = (ring(), Key::new("k").unwrap());
        let owners = ring.owners(Partition::of(key.position())).to_vec();
        let options = ConfirmOptions { source, hedge_ms: 10, avoid: vec![], since };
        let mut confirm = Confirm::new(key, &ring, owners[0], options);
        let mut commands = Vec::new();
        let mut outcome = confirm.on(Event::Start, &mut commands);
        let mut asked = 0;
        while outcome.is_none() {
            let at = commands.iter().position(|command| matches!(command, Command::Call { .. })).expect("somebody");
            let Command::Call { call, to, .. } = commands.remove(at) else { unreachable!("just found") };
            asked += 1;
            let place = owners.iter().position(|owner| *owner == to).expect("an owner");
            let event = match held[place].clone() {
                Some(record) => Event::Answered { call, answer: Answer::Found { record } },
                None => Event::Failed { call, failure: Failure::Unreachable },
            };
            outcome = confirm.on(event, &mut commands);
        }
        assert!(confirm.is_done());
        (outcome.unwrap(), asked)
    }

    fn found(outcome: &ConfirmOutcome) -> Option<Record> {
        match outcome {
            ConfirmOutcome::Found { record, .. } => Some(record.clone()),
            _ => None,
        }
    }

    #[test]
    fn two_that_agree_are_enough_and_a_third_is_asked_where_they_do_not() {
        let (outcome, asked) = run(Source::Any, [Some(held(5)), Some(held(5)), Some(held(5))]);
        assert_eq!((found(&outcome), asked), (held(5), 2));
        let (outcome, asked) = run(Source::Any, [Some(held(9)), Some(held(5)), Some(held(5))]);
        assert_eq!((found(&outcome), asked), (held(5), 3), "what one alone accepted was not agreed on yet");
        let (outcome, _) = run(Source::Any, [Some(held(9)), Some(held(7)), Some(held(5))]);
        assert_eq!(outcome, ConfirmOutcome::Unsettled);
        let (outcome, _) = run(Source::Any, [Some(None), Some(None), None]);
        assert_eq!(found(&outcome), Some(Record::default()));
        let (outcome, _) = run(Source::Any, [Some(None), Some(held(5)), None]);
        assert_eq!(outcome, ConfirmOutcome::Unsettled);
    }

    #[test]
    fn an_owner_more_is_asked_for_what_the_client_has_seen_beside_what_was_agreed_on() {
        let dot = Dot { stamp: Stamp(7), actor: Actor(2) };
        let beside = Record::default().write(&Seen::Only(Context::new()), dot, Some(Content::plain("beside"))).unwrap();
        let mut since = Context::new();
        since.add(dot);
        for third in [5, 3] {
            let held_there = held(third).unwrap().merge(&beside);
            let (outcome, asked) =
                run_since(Source::Any, since.clone(), [Some(held(5)), Some(held(5)), Some(Some(held_there))]);
            assert_eq!(asked, 3);
            let found = found(&outcome).unwrap();
            assert!(is_since(&found, &since) && found.context().ballot() == held(5).unwrap().context().ballot());
            // Where nobody has it, whoever asked is told what there is.
            let nowhere = [Some(held(5)), Some(held(5)), Some(held(third))];
            let (outcome, asked) = run_since(Source::Any, since.clone(), nowhere);
            assert!(asked == 3 && matches!(outcome, ConfirmOutcome::Found { .. }), "{outcome:?}");
        }
    }

    #[test]
    fn the_owner_whose_copy_is_read_must_be_among_those_that_agree() {
        let behind = [Some(held(5)), Some(held(9)), Some(held(9))];
        assert_eq!(run(Source::First, behind.clone()).0, ConfirmOutcome::Unsettled);
        assert_eq!(found(&run(Source::Last, behind).0), held(9));
        let gone = [None, Some(held(9)), Some(held(9))];
        assert!(matches!(run(Source::First, gone.clone()).0, ConfirmOutcome::Unavailable { .. }));
        assert_eq!(found(&run(Source::Last, gone).0), held(9));
        let tail_gone = [Some(held(9)), Some(held(9)), None];
        assert!(matches!(run(Source::Last, tail_gone).0, ConfirmOutcome::Unavailable { .. }));
    }

    #[test]
    fn a_minority_answers_nothing_and_owners_that_are_being_filled_do_not_count() {
        let alone = [Some(held(5)), None, None];
        assert_eq!(run(Source::Any, alone).0, ConfirmOutcome::Unavailable { answered: 1, unfilled: 0 });
        let (ring, key) = (ring(), Key::new("k").unwrap());
        let options = ConfirmOptions { source: Source::Any, hedge_ms: 10, avoid: vec![], since: Context::new() };
        let mut confirm = Confirm::new(key, &ring, MemberIndex(0), options);
        let mut commands = Vec::new();
        confirm.on(Event::Start, &mut commands);
        let answers = [
            Answer::Partial(Part::Found { record: held(5) }),
            Answer::Found { record: held(5) },
            Answer::Partial(Part::Found { record: None }),
        ];
        let outcome = answers
            .into_iter()
            .enumerate()
            .filter_map(|(call, answer)| {
                confirm.on(Event::Answered { call: CallId(call as u32), answer }, &mut commands)
            })
            .last();
        assert_eq!(outcome, Some(ConfirmOutcome::Unavailable { answered: 1, unfilled: 2 }));
    }
}
