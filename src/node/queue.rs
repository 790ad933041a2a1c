//! The bounded queue before the one committer thread, and the thread.
//!
//! While one batch is synced the next gathers: that is the group commit. Each drain answers with one message per
//! worker, not one per change.
//!
//! What sessions and hints bring stands in a line of its own. While clients are served it is taken a few changes at a
//! time, and rides on a client's commit, so that it costs no sync of its own. Whoever brings it waits for the
//! answers before it brings more, so this one brake slows down all that is done for it elsewhere, here and on peers. Where
//! the operator has set a pace (`--transfer-rate`), it is that one instead, whether clients are served or not.

use super::foreground::{Class, Foreground};
use super::outside::{now, wall_ms};
use super::proposing::Contested;
use super::rot::Rot;
use crate::record::{Actor, Clock, Stamp};
use crate::storage::{Change, Committer, Outcome, Refused};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// Most changes that wait in a line. At a million a second a thousandth of a second's worth would do; this rides out a slow
/// sync without holding more than a few megabytes of small values.
const WAITING_MAX: usize = 16_384;
/// Most bytes of values that wait, so that large values cannot fill the memory.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Most changes in one commit, and most bytes: bounds how long a batch takes.
const BATCH_MAX: usize = 1_024;
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Changes in the background that are taken at a time while clients are served: they add some 50 microseconds to the
/// commit they ride on.
const RIDERS_MAX: usize = 8;
/// Bytes of them, unless a single one is larger: what a disk writes in a fraction of a millisecond.
const RIDERS_BYTES_MAX: usize = 64 << 10;
/// How long after them the next may be taken: 2,000 a second, of the 22,000 that two cores shared by three nodes can do.
const RIDERS_PERIOD: Duration = Duration::from_millis(4);
/// How much of a set pace may be taken at once: what comes in so long.
const PACED_PERIOD: Duration = Duration::from_millis(10);
/// Seconds' worth of a set pace that may wait: whoever brings more would not wait for the answer, and bring it again.
const PACED_WAITING_S: u64 = 4;
/// How long they wait for a client's commit before they are given one of their own, so that a repair always ends.
const RIDE_WAIT_MAX: Duration = Duration::from_millis(5);

/// What comes back for one change: the token it was submitted with, and the result.
pub type Completion = (u64, Result<Outcome, Refused>);

/// Where a worker hears what became of its changes. Unbounded, as never more can arrive than were submitted.
pub type Completions = UnboundedSender<Vec<Completion>>;

struct Submission {
    worker: usize,
    token: u64,
    bytes: usize,
    /// The epoch under which it was asked for.
    epoch: u64,
    change: Change,
}

/// Changes that wait, first come, first served.
#[derive(Default)]
struct Line {
    submissions: VecDeque<Submission>,
    bytes: usize,
}

impl Line {
    /// Lets a change wait, if there is room for it.
    fn push(&mut self, submission: Submission) -> bool {
        let full = self.submissions.len() >= WAITING_MAX
            || self.bytes + submission.bytes > WAITING_BYTES_MAX && self.bytes > 0;
        if !full {
            self.bytes += submission.bytes;
            self.submissions.push_back(submission);
        }
        !full
    }

    /// Moves the first of them into the batch: so many changes and bytes at most, but one even if it is larger.
    /// How many bytes that was.
    fn take(&mut self, count_max: usize, bytes_max: usize, batch: &mut Vec<Submission>) -> usize {
        let (mut count, mut bytes, mut taken) = (0, 0, 0);
        let mut fits = |next: &mut Submission| {
            count += 1;
            bytes += next.bytes;
            count <= count_max && (count == 1 || bytes <= bytes_max)
        };
        while let Some(next) = self.submissions.pop_front_if(&mut fits) {
            self.bytes -= next.bytes;
            taken += next.bytes;
            batch.push(next);
        }
        taken
    }
}

