//! Verbs: how two nodes find where their copies differ, and make them equal by sending only that.

#[cfg(test)]
mod laws;
mod report;
mod session;

pub use report::{Cause, Report};
pub use session::{CONFIRM_MS, Session, SessionOptions};
