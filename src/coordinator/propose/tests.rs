//! Proposals among acceptors that are the product's own committers: each step told by itself, and many proposers at once
//! over a network that loses, delays and orders as chance has it.

use super::*;
use crate::merkle::Forest;
use crate::record::{Actor, Clock, Condition, Content, Edit, Seen, Unfit};
use crate::replica::{self, Step};
use crate::storage::{Committer, Feed, HintLedger, MemoryStore, Store};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

const WALL_MS: u64 = 1_000;

fn key() -> Key {
    Key::new("k").unwrap()
}

fn put(value: &str) -> Proposal {
    Edit::write(Seen::Everything, Some(Content::plain(value.to_owned()))).into()
}

fn add() -> Proposal {
    Edit::Add { by: 1, request: None }.into()
}

/// Owners, each with a committer of its own over a store in memory.
struct Owners(Vec<Committer>);

impl Owners {
    fn new(count: u64) -> Owners {
        let committer = |actor| {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
            let feed = Arc::new(Feed::new(1, 10, 1 << 20));
            let (forest, hints) = (Arc::new(Forest::new()), Arc::new(HintLedger::new(0)));
            Committer::new(store, forest, feed, hints, Arc::default(), Actor(actor), Clock::default())
        };
        Owners((1..=count).map(committer).collect())
    }

    fn members(&self) -> Vec<MemberIndex> {
        (0..self.0.len()).map(|at| MemberIndex(at as u16)).collect()
    }

    fn answer(&mut self, to: MemberIndex, request: Request) -> Answer {
        match replica::step(request) {
            Step::Commit(change) => replica::committed(self.0[to.index()].commit(WALL_MS, vec![change]).remove(0)),
            other => panic!("{other:?}"),
        }
    }

    fn machine(
        &self,
        proposer: u64,
        stamp: u64,
        reach: Reach,
        proposal: Option<Proposal>,
        kept: Option<Kept>,
    ) -> Propose {
        self.several(proposer, stamp, reach, vec![proposal], kept)
    }

    fn several(
        &self,
        proposer: u64,
        stamp: u64,
        reach: Reach,
        proposals: Vec<Option<Proposal>>,
        kept: Option<Kept>,
    ) -> Propose {
        let options = ProposeOptions {
            reach,
            ballot: Ballot { stamp: Stamp(stamp), actor: Actor(proposer) },
            now: Stamp::from_ms(WALL_MS),
            kept,
            epoch: 0,
            avoid: vec![],
            chance: proposer,
            full: None,
        };
        Propose::new(key(), proposals, Electorate::of_owners(self.members()), options)
    }

    /// Runs one proposal to its end, each call answered in turn; those to members of `away` fail as `failure` says.
    /// With it, how many calls were made.
    fn run(&mut self, mut machine: Propose, away: &[u16], failure: &Failure) -> (Proposed, usize) {
        let (mut commands, mut made) = (Vec::new(), 0);
        let mut outcome = machine.on(Event::Start, &mut commands);
        while outcome.is_none() {
            let event = match (!commands.is_empty()).then(|| commands.remove(0)) {
                None => Event::Deadline,
                Some(Command::Wake { .. }) => Event::Woken,
                Some(Command::Call { call, to, .. }) if away.contains(&to.0) => {
                    Event::Failed { call, failure: failure.clone() }
                }
                Some(Command::Call { call, to, request }) => {
                    made += 1;
                    Event::Answered { call, answer: self.answer(to, request) }
                }
            };
            outcome = machine.on(event, &mut commands);
        }
        (outcome.unwrap(), made)
    }

    fn propose(&mut self, stamp: u64, reach: Reach, proposal: Option<Proposal>, away: &[u16]) -> Decision {
        let machine = self.machine(90, stamp, reach, proposal, None);
        self.run(machine, away, &Failure::Unreachable).0.decisions.remove(0)
    }
}

fn shown(decision: &Decision) -> Vec<String> {
    let record = match decision {
        Decision::Made { record, .. } | Decision::Unmet { record } => record,
        other => panic!("{other:?}"),
    };
    let text = |value: &crate::record::Sibling| String::from_utf8(value.content.value.to_vec()).unwrap();
    record.siblings().iter().map(text).collect()
}

