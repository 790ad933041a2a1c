//! Sessions: the twin of `src/node/sync.rs` and of the comparing half of its worker.

use super::Machine;
use super::answering::Done;
use crate::plant::Plant;
use crate::workload::Purpose;
use crate::world::{Event, World};
use kringle::antientropy::{AFTER_HINTS_MS, CONFIRM_MS, FIRST_AFTER_MS_MAX, Report, Session, SessionOptions};
use kringle::membership::State;
use kringle::protocol::{Answer, Difference, MemberTag, Refusal, SyncAnswer, SyncRequest};
use kringle::replica;
use rand::Rng;
use std::collections::btree_map::Entry;

/// How long a session may take.
pub(super) const SESSION_US_MAX: u64 = 600_000_000;
/// How long to wait before a busy peer is asked again, about.
const RETRY_US: u64 = 200_000;
/// How long a session waits for busy nodes, if somebody counts on it.
const PATIENCE_US: u64 = 60_000_000;

/// Why a session was begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reason {
    Timer,
    Return,
    Request,
    Filling,
}

impl World {
    /// Milliseconds since the node started.
    pub(super) fn now_ms(&self, node: usize) -> u64 {
        let up = self.nodes[node].up.as_ref().expect("asked of running nodes only");
        (self.now - up.started) / 1_000
    }

    pub(super) fn jittered(&mut self, base: u64) -> u64 {
        base * self.rng.random_range(800..=1_200) / 1_000
    }

    pub(super) fn first_round_after(&mut self) -> u64 {
        self.jittered(self.options.session_period_us.min(1_000 * FIRST_AFTER_MS_MAX))
    }

    /// Compares with every peer that is alive, one after the other.
    pub(crate) fn sync_round(&mut self, node: usize) {
        if self.only_asked {
            return self.next_of_round(node);
        }
        let alive = |world: &World, peer: usize| {
            let up = world.nodes[node].up.as_ref().expect("it runs");
            up.view.peer(&world.nodes[peer].name).is_some_and(|peer| peer.state == State::Alive)
        };
        let round = (0..self.nodes.len()).filter(|&peer| peer != node && alive(self, peer)).collect();
        self.up(node).round = round;
        self.next_of_round(node);
    }

    fn next_of_round(&mut self, node: usize) {
        while let Some(peer) = self.up(node).round.pop_front() {
            if self.is_settling(node, peer) || self.hints_come_first(node, peer) {
                self.counters.hit("hints before a session");
            } else if self.begin_session(node, peer, Reason::Timer) {
                return;
            }
        }
        let (life, after) = (self.nodes[node].life, self.jittered(self.options.session_period_us));
        self.schedule(after, Event::SyncRound { node, life });
    }

    fn is_settling(&self, node: usize, peer: usize) -> bool {
        let up = self.nodes[node].up.as_ref().expect("it runs");
        up.schedule.is_settling(&self.nodes[peer].name, self.options.ping_period_us / 1_000, self.now_ms(node))
    }

    fn hints_come_first(&self, node: usize, peer: usize) -> bool {
        let (up, name) = (self.nodes[node].up.as_ref().expect("it runs"), &self.nodes[peer].name);
        up.schedule.hints_go_first(name, self.now_ms(node)) && up.hints.has_any(name)
    }

    /// A peer that was away is back.
    pub(super) fn peer_returned(&mut self, node: usize, peer: usize) {
        let (name, now_ms, life) = (self.nodes[peer].name.clone(), self.now_ms(node), self.nodes[node].life);
        let up = self.up(node);
        up.schedule.note_return(&name, now_ms);
        if let Entry::Vacant(entry) = up.returning.entry(peer) {
            entry.insert(None);
            self.schedule(0, Event::SyncReturned { node, life, peer });
        }
    }

