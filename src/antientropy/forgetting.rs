//! `Forget`: owners of some keys agree that something of them may be forgotten, and then all forget it.
//!
//! ```text
//!  one owner               itself, and each other owner
//!      | -- MayForget(keys, contexts) ---> |   covered by its partition's context, and nothing of it live?
//!      | <- yes, yes, no ----------------- |   (durable, so that a crash takes nothing back)
//!      | -- Forget(those all agreed to) -> |
//! ```
//!
//! Safe because of what each owner's partition context says from then on: a copy of what was forgotten that comes late, by
//! whatever road, is covered there and not held, and so known to be superseded. Whoever missed the second message holds
//! on to it until it asks itself. No clock decides, but those by which each owner takes a value for expired. After
//! Gonçalves et al., "Concise Server-Wide Causality Management for Eventually Consistent Data Stores" (2015), §4.

use crate::operation::{CallId, Command, Event, Operation};
use crate::placement::MemberIndex;
use crate::protocol::{Answer, Request};
use crate::record::{Context, Key};
use std::collections::BTreeMap;

pub use crate::protocol::FORGET_KEYS_MAX;

/// What became of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Forgotten {
    /// Of how many keys something was forgotten on the owner that asked.
    pub keys: u64,
    /// For how many keys each owner did not agree, or was not heard.
    pub waiting: BTreeMap<MemberIndex, u64>,
}

/// The machine.
pub struct Forget {
    me: MemberIndex,
    owners: Vec<MemberIndex>,
    keys: Vec<(Key, Context)>,
    /// Whether all heard so far agreed, key by key.
    agreed: Vec<bool>,
    calls: BTreeMap<CallId, MemberIndex>,
    calls_made: u32,
    telling: bool,
    outcome: Forgotten,
    concluded: bool,
}

impl Forget {
    /// Asked by `me`, one of the `owners` of all these keys, which are of one partition and at most [`FORGET_KEYS_MAX`].
    pub fn new(me: MemberIndex, owners: Vec<MemberIndex>, keys: Vec<(Key, Context)>) -> Forget {
        Forget {
            me,
            owners,
            agreed: vec![true; keys.len()],
            keys,
            calls: BTreeMap::new(),
            calls_made: 0,
            telling: false,
            outcome: Forgotten::default(),
            concluded: false,
        }
    }

    fn ask_all(&mut self, request: &Request, commands: &mut Vec<Command>) {
        for &to in &self.owners {
            let call = CallId(self.calls_made);
            self.calls_made += 1;
            self.calls.insert(call, to);
            commands.push(Command::Call { call, to, request: request.clone() });
        }
    }

    /// An owner agreed to so much; one that was not heard, to nothing.
    fn heard(&mut self, owner: MemberIndex, may: &[bool]) {
        let mut refused = 0;
        for (at, agreed) in self.agreed.iter_mut().enumerate() {
            let may = may.get(at).is_some_and(|may| *may);
            refused += u64::from(!may);
            *agreed &= may;
        }
        if refused > 0 {
            self.outcome.waiting.insert(owner, refused);
        }
    }

    fn tell(&mut self, commands: &mut Vec<Command>) {
        self.telling = true;
        let agreed = self.keys.iter().zip(&self.agreed).filter(|(_, agreed)| **agreed);
        let keys: Vec<(Key, Context)> = agreed.map(|(key, _)| key.clone()).collect();
        if !keys.is_empty() {
            self.ask_all(&Request::Forget { keys }, commands);
        }
    }
}

impl Operation for Forget {
    type Output = Forgotten;
    const IN_BACKGROUND: bool = true;

