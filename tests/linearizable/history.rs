//! What clients asked of one key, when, and what they were told.
//!
//! A value is an integer: a register's are never written twice, so a value names the write it came from, and a counter is
//! a register that can be added to. Moments are microseconds since the history began, no two of them equal.

use std::fmt;

/// What a version is called by: the `ETag` of its write.
pub type Etag = String;

/// Never: the moment at which an operation of unknown outcome returned.
pub const OPEN: u64 = u64::MAX;

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Act {
    Read,
    /// Reads a counter: nothing there counts as 0.
    Count,
    Write(i64),
    Delete,
    /// Writes where nothing is.
    Create(i64),
    /// Writes over this version only.
    Replace(i64, Etag),
    /// Deletes this version only.
    DeleteIf(Etag),
    /// Adds to what is there, or to 0.
    Add(i64),
}

impl Act {
    /// The value that it leaves by itself, whatever was there.
    pub fn writes(&self) -> Option<i64> {
        match self {
            Act::Write(value) | Act::Create(value) | Act::Replace(value, _) => Some(*value),
            _ => None,
        }
    }

    /// Whether it leaves everything as it is.
    pub fn only_looks(&self) -> bool {
        matches!(self, Act::Read | Act::Count)
    }
}

/// What was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// This value is there; its ETag, if that was told.
    Value(i64, Option<Etag>),
    /// Nothing is there.
    Absent,
    /// What the counter shows, after the addition if it was one.
    Total(i64),
    /// It took effect; the ETag of what it left, if that was told.
    Done(Option<Etag>),
    /// The condition did not hold, and nothing was changed: the ETag of what is there. A replacement or conditional
    /// delete that is told none met nothing.
    Failed(Option<Etag>),
    /// It takes effect once at any moment after it was asked, or never.
    Unknown,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Who asked: one thing after another, and nothing more after an unknown outcome.
    pub process: usize,
    /// The node that was asked.
    pub node: usize,
    pub act: Act,
    pub outcome: Outcome,
    pub invoked: u64,
    /// [`OPEN`] where the outcome is unknown.
    pub returned: u64,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |moment: u64| match moment {
            OPEN => "…".to_string(),
            moment => format!("{:.3}", moment as f64 / 1_000.0),
        };
        let (Operation { process, node, act, outcome, .. }, from, to) = (self, ms(self.invoked), ms(self.returned));
        write!(f, "{from:>10} to {to:>10} ms  client {process:<3} node {node}  {act:?} -> {outcome:?}")
    }
}

/// Lines for people.
pub fn listed<'a>(operations: impl IntoIterator<Item = &'a Operation>) -> String {
    operations.into_iter().map(|operation| format!("  {operation}\n")).collect()
}
