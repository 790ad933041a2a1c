//! What watchers are told.

use crate::protocol::{FeedPlace, News};

/// What is told next: what, and where a watcher is once it knows.
#[derive(Clone, PartialEq, Debug)]
pub struct Telling {
    /// The word to go on from.
    pub id: String,
    /// What.
    pub tidings: Tidings,
    /// Where news stand in the feed of their member.
    pub place: Option<FeedPlace>,
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
    /// More waited than is held: it may have been told out of order.
    Disordered,
    /// It is no member any more, and what it had not told before is not told.
    Left,
}
