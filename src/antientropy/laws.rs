//! What sessions promise, shown on nodes in memory that a driver under a seed plays against each other.

use super::*;
use crate::merkle::Forest;
use crate::operation::{Command, Event, Failure, Operation};
use crate::placement::{ClusterId, Layout, Member, MemberIndex, Mode, NodeId, Partition, Ring};
use crate::protocol::{Answer, Difference, Lacking, Refusal, Request, SyncAnswer, SyncRequest};
use crate::record::{Actor, Ballot, Clock, Content, Edit, Key, Seen, Stamp};
use crate::replica::{self, Step};
use crate::storage::{Address, Change, Committer, Feed, HintLedger, MemoryStore, Outcome, Store};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;
use std::sync::Arc;

mod costs;
mod seen;

const WALL_MS: u64 = 1_000_000;

struct Node {
    committer: Committer,
    store: Arc<MemoryStore>,
    forest: Arc<Forest>,
    /// Values other nodes sent it.
    values_taken: u64,
}

impl Node {
    fn new(actor: u64) -> Node {
        let (store, forest) = (Arc::new(MemoryStore::new()), Arc::new(Forest::new()));
        Partition::all().for_each(|partition| forest.mark_built(partition));
        let feed = Arc::new(Feed::new(1, 16, 1 << 20));
        let hints = Arc::new(HintLedger::new(1 << 20));
        let committer = Committer::new(
            store.clone(),
            forest.clone(),
            feed,
            hints,
            Arc::default(),
            Actor(actor),
            Clock::starting_after(Stamp(0)),
        );
        Node { committer, store, forest, values_taken: 0 }
    }

    fn commit(&mut self, change: Change) -> Outcome {
        self.committer.commit(WALL_MS, vec![change]).remove(0).expect("a change in memory")
    }

    fn write(&mut self, key: &Key, seen: Seen, value: Option<Vec<u8>>) {
        let content = value.map(Content::plain);
        self.commit(Change::Write { key: key.clone(), edit: Edit::write(seen, content), until: Stamp::MAX });
    }

    fn record(&self, key: &Key) -> Option<crate::record::Record> {
        let row = self.store.read(&Address::data(key)).unwrap()?;
        Some(crate::record::Row::decode(&row).unwrap().record)
    }
}

struct World {
    ring: Arc<Ring>,
    nodes: Vec<Node>,
    /// Most records that a session had on their way at a time.
    travelling_max: usize,
    /// Whether sessions pass over nothing.
    everything: bool,
}

/// Answers a call in a node's stead, or not.
type Meddler<'a> = dyn FnMut(&mut World, &Request) -> Option<Result<Answer, Failure>> + 'a;

/// Whether the call carries a record, or asks for one.
fn is_record(command: &Command) -> bool {
    matches!(command, Command::Call { request: Request::Merge { .. } | Request::Read { .. }, .. })
}

/// How many values an answer carries.
fn values_in(result: &Result<Answer, Failure>) -> u64 {
    match result {
        Ok(Answer::Found { record: Some(record) } | Answer::Merged { more: Some(record), .. }) => {
            record.siblings().len() as u64
        }
        Ok(Answer::Sync(SyncAnswer::Differences(beds))) => {
            let enclosed = |difference: &Difference| match difference {
                Difference::Unlisted { record: Lacking::Enclosed(record), .. } => record.siblings().len() as u64,
                _ => 0,
            };
            beds.iter().flatten().map(enclosed).sum()
        }
        _ => 0,
    }
}

impl World {
    fn new(count: usize) -> World {
        let members = (0..count)
            .map(|index| Member { id: Some(NodeId(index as u64 + 1)), ..Member::new(format!("http://n{index}:1")) })
            .collect();
        let layout = Layout::provisional(ClusterId(1), 3, Mode::Sloppy, members).unwrap();
        let nodes = (0..count).map(|index| Node::new(index as u64 + 1)).collect();
        World { ring: Arc::new(Ring::new(layout)), nodes, travelling_max: 0, everything: false }
    }

