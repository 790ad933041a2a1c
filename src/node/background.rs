//! What a node does by itself: asks after its peers, hands over what it keeps for them, keeps its house.
//!
//! Each loop has a name, a bounded unit of work, and ends when the node is stopping. Loops that talk to peers run on
//! the main thread with a worker of their own, so liveness never waits behind clients' traffic.

use super::outside::{jittered, now, wall_ms};
use super::shared::Shared;
use super::worker::Worker;
use crate::membership::State;
use crate::operation::Failure;
use crate::protocol::{Answer, Request};
use crate::record::Key;
use crate::storage::{Address, Change, CheckpointError, Health, Hint, LogStore, Rebuild, RebuildStep, Store};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How often the recent rows are carried into the base. Longer lets overwrites meet in memory, shorter makes a
/// restart faster; the log is replayed from the last one.
const CHECKPOINT_PERIOD: Duration = Duration::from_secs(4);
/// How long a checkpoint pauses between two small pieces of its work.
const CHECKPOINT_PAUSE: Duration = Duration::from_micros(200);
/// How often the housekeeping thread looks whether there is something to do.
const HOUSEKEEPING_TICK: Duration = Duration::from_millis(20);
/// How often a store that takes no writes is tried again.
const RETRY_PERIOD: Duration = Duration::from_secs(1);
/// Hints sent to one peer at a time. Small, so that a peer that has just come back is not swamped.
const HINTS_AT_A_TIME: usize = 64;

/// Asks after every peer: at once, then every `--pingfreq`, jittered.
pub fn ping_peers(worker: &Rc<Worker>) {
    let ring = worker.node.ring();
    for member in ring.layout().members() {
        if member.name == worker.node.name {
            continue;
        }
        let (worker, name) = (worker.clone(), member.name.clone());
        actix_web::rt::spawn(async move {
            while !worker.node.is_stopping() {
                let ring = worker.node.ring();
                let Some(to) = ring.member_by_name(&name) else { return };
                ping(&worker, &name, worker.link(&ring, to).ping().await);
                tokio::time::sleep(jittered(worker.node.settings.ping_period)).await;
            }
        });
    }
}

fn ping(worker: &Rc<Worker>, name: &str, result: Result<crate::protocol::Reply, String>) {
    let node = &worker.node;
    let reply = match result {
        Ok(reply) => reply,
        Err(error) => return node.ping_failed(name, error),
    };
    match &reply.answers {
        Ok(_) if reply.sender == node.id => node.ping_failed(name, "this node itself answers at that address".into()),
        Ok(_) => {
            node.queue.heard(reply.stamp);
            if node.heard(name, reply.sender) {
                super::sync::on_return(worker, name);
            }
        }
        Err(refusal) => node.ping_failed(name, refusal.to_string()),
    }
}

/// Hands over the records kept for each peer, oldest first, while the peer is alive and takes them.
pub fn replay_hints(worker: &Rc<Worker>) {
    let worker = worker.clone();
    actix_web::rt::spawn(async move {
        while !worker.node.is_stopping() {
            tokio::time::sleep(jittered(worker.node.settings.ping_period)).await;
            let ring = worker.node.ring();
            for member in ring.layout().members() {
                let alive = worker.node.view().peer(&member.name).map(|peer| peer.state == State::Alive);
                if alive.unwrap_or(member.name == worker.node.name) {
                    replay_to(&worker, &member.name).await;
                }
            }
        }
    });
}

/// Hands over to one target until nothing is left for it or it stops taking.
async fn replay_to(worker: &Rc<Worker>, target: &str) {
    let mut delivered = 0;
    while !worker.node.is_stopping() {
        let keys = worker.node.hints.oldest(target, HINTS_AT_A_TIME);
        if keys.is_empty() {
            break;
        }
        let mut moved = 0;
        for taken in futures_of(keys.into_iter().map(|key| deliver(worker, target, key))).await {
            moved += usize::from(taken);
        }
        delivered += moved;
        if moved == 0 {
            break;
        }
    }
    if delivered > 0 {
        worker.node.events.info("hints", format!("{delivered} hints handed over to {target}"));
    }
}

/// Runs futures side by side on this thread and gathers what they return, in order.
async fn futures_of<F>(futures: impl Iterator<Item = F>) -> Vec<F::Output>
where
    F: Future + 'static,
    F::Output: 'static + Default,
{
    let tasks: Vec<_> = futures.map(actix_web::rt::spawn).collect();
    let mut outputs = Vec::with_capacity(tasks.len());
    for task in tasks {
        outputs.push(task.await.unwrap_or_default());
    }
    outputs
}

