//! Why something that was asked of the demo was not done, told by who should act.

use super::node::State;
use kringle::remote::Failure;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// One line for people.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nobody is called so.
    NoSuchNode(String),
    /// The node is not in the state that this takes.
    WrongState {
        /// Its number.
        node: u32,
        /// How it is.
        state: State,
        /// What to do about it.
        hint: &'static str,
    },
    /// There is no node that runs.
    NobodyRuns,
    /// The last member keeps all there is.
    LastNode(u32),
    /// All ports above the first one are taken.
    NoPort,
    /// There are too many nodes.
    TooMany(u32),
    /// A folder or a process could not be made.
    System {
        /// Of what.
        what: String,
        /// The reason.
        error: std::io::Error,
    },
    /// The node ended by itself.
    Ended {
        /// Its number.
        node: u32,
        /// The end of its log.
        words: String,
        /// The log.
        log: PathBuf,
    },
    /// It did not come about in time, and may yet.
    Late {
        /// What.
        what: String,
        /// How long it was waited for.
        limit: Duration,
        /// What was there instead.
        seen: String,
    },
    /// A node said no, or nothing.
    Asked(Failure),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::NoSuchNode(word) => write!(f, "no node is called {word}: take a number or a port from status"),
            Trouble::WrongState { node, state, hint } => write!(f, "node {node} is {state}: {hint}"),
            Trouble::NobodyRuns => f.write_str("no node runs: revive or resume one"),
            Trouble::LastNode(node) => {
                write!(f, "node {node} is the last that runs and keeps all there is: add one first")
            }
            Trouble::NoPort => f.write_str("no port is left: begin lower with --base-port"),
            Trouble::TooMany(most) => write!(f, "there are {most} nodes, the most there may be"),
            Trouble::System { what, error } => write!(f, "{what}: {error}"),
            Trouble::Ended { node, words, log } => {
                let words = if words.is_empty() { "without a word" } else { words };
                write!(f, "node {node} ended: {words} (its log is {})", log.display())
            }
            Trouble::Late { what, limit, seen } => {
                write!(f, "{what}: not within {} s, last seen: {seen}", limit.as_secs())
            }
            Trouble::Asked(failure) => match failure.hint() {
                Some(hint) => write!(f, "{failure}: {hint}"),
                None => write!(f, "{failure}"),
            },
        }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Asked(failure)
    }
}
