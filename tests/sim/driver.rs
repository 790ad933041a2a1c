//! A node between the production parts: the synchronous twin of `node/worker.rs`, `link.rs`, `queue.rs` and
//! `background.rs`. It runs operations, answers peers, batches per link, commits in groups, pings, hands hints over.

use super::disk::Disk;
use super::network::Fate;
use super::options::about;
use super::plant::Plant;
use super::workload::Purpose;
use super::world::{Event, World};
use bytes::Bytes;
use kringle::coordinator::{Get, Put};
use kringle::membership::{State, View};
use kringle::merkle::Forest;
use kringle::operation::{CallId, Command, Event as Told, Failure, Operation};
use kringle::placement::{MemberIndex, NodeId};
use kringle::protocol::{Answer, Batch, Envelope, Lane, REQUESTS_PER_BATCH_MAX, Refusal, Reply, Request};
use kringle::record::{Actor, Clock, Key, Record, Row, Stamp};
use kringle::replica::{self, Step};
use kringle::storage::{
    Address, Change, Committer, Feed, HINT_BYTES_MAX, Hint, HintLedger, LogStore, Outcome, Peek, Refused, Store,
};
use rand::Rng;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// How finely the worker keeps deadlines and wake-ups, in microseconds.
const TICK_US: u64 = 5_000;
/// Hints handed to one peer at a time.
const HINTS_AT_A_TIME: usize = 64;
/// Most changes in one commit.
const BATCH_MAX: usize = 1_024;
pub(crate) const PING_PERIOD_US: u64 = 1_000_000;

/// A node: what lasts.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) me: MemberIndex,
    pub(crate) id: NodeId,
    pub(crate) disk: Disk,
    pub(crate) clock_offset_us: i64,
    pub(crate) clock_drift_ppm: i64,
    /// Counts starts, so that whatever was meant for an earlier life is not taken by a later one.
    pub(crate) life: u32,
    pub(crate) paused_until: u64,
    pub(crate) up: Option<Up>,
}

/// A node: what a crash takes.
pub(crate) struct Up {
    pub(crate) store: Arc<LogStore>,
    committer: Committer,
    pub(crate) hints: Arc<HintLedger>,
    heard: Stamp,
    last: Stamp,
    pub(crate) waiting: VecDeque<Submission>,
    committing: Option<Vec<Submission>>,
    pub(crate) operations: BTreeMap<u64, Running>,
    operations_made: u64,
    pub(crate) links: BTreeMap<(usize, u8), Link>,
    exchanges: BTreeMap<u64, Exchange>,
    pub(crate) gatherings: BTreeMap<u64, Gathering>,
    view: View,
    /// Hints on their way, so that none is sent twice at once.
    handing_over: BTreeMap<(usize, Key), ()>,
}

/// A handful live at once, so their size does not matter.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Machine {
    Put(Box<Put>),
    Get(Box<Get>),
}

impl Machine {
    fn is_done(&self) -> bool {
        match self {
            Machine::Put(put) => put.is_done(),
            Machine::Get(get) => get.is_done(),
        }
    }
}

pub(crate) struct Running {
    machine: Machine,
    /// Who waits for the conclusion, until it is there.
    purpose: Option<Purpose>,
    tag: Option<usize>,
    until: u64,
    wake: Option<u64>,
}

pub(crate) struct Submission {
    change: Change,
    tag: Option<usize>,
    done: Done,
}

/// Who is told what became of a change or a look-up.
#[derive(Clone, Debug)]
pub(crate) enum Done {
    Caller(Caller),
    Gather { gathering: u64, at: usize },
    HintGone { target: usize, key: Key },
}

/// Who is told what became of a request.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    Operation { id: u64, call: CallId, copy: bool },
    HandOver { key: Key, record: Record, target: usize },
}

#[derive(Default)]
pub(crate) struct Link {
    pub(crate) waiting: VecDeque<Waiting>,
    busy: bool,
}

pub(crate) struct Waiting {
    request: Request,
    tag: Option<usize>,
    until: u64,
    caller: Caller,
}

struct Exchange {
    to: usize,
    /// None for a ping.
    lane: Option<Lane>,
    callers: Vec<Caller>,
}

/// A peer's batch being answered.
pub(crate) struct Gathering {
    from: usize,
    from_life: u32,
    exchange: u64,
    answers: Vec<Option<Answer>>,
}

