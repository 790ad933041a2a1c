//! Running operations: told events one at a time, what they want done is done.

use super::answering::Caller;
use super::syncing::SESSION_US_MAX;
use crate::changes::number_of;
use crate::plant::Plant;
use crate::workload::Purpose;
use crate::world::{Event, World};
use kringle::antientropy::{Forget, Session};
use kringle::coordinator::{Confirm, Entrust, Get, Propose, Put, Relayout, Restore};
use kringle::operation::{CallId, Command, Event as Told, Failure, Operation};
use kringle::placement::{MemberIndex, Ring};
use kringle::protocol::{Answer, Decision, Request};
use kringle::record::Stamp;
use std::collections::VecDeque;
use std::sync::Arc;

/// How finely the worker keeps deadlines and wake-ups, in microseconds.
const TICK_US: u64 = 5_000;

/// A handful live at once, so their size does not matter.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Machine {
    Put(Box<Put>),
    Get(Box<Get>),
    Session(Box<Session>),
    Restore(Box<Restore>),
    Forget(Box<Forget>),
    Entrust(Box<Entrust>),
    Confirm(Box<Confirm>),
    Propose { propose: Box<Propose>, within_us: u64 },
    Relayout(Box<Relayout>),
}

impl Machine {
    /// Whether the records it moves travel behind what clients wait for.
    pub(super) fn is_in_background(&self) -> bool {
        match self {
            Machine::Put(_) => Put::IN_BACKGROUND,
            Machine::Get(_) => Get::IN_BACKGROUND,
            Machine::Session(_) => Session::IN_BACKGROUND,
            Machine::Restore(_) => Restore::IN_BACKGROUND,
            Machine::Forget(_) => Forget::IN_BACKGROUND,
            Machine::Entrust(_) => Entrust::IN_BACKGROUND,
            Machine::Confirm(_) => Confirm::IN_BACKGROUND,
            Machine::Propose { .. } => Propose::IN_BACKGROUND,
            Machine::Relayout(_) => Relayout::IN_BACKGROUND,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        match self {
            Machine::Put(put) => put.is_done(),
            Machine::Get(get) => get.is_done(),
            Machine::Session(session) => session.is_done(),
            Machine::Restore(restore) => restore.is_done(),
            Machine::Forget(forget) => forget.is_done(),
            Machine::Entrust(entrust) => entrust.is_done(),
            Machine::Confirm(confirm) => confirm.is_done(),
            Machine::Propose { propose, .. } => propose.is_done(),
            Machine::Relayout(relayout) => relayout.is_done(),
        }
    }
}

pub(crate) struct Running {
    pub(super) machine: Machine,
    /// The one that it uses from beginning to end.
    pub(super) ring: Arc<Ring>,
    /// Who waits for the conclusion, until it is there.
    pub(super) purpose: Option<Purpose>,
    pub(super) tag: Option<usize>,
    pub(super) until: u64,
    /// Where each call has a time of its own instead: how long that is.
    pub(super) call_time: Option<u64>,
    pub(super) wake: Option<u64>,
    /// Of a write: the latest stamp there was when it began.
    pub(super) begun: Option<Stamp>,
}

impl World {
    /// Runs an operation: what is at hand is answered on the spot, the rest waits in the table.
    pub(crate) fn start_operation(&mut self, node: usize, mut machine: Machine, purpose: Purpose, tag: Option<usize>) {
        let (mut events, mut commands, mut abroad) = (VecDeque::from([Told::Start]), Vec::new(), Vec::new());
        let mut purpose = Some(purpose);
        let (ring, me) = (self.ring_of(node), self.me(node));
        while let Some(event) = events.pop_front() {
            self.tell(&mut machine, event, &mut commands, &mut purpose);
            for command in commands.drain(..) {
                match command {
                    Command::Call { call, to, request } if to == me => match self.at_hand(node, &request) {
                        Some(answer) => events.push_back(Told::Answered { call, answer }),
                        None => abroad.push(Command::Call { call, to, request }),
                    },
                    command => abroad.push(command),
                }
            }
        }
        let (is_over, is_session) = (machine.is_done() && purpose.is_none(), matches!(machine, Machine::Session(_)));
        let until = self.now + self.timeout_us();
        let call_time = is_session.then_some(self.timeout_us());
        let deadline = match &machine {
            Machine::Session(_) => SESSION_US_MAX,
            Machine::Propose { within_us, .. } => *within_us,
            _ => 1_000 * self.deadline_ms(),
        };
        let life = self.nodes[node].life;
        let delivers = matches!(machine, Machine::Put(_) | Machine::Entrust(_) | Machine::Propose { .. });
        let up = self.up(node);
        let begun = delivers.then_some(up.last);
        let id = up.operations_made;
        up.operations_made += 1;
        if is_over {
            return self.execute(node, id, &ring, abroad);
        }
        let kept = ring.clone();
        up.operations.insert(id, Running { machine, ring: kept, purpose, tag, until, call_time, wake: None, begun });
        self.schedule(deadline.next_multiple_of(TICK_US), Event::Deadline { node, life, id });
        self.execute(node, id, &ring, abroad);
    }