#[test]
fn the_first_proposal_of_a_key_takes_two_round_trips_and_those_that_follow_one() {
    let mut owners = Owners::new(3);
    let first = owners.machine(90, 10, Reach::Majority, Some(put("a")), None);
    let (first, calls) = owners.run(first, &[], &Failure::Unreachable);
    assert!(calls <= 6 && matches!(first.decisions[0], Decision::Made { created: true, .. }), "{first:?}");
    assert_eq!(shown(&first.decisions[0]), ["a"]);
    let next = owners.machine(90, 50, Reach::Majority, Some(put("b")), first.kept);
    let (next, calls) = owners.run(next, &[], &Failure::Unreachable);
    assert!(calls <= 3 && matches!(next.decisions[0], Decision::Made { created: false, .. }), "{next:?}");
    assert_eq!(shown(&owners.propose(99, Reach::Majority, None, &[0])), ["b"]);
}

#[test]
fn a_minority_decides_nothing_and_leaves_nothing_behind() {
    let mut owners = Owners::new(3);
    let decision = owners.propose(10, Reach::Majority, Some(put("a")), &[0, 2]);
    assert!(matches!(decision, Decision::Unavailable { answered: 1, .. }), "{decision:?}");
    assert_eq!(shown(&owners.propose(20, Reach::Majority, None, &[])), Vec::<String>::new());
    for reach in [Reach::All, Reach::InOrder] {
        let decision = owners.propose(30, reach, Some(put("b")), &[2]);
        // Somebody accepted before it was known that the last one would not.
        assert!(matches!(decision, Decision::Unknown { acked: 2, .. }), "{reach:?}: {decision:?}");
        assert!(matches!(owners.propose(40, reach, Some(put("c")), &[]), Decision::Made { acked: 3, .. }));
    }
    let mut machine = owners.machine(90, 60, Reach::All, Some(put("d")), None);
    machine.options.avoid = vec![MemberIndex(2)];
    let (known, calls) = owners.run(machine, &[2], &Failure::Unreachable);
    assert!(
        calls == 0 && matches!(known.decisions[0], Decision::Unavailable { .. }),
        "nobody need be asked: {known:?}"
    );
}

#[test]
fn a_chain_is_accepted_in_order_and_no_further_than_its_broken_link() {
    let mut owners = Owners::new(3);
    assert!(matches!(owners.propose(10, Reach::InOrder, Some(put("a")), &[]), Decision::Made { acked: 3, .. }));
    let broken = owners.propose(20, Reach::InOrder, Some(put("b")), &[1]);
    assert!(matches!(broken, Decision::Unknown { acked: 1, .. }), "{broken:?}");
    let tail = owners.answer(MemberIndex(2), Request::Prepare { key: key(), ballot: Ballot::after_all_of(Stamp(90)) });
    let Answer::Promised { record } = tail else { panic!("{tail:?}") };
    assert_eq!(record.agreed().map(|value| &*value.content.value), Some(&b"a"[..]));
}

#[test]
fn a_condition_is_judged_by_what_a_majority_has_accepted() {
    let mut owners = Owners::new(3);
    let create = || Some(Proposal { condition: Some(Condition::Absent), ..put("created") });
    let first = owners.propose(10, Reach::Majority, create(), &[]);
    assert!(matches!(first, Decision::Made { created: true, .. }));
    // One owner alone has something later: it is settled first, and judged then.
    let lone = owners.propose(20, Reach::Majority, Some(put("lone")), &[]);
    let Decision::Made { record, .. } = lone else { panic!("{lone:?}") };
    let second = owners.propose(30, Reach::Majority, create(), &[0]);
    assert_eq!(shown(&second), ["lone"]);
    let swap = |tag| Some(Proposal { condition: Some(Condition::Tagged(tag)), ..put("swapped") });
    let tag = record.tag(WALL_MS);
    assert!(matches!(owners.propose(40, Reach::Majority, swap(tag), &[]), Decision::Made { .. }));
    assert_eq!(shown(&owners.propose(50, Reach::Majority, swap(tag), &[])), ["swapped"]);
    let absent = Owners::new(3).propose(10, Reach::Majority, swap(tag), &[]);
    assert!(matches!(absent, Decision::Unmet { record } if record.is_unknown()));
}

