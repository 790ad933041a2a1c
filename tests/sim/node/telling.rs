//! Nodes tell one another what they go by: the rest of the twin of `src/node/layouts.rs`.

use super::answering::{Caller, Done};
use super::layouts::{Adopted, Errand};
use super::steward::Then;
use crate::changes::number_of;
use crate::world::{Event, World};
use kringle::membership::State;
use kringle::operation::Failure;
use kringle::placement::{ClusterId, Layout, Ring};
use kringle::protocol::{Answer, LayoutAnswer, LayoutRequest, Request};
use std::collections::BTreeSet;

/// How often those are turned to that go by another layout.
const ASK_PERIOD_US: u64 = 500_000;

fn cluster_name() -> ClusterId {
    ClusterId::named("sim")
}

impl World {
    /// A peer goes by this epoch.
    pub(super) fn note_epoch(&mut self, node: usize, peer: usize, theirs: u64) {
        if !self.options.has_changes() {
            return;
        }
        let up = self.up(node);
        if theirs == up.ring.epoch() {
            up.layouts.others.remove(&peer);
            return;
        }
        up.layouts.met_others += 1;
        if up.layouts.others.insert(peer, theirs) != Some(theirs) {
            self.counters.hit("peer goes by another layout");
            self.learn_after(node, 0);
        }
    }

    fn learn_after(&mut self, node: usize, after: u64) {
        let (life, at) = (self.nodes[node].life, self.now + after);
        let next = &mut self.up(node).layouts.next_look;
        if next.is_none_or(|next| next > at) {
            *next = Some(at);
            self.schedule(after, Event::Learn { node, life, at });
        }
    }

    fn out_of_step(&self, node: usize) -> Vec<usize> {
        let up = self.nodes[node].up.as_ref().expect("asked of running nodes only");
        let mine = up.ring.epoch();
        up.layouts.others.iter().filter(|(_, theirs)| **theirs != mine).map(|(peer, _)| *peer).collect()
    }

    /// Whether there may be another layout than the one of `epoch` in a moment, or others have to learn of it.
    pub(crate) fn is_between_layouts(&self, node: usize, epoch: u64) -> bool {
        let up = self.nodes[node].up.as_ref().expect("asked of running nodes only");
        let alive = |peer: &usize| up.view.peer(&self.nodes[*peer].name).is_some_and(|peer| peer.state == State::Alive);
        up.ring.epoch() != epoch || self.out_of_step(node).iter().any(alive)
    }

    /// How often a peer has named another epoch.
    pub(crate) fn met_others(&self, node: usize) -> u64 {
        self.nodes[node].up.as_ref().map_or(0, |up| up.layouts.met_others)
    }

    /// Turns to those who named another epoch.
    pub(crate) fn learn(&mut self, node: usize, at: u64) {
        let next = &mut self.up(node).layouts.next_look;
        if *next != Some(at) {
            return;
        }
        *next = None;
        let peers = self.out_of_step(node);
        if !peers.is_empty() {
            self.learn_after(node, ASK_PERIOD_US);
        }
        for peer in peers {
            if self.up(node).layouts.telling.insert(peer) {
                self.hello(node, peer, Caller::Hello { peer });
            }
        }
    }

    /// Tells another node what this one goes by, and learns what it does.
    pub(super) fn hello(&mut self, node: usize, peer: usize, caller: Caller) {
        let ring = self.ring_of(node);
        let (member, layout) = (self.as_member(node), ring.layout().encode());
        let request = LayoutRequest::Hello { name: cluster_name(), member, layout };
        self.ask_layout(node, peer, request, caller);
    }

    pub(super) fn ask_layout(&mut self, node: usize, peer: usize, request: LayoutRequest, caller: Caller) {
        let (until, epoch) = (self.now + self.timeout_us(), self.ring_of(node).epoch());
        self.send(node, peer, epoch, Request::Layout(request), None, until, caller);
    }

    /// Somebody has said how it stands, or has not.
    pub(super) fn greeted_back(&mut self, node: usize, peer: usize, result: Result<Answer, Failure>) {
        self.up(node).layouts.telling.remove(&peer);
        let Ok(Answer::Layout(LayoutAnswer::Standing { layout, .. })) = result else { return };
        if let Some(layout) = self.take_standing(node, &layout) {
            self.errand(node, Errand::Adopt { layout, then: Adopted::Nobody });
        }
    }

    /// The layout that a node is to go by because another does.
    fn take_standing(&mut self, node: usize, layout: &[u8]) -> Option<Layout> {
        let theirs = Layout::decode(layout).expect("a layout can be read back");
        (theirs.epoch() > self.ring_of(node).epoch()).then_some(theirs)
    }

    /// How a node stands, as an answer.
    pub(super) fn standing(&self, node: usize) -> Answer {
        let (member, layout) = (self.as_member(node), self.ring_of(node).layout().encode());
        Answer::Layout(LayoutAnswer::Standing { name: cluster_name(), member, layout })
    }

    /// Answers a question about the layout.
    pub(super) fn answer_layout(&mut self, node: usize, request: LayoutRequest, done: Done) {
        match request {
            LayoutRequest::Hello { layout, .. } => match self.take_standing(node, &layout) {
                Some(layout) => self.errand(node, Errand::Adopt { layout, then: Adopted::Standing(done) }),
                None => {
                    let standing = self.standing(node);
                    self.answered(node, done, standing);
                }
            },
            LayoutRequest::Progress => {
                let progress = self.progress(node);
                self.answered(node, done, Answer::Layout(LayoutAnswer::Progress(progress)));
            }
            LayoutRequest::Prepare { .. } | LayoutRequest::Accept { .. } => {
                self.errand(node, Errand::Vote { request, done });
            }
            LayoutRequest::Change { wish } => self.change(node, wish, Then::Peer(done)),
        }
    }

    /// Tells everybody that this layout, or the one before, lists what is gone by now.
    pub(super) fn tell_all(&mut self, node: usize, before: &Ring) {
        let ring = self.ring_of(node);
        let mut names: BTreeSet<String> = BTreeSet::new();
        for ring in [before, &*ring] {
            names.extend(ring.layout().members().iter().map(|member| member.name.clone()));
        }
        names.extend(self.up(node).layouts.applicants.keys().cloned());
        for peer in names.iter().map(|name| number_of(name)).filter(|peer| *peer != node).collect::<Vec<_>>() {
            self.hello(node, peer, Caller::Hello { peer });
        }
    }
}