    fn member(&self, index: usize) -> MemberIndex {
        self.ring.members().nth(index).unwrap()
    }

    fn answer(&mut self, index: usize, request: Request) -> Answer {
        let me = self.member(index);
        let (ring, node) = (self.ring.clone(), &mut self.nodes[index]);
        match replica::step(request) {
            Step::Commit(change) => replica::committed(node.committer.commit(WALL_MS, vec![change]).remove(0)),
            Step::Read(address) => {
                let row = node.store.read(&address).unwrap();
                replica::found(&address, row.as_ref())
            }
            Step::ReadSince(address, _) => panic!("no session asks what was seen: {address:?}"),
            Step::Greet(greeting) => panic!("no session greets: {greeting:?}"),
            Step::Propose { key, .. } => panic!("no session proposes: {key:?}"),
            Step::UnderWay(_) => Answer::UnderWay { since: None, hints: false },
            Step::Compare(request) => replica::compare(&ring, me, &node.forest, &*node.store, request, &mut || ()),
            Step::List(request) => panic!("no session lists: {request:?}"),
            Step::Layout(_) | Step::Gossip(_) | Step::Follow(_) => panic!("a session does not gossip"),
        }
    }

    /// Plays a session of node 0 with node 1; answers come in an order of the generator's choosing. `meddle` is asked
    /// for each call to the peer and may answer it itself.
    fn session(
        &mut self,
        rng: &mut ChaCha8Rng,
        settled: Stamp,
        mut meddle: impl FnMut(&mut World, &Request) -> Option<Result<Answer, Failure>>,
    ) -> Report {
        self.session_among(rng, settled, &[], &mut meddle)
    }

    /// The same while these members say what they have under way.
    fn session_among(
        &mut self,
        rng: &mut ChaCha8Rng,
        settled: Stamp,
        coordinators: &[usize],
        meddle: &mut Meddler<'_>,
    ) -> Report {
        let (me, peer) = (self.member(0), self.member(1));
        let shared = replica::shared(&self.ring, me, peer);
        let coordinators = coordinators.iter().map(|&index| self.member(index)).collect();
        let (confirm_ms, everything) = (CONFIRM_MS, self.everything);
        let options =
            SessionOptions { settled, confirm_ms, coordinators, under_way_ms_max: 5_000, everything, offers: false };
        let mut session = Session::new(&self.ring, self.nodes[0].forest.clone(), me, peer, shared, options);
        let mut commands = Vec::new();
        let mut report = session.on(Event::Start, &mut commands);
        while !commands.is_empty() {
            self.travelling_max = self.travelling_max.max(commands.iter().filter(|command| is_record(command)).count());
            // Time passes last.
            commands.sort_by_key(|command| matches!(command, Command::Wake { .. }));
            let now = commands.iter().filter(|command| !matches!(command, Command::Wake { .. })).count().max(1);
            let command = commands.swap_remove(rng.random_range(0..now));
            let event = match command {
                Command::Wake { .. } => Event::Woken,
                Command::Call { call, to, request } => {
                    let index = self.ring.members().position(|member| member == to).unwrap();
                    if let (Request::Merge { record, .. }, 1) = (&request, index) {
                        self.nodes[1].values_taken += record.siblings().len() as u64;
                    }
                    let result = match if index != 0 { meddle(self, &request) } else { None } {
                        Some(result) => result,
                        None => Ok(self.answer(index, request)),
                    };
                    if index == 1 {
                        self.nodes[0].values_taken += values_in(&result);
                    }
                    match result {
                        Ok(answer) => Event::Answered { call, answer },
                        Err(failure) => Event::Failed { call, failure },
                    }
                }
            };
            let concluded = session.on(event, &mut commands);
            assert!(concluded.is_none() || report.is_none(), "a session concludes once");
            report = concluded.or(report);
        }
        assert!(session.is_done());
        report.expect("a session concludes when nothing is left to do")
    }

