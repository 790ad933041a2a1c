//! `List`: one page of the cluster's keys, in order.
//!
//! Every partition is asked of as many owners as the request wants, this node first; all that one member is asked for goes
//! to it in one request. Where one fails, or cannot tell, another owner is asked for what it was to tell.
//!
//! ```text
//!  n1 tells of partitions 0 1 2   a ─ b ─ c ─────── e ─┤ next: f
//!  n2               0 1           a ─ b ─ c ─ d ───────────┤ next: h
//!  n3                   2         ──────────────────── e ──────┤ no more
//!  page                           a   b   c   d   e    ┆ goes on at f
//! ```
//!
//! What they hold of a key is merged as a read merges it, and only then it is seen whether it lives: a copy that is behind
//! cannot show what was deleted. The page ends where the first of them ends, as beyond it not every owner that was wanted
//! has been heard. So whatever lives on enough owners all the while is on one page, and on no other.
//!
//! Where keys have a common prefix, members tell just the first that lives, as they see it, and pass over the others. If
//! it turns out to be dead, the page ends behind it, and the next one goes on from there.
//!
//! A page is not one moment's: keys on it were read one after the other. Owners that are being filled are passed over, and
//! what only stand-ins keep is not shown until it is handed over. Makes no repairs: it never sees values.

use super::Quorum;
use super::order::asking_order;
use crate::operation::{CallId, Command, Event, Operation};
use crate::placement::{MemberIndex, PARTITIONS, Partition, Ring};
use crate::protocol::{
    Answer, Filter, LIST_BYTES_MAX, LIST_KEYS_MAX, ListAnswer, ListEntry, ListRequest, Place, Request,
};
use crate::record::{Key, Record};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of keys that all members together are asked for, about.
const PAGE_BYTES: u64 = LIST_BYTES_MAX as u64;
/// Bytes that any one of them may tell.
const MEMBER_BYTES_MIN: u64 = 64 << 10;
/// More keys than its share that a member is asked for, as shares differ: the page ends where the first of them does.
const KEYS_SPARE: usize = 16;

/// Which keys are listed.
#[derive(Clone, PartialEq, Debug)]
pub struct ListWish {
    /// Of which partitions, ascending: all, or some.
    pub partitions: Vec<Partition>,
    /// Which of them.
    pub filter: Filter,
    /// From where on.
    pub from: Place,
    /// How many items a page has at most, 1 to [`LIST_KEYS_MAX`].
    pub items_max: usize,
    /// The number of the list, where the next page is asked for at once: members may keep for it what they read ahead.
    pub listing: Option<u64>,
}

/// How a [`List`] is to go about it.
#[derive(Clone, Debug)]
pub struct ListOptions {
    /// How many owners of each partition are asked.
    pub quorum: Quorum,
    /// Whether fewer answers are an error. If not, one for each partition is enough where no more can be had.
    pub hard: bool,
    /// How long members may be silent before others are asked too, in milliseconds.
    pub patience_ms: u64,
    /// Members that still lack writes, as this node knows: asked after the others.
    pub behind: Vec<MemberIndex>,
    /// Members believed to be down: asked last.
    pub avoid: Vec<MemberIndex>,
    /// What has expired by then is not shown, in milliseconds since 1970.
    pub now_ms: u64,
}

/// How it ended.
#[derive(Clone, PartialEq, Debug)]
pub enum ListOutcome {
    /// Enough owners of every partition were heard.
    Page(ListPage),
    /// Of some partitions they were not: what is there is not known.
    Unavailable {
        /// One of them.
        partition: Partition,
        /// How many there are.
        partitions: usize,
        /// How many owners of it answered.
        answered: usize,
        /// How many were wanted.
        needed: usize,
    },
}

/// A page.
#[derive(Clone, PartialEq, Debug)]
pub struct ListPage {
    /// In order; there may be none, and more on the next page.
    pub items: Vec<ListItem>,
    /// Where the next page begins; `None` where there is no more.
    pub next: Option<Place>,
    /// How many owners were heard of the partition of which the fewest were.
    pub answered: usize,
    /// How many were wanted.
    pub needed: usize,
    /// Members that were asked and have not answered.
    pub silent: Vec<MemberIndex>,
}

/// What a page shows.
#[derive(Clone, PartialEq, Debug)]
pub enum ListItem {
    /// A key that lives, and the [sketch](Record::sketch) of its record.
    Key(Key, Record),
    /// What several keys begin with, one of which lives.
    Prefix(Bytes),
}

/// The machine.
pub struct List {
    wish: ListWish,
    options: ListOptions,
    slots: Vec<Slot>,
    calls: Vec<Option<Asked>>,
    answers: Vec<Heard>,
    silent: Vec<MemberIndex>,
    hedges: u64,
    /// All owners were asked, and had their time.
    patience_over: bool,
    concluded: bool,
}

