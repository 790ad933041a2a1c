//! What a node does by itself to keep its house.
//!
//! Each loop has a name, a bounded unit of work, and ends when the node is stopping. Loops that talk to peers run on
//! the main thread with a worker of their own, so liveness never waits behind clients' traffic.

use super::mend::Mending;
use super::outside::{now, wall_ms};
use super::shared::Shared;
use super::worker::Worker;
use crate::storage::{self, Change, CheckpointError, Health, LogStore, PageSize, Rebuild, RebuildStep, Scrub, Store};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How often the recent rows are carried into the base. Longer lets overwrites meet in memory, shorter makes a
/// restart faster; the log is replayed from the last one.
const CHECKPOINT_PERIOD: Duration = Duration::from_secs(4);
/// How long a checkpoint pauses between two small pieces of its work.
const CHECKPOINT_PAUSE: Duration = Duration::from_micros(200);
/// How often the housekeeping thread looks whether there is something to do.
const HOUSEKEEPING_TICK: Duration = Duration::from_millis(20);
/// How often a store that takes no writes is tried again.
const RETRY_PERIOD: Duration = Duration::from_secs(1);
/// Most that a scrub reads in one look of the housekeeping thread: with its tick, 12,000 rows or 50 MB a second.
const SCRUB_PAGE: PageSize = PageSize { rows_max: 256, bytes_max: 1 << 20 };
/// Most partitions it looks into meanwhile, where they are small.
const SCRUB_STEPS_MAX: usize = 64;

/// What the housekeeping thread of a store on disk keeps: checkpoints, log segments, timed syncs, and the rebuilding
/// of digests after a start.
pub(super) struct Keep {
    /// The data folder.
    pub(super) folder: PathBuf,
    /// The store.
    pub(super) store: Arc<LogStore>,
    /// The digests still to build, if any.
    pub(super) rebuild: Option<Rebuild>,
    /// Time between two syncs, for `--durability interval`.
    pub(super) sync_every: Option<Duration>,
    /// Time between the starts of two scrubs.
    pub(super) scrub_every: Option<Duration>,
    /// What is done about a base that rots.
    pub(super) mending: Mending,
}

impl Keep {
    /// Runs until the node stops; then carries everything into the base, so that the next start has nothing to replay.
    pub(super) fn run(self, node: &Shared) {
        let Keep { folder, store, mut rebuild, sync_every, scrub_every, mut mending } = self;
        // Clients come first: this thread only wants what they leave. Without the right to it, it still works.
        let _ = rustix::process::nice(10);
        let (mut last_checkpoint, mut last_sync) = (now(), now());
        let (mut scrub, mut last_scrub) = (None, now());
        while !node.is_stopping() {
            // What can be brought over comes first, so that no session brings it too.
            if !mending.step(node) {
                match rebuild.take() {
                    Some(mut rebuilding) => rebuild = build_next(node, &store, &mut rebuilding).then_some(rebuilding),
                    None => std::thread::sleep(HOUSEKEEPING_TICK),
                }
            }
            if mending.look(node, &store, false, &mut pace) {
                (rebuild, scrub) = (None, None);
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
            if scrub.is_some() {
                scrub = scrub_next(node, &store, scrub);
            } else if rebuild.is_none() && scrub_every.is_some_and(|every| last_scrub.elapsed() >= every) {
                last_scrub = now();
                mend_identity(node, &folder);
                if !mending.look(node, &store, true, &mut pace) {
                    scrub = Some(Scrub::new());
                    node.rot.begin_run();
                }
            }
        }
        let _ = store.sync();
        note(store.checkpoint(&mut || {}));
    }
}

/// The identity is there twice; one copy that rotted must not wait for the other.
fn mend_identity(node: &Shared, folder: &Path) {
    match storage::mend_identity(folder) {
        Ok(false) => {}
        Ok(true) => node.events.error("rot", "a copy of the folder's identity was damaged: written anew"),
        Err(error) => node.events.error("rot", error.to_string()),
    }
}

/// Reads on with a scrub, as much as fits into one look of the housekeeping thread: 1 MiB, so that it takes a small
/// share of a disk and of a core. `None` when it is through.
fn scrub_next(node: &Shared, store: &LogStore, scrub: Option<Scrub>) -> Option<Scrub> {
    let mut scrub = scrub?;
    let (mut rows, mut steps, mut more) = (0, 0, true);
    while more && rows < SCRUB_PAGE.rows_max as u64 && steps < SCRUB_STEPS_MAX {
        more = scrub.step(store, &node.forest, SCRUB_PAGE);
        let found = scrub.take_found();
        for key in &found.hints_damaged {
            let key = key.as_bytes().escape_ascii().to_string();
            node.events.error("rot", format!("a hint for {key:?} cannot be read"));
        }
        rows += found.rows;
        steps += 1;
        node.rot.found(found);
    }
    if more {
        return Some(scrub);
    }
    let run = node.rot.end_run()?;
    let text = format!("scrubbed {} rows in {} ms: {} damaged", run.rows, run.ms, run.damaged);
    node.events.info("rot", text);
    None
}

/// Builds the digests of one more partition; `false` when there is nothing more to do.
fn build_next(node: &Shared, store: &LogStore, rebuild: &mut Rebuild) -> bool {
    let step = rebuild.step(&node.forest);
    rebuild.take_damaged().into_iter().for_each(|key| node.rot.note(key));
    match step {
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
            // Whether the base rotted is looked for at once: nobody else may read there for long.
            store.suspect();
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
