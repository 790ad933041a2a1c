//! What is known of every key: how many writes were begun, and the last that was acknowledged. It is what a read is held
//! against.
//!
//! A key has one writer at a time, whoever it is, so that its writes are numbered in the order in which they were done.
//! Invariant: `acked ≤ issued`, and both only grow. Sixteen bytes a key, and as many writes a key of unknown outcome as
//! [`DOUBTS_MAX`].

use super::values::Stamp;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// Writes of unknown outcome that are remembered of one key. With more, what its reads show is not judged by age any more.
const DOUBTS_MAX: usize = 16;

/// All keys of a run, by their numbers.
pub struct Ledger {
    run: u32,
    entries: Vec<Entry>,
    doubts: Mutex<HashMap<u32, Doubts>>,
}

#[derive(Default)]
struct Entry {
    busy: AtomicBool,
    /// The last write begun.
    issued: AtomicU32,
    /// The last write acknowledged by as many owners as its mode wants.
    acked: AtomicU32,
    /// The last delete begun.
    deleted: AtomicU32,
}

/// Writes that may surface at any time.
#[derive(Default)]
struct Doubts {
    writes: Vec<u32>,
    /// Among them is a delete.
    deleted: bool,
    too_many: bool,
}

/// What a write does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Write {
    /// Leaves a value.
    Put,
    /// Leaves none.
    Del,
}

/// What became of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// As many owners as its mode wants have it.
    Acked,
    /// Fewer have it: reads may miss it.
    Short,
    /// It may have been done, or be done yet.
    Unknown,
    /// It was not done.
    NotDone,
}

/// The right to write a key, until it is [settled](Ledger::settle).
#[derive(Debug)]
#[must_use = "a key that is not settled is never written again"]
pub struct Turn {
    /// The key.
    pub key: u32,
    /// The number of the write, from 1.
    pub sequence: u32,
}

/// What a read shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    /// A whole value of this key.
    Value(Stamp),
    /// That there is none.
    Nothing,
}

/// What it is, held against what was known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judged {
    /// As new as what was acknowledged before the read began, or newer.
    Fresh,
    /// Older.
    Old,
    /// Nobody wrote it.
    NeverWritten,
}

impl Ledger {
    /// Of this run and this many keys, none of which it has written.
    pub fn new(run: u32, keys: u32) -> Ledger {
        Ledger { run, entries: (0..keys).map(|_| Entry::default()).collect(), doubts: Mutex::default() }
    }