/// One partition.
struct Slot {
    partition: Partition,
    /// Owners not asked yet, next one last.
    unasked: Vec<MemberIndex>,
    awaited: Vec<MemberIndex>,
    answered: usize,
}

/// A call: whom, what, and for which slots.
struct Asked {
    to: MemberIndex,
    request: ListRequest,
    slots: Vec<usize>,
}

struct Heard {
    /// For which partitions it counts.
    counts: Vec<bool>,
    answer: ListAnswer,
}

impl List {
    /// A page coordinated by `me`, from the owners that `ring` names.
    pub fn new(wish: ListWish, ring: &Arc<Ring>, me: MemberIndex, options: ListOptions) -> List {
        let slot = |partition: &Partition| {
            let mut unasked = asking_order(ring, *partition, Some(me), &options.behind, &options.avoid);
            unasked.reverse();
            Slot { partition: *partition, unasked, awaited: Vec::new(), answered: 0 }
        };
        let slots = wish.partitions.iter().map(slot).collect();
        List {
            wish,
            slots,
            options,
            calls: Vec::new(),
            answers: Vec::new(),
            silent: Vec::new(),
            hedges: 0,
            patience_over: false,
            concluded: false,
        }
    }

    /// Asks further owners of every slot for which `more` says how many.
    fn ask(&mut self, more: impl Fn(&Slot) -> usize, commands: &mut Vec<Command>) -> bool {
        let mut asked: BTreeMap<MemberIndex, Vec<usize>> = BTreeMap::new();
        for (at, slot) in self.slots.iter_mut().enumerate() {
            for _ in 0..more(slot) {
                let Some(owner) = slot.unasked.pop() else { break };
                slot.awaited.push(owner);
                asked.entry(owner).or_default().push(at);
            }
        }
        let any = !asked.is_empty();
        for (to, slots) in asked {
            let request = self.request(&slots);
            let call = CallId(self.calls.len() as u32);
            commands.push(Command::Call { call, to, request: Request::List(request.clone()) });
            self.calls.push(Some(Asked { to, request, slots }));
        }
        if any {
            commands.push(Command::Wake { after_ms: self.options.patience_ms });
        }
        any
    }

    /// What one member is asked of these slots: its share of the page.
    fn request(&self, slots: &[usize]) -> ListRequest {
        let all = self.slots.len();
        let share = self.wish.items_max * slots.len() / all;
        let keys_max = (share + share / 8 + KEYS_SPARE).min(self.wish.items_max).clamp(1, LIST_KEYS_MAX as usize);
        let bytes = PAGE_BYTES * slots.len() as u64 / all as u64;
        ListRequest {
            partitions: slots.iter().map(|slot| self.slots[*slot].partition).collect(),
            filter: self.wish.filter.clone(),
            from: self.wish.from.clone(),
            keys_max: keys_max as u32,
            bytes_max: bytes.max(MEMBER_BYTES_MIN) as u32,
            listing: self.wish.listing,
        }
    }

    fn needed(&self) -> usize {
        self.options.quorum.needed()
    }

    /// Takes what a call came to.
    fn heard(&mut self, call: CallId, answer: Option<ListAnswer>) {
        let Some(Asked { to, request, slots }) = self.calls.get_mut(call.0 as usize).and_then(Option::take) else {
            return;
        };
        // What could not have been asked for is nobody's answer.
        let answer = answer.filter(|answer| request.is_answered_by(answer));
        for slot in &slots {
            self.slots[*slot].awaited.retain(|awaited| *awaited != to);
        }
        let Some(answer) = answer else { return self.silent.push(to) };
        let mut counts = vec![false; PARTITIONS];
        for at in slots {
            let slot = &mut self.slots[at];
            if !answer.lacking.contains(&slot.partition) {
                slot.answered += 1;
                counts[slot.partition.index()] = true;
            }
        }
        self.answers.push(Heard { counts, answer });
    }

    /// Whether nothing more need be heard of the slot.
    fn is_settled(&self, slot: &Slot, must: bool) -> bool {
        if slot.answered >= self.needed() {
            return true;
        }
        let only_down = slot.awaited.iter().all(|awaited| self.options.avoid.contains(awaited));
        let is_over = slot.unasked.is_empty() && (slot.awaited.is_empty() || self.patience_over && only_down);
        !self.options.hard && slot.answered > 0 && (must || is_over)
    }

    fn conclude(&mut self, must: bool) -> Option<ListOutcome> {
        let needed = self.needed();
        let unsettled = || self.slots.iter().filter(|slot| !self.is_settled(slot, must));
        if unsettled().next().is_none() {
            return Some(ListOutcome::Page(self.page()));
        }
        let is_lost = |slot: &&Slot| must || slot.awaited.is_empty() && slot.unasked.is_empty();
        let lost = unsettled().find(is_lost)?;
        let partitions = unsettled().filter(is_lost).count();
        Some(ListOutcome::Unavailable { partition: lost.partition, partitions, answered: lost.answered, needed })
    }

