//! `Propose`: the owners of a key agree on what it holds. The proposer of CASPaxos, run on one of them.
//!
//! ```text
//!  proposer           itself, and each other owner
//!      | -- Prepare(9) ------> |   promised, synced; what is held there: accepted under 4
//!      | <- Promised ---------- |
//!      |  a majority: what they showed, merged, with the edit made on it
//!      | -- Accept(9, new; 10)->|   accepted under 9, and 10 promised, synced
//!      | <- Accepted ---------- |
//!      |  as many as must: the next edit is proposed under 10 at once, in one round trip
//! ```
//!
//! An edit is worked out on what a majority's promises showed, so on whatever was agreed on before; a condition that is not
//! met, and an edit that does not fit, are answered once a majority has accepted that very state, by an identity write. Whether
//! a key may come into being says the node that proposes, before anything is accepted: who accepts asks for no room.
//! Several that wait for their turn are worked out one after the other and accepted in one go, with what the last of them
//! left: sixteen clients that swap one value cost no more round trips than one.
//!
//! Once an acceptance of edits is out this machine only finishes it: where a later ballot came between, it looks whether its
//! own last write is among what was accepted, and carries that on; if every owner refused it begins anew; else nobody knows.
//!
//! Safe whoever else proposes, live as long as few do: proposals of one key queue at its first owner that lives
//! ([`Turns`](super::Turns)), and those that meet all the same back off. Rystsov, "CASPaxos: Replicated State Machines
//! without logs" (2018), §2.2 and the one-round-trip optimisation of §2.2.1.

mod concluding;
mod proposals;

pub use self::proposals::Agreed;
use self::proposals::Proposals;
use super::{Electorate, Kept};
use crate::operation::{CallId, Command, Event, Failure, Operation};
use crate::placement::MemberIndex;
use crate::protocol::{Answer, Decision, Reach, Refusal, Request};
use crate::record::{Ballot, Dot, Key, Proposal, Record, Stamp};

/// The first pause after another proposal came between, and the longest, in milliseconds, about.
const BACKOFF_MS: u64 = 2;
const BACKOFF_MS_MAX: u64 = 100;

/// How a [`Propose`] is to go about it.
#[derive(Clone, Debug)]
pub struct ProposeOptions {
    /// Who must accept.
    pub reach: Reach,
    /// A ballot that this proposer has used for nothing yet, nor any later one.
    pub ballot: Ballot,
    /// This node's time, by which values expire.
    pub now: Stamp,
    /// What was promised together with the last acceptance.
    pub kept: Option<Kept>,
    /// The epoch that says who the owners are.
    pub epoch: u64,
    /// Members believed to be down.
    pub avoid: Vec<MemberIndex>,
    /// Random: how long to back off.
    pub chance: u64,
    /// Why a key that has no value is to get none here, if it is not.
    pub full: Option<Refusal>,
}

/// How it ended.
#[derive(Clone, PartialEq, Debug)]
pub struct Proposed {
    /// What those who asked are told, in their order.
    pub decisions: Vec<Decision>,
    /// For the next proposal of the key.
    pub kept: Option<Kept>,
    /// The latest stamp of a ballot that was used.
    pub used: Stamp,
    /// What those are told who watch, in this order.
    pub told: Vec<Agreed>,
}

/// How the machine concludes.
#[derive(Clone, Copy)]
enum End {
    /// So many owners have accepted what is left.
    Accepted { acked: usize },
    /// Nothing is held, and nothing would be changed: nobody need accept that.
    Judged,
    /// Nobody has accepted anything, or will.
    Unavailable,
    /// So many owners are known to have accepted it, too few.
    Unknown { acked: usize },
}

/// What is known of one owner in a round.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Vote {
    NotAsked,
    Awaited,
    Yes,
    /// It surely did nothing.
    No,
    /// It may have done what it was asked.
    Unknown,
}

enum Phase {
    Preparing { shown: Vec<Record> },
    Accepting { record: Record, next: Ballot, more: Option<Record> },
    Resting,
}