#[derive(Default)]
struct Waiting {
    clients: Line,
    background: Line,
    /// When changes in the background were last taken.
    background_taken: Option<Instant>,
    /// When the next may be, at a set pace.
    paced_until: Option<Instant>,
    workers: Vec<Completions>,
    closed: bool,
    errands: Vec<Errand>,
}

/// What is done with the committer between two batches.
pub(super) type Errand = Box<dyn FnOnce(&mut Committer) + Send>;

/// The queue. Shared by all workers and the committer thread.
#[derive(Default)]
pub struct CommitQueue {
    foreground: Arc<Foreground>,
    /// The pace that is set for the background, in bytes a second.
    bytes_per_s: Option<u64>,
    waiting: Mutex<Waiting>,
    filled: Condvar,
    /// The latest stamp any peer has mentioned.
    heard: AtomicU64,
    /// The latest stamp of the committer's clock.
    last: AtomicU64,
    /// The stamp up to which every dot made here is committed.
    committed: AtomicU64,
    /// The actor under which the committer makes dots.
    pub(super) actor: AtomicU64,
    /// What was asked for under an earlier epoch is no longer committed.
    fence: AtomicU64,
}

/// The epoch of what no layout has a say in.
pub(super) const ANY_EPOCH: u64 = u64::MAX;

impl CommitQueue {
    /// A queue that lets changes in the background wait while clients are served, or takes so many bytes of them a second.
    pub fn beside(foreground: Arc<Foreground>, bytes_per_s: Option<u64>) -> CommitQueue {
        CommitQueue { foreground, bytes_per_s, ..CommitQueue::default() }
    }

    /// Registers a worker; its number goes with each of its changes.
    pub fn register(&self, completions: Completions) -> usize {
        let mut waiting = self.lock();
        waiting.workers.push(completions);
        waiting.workers.len() - 1
    }

    /// Hands in changes that were asked for under this epoch, each with the token that its result will carry. Those there is
    /// no room for come back.
    pub fn submit(
        &self,
        worker: usize,
        class: Class,
        epoch: u64,
        changes: impl IntoIterator<Item = (u64, Change)>,
    ) -> Vec<u64> {
        let mut turned_away = Vec::new();
        let mut waiting = self.lock();
        let closed = waiting.closed;
        let line = match class {
            Class::Foreground => &mut waiting.clients,
            Class::Background => &mut waiting.background,
        };
        let was_empty = line.submissions.is_empty();
        let paced = self.bytes_per_s.filter(|_| class == Class::Background);
        let most = paced.map_or(usize::MAX, |pace| usize::try_from(PACED_WAITING_S * pace).unwrap_or(usize::MAX));
        for (token, change) in changes {
            let bytes = size_of(&change);
            if closed
                || line.bytes > 0 && line.bytes.saturating_add(bytes) > most
                || !line.push(Submission { worker, token, bytes, epoch, change })
            {
                turned_away.push(token);
            }
        }
        if was_empty && !line.submissions.is_empty() {
            self.filled.notify_one();
        }
        turned_away
    }

    /// Has something done with the committer as soon as it is between two batches, in the order it is asked for. Dropped
    /// once the queue is closed.
    pub(super) fn between_batches(&self, errand: Errand) {
        let mut waiting = self.lock();
        if !waiting.closed {
            waiting.errands.push(errand);
            self.filled.notify_one();
        }
    }

    /// Whether a stamp may have been made by now, as far as clocks are believed.
    pub fn believes(&self, stamp: Stamp) -> bool {
        Clock::starting_after(self.last_stamp()).check(stamp, wall_ms()).is_ok()
    }

    /// Takes note of a stamp a peer mentioned; the clock takes it over with the next commit. One that lies too far
    /// ahead is not believed, and must not hide the credible ones that come after it.
    pub fn heard(&self, stamp: Stamp) {
        if self.believes(stamp) {
            self.heard.fetch_max(stamp.0, Ordering::Relaxed);
        }
    }

    /// The latest stamp this node has made or seen.
    pub fn last_stamp(&self) -> Stamp {
        Stamp(self.last.load(Ordering::Relaxed))
    }

