//! Greetings between the nodes, and what they carry: clocks, and which writes each has seen. The twin of the part of
//! `src/node/filling.rs` that is about them, and of `src/node/seen.rs`.

use super::answering::{Caller, Done};
use crate::changes::number_of;
use crate::invariants;
use crate::plant::Plant;
use crate::world::{Event, World};
use kringle::antientropy::Report;
use kringle::membership::{OwnTime, Word};
use kringle::operation::Failure;
use kringle::placement::Partition;
use kringle::protocol::{Answer, Evidence, Greeting, MemberTag, Refusal, Request, SeenGroups};
use kringle::record::{Context, Stamp};
use kringle::storage::{Address, CONTEXTS_FACT, Change, Contexts, Store, Unconfirmed, contexts};
use std::collections::BTreeSet;

/// How often a peer is greeted that there is nothing new to tell.
const GREETING_PERIOD_US: u64 = 10_000_000;
/// How often a peer is asked what it has seen.
const CONTEXTS_PERIOD_US: u64 = 5_000_000;
/// How long to wait before a peer is greeted again that did not answer, or that there is a later stamp to tell.
const SHORT_US: u64 = 1_000_000;
/// The same of a peer that did not answer a node that has just started.
const SHORT_WHILE_YOUNG_US: u64 = 100_000;
/// For how long after its start a node is in a hurry to be heard.
const YOUNG_US_MAX: u64 = 10_000_000;

/// What goes to one peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Greeter {
    /// What was said in the last greeting that was answered.
    told: Option<Told>,
    /// When it was asked last what it has seen.
    asked_contexts: Option<u64>,
    /// A greeting is under way.
    busy: bool,
    /// Under which epoch it was greeted last.
    asked_under: u64,
    /// When it is looked next whether there is something to say.
    next: u64,
}

/// What was said in a greeting, and when.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    durable: Stamp,
    filled: bool,
    wants_contexts: bool,
    unconfirmed: Unconfirmed,
    unbroken: u64,
    at: u64,
}

/// To whom a greeting is answered, and which contexts it knows.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    peer: usize,
    wanted: Option<u64>,
    unbroken: u64,
    done: Box<Done>,
}

impl World {
    /// What the store says of the writes it has seen, begun anew under the present actor.
    pub(super) fn begin_contexts(&mut self, node: usize, lost: bool) {
        let wall_ms = self.wall_ms(node);
        let ignored = self.plant == Some(Plant::ContextsLostAtStart);
        let up = self.up(node);
        // Where something was lost, nothing that was said of it before is true any more.
        let kept = up.store.read(&Address::fact(CONTEXTS_FACT)).unwrap_or_default().filter(|_| !lost && !ignored);
        let mut contexts = kept.map_or_else(Contexts::default, |row| Contexts::decode(&row));
        contexts.begin(up.committer.actor(), up.store.last_stamp());
        let is_new = contexts.partitions_joined() == 0;
        up.contexts.change(|held| *held = contexts);
        // Where it cannot be kept, less is known after the next start, which is never wrong.
        let _ = up.committer.commit(wall_ms, vec![Change::KeepContexts]);
        if is_new && !ignored {
            // None were kept, or they cannot be read.
            self.note_unlearned(node, |_, _| true);
        }
        self.greet_everyone(node);
    }

    /// Looks at once whether there is something to tell the peers.
    pub(super) fn greet_everyone(&mut self, node: usize) {
        let ring = self.ring_of(node);
        let peers = self.peers_in(&ring, node);
        peers.iter().for_each(|name| self.greet_after(node, number_of(name), 0));
    }

    fn greet_after(&mut self, node: usize, peer: usize, after: u64) {
        let (life, next) = (self.nodes[node].life, self.now + after);
        let greeter = self.up(node).greeters.entry(peer).or_default();
        // One that is under way ends with a look.
        if !greeter.busy {
            greeter.next = next;
            self.schedule(after, Event::Greet { node, life, peer, at: next });
        }
    }

