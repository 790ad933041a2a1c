//! `Hub`: what all members tell, in one order.
//!
//! ```text
//!  feeds of the members        queues, each in its feed's order          one order
//!   A  a1 a2 | a3        ─►     a1  a2                            ─►      a1 b1 a2 ...
//!   B  b1 | b2                  b1   follows a write of A: waits until A was asked
//!   C  no answer                     once more, and what that brought was told
//! ```
//!
//! Changes of one key come in the order in which their makers saw them. A write is told by its maker before any other node can
//! have a copy of it, so what a change follows stands in its maker's feed when the change comes: whoever is asked after that
//! brings it. A member that says nothing holds that up for so long at most, and then counts as lost, which is told;
//! what it tells when it is back begins where it is then.
//!
//! The same machine tells a watcher who comes back what was told meanwhile: it begins where that one was, and ends where the
//! living one is. No clock, no network: told pages and failures, it says what to ask.

use super::positions::{Position, Positions};
use super::remembered::Remembered;
use super::source::{Call, Item, QUEUE_HARD_MAX, Source, Standing};
use crate::protocol::{FeedOf, FeedPage, FeedPlace, Follow, News, PREFIXES_MAX};
use crate::record::{Key, Stamp};
use std::collections::{BTreeMap, BTreeSet};

/// Entries of one feed that wait to be told before no more are asked for.
const QUEUE_MAX: usize = 2_048;
/// How long a feed is left alone between two questions, in milliseconds: what is said meanwhile comes in one page.
const PACE_MS: u64 = 4;
/// How often events of nodes are asked for, which nobody waits for by the millisecond.
const EVENTS_PERIOD_MS: u64 = 250;
/// How soon a feed that did not answer is asked again, and one that is lost.
const AGAIN_MS: u64 = 100;
const LOST_AGAIN_MS: u64 = 1_000;

/// A question for one member.
#[derive(Clone, PartialEq, Debug)]
pub struct Ask {
    /// Which: the answer carries it.
    pub call: u64,
    /// Whom.
    pub member: Box<str>,
    /// What is asked; how long it may wait is the shell's to say, where it `waits`.
    pub follow: Follow,
    /// Whether the answer may wait for something to tell.
    pub waits: bool,
}

/// What is told next: what, and where a watcher is once it knows.
#[derive(Clone, PartialEq, Debug)]
pub struct Telling {
    /// The word to go on from.
    pub id: String,
    /// What.
    pub tidings: Tidings,
}

/// What is told.
#[derive(Clone, PartialEq, Debug)]
pub enum Tidings {
    /// What a member told.
    News {
        /// Which member.
        member: Box<str>,
        /// What.
        news: News,
    },
    /// Something may be missing: whoever needs all of it reads the keys again.
    Gap {
        /// Of which member; nothing, of one that is none any more.
        member: Option<Box<str>>,
        /// Why.
        why: Why,
    },
}

/// Why something may be missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// The member does not answer: nothing from it is told until it does.
    Silent,
    /// It answers again: what it made meanwhile is not told.
    Back,
    /// It was restarted: what it made before, and had not told, is not told.
    Restarted,
    /// More was made there than it remembers.
    Forgotten,
    /// It is no member any more, and what it had not told before is not told.
    Left,
}

/// The machine.
#[derive(Debug)]
pub struct Hub {
    of: FeedOf,
    /// How long a member may say nothing, in milliseconds.
    loss_ms: u64,
    sources: Vec<Source>,
    /// What waits, by key: in the order of the writes.
    queued: BTreeMap<Key, BTreeSet<(Stamp, u64)>>,
    told: Vec<Telling>,
    remembered: Remembered,
    came: u64,
    calls: u64,
    prefixes: Vec<Vec<u8>>,
    values: bool,
    /// Counts how often the filter has become wider.
    generation: u64,
    is_catching_up: bool,
    now_ms: u64,
}

