//! Nouns: what is stored, and how two copies of it become one.

mod codec;
mod context;
mod key;
#[allow(clippy::module_inception)]
mod record;
mod stamp;
mod token;
mod wire;

pub(crate) use codec::{CHECKSUM_BYTES, checksum};
pub use codec::{Row, RowError};
pub use context::{Actor, Ballot, Context, Dot};
pub use key::{KEY_BYTES_MAX, Key, KeyError, Position};
pub use record::{CONTENT_TYPE_BYTES_MAX, Content, Record, SIBLINGS_MAX, Seen, Sibling, TooManySiblings, Version};
pub use stamp::{Clock, STAMP_AHEAD_MAX_MS, Stamp, StampAhead};
pub(crate) use wire::blob;

pub use token::{TokenError, context_from_token, context_to_token};