    /// Looks whether there is something to tell a peer, and tells it.
    pub(crate) fn greet(&mut self, node: usize, peer: usize, at: u64) {
        let (now, name, ring) = (self.now, self.nodes[peer].name.clone(), self.ring_of(node));
        if ring.guest().is_some() || ring.member_by_name(&name).is_none() {
            return;
        }
        let (filled, greeting) = (self.counts_for(node, peer), self.greeting_for(node, peer));
        let up = self.up(node);
        let greeter = up.greeters.entry(peer).or_default();
        if greeter.busy || greeter.next != at {
            return;
        }
        if std::mem::replace(&mut greeter.asked_under, ring.epoch()) != ring.epoch() {
            // It may be asked of other partitions now.
            (greeter.told, greeter.asked_contexts) = (None, None);
        }
        let is_due = greeter.told.as_ref().is_none_or(|told| {
            told.filled != filled || told.durable != greeting.durable || now >= told.at + GREETING_PERIOD_US
        });
        let is_unconfirmed = up.said.is_unconfirmed(&name);
        if !is_due && !is_unconfirmed {
            return self.greet_after(node, peer, SHORT_US);
        }
        greeter.busy = true;
        let wants_contexts =
            is_unconfirmed || greeter.asked_contexts.is_none_or(|asked| now >= asked + CONTEXTS_PERIOD_US);
        let (digest, unconfirmed) = (up.said.digest_of(&name), up.said.unconfirmed(&name));
        let greeting = Greeting { evidence: wants_contexts.then_some(digest), ..greeting };
        let Greeting { durable, unbroken, .. } = greeting;
        let told = Told { durable, filled, wants_contexts, unconfirmed, unbroken, at: now };
        let until = now + self.timeout_us();
        self.send(node, peer, ring.epoch(), Request::Greet(greeting), None, until, Caller::Greeting { peer, told });
    }

    fn greeting_for(&self, node: usize, peer: usize) -> Greeting {
        let Some(up) = &self.nodes[node].up else { unreachable!("only a running node greets") };
        let empty = |at| up.forest.is_built(at) && up.forest.live(at) == 0 && up.forest.tombstones(at) == 0;
        let nothing = (0..self.keys.len()).all(|key| empty(self.partition(key))) && up.hints.status().is_empty();
        Greeting {
            from: MemberTag::of(&self.nodes[node].name),
            id: self.nodes[node].id(),
            word: Word {
                filled: self.counts_for(node, peer),
                holds: !nothing,
                born: self.is_born(node),
                current: self.completeness_of(node).is_current(),
            },
            durable: up.store.last_stamp(),
            wall_ms: self.wall_ms(node),
            remembered: self.remembered(node, peer),
            unbroken: if self.plant == Some(Plant::DeliveredToAnotherLife) { 1 } else { up.completeness.unbroken() },
            evidence: None,
        }
    }

    /// Takes note of a greeting, and says how this node stands. If it counts now, it does so before it answers.
    pub(super) fn greeted(&mut self, node: usize, greeting: &Greeting, done: Done) {
        let ring = self.ring_of(node);
        let is_it = |name: &&String| MemberTag::of(name) == greeting.from;
        let Some(peer) = self.peers_in(&ring, node).iter().find(is_it).map(|name| number_of(name)) else {
            self.counters.hit("greeting of no member");
            return self.answered(node, done, Answer::Refused(Refusal::OtherNode));
        };
        self.take_greeting(node, peer, greeting);
        let (wanted, unbroken) = (greeting.evidence, greeting.unbroken);
        let then = Reply { peer, wanted, unbroken, done: Box::new(done) };
        if self.is_pending(node) { self.stage_changed(node, Some(then)) } else { self.greet_back(node, then) }
    }

    pub(super) fn greet_back(&mut self, node: usize, Reply { peer, wanted, unbroken, done }: Reply) {
        let evidence = wanted.map(|known| (known, self.evidence_for(node, peer, unbroken)));
        let evidence = evidence.filter(|(known, said)| contexts::digest(said) != *known).map(|(_, said)| said);
        let answer = Answer::Greeted { greeting: self.greeting_for(node, peer), evidence };
        self.answered(node, *done, answer);
    }

    fn take_greeting(&mut self, node: usize, peer: usize, greeting: &Greeting) {
        let name = self.nodes[peer].name.clone();
        let view = &mut self.up(node).view;
        if view.peer(&name).and_then(|known| known.id).is_some_and(|known| known != greeting.id) {
            // Another store answers there: what is meant for the one before would be refused.
            view.forget_id(&name);
        }
        self.note_clock(node, peer, greeting.wall_ms);
        self.up(node).said.note_unbroken(&name, greeting.unbroken);
        self.take_word(node, peer, greeting);
    }

    /// A greeting has met its fate.
    pub(super) fn greeting_ended(&mut self, node: usize, peer: usize, told: Told, result: Result<Answer, Failure>) {
        let (now, name) = (self.now, self.nodes[peer].name.clone());
        let is_young = now - self.up(node).started < YOUNG_US_MAX;
        let mut after = if is_young { SHORT_WHILE_YOUNG_US } else { SHORT_US };
        self.up(node).greeters.entry(peer).or_default().busy = false;
        match result {
            Ok(Answer::Greeted { greeting, evidence }) => {
                self.take_greeting(node, peer, &greeting);
                let up = self.up(node);
                let greeter = up.greeters.entry(peer).or_default();
                let (filled, unconfirmed) = (told.filled, told.unconfirmed.clone());
                let (wants_contexts, unbroken) = (told.wants_contexts, told.unbroken);
                greeter.told = Some(told);
                if wants_contexts {
                    greeter.asked_contexts = Some(now);
                }
                if let Some(evidence) = evidence {
                    let delivered = evidence.delivered.clone();
                    up.said.note(&name, evidence);
                    self.join_delivered(node, &delivered, unbroken);
                }
                if wants_contexts {
                    self.join_seen(node, &name, unconfirmed);
                }
                after = if filled == self.counts_for(node, peer) { SHORT_US } else { 0 };
            }
            Err(Failure::Unreachable) => self.peer_is_silent(node, peer),
            _ => {}
        }
        self.greet_after(node, peer, after);
    }

