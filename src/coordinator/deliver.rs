//! `Deliver`: a copy of a key's record, from wherever it comes, is brought to all who keep the key.
//!
//! It is merged there like any other copy, so whoever knows more keeps that, and whoever knows that it was superseded drops
//! it and says so. Done once a majority has it durably; the others are waited for a little longer, as only of what all have
//! taken can be said that it is nowhere missing.

use super::Electorate;
use crate::operation::{CallId, Command, Event, Failure, Operation};
use crate::protocol::{Answer, Part, Refusal, Request};
use crate::record::{Key, Record, Sibling};

/// How a [`Deliver`] ended.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Delivered {
    /// Whether a majority of the owners has it, or what superseded it; while owners change, of both sets.
    pub is_reached: bool,
    /// Whether all who keep the key have.
    pub by_all: bool,
    /// Whether it changed anything anywhere.
    pub changed: bool,
    /// Whether some value in it was superseded, and is not shown.
    pub superseded: bool,
    /// Why the last one that refused did so.
    pub cause: Option<Refusal>,
}

/// What is known of one of them.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Taker {
    Awaited,
    Taken,
    /// It has it, and counts for nothing, as it is being filled.
    InPart,
    Failed,
}

/// The machine.
pub struct Deliver {
    key: Key,
    record: Record,
    electorate: Electorate,
    takers: Vec<Taker>,
    patience_ms: u64,
    patience_over: bool,
    so_far: Delivered,
    concluded: bool,
}

impl Deliver {
    /// A copy of the record of `key`, for these. Those beyond the majority are waited for so long.
    pub fn new(key: Key, record: Record, electorate: Electorate, patience_ms: u64) -> Deliver {
        let takers = vec![Taker::Awaited; electorate.members().len()];
        let so_far = Delivered::default();
        Deliver { key, record, electorate, takers, patience_ms, patience_over: false, so_far, concluded: false }
    }

    fn taken(&mut self, call: CallId, applied: bool, more: Option<&Record>, taker: Taker) {
        let Some(held @ Taker::Awaited) = self.takers.get_mut(call.0 as usize) else { return };
        *held = taker;
        self.so_far.changed |= applied;
        let place = |sibling: &Sibling| (sibling.dot, sibling.agreed.is_some());
        let is_held = |sibling: &Sibling, more: &Record| {
            // What was accepted once more is the same value under a later ballot.
            more.siblings().iter().any(|held| place(held) == place(sibling) || held.id() == sibling.id())
        };
        self.so_far.superseded |=
            more.is_some_and(|more| !self.record.siblings().iter().all(|sibling| is_held(sibling, more)));
    }

    fn failed(&mut self, call: CallId, refusal: Option<Refusal>) {
        if let Some(held @ Taker::Awaited) = self.takers.get_mut(call.0 as usize) {
            *held = Taker::Failed;
            self.so_far.cause = refusal.or(self.so_far.cause.take());
        }
    }

    fn conclude(&mut self, must: bool) -> Option<Delivered> {
        let is_over = !self.takers.contains(&Taker::Awaited);
        let is_reached = self.electorate.has_majority(|place| self.takers[place] == Taker::Taken);
        if self.concluded || !(must || is_over || is_reached && self.patience_over) {
            return None;
        }
        self.concluded = true;
        let by_all = self.takers.iter().all(|taker| *taker == Taker::Taken);
        Some(Delivered { is_reached, by_all, ..std::mem::take(&mut self.so_far) })
    }
}

impl Operation for Deliver {
    type Output = Delivered;
    const IN_BACKGROUND: bool = true;

    fn on(&mut self, event: Event, commands: &mut Vec<Command>) -> Option<Delivered> {
        let must = matches!(event, Event::Deadline);
        match event {
            Event::Start => {
                for (call, &to) in self.electorate.members().iter().enumerate() {
                    let request = Request::Merge { key: self.key.clone(), record: self.record.clone() };
                    commands.push(Command::Call { call: CallId(call as u32), to, request });
                }
                commands.push(Command::Wake { after_ms: self.patience_ms });
            }
            Event::Answered { call, answer } => match answer {
                Answer::Merged { applied, more } => self.taken(call, applied, more.as_ref(), Taker::Taken),
                Answer::Partial(Part::Merged { applied, more }) => {
                    self.taken(call, applied, more.as_ref(), Taker::InPart);
                }
                Answer::Refused(refusal) => self.failed(call, Some(refusal)),
                _ => self.failed(call, None),
            },
            Event::Failed { call, failure: Failure::Refused(refusal) } => self.failed(call, Some(refusal)),
            Event::Failed { call, .. } => self.failed(call, None),
            Event::Woken => self.patience_over = true,
            Event::Deadline => {}
        }
        self.conclude(must)
    }