    fn heal(&mut self, seed: u64) -> Report {
        self.session(&mut ChaCha8Rng::seed_from_u64(seed), Stamp(u64::MAX), |_, _| None)
    }

    fn root(&self, index: usize) -> Option<[u8; 32]> {
        let shared = replica::shared(&self.ring, self.member(0), self.member(1));
        crate::merkle::diff::root(&self.nodes[index].forest, &shared)
    }

    /// Both nodes have the key in one version.
    fn give_both(&mut self, key: &Key, value: Vec<u8>) {
        self.nodes[0].write(key, Seen::Everything, Some(value));
        let record = self.nodes[0].record(key).unwrap();
        self.nodes[1].commit(Change::Merge { key: key.clone(), record });
    }
}

fn key(number: u64) -> Key {
    Key::new(format!("key{number}")).unwrap()
}

/// What happens to one key before the copies are compared.
#[derive(Clone, Debug)]
struct Deed {
    key: u64,
    at: usize,
    delete: bool,
    blind: bool,
    meet: bool,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = (0..60u64, 0..2usize, prop::bool::weighted(0.25), any::<bool>(), prop::bool::weighted(0.3))
        .prop_map(|(key, at, delete, blind, meet)| Deed { key, at, delete, blind, meet });
    prop::collection::vec(deed, 0..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn one_session_makes_copies_equal_and_the_next_moves_nothing(deeds in deeds(), crowd in 0..2u64, seed: u64) {
        let mut world = World::new(2);
        // In a crowd, the partitions of some of the keys hold too many to be listed whole.
        let crowded: BTreeSet<Partition> = (0..8).map(|number| Partition::of(key(number).position())).collect();
        for number in 0..crowd * 60_000 {
            let key = Key::new(format!("crowd{number}")).unwrap();
            if crowded.contains(&Partition::of(key.position())) {
                world.give_both(&key, vec![1]);
            }
        }
        for (at, Deed { key: number, at: node, delete, blind, meet }) in deeds.into_iter().enumerate() {
            let key = key(number);
            let held = world.nodes[node].record(&key).unwrap_or_default();
            let seen = if blind { Seen::Everything } else { Seen::Only(held.context().clone()) };
            world.nodes[node].write(&key, seen, (!delete).then(|| at.to_string().into_bytes()));
            if meet {
                let record = world.nodes[node].record(&key).unwrap();
                world.nodes[1 - node].commit(Change::Merge { key, record });
            }
        }
        let expected: Vec<_> = (0..60)
            .map(|number| {
                let held = |node: usize| world.nodes[node].record(&key(number)).unwrap_or_default();
                held(0).merge(&held(1))
            })
            .collect();
        let differing = (0..60).filter(|&n| world.nodes[0].record(&key(n)) != world.nodes[1].record(&key(n))).count();
        let report = world.heal(seed);
        prop_assert_eq!((report.failed.clone(), report.noop, report.refused, report.not_built), (None, 0, 0, 0));
        prop_assert!(report.pushed + report.pulled >= differing as u64);
        for (number, expected) in expected.iter().enumerate() {
            for node in &world.nodes {
                prop_assert_eq!(&node.record(&key(number as u64)).unwrap_or_default(), expected);
            }
        }
        prop_assert_eq!(world.root(0), world.root(1));
        let quiet = world.heal(seed);
        prop_assert_eq!((quiet.rounds, quiet.pushed, quiet.pulled, quiet.noop), (1, 0, 0, 0));
        prop_assert!(quiet.bytes_out <= 64 && quiet.bytes_in <= 64);
    }
}

#[test]
fn where_one_side_knows_more_only_its_values_travel() {
    let mut world = World::new(2);
    for number in 0..300 {
        world.give_both(&key(number), vec![7; 500]);
    }
    (0..40).for_each(|number| world.nodes[0].write(&key(number), Seen::Everything, Some(vec![8; 500])));
    (40..90).for_each(|number| world.nodes[1].write(&key(number), Seen::Everything, Some(vec![9; 500])));
    (90..95).for_each(|number| world.nodes[1].write(&key(number), Seen::Everything, None));
    (1000..1010).for_each(|number| world.nodes[1].write(&key(number), Seen::Everything, Some(vec![1])));
    let report = world.heal(1);
    assert_eq!((report.pushed, report.pulled, report.noop), (40, 65, 0));
    assert_eq!((world.nodes[1].values_taken, world.nodes[0].values_taken), (40, 60), "values sent are values needed");
    assert!(report.rounds <= 6, "{report:?}");
}

/// Lists tell keys apart by 32 bits of their positions. These two share them, and the partition.
#[test]
fn keys_that_look_alike_on_a_list_become_equal_too() {
    let twins = ["twin1815940", "twin2971346"].map(|name| Key::new(name).unwrap());
    let [one, other] = twins.each_ref().map(Key::position);
    assert!(one != other && one.0 as u32 == other.0 as u32 && Partition::of(one) == Partition::of(other));
    for (first, second) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        for overwritten in [None, Some(0), Some(1)] {
            let mut world = World::new(2);
            if let Some(at) = overwritten {
                world.give_both(&twins[0], vec![1]);
                world.nodes[at].write(&twins[0], Seen::Everything, Some(vec![2]));
            }
            world.nodes[first].write(&twins[0], Seen::Everything, Some(vec![3]));
            world.nodes[second].write(&twins[1], Seen::Everything, Some(vec![4]));
            let sessions = (1..=3).find(|&seed| world.heal(seed).failed.is_none() && world.root(0) == world.root(1));
            assert!(sessions.is_some(), "{first} {second} {overwritten:?}");
            assert!(twins.iter().all(|twin| world.nodes[0].record(twin) == world.nodes[1].record(twin)));
        }
    }
}