#[test]
fn those_that_go_together_are_made_one_after_the_other_and_each_is_told_what_it_left() {
    let mut owners = Owners::new(3);
    let create = |value| Some(Proposal { condition: Some(Condition::Absent), ..put(value) });
    let text = Some(Edit::Add { by: 1, request: None }.into());
    let together = vec![create("first"), create("second"), text, None, Some(put("third"))];
    let machine = owners.several(90, 10, Reach::Majority, together, None);
    let (proposed, calls) = owners.run(machine, &[], &Failure::Unreachable);
    assert!(calls <= 6, "{calls} calls");
    let [first, second, text, settled, third] = proposed.decisions.as_slice() else { panic!("{proposed:?}") };
    assert!(
        matches!(first, Decision::Made { created: true, .. }) && matches!(third, Decision::Made { created: false, .. })
    );
    assert_eq!((shown(first), shown(second), shown(settled), shown(third)), {
        let texts = |text: &str| vec![text.to_owned()];
        (texts("first"), texts("first"), texts("first"), texts("third"))
    });
    assert!(matches!((second, text), (Decision::Unmet { .. }, Decision::Unfit(Unfit::NotACounter))));
    let tag = |decision: &Decision| match decision {
        Decision::Made { record, .. } | Decision::Unmet { record } => record.tag(WALL_MS),
        other => panic!("{other:?}"),
    };
    assert_eq!(tag(first), tag(second));
    assert_ne!(tag(first), tag(third), "each write is a version of its own");
    assert_eq!(shown(&owners.propose(90, Reach::Majority, None, &[1])), ["third"]);
}

#[test]
fn an_acceptance_whose_answers_were_lost_is_found_and_carried_on() {
    let mut owners = Owners::new(3);
    let machine = owners.machine(90, 10, Reach::Majority, Some(put("a")), None);
    let (decision, _) = owners.run(machine, &[1, 2], &Failure::Unknown);
    assert!(
        matches!(decision.decisions[0], Decision::Unavailable { .. }),
        "promises alone store nothing: {decision:?}"
    );
    // Accepted by one, then overtaken by an identity write that saw it.
    let mut machine = owners.machine(91, 20, Reach::Majority, Some(put("b")), None);
    let mut commands = Vec::new();
    machine.on(Event::Start, &mut commands);
    let mut accepts = Vec::new();
    while let Some(command) = (!commands.is_empty()).then(|| commands.remove(0)) {
        let Command::Call { call, to, request } = command else { continue };
        if matches!(request, Request::Accept { .. }) {
            accepts.push((call, to, request));
            continue;
        }
        let answer = owners.answer(to, request);
        machine.on(Event::Answered { call, answer }, &mut commands);
    }
    let (first, to, request) = accepts.remove(0);
    let answer = owners.answer(to, request);
    assert_eq!(machine.on(Event::Answered { call: first, answer }, &mut commands), None);
    assert_eq!(shown(&owners.propose(30, Reach::Majority, None, &[1])), ["b"], "owner 0 showed it");
    let mut outcome = None;
    for (call, to, request) in accepts {
        let answer = owners.answer(to, request);
        outcome = machine.on(Event::Answered { call, answer }, &mut commands).or(outcome);
    }
    while outcome.is_none() {
        let event = match commands.remove(0) {
            Command::Wake { .. } => Event::Woken,
            Command::Call { call, to, request } => Event::Answered { call, answer: owners.answer(to, request) },
        };
        outcome = machine.on(event, &mut commands);
    }
    let decision = outcome.unwrap().decisions.remove(0);
    assert!(matches!(decision, Decision::Made { .. }), "{decision:?}");
    assert_eq!(shown(&decision), ["b"]);
}

