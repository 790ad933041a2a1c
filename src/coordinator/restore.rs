//! `Restore`: what the other owners of a key hold, gathered for one whose own row cannot be read.
//!
//! A majority of the *others* must answer. A write that was acknowledged with the damaged copy's help was acknowledged by
//! a majority of all, so one of any majority of the others has it: N / 2 + 1 copies less the lost one, and
//! (N − 1) / 2 + 1, are together more than the N − 1 others there are.
//!
//! An owner that is being filled answers in part and counts for none of that. Where all the others have answered, it
//! does: nobody else can be asked, and it may be waiting for this very row, without which it is never filled.

use super::Quorum;
use super::quorum::Count;
use crate::operation::{CallId, Command, Event, Operation};
use crate::placement::{MemberIndex, Partition, Ring};
use crate::protocol::{Answer, Part, Request};
use crate::record::{Key, Record};

/// What was gathered.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Restored {
    /// All that was answered, merged.
    pub record: Record,
    /// Who answered: whatever one of these holds of the key is in the record.
    pub from: Vec<MemberIndex>,
}

/// The machine. Concludes with what was gathered, or `None` where too few others answered, or there are none.
pub struct Restore {
    key: Key,
    others: Vec<MemberIndex>,
    gathered: Restored,
    asked: Vec<bool>,
    answered: usize,
    answered_in_part: usize,
    concluded: bool,
}

impl Restore {
    /// For the row of `key` on `me`.
    pub fn new(key: Key, ring: &Ring, me: MemberIndex) -> Restore {
        let owners = ring.owners(Partition::of(key.position())).iter().copied();
        let others = owners.filter(|&owner| owner != me).collect();
        Restore {
            key,
            others,
            gathered: Restored::default(),
            asked: Vec::new(),
            answered: 0,
            answered_in_part: 0,
            concluded: false,
        }
    }

    /// Every owner is waited for, as long as there is time: the more, the better.
    fn conclude(&mut self, must: bool) -> Option<Option<Restored>> {
        if self.concluded || !must && self.asked.contains(&true) {
            return None;
        }
        self.concluded = true;
        let quorum = Quorum::of(Count::Majority, self.others.len());
        let all = self.answered + self.answered_in_part == self.others.len();
        let is_enough = all || quorum.is_some_and(|quorum| quorum.is_reached(self.answered));
        Some((is_enough && !self.others.is_empty()).then(|| std::mem::take(&mut self.gathered)))
    }

    fn take(&mut self, call: CallId) -> bool {
        self.asked.get_mut(call.0 as usize).is_some_and(std::mem::take)
    }
}

impl Operation for Restore {
    type Output = Option<Restored>;

