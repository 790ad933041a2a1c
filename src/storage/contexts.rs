//! Partition contexts: for each partition, which writes this store has seen, so that one that arrives late can be told
//! from one that is new (Gonçalves et al., "Concise Server-Wide Causality Management for Eventually Consistent Data
//! Stores", 2015).
//!
//! Invariant ([`uncovered`]): every dot that a partition's context covers is held in its rows, or superseded there. So a
//! context only takes in
//! - this store's own actors: dots are made on the rows held here, and let out when durable. The present one counts up to
//!   the last stamp committed, those of earlier starts up to the stamp that was recovered after them;
//! - what another owner's context covered before the two were found to hold the same rows of the partition;
//! - names under which a stand-in made hints for this owner among others, once all of them are delivered here: see
//!   [`HintNames`](super::HintNames). The store's own are no exception, as what it makes for others lies in no row of its.
//!
//! Claiming less than is true loses nothing, so what is over a bound is left out; but late copies of what was forgotten by
//! it are then taken for new, until another owner tells. Claiming more would have sound values dropped.

use crate::placement::{PARTITIONS, Partition};
use crate::protocol::{Evidence, SeenGroups};
use crate::record::{Actor, Context, Dot, Key, Record, Stamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

/// Most actors of earlier starts that are remembered, and most entries of one context. Ten restarts a day are so many in
/// a month; the oldest go first.
const ACTORS_MAX: usize = 300;

/// The contexts of one store.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Contexts {
    /// This store's actors of earlier starts.
    own: Context,
    /// The actor of this start.
    current: Option<Actor>,
    /// What was taken over from other owners.
    joined: BTreeMap<Partition, Context>,
    /// Own actors that lost rows of the partition.
    void: BTreeMap<Partition, BTreeSet<Actor>>,
    /// Actors of this start that lost rows anywhere.
    forgotten: BTreeSet<Actor>,
}

/// The first and the last of partitions that follow one another.
type Stretch = (Partition, Partition);

/// As it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    own: Context,
    current: Option<Actor>,
    joined: SeenGroups,
    void: Vec<(Partition, BTreeSet<Actor>)>,
}

impl Contexts {
    /// What [`Contexts::encode`] wrote; bytes that are none claim nothing.
    pub fn decode(bytes: &[u8]) -> Contexts {
        let Ok(Kept { own, current, joined, void }) = serde_json::from_slice(bytes) else { return Contexts::default() };
        let (joined, void) = (spread(&joined).collect(), void.into_iter().collect());
        Contexts { own, current, joined, void, forgotten: BTreeSet::new() }
    }

    /// As bytes, to be kept.
    pub fn encode(&self) -> Vec<u8> {
        let joined = group(self.joined.iter().map(|(partition, context)| (*partition, context.clone())));
        let void = self.void.clone().into_iter().collect();
        // Numbers in lists always have a form in JSON.
        serde_json::to_vec(&Kept { own: self.own.clone(), current: self.current, joined, void }).unwrap_or_default()
    }

    /// A start under a new actor, or another name in the middle of one: the one before has made no dot after `recovered`, the
    /// store's last stamp as it was found, that anybody could still have.
    pub fn begin(&mut self, actor: Actor, recovered: Stamp) {
        if let Some(before) = self.current.replace(actor) {
            self.own.add(Dot { stamp: recovered, actor: before });
            self.own = bounded(&self.own);
        }
    }

    /// The context of a partition, when the store's actor is `present` and `last` the last stamp it committed: the clock
    /// may be later, by dots of an append that failed.
    pub fn of(&self, partition: Partition, present: Actor, last: Stamp) -> Context {
        let mut context = self.joined.get(&partition).cloned().unwrap_or_default();
        let void = self.void.get(&partition);
        let own = self.own.entries().iter().copied().chain([(present, last)]);
        let lost = |actor: &Actor| self.forgotten.contains(actor) || void.is_some_and(|void| void.contains(actor));
        for (actor, stamp) in own.filter(|(actor, _)| !lost(actor)) {
            context.add(Dot { stamp, actor });
        }
        context
    }

