//! How many owners must answer.

use super::Nonsense;
use std::fmt;
use std::str::FromStr;

/// How many owners a write (`--w`) or a read (`--r`) waits for. Owners only: stand-ins never count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// More than half of the owners there are.
    Majority,
    /// Exactly so many, at least 1 and at most `--replicas`.
    Owners(usize),
}

impl Wanted {
    /// The count for a key that has `owners` owners. A stated number stays what was stated even where a young
    /// cluster has fewer owners: the answer then says that fewer were reached, instead of lowering the wish.
    pub fn of(self, owners: usize) -> usize {
        match self {
            Wanted::Majority => owners / 2 + 1,
            Wanted::Owners(count) => count,
        }
    }
}

impl FromStr for Wanted {
    type Err = Nonsense;

    fn from_str(text: &str) -> Result<Wanted, Nonsense> {
        match text {
            "majority" => Ok(Wanted::Majority),
            _ => match text.parse() {
                Ok(count) if count >= 1 => Ok(Wanted::Owners(count)),
                _ => Err(Nonsense::new(text, "is not \"majority\" or a number of owners from 1 to --replicas")),
            },
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Majority => f.write_str("majority"),
            Wanted::Owners(count) => count.fmt(f),
        }
    }
}
