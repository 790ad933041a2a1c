//! What a node tells whoever follows it: what was changed there, and what happened there.
//!
//! ```text
//!   numbers      1 ... 40 | 41 42 43 44 | 45 ...
//!                  gone     a page: from 40, through 44
//! ```
//!
//! Each node numbers what it tells from 1 on, under a name that is new with every start. What was made on a node is told by
//! that node alone, once; the copies that others take of it tell nothing.

use crate::record::{Dot, Key, Stamp, Tag};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Most prefixes in one request: who has more asks for everything.
pub const PREFIXES_MAX: usize = 16;

/// One of the two things that can be followed. The numbers are the wire's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum FeedOf {
    /// Changes of keys.
    Changes,
    /// What happened to the node itself.
    Events,
}

/// A place in a node's feed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct FeedPlace {
    /// The feed's name: random, never 0, another after each start of the node.
    pub incarnation: u64,
    /// The number of the last entry that was told; 0 before the first.
    pub sequence: u64,
}

/// Asks for what comes behind a place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Follow {
    /// Of which feed.
    pub of: FeedOf,
    /// Behind which place; nothing for the present end, to begin there.
    pub after: Option<FeedPlace>,
    /// Of which keys: those that begin with one of these, at most [`PREFIXES_MAX`]. An empty one stands for all.
    pub prefixes: Vec<Vec<u8>>,
    /// Whether values are wanted; they are kept only while somebody wants them.
    pub values: bool,
    /// How long the answer may wait for something to tell, in milliseconds. It comes as soon as there is anything, wanted
    /// or not.
    pub wait_ms: u32,
}

/// What lies behind a place: everything asked for from `from` (exclusive) to `through`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FeedPage {
    /// The feed's name.
    pub incarnation: u64,
    /// Where it begins: the place asked for, unless that is no longer in the feed, or was in another.
    pub from: u64,
    /// Up to where everything asked for is in it.
    pub through: u64,
    /// Whether there is more behind it already.
    pub more: bool,
    /// No write that is told behind it, and was made without consensus, has a stamp as early as this.
    pub as_of: Stamp,
    /// In order.
    pub entries: Vec<FeedEntry>,
}

/// One entry of a feed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FeedEntry {
    /// Its number.
    pub sequence: u64,
    /// What is told.
    pub news: News,
}

/// What is told.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum News {
    /// A key was changed.
    Change(Arc<ToldChange>),
    /// Something happened to the node.
    Event(Arc<ToldEvent>),
}

/// How a key was changed. The numbers are the wire's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ChangeKind {
    /// A value was written.
    Put,
    /// It was deleted.
    Delete,
    /// Something was added to it.
    Count,
}

/// A change of a key, as it was committed where it was made.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ToldChange {
    /// The key.
    pub key: Key,
    /// What was done.
    pub kind: ChangeKind,
    /// The write's name for good; no other change has it.
    pub id: Dot,
    /// Whether the owners agreed on it.
    pub agreed: bool,
    /// Whether the node that tells it did not make it, but completed it: its maker may have told it too.
    pub carried: bool,
    /// It follows no write of another node that is later than this; [`Stamp::MAX`] where nobody knows.
    pub after: Stamp,
    /// The version that was shown then.
    pub tag: Tag,
    /// How many values stood beside one another then, 0 after a delete.
    pub siblings: u32,
    /// When the value stops being shown, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// How long the value is, in bytes.
    pub value_bytes: u32,
    /// Whether it is in `value`: somebody wanted it, and it is not too long.
    pub has_value: bool,
    /// The value that was shown then.
    #[serde(with = "crate::record::blob")]
    pub value: Bytes,
}

/// Something that happened to a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ToldEvent {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// `info`, `warn` or `error`.
    pub level: Box<str>,
    /// What kind, a stable word for programs.
    pub kind: Box<str>,
    /// What, a sentence for people.
    pub text: Box<str>,
}

impl News {
    /// About how many bytes it takes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            News::Change(change) => 200 + change.key.as_bytes().len() + change.value.len(),
            News::Event(event) => 120 + event.kind.len() + event.text.len(),
        }
    }
}

impl Follow {
    /// Whether a change of this key is wanted.
    pub fn wants(&self, key: &Key) -> bool {
        self.prefixes.iter().any(|prefix| key.as_bytes().starts_with(prefix))
    }
}
