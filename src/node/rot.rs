//! What was found rotten on this node, and its repair from the other owners.
//!
//! Whoever meets a row that cannot be read notes its key: a read, a write that would have to merge with it, the scan at
//! start, the scrub. Until it is replaced nothing is said of the key from here, so it is never taken for absent.

use super::foreground::Class;
use super::outside::{now, wall_ms};
use super::queue::ANY_EPOCH;
use super::worker::Worker;
use crate::coordinator::{Restore, Restored};
use crate::placement::Partition;
use crate::record::Key;
use crate::storage::{Change, Found, Outcome};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How often it is looked whether there is something to repair. Nobody waits for it: the other owners answer.
const LOOK_PERIOD: Duration = Duration::from_millis(200);
/// Rows repaired at a time.
const AT_A_TIME: usize = 32;
/// How long to wait before a row is tried again that the other owners could not, or not yet, make good.
const RETRY_PERIOD: Duration = Duration::from_secs(5);
/// Keys remembered. What is beyond is met again, and noted then.
const NOTED_MAX: usize = 65_536;

/// What one scrub found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Run {
    /// When it began, in milliseconds since 1970.
    pub at_ms: u64,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// Rows checked.
    pub rows: u64,
    /// Rows that cannot be read.
    pub damaged: u64,
    /// Hints that cannot be read.
    pub hints_damaged: u64,
    /// Partitions whose digests were not those of their rows.
    pub wrong_digests: u64,
    /// Spans in which nothing could be read.
    pub unreadable: u64,
}

impl Run {
    fn add(&mut self, found: &Found) {
        self.rows += found.rows;
        self.damaged += found.damaged.len() as u64;
        self.hints_damaged += found.hints_damaged.len() as u64;
        self.wrong_digests += found.wrong.len() as u64;
        self.unreadable += found.unreadable;
    }
}

/// For people.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct RotStatus {
    /// Scrubs finished since the start.
    pub runs: u64,
    /// Whether one is under way.
    pub running: bool,
    /// The last one finished, or the one under way before that.
    pub last: Option<Run>,
    /// Rows found damaged since the start, by whomever.
    pub damaged: u64,
    /// Those made good since.
    pub repaired: u64,
    /// Those still to be made good.
    pub waiting: u64,
    /// Bases that rotted and were replaced since the start.
    pub bases_replaced: u64,
}

#[derive(Default)]
struct Book {
    /// When each is to be tried next.
    noted: BTreeMap<Key, Instant>,
    wrong: BTreeSet<Partition>,
    run: Option<(Instant, Run)>,
    last: Option<Run>,
    runs: u64,
    damaged: u64,
    repaired: u64,
    /// Noted since it was last said, and the first of them.
    fresh: (u64, Option<Key>),
    bases_replaced: u64,
}

/// The rot of a node.
#[derive(Default)]
pub struct Rot {
    book: Mutex<Book>,
}

impl Rot {
    /// The row of `key` was found to be damaged.
    pub fn note(&self, key: Key) {
        let mut book = self.book();
        if book.noted.len() >= NOTED_MAX || book.noted.contains_key(&key) {
            return;
        }
        book.damaged += 1;
        book.fresh.0 += 1;
        book.fresh.1.get_or_insert_with(|| key.clone());
        book.noted.insert(key, now());
    }

    /// How it stands.
    pub fn status(&self) -> RotStatus {
        let book = self.book();
        RotStatus {
            runs: book.runs,
            running: book.run.is_some(),
            last: book.last.or(book.run.map(|(_, run)| run)),
            damaged: book.damaged,
            repaired: book.repaired,
            waiting: book.noted.len() as u64,
            bases_replaced: book.bases_replaced,
        }
    }

    /// A scrub begins.
    pub(super) fn begin_run(&self) {
        self.book().run = Some((now(), Run { at_ms: wall_ms(), ..Run::default() }));
    }

    /// What the scrub under way has found since it last said so.
    pub(super) fn found(&self, found: Found) {
        {
            let mut book = self.book();
            if let Some((_, run)) = &mut book.run {
                run.add(&found);
            }
            book.wrong.extend(found.wrong);
        }
        found.damaged.into_iter().for_each(|key| self.note(key));
    }

