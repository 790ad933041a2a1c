//! What became of a command, for people and for scripts: the one table of exit codes.

use kringle::remote::Failure;
use std::fmt::Display;
use std::process::ExitCode;

/// The exit codes. `kringlectl --help` lists them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Done; of `health` and `status`: healthy.
    Ok = 0,
    /// Something nobody foresaw.
    Unexpected = 1,
    /// What was typed, or what was given to read, makes no sense.
    Usage = 2,
    /// There is no such key.
    NotFound = 3,
    /// A condition is not true, or several values are there where one was asked for.
    Conflict = 4,
    /// Nobody answers, or fewer owners than wanted; of `health` and `status`: down.
    Unavailable = 5,
    /// Not within the time: what was asked may have been done.
    TimedOut = 6,
    /// It is not allowed.
    NotAllowed = 7,
    /// Of `health` and `status`: it works, but not all of it.
    Degraded = 8,
}

/// The table for `--help`.
pub const TABLE: &str = "\
Exit codes:
  0  done; health, status: healthy
  1  unexpected failure
  2  wrong usage or input
  3  key not found
  4  conflict: a condition that is not true, or siblings where one value was asked for
  5  unavailable: nobody answers, or too few owners; health, status: down
  6  no answer in time: the outcome of a write is unknown
  7  not allowed
  8  health, status: degraded";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command did not do what it should.
#[derive(Debug)]
pub struct Failed {
    /// The exit code.
    pub exit: Exit,
    /// What happened.
    pub error: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failed {
    /// A failure without a hint.
    pub fn new(exit: Exit, error: impl Display) -> Failed {
        Failed { exit, error: error.to_string(), hint: None }
    }

    /// What was typed or read makes no sense.
    pub fn usage(error: impl Display) -> Failed {
        Failed::new(Exit::Usage, error)
    }

    /// With what to do about it.
    pub fn hint(mut self, hint: impl Display) -> Failed {
        self.hint = Some(hint.to_string());
        self
    }

    /// Says it on standard error.
    pub fn tell(&self) -> ExitCode {
        eprintln!("kringlectl: {}", self.error);
        if let Some(hint) = &self.hint {
            eprintln!("hint: {hint}");
        }
        self.exit.into()
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Failed {
        let exit = match &failure {
            Failure::Unreachable { .. } => Exit::Unavailable,
            Failure::Unknown { .. } => Exit::TimedOut,
            Failure::Broken { .. } => Exit::Unavailable,
            Failure::Garbled { .. } => Exit::Unexpected,
            Failure::Refused { status, .. } => match status.as_u16() {
                404 => Exit::NotFound,
                409 | 412 => Exit::Conflict,
                401 | 403 => Exit::NotAllowed,
                408 | 504 => Exit::TimedOut,
                429 | 500..=599 => Exit::Unavailable,
                _ => Exit::Usage,
            },
        };
        let hint = failure.hint().map(str::to_owned);
        Failed { exit, error: failure.to_string(), hint }
    }
}

/// Reading and writing on this machine.
impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Failed {
        // Whoever closed our output does not want to read more.
        let exit = if error.kind() == std::io::ErrorKind::BrokenPipe { Exit::Ok } else { Exit::Unexpected };
        Failed::new(exit, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_code() {
        for code in 0..=8 {
            assert!(TABLE.contains(&format!("\n  {code}  ")), "{code}");
        }
    }
}