    fn on(&mut self, event: Event, commands: &mut Vec<Command>) -> Option<Option<Restored>> {
        let must = matches!(event, Event::Deadline);
        match event {
            Event::Start => {
                for (call, &to) in self.others.iter().enumerate() {
                    let request = Request::Read { key: self.key.clone() };
                    commands.push(Command::Call { call: CallId(call as u32), to, request });
                    self.asked.push(true);
                }
            }
            Event::Answered { call, answer } => {
                let is_awaited = self.take(call);
                let (record, answers) = match answer {
                    Answer::Found { record } if is_awaited => (record, &mut self.answered),
                    Answer::Partial(Part::Found { record }) if is_awaited => (record, &mut self.answered_in_part),
                    _ => return self.conclude(must),
                };
                *answers += 1;
                self.gathered.from.push(self.others[call.0 as usize]);
                self.gathered.record = self.gathered.record.merge(&record.unwrap_or_default());
            }
            Event::Failed { call, .. } => {
                self.take(call);
            }
            Event::Woken | Event::Deadline => {}
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
    use crate::operation::Failure;
    use crate::placement::{ClusterId, Layout, Member, Mode};
    use crate::protocol::Refusal;
    use crate::record::{Actor, Content, Dot, Seen, Stamp};

    fn ring(members: usize, replicas: u8) -> Ring {
        let members = (0..members).map(|node| Member::new(format!("http://n{node}:1"))).collect();
        Ring::new(Layout::provisional(ClusterId(1), replicas, Mode::Sloppy, members).unwrap())
    }

    fn record(stamp: u64) -> Record {
        let dot = Dot { stamp: Stamp(stamp), actor: Actor(stamp) };
        Record::default().write(&Seen::Everything, dot, Some(Content::plain(stamp.to_string()))).unwrap()
    }

    /// What comes of these answers of the others, in order; `None` stands for one that fails.
    fn outcome(members: usize, replicas: u8, answers: &[Option<Answer>]) -> Option<Option<Record>> {
        let restored = restored(members, replicas, answers);
        if let Some(Some(restored)) = &restored {
            let answered = answers.iter().flatten().filter(|answer| !matches!(answer, Answer::Refused(_))).count();
            assert_eq!(restored.from.len(), answered, "{restored:?}");
        }
        restored.map(|restored| restored.map(|restored| restored.record))
    }

    fn restored(members: usize, replicas: u8, answers: &[Option<Answer>]) -> Option<Option<Restored>> {
        let key = Key::new("k").unwrap();
        let ring = ring(members, replicas);
        let owners = ring.owners(Partition::of(key.position()));
        let mut restore = Restore::new(key, &ring, owners[0]);
        let mut commands = Vec::new();
        let mut outcome = restore.on(Event::Start, &mut commands);
        let asked: Vec<MemberIndex> = commands
            .iter()
            .filter_map(|command| match command {
                Command::Call { to, .. } => Some(*to),
                Command::Wake { .. } => None,
            })
            .collect();
        assert_eq!(asked, owners[1..]);
        for (call, answer) in answers.iter().enumerate() {
            let call = CallId(call as u32);
            let event = match answer {
                Some(answer) => Event::Answered { call, answer: answer.clone() },
                None => Event::Failed { call, failure: Failure::Unreachable },
            };
            outcome = outcome.or(restore.on(event, &mut commands));
        }
        outcome.or_else(|| restore.on(Event::Deadline, &mut commands))
    }

    fn found(record: Option<Record>) -> Option<Answer> {
        Some(Answer::Found { record })
    }

    #[test]
    fn the_copies_of_the_others_are_merged() {
        let both = outcome(3, 3, &[found(Some(record(1))), found(Some(record(2)))]);
        assert_eq!(both, Some(Some(record(1).merge(&record(2)))));
        let one_knows_nothing = outcome(3, 3, &[found(None), found(Some(record(2)))]);
        assert_eq!(one_knows_nothing, Some(Some(record(2))));
    }

    #[test]
    fn with_less_than_a_majority_of_the_others_nothing_is_restored() {
        assert_eq!(outcome(3, 3, &[found(Some(record(1))), None]), Some(None));
        assert_eq!(outcome(3, 3, &[found(Some(record(1))), Some(Answer::Refused(Refusal::Damaged))]), Some(None));
        assert_eq!(outcome(3, 3, &[found(Some(record(1)))]), Some(None));
        assert_eq!(outcome(1, 1, &[]), Some(None));
        let three_of_four = [found(Some(record(1))), None, found(None), found(Some(record(3)))];
        assert_eq!(outcome(5, 5, &three_of_four), Some(Some(record(1).merge(&record(3)))));
    }

    #[test]
    fn an_owner_that_is_being_filled_counts_where_all_have_answered() {
        let in_part = |stamp| found(Some(record(stamp))).map(|answer| answer.in_part(true));
        let all = outcome(3, 3, &[found(Some(record(1))), in_part(2)]);
        assert_eq!(all, Some(Some(record(1).merge(&record(2)))));
        assert_eq!(outcome(2, 2, &[in_part(2)]), Some(Some(record(2))));
        assert_eq!(outcome(3, 3, &[None, in_part(2)]), Some(None));
        assert_eq!(outcome(5, 5, &[found(None), found(None), in_part(2), None]), Some(None));
    }
}
