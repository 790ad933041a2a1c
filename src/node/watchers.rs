//! Those who watch this node: what waits for each of them, bounded, and how it ends.
//!
//! What is told is shared by all who are told it; a watcher's own is its place in line, a few hundred bytes. One that does not
//! take what it is told is cut off, and told why and where to go on. One that reads is given time: much may come at once.

use super::outside::now;
use crate::protocol::{FeedPlace, News};
use crate::watching::{Positions, Telling, Tidings};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Most that waits for one watcher, and about how many bytes: past it one that does not read is cut off, and past twice as
/// much anyone.
const WAITING_MAX: usize = 8_192;
const WAITING_BYTES_MAX: usize = 4 << 20;
/// How recently a watcher must have taken something to count as one that reads.
const READS: Duration = Duration::from_secs(1);
/// How long one may read nothing of what it missed before it is cut off.
const STALLED: Duration = Duration::from_secs(60);
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
    /// Where it stands in the feed of its member.
    place: Option<FeedPlace>,
    /// How it is written down, without values and with them; worked out once for all who are told.
    pub lines: [OnceLock<Bytes>; 2],
}

impl Told {
    fn new(id: String, what: What, place: Option<FeedPlace>) -> Arc<Told> {
        Arc::new(Told { id, what, place, lines: Default::default() })
    }

    pub(super) fn bytes(&self) -> usize {
        let news = match &self.what {
            What::Tidings(Tidings::News { news, .. }) => news.bytes(),
            _ => 64,
        };
        news + self.id.len() + 64
    }
}

