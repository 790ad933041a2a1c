//! Seam: what this node knows of the others.
//!
//! Knowledge, not agreement: who may own what is the layout's business (`placement`). [`Liveness`] is what the members
//! together hold of each, [`View`] what this node makes of it: a peer is *alive* until nobody hears it, then *suspect*,
//! then *down*. Anything but alive only redirects: the peer is asked last, and stand-ins are asked to keep its writes
//! meanwhile.
//!
//! A node also knows by its peers whether it is whole ([`Filling`]): they remember the lives of the others ([`Memory`]).

mod chance;
mod clocks;
mod filling;
mod life;
mod liveness;
mod register;
mod view;

pub use clocks::{ClockState, Clocks, OwnTime};
pub use filling::{Filling, Lack, Stage, Why, Word};
pub use life::{Life, Memory};
pub use liveness::{Change, Liveness, PACKET_BYTES_MAX, Pace, Packet};
pub use register::{NoVote, Register, Round};
pub use view::{PEER_FAILURES_UNTIL_SUSPECT, Peer, State, Transition, View};