    /// Whether [`Contexts::of`] of the partition covers `dot`, without making it.
    pub fn covers(&self, partition: Partition, present: Actor, last: Stamp, dot: Dot) -> bool {
        let is_own = || (dot.actor == present && dot.stamp <= last) || self.own.covers(dot);
        let is_lost = || {
            self.forgotten.contains(&dot.actor)
                || self.void.get(&partition).is_some_and(|void| void.contains(&dot.actor))
        };
        self.joined.get(&partition).is_some_and(|joined| joined.covers(dot)) || is_own() && !is_lost()
    }

    /// The contexts of several partitions, ascending.
    pub fn of_all(&self, partitions: &[Partition], present: Actor, last: Stamp) -> SeenGroups {
        group(partitions.iter().map(|&partition| (partition, self.of(partition, present, last))))
    }

    /// Whether `theirs` says anything that was not taken over yet.
    pub fn is_news(&self, partition: Partition, theirs: &Context) -> bool {
        self.joined.get(&partition).map_or(!theirs.is_empty(), |held| !held.dominates(theirs))
    }

    /// Takes over what another owner's context covered, once all rows of the partition were found to be the same after
    /// that. Whether it says anything new.
    pub fn join(&mut self, partition: Partition, theirs: &Context) -> bool {
        let held = self.joined.entry(partition).or_default();
        if held.dominates(theirs) {
            return false;
        }
        held.join(theirs);
        *held = bounded(held);
        true
    }

    /// Nothing that was taken over from other owners is known any more to be held here.
    pub fn take_back(&mut self) {
        self.joined.clear();
    }

    /// Rows were lost that nobody can name: nothing said before is true any more, nor what `present` made.
    pub fn forget(&mut self, present: Actor) {
        let mut forgotten = std::mem::take(&mut self.forgotten);
        forgotten.insert(present);
        *self = Contexts { forgotten, ..Contexts::default() };
    }

    /// In how many partitions something was taken over from other owners.
    pub fn partitions_joined(&self) -> usize {
        self.joined.values().filter(|context| !context.is_empty()).count()
    }

    /// Rows of the partition were lost: nothing said of it before is true any more.
    pub fn void(&mut self, partition: Partition, present: Actor) {
        self.joined.remove(&partition);
        let own = self.own.entries().iter().map(|entry| entry.0).chain([present]).chain(self.current);
        self.void.entry(partition).or_default().extend(own);
    }
}

/// Where a store keeps its contexts.
pub const CONTEXTS_FACT: &str = "contexts";

/// The contexts of a store that is open, shared by those who ask and those who learn something, and whether they are kept.
#[derive(Debug, Default)]
pub struct ContextLedger(Mutex<Ledger>);

#[derive(Debug, Default)]
struct Ledger {
    contexts: Contexts,
    changes: u64,
    /// As many of the changes are durable.
    kept: u64,
}

