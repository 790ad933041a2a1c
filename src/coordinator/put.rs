//! `Put`: a client's write in the AP modes, and its delete.
//!
//! ```text
//!  coordinator        owner A (makes the dot)      owner B        owner C
//!      | -- Write ------------> |                     |              |
//!      | <- Written(record) --- |  durable            |              |
//!      | -- Merge(record) ------+-------------------> | -----------> |
//!      | <- Merged -------------+-------------------- |              |
//!      |  majority: the client is answered; C's answer, or its silence, is still listened to
//!      | -- Hint(record for C) -> stand-in
//! ```
//!
//! The dot is made by an owner, on the record it holds, and leaves it only once durable. An owner that is silent
//! for a while is passed over for the next one, which makes a dot of its own: the same value twice at worst, never
//! none. If the silent one has made it too, one of the two is let go of; so that the client is told of both, it waits
//! for owners that were passed over for as long as it does for copies. An increment would count twice: it is passed on
//! only by an owner that surely has not taken it.
//! If no owner can be had, this node keeps the write for all of them. An owner that is still being filled makes no
//! dot, and its copy counts as a hint: durable, and not yet an owner's. After DeCandia et al., "Dynamo" (2007),
//! §4.5–4.6.

mod concluding;
mod twins;
mod wish;

pub use wish::{PutOptions, Write};

use super::order::asking_order;
use super::{Electorate, PutOutcome, Quorum};
use crate::operation::{CallId, Command, Event, Failure, Operation};
use crate::placement::{MemberIndex, Partition, Ring};
use crate::protocol::{Answer, Part, Refusal, Request};
use crate::record::{Dot, Edit, Record, Seen, Stamp};
use std::sync::Arc;

/// How long owners that are all believed down may still surprise us, in milliseconds.
const DOWN_PATIENCE_MS: u64 = 50;

/// How often an owner is asked again to make the dot when others have written since.
const OVERTAKEN_MAX: u64 = 8;

/// What is known of one owner.
#[derive(Clone, Copy, Debug, Default)]
struct Owner {
    /// It was asked to make the dot.
    tried: bool,
    /// It has the write.
    acked: bool,
    /// It has the covering record of the second round too.
    covered: bool,
    /// A hint for it is kept, or on its way.
    hint: Hint,
    /// A copy is on its way to it.
    copying: bool,
    /// It has made the write too, and is told to let go of its own.
    has_twin: bool,
}

#[derive(Clone, Copy, PartialEq, Debug, Default)]
enum Hint {
    #[default]
    None,
    /// Asked of one candidate, the next one if that fails.
    Asked,
    Kept,
    /// Nobody would keep it.
    Lost,
}

/// Why a call was made.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    Make { owner: usize },
    MakeHint,
    Copy { owner: usize, covering: bool },
    Cover,
    Settle { owner: usize },
    Hint { owner: usize, candidate: usize },
}

/// The machine.
pub struct Put {
    write: Write,
    ring: Arc<Ring>,
    partition: Partition,
    me: MemberIndex,
    /// Owners in the order in which they are asked to make the dot; behind them those that only take copies: while owners
    /// change, those that are to be owners, or were.
    electorate: Electorate,
    /// Of each of them.
    owners: Vec<Owner>,
    quorum: Quorum,
    hard: bool,
    covers: bool,
    avoid: Vec<MemberIndex>,
    /// Nothing that came later than this may be superseded by an owner that is asked next.
    now: Stamp,
    /// Times an owner refused to make the dot as others had written since.
    overtaken: u64,
    maker_patience_ms: u64,
    hint_patience_ms: u64,
    calls: Vec<Option<Purpose>>,
    outstanding: usize,
    made: Option<Made>,
    covering: bool,
    /// What the second round is to cover.
    found: Option<Record>,
    concluded: bool,
    /// The dot was asked of this node itself, on a hint.
    made_on_hint: bool,
    /// What an earlier try left, until this one has its own dot.
    earlier: Option<Record>,
    /// Owners have had their time: those still silent get a hint, and the client is not kept waiting for them.
    patience_over: bool,
    /// Why the last owner that refused did so.
    cause: Option<Refusal>,
    /// An owner that was asked to make the dot has not answered, or its disk failed, and may have made it.
    doubtful: bool,
    /// This node is an owner that makes no dots for now: it is being filled, or its clock is wrong.
    declined: bool,
}