    /// Tells a machine something, and its client what it concludes.
    pub(super) fn tell(
        &mut self,
        machine: &mut Machine,
        event: Told,
        commands: &mut Vec<Command>,
        purpose: &mut Option<Purpose>,
    ) {
        match machine {
            Machine::Put(put) => {
                if let Some(outcome) = put.on(event, commands) {
                    let purpose = purpose.take().expect("an operation concludes once");
                    self.put_concluded(purpose, outcome);
                }
            }
            Machine::Get(get) => {
                if let Some(outcome) = get.on(event, commands) {
                    let purpose = purpose.take().expect("an operation concludes once");
                    self.get_concluded(purpose, outcome);
                }
            }
            Machine::Session(session) => {
                if let Some(report) = session.on(event, commands) {
                    let purpose = purpose.take().expect("an operation concludes once");
                    self.session_concluded(purpose, report);
                }
            }
            Machine::Forget(forget) => {
                if let Some(outcome) = forget.on(event, commands) {
                    purpose.take();
                    self.forget_concluded(&outcome);
                }
            }
            Machine::Entrust(entrust) => {
                if let Some(decision) = entrust.on(event, commands) {
                    match purpose.take().expect("an operation concludes once") {
                        Purpose::Agree { ask, .. } => self.decided(ask, decision),
                        _ if matches!(decision, Decision::Made { .. }) => self.counters.hit("contested key settled"),
                        _ => {}
                    }
                }
            }
            Machine::Confirm(confirm) => {
                if let Some(outcome) = confirm.on(event, commands) {
                    let Some(Purpose::Agree { node, ask }) = purpose.take() else { unreachable!("a client reads") };
                    self.read_confirmed(node, ask, outcome);
                }
            }
            Machine::Propose { propose, .. } => {
                if let Some(Purpose::Proposal { turn, .. }) = purpose.as_mut()
                    && turn.note(&event)
                {
                    self.counters.hit("ballot overtaken");
                }
                let twice = match &event {
                    Told::Answered { call, answer: Answer::Accepted { .. } }
                        if self.plant == Some(Plant::AcceptanceCountedTwice) =>
                    {
                        let (call, answer) = (CallId(call.0 + 1), Answer::Accepted { more: None });
                        Some(Told::Answered { call, answer })
                    }
                    _ => None,
                };
                let mut concluded = propose.on(event, commands);
                if let (None, Some(twice)) = (&concluded, twice) {
                    concluded = propose.on(twice, commands);
                }
                if let Some(proposed) = concluded {
                    let Some(Purpose::Proposal { node, turn }) = purpose.take() else {
                        unreachable!("a proposal concludes once")
                    };
                    self.proposed(node, *turn, proposed);
                }
            }
            Machine::Relayout(relayout) => {
                if let Some(relaid) = relayout.on(event, commands) {
                    let Some(Purpose::Relayout { node, before, then }) = purpose.take() else {
                        unreachable!("a Relayout concludes once")
                    };
                    self.relaid(node, before, *then, relaid);
                }
            }
            Machine::Restore(restore) => {
                if let Some(gathered) = restore.on(event, commands) {
                    let Some(Purpose::Restore { node, key, said }) = purpose.take() else {
                        unreachable!("a Restore makes good a row, once")
                    };
                    self.restore_gathered(node, key, said, gathered);
                }
            }
        }
    }

