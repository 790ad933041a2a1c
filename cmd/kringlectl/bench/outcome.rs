//! What became of one request. Only an answer that was read to its end and found right counts as one.

use super::ledger::Judged;

/// Why an answer is a lie.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Wrong {
    /// Older than what had been acknowledged before the read began, where that is promised not to be.
    Stale,
    /// What was never written under this key.
    Foreign,
    /// A value that is not whole.
    Torn,
    /// A key that a list leaves out, an increment that a counter does.
    Lost,
    /// Not in the form in which a node answers.
    Garbled,
}

impl Wrong {
    /// All of them, in the order of their numbers.
    pub const ALL: [Wrong; 5] = [Wrong::Stale, Wrong::Foreign, Wrong::Torn, Wrong::Lost, Wrong::Garbled];

    /// Its word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Wrong::Stale => "stale",
            Wrong::Foreign => "foreign",
            Wrong::Torn => "torn",
            Wrong::Lost => "lost",
            Wrong::Garbled => "garbled",
        }
    }
}

/// Why there is no answer to check.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Failed {
    /// A node said that it cannot: 429, or 500 and above. A write may have been done all the same.
    Refused,
    /// A node said that this makes no sense: 400 and above.
    Rejected,
    /// Not within the time.
    TimedOut,
    /// No endpoint could be asked.
    Unreachable,
    /// It was sent, and the connection broke.
    Unknown,
    /// It was due in an open loop, and no client was free for it until the end.
    Unsent,
    /// The bench was stopped before there was an answer.
    Abandoned,
}

impl Failed {
    /// All of them, in the order of their numbers.
    pub const ALL: [Failed; 7] = [
        Failed::Refused,
        Failed::Rejected,
        Failed::TimedOut,
        Failed::Unreachable,
        Failed::Unknown,
        Failed::Unsent,
        Failed::Abandoned,
    ];

    /// Its word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Failed::Refused => "refused",
            Failed::Rejected => "rejected",
            Failed::TimedOut => "timed_out",
            Failed::Unreachable => "unreachable",
            Failed::Unknown => "unknown",
            Failed::Unsent => "unsent",
            Failed::Abandoned => "abandoned",
        }
    }
}

/// An answer that was found right.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Verified {
    /// What it told of: 1, the lines of a batch, the keys on a page.
    pub items: u64,
    /// Reads among them of keys without a value.
    pub misses: u64,
    /// Reads among them that showed something old, where nothing else is promised.
    pub old: u64,
    /// Bytes of values written.
    pub bytes_written: u64,
    /// Bytes of values read.
    pub bytes_read: u64,
}

/// What became of one request; what is no success says why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Right.
    Verified(Verified),
    /// A lie.
    Wrong(Wrong, String),
    /// Nothing to check.
    Failed(Failed, String),
}

/// What one read of a key comes to: old where that is allowed, or a lie.
pub fn of_read(judged: Judged, fresh_is_promised: bool) -> Result<u64, Wrong> {
    match judged {
        Judged::Fresh => Ok(0),
        Judged::Old if fresh_is_promised => Err(Wrong::Stale),
        Judged::Old => Ok(1),
        Judged::NeverWritten => Err(Wrong::Foreign),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_stands_at_its_number() {
        assert!(Wrong::ALL.into_iter().enumerate().all(|(number, wrong)| wrong as usize == number));
        assert!(Failed::ALL.into_iter().enumerate().all(|(number, failed)| failed as usize == number));
    }

    #[test]
    fn old_is_a_lie_only_where_fresh_is_promised() {
        assert_eq!(of_read(Judged::Old, true), Err(Wrong::Stale));
        assert_eq!(of_read(Judged::Old, false), Ok(1));
        assert_eq!(of_read(Judged::NeverWritten, false), Err(Wrong::Foreign));
        assert_eq!(of_read(Judged::Fresh, true), Ok(0));
    }
}
