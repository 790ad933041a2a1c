//! Who wrote what: actors, dots, and the contexts that say which dots are known.
//!
//! A dot names one write. A context is a version vector: for each actor the highest stamp seen, and with it
//! every earlier dot of that actor on the same key, because an actor makes its dots on the record it holds and
//! only whole records travel. Preguiça et al., "Dotted Version Vectors" (2012), §4.
//!
//! What consensus agreed on has an entry of its own, the highest ballot accepted, which covers values of earlier ballots and
//! nothing else: neither of the two kinds of writes swallows the other unseen.

use super::Stamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One incarnation of a node's store. Random and new at every start, so a store that lost writes, or an old
/// disk put back, never gives a name out twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Actor(pub u64);

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The name of one write. Ordered by stamp, then actor: the order in which the last writer wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Dot {
    /// When.
    pub stamp: Stamp,
    /// By whom.
    pub actor: Actor,
}

/// The number of a consensus proposal; ordered by stamp, then actor. Of one key no two proposals have the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Ballot {
    /// When it was opened.
    pub stamp: Stamp,
    /// Who opened it: a proposer, which makes no dots under this name.
    pub actor: Actor,
}

impl Ballot {
    /// The name of the value that is accepted under it.
    pub fn dot(self) -> Dot {
        Dot { stamp: self.stamp, actor: self.actor }
    }

    /// Later than every ballot of this stamp.
    pub fn after_all_of(stamp: Stamp) -> Ballot {
        Ballot { stamp, actor: Actor(u64::MAX) }
    }
}

/// A version vector: actor → highest stamp seen, and the highest ballot accepted. Kept sorted by actor; a handful of entries,
/// so a flat list.
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash)]
pub struct Context {
    entries: Vec<(Actor, Stamp)>,
    /// The first one there could be, where nothing was accepted: 8 bytes less than an option, in every record.
    ballot: Ballot,
}

impl Context {
    /// The context that has seen nothing.
    pub fn new() -> Context {
        Context::default()
    }

    /// From entries sorted strictly by actor; `None` when they are not.
    pub fn from_sorted(entries: Vec<(Actor, Stamp)>) -> Option<Context> {
        entries.windows(2).all(|pair| pair[0].0 < pair[1].0).then_some(Context { entries, ballot: Ballot::default() })
    }

    /// The same, knowing of consensus just what was accepted under `ballot`.
    pub fn with_ballot(self, ballot: Option<Ballot>) -> Context {
        Context { ballot: ballot.unwrap_or_default(), ..self }
    }

    /// The highest ballot under which anything was accepted.
    pub fn ballot(&self) -> Option<Ballot> {
        (self.ballot > Ballot::default()).then_some(self.ballot)
    }

