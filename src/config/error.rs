//! Why settings were refused: always one line, always with the place to mend.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Longest part of a refused text that an error repeats, in characters: a line must stay a line.
const TEXT_CHARS_SHOWN: usize = 80;

/// The layer a value came from. Later ones outrank earlier ones.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Nobody said anything: the default of [`super::SETTINGS`].
    Default,
    /// The file named by `--config`.
    File {
        /// Its path, as given.
        path: Arc<str>,
        /// The line of the key, from 1.
        line: usize,
    },
    /// The variable `KRINGLE_…`.
    Environment,
    /// A flag.
    Flag,
}

impl Origin {
    /// The setting `name` as it is spelt where this value came from.
    pub fn place(&self, name: &str) -> String {
        match self {
            Origin::Default => format!("default of --{name}"),
            Origin::File { path, line } => format!("{path}:{line}: {name}"),
            Origin::Environment => format!("environment {}", variable(name)),
            Origin::Flag => format!("--{name}"),
        }
    }

    /// Which layer, by height, for deciding between two settings that answer the same question.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Origin::Default => 0,
            Origin::File { .. } => 1,
            Origin::Environment => 2,
            Origin::Flag => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{path}:{line}"),
            Origin::Environment => f.write_str("environment"),
            Origin::Flag => f.write_str("flag"),
        }
    }
}

/// The environment variable of a setting: `value-max` is `KRINGLE_VALUE_MAX`.
pub(super) fn variable(name: &str) -> String {
    format!("KRINGLE_{}", name.to_ascii_uppercase().replace('-', "_"))
}

/// A text that is not a value: what was given, and what is wrong with it. Shown as `"abc" is not a number`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nonsense {
    text: String,
    because: Cow<'static, str>,
}

impl Nonsense {
    /// `because` continues a sentence whose subject is the text.
    pub(super) fn new(text: &str, because: impl Into<Cow<'static, str>>) -> Nonsense {
        Nonsense { text: text.to_owned(), because: because.into() }
    }
}

impl fmt::Display for Nonsense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown: String = self.text.chars().take(TEXT_CHARS_SHOWN).collect();
        if shown.len() < self.text.len() {
            shown.push('…');
        }
        // Debug quotes and escapes: a line break in a value must not become one in the error.
        write!(f, "{shown:?} {}", self.because)
    }
}

impl std::error::Error for Nonsense {}

/// Why there are no settings. Nothing was opened or bound; the operator mends the named place and starts again.
/// Every variant shows as a single line that begins with the program's name; the exit code is 2.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line has an unknown flag or subcommand, a flag twice, or a flag without its value: what the
    /// parser of arguments says.
    #[error("kringle: {0}")]
    Arguments(String),
    /// A value is nonsense, out of range, or contradicts another one.
    #[error("kringle: {}: {nonsense}", origin.place(setting))]
    Value {
        /// The setting, by its row in the table.
        setting: &'static str,
        /// The layer the value came from.
        origin: Origin,
        /// The value, and what is wrong with it.
        nonsense: Nonsense,
    },
    /// A file's key or an environment variable that names no setting.
    #[error("kringle: {place}: no such setting{}", did_you_mean(suggestion))]
    Unknown {
        /// The key with its file and line, or the variable.
        place: String,
        /// The nearest name that exists, if one is near.
        suggestion: Option<String>,
    },
    /// The file cannot be read, or is not TOML.
    #[error("kringle: {place}: {reason}")]
    File {
        /// The file, with the line where there is one; or whoever named a file that cannot be read.
        place: String,
        /// What the operating system or the TOML parser says.
        reason: String,
    },
}

pub(super) fn did_you_mean(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

/// Any text as one printable line.
pub(super) fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
