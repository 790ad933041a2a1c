//! One member's feed as a hub knows it: how far it is known, how far it is told, what waits in between, and what is asked.

use super::hub::Tidings;
use super::positions::Position;
use crate::protocol::{FeedPlace, News, ToldChange};
use crate::record::Stamp;
use std::collections::VecDeque;

/// Entries of a feed past which nobody waits for more of it: order across nodes is given up before memory is.
pub(super) const QUEUE_HARD_MAX: usize = 16_384;

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
    /// How many entries had come when its member was none any more: it is told to the end, and then dropped.
    pub(super) left_at: Option<u64>,
}

impl Source {
    pub(super) fn new(member: &str, standing: Standing) -> Source {
        Source {
            member: member.into(),
            standing,
            told: None,
            end: None,
            queue: VecDeque::new(),
            fresh: 0,
            as_of: Stamp::default(),
            more: false,
            generation: 0,
            at_once: None,
            waiting: None,
            failing_since: None,
            next_ms: 0,
            left_at: None,
        }
    }

    /// Whether all of it has come that a change may follow which came as the `came`th.
    pub(super) fn has_shown(&self, after: Stamp, came: u64) -> bool {
        matches!(self.standing, Standing::Lost | Standing::Complete)
            || self.as_of >= after
            || self.fresh >= came
            || self.queue.len() >= QUEUE_HARD_MAX
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