/// The write once it has a name.
struct Made {
    /// The owner that made the dot; none when it was made here on a hint.
    maker: Option<usize>,
    dot: Dot,
    created: bool,
    record: Record,
}

impl Put {
    /// A write coordinated by `me` over the owners that `ring` names.
    pub fn new(write: Write, ring: Arc<Ring>, me: MemberIndex, options: PutOptions) -> Put {
        let partition = Partition::of(write.key.position());
        // The repetition of a request should meet the owner that knows it, whoever coordinates.
        let first = if matches!(write.edit, Edit::Add { request: Some(_), .. }) { None } else { Some(me) };
        let makers = asking_order(&ring, partition, first, &[], &options.avoid);
        let electorate = Electorate::beginning_with(&ring, partition, makers);
        Put {
            covers: options.covers && matches!(write.edit, Edit::Write { seen: Seen::Everything, .. }),
            owners: vec![Owner::default(); electorate.members().len()],
            now: options.now.max(write.edit.latest_seen().unwrap_or_default()),
            overtaken: 0,
            write,
            ring,
            partition,
            me,
            electorate,
            quorum: options.quorum,
            hard: options.hard,
            maker_patience_ms: (options.deadline_ms / 8).clamp(1, 500),
            hint_patience_ms: (options.deadline_ms / 2).max(1),
            calls: Vec::with_capacity(4),
            outstanding: 0,
            made: None,
            covering: false,
            found: None,
            concluded: false,
            made_on_hint: false,
            patience_over: false,
            cause: None,
            doubtful: false,
            declined: false,
            avoid: options.avoid,
            earlier: options.earlier,
        }
    }

    fn call(&mut self, purpose: Purpose, to: MemberIndex, request: Request, commands: &mut Vec<Command>) {
        let call = CallId(self.calls.len() as u32);
        self.calls.push(Some(purpose));
        self.outstanding += 1;
        commands.push(Command::Call { call, to, request });
    }

    /// Those that may make the dot.
    fn makers(&self) -> &[Owner] {
        &self.owners[..self.electorate.owners()]
    }

    fn member(&self, owner: usize) -> MemberIndex {
        self.electorate.members()[owner]
    }

    /// Asks the next owner to make the dot; when none is left, makes it here and keeps it for all of them.
    fn make(&mut self, commands: &mut Vec<Command>) {
        if self.may_have_counted() {
            return;
        }
        let Write { key, edit } = self.write.clone();
        if let Some(owner) = self.makers().iter().position(|owner| !owner.tried) {
            self.make_on(owner, commands);
            commands.push(Command::Wake { after_ms: self.maker_patience_ms });
        } else if !self.hard && !self.made_on_hint && (self.declined || !self.ring.is_owner(self.me, self.partition)) {
            self.made_on_hint = true;
            let targets = self.electorate.members().iter().map(|&member| self.name(member)).collect();
            self.call(Purpose::MakeHint, self.me, Request::HintWrite { key, edit, targets }, commands);
        }
    }

