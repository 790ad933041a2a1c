//! Following: what this node tells those who follow it, and how it follows all members while somebody watches here.

use super::foreground::Class;
use super::outside::{now, wall_ms};
use super::shared::Shared;
use super::watchers::{Joining, Told, Watcher, Watches};
use super::worker::Worker;
use crate::membership::State;
use crate::operation::Failure;
use crate::placement::Ring;
use crate::protocol::{Answer, FeedOf, FeedPage, Follow, Request};
use crate::storage::Feed;
use crate::watching::{Ask, Hub};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// The longest that an answer waits for something to tell; half of `--timeout`, if that is less.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How long values are kept after somebody wanted them, in milliseconds.
const VALUES_KEPT_MS: u64 = 30_000;
/// How long the members are followed after the last watcher has gone: one that comes back by long polls is told at once.
const LINGER: Duration = Duration::from_secs(30);
/// How soon it is noticed that members came or went, or that the node stops.
const TICK: Duration = Duration::from_millis(100);
/// How long a filter stays as wide as it was.
const NARROWED_AFTER: Duration = Duration::from_secs(5);
/// How many are told what they missed at a time, of those who read it. The others wait.
const CATCHING_UP_MAX: usize = 16;
/// How much is told all at a time, in entries and about in bytes, and how long the rest of much waits for those who read.
const SLICE_ENTRIES: usize = 512;
const SLICE_BYTES: usize = 512 << 10;
const SLICE_REST: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(2);
/// Why all watchers are let go of.
const STOPPING: &str = "the node stops: go on from this id on another node";

impl Shared {
    /// The feed of this node.
    fn feed_of(&self, of: FeedOf) -> &Feed {
        match of {
            FeedOf::Changes => &self.feed,
            FeedOf::Events => &self.events.feed,
        }
    }

    /// Who watches it.
    pub fn watches_of(&self, of: FeedOf) -> &Watches {
        match of {
            FeedOf::Changes => &self.watches,
            FeedOf::Events => &self.event_watches,
        }
    }
}

/// Tells what lies behind a place of this node's feed; waits for it, where that is asked for.
pub(super) fn answer(node: &Arc<Shared>, follow: Follow, told: impl FnOnce(Answer) + 'static) {
    if follow.values {
        node.feed.keep_values_until(wall_ms() + VALUES_KEPT_MS);
    }
    let wait = Duration::from_millis(follow.wait_ms.into()).min(node.settings.timeout);
    let Some(place) = follow.after.filter(|_| !wait.is_zero()) else {
        return told(Answer::Followed(node.feed_of(follow.of).page(&follow)));
    };
    let node = node.clone();
    actix_web::rt::spawn(async move {
        let feed = node.feed_of(follow.of);
        let behind = poll_fn(|context| match feed.poll_behind(place, context) {
            Poll::Pending if !node.is_stopping() => Poll::Pending,
            _ => Poll::Ready(()),
        });
        let _ = tokio::time::timeout(wait, behind).await;
        told(Answer::Followed(feed.page(&follow)));
    });
}

/// Follows all members as long as somebody watches here.
pub(super) fn keep(worker: &Rc<Worker>, of: FeedOf) {
    let worker = worker.clone();
    actix_web::rt::spawn(async move {
        let node = worker.node.clone();
        let watches = node.watches_of(of);
        while !node.is_stopping() {
            let _ = tokio::time::timeout(TICK, watches.rung.notified()).await;
            let joining = watches.take_joining();
            if !joining.is_empty() {
                Following::begin(&worker, of, joining).run().await;
            }
        }
        // Whoever comes now would not be told that the node stops.
        let until = now() + node.settings.timeout;
        while now() < until {
            watches.take_joining().iter().for_each(|joining| joining.watcher.end(STOPPING));
            tokio::time::sleep(TICK).await;
        }
    });
}

/// What came of a question: its call, the page, and whether it is known that the member is down.
type Heard = (u64, Option<FeedPage>, bool);

/// How the members are followed for all who watch here.
struct Following {
    worker: Rc<Worker>,
    of: FeedOf,
    hub: Hub,
    ring: Arc<Ring>,
    reach: Rc<Reach>,
    joining: Vec<Joining>,
    watchers: Vec<Arc<Watcher>>,
    /// What the hub has told and the watchers were not, and since when there is some.
    untold: VecDeque<Arc<Told>>,
    untold_since: Instant,
    wanted_since: Instant,
    places: Arc<Semaphore>,
}

/// How members are asked, those too that are none any more.
struct Reach {
    worker: Rc<Worker>,
    urls: std::cell::RefCell<BTreeMap<String, String>>,
    /// Since when it goes on, by both clocks: the wall's may be set while it does.
    begun: (u64, Instant),
}

fn names(ring: &Ring) -> impl Iterator<Item = &str> {
    ring.layout().members().iter().map(|member| member.name.as_str())
}

