//! Nouns: what is stored, and how two copies of it become one.

mod codec;
mod consensus;
mod context;
mod counter;
mod edit;
mod forgetting;
mod key;
#[allow(clippy::module_inception)]
mod record;
mod sketch;
mod stamp;
mod token;
mod wire;

pub(crate) use codec::{CHECKSUM_BYTES, checksum};
pub use codec::{Row, RowError};
pub use consensus::{Condition, Proposal, Tag, Unmet};
pub use context::{Actor, Ballot, Context, Dot};
pub use counter::{REMEMBERED_MS, REQUESTS_MAX, RequestId};
pub use edit::{Edit, SIBLINGS_MAX, Seen, Unfit};
pub use forgetting::{CONTEXT_ENTRIES_FEW, Due};
pub use key::{KEY_BYTES_MAX, Key, KeyError, Position};
pub use record::{CONTENT_TYPE_BYTES_MAX, Content, ContentKind, Record, Sibling, Version};
pub use stamp::{Clock, STAMP_AHEAD_MAX_MS, Stamp, StampAhead};
pub(crate) use wire::blob;

pub use token::{TokenError, context_to_token, seen_from_token, seen_to_token};
