//! Those who watch this node: what waits for each of them, bounded, and how it ends.
//!
//! What is told is shared by all who are told it; a watcher's own is its place in line, a few hundred bytes. One that does not
//! take what it is told is cut off, and told why and where to go on.

use crate::protocol::News;
use crate::watching::{Positions, Telling, Tidings};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Context, Poll, Waker};
use tokio::sync::Notify;

/// Most that waits for one watcher, and about how many bytes: past it the watcher is cut off.
const WAITING_MAX: usize = 8_192;
const WAITING_BYTES_MAX: usize = 4 << 20;
/// Why a watcher is cut off that did not read.
const SLOW: &str = "too much waited to be read: go on from this id, and read faster";

/// What is told.
pub enum What {
    /// From here on nothing is missed.
    Ready,
    /// What members told, or that something may be missing.
    Tidings(Tidings),
}

/// What is told, and the word to go on from.
pub struct Told {
    /// The word.
    pub id: String,
    /// What.
    pub what: What,
    /// How it is written down, without values and with them; worked out once for all who are told.
    pub lines: [OnceLock<Bytes>; 2],
}

impl Told {
    fn new(id: String, what: What) -> Arc<Told> {
        Arc::new(Told { id, what, lines: Default::default() })
    }

    fn bytes(&self) -> usize {
        let news = match &self.what {
            What::Tidings(Tidings::News { news, .. }) => news.bytes(),
            _ => 64,
        };
        news + self.id.len() + 64
    }
}

impl From<Telling> for Arc<Told> {
    fn from(telling: Telling) -> Arc<Told> {
        Told::new(telling.id, What::Tidings(telling.tidings))
    }
}

