//! `Get`: a client's read in the AP modes.
//!
//! Asks as many owners as the request wants, this node first if it is one; another for each that fails or is
//! silent for a while. What they hold is merged, so a stale copy cannot hide a newer one that was read. If no
//! owner can be reached, or all of them stay silent, the stand-ins are asked, this node included; where they know nothing
//! either the answer is "unknown", never "absent". An owner that is still being filled is passed over like a silent one:
//! what it holds is shown, what it lacks means nothing; but for what the owners that count have seen and since forgotten.
//! Owners believed down and silent are not waited for to the end.
//! After DeCandia et al., "Dynamo" (2007), §4.5.

use super::Quorum;
use super::order::asking_order;
use crate::operation::{CallId, Command, Event, Operation};
use crate::placement::{MemberIndex, Partition, Ring};
use crate::protocol::{Answer, Part, Request};
use crate::record::{Context, Dot, Key, Record};
use std::sync::Arc;

/// How a read ended.
#[derive(Clone, PartialEq, Debug)]
pub enum GetOutcome {
    /// Owners, or at least stand-ins, were heard.
    Found {
        /// What they hold, merged; nothing known when the key was never written.
        record: Record,
        /// Who answered, and with what: first the owners that count, then what others hold or keep for them.
        answers: Vec<(MemberIndex, Option<Record>)>,
        /// How many owners counted.
        answered: usize,
    },
    /// Whoever could be reached had not seen all that the client has.
    Behind {
        /// How many owners answered.
        answered: usize,
    },
    /// Too few owners could be reached.
    Unavailable {
        /// How many answered.
        answered: usize,
        /// How many were wanted.
        needed: usize,
        /// How many further ones answered that are still being filled, and do not know what is absent.
        unfilled: usize,
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
    /// How long an owner may be silent before another is asked too, in milliseconds: the 95th percentile of recent answers,
    /// so that about one read in twenty costs a message more.
    pub hedge_ms: u64,
    /// How long all owners may be silent before the stand-ins are asked, and those believed down are waited for beside one
    /// that answered, in milliseconds.
    pub patience_ms: u64,
    /// Members that still lack writes, as this node knows: asked after the others, as what they hold may be old, and as
    /// they are busy with what they lack.
    pub behind: Vec<MemberIndex>,
    /// Members believed to be down: asked last.
    pub avoid: Vec<MemberIndex>,
    /// What the client has seen of the key: nothing older is an answer, and further nodes are asked for it.
    pub since: Context,
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
    unfilled: usize,
    answers: Vec<(MemberIndex, Option<Record>)>,
    /// What stand-ins keep for the owners, and what owners hold that are still being filled.
    kept: Vec<(MemberIndex, Option<Record>)>,
    /// Owners that answered were asked again whether they had seen what is kept.
    confirming: bool,
    standing_in: bool,
    /// All owners were asked, and had their time.
    patience_over: bool,
    concluded: bool,
    /// What the client was told, to be sent to owners that turn out to know less.
    told: Option<Record>,
    repairs: u64,
    hedges: u64,
}

/// Whom a call went to, and as what.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Owner(MemberIndex),
    StandIn(MemberIndex),
    /// An owner that has answered already.
    Again(MemberIndex),
}