/// The machine.
pub struct Propose {
    key: Key,
    proposals: Proposals,
    electorate: Electorate,
    options: ProposeOptions,
    phase: Phase,
    ballot: Ballot,
    votes: Vec<Vote>,
    /// Of each call, the owner asked, and in which round.
    calls: Vec<Option<(usize, u32)>>,
    round: u32,
    used: Stamp,
    /// The latest ballot of another proposal that was met.
    met: Option<Ballot>,
    /// Once an acceptance that does is out: its ballot, and the id of the value in it, if it has one.
    out: Option<(Ballot, Option<Dot>)>,
    /// The ballot of the first such acceptance.
    first_out: Option<Ballot>,
    covered: bool,
    pauses: u32,
    cause: Option<Refusal>,
    concluded: bool,
}

impl Propose {
    /// Proposals for `key`, one after the other, or identity writes, among those who keep it.
    pub fn new(key: Key, proposals: Vec<Option<Proposal>>, electorate: Electorate, options: ProposeOptions) -> Propose {
        Propose {
            key,
            proposals: Proposals::new(proposals, options.full.clone()),
            votes: vec![Vote::NotAsked; electorate.members().len()],
            electorate,
            phase: Phase::Resting,
            ballot: options.ballot,
            calls: Vec::new(),
            round: 0,
            used: options.ballot.stamp,
            met: None,
            out: None,
            first_out: None,
            covered: false,
            pauses: 0,
            cause: None,
            concluded: false,
            options,
        }
    }

    fn owners(&self) -> &[MemberIndex] {
        self.electorate.members()
    }

    /// Whether a majority has voted, or may yet vote, in one of these ways.
    fn has_majority(&self, votes: &[Vote]) -> bool {
        self.electorate.has_majority(|owner| votes.contains(&self.votes[owner]))
    }

    /// Whether as many as must accept have voted, or may yet vote, in one of these ways.
    fn has_enough(&self, votes: &[Vote]) -> bool {
        match self.options.reach {
            Reach::Majority => self.has_majority(votes),
            Reach::All | Reach::InOrder => self.votes.iter().all(|vote| votes.contains(vote)),
        }
    }

    fn count(&self, vote: Vote) -> usize {
        self.votes.iter().filter(|held| **held == vote).count()
    }

    /// How many owners are known to have accepted it.
    fn accepted_by(&self) -> usize {
        self.votes[..self.electorate.owners()].iter().filter(|vote| **vote == Vote::Yes).count()
    }

    /// The latest of all stamps that were used or met.
    fn latest_stamp(&self) -> Stamp {
        self.met.map_or(self.used, |met| self.used.max(met.stamp))
    }

    fn mint(&mut self) -> Ballot {
        self.used = self.latest_stamp().following();
        Ballot { stamp: self.used, actor: self.options.ballot.actor }
    }

    fn ask(&mut self, owner: usize, request: Request, commands: &mut Vec<Command>) {
        let call = CallId(self.calls.len() as u32);
        self.calls.push(Some((owner, self.round)));
        self.votes[owner] = Vote::Awaited;
        commands.push(Command::Call { call, to: self.owners()[owner], request });
    }

    fn begin_round(&mut self, ballot: Ballot, phase: Phase) {
        self.round += 1;
        (self.ballot, self.phase) = (ballot, phase);
        self.votes.fill(Vote::NotAsked);
    }

    fn prepare(&mut self, commands: &mut Vec<Command>) {
        let ballot = self.mint();
        self.begin_round(ballot, Phase::Preparing { shown: Vec::new() });
        for owner in 0..self.votes.len() {
            self.ask(owner, Request::Prepare { key: self.key.clone(), ballot }, commands);
        }
    }

    /// Has the record accepted, under the ballot in it.
    fn accept(&mut self, ballot: Ballot, record: Record, commands: &mut Vec<Command>) {
        let next = self.mint();
        if self.proposals.changes() {
            self.first_out = if self.out.is_none() { Some(ballot) } else { self.first_out };
            self.out = Some((ballot, record.agreed().map(|value| value.id())));
        }
        self.begin_round(ballot, Phase::Accepting { record, next, more: None });
        let asked = if self.options.reach == Reach::InOrder { 1 } else { self.votes.len() };
        (0..asked).for_each(|owner| self.ask_to_accept(owner, commands));
    }

    fn ask_to_accept(&mut self, owner: usize, commands: &mut Vec<Command>) {
        if let Phase::Accepting { record, next, .. } = &self.phase {
            let request = Request::Accept { key: self.key.clone(), record: record.clone(), next: Some(*next) };
            self.ask(owner, request, commands);
        }
    }

