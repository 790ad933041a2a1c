//! The names under which this store made hints, and whether all that was made under one has reached a target.
//!
//! ```text
//!  begun: first write ──► closed: a target has all its hints ──► told to each target that took all of it in one life
//!                         (no write is made under it again)
//! ```
//!
//! Who stands in for owners makes dots under a name of its own, which no partition's context knows: they lie here until they
//! are delivered. A target may take such a name into its contexts once it holds, or has superseded, every dot made
//! under it. That is so where
//! - nothing more is made under the name: it is closed;
//! - nothing that it was kept for is left here, and no hint was ever lost here: then all of it was delivered;
//! - the target has been one and the same life since before the first of those deliveries: it lost nothing of them.
//!
//! Every write that is made here is kept for all owners of its key, so what was kept for others only is of partitions that
//! the target does not own: by the layout that this node started with. Under another the names are let go of.
//!
//! A name that is told too seldom leaves tombstones waiting; one told too early has sound values dropped. So whatever is in
//! doubt is not told.

use crate::record::{Actor, Context, Dot, Stamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a store keeps its names.
pub const HINT_NAMES_FACT: &str = "hint-names";

/// Most names that are remembered, the latest: 16 bytes each on the wire, and one for each time that peers came back while
/// more was being kept for them.
pub const HINT_NAMES_MAX: usize = 64;

/// Most targets that are remembered for each name, those that took something first: as many as one write of all names may
/// well hold, and far more than come back at a time.
const TARGETS_MAX: usize = 64;

/// The life of a target that nobody knows, or in which only a part was taken.
const NO_LIFE: u64 = 0;

/// The names, in the order in which they were begun.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct HintNames(Vec<Name>);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Name {
    actor: Actor,
    is_closed: bool,
    /// No dot made under it is later. Known once what closed it is committed.
    last: Option<Stamp>,
    /// In which life each target took what it was handed since the name was begun.
    lives: BTreeMap<String, u64>,
}

impl Name {
    fn has_room_for(&self, target: &str) -> bool {
        self.lives.len() < TARGETS_MAX || self.lives.contains_key(target)
    }
}

impl HintNames {
    /// What [`HintNames::encode`] wrote, of a store that was opened with `recovered` as its last stamp: nothing is made under
    /// any of them again. Bytes that are none are no names.
    pub fn decode(bytes: &[u8], recovered: Stamp) -> HintNames {
        let mut names: HintNames = serde_json::from_slice(bytes).unwrap_or_default();
        for name in &mut names.0 {
            name.is_closed = true;
            name.last.get_or_insert(recovered);
        }
        names
    }