#[test]
fn however_many_keys_differ_the_round_trips_stay_five() {
    let mut world = World::new(2);
    let crowd = (0..1_500_000).filter_map(|n| Key::new(format!("crowd{n}")).ok());
    let crowd: Vec<Key> = crowd.filter(|key| Partition::of(key.position()).index() < 4).collect();
    assert!(crowd.len() > 5_000, "more than are compared at a time: {}", crowd.len());
    for (number, key) in crowd.iter().enumerate() {
        world.nodes[number % 2].write(key, Seen::Everything, Some(vec![1; 100]));
    }
    let report = world.heal(1);
    assert_eq!((report.rounds, report.partitions, report.noop, report.failed.clone()), (5, 4, 0, None), "{report:?}");
    assert_eq!((report.pushed + report.pulled) as usize, crowd.len());
    assert_eq!(world.root(0), world.root(1));
    assert!((2..=32).contains(&world.travelling_max), "{} records at a time", world.travelling_max);
}

#[test]
fn what_is_younger_than_the_session_is_left_to_its_own_way() {
    let mut world = World::new(2);
    world.nodes[0].write(&key(1), Seen::Everything, Some(vec![1]));
    world.nodes[1].write(&key(2), Seen::Everything, Some(vec![2]));
    let settled = Stamp::from_ms(WALL_MS - 1);
    let report = world.session(&mut ChaCha8Rng::seed_from_u64(1), settled, |_, _| None);
    assert_eq!((report.pushed, report.pulled, report.noop, report.failed), (0, 0, 0, None));
    assert_eq!((world.heal(1).pushed, world.root(0)), (1, world.root(1)));
}

