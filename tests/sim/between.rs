//! Requests of clients that meet a change of the layout are tried again: the twin of `src/http/between.rs`, and of what
//! `src/http/ask.rs` does with it.

use super::node::Machine;
use super::plant::Plant;
use super::workload::{Purpose, Wanted};
use super::world::{Event, World};
use kringle::coordinator::{Get, GetOptions, Put, PutOptions, PutOutcome, Quorum, Write as Wish};
use kringle::placement::{Partition, Ring};
use kringle::protocol::Refusal;
use kringle::record::{Context, Edit, Record};
use std::sync::Arc;

/// The first pause, doubled with each further one, and how often it is tried again at most.
const PAUSE_US: u64 = 5_000;
const TRIES_MAX: u32 = 7;

/// How long one request has kept trying.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    began: u64,
    tries: u32,
    /// How often a peer had named another epoch when it was tried last.
    met_others: u64,
}

/// A write that a client waits for.
#[derive(Clone, Debug)]
pub(crate) struct Writing {
    pub(crate) client: usize,
    pub(crate) node: usize,
    pub(crate) write: usize,
    pub(crate) wanted: Wanted,
    pub(crate) edit: Edit,
    pub(crate) patience: Patience,
    /// What it goes by now.
    pub(crate) ring: Arc<Ring>,
    /// An earlier try may have stored it.
    pub(crate) may_be_stored: bool,
    /// What an earlier try left that fell short.
    pub(crate) earlier: Option<Record>,
}

/// A read that a client waits for.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) client: usize,
    pub(crate) node: usize,
    pub(crate) key: usize,
    /// When it began, in moments.
    pub(crate) begun: u64,
    /// What the client would have at least, and what is asked for instead where that is planted.
    pub(crate) since: Context,
    pub(crate) asked: Context,
    pub(crate) wanted: Wanted,
    pub(crate) hedge_ms: u64,
    pub(crate) patience_ms: u64,
    pub(crate) patience: Patience,
    pub(crate) ring: Arc<Ring>,
}

impl World {
    /// Of a request that comes in now.
    pub(crate) fn patience(&self, node: usize) -> Patience {
        Patience { began: self.now, tries: 0, met_others: self.met_others(node) }
    }

    /// After how long what came to nothing under the layout of `epoch` may go better, if it may.
    pub(crate) fn goes_better_after(&self, node: usize, epoch: u64, patience: &mut Patience) -> Option<u64> {
        let pause = PAUSE_US << patience.tries;
        let is_over = self.now - patience.began + pause > self.timeout_us() / 2;
        let has_met = self.met_others(node) != patience.met_others;
        if patience.tries == TRIES_MAX || is_over || !has_met && !self.is_between_layouts(node, epoch) {
            return None;
        }
        (patience.tries, patience.met_others) = (patience.tries + 1, self.met_others(node));
        Some(if self.ring_of(node).epoch() == epoch { pause } else { 0 })
    }

    /// Tries a request again after so long.
    pub(crate) fn again(&mut self, node: usize, purpose: Purpose, after: u64) {
        self.counters.hit("request tried again under another layout");
        self.changes.agains += 1;
        let (number, life) = (self.changes.agains, self.nodes[node].life);
        self.changes.again.insert(number, purpose);
        self.schedule(after, Event::Again { node, life, number });
    }

    pub(crate) fn try_request_again(&mut self, (node, life): (usize, u32), number: u64) {
        let Some(purpose) = self.changes.again.remove(&number) else { return };
        if !self.lives(node, life) {
            return self.hung_up(purpose);
        }
        match purpose {
            Purpose::Write(writing) => self.begin_put(*writing),
            Purpose::Read(reading) => self.begin_get(*reading),
            Purpose::Agree { ask, .. } => self.agree_again(ask, node),
            _ => unreachable!("nobody waits for anything else"),
        }
    }

