//! Lives: which store counted under a member's name, and how far it was known to have come.
//!
//! A member whose disk was lost or put back from a copy does not know it by itself. Its peers do: they remember under
//! which id, and up to which durable stamp, it last counted, and tell it when they meet.

use crate::placement::NodeId;
use crate::record::Stamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How far a member's stamp moves before it is remembered durably anew, in milliseconds. A peer that restarts may have
/// forgotten so much; a disk is seldom put back from a copy younger than this.
pub const REMEMBERED_EVERY_MS: u64 = 10_000;

/// One life of a member: the store that counts under its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Life {
    /// The id made with its data folder.
    pub id: NodeId,
    /// The highest stamp it announced as durable.
    pub stamp: Stamp,
}

/// What a node remembers of its peers' lives. Only lives that counted are remembered.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    lives: BTreeMap<String, Life>,
    /// As it was last kept durably.
    kept: BTreeMap<String, Life>,
}

impl Memory {
    /// The memory that [`Memory::encode`] wrote; bytes that are none are an empty one.
    pub fn decode(bytes: &[u8]) -> Memory {
        let lives: BTreeMap<String, Life> = serde_json::from_slice(bytes).unwrap_or_default();
        Memory { kept: lives.clone(), lives }
    }

    /// As bytes, to be kept. What is asked after this is no longer due.
    pub fn encode(&mut self) -> Vec<u8> {
        self.kept.clone_from(&self.lives);
        // Names, ids and numbers always have a form in JSON.
        serde_json::to_vec(&self.lives).unwrap_or_default()
    }

    /// The last life of `name` that counted.
    pub fn of(&self, name: &str) -> Option<Life> {
        self.lives.get(name).copied()
    }

    /// Takes note of the life that counts under `name` now. Whether that should be kept durably at once.
    pub fn note(&mut self, name: &str, life: Life) -> bool {
        let held = self.lives.entry(name.to_string()).or_insert(life);
        *held = if held.id == life.id { Life { stamp: held.stamp.max(life.stamp), ..life } } else { life };
        let held = *held;
        self.kept.get(name).is_none_or(|kept| {
            kept.id != held.id || held.stamp.ms().saturating_sub(kept.stamp.ms()) >= REMEMBERED_EVERY_MS
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(id: u64, ms: u64) -> Life {
        Life { id: NodeId(id), stamp: Stamp::from_ms(ms) }
    }

    #[test]
    fn a_new_life_is_kept_at_once_and_a_stamp_now_and_then() {
        let mut memory = Memory::default();
        assert!(memory.note("a", life(1, 1_000)));
        let bytes = memory.encode();
        assert!(!memory.note("a", life(1, 9_000)));
        assert!(!memory.note("a", life(1, 8_000)), "an older word does not undo a newer one");
        assert_eq!(memory.of("a"), Some(life(1, 9_000)));
        assert!(memory.note("a", life(1, 11_000)));
        assert_eq!(Memory::decode(&bytes).of("a"), Some(life(1, 1_000)));
        memory.encode();
        assert!(memory.note("a", life(2, 5_000)), "another store counts now");
        assert_eq!((memory.of("a"), memory.of("b")), (Some(life(2, 5_000)), None));
    }

    #[test]
    fn bytes_that_are_no_memory_remember_nobody() {
        assert_eq!(Memory::decode(b"{\"a\":7}"), Memory::default());
        assert_eq!(Memory::decode(&[0xff; 9]), Memory::default());
    }
}
