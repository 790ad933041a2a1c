//! What a node does about layouts by itself: it asks to be a member, has changes agreed on, and sees them through. The twin
//! of `src/node/steward.rs`; how a cluster is founded is not played here.

use super::answering::{Caller, Done};
use super::layouts::{Adopted, Errand};
use super::{Machine, Up};
use crate::changes::number_of;
use crate::plant::Plant;
use crate::workload::Purpose;
use crate::world::{Event, World};
use kringle::coordinator::{Relaid, Relayout, RelayoutOptions, all_have_taken_in, all_know, heirs};
use kringle::membership::State;
use kringle::operation::Failure;
use kringle::placement::{Layout, Member, MemberIndex, NodeId, Phase, Ring};
use kringle::protocol::{Answer, LayoutAnswer, LayoutRequest, LayoutWish};
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How often one that wants to join asks.
const ASK_PERIOD_US: u64 = 500_000;
/// How long nodes that want to join wait for one another.
const TOGETHER_US: u64 = 2_000_000;
/// How often it is looked how far a change has come.
const PROGRESS_PERIOD_US: u64 = 100_000;
/// Timeouts after which a change is given up whose new owner is down.
const GONE_TIMEOUTS: u64 = 6;

/// Who wanted a layout, and is told what became of that.
#[derive(Clone, Debug)]
pub(crate) enum Then {
    /// The steward goes on.
    Steward,
    /// An operator, by the number of the wish.
    Operator { number: usize },
    /// A peer that asked for it.
    Peer(Done),
}

/// How a node watches over a change.
#[derive(Default)]
pub(super) struct Watching {
    /// Whether it looks again by itself.
    is_on: bool,
    /// Counts the times that everybody was asked, who has not answered yet, and under which epoch that was.
    round: u64,
    awaited: usize,
    epoch: u64,
    /// Since when new owners have been down.
    gone_since: BTreeMap<usize, u64>,
    /// Whether it asks to be a member again by itself, and how often it has.
    asks: bool,
    turn: usize,
}

impl World {
    /// Begins to watch over the change under way, if there is one.
    pub(super) fn watch_the_change(&mut self, node: usize) {
        let up = self.up(node);
        if up.ring.is_changing() && !std::mem::replace(&mut up.layouts.watching.is_on, true) {
            self.watch_on(node);
        }
    }

    fn watch_on(&mut self, node: usize) {
        let (life, after) = (self.nodes[node].life, self.jittered(PROGRESS_PERIOD_US));
        self.schedule(after, Event::Steward { node, life });
    }

    /// Sees a change of owners through: asks how far everybody has come.
    pub(crate) fn steward(&mut self, node: usize) {
        let ring = self.ring_of(node);
        let is_first = self.is_first(node, &ring);
        let watching = &mut self.up(node).layouts.watching;
        if !ring.is_changing() {
            watching.gone_since.clear();
            watching.is_on = false;
            return;
        }
        if !is_first {
            watching.gone_since.clear();
            return self.watch_on(node);
        }
        let (avoid, me) = (self.avoid(node), self.me(node));
        let others: Vec<MemberIndex> =
            ring.members().filter(|member| *member != me && !avoid.contains(member)).collect();
        let others = self.nodes_of(&ring, &others);
        let own = self.progress(node);
        let layouts = &mut self.up(node).layouts;
        layouts.progress.insert(node, own);
        let watching = &mut layouts.watching;
        (watching.round, watching.awaited, watching.epoch) = (watching.round + 1, others.len() + 1, ring.epoch());
        let (round, life) = (watching.round, self.nodes[node].life);
        self.schedule(ASK_PERIOD_US, Event::StewardDecides { node, life, round });
        for peer in others {
            self.ask_layout(node, peer, LayoutRequest::Progress, Caller::Progress { peer, round });
        }
        self.has_said(node, round);
    }

