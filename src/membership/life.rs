//! Lives: which store counted under a member's name, and how far it was known to have come.
//!
//! A member whose disk was lost or put back from a copy does not know it by itself. Its peers do: they remember under
//! which id, and up to which durable stamp, it last counted, and tell it when they meet.

use crate::placement::NodeId;
use crate::record::Stamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

    /// Only these are members from now on: whoever comes to be one later begins anew, also under a name of old.
    pub fn members(&mut self, is_member: impl Fn(&str) -> bool) {
        self.lives.retain(|name, _| is_member(name));
    }

    /// Takes note of the life that counts under `name` now. Whether that should be kept durably: whenever it is news, which it
    /// is as often as members greet one another, since a peer that restarts has forgotten the rest, and since the stamps of a
    /// clock that was set back move too little to tell how much that is.
    pub fn note(&mut self, name: &str, life: Life) -> bool {
        let held = self.lives.entry(name.to_string()).or_insert(life);
        *held = if held.id == life.id { Life { stamp: held.stamp.max(life.stamp), ..life } } else { life };
        let held = *held;
        self.kept.get(name) != Some(&held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(id: u64, ms: u64) -> Life {
        Life { id: NodeId(id), stamp: Stamp::from_ms(ms) }
    }

    #[test]
    fn a_new_life_is_kept_and_so_is_a_later_stamp_of_the_same() {
        let mut memory = Memory::default();
        assert!(memory.note("a", life(1, 1_000)));
        let bytes = memory.encode();
        assert!(!memory.note("a", life(1, 1_000)));
        assert!(memory.note("a", Life { stamp: Stamp(life(1, 1_000).stamp.0 + 1), ..life(1, 0) }));
        assert!(memory.note("a", life(1, 9_000)));
        memory.encode();
        assert!(!memory.note("a", life(1, 8_000)), "an older word does not undo a newer one");
        assert_eq!(memory.of("a"), Some(life(1, 9_000)));
        assert_eq!(Memory::decode(&bytes).of("a"), Some(life(1, 1_000)));
        memory.encode();
        assert!(memory.note("a", life(2, 5_000)), "another store counts now");
        assert_eq!((memory.of("a"), memory.of("b")), (Some(life(2, 5_000)), None));
    }

    #[test]
    fn who_is_no_member_any_more_is_forgotten() {
        let mut memory = Memory::default();
        memory.note("a", life(1, 1_000));
        memory.note("b", life(2, 1_000));
        memory.members(|name| name == "b");
        assert_eq!((memory.of("a"), memory.of("b")), (None, Some(life(2, 1_000))));
        assert!(memory.note("a", life(3, 1)), "another store under the name is news");
    }

    #[test]
    fn bytes_that_are_no_memory_remember_nobody() {
        assert_eq!(Memory::decode(b"{\"a\":7}"), Memory::default());
        assert_eq!(Memory::decode(&[0xff; 9]), Memory::default());
    }
}