    /// Takes note of a peer's clock. What counts here is the time that the next stamp would have.
    fn note_clock(&mut self, node: usize, peer: usize, peer_ms: u64) {
        let (own, name) = (self.own_time(node), self.nodes[peer].name.clone());
        self.up(node).clocks.note(&name, peer_ms, own);
    }

    /// The time that the next stamp would have.
    fn own_time(&mut self, node: usize) -> OwnTime {
        let (wall_ms, steady_ms) = (self.wall_ms(node), self.now / 1_000);
        OwnTime { stamp_ms: wall_ms.max(self.up(node).last.ms()), steady_ms }
    }

    /// Why this node makes no stamps now, if most peers would refuse them.
    pub(super) fn is_ahead(&mut self, node: usize) -> Option<Refusal> {
        let own = self.own_time(node);
        let clocks = &self.up(node).clocks;
        let refusal = clocks.is_ahead(own).then(|| Refusal::ClockAhead { ahead_ms: clocks.ahead_ms(own) })?;
        self.counters.hit("declined for a clock ahead");
        Some(refusal)
    }

    /// Why this node makes no write of its own now, if `request` asks for one: another owner is to make it.
    pub(super) fn declines(&mut self, node: usize, request: &Request) -> Option<Refusal> {
        let lacks = |world: &mut World, at| world.is_partial(node, at) || world.takes_in(node, at);
        if request.partitions_to_forget().any(|partition| lacks(self, partition)) {
            self.counters.hit("owner that is not filled does not agree to forget");
            return Some(Refusal::NotFilled);
        }
        let is_for_others = matches!(request, Request::Hint { .. } | Request::HintWrite { .. });
        if is_for_others && !self.is_member(node) {
            self.counters.hit("hint declined by one that is no member");
            return Some(Refusal::NotAMember);
        }
        let key = match request {
            Request::Write { key, .. } => key,
            Request::Prepare { key, .. } | Request::Accept { key, .. } | Request::Propose { key, .. } => key,
            _ => return None,
        };
        let is_partial = self.is_partial(node, Partition::of(key.position()));
        if request.asks_for_a_vote() {
            let completeness = self.completeness_of(node);
            let (counts, is_confirmed) = (completeness.counts(), completeness.is_confirmed());
            if !(counts && is_confirmed) && self.plant != Some(Plant::UnfilledVotes) {
                let why =
                    if !counts { "vote declined by an owner that is not filled" } else { "vote declined unconfirmed" };
                self.counters.hit(why);
                return Some(Refusal::NotFilled);
            }
            if counts && is_partial {
                self.counters.hit("vote declined by one that is to own");
                return Some(Refusal::NotFilled);
            }
        } else if is_partial {
            self.counters.hit("write passed on by an owner that is not filled");
            return Some(Refusal::NotFilled);
        }
        if let Request::Prepare { .. } | Request::Accept { .. } = request {
            return None;
        }
        self.is_ahead(node)
    }

    /// The partitions with keys that a node owns.
    fn inhabited_of(&self, node: usize) -> BTreeSet<Partition> {
        self.inhabited_by(node, node)
    }

    /// The partitions with keys that a node keeps, as another knows it.
    fn inhabited_by(&self, knows: usize, node: usize) -> BTreeSet<Partition> {
        let ring = self.ring_of(knows);
        let member = if knows == node { Some(self.me(node)) } else { ring.member_by_name(&self.nodes[node].name) };
        let Some(member) = member else { return BTreeSet::new() };
        let partitions = (0..self.keys.len()).map(|key| self.partition(key));
        partitions.filter(|partition| ring.is_holder(member, *partition)).collect()
    }

    /// What a node has seen, and has handed over to a peer that is `unbroken` by this number.
    fn evidence_for(&self, node: usize, peer: usize, unbroken: u64) -> Evidence {
        let up = self.nodes[node].up.as_ref().expect("only a running node is asked");
        let delivered = match self.plant {
            Some(Plant::KeptToldAsDelivered) => self.kept_for(node, peer),
            _ => up.hints.delivered(&self.nodes[peer].name, unbroken),
        };
        let partitions: Vec<Partition> = self.inhabited_by(node, peer).into_iter().collect();
        Evidence { seen: self.seen_with(node, peer), delivered: contexts::alike(&partitions, &delivered) }
    }

