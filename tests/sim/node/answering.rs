//! Answering: one request from the node's own store, a peer's batch of them.

use super::committing::Submission;
use super::filling::Stand;
use super::greeting::Told;
use super::letting_go::Given;
use super::mending::By;
use crate::invariants;
use crate::network::Fate as Way;
use crate::options::about;
use crate::oracle::Verdict;
use crate::plant::Plant;
use crate::world::{Event, Parcel, World};
use bytes::Bytes;
use kringle::coordinator::Fate;
use kringle::operation::{CallId, Event as Heard, Failure};
use kringle::placement::Partition;
use kringle::protocol::{Answer, Batch, PROTOCOL_VERSION, Refusal, Reply, Request, SyncAnswer};
use kringle::record::{Dot, Key, Record, Row};
use kringle::replica::{self, Step};
use kringle::storage::{Address, Kind, Peek, Refused, Store};
use rand::Rng;

/// Who is told what became of a change or a look-up.
#[derive(Clone, Debug)]
pub(crate) enum Done {
    Caller(Caller),
    Gather {
        gathering: u64,
        at: usize,
    },
    HintGone {
        target: usize,
    },
    /// The store says how the node stands.
    Stage(Stand),
    /// A bare write.
    Alone {
        write: usize,
    },
    /// A row that was damaged is replaced.
    Restored {
        key: Key,
    },
    /// Something is brought over from a base that rotted.
    BroughtOver,
    /// Nothing is claimed of partitions that others keep.
    Disclaimed,
    /// Rows of such a partition are dropped.
    LetGo {
        partition: Partition,
    },
    Nobody,
}

/// Who is told what became of a request.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    Operation {
        id: u64,
        call: CallId,
        copy: bool,
    },
    HandOver(Box<Handful>),
    HandedOver(Box<Given>),
    Greeting {
        peer: usize,
        told: Told,
    },
    /// A node that was told what this one goes by.
    Hello {
        peer: usize,
    },
    /// A member that was asked how far it has come.
    Progress {
        peer: usize,
        round: u64,
    },
    /// A member that was asked to take this node in.
    Join {
        peer: usize,
    },
}

/// A hint on its way.
#[derive(Clone, Debug)]
pub(crate) struct Handful {
    pub(super) key: Key,
    pub(super) record: Record,
    pub(super) target: usize,
    pub(super) unbroken: Option<u64>,
    /// Who is to have it beside the one that was asked, under this epoch.
    pub(super) takers: Vec<usize>,
    pub(super) epoch: u64,
}

/// A peer's batch being answered.
pub(crate) struct Gathering {
    pub(super) from: usize,
    pub(super) from_life: u32,
    pub(super) exchange: u64,
    pub(super) answers: Vec<Option<Answer>>,
}

impl World {
    pub(super) fn at_hand(&mut self, node: usize, request: &Request) -> Option<Answer> {
        let address = match request {
            Request::Read { key } if self.plant == Some(Plant::OtherKeyRead) => {
                let at = self.keys.iter().position(|known| known == key).unwrap_or(0);
                Address::data(&self.keys[if self.rng.random_ratio(1, 20) { 0 } else { at }])
            }
            Request::Read { key } => Address::data(key),
            Request::ReadHint { key } => Address::hint(key),
            _ => return None,
        };
        let partial = self.answers_in_part(node, request);
        match self.up(node).store.peek(&address) {
            Peek::Known(row) => Some(replica::found(&address, row.as_ref()).in_part(partial)),
            Peek::Ask => None,
        }
    }

    pub(super) fn called(&mut self, node: usize, caller: Caller, result: Result<Answer, Failure>) {
        match caller {
            Caller::Operation { id, call, copy } => {
                let event = match result {
                    Err(_) if copy && self.plant == Some(Plant::FailureCountedAsAcknowledged) => {
                        Heard::Answered { call, answer: Answer::Merged { applied: true, more: None } }
                    }
                    Ok(answer) => Heard::Answered { call, answer },
                    Err(failure) => Heard::Failed { call, failure },
                };
                self.event(node, id, event);
            }
            Caller::HandOver(handful) => match Fate::of(&result) {
                Fate::Taken => self.taken(node, *handful),
                fate => self.handed_over(node, handful.target, fate),
            },
            Caller::Hello { peer } => self.greeted_back(node, peer, result),
            Caller::Progress { peer, round } => self.progress_heard(node, peer, round, result),
            Caller::Join { peer } => self.join_answered(node, peer, result),
            Caller::HandedOver(given) => {
                let is_taken = matches!(result, Ok(Answer::Sync(SyncAnswer::Done)));
                self.told_seen(node, *given, is_taken);
            }
            Caller::Greeting { peer, told } => self.greeting_ended(node, peer, told, result),
        }
    }