    /// The entries, sorted by actor.
    pub fn entries(&self) -> &[(Actor, Stamp)] {
        &self.entries
    }

    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.ballot().is_none()
    }

    /// The latest write in it that an actor made without consensus.
    pub fn newest(&self) -> Option<Dot> {
        self.entries.iter().map(|&(actor, stamp)| Dot { stamp, actor }).max()
    }

    /// The stamp of the latest write in it, of either kind.
    pub fn latest(&self) -> Option<Stamp> {
        self.newest().map(|dot| dot.stamp).max(self.ballot().map(|ballot| ballot.stamp))
    }

    /// The highest stamp seen of the actor.
    pub fn get(&self, actor: Actor) -> Option<Stamp> {
        let found = self.entries.binary_search_by_key(&actor, |entry| entry.0).ok()?;
        Some(self.entries[found].1)
    }

    /// Whether the write called `dot`, made without consensus, was seen.
    pub fn covers(&self, dot: Dot) -> bool {
        self.get(dot.actor).is_some_and(|latest| latest >= dot.stamp)
    }

    /// Whether everything `other` has seen was seen here too.
    pub fn dominates(&self, other: &Context) -> bool {
        self.ballot >= other.ballot && other.entries.iter().all(|&(actor, stamp)| self.covers(Dot { stamp, actor }))
    }

    /// Notes that `dot`, and with it every earlier dot of its actor, was seen.
    pub fn add(&mut self, dot: Dot) {
        match self.entries.binary_search_by_key(&dot.actor, |entry| entry.0) {
            Ok(found) => self.entries[found].1 = self.entries[found].1.max(dot.stamp),
            Err(at) => self.entries.insert(at, (dot.actor, dot.stamp)),
        }
    }

    /// What both have seen: the pointwise minimum.
    pub fn meet(&self, other: &Context) -> Context {
        let both = |&(actor, stamp): &(Actor, Stamp)| Some((actor, stamp.min(other.get(actor)?)));
        let ballot = self.ballot.min(other.ballot);
        Context { entries: self.entries.iter().filter_map(both).collect(), ballot }
    }

    /// Takes over everything `other` has seen: the pointwise maximum.
    pub fn join(&mut self, other: &Context) {
        for &(actor, stamp) in &other.entries {
            self.add(Dot { stamp, actor });
        }
        self.ballot = self.ballot.max(other.ballot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(entries: &[(u64, u64)]) -> Context {
        let mut context = Context::new();
        for &(actor, stamp) in entries {
            context.add(Dot { stamp: Stamp(stamp), actor: Actor(actor) });
        }
        context
    }

    #[test]
    fn contexts_are_equal_behind_ahead_or_concurrent() {
        let (old, new, other) = (context(&[(1, 5)]), context(&[(1, 6), (2, 1)]), context(&[(3, 9)]));
        assert!(old.dominates(&old));
        assert!(new.dominates(&old) && !old.dominates(&new));
        assert!(!new.dominates(&other) && !other.dominates(&new));
        assert!(other.dominates(&Context::new()));
    }

    #[test]
    fn a_join_has_seen_what_either_side_saw() {
        let mut joined = context(&[(1, 5), (3, 2)]);
        joined.join(&context(&[(1, 4), (2, 8)]));
        assert_eq!(joined, context(&[(1, 5), (2, 8), (3, 2)]));
    }

    #[test]
    fn a_ballot_is_seen_apart_from_what_actors_wrote() {
        let ballot = |stamp| Some(Ballot { stamp: Stamp(stamp), actor: Actor(9) });
        let (old, new) = (context(&[(1, 5)]).with_ballot(ballot(7)), context(&[(1, 4)]).with_ballot(ballot(8)));
        assert!(!old.dominates(&new) && !new.dominates(&old));
        assert!(!new.covers(Dot { stamp: Stamp(1), actor: Actor(9) }));
        let mut joined = old.clone();
        joined.join(&new);
        assert_eq!(joined, context(&[(1, 5)]).with_ballot(ballot(8)));
        assert_eq!((joined.latest(), joined.newest().map(|dot| dot.stamp)), (Some(Stamp(8)), Some(Stamp(5))));
        assert!(!Context::new().with_ballot(ballot(1)).is_empty());
    }

    #[test]
    fn a_meet_has_seen_what_both_sides_saw() {
        let (one, other) = (context(&[(1, 5), (3, 2), (4, 7)]), context(&[(1, 4), (2, 8), (4, 9)]));
        assert_eq!(one.meet(&other), context(&[(1, 4), (4, 7)]));
        assert_eq!(other.meet(&one), one.meet(&other));
    }

    #[test]
    fn dots_are_ordered_by_stamp_and_then_by_actor() {
        let dot = |stamp, actor| Dot { stamp: Stamp(stamp), actor: Actor(actor) };
        assert!(dot(2, 1) > dot(1, 9));
        assert!(dot(2, 2) > dot(2, 1));
    }

    #[test]
    fn unsorted_or_repeated_actors_are_no_context() {
        assert_eq!(Context::from_sorted(vec![(Actor(2), Stamp(1)), (Actor(1), Stamp(1))]), None);
        assert_eq!(Context::from_sorted(vec![(Actor(2), Stamp(1)), (Actor(2), Stamp(2))]), None);
    }
}