    /// The planted bug: what is still on its way to a peer.
    fn kept_for(&self, node: usize, peer: usize) -> Context {
        let mut kept = Context::new();
        for key in (0..self.keys.len()).filter(|&key| self.owners(key).contains(&peer)) {
            let record = self.readable_hint(node, key).flatten();
            record.into_iter().for_each(|record| kept.join(record.context()));
        }
        kept
    }

    /// A peer has handed over all that it made under these names, if nothing was lost here since this node said that it
    /// was `unbroken`.
    fn join_delivered(&mut self, node: usize, delivered: &SeenGroups, unbroken: u64) {
        if delivered.is_empty() {
            return;
        }
        if self.completeness_of(node).unbroken() != unbroken && self.plant != Some(Plant::DeliveredToAnotherLife) {
            return;
        }
        let own = self.inhabited_of(node);
        let own: Unconfirmed = contexts::spread(delivered).filter(|(at, _)| own.contains(at)).collect();
        self.counters.hit("told that it has all that was made in its place");
        self.take_over(node, own);
    }

    /// One that keeps these partitions no longer has seen so much of them, and all that it held is here now.
    pub(super) fn take_over_seen(&mut self, node: usize, seen: &SeenGroups) {
        let own = self.inhabited_of(node);
        let own: Unconfirmed = contexts::spread(seen).filter(|(at, _)| own.contains(at)).collect();
        self.counters.hit("told what one that keeps it no more had seen");
        self.take_over(node, own);
    }

    /// What a node has seen of the partitions that it shares with a peer: of those with keys, as the rest is empty.
    fn seen_with(&self, node: usize, peer: usize) -> SeenGroups {
        let theirs = self.inhabited_by(node, peer);
        let partitions: BTreeSet<Partition> = self.inhabited_of(node).intersection(&theirs).copied().collect();
        let up = self.nodes[node].up.as_ref().expect("only a running node is asked");
        if up.mending.knows_of_any() {
            // They were seen, and are not there.
            return SeenGroups::new();
        }
        let partitions: Vec<Partition> = partitions.into_iter().collect();
        let (actor, last) = (up.committer.actor(), up.committer.committed_stamp());
        up.contexts.look(|contexts| contexts.of_all(&partitions, actor, last))
    }

    /// A session with a peer ended, before which it had said `theirs`: that goes for every partition in which the two
    /// were found to hold the same, if the peer says so still.
    pub(super) fn found_equal(
        &mut self,
        node: usize,
        peer: usize,
        theirs: Option<SeenGroups>,
        report: &Report,
        whole: bool,
    ) {
        let (Some(theirs), None) = (theirs, &report.failed) else { return };
        let careless = self.plant == Some(Plant::UnequalSeenJoined);
        let (ring, me) = (self.ring_of(node), self.me(node));
        let Some(other) = ring.member_by_name(&self.nodes[peer].name) else { return };
        let (name, believed) = (self.nodes[peer].name.clone(), self.plant == Some(Plant::SeenJoinedUnconfirmed));
        let up = self.up(node);
        let equal = contexts::spread(&theirs).filter(|(partition, context)| {
            let both = ring.is_holder(me, *partition) && ring.is_holder(other, *partition);
            let is_news = || up.contexts.look(|contexts| contexts.is_news(*partition, context));
            both && (careless || whole || !report.unequal.contains(partition)) && is_news()
        });
        let equal: Unconfirmed = equal.collect();
        if believed {
            return self.take_over(node, equal);
        }
        up.said.found_equal(&name, equal);
    }

    /// A peer was asked what it has seen when so much was `unconfirmed`, and has answered.
    fn join_seen(&mut self, node: usize, peer: &str, unconfirmed: Unconfirmed) {
        let asked = unconfirmed.len();
        let confirmed = self.up(node).said.answered(peer, unconfirmed);
        let is_all = confirmed.len() == asked;
        if !is_all {
            self.counters.hit("peer no longer says what it had seen");
        }
        self.take_over(node, confirmed);
        let peer = self.nodes.iter().position(|one| one.name == peer).expect("a member");
        self.confirmed(node, peer, is_all);
    }

    fn take_over(&mut self, node: usize, confirmed: Unconfirmed) {
        let news = self.up(node).contexts.change(|contexts| {
            confirmed.iter().fold(false, |news, (partition, context)| contexts.join(*partition, context) || news)
        });
        if news {
            self.counters.hit("took over what a peer had seen");
            self.submit_change(node, Change::KeepContexts);
            invariants::contexts_cover_what_is_held(self, node);
        }
    }
}