    /// Answers a request that is asked under this epoch.
    pub(super) fn answer(&mut self, node: usize, request: Request, epoch: u64, tag: Option<usize>, done: Done) {
        let current = self.ring_of(node).epoch();
        if request.is_bound_to_epoch() && epoch < current && self.plant != Some(Plant::AnsweredUnderAnEarlierEpoch) {
            self.counters.hit("own request of an earlier epoch refused");
            return self.answered(node, done, Answer::Refused(Refusal::StaleEpoch { epoch: current }));
        }
        if let Some(answer) = self.at_hand(node, &request) {
            return self.answered(node, done, answer);
        }
        let partial = self.answers_in_part(node, &request);
        if let Some(refusal) = self.declines(node, &request) {
            return self.answered(node, done, Answer::Refused(refusal));
        }
        match replica::step(request) {
            Step::Propose { key, proposal, reach, within_ms } => {
                self.propose(node, key, proposal.map(|proposal| *proposal), reach, within_ms, done);
            }
            Step::Commit(change) => self.commit(node, Submission { change, tag, partial, done, epoch }),
            Step::Read(address) => {
                let (life, after) = (self.nodes[node].life, about(&mut self.rng, 500));
                self.schedule(after, Event::Looked { node, life, address, partial, done });
            }
            Step::ReadSince(address, since) => {
                let key = self.keys.iter().position(|key| Address::data(key) == address).expect("a known key");
                let (actor, last) = (self.up(node).committer.actor(), self.up(node).committer.committed_stamp());
                let partition = self.partition(key);
                let dots = since.entries().iter().map(|&(actor, stamp)| Dot { stamp, actor });
                let seen = self.up(node).contexts.look(|contexts| {
                    dots.filter(|dot| contexts.covers(partition, actor, last, *dot)).collect::<Vec<_>>()
                });
                let answer = self.look_up(node, &address);
                self.answered(node, done, replica::having_seen(answer, seen).in_part(partial));
            }
            Step::Greet(greeting) => self.greeted(node, &greeting, done),
            Step::Gossip(packets) => {
                let packets = self.hear_gossip(node, &packets);
                self.answered(node, done, Answer::Gossip { packets });
            }
            Step::Layout(request) => self.answer_layout(node, request, done),
            Step::List(request) => {
                let (ring, me, now_ms) = (self.ring_of(node), self.me(node), self.now_stamp(node).ms());
                let partial: Vec<bool> = Partition::all().map(|at| self.is_partial(node, at)).collect();
                let kept = |at: Partition| ring.is_owner(me, at) && !partial[at.index()];
                let store = self.up(node).store.clone();
                let answer = match replica::list(&*store, &request, None, kept, now_ms, &mut || false) {
                    Ok(found) => {
                        found.damaged.into_iter().for_each(|key| self.note_rot(node, key, By::Read));
                        Answer::Listed(found.answer)
                    }
                    Err(_) => Answer::Refused(Refusal::Unreadable),
                };
                self.answered(node, done, answer);
            }
            Step::Follow(_) => panic!("nobody watches here"),
            Step::UnderWay(between) => {
                let answer = self.writes_under_way(node, between);
                self.answered(node, done, answer);
            }
            Step::Compare(request) if replica::is_quick(&request) => self.compare_now(node, request, done),
            Step::Compare(request) => {
                let (life, after) = (self.nodes[node].life, about(&mut self.rng, 1_000));
                self.schedule(after, Event::Compare { node, life, request, done });
            }
        }
    }

    pub(crate) fn looked(&mut self, node: usize, address: &Address, partial: bool, done: Done) {
        let answer = self.look_up(node, address);
        self.answered(node, done, answer.in_part(partial));
    }

    fn look_up(&mut self, node: usize, address: &Address) -> Answer {
        let answer = match self.up(node).store.read(address) {
            Ok(row) => match replica::found(address, row.as_ref()) {
                Answer::Refused(Refusal::Damaged) => self.damaged(node, address, row),
                answer => answer,
            },
            Err(_) => Answer::Refused(Refusal::Unreadable),
        };
        invariants::a_damaged_row_is_refused(self, node, address, &answer);
        answer
    }

    /// What is said of a row that cannot be read.
    fn damaged(&mut self, node: usize, address: &Address, row: Option<Bytes>) -> Answer {
        match (self.plant, address.kind(), row) {
            (Some(Plant::RottenRowAbsent), Kind::Data, _) => return Answer::Found { record: None },
            (Some(Plant::RottenRowServed), Kind::Data, Some(row)) => {
                if let Ok(row) = Row::decode_kept(&row) {
                    return Answer::Found { record: Some(row.record) };
                }
            }
            (_, Kind::Data, _) => {
                let key = address.key().expect("a row is one of a key");
                self.note_rot(node, key, By::Read);
            }
            _ => self.counters.hit("rotten hint met"),
        }
        Answer::Refused(Refusal::Damaged)
    }