    fn is_done(&self) -> bool {
        self.concluded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::{ClusterId, Layout, Member, Mode, Partition, Ring};
    use crate::record::{Actor, Content, Dot, Seen, Stamp};

    fn record(stamp: u64) -> Record {
        let dot = Dot { stamp: Stamp(stamp), actor: Actor(1) };
        Record::default().write(&Seen::Everything, dot, Some(Content::plain(stamp.to_string()))).unwrap()
    }

    /// A delivery to three owners, begun.
    fn begun() -> Deliver {
        let members = (0..3).map(|number| Member::new(format!("http://n{number}:1"))).collect();
        let ring = Ring::new(Layout::provisional(ClusterId(1), 3, Mode::Sloppy, members).unwrap());
        let key = Key::new("k").unwrap();
        let electorate = Electorate::of(&ring, Partition::of(key.position()));
        let mut deliver = Deliver::new(key, record(5), electorate, 100);
        let mut commands = Vec::new();
        assert_eq!(deliver.on(Event::Start, &mut commands), None);
        assert_eq!(commands.len(), 4);
        deliver
    }

    fn merged(applied: bool, more: Option<Record>) -> Answer {
        Answer::Merged { applied, more }
    }

    fn told(deliver: &mut Deliver, call: u32, answer: Answer) -> Option<Delivered> {
        deliver.on(Event::Answered { call: CallId(call), answer }, &mut Vec::new())
    }

    #[test]
    fn all_are_waited_for_and_a_majority_is_enough_once_patience_is_over() {
        let mut deliver = begun();
        assert_eq!(told(&mut deliver, 0, merged(true, None)), None);
        assert_eq!(deliver.on(Event::Woken, &mut Vec::new()), None, "one is no majority");
        let delivered = told(&mut deliver, 2, merged(false, None)).unwrap();
        assert_eq!(delivered, Delivered { is_reached: true, changed: true, ..Delivered::default() });
        assert!(deliver.is_done());
        let mut deliver = begun();
        assert_eq!(told(&mut deliver, 0, merged(false, None)), None);
        assert_eq!(told(&mut deliver, 1, merged(false, None)), None, "the third is still waited for");
        let delivered = told(&mut deliver, 2, merged(false, None)).unwrap();
        assert_eq!(delivered, Delivered { is_reached: true, by_all: true, ..Delivered::default() });
    }

    #[test]
    fn what_is_being_filled_and_what_refuses_counts_for_no_majority() {
        let mut deliver = begun();
        told(&mut deliver, 0, merged(true, None).in_part(true));
        told(&mut deliver, 1, Answer::Refused(Refusal::Overloaded));
        let delivered = told(&mut deliver, 2, merged(true, None)).unwrap();
        assert!(!delivered.is_reached && !delivered.by_all && delivered.changed, "{delivered:?}");
        assert_eq!(delivered.cause, Some(Refusal::Overloaded));
        let mut deliver = begun();
        let delivered = deliver.on(Event::Deadline, &mut Vec::new()).unwrap();
        assert_eq!(delivered, Delivered::default());
    }

    #[test]
    fn a_value_that_is_not_held_after_that_was_superseded() {
        let with = |more: Record| {
            let mut deliver = begun();
            told(&mut deliver, 0, merged(false, Some(more)));
            told(&mut deliver, 1, merged(false, None));
            told(&mut deliver, 2, merged(false, None)).unwrap().superseded
        };
        assert!(with(record(5).write(&Seen::Everything, Dot { stamp: Stamp(9), actor: Actor(2) }, None).unwrap()));
        let beside =
            Record::default().write(&Seen::Everything, Dot { stamp: Stamp(9), actor: Actor(2) }, None).unwrap();
        assert!(!with(record(5).merge(&beside)), "another value beside it");
    }
}