    /// The stamp up to which every dot made here is committed, and the actor that made the last of them, or will make the
    /// next.
    pub fn committed(&self) -> (Stamp, Actor) {
        // In this order: a later actor has made no dot up to the stamp.
        let stamp = Stamp(self.committed.load(Ordering::Acquire));
        (stamp, Actor(self.actor.load(Ordering::Acquire)))
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

    /// The committer's thread: runs until the queue is closed and empty. Damaged rows that it meets are noted in `rot`, keys
    /// whose copies disagree with a promise in `contested`.
    pub fn run(self: Arc<Self>, mut committer: Committer, rot: &Rot, contested: &Contested) {
        self.note(&committer);
        let mut routes: Vec<(usize, u64)> = Vec::new();
        while let Some((batch, errands)) = self.take() {
            errands.into_iter().for_each(|errand| errand(&mut committer));
            routes.clear();
            let mut changes = Vec::with_capacity(batch.len());
            let (fence, mut stale) = (self.fence.load(Ordering::Relaxed), Vec::new());
            for Submission { worker, token, epoch, change, .. } in batch {
                if epoch < fence {
                    stale.push((worker, token));
                    continue;
                }
                routes.push((worker, token));
                changes.push(change);
            }
            let wall = wall_ms();
            // A peer whose clock runs far ahead is not believed; its records are refused one by one.
            let _ = committer.note_stamp(Stamp(self.heard.load(Ordering::Relaxed)), wall);
            let results = committer.commit(wall, changes);
            self.note(&committer);
            committer.take_damaged().into_iter().for_each(|key| rot.note(key));
            committer.take_contested().into_iter().for_each(|key| contested.note(key));
            self.answer(&routes, results);
            let refused = stale.iter().map(|_| Err(Refused::StaleEpoch { epoch: fence })).collect();
            self.answer(&stale, refused);
        }
    }

    /// From now on nothing is committed that was asked for under an earlier epoch. To be called on the committer's thread,
    /// between batches, so that whoever hears of it finds everything committed that ever will be.
    pub(super) fn fence(&self, epoch: u64) {
        self.fence.fetch_max(epoch, Ordering::Relaxed);
    }

    fn note(&self, committer: &Committer) {
        self.actor.store(committer.actor().0, Ordering::Release);
        self.committed.store(committer.committed_stamp().0, Ordering::Release);
        self.last.store(committer.last_stamp().0, Ordering::Relaxed);
    }

    fn answer(&self, routes: &[(usize, u64)], results: Vec<Result<Outcome, Refused>>) {
        if routes.is_empty() {
            return;
        }
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

    fn take(&self) -> Option<(Vec<Submission>, Vec<Errand>)> {
        let mut waiting = self.lock();
        loop {
            let held_back = self.held_back(&waiting);
            let has_clients = !waiting.clients.submissions.is_empty();
            let mut batch = Vec::with_capacity((waiting.clients.submissions.len() + RIDERS_MAX).min(BATCH_MAX));
            // They go first, as clients' changes may fill a batch, and do so for ever.
            match held_back {
                _ if self.bytes_per_s.is_some() => self.take_at_pace(&mut waiting, &mut batch),
                None => {
                    waiting.background.take(BATCH_MAX / 2, BATCH_BYTES_MAX / 2, &mut batch);
                }
                Some(since) if since >= if has_clients { RIDERS_PERIOD } else { RIDE_WAIT_MAX } => {
                    waiting.background.take(RIDERS_MAX, RIDERS_BYTES_MAX, &mut batch);
                }
                Some(_) => {}
            }
            if !batch.is_empty() {
                waiting.background_taken = Some(now());
            }
            waiting.clients.take(BATCH_MAX - batch.len(), BATCH_BYTES_MAX, &mut batch);
            if !batch.is_empty() || !waiting.errands.is_empty() {
                return Some((batch, std::mem::take(&mut waiting.errands)));
            }
            if waiting.closed {
                return None;
            }
            let rest = match (self.bytes_per_s, waiting.paced_until) {
                (Some(_), Some(until)) => Some(until.saturating_duration_since(now())),
                (Some(_), None) => None,
                (None, _) => held_back.map(|since| RIDE_WAIT_MAX.saturating_sub(since)),
            };
            waiting = match rest.filter(|_| !waiting.background.submissions.is_empty()) {
                None => self.filled.wait(waiting).unwrap_or_else(|poisoned| poisoned.into_inner()),
                Some(rest) => {
                    self.filled.wait_timeout(waiting, rest).unwrap_or_else(|poisoned| poisoned.into_inner()).0
                }
            };
        }
    }

    /// Takes changes in the background at the pace that is set: what comes in a moment, and then nothing for as long as that
    /// should have taken.
    fn take_at_pace(&self, waiting: &mut Waiting, batch: &mut Vec<Submission>) {
        let (Some(pace), now) = (self.bytes_per_s, now()) else { return };
        if waiting.paced_until.is_some_and(|until| until > now) && !waiting.closed {
            return;
        }
        let most = (pace as f64 * PACED_PERIOD.as_secs_f64()) as usize;
        let bytes = waiting.background.take(BATCH_MAX / 2, most.min(BATCH_BYTES_MAX / 2), batch);
        waiting.paced_until = Some(now + Duration::from_secs_f64(bytes as f64 / pace.max(1) as f64));
    }

    /// Where changes in the background have to give way: how long ago some were taken.
    fn held_back(&self, waiting: &Waiting) -> Option<Duration> {
        let busy = !waiting.closed && self.foreground.is_busy();
        busy.then(|| waiting.background_taken.map_or(RIDE_WAIT_MAX, |taken| now().duration_since(taken)))
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
        Change::Write { edit, .. } | Change::HintWrite { edit, .. } => {
            edit.content().map_or(0, |content| content.value.len())
        }
        Change::Merge { record: held, .. }
        | Change::Restore { record: held, .. }
        | Change::Accept { record: held, .. }
        | Change::Hint { record: held, .. } => record(held),
        Change::Cover { other, .. } => record(other),
        Change::HintDelivered { record: held, .. } => record(held),
        Change::Fact { bytes, .. } => bytes.len(),
        Change::MayForget { keys } | Change::Forget { keys } => {
            keys.iter().map(|(key, context)| 64 + key.as_bytes().len() + 16 * context.entries().len()).sum()
        }
        Change::Disclaim { partitions } => 2 * partitions.len(),
        Change::Yield { .. }
        | Change::LetGo { .. }
        | Change::Prepare { .. }
        | Change::RaiseFloor { .. }
        | Change::Recount { .. }
        | Change::KeepContexts => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::Forest;
    use crate::record::{Content, Edit, Key, Seen};
    use crate::storage::sim_files::SimFiles;
    use crate::storage::{Feed, HintLedger, LogStore, LogStoreOptions, MemoryBase, MemoryStore, Store};
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    fn write(token: u64) -> (u64, Change) {
        let key = Key::new(format!("k{token}").into_bytes()).unwrap();
        let content = Some(Content::plain(b"v".to_vec()));
        (token, Change::Write { key, edit: Edit::write(Seen::Everything, content), until: Stamp::MAX })
    }

    /// Lets a committer of `store` work on the queue.
    fn run(queue: &Arc<CommitQueue>, store: Arc<dyn Store>) {
        let (feed, hints) = (Arc::new(Feed::new(1, 10, 1 << 20)), Arc::new(HintLedger::new(1 << 20)));
        let clock = Clock::starting_after(store.last_stamp());
        let committer = Committer::new(store, Arc::new(Forest::new()), feed, hints, Arc::default(), Actor(1), clock);
        let running = queue.clone();
        std::thread::spawn(move || running.run(committer, &Rot::default(), &Contested::default()));
    }

    /// A queue with changes in it, 100 in the background with tokens from 100, and a client's with token 0.
    fn filled(
        foreground: Foreground,
        bytes_per_s: Option<u64>,
    ) -> (Arc<CommitQueue>, UnboundedReceiver<Vec<Completion>>) {
        let queue = Arc::new(CommitQueue::beside(Arc::new(foreground), bytes_per_s));
        let (sender, answers) = unbounded_channel();
        let worker = queue.register(sender);
        assert!(queue.submit(worker, Class::Background, ANY_EPOCH, (100..200).map(write)).is_empty());
        assert!(queue.submit(worker, Class::Foreground, ANY_EPOCH, [write(0)]).is_empty());
        run(&queue, Arc::new(MemoryStore::new()));
        (queue, answers)
    }

    /// The tokens of each commit, until all have been answered.
    fn commits(answers: &mut UnboundedReceiver<Vec<Completion>>) -> Vec<Vec<u64>> {
        let mut commits: Vec<Vec<u64>> = Vec::new();
        while commits.iter().map(Vec::len).sum::<usize>() < 101 {
            let answered = answers.blocking_recv().expect("the committer runs");
            commits.push(answered.into_iter().map(|(token, _)| token).collect());
        }
        commits
    }

    #[test]
    fn while_clients_are_served_the_background_rides_along_a_few_at_a_time_and_still_ends() {
        let foreground = Foreground::remembering(Duration::from_secs(3_600));
        foreground.note();
        let (queue, mut answers) = filled(foreground, None);
        let commits = commits(&mut answers);
        assert!(commits[0].contains(&0), "the client's does not wait: {commits:?}");
        assert_eq!(commits[0].len(), 1 + RIDERS_MAX, "it takes some along: {commits:?}");
        assert!(commits[1..].iter().all(|commit| commit.len() <= RIDERS_MAX), "{commits:?}");
        queue.close();
    }

    #[test]
    fn a_stamp_made_for_a_commit_that_failed_does_not_count_as_committed() {
        let files = SimFiles::new(1);
        let opened = LogStore::open(Arc::new(files.clone()), Arc::new(MemoryBase::new()), LogStoreOptions::default());
        let queue = Arc::<CommitQueue>::default();
        let (sender, mut answers) = unbounded_channel();
        let worker = queue.register(sender);
        run(&queue, Arc::new(opened.expect("an empty folder").0));
        let mut commit = |token| {
            assert!(queue.submit(worker, Class::Foreground, ANY_EPOCH, [write(token)]).is_empty());
            answers.blocking_recv().expect("the committer runs").remove(0).1
        };
        assert!(commit(0).is_ok());
        let (committed, last) = (queue.committed(), queue.last_stamp());
        assert_eq!(committed, (last, Actor(1)));
        files.fail_syncs(Some(std::io::ErrorKind::Other));
        assert!(matches!(commit(1), Err(Refused::Fenced(_))));
        assert!(queue.last_stamp() > last);
        assert_eq!(queue.committed(), committed);
        queue.close();
    }

    #[test]
    fn a_pace_that_is_set_goes_for_the_background_with_and_without_clients_and_for_nobody_else() {
        for foreground in [Foreground::default(), Foreground::remembering(Duration::from_secs(3_600))] {
            foreground.note();
            // Of changes of 257 bytes ten in a hundredth of a second.
            let began = now();
            let (queue, mut answers) = filled(foreground, Some(257 * 1_000));
            let commits = commits(&mut answers);
            assert!(commits[0].contains(&0), "the client's does not wait: {commits:?}");
            let background = commits.iter().map(|commit| commit.iter().filter(|token| **token >= 100).count());
            assert!(background.into_iter().all(|some| some <= 10), "{commits:?}");
            assert!(now().duration_since(began) >= Duration::from_millis(90), "nine times what ten take");
            queue.close();
        }
    }

    #[test]
    fn without_clients_nothing_holds_the_background_back() {
        let (queue, mut answers) = filled(Foreground::default(), None);
        assert_eq!(commits(&mut answers).len(), 1);
        queue.close();
    }
}
