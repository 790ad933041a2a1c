//! Seam: where records are kept, and the one path by which they change.

mod change;

pub use change::{Change, MemberName, Outcome, Refused};
