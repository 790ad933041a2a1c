//! Clients: each asks one random node after another to read, write or delete one of a few keys, with values that are
//! never written twice, plainly or with the context of what it last read.

use super::between::{Reading, Writing};
use super::invariants::{
    acknowledged_is_held, majority_reads_see_majority_writes, no_session_goes_back, read_sees_the_owners,
};
use super::node::{Given, Reason, Then, Turn};
use super::oracle::{Verdict, Write};
use super::world::{Event, World};
use crate::options::about;
use crate::plant::Plant;
use bytes::Bytes;
use kringle::coordinator::{Count, GetOutcome, PutOutcome};
use kringle::placement::{MemberIndex, Ring};
use kringle::protocol::SeenGroups;
use kringle::record::{Content, Context, Edit, Key, Record, Seen};
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How long a client rests between two bursts.
const RESTS_MS: u64 = 4_000;

/// A client.
#[derive(Debug, Default)]
pub(crate) struct Client {
    pub(crate) left: usize,
    pub(crate) busy: bool,
    /// What it last read of each key, or saw of it in answer to its own write.
    pub(crate) shown: BTreeMap<usize, Shown>,
}

/// What a client knows of a key.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    seen: Seen,
    values: BTreeSet<Bytes>,
    /// The value of its own last write, where that is named beside what it had seen.
    own: Option<Bytes>,
}

/// How many owners a request wants.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Wanted {
    Majority,
    /// The mode `async`.
    One,
    /// The client named the number.
    Hard(u8),
}

impl Wanted {
    pub(crate) fn needed(self, owners: usize) -> usize {
        match self {
            Wanted::Majority => owners / 2 + 1,
            Wanted::One => 1,
            Wanted::Hard(number) => usize::from(number),
        }
    }

    /// The same, before it is known how many owners there are.
    pub(crate) fn count(self) -> Count {
        match self {
            Wanted::Majority => Count::Majority,
            Wanted::One => Count::Exactly(1),
            Wanted::Hard(number) => Count::Exactly(number),
        }
    }
}

/// What a node is asked on behalf of whom.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    Read(Box<Reading>),
    Write(Box<Writing>),
    /// A comparison of a node with a peer.
    Session {
        node: usize,
        peer: usize,
        reason: Reason,
        /// What the peer had said before of the writes it has seen.
        seen: Option<SeenGroups>,
    },
    /// What a node keeps no more is offered to one that does, under this epoch.
    Offer {
        node: usize,
        given: Given,
    },
    /// A layout is proposed to those who go by the one `before`.
    Relayout {
        node: usize,
        before: Arc<Ring>,
        then: Box<Then>,
    },
    /// A client of an agreed key, or nobody, waits for an answer: the number of the question.
    Agree {
        node: usize,
        ask: usize,
    },
    /// A proposal, and who is told how it ended.
    Proposal {
        node: usize,
        turn: Box<Turn>,
    },
    /// A key of which a copy was refused because of a promise.
    Settle,
    /// What may be forgotten.
    Forget,
    /// A row that rotted.
    Restore {
        node: usize,
        key: Key,
        /// What the other owners had said before that they have seen.
        said: Vec<(MemberIndex, Context)>,
    },
    /// A look at the end, by nobody.
    LastLook {
        key: usize,
    },
}