    pub(crate) fn event(&mut self, node: usize, id: u64, event: Told) {
        let Some(mut running) = self.up(node).operations.remove(&id) else { return };
        let mut commands = Vec::new();
        self.tell(&mut running.machine, event, &mut commands, &mut running.purpose);
        // Kept while its last commands are carried out, as their calls need its deadline and its tag.
        let (done, ring) = (running.machine.is_done(), running.ring.clone());
        self.up(node).operations.insert(id, running);
        self.execute(node, id, &ring, commands);
        if done {
            self.up(node).operations.remove(&id);
        }
    }

    pub(super) fn execute(&mut self, node: usize, id: u64, ring: &Ring, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Wake { after_ms } => {
                    let at = (self.now + 1_000 * after_ms).next_multiple_of(TICK_US);
                    let (life, after) = (self.nodes[node].life, at - self.now);
                    if let Some(running) = self.up(node).operations.get_mut(&id) {
                        running.wake = Some(at);
                        self.schedule(after, Event::Wake { node, life, id });
                    }
                }
                Command::Call { call, to, request } => {
                    self.note_call(&request);
                    let to = self.node_at(node, ring, to);
                    self.note_repair(node, id, to, &request);
                    let copy = matches!(request, Request::Merge { .. });
                    let now = self.now;
                    // One that is done has made its last calls with its last event: they are sent, and not waited for.
                    let (until, tag) = match self.up(node).operations.get(&id) {
                        Some(running) => (running.call_time.map_or(running.until, |time| now + time), running.tag),
                        None => (now + self.timeout_us(), None),
                    };
                    let caller = Caller::Operation { id, call, copy };
                    self.send(node, to, ring.epoch(), request, tag, until, caller);
                }
            }
        }
    }

    /// The node that a member is, or the guest, in a ring by which `node` went.
    pub(super) fn node_at(&self, node: usize, ring: &Ring, member: MemberIndex) -> usize {
        if ring.guest() == Some(member) { node } else { number_of(&ring.member(member).name) }
    }

    /// The copies that a read sends are repairs.
    fn note_repair(&mut self, node: usize, id: u64, to: usize, request: &Request) {
        let reads = |running: &Running| matches!(running.machine, Machine::Get(_));
        if let Request::Merge { record, .. } = request
            && self.up(node).operations.get(&id).is_some_and(reads)
        {
            self.counters.hit("read repair");
            if self.plant == Some(Plant::RepairOverwrites)
                && let Some(up) = &mut self.nodes[to].up
            {
                up.repairs.push(record.clone());
            }
        }
    }

    pub(super) fn note_call(&mut self, request: &Request) {
        match request {
            Request::Cover { .. } => self.counters.hit("second round"),
            Request::HintWrite { .. } => self.counters.hit("write made on a hint"),
            _ => {}
        }
    }

    pub(crate) fn woken(&mut self, node: usize, id: u64) {
        let now = self.now;
        let Some(running) = self.up(node).operations.get_mut(&id) else { return };
        if running.wake.is_some_and(|wake| wake <= now) {
            running.wake = None;
            let is_put = matches!(running.machine, Machine::Put(_));
            let write = match &running.purpose {
                Some(Purpose::Write(writing)) => Some(writing.write),
                _ => None,
            };
            if is_put && write.is_some() {
                self.counters.hit("silent maker passed over");
            }
            let counts = write.is_some_and(|write| self.oracle.writes[write].counts);
            if self.plant == Some(Plant::IncrementPassedOn) && counts {
                let failure = Failure::Unreachable;
                self.event(node, id, Told::Failed { call: CallId(0), failure });
            }
            self.event(node, id, Told::Woken);
        }
    }
}
