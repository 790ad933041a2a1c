//! Seam: what this node knows of the others.
//!
//! Knowledge, not agreement: who may own what is the layout's business (`placement`). A peer is *alive* until it
//! has been silent, *suspect* after a failed ping, *down* after several. Being down only redirects: the peer is
//! asked last, and stand-ins are asked to keep its writes meanwhile.
//!
//! A node also knows by its peers whether it is whole ([`Filling`]): they remember the lives of the others ([`Memory`]).

mod clocks;
mod filling;
mod life;
mod view;

pub use clocks::Clocks;
pub use filling::{Filling, Stage, Why, Word};
pub use life::{Life, Memory, REMEMBERED_EVERY_MS};
pub use view::{PEER_FAILURES_UNTIL_DOWN, Peer, State, Transition, View};
