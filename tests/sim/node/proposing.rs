//! Proposals on a node: the twin of `src/node/proposing.rs`. Each of its workers has turns and ballots of its own.

use super::answering::Done;
use super::{Machine, Up};
use crate::plant::Plant;
use crate::workload::Purpose;
use crate::world::World;
use kringle::coordinator::{Electorate, Entrust, Kept, Propose, ProposeOptions, Proposed, Turn as Came, Turns};
use kringle::operation::Event as Told;
use kringle::placement::Partition;
use kringle::protocol::{Answer, Decision, Reach, Refusal};
use kringle::record::{Actor, Ballot, Key, Proposal, Row, Stamp};
use kringle::storage::{Address, Change, Kind, LogStore, PageSize, Span, Store};
use rand::Rng;
use std::collections::BTreeSet;

/// How many contested keys are settled at a time.
const AT_A_TIME: usize = 32;

/// What a node needs to propose.
#[derive(Default)]
pub(crate) struct Proposing {
    workers: Vec<Proposer>,
    /// Keys of which a copy was refused because of a promise.
    contested: BTreeSet<Key>,
}

struct Proposer {
    actor: Actor,
    used: Stamp,
    turns: Turns<Asked>,
}

/// One who waits for a turn.
struct Asked {
    proposal: Option<Proposal>,
    reach: Reach,
    until: u64,
    done: Done,
}

/// Whose turn it is: one's, or several's that go together.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    worker: usize,
    key: Key,
    reach: Reach,
    dones: Vec<Done>,
    /// What was kept for it.
    given: Option<Kept>,
    /// Another proposal was met.
    overtaken: bool,
}

impl World {
    pub(super) fn proposing(&mut self, node: usize) -> Proposing {
        let workers: Vec<Proposer> = (0..self.options.proposers.max(1))
            .map(|_| {
                // Where nobody proposes, chance is left alone.
                let actor = if self.options.agreed > 0 { Actor(self.rng.random()) } else { Actor(1) };
                Proposer { actor, used: Stamp(0), turns: Turns::default() }
            })
            .collect();
        self.proposers.extend(workers.iter().map(|proposer| (proposer.actor, node)));
        Proposing { workers, contested: BTreeSet::new() }
    }

    /// Has the owners of `key`, of which this node is one, agree.
    pub(super) fn propose(
        &mut self,
        node: usize,
        key: Key,
        proposal: Option<Proposal>,
        reach: Reach,
        within_ms: u32,
        done: Done,
    ) {
        let until = self.now + (1_000 * u64::from(within_ms)).min(self.timeout_us());
        let workers = self.options.proposers.max(1);
        let worker = if workers > 1 { self.rng.random_range(0..workers) } else { 0 };
        let asked = Asked { proposal, reach, until, done };
        match self.up(node).proposing.workers[worker].turns.come(&key, asked) {
            Came::Now(asked, kept) => self.take_turn(node, worker, key, vec![asked], kept),
            Came::Waits => self.counters.hit("proposal waits for its turn"),
            Came::Full(asked) => self.answered(node, asked.done, Answer::Refused(Refusal::Overloaded)),
        }
    }

    fn take_turn(&mut self, node: usize, worker: usize, key: Key, asked: Vec<Asked>, mut kept: Option<Kept>) {
        let (asked, late): (Vec<Asked>, Vec<Asked>) = asked.into_iter().partition(|asked| asked.until > self.now);
        for asked in late {
            self.counters.hit("proposal too late for its turn");
            self.answered(node, asked.done, Answer::Refused(Refusal::TooLate));
        }
        let Some(until) = asked.iter().map(|asked| asked.until).max() else {
            return self.end_turn(node, worker, key, kept);
        };
        if let Some(refusal) = self.is_ahead(node) {
            asked.into_iter().for_each(|asked| self.answered(node, asked.done, Answer::Refused(refusal.clone())));
            return self.end_turn(node, worker, key, kept);
        }
        if asked.len() > 1 {
            self.counters.hit("proposals go together");
        }
        let reach = asked[0].reach;
        let (proposals, dones) = asked.into_iter().map(|asked| (asked.proposal, asked.done)).unzip();
        if kept.is_some() {
            self.counters.hit("kept ballot used");
        }
        let (now, chance) = (self.now_stamp(node), self.rng.random());
        let (avoid, plant) = (self.avoid(node), self.plant);
        let proposer = &mut self.up(node).proposing.workers[worker];
        let stamp = proposer.used.max(now).following();
        proposer.used = stamp;
        if let (Some(Plant::KeptUnderFreshBallot), Some(kept)) = (plant, &mut kept) {
            kept.ballot.stamp = Stamp(stamp.0 + 100);
        }
        let ballot = Ballot { stamp, actor: proposer.actor };
        let ring = self.ring_of(node);
        let electorate = Electorate::of(&ring, Partition::of(key.position()));
        let given = kept.clone();
        let epoch = ring.epoch();
        let options = ProposeOptions { reach, ballot, now, kept, epoch, avoid, chance, full: None };
        let propose = Box::new(Propose::new(key.clone(), proposals, electorate, options));
        let turn = Box::new(Turn { worker, key, reach, dones, given, overtaken: false });
        let machine = Machine::Propose { propose, within_us: until - self.now };
        self.start_operation(node, machine, Purpose::Proposal { node, turn }, None);
    }