    /// Asks an owner to make the dot. It may answer, or only be heard, when another was asked in its place and the client
    /// has long been told: what was written after that must not be superseded, and comes with later stamps. While nobody
    /// else is asked the client waits at least as long as this owner has, less something for clocks that differ.
    fn make_on(&mut self, owner: usize, commands: &mut Vec<Command>) {
        self.owners[owner].tried = true;
        let making = |call: &Option<Purpose>| matches!(call, Some(Purpose::Make { .. }));
        let quarters = if self.calls.iter().any(making) { self.overtaken.min(3) } else { 3 };
        let until = match self.write.edit.counts() {
            // Supersedes nothing.
            true => Stamp::MAX,
            false => self.now.plus_ms(self.maker_patience_ms * quarters / 4),
        };
        let Write { key, edit } = self.write.clone();
        let request = Request::Write { key, edit, until };
        self.call(Purpose::Make { owner }, self.member(owner), request, commands);
    }

    /// Whether it is an increment that an owner was asked for and has not surely refused.
    fn may_have_counted(&self) -> bool {
        self.write.edit.counts() && self.may_be_made()
    }

    /// Whether somebody was asked to make it and has not surely refused.
    fn may_be_made(&self) -> bool {
        let making = |call: &Option<Purpose>| matches!(call, Some(Purpose::Make { .. } | Purpose::MakeHint));
        self.doubtful || self.calls.iter().any(making)
    }

    fn name(&self, member: MemberIndex) -> Box<str> {
        self.ring.member(member).name.as_str().into()
    }

    /// Sends the record to every owner but its maker.
    fn copy(&mut self, covering: bool, commands: &mut Vec<Command>) {
        let Some(made) = &self.made else { return };
        let (maker, record) = (made.maker, made.record.clone());
        for owner in (0..self.owners.len()).filter(|&owner| Some(owner) != maker) {
            self.owners[owner].copying = true;
            let request = Request::Merge { key: self.write.key.clone(), record: record.clone() };
            self.call(Purpose::Copy { owner, covering }, self.member(owner), request, commands);
            if self.avoid.contains(&self.member(owner)) && self.owners[owner].hint == Hint::None {
                self.hint(owner, 0, commands);
            }
        }
        if self.outstanding > 0 {
            let all_down =
                (0..self.owners.len()).all(|owner| Some(owner) == maker || self.avoid.contains(&self.member(owner)));
            let after_ms = if all_down { self.hint_patience_ms.min(DOWN_PATIENCE_MS) } else { self.hint_patience_ms };
            commands.push(Command::Wake { after_ms });
        }
    }

    fn written(&mut self, maker: Option<usize>, created: bool, record: Record, commands: &mut Vec<Command>) {
        // A new dot's stamp exceeds every stamp its maker had seen, those in the record included.
        let Some(dot) = record.context().newest() else { return };
        if self.made.is_some() {
            return self.settle(maker, dot, &record, commands);
        }
        self.made = Some(Made { maker, dot, created, record });
        match maker {
            Some(owner) => {
                self.owners[owner].acked = true;
                self.copy(false, commands);
            }
            None => {
                self.owners.iter_mut().for_each(|owner| owner.hint = Hint::Kept);
                commands.push(Command::Wake { after_ms: self.hint_patience_ms });
            }
        }
        self.settle_earlier(commands);
    }

    /// Whether `more`, found on another owner, holds siblings that this plain write should have superseded. Not once the
    /// client has been told: what is found then may have been written later, by a clock that is behind.
    fn should_cover(&self, more: &Record) -> bool {
        let Some(made) = &self.made else { return false };
        let unseen = |dot: Dot| dot < made.dot && !made.record.context().covers(dot);
        self.covers && !self.covering && !self.concluded && more.siblings().iter().any(|sibling| unseen(sibling.dot))
    }

    /// Begins the second round, where what another owner holds calls for it.
    fn cover(&mut self, more: Option<Record>, commands: &mut Vec<Command>) {
        if let Some(other) = more.filter(|more| self.should_cover(more))
            && let Some(Made { maker: Some(maker), dot, .. }) = self.made
        {
            self.covering = true;
            self.found = Some(other.clone());
            let request = Request::Cover { key: self.write.key.clone(), other, dot };
            self.call(Purpose::Cover, self.member(maker), request, commands);
        }
    }