    /// What is to be accepted under `ballot`, where so much is `shown`.
    fn decide(&mut self, shown: Record, ballot: Ballot, commands: &mut Vec<Command>) -> Option<End> {
        if shown.context().ballot() >= Some(ballot) {
            // No honest owner shows what it could not have promised.
            self.met = self.met.max(shown.context().ballot());
            return self.rest(commands);
        }
        if let Some((out, id)) = self.out {
            let is_own = match shown.agreed() {
                Some(value) => Some(value.id()) == id,
                None => id.is_none() && shown.context().ballot() == Some(out),
            };
            if !is_own {
                return Some(End::Unknown { acked: 0 });
            }
            self.accept(ballot, shown.reballot(ballot), commands);
            return None;
        }
        let was_unknown = shown.is_unknown();
        let record = self.work_out(shown.reballot(ballot));
        if !self.proposals.changes() && was_unknown && !self.proposals.want_it_settled() {
            return Some(End::Judged);
        }
        self.accept(ballot, record, commands);
        None
    }

    /// What the proposals leave of what is held.
    fn work_out(&mut self, held: Record) -> Record {
        let (now_ms, actor) = (self.options.now.ms(), self.options.ballot.actor);
        let mut stamp = self.latest_stamp();
        let mint = || {
            stamp = stamp.following();
            Dot { stamp, actor }
        };
        let left = self.proposals.work_out(held, now_ms, mint);
        self.used = stamp;
        left
    }

    /// Leaves whoever came between some time.
    fn rest(&mut self, commands: &mut Vec<Command>) -> Option<End> {
        self.round += 1;
        self.phase = Phase::Resting;
        let most = (BACKOFF_MS << self.pauses.min(16)).min(BACKOFF_MS_MAX);
        let after_ms = 1 + self.options.chance.rotate_left(7 * self.pauses) % most;
        self.pauses += 1;
        commands.push(Command::Wake { after_ms });
        None
    }

    /// Where the present round has come to.
    fn judge(&mut self, commands: &mut Vec<Command>) -> Option<End> {
        let (yes, awaited) = (self.count(Vote::Yes), self.count(Vote::Awaited));
        match &mut self.phase {
            Phase::Resting => None,
            Phase::Preparing { shown } => {
                if self.electorate.has_majority(|owner| self.votes[owner] == Vote::Yes) {
                    let merged = shown.iter().fold(self.proposals.brought(), |merged, record| merged.merge(record));
                    return self.decide(merged, self.ballot, commands);
                }
                if self.has_majority(&[Vote::Yes, Vote::Awaited]) {
                    return None;
                }
                match (self.met.is_some_and(|met| met > self.ballot), self.out.is_some()) {
                    (true, _) => self.rest(commands),
                    (false, true) => Some(End::Unknown { acked: 0 }),
                    (false, false) => Some(End::Unavailable),
                }
            }
            Phase::Accepting { .. } => {
                if self.has_enough(&[Vote::Yes]) {
                    return self.accepted(self.accepted_by(), commands);
                }
                let is_open = self.has_enough(&[Vote::Yes, Vote::Awaited, Vote::NotAsked]);
                if awaited == 0 && self.options.reach == Reach::InOrder && is_open {
                    self.ask_to_accept(yes, commands);
                    return None;
                }
                if is_open {
                    return None;
                }
                let is_somewhere = yes + self.count(Vote::Unknown) > 0;
                if !is_somewhere && awaited > 0 {
                    return None;
                }
                self.fell_short(self.accepted_by(), is_somewhere, commands)
            }
        }
    }

    fn fell_short(&mut self, acked: usize, is_somewhere: bool, commands: &mut Vec<Command>) -> Option<End> {
        // Where all refused the first acceptance of the edits, nobody has them. An earlier one may be somewhere.
        if !is_somewhere && self.first_out == Some(self.ballot) {
            self.out = None;
        }
        let overtaken = self.met.is_some_and(|met| met > self.ballot);
        match (overtaken, self.out.is_some()) {
            (true, _) => self.rest(commands),
            (false, true) => Some(End::Unknown { acked }),
            (false, false) => Some(End::Unavailable),
        }
    }

    fn accepted(&mut self, acked: usize, commands: &mut Vec<Command>) -> Option<End> {
        let Phase::Accepting { record, next, .. } = &self.phase else { return None };
        let (next, all) = (*next, self.with_more(record));
        let stands_beside = all.siblings().iter().any(|sibling| sibling.agreed.is_none());
        let supersedes = self.proposals.changes() && self.proposals.end_blind();
        if supersedes && !self.covered && stands_beside && all.context().ballot() < Some(next) {
            // Written without consensus since the last promises, and acknowledged before this: superseded, too.
            self.covered = true;
            self.accept(next, all.reballot(next).without_what_stands_beside(), commands);
            return None;
        }
        Some(End::Accepted { acked })
    }

