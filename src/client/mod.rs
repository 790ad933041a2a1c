//! A client's wish becomes an operation, whatever language the client speaks; its outcome is told in values.
//!
//! | file | for |
//! | --- | --- |
//! | `terms` | how far a write is to get, and whom a read is to ask |
//! | `write` | writes |
//! | `read` | reads |
//! | `list` | lists of keys |
//! | `seat` | places for what holds much memory while it is made |
//! | `agree` | both in the modes that agree |
//! | `between` | those that meet a change of the layout |
//! | `error` | what can keep a wish from being fulfilled |

mod agree;
mod between;
mod error;
mod list;
mod read;
mod seat;
mod terms;
mod write;

pub use error::Error;
pub use list::{ListTerms, Listed, Listing};
pub use read::{Read, one_is_enough, read, read_at_hand};
pub use seat::Seat;
pub use terms::{ReadTerms, WriteTerms};
pub use write::{Stored, StoredKind, write};
