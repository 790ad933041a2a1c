//! What this node knows of its own completeness: whether it has all that an owner under its name should have.
//!
//! ```text
//!              a majority knows no earlier life
//!   Asking ─────────────────────────────────────► Filled ◄──┐ compared with enough other owners
//!     │  a peer remembers more than is held here     │       │
//!     └───────────────► Filling ◄────────────────────┘ ──────┘
//! ```
//!
//! A folder that says it was filled is believed once the peers that can be reached were asked, unless one of them
//! remembers another id under this name, or a later stamp: then the disk was lost or put back from a copy. A new
//! folder is filled at its birth only where a majority of the members, itself included, knows of no earlier life and
//! none of them that is older than its process holds something: a cluster that is being born. Whether a peer counts now
//! does not matter for this: it may have started again, and not yet heard anybody.
//!
//! Otherwise it is filled by sessions: a partition is whole when it was compared with a majority of its *other* owners
//! that are filled themselves, or with all of them: any write that a majority of the owners once had is on one of
//! those. Until then what is held here is true as far as it goes, and counts for nothing.

use super::Life;
use crate::placement::{MEMBERS_MAX, MemberIndex, NodeId, Partition, Ring};
use crate::record::Stamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Where a node stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It asks its peers what they remember.
    Asking,
    /// It lacks something, and is filled by sessions.
    Filling,
    /// It holds what an owner should hold.
    Filled,
}

/// Why a node is being filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// Its folder is new, and too few peers have said whether they knew it.
    Alone,
    /// Its folder is new, and its peers hold data.
    Newcomer,
    /// A peer remembers another store under its name.
    Emptied,
    /// A peer remembers its own store with later writes.
    RolledBack,
    /// What it had on disk rotted.
    Rotten,
    /// It was being filled when it stopped.
    Unfinished,
}

/// What a store may lack of what it once acknowledged, beside its last append, which may have been cut short, or has rotted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Lack {
    /// Everything from some moment on: it is new, or an older copy. What it promised before stands; what it accepted may be
    /// out of date.
    pub later: bool,
    /// Rows here and there: what it promised and what it accepted may each be gone without the other. What is there stands.
    pub rows: bool,
}

impl Lack {
    /// Nothing but perhaps the last append.
    pub const TAIL: Lack = Lack { later: false, rows: false };
    /// What came later.
    pub const LATER: Lack = Lack { later: true, rows: false };
    /// Single rows.
    pub const ROWS: Lack = Lack { later: false, rows: true };

    fn and(self, more: Lack) -> Lack {
        Lack { later: self.later || more.later, rows: self.rows || more.rows }
    }
}

/// What a node says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Word {
    /// Whether it counts: it is filled, and has heard what the one it speaks to remembers of it.
    pub filled: bool,
    /// Whether it holds anything.
    pub holds: bool,
    /// Whether its cluster was born before: it was filled once, or knows that it is to be.
    pub born: bool,
    /// Whether what it holds is known not to be out of date, however much it may lack.
    pub current: bool,
}

/// What a folder says of the store in it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Kept {
    filled: bool,
    /// Ids of earlier stores under this name, from which it was refilled.
    former: BTreeSet<NodeId>,
    /// What it is being filled for.
    #[serde(default)]
    lack: Option<Lack>,
}

#[derive(Clone, Debug, Default)]
struct Peer {
    /// It was asked, and answered or did not.
    asked: bool,
    /// It has said what it remembers, in this life of the process.
    heard: bool,
    word: Word,
    /// A session with it ended well; whether it was filled then.
    compared: Option<bool>,
}

/// The state of one node. Pure: it is told what is heard, and says where the node stands.
#[derive(Clone, Debug)]
pub struct Filling {
    id: NodeId,
    /// Up to where this store is known to be complete.
    stamp: Stamp,
    was_filled: bool,
    unfinished: bool,
    former: BTreeSet<NodeId>,
    stage: Stage,
    why: Why,
    /// The most it may lack, where it is being filled.
    lack: Lack,
    in_time: bool,
    refilled: bool,
    peers: BTreeMap<String, Peer>,
    /// Those that were members before, and were heard: what they remember later on is what this very store told them.
    heard_before: BTreeSet<String>,
}

