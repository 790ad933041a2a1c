//! One member's feed as a hub knows it: how far it is known, how far it is told, what waits in between, and what is asked.

use super::positions::Position;
use super::tidings::Tidings;
use crate::protocol::{FeedPlace, News, ToldChange};
use crate::record::Stamp;
use std::collections::VecDeque;

/// Entries of a feed, and bytes, past which nobody waits for more of it: order across nodes is given up before memory is.
const QUEUE_HARD_MAX: usize = 16_384;
const QUEUE_HARD_BYTES_MAX: usize = 16 << 20;

/// How a feed stands.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Standing {
    /// Not heard of yet; asked for from there.
    Beginning(Option<FeedPlace>),
    /// Known up to there.
    Following(FeedPlace),
    /// Its member does not answer.
    Lost,
    /// Known up to where it is to be told.
    Complete,
}

/// A question that is out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) number: u64,
    /// How many entries had come when it was asked.
    pub(super) came: u64,
    pub(super) generation: u64,
    pub(super) after: Option<FeedPlace>,
}

#[derive(Debug)]
pub(super) struct Item {
    pub(super) position: Position,
    /// The how-manieth it was that came.
    pub(super) came: u64,
    pub(super) tidings: Tidings,
}

#[derive(Debug)]
pub(super) struct Source {
    pub(super) member: Box<str>,
    pub(super) standing: Standing,
    /// Up to where it is told, and where that ends.
    pub(super) told: Option<Position>,
    pub(super) end: Option<FeedPlace>,
    pub(super) queue: VecDeque<Item>,
    pub(super) bytes: usize,
    /// How many entries had come when the filter became wider, and up to where it was known then. What was passed over before
    /// that must not count as told to those who wanted more.
    pub(super) passed: Option<(u64, FeedPlace)>,
    /// Whether others may have been told without waiting for it.
    pub(super) is_disordered: bool,
    /// Whether it was a member before, left, and came back.
    pub(super) is_back: bool,
    /// All that it had when so many entries had come has come.
    pub(super) fresh: u64,
    pub(super) as_of: Stamp,
    /// Whether the last page said that there is more.
    pub(super) more: bool,
    /// Under which filter it last answered.
    pub(super) generation: u64,
    pub(super) at_once: Option<Call>,
    pub(super) waiting: Option<Call>,
    pub(super) failing_since: Option<u64>,
    pub(super) next_ms: u64,
    /// That its member is none any more: it is told to the end, and then dropped.
    pub(super) left: Option<Left>,
}

/// That a member left, since when, and how many entries had come when it made no more: whoever leaves may still have taken
/// writes, and makes them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    pub(super) since_ms: u64,
    pub(super) last: Option<u64>,
}

impl Source {
    pub(super) fn new(member: &str, standing: Standing) -> Source {
        Source {
            member: member.into(),
            standing,
            told: None,
            end: None,
            queue: VecDeque::new(),
            bytes: 0,
            passed: None,
            is_disordered: false,
            is_back: false,
            fresh: 0,
            as_of: Stamp::default(),
            more: false,
            generation: 0,
            at_once: None,
            waiting: None,
            failing_since: None,
            next_ms: 0,
            left: None,
        }
    }

    pub(super) fn push(&mut self, item: Item) {
        self.bytes += item.bytes();
        self.queue.push_back(item);
    }

    pub(super) fn pop(&mut self) -> Option<Item> {
        let item = self.queue.pop_front()?;
        self.bytes -= item.bytes();
        Some(item)
    }

    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= QUEUE_HARD_MAX || self.bytes >= QUEUE_HARD_BYTES_MAX
    }

    /// Once nothing waits that came under the narrower filter, it is told up to where that one led.
    pub(super) fn note_passed(&mut self) {
        let Some((came, place)) = self.passed else { return };
        if self.queue.front().is_some_and(|head| head.came <= came) {
            return;
        }
        self.passed = None;
        if let Some(Position::At(told)) = &mut self.told
            && told.incarnation == place.incarnation
        {
            told.sequence = told.sequence.max(place.sequence);
        }
    }

    /// Whether its member left and it is told to its end.
    pub(super) fn is_over(&self) -> bool {
        let Some(Left { last: Some(last), .. }) = self.left else { return false };
        let is_known = match self.standing {
            Standing::Following(_) => !self.more && self.fresh >= last,
            // It answers, or is lost, which is told.
            Standing::Beginning(_) => false,
            Standing::Lost | Standing::Complete => true,
        };
        is_known && self.queue.is_empty()
    }

    /// Whether all of it has come that a change may follow which came as the `came`th.
    pub(super) fn has_shown(&self, after: Stamp, came: u64) -> bool {
        matches!(self.standing, Standing::Lost | Standing::Complete)
            || self.as_of >= after
            || self.fresh >= came
            || self.is_full()
    }

    pub(super) fn known(&self) -> Option<FeedPlace> {
        match self.standing {
            Standing::Beginning(place) => place,
            Standing::Following(place) => Some(place),
            Standing::Lost | Standing::Complete => None,
        }
    }
}

impl Item {
    fn bytes(&self) -> usize {
        match &self.tidings {
            Tidings::News { news, .. } => news.bytes(),
            Tidings::Gap { .. } => 64,
        }
    }

    pub(super) fn change(&self) -> Option<&ToldChange> {
        match &self.tidings {
            Tidings::News { news: News::Change(change), .. } => Some(change),
            _ => None,
        }
    }

    /// The latest write of another node that it may follow.
    pub(super) fn after(&self) -> Stamp {
        self.change().map_or(Stamp::default(), |change| change.after)
    }

    /// When it was made.
    pub(super) fn stamp(&self) -> Stamp {
        self.change().map_or(Stamp::default(), |change| change.id.stamp)
    }
}