    /// A member has said how far it has come, or has not.
    pub(super) fn progress_heard(&mut self, node: usize, peer: usize, round: u64, result: Result<Answer, Failure>) {
        if let Ok(Answer::Layout(LayoutAnswer::Progress(progress))) = result {
            self.up(node).layouts.progress.insert(peer, progress);
        }
        self.has_said(node, round);
    }

    fn has_said(&mut self, node: usize, round: u64) {
        let watching = &mut self.up(node).layouts.watching;
        if watching.round == round && watching.awaited > 0 {
            watching.awaited -= 1;
            if watching.awaited == 0 {
                self.decide(node);
            }
        }
    }

    /// Whoever has not said anything by now is not waited for.
    pub(crate) fn steward_decides(&mut self, node: usize, round: u64) {
        let watching = &mut self.up(node).layouts.watching;
        if watching.round == round && std::mem::take(&mut watching.awaited) > 0 {
            self.decide(node);
        }
    }

    fn decide(&mut self, node: usize) {
        let ring = self.ring_of(node);
        if self.up(node).layouts.watching.epoch != ring.epoch() {
            return self.watch_on(node);
        }
        let early = self.plant == Some(Plant::ReadsSwitchEarly);
        let layout = ring.layout();
        let progress = self.up(node).layouts.progress.clone();
        let said = |member: MemberIndex| progress.get(&number_of(&ring.member(member).name));
        let next = match layout.change().map(|change| change.phase()) {
            Some(Phase::Filling) if early || all_have_taken_in(&ring, said) => layout.switch(),
            Some(Phase::Filling) if self.has_gone(node, &ring) => {
                self.counters.hit("change abandoned");
                layout.abandon()
            }
            Some(Phase::Switched) if all_know(&ring, said) => layout.settle(),
            Some(Phase::Switched) => {
                self.counters.hit("settling waits until enough know");
                return self.watch_on(node);
            }
            _ => return self.watch_on(node),
        };
        self.propose_next(node, next.expect("a change goes on"), Then::Steward);
    }

    /// Whether a node is the first voter that lives, as far as it knows.
    fn is_first(&self, node: usize, ring: &Ring) -> bool {
        let avoid = self.avoid(node);
        let first = ring.layout().voters().into_iter().find(|voter| !avoid.contains(voter));
        ring.guest().is_none() && first == Some(self.me(node))
    }

    /// Whether somebody who is to take something in has been down for too long.
    fn has_gone(&mut self, node: usize, ring: &Ring) -> bool {
        let (now, long) = (self.now, GONE_TIMEOUTS * self.timeout_us());
        let up = self.up(node);
        let is_down = |name: &str| up.view.peer(name).is_some_and(|peer| peer.state == State::Down);
        let names = heirs(ring).into_iter().map(|heir| &ring.member(heir).name);
        let down: BTreeSet<usize> = names.filter(|name| is_down(name)).map(|name| number_of(name)).collect();
        let gone_since = &mut up.layouts.watching.gone_since;
        gone_since.retain(|heir, _| down.contains(heir));
        for heir in down {
            gone_since.entry(heir).or_insert(now);
        }
        gone_since.values().any(|since| now >= since + long)
    }

    /// Has the members agree on a change of the layout.
    pub(crate) fn change(&mut self, node: usize, wish: LayoutWish, then: Then) {
        let ring = self.ring_of(node);
        if ring.guest().is_some() {
            let why = "this node is no member of the cluster".into();
            return self.change_ended(node, then, LayoutAnswer::Declined { why });
        }
        if let LayoutWish::Join(member) = &wish {
            let asked = (member.clone(), self.now);
            self.up(node).layouts.applicants.insert(member.name.clone(), asked);
        }
        match self.plan(node, &ring, &wish) {
            Ok(Some(next)) => self.propose_next(node, next, then),
            Ok(None) => self.change_ended(node, then, LayoutAnswer::Planned { epoch: ring.epoch() }),
            Err(why) => self.change_ended(node, then, LayoutAnswer::Declined { why }),
        }
    }

