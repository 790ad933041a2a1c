//! One worker thread's half of the node: it runs operations, answers peers, and owns its links.
//!
//! Everything here is single-threaded; what crosses threads goes through the commit queue. An operation whose
//! every answer is at hand (a read of a row in memory) runs to its end on the spot; others wait in a table, fed
//! event by event, until their last call is answered. The table outlives the client that asked, so a client that
//! hangs up does not cut a write in half.

use super::driven::Driven;
use super::foreground::Class;
use super::link::{Link, Told};
use super::load::Seconds;
use super::outside::now;
use super::proposing::Proposer;
use super::queue::{ANY_EPOCH, Completion};
use super::shared::Shared;
use super::under_way::{Entry, UnderWay};
use crate::operation::{CallId, Command, Event, Failure, Operation};
use crate::placement::{MemberIndex, Partition, Ring};
use crate::protocol::{Answer, Refusal, Request};
use crate::replica::{self, Step};
use crate::storage::{Address, Change, Kind, Outcome, Peek, Refused, StoreError};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, oneshot};

/// How finely deadlines and wake-ups are kept. Patience is counted in tens of milliseconds and more.
const TICK: Duration = Duration::from_millis(5);

/// Who is told what became of a change.
pub type Committed = Box<dyn FnOnce(Result<Outcome, Refused>)>;

/// A thread's half of the node.
pub struct Worker {
    /// What it shares with the others.
    pub node: Arc<Shared>,
    number: usize,
    links: RefCell<HashMap<String, Rc<Link>>>,
    commits: RefCell<HashMap<u64, Committed>>,
    commits_made: Cell<u64>,
    operations: RefCell<BTreeMap<u64, Running>>,
    operations_made: Cell<u64>,
    pub(super) proposer: Proposer,
    pub(super) load: Arc<Seconds>,
    ticking: Notify,
}

struct Running {
    machine: Box<dyn Machine>,
    ring: Arc<Ring>,
    deadline: Option<Instant>,
    /// Until when its calls may take; past the deadline, so that late answers can still become hints.
    until: Instant,
    /// Where each call has a time of its own instead: how long that is.
    call_time: Option<Duration>,
    wake: Option<Instant>,
    class: Class,
    /// Kept on the list as long as this is.
    _under_way: Option<Entry>,
}

/// An operation with the place its conclusion goes to.
trait Machine {
    fn on(&mut self, event: Event, commands: &mut Vec<Command>);
    fn is_done(&self) -> bool;
    fn repairs(&self) -> u64;
    fn hedges(&self) -> u64;
}

struct Reporting<M: Operation> {
    machine: M,
    reply: Option<oneshot::Sender<M::Output>>,
}

impl<M: Operation> Machine for Reporting<M> {
    fn on(&mut self, event: Event, commands: &mut Vec<Command>) {
        if let Some(output) = self.machine.on(event, commands)
            && let Some(reply) = self.reply.take()
        {
            // The client may have hung up; the operation goes on all the same.
            let _ = reply.send(output);
        }
    }

    fn is_done(&self) -> bool {
        self.machine.is_done()
    }

    fn repairs(&self) -> u64 {
        self.machine.repairs()
    }

    fn hedges(&self) -> u64 {
        self.machine.hedges()
    }
}