    /// Compares with a peer that is back, once it was handed what is kept for it.
    pub(crate) fn sync_returned(&mut self, node: usize, peer: usize) {
        let now = self.now;
        if self.only_asked {
            return self.try_again(node, peer, RETRY_US);
        }
        if self.up(node).returning.get(&peer) == Some(&None) {
            if self.is_settling(node, peer) || self.hints_come_first(node, peer) {
                return self.try_again(node, peer, RETRY_US);
            }
            self.up(node).returning.insert(peer, Some(now + PATIENCE_US));
        }
        if !self.begin_session(node, peer, Reason::Return) {
            self.stayed_busy(node, peer, RETRY_US);
        }
    }

    fn try_again(&mut self, node: usize, peer: usize, after: u64) {
        let (life, after) = (self.nodes[node].life, self.jittered(after));
        self.schedule(after, Event::SyncReturned { node, life, peer });
    }

    fn stayed_busy(&mut self, node: usize, peer: usize, again_after: u64) {
        let until = self.up(node).returning.get(&peer).copied().flatten();
        if until.is_some_and(|until| self.now < until) {
            self.try_again(node, peer, again_after);
        } else {
            self.up(node).returning.remove(&peer);
        }
    }

    /// Begins a session, unless this node is in one.
    pub(crate) fn begin_session(&mut self, node: usize, peer: usize, reason: Reason) -> bool {
        let now_ms = self.now_ms(node);
        if !self.up(node).schedule.begin(now_ms) {
            self.counters.hit("in a session already");
            return false;
        }
        let (ring, me) = (self.ring_of(node), self.me(node));
        let Some(other) = ring.member_by_name(&self.nodes[peer].name) else {
            self.up(node).schedule.end();
            return false;
        };
        self.note_losses(node);
        let settled = self.now_stamp(node);
        let avoid = self.avoid(node);
        let options = SessionOptions {
            settled,
            confirm_ms: CONFIRM_MS,
            coordinators: ring.members().filter(|member| !avoid.contains(member)).collect(),
            under_way_ms_max: self.options.timeout_ms,
            everything: reason == Reason::Filling && self.plant != Some(Plant::FilledWithoutTheYoung),
            offers: false,
        };
        let (shared, name) = (replica::shared(&ring, me, other), self.nodes[peer].name.clone());
        let up = self.up(node);
        let seen = up.said.by(&name).cloned();
        let session = Session::new(&ring, up.forest.clone(), me, other, shared, options);
        self.start_operation(
            node,
            Machine::Session(Box::new(session)),
            Purpose::Session { node, peer, reason, seen },
            None,
        );
        true
    }

    pub(super) fn session_concluded(&mut self, purpose: Purpose, report: Report) {
        let (node, peer, reason, seen) = match purpose {
            Purpose::Session { node, peer, reason, seen } => (node, peer, reason, seen),
            Purpose::Offer { node, given } => return self.offered(node, given, &report),
            _ => unreachable!("a Session compares"),
        };
        self.up(node).schedule.end();
        if !self.has_lost_since(node) {
            let whole = reason == Reason::Filling && self.is_filled_by(node, &report);
            self.found_equal(node, peer, seen, &report, whole);
        }
        self.compared(node, peer, reason, &report);
        self.note_session(reason, &report);
        match reason {
            Reason::Timer => self.next_of_round(node),
            Reason::Return if report.gave_way_to_hints() => self.stayed_busy(node, peer, 1_000 * AFTER_HINTS_MS),
            Reason::Return if report.is_busy() => self.stayed_busy(node, peer, RETRY_US),
            Reason::Return => {
                self.up(node).returning.remove(&peer);
            }
            Reason::Request => self.asked.push(report),
            Reason::Filling => {}
        }
    }

    fn note_session(&mut self, reason: Reason, report: &Report) {
        let mut note = |was: bool, name| {
            if was {
                self.counters.hit(name);
            }
        };
        let failed = report.failed.is_some();
        note(report.is_busy(), "session with a busy peer");
        note(failed && !report.is_busy(), "session failed");
        note(failed && report.partitions > 0, "session failed half-way");
        note(!failed && report.rounds == 1, "session between equals");
        note(!failed && reason == Reason::Return, "session after a return");
        note(report.pushed > 0, "session pushed a record");
        note(report.pulled > 0, "session pulled a record");
        note(report.not_built > 0, "session before the digests were built");
        note(report.noop > 0, "session moved what had come another way");
    }

