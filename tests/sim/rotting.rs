//! Rot: bits of rows and of the log flip, and blocks of a base can no longer be read.
//!
//! One node at a time: nothing rots while some disk is not whole, so that of every key at most one owner's copy is lost.
//! What that owner alone had is gone, like with a lost disk; everything else must be there again in the end, and what is
//! damaged is never shown, nor taken for absent.

use super::world::World;
use rand::Rng;

/// What a node holds of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// Its row.
    Row,
    /// What it keeps for others.
    Hints,
}

impl World {
    /// Something rots on a node's disk, and often it restarts then: until it does, it may have sound copies in memory.
    pub(crate) fn rot(&mut self, node: usize) {
        if self.nodes[node].up.is_none() || !self.may_lose_a_disk() || self.owners(0).len() < 2 {
            return;
        }
        let (kind, restarts) = (self.rng.random_range(0..4), self.rng.random_ratio(2, 3));
        if kind == 3 {
            if self.nodes[node].disk.rot_log(&mut self.rng) {
                self.counters.hit("log rots");
                self.crash_and_restart(node);
            }
            return;
        }
        let key = self.rng.random_range(0..self.keys.len());
        let node = if kind == 1 { self.keeper(node, key) } else { node };
        // What is in memory alone cannot rot.
        self.carry_into_base(node);
        let rots = match kind {
            0 => self.rot_row(node, key),
            1 => self.rot_hint(node, key) || self.rot_row(node, key),
            _ => self.rot_base(node),
        };
        if rots && restarts {
            self.crash_and_restart(node);
        }
    }

    /// A node that keeps something of the key for others; else this one.
    fn keeper(&self, node: usize, key: usize) -> usize {
        let keeps = |&node: &usize| self.nodes[node].up.is_some() && self.oracle.has(node, key, Part::Hints);
        (0..self.nodes.len()).find(keeps).unwrap_or(node)
    }

    /// Everything is in the base that is in the log; whether it is.
    pub(crate) fn carry_into_base(&self, node: usize) -> bool {
        let store = self.nodes[node].up.as_ref().map(|up| up.store.clone());
        // The first carries what was left of an earlier one.
        store.is_some_and(|store| (0..2).all(|_| store.checkpoint(&mut || ()).is_ok()))
    }

    /// A row rots that another owner has as well.
    pub(crate) fn rot_row(&mut self, node: usize, key: usize) -> bool {
        let owners = self.owners(key);
        let elsewhere = owners.iter().any(|&other| other != node && self.oracle.has(other, key, Part::Row));
        let rots = elsewhere && self.nodes[node].disk.rot_row(&self.keys[key], Part::Row, &mut self.rng);
        if rots {
            self.counters.hit("row rots");
        }
        rots
    }

    /// What a node keeps of a key for others rots.
    pub(crate) fn rot_hint(&mut self, node: usize, key: usize) -> bool {
        let rots = self.nodes[node].disk.rot_row(&self.keys[key], Part::Hints, &mut self.rng);
        if rots {
            self.counters.hit("hint rots");
            // What is kept next takes its place, and may do so before anybody else looks.
            self.look_at_rows(node, false);
        }
        rots
    }

    /// A block of the base rots.
    pub(crate) fn rot_base(&mut self, node: usize) -> bool {
        let rots = self.nodes[node].disk.rot_base(&mut self.rng);
        if rots {
            self.counters.hit("base rots");
        }
        rots
    }
}