impl Get {
    /// A read coordinated by `me` over the owners that `ring` names.
    pub fn new(key: Key, ring: Arc<Ring>, me: MemberIndex, options: GetOptions) -> Get {
        let partition = Partition::of(key.position());
        let mut unasked = asking_order(&ring, partition, Some(me), &options.behind, &options.avoid);
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
            unfilled: 0,
            answers: Vec::with_capacity(2),
            kept: Vec::new(),
            confirming: false,
            standing_in: false,
            patience_over: false,
            concluded: false,
            told: None,
            repairs: 0,
            hedges: 0,
        }
    }

    fn ask(&mut self, asked: Asked, commands: &mut Vec<Command>) {
        let call = CallId(self.calls.len() as u32);
        self.calls.push(Some(asked));
        let key = self.key.clone();
        let (to, request) = match asked {
            Asked::Owner(member) => {
                self.owners_awaited += 1;
                let since = self.options.since.clone();
                let request = if since.is_empty() { Request::Read { key } } else { Request::ReadSince { key, since } };
                (member, request)
            }
            Asked::Again(member) => {
                self.owners_awaited += 1;
                (member, Request::ReadSince { key, since: self.kept_context() })
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
            let after_ms = if self.unasked.is_empty() { self.options.patience_ms } else { self.options.hedge_ms };
            commands.push(Command::Wake { after_ms });
        }
    }

    fn wanted(&self) -> usize {
        if self.options.all { self.ring.owners(self.partition).len() } else { self.options.quorum.needed() }
    }

    /// Asks the stand-ins, once, if no owner has answered.
    fn ask_stand_ins(&mut self, commands: &mut Vec<Command>) {
        if !self.options.hard && self.answers.is_empty() {
            self.ask_stand_ins_too(commands);
        }
    }

    fn ask_stand_ins_too(&mut self, commands: &mut Vec<Command>) {
        if self.concluded || std::mem::replace(&mut self.standing_in, true) {
            return;
        }
        let mut stand_ins = self.ring.stand_ins(self.partition);
        stand_ins.truncate(STAND_INS_ASKED_MAX);
        if !stand_ins.contains(&self.me) {
            stand_ins.push(self.me);
        }
        for member in stand_ins {
            self.ask(Asked::StandIn(member), commands);
        }
    }

    /// What was answered so far, merged.
    fn merged(&self) -> Record {
        let mut held = self.answers.iter().chain(&self.kept).filter_map(|(_, record)| record.as_ref());
        let first = held.next().cloned().unwrap_or_default();
        held.fold(first, |merged, record| if merged == *record { merged } else { merged.merge(record) })
    }

    /// All that is known of in what is kept.
    fn kept_context(&self) -> Context {
        let mut context = Context::new();
        self.kept.iter().filter_map(|(_, record)| record.as_ref()).for_each(|record| context.join(record.context()));
        context
    }

    /// Asks the owners that answered whether they had seen what is kept elsewhere and they do not hold: their keys' own
    /// records do not say so once it was forgotten, and it would be shown as if it were new.
    fn confirm(&mut self, commands: &mut Vec<Command>) -> bool {
        if self.answers.is_empty() || !self.is_doubtful() || std::mem::replace(&mut self.confirming, true) {
            return false;
        }
        let owners: Vec<MemberIndex> = self.answers.iter().map(|(owner, _)| *owner).collect();
        owners.into_iter().for_each(|owner| self.ask(Asked::Again(owner), commands));
        true
    }

    /// Whether something is kept that no owner that answered is known to have seen.
    fn is_doubtful(&self) -> bool {
        let unknown = |record: &Record| record.siblings().iter().any(|kept| !self.is_known(kept.dot));
        self.kept.iter().filter_map(|(_, record)| record.as_ref()).any(unknown)
    }

    fn is_known(&self, dot: Dot) -> bool {
        let covers = |(_, record): &(_, Option<Record>)| record.as_ref().is_some_and(|held| held.context().covers(dot));
        self.answers.iter().any(covers)
    }

    /// Whether what was answered so far is older than what the client has seen.
    fn is_behind(&self) -> bool {
        let since = &self.options.since;
        if since.is_empty() {
            return false;
        }
        let merged = self.merged();
        // What consensus agreed on is on a majority, unless it was forgotten: of which a key's own record says nothing.
        let is_majority = 2 * self.answers.len() > self.ring.owners(self.partition).len();
        let seen_ballot = is_majority || merged.context().ballot() >= since.ballot();
        !(seen_ballot && super::is_since(&merged, since))
    }

    /// Asks further nodes for what the client has seen; whether there is anybody left to wait for.
    fn seek(&mut self, commands: &mut Vec<Command>) -> bool {
        if !self.unasked.is_empty() {
            self.ask_next(commands);
        } else if self.owners_awaited == 0 {
            self.ask_stand_ins_too(commands);
        }
        self.owners_awaited + self.stand_ins_awaited > 0
    }

    /// A call came back; who was asked.
    fn take(&mut self, call: CallId) -> Option<Asked> {
        let asked = self.calls.get_mut(call.0 as usize)?.take()?;
        match asked {
            Asked::Owner(_) | Asked::Again(_) => self.owners_awaited -= 1,
            Asked::StandIn(_) => self.stand_ins_awaited -= 1,
        }
        Some(asked)
    }

    /// An answer that came after the conclusion.
    fn late(&mut self, event: Event, commands: &mut Vec<Command>) {
        let (call, held) = match event {
            Event::Answered { call, answer: Answer::Found { record } } => (call, Some(record)),
            Event::Answered { call, .. } | Event::Failed { call, .. } => (call, None),
            Event::Start | Event::Woken | Event::Deadline => return,
        };
        if let (Some(Asked::Owner(owner)), Some(held)) = (self.take(call), held) {
            self.repair(owner, held.as_ref(), commands);
        }
    }

    /// Sends the merged record to an owner that answered with less (Dynamo, §5). Off the client's path: the answer
    /// has been given. One that turns out to hold more than the client was told is left to anti-entropy.
    fn repair(&mut self, owner: MemberIndex, held: Option<&Record>, commands: &mut Vec<Command>) {
        let Some(told) = &self.told else { return };
        if held.is_some_and(|held| held.includes(told)) {
            return;
        }
        let request = Request::Merge { key: self.key.clone(), record: told.clone() };
        let call = CallId(self.calls.len() as u32);
        // Nothing is done about its answer.
        self.calls.push(None);
        self.repairs += 1;
        commands.push(Command::Call { call, to: owner, request });
    }

    fn conclude(&mut self, must: bool, commands: &mut Vec<Command>) -> Option<GetOutcome> {
        let known = self.kept.iter().any(|(_, record)| record.is_some());
        // Owners that are only slow are waited for to the end: what is kept for them is not all they hold.
        let down = |call: &Option<Asked>| match call {
            Some(Asked::Owner(member)) => self.options.avoid.contains(member),
            _ => true,
        };
        let only_down = self.calls.iter().all(down);
        let stood_in = self.standing_in && self.stand_ins_awaited == 0 && known && only_down;
        let heard_the_rest = self.patience_over && only_down && !self.options.hard && !self.answers.is_empty();
        let over = self.owners_awaited + self.stand_ins_awaited == 0 || heard_the_rest;
        let enough = self.answers.len() >= self.wanted();
        if self.concluded || !(enough || must || over || stood_in) {
            return None;
        }
        let unheard = self.calls.iter().any(|call| matches!(call, Some(Asked::Again(_))));
        if !must && (unheard || self.confirm(commands)) {
            return None;
        }
        if must && !self.answers.is_empty() && self.is_doubtful() && (unheard || !self.confirming) {
            // Nobody said in time whether it is old. What owners answered goes before what may have been deleted.
            self.kept.clear();
        }
        let is_behind = self.is_behind();
        if is_behind && !must && self.seek(commands) {
            return None;
        }
        self.concluded = true;
        let (answered, needed) = (self.answers.len(), self.options.quorum.needed());
        if answered == 0 && !known || self.options.hard && !self.options.quorum.is_reached(answered) {
            return Some(GetOutcome::Unavailable { answered, needed, unfilled: self.unfilled });
        }
        if is_behind {
            return Some(GetOutcome::Behind { answered });
        }
        // Where an owner was heard after all, what is kept for it counts too: nobody knows whether it has arrived.
        let record = self.merged();
        let mut answers = std::mem::take(&mut self.answers);
        answers.extend(std::mem::take(&mut self.kept).into_iter().filter(|(_, record)| record.is_some()));
        if answered == 0 && self.unfilled > 0 && record.is_tombstone() {
            // An owner that is being filled, and nobody who would know: what it holds may be an old delete.
            return Some(GetOutcome::Unavailable { answered, needed, unfilled: self.unfilled });
        }
        // One owner alone cannot be behind itself.
        if answered > 0 && answered + self.owners_awaited > 1 && !record.is_unknown() {
            self.told = Some(record.clone());
            answers[..answered].iter().for_each(|(owner, held)| self.repair(*owner, held.as_ref(), commands));
        }
        Some(GetOutcome::Found { record, answers, answered })
    }
}