    /// The maker has gone or declines: the others are told what it would have told them. A delete would otherwise be
    /// acknowledged and the older value still be shown. Covering makes no dot, so anyone may do it.
    fn cover_without_maker(&mut self, commands: &mut Vec<Command>) {
        if let (Some(made), Some(other), false) = (&mut self.made, self.found.take(), self.concluded) {
            made.record = made.record.cover(&other, made.dot);
            made.maker = None;
            self.copy(true, commands);
        }
    }

    /// Asks a candidate to keep the record for `owner`: the stand-ins in ring order, then this node, and those believed
    /// down last. One that is drained keeps it only where none of the other holders does.
    fn hint(&mut self, owner: usize, candidate: usize, commands: &mut Vec<Command>) {
        let Some(made) = &self.made else { return };
        let record = made.record.clone();
        let mut candidates = self.ring.stand_ins(self.partition);
        if self.ring.member(self.me).weight == 0 {
            let others = self.electorate.members().iter().enumerate().filter(|(other, _)| *other != owner);
            candidates.extend(others.map(|(_, member)| *member).filter(|member| *member != self.me));
        }
        if !candidates.contains(&self.me) {
            candidates.push(self.me);
        }
        candidates.sort_by_key(|candidate| self.avoid.contains(candidate));
        let Some(&on) = candidates.get(candidate) else {
            self.owners[owner].hint = Hint::Lost;
            return;
        };
        self.owners[owner].hint = Hint::Asked;
        let targets = vec![self.name(self.member(owner))];
        let request = Request::Hint { key: self.write.key.clone(), record, targets };
        self.call(Purpose::Hint { owner, candidate }, on, request, commands);
    }

    fn answered(&mut self, purpose: Purpose, answer: Answer, commands: &mut Vec<Command>) {
        match (purpose, answer) {
            (Purpose::Make { owner }, Answer::Written { created, record }) => {
                self.written(Some(owner), created, record, commands);
            }
            // The client still waits, so whatever was written there is older than what it is told: once more.
            (Purpose::Make { owner }, Answer::Refused(Refusal::Overtaken { latest }))
                if self.made.is_none() && !self.concluded && self.overtaken < OVERTAKEN_MAX =>
            {
                self.overtaken += 1;
                self.now = self.now.max(latest);
                self.make_on(owner, commands);
            }
            (Purpose::MakeHint, Answer::Written { created, record }) => self.written(None, created, record, commands),
            (Purpose::Copy { owner, covering }, Answer::Merged { more, .. }) => {
                self.owners[owner].copying = false;
                self.owners[owner].acked = true;
                self.owners[owner].covered |= covering;
                self.cover(more, commands);
            }
            (Purpose::Copy { owner, .. }, Answer::Partial(Part::Merged { more, .. })) => {
                self.owners[owner].copying = false;
                self.owners[owner].hint = Hint::Kept;
                self.cover(more, commands);
            }
            (Purpose::Cover, Answer::Written { record, .. }) => {
                if let Some(made) = &mut self.made {
                    made.record = made.record.merge(&record);
                    if let Some(maker) = made.maker {
                        self.owners[maker].covered = true;
                    }
                }
                self.copy(true, commands);
            }
            (Purpose::Settle { owner }, Answer::Merged { .. }) => {
                self.owners[owner].has_twin = false;
                self.owners[owner].acked = true;
            }
            (Purpose::Hint { owner, .. }, Answer::Merged { .. }) => self.owners[owner].hint = Hint::Kept,
            (purpose, Answer::Refused(refusal)) => self.failed(purpose, Failure::Refused(refusal), commands),
            (purpose, _) => self.failed(purpose, Failure::Unknown, commands),
        }
    }

