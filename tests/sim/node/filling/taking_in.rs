//! What a node takes in that it is to own, and what it makes of it that others are its peers.

use super::*;

impl World {
    /// These are the peers from now on; `is_new` says whether the node has just become a member.
    pub(in crate::node) fn members_changed(&mut self, node: usize, names: Vec<String>, is_new: bool) {
        let wall_ms = self.wall_ms(node);
        let up = self.up(node);
        let changed = up.completeness.filling.members(names, is_new);
        if !changed && !is_new {
            return;
        }
        let mut stand = Stand { stage: Stage::Asking, lack: None, then: None };
        let mut changes = vec![up.completeness.says(&mut stand), Change::KeepContexts];
        if up.completeness.is_refilled() {
            changes.push(Change::RaiseFloor { stamp: up.heard.max(up.last) });
        }
        let is_kept = up.committer.commit(wall_ms, changes).iter().all(Result::is_ok);
        if is_kept {
            up.committer.note_filling(stand.lack);
        }
        self.stage_kept(node, stand, is_kept);
    }

    /// Whether this node, if it is being filled or takes something in, now has all that the peer of that session had.
    pub(in crate::node) fn is_filled_by(&mut self, node: usize, report: &Report) -> bool {
        let takes_in = self.takes_anything_in(node);
        let completeness = self.completeness_of(node);
        completeness.is_filled_by(report) || takes_in && report.fills(completeness.counts)
    }

    /// A session with one of these, if any is alive.
    pub(super) fn fill_from_some(&mut self, node: usize, mut wanted: Vec<String>) {
        self.shuffle(&mut wanted);
        let alive: Vec<usize> = wanted.iter().filter_map(|name| self.alive(node, name)).collect();
        // What it has seen is of use only if it was said before the session.
        let peer = alive.into_iter().find(|&peer| self.has_said_enough(node, peer));
        if !peer.is_some_and(|peer| self.begin_session(node, peer, Reason::Filling)) {
            // One that began ends with a look.
            self.watch_after(node, TICK_US);
        }
    }

    /// The owners that a session is needed with to take in what a node is to own.
    pub(super) fn owners_to_take_in_from(&mut self, node: usize) -> Vec<String> {
        let ring = self.ring_of(node);
        if !ring.is_changing() {
            return Vec::new();
        }
        let owners = self.intake(node).to_compare(&ring);
        owners.into_iter().map(|owner| ring.member(owner).name.clone()).collect()
    }

    /// Whether a peer has said what it has seen, of what is to be taken in from it as well.
    fn has_said_enough(&mut self, node: usize, peer: usize) -> bool {
        let (ring, name) = (self.ring_of(node), self.nodes[peer].name.clone());
        let inhabited: BTreeSet<Partition> = (0..self.keys.len()).map(|key| self.partition(key)).collect();
        let Some(owner) = ring.member_by_name(&name) else { return false };
        // Of partitions without a key nothing is said here.
        let first = match ring.is_changing() {
            true => self.intake(node).lacking(&ring).find(|at| inhabited.contains(at) && ring.is_owner(owner, *at)),
            false => None,
        };
        let said = &self.up(node).said;
        said.by(&name).is_some() && first.is_none_or(|partition| said.of(&name, partition).is_some())
    }

    /// Looks soon whether there is something to take in.
    pub(in crate::node) fn watch_soon(&mut self, node: usize) {
        self.watch_after(node, TICK_US);
    }
}