impl Operation for Get {
    type Output = GetOutcome;

    fn on(&mut self, event: Event, commands: &mut Vec<Command>) -> Option<GetOutcome> {
        let must = matches!(event, Event::Deadline);
        if self.concluded {
            self.late(event, commands);
            return None;
        }
        match event {
            Event::Start => (0..self.wanted()).for_each(|_| self.ask_next(commands)),
            Event::Woken if self.unasked.is_empty() => {
                self.patience_over = true;
                self.ask_stand_ins(commands);
            }
            Event::Woken => {
                self.hedges += 1;
                self.ask_next(commands);
            }
            Event::Answered { call, answer } => match (self.take(call)?, answer) {
                (Asked::Owner(member), Answer::Found { record }) => self.answers.push((member, record)),
                (Asked::StandIn(member), Answer::Found { record }) => self.kept.push((member, record)),
                (Asked::Owner(member), Answer::Partial(Part::Found { record })) => {
                    self.unfilled += 1;
                    self.kept.push((member, record));
                    self.ask_next(commands);
                }
                (Asked::Again(member), Answer::Found { record: Some(more) }) => {
                    for (_, held) in self.answers.iter_mut().filter(|(owner, _)| *owner == member) {
                        *held = Some(held.as_ref().map_or_else(|| more.clone(), |held| held.merge(&more)));
                    }
                }
                (Asked::Owner(_), _) => self.ask_next(commands),
                (Asked::StandIn(_) | Asked::Again(_), _) => {}
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
        self.conclude(must, commands)
    }

    fn is_done(&self) -> bool {
        self.concluded && (self.owners_awaited == 0 || self.told.is_none())
    }

    fn repairs(&self) -> u64 {
        self.repairs
    }

    fn hedges(&self) -> u64 {
        self.hedges
    }
}

#[cfg(test)]
mod tests;
