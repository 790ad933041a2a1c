//! Seam: everything peers may say to each other, how it is written, and how it is refused.
//!
//! Peers speak the same endpoints as people, in a language of their own: `application/vnd.kringle`. One HTTP
//! request carries a [`Batch`], one response a [`Reply`] with an answer for each request, in order.

mod codec;
mod copies;
mod feed;
mod lane;
mod layout;
mod list;
mod message;
mod refusal;
mod sync;
mod version;

pub use codec::{MalformedMessage, wire_bytes};
pub use copies::{COPIES_BYTES, COPIES_BYTES_MAX, Copies, CopiesFrom, Portion};
pub use feed::{ChangeKind, FeedEntry, FeedOf, FeedPage, FeedPlace, Follow, News, PREFIXES_MAX, ToldChange, ToldEvent};
pub use lane::Lane;
pub use layout::{LayoutAnswer, LayoutRequest, LayoutWish, Progress, ROUNDS_MAX};
pub use list::{Filter, LIST_BYTES_MAX, LIST_KEYS_MAX, LISTS_PER_BATCH_MAX, ListAnswer, ListEntry, ListRequest, Place};
pub use message::{
    Answer, Batch, Decision, Envelope, Evidence, FORGET_KEYS_MAX, Greeting, PACKETS_MAX, Part, REQUESTS_PER_BATCH_MAX,
    Reach, Reply, Request, SeenGroups,
};
pub use refusal::Refusal;
pub use sync::{Bed, Difference, KeyEntry, Lacking, Leaves, Listed, MemberTag, SyncAnswer, SyncRequest};
pub use version::{PREVIOUS_VERSION, PROTOCOL_VERSION, ProtocolVersion};

/// The media type of peer messages.
pub const MEDIA_TYPE: &str = "application/vnd.kringle";