impl ContextLedger {
    /// Of a store that keeps these already.
    pub fn new(contexts: Contexts) -> ContextLedger {
        ContextLedger(Mutex::new(Ledger { contexts, changes: 0, kept: 0 }))
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What `ask` makes of them.
    pub fn look<T>(&self, ask: impl FnOnce(&Contexts) -> T) -> T {
        ask(&self.ledger().contexts)
    }

    /// Has them learn or lose something. They are to be kept soon, by a [`Change::KeepContexts`](super::Change::KeepContexts).
    pub fn change<T>(&self, change: impl FnOnce(&mut Contexts) -> T) -> T {
        let mut ledger = self.ledger();
        ledger.changes += 1;
        change(&mut ledger.contexts)
    }

    /// As bytes, with the number of changes in them, where they are not kept yet.
    pub(super) fn unkept(&self) -> Option<(u64, Vec<u8>)> {
        let ledger = self.ledger();
        (ledger.kept < ledger.changes).then(|| (ledger.changes, ledger.contexts.encode()))
    }

    /// So many changes are durable.
    pub(super) fn note_kept(&self, changes: u64) {
        let mut ledger = self.ledger();
        ledger.kept = ledger.kept.max(changes);
    }
}

/// The latest entries of a context, as many as are kept.
fn bounded(context: &Context) -> Context {
    let mut entries = context.entries().to_vec();
    if entries.len() <= ACTORS_MAX {
        return context.clone();
    }
    entries.sort_unstable_by_key(|&(actor, stamp)| (std::cmp::Reverse(stamp), actor));
    let mut kept = Context::new();
    entries.into_iter().take(ACTORS_MAX).for_each(|(actor, stamp)| kept.add(Dot { stamp, actor }));
    kept
}

/// The same context for each of these partitions, ascending; nothing, if it is empty.
pub fn alike(partitions: &[Partition], context: &Context) -> SeenGroups {
    match context.is_empty() {
        true => SeenGroups::new(),
        false => group(partitions.iter().map(|&partition| (partition, context.clone()))),
    }
}

fn group(contexts: impl Iterator<Item = (Partition, Context)>) -> SeenGroups {
    let mut groups: BTreeMap<Vec<(Actor, Stamp)>, Vec<Stretch>> = BTreeMap::new();
    for (partition, context) in contexts {
        let stretches = groups.entry(context.entries().to_vec()).or_default();
        match stretches.last_mut() {
            Some((_, last)) if last.index() + 1 == partition.index() => *last = partition,
            _ => stretches.push((partition, partition)),
        }
    }
    let context = |entries| Context::from_sorted(entries).unwrap_or_default();
    groups.into_iter().map(|(entries, stretches)| (context(entries), stretches)).collect()
}

/// The context of each partition in the groups; of one that is in several, any of them.
pub fn spread(groups: &SeenGroups) -> impl Iterator<Item = (Partition, Context)> + '_ {
    groups.iter().flat_map(|(context, stretches)| {
        let partitions = stretches.iter().flat_map(|(first, last)| first.index()..=last.index());
        partitions
            .filter_map(|index| Partition::try_from_index(index).ok())
            .map(|partition| (partition, context.clone()))
    })
}

/// Whether groups that came from outside are within what a store would say: no partition twice, no context without end.
pub fn is_within_bounds(groups: &SeenGroups) -> bool {
    let stretches = groups.iter().flat_map(|(_, stretches)| stretches);
    let partitions: usize = stretches.map(|(first, last)| (last.index() + 1).saturating_sub(first.index())).sum();
    partitions <= PARTITIONS && groups.iter().all(|(context, _)| context.entries().len() <= 2 * ACTORS_MAX + 1)
}

