//! `Relayout`: the members agree on the next layout. The proposer of single-decree Paxos, one decree an epoch; its
//! acceptor is [`Register`](crate::membership::Register).
//!
//! ```text
//!  proposer              each voter of the present layout
//!      | -- Prepare(5, r) -----> |   promised, synced; what was accepted for epoch 5 before
//!      | <- Promised ----------- |
//!      |  a majority: what one of them accepted in the latest round, or the proposer's own layout
//!      | -- Accept(r, layout) -> |   accepted, synced
//!      | <- Accepted ----------- |
//!      |  a majority: this is epoch 5, whatever is proposed later
//! ```
//!
//! A vote counts only from the store that the layout binds to the member's name: one that lost its disk has forgotten what
//! it promised. Where another layout turns out to be chosen, whoever asked for this one is told.

use crate::membership::Round;
use crate::operation::{CallId, Command, Event, Operation};
use crate::placement::{Layout, MemberIndex, NodeId};
use crate::protocol::{Answer, LayoutAnswer, LayoutRequest, ROUNDS_MAX, Refusal, Request};
use std::collections::BTreeSet;

/// The first pause after another round came between, and the longest, in milliseconds, about.
const BACKOFF_MS: u64 = 5;
const BACKOFF_MS_MAX: u64 = 200;

/// How a [`Relayout`] is to go about it.
#[derive(Clone, Debug)]
pub struct RelayoutOptions {
    /// The epoch that is decided on.
    pub epoch: u64,
    /// The proposer's id.
    pub by: NodeId,
    /// Those who vote, with the ids of their stores.
    pub voters: Vec<(MemberIndex, NodeId)>,
    /// How many of them must agree: more than half, or all for the first layout of a cluster.
    pub needed: usize,
    /// Random: how long to back off.
    pub chance: u64,
}

/// How it ended.
#[derive(Clone, PartialEq, Debug)]
pub enum Relaid {
    /// This is the layout of that epoch.
    Chosen {
        /// Its bytes.
        layout: Vec<u8>,
        /// Whether it is the one that was proposed here.
        is_own: bool,
    },
    /// A voter goes by a later layout: the epoch was decided on before.
    Behind {
        /// Who.
        by: MemberIndex,
    },
    /// Too few voters were had. What was proposed may still be chosen.
    Unavailable {
        /// How many agreed in the last round.
        agreed: usize,
    },
}

enum Phase {
    Preparing { accepted: Option<(Round, Vec<u8>)> },
    Accepting { layout: Vec<u8> },
    Resting,
}

/// The machine.
pub struct Relayout {
    options: RelayoutOptions,
    own: Vec<u8>,
    phase: Phase,
    round: Round,
    agreed: usize,
    awaited: usize,
    /// Of each call, the voter asked, and in which turn.
    calls: Vec<Option<(usize, u32)>>,
    turn: u32,
    pauses: u32,
    concluded: bool,
}

impl Relayout {
    /// Proposes these bytes of a layout.
    pub fn new(layout: Vec<u8>, options: RelayoutOptions) -> Relayout {
        let round = Round { number: 0, by: options.by };
        let (phase, calls) = (Phase::Resting, Vec::new());
        Relayout {
            options,
            own: layout,
            phase,
            round,
            agreed: 0,
            awaited: 0,
            calls,
            turn: 0,
            pauses: 0,
            concluded: false,
        }
    }

    fn ask_all(&mut self, request: &LayoutRequest, commands: &mut Vec<Command>) {
        (self.agreed, self.awaited) = (0, self.options.voters.len());
        self.turn += 1;
        for voter in 0..self.options.voters.len() {
            let call = CallId(self.calls.len() as u32);
            self.calls.push(Some((voter, self.turn)));
            let to = self.options.voters[voter].0;
            commands.push(Command::Call { call, to, request: Request::Layout(request.clone()) });
        }
    }

    fn prepare(&mut self, commands: &mut Vec<Command>) {
        self.round.number = self.round.number.saturating_add(1);
        self.phase = Phase::Preparing { accepted: None };
        self.ask_all(&LayoutRequest::Prepare { epoch: self.options.epoch, round: self.round }, commands);
    }

    fn rest(&mut self, commands: &mut Vec<Command>) {
        self.phase = Phase::Resting;
        let most = (BACKOFF_MS << self.pauses.min(16)).min(BACKOFF_MS_MAX);
        let after_ms = 1 + self.options.chance.rotate_left(7 * self.pauses) % most;
        self.pauses += 1;
        commands.push(Command::Wake { after_ms });
    }

