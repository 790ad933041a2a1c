//! A key, checked once at the door, and the place it hashes to.

use bytes::Bytes;
use std::fmt;

/// Shortest and longest key any node will ever take, in bytes. An operator may lower the upper bound
/// (`--key-max`), never raise it: rows and logs are dimensioned for it.
pub const KEY_BYTES_MAX: usize = 4096;

/// Where a key stands in the 64-bit position space: the first 8 bytes, big-endian, of BLAKE3(key).
/// Positions are spread evenly whatever the keys look like, so equal slices of the space hold equal shares.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Position(pub u64);

impl Position {
    /// The position of raw key bytes. One BLAKE3 of the key, about 0.1 µs for short keys.
    pub fn of(key: &[u8]) -> Position {
        let hash = blake3::hash(key);
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_bytes()[..8]);
        Position(u64::from_be_bytes(first))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A key: 1 to [`KEY_BYTES_MAX`] arbitrary bytes, with its [`Position`] computed once. Cheap to clone.
#[derive(Clone)]
pub struct Key {
    bytes: Bytes,
    position: Position,
}

/// Why bytes are not a key. Nothing was changed; retrying the same key fails the same way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// The key has no bytes.
    #[error("the key is empty")]
    Empty,
    /// The key is longer than the limit.
    #[error("the key has {bytes} bytes, more than the limit of {max}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

impl Key {
    /// Checks `bytes` against the hard limit and copies nothing.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Key, KeyError> {
        Key::within(bytes, KEY_BYTES_MAX)
    }

    /// Checks `bytes` against an operator's limit of `max` bytes, itself at most [`KEY_BYTES_MAX`].
    pub fn within(bytes: impl Into<Bytes>, max: usize) -> Result<Key, KeyError> {
        let bytes = bytes.into();
        let max = max.min(KEY_BYTES_MAX);
        match bytes.len() {
            0 => Err(KeyError::Empty),
            n if n > max => Err(KeyError::TooLong { bytes: n, max }),
            _ => Ok(Key { position: Position::of(&bytes), bytes }),
        }
    }

    /// The bytes as the client gave them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the key stands on the ring.
    pub fn position(&self) -> Position {
        self.position
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.position == other.position && self.bytes == other.bytes
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> std::cmp::Ordering {
        self.bytes.cmp(&other.bytes)
    }
}

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.position.0.hash(state);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.bytes.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_from_one_byte_to_the_limit_and_no_further() {
        assert_eq!(Key::new(vec![]).unwrap_err(), KeyError::Empty);
        assert!(Key::new(vec![0]).is_ok());
        assert!(Key::new(vec![b'k'; KEY_BYTES_MAX]).is_ok());
        assert_eq!(Key::new(vec![0; 4097]).unwrap_err(), KeyError::TooLong { bytes: 4097, max: 4096 });
        assert_eq!(Key::within(vec![0; 5], 4).unwrap_err(), KeyError::TooLong { bytes: 5, max: 4 });
    }

    #[test]
    fn the_position_of_a_key_never_changes() {
        // Placement on disk depends on these bytes: a change here moves every key of every cluster.
        assert_eq!(Position::of(b"hello").to_string(), "ea8f163db38682925e4491c5e58d4bb3"[..16]);
    }
}
