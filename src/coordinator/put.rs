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
//! none. If no owner can be had, this node keeps the write for all of them. After DeCandia et al., "Dynamo" (2007),
//! §4.5–4.6.

use super::Quorum;
use crate::operation::{CallId, Command, Event, Failure, Operation};
use crate::placement::{MemberIndex, Partition, Ring};
use crate::protocol::{Answer, Refusal, Request};
use crate::record::{Content, Dot, Key, Record, Seen};
use std::sync::Arc;

/// What a client wants written.
#[derive(Clone, PartialEq, Debug)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// What the client had seen.
    pub seen: Seen,
    /// The value, or nothing for a delete.
    pub content: Option<Content>,
}

/// How far a write got.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Replicas {
    /// Owners of the key.
    pub wanted: usize,
    /// Owners that have it durably.
    pub acked: usize,
    /// Further owners for whom another node keeps it durably.
    pub hinted: usize,
}

/// How a write ended.
#[derive(Clone, PartialEq, Debug)]
pub enum PutOutcome {
    /// As many owners have it as were asked for.
    Stored {
        /// Whether the key had no live value before.
        created: bool,
        /// The record as its first owner has it.
        record: Record,
        /// How far it got.
        replicas: Replicas,
    },
    /// It is durable somewhere, on fewer owners than were asked for.
    Short {
        /// The record as its first holder has it.
        record: Record,
        /// How far it got.
        replicas: Replicas,
    },
    /// It is not known to be where it was asked to be; it may still surface.
    Unknown {
        /// How far it got.
        replicas: Replicas,
        /// Why the last owner that refused it did so.
        cause: Option<Refusal>,
    },
    /// An owner said no for a reason that every other owner would share. Nothing was stored.
    Refused(Refusal),
}

/// How long owners that are all believed down may still surprise us, in milliseconds.
const DOWN_PATIENCE_MS: u64 = 50;

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
    Hint { owner: usize, candidate: usize },
}

/// The machine.
pub struct Put {
    write: Write,
    ring: Arc<Ring>,
    partition: Partition,
    me: MemberIndex,
    /// Owners in the order in which they are asked to make the dot.
    members: Vec<MemberIndex>,
    owners: Vec<Owner>,
    quorum: Quorum,
    hard: bool,
    covers: bool,
    avoid: Vec<MemberIndex>,
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
    /// Owners have had their time: those still silent get a hint, and the client is not kept waiting for them.
    patience_over: bool,
    /// Why the last owner that refused did so.
    cause: Option<Refusal>,
    /// An owner that was asked to make the dot has not answered, and may have made it.
    doubtful: bool,
}

/// The write once it has a name.
struct Made {
    /// The owner that made the dot; none when it was made here on a hint.
    maker: Option<usize>,
    dot: Dot,
    created: bool,
    record: Record,
}

/// How a [`Put`] is to go about it.
#[derive(Clone, Debug)]
pub struct PutOptions {
    /// How many owners must have it before the client is told.
    pub quorum: Quorum,
    /// Whether falling short is an error: the client named a number.
    pub hard: bool,
    /// Whether a plain write sees to it that it supersedes older siblings found on other owners.
    pub covers: bool,
    /// The whole time there is, in milliseconds.
    pub deadline_ms: u64,
    /// Members believed to be down: asked last.
    pub avoid: Vec<MemberIndex>,
}

impl Put {
    /// A write coordinated by `me` over the owners that `ring` names.
    pub fn new(write: Write, ring: Arc<Ring>, me: MemberIndex, options: PutOptions) -> Put {
        let partition = Partition::of(write.key.position());
        let members = asking_order(&ring, partition, me, &options.avoid);
        Put {
            covers: options.covers && write.seen == Seen::Everything,
            owners: vec![Owner::default(); members.len()],
            write,
            ring,
            partition,
            me,
            members,
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
            avoid: options.avoid,
        }
    }

    fn call(&mut self, purpose: Purpose, to: MemberIndex, request: Request, commands: &mut Vec<Command>) {
        let call = CallId(self.calls.len() as u32);
        self.calls.push(Some(purpose));
        self.outstanding += 1;
        commands.push(Command::Call { call, to, request });
    }