    /// As bytes, to be kept.
    pub fn encode(&self) -> Vec<u8> {
        // Names and numbers always have a form in JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// A hint is made under this name. Whether it is the first.
    pub fn begin(&mut self, actor: Actor) -> bool {
        if self.0.iter().any(|name| name.actor == actor) {
            return false;
        }
        self.0.push(Name { actor, is_closed: false, last: None, lives: BTreeMap::new() });
        if self.0.len() > HINT_NAMES_MAX {
            self.0.remove(0);
        }
        true
    }

    /// Whether a hint was made under the name.
    pub fn is_begun(&self, actor: Actor) -> bool {
        self.0.iter().any(|name| name.actor == actor)
    }

    /// Nothing is made under any of the names again.
    pub fn close(&mut self) {
        self.0.iter_mut().for_each(|name| name.is_closed = true);
    }

    /// The store has committed up to `last`, the latest batch that made anything under a closed name among it. Whether that
    /// tells anything new.
    pub fn settle(&mut self, last: Stamp) -> bool {
        let mut news = false;
        for name in self.0.iter_mut().filter(|name| name.is_closed && name.last.is_none()) {
            (name.last, news) = (Some(last), true);
        }
        news
    }

    /// `target` took something in this life, which it was known to be in before that; nothing, if it is not known. Whether
    /// that is to be kept.
    pub fn taken(&mut self, target: &str, life: Option<u64>) -> bool {
        let (life, mut news) = (life.unwrap_or(NO_LIFE), false);
        for name in self.0.iter_mut().filter(|name| name.has_room_for(target)) {
            let known = name.lives.entry(target.to_string()).or_insert_with(|| {
                news = true;
                life
            });
            if *known != life && *known != NO_LIFE {
                (*known, news) = (NO_LIFE, true);
            }
        }
        news
    }

    /// A hint was lost, or may have been: nothing is known of what was made before. Whether anything was.
    pub fn void(&mut self) -> bool {
        !std::mem::take(&mut self.0).is_empty()
    }

    /// The closed names, each with the stamp up to which it was used, of which `target` took all that it was handed in this
    /// life. All of it, if nothing is kept for it any more.
    pub fn taken_by(&self, target: &str, life: u64) -> Context {
        let mut context = Context::new();
        let taken = |name: &&Name| name.is_closed && life != NO_LIFE && name.lives.get(target) == Some(&life);
        for name in self.0.iter().filter(taken) {
            if let Some(stamp) = name.last {
                context.add(Dot { stamp, actor: name.actor });
            }
        }
        context
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(entries: &[(u64, u64)]) -> Context {
        let mut context = Context::new();
        entries.iter().for_each(|&(actor, stamp)| context.add(Dot { stamp: Stamp(stamp), actor: Actor(actor) }));
        context
    }

    #[test]
    fn a_name_is_told_once_it_is_closed_to_whom_took_all_of_it_in_one_life() {
        let mut names = HintNames::default();
        assert!(names.begin(Actor(1)) && !names.begin(Actor(1)));
        assert!(names.taken("a", Some(7)) && !names.taken("a", Some(7)));
        assert_eq!(names.taken_by("a", 7), Context::new(), "more may be made under it");
        names.close();
        assert_eq!(names.taken_by("a", 7), Context::new(), "not before it is known how much");
        assert!(names.settle(Stamp(9)) && !names.settle(Stamp(12)));
        assert_eq!(names.taken_by("a", 7), context(&[(1, 9)]));
        assert_eq!(names.taken_by("a", 8), Context::new(), "it may have lost some of it since");
        assert_eq!(names.taken_by("b", 7), Context::new(), "it was handed nothing");
        names.begin(Actor(2));
        names.taken("a", Some(7));
        names.close();
        names.settle(Stamp(20));
        assert_eq!(names.taken_by("a", 7), context(&[(1, 9), (2, 20)]));
    }

    #[test]
    fn what_a_target_took_in_several_lives_or_an_unknown_one_is_never_told() {
        for lives in [[Some(7), Some(8)], [None, Some(8)], [Some(8), None]] {
            let mut names = HintNames::default();
            names.begin(Actor(1));
            for life in lives {
                names.taken("a", life);
            }
            names.taken("a", Some(8));
            names.close();
            names.settle(Stamp(9));
            for life in [0, 7, 8] {
                assert_eq!(names.taken_by("a", life), Context::new(), "{lives:?}");
            }
        }
    }

    #[test]
    fn a_start_closes_what_was_open_with_what_was_recovered() {
        let mut names = HintNames::default();
        names.begin(Actor(1));
        names.close();
        names.settle(Stamp(4));
        names.begin(Actor(2));
        names.taken("a", Some(7));
        let names = HintNames::decode(&names.encode(), Stamp(30));
        assert_eq!(names.taken_by("a", 7), context(&[(1, 4), (2, 30)]));
        for bytes in [&b""[..], b"{}", b"[1]", &[0xff; 20]] {
            assert_eq!(HintNames::decode(bytes, Stamp(30)), HintNames::default());
        }
    }

    #[test]
    fn the_latest_names_are_remembered_and_none_after_a_loss() {
        let mut names = HintNames::default();
        for actor in 1..=100 {
            names.begin(Actor(actor));
        }
        names.taken("a", Some(7));
        names.close();
        names.settle(Stamp(9));
        assert_eq!(names.taken_by("a", 7).entries().len(), HINT_NAMES_MAX);
        for target in 0..1_000 {
            names.taken(&format!("http://some.host.example:{target}"), Some(u64::MAX));
        }
        assert!(names.encode().len() < 256 << 10, "{} bytes", names.encode().len());
        assert!(names.is_begun(Actor(100)) && !names.is_begun(Actor(1)));
        assert!(names.void() && !names.void());
        assert_eq!(names.taken_by("a", 7), Context::new());
    }
}
