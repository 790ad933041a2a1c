//! What was made here, in order: the source of watches. A bounded ring; who falls behind it learns where it begins.

use crate::protocol::{FeedEntry, FeedPage, FeedPlace, Follow, News};
use crate::record::Stamp;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Longest value that is kept for those who follow, in bytes: the ring must not become a second store.
pub const FEED_VALUE_BYTES_MAX: usize = 16 << 10;
/// Most entries in a page, and about how many bytes: some milliseconds of a busy node.
const PAGE_ENTRIES_MAX: usize = 1_024;
const PAGE_BYTES_MAX: usize = 1 << 20;
/// Most entries looked at for a page: bounds how long the committer may be kept from publishing, to some 100 µs.
const PAGE_LOOKS_MAX: usize = 8_192;
/// Most who wait at a time. One more wakes them all, and they look again.
const WAKERS_MAX: usize = 4_096;

/// The ring. Written by one or several, read by anyone; each holds a short lock.
#[derive(Debug)]
pub struct Feed {
    ring: Mutex<Ring>,
    incarnation: u64,
    entries_max: usize,
    bytes_max: usize,
    /// Until when somebody wants values, in milliseconds since 1970.
    values_until_ms: AtomicU64,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<FeedEntry>,
    bytes: usize,
    /// Everything behind this number, up to `latest`, is in the ring.
    complete_after: u64,
    latest: u64,
    as_of: Stamp,
    wakers: Vec<Waker>,
}

impl Feed {
    /// A feed that remembers so many entries, and about so many bytes of them. `incarnation` must be random, and new with every
    /// start: what was told under the same name before would be taken for this feed's.
    pub fn new(incarnation: u64, entries_max: usize, bytes_max: usize) -> Feed {
        Feed {
            ring: Mutex::default(),
            incarnation: incarnation.max(1),
            entries_max: entries_max.max(1),
            bytes_max,
            values_until_ms: AtomicU64::new(0),
        }
    }

    /// Adds what is told. The oldest go when the ring is full. `as_of` is from the committer: every write that it has made
    /// up to then is published, with this at the latest.
    pub fn publish(&self, news: impl IntoIterator<Item = News>, as_of: Option<Stamp>) {
        let woken = {
            let mut ring = self.lock();
            ring.as_of = ring.as_of.max(as_of.unwrap_or_default());
            let before = ring.latest;
            for news in news {
                ring.latest += 1;
                ring.bytes += news.bytes();
                let sequence = ring.latest;
                ring.entries.push_back(FeedEntry { sequence, news });
                while ring.entries.len() > self.entries_max || ring.bytes > self.bytes_max && ring.entries.len() > 1 {
                    let Some(oldest) = ring.entries.pop_front() else { break };
                    ring.bytes -= oldest.news.bytes();
                    ring.complete_after = oldest.sequence;
                }
            }
            if ring.latest == before { Vec::new() } else { std::mem::take(&mut ring.wakers) }
        };
        woken.into_iter().for_each(Waker::wake);
    }

    /// The next page of what is asked for. Where the place is not in this feed, all that still is.
    pub fn page(&self, follow: &Follow) -> FeedPage {
        let ring = self.lock();
        let is_here = |place: &FeedPlace| {
            place.incarnation == self.incarnation && (ring.complete_after..=ring.latest).contains(&place.sequence)
        };
        let from = match follow.after {
            None => ring.latest,
            Some(place) if is_here(&place) => place.sequence,
            Some(_) => ring.complete_after,
        };
        let start = ring.entries.partition_point(|entry| entry.sequence <= from);
        let (mut entries, mut bytes, mut through, mut as_of) = (Vec::new(), 0, from, Stamp::default());
        for entry in ring.entries.range(start..).take(PAGE_LOOKS_MAX) {
            let is_wanted = match &entry.news {
                News::Change(change) => follow.wants(&change.key),
                News::Event(_) => true,
            };
            if is_wanted {
                bytes += entry.news.bytes();
                if entries.len() == PAGE_ENTRIES_MAX || bytes > PAGE_BYTES_MAX && !entries.is_empty() {
                    break;
                }
                entries.push(entry.clone());
            }
            through = entry.sequence;
            if let News::Change(change) = &entry.news
                && !change.agreed
            {
                as_of = change.id.stamp;
            }
        }
        let more = through < ring.latest;
        let as_of = if more { as_of } else { ring.as_of };
        FeedPage { incarnation: self.incarnation, from, through, more, as_of, entries }
    }

    /// Ready once there is something behind `place`, or it is not in this feed; wakes whoever waits for that.
    pub fn poll_behind(&self, place: FeedPlace, context: &mut Context<'_>) -> Poll<()> {
        let mut ring = self.lock();
        if place.incarnation != self.incarnation || place.sequence != ring.latest {
            return Poll::Ready(());
        }
        if ring.wakers.len() >= WAKERS_MAX {
            std::mem::take(&mut ring.wakers).into_iter().for_each(Waker::wake);
        }
        ring.wakers.push(context.waker().clone());
        Poll::Pending
    }