impl Worker {
    /// Starts the calling thread's worker. Must run inside an actix runtime.
    pub fn start(node: Arc<Shared>) -> Rc<Worker> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (number, load) = (node.queue.register(sender), node.load.register());
        let worker = Rc::new(Worker {
            node,
            number,
            links: RefCell::default(),
            commits: RefCell::default(),
            commits_made: Cell::new(0),
            operations: RefCell::default(),
            operations_made: Cell::new(0),
            proposer: Proposer::default(),
            load,
            ticking: Notify::new(),
        });
        actix_web::rt::spawn(worker.clone().hear(receiver));
        actix_web::rt::spawn(worker.clone().tick());
        worker
    }

    /// Runs an operation of this node's, beginning at once. `None` only when the machine broke its word and never concluded.
    pub fn run<M>(self: &Rc<Self>, machine: M, ring: Arc<Ring>, deadline: Duration) -> Driven<M::Output>
    where
        M: Operation + 'static,
        M::Output: 'static,
    {
        self.drive(machine, ring, deadline, None)
    }

    /// Runs an operation that may outlast a request's deadline: each of its calls has `--timeout` for itself.
    pub fn run_long<M>(self: &Rc<Self>, machine: M, ring: Arc<Ring>, deadline: Duration) -> Driven<M::Output>
    where
        M: Operation + 'static,
        M::Output: 'static,
    {
        self.drive(machine, ring, deadline, Some(self.node.settings.timeout))
    }

    fn drive<M>(
        self: &Rc<Self>,
        mut machine: M,
        ring: Arc<Ring>,
        deadline: Duration,
        call_time: Option<Duration>,
    ) -> Driven<M::Output>
    where
        M: Operation + 'static,
        M::Output: 'static,
    {
        let under_way = M::DELIVERS.then(|| UnderWay::enter(&self.node));
        let (me, is_present) = (self.node.me(&ring), ring.epoch() == self.node.epoch());
        let (mut next, mut at_hand) = (Some(Event::Start), VecDeque::new());
        let (mut commands, mut abroad) = (Vec::new(), Vec::new());
        let mut output = None;
        while let Some(event) = next {
            output = machine.on(event, &mut commands).or(output);
            for command in commands.drain(..) {
                match command {
                    Command::Call { call, to, request } if to == me && is_present => match self.at_hand(&request) {
                        Some(answer) => at_hand.push_back(Event::Answered { call, answer }),
                        None => abroad.push(Command::Call { call, to, request }),
                    },
                    command => abroad.push(command),
                }
            }
            next = at_hand.pop_front();
        }
        let id = self.operations_made.replace(self.operations_made.get() + 1);
        if machine.is_done() && output.is_some() {
            self.execute(id, &ring, abroad);
            return Driven::known(output);
        }
        let (reply, answer) = oneshot::channel();
        let start = now();
        let running = Running {
            machine: Box::new(Reporting { machine, reply: output.is_none().then_some(reply) }),
            ring: ring.clone(),
            deadline: Some(start + deadline),
            until: start + self.node.settings.timeout,
            call_time,
            wake: None,
            class: if M::IN_BACKGROUND { Class::Background } else { Class::Foreground },
            _under_way: under_way,
        };
        self.operations.borrow_mut().insert(id, running);
        self.ticking.notify_one();
        self.execute(id, &ring, abroad);
        match output {
            Some(output) => Driven::known(Some(output)),
            None => Driven::Awaited(answer),
        }
    }

    /// The answer to a request, if it is one that memory can answer.
    pub fn at_hand(&self, request: &Request) -> Option<Answer> {
        let address = match request {
            Request::Read { key } => Address::data(key),
            Request::ReadHint { key } => Address::hint(key),
            Request::Confirm { key, since } if since.is_empty() && self.node.completeness.may_vote() => {
                Address::data(key)
            }
            _ => return None,
        };
        self.row_at_hand(&address)
    }

    /// What lies at an address, if memory can tell.
    pub fn row_at_hand(&self, address: &Address) -> Option<Answer> {
        let partial = address.kind() == Kind::Data && self.node.is_partial(address.partition());
        match self.node.store.peek(address) {
            Peek::Known(row) => Some(replica::found_in_memory(address, row.as_ref()).in_part(partial)),
            Peek::Ask => None,
        }
    }

    fn event(self: &Rc<Self>, id: u64, event: Event) {
        let mut commands = Vec::new();
        let ring;
        {
            let mut operations = self.operations.borrow_mut();
            let Some(running) = operations.get_mut(&id) else { return };
            ring = running.ring.clone();
            running.machine.on(event, &mut commands);
            if running.machine.is_done() {
                self.node.read_repairs.fetch_add(running.machine.repairs(), Ordering::Relaxed);
                self.node.reads_hedged.fetch_add(running.machine.hedges(), Ordering::Relaxed);
                operations.remove(&id);
            }
        }
        self.execute(id, &ring, commands);
    }

    fn execute(self: &Rc<Self>, id: u64, ring: &Arc<Ring>, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Wake { after_ms } => {
                    if let Some(running) = self.operations.borrow_mut().get_mut(&id) {
                        running.wake = Some(now() + Duration::from_millis(after_ms));
                    }
                }
                Command::Call { call, to, request } => self.call(id, ring, call, to, request),
            }
        }
    }

    fn call(self: &Rc<Self>, id: u64, ring: &Arc<Ring>, call: CallId, to: MemberIndex, request: Request) {
        // An operation that is done has made its last calls with its last event: they are sent, and not waited for.
        let (class, until) = match self.operations.borrow().get(&id) {
            Some(running) => {
                let until = running.call_time.map_or(running.until, |call_time| now() + call_time);
                (running.class, until)
            }
            None => (Class::Foreground, now() + self.node.settings.timeout),
        };
        let worker = self.clone();
        let told: Told = Box::new(move |result| {
            let event = match result {
                Ok(answer) => Event::Answered { call, answer },
                Err(failure) => Event::Failed { call, failure },
            };
            worker.event(id, event);
        });
        self.send(ring, to, request, class, until, told);
    }

    /// The same, and waits for the answer; nothing, where the node is stopping.
    pub(super) async fn answered(
        self: &Rc<Self>,
        ring: &Ring,
        to: MemberIndex,
        request: Request,
        class: Class,
        until: Instant,
    ) -> Option<Result<Answer, Failure>> {
        let (tell, told) = oneshot::channel();
        let answered = move |result: Result<Answer, Failure>| {
            let _ = tell.send(result);
        };
        self.send(ring, to, request, class, until, Box::new(answered));
        told.await.ok()
    }

    /// Asks a member, this node included, the same way.
    pub fn send(
        self: &Rc<Self>,
        ring: &Ring,
        to: MemberIndex,
        request: Request,
        class: Class,
        until: Instant,
        told: Told,
    ) {
        if to == self.node.me(ring) {
            self.answer(request, class, ring.epoch(), Box::new(move |answer| told(Ok(answer))));
        } else {
            self.link(ring, to).send(request, class, ring.epoch(), until, told);
        }
    }

    /// The link to a node that is no member yet, or whose name is not known.
    pub(super) fn link_to(&self, url: &str) -> Rc<Link> {
        let mut links = self.links.borrow_mut();
        let link = || Link::to_anybody(self.node.clone(), url.to_string());
        // No name of a member begins so.
        links.entry(format!("to {url}")).or_insert_with(link).clone()
    }

    /// The link to a member.
    pub fn link(&self, ring: &Ring, to: MemberIndex) -> Rc<Link> {
        let member = ring.member(to);
        let mut links = self.links.borrow_mut();
        let url = self.node.address_of(member);
        if let Some(link) = links.get(&member.name).filter(|link| link.leads_to(&url)) {
            return link.clone();
        }
        let link = Link::new(self.node.clone(), member.name.clone(), url.into_owned());
        links.insert(member.name.clone(), link.clone());
        link
    }

    /// How long a read of the partition waits for a silent owner before it asks another: what any other owner mostly needs
    /// for an answer, `most` where nobody knows.
    pub fn read_patience(&self, ring: &Ring, partition: Partition, most: Duration) -> Duration {
        let links = self.links.borrow();
        let link = |owner: &MemberIndex| links.get(&ring.member(*owner).name);
        let quickest = ring.owners(partition).iter().filter_map(link).filter_map(|link| link.read_p95()).min();
        quickest.unwrap_or(most).max(TICK).min(most)
    }

    /// Answers one request from this node's store, asked under this epoch.
    pub(super) fn answer(self: &Rc<Self>, request: Request, class: Class, epoch: u64, told: Box<dyn FnOnce(Answer)>) {
        if request.is_bound_to_epoch() && epoch < self.node.epoch() {
            return told(Answer::Refused(Refusal::StaleEpoch { epoch: self.node.epoch() }));
        }
        let partial = self.node.answers_in_part(&request);
        if let Some(refusal) = self.node.declines(&request) {
            return told(Answer::Refused(refusal));
        }
        let told = move |answer: Answer| told(answer.in_part(partial));
        match replica::step(request) {
            Step::Commit(change) => {
                self.commit_under(
                    class,
                    epoch,
                    [(change, Box::new(move |result| told(replica::committed(result))) as _)],
                );
            }
            Step::Propose { key, proposal, reach, within_ms } => self.propose(key, proposal, reach, within_ms, told),
            Step::Greet(greeting) => self.greeted(&greeting, told),
            Step::Read(address) => self.look_up(address, self.unless_moved_on(epoch, told)),
            Step::ReadSince(address, since) => {
                let dots = self.node.seen_of(address.partition(), &since);
                let told = self.unless_moved_on(epoch, told);
                self.look_up(address, move |answer| told(replica::having_seen(answer, dots)));
            }
            Step::Compare(request) => super::sync::compare(self, request, Box::new(told)),
            Step::UnderWay(between) => told(super::sync::under_way(&self.node, between)),
            Step::Gossip(packets) => told(Answer::Gossip { packets: self.node.hear_gossip(&packets) }),
            Step::Layout(request) => super::layouts::answer(self, request, Box::new(told)),
            Step::List(request) => super::listing::answer(self, request, Box::new(self.unless_moved_on(epoch, told))),
            Step::Follow(follow) => super::following::answer(&self.node, follow, told),
        }
    }

    /// Tells an answer, if the layout is still the one it was asked under: a look-up may take a while, and rows that are no
    /// longer kept here are dropped.
    fn unless_moved_on(&self, epoch: u64, told: impl FnOnce(Answer) + 'static) -> impl FnOnce(Answer) + 'static {
        let node = self.node.clone();
        move |answer| {
            let now = node.epoch();
            told(if epoch < now { Answer::Refused(Refusal::StaleEpoch { epoch: now }) } else { answer })
        }
    }

    /// Answers from a row.
    fn look_up(self: &Rc<Self>, address: Address, told: impl FnOnce(Answer) + 'static) {
        if let Peek::Known(row) = self.node.store.peek(&address) {
            return told(replica::found(&address, row.as_ref()));
        }
        let worker = self.clone();
        actix_web::rt::spawn(async move {
            let answer = match worker.read(&address).await {
                Ok(row) => {
                    let answer = replica::found(&address, row.as_ref());
                    if answer == Answer::Refused(Refusal::Damaged) && address.kind() == Kind::Data {
                        address.key().into_iter().for_each(|key| worker.node.rot.note(key));
                    }
                    answer
                }
                Err(_) => Answer::Refused(Refusal::Unreadable),
            };
            told(answer);
        });
    }

    /// Reads a row, off this thread where that may wait.
    pub async fn read(&self, address: &Address) -> Result<Option<Bytes>, StoreError> {
        if let Peek::Known(row) = self.node.store.peek(address) {
            return Ok(row);
        }
        let (store, address) = (self.node.store.clone(), address.clone());
        match tokio::task::spawn_blocking(move || store.read(&address)).await {
            Ok(row) => row,
            Err(_) => Err(StoreError::Unreadable("the read was cut short".into())),
        }
    }

    /// Hands changes to the committer; each is told what became of it.
    pub fn commit<T>(&self, changes: T)
    where
        T: IntoIterator<Item = (Change, Committed)>,
    {
        self.commit_as(Class::Foreground, changes);
    }

    /// The same for some that may have to give way to others.
    pub fn commit_as<T>(&self, class: Class, changes: T)
    where
        T: IntoIterator<Item = (Change, Committed)>,
    {
        self.commit_under(class, ANY_EPOCH, changes);
    }

    /// Hands one change to the committer, and waits for what became of it; nothing, where the node is stopping. Whoever does
    /// not wait to the end takes nothing back.
    pub async fn committed(&self, class: Class, epoch: u64, change: Change) -> Option<Result<Outcome, Refused>> {
        let (tell, told) = oneshot::channel();
        let committed = move |result: Result<Outcome, Refused>| {
            let _ = tell.send(result);
        };
        self.commit_under(class, epoch, [(change, Box::new(committed) as Committed)]);
        told.await.ok()
    }

    /// The same for some that are refused once the layout has moved on from this epoch.
    pub fn commit_under<T>(&self, class: Class, epoch: u64, changes: T)
    where
        T: IntoIterator<Item = (Change, Committed)>,
    {
        let mut submissions = Vec::new();
        {
            let mut commits = self.commits.borrow_mut();
            for (change, told) in changes {
                let token = self.commits_made.replace(self.commits_made.get() + 1);
                commits.insert(token, told);
                submissions.push((token, change));
            }
        }
        for token in self.node.queue.submit(self.number, class, epoch, submissions) {
            self.completed(token, Err(Refused::Overloaded));
        }
    }

    fn completed(&self, token: u64, result: Result<Outcome, Refused>) {
        let told = self.commits.borrow_mut().remove(&token);
        if let Some(told) = told {
            told(result);
        }
    }

    async fn hear(self: Rc<Self>, mut completions: mpsc::UnboundedReceiver<Vec<Completion>>) {
        while let Some(batch) = completions.recv().await {
            for (token, result) in batch {
                self.completed(token, result);
            }
        }
    }

    /// Keeps deadlines and wake-ups. Sleeps while nothing runs.
    async fn tick(self: Rc<Self>) {
        loop {
            if self.operations.borrow().is_empty() {
                self.ticking.notified().await;
            }
            tokio::time::sleep(TICK).await;
            let now = now();
            let mut due = Vec::new();
            for (id, running) in self.operations.borrow_mut().iter_mut() {
                if running.deadline.is_some_and(|deadline| deadline <= now) {
                    running.deadline = None;
                    due.push((*id, Event::Deadline));
                }
                if running.wake.is_some_and(|wake| wake <= now) {
                    running.wake = None;
                    due.push((*id, Event::Woken));
                }
            }
            for (id, event) in due {
                self.event(id, event);
            }
        }
    }
}