#[test]
fn a_plain_write_supersedes_what_was_written_without_consensus_since_the_last_promise() {
    let mut owners = Owners::new(3);
    let first = owners.machine(90, 10, Reach::Majority, Some(put("agreed")), None);
    let (first, _) = owners.run(first, &[], &Failure::Unreachable);
    let edit = Edit::write(Seen::Only(Default::default()), Some(Content::plain("beside")));
    let request = Request::Write { key: key(), edit, until: Stamp::MAX };
    let Answer::Written { record, .. } = owners.answer(MemberIndex(1), request) else { panic!("an owner writes") };
    assert_eq!(record.siblings().len(), 2);
    let next = owners.machine(90, 50, Reach::Majority, Some(put("next")), first.kept);
    let (next, _) = owners.run(next, &[], &Failure::Unreachable);
    assert_eq!(shown(&next.decisions[0]), ["next"]);
    assert_eq!(shown(&owners.propose(99, Reach::Majority, None, &[0])), ["next"]);
}

/// One proposer's machine, with what it waits for.
struct Running {
    machine: Propose,
    sleeps: bool,
}

/// A message that is on its way, either way.
enum Letter {
    Asks { from: usize, call: CallId, to: MemberIndex, request: Request },
    Says { from: usize, event: Event },
}

/// Many proposers count on one key at once. Messages arrive in any order, twice or never, and proposers die.
fn count_under_chaos(seed: u64) -> (u64, u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut owners = Owners::new(if rng.random_bool(0.3) { 5 } else { 3 });
    let loss = [0.0, 0.02, 0.1][rng.random_range(0..3)];
    let (mut running, mut letters): (Vec<Option<Running>>, Vec<Letter>) = (Vec::new(), Vec::new());
    let (mut made, mut unknown, mut values, mut begun) = (0u64, 0u64, Vec::new(), 0);
    let mut kept: [Option<Kept>; 3] = Default::default();
    let mut used = [10u64, 11, 12];
    let mut idle: Vec<usize> = vec![0, 1, 2];
    let mut of: Vec<usize> = Vec::new();
    for _ in 0..4_000 {
        if begun < 40 && !idle.is_empty() && rng.random_bool(0.2) {
            let proposer = idle.swap_remove(rng.random_range(0..idle.len()));
            begun += 1;
            used[proposer] += 1;
            let kept = kept[proposer].take().filter(|_| rng.random_bool(0.8));
            let together = vec![Some(add()); rng.random_range(1..4)];
            let machine = owners.several(90 + proposer as u64, used[proposer], Reach::Majority, together, kept);
            of.push(proposer);
            running.push(Some(Running { machine, sleeps: false }));
            letters.push(Letter::Says { from: running.len() - 1, event: Event::Start });
        }
        let awake: Vec<usize> =
            (0..running.len()).filter(|at| running[*at].as_ref().is_some_and(|running| running.sleeps)).collect();
        if let Some(at) = awake.choose(&mut rng).filter(|_| letters.is_empty() || rng.random_bool(0.05)) {
            letters.push(Letter::Says { from: *at, event: Event::Woken });
        }
        if rng.random_bool(0.002) && !running.is_empty() {
            letters.push(Letter::Says { from: rng.random_range(0..running.len()), event: Event::Deadline });
        }
        if letters.is_empty() {
            continue;
        }
        let letter = letters.swap_remove(rng.random_range(0..letters.len()));
        match letter {
            Letter::Asks { from, call, to, request } => {
                if rng.random_bool(loss) {
                    let failure = if rng.random_bool(0.5) { Failure::Unknown } else { Failure::Unreachable };
                    if failure == Failure::Unknown && rng.random_bool(0.5) {
                        owners.answer(to, request);
                    }
                    letters.push(Letter::Says { from, event: Event::Failed { call, failure } });
                    continue;
                }
                if rng.random_bool(loss) {
                    // Heard twice.
                    owners.answer(to, request.clone());
                }
                let answer = owners.answer(to, request);
                letters.push(Letter::Says { from, event: Event::Answered { call, answer } });
            }
            Letter::Says { from, event } => {
                let Some(one) = running[from].as_mut() else { continue };
                one.sleeps &= event != Event::Woken;
                let mut commands = Vec::new();
                let outcome = one.machine.on(event, &mut commands);
                for command in commands {
                    match command {
                        Command::Wake { .. } => one.sleeps = true,
                        Command::Call { call, to, request } => letters.push(Letter::Asks { from, call, to, request }),
                    }
                }
                let Some(proposed) = outcome else { continue };
                running[from] = None;
                let proposer = of[from];
                used[proposer] = used[proposer].max(proposed.used.0);
                kept[proposer] = proposed.kept;
                idle.push(proposer);
                for decision in proposed.decisions {
                    match decision {
                        Decision::Made { record, .. } => {
                            made += 1;
                            values.push(record.counter(WALL_MS).expect("a number"));
                        }
                        Decision::Unknown { .. } => unknown += 1,
                        Decision::Unavailable { .. } => {}
                        other => panic!("seed {seed}: {other:?}"),
                    }
                }
            }
        }
    }
    let left = running.iter().flatten().map(|running| running.machine.proposals.len() as u64);
    unknown += left.sum::<u64>();
    let last = owners.machine(99, used.iter().max().unwrap() + 1_000_000, Reach::Majority, None, None);
    let (last, _) = owners.run(last, &[], &Failure::Unreachable);
    let Decision::Made { record, .. } = last.decisions[0].clone() else { panic!("seed {seed}: {last:?}") };
    let sum = record.counter(WALL_MS).expect("a number") as u64;
    assert!((made..=made + unknown).contains(&sum), "seed {seed}: {sum} counted, {made} made, {unknown} unknown");
    let count = values.len();
    values.sort_unstable();
    values.dedup();
    assert_eq!(values.len(), count, "seed {seed}: two increments saw the same");
    assert!(
        values.iter().all(|value| *value <= i128::from(sum)),
        "seed {seed}: something was unseen: {values:?} {sum}"
    );
    (made, unknown)
}