    /// A client's write comes in at a node.
    pub(crate) fn begin_write_of(&mut self, client: usize, node: usize, write: usize, wanted: Wanted, edit: Edit) {
        let (patience, ring) = (self.patience(node), self.ring_of(node));
        let (may_be_stored, earlier) = (false, None);
        self.begin_put(Writing { client, node, write, wanted, edit, patience, ring, may_be_stored, earlier });
    }

    /// Writes, as far as the client wants.
    pub(crate) fn begin_put(&mut self, mut writing: Writing) {
        let Writing { node, write, wanted, ref edit, .. } = writing;
        writing.ring = self.ring_of(node);
        let key = self.keys[self.oracle.writes[write].key].clone();
        let owners = writing.ring.owners(Partition::of(key.position())).len();
        let Some(quorum) = Quorum::of(wanted.count(), owners) else {
            // There are not that many.
            let outcome = PutOutcome::Refused(Refusal::NotAMember);
            return self.put_concluded(Purpose::Write(Box::new(writing)), outcome);
        };
        let options = PutOptions {
            quorum: match self.plant {
                Some(Plant::QuorumOneShort) => {
                    Quorum::of(Wanted::Hard(quorum.needed().max(2) as u8 - 1).count(), owners).expect("one fewer")
                }
                _ => quorum,
            },
            hard: matches!(wanted, Wanted::Hard(_)),
            covers: wanted != Wanted::One,
            now: self.now_stamp(node),
            deadline_ms: self.deadline_ms(),
            avoid: self.avoid(node),
            earlier: writing.earlier.clone(),
        };
        let put = Put::new(Wish { key, edit: edit.clone() }, writing.ring.clone(), self.me(node), options);
        self.start_operation(node, Machine::Put(Box::new(put)), Purpose::Write(Box::new(writing)), Some(write));
    }

    /// Reads, from as many owners as the client wants.
    pub(crate) fn begin_get(&mut self, mut reading: Reading) {
        let node = reading.node;
        reading.ring = self.ring_of(node);
        let owners = reading.ring.owners(self.partition(reading.key)).len();
        let Some(quorum) = Quorum::of(reading.wanted.count(), owners) else {
            self.counters.hit("unavailable read");
            return self.next_turn(reading.client);
        };
        let options = GetOptions {
            quorum,
            hard: matches!(reading.wanted, Wanted::Hard(_)),
            all: false,
            hedge_ms: reading.hedge_ms,
            patience_ms: reading.patience_ms,
            behind: self.behind(node),
            avoid: self.avoid(node),
            since: reading.asked.clone(),
        };
        let get = Get::new(self.keys[reading.key].clone(), reading.ring.clone(), self.me(node), options);
        self.start_operation(node, Machine::Get(Box::new(get)), Purpose::Read(Box::new(reading)), None);
    }

    /// Whether a write came to nothing, or to less than was wanted, because the layout changed: it is tried again then.
    pub(crate) fn writes_again(&mut self, writing: &mut Writing, outcome: &PutOutcome) -> bool {
        let counts = self.oracle.writes[writing.write].counts;
        let is_worth_it = match outcome {
            PutOutcome::Stored { .. } => false,
            PutOutcome::Short { .. } => !counts,
            PutOutcome::Unknown { is_nowhere, .. } => *is_nowhere || !counts,
            PutOutcome::Refused(refusal) => matches!(refusal, Refusal::StaleEpoch { .. }),
        };
        if !is_worth_it {
            return false;
        }
        if let PutOutcome::Short { record, .. } = outcome {
            writing.earlier = Some(record.clone());
        }
        let epoch = writing.ring.epoch();
        let Some(after) = self.goes_better_after(writing.node, epoch, &mut writing.patience) else { return false };
        writing.may_be_stored |=
            !matches!(outcome, PutOutcome::Unknown { is_nowhere: true, .. } | PutOutcome::Refused(_));
        self.again(writing.node, Purpose::Write(Box::new(writing.clone())), after);
        true
    }
}