    /// Wakes all who wait, whether there is anything for them or not.
    pub fn wake(&self) {
        let woken = std::mem::take(&mut self.lock().wakers);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Values are wanted until then, in milliseconds since 1970.
    pub fn keep_values_until(&self, until_ms: u64) {
        self.values_until_ms.fetch_max(until_ms, Ordering::Relaxed);
    }

    /// Whether values are wanted at `now_ms`, in milliseconds since 1970.
    pub fn keeps_values(&self, now_ms: u64) -> bool {
        self.values_until_ms.load(Ordering::Relaxed) > now_ms
    }

    /// The end of it.
    pub fn latest(&self) -> FeedPlace {
        FeedPlace { incarnation: self.incarnation, sequence: self.lock().latest }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{ChangeKind, FeedOf, ToldChange};
    use crate::record::{Actor, Dot, Key, Tag};
    use bytes::Bytes;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    fn change(name: &str, ms: u64) -> News {
        News::Change(Arc::new(ToldChange {
            key: Key::new(name.as_bytes().to_vec()).unwrap(),
            kind: ChangeKind::Put,
            id: Dot { stamp: Stamp::from_ms(ms), actor: Actor(1) },
            agreed: false,
            carried: false,
            after: Stamp::default(),
            tag: Tag(1),
            siblings: 1,
            expires_ms: None,
            value_bytes: 0,
            has_value: false,
            value: Bytes::new(),
        }))
    }

    fn follow(after: Option<(u64, u64)>, prefix: &str) -> Follow {
        let after = after.map(|(incarnation, sequence)| FeedPlace { incarnation, sequence });
        Follow { of: FeedOf::Changes, after, prefixes: vec![prefix.into()], values: false, wait_ms: 0 }
    }

    /// From, through, whether there is more, and the numbers.
    fn shown(page: FeedPage) -> (u64, u64, bool, Vec<u64>) {
        (page.from, page.through, page.more, page.entries.iter().map(|entry| entry.sequence).collect())
    }

    #[test]
    fn a_reader_goes_on_from_where_it_was_and_is_told_what_it_asked_for() {
        let feed = Feed::new(7, 100, 1 << 20);
        assert_eq!(shown(feed.page(&follow(None, ""))), (0, 0, false, vec![]));
        feed.publish([change("a", 1), change("b", 2), change("ab", 3)], Some(Stamp::from_ms(5)));
        assert_eq!(shown(feed.page(&follow(Some((7, 1)), ""))), (1, 3, false, vec![2, 3]));
        assert_eq!(shown(feed.page(&follow(Some((7, 0)), "a"))), (0, 3, false, vec![1, 3]));
        assert_eq!(shown(feed.page(&follow(None, ""))), (3, 3, false, vec![]));
        assert_eq!(feed.page(&follow(None, "")).as_of, Stamp::from_ms(5));
    }

    #[test]
    fn who_fell_behind_or_comes_from_another_history_is_told_where_it_begins() {
        let feed = Feed::new(7, 3, 1 << 20);
        feed.publish((0..5).map(|ms| change("a", ms)), None);
        assert_eq!(shown(feed.page(&follow(Some((7, 1)), ""))), (2, 5, false, vec![3, 4, 5]));
        assert_eq!(shown(feed.page(&follow(Some((7, 9)), ""))), (2, 5, false, vec![3, 4, 5]));
        assert_eq!(shown(feed.page(&follow(Some((6, 4)), ""))), (2, 5, false, vec![3, 4, 5]));
        assert_eq!(shown(feed.page(&follow(Some((7, 2)), ""))).0, 2);
    }

    #[test]
    fn the_ring_is_bounded_in_bytes_and_a_page_in_entries() {
        let feed = Feed::new(7, 10_000, 3_000 * change("a", 1).bytes());
        feed.publish((0..5_000).map(|ms| change("a", ms)), Some(Stamp::from_ms(9_000)));
        let page = feed.page(&follow(Some((7, 0)), ""));
        assert_eq!((page.from, page.entries.len(), page.more), (2_000, PAGE_ENTRIES_MAX, true));
        assert_eq!(page.as_of, Stamp::from_ms(page.through - 1), "what comes behind it is later");
    }

    #[test]
    fn whoever_waits_is_woken_by_the_next_entry() {
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (feed, count) = (Feed::new(7, 10, 1 << 20), Arc::new(Count(AtomicUsize::new(0))));
        let waker = count.clone().into();
        let mut context = Context::from_waker(&waker);
        let end = feed.latest();
        assert_eq!(feed.poll_behind(end, &mut context), Poll::Pending);
        feed.publish([], Some(Stamp::from_ms(1)));
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        feed.publish([change("a", 1)], None);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(feed.poll_behind(end, &mut context), Poll::Ready(()));
    }
}