impl Node {
    pub(crate) fn new(index: usize, name: String, seed: u64) -> Node {
        Node {
            name,
            me: MemberIndex(index as u16),
            id: NodeId(seed | 1),
            disk: Disk::new(seed),
            clock_offset_us: 0,
            clock_drift_ppm: 0,
            life: 0,
            paused_until: 0,
            up: None,
        }
    }
}

impl World {
    fn up(&mut self, node: usize) -> &mut Up {
        self.nodes[node].up.as_mut().expect("only a running node has events")
    }

    pub(crate) fn deadline_ms(&self) -> u64 {
        self.options.timeout_ms * 9 / 10
    }

    fn timeout_us(&self) -> u64 {
        self.options.timeout_ms * 1_000
    }

    /// Starts a node on what its disk holds.
    pub(crate) fn start(&mut self, node: usize) {
        let seed = self.rng.random();
        let store = Arc::new(self.nodes[node].disk.open(seed, self.plant));
        let (hints, damaged) = HintLedger::scan(&*store, HINT_BYTES_MAX).expect("the base can be read");
        assert_eq!(damaged, 0, "a hint was damaged by a crash");
        let hints = Arc::new(hints);
        let feed = Arc::new(Feed::new(store.last_sequence(), 64));
        let mut clock = Clock::starting_after(store.last_stamp());
        let mut actor = Actor(self.rng.random());
        if self.plant == Some(Plant::ActorReused) {
            (actor, clock) = (Actor(node as u64 + 1), Clock::default());
        }
        let committer =
            Committer::new(store.clone(), Arc::new(Forest::new()), feed, hints.clone(), actor, clock.clone());
        let peers = self.nodes.iter().map(|peer| peer.name.clone()).filter(|name| *name != self.nodes[node].name);
        let view = View::of(peers);
        self.nodes[node].life += 1;
        self.nodes[node].paused_until = 0;
        self.nodes[node].up = Some(Up {
            store,
            committer,
            hints,
            heard: Stamp(0),
            last: clock.last(),
            waiting: VecDeque::new(),
            committing: None,
            operations: BTreeMap::new(),
            operations_made: 0,
            links: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            gatherings: BTreeMap::new(),
            view,
            handing_over: BTreeMap::new(),
        });
        self.look_at_rows(node, true);
        let life = self.nodes[node].life;
        for peer in (0..self.nodes.len()).filter(|&peer| peer != node) {
            let first = self.rng.random_range(0..PING_PERIOD_US);
            self.schedule(first, Event::Ping { node, life, peer });
        }
        self.schedule(PING_PERIOD_US / 2, Event::HandOver { node, life });
        self.schedule(50_000, Event::Housekeeping { node, life });
    }

    /// Stops a node as a power cut does, in the middle of whatever it is doing.
    pub(crate) fn crash(&mut self, node: usize) {
        let Some(mut up) = self.nodes[node].up.take() else { return };
        self.counters.hit("crash");
        let ahead = self.rng.random_range(0..3);
        if let Some(batch) = up.committing.take() {
            self.counters.hit("crash during a commit");
            self.nodes[node].disk.stop_after(ahead);
            let wall_ms = self.wall_ms(node);
            let results = up.committer.commit(wall_ms, batch.into_iter().map(|submission| submission.change).collect());
            if results.iter().all(|result| result.is_err()) {
                self.counters.hit("torn commit gone");
            }
        }
        self.nodes[node].disk.crash();
        for gathering in up.gatherings.into_values() {
            // A connection that was being served is reset, if that can be said to the other side.
            let Gathering { from, from_life, exchange, .. } = gathering;
            if let Fate::Arrives(after) = self.fate(node, from) {
                self.counters.hit("connection reset");
                let failure = Failure::Unknown;
                self.schedule(after, Event::Broken { node: from, life: from_life, exchange, failure });
            }
        }
        for running in up.operations.into_values() {
            if let Some(purpose) = running.purpose {
                self.hung_up(purpose);
            }
        }
        if self.nodes.iter().all(|node| node.up.is_none()) {
            self.counters.hit("crash of all nodes");
        }
    }