impl From<Telling> for Arc<Told> {
    fn from(telling: Telling) -> Arc<Told> {
        Told::new(telling.id, What::Tidings(telling.tidings), telling.place)
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
    pub(super) come: Instant,
}

/// One of those who may watch at a time.
struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Watches {
    /// Watches keys that begin with `prefix`, from now on, or from where a watcher was. `None` where `most` do already.
    pub fn join(&self, prefix: Vec<u8>, values: bool, since: Option<Positions>, most: usize) -> Option<Watch> {
        let is_full = self.count.fetch_add(1, Ordering::Relaxed) >= most;
        let seat = Seat(self.count.clone());
        if is_full {
            return None;
        }
        let line = Mutex::new(Line { seat: Some(seat), ..Line::default() });
        let came_with = since.as_ref().map(Positions::to_word);
        let watcher = Arc::new(Watcher { prefix, values, came_with, ahead: OnceLock::new(), line });
        let joining = Joining { watcher: watcher.clone(), since, come: now() };
        self.joining.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(joining);
        self.rung.notify_one();
        Some(Watch { watcher })
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
}

impl Watch {
    /// Whether values are wanted.
    pub fn wants_values(&self) -> bool {
        self.watcher.values
    }

    /// The word it came with.
    pub fn came_with(&self) -> Option<&str> {
        self.watcher.came_with.as_deref()
    }

    /// What it is given next. Nothing comes behind the end.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Next> {
        let mut line = self.watcher.line();
        if let Some(told) = line.waiting.pop_front() {
            line.bytes -= told.bytes();
            (line.last, line.taken_at) = (Some(told.clone()), Some(now()));
            return Poll::Ready(Next::Told(told));
        }
        if let Some(why) = line.end {
            let last = line.last.as_ref().map(|last| last.id.as_str());
            return Poll::Ready(Next::End(why, last.or(self.came_with()).map(str::to_owned)));
        }
        line.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Ready once something waits for it, or it is known that it missed nothing more.
    pub fn poll_missed(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut line = self.watcher.line();
        if !line.waiting.is_empty() || line.later.is_none() || line.end.is_some() {
            return Poll::Ready(());
        }
        line.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// The latest word it may go on from, where that has moved on although nothing was told.
    pub fn latest(&self, watches: &Watches) -> Option<String> {
        // In this order: what is told up to there waits for everybody before it is said.
        let latest = watches.latest().clone();
        let line = self.watcher.line();
        let has_all = line.waiting.is_empty() && line.later.is_none() && line.last.is_some() && line.end.is_none();
        (has_all && self.watcher.ahead.get().is_none() && !latest.is_empty()).then_some(latest)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut line = self.watcher.line();
        line.is_gone = true;
        line.clear();
    }
}

/// One watcher, as those have it who tell.
pub(super) struct Watcher {
    pub(super) prefix: Vec<u8>,
    pub(super) values: bool,
    came_with: Option<String>,
    /// Where it came from, in feeds that are not told as far here.
    ahead: OnceLock<Positions>,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Arc<Told>>,
    /// What is told while it is still being told what it missed.
    later: Option<VecDeque<Arc<Told>>>,
    bytes: usize,
    later_bytes: usize,
    last: Option<Arc<Told>>,
    /// When it took something, or began.
    taken_at: Option<Instant>,
    end: Option<&'static str>,
    is_gone: bool,
    seat: Option<Seat>,
    waker: Option<Waker>,
}

impl Watcher {
    /// Told that nothing is missed from here on, and that something is to come first where it `missed` some. Where it was
    /// `ahead` of what is told here, it is told nothing that it knows.
    pub(super) fn begin(&self, id: String, missed: bool, ahead: Option<Positions>) {
        let told = Told::new(id, What::Ready, None);
        ahead.into_iter().for_each(|ahead| drop(self.ahead.set(ahead)));
        let mut line = self.line();
        line.taken_at = Some(now());
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
        line.bytes += std::mem::take(&mut line.later_bytes);
        line.wake();
    }

    /// Told what is told to all.
    pub(super) fn tell(&self, told: &Arc<Told>) {
        if self.wants(told) && !self.knows(told) {
            let mut line = self.line();
            let is_later = line.later.is_some();
            line.push(told.clone(), is_later);
        }
    }

    /// Told nothing more but what waits for it already. What was told meanwhile lies behind what it still misses: it goes on
    /// before both.
    pub(super) fn end(&self, why: &'static str) {
        let mut line = self.line();
        line.end.get_or_insert(why);
        (line.later, line.later_bytes) = (None, 0);
        line.wake();
    }

    /// Cuts off one that has long not read what it missed; whether it was one.
    pub(super) fn end_stalled(&self) -> bool {
        let mut line = self.line();
        let is_stalled = line.taken_at.is_some_and(|at| now().duration_since(at) > STALLED);
        if is_stalled {
            line.cut();
        }
        is_stalled
    }

    /// Whether it is to be told nothing more.
    pub(super) fn has_ended(&self) -> bool {
        let line = self.line();
        line.is_gone || line.end.is_some()
    }

    /// Whether so much waits for it that what it missed should wait too.
    pub(super) fn is_crowded(&self) -> bool {
        let line = self.line();
        line.is_crowded()
    }

    /// Whether so much waits for it, and it reads, that what is told at once should wait a while.
    pub(super) fn is_reading_much(&self) -> bool {
        let line = self.line();
        line.is_crowded() && line.reads()
    }

    /// Whether it knew that when it came.
    fn knows(&self, told: &Told) -> bool {
        match (self.ahead.get(), &told.what, told.place) {
            (Some(ahead), What::Tidings(Tidings::News { member, .. }), Some(place)) => ahead.has(member, place),
            _ => false,
        }
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
        let reads = self.reads();
        let (queue, held) = match &mut self.later {
            Some(later) if is_later => (later, &mut self.later_bytes),
            _ => (&mut self.waiting, &mut self.bytes),
        };
        let (count, bytes) = (queue.len(), *held + told.bytes());
        let is_past = |times| count >= times * WAITING_MAX || bytes > times * WAITING_BYTES_MAX && count > 0;
        if is_past(2) || is_past(1) && !reads {
            return self.cut();
        }
        *held = bytes;
        queue.push_back(told);
        self.wake();
    }

    fn is_crowded(&self) -> bool {
        self.waiting.len() > WAITING_MAX / 4 || self.bytes > WAITING_BYTES_MAX / 4
    }

    fn reads(&self) -> bool {
        self.taken_at.is_some_and(|at| now().duration_since(at) < READS)
    }

    /// Ends it: all of it goes, so that what it holds on to goes too, and its seat; it is told where to go on.
    fn cut(&mut self) {
        self.clear();
        self.end = Some(SLOW);
        self.wake();
    }

    fn clear(&mut self) {
        self.waiting.clear();
        (self.later, self.bytes, self.later_bytes, self.seat) = (None, 0, 0, None);
    }

    fn wake(&mut self) {
        self.waker.take().into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{FeedOf, ToldEvent};
    use crate::watching::{Position, Why};

    fn told(id: usize) -> Arc<Told> {
        Telling { id: id.to_string(), tidings: Tidings::Gap { member: None, why: Why::Left }, place: None }.into()
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
        watcher.begin("0".into(), true, None);
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
        watcher.begin("0".into(), false, None);
        watcher.tell(&told(1));
        assert_eq!([next(&watch), next(&watch)], [Some("0".into()), Some("1".into())]);
        (2..WAITING_MAX + 3).for_each(|id| watcher.tell(&told(id)));
        assert!(!watcher.has_ended(), "it has just read");
        watcher.line().taken_at = now().checked_sub(READS);
        watcher.tell(&told(WAITING_MAX + 3));
        assert_eq!(watches.count(), 0, "its seat is free, whether it reads the end or not");
        assert_eq!(next(&watch), Some("too much Some(\"1\")".into()));
        assert!(watcher.has_ended() && watcher.line().bytes == 0);
        drop(watch);
        assert_eq!(watches.count(), 0);
    }

    #[test]
    fn who_reads_is_cut_off_too_when_far_too_much_waits_and_who_stalls_on_what_it_missed_is() {
        let watches = Watches::default();
        let watches_of = |_| watches.join(vec![], false, None, 2).unwrap();
        let watch = [(); 2].map(watches_of);
        let watchers: Vec<_> = watches.take_joining().into_iter().map(|joining| joining.watcher).collect();
        watchers.iter().for_each(|watcher| watcher.begin("0".into(), true, None));
        (1..2 * WAITING_MAX).for_each(|id| watchers[0].tell_missed(told(id)));
        (1..2 * WAITING_MAX).for_each(|id| watchers[0].tell(&told(id)));
        assert!(watchers[0].is_crowded() && !watchers[0].has_ended(), "what comes later does not count as what waits");
        watchers[0].tell_missed(told(0));
        assert!(watchers[0].has_ended());
        assert!(!watchers[1].end_stalled());
        watchers[1].line().taken_at = now().checked_sub(STALLED + READS);
        assert!(watchers[1].end_stalled() && next(&watch[1]) == Some("too much None".into()));
    }

    #[test]
    fn a_stop_while_something_is_missed_says_to_go_on_before_it() {
        let (watches, place) = (Watches::default(), FeedPlace { incarnation: 3, sequence: 4 });
        let since = Positions::new(FeedOf::Changes, 5, [("a", Position::At(place))]);
        let word = since.to_word();
        let watch = watches.join(vec![], false, Some(since.clone()), 9).unwrap();
        let gone = watches.join(vec![], false, Some(since), 9).unwrap();
        let joining = watches.take_joining();
        joining[0].watcher.begin(word.clone(), true, None);
        joining[0].watcher.tell_missed(told(1));
        joining[0].watcher.tell(&told(9));
        joining.iter().for_each(|joining| joining.watcher.end("it stops"));
        joining[0].watcher.tell(&told(10));
        assert_eq!([next(&watch), next(&watch)], [Some(word.clone()), Some("1".into())]);
        assert_eq!(next(&watch), Some("it stops Some(\"1\")".into()), "nothing of what is behind what it missed");
        assert_eq!(next(&gone), Some(format!("it stops Some({word:?})")), "it keeps the word it came with");
    }

    #[test]
    fn who_is_ahead_of_what_is_told_here_is_not_told_it_again() {
        let (watches, place) = (Watches::default(), |sequence| FeedPlace { incarnation: 3, sequence });
        let watch = watches.join(vec![], false, None, 9).unwrap();
        let watcher = watches.take_joining().remove(0).watcher;
        let ahead = Positions::new(FeedOf::Events, 5, [("a", Position::At(place(4)))]);
        watcher.begin("0".into(), false, Some(ahead));
        let event = ToldEvent { at_ms: 1, level: "info".into(), kind: "k".into(), text: "t".into() };
        let news = |member: &str, place: FeedPlace| -> Arc<Told> {
            let tidings = Tidings::News { member: member.into(), news: News::Event(Arc::new(event.clone())) };
            Telling { id: format!("{member}{}", place.sequence), tidings, place: Some(place) }.into()
        };
        let other = FeedPlace { incarnation: 9, sequence: 1 };
        for told in [news("a", place(4)), news("b", place(1)), news("a", place(5)), news("a", other)] {
            watcher.tell(&told);
        }
        let rest = ["0", "b1", "a5", "a1"].map(|id| Some(id.to_owned()));
        assert_eq!([next(&watch), next(&watch), next(&watch), next(&watch)], rest);
    }
}
