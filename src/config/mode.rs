//! The mode a cluster begins with.

use super::Nonsense;
use std::fmt;
use std::str::FromStr;

/// What a write waits for and a read asks, where the request names no mode of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// A majority of the owners, stand-ins where some cannot be reached.
    Sloppy,
    /// The coordinator alone; the rest follows.
    Async,
}

impl FromStr for Mode {
    type Err = Nonsense;

    fn from_str(text: &str) -> Result<Mode, Nonsense> {
        match text {
            "sloppy" => Ok(Mode::Sloppy),
            "async" => Ok(Mode::Async),
            _ => Err(Nonsense::new(text, "is not a mode: sloppy or async")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Sloppy => "sloppy",
            Mode::Async => "async",
        })
    }
}