    /// What was heard, merged, as far as all of it goes.
    fn page(&mut self) -> ListPage {
        let answered = self.slots.iter().map(|slot| slot.answered).min().unwrap_or(0);
        let awaited = self.slots.iter().flat_map(|slot| slot.awaited.iter().copied());
        let mut silent: Vec<MemberIndex> = self.silent.iter().copied().chain(awaited).collect();
        silent.sort_unstable();
        silent.dedup();
        let (mut next, mut entries) = (None, Vec::new());
        for Heard { counts, answer } in std::mem::take(&mut self.answers) {
            if counts.iter().any(|counts| *counts) {
                next = sooner(next, answer.next);
            }
            for entry in answer.entries {
                if counts[Partition::of(entry.key.position()).index()] {
                    entries.push(entry);
                } else if entry.stands_for_all {
                    // What it was passed over for in other partitions is nobody's word.
                    next = sooner(next, Some(Place::behind(&entry.key)));
                }
            }
        }
        // Each member's are in order already, which the sort makes use of.
        entries.sort_by(|one, other| one.key.cmp(&other.key));
        let (items, ended) = self.shown(entries, next.as_ref());
        let next = match ended {
            Ended::AtNext => next,
            Ended::Before(place) => place,
        };
        ListPage { items, next, answered, needed: self.needed(), silent }
    }

    /// The items among entries that are sorted, up to `next`, and where they end.
    fn shown(&self, entries: Vec<ListEntry>, next: Option<&Place>) -> (Vec<ListItem>, Ended) {
        let (filter, now_ms) = (&self.wish.filter, self.options.now_ms);
        let mut items = Vec::new();
        // What was passed over by the prefix shown last ends there.
        let mut passed: Option<Place> = None;
        let mut entries = entries.into_iter().peekable();
        while let Some(ListEntry { key, mut record, mut stands_for_all }) = entries.next() {
            while let Some(same) = entries.next_if(|entry| entry.key == key) {
                record = if record == same.record { record } else { record.merge(&same.record) };
                stands_for_all |= same.stands_for_all;
            }
            if next.is_some_and(|next| !next.is_behind(key.as_bytes())) {
                break;
            }
            if passed.as_ref().is_some_and(|passed| passed.is_behind(key.as_bytes())) {
                continue;
            }
            let lives = record.winner(now_ms).is_some();
            if !lives && stands_for_all {
                // Whoever passed over what is behind it took it to be alive.
                return (items, Ended::Before(Some(Place::behind(&key))));
            }
            if !lives {
                continue;
            }
            if items.len() == self.wish.items_max {
                return (items, Ended::Before(Some(Place::of(&key))));
            }
            match filter.common_prefix(key.as_bytes()) {
                None => items.push(ListItem::Key(key, record)),
                Some(prefix) => {
                    items.push(ListItem::Prefix(Bytes::copy_from_slice(prefix)));
                    passed = Place::past(prefix);
                    if passed.is_none() {
                        return (items, Ended::Before(None));
                    }
                }
            }
        }
        // Where everything up to there was passed over, so is what lies between.
        match (next, passed) {
            (Some(next), Some(passed)) if *next < passed => (items, Ended::Before(Some(passed))),
            _ => (items, Ended::AtNext),
        }
    }
}

/// Where a page ends.
enum Ended {
    /// Where the first member ended.
    AtNext,
    /// Elsewhere.
    Before(Option<Place>),
}

/// The lower place; none is behind all.
fn sooner(one: Option<Place>, other: Option<Place>) -> Option<Place> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Operation for List {
    type Output = ListOutcome;

    fn on(&mut self, event: Event, commands: &mut Vec<Command>) -> Option<ListOutcome> {
        if self.concluded {
            return None;
        }
        let must = matches!(event, Event::Deadline);
        let needed = self.needed();
        match event {
            Event::Start | Event::Deadline => {}
            Event::Answered { call, answer: Answer::Listed(answer) } => self.heard(call, Some(answer)),
            Event::Answered { call, .. } | Event::Failed { call, .. } => self.heard(call, None),
            Event::Woken => {
                let lacks = |slot: &Slot| usize::from(slot.answered < needed);
                match self.ask(lacks, commands) {
                    true => self.hedges += 1,
                    false => self.patience_over = true,
                }
            }
        }
        if !must {
            self.ask(|slot| needed.saturating_sub(slot.answered + slot.awaited.len()), commands);
        }
        let outcome = self.conclude(must);
        self.concluded = outcome.is_some();
        outcome
    }

    fn is_done(&self) -> bool {
        self.concluded
    }

    fn hedges(&self) -> u64 {
        self.hedges
    }
}

#[cfg(test)]
mod tests;
