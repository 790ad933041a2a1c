//! The layout that a node goes by, how it takes over a later one, and its vote about the next: the twin of
//! `src/node/layouts.rs`.

use super::Up;
use super::answering::Done;
use super::letting_go::Handing;
use super::steward::{Then, Watching};
use crate::plant::Plant;
use crate::world::World;
use kringle::antientropy::Intake;
use kringle::membership::{NoVote, Register};
use kringle::placement::{Layout, Member, MemberIndex, Partition, Phase, Ring};
use kringle::protocol::{Answer, LayoutAnswer, LayoutRequest, Progress, Refusal};
use kringle::storage::{Address, Change, HintLedger, LogStore, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Where the layout lies in the store, and the votes about the next one.
const LAYOUT_FACT: &str = "layout";
const REGISTER_FACT: &str = "layout-votes";
/// Where it is kept of what nothing was here when the change of owners began.
const INTAKE_FACT: &str = "layout-intake";

/// What a node knows of layouts beside the one it goes by.
#[derive(Default)]
pub(crate) struct Layouts {
    /// The epochs that peers named, where they are not this node's.
    pub(super) others: BTreeMap<usize, u64>,
    /// How often one did.
    pub(super) met_others: u64,
    /// Whom it is telling what it goes by.
    pub(super) telling: BTreeSet<usize>,
    /// When it is looked next whether there is somebody to be told.
    pub(super) next_look: Option<u64>,
    register: Option<Register>,
    /// Who wanted to join lately, and when.
    pub(super) applicants: BTreeMap<String, (Member, u64)>,
    intake: Intake,
    /// What the members said last of the change under way.
    pub(super) progress: BTreeMap<usize, Progress>,
    pub(super) watching: Watching,
    /// What is to be done between two commits.
    pub(super) errands: Vec<Errand>,
    pub(super) handing: Option<Handing>,
}

/// What is done between two commits.
pub(super) enum Errand {
    Adopt { layout: Layout, then: Adopted },
    Vote { request: LayoutRequest, done: Done },
}

/// What comes after a layout was taken over, or was not.
pub(super) enum Adopted {
    Nobody,
    /// Somebody asked how this node stands.
    Standing(Done),
    /// It was proposed here, by those who went by `before`.
    Proposed {
        before: Arc<Ring>,
        then: Then,
        is_own: bool,
    },
}

/// What of it would be found on the disk after a crash in the middle.
pub(super) fn facts_of(up: &Up) -> Vec<Change> {
    let fact = |errand: &Errand| match errand {
        Errand::Adopt { layout, .. } if layout.epoch() > up.ring.epoch() => {
            Some(Change::Fact { name: LAYOUT_FACT, bytes: layout.encode().into() })
        }
        Errand::Adopt { .. } => None,
        Errand::Vote { request, .. } => {
            let next = voted(up.layouts.register.as_ref()?, up.ring.epoch(), request)?.ok()?.0;
            Some(Change::Fact { name: REGISTER_FACT, bytes: next.encode().into() })
        }
    };
    up.errands.iter().filter_map(fact).collect()
}

/// What a register votes, and becomes by it.
type Voted = Result<(Register, Option<Option<(kringle::membership::Round, Vec<u8>)>>), NoVote>;

fn voted(register: &Register, current: u64, request: &LayoutRequest) -> Option<Voted> {
    let mut next = register.clone();
    match request {
        LayoutRequest::Prepare { epoch, round } => {
            let promised = next.prepare(current, *epoch, *round);
            Some(promised.map(|accepted| (next, Some(accepted))))
        }
        LayoutRequest::Accept { round, layout } => {
            let epoch = Layout::decode(layout).ok()?.epoch();
            let accepted = next.accept(current, epoch, *round, layout.clone());
            Some(accepted.map(|()| (next, None)))
        }
        _ => None,
    }
}

impl World {
    /// What a store says of layouts.
    pub(super) fn layouts_at_start(
        &mut self,
        node: usize,
        store: &LogStore,
        hints: &HintLedger,
        lost: bool,
    ) -> (Arc<Ring>, Layouts) {
        if !self.options.has_changes() {
            return (self.ring.clone(), Layouts::default());
        }
        let read = |name| store.read(&Address::fact(name)).unwrap_or_default();
        let kept = read(LAYOUT_FACT).and_then(|bytes| Layout::decode(&bytes).ok());
        let votes = read(REGISTER_FACT).filter(|_| self.plant != Some(Plant::VotesLostInCrash));
        let register = votes.map_or_else(|| Some(Register::default()), |bytes| Register::decode(&bytes));
        let layout = match kept {
            Some(layout) => Arc::new(layout),
            None => {
                // Whom hints were made for goes by the layout.
                hints.void_names();
                self.changes.founding.clone()
            }
        };
        let ring = self.ring_for(&layout, node);
        let kept = read(INTAKE_FACT).filter(|_| !lost);
        let intake = Intake::resumed(&ring, self.me_in(&ring, node), kept.as_deref());
        (ring, Layouts { register, intake, ..Layouts::default() })
    }

    /// A start: what is gone by is kept before anybody is served.
    pub(super) fn begin_layouts(&mut self, node: usize) {
        if !self.options.has_changes() {
            return;
        }
        let (wall_ms, layout) = (self.wall_ms(node), self.ring_of(node).layout().clone());
        let change = Change::Fact { name: LAYOUT_FACT, bytes: layout.encode().into() };
        let _ = self.up(node).committer.commit(wall_ms, vec![change]);
        if layout.change().is_some() {
            self.counters.hit("start while owners change");
        }
        self.goes_by(node, &layout);
    }

    /// What a node does about layouts from time to time.
    pub(super) fn schedule_layouts(&mut self, node: usize) {
        if self.options.has_changes() {
            self.belongs(node);
            self.watch_the_change(node);
            self.let_go_later(node);
        }
    }

    /// The names of a node's peers: a guest has none.
    pub(super) fn peers_in(&self, ring: &Ring, node: usize) -> Vec<String> {
        let members = ring.layout().members().iter().filter(|_| ring.guest().is_none());
        members.map(|member| member.name.clone()).filter(|name| *name != self.nodes[node].name).collect()
    }

    /// This node as it is, or would be, a member.
    pub(super) fn as_member(&self, node: usize) -> Member {
        let ring = self.ring_of(node);
        Member { id: Some(self.nodes[node].id()), ..ring.member(self.me_in(&ring, node)).clone() }
    }

    /// Whether a running node takes the writes of a key, by its own layout.
    pub(crate) fn holds(&self, node: usize, key: usize) -> bool {
        !self.options.has_changes() || {
            let ring = self.ring_of(node);
            ring.is_holder(self.me_in(&ring, node), self.partition(key))
        }
    }

    /// Whose rows of a key say nothing of what is agreed to be gone: those that lost something, and that do not own it.
    pub(super) fn unfilled(&self, node: usize, key: usize) -> Vec<usize> {
        let owners = if self.options.has_changes() { self.owners(key) } else { Vec::new() };
        let is_other =
            |at: usize| self.options.has_changes() && (!owners.contains(&at) || at == node && !self.holds(node, key));
        (0..self.nodes.len()).filter(|&at| !self.nodes[at].filled || is_other(at)).collect()
    }

    /// What is left for a node to take in.
    pub(super) fn intake(&mut self, node: usize) -> &mut Intake {
        let losses = self.completeness_of(node).losses();
        let intake = &mut self.up(node).layouts.intake;
        intake.note_losses(losses);
        intake
    }

    /// Whether a node is to keep the partition and does not hold it whole yet.
    pub(super) fn takes_in(&mut self, node: usize, partition: Partition) -> bool {
        let ring = self.ring_of(node);
        ring.is_changing() && self.intake(node).lacks(&ring, partition)
    }

    /// Whether it still takes anything in.
    pub(super) fn takes_anything_in(&mut self, node: usize) -> bool {
        let ring = self.ring_of(node);
        ring.is_changing() && self.intake(node).lacking(&ring).next().is_some()
    }

    /// Whether copies and votes of a node count for a partition that it is yet to own.
    pub(super) fn counts_as_heir(&mut self, node: usize, partition: Partition) -> bool {
        let ring = self.ring_of(node);
        !ring.is_changing() || self.intake(node).counts(&ring, partition)
    }

    /// How far a node has come with the change of owners under way.
    pub(super) fn progress(&mut self, node: usize) -> Progress {
        let ring = self.ring_of(node);
        let lacking = self.intake(node).lacking(&ring).map(|at| (at, 0)).collect();
        let foreign = self.foreign(node).into_iter().map(|at| (at, 0)).collect();
        let completeness = self.completeness_of(node);
        let (is_filled, unbroken) = (completeness.counts(), completeness.unbroken());
        Progress { epoch: ring.epoch(), lacking, foreign, keys: 0, is_filled, unbroken }
    }

    /// Has something done between two commits.
    pub(super) fn errand(&mut self, node: usize, errand: Errand) {
        self.up(node).layouts.errands.push(errand);
        self.next_commit(node);
    }

    pub(super) fn run_errands(&mut self, node: usize) {
        for errand in std::mem::take(&mut self.up(node).errands) {
            match errand {
                Errand::Adopt { layout, then } => {
                    self.adopt(node, layout);
                    match then {
                        Adopted::Nobody => {}
                        Adopted::Standing(done) => {
                            let standing = self.standing(node);
                            self.answered(node, done, standing);
                        }
                        Adopted::Proposed { before, then, is_own } => self.chosen(node, &before, then, is_own),
                    }
                }
                Errand::Vote { request, done } => {
                    let answer = self.vote(node, &request);
                    self.answered(node, done, answer);
                }
            }
        }
    }

    /// Takes over a layout. Nothing, if it is no later one, or cannot be kept.
    fn adopt(&mut self, node: usize, layout: Layout) {
        let (before, wall_ms) = (self.ring_of(node), self.wall_ms(node));
        if layout.epoch() <= before.epoch() {
            return;
        }
        let layout = Arc::new(layout);
        let ring = self.ring_for(&layout, node);
        let me = self.me_in(&ring, node);
        let forest = self.up(node).forest.clone();
        let is_empty = |at| forest.is_built(at) && forest.live(at) == 0 && forest.tombstones(at) == 0;
        let intake = self.intake(node).clone().carried_over(Intake::of(&ring, me, is_empty));
        let layout_kept = Change::Fact { name: LAYOUT_FACT, bytes: layout.encode().into() };
        let intake_kept = Change::Fact { name: INTAKE_FACT, bytes: intake.encode().into() };
        let up = self.up(node);
        let kept = up.committer.commit(wall_ms, vec![layout_kept, intake_kept]).iter().all(Result::is_ok);
        if !kept {
            // Whoever goes by it tells this node again.
            return self.counters.hit("layout that cannot be kept");
        }
        if layout.epoch() > before.epoch() + 1 {
            self.counters.hit("layouts passed over");
        }
        self.goes_by(node, &layout);
        let own = self.nodes[node].id();
        let moved = !same_owners(&before, &ring);
        let up = self.up(node);
        if moved {
            up.committer.layout_changed();
            up.said.lost(None);
        }
        up.layouts.intake = intake;
        up.layouts.progress.clear();
        up.layouts.handing = None;
        up.ring = ring.clone();
        let gone: Vec<usize> = up.greeters.keys().copied().collect();
        for peer in gone {
            if ring.member_by_name(&self.nodes[peer].name).is_none() {
                self.up(node).greeters.remove(&peer);
            }
        }
        let peers = self.peers_in(&ring, node);
        let now = Duration::from_micros(self.now);
        let up = self.up(node);
        up.view.members(peers.clone());
        if ring.guest().is_none() {
            up.liveness.members(&peers.iter().cloned().collect(), now);
        }
        let is_new = ring.guest().is_none() && ring.member(me).id == Some(own) && ring.owned_by(me).is_empty();
        self.members_changed(node, peers, is_new);
        self.carry_liveness(node);
        self.greet_everyone(node);
        self.watch_soon(node);
        self.watch_the_change(node);
        self.belongs(node);
    }

    /// Votes about the next layout: durable before it is said.
    fn vote(&mut self, node: usize, request: &LayoutRequest) -> Answer {
        let (by, wall_ms) = (self.nodes[node].id(), self.wall_ms(node));
        let up = self.up(node);
        let current = up.ring.epoch();
        let Some(held) = up.layouts.register.as_ref() else {
            return Answer::Layout(LayoutAnswer::Declined { why: "its votes cannot be read".into() });
        };
        match voted(held, current, request) {
            None => Answer::Layout(LayoutAnswer::Declined { why: "no layout".into() }),
            Some(Err(NoVote::OtherEpoch)) => Answer::Refused(Refusal::StaleEpoch { epoch: current }),
            Some(Err(NoVote::Outvoted(round))) => Answer::Layout(LayoutAnswer::Outvoted { round }),
            Some(Ok((next, promised))) => {
                let change = Change::Fact { name: REGISTER_FACT, bytes: next.encode().into() };
                if !up.committer.commit(wall_ms, vec![change]).iter().all(Result::is_ok) {
                    return Answer::Refused(Refusal::ReadOnly { why: "the vote cannot be kept".into() });
                }
                up.layouts.register = Some(next);
                self.counters.hit("vote about a layout");
                Answer::Layout(match promised {
                    Some(accepted) => LayoutAnswer::Promised { by, accepted },
                    None => LayoutAnswer::Accepted { by },
                })
            }
        }
    }

    /// What it is about layouts that is not as it should be when all is quiet.
    pub(crate) fn layouts_left(&self) -> Option<String> {
        if !self.options.has_changes() {
            return None;
        }
        let latest = self.ring.layout();
        if let Some(change) = latest.change() {
            let at = if change.phase() == Phase::Filling { "filling" } else { "switched" };
            return Some(format!("the change of epoch {} is still {at}", latest.epoch()));
        }
        let behind = self.members().into_iter().find(|&node| self.ring_of(node).epoch() != latest.epoch());
        if let Some(node) = behind {
            let epoch = self.ring_of(node).epoch();
            return Some(format!("node {node} goes by epoch {epoch}, and not by {}", latest.epoch()));
        }
        let waits = |&node: &usize| self.nodes[node].joins && !self.is_member(node);
        if let Some(node) = (0..self.nodes.len()).find(waits) {
            return Some(format!("node {node} still waits to be a member"));
        }
        let keeps = |node: &usize| !self.foreign(*node).is_empty();
        let keeper = (0..self.nodes.len()).find(keeps)?;
        Some(format!("node {keeper} still has copies of what others keep"))
    }
}

/// Whether the same nodes keep, and own, the same partitions.
fn same_owners(one: &Ring, other: &Ring) -> bool {
    let same = |mine: &[MemberIndex], theirs: &[MemberIndex]| {
        let names = mine.iter().map(|member| &one.member(*member).name);
        names.eq(theirs.iter().map(|member| &other.member(*member).name))
    };
    Partition::all().all(|at| same(one.owners(at), other.owners(at)) && same(one.beside(at), other.beside(at)))
}