/// What a watcher is given next.
pub enum Next {
    /// This.
    Told(Arc<Told>),
    /// Nothing more: why, and the word to go on from, if there is one.
    End(&'static str, Option<String>),
}

/// All who watch one thing.
#[derive(Default)]
pub struct Watches {
    joining: Mutex<Vec<Joining>>,
    pub(super) rung: Notify,
    count: Arc<AtomicUsize>,
    /// A word that says of whoever was given all that waited for him: he knows everything up to here.
    latest: Mutex<String>,
}

/// One who has come and was told nothing yet.
pub(super) struct Joining {
    pub(super) watcher: Arc<Watcher>,
    pub(super) since: Option<Positions>,
}

impl Watches {
    /// Watches keys that begin with `prefix`, from now on, or from where a watcher was. `None` where `most` do already.
    pub fn join(&self, prefix: Vec<u8>, values: bool, since: Option<Positions>, most: usize) -> Option<Watch> {
        let count = self.count.clone();
        if count.fetch_add(1, Ordering::Relaxed) >= most {
            count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let watcher = Arc::new(Watcher { prefix, values, line: Mutex::default() });
        let joining = Joining { watcher: watcher.clone(), since };
        self.joining.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(joining);
        self.rung.notify_one();
        Some(Watch { watcher, count })
    }

    /// How many watch.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn take_joining(&self) -> Vec<Joining> {
        std::mem::take(&mut *self.joining.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    pub(super) fn note_latest(&self, word: String) {
        *self.latest() = word;
    }

    fn latest(&self) -> MutexGuard<'_, String> {
        self.latest.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// One watcher, as its client has it. It ends when this is dropped.
pub struct Watch {
    watcher: Arc<Watcher>,
    count: Arc<AtomicUsize>,
}

impl Watch {
    /// Whether values are wanted.
    pub fn wants_values(&self) -> bool {
        self.watcher.values
    }

    /// What it is given next. Nothing comes behind the end.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Next> {
        let mut line = self.watcher.line();
        if let Some(told) = line.waiting.pop_front() {
            line.bytes -= told.bytes();
            line.last = Some(told.clone());
            return Poll::Ready(Next::Told(told));
        }
        if let Some(why) = line.end {
            return Poll::Ready(Next::End(why, line.last.as_ref().map(|last| last.id.clone())));
        }
        line.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// The latest word it may go on from, where that has moved on although nothing was told.
    pub fn latest(&self, watches: &Watches) -> Option<String> {
        // In this order: what is told up to there waits for everybody before it is said.
        let latest = watches.latest().clone();
        let line = self.watcher.line();
        let has_all = line.waiting.is_empty() && line.later.is_none() && line.last.is_some();
        (has_all && !latest.is_empty()).then_some(latest)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut line = self.watcher.line();
        line.is_gone = true;
        line.waiting.clear();
        line.later = None;
        drop(line);
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One watcher, as those have it who tell.
pub(super) struct Watcher {
    pub(super) prefix: Vec<u8>,
    pub(super) values: bool,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Arc<Told>>,
    /// What is told while it is still being told what it missed.
    later: Option<VecDeque<Arc<Told>>>,
    bytes: usize,
    last: Option<Arc<Told>>,
    end: Option<&'static str>,
    is_gone: bool,
    waker: Option<Waker>,
}

impl Watcher {
    /// Told that nothing is missed from here on, and that something is to come first where it `missed` some.
    pub(super) fn begin(&self, id: String, missed: bool) {
        let told = Told::new(id, What::Ready);
        let mut line = self.line();
        line.push(told, false);
        line.later = missed.then(VecDeque::new);
    }

    /// Told what it missed.
    pub(super) fn tell_missed(&self, told: Arc<Told>) {
        if self.wants(&told) {
            self.line().push(told, false);
        }
    }

    /// It was told all that it missed: what was told meanwhile comes next.
    pub(super) fn end_missed(&self) {
        let mut line = self.line();
        let later = line.later.take().unwrap_or_default();
        line.waiting.extend(later);
        line.wake();
    }

    /// Told what is told to all.
    pub(super) fn tell(&self, told: &Arc<Told>) {
        if self.wants(told) {
            let mut line = self.line();
            let is_later = line.later.is_some();
            line.push(told.clone(), is_later);
        }
    }

    /// Told nothing more.
    pub(super) fn end(&self, why: &'static str) {
        let mut line = self.line();
        line.end.get_or_insert(why);
        line.wake();
    }

    /// Whether it is to be told nothing more.
    pub(super) fn has_ended(&self) -> bool {
        let line = self.line();
        line.is_gone || line.end.is_some()
    }

    /// Whether so much waits for it that what it missed should wait too.
    pub(super) fn is_crowded(&self) -> bool {
        let line = self.line();
        line.waiting.len() > WAITING_MAX / 4 || line.bytes > WAITING_BYTES_MAX / 4
    }

    fn wants(&self, told: &Told) -> bool {
        match &told.what {
            What::Tidings(Tidings::News { news: News::Change(change), .. }) => {
                change.key.as_bytes().starts_with(&self.prefix)
            }
            _ => true,
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Line {
    fn push(&mut self, told: Arc<Told>, is_later: bool) {
        if self.is_gone || self.end.is_some() {
            return;
        }
        let bytes = told.bytes();
        let count = self.waiting.len() + self.later.as_ref().map_or(0, VecDeque::len);
        if count >= WAITING_MAX || self.bytes + bytes > WAITING_BYTES_MAX && count > 0 {
            // All of it goes, so that what it holds on to goes too; it is told where to go on.
            self.waiting.clear();
            (self.later, self.bytes, self.end) = (None, 0, Some(SLOW));
        } else {
            self.bytes += bytes;
            match &mut self.later {
                Some(later) if is_later => later.push_back(told),
                _ => self.waiting.push_back(told),
            }
        }
        self.wake();
    }

    fn wake(&mut self) {
        self.waker.take().into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watching::Why;

    fn told(id: usize) -> Arc<Told> {
        Telling { id: id.to_string(), tidings: Tidings::Gap { member: None, why: Why::Left } }.into()
    }

    fn next(watch: &Watch) -> Option<String> {
        match watch.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Next::Told(told)) => Some(told.id.clone()),
            Poll::Ready(Next::End(why, id)) => Some(format!("{} {id:?}", &why[..8])),
            Poll::Pending => None,
        }
    }

    #[test]
    fn what_was_missed_comes_before_what_is_told_meanwhile() {
        let watches = Watches::default();
        let watch = watches.join(vec![], false, None, 9).unwrap();
        let watcher = watches.take_joining().remove(0).watcher;
        watches.note_latest("7".into());
        watcher.begin("0".into(), true);
        watcher.tell(&told(3));
        watcher.tell_missed(told(1));
        assert_eq!([next(&watch), next(&watch), next(&watch)], [Some("0".into()), Some("1".into()), None]);
        assert_eq!(watch.latest(&watches), None);
        watcher.end_missed();
        watcher.tell(&told(4));
        assert_eq!([next(&watch), next(&watch), next(&watch)], [Some("3".into()), Some("4".into()), None]);
        assert_eq!(watch.latest(&watches), Some("7".into()));
    }

    #[test]
    fn who_does_not_read_is_cut_off_and_told_where_to_go_on() {
        let watches = Watches::default();
        let watch = watches.join(vec![], false, None, 1).unwrap();
        assert!(watches.join(vec![], false, None, 1).is_none(), "one more than there may be");
        let watcher = watches.take_joining().remove(0).watcher;
        watcher.begin("0".into(), false);
        watcher.tell(&told(1));
        assert_eq!([next(&watch), next(&watch)], [Some("0".into()), Some("1".into())]);
        (2..WAITING_MAX + 3).for_each(|id| watcher.tell(&told(id)));
        assert_eq!(next(&watch), Some("too much Some(\"1\")".into()));
        assert!(watcher.has_ended() && watcher.line().bytes == 0);
        drop(watch);
        assert_eq!(watches.count(), 0);
    }
}
