//! Verbs: how two nodes find where their copies differ, and make them equal by sending only that.

mod forgetting;
mod intake;
#[cfg(test)]
mod laws;
mod options;
mod purpose;
mod report;
mod schedule;
mod session;
mod stream;

pub use forgetting::{FORGET_KEYS_MAX, Forget, Forgotten};
pub use intake::Intake;
pub use options::SessionOptions;
pub use report::{Cause, Report};
pub use schedule::{AFTER_HINTS_MS, FIRST_AFTER_MS_MAX, Schedule};
pub use session::{CONFIRM_MS, Session};
