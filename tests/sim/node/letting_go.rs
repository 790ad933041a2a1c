//! Copies that are not a node's to keep any more: the twin of `src/node/handing_over.rs`.

use super::Machine;
use super::answering::{Caller, Done};
use crate::plant::Plant;
use crate::workload::Purpose;
use crate::world::{Event, World};
use kringle::antientropy::{CONFIRM_MS, Report, Session, SessionOptions};
use kringle::placement::{MemberIndex, Partition, Ring};
use kringle::protocol::{Request, SeenGroups, SyncRequest};
use kringle::storage::{Change, Outcome, Refused};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How often it is looked whether there is something to hand over.
const LOOK_PERIOD_US: u64 = 500_000;

/// What is being handed over.
pub(crate) struct Handing {
    ring: Arc<Ring>,
    /// To whom what is still to be offered.
    offers: Vec<(MemberIndex, Vec<Partition>)>,
    /// How many owners have everything of each partition.
    takers: BTreeMap<Partition, usize>,
    /// What is dropped, one after the other.
    dropped: Vec<Partition>,
}

/// What is given to one owner.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    owner: usize,
    epoch: u64,
    offered: Vec<Partition>,
    /// What was seen of it here.
    seen: SeenGroups,
    /// What the owner said of itself before that.
    unbroken: u64,
}

impl World {
    /// The partitions of which something is held on a running node that is not its to keep.
    pub(super) fn foreign(&self, node: usize) -> Vec<Partition> {
        let Some(up) = &self.nodes[node].up else { return Vec::new() };
        let (ring, forest, me) = (&up.ring, &up.forest, self.me(node));
        let inhabited: BTreeSet<Partition> = (0..self.keys.len()).map(|key| self.partition(key)).collect();
        let holds = |at: &Partition| forest.live(*at) != 0 || forest.tombstones(*at) != 0;
        let is_foreign = |at: &Partition| !ring.is_holder(me, *at) && forest.is_built(*at) && holds(at);
        inhabited.into_iter().filter(is_foreign).collect()
    }

    pub(super) fn let_go_later(&mut self, node: usize) {
        let (life, after) = (self.nodes[node].life, self.jittered(LOOK_PERIOD_US));
        self.schedule(after, Event::LetGo { node, life });
    }

    /// Looks whether there is something to hand over, whenever no change of owners is under way.
    pub(crate) fn let_go(&mut self, node: usize) {
        self.let_go_later(node);
        let (ring, foreign) = (self.ring_of(node), self.foreign(node));
        if ring.is_changing() || foreign.is_empty() || self.up(node).layouts.handing.is_some() {
            return;
        }
        let avoid = self.avoid(node);
        let mut by_owner = BTreeMap::<MemberIndex, Vec<Partition>>::new();
        for partition in &foreign {
            for owner in ring.owners(*partition).iter().filter(|owner| !avoid.contains(owner)) {
                by_owner.entry(*owner).or_default().push(*partition);
            }
        }
        let mut handing =
            Handing { ring, offers: by_owner.into_iter().collect(), takers: BTreeMap::new(), dropped: Vec::new() };
        if self.plant == Some(Plant::DroppedUnoffered) {
            handing.offers.clear();
            handing.takers = foreign.iter().map(|partition| (*partition, usize::MAX / 2)).collect();
        }
        self.up(node).layouts.handing = Some(handing);
        self.offer_next(node);
    }