    pub(super) fn proposed(&mut self, node: usize, turn: Turn, proposed: Proposed) {
        let Turn { worker, key, reach, dones, given, overtaken } = turn;
        let Proposed { decisions, mut kept, used, .. } = proposed;
        if self.plant == Some(Plant::BallotReused) {
            kept = kept.or(given);
        }
        let proposer = &mut self.up(node).proposing.workers[worker];
        proposer.used = proposer.used.max(used);
        for (done, decision) in dones.into_iter().zip(decisions) {
            match &decision {
                Decision::Made { .. } if overtaken => self.counters.hit("overtaken, and agreed on all the same"),
                Decision::Unmet { record } if !record.is_unknown() => {
                    self.counters.hit("condition not met, and settled first");
                }
                Decision::Unknown { acked: 1.., .. } if reach == Reach::InOrder => {
                    self.counters.hit("chain stopped half-way");
                }
                Decision::Unavailable { answered: 0, cause: None } if reach != Reach::Majority => {
                    self.counters.hit("refused as an owner is away");
                }
                _ => {}
            }
            self.answered(node, done, Answer::Decided(decision));
        }
        self.end_turn(node, worker, key, kept);
    }

    fn end_turn(&mut self, node: usize, worker: usize, key: Key, kept: Option<Kept>) {
        // Whoever was told may have stopped the node in a story; nobody does here.
        if let Some((asked, kept)) =
            self.up(node).proposing.workers[worker].turns.end(&key, kept, |one, other| one.reach == other.reach)
        {
            self.take_turn(node, worker, key, asked, kept);
        }
    }

    /// Takes note of copies that were refused because of a promise.
    pub(super) fn contested(&mut self, node: usize, keys: Vec<Key>) {
        for key in keys {
            self.counters.hit("copy refused by a promise");
            self.up(node).proposing.contested.insert(key);
        }
    }

    /// Has the owners of such keys agree on what they hold.
    pub(super) fn settle_contested(&mut self, node: usize) {
        let contested = &mut self.up(node).proposing.contested;
        let keys: Vec<Key> = contested.iter().take(AT_A_TIME).cloned().collect();
        contested.retain(|key| !keys.contains(key));
        for key in keys {
            let within_ms = self.options.timeout_ms as u32;
            let ring = self.ring_of(node);
            let entrust = Entrust::new(key, None, Reach::Majority, &ring, &self.avoid(node), within_ms);
            self.start_operation(node, Machine::Entrust(Box::new(entrust)), Purpose::Settle, None);
        }
    }
}

impl Turn {
    /// What an event tells of others that propose.
    pub(super) fn note(&mut self, event: &Told) -> bool {
        let is_overtaken = matches!(event, Told::Answered { answer: Answer::Refused(Refusal::Promised { .. }), .. });
        self.overtaken |= is_overtaken;
        is_overtaken
    }
}

/// The planted bug: a store without the promises that were given on it.
pub(super) fn forget_promises(store: &LogStore, keys: &[Key]) {
    let mut changes = Vec::new();
    for key in keys {
        let row = store.read(&Address::data(key)).unwrap_or_default().map(|row| Row::decode(&row));
        if let Some(Ok(row)) = row {
            changes.push((Address::data(key), Some(Row::of(row.record).encode())));
        }
    }
    let facts = store.scan(&Span::kind(Kind::Fact), PageSize::rows(2_048)).unwrap_or_default();
    for (address, _) in facts.rows {
        if address.key_bytes().starts_with(b"ballot") {
            changes.push((address, None));
        }
    }
    if !changes.is_empty() {
        let _ = store.append(changes, Stamp(0));
    }
}

/// The planted bug: promises that would keep a copy out are put aside, until [`put_back`] after the commit.
pub(super) fn put_aside(up: &mut Up, changes: &[Change]) -> Vec<(Key, Ballot)> {
    let mut aside = Vec::new();
    for change in changes {
        let Change::Merge { key, .. } = change else { continue };
        let Some(row) = row(up, key) else { continue };
        if let Some(promised) = row.promised {
            let _ = up.store.append(vec![(Address::data(key), Some(Row::of(row.record).encode()))], Stamp(0));
            aside.push((key.clone(), promised));
        }
    }
    aside
}

pub(super) fn put_back(up: &mut Up, aside: Vec<(Key, Ballot)>) {
    for (key, promised) in aside {
        if let Some(row) = row(up, &key) {
            let row = Row { promised: row.promised.max(Some(promised)), ..row };
            let _ = up.store.append(vec![(Address::data(&key), Some(row.encode()))], Stamp(0));
        }
    }
}

fn row(up: &Up, key: &Key) -> Option<Row> {
    up.store.read(&Address::data(key)).ok()?.and_then(|row| Row::decode(&row).ok())
}