    /// The scrub is through.
    pub(super) fn end_run(&self) -> Option<Run> {
        let mut book = self.book();
        let (began, run) = book.run.take()?;
        book.runs += 1;
        book.last = Some(Run { ms: now().duration_since(began).as_millis() as u64, ..run });
        book.last
    }

    /// Another base is there instead of one that rotted.
    pub(super) fn base_replaced(&self) {
        self.book().bases_replaced += 1;
    }

    fn take_fresh(&self) -> (u64, Option<Key>) {
        std::mem::take(&mut self.book().fresh)
    }

    fn take_wrong(&self) -> BTreeSet<Partition> {
        std::mem::take(&mut self.book().wrong)
    }

    /// Keys whose turn it is; each comes again later unless it is done with.
    fn due(&self) -> Vec<Key> {
        let (mut book, now) = (self.book(), now());
        let due = book.noted.iter().filter(|(_, at)| **at <= now).take(AT_A_TIME);
        let due: Vec<Key> = due.map(|(key, _)| key.clone()).collect();
        for key in &due {
            book.noted.insert(key.clone(), now + RETRY_PERIOD);
        }
        due
    }

    fn done(&self, key: &Key, is_repaired: bool) {
        let mut book = self.book();
        book.noted.remove(key);
        book.repaired += u64::from(is_repaired);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Makes good what was noted, a few rows at a time.
pub(super) fn repair(worker: &Rc<Worker>) {
    let worker = worker.clone();
    actix_web::rt::spawn(async move {
        let node = worker.node.clone();
        while !node.is_stopping() {
            if let (count @ 1.., Some(first)) = node.rot.take_fresh() {
                let first = first.as_bytes().escape_ascii().to_string();
                let text = format!("{count} rows cannot be read and are asked of the other owners, {first:?} first");
                node.events.error("rot", text);
            }
            for partition in node.rot.take_wrong() {
                let text = format!("the digests of partition {} are not those of its rows", partition.index());
                node.events.error("rot", format!("{text}: counted anew"));
                worker.commit([(Change::Recount { partition }, Box::new(|_| ()) as _)]);
            }
            let (due, mut repaired) = (node.rot.due(), 0);
            let restoring = due.into_iter().map(|key| actix_web::rt::spawn(restore(worker.clone(), key)));
            for restoring in restoring.collect::<Vec<_>>() {
                repaired += usize::from(restoring.await.unwrap_or(false));
            }
            if repaired > 0 {
                node.events.info("rot", format!("{repaired} damaged rows were replaced by what the other owners hold"));
            }
            if repaired < AT_A_TIME {
                tokio::time::sleep(LOOK_PERIOD).await;
            }
        }
    });
}

/// Replaces the row of one key, if it is still damaged and enough of the other owners answer; whether it did.
async fn restore(worker: Rc<Worker>, key: Key) -> bool {
    let (ring, partition) = (worker.node.ring(), Partition::of(key.position()));
    // What they say before they are asked for the row goes for what they answer.
    let mut said = worker.said_of(&ring, partition);
    let gather = Restore::new(key.clone(), &ring, worker.node.me(&ring));
    let gathered = worker.run(gather, ring.clone(), worker.node.settings.timeout).await;
    let Some(Some(Restored { record, from })) = gathered else { return false };
    said.retain(|(owner, _)| from.contains(owner));
    // Queued before it, so that no moment claims what was lost.
    worker.void_seen(&ring, partition, &said);
    match worker.committed(Class::Foreground, ANY_EPOCH, Change::Restore { key: key.clone(), record }).await {
        Some(Ok(outcome)) => {
            let is_repaired = matches!(outcome, Outcome::Merged { applied: true, .. });
            worker.node.rot.done(&key, is_repaired);
            is_repaired
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_row_is_noted_once_and_waits_until_it_is_done_with() {
        let (rot, key) = (Rot::default(), Key::new("k").unwrap());
        rot.note(key.clone());
        rot.note(key.clone());
        assert_eq!((rot.status().damaged, rot.status().waiting), (1, 1));
        assert_eq!(rot.due(), std::slice::from_ref(&key));
        assert_eq!(rot.due(), []);
        rot.done(&key, true);
        assert_eq!((rot.status().repaired, rot.status().waiting), (1, 0));
        assert_eq!((rot.take_fresh(), rot.take_fresh().0), ((1, Some(key)), 0));
    }
}