    pub(super) fn answered(&mut self, node: usize, done: Done, answer: Answer) {
        match done {
            Done::Caller(caller) => self.called(node, caller, Ok(answer)),
            Done::Gather { gathering, at } => self.gather(node, gathering, at, answer),
            Done::HintGone { target } => {
                let is_gone = !matches!(answer, Answer::Refused(_));
                self.handed_over(node, target, if is_gone { Fate::Taken } else { Fate::Stopped });
            }
            Done::Alone { write } => {
                let is_stored = matches!(answer, Answer::Written { .. });
                self.oracle.end(write, if is_stored { Verdict::Ok } else { Verdict::Info }, self.moment);
            }
            Done::Stage(stand) => self.stage_kept(node, stand, !matches!(answer, Answer::Refused(_))),
            Done::Restored { key } => self.restored(node, &key, &answer),
            Done::BroughtOver => self.brought_over(node),
            Done::Disclaimed => self.disclaimed(node, !matches!(answer, Answer::Refused(_))),
            // What became of it is told with how many they were; it was refused.
            Done::LetGo { partition } => self.let_go_committed(node, partition, Err(Refused::Overloaded)),
            Done::Nobody => {}
        }
    }

    /// A peer's batch is here.
    pub(crate) fn arrived(
        &mut self,
        node: usize,
        (from, from_life, exchange): (usize, u32, u64),
        bytes: &Bytes,
        tags: Vec<Option<usize>>,
    ) {
        if self.refused.contains(&exchange) || self.nodes[node].up.is_none() && self.brought.contains(&exchange) {
            // What met with nobody is not brought later, and what somebody has was not refused.
            return;
        }
        self.brought.insert(exchange);
        if self.nodes[node].up.is_none() {
            self.refused.insert(exchange);
            self.counters.hit("connection refused");
            if let Way::Arrives(after) | Way::Jammed(after) = self.fate(node, from) {
                let failure = Failure::Unreachable;
                self.schedule(after, Event::Broken { node: from, life: from_life, exchange, failure });
            }
            return;
        }
        let (batch, version) = Batch::decode(bytes).expect("a batch can be read back");
        assert_eq!(version, PROTOCOL_VERSION);
        let envelope = &batch.envelope;
        let receiver_is_other = envelope.receiver.is_some_and(|receiver| receiver != self.nodes[node].id());
        self.hear(node, envelope.stamp);
        if receiver_is_other {
            self.counters.hit("batch for another store refused");
            return self.send_reply(node, (from, from_life, exchange), Err(Refusal::OtherNode));
        }
        let (epoch, current) = (envelope.epoch, self.ring_of(node).epoch());
        let is_bound = batch.requests.iter().any(Request::is_bound_to_epoch);
        if is_bound && epoch != current && self.plant != Some(Plant::AnsweredUnderAnEarlierEpoch) {
            self.counters.hit("batch of another epoch refused");
            return self.send_reply(node, (from, from_life, exchange), Err(Refusal::StaleEpoch { epoch: current }));
        }
        let gathering = self.next_exchange();
        let count = batch.requests.len();
        let answers = vec![None; count];
        self.up(node).gatherings.insert(gathering, Gathering { from, from_life, exchange, answers });
        if count == 0 {
            return self.reply(node, gathering);
        }
        for (at, (request, tag)) in batch.requests.into_iter().zip(tags).enumerate() {
            self.answer(node, request, epoch, tag, Done::Gather { gathering, at });
        }
    }

    pub(super) fn gather(&mut self, node: usize, gathering: u64, at: usize, answer: Answer) {
        let gathered = self.up(node).gatherings.get_mut(&gathering).expect("answered once each");
        gathered.answers[at] = Some(answer);
        if gathered.answers.iter().all(Option::is_some) {
            self.reply(node, gathering);
        }
    }

    pub(super) fn reply(&mut self, node: usize, gathering: u64) {
        let Gathering { from, from_life, exchange, answers } =
            self.up(node).gatherings.remove(&gathering).expect("a batch is answered once");
        let mut answers: Vec<Answer> = answers.into_iter().flatten().collect();
        if self.plant == Some(Plant::AnswersSwapped) {
            answers.reverse();
        }
        self.send_reply(node, (from, from_life, exchange), Ok(answers));
    }

    fn send_reply(
        &mut self,
        node: usize,
        (from, from_life, exchange): (usize, u32, u64),
        answers: Result<Vec<Answer>, Refusal>,
    ) {
        let stamp = self.up(node).last;
        let reply = Reply { sender: self.nodes[node].id(), epoch: self.ring_of(node).epoch(), stamp, answers };
        let bytes = Parcel(reply.encode(PROTOCOL_VERSION).into());
        match self.fate(node, from) {
            Way::Arrives(after) | Way::Jammed(after) => {
                self.schedule(after, Event::Replied { node: from, life: from_life, exchange, bytes });
            }
            Way::Lost => self.counters.hit("reply lost"),
        }
    }
}
