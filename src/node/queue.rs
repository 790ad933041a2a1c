//! The bounded queue before the one committer thread, and the thread.
//!
//! While one batch is synced the next gathers: that is the group commit. Each drain answers with one message per
//! worker, not one per change.

use super::outside::wall_ms;
use super::rot::Rot;
use crate::record::{Clock, Stamp};
use crate::storage::{Change, Committer, Outcome, Refused};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use tokio::sync::mpsc::UnboundedSender;

/// Most changes that wait. At a million a second a thousandth of a second's worth would do; this rides out a slow
/// sync without holding more than a few megabytes of small values.
const WAITING_MAX: usize = 16_384;
/// Most bytes of values that wait, so that large values cannot fill the memory.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Most changes in one commit, and most bytes: bounds how long a batch takes.
const BATCH_MAX: usize = 1_024;
const BATCH_BYTES_MAX: usize = 8 << 20;

/// What comes back for one change: the token it was submitted with, and the result.
pub type Completion = (u64, Result<Outcome, Refused>);

/// Where a worker hears what became of its changes. Unbounded, as never more can arrive than were submitted.
pub type Completions = UnboundedSender<Vec<Completion>>;

struct Submission {
    worker: usize,
    token: u64,
    bytes: usize,
    change: Change,
}

#[derive(Default)]
struct Waiting {
    submissions: VecDeque<Submission>,
    bytes: usize,
    workers: Vec<Completions>,
    closed: bool,
    errand: Option<Errand>,
}

/// What is done with the committer between two batches.
pub(super) type Errand = Box<dyn FnOnce(&mut Committer) + Send>;

/// The queue. Shared by all workers and the committer thread.
#[derive(Default)]
pub struct CommitQueue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    /// The latest stamp any peer has mentioned.
    heard: AtomicU64,
    /// The latest stamp of the committer's clock.
    last: AtomicU64,
    /// The actor under which the committer makes dots.
    pub(super) actor: AtomicU64,
}

impl CommitQueue {
    /// Registers a worker; its number goes with each of its changes.
    pub fn register(&self, completions: Completions) -> usize {
        let mut waiting = self.lock();
        waiting.workers.push(completions);
        waiting.workers.len() - 1
    }

    /// Hands in changes, each with the token that its result will carry. Those there is no room for come back.
    pub fn submit(&self, worker: usize, changes: impl IntoIterator<Item = (u64, Change)>) -> Vec<u64> {
        let mut turned_away = Vec::new();
        let mut waiting = self.lock();
        let was_empty = waiting.submissions.is_empty();
        for (token, change) in changes {
            let bytes = size_of(&change);
            let full = waiting.submissions.len() >= WAITING_MAX
                || waiting.bytes + bytes > WAITING_BYTES_MAX && waiting.bytes > 0;
            if full || waiting.closed {
                turned_away.push(token);
            } else {
                waiting.bytes += bytes;
                waiting.submissions.push_back(Submission { worker, token, bytes, change });
            }
        }
        if was_empty && !waiting.submissions.is_empty() {
            self.filled.notify_one();
        }
        turned_away
    }

    /// Has something done with the committer as soon as it is between two batches. One at a time.
    pub(super) fn between_batches(&self, errand: Errand) {
        self.lock().errand = Some(errand);
        self.filled.notify_one();
    }

    /// Takes note of a stamp a peer mentioned; the clock takes it over with the next commit. One that lies too far
    /// ahead is not believed, and must not hide the credible ones that come after it.
    pub fn heard(&self, stamp: Stamp) {
        if Clock::starting_after(self.last_stamp()).check(stamp, wall_ms()).is_ok() {
            self.heard.fetch_max(stamp.0, Ordering::Relaxed);
        }
    }

    /// The latest stamp this node has made or seen.
    pub fn last_stamp(&self) -> Stamp {
        Stamp(self.last.load(Ordering::Relaxed))
    }

    /// The latest stamp this node has made, seen, or been told of.
    pub fn latest_stamp(&self) -> Stamp {
        self.last_stamp().max(Stamp(self.heard.load(Ordering::Relaxed)))
    }

    /// Lets the committer finish what waits, then end.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    /// The committer's thread: runs until the queue is closed and empty. Damaged rows that it meets are noted in `rot`.
    pub fn run(self: Arc<Self>, mut committer: Committer, rot: &Rot) {
        self.actor.store(committer.actor().0, Ordering::Release);
        self.last.store(committer.last_stamp().0, Ordering::Relaxed);
        let mut routes: Vec<(usize, u64)> = Vec::new();
        while let Some((batch, errand)) = self.take() {
            if let Some(errand) = errand {
                errand(&mut committer);
            }
            routes.clear();
            let mut changes = Vec::with_capacity(batch.len());
            for Submission { worker, token, change, .. } in batch {
                routes.push((worker, token));
                changes.push(change);
            }
            let wall = wall_ms();
            // A peer whose clock runs far ahead is not believed; its records are refused one by one.
            let _ = committer.note_stamp(Stamp(self.heard.load(Ordering::Relaxed)), wall);
            let results = committer.commit(wall, changes);
            self.actor.store(committer.actor().0, Ordering::Release);
            self.last.store(committer.last_stamp().0, Ordering::Relaxed);
            committer.take_damaged().into_iter().for_each(|key| rot.note(key));
            self.answer(&routes, results);
        }
    }

    fn answer(&self, routes: &[(usize, u64)], results: Vec<Result<Outcome, Refused>>) {
        let workers = self.lock().workers.clone();
        let mut messages: Vec<Vec<Completion>> = vec![Vec::new(); workers.len()];
        for (&(worker, token), result) in routes.iter().zip(results) {
            messages[worker].push((token, result));
        }
        for (worker, message) in workers.iter().zip(messages) {
            if !message.is_empty() {
                // A worker that has gone takes no answers; its clients have gone with it.
                let _ = worker.send(message);
            }
        }
    }

    fn take(&self) -> Option<(Vec<Submission>, Option<Errand>)> {
        let mut waiting = self.lock();
        while waiting.submissions.is_empty() && waiting.errand.is_none() {
            if waiting.closed {
                return None;
            }
            waiting = self.filled.wait(waiting).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        let mut batch = Vec::with_capacity(waiting.submissions.len().min(BATCH_MAX));
        let mut bytes = 0;
        while let Some(next) = waiting.submissions.front() {
            if batch.len() == BATCH_MAX || !batch.is_empty() && bytes + next.bytes > BATCH_BYTES_MAX {
                break;
            }
            bytes += next.bytes;
            batch.extend(waiting.submissions.pop_front());
        }
        waiting.bytes -= bytes;
        Some((batch, waiting.errand.take()))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// About how many bytes a change holds on to.
fn size_of(change: &Change) -> usize {
    let record = |record: &crate::record::Record| {
        record.siblings().iter().map(|sibling| sibling.content.value.len()).sum::<usize>()
    };
    256 + match change {
        Change::Write { content, .. } | Change::HintWrite { content, .. } => {
            content.as_ref().map_or(0, |content| content.value.len())
        }
        Change::Merge { record: held, .. }
        | Change::Restore { record: held, .. }
        | Change::Hint { record: held, .. } => record(held),
        Change::Cover { other, .. } => record(other),
        Change::HintDelivered { record: held, .. } => record(held),
        Change::Fact { bytes, .. } => bytes.len(),
        Change::Recount { .. } => 0,
    }
}
