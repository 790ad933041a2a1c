//! Verbs: how a node follows what all members tell, and brings it into one order for those who watch.
//!
//! Each change is told by the one node that made it ([`crate::storage::Feed`]). A [`Hub`] is told pages of all feeds, and says what
//! to ask next and what to tell; [`Positions`] are where it is in each of them, and the word by which a client goes on from
//! there, on whatever node.

mod hub;
#[cfg(test)]
mod laws;
mod positions;
mod remembered;
mod source;
mod tidings;

pub use hub::{Ask, Hub};
pub use positions::{NoPosition, Position, Positions};
pub use tidings::{Telling, Tidings, Why};