    /// What comes of a wish; nothing, if it is so already.
    fn plan(&mut self, node: usize, ring: &Ring, wish: &LayoutWish) -> Result<Option<Layout>, String> {
        let (now, layout) = (self.now, ring.layout());
        let planned = match wish {
            LayoutWish::Join(member) => {
                let id = member.id.ok_or("a node that wants to join has an id")?;
                if ring.member_by_id(id).is_some() {
                    return Ok(None);
                }
                if ring.member_by_name(&member.name).is_some() {
                    layout.rebind(&member.name, id)
                } else {
                    let applicants = &mut self.up(node).layouts.applicants;
                    applicants.retain(|_, (_, asked)| now - *asked < TOGETHER_US);
                    let is_new = |member: &Member| {
                        let is_bound = member.id.is_some_and(|id| ring.member_by_id(id).is_some());
                        ring.member_by_name(&member.name).is_none() && !is_bound
                    };
                    layout.join(applicants.values().map(|(member, _)| member.clone()).filter(is_new).collect())
                }
            }
            LayoutWish::Leave(name) => layout.leave(name),
            LayoutWish::Mode(mode) => layout.with_mode(*mode),
            LayoutWish::Replicas(replicas) if *replicas == layout.replicas() => return Ok(None),
            LayoutWish::Replicas(replicas) => layout.with_replicas(*replicas),
            LayoutWish::Refit { name, zone, weight } => {
                let next = layout.refit(name, zone, *weight);
                // The same again moves what an abandoned change has not.
                if next.as_ref().is_ok_and(|next| next.change().is_none() && next.members() == layout.members()) {
                    return Ok(None);
                }
                next
            }
            LayoutWish::Abandon => layout.abandon(),
            LayoutWish::Remove(name) => layout.leave(name),
            LayoutWish::Replace { dead, with } => layout.replace(dead, with.clone()),
        };
        planned.map(Some).map_err(|error| error.to_string())
    }

    fn propose_next(&mut self, node: usize, next: Layout, then: Then) {
        let ring = self.ring_of(node);
        let voters = ring.layout().voters();
        let needed = voters.len() / 2 + 1;
        let voters = voters.into_iter().filter_map(|voter| Some((voter, ring.member(voter).id?))).collect();
        let by = if self.plant == Some(Plant::RoundReused) { self.nodes[node].id() } else { NodeId(self.rng.random()) };
        let chance = self.rng.random();
        let options = RelayoutOptions { epoch: next.epoch(), by, voters, needed, chance };
        let relayout = Relayout::new(next.encode(), options);
        let purpose = Purpose::Relayout { node, before: ring, then: Box::new(then) };
        self.start_operation(node, Machine::Relayout(Box::new(relayout)), purpose, None);
    }

    /// The members have agreed, or have not.
    pub(super) fn relaid(&mut self, node: usize, before: Arc<Ring>, then: Then, relaid: Relaid) {
        match relaid {
            Relaid::Chosen { layout, is_own } => {
                if is_own {
                    self.counters.hit("layout agreed on");
                }
                let layout = Layout::decode(&layout).expect("a layout can be read back");
                self.errand(node, Errand::Adopt { layout, then: Adopted::Proposed { before, then, is_own } });
            }
            Relaid::Behind { by } => {
                let peer = number_of(&before.member(by).name);
                if peer != node {
                    self.hello(node, peer, Caller::Hello { peer });
                }
                let why = "another change of the layout came first".into();
                self.change_ended(node, then, LayoutAnswer::Declined { why });
            }
            Relaid::Unavailable { .. } => {
                self.counters.hit("layout not agreed on");
                self.change_ended(node, then, LayoutAnswer::Unavailable { why: "too few agreed".into() });
            }
        }
    }

