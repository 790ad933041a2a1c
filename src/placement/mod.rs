//! Nouns: who keeps what, as pure values computed from the layout alone.
//!
//! ```text
//! key ─▶ Position ─▶ Partition ─▶ owners ─▶ stand-ins         Layout: agreed on, numbered, stored
//!        64 bits     top 10       Ring: a table look-up        Ring: a layout made ready, never edited
//! ```
//!
//! The scheme is Dynamo's third (section 6.2): equal partitions that never move, and owners that do. Members walk
//! onto the ring by tokens ([`tokens`]); the table is levelled so that the fullest node stays within 1.10 of its
//! fair share, wherever whole slots and the sizes of zones allow it, and a join moves the newcomer's share and nothing
//! else, a leave the leaver's. A [`Transfer`] says what moved.
//!
//! Owners change in three epochs, so that no copy is asked for before it is there ([`Change`]):
//!
//! ```text
//! settled ──▶ filling ──▶ switched ──▶ settled        reads: old, old, new, new
//!    ▲           │ abandon                            writes: old, both, both, new
//!    └───────────┘
//! ```

mod balance;
mod change;
mod deal;
mod draft;
mod encoding;
mod fair;
mod founding;
mod identity;
mod layout;
mod member;
mod mode;
mod partition;
mod ring;
mod table;
mod token;
mod transfer;

#[cfg(test)]
mod laws;

pub use change::{Change, Phase};
pub use encoding::LAYOUT_BYTES_MAX;
pub use identity::{ClusterId, NodeId, NotAnId};
pub use layout::{Layout, LayoutError, MEMBERS_MAX, REPLICAS_MAX, WEIGHTS_MAX};
pub use member::{Member, MemberError, MemberIndex, MemberName, NAME_BYTES_MAX, WEIGHT_MAX, ZONE_BYTES_MAX};
pub use mode::{Mode, NoSuchMode};
pub use partition::{LEAVES, NoSuchPartition, PARTITIONS, Partition, leaf};
pub use ring::Ring;
pub use table::{Table, TableError};
pub use token::{TOKENS_PER_WEIGHT, tokens};
pub use transfer::{Move, Transfer};
