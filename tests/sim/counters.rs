//! What a run has come across: a state that no run ever reaches is a state that no run tests.

use std::collections::BTreeMap;

/// States worth reaching. None may be left at zero over the default run.
pub(crate) const SOMETIMES: &[&str] = &[
    "stored",
    "short write",
    "unknown write",
    "refused write",
    "delete stored",
    "write with a context",
    "write with a context and a dot",
    "read with a context",
    "read refused rather than stale",
    "several siblings read",
    "hint kept",
    "hint handed over",
    "hint grew on its way",
    "read repair",
    "write made on a hint",
    "second round",
    "silent maker passed over",
    "late maker",
    "late maker refused",
    "overtaken, and asked again",
    "stand-in read",
    "unavailable read",
    "crash",
    "crash during a commit",
    "restart during a write",
    "torn commit gone",
    "unacknowledged commit found after a crash",
    "crash of all nodes",
    "connection refused",
    "request lost",
    "reply lost",
    "request repeated",
    "connection reset",
    "messages jammed",
    "batch of several",
    "group commit",
    "one-way cut",
    "partition",
    "one node alone",
    "minority and majority",
    "split three ways",
    "two halves share a node",
    "crash during a partition",
    "pause",
    "full disk",
    "refused by a full disk",
    "sync failed",
    "refused by a fence",
    "clock stepped ahead",
    "clock stepped back",
    "clock an hour ahead",
    "clock back from an hour ahead",
    "clock stands still",
    "crash while the clock is behind",
    "message with a stamp from the future",
    "client with a context from the future",
    "stamp not believed",
    "write from the future refused",
    "checkpoint",
    "peer suspected",
    "peer down",
    "peer alive again",
    "crash during a session",
    "in a session already",
    "hints before a session",
    "hints elsewhere before a session",
    "write under way during a session",
    "session between equals",
    "session pushed a record",
    "session pulled a record",
    "session after a return",
    "session with a busy peer",
    "session failed",
    "session failed half-way",
    "session before the digests were built",
    "session moved what had come another way",
    "session settled concurrent writes",
    "write that one owner alone has",
    "took over what a peer had seen",
    "told that it has all that was made in its place",
    "asks whether what was seen before rot is so",
    "hints wait until their target says how it is",
    "peer no longer says what it had seen",
    "declined for a clock ahead",
    "increment",
    "increment of unknown fate counted",
    "value that expires",
    "forgotten by all owners",
    "owner that is not filled does not agree to forget",
    "owner that does not agree to forget",
    "nothing forgotten as an owner is away",
    "nothing forgotten before it was seen everywhere",
    "disk lost",
    "copy of a disk taken",
    "old disk put back",
    "emptied owner noticed",
    "old disk noticed",
    "new disk among peers that hold data",
    "stopped while it was filled",
    "emptied owner filled",
    "session to be filled",
    "answered by an owner that is not filled",
    "write passed on by an owner that is not filled",
    "read of owners that are not filled",
    "read refused by owners that are not filled",
    "batch for another store refused",
    "row rots",
    "hint rots",
    "log rots",
    "base rots",
    "row rots in the quiet",
    "rotten row met by a read",
    "rotten row met by a change",
    "rotten row met at a start",
    "rotten row met by a scrub",
    "rotten row that too few others answer for",
    "rotten row replaced",
    "digests that are not those of the rows",
    "rotten hint met",
    "rotten log met at a start",
    "owner that lost something to rot",
    "digests that cannot be built",
    "rotten base replaced",
    "row brought over from a rotten base",
];

/// States that should not be there at all, and are, for reasons told where they are counted.
const KNOWN_GAPS: &[&str] = &["superseded by an earlier write under a wrong clock", "hint refused by its target"];

/// How often each was.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counters(BTreeMap<&'static str, u64>);

impl Counters {
    pub(crate) fn hit(&mut self, name: &'static str) {
        assert!(SOMETIMES.contains(&name) || KNOWN_GAPS.contains(&name), "{name} is not in the list");
        *self.0.entry(name).or_default() += 1;
    }

    pub(crate) fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, other: &Counters) {
        for (name, count) in &other.0 {
            *self.0.entry(name).or_default() += count;
        }
    }

    pub(crate) fn never(&self) -> Vec<&'static str> {
        SOMETIMES.iter().copied().filter(|name| !self.0.contains_key(name)).collect()
    }
}