    fn on(&mut self, event: Event, commands: &mut Vec<Command>) -> Option<Forgotten> {
        if self.concluded {
            return None;
        }
        match event {
            Event::Start => self.ask_all(&Request::MayForget { keys: self.keys.clone() }, commands),
            Event::Answered { call, answer } => {
                let owner = self.calls.remove(&call)?;
                match answer {
                    Answer::MayForget(may) if !self.telling => self.heard(owner, &may),
                    Answer::Forgotten(keys) if self.telling => {
                        self.outcome.keys += if owner == self.me { keys } else { 0 };
                    }
                    _ if self.telling => {}
                    _ => self.heard(owner, &[]),
                }
            }
            Event::Failed { call, .. } => {
                let owner = self.calls.remove(&call)?;
                if !self.telling {
                    self.heard(owner, &[]);
                }
            }
            Event::Deadline => {
                let silent: Vec<MemberIndex> = std::mem::take(&mut self.calls).into_values().collect();
                if !self.telling {
                    silent.into_iter().for_each(|owner| self.heard(owner, &[]));
                }
                self.telling = true;
            }
            Event::Woken => {}
        }
        if self.calls.is_empty() && !self.telling {
            self.tell(commands);
        }
        self.concluded = self.calls.is_empty();
        self.concluded.then(|| self.outcome.clone())
    }

    fn is_done(&self) -> bool {
        self.concluded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Failure;
    use crate::protocol::Refusal;

    const OWNERS: [MemberIndex; 3] = [MemberIndex(4), MemberIndex(1), MemberIndex(7)];

    fn begin() -> (Forget, Vec<Command>) {
        let keys = ["a", "b"].map(|key| (Key::new(key).unwrap(), Context::new())).to_vec();
        let mut forget = Forget::new(OWNERS[0], OWNERS.to_vec(), keys);
        let mut commands = Vec::new();
        assert_eq!(forget.on(Event::Start, &mut commands), None);
        (forget, commands)
    }

    fn answered(call: u32, answer: Answer) -> Event {
        Event::Answered { call: CallId(call), answer }
    }

    #[test]
    fn what_every_owner_agrees_to_is_forgotten_by_every_owner() {
        let (mut forget, mut commands) = begin();
        assert_eq!(commands.len(), 3);
        commands.clear();
        forget.on(answered(0, Answer::MayForget(vec![true, true])), &mut commands);
        forget.on(answered(1, Answer::MayForget(vec![true, false])), &mut commands);
        assert!(commands.is_empty(), "not before everybody was heard");
        forget.on(answered(2, Answer::MayForget(vec![true, true])), &mut commands);
        let told: Vec<_> = commands
            .iter()
            .map(|command| match command {
                Command::Call { to, request: Request::Forget { keys }, .. } => (*to, keys.len()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, OWNERS.map(|owner| (owner, 1)));
        forget.on(answered(3, Answer::Forgotten(1)), &mut commands);
        forget.on(Event::Failed { call: CallId(4), failure: Failure::Unknown }, &mut commands);
        let outcome = forget.on(answered(5, Answer::Forgotten(1)), &mut commands);
        assert_eq!(outcome, Some(Forgotten { keys: 1, waiting: BTreeMap::from([(OWNERS[1], 1)]) }));
        assert!(forget.is_done());
    }

    #[test]
    fn nothing_is_forgotten_while_an_owner_is_silent_away_or_not_filled() {
        let failed = Event::Failed { call: CallId(2), failure: Failure::Unreachable };
        let refused = answered(2, Answer::Refused(Refusal::NotFilled));
        // One that answers for fewer keys than it was asked for has agreed to those alone.
        let short = answered(2, Answer::MayForget(vec![]));
        for last in [failed, refused, short, Event::Deadline] {
            let (mut forget, mut commands) = begin();
            commands.clear();
            forget.on(answered(0, Answer::MayForget(vec![true, true])), &mut commands);
            forget.on(answered(1, Answer::MayForget(vec![true, true])), &mut commands);
            let outcome = forget.on(last, &mut commands).expect("it is over");
            assert_eq!(outcome, Forgotten { keys: 0, waiting: BTreeMap::from([(OWNERS[2], 2)]) });
            assert!(commands.is_empty());
        }
    }
}
