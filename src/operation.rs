//! The shape of every asking machine: told events, it says calls, and concludes once.
//!
//! A machine knows no clock, no network and no thread. One driver runs them all: asynchronous in `node`,
//! synchronous and seeded in `tests/sim`. After its conclusion a machine may keep listening, which is how late
//! answers become hints and repairs.

use crate::placement::MemberIndex;
use crate::protocol::{Answer, Refusal, Request};

/// Which of a machine's calls an event belongs to. Counted up from 0 by the machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallId(pub u32);

/// What a machine is told.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// Begin. Told once, first.
    Start,
    /// A call was answered.
    Answered {
        /// Which.
        call: CallId,
        /// With what.
        answer: Answer,
    },
    /// A call failed; told at most once, and never after an answer.
    Failed {
        /// Which.
        call: CallId,
        /// How.
        failure: Failure,
    },
    /// The time asked for with [`Command::Wake`] has passed.
    Woken,
    /// The request's deadline: conclude now, with what is known.
    Deadline,
}

/// How a call came to nothing.
#[derive(Clone, PartialEq, Debug)]
pub enum Failure {
    /// The node said no; nothing was changed there, unless the refusal says otherwise.
    Refused(Refusal),
    /// The call never left, or no connection was had: surely nothing happened.
    Unreachable,
    /// It was sent and no answer came: it may have happened.
    Unknown,
}

/// What a machine wants done.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// Ask a member of the ring the machine was given.
    Call {
        /// The name the answer will carry.
        call: CallId,
        /// Whom; itself is asked the same way.
        to: MemberIndex,
        /// What.
        request: Request,
    },
    /// Tell [`Event::Woken`] after this many milliseconds. A later wish replaces an earlier one.
    Wake {
        /// How long.
        after_ms: u64,
    },
}

/// A machine. Dropped by its driver when [`Operation::is_done`].
pub trait Operation {
    /// What it concludes with.
    type Output;

    /// Whether it hands a new write to its owners: until it is done, sessions leave that write to it.
    const DELIVERS: bool = false;

    /// Whether no client waits for it: the records it moves give way to clients' requests.
    const IN_BACKGROUND: bool = false;

    /// Takes one event, appends what it wants done to `commands`, and returns the conclusion the one time it is
    /// reached.
    fn on(&mut self, event: Event, commands: &mut Vec<Command>) -> Option<Self::Output>;

    /// Whether it has concluded and waits for nothing more.
    fn is_done(&self) -> bool;

    /// How many copies it has sent to nodes that it found behind, once it is done.
    fn repairs(&self) -> u64 {
        0
    }

    /// How many nodes it has asked because others were slow, once it is done.
    fn hedges(&self) -> u64 {
        0
    }
}