    /// Tells the oracle what the disk of a running node holds.
    pub(crate) fn look_at_rows(&mut self, node: usize, recovered: bool) {
        for key in 0..self.keys.len() {
            let row = self.row(node, key);
            self.oracle.row_seen(node, key, row.context());
            let hint = self.hint_row(node, key);
            self.oracle.hint_seen(node, key, hint.as_ref());
            if recovered {
                let found =
                    self.oracle.recovered(node, &row) + hint.map_or(0, |record| self.oracle.recovered(node, &record));
                if found > 0 {
                    self.counters.hit("unacknowledged commit found after a crash");
                }
            }
        }
    }

    /// What a running node holds of a key.
    pub(crate) fn row(&self, node: usize, key: usize) -> Record {
        let up = self.nodes[node].up.as_ref().expect("asked of running nodes only");
        let row = up.store.read(&Address::data(&self.keys[key])).expect("the base can be read");
        row.map_or_else(Record::default, |row| Row::decode(&row).expect("no row rots here").record)
    }

    fn hint_row(&self, node: usize, key: usize) -> Option<Record> {
        let up = self.nodes[node].up.as_ref().expect("asked of running nodes only");
        let row = up.store.read(&Address::hint(&self.keys[key])).expect("the base can be read");
        row.map(|row| Hint::decode(&row).expect("no hint rots here").record)
    }

    /// Members this node believes to be down.
    pub(crate) fn avoid(&self, node: usize) -> Vec<MemberIndex> {
        let up = self.nodes[node].up.as_ref().expect("asked of running nodes only");
        let down = up.view.peers().iter().filter(|peer| peer.state != State::Alive);
        down.filter_map(|peer| self.ring.member_by_name(&peer.name)).collect()
    }

    // Operations.

    /// Runs an operation: what is at hand is answered on the spot, the rest waits in the table.
    pub(crate) fn start_operation(&mut self, node: usize, mut machine: Machine, purpose: Purpose, tag: Option<usize>) {
        let (mut events, mut commands, mut abroad) = (VecDeque::from([Told::Start]), Vec::new(), Vec::new());
        let mut purpose = Some(purpose);
        while let Some(event) = events.pop_front() {
            self.tell(&mut machine, event, &mut commands, &mut purpose);
            for command in commands.drain(..) {
                match command {
                    Command::Call { call, to, request } if to == self.nodes[node].me => {
                        match self.at_hand(node, &request) {
                            Some(answer) => events.push_back(Told::Answered { call, answer }),
                            None => abroad.push(Command::Call { call, to, request }),
                        }
                    }
                    command => abroad.push(command),
                }
            }
        }
        if machine.is_done() && purpose.is_none() {
            return;
        }
        let until = self.now + self.timeout_us();
        let deadline = 1_000 * self.deadline_ms();
        let life = self.nodes[node].life;
        let up = self.up(node);
        let id = up.operations_made;
        up.operations_made += 1;
        up.operations.insert(id, Running { machine, purpose, tag, until, wake: None });
        self.schedule(deadline.next_multiple_of(TICK_US), Event::Deadline { node, life, id });
        self.execute(node, id, abroad);
    }

