//! Nouns: what is stored, and how two copies of it become one.

mod key;

pub use key::{KEY_BYTES_MAX, Key, KeyError, Position};