#[test]
fn however_messages_come_each_increment_counts_once_and_none_that_was_acknowledged_is_lost() {
    let (mut made, mut unknown) = (0, 0);
    for seed in 0..300 {
        let (more_made, more_unknown) = count_under_chaos(seed);
        made += more_made;
        unknown += more_unknown;
    }
    assert!(made > 8_000 && unknown > 200, "{made} made, {unknown} unknown: a chaos that tells nothing");
}

#[test]
fn a_proposer_that_is_full_gives_no_key_a_first_value_and_does_whatever_else_is_asked() {
    let mut owners = Owners::new(3);
    let ask = |owners: &mut Owners, stamp: u64, asked: Vec<Proposal>| {
        let asked: Vec<_> = asked.into_iter().map(Some).collect();
        let mut machine = owners.several(90, stamp, Reach::Majority, asked.clone(), None);
        machine.proposals = Proposals::new(asked, Some(Refusal::NodeFull { max: 3 }));
        owners.run(machine, &[], &Failure::Unreachable).0.decisions
    };
    let is_full = |decision: &Decision| {
        matches!(decision, Decision::Unavailable { cause: Some(Refusal::NodeFull { max: 3 }), .. })
    };
    let delete = || Proposal::from(Edit::write(Seen::Everything, None));
    let decisions = ask(&mut owners, 10, vec![put("a"), add(), delete()]);
    assert!(is_full(&decisions[0]) && is_full(&decisions[1]), "{decisions:?}");
    assert!(matches!(decisions[2], Decision::Made { .. }), "{decisions:?}");
    assert_eq!(shown(&owners.propose(1_000, Reach::Majority, None, &[])), Vec::<String>::new());
    owners.propose(2_000, Reach::Majority, Some(put("5")), &[]);
    let decisions = ask(&mut owners, 3_000, vec![put("6"), add()]);
    assert_eq!((shown(&decisions[0]), shown(&decisions[1])), (vec!["6".to_owned()], vec!["7".to_owned()]));
    let decisions = ask(&mut owners, 4_000, vec![delete(), put("8")]);
    assert!(matches!(decisions[0], Decision::Made { .. }) && is_full(&decisions[1]), "{decisions:?}");
}