impl Hub {
    /// One that begins at the present end of these members' feeds.
    pub fn living<'a>(of: FeedOf, members: impl IntoIterator<Item = &'a str>, loss_ms: u64, now_ms: u64) -> Hub {
        let sources = members.into_iter().map(|member| Source::new(member, Standing::Beginning(None))).collect();
        Hub::with(of, sources, loss_ms, now_ms, false)
    }

    /// One that tells a watcher who was at `from` what the `living` one has told since.
    pub fn catching_up(living: &Hub, from: &Positions, now_ms: u64) -> Hub {
        let mut hub = Hub::with(living.of, Vec::new(), living.loss_ms, from.at_ms(), true);
        (hub.prefixes, hub.values, hub.now_ms) = (living.prefixes.clone(), living.values, now_ms);
        let members = || living.sources.iter().filter(|source| source.told.is_some());
        if from.has_others_than(living.sources.iter().map(|source| &*source.member)) {
            let id = from.to_word();
            hub.told.push(Telling { id, tidings: Tidings::Gap { member: None, why: Why::Left } });
        }
        for (at, there) in members().enumerate() {
            let was = from.of_member(&there.member);
            let mut source = Source::new(&there.member, Standing::Complete);
            source.told = was;
            source.end = match there.told {
                Some(Position::At(place)) => Some(place),
                _ => None,
            };
            let gap = match (was, source.end) {
                (_, None) => Some(Why::Silent),
                (Some(Position::Lost), Some(_)) => Some(Why::Back),
                (Some(Position::At(was)), Some(end))
                    if was.incarnation == end.incarnation && was.sequence >= end.sequence =>
                {
                    None
                }
                (Some(Position::At(was)), Some(_)) => {
                    source.standing = Standing::Beginning(Some(was));
                    None
                }
                (None, Some(_)) => {
                    // It became a member since: from its beginning.
                    source.standing = Standing::Beginning(Some(FeedPlace::default()));
                    None
                }
            };
            let position = there.told.unwrap_or(Position::Lost);
            hub.sources.push(source);
            gap.into_iter().for_each(|why| hub.announce(at, position, why));
        }
        hub.release();
        hub
    }

    fn with(of: FeedOf, sources: Vec<Source>, loss_ms: u64, since_ms: u64, is_catching_up: bool) -> Hub {
        Hub {
            of,
            loss_ms,
            sources,
            queued: BTreeMap::new(),
            told: Vec::new(),
            remembered: Remembered::since(Stamp::from_ms(since_ms)),
            came: 0,
            calls: 0,
            prefixes: Vec::new(),
            values: false,
            generation: 0,
            is_catching_up,
            now_ms: since_ms,
        }
    }

    /// What watchers want: keys with these prefixes, and perhaps their values. Where that is more than before, what is on its
    /// way is asked for anew.
    pub fn want(&mut self, mut prefixes: Vec<Vec<u8>>, values: bool) {
        prefixes.sort();
        prefixes.dedup();
        if prefixes.len() > PREFIXES_MAX {
            prefixes = vec![Vec::new()];
        }
        let is_covered = |prefix: &Vec<u8>| self.prefixes.iter().any(|held| prefix.starts_with(held));
        if !prefixes.iter().all(is_covered) || values && !self.values {
            self.generation += 1;
        }
        (self.prefixes, self.values) = (prefixes, values);
    }

    /// Whether it knows where every feed ends, or that it is lost, and nothing that is wanted is passed over from now on.
    pub fn is_settled(&self) -> bool {
        self.sources.iter().all(|source| match source.standing {
            Standing::Beginning(_) => false,
            Standing::Following(_) => source.generation >= self.generation,
            Standing::Lost | Standing::Complete => true,
        })
    }

    /// Whether everything up to its ends is told; of the living one, never.
    pub fn is_done(&self) -> bool {
        let is_done = |source: &Source| source.standing == Standing::Complete && source.queue.is_empty();
        self.is_catching_up && self.sources.iter().all(is_done)
    }

    /// Where it is.
    pub fn positions(&self) -> Positions {
        let told = self.sources.iter().filter_map(|source| Some((&*source.member, source.told?)));
        Positions::new(self.of, self.now_ms, told)
    }

    /// That members say nothing, for those who come while that is so.
    pub fn tell_lost(&self) -> Vec<Telling> {
        let lost = self.sources.iter().filter(|source| source.told == Some(Position::Lost));
        let gap = |source: &Source| Tidings::Gap { member: Some(source.member.clone()), why: Why::Silent };
        lost.map(|source| Telling { id: self.positions().to_word(), tidings: gap(source) }).collect()
    }

    /// These are the members now. A new one is followed from its beginning; one that is none any more to its end.
    pub fn note_members<'a>(&mut self, members: impl IntoIterator<Item = &'a str>) {
        let members: Vec<&str> = members.into_iter().collect();
        for source in &mut self.sources {
            let is_leaving = !members.contains(&&*source.member);
            // What it made to the very end is known once it was asked after this.
            self.came += u64::from(is_leaving && source.left_at.is_none());
            source.left_at = is_leaving.then(|| source.left_at.unwrap_or(self.came));
        }
        for member in members {
            if !self.sources.iter().any(|source| &*source.member == member) {
                self.sources.push(Source::new(member, Standing::Beginning(Some(FeedPlace::default()))));
            }
        }
        self.drop_those_that_left();
    }

    /// What to ask at `now_ms`, in milliseconds since 1970, and when to look again at the latest, if something is put off.
    pub fn asks(&mut self, now_ms: u64) -> (Vec<Ask>, Option<u64>) {
        self.now_ms = now_ms;
        let (mut asks, mut next) = (Vec::new(), None::<u64>);
        for at in 0..self.sources.len() {
            let (at_once, may_wait) = self.wishes(at);
            if !at_once && !may_wait {
                continue;
            }
            if self.sources[at].next_ms > now_ms {
                let due = self.sources[at].next_ms;
                next = Some(next.map_or(due, |next| next.min(due)));
                continue;
            }
            self.calls += 1;
            let source = &mut self.sources[at];
            let after = source.known();
            let call = Call { number: self.calls, came: self.came, generation: self.generation, after };
            *(if at_once { &mut source.at_once } else { &mut source.waiting }) = Some(call);
            let (prefixes, values) = (self.prefixes.clone(), self.values);
            let follow = Follow { of: self.of, after, prefixes, values, wait_ms: 0 };
            asks.push(Ask { call: call.number, member: source.member.clone(), follow, waits: !at_once });
        }
        (asks, next)
    }

    /// Whether a feed is to be asked at once, and whether it may be asked to wait.
    fn wishes(&self, at: usize) -> (bool, bool) {
        let source = &self.sources[at];
        if source.at_once.is_some() {
            return (false, false);
        }
        let is_quiet = self.of == FeedOf::Changes && source.waiting.is_none() && !self.is_catching_up;
        match source.standing {
            Standing::Complete => (false, false),
            Standing::Beginning(_) | Standing::Lost => (true, false),
            Standing::Following(_) => {
                let is_awaited = source.queue.len() < QUEUE_HARD_MAX && self.is_awaited(at);
                let has_room = source.queue.len() < QUEUE_MAX;
                let is_behind = source.more || source.generation < self.generation;
                let asks_anyway = self.is_catching_up || source.left_at.is_some() || self.of == FeedOf::Events;
                (is_awaited || has_room && (is_behind || asks_anyway), has_room && is_quiet)
            }
        }
    }

    /// Whether what others are about to tell waits for this feed.
    fn is_awaited(&self, at: usize) -> bool {
        let heads = self.sources.iter().enumerate().filter(|(other, _)| *other != at);
        let mut heads = heads.filter_map(|(_, other)| other.queue.front());
        heads.any(|head| !self.sources[at].has_shown(head.after(), head.came))
    }

    /// The answer to a question, or that none came; `is_down`, where that is no wonder.
    pub fn heard(&mut self, call: u64, page: Option<FeedPage>, is_down: bool, now_ms: u64) {
        self.now_ms = now_ms;
        let is_it = |held: &Option<Call>| held.is_some_and(|held| held.number == call);
        let Some(at) = self.sources.iter().position(|source| is_it(&source.at_once) || is_it(&source.waiting)) else {
            return;
        };
        let source = &mut self.sources[at];
        let asked = if is_it(&source.at_once) { source.at_once.take() } else { source.waiting.take() };
        let Some(asked) = asked else { return };
        match page {
            Some(page) => {
                source.failing_since = None;
                source.next_ms = now_ms + if self.of == FeedOf::Events { EVENTS_PERIOD_MS } else { PACE_MS };
                self.take_in(at, asked, page);
            }
            None => {
                let since = *source.failing_since.get_or_insert(now_ms);
                let is_over = is_down || now_ms.saturating_sub(since) >= self.loss_ms;
                source.next_ms = now_ms + AGAIN_MS;
                if source.standing == Standing::Lost {
                    source.next_ms = now_ms + LOST_AGAIN_MS;
                } else if is_over {
                    source.next_ms = now_ms + LOST_AGAIN_MS;
                    self.lose(at);
                }
            }
        }
        self.release();
        self.drop_those_that_left();
    }

    /// What is to be told now, in its order.
    pub fn take_told(&mut self) -> Vec<Telling> {
        std::mem::take(&mut self.told)
    }

    /// How many entries it holds.
    pub fn held(&self) -> usize {
        self.sources.iter().map(|source| source.queue.len()).sum::<usize>() + self.told.len()
    }

    fn lose(&mut self, at: usize) {
        self.sources[at].standing = if self.is_catching_up { Standing::Complete } else { Standing::Lost };
        self.announce(at, Position::Lost, Why::Silent);
    }

    fn announce(&mut self, at: usize, position: Position, why: Why) {
        self.came += 1;
        let source = &mut self.sources[at];
        let tidings = Tidings::Gap { member: Some(source.member.clone()), why };
        source.queue.push_back(Item { position, came: self.came, tidings });
    }

    fn take_in(&mut self, at: usize, asked: Call, page: FeedPage) {
        let incarnation = page.incarnation;
        let place = |sequence| FeedPlace { incarnation, sequence };
        let source = &mut self.sources[at];
        let known = match source.standing {
            // What was passed over under a narrower filter would be missing; what was asked of a feed that is gone, or before
            // it was lost, says nothing of this one.
            _ if asked.generation < self.generation => return,
            Standing::Complete => return,
            Standing::Following(known) if asked.after.map(|after| after.incarnation) != Some(known.incarnation) => {
                return;
            }
            Standing::Lost if asked.after.is_some() => return,
            Standing::Lost => {
                source.standing = Standing::Following(place(page.through));
                self.announce(at, Position::At(place(page.through)), Why::Back);
                place(page.through)
            }
            Standing::Beginning(None) => {
                source.told = Some(Position::At(place(page.through)));
                place(page.through)
            }
            Standing::Beginning(Some(known)) | Standing::Following(known) => known,
        };
        let is_another = known.incarnation != incarnation;
        let mut through = known.sequence;
        // A feed that is new here is whole as long as it has its beginning.
        if is_another && (known != FeedPlace::default() || page.from > 0) || !is_another && page.from > through {
            let why = if is_another { Why::Restarted } else { Why::Forgotten };
            self.announce(at, Position::At(place(page.from)), why);
        }
        if is_another || page.from > through {
            through = page.from;
        }
        let source = &mut self.sources[at];
        if is_another {
            source.as_of = Stamp::default();
        }
        let end = source.end.filter(|end| end.incarnation == incarnation).map_or(u64::MAX, |end| end.sequence);
        for entry in page.entries {
            if entry.sequence <= through || entry.sequence > page.through || entry.sequence > end {
                continue;
            }
            through = entry.sequence;
            self.came += 1;
            if let News::Change(change) = &entry.news {
                let place = (change.id.stamp, self.came);
                self.queued.entry(change.key.clone()).or_default().insert(place);
            }
            let source = &mut self.sources[at];
            let tidings = Tidings::News { member: source.member.clone(), news: entry.news };
            source.queue.push_back(Item { position: Position::At(place(through)), came: self.came, tidings });
        }
        through = through.max(page.through.min(end));
        let source = &mut self.sources[at];
        source.standing = Standing::Following(place(through));
        if source.end.is_some_and(|end| end.incarnation != incarnation || through >= end.sequence) {
            source.standing = Standing::Complete;
        }
        (source.more, source.generation) = (page.more, source.generation.max(asked.generation));
        source.as_of = source.as_of.max(page.as_of);
        if !page.more {
            source.fresh = source.fresh.max(asked.came);
        }
        if source.queue.is_empty() {
            source.told = Some(Position::At(place(through)));
        }
    }

    /// Tells what need not wait any longer.
    fn release(&mut self) {
        loop {
            let mut is_stuck = true;
            for at in 0..self.sources.len() {
                while self.may_tell(at) && self.is_first_of_its_key(at) {
                    self.tell(at);
                    is_stuck = false;
                }
            }
            if !is_stuck {
                continue;
            }
            // Stamps of writes that are agreed on are older than their place in the feed, so two feeds may each have behind its
            // head what should go before the other's.
            let heads = (0..self.sources.len()).filter(|at| !self.sources[*at].queue.is_empty());
            if !heads.clone().all(|at| self.may_tell(at)) {
                return;
            }
            match heads.min_by_key(|at| self.sources[*at].queue.front().map(Item::stamp)) {
                Some(at) => self.tell(at),
                None => return,
            }
        }
    }

    /// Whether all has come that the next entry of a feed may follow.
    fn may_tell(&self, at: usize) -> bool {
        let Some(head) = self.sources[at].queue.front() else { return false };
        let mut others = self.sources.iter().enumerate().filter(|(other, _)| *other != at);
        others.all(|(_, other)| other.has_shown(head.after(), head.came))
    }

    fn is_first_of_its_key(&self, at: usize) -> bool {
        let Some(head) = self.sources[at].queue.front() else { return false };
        let Some(change) = head.change() else { return true };
        let first = self.queued.get(&change.key).and_then(BTreeSet::first);
        first.is_none_or(|first| *first == (change.id.stamp, head.came))
    }

    fn tell(&mut self, at: usize) {
        let source = &mut self.sources[at];
        let Some(Item { position, came, tidings }) = source.queue.pop_front() else { return };
        source.told = Some(position);
        if let (true, Standing::Following(place)) = (source.queue.is_empty(), source.standing) {
            // What came behind it was not wanted.
            source.told = Some(Position::At(place));
        }
        if let Tidings::News { news: News::Change(change), .. } = &tidings {
            if let Some(places) = self.queued.get_mut(&change.key) {
                places.remove(&(change.id.stamp, came));
                if places.is_empty() {
                    self.queued.remove(&change.key);
                }
            }
            if change.agreed && !self.remembered.is_news(&change.key, change.id, change.carried) {
                return;
            }
        }
        let id = self.positions().to_word();
        self.told.push(Telling { id, tidings });
    }

    fn drop_those_that_left(&mut self) {
        self.sources.retain(|source| {
            let is_told = |left_at| match source.standing {
                Standing::Following(_) => !source.more && source.fresh >= left_at,
                Standing::Beginning(_) | Standing::Lost | Standing::Complete => true,
            };
            !source.left_at.is_some_and(|left_at| source.queue.is_empty() && is_told(left_at))
        });
    }
}