impl World {
    /// A client's turn.
    pub(crate) fn client(&mut self, client: usize) {
        if self.clients[client].left == 0 {
            return;
        }
        self.clients[client].left -= 1;
        let node = self.rng.random_range(0..self.nodes.len());
        if self.nodes[node].up.is_none() || self.is_paused(node) {
            // Refused before anything was sent; or, of a paused node, given up: the client goes elsewhere.
            return self.next_turn(client);
        }
        self.clients[client].busy = true;
        if client >= self.options.clients {
            return self.agree(client, node);
        }
        let key = self.rng.random_range(0..self.options.keys);
        let owners = self.owners(key).len();
        let wanted = self.wanted(owners);
        let (ring, patience) = (self.ring_of(node), self.patience(node));
        if self.rng.random_range(0..100) < self.options.reads_percent {
            let patience_ms = (self.deadline_ms() / 4).clamp(1, 100);
            let hedge_ms = self.rng.random_range(5.min(patience_ms)..=patience_ms);
            // A client that asks for nothing older than what it was shown.
            let shown = self.clients[client].shown.get(&key).map(|shown| shown.seen.since());
            let since = shown.filter(|_| self.rng.random_bool(0.5)).unwrap_or_default();
            let asked = if self.plant == Some(Plant::SinceIgnored) { Context::new() } else { since.clone() };
            let begun = self.moment;
            return self.begin_get(Reading {
                client,
                node,
                key,
                begun,
                since,
                asked,
                wanted,
                hedge_ms,
                patience_ms,
                patience,
                ring,
            });
        }
        let counts = self.is_counter(key);
        let (write, edit) = if counts {
            self.counters.hit("increment");
            (self.enter_increment(key), Edit::Add { by: 1, request: None })
        } else {
            let (write, seen) = self.begin_write(client, key);
            let content = self.oracle.writes[write].value.clone().map(Content::plain);
            let expires = content.is_some() && self.rng.random_range(0..100) < self.options.ttl_percent;
            let now_ms = self.now_stamp(node).ms();
            let expires_ms = expires.then(|| now_ms + self.rng.random_range(500..8_000));
            if expires {
                self.counters.hit("value that expires");
            }
            self.oracle.writes[write].expires = expires;
            (write, Edit::write(seen, content.map(|content| Content { expires_ms, ..content })))
        };
        self.begin_write_of(client, node, write, wanted, edit);
    }

    fn wanted(&mut self, owners: usize) -> Wanted {
        let dice = self.rng.random_range(0..100);
        let Self { options, rng, .. } = self;
        if dice < options.async_percent {
            Wanted::One
        } else if dice >= 100 - options.hard_percent {
            Wanted::Hard(rng.random_range(1..=owners as u8))
        } else {
            Wanted::Majority
        }
    }

    fn begin_write(&mut self, client: usize, key: usize) -> (usize, Seen) {
        let delete = self.rng.random_range(0..100) < self.options.deletes_percent;
        let (mut saw, mut seen, mut own) = (None, Seen::Everything, None);
        if self.rng.random_range(0..100) < self.options.contexts_percent {
            let nothing = || Shown { seen: Seen::Only(Context::new()), values: BTreeSet::new(), own: None };
            let shown = self.clients[client].shown.get(&key).cloned().unwrap_or_else(nothing);
            self.counters.hit("write with a context");
            (saw, seen, own) = (Some(shown.values), shown.seen, shown.own);
            if matches!(seen, Seen::OnlyAnd(..)) {
                self.counters.hit("write with a context and a dot");
            }
            if self.is_poisoned() {
                self.counters.hit("client with a context from the future");
                let mut context = seen.since();
                self.poison_context(&mut context);
                seen = Seen::Only(context);
            }
        }
        let write = self.enter_write(key, delete, saw);
        self.oracle.writes[write].own = own;
        (write, seen)
    }

    /// Enters a write with a value of its own, or a delete, in the books.
    pub(crate) fn enter_write(&mut self, key: usize, delete: bool, saw: Option<BTreeSet<Bytes>>) -> usize {
        let value = (!delete).then(|| Bytes::from(format!("value {}", self.oracle.writes.len())));
        let (begun, verdict) = (self.moment, Verdict::Open);
        self.oracle.begin(Write {
            key,
            value,
            saw,
            own: None,
            expires: false,
            counts: false,
            begun,
            told: begun,
            ended: begun,
            verdict,
            dots: Vec::new(),
            lost_on: BTreeSet::new(),
            on_majority: false,
            shows: false,
        })
    }

    /// Whether the key is only counted under.
    pub(crate) fn is_counter(&self, key: usize) -> bool {
        self.options.counter && key + 1 == self.options.keys
    }

