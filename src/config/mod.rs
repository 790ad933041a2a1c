//! Settings: what the operator wants, from three layers, checked once.
//!
//! ```text
//!   default  <  file (--config)  <  environment (KRINGLE_…)  <  flags
//! ```
//!
//! [`SETTINGS`] is the one table of what can be set. The command line, the names of environment variables, the
//! keys of a file and the help are all made from it, every layer hands over plain text, and one parser per
//! setting reads that text whichever layer it came from: a setting cannot be known in one layer and forgotten
//! in another, and it cannot mean two things. [`Settings::load`] asserts that each row was read.
//!
//! What comes out is valid by construction: nothing behind this door checks a setting again. What is refused is
//! refused in one line that names the layer, the setting and the text ([`ConfigError`]). Names nobody knows are
//! refused in every layer, for a misspelt setting that is ignored is a setting at its default.

mod durability;
mod error;
mod help;
mod host;
mod layers;
mod peer_url;
mod peers;
mod setting;
mod settings;
mod text;
mod wanted;

pub use durability::Durability;
pub use error::{ConfigError, Nonsense, Origin};
pub use host::Host;
pub use layers::Source;
pub use peer_url::{PORT_DEFAULT, PeerUrl};
pub use peers::{Lookup, Peers};
pub use setting::{Fallback, Heading, SETTINGS, Setting};
pub use settings::{Advertise, DataFolder, Health, Load, LogFormat, REPLICAS_MAX, Settings, VALUE_BYTES_MAX};
pub use text::zone;
pub use wanted::Wanted;