impl Filling {
    /// A store with this id that was opened with `stamp` as its last, among `peers`. `kept` is what [`Filling::encode`]
    /// once wrote into it, if anything: bytes that cannot be read count as none.
    pub fn new(id: NodeId, stamp: Stamp, kept: Option<&[u8]>, peers: impl IntoIterator<Item = String>) -> Filling {
        let kept: Option<Kept> = kept.and_then(|bytes| serde_json::from_slice(bytes).ok());
        let unfinished = kept.as_ref().is_some_and(|kept| !kept.filled);
        let Kept { filled, former, lack } = kept.unwrap_or_default();
        // A folder that does not say what it lacks may lack anything.
        let anything = Lack::LATER.and(Lack::ROWS);
        let lack = if unfinished { lack.unwrap_or(anything) } else { Lack::TAIL };
        let peers: BTreeMap<String, Peer> = peers.into_iter().map(|name| (name, Peer::default())).collect();
        let stage = match peers.is_empty() {
            true => Stage::Filled,
            false if unfinished => Stage::Filling,
            false => Stage::Asking,
        };
        let why = if unfinished { Why::Unfinished } else { Why::Alone };
        let (was_filled, in_time, refilled) = (filled, true, false);
        let heard_before = BTreeSet::new();
        Filling { id, stamp, was_filled, unfinished, former, stage, why, lack, in_time, refilled, peers, heard_before }
    }

    /// What the folder is to say, with the stage as it is.
    pub fn encode(&self) -> Vec<u8> {
        let kept = Kept { filled: self.stage == Stage::Filled, former: self.former.clone(), lack: self.lack() };
        // Numbers and a switch always have a form in JSON.
        serde_json::to_vec(&kept).unwrap_or_default()
    }

    /// What the folder is to say before so much is [`lost`](Filling::lost).
    pub fn encode_lost(&self, lack: Lack) -> Vec<u8> {
        let mut filling = self.clone();
        filling.lost(lack);
        filling.encode()
    }

    /// Where the node stands.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Why it is not filled, where it is not.
    pub fn why(&self) -> Option<Why> {
        (self.stage != Stage::Filled).then_some(self.why)
    }

    /// The most it may lack, where it is being filled.
    pub fn lack(&self) -> Option<Lack> {
        (self.stage == Stage::Filling).then_some(self.lack)
    }

    /// Whether what is held here is known not to be out of date.
    pub fn is_current(&self) -> bool {
        match self.stage {
            Stage::Asking => false,
            Stage::Filling => !self.lack.later,
            Stage::Filled => true,
        }
    }

    /// Whether what this node accepted stands, though others refuse copies of it because of a promise: it need not wait until
    /// that is settled, for which its own vote may be needed. So it is where at most its last append is gone. Where rows are,
    /// it takes copies whatever it promised, so none may come from a peer that may be out of date.
    pub fn stands(&self) -> bool {
        self.is_current() && (!self.lack.rows || self.peers.values().all(|peer| peer.word.current))
    }

    /// Whether the cluster was born, as far as is known here.
    pub fn is_born(&self) -> bool {
        self.was_filled || self.stage != Stage::Asking
    }

    /// Whether every peer was asked once, or the time for that is over.
    pub fn has_asked(&self) -> bool {
        !self.in_time || self.peers.values().all(|peer| peer.asked)
    }

