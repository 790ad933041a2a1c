//! Running sessions, and what became of them. [`Schedule`] decides; here are the waiting and the accounts.

use super::outside::{jittered, now, wall_ms};
use super::shared::Shared;
use super::worker::Worker;
use crate::antientropy::{AFTER_HINTS_MS, CONFIRM_MS, FIRST_AFTER_MS_MAX, Report, Schedule, Session, SessionOptions};
use crate::membership::State;
use crate::protocol::{Answer, MemberTag, Refusal, SyncAnswer, SyncRequest};
use crate::replica;
use serde::Serialize;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Accounts kept for the status.
const ACCOUNTS_KEPT: usize = 20;
/// How long a session may take. What it has not moved by then the next one will.
const SESSION_TIME_MAX: Duration = Duration::from_secs(600);
/// How long to wait before a busy peer is asked again, about.
const RETRY_PERIOD: Duration = Duration::from_millis(200);
/// How long a session waits for busy nodes, if somebody counts on it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a session was begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// It was time.
    Timer,
    /// The peer had been away.
    Return,
    /// Somebody asked for it.
    Request,
    /// This node is being filled.
    Filling,
    /// What is no longer kept here is offered to those who keep it.
    #[serde(rename = "hand-over")]
    HandOver,
}

/// One session, for people.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Account {
    /// With whom: the name in the layout.
    pub peer: String,
    /// Why.
    pub reason: Reason,
    /// When it began, in milliseconds since 1970.
    pub at_ms: u64,
    /// What it did.
    #[serde(flatten)]
    pub report: Report,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// What all sessions together did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Totals {
    /// Sessions begun by this node.
    pub sessions: u64,
    /// Those that failed.
    pub failed: u64,
    /// Bytes of messages sent.
    pub bytes_out: u64,
    /// Bytes of messages received.
    pub bytes_in: u64,
    /// Records sent that changed something.
    pub pushed: u64,
    /// Records fetched that changed something.
    pub pulled: u64,
    /// Records moved that changed nothing.
    pub noop: u64,
    /// Records that were not taken, or could not be read.
    pub refused: u64,
}

#[derive(Default)]
struct Book {
    schedule: Schedule,
    totals: Totals,
    last: VecDeque<Account>,
    /// Peers whose return somebody already takes care of.
    returning: BTreeSet<String>,
}

/// The sessions of a node, past and present.
pub struct Syncs {
    book: Mutex<Book>,
    /// When the node started.
    started: Instant,
}

/// This node's turn to run a session, given back when dropped.
struct Turn<'a>(&'a Syncs);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.book().schedule.end();
    }
}

impl Syncs {
    /// The totals, and the last sessions, oldest first.
    pub fn status(&self) -> (Totals, Vec<Account>) {
        let book = self.book();
        (book.totals, book.last.iter().cloned().collect())
    }

    /// Nothing yet, of a node that started just now.
    pub(super) fn new(started: Instant) -> Syncs {
        Syncs { book: Mutex::default(), started }
    }

    fn now_ms(&self) -> u64 {
        now().duration_since(self.started).as_millis() as u64
    }

    /// Whether the peer may have a session with this node now; if so, nobody else may until it is done.
    pub(super) fn admit(&self, peer: MemberTag) -> bool {
        self.book().schedule.admit(peer, self.now_ms())
    }

    /// A question of a session has come.
    fn note_question(&self) {
        self.book().schedule.note_question(self.now_ms());
    }

    /// The peer has taken hints from here.
    pub(super) fn note_hints_taken(&self, peer: &str) {
        self.book().schedule.note_hints_taken(peer, self.now_ms());
    }

    /// The peer's session is over.
    pub(super) fn release(&self, peer: MemberTag) {
        self.book().schedule.release(peer);
    }

