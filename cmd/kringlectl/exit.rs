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
    /// Of `health` and `status`: it works, but not all of it. Of `sync diff`: the two are not equal. Of `export`, `backup` and
    /// `restore`: done, but something may be missing.
    Degraded = 8,
    /// Somebody pressed Ctrl-C.
    Interrupted = 130,
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
  8  health, status: degraded; sync diff: not equal; export, backup, restore: something may be missing
  130  interrupted";

impl Exit {
    /// What a node's answer comes to, by its status.
    pub fn of_status(status: u16) -> Exit {
        match status {
            200..=299 => Exit::Ok,
            404 => Exit::NotFound,
            409 | 412 => Exit::Conflict,
            401 | 403 => Exit::NotAllowed,
            408 | 504 => Exit::TimedOut,
            429 | 500..=599 => Exit::Unavailable,
            _ => Exit::Usage,
        }
    }
}

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

    /// Says it on standard error, unless nothing went wrong but that nobody reads on.
    pub fn tell(&self) -> ExitCode {
        if self.exit != Exit::Ok {
            talk!("kringlectl: {}", self.error);
            if let Some(hint) = &self.hint {
                talk!("hint: {hint}");
            }
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
            Failure::Refused { status, .. } => Exit::of_status(status.as_u16()),
        };
        let hint = match &failure {
            Failure::Unreachable { .. } => Some("name nodes with --endpoint, KRINGLE_ENDPOINTS or kringlectl context"),
            Failure::Unknown { .. } => Some("look how it is before you rely on either outcome, or ask again"),
            other => other.hint(),
        };
        let hint = hint.map(str::to_owned);
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
    fn every_kind_of_refusal_has_its_code() {
        let cases = [
            (404, Exit::NotFound),
            (409, Exit::Conflict),
            (412, Exit::Conflict),
            (403, Exit::NotAllowed),
            (504, Exit::TimedOut),
            (429, Exit::Unavailable),
            (503, Exit::Unavailable),
            (507, Exit::Unavailable),
            (413, Exit::Usage),
        ];
        for (status, exit) in cases {
            assert_eq!(Exit::of_status(status), exit, "{status}");
        }
    }

    #[test]
    fn the_table_names_every_code() {
        for code in 0..=8 {
            assert!(TABLE.contains(&format!("\n  {code}  ")), "{code}");
        }
    }
}
