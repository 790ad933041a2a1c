//! What a node does about a base that rotted: it goes on over an empty one, at once counts for nothing, merges in what can
//! still be read of the old one, and is filled from its peers with the rest.
//!
//! The engine's tables carry checksums of their blocks, so rot makes rows unreadable and never wrong. But it cannot take a
//! block out of a table, and a table that cannot be read whole is never compacted again: only a new base helps. A node
//! without peers keeps its old one, as nobody could give back what is lost.

use super::foreground::Class;
use super::outside::now;
use super::queue::{ANY_EPOCH, Completion};
use super::shared::Shared;
use crate::placement::Partition;
use crate::storage::{Base, BaseError, Bases, Change, LogStore, Salvage};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// How often a base is gone through that fails on reading and whose files are sound.
const SUSPICION_PERIOD: Duration = Duration::from_secs(10);
/// How long to wait before changes are handed in again that there was no room for.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// How often a wait looks whether the node is stopping.
const STOP_PERIOD: Duration = Duration::from_millis(100);

/// The mending of one node's base, on its housekeeping thread.
pub(super) struct Mending {
    bases: Bases,
    salvages: Vec<(u64, Option<Salvage>)>,
    committer: Option<Hand>,
    /// When the files were last read because a read failed.
    last_look: Option<Instant>,
    /// Whether digests wait for what is brought over, so that sessions do not bring the same.
    digests_wait: bool,
}

impl Mending {
    /// With the bases that were found rotten at the start.
    pub(super) fn new(bases: Bases, salvages: Vec<(u64, Option<Salvage>)>) -> Mending {
        Mending { bases, salvages, committer: None, last_look: None, digests_wait: false }
    }

    /// Brings over a little more of what is left; whether there may be more.
    pub(super) fn step(&mut self, node: &Shared) -> bool {
        let Some((number, salvage)) = self.salvages.last_mut() else { return false };
        if let Some(changes) = salvage.as_mut().and_then(Salvage::step) {
            self.committer.get_or_insert_with(|| Hand::of(node)).commit(node, changes);
            return true;
        }
        let (rows, unreadable) = salvage.as_ref().map_or((0, 0), Salvage::tally);
        let number = *number;
        // Closed before it is moved.
        self.salvages.pop();
        let aside = match self.bases.set_aside(number) {
            Ok(aside) => format!("is kept as {}", aside.display()),
            Err(error) => format!("cannot be set aside: {error}"),
        };
        let text =
            format!("{rows} rows were brought over from the damaged base, {unreadable} places of it cannot be read");
        node.events.warn("rot", format!("{text}; it {aside}"));
        if self.salvages.is_empty() && std::mem::take(&mut self.digests_wait) {
            Partition::all().for_each(|partition| node.forest.mark_built(partition));
        }
        true
    }

    /// Looks whether the base is as it was written, if a read of it failed or `must`; goes on over another if not.
    /// Whether it does.
    pub(super) fn look(&mut self, node: &Shared, store: &Arc<LogStore>, must: bool, pace: &mut dyn FnMut()) -> bool {
        let is_recent = self.last_look.is_some_and(|last| now().duration_since(last) < SUSPICION_PERIOD);
        if !must && (is_recent || !store.take_suspicion()) {
            return false;
        }
        self.last_look = Some(now());
        let files = match store.rotten_files(pace) {
            Ok(files) => files,
            Err(error) => {
                node.events.error("rot", format!("the base cannot be checked: {error}"));
                return false;
            }
        };
        let Some(first) = files.first() else { return false };
        let found = format!("{} files of the base are damaged, {first} first", files.len());
        if node.ring().layout().members().len() == 1 {
            node.events.error("rot", format!("{found}: nobody has what is lost, so it stays as it is"));
            return false;
        }
        node.events.error("rot", format!("{found}: going on over an empty one, to be filled again"));
        match self.replace(node, store) {
            Ok(true) => true,
            Ok(false) => false,
            Err(error) => {
                node.events.error("rot", format!("no other base can be made: {error}"));
                // It is to be looked at again, whether or not anybody reads there.
                store.suspect();
                false
            }
        }
    }

    fn replace(&mut self, node: &Shared, store: &Arc<LogStore>) -> Result<bool, BaseError> {
        let (tell, told) = channel();
        let (bases, store, forest) = (self.bases.clone(), store.clone(), node.forest.clone());
        let (completeness, seen) = (node.completeness.clone(), node.seen.clone());
        let make = move |mark| Ok(Arc::new(bases.make(mark)?) as Arc<dyn Base>);
        node.queue.between_batches(Box::new(move |committer| {
            // Before anybody could miss what is no longer there: now, or after another start.
            seen.forget(committer.actor());
            let lost = completeness.lose(committer, Change::KeepContexts);
            let lost = lost.map_err(|why| BaseError(format!("that something is lost cannot be kept: {why}").into()));
            let replaced = lost.and_then(|()| committer.replace_base(&store, make));
            if replaced.is_ok() {
                Partition::all().for_each(|partition| forest.unbuild(partition));
                // Until now a session may have found digests of rows that are no longer there.
                completeness.count_loss();
                seen.take_back();
            }
            let _ = tell.send(replaced);
        }));
        let old = loop {
            match told.recv_timeout(STOP_PERIOD) {
                Ok(old) => break old?,
                Err(RecvTimeoutError::Timeout) if !node.is_stopping() => {}
                Err(_) => return Ok(false),
            }
        };
        node.rot.base_replaced();
        self.digests_wait = true;
        if let Some(number) = self.bases.replaced() {
            self.salvages.push((number, Some(Salvage::new(old))));
        }
        Ok(true)
    }
}

/// A place at the committer's queue that waits for what it handed in.
struct Hand {
    number: usize,
    done: UnboundedReceiver<Vec<Completion>>,
}

impl Hand {
    fn of(node: &Shared) -> Hand {
        let (completions, done) = unbounded_channel();
        Hand { number: node.queue.register(completions), done }
    }

    /// Has changes committed. What is refused is left to the peers.
    fn commit(&mut self, node: &Shared, changes: Vec<Change>) {
        let mut left: Vec<(u64, Change)> = (0..).zip(changes).collect();
        while !left.is_empty() && !node.is_stopping() {
            let turned_away = node.queue.submit(self.number, Class::Foreground, ANY_EPOCH, left.clone());
            let mut awaited = left.len() - turned_away.len();
            left.retain(|(token, _)| turned_away.contains(token));
            while awaited > 0 {
                let Some(done) = self.done.blocking_recv() else { return };
                awaited -= done.len().min(awaited);
            }
            if !left.is_empty() {
                std::thread::sleep(BUSY_PAUSE);
            }
        }
    }
}
