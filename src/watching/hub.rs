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

mod catching_up;

use super::positions::{Position, Positions};
use super::remembered::Remembered;
use super::source::{Call, Item, Left, Source, Standing};
use super::tidings::{Telling, Tidings, Why};
use crate::protocol::{FeedOf, FeedPage, FeedPlace, Follow, News, PREFIXES_MAX};
use crate::record::{Key, Stamp};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Entries of one feed that wait to be told before no more are asked for, and about how many bytes of all feeds.
const QUEUE_MAX: usize = 2_048;
const QUEUES_BYTES_MAX: usize = 2 << 20;
/// Members that left of which it is known how far they were told, should they come back.
const GONE_MAX: usize = 8;
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

/// The machine.
#[derive(Debug)]
pub struct Hub {
    of: FeedOf,
    /// How long a member may say nothing, in milliseconds.
    loss_ms: u64,
    sources: Vec<Source>,
    /// Those that left last, and how far they were told.
    gone: VecDeque<(Box<str>, Position)>,
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

    fn with(of: FeedOf, sources: Vec<Source>, loss_ms: u64, since_ms: u64, is_catching_up: bool) -> Hub {
        Hub {
            of,
            loss_ms,
            sources,
            gone: VecDeque::new(),
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

    /// Which feeds it follows.
    pub fn of(&self) -> FeedOf {
        self.of
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
            for source in &mut self.sources {
                source.passed = source.known().filter(|_| !source.queue.is_empty()).map(|known| (self.came, known));
            }
        }
        (self.prefixes, self.values) = (prefixes, values);
    }

    /// Whether it knows where every feed ends, or that it is lost, and nothing that is wanted is passed over behind what is told.
    pub fn is_settled(&self) -> bool {
        self.sources.iter().all(|source| match source.standing {
            Standing::Beginning(_) => false,
            Standing::Following(_) => source.generation >= self.generation && source.passed.is_none(),
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
        let gone = self.gone.iter().map(|(member, told)| (&**member, *told));
        Positions::new(self.of, self.now_ms, told.chain(gone))
    }

    /// Whether a watcher that was there knows more of a feed than is told yet.
    pub fn is_behind(&self, there: &Positions) -> bool {
        self.sources.iter().any(|source| match (source.told, there.of_member(&source.member)) {
            (Some(Position::At(told)), Some(Position::At(place))) => {
                told.incarnation == place.incarnation && told.sequence < place.sequence
            }
            _ => false,
        })
    }

    /// That members say nothing, for those who come while that is so.
    pub fn tell_lost(&self) -> Vec<Telling> {
        let lost = self.sources.iter().filter(|source| source.told == Some(Position::Lost));
        let gap = |source: &Source| Tidings::Gap { member: Some(source.member.clone()), why: Why::Silent };
        let id = self.positions().to_word();
        lost.map(|source| Telling { id: id.clone(), tidings: gap(source), place: None }).collect()
    }

    /// These are the members now. A new one is followed from its beginning, and one that is back from where it was told; one that
    /// is none any more to its end.
    pub fn note_members<'a>(&mut self, members: impl IntoIterator<Item = &'a str>) {
        let members: Vec<&str> = members.into_iter().collect();
        for source in &mut self.sources {
            let is_leaving = !members.contains(&&*source.member);
            let left = Left { since_ms: self.now_ms, last: None };
            source.left = is_leaving.then(|| source.left.unwrap_or(left));
        }
        for member in members {
            if self.sources.iter().any(|source| &*source.member == member) {
                continue;
            }
            let gone = self.gone.iter().position(|(gone, _)| &**gone == member).and_then(|at| self.gone.remove(at));
            let told = gone.map(|(_, told)| told);
            let standing = match told {
                Some(Position::Lost) => Standing::Lost,
                Some(Position::At(place)) => Standing::Beginning(Some(place)),
                None => Standing::Beginning(Some(FeedPlace::default())),
            };
            self.sources.push(Source { told, is_back: told.is_some(), ..Source::new(member, standing) });
        }
    }

    /// What to ask at `now_ms`, in milliseconds since 1970, and when to look again at the latest, if something is put off.
    pub fn asks(&mut self, now_ms: u64) -> (Vec<Ask>, Option<u64>) {
        self.now_ms = now_ms;
        for source in &mut self.sources {
            // What one that left has still taken, it has made by now; and that is known once it was asked after this.
            if let Some(left @ Left { last: None, .. }) = &mut source.left
                && now_ms >= left.since_ms.saturating_add(self.loss_ms)
            {
                self.came += 1;
                left.last = Some(self.came);
            }
        }
        self.drop_those_that_left();
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
                let is_awaited = !source.is_full() && self.is_awaited(at);
                let bytes_max = QUEUES_BYTES_MAX / self.sources.len();
                let has_room = source.queue.len() < QUEUE_MAX && source.bytes < bytes_max;
                let is_leaving = source.left.is_some_and(|left| left.last.is_some());
                let is_behind = source.more || source.generation < self.generation;
                let asks_anyway = self.is_catching_up || is_leaving || self.of == FeedOf::Events;
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
        let source = &mut self.sources[at];
        source.standing = if self.is_catching_up { Standing::Complete } else { Standing::Lost };
        (source.is_disordered, source.passed) = (false, None);
        self.announce(at, Position::Lost, Why::Silent);
    }

    fn announce(&mut self, at: usize, position: Position, why: Why) {
        self.came += 1;
        let source = &mut self.sources[at];
        let tidings = Tidings::Gap { member: Some(source.member.clone()), why };
        source.push(Item { position, came: self.came, tidings });
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
        if let Some(end) = self.sources[at].end.filter(|end| end.incarnation != incarnation) {
            // What it makes now the living one tells.
            self.sources[at].standing = Standing::Complete;
            return self.announce(at, Position::At(end), Why::Restarted);
        }
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
        let end = source.end.map_or(u64::MAX, |end| end.sequence);
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
            source.push(Item { position: Position::At(place(through)), came: self.came, tidings });
        }
        through = through.max(page.through.min(end));
        let source = &mut self.sources[at];
        source.standing = Standing::Following(place(through));
        if source.end.is_some_and(|end| through >= end.sequence) {
            source.standing = Standing::Complete;
        }
        // Whether the order was given up for it shows once it is known again to its end.
        source.is_disordered |= source.is_full();
        if source.is_disordered && !source.is_full() && (!page.more || source.standing == Standing::Complete) {
            source.is_disordered = false;
            self.announce(at, Position::At(place(through)), Why::Disordered);
        }
        let source = &mut self.sources[at];
        (source.more, source.generation) = (page.more, source.generation.max(asked.generation));
        source.as_of = source.as_of.max(page.as_of);
        if !page.more {
            source.fresh = source.fresh.max(asked.came);
        }
        if source.queue.is_empty() {
            source.told = Some(Position::At(place(through)));
        }
        source.note_passed();
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
        let Some(Item { position, came, tidings }) = source.pop() else { return };
        source.told = Some(position);
        if let (true, Standing::Following(place)) = (source.queue.is_empty(), source.standing) {
            // What came behind it was not wanted.
            source.told = Some(Position::At(place));
        }
        source.note_passed();
        let place = match (position, &tidings) {
            (Position::At(place), Tidings::News { .. }) => Some(place),
            _ => None,
        };
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
        self.told.push(Telling { id, tidings, place });
    }

    fn drop_those_that_left(&mut self) {
        while let Some(at) = self.sources.iter().position(Source::is_over) {
            let source = self.sources.remove(at);
            // Of one that was never heard of, nothing was told.
            let is_new = source.standing == Standing::Beginning(Some(FeedPlace::default()));
            if let (told, false) = (source.told.unwrap_or(Position::Lost), is_new) {
                self.gone.push_back((source.member, told));
            }
            if self.gone.len() > GONE_MAX {
                self.gone.pop_front();
            }
        }
    }
}