    fn take_turn(&self) -> Option<Turn<'_>> {
        self.book().schedule.begin(self.now_ms()).then(|| Turn(self))
    }

    pub(super) fn enter(&self, account: &Account) {
        let mut book = self.book();
        let (totals, report) = (&mut book.totals, &account.report);
        totals.sessions += 1;
        totals.failed += u64::from(report.failed.is_some());
        totals.bytes_out += report.bytes_out;
        totals.bytes_in += report.bytes_in;
        totals.pushed += report.pushed;
        totals.pulled += report.pulled;
        totals.noop += report.noop;
        totals.refused += report.refused;
        if book.last.len() == ACCOUNTS_KEPT {
            book.last.pop_front();
        }
        book.last.push_back(account.clone());
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Compares with every peer that is alive: shortly after the start, then every `--syncfreq`, jittered.
pub(super) fn on_timer(worker: &Rc<Worker>) {
    let worker = worker.clone();
    actix_web::rt::spawn(async move {
        let node = worker.node.clone();
        tokio::time::sleep(jittered(node.settings.sync_period.min(Duration::from_millis(FIRST_AFTER_MS_MAX)))).await;
        while !node.is_stopping() {
            let alive: Vec<String> = {
                let view = node.view();
                let alive = view.peers().iter().filter(|peer| peer.state == State::Alive);
                alive.map(|peer| peer.name.clone()).collect()
            };
            for peer in alive.iter().filter(|peer| !is_settling(&node, peer) && !hints_come_first(&node, peer)) {
                with_peer(&worker, peer, Reason::Timer, Duration::ZERO).await;
            }
            tokio::time::sleep(jittered(node.settings.sync_period)).await;
        }
    });
}

fn is_settling(node: &Shared, peer: &str) -> bool {
    let ping_period_ms = node.settings.ping_period.as_millis() as u64;
    node.syncs.book().schedule.is_settling(peer, ping_period_ms, node.syncs.now_ms())
}

/// Whether the peer is about to be handed what is kept for it here.
fn hints_come_first(node: &Shared, peer: &str) -> bool {
    node.syncs.book().schedule.hints_go_first(peer, node.syncs.now_ms()) && node.hints.has_any(peer)
}

/// Compares with a peer that is back, once it was handed what is kept for it.
pub(super) fn on_return(worker: &Rc<Worker>, peer: &str) {
    let (worker, peer) = (worker.clone(), peer.to_string());
    {
        let mut book = worker.node.syncs.book();
        book.schedule.note_return(&peer, worker.node.syncs.now_ms());
        if !book.returning.insert(peer.clone()) {
            return;
        }
    }
    actix_web::rt::spawn(async move {
        let node = worker.node.clone();
        while !node.is_stopping() && (is_settling(&node, &peer) || hints_come_first(&node, &peer)) {
            tokio::time::sleep(jittered(RETRY_PERIOD)).await;
        }
        with_peer(&worker, &peer, Reason::Return, PATIENCE).await;
        node.syncs.book().returning.remove(&peer);
    });
}

/// Compares with the peer because somebody asked for it. `None` when it, or this node, stayed busy, or the node stops.
/// Runs to its end whether or not it is waited for.
pub async fn on_request(worker: &Rc<Worker>, peer: &str) -> Option<Account> {
    let (worker, peer) = (worker.clone(), peer.to_string());
    let session = async move { with_peer(&worker, &peer, Reason::Request, PATIENCE).await };
    actix_web::rt::spawn(session).await.ok().flatten()
}

/// Compares with the peer because this node lacks something. `None` when it, or this node, is busy.
pub(super) async fn to_fill(worker: &Rc<Worker>, peer: &str) -> Option<Account> {
    with_peer(worker, peer, Reason::Filling, Duration::ZERO).await
}

/// One session, waiting at most `patience` until both nodes are free for it.
async fn with_peer(worker: &Rc<Worker>, peer: &str, reason: Reason, patience: Duration) -> Option<Account> {
    let node = worker.node.clone();
    let until = now() + patience;
    loop {
        if node.is_stopping() {
            return None;
        }
        let (losses, epoch) = (node.completeness.losses(), node.epoch());
        let ended = match node.syncs.take_turn() {
            Some(_turn) => session(worker, peer, reason).await,
            None => Err(RETRY_PERIOD),
        };
        if let Ok(account) = &ended {
            node.syncs.enter(account);
            if reason == Reason::Filling && node.is_filled_by(&account.report) {
                node.compared(peer, losses, epoch);
            }
            if account.report.has_moved() {
                let (Report { pushed, pulled, noop, rounds, .. }, ms) = (&account.report, account.ms);
                let bytes = account.report.bytes_out + account.report.bytes_in;
                node.events.info(
                    "sync",
                    format!(
                        "with {peer}: {pushed} sent, {pulled} fetched, {noop} for nothing; {rounds} rounds, \
                         {bytes} bytes, {ms} ms"
                    ),
                );
            }
        }
        match ended {
            Ok(account) => return Some(account),
            Err(_) if now() >= until => return None,
            Err(again_after) => tokio::time::sleep(jittered(again_after)).await,
        }
    }
}

/// Runs a session; the error is after how long to try again, about, when the peer is busy with another, or with hints.
async fn session(worker: &Rc<Worker>, peer: &str, reason: Reason) -> Result<Account, Duration> {
    let node = &worker.node;
    let ring = node.ring();
    let (me, other) = (node.me(&ring), ring.member_by_name(peer).ok_or(RETRY_PERIOD)?);
    let (began, at_ms) = (now(), wall_ms());
    let avoid = node.avoid(&ring);
    let options = SessionOptions {
        settled: node.now_stamp(),
        confirm_ms: CONFIRM_MS,
        coordinators: ring.members().filter(|member| !avoid.contains(member)).collect(),
        under_way_ms_max: node.settings.timeout.as_millis() as u64,
        everything: reason == Reason::Filling,
        offers: false,
    };
    let shared = replica::shared(&ring, me, other);
    let (seen, losses) = (node.seen.said().by(peer).cloned(), node.completeness.losses());
    let session = Session::new(&ring, Arc::clone(&node.forest), me, other, shared, options);
    let report = worker.run_long(session, ring.clone(), SESSION_TIME_MAX).await.ok_or(RETRY_PERIOD)?;
    let whole = reason == Reason::Filling && node.is_filled_by(&report);
    worker.found_equal(&ring, other, seen, losses, &report, whole);
    let ms = now().duration_since(began).as_millis() as u64;
    match report {
        report if report.gave_way_to_hints() => Err(Duration::from_millis(AFTER_HINTS_MS)),
        report if report.is_busy() => Err(RETRY_PERIOD),
        report => Ok(Account { peer: peer.into(), reason, at_ms, report, ms }),
    }
}

/// Answers a question of a peer's session, or of one's own, off the worker's thread where that may wait.
pub(super) fn compare(worker: &Rc<Worker>, request: SyncRequest, told: Box<dyn FnOnce(Answer)>) {
    let node = worker.node.clone();
    let ring = node.ring();
    let me = node.me(&ring);
    if !replica::is_quick(&request) {
        node.syncs.note_question();
        actix_web::rt::spawn(async move {
            let shared = node.clone();
            let scan = move || {
                // Whoever asked waits no longer than the timeout, and this node's own part must not take all of it.
                let mut give_way = shared.foreground.giving_way(shared.settings.timeout / 2);
                replica::compare(&ring, me, &shared.forest, &*shared.store, request, &mut give_way)
            };
            let answer = node.aside.run(scan).await;
            told(answer.unwrap_or(Answer::Refused(Refusal::Unreadable)));
        });
        return;
    }
    if let SyncRequest::HandedOver { seen, unbroken } = &request
        && !worker.take_over_seen(&ring, seen, *unbroken)
    {
        return told(Answer::Refused(Refusal::NotFilled));
    }
    let asker = match &request {
        SyncRequest::Root { from, .. } => Some(*from),
        SyncRequest::Done { from } => {
            node.syncs.release(*from);
            None
        }
        _ => None,
    };
    let answer = replica::compare(&ring, me, &node.forest, &*node.store, request, &mut || ());
    let differs = matches!(answer, Answer::Sync(SyncAnswer::Groups(Some(_))));
    let is_busy = |asker| has_hints_first(&node, &[asker]) || !node.syncs.admit(asker);
    match asker {
        Some(asker) if differs && is_busy(asker) => told(Answer::Refused(Refusal::Overloaded)),
        Some(asker) if !differs => {
            // A new session, and already over: an earlier one that was cut short is not gone on with.
            node.syncs.release(asker);
            told(answer);
        }
        _ => told(answer),
    }
}

/// What this node has under way as a coordinator.
pub(super) fn under_way(node: &Shared, between: [MemberTag; 2]) -> Answer {
    Answer::UnderWay { since: node.under_way.since(), hints: has_hints_first(node, &between) }
}

/// Whether one of these is about to be handed what is kept for it here.
fn has_hints_first(node: &Shared, members: &[MemberTag]) -> bool {
    let ring = node.ring();
    let names = ring.members().map(|member| &ring.member(member).name);
    names.filter(|name| members.contains(&MemberTag::of(name))).any(|name| hints_come_first(node, name))
}