    fn offer_next(&mut self, node: usize) {
        let now = self.now_stamp(node);
        let (me, timeout_ms) = (self.me(node), self.options.timeout_ms);
        let up = self.up(node);
        let Some(handing) = &mut up.layouts.handing else { return };
        if up.ring.epoch() != handing.ring.epoch() {
            up.layouts.handing = None;
            return;
        }
        let Some((owner, offered)) = handing.offers.pop() else { return self.drop_taken(node) };
        let options = SessionOptions {
            settled: now,
            confirm_ms: CONFIRM_MS,
            coordinators: Vec::new(),
            under_way_ms_max: timeout_ms,
            everything: true,
            offers: true,
        };
        let session = Session::new(&handing.ring, up.forest.clone(), me, owner, offered.clone(), options);
        // What it has seen by now is held here, or superseded; whoever has all of this holds it, too, or what superseded it.
        let (actor, last) = (up.committer.actor(), up.committer.committed_stamp());
        let seen = match up.mending.knows_of_any() {
            true => SeenGroups::new(),
            false => up.contexts.look(|contexts| contexts.of_all(&offered, actor, last)),
        };
        let epoch = up.ring.epoch();
        let ring = handing.ring.clone();
        let owner_at = self.node_at(node, &ring, owner);
        let unbroken = self.nodes[owner_at].up.as_ref().map_or(0, |up| up.completeness.unbroken());
        let given = Given { owner: owner_at, epoch, offered, seen, unbroken };
        self.note_losses(node);
        let purpose = Purpose::Offer { node, given };
        self.start_operation(node, Machine::Session(Box::new(session)), purpose, None);
    }

    /// Whether an owner has everything now: then it is told what was seen here.
    pub(super) fn offered(&mut self, node: usize, given: Given, report: &Report) {
        self.counters.hit("copies offered");
        if report.pushed > 0 {
            self.counters.hit("copy taken from one that keeps it no more");
        }
        if !report.is_whole() || self.has_lost_since(node) {
            return self.told_seen(node, given, false);
        }
        let (owner, epoch, until) = (given.owner, given.epoch, self.now + self.timeout_us());
        let request = Request::Sync(SyncRequest::HandedOver { seen: given.seen.clone(), unbroken: given.unbroken });
        self.send(node, owner, epoch, request, None, until, Caller::HandedOver(Box::new(given)));
    }

    /// An owner has everything and knows what was seen here, or not.
    pub(super) fn told_seen(&mut self, node: usize, given: Given, is_taken: bool) {
        let up = self.up(node);
        let is_present = |handing: &&mut Handing| handing.ring.epoch() == given.epoch;
        let Some(handing) = up.layouts.handing.as_mut().filter(is_present) else { return };
        if is_taken {
            given.offered.into_iter().for_each(|partition| *handing.takers.entry(partition).or_default() += 1);
        }
        self.offer_next(node);
    }

    /// Drops that of which a majority of the owners has everything.
    fn drop_taken(&mut self, node: usize) {
        let layouts = &mut self.up(node).layouts;
        let Some(Handing { ring, takers, .. }) = &layouts.handing else { return };
        let is_enough = |(partition, takers): &(&Partition, &usize)| 2 * **takers > ring.owners(**partition).len();
        let partitions: Vec<Partition> = takers.iter().filter(is_enough).map(|(partition, _)| *partition).collect();
        if partitions.is_empty() {
            layouts.handing = None;
            return;
        }
        let epoch = ring.epoch();
        if let Some(handing) = &mut layouts.handing {
            handing.dropped = partitions.clone();
        }
        self.submit(node, Change::Disclaim { partitions }, Done::Disclaimed, epoch);
    }

    /// Whether nothing is claimed any more of what is to be dropped.
    pub(super) fn disclaimed(&mut self, node: usize, is_done: bool) {
        if is_done { self.drop_next(node) } else { self.up(node).layouts.handing = None }
    }

    fn drop_next(&mut self, node: usize) {
        let layouts = &mut self.up(node).layouts;
        let Some(handing) = &mut layouts.handing else { return };
        let epoch = handing.ring.epoch();
        match handing.dropped.last().copied() {
            Some(partition) => self.submit(node, Change::LetGo { partition }, Done::LetGo { partition }, epoch),
            None => layouts.handing = None,
        }
    }

    /// Some rows are gone, or none were left.
    pub(super) fn let_go_committed(&mut self, node: usize, partition: Partition, result: Result<Outcome, Refused>) {
        let layouts = &mut self.up(node).layouts;
        let Some(handing) = &mut layouts.handing else { return };
        match result {
            Ok(Outcome::LetGo(0)) => handing.dropped.retain(|at| *at != partition),
            Ok(_) => self.counters.hit("copies dropped that others keep"),
            Err(_) => {
                layouts.handing = None;
                return;
            }
        }
        self.drop_next(node);
    }
}
