//! What was done to a cluster and what came of it: all that the checker is told.

use std::collections::{BTreeMap, BTreeSet};

/// Microseconds since the history began, on the one clock of the process that asks.
pub type Moment = u64;

/// How a write ended, as its client knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is durable, on so many owners at least. `full`: as many as its client asked for, by mode or number.
    Acknowledged { owners: usize, full: bool },
    /// Nothing was stored.
    Failed,
    /// It may have been, or may yet be.
    Unknown,
}

/// What a write says that its client had seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Saw {
    /// Nothing is said: it is to replace whatever there is.
    Blind,
    /// It replaces what was `shown` by the read that its context goes back to, which began at `since`; and its client's
    /// `own` last write, if the context is of the answer to that.
    Only { shown: BTreeSet<String>, own: Option<String>, since: Moment },
}

/// A write, or a delete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    pub key: String,
    /// The value, which nobody else writes; of a delete a name like that.
    pub name: String,
    pub deletes: bool,
    pub saw: Saw,
    /// Owners its client asked for.
    pub needed: usize,
    /// Whether a blind one looks for what it should replace on further owners: not in the mode `async`.
    pub covers: bool,
    pub begun: Moment,
    pub told: Moment,
    pub fate: Fate,
    /// The node that was asked.
    pub node: usize,
    /// What was answered, for people.
    pub said: String,
}

/// The values that somebody was shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Read {
    pub key: String,
    pub shown: BTreeSet<String>,
    pub told: Moment,
    pub said: String,
}

/// A disk that was lost, or gave way to an old one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loss {
    pub node: usize,
    /// All owners were equal then, and no request under way.
    pub healed: Moment,
    /// The node had ended.
    pub lost: Moment,
}

/// When something was wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    pub from: Moment,
    pub to: Moment,
    /// Nodes that were started in it, or lost their disk: for a while they make no writes, as owners that count.
    pub started: BTreeSet<usize>,
}

/// What each of several holders has of a key: owners, and reads of all of them.
pub type Held = BTreeMap<String, BTreeSet<String>>;

/// What there was when nothing was under way, and all owners were equal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quiet {
    pub at: Moment,
    /// Of each key.
    pub held: BTreeMap<String, Held>,
}

#[derive(Clone, Default, Debug)]
pub struct History {
    /// Those of each key.
    pub owners: BTreeMap<String, Vec<usize>>,
    pub writes: Vec<Write>,
    pub reads: Vec<Read>,
    pub troubles: Vec<Trouble>,
    pub losses: Vec<Loss>,
    /// In their order.
    pub quiets: Vec<Quiet>,
}

impl History {
    pub fn count(&self, is: impl Fn(Fate) -> bool) -> usize {
        self.writes.iter().filter(|write| is(write.fate)).count()
    }
}
