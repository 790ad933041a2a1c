//! Disks that are lost, and old ones that are put back.
//!
//! One at a time: nothing is lost while some node still lacks what it lost before, or something rots on its disk, so that
//! a majority of the owners of every key always has its disks.

use super::disk::Disk;
use super::invariants;
use super::node::Node;
use super::world::World;
use rand::Rng;

/// What a node's disk has lost since it ran last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Loss {
    All,
    SinceTheCopy,
}

impl World {
    pub(crate) fn may_lose_a_disk(&self) -> bool {
        let is_whole = |node: &Node| node.filled && node.emptied.is_none() && !node.disk.is_rotten();
        self.nodes.len() > 1 && self.nodes.iter().all(is_whole)
    }

    /// A node comes back with an empty folder at its address.
    pub(crate) fn lose_disk(&mut self, node: usize) {
        self.counters.hit("disk lost");
        self.crash_and_restart(node);
        self.nodes[node].disk = Disk::new(self.rng.random());
        self.nodes[node].loss = Some(Loss::All);
        invariants::promises_to_oneself_are_over(self, node);
        self.note_loss(node, false);
    }

    /// Copies the folder of a node that is stopped for it.
    pub(crate) fn copy_disk(&mut self, node: usize) {
        self.counters.hit("copy of a disk taken");
        self.crash_and_restart(node);
        self.nodes[node].copy = Some(self.nodes[node].disk.copy());
    }

    /// Puts back what was copied.
    pub(crate) fn put_disk_back(&mut self, node: usize) {
        let Some(copy) = self.nodes[node].copy.as_ref().map(Disk::copy) else { return };
        self.counters.hit("old disk put back");
        self.crash_and_restart(node);
        self.nodes[node].disk = copy;
        self.nodes[node].loss = Some(Loss::SinceTheCopy);
        invariants::promises_to_oneself_are_over(self, node);
        self.note_loss(node, true);
    }

    pub(crate) fn note_loss(&mut self, node: usize, is_old: bool) {
        self.nodes[node].filled = false;
        // By which layouts it went is gone too.
        self.changes.epochs.remove(&node);
        let owners = self.owners_of_all();
        self.oracle.disk_lost(node, is_old, &owners);
    }

    /// The owners of each key.
    pub(crate) fn owners_of_all(&self) -> Vec<Vec<usize>> {
        (0..self.keys.len()).map(|key| self.owners(key)).collect()
    }
}