#[test]
fn a_session_that_passes_over_nothing_moves_what_is_younger_and_asks_nobody_what_is_under_way() {
    let mut world = World { everything: true, ..World::new(3) };
    let everywhere = Key::new("everywhere").unwrap();
    world.nodes[0].write(&everywhere, Seen::Everything, Some(vec![1]));
    world.nodes[1].write(&everywhere, Seen::Everything, Some(vec![2]));
    let mut unasked = |_: &mut World, request: &Request| match request {
        Request::UnderWay { .. } => panic!("it was asked what is under way"),
        _ => None,
    };
    let settled = Stamp::from_ms(WALL_MS - 1);
    let report = world.session_among(&mut ChaCha8Rng::seed_from_u64(1), settled, &[0, 1, 2], &mut unasked);
    assert_eq!((report.pushed + report.pulled, report.failed), (2, None));
    assert_eq!(world.root(0), world.root(1));
}

/// What node 2 says it has under way, as it says it to a session of the other two.
fn session_while(under_way: Option<Answer>) -> (World, Report) {
    let mut world = World::new(3);
    let everywhere = Key::new("everywhere").unwrap();
    world.nodes[0].write(&everywhere, Seen::Everything, Some(vec![1]));
    let report = world.session_among(
        &mut ChaCha8Rng::seed_from_u64(1),
        Stamp::from_ms(WALL_MS + 1),
        &[0, 1, 2],
        &mut |_, request| match request {
            Request::UnderWay { .. } => Some(under_way.clone().ok_or(Failure::Unreachable)),
            _ => None,
        },
    );
    (world, report)
}

#[test]
fn what_a_member_is_still_handing_to_its_owners_is_left_to_it() {
    let says = |since| session_while(Some(Answer::UnderWay { since, hints: false })).1;
    let nothing = says(None);
    assert_eq!((nothing.pushed, nothing.failed), (1, None));
    assert_eq!(says(Some(Stamp::from_ms(WALL_MS + 1))).pushed, 1, "it began later than the write");
    let (began_before, silent) = (says(Some(Stamp::from_ms(WALL_MS - 1))), session_while(None).1);
    for report in [began_before, silent] {
        assert_eq!((report.pushed, report.noop, report.failed), (0, 0, None));
    }
    let refused = session_while(Some(Answer::Refused(Refusal::Overloaded))).1;
    assert_eq!((refused.pushed, refused.failed), (0, None), "a third member's no does not end the session");
}

#[test]
fn a_session_waits_until_hints_have_been_handed_over() {
    let (mut world, report) = session_while(Some(Answer::UnderWay { since: None, hints: true }));
    assert_eq!((report.pushed, &report.failed), (0, &Some(Cause::HintsFirst)));
    assert!(report.is_busy(), "it is tried again shortly");
    assert_eq!(world.heal(1).pushed, 1);
}

#[test]
fn no_tree_is_built_before_it_is_known_that_no_hints_go_first() {
    let crowd = (0..60_000).filter_map(|n| Key::new(format!("crowd{n}")).ok());
    let crowd: Vec<Key> = crowd.filter(|key| Partition::of(key.position()).index() == 0).collect();
    for seed in 0..20 {
        let mut world = World::new(3);
        crowd.iter().for_each(|key| world.nodes[0].write(key, Seen::Everything, Some(vec![1])));
        let (mut said, mut early) = (0, false);
        let mut meddle = |_: &mut World, request: &Request| {
            said += u64::from(matches!(request, Request::UnderWay { .. }));
            early |= said < 2 && matches!(request, Request::Sync(SyncRequest::Subtrees { .. }));
            None
        };
        let among = world.session_among(&mut ChaCha8Rng::seed_from_u64(seed), Stamp::MAX, &[0, 1, 2], &mut meddle);
        assert_eq!((among.pushed as usize, among.failed), (crowd.len(), None));
        assert!(!early, "of the peer before all had said, seed {seed}");
    }
}