    /// Where the round has come to.
    fn judge(&mut self, commands: &mut Vec<Command>) -> Option<Relaid> {
        if self.agreed >= self.options.needed {
            match std::mem::replace(&mut self.phase, Phase::Resting) {
                Phase::Preparing { accepted } => {
                    let accepted = accepted.and_then(|(_, layout)| self.carried_on(layout));
                    let layout = accepted.unwrap_or_else(|| self.own.clone());
                    let request = LayoutRequest::Accept { round: self.round, layout: layout.clone() };
                    self.phase = Phase::Accepting { layout };
                    self.ask_all(&request, commands);
                }
                Phase::Accepting { layout } => {
                    let is_own = layout == self.own;
                    return Some(Relaid::Chosen { layout, is_own });
                }
                Phase::Resting => {}
            }
        } else if self.agreed + self.awaited < self.options.needed && !matches!(self.phase, Phase::Resting) {
            self.rest(commands);
        }
        None
    }

    /// Whom a call went to that came back, if it is one of the present turn.
    fn asked(&mut self, call: CallId) -> Option<usize> {
        let (voter, turn) = self.calls.get_mut(call.0 as usize)?.take()?;
        (turn == self.turn).then_some(voter)
    }

    /// A layout that was accepted before, which may have been chosen. The first one of a cluster is chosen by those that it
    /// lists alone: where one of these is there under another id, it was not, and will not be; else none but them are asked.
    fn carried_on(&mut self, layout: Vec<u8>) -> Option<Vec<u8>> {
        if self.options.epoch > 1 {
            return Some(layout);
        }
        let listed: BTreeSet<NodeId> =
            Layout::decode(&layout).ok()?.members().iter().filter_map(|member| member.id).collect();
        if !listed.iter().all(|id| self.options.voters.iter().any(|(_, voter)| voter == id)) {
            return None;
        }
        self.options.voters.retain(|(_, voter)| listed.contains(voter));
        self.options.needed = self.options.voters.len();
        Some(layout)
    }

    fn heard(&mut self, voter: usize, answer: LayoutAnswer) {
        let (_, id) = self.options.voters[voter];
        match (&mut self.phase, answer) {
            (Phase::Preparing { accepted }, LayoutAnswer::Promised { by, accepted: theirs }) if by == id => {
                let is_later = |theirs: &(Round, Vec<u8>)| accepted.as_ref().is_none_or(|held| held.0 < theirs.0);
                if let Some(theirs) = theirs.filter(is_later) {
                    *accepted = Some(theirs);
                }
                self.agreed += 1;
            }
            (Phase::Accepting { .. }, LayoutAnswer::Accepted { by }) if by == id => self.agreed += 1,
            (_, LayoutAnswer::Outvoted { round }) if round.number < ROUNDS_MAX => {
                self.round.number = self.round.number.max(round.number);
            }
            _ => {}
        }
    }
}

impl Operation for Relayout {
    type Output = Relaid;

    fn on(&mut self, event: Event, commands: &mut Vec<Command>) -> Option<Relaid> {
        if self.concluded {
            return None;
        }
        let relaid = match event {
            Event::Start => {
                self.prepare(commands);
                None
            }
            Event::Woken => {
                if matches!(self.phase, Phase::Resting) {
                    self.prepare(commands);
                }
                None
            }
            Event::Answered { call, answer } => {
                let voter = self.asked(call)?;
                self.awaited -= 1;
                match answer {
                    Answer::Refused(Refusal::StaleEpoch { epoch }) if epoch >= self.options.epoch => {
                        Some(Relaid::Behind { by: self.options.voters[voter].0 })
                    }
                    Answer::Layout(answer) => {
                        self.heard(voter, answer);
                        self.judge(commands)
                    }
                    _ => self.judge(commands),
                }
            }
            Event::Failed { call, .. } => {
                self.asked(call)?;
                self.awaited -= 1;
                self.judge(commands)
            }
            Event::Deadline => Some(Relaid::Unavailable { agreed: self.agreed }),
        };
        self.concluded = relaid.is_some();
        relaid
    }

    fn is_done(&self) -> bool {
        self.concluded
    }
}

#[cfg(test)]
mod tests;
