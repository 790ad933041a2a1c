//! Partition contexts across sessions: what one covers is held, whatever was written, lost on the way and compared.

use super::*;
use crate::record::{Context, Dot};
use crate::storage::{ContextLedger, Contexts, contexts};

#[derive(Clone, Debug)]
enum Deed {
    /// Node writes or deletes a key, plainly or with the context of what it holds.
    Write { at: usize, key: u64, delete: bool, blind: bool },
    /// A copy of one key arrives at the other node.
    Copy { from: usize, key: u64 },
    /// Node 1 says what it has seen.
    Say,
    /// A session, in which the peer falls silent after so many calls, if at all, and the latest writes are passed over;
    /// then what was said is joined.
    Session { silent_after: Option<usize>, young: u64 },
    /// Node 0 starts again under another actor.
    Restart,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        6 => (0..2usize, 0..12u64, prop::bool::weighted(0.2), any::<bool>())
            .prop_map(|(at, key, delete, blind)| Deed::Write { at, key, delete, blind }),
        2 => (0..2usize, 0..12u64).prop_map(|(from, key)| Deed::Copy { from, key }),
        2 => Just(Deed::Say),
        3 => (prop::option::weighted(0.3, 0..6usize), 0..5u64).prop_map(|(silent_after, young)| Deed::Session { silent_after, young }),
        1 => Just(Deed::Restart),
    ];
    prop::collection::vec(deed, 0..40)
}

struct Seen0 {
    contexts: Contexts,
    said: Option<crate::protocol::SeenGroups>,
    dots: Vec<(Key, Dot)>,
}

fn present(world: &World, node: usize) -> (Actor, Stamp) {
    (world.nodes[node].committer.actor(), world.nodes[node].committer.committed_stamp())
}

/// Node 0 starts again on the rows it holds.
fn restart(world: &mut World, contexts: &mut Contexts, actor: Actor) {
    let node = &mut world.nodes[0];
    let recovered = node.store.last_stamp();
    contexts.begin(actor, recovered);
    let feed = Arc::new(Feed::new(1, 16, 1 << 20));
    let hints = Arc::new(HintLedger::new(1 << 20));
    let clock = Clock::starting_after(recovered);
    let ledger = Arc::new(ContextLedger::new(contexts.clone()));
    node.committer = Committer::new(node.store.clone(), node.forest.clone(), feed, hints, ledger, actor, clock);
}

fn lies(world: &World, seen: &Seen0) -> Vec<(Key, Dot)> {
    let (actor, last) = present(world, 0);
    let of = |partition| seen.contexts.of(partition, actor, last);
    let lies = |(key, dot): &(Key, Dot)| {
        let context = of(Partition::of(key.position()));
        !contexts::uncovered(&context, [(key, *dot)], |key| world.nodes[0].record(key)).is_empty()
    };
    seen.dots.iter().filter(|made| lies(made)).cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_a_context_covers_is_held_or_superseded_whatever_happened(deeds in deeds(), seed: u64) {
        let mut world = World::new(2);
        let mut seen = Seen0 { contexts: Contexts::default(), said: None, dots: Vec::new() };
        seen.contexts.begin(present(&world, 0).0, Stamp(0));
        let shared = replica::shared(&world.ring, world.member(0), world.member(1));
        for (at, deed) in deeds.into_iter().enumerate() {
            match deed {
                Deed::Write { at: node, key: number, delete, blind } => {
                    let held = world.nodes[node].record(&key(number)).unwrap_or_default();
                    let before = if blind { Seen::Everything } else { Seen::Only(held.context().clone()) };
                    world.nodes[node].write(&key(number), before, (!delete).then(|| vec![at as u8]));
                    let record = world.nodes[node].record(&key(number)).unwrap();
                    seen.dots.push((key(number), record.context().newest().unwrap()));
                }
                Deed::Copy { from, key: number } => {
                    if let Some(record) = world.nodes[from].record(&key(number)) {
                        world.nodes[1 - from].commit(Change::Merge { key: key(number), record });
                    }
                }
                Deed::Say => {
                    let (actor, last) = present(&world, 1);
                    let mut theirs = Contexts::default();
                    theirs.begin(actor, Stamp(0));
                    seen.said = Some(theirs.of_all(&shared, actor, last));
                }
                Deed::Session { silent_after, young } => {
                    let last = present(&world, 0).1.max(present(&world, 1).1);
                    let settled = Stamp(last.0.saturating_sub(young));
                    let mut calls = 0;
                    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ at as u64);
                    let report = world.session(&mut rng, settled, |_, _| {
                        calls += 1;
                        silent_after.is_some_and(|after| calls > after).then_some(Err(Failure::Unknown))
                    });
                    if let (Some(said), None) = (&seen.said, &report.failed) {
                        for (partition, context) in contexts::spread(said) {
                            if !report.unequal.contains(&partition) {
                                seen.contexts.join(partition, &context);
                            }
                        }
                    }
                }
                Deed::Restart => restart(&mut world, &mut seen.contexts, Actor(1_000 + at as u64)),
            }
            let lies = lies(&world, &seen);
            prop_assert!(lies.is_empty(), "covered and not held: {lies:?}");
        }
    }
}

#[test]
fn after_two_sessions_a_node_has_seen_what_its_peer_had() {
    let mut world = World::new(2);
    (0..30).for_each(|number| world.nodes[1].write(&key(number), Seen::Everything, Some(vec![1])));
    let (actor, last) = present(&world, 1);
    let shared = replica::shared(&world.ring, world.member(0), world.member(1));
    let mut theirs = Contexts::default();
    theirs.begin(actor, Stamp(0));
    let said = theirs.of_all(&shared, actor, last);
    assert_eq!(said.len(), 1, "one context for all partitions: {said:?}");
    let mut contexts = Contexts::default();
    for expected in [1_024 - 30, 1_024] {
        let report = world.heal(1);
        for (partition, context) in contexts::spread(&said).filter(|(at, _)| !report.unequal.contains(at)) {
            contexts.join(partition, &context);
        }
        let dot = Dot { stamp: last, actor };
        let knowing = shared.iter().filter(|&&at| contexts.of(at, Actor(9), Stamp(1)).covers(dot)).count();
        assert!(knowing >= expected, "{knowing} partitions");
        let keys_of = |context: &Context| context.covers(dot);
        let known =
            (0..30).filter(|number| keys_of(&contexts.of(Partition::of(key(*number).position()), Actor(9), Stamp(1))));
        // A partition that differed is known to be the same only by the next session.
        assert_eq!(known.count(), if expected == 1_024 { 30 } else { 0 });
    }
}