    /// How many keys there are.
    pub fn keys(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Begins a write of this key, or, where it is being written, of the next that is not. `None` where all are.
    pub fn begin(&self, wished: u32, write: Write) -> Option<Turn> {
        let keys = self.keys();
        let free = |key: &u32| !self.entries[*key as usize].busy.swap(true, Ordering::Acquire);
        let key = (wished..keys).chain(0..wished).find(free)?;
        let entry = &self.entries[key as usize];
        let sequence = entry.issued.load(Ordering::Relaxed) + 1;
        if write == Write::Del {
            entry.deleted.store(sequence, Ordering::Release);
        }
        entry.issued.store(sequence, Ordering::Release);
        Some(Turn { key, sequence })
    }

    /// Ends a write.
    pub fn settle(&self, turn: Turn, write: Write, fate: Fate) {
        let entry = &self.entries[turn.key as usize];
        match fate {
            Fate::Acked => entry.acked.store(turn.sequence, Ordering::Release),
            Fate::Unknown => {
                let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
                let doubts = doubts.entry(turn.key).or_default();
                doubts.deleted |= write == Write::Del;
                match doubts.writes.len() < DOUBTS_MAX {
                    true => doubts.writes.push(turn.sequence),
                    false => doubts.too_many = true,
                }
            }
            Fate::Short | Fate::NotDone => {}
        }
        entry.busy.store(false, Ordering::Release);
    }

    /// The last write of this key that is acknowledged: to be asked before a read of it is sent. 0 where none is.
    pub fn acked(&self, key: u32) -> u32 {
        self.entries[key as usize].acked.load(Ordering::Acquire)
    }

    /// Whether this key has a value for certain, from before until now: `acked` was asked before.
    pub fn is_there(&self, key: u32, acked: u32) -> bool {
        let deleted = self.entries[key as usize].deleted.load(Ordering::Acquire);
        acked > 0 && deleted < acked && !self.doubted(key, |doubts| doubts.deleted || doubts.too_many)
    }

    /// Judges what a read of this key showed, which began when `acked` was the last write acknowledged.
    pub fn judge(&self, key: u32, acked: u32, shown: Shown) -> Judged {
        let entry = &self.entries[key as usize];
        match shown {
            Shown::Nothing => {
                let fresh = acked == 0
                    || entry.deleted.load(Ordering::Acquire) >= acked
                    || self.doubted(key, |doubts| doubts.deleted || doubts.too_many);
                if fresh { Judged::Fresh } else { Judged::Old }
            }
            // What an earlier run left is new until this one has written.
            Shown::Value(stamp) if stamp.run != self.run => {
                let fresh = acked == 0 || self.doubted(key, |doubts| doubts.too_many);
                if fresh { Judged::Fresh } else { Judged::Old }
            }
            Shown::Value(Stamp { sequence, .. }) => {
                if sequence == 0 || sequence > entry.issued.load(Ordering::Acquire) {
                    return Judged::NeverWritten;
                }
                let surfaced = |doubts: &Doubts| doubts.too_many || doubts.writes.contains(&sequence);
                let fresh = sequence >= acked || self.doubted(key, surfaced);
                if fresh { Judged::Fresh } else { Judged::Old }
            }
        }
    }

    fn doubted(&self, key: u32, what: impl FnOnce(&Doubts) -> bool) -> bool {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner).get(&key).is_some_and(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(sequence: u32) -> Shown {
        Shown::Value(Stamp { run: 1, key: 0, client: 0, sequence })
    }

    fn write(ledger: &Ledger, write: Write, fate: Fate) {
        let turn = ledger.begin(0, write).expect("a free key");
        ledger.settle(turn, write, fate);
    }

    #[test]
    fn a_read_shows_what_was_acknowledged_before_it_or_something_newer() {
        let ledger = Ledger::new(1, 1);
        write(&ledger, Write::Put, Fate::Acked);
        write(&ledger, Write::Put, Fate::Acked);
        let acked = ledger.acked(0);
        assert_eq!(ledger.judge(0, acked, value(1)), Judged::Old);
        assert_eq!(ledger.judge(0, acked, value(2)), Judged::Fresh);
        assert_eq!(ledger.judge(0, acked, value(3)), Judged::NeverWritten);
        assert_eq!(ledger.judge(0, acked, Shown::Nothing), Judged::Old);
        let turn = ledger.begin(0, Write::Put).unwrap();
        assert_eq!(ledger.judge(0, acked, value(3)), Judged::Fresh, "it is under way");
        ledger.settle(turn, Write::Put, Fate::Short);
        assert_eq!(ledger.judge(0, ledger.acked(0), value(2)), Judged::Fresh, "a short write may be missed");
    }

    #[test]
    fn a_key_that_was_deleted_shows_nothing_until_it_is_written_again() {
        let ledger = Ledger::new(1, 1);
        write(&ledger, Write::Put, Fate::Acked);
        write(&ledger, Write::Del, Fate::Acked);
        let acked = ledger.acked(0);
        assert_eq!(ledger.judge(0, acked, Shown::Nothing), Judged::Fresh);
        assert_eq!(ledger.judge(0, acked, value(1)), Judged::Old, "a delete came undone");
        assert!(!ledger.is_there(0, acked));
        write(&ledger, Write::Put, Fate::Acked);
        assert_eq!(ledger.judge(0, ledger.acked(0), Shown::Nothing), Judged::Old);
        assert_eq!(ledger.judge(0, acked, Shown::Nothing), Judged::Fresh, "for a read that began before");
        assert!(ledger.is_there(0, ledger.acked(0)));
    }

    #[test]
    fn what_is_in_doubt_may_surface_at_any_time() {
        let ledger = Ledger::new(1, 1);
        write(&ledger, Write::Put, Fate::Unknown);
        write(&ledger, Write::Put, Fate::Acked);
        write(&ledger, Write::Put, Fate::Acked);
        let acked = ledger.acked(0);
        assert_eq!(ledger.judge(0, acked, value(1)), Judged::Fresh);
        assert_eq!(ledger.judge(0, acked, value(2)), Judged::Old);
        assert_eq!(ledger.judge(0, acked, Shown::Nothing), Judged::Old);
        write(&ledger, Write::Del, Fate::Unknown);
        write(&ledger, Write::Put, Fate::Acked);
        assert_eq!(ledger.judge(0, ledger.acked(0), Shown::Nothing), Judged::Fresh);
    }

    #[test]
    fn what_another_run_left_is_old_once_this_one_has_written() {
        let ledger = Ledger::new(1, 1);
        let left = Shown::Value(Stamp { run: 9, key: 0, client: 0, sequence: 500 });
        assert_eq!(ledger.judge(0, 0, left), Judged::Fresh);
        write(&ledger, Write::Put, Fate::Acked);
        assert_eq!(ledger.judge(0, ledger.acked(0), left), Judged::Old);
    }

    #[test]
    fn a_key_that_is_being_written_is_passed_over() {
        let ledger = Ledger::new(1, 3);
        let turns: Vec<Turn> = (0..3).map(|_| ledger.begin(2, Write::Put).unwrap()).collect();
        assert_eq!(turns.iter().map(|turn| turn.key).collect::<Vec<_>>(), [2, 0, 1]);
        assert!(ledger.begin(0, Write::Put).is_none());
        for turn in turns {
            ledger.settle(turn, Write::Put, Fate::NotDone);
        }
        assert_eq!(ledger.begin(1, Write::Put).map(|turn| turn.sequence), Some(2));
    }

    proptest! {
        /// A register that keeps every promise is never blamed, whatever becomes of its writes.
        #[test]
        fn an_honest_register_is_never_blamed(steps in prop::collection::vec((any::<bool>(), 0u8..4, any::<bool>()), 1..60)) {
            let ledger = Ledger::new(1, 1);
            let mut shown = Shown::Nothing;
            let mut late: Vec<Shown> = Vec::new();
            for (deletes, fate, surfaces) in steps {
                let before = ledger.acked(0);
                prop_assert_eq!(ledger.judge(0, before, shown), Judged::Fresh);
                let what = if deletes { Write::Del } else { Write::Put };
                let turn = ledger.begin(0, what).unwrap();
                let leaves = if deletes { Shown::Nothing } else { value(turn.sequence) };
                prop_assert_eq!(ledger.judge(0, before, leaves), Judged::Fresh);
                let fate = [Fate::Acked, Fate::Unknown, Fate::NotDone, Fate::Acked][usize::from(fate)];
                match fate {
                    Fate::Acked => shown = leaves,
                    Fate::Unknown => late.push(leaves),
                    _ => {}
                }
                ledger.settle(turn, what, fate);
                if surfaces && let Some(surfaced) = late.pop() {
                    shown = surfaced;
                }
            }
        }
    }
}