    fn failed(&mut self, purpose: Purpose, failure: Failure, commands: &mut Vec<Command>) {
        // What a disk refused half-way may surface after a crash.
        if matches!(failure, Failure::Unknown | Failure::Refused(Refusal::Fenced | Refusal::ReadOnly { .. })) {
            self.doubtful |= matches!(purpose, Purpose::Make { .. } | Purpose::MakeHint);
        }
        let declines = |refusal: &Refusal| matches!(refusal, Refusal::NotFilled | Refusal::ClockAhead { .. });
        if let (Purpose::Make { owner }, Failure::Refused(refusal)) = (purpose, &failure)
            && declines(refusal)
        {
            self.declined |= self.member(owner) == self.me;
        }
        if let Failure::Refused(refusal) = failure {
            self.cause = Some(refusal);
        }
        match purpose {
            // The client has been told, or another made it: nobody else is asked.
            Purpose::Make { .. } | Purpose::MakeHint if self.made.is_some() || self.concluded => {}
            Purpose::Make { .. } => self.make(commands),
            Purpose::MakeHint => {}
            Purpose::Copy { owner, .. } => {
                self.owners[owner].copying = false;
                if self.owners[owner].hint == Hint::None {
                    self.hint(owner, 0, commands);
                }
            }
            Purpose::Cover => self.cover_without_maker(commands),
            // Sessions bring it what the others have.
            Purpose::Settle { owner } => self.owners[owner].has_twin = false,
            Purpose::Hint { owner, .. } if self.owners[owner].hint == Hint::Kept => {}
            Purpose::Hint { owner, candidate } => self.hint(owner, candidate + 1, commands),
        }
    }
}

impl Operation for Put {
    type Output = PutOutcome;

    const DELIVERS: bool = true;

    fn on(&mut self, event: Event, commands: &mut Vec<Command>) -> Option<PutOutcome> {
        let must = matches!(event, Event::Deadline);
        match event {
            Event::Start => self.make(commands),
            Event::Answered { call, answer } => {
                let purpose = self.take(call)?;
                let final_refusal = match (&purpose, &answer) {
                    (Purpose::Make { .. } | Purpose::MakeHint, Answer::Refused(refusal)) if self.made.is_none() => {
                        is_final(refusal).then(|| refusal.clone())
                    }
                    _ => None,
                };
                if let Some(refusal) = final_refusal {
                    if std::mem::replace(&mut self.concluded, true) {
                        return None;
                    }
                    // "Nothing was stored" is not for us to say while another owner may have taken it.
                    return Some(if self.may_be_made() {
                        PutOutcome::Unknown { replicas: self.replicas(), cause: Some(refusal), is_nowhere: false }
                    } else {
                        PutOutcome::Refused(refusal)
                    });
                }
                self.answered(purpose, answer, commands);
            }
            Event::Failed { call, failure } => {
                let purpose = self.take(call)?;
                self.failed(purpose, failure, commands);
            }
            Event::Woken if self.made.is_none() && !self.concluded => {
                self.now = self.now.plus_ms(self.maker_patience_ms);
                self.make(commands);
            }
            Event::Woken => {
                self.patience_over = true;
                for owner in 0..self.owners.len() {
                    if self.owners[owner].copying && !self.owners[owner].acked && self.owners[owner].hint == Hint::None
                    {
                        self.hint(owner, 0, commands);
                    }
                }
            }
            Event::Deadline => {}
        }
        self.conclude(must)
    }

    fn is_done(&self) -> bool {
        self.concluded && self.outstanding == 0
    }
}

impl Put {
    fn take(&mut self, call: CallId) -> Option<Purpose> {
        let purpose = self.calls.get_mut(call.0 as usize)?.take()?;
        self.outstanding -= 1;
        Some(purpose)
    }
}

/// Whether no other owner is asked: each would refuse for the same reason; or the one that is full is not to be passed over, as
/// it would be brought the key all the same.
fn is_final(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Unfit(_) | Refusal::StampAhead(_) | Refusal::NodeFull { .. })
}

#[cfg(test)]
mod tests;