    fn enter_increment(&mut self, key: usize) -> usize {
        let write = self.enter_write(key, true, None);
        self.oracle.writes[write].counts = true;
        write
    }

    pub(crate) fn next_turn(&mut self, client: usize) {
        self.clients[client].busy = false;
        // In bursts, so that there is something to do all the time that faults come and go.
        let rests = self.rng.random_ratio(1, 6);
        let think = about(&mut self.rng, 1_000 * if rests { RESTS_MS } else { self.options.think_ms });
        self.schedule(think, Event::Client(client));
    }

    /// The node that served the request died with it.
    pub(crate) fn hung_up(&mut self, purpose: Purpose) {
        match purpose {
            Purpose::Read(reading) => self.next_turn(reading.client),
            Purpose::Write(writing) => {
                let Writing { client, write, .. } = *writing;
                self.counters.hit("restart during a write");
                self.oracle.end(write, Verdict::Info, self.moment);
                self.next_turn(client);
            }
            Purpose::Session { .. } => self.counters.hit("crash during a session"),
            Purpose::Agree { ask, .. } => self.agreed_unknown(ask),
            Purpose::Relayout { then, .. } => self.change_hung_up(*then),
            Purpose::Restore { .. } | Purpose::Forget | Purpose::Proposal { .. } | Purpose::Settle => {}
            Purpose::Offer { .. } => self.counters.hit("crash while copies are offered"),
            Purpose::LastLook { .. } => self.oracle.violation("a node died in the quiet".into()),
        }
    }

    pub(crate) fn put_concluded(&mut self, purpose: Purpose, mut outcome: PutOutcome) {
        let Purpose::Write(mut writing) = purpose else { unreachable!("a Put writes") };
        if self.writes_again(&mut writing, &outcome) {
            return;
        }
        let Writing { client, write, wanted, ref ring, may_be_stored, .. } = *writing;
        if let (Some(Plant::HintCountedAsOwner), PutOutcome::Short { record, seen, replicas }) =
            (self.plant, &mut outcome)
        {
            replicas.acked += std::mem::take(&mut replicas.hinted);
            if replicas.acked >= wanted.needed(replicas.wanted) {
                let (record, seen, replicas) = (record.clone(), seen.clone(), *replicas);
                outcome = PutOutcome::Stored { created: false, record, seen, replicas };
            }
        }
        if let (Some(Plant::CountedAmongOwnersOnly), PutOutcome::Short { record, seen, replicas }) =
            (self.plant, &outcome)
            && replicas.acked >= wanted.needed(replicas.wanted)
        {
            let (record, seen, replicas) = (record.clone(), seen.clone(), *replicas);
            outcome = PutOutcome::Stored { created: false, record, seen, replicas };
        }
        if let Some(told) = &mut self.told {
            told.puts.insert(write, outcome.clone());
        }
        let (verdict, counter) = match &outcome {
            PutOutcome::Stored { replicas, .. } => {
                acknowledged_is_held(self, write, (wanted, ring), true, *replicas);
                (Verdict::Ok, "stored")
            }
            PutOutcome::Short { replicas, .. } => {
                acknowledged_is_held(self, write, (wanted, ring), false, *replicas);
                (Verdict::Ok, "short write")
            }
            PutOutcome::Unknown { replicas, .. } => {
                acknowledged_is_held(self, write, (wanted, ring), false, *replicas);
                (Verdict::Info, "unknown write")
            }
            PutOutcome::Refused(_) if may_be_stored => (Verdict::Info, "unknown write"),
            PutOutcome::Refused(_) => (Verdict::Fail, "refused write"),
        };
        self.counters.hit(counter);
        if counter == "stored" && self.oracle.writes[write].value.is_none() && !self.oracle.writes[write].counts {
            self.counters.hit("delete stored");
        }
        if let PutOutcome::Stored { record, seen, .. } | PutOutcome::Short { record, seen, .. } = &outcome
            && !self.oracle.writes[write].counts
        {
            self.chain(client, write, record, seen);
        }
        self.oracle.end(write, verdict, self.moment);
        self.next_turn(client);
    }