    /// With what those who accepted hold beside it.
    fn with_more(&self, record: &Record) -> Record {
        match &self.phase {
            Phase::Accepting { more: Some(more), .. } => record.merge(more),
            _ => record.clone(),
        }
    }

    /// What is left for the next proposal, where this round ended with an acceptance.
    fn kept(&self) -> Option<Kept> {
        match &self.phase {
            Phase::Accepting { record, next, .. } if self.has_majority(&[Vote::Yes]) => {
                let record = self.with_more(record);
                (record.context().ballot() < Some(*next)).then_some(Kept {
                    ballot: *next,
                    record,
                    epoch: self.options.epoch,
                })
            }
            _ => None,
        }
    }

    /// Whom a call went to that came back, if it is one of the present round.
    fn asked(&mut self, call: CallId) -> Option<usize> {
        let (owner, round) = self.calls.get_mut(call.0 as usize)?.take()?;
        (round == self.round).then_some(owner)
    }

    fn heard(&mut self, owner: usize, answer: Answer) {
        let vote = match (&mut self.phase, answer) {
            (Phase::Preparing { shown }, Answer::Promised { record }) => {
                shown.push(record);
                Vote::Yes
            }
            (Phase::Accepting { more, .. }, Answer::Accepted { more: held }) => {
                *more = match (more.take(), held) {
                    (Some(one), Some(other)) => Some(one.merge(&other)),
                    (one, other) => one.or(other),
                };
                Vote::Yes
            }
            (_, Answer::Refused(refusal)) => {
                // A failing disk may have taken it all the same.
                let vote = match refusal {
                    Refusal::ReadOnly { .. } | Refusal::Fenced => Vote::Unknown,
                    _ => Vote::No,
                };
                if let Refusal::Promised { ballot } = refusal {
                    self.met = self.met.max(Some(ballot));
                }
                self.cause = Some(refusal);
                vote
            }
            _ => Vote::Unknown,
        };
        self.votes[owner] = vote;
    }
}

impl Operation for Propose {
    type Output = Proposed;
    const DELIVERS: bool = true;

    fn on(&mut self, event: Event, commands: &mut Vec<Command>) -> Option<Proposed> {
        if self.concluded {
            return None;
        }
        let is_away = |owner: &MemberIndex| self.options.avoid.contains(owner);
        let end = match event {
            Event::Start if self.options.reach != Reach::Majority && self.owners().iter().any(is_away) => {
                Some(End::Unavailable)
            }
            Event::Start => match self.options.kept.take().filter(|kept| kept.epoch == self.options.epoch) {
                Some(Kept { ballot, record, .. }) => self.decide(record, ballot, commands),
                None => {
                    self.prepare(commands);
                    None
                }
            },
            Event::Woken if matches!(self.phase, Phase::Resting) => {
                self.prepare(commands);
                None
            }
            Event::Woken => None,
            Event::Answered { call, answer } => {
                let owner = self.asked(call)?;
                self.heard(owner, answer);
                self.judge(commands)
            }
            Event::Failed { call, failure } => {
                let owner = self.asked(call)?;
                match failure {
                    Failure::Refused(refusal) => self.heard(owner, Answer::Refused(refusal)),
                    Failure::Unreachable => self.votes[owner] = Vote::No,
                    Failure::Unknown => self.votes[owner] = Vote::Unknown,
                }
                self.judge(commands)
            }
            Event::Deadline => Some(match (&self.phase, self.out) {
                (_, None) => End::Unavailable,
                (Phase::Accepting { .. }, Some(_)) => End::Unknown { acked: self.accepted_by() },
                (_, Some(_)) => End::Unknown { acked: 0 },
            }),
        };
        let end = end?;
        self.concluded = true;
        let is_made = matches!(end, End::Accepted { .. });
        let (kept, told) = if is_made { (self.kept(), self.proposals.told()) } else { (None, Vec::new()) };
        Some(Proposed { decisions: self.decisions(end), kept, used: self.used, told })
    }

    fn is_done(&self) -> bool {
        self.concluded
    }
}

#[cfg(test)]
mod tests;