    /// Answers a question that digests alone can answer.
    pub(super) fn compare_now(&mut self, node: usize, request: SyncRequest, done: Done) {
        let now_ms = self.now_ms(node);
        if let SyncRequest::HandedOver { seen, unbroken } = &request {
            if self.completeness_of(node).unbroken() != *unbroken {
                return self.answered(node, done, Answer::Refused(Refusal::NotFilled));
            }
            self.take_over_seen(node, seen);
        }
        let asker = match &request {
            SyncRequest::Root { from, .. } => Some(*from),
            SyncRequest::Done { from } => {
                self.up(node).schedule.release(*from);
                None
            }
            _ => None,
        };
        let mut answer = self.comparison(node, request);
        let differs = matches!(answer, Answer::Sync(SyncAnswer::Groups(Some(_))));
        if let Some(asker) = asker.filter(|_| differs) {
            let asking = (0..self.nodes.len()).find(|&peer| MemberTag::of(&self.nodes[peer].name) == asker);
            let hints = asking.is_some_and(|peer| self.hints_come_first(node, peer));
            if hints || !self.up(node).schedule.admit(asker, now_ms) {
                answer = Answer::Refused(Refusal::Overloaded);
            }
        } else if let Some(asker) = asker {
            self.up(node).schedule.release(asker);
        }
        self.answered(node, done, answer);
    }

    /// What a node has under way as a coordinator.
    pub(super) fn writes_under_way(&mut self, node: usize, between: [MemberTag; 2]) -> Answer {
        let named = |peer: &usize| between.contains(&MemberTag::of(&self.nodes[*peer].name));
        let hints = (0..self.nodes.len()).filter(named).any(|peer| self.hints_come_first(node, peer));
        let since = self.up(node).operations.values().filter_map(|running| running.begun).min();
        if hints {
            self.counters.hit("hints elsewhere before a session");
        }
        if since.is_some() {
            self.counters.hit("write under way during a session");
        }
        Answer::UnderWay { since, hints }
    }

    /// Answers a question that takes a scan.
    pub(crate) fn compare(&mut self, node: usize, request: SyncRequest, done: Done) {
        let answer = self.comparison(node, request);
        self.answered(node, done, answer);
    }

    fn comparison(&mut self, node: usize, request: SyncRequest) -> Answer {
        let (ring, me) = (self.ring_of(node), self.me(node));
        let plant = self.plant;
        let up = self.up(node);
        let is_root = matches!(request, SyncRequest::Root { .. });
        let mut answer = replica::compare(&ring, me, &up.forest, &*up.store, request, &mut || ());
        match &mut answer {
            Answer::Sync(SyncAnswer::Differences(differences)) => {
                differences.iter_mut().for_each(|bed| spoil(plant, bed));
            }
            Answer::Sync(SyncAnswer::Groups(groups))
                if is_root && plant == Some(Plant::UnbuiltTakenForEqual) && up.rebuild.is_some() =>
            {
                *groups = None;
            }
            _ => {}
        }
        answer
    }
}

/// The planted bugs in what a session is told.
fn spoil(plant: Option<Plant>, differences: &mut Vec<Difference>) {
    match plant {
        Some(Plant::OnlyOneDirection) => {
            differences.retain(|difference| matches!(difference, Difference::Missing { .. }));
        }
        Some(Plant::TombstonesIgnored) => differences
            .retain(|difference| !matches!(difference, Difference::Other { outline, .. } if outline.is_tombstone())),
        Some(Plant::SiblingsIgnored) => differences.retain(
            |difference| !matches!(difference, Difference::Other { outline, .. } if outline.siblings().len() > 1),
        ),
        Some(Plant::DominatedSent) => {
            for difference in differences {
                if let Difference::Other { outline, .. } = difference {
                    *outline = Default::default();
                }
            }
        }
        _ => {}
    }
}