    /// Whether `peer` has said what it remembers.
    pub fn has_heard(&self, peer: &str) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.heard)
    }

    /// `peer` says how it stands, and which life of this node it remembers. Whether the stage changed.
    pub fn heard(&mut self, peer: &str, word: Word, remembered: Option<Life>) -> bool {
        let Some(known) = self.peers.get_mut(peer) else { return false };
        let first = !std::mem::replace(&mut known.heard, true);
        (known.word, known.asked) = (word, true);
        // Later it remembers what it was told by this very store.
        let contradicts = remembered.filter(|_| first).and_then(|life| match life.id == self.id {
            true => (life.stamp > self.stamp).then_some(Why::RolledBack),
            false => (!self.former.contains(&life.id)).then_some(Why::Emptied),
        });
        if let (Some(why), Some(life)) = (contradicts, remembered) {
            self.former.insert(life.id);
            self.former.remove(&self.id);
            self.stamp = self.stamp.max(if life.id == self.id { life.stamp } else { Stamp(0) });
            let changed = self.stage != Stage::Filling;
            (self.stage, self.why, self.unfinished) = (Stage::Filling, why, true);
            self.lack = self.lack.and(Lack::LATER);
            return changed;
        }
        self.decide()
    }

    /// From now on these are the peers: what those have said that were before is kept. A node that is `new` among them owns
    /// nothing yet by what reads go by, and so lacks nothing of it: what it is to own it takes in by itself. Whether the stage
    /// changed.
    pub fn members(&mut self, names: impl IntoIterator<Item = String>, new: bool) -> bool {
        let mut before = std::mem::take(&mut self.peers);
        for name in names {
            let heard = self.heard_before.remove(&name);
            let known = before.remove(&name).unwrap_or(Peer { heard, asked: heard, ..Peer::default() });
            self.peers.insert(name, known);
        }
        let gone = before.into_iter().filter(|(_, peer)| peer.heard).map(|(name, _)| name);
        self.heard_before.extend(gone.take(MEMBERS_MAX));
        let stage = self.stage;
        if new || self.peers.is_empty() {
            (self.stage, self.lack, self.unfinished) = (Stage::Filled, Lack::TAIL, false);
        }
        self.decide();
        self.stage != stage
    }

    /// Looks whether what was compared is enough by this ring. Whether that made the node whole.
    pub fn look_again(&mut self, ring: &Ring, me: MemberIndex) -> bool {
        let whole = self.stage == Stage::Filling && ring.owned_by(me).iter().all(|&at| self.is_whole(ring, me, at));
        if whole {
            (self.stage, self.refilled, self.lack) = (Stage::Filled, true, Lack::TAIL);
        }
        whole
    }

    /// Whether `peer` counted, as it last said.
    pub fn is_filled(&self, peer: &str) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.word.filled)
    }

    /// Something that was held here is there no longer: it is filled anew, from the peers there are, if any.
    pub fn lost(&mut self, lack: Lack) {
        if self.peers.is_empty() {
            return;
        }
        (self.stage, self.why, self.unfinished) = (Stage::Filling, Why::Rotten, true);
        self.lack = self.lack.and(lack);
        self.peers.values_mut().for_each(|peer| peer.compared = None);
    }

    /// `peer` was asked and did not answer. Whether the stage changed.
    pub fn silent(&mut self, peer: &str) -> bool {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.asked = true;
        }
        self.decide()
    }

    /// Peers that have not answered yet are no longer waited for. Whether the stage changed.
    pub fn time_is_up(&mut self) -> bool {
        self.in_time = false;
        self.decide()
    }

    fn decide(&mut self) -> bool {
        if self.stage != Stage::Asking || !self.has_asked() {
            return false;
        }
        let heard = self.peers.values().filter(|peer| peer.heard).count();
        let established = self.peers.values().any(|peer| peer.heard && peer.word.born && peer.word.holds);
        if self.was_filled {
            self.stage = Stage::Filled;
        } else if established {
            (self.stage, self.why, self.lack) = (Stage::Filling, Why::Newcomer, self.lack.and(Lack::LATER));
        } else if heard >= self.peers.len().div_ceil(2) {
            // With itself, more than half of the members.
            self.stage = Stage::Filled;
        }
        self.stage != Stage::Asking
    }

    /// A session with `peer` about everything that both keep ended well: what it held is held here. Whether that made
    /// this node whole.
    pub fn compared(&mut self, peer: &str, ring: &Ring, me: MemberIndex) -> bool {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.compared = Some(peer.compared == Some(true) || peer.word.filled);
        }
        self.look_again(ring, me)
    }

    /// Whether this node was filled by sessions in this life of the process: what it once promised it knows no more.
    pub fn is_refilled(&self) -> bool {
        self.refilled && self.stage == Stage::Filled
    }

    /// Whether more than half of the members, itself included, have said what they remember of it: none of them knows of
    /// anything later than what it holds, or it is being filled.
    pub fn is_confirmed(&self) -> bool {
        2 * (1 + self.peers.values().filter(|peer| peer.heard).count()) > 1 + self.peers.len()
    }

    /// Whether this node holds all there is of a partition that it owns.
    pub fn is_whole(&self, ring: &Ring, me: MemberIndex, partition: Partition) -> bool {
        let compared = |owner: &MemberIndex| self.peers.get(&ring.member(*owner).name).and_then(|peer| peer.compared);
        let others = || ring.owners(partition).iter().filter(|&&owner| owner != me);
        let filled = others().filter(|owner| compared(owner) == Some(true)).count();
        match self.stage {
            Stage::Asking => false,
            Stage::Filled => true,
            Stage::Filling => filled > others().count() / 2 || others().all(|owner| compared(owner).is_some()),
        }
    }

    /// The peers that a session is needed with, of those that have been heard.
    pub fn to_compare(&self) -> Vec<String> {
        let needed = |peer: &Peer| match peer.compared {
            None => peer.heard,
            Some(was_filled) => !was_filled && peer.word.filled,
        };
        match self.stage {
            Stage::Filling => {
                self.peers.iter().filter(|(_, peer)| needed(peer)).map(|(name, _)| name.clone()).collect()
            }
            Stage::Asking | Stage::Filled => Vec::new(),
        }
    }

    /// The peers that have not been compared with yet.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        self.peers.iter().filter(|(_, peer)| peer.compared != Some(true)).map(|(name, _)| name.as_str())
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Alone => "its data folder is new, and too few peers have said whether they knew it before",
            Why::Newcomer => "its data folder is new, and its peers hold data already",
            Why::Emptied => "its peers remember another data folder under its name: that one was lost or replaced",
            Why::RolledBack => "its peers remember later writes of this data folder: it was put back from a copy",
            Why::Rotten => "a part of what it had on disk cannot be read any more",
            Why::Unfinished => "it was stopped before it had everything from its peers",
        })
    }
}

#[cfg(test)]
mod tests;