    /// A client may go on from its own write: it has seen what it had seen before, and its value.
    fn chain(&mut self, client: usize, write: usize, record: &Record, seen: &Seen) {
        let Write { key, value, saw, .. } = &self.oracle.writes[write];
        let seen = match self.plant {
            Some(Plant::ContextOfUnseenValues) => Seen::Only(record.context().clone()),
            Some(Plant::OwnDotWidened) => Seen::Only(seen.since()),
            _ => seen.clone(),
        };
        let (mut values, mut own) = (saw.clone().unwrap_or_default(), None);
        match &seen {
            Seen::OnlyAnd(..) => own = value.clone(),
            _ => values.extend(value.clone()),
        }
        self.clients[client].shown.insert(*key, Shown { seen, values, own });
    }

    pub(crate) fn get_concluded(&mut self, purpose: Purpose, outcome: GetOutcome) {
        let (client, key, begun, since, ring) = match purpose {
            Purpose::Read(mut reading) => {
                let (node, ring) = (reading.node, reading.ring.clone());
                let owners = ring.owners(self.partition(reading.key)).len();
                let is_short = match &outcome {
                    GetOutcome::Found { answered, .. } => *answered < reading.wanted.needed(owners),
                    GetOutcome::Unavailable { .. } | GetOutcome::Behind { .. } => true,
                };
                if is_short && let Some(after) = self.goes_better_after(node, ring.epoch(), &mut reading.patience) {
                    return self.again(node, Purpose::Read(reading), after);
                }
                (Some(reading.client), reading.key, reading.begun, reading.since, ring)
            }
            Purpose::LastLook { key } => (None, key, self.moment, Context::new(), self.ring.clone()),
            _ => unreachable!("a Get reads"),
        };
        if let Some(told) = &mut self.told {
            told.gets.push((key, outcome.clone()));
        }
        match (outcome, client) {
            (GetOutcome::Found { record, answers, answered }, client) => {
                let owners = ring.owners(self.partition(key));
                no_session_goes_back(self, key, &since, &record);
                majority_reads_see_majority_writes(self, key, begun, (answered, owners.len()), &record);
                if answered == 0 && answers.iter().any(|(member, _)| owners.contains(member)) {
                    self.counters.hit("read of owners that are not filled");
                }
                if answers.iter().any(|(member, _)| !owners.contains(member)) {
                    self.counters.hit("stand-in read");
                }
                self.shown(client, key, &record);
            }
            (GetOutcome::Unavailable { unfilled: 1.., .. }, Some(_)) => {
                self.counters.hit("read refused by owners that are not filled");
            }
            (GetOutcome::Unavailable { .. }, Some(_)) => self.counters.hit("unavailable read"),
            (GetOutcome::Behind { .. }, Some(_)) => self.counters.hit("read refused rather than stale"),
            (GetOutcome::Unavailable { .. } | GetOutcome::Behind { .. }, None) => {
                self.oracle.violation(format!("key {key} cannot be read when all is quiet"));
            }
        }
        if let Some(client) = client {
            self.next_turn(client);
        }
    }

    fn shown(&mut self, client: Option<usize>, key: usize, record: &Record) {
        let values: BTreeSet<Bytes> = record.siblings().iter().map(|sibling| sibling.content.value.clone()).collect();
        if !self.is_counter(key) && !self.is_agreed(key) {
            values.iter().for_each(|value| self.oracle.value_shown(key, value));
        }
        if values.len() > 1 {
            self.counters.hit("several siblings read");
        }
        match client {
            Some(client) => {
                let seen = Seen::Only(record.context().clone());
                self.clients[client].shown.insert(key, Shown { seen, values, own: None });
            }
            None => read_sees_the_owners(self, key, record),
        }
    }
}