    /// Tells a machine something, and its client what it concludes.
    fn tell(&mut self, machine: &mut Machine, event: Told, commands: &mut Vec<Command>, purpose: &mut Option<Purpose>) {
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
        }
    }

    pub(crate) fn event(&mut self, node: usize, id: u64, event: Told) {
        let Some(mut running) = self.up(node).operations.remove(&id) else { return };
        let mut commands = Vec::new();
        self.tell(&mut running.machine, event, &mut commands, &mut running.purpose);
        // Kept while its last commands are carried out, as their calls need its deadline and its tag.
        let done = running.machine.is_done();
        self.up(node).operations.insert(id, running);
        self.execute(node, id, commands);
        if done {
            self.up(node).operations.remove(&id);
        }
    }

    fn execute(&mut self, node: usize, id: u64, commands: Vec<Command>) {
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
                    let copy = matches!(request, Request::Merge { .. });
                    let Some(running) = self.up(node).operations.get(&id) else { continue };
                    let (until, tag) = (running.until, running.tag);
                    let caller = Caller::Operation { id, call, copy };
                    self.send(node, to.index(), request, tag, until, caller);
                }
            }
        }
    }

    fn note_call(&mut self, request: &Request) {
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
            if running.purpose.is_some() && matches!(running.machine, Machine::Put(_)) {
                self.counters.hit("silent maker passed over");
            }
            self.event(node, id, Told::Woken);
        }
    }

    fn at_hand(&mut self, node: usize, request: &Request) -> Option<Answer> {
        let address = match request {
            Request::Read { key } if self.plant == Some(Plant::OtherKeyRead) => {
                let at = self.keys.iter().position(|known| known == key).unwrap_or(0);
                Address::data(&self.keys[if self.rng.random_ratio(1, 20) { 0 } else { at }])
            }
            Request::Read { key } => Address::data(key),
            Request::ReadHint { key } => Address::hint(key),
            _ => return None,
        };
        match self.up(node).store.peek(&address) {
            Peek::Known(row) => Some(replica::found(&address, row.as_ref())),
            Peek::Ask => None,
        }
    }

    /// Asks a member, this node included, the same way.
    fn send(&mut self, node: usize, to: usize, request: Request, tag: Option<usize>, until: u64, caller: Caller) {
        if to == node {
            return self.answer(node, request, tag, Done::Caller(caller));
        }
        let lane = request.lane();
        let life = self.nodes[node].life;
        let link = self.up(node).links.entry((to, lane as u8)).or_default();
        link.waiting.push_back(Waiting { request, tag, until, caller });
        if !std::mem::replace(&mut link.busy, true) {
            self.schedule(0, Event::Flush { node, life, to, lane });
        }
    }

    fn called(&mut self, node: usize, caller: Caller, result: Result<Answer, Failure>) {
        match caller {
            Caller::Operation { id, call, copy } => {
                let event = match result {
                    Err(_) if copy && self.plant == Some(Plant::FailureCountedAsAcknowledged) => {
                        Told::Answered { call, answer: Answer::Merged { applied: true, more: None } }
                    }
                    Ok(answer) => Told::Answered { call, answer },
                    Err(failure) => Told::Failed { call, failure },
                };
                self.event(node, id, event);
            }
            Caller::HandOver { key, record, target } => match result {
                Ok(Answer::Merged { .. }) => self.drop_hint(node, key, record, target),
                _ => {
                    self.up(node).handing_over.remove(&(target, key));
                }
            },
        }
    }

    // Answering.

    fn answer(&mut self, node: usize, request: Request, tag: Option<usize>, done: Done) {
        if let Some(answer) = self.at_hand(node, &request) {
            return self.answered(node, done, answer);
        }
        match replica::step(request) {
            Step::Commit(change) => self.commit(node, Submission { change, tag, done }),
            Step::Read(address) => {
                let (life, after) = (self.nodes[node].life, about(&mut self.rng, 500));
                self.schedule(after, Event::Looked { node, life, address, done });
            }
            Step::Compare(request) => panic!("no sessions run in this world, yet {request:?} was asked"),
        }
    }

    pub(crate) fn looked(&mut self, node: usize, address: &Address, done: Done) {
        let answer = match self.up(node).store.read(address) {
            Ok(row) => replica::found(address, row.as_ref()),
            Err(_) => Answer::Refused(Refusal::Unreadable),
        };
        self.answered(node, done, answer);
    }

    fn answered(&mut self, node: usize, done: Done, answer: Answer) {
        match done {
            Done::Caller(caller) => self.called(node, caller, Ok(answer)),
            Done::Gather { gathering, at } => self.gather(node, gathering, at, answer),
            Done::HintGone { target, key } => {
                self.up(node).handing_over.remove(&(target, key));
            }
        }
    }

    fn commit(&mut self, node: usize, mut submission: Submission) {
        if let (Some(Plant::ContextIgnored), Change::Write { seen, .. }) = (self.plant, &mut submission.change) {
            *seen = kringle::record::Seen::Everything;
        }
        self.up(node).waiting.push_back(submission);
        self.next_commit(node);
    }

    /// Takes what waits into one commit, if none is under way.
    fn next_commit(&mut self, node: usize) {
        let up = self.up(node);
        if up.committing.is_some() || up.waiting.is_empty() {
            return;
        }
        let batch: Vec<Submission> = up.waiting.drain(..up.waiting.len().min(BATCH_MAX)).collect();
        if batch.len() > 1 {
            self.counters.hit("group commit");
        }
        self.up(node).committing = Some(batch);
        let mut after = about(&mut self.rng, self.options.sync_mean_us);
        if !self.quiet && self.rng.random_range(0..1_000) < self.options.slow_sync_permille {
            after += self.rng.random_range(50_000..2_000_000);
        }
        let life = self.nodes[node].life;
        self.schedule(after, Event::Committed { node, life });
    }

    pub(crate) fn committed(&mut self, node: usize) {
        let wall_ms = self.wall_ms(node);
        let plant = self.plant;
        let up = self.up(node);
        let batch = up.committing.take().expect("a commit was under way");
        // A stamp that is not credible is not taken over.
        let _ = up.committer.note_stamp(up.heard, wall_ms);
        let mut changes: Vec<Change> = batch.iter().map(|submission| submission.change.clone()).collect();
        if plant == Some(Plant::MergeOverwrites) {
            overwrite(up, &mut changes);
        }
        let results = up.committer.commit(wall_ms, changes);
        up.last = up.committer.last_stamp();
        for (submission, result) in batch.iter().zip(&results) {
            self.note_commit(node, submission, result);
        }
        self.look_at_rows(node, false);
        for (submission, result) in batch.into_iter().zip(results) {
            self.answered(node, submission.done, replica::committed(result));
        }
        self.next_commit(node);
    }

    fn note_commit(&mut self, node: usize, submission: &Submission, result: &Result<Outcome, Refused>) {
        match (&submission.change, result) {
            (Change::Write { .. } | Change::HintWrite { .. }, Ok(Outcome::Written { record, .. })) => {
                let dot = record.context().newest().expect("a write leaves a dot");
                if let Some(write) = submission.tag {
                    if self.oracle.writes[write].verdict != super::oracle::Verdict::Open {
                        self.counters.hit("late maker");
                    }
                    self.oracle.dot_made(node, dot, write, self.moment);
                }
            }
            (Change::Hint { .. }, Ok(_)) => self.counters.hit("hint kept"),
            (Change::HintDelivered { .. }, Ok(_)) => self.counters.hit("hint handed over"),
            (_, Err(Refused::ReadOnly(_))) => self.counters.hit("refused by a full disk"),
            (_, Err(Refused::Fenced(_))) => self.counters.hit("refused by a fence"),
            _ => {}
        }
    }

    // Links.

    fn envelope(&self, node: usize, peer: usize, deadline_us: u64) -> Envelope {
        let up = self.nodes[node].up.as_ref().expect("only a running node sends");
        Envelope {
            cluster: self.ring.layout().cluster(),
            sender: self.nodes[node].id,
            receiver: up.view.peer(&self.nodes[peer].name).and_then(|peer| peer.id),
            epoch: self.ring.epoch(),
            deadline_ms: (deadline_us / 1_000) as u32,
            stamp: up.last,
        }
    }

    pub(crate) fn flush(&mut self, node: usize, to: usize, lane: Lane) {
        let (now, timeout) = (self.now, self.timeout_us());
        let link = self.up(node).links.entry((to, lane as u8)).or_default();
        let (mut requests, mut tags, mut callers, mut late, mut until) = (vec![], vec![], vec![], vec![], now);
        while requests.len() < REQUESTS_PER_BATCH_MAX
            && let Some(waiting) = link.waiting.pop_front()
        {
            if waiting.until <= now {
                late.push(waiting.caller);
                continue;
            }
            until = until.max(waiting.until);
            requests.push(waiting.request);
            tags.push(waiting.tag);
            callers.push(waiting.caller);
        }
        if requests.is_empty() {
            link.busy = false;
        } else {
            if requests.len() > 1 {
                self.counters.hit("batch of several");
            }
            let timeout = (until - now).min(timeout);
            let batch = Batch { envelope: self.envelope(node, to, timeout), requests };
            self.post(node, to, Some(lane), &batch, tags, callers, timeout);
        }
        for caller in late {
            self.called(node, caller, Err(Failure::Unreachable));
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn post(
        &mut self,
        node: usize,
        to: usize,
        lane: Option<Lane>,
        batch: &Batch,
        tags: Vec<Option<usize>>,
        callers: Vec<Caller>,
        timeout: u64,
    ) {
        let (exchange, life) = (self.next_exchange(), self.nodes[node].life);
        self.up(node).exchanges.insert(exchange, Exchange { to, lane, callers });
        let failure = Failure::Unknown;
        self.schedule(timeout, Event::Broken { node, life, exchange, failure });
        let bytes = Bytes::from(batch.encode());
        let arrives = |after| (after, Event::Arrived { node: to, from: node, from_life: life, exchange, bytes, tags });
        match self.fate(node, to) {
            Fate::Arrives(after) | Fate::Jammed(after) => {
                let (after, event) = arrives(after);
                let harmless =
                    |request: &Request| !matches!(request, Request::Write { .. } | Request::HintWrite { .. });
                let repeat = !self.quiet && self.rng.random_range(0..1_000) < self.options.repeat_permille;
                if repeat && batch.requests.iter().all(harmless) && !batch.requests.is_empty() {
                    self.counters.hit("request repeated");
                    let again = after + about(&mut self.rng, 100_000);
                    self.schedule(again, event.clone());
                }
                self.schedule(after, event);
            }
            Fate::Lost => self.counters.hit("request lost"),
        }
    }

    /// A peer's batch is here.
    pub(crate) fn arrived(
        &mut self,
        node: usize,
        (from, from_life, exchange): (usize, u32, u64),
        bytes: &Bytes,
        tags: Vec<Option<usize>>,
    ) {
        if self.nodes[node].up.is_none() {
            self.counters.hit("connection refused");
            if let Fate::Arrives(after) | Fate::Jammed(after) = self.fate(node, from) {
                let failure = Failure::Unreachable;
                self.schedule(after, Event::Broken { node: from, life: from_life, exchange, failure });
            }
            return;
        }
        let batch = Batch::decode(bytes).expect("a batch can be read back");
        let envelope = &batch.envelope;
        let receiver_is_other = envelope.receiver.is_some_and(|receiver| receiver != self.nodes[node].id);
        let up = self.up(node);
        up.heard = up.heard.max(envelope.stamp);
        assert!(!receiver_is_other, "names and ids stay together here");
        let gathering = self.next_exchange();
        let count = batch.requests.len();
        let answers = vec![None; count];
        self.up(node).gatherings.insert(gathering, Gathering { from, from_life, exchange, answers });
        if count == 0 {
            return self.reply(node, gathering);
        }
        for (at, (request, tag)) in batch.requests.into_iter().zip(tags).enumerate() {
            self.answer(node, request, tag, Done::Gather { gathering, at });
        }
    }

    fn gather(&mut self, node: usize, gathering: u64, at: usize, answer: Answer) {
        let gathered = self.up(node).gatherings.get_mut(&gathering).expect("answered once each");
        gathered.answers[at] = Some(answer);
        if gathered.answers.iter().all(Option::is_some) {
            self.reply(node, gathering);
        }
    }

    fn reply(&mut self, node: usize, gathering: u64) {
        let Gathering { from, from_life, exchange, answers } =
            self.up(node).gatherings.remove(&gathering).expect("a batch is answered once");
        let mut answers: Vec<Answer> = answers.into_iter().flatten().collect();
        if self.plant == Some(Plant::AnswersSwapped) {
            answers.reverse();
        }
        let stamp = self.up(node).last;
        let reply = Reply { sender: self.nodes[node].id, epoch: self.ring.epoch(), stamp, answers: Ok(answers) };
        let bytes = Bytes::from(reply.encode());
        match self.fate(node, from) {
            Fate::Arrives(after) | Fate::Jammed(after) => {
                self.schedule(after, Event::Replied { node: from, life: from_life, exchange, bytes });
            }
            Fate::Lost => self.counters.hit("reply lost"),
        }
    }

    /// An exchange has ended, with a reply or without.
    pub(crate) fn ended(&mut self, node: usize, exchange: u64, result: Result<&Bytes, Failure>) {
        let Some(Exchange { to, lane, callers }) = self.up(node).exchanges.remove(&exchange) else { return };
        let result = result.map(|bytes| Reply::decode(bytes).expect("a reply can be read back"));
        if let Ok(reply) = &result {
            let up = self.up(node);
            up.heard = up.heard.max(reply.stamp);
        }
        let Some(lane) = lane else { return self.pinged(node, to, result.ok()) };
        match result {
            Ok(Reply { answers: Ok(answers), .. }) if answers.len() == callers.len() => {
                for (caller, answer) in callers.into_iter().zip(answers) {
                    self.called(node, caller, Ok(answer));
                }
            }
            Ok(_) => unreachable!("a batch gets an answer for each request here"),
            Err(failure) => {
                for caller in callers {
                    self.called(node, caller, Err(failure.clone()));
                }
            }
        }
        self.flush(node, to, lane);
    }

    // By itself.

    pub(crate) fn ping(&mut self, node: usize, peer: usize) {
        let timeout = self.timeout_us();
        let batch = Batch { envelope: self.envelope(node, peer, timeout), requests: Vec::new() };
        self.post(node, peer, None, &batch, Vec::new(), Vec::new(), timeout);
    }

    fn pinged(&mut self, node: usize, peer: usize, reply: Option<Reply>) {
        let (name, now_ms) = (self.nodes[peer].name.clone(), self.now / 1_000);
        let view = &mut self.up(node).view;
        let change = match reply {
            Some(reply) => view.heard(&name, reply.sender, now_ms),
            None => view.failed(&name, "no answer".into()),
        };
        if change.is_some_and(|change| change.to == State::Down) {
            self.counters.hit("peer down");
        }
        let (life, after) = (self.nodes[node].life, PING_PERIOD_US + self.rng.random_range(0..100_000));
        self.schedule(after, Event::Ping { node, life, peer });
    }

    /// Hands over what is kept for peers that are alive.
    pub(crate) fn hand_over(&mut self, node: usize) {
        let until = self.now + self.timeout_us();
        for target in 0..self.nodes.len() {
            let name = self.nodes[target].name.clone();
            let up = self.up(node);
            let alive = up.view.peer(&name).map(|peer| peer.state == State::Alive);
            if !alive.unwrap_or(target == node) {
                continue;
            }
            for key in up.hints.oldest(&name, HINTS_AT_A_TIME) {
                let up = self.up(node);
                if up.handing_over.insert((target, key.clone()), ()).is_some() {
                    continue;
                }
                let row = up.store.read(&Address::hint(&key)).expect("the base can be read");
                let Some(row) = row else { continue };
                let record = Hint::decode(&row).expect("no hint rots here").record;
                let request = Request::Merge { key: key.clone(), record: record.clone() };
                if self.plant == Some(Plant::HintDroppedUnheard) {
                    self.drop_hint(node, key.clone(), record.clone(), target);
                }
                self.send(node, target, request, None, until, Caller::HandOver { key, record, target });
            }
        }
    }

    fn drop_hint(&mut self, node: usize, key: Key, record: Record, target: usize) {
        let name = self.nodes[target].name.as_str().into();
        let done = Done::HintGone { target, key: key.clone() };
        let change = Change::HintDelivered { key, record, target: name };
        self.commit(node, Submission { change, tag: None, done });
    }

    /// Checkpoints and log segments, and whatever a full disk or a failed sync leaves of them.
    pub(crate) fn housekeeping(&mut self, node: usize) {
        let now_and_then = self.rng.random_ratio(1, 20);
        let forgetful = self.plant == Some(Plant::TombstoneDropped);
        let keys = self.keys.clone();
        let up = self.up(node);
        let due = up.store.due();
        if due.segment {
            // A disk that has no room for a segment has told so where it matters, at the append.
            let _ = up.store.prepare();
        }
        let mut done = false;
        if due.checkpoint || now_and_then {
            done = up.store.checkpoint(&mut || ()).is_ok_and(|done| done.rows > 0);
        }
        if forgetful && up.committing.is_none() {
            for key in &keys {
                let address = Address::data(key);
                let row = up.store.read(&address).expect("the base can be read");
                if row.is_some_and(|row| Row::decode(&row).is_ok_and(|row| row.record.is_tombstone())) {
                    let _ = up.store.append(vec![(address, None)], Stamp(0));
                }
            }
        }
        if done {
            self.counters.hit("checkpoint");
        }
        let life = self.nodes[node].life;
        self.schedule(50_000, Event::Housekeeping { node, life });
    }
}

/// The planted bug: copies replace what is there.
fn overwrite(up: &mut Up, changes: &mut [Change]) {
    for change in changes {
        if let Change::Merge { key, record } = change {
            let row = Row::of(record.clone()).encode();
            let _ = up.store.append(vec![(Address::data(key), Some(row))], Stamp(0));
        }
    }
}