impl Following {
    fn begin(worker: &Rc<Worker>, of: FeedOf, joining: Vec<Joining>) -> Following {
        let ring = worker.node.ring();
        let reach = Reach { worker: worker.clone(), urls: Default::default(), begun: (wall_ms(), now()) };
        let loss_ms = worker.node.settings.timeout.as_millis() as u64;
        let mut following = Following {
            worker: worker.clone(),
            of,
            hub: Hub::living(of, names(&ring), loss_ms, reach.now_ms()),
            ring,
            reach: Rc::new(reach),
            joining,
            watchers: Vec::new(),
            untold: VecDeque::new(),
            untold_since: now(),
            wanted_since: now(),
            places: Arc::new(Semaphore::new(CATCHING_UP_MAX)),
        };
        following.reach.note(&following.ring);
        following.want(true);
        following
    }

    async fn run(mut self) {
        let node = self.worker.node.clone();
        let watches = node.watches_of(self.of);
        let (tell, mut told) = mpsc::unbounded_channel();
        let (mut busy, mut said) = (now(), now());
        while !node.is_stopping() && now().duration_since(busy) < LINGER {
            self.deliver();
            if now().duration_since(said) > TICK && self.untold.is_empty() {
                said = now();
                watches.note_latest(self.hub.positions().to_word());
            }
            self.note_changes(watches);
            if !self.joining.is_empty() || !self.watchers.is_empty() {
                busy = now();
            }
            let mut rest = SLICE_REST;
            if self.untold.is_empty() {
                let (asks, next) = self.hub.asks(self.reach.now_ms());
                asks.into_iter().for_each(|ask| self.reach.ask(ask, tell.clone()));
                rest = next.map_or(TICK, |next| Duration::from_millis(next.saturating_sub(self.reach.now_ms())));
            }
            tokio::select! {
                heard = told.recv() => self.hear(heard),
                () = watches.rung.notified() => {}
                () = tokio::time::sleep(rest.min(TICK)) => {}
            }
            while let Ok(heard) = told.try_recv() {
                self.hear(Some(heard));
            }
        }
        let joining = self.joining.iter().map(|joining| &joining.watcher);
        if node.is_stopping() {
            joining.chain(&self.watchers).for_each(|watcher| watcher.end(STOPPING));
        }
        watches.note_latest(String::new());
    }

    fn hear(&mut self, heard: Option<Heard>) {
        if let Some((call, page, is_down)) = heard {
            self.hub.heard(call, page, is_down, self.reach.now_ms());
        }
    }

    /// Tells all what is to be told: much of it in slices, so that those who read can take it.
    fn deliver(&mut self) {
        let is_left = !self.untold.is_empty();
        if !is_left {
            self.untold_since = now();
        }
        self.untold.extend(self.hub.take_told().into_iter().map(Arc::<Told>::from));
        let (mut bytes, mut count) = (0, 0);
        let is_much = is_left || self.untold.len() > SLICE_ENTRIES;
        let may_wait = is_much && now().duration_since(self.untold_since) < PATIENCE;
        if may_wait && self.watchers.iter().any(|watcher| watcher.is_reading_much()) {
            return;
        }
        while count < SLICE_ENTRIES
            && bytes < SLICE_BYTES
            && let Some(told) = self.untold.pop_front()
        {
            (count, bytes) = (count + 1, bytes + told.bytes());
            self.watchers.iter().for_each(|watcher| watcher.tell(&told));
        }
    }

    /// Members, watchers, and what they want are others than before.
    fn note_changes(&mut self, watches: &Watches) {
        let ring = self.worker.node.ring();
        if !Arc::ptr_eq(&ring, &self.ring) {
            self.hub.note_members(names(&ring));
            self.reach.note(&ring);
            self.ring = ring;
        }
        let come = watches.take_joining();
        let is_new = !come.is_empty();
        self.joining.extend(come);
        self.joining.retain(|joining| !joining.watcher.has_ended());
        self.watchers.retain(|watcher| !watcher.has_ended());
        self.want(is_new);
        if self.hub.is_settled() && self.untold.is_empty() && !self.joining.is_empty() {
            watches.note_latest(self.hub.positions().to_word());
            let joining = std::mem::take(&mut self.joining);
            self.joining = joining.into_iter().filter_map(|joining| self.admit(joining)).collect();
        }
    }

    /// Asks for what is wanted now: for more at once, for less after a while.
    fn want(&mut self, is_new: bool) {
        if !is_new && now().duration_since(self.wanted_since) < NARROWED_AFTER {
            return;
        }
        self.wanted_since = now();
        let all = || self.joining.iter().map(|joining| &joining.watcher).chain(&self.watchers);
        self.hub.want(all().map(|watcher| watcher.prefix.clone()).collect(), all().any(|watcher| watcher.values));
    }