/// A short digest of what is said.
pub fn digest(said: &Evidence) -> u64 {
    let bytes = serde_json::to_vec(said).unwrap_or_default();
    let hash = blake3::hash(&[b"kringle partition contexts 1".as_slice(), &bytes].concat());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// Those of the `dots`, each made for the key beside it, that `context` covers although the store has not seen them:
/// `record` is what it holds of a key. Empty as long as the invariant holds.
pub fn uncovered<'a>(
    context: &Context,
    dots: impl IntoIterator<Item = (&'a Key, Dot)>,
    record: impl Fn(&Key) -> Option<Record>,
) -> Vec<(&'a Key, Dot)> {
    let claimed = dots.into_iter().filter(|(_, dot)| context.covers(*dot));
    claimed.filter(|(key, dot)| !record(key).is_some_and(|record| record.context().covers(*dot))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn partition(index: usize) -> Partition {
        Partition::try_from_index(index).unwrap()
    }

    fn context(entries: &[(u64, u64)]) -> Context {
        let mut context = Context::new();
        entries.iter().for_each(|&(actor, stamp)| context.add(Dot { stamp: Stamp(stamp), actor: Actor(actor) }));
        context
    }

    #[test]
    fn own_actors_count_in_every_partition_and_what_was_joined_in_its_own() {
        let mut contexts = Contexts::default();
        contexts.begin(Actor(1), Stamp(0));
        assert_eq!(contexts.of(partition(3), Actor(1), Stamp(5)), context(&[(1, 5)]));
        contexts.begin(Actor(2), Stamp(8));
        assert!(contexts.join(partition(3), &context(&[(9, 4), (1, 2)])));
        assert!(!contexts.join(partition(3), &context(&[(9, 3)])), "nothing new");
        assert_eq!(contexts.of(partition(3), Actor(2), Stamp(11)), context(&[(1, 8), (2, 11), (9, 4)]));
        assert_eq!(contexts.of(partition(4), Actor(2), Stamp(11)), context(&[(1, 8), (2, 11)]));
    }

    #[test]
    fn a_partition_that_lost_rows_claims_nothing_but_what_a_new_actor_makes() {
        let mut contexts = Contexts::default();
        contexts.begin(Actor(1), Stamp(0));
        contexts.begin(Actor(2), Stamp(8));
        contexts.join(partition(3), &context(&[(9, 4)]));
        contexts.void(partition(3), Actor(2));
        let contexts = Contexts::decode(&contexts.encode());
        assert_eq!(contexts.of(partition(3), Actor(2), Stamp(11)), Context::new());
        assert_eq!(contexts.of(partition(3), Actor(7), Stamp(12)), context(&[(7, 12)]));
        assert_eq!(contexts.of(partition(4), Actor(7), Stamp(12)), context(&[(1, 8), (7, 12)]));
    }

    #[test]
    fn a_store_that_lost_rows_anywhere_begins_again() {
        let mut contexts = Contexts::default();
        contexts.begin(Actor(1), Stamp(0));
        contexts.begin(Actor(2), Stamp(8));
        contexts.join(partition(3), &context(&[(9, 4)]));
        contexts.forget(Actor(2));
        assert_eq!(contexts.of(partition(3), Actor(2), Stamp(11)), Context::new());
        assert_eq!(contexts.of(partition(3), Actor(5), Stamp(11)), context(&[(5, 11)]), "its next name is a new one");
        let mut contexts = Contexts::decode(&contexts.encode());
        contexts.begin(Actor(7), Stamp(12));
        assert_eq!(contexts.of(partition(3), Actor(7), Stamp(13)), context(&[(7, 13)]), "nor after a restart");
    }

    #[test]
    fn what_is_over_the_bound_is_forgotten_oldest_first() {
        let mut contexts = Contexts::default();
        (0..1_000).for_each(|start| contexts.begin(Actor(start), Stamp(start)));
        let known = contexts.of(partition(0), Actor(2_000), Stamp(2_000));
        assert_eq!(known.entries().len(), ACTORS_MAX + 1);
        assert!(
            known.covers(Dot { stamp: Stamp(999), actor: Actor(998) })
                && !known.covers(Dot { stamp: Stamp(1), actor: Actor(0) })
        );
    }

    #[test]
    fn bytes_that_are_no_contexts_claim_nothing() {
        for bytes in [&b""[..], b"{}", b"[1]", &[0xff; 20]] {
            assert_eq!(Contexts::decode(bytes), Contexts::default());
        }
    }

    proptest! {
        #[test]
        fn contexts_survive_being_grouped_and_kept(
            joined in prop::collection::btree_map(0..1024usize, prop::collection::btree_map(0..4u64, 1..9u64, 0..4), 0..40),
        ) {
            let mut contexts = Contexts::default();
            contexts.begin(Actor(50), Stamp(1));
            for (at, entries) in &joined {
                contexts.join(partition(*at), &context(&entries.iter().map(|(a, s)| (*a, *s)).collect::<Vec<_>>()));
            }
            let kept = Contexts::decode(&contexts.encode());
            for index in 0..1024 {
                let of = |contexts: &Contexts| contexts.of(partition(index), Actor(50), Stamp(3));
                prop_assert_eq!(of(&kept), of(&contexts));
            }
            let all: Vec<Partition> = Partition::all().collect();
            let spread: BTreeMap<_, _> = spread(&contexts.of_all(&all, Actor(50), Stamp(3))).collect();
            prop_assert_eq!(spread.len(), 1024);
            for (partition, context) in spread {
                prop_assert_eq!(&context, &contexts.of(partition, Actor(50), Stamp(3)));
                for dot in (0..5).chain([50]).flat_map(|actor| (0..9).map(move |stamp| (actor, stamp))) {
                    let dot = Dot { actor: Actor(dot.0), stamp: Stamp(dot.1) };
                    prop_assert_eq!(context.covers(dot), contexts.covers(partition, Actor(50), Stamp(3), dot));
                }
            }
        }
    }
}