    /// Asks the next owner to make the dot; when none is left, makes it here and keeps it for all of them.
    fn make(&mut self, commands: &mut Vec<Command>) {
        let Write { key, seen, content } = self.write.clone();
        if let Some(owner) = self.owners.iter().position(|owner| !owner.tried) {
            self.owners[owner].tried = true;
            let request = Request::Write { key, seen, content };
            self.call(Purpose::Make { owner }, self.members[owner], request, commands);
            commands.push(Command::Wake { after_ms: self.maker_patience_ms });
        } else if !self.hard && !self.made_on_hint && !self.members.contains(&self.me) {
            self.made_on_hint = true;
            let targets = self.members.iter().map(|&member| self.name(member)).collect();
            self.call(Purpose::MakeHint, self.me, Request::HintWrite { key, seen, content, targets }, commands);
        }
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
            self.call(Purpose::Copy { owner, covering }, self.members[owner], request, commands);
            if self.avoid.contains(&self.members[owner]) && self.owners[owner].hint == Hint::None {
                self.hint(owner, 0, commands);
            }
        }
        if self.outstanding > 0 {
            let all_down =
                (0..self.owners.len()).all(|owner| Some(owner) == maker || self.avoid.contains(&self.members[owner]));
            let after_ms = if all_down { self.hint_patience_ms.min(DOWN_PATIENCE_MS) } else { self.hint_patience_ms };
            commands.push(Command::Wake { after_ms });
        }
    }

    fn written(&mut self, maker: Option<usize>, created: bool, record: Record, commands: &mut Vec<Command>) {
        if self.made.is_some() {
            // A silent maker spoke after all. Its copy of the record is on its way, and its older dot gets covered.
            return;
        }
        // A new dot's stamp exceeds every stamp its maker had seen, those in the record included.
        let Some(dot) = record.context().newest() else { return };
        self.made = Some(Made { maker, dot, created, record });
        match maker {
            Some(owner) => {
                self.owners[owner].acked = true;
                self.copy(false, commands);
            }
            None => self.owners.iter_mut().for_each(|owner| owner.hint = Hint::Kept),
        }
    }

    /// Whether `more`, found on another owner, holds siblings that this plain write should have superseded. Not once the
    /// client has been told: what is found then may have been written later, by a clock that is behind.
    fn should_cover(&self, more: &Record) -> bool {
        let Some(made) = &self.made else { return false };
        let unseen = |dot: Dot| dot < made.dot && !made.record.context().covers(dot);
        self.covers && !self.covering && !self.concluded && more.siblings().iter().any(|sibling| unseen(sibling.dot))
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
    /// down last.
    fn hint(&mut self, owner: usize, candidate: usize, commands: &mut Vec<Command>) {
        let Some(made) = &self.made else { return };
        let record = made.record.clone();
        let mut candidates = self.ring.stand_ins(self.partition);
        if !candidates.contains(&self.me) {
            candidates.push(self.me);
        }
        candidates.sort_by_key(|candidate| self.avoid.contains(candidate));
        let Some(&on) = candidates.get(candidate) else {
            self.owners[owner].hint = Hint::Lost;
            return;
        };
        self.owners[owner].hint = Hint::Asked;
        let targets = vec![self.name(self.members[owner])];
        let request = Request::Hint { key: self.write.key.clone(), record, targets };
        self.call(Purpose::Hint { owner, candidate }, on, request, commands);
    }

    fn answered(&mut self, purpose: Purpose, answer: Answer, commands: &mut Vec<Command>) {
        match (purpose, answer) {
            (Purpose::Make { owner }, Answer::Written { created, record }) => {
                self.written(Some(owner), created, record, commands);
            }
            (Purpose::MakeHint, Answer::Written { created, record }) => self.written(None, created, record, commands),
            (Purpose::Copy { owner, covering }, Answer::Merged { more, .. }) => {
                self.owners[owner].copying = false;
                self.owners[owner].acked = true;
                self.owners[owner].covered |= covering;
                if let Some(other) = more.filter(|more| self.should_cover(more))
                    && let Some(Made { maker: Some(maker), dot, .. }) = self.made
                {
                    self.covering = true;
                    self.found = Some(other.clone());
                    let request = Request::Cover { key: self.write.key.clone(), other, dot };
                    self.call(Purpose::Cover, self.members[maker], request, commands);
                }
            }
            (Purpose::Cover, Answer::Written { record, .. }) => {
                if let Some(made) = &mut self.made {
                    made.record = record;
                    if let Some(maker) = made.maker {
                        self.owners[maker].covered = true;
                    }
                }
                self.copy(true, commands);
            }
            (Purpose::Hint { owner, .. }, Answer::Merged { .. }) => self.owners[owner].hint = Hint::Kept,
            (purpose, Answer::Refused(refusal)) => self.failed(purpose, Failure::Refused(refusal), commands),
            (purpose, _) => self.failed(purpose, Failure::Unknown, commands),
        }
    }

    fn failed(&mut self, purpose: Purpose, failure: Failure, commands: &mut Vec<Command>) {
        if matches!(failure, Failure::Unknown | Failure::Refused(Refusal::Fenced)) {
            self.doubtful |= matches!(purpose, Purpose::Make { .. } | Purpose::MakeHint);
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
            Purpose::Hint { owner, candidate } => self.hint(owner, candidate + 1, commands),
        }
    }

    fn replicas(&self) -> Replicas {
        let hinted = |owner: &&Owner| !owner.acked && owner.hint == Hint::Kept;
        Replicas {
            wanted: self.owners.len(),
            acked: self.owners.iter().filter(|owner| owner.acked).count(),
            hinted: self.owners.iter().filter(hinted).count(),
        }
    }

    /// The conclusion, if it can be drawn, or must be.
    fn conclude(&mut self, must: bool) -> Option<PutOutcome> {
        if self.concluded {
            return None;
        }
        let replicas = self.replicas();
        let Some(made) = &self.made else {
            let over = must || self.outstanding == 0;
            self.concluded |= over;
            return over.then_some(PutOutcome::Unknown { replicas, cause: self.cause.clone() });
        };
        let covered = self.owners.iter().filter(|owner| owner.covered).count();
        // Where the client named a number, a hint settles nothing: the owner itself may still answer.
        let given_up = |owner: &Owner| !owner.copying || self.patience_over;
        let kept = |owner: &Owner| matches!(owner.hint, Hint::Kept | Hint::Lost);
        let settled =
            |owner: &Owner| owner.acked || if self.hard { !owner.copying } else { given_up(owner) && kept(owner) };
        let reached = self.quorum.is_reached(replicas.acked);
        let covering = self.covers && self.covering && !self.quorum.is_reached(covered) && self.outstanding > 0;
        if !(must || self.outstanding == 0 || !covering && (reached || self.owners.iter().all(settled))) {
            return None;
        }
        self.concluded = true;
        let (created, record) = (made.created, made.record.clone());
        Some(match (reached, self.hard) {
            (true, _) => PutOutcome::Stored { created, record, replicas },
            (false, false) if replicas.acked + replicas.hinted > 0 => PutOutcome::Short { record, replicas },
            (false, _) => PutOutcome::Unknown { replicas, cause: self.cause.clone() },
        })
    }
}