    /// What was chosen is gone by here.
    pub(super) fn chosen(&mut self, node: usize, before: &Ring, then: Then, is_own: bool) {
        self.tell_all(node, before);
        let answer = match is_own {
            true => LayoutAnswer::Planned { epoch: before.epoch() + 1 },
            false => LayoutAnswer::Declined { why: "another change of the layout came first".into() },
        };
        self.change_ended(node, then, answer);
    }

    fn change_ended(&mut self, node: usize, then: Then, answer: LayoutAnswer) {
        match then {
            Then::Steward => self.watch_on(node),
            Then::Operator { number } => self.wish_ended(number, &answer),
            Then::Peer(done) => self.answered(node, done, Answer::Layout(answer)),
        }
    }

    /// A node stopped with this to be done.
    pub(super) fn wishes_hung_up(&mut self, up: &mut Up) {
        let errands = std::mem::take(&mut up.errands).into_iter().chain(std::mem::take(&mut up.layouts.errands));
        for errand in errands {
            if let Errand::Adopt { then: Adopted::Proposed { then, .. }, .. } = errand {
                self.change_hung_up(then);
            }
        }
    }

    /// A node stopped in the middle of having a change agreed on.
    pub(crate) fn change_hung_up(&mut self, then: Then) {
        if let Then::Operator { number } = then {
            self.wish_ended(number, &LayoutAnswer::Unavailable { why: "the node stopped".into() });
        }
    }

    /// Whether a node is not listed as it is, and wants to be.
    fn wants_in(&self, node: usize) -> bool {
        let ring = self.ring_of(node);
        let me = ring.member(self.me_in(&ring, node));
        let is_as_listed = ring.guest().is_none() && me.id == Some(self.nodes[node].id());
        !is_as_listed && (ring.guest().is_none() || self.nodes[node].joins)
    }

    /// Whether it is a guest that does not know how a change ended: nobody tells it.
    fn wonders(&self, node: usize) -> bool {
        let ring = self.ring_of(node);
        ring.guest().is_some() && ring.is_changing()
    }

    /// Asks to be a member, if that is wanted, until it is so.
    pub(crate) fn belongs(&mut self, node: usize) {
        if (self.wants_in(node) || self.wonders(node))
            && !std::mem::replace(&mut self.up(node).layouts.watching.asks, true)
        {
            self.ask_later(node);
        }
    }

    fn ask_later(&mut self, node: usize) {
        let (life, after) = (self.nodes[node].life, self.jittered(ASK_PERIOD_US));
        self.schedule(after, Event::Belong { node, life });
    }

    pub(crate) fn belong(&mut self, node: usize) {
        let (wants_in, wonders) = (self.wants_in(node), self.wonders(node));
        if !wants_in && !wonders {
            self.up(node).layouts.watching.asks = false;
            return;
        }
        let (ring, me, avoid) = (self.ring_of(node), self.me(node), self.avoid(node));
        let alive: Vec<MemberIndex> =
            ring.members().filter(|member| *member != me && !avoid.contains(member)).collect();
        let watching = &mut self.up(node).layouts.watching;
        watching.turn += 1;
        let turn = watching.turn;
        if alive.is_empty() {
            return self.ask_later(node);
        }
        let peer = number_of(&ring.member(alive[turn % alive.len()]).name);
        if !wants_in {
            self.counters.hit("guest asks how a change ended");
            self.hello(node, peer, Caller::Hello { peer });
            return self.ask_later(node);
        }
        let wish = LayoutWish::Join(self.as_member(node));
        self.ask_layout(node, peer, LayoutRequest::Change { wish }, Caller::Join { peer });
    }

    /// What became of that.
    pub(super) fn join_answered(&mut self, node: usize, peer: usize, result: Result<Answer, Failure>) {
        if let Ok(Answer::Layout(LayoutAnswer::Planned { epoch })) = result
            && epoch > self.ring_of(node).epoch()
        {
            self.counters.hit("join planned");
            self.hello(node, peer, Caller::Hello { peer });
        }
        self.ask_later(node);
    }
}