/// Hands over the hint of one key; it is dropped only once the target has the record.
fn deliver(worker: &Rc<Worker>, target: &str, key: Key) -> impl Future<Output = bool> + 'static {
    let (worker, target) = (worker.clone(), target.to_string());
    async move {
        let Ok(Some(row)) = worker.read(&Address::hint(&key)).await else { return false };
        let Ok(hint) = Hint::decode(&row) else { return false };
        let ring = worker.node.ring();
        let Some(to) = ring.member_by_name(&target) else { return false };
        let (tell, told) = oneshot::channel();
        let request = Request::Merge { key: key.clone(), record: hint.record.clone() };
        let until = now() + worker.node.settings.timeout;
        let answered = move |result: Result<Answer, Failure>| {
            let _ = tell.send(matches!(result, Ok(Answer::Merged { .. })));
        };
        worker.send(&ring, to, request, until, Box::new(answered));
        if told.await != Ok(true) {
            return false;
        }
        let (tell, told) = oneshot::channel();
        let change = Change::HintDelivered { key, record: hint.record, target: target.into() };
        worker.commit([(
            change,
            Box::new(move |result: Result<_, _>| {
                let _ = tell.send(result.is_ok());
            }) as _,
        )]);
        told.await == Ok(true)
    }
}

/// What the housekeeping thread of a store on disk keeps: checkpoints, log segments, timed syncs, and the rebuilding
/// of digests after a start.
pub(super) struct Keep {
    /// The store.
    pub(super) store: Arc<LogStore>,
    /// The digests still to build, if any.
    pub(super) rebuild: Option<Rebuild>,
    /// Time between two syncs, for `--durability interval`.
    pub(super) sync_every: Option<Duration>,
}

impl Keep {
    /// Runs until the node stops; then carries everything into the base, so that the next start has nothing to replay.
    pub(super) fn run(self, node: &Shared) {
        let Keep { store, mut rebuild, sync_every } = self;
        // Clients come first: this thread only wants what they leave. Without the right to it, it still works.
        let _ = rustix::process::nice(10);
        let (mut last_checkpoint, mut last_sync) = (now(), now());
        while !node.is_stopping() {
            match rebuild.take() {
                Some(mut rebuilding) => rebuild = build_next(node, &mut rebuilding).then_some(rebuilding),
                None => std::thread::sleep(HOUSEKEEPING_TICK),
            }
            if sync_every.is_some_and(|every| last_sync.elapsed() >= every) {
                // A failure fences the store, which `watch_health` reports.
                let _ = store.sync();
                last_sync = now();
            }
            let due = store.due();
            if due.segment {
                note(store.prepare());
            }
            if due.checkpoint || last_checkpoint.elapsed() >= CHECKPOINT_PERIOD {
                note(store.checkpoint(&mut pace));
                last_checkpoint = now();
            }
        }
        let _ = store.sync();
        note(store.checkpoint(&mut || {}));
    }
}

/// Builds the digests of one more partition; `false` when there is nothing more to do.
fn build_next(node: &Shared, rebuild: &mut Rebuild) -> bool {
    match rebuild.step(&node.forest) {
        Ok(RebuildStep::Built(_)) => true,
        Ok(RebuildStep::Done { damaged }) => {
            let took_ms = node.started.elapsed().as_millis();
            node.events.info("digests", format!("the digests of all rows are built, {took_ms} ms after the start"));
            if damaged > 0 {
                node.events.error("digests", format!("{damaged} rows cannot be read, and are in no digest"));
            }
            false
        }
        Err(error) => {
            node.events.error("digests", format!("the digests cannot be built: {error}"));
            false
        }
    }
}

/// A failing checkpoint loses nothing and is tried again; `watch_health` tells people.
fn note<T>(result: Result<T, CheckpointError>) {
    if let Err(error) = result {
        log::debug!(target: "kringle::store", "{error}");
    }
}

/// Called between small steps of a checkpoint: gives way to the threads that serve clients.
fn pace() {
    std::thread::sleep(CHECKPOINT_PAUSE);
}

/// Notices when the store stops taking writes, or takes them again, and says so once.
pub fn watch_health(worker: &Rc<Worker>) {
    let (worker, node) = (worker.clone(), worker.node.clone());
    actix_web::rt::spawn(async move {
        let mut last = Health::Ok;
        let mut last_try = now();
        while !node.is_stopping() {
            let health = node.store.health();
            if health != last {
                match &health {
                    Health::Ok => node.events.info("store", "the store takes writes again"),
                    Health::ReadOnly(why) => node.events.error("store", format!("the store is read-only: {why}")),
                    Health::Fenced(why) => {
                        node.events.error("store", format!("a sync failed, no write is taken until a restart: {why}"));
                    }
                }
                last = health;
            }
            if matches!(last, Health::ReadOnly(_)) && last_try.elapsed() >= RETRY_PERIOD {
                // Clients are sent elsewhere by now, so somebody must try whether the disk works again.
                let change = Change::Fact { name: "last-try", bytes: wall_ms().to_be_bytes().to_vec().into() };
                worker.commit([(change, Box::new(|_| ()) as _)]);
                last_try = now();
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
}