impl Operation for Put {
    type Output = PutOutcome;

    fn on(&mut self, event: Event, commands: &mut Vec<Command>) -> Option<PutOutcome> {
        let must = matches!(event, Event::Deadline);
        match event {
            Event::Start => self.make(commands),
            Event::Answered { call, answer } => {
                let purpose = self.take(call)?;
                let final_refusal = match (&purpose, &answer) {
                    (Purpose::Make { .. } | Purpose::MakeHint, Answer::Refused(refusal)) if self.made.is_none() => {
                        shared_by_all(refusal).then(|| refusal.clone())
                    }
                    _ => None,
                };
                if let Some(refusal) = final_refusal {
                    if std::mem::replace(&mut self.concluded, true) {
                        return None;
                    }
                    // "Nothing was stored" is not for us to say while another owner may have taken it.
                    let making =
                        |call: &Option<Purpose>| matches!(call, Some(Purpose::Make { .. } | Purpose::MakeHint));
                    return Some(if self.doubtful || self.calls.iter().any(making) {
                        PutOutcome::Unknown { replicas: self.replicas(), cause: Some(refusal) }
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
            Event::Woken if self.made.is_none() && !self.concluded => self.make(commands),
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

/// Whether every owner would refuse for the same reason, so that asking another is pointless.
fn shared_by_all(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::TooManySiblings(_) | Refusal::StampAhead(_))
}

/// The owners of a partition, this node first, those believed down last.
pub(super) fn asking_order(
    ring: &Ring,
    partition: Partition,
    me: MemberIndex,
    avoid: &[MemberIndex],
) -> Vec<MemberIndex> {
    let mut order = ring.owners(partition).to_vec();
    order.sort_by_key(|member| if *member == me { 0 } else { 1 + u8::from(avoid.contains(member)) });
    order
}

#[cfg(test)]
mod tests {
    use super::super::Count;
    use super::*;
    use crate::placement::{ClusterId, Layout, Member, Mode};
    use crate::record::{Actor, Stamp, TooManySiblings};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// A machine under test, and everything it has asked for.
    struct Story {
        put: Put,
        ring: Arc<Ring>,
        calls: Vec<(MemberIndex, Request)>,
        wakes: Vec<u64>,
        outcomes: Vec<PutOutcome>,
    }

    fn ring() -> Arc<Ring> {
        let members = (0..5).map(|node| Member::new(format!("http://n{node}:1"))).collect();
        Arc::new(Ring::new(Layout::provisional(ClusterId(1), 3, Mode::Sloppy, members).unwrap()))
    }

    fn key() -> Key {
        Key::new("k").unwrap()
    }

    fn owners(ring: &Ring) -> Vec<MemberIndex> {
        ring.owners(Partition::of(key().position())).to_vec()
    }

    fn stand_ins(ring: &Ring) -> Vec<MemberIndex> {
        ring.stand_ins(Partition::of(key().position()))
    }

    fn dot(actor: u64, stamp: u64) -> Dot {
        Dot { stamp: Stamp(stamp), actor: Actor(actor) }
    }

    /// A record of one write that nobody else knows of.
    fn record(actor: u64, stamp: u64) -> Record {
        Record::default().write(&Seen::Everything, dot(actor, stamp), Some(Content::plain("v"))).unwrap()
    }

    fn written(actor: u64, stamp: u64) -> Answer {
        Answer::Written { created: true, record: record(actor, stamp) }
    }

    fn merged(more: Option<Record>) -> Answer {
        Answer::Merged { applied: true, more }
    }

    fn refused() -> Answer {
        Answer::Refused(Refusal::ReadOnly)
    }

    impl Story {
        /// A write of a majority, coordinated by an owner; `change` makes it another.
        fn new(change: impl FnOnce(&Ring, &mut Write, &mut MemberIndex, &mut PutOptions)) -> Story {
            let ring = ring();
            let mut write = Write { key: key(), seen: Seen::Everything, content: Some(Content::plain("v")) };
            let mut me = owners(&ring)[0];
            let quorum = Quorum::of(Count::Majority, 3).unwrap();
            let mut options = PutOptions { quorum, hard: false, covers: true, deadline_ms: 4_000, avoid: Vec::new() };
            change(&ring, &mut write, &mut me, &mut options);
            let put = Put::new(write, ring.clone(), me, options);
            let mut story = Story { put, ring, calls: Vec::new(), wakes: Vec::new(), outcomes: Vec::new() };
            story.tell(Event::Start);
            story
        }

        fn plain() -> Story {
            Story::new(|_, _, _, _| {})
        }

        /// Coordinated by a node that is no owner: the last of the stand-ins.
        fn by_stranger() -> Story {
            Story::new(|ring, _, me, _| *me = stand_ins(ring)[1])
        }

        fn tell(&mut self, event: Event) {
            let mut commands = Vec::new();
            let outcome = self.put.on(event, &mut commands);
            self.outcomes.extend(outcome);
            for command in commands {
                match command {
                    Command::Call { call, to, request } => {
                        assert_eq!(call.0 as usize, self.calls.len(), "calls are counted up");
                        self.calls.push((to, request));
                    }
                    Command::Wake { after_ms } => self.wakes.push(after_ms),
                }
            }
        }

        fn answer(&mut self, call: u32, answer: Answer) -> &mut Story {
            self.tell(Event::Answered { call: CallId(call), answer });
            self
        }

        fn fail(&mut self, call: u32, failure: Failure) -> &mut Story {
            self.tell(Event::Failed { call: CallId(call), failure });
            self
        }

        /// The calls as words: what is asked of which owner (`o0`…) or stand-in (`s0`…).
        fn asked(&self) -> Vec<String> {
            let (owners, stand_ins) = (owners(&self.ring), stand_ins(&self.ring));
            let name = |to: MemberIndex| match owners.iter().position(|owner| *owner == to) {
                Some(owner) => format!("o{owner}"),
                None => format!("s{}", stand_ins.iter().position(|stand_in| *stand_in == to).unwrap()),
            };
            let word = |request: &Request| match request {
                Request::Write { .. } => "write",
                Request::Merge { .. } => "copy",
                Request::Cover { .. } => "cover",
                Request::Hint { .. } => "hint",
                Request::HintWrite { .. } => "write-hint",
                Request::Read { .. } | Request::ReadHint { .. } => "read",
            };
            self.calls.iter().map(|(to, request)| format!("{} {}", word(request), name(*to))).collect()
        }

        fn outcome(&self) -> &PutOutcome {
            assert_eq!(self.outcomes.len(), 1, "{:?}", self.outcomes);
            &self.outcomes[0]
        }

        fn replicas(&self) -> Replicas {
            match self.outcome() {
                PutOutcome::Stored { replicas, .. }
                | PutOutcome::Short { replicas, .. }
                | PutOutcome::Unknown { replicas, .. } => *replicas,
                PutOutcome::Refused(refusal) => panic!("{refusal}"),
            }
        }
    }

    fn reached(acked: usize, hinted: usize) -> Replicas {
        Replicas { wanted: 3, acked, hinted }
    }

    #[test]
    fn a_majority_is_told_at_once_and_the_last_owner_is_still_listened_to() {
        let mut story = Story::plain();
        story.answer(0, written(1, 9)).answer(1, merged(None));
        assert!(matches!(story.outcome(), PutOutcome::Stored { created: true, .. }));
        assert_eq!(story.replicas(), reached(2, 0));
        assert!(!story.put.is_done());
        story.answer(2, merged(None));
        assert!(story.put.is_done());
        assert_eq!(story.asked(), ["write o0", "copy o1", "copy o2"]);
    }

    #[test]
    fn an_owner_that_refuses_or_is_silent_is_passed_over() {
        let mut story = Story::plain();
        story.answer(0, refused());
        assert_eq!(story.asked(), ["write o0", "write o1"]);
        story.tell(Event::Woken);
        assert_eq!(story.asked()[2..], ["write o2"]);
        story.answer(2, written(3, 9));
        assert_eq!(story.asked()[3..], ["copy o0", "copy o1"]);
        // The silent one speaks after all: its dot is its own, and does not count as a copy.
        story.answer(1, written(2, 8));
        assert!(story.outcomes.is_empty());
        story.answer(4, merged(None));
        assert_eq!(story.replicas(), reached(2, 0));
    }

    #[test]
    fn without_any_owner_the_coordinator_keeps_the_write_for_all() {
        let mut story = Story::by_stranger();
        for call in 0..3 {
            story.fail(call, Failure::Unreachable);
        }
        assert_eq!(story.asked()[3..], ["write-hint s1"]);
        story.answer(3, written(9, 9));
        assert!(matches!(story.outcome(), PutOutcome::Short { .. }));
        assert_eq!(story.replicas(), reached(0, 3));
        assert!(story.put.is_done());
    }

    #[test]
    fn an_owner_or_a_client_that_names_a_number_makes_no_hint_of_its_own() {
        let mut story = Story::plain();
        for call in 0..3 {
            story.fail(call, Failure::Unreachable);
        }
        assert_eq!(story.outcome(), &PutOutcome::Unknown { replicas: reached(0, 0), cause: None });
        let mut story = Story::new(|ring, _, me, options| (*me, options.hard) = (stand_ins(ring)[0], true));
        for call in 0..3 {
            story.fail(call, Failure::Unreachable);
        }
        assert_eq!(story.outcome(), &PutOutcome::Unknown { replicas: reached(0, 0), cause: None });
        assert!(story.put.is_done());
    }

    #[test]
    fn a_hint_for_a_failed_copy_goes_to_one_candidate_after_another() {
        let mut story = Story::plain();
        story.answer(0, written(1, 9)).fail(1, Failure::Unreachable).fail(2, Failure::Unknown);
        assert_eq!(story.asked()[3..], ["hint s0", "hint s0"]);
        story.answer(3, merged(None)).fail(4, Failure::Unreachable);
        assert_eq!(story.asked()[5..], ["hint s1"]);
        assert!(story.outcomes.is_empty());
        story.fail(5, Failure::Unreachable);
        assert_eq!(story.asked()[6..], ["hint o0"], "the coordinator itself comes last");
        story.answer(6, merged(None));
        assert!(matches!(story.outcome(), PutOutcome::Short { .. }));
        assert_eq!(story.replicas(), reached(1, 2));
    }

    #[test]
    fn a_hint_that_nobody_keeps_is_not_counted() {
        let mut story = Story::plain();
        story.answer(0, written(1, 9)).fail(1, Failure::Unreachable).fail(2, Failure::Unreachable);
        for call in 3..9 {
            story.answer(call, Answer::Refused(Refusal::HintsFull));
        }
        assert_eq!(story.replicas(), reached(1, 0));
        assert!(story.put.is_done());
    }

    #[test]
    fn owners_known_to_be_down_get_a_copy_and_a_hint_at_once() {
        let mut story = Story::new(|ring, _, _, options| options.avoid = owners(ring)[1..].to_vec());
        story.answer(0, written(1, 9));
        assert_eq!(story.asked()[1..], ["copy o1", "hint s0", "copy o2", "hint s0"]);
        story.answer(2, merged(None)).answer(4, merged(None));
        assert_eq!(story.replicas(), reached(1, 2));
        // They were not down after all, or fail: the hints stay one each.
        story.answer(1, merged(None)).fail(3, Failure::Unknown);
        assert!(story.put.is_done());
        assert_eq!(story.calls.len(), 5);
    }

    #[test]
    fn a_stand_in_known_to_be_down_is_asked_last() {
        let mut story = Story::new(|ring, _, _, options| options.avoid = vec![owners(ring)[1], stand_ins(ring)[0]]);
        story.answer(0, written(1, 9));
        assert_eq!(story.asked()[1..], ["copy o2", "copy o1", "hint s1"]);
    }

    #[test]
    fn a_silent_copy_becomes_a_hint_after_half_the_time_and_may_still_be_taken() {
        let mut story = Story::plain();
        story.answer(0, written(1, 9));
        assert_eq!(story.wakes, [500, 2_000]);
        story.tell(Event::Woken);
        assert_eq!(story.asked()[3..], ["hint s0", "hint s0"]);
        story.answer(3, merged(None)).answer(1, merged(None));
        assert_eq!(story.replicas(), reached(2, 0), "an owner that took it needs no hint");
    }

    #[test]
    fn a_named_number_that_is_missed_is_an_error_and_hints_do_not_end_the_wait() {
        let mut story = Story::new(|ring, _, _, options| {
            (options.hard, options.avoid) = (true, owners(ring)[1..].to_vec());
        });
        story.answer(0, written(1, 9)).answer(2, merged(None)).answer(4, merged(None));
        assert!(story.outcomes.is_empty(), "both owners may still take it");
        story.answer(1, merged(None));
        assert!(matches!(story.outcome(), PutOutcome::Stored { .. }));

        let mut story = Story::new(|_, _, _, options| options.hard = true);
        story.answer(0, written(1, 9)).fail(1, Failure::Unreachable).fail(2, Failure::Unreachable);
        assert_eq!(story.outcome(), &PutOutcome::Unknown { replicas: reached(1, 0), cause: None });
        assert!(!story.put.is_done(), "the hints are still on their way");
    }

    #[test]
    fn at_the_deadline_what_is_known_is_said_and_nobody_else_is_asked() {
        let mut story = Story::by_stranger();
        story.tell(Event::Deadline);
        assert_eq!(story.outcome(), &PutOutcome::Unknown { replicas: reached(0, 0), cause: None });
        story.fail(0, Failure::Unreachable);
        assert_eq!(story.asked(), ["write o0"]);
        assert!(story.put.is_done());
    }

    #[test]
    fn a_maker_that_answers_after_the_deadline_is_still_copied() {
        let mut story = Story::plain();
        story.tell(Event::Deadline);
        story.answer(0, written(1, 9));
        assert_eq!(story.asked(), ["write o0", "copy o1", "copy o2"]);
        story.fail(1, Failure::Unknown).answer(2, merged(None)).answer(3, merged(None));
        assert!(story.put.is_done());
        assert_eq!(story.outcomes.len(), 1);
    }

    #[test]
    fn a_reason_that_all_owners_share_is_final_unless_another_may_have_taken_the_write() {
        let too_many = || Answer::Refused(Refusal::TooManySiblings(TooManySiblings));
        let mut story = Story::plain();
        story.answer(0, too_many());
        assert_eq!(story.outcome(), &PutOutcome::Refused(Refusal::TooManySiblings(TooManySiblings)));
        assert!(story.put.is_done());

        let mut story = Story::plain();
        story.tell(Event::Woken);
        story.answer(1, too_many());
        assert!(matches!(story.outcome(), PutOutcome::Unknown { cause: Some(_), .. }), "o0 is only silent");

        let mut story = Story::plain();
        story.fail(0, Failure::Unknown).answer(1, too_many());
        assert!(matches!(story.outcome(), PutOutcome::Unknown { cause: Some(_), .. }), "o0 may have it");

        let mut story = Story::plain();
        story.fail(0, Failure::Unreachable).answer(1, too_many());
        assert!(matches!(story.outcome(), PutOutcome::Refused(_)));
    }

    #[test]
    fn an_older_sibling_that_was_not_seen_is_covered_before_the_client_is_told() {
        let mut story = Story::plain();
        story.answer(0, written(1, 9)).answer(1, merged(Some(record(7, 5))));
        assert_eq!(story.asked()[3..], ["cover o0"]);
        assert!(story.outcomes.is_empty());
        let covering = record(1, 9).cover(&record(7, 5), dot(1, 9));
        story.answer(3, Answer::Written { created: false, record: covering });
        assert_eq!(story.asked()[4..], ["copy o1", "copy o2"]);
        story.answer(2, merged(None));
        assert!(story.outcomes.is_empty(), "three have the write, one of them the second round");
        story.answer(4, merged(None));
        assert!(matches!(story.outcome(), PutOutcome::Stored { record, .. } if record.siblings().len() == 1));
        assert_eq!(story.replicas(), reached(3, 0));
        story.answer(5, merged(None));
        assert!(story.put.is_done());
    }

    #[test]
    fn newer_siblings_async_writes_and_writes_with_a_context_need_no_second_round() {
        for (stamp, covers, seen) in [
            (11, true, Seen::Everything),
            (5, false, Seen::Everything),
            (5, true, Seen::Only(crate::record::Context::new())),
        ] {
            let mut story = Story::new(|_, write, _, options| (write.seen, options.covers) = (seen, covers));
            story.answer(0, written(1, 9)).answer(1, merged(Some(record(7, stamp))));
            assert!(matches!(story.outcome(), PutOutcome::Stored { .. }), "{stamp} {covers}");
        }
    }

    #[test]
    fn what_is_found_after_the_client_was_told_is_left_alone() {
        let mut story = Story::plain();
        story.answer(0, written(1, 9)).answer(1, merged(None)).answer(2, merged(Some(record(7, 5))));
        assert_eq!(story.calls.len(), 3);
        assert!(story.put.is_done());
    }

    #[test]
    fn a_second_round_is_carried_on_when_its_maker_is_gone() {
        let mut story = Story::plain();
        story.answer(0, written(1, 9)).answer(1, merged(Some(record(7, 5)))).fail(3, Failure::Unknown);
        assert_eq!(story.asked()[4..], ["copy o0", "copy o1", "copy o2"]);
        let Request::Merge { record: covering, .. } = &story.calls[5].1 else { panic!() };
        assert_eq!((covering.siblings().len(), covering.context().covers(dot(7, 5))), (1, true));
        story.answer(5, merged(None));
        assert!(story.outcomes.is_empty());
        story.answer(6, merged(None));
        assert_eq!(story.replicas(), reached(3, 0));
    }

    #[test]
    fn a_deadline_in_the_second_round_tells_what_the_first_came_to() {
        let mut story = Story::plain();
        story.answer(0, written(1, 9)).answer(1, merged(Some(record(7, 5))));
        story.tell(Event::Deadline);
        assert_eq!(story.replicas(), reached(2, 0));
        story.fail(3, Failure::Unknown);
        assert_eq!(story.calls.len(), 4, "too late to cover anything");
    }

    /// Any order of what may happen, as numbers to be read against the calls under way.
    fn events() -> impl Strategy<Value = Vec<(u8, u8, u8)>> {
        prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 0..60)
    }

    proptest! {
        #[test]
        fn whatever_happens_a_write_concludes_once_and_counts_only_what_was_said(
            events in events(),
            (stranger, hard, covers, with_context) in any::<(bool, bool, bool, bool)>(),
            (needed, avoided) in (1u8..=3, 0u8..32),
        ) {
            let mut story = Story::new(|ring, write, me, options| {
                let avoid = ring.members().filter(|member| avoided & 1 << member.0 != 0).collect();
                options.quorum = Quorum::of(Count::Exactly(needed), 3).unwrap();
                (options.hard, options.covers, options.avoid) = (hard, covers, avoid);
                *me = if stranger { stand_ins(ring)[1] } else { owners(ring)[1] };
                options.avoid.retain(|member| member != me);
                if with_context {
                    write.seen = Seen::Only(crate::record::Context::new());
                }
            });
            let owners = owners(&story.ring);
            let (mut open, mut known): (Vec<u32>, usize) = (Vec::new(), 0);
            let (mut acked, mut kept, mut stamp) = (BTreeSet::new(), 0usize, 10);
            let mut step = |story: &mut Story, (kind, which, how): (u8, u8, u8)| {
                open.extend(known as u32..story.calls.len() as u32);
                known = story.calls.len();
                let told = story.outcomes.len();
                match kind % 8 {
                    0 => story.tell(Event::Woken),
                    1 if how < 40 => story.tell(Event::Deadline),
                    _ if open.is_empty() => {}
                    _ => {
                        let call = open.swap_remove(usize::from(which) % open.len());
                        let (to, request) = story.calls[call as usize].clone();
                        stamp += 1;
                        match how % 6 {
                            0 => drop(story.fail(call, Failure::Unreachable)),
                            1 => drop(story.fail(call, Failure::Unknown)),
                            2 => drop(story.answer(call, refused())),
                            3 if how > 200 => drop(story.answer(call, Answer::Found { record: None })),
                            _ => {
                                let answer = match &request {
                                    Request::Write { .. } | Request::HintWrite { .. } => written(u64::from(to.0) + 1, stamp),
                                    Request::Cover { other, dot, .. } => {
                                        let record = record(dot.actor.0, dot.stamp.0).cover(other, *dot);
                                        Answer::Written { created: false, record }
                                    }
                                    _ => merged((how % 2 == 0).then(|| record(77, u64::from(how) % 40))),
                                };
                                match &request {
                                    Request::Hint { .. } | Request::HintWrite { .. } => kept += 1,
                                    _ => drop(acked.insert(to)),
                                }
                                story.answer(call, answer);
                            }
                        }
                    }
                }
                if story.outcomes.len() > told {
                    let replicas = match &story.outcomes[told] {
                        PutOutcome::Stored { replicas, .. } => {
                            assert!(replicas.acked >= usize::from(needed));
                            *replicas
                        }
                        PutOutcome::Short { replicas, .. } => {
                            assert!(!hard && replicas.acked < usize::from(needed));
                            assert!(replicas.acked + replicas.hinted > 0);
                            *replicas
                        }
                        PutOutcome::Unknown { replicas, .. } => *replicas,
                        PutOutcome::Refused(refusal) => panic!("nobody said so: {refusal}"),
                    };
                    assert!(replicas.acked <= acked.iter().filter(|to| owners.contains(to)).count());
                    assert!(replicas.hinted <= 3 * kept);
                    assert!(replicas.acked + replicas.hinted <= replicas.wanted);
                }
                open.len() + story.calls.len() - known
            };
            for event in events {
                step(&mut story, event);
            }
            // Every call comes back in the end, for the driver sees to it; then the machine is through.
            for round in 0..200 {
                if step(&mut story, (2, 0, round % 2)) == 0 {
                    break;
                }
            }
            prop_assert!(story.put.is_done(), "{:?}", story.asked());
            prop_assert_eq!(story.outcomes.len(), 1);
        }
    }
}