#[test]
fn a_partition_that_is_being_built_is_passed_over_and_said_so() {
    let mut world = World::new(2);
    world.nodes[1].write(&key(1), Seen::Everything, Some(vec![1]));
    world.nodes[1].write(&key(2), Seen::Everything, Some(vec![2]));
    world.nodes[0].forest.forget(Partition::of(key(1).position()));
    let report = world.heal(1);
    assert_eq!((report.not_built, report.pulled), (1, 1));
    assert_eq!(world.nodes[0].record(&key(1)), None);
}

#[test]
fn a_record_that_is_refused_does_not_hold_up_the_others() {
    let mut world = World::new(2);
    (0..20).for_each(|number| world.nodes[0].write(&key(number), Seen::Everything, Some(vec![1])));
    let report = world.session(&mut ChaCha8Rng::seed_from_u64(3), Stamp(u64::MAX), |_, request| match request {
        Request::Merge { key: refused, .. } if *refused == key(7) => Some(Ok(Answer::Refused(Refusal::Damaged))),
        _ => None,
    });
    assert_eq!((report.pushed, report.refused, report.declined, &report.failed), (19, 1, 1, &None));
    assert!(report.fills(false), "whatever the peer would not take, it has nothing that is not here");
    let mut world = World::new(2);
    (0..20).for_each(|number| world.nodes[1].write(&key(number), Seen::Everything, Some(vec![1; 5_000])));
    let report = world.session(&mut ChaCha8Rng::seed_from_u64(3), Stamp(u64::MAX), |_, request| match request {
        Request::Read { key: asked } if *asked == key(7) => Some(Ok(Answer::Refused(Refusal::Unreadable))),
        _ => None,
    });
    assert_eq!((report.pulled, report.refused, report.declined), (19, 1, 0));
    assert!(!report.fills(true), "what the peer could not read is lacking here");
}

#[test]
fn a_peer_that_will_not_take_a_record_gives_what_it_holds_of_it_all_the_same() {
    let promised = Refusal::Promised { ballot: Ballot { stamp: Stamp(9), actor: Actor(9) } };
    for (refusal, everything) in [(Refusal::Damaged, false), (promised.clone(), false), (promised, true)] {
        let mut world = World { everything, ..World::new(2) };
        for node in &mut world.nodes {
            node.write(&key(7), Seen::Everything, Some(vec![1; 10]));
        }
        let report = world.session(&mut ChaCha8Rng::seed_from_u64(3), Stamp(u64::MAX), |_, request| match request {
            Request::Merge { .. } => Some(Ok(Answer::Refused(refusal.clone()))),
            _ => None,
        });
        assert_eq!((report.pushed, report.pulled, report.refused, report.declined), (0, 1, 1, 1));
        assert_eq!(world.nodes[0].record(&key(7)).map(|record| record.siblings().len()), Some(2));
    }
}

#[test]
fn a_peer_that_goes_silent_ends_the_session_and_the_next_goes_on() {
    let mut world = World::new(2);
    (0..400).for_each(|number| world.nodes[0].write(&key(number), Seen::Everything, Some(vec![1])));
    for silent_after in [0, 1, 2, 3, 100, 300] {
        let mut calls = 0;
        let report = world.session(&mut ChaCha8Rng::seed_from_u64(silent_after), Stamp(u64::MAX), |_, _| {
            calls += 1;
            (calls > silent_after).then_some(Err(Failure::Unknown))
        });
        assert_eq!(report.failed, Some(Cause::Failure(Failure::Unknown)), "after {silent_after}");
        assert_eq!(report.noop, 0);
    }
    assert!(world.heal(1).failed.is_none());
    assert_eq!(world.root(0), world.root(1));
}

#[test]
fn a_peer_that_answers_nonsense_ends_the_session() {
    let mut world = World::new(2);
    world.nodes[0].write(&key(1), Seen::Everything, Some(vec![1]));
    let report = world
        .session(&mut ChaCha8Rng::seed_from_u64(1), Stamp(u64::MAX), |_, _| Some(Ok(Answer::Found { record: None })));
    assert_eq!(report.failed, Some(Cause::Nonsense));
}
