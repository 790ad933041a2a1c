//! The mode: what a cluster promises about a write or a read when its request doesn't say.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A cluster's default promise. Stored by number, in this order: add new ones at the end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A majority of the owners, stand-ins taking hints for those out of reach. Never refuses while a node lives.
    #[default]
    Sloppy,
    /// The coordinator alone, the others later. The lowest latency.
    Async,
    /// Consensus of a majority of the owners, for each key.
    Quorum,
    /// The same, accepted by every owner.
    Sync,
    /// The same, accepted by every owner in the order of the ring, and read from the last.
    Chain,
}

impl Mode {
    /// Every mode, in the order of their numbers.
    pub const ALL: [Mode; 5] = [Mode::Sloppy, Mode::Async, Mode::Quorum, Mode::Sync, Mode::Chain];

    /// Its name in arguments, URLs and settings: one lower-case word.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Sloppy => "sloppy",
            Mode::Async => "async",
            Mode::Quorum => "quorum",
            Mode::Sync => "sync",
            Mode::Chain => "chain",
        }
    }

    /// Whether it agrees by consensus: linearizable for each key, and refused where too few owners can be had.
    pub fn agrees(self) -> bool {
        matches!(self, Mode::Quorum | Mode::Sync | Mode::Chain)
    }
}

/// A word that names no mode. Nothing was changed; the message lists the words that do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there is no mode {word:?}; the modes are {}", Mode::ALL.map(Mode::name).join(", "))]
pub struct NoSuchMode {
    /// The word that was given.
    pub word: String,
}

impl FromStr for Mode {
    type Err = NoSuchMode;

    fn from_str(word: &str) -> Result<Mode, NoSuchMode> {
        let named = |mode: &Mode| mode.name() == word;
        Mode::ALL.into_iter().find(named).ok_or_else(|| NoSuchMode { word: word.to_owned() })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_is_read_back_from_its_name() {
        for mode in Mode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
            assert_eq!(serde_json::to_string(&mode).unwrap(), format!("\"{mode}\""));
        }
    }

    #[test]
    fn an_unknown_word_is_told_the_modes() {
        let error = "eventual".parse::<Mode>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no mode \"eventual\"; the modes are sloppy, async, quorum, sync, chain"
        );
    }
}