    /// Lets one in; gives it back where it has to wait.
    fn admit(&mut self, joining: Joining) -> Option<Joining> {
        let Some(since) = &joining.since else {
            let watcher = joining.watcher;
            watcher.begin(self.hub.positions().to_word(), false, None);
            self.hub.tell_lost().into_iter().for_each(|telling| watcher.tell(&telling.into()));
            self.watchers.push(watcher);
            return None;
        };
        // Were it let in while it knows more than is told here, its ids would lead back behind that.
        let may_wait = now().duration_since(joining.come) < self.worker.node.settings.timeout;
        if may_wait && self.hub.is_behind(since) {
            return Some(joining);
        }
        // Nor does what is told meanwhile wait for one that is not yet being told what it missed.
        let Ok(place) = self.places.clone().try_acquire_owned() else { return Some(joining) };
        let hub = Hub::catching_up(&self.hub, since, self.reach.now_ms());
        let watcher = joining.watcher;
        watcher.begin(since.to_word(), true, since.ahead_of(&self.hub.positions()));
        actix_web::rt::spawn(catch_up(hub, self.reach.clone(), watcher.clone(), self.places.clone(), place));
        self.watchers.push(watcher);
        None
    }
}

/// Tells a watcher what it missed, as fast as it takes it. While it does not take it, its place is another's.
async fn catch_up(
    mut hub: Hub,
    reach: Rc<Reach>,
    watcher: Arc<Watcher>,
    places: Arc<Semaphore>,
    place: OwnedSemaphorePermit,
) {
    let node = reach.worker.node.clone();
    let (tell, mut told) = mpsc::unbounded_channel();
    let (mut untold, mut place) = (VecDeque::new(), Some(place));
    loop {
        untold.extend(hub.take_told().into_iter().map(Arc::<Told>::from));
        while !watcher.is_crowded()
            && let Some(told) = untold.pop_front()
        {
            watcher.tell_missed(told);
        }
        if watcher.has_ended() {
            break;
        }
        if node.is_stopping() {
            watcher.end(STOPPING);
            break;
        }
        if untold.is_empty() && hub.is_done() {
            watcher.end_missed();
            break;
        }
        if watcher.is_crowded() {
            if place.take().is_some() {
                node.watches_of(hub.of()).rung.notify_one();
            }
            if watcher.end_stalled() {
                break;
            }
            tokio::time::sleep(TICK / 4).await;
            continue;
        }
        if place.is_none() {
            place = tokio::time::timeout(TICK, places.clone().acquire_owned()).await.ok().and_then(Result::ok);
            continue;
        }
        let (asks, next) = hub.asks(reach.now_ms());
        asks.into_iter().for_each(|ask| reach.ask(ask, tell.clone()));
        let rest = next.map_or(TICK, |next| Duration::from_millis(next.saturating_sub(reach.now_ms())));
        if let Ok(Some((call, page, is_down))) = tokio::time::timeout(rest.min(TICK), told.recv()).await {
            hub.heard(call, page, is_down, reach.now_ms());
        }
    }
    drop(place);
    // Others may wait for it.
    node.watches_of(hub.of()).rung.notify_one();
}

impl Reach {
    fn now_ms(&self) -> u64 {
        self.begun.0 + now().duration_since(self.begun.1).as_millis() as u64
    }

    fn note(&self, ring: &Ring) {
        let node = &self.worker.node;
        let members = ring.layout().members().iter();
        self.urls
            .borrow_mut()
            .extend(members.map(|member| (member.name.clone(), node.address_of(member).into_owned())));
    }

    /// Asks one member, and tells what came of it.
    fn ask(self: &Rc<Self>, ask: Ask, tell: mpsc::UnboundedSender<Heard>) {
        let (reach, Ask { call, member, mut follow, waits }) = (self.clone(), ask);
        actix_web::rt::spawn(async move {
            let node = &reach.worker.node;
            if waits {
                follow.wait_ms = WAIT_MAX.min(node.settings.timeout / 2).as_millis() as u32;
            }
            let page = match reach.answered(&member, Request::Follow(follow)).await {
                Some(Ok(Answer::Followed(page))) => Some(page),
                _ => None,
            };
            let is_down = node.view().peer(&member).is_some_and(|peer| peer.state != State::Alive);
            // Who no longer listens has gone.
            let _ = tell.send((call, page, is_down));
        });
    }

    async fn answered(&self, member: &str, request: Request) -> Option<Result<Answer, Failure>> {
        let (worker, ring, until) = (&self.worker, self.worker.node.ring(), now() + self.worker.node.settings.timeout);
        let (tell, told) = oneshot::channel();
        let answered = move |result: Result<Answer, Failure>| {
            let _ = tell.send(result);
        };
        if member == worker.node.name {
            worker.answer(request, Class::Foreground, ring.epoch(), Box::new(move |answer| answered(Ok(answer))));
        } else if let Some(to) = ring.member_by_name(member) {
            worker.send(&ring, to, request, Class::Foreground, until, Box::new(answered));
        } else {
            let url = self.urls.borrow().get(member).cloned()?;
            worker.link_to(&url).send(request, Class::Foreground, ring.epoch(), until, Box::new(answered));
        }
        told.await.ok()
    }
}
