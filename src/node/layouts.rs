//! The layout of this node: what it goes by, how it learns of a later one, and its vote about the next.
//!
//! A layout is taken over on the committer's thread, between two batches: kept durably, then the fence is raised, then the
//! ring is replaced. Whoever hears the new epoch from this node can rely on it: what was asked for under an earlier one is
//! committed by now, or never will be.

use super::layout_facts::{INTAKE_FACT, LAYOUT_FACT};
use super::outside::{now, wall_ms};
use super::shared::Shared;
use super::steward;
use super::voting;
use super::worker::Worker;
use crate::antientropy::Intake;
use crate::membership::Register;
use crate::placement::{ClusterId, Layout, Member, NodeId, Partition, Ring};
use crate::protocol::{Answer, LayoutAnswer, LayoutRequest, Progress};
use crate::storage::{Address, Change, Committer};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use tokio::sync::{Notify, oneshot};

/// How another node said that it stands.
#[derive(Clone, Debug)]
pub(super) struct Met {
    /// It, with the id of its store.
    pub(super) member: Member,
    /// Whom its provisional layout lists; nothing, if it goes by one that was agreed on.
    pub(super) lists: Option<BTreeSet<String>>,
}

/// What a node knows of layouts beside the one it goes by.
pub struct Layouts {
    epoch: AtomicU64,
    /// Whether owners are changing by it: what hot paths look at.
    is_changing: AtomicBool,
    /// The epochs that peers named, where they are not this node's.
    others: Mutex<BTreeMap<String, u64>>,
    /// How often a peer did.
    met_others: AtomicU64,
    /// Rung when a peer names another epoch.
    pub(super) due: Notify,
    /// Rung when a layout was taken over.
    pub(super) changed: Notify,
    /// Nothing, where what was kept of it is lost: it may have promised anything about the next layout, and does not vote
    /// before one was decided on without it.
    pub(super) register: Mutex<Option<Register>>,
    /// Layouts taken over since the start.
    taken_over: AtomicU64,
    /// Whom a fresh node has met.
    pub(super) met: Mutex<BTreeMap<String, Met>>,
    /// Who wanted to join lately.
    pub(super) applicants: Mutex<BTreeMap<String, (Member, Instant)>>,
    intake: Mutex<Intake>,
    /// What the members said last of the change under way.
    progress: Mutex<BTreeMap<String, Progress>>,
    /// When the present layout was taken over.
    since: Mutex<Instant>,
    /// Whether this node is to join without being told to.
    pub joins: AtomicBool,
}

impl Layouts {
    /// Of a node that goes by this epoch, and has kept these votes.
    pub(super) fn new(epoch: u64, votes: Option<&[u8]>, joins: bool) -> Layouts {
        let register = votes.map_or_else(|| Some(Register::default()), Register::decode);
        Layouts {
            epoch: AtomicU64::new(epoch),
            is_changing: AtomicBool::default(),
            others: Mutex::default(),
            met_others: AtomicU64::default(),
            due: Notify::new(),
            changed: Notify::new(),
            register: Mutex::new(register),
            taken_over: AtomicU64::default(),
            met: Mutex::default(),
            applicants: Mutex::default(),
            intake: Mutex::default(),
            progress: Mutex::default(),
            since: Mutex::new(now()),
            joins: joins.into(),
        }
    }

    /// A peer goes by this epoch.
    pub(super) fn note_epoch(&self, peer: &str, theirs: u64, mine: u64) {
        let mut others = lock(&self.others);
        if theirs == mine {
            others.remove(peer);
            return;
        }
        self.met_others.fetch_add(1, Ordering::Relaxed);
        if others.insert(peer.to_string(), theirs) != Some(theirs) {
            self.due.notify_one();
        }
    }

    /// One that is no member was told what this node goes by, and is not turned to again.
    pub(super) fn note_met(&self, peer: &str, ring: &Ring) {
        if ring.guest().is_none() && ring.member_by_name(peer).is_none() {
            lock(&self.others).remove(peer);
        }
    }

    /// How often a peer has named another epoch: it may have refused what it was asked.
    pub fn met_others(&self) -> u64 {
        self.met_others.load(Ordering::Relaxed)
    }

    /// Waits until a layout is taken over.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Those that go by another epoch than this node, as far as is known.
    pub(super) fn out_of_step(&self) -> Vec<String> {
        let mine = self.epoch.load(Ordering::Acquire);
        lock(&self.others).iter().filter(|(_, theirs)| **theirs != mine).map(|(peer, _)| peer.clone()).collect()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Shared {
    /// The epoch of the layout that this node goes by.
    pub fn epoch(&self) -> u64 {
        self.layouts.epoch.load(Ordering::Acquire)
    }

    /// The id of the cluster's name, by which nodes that go by no layout yet know whether they mean the same.
    pub fn cluster_name(&self) -> ClusterId {
        ClusterId::named(&self.settings.cluster)
    }

    /// This node as it is, or would be, a member.
    pub fn as_member(&self) -> Member {
        let ring = self.ring();
        let known = ring.member(self.me(&ring)).clone();
        Member { id: Some(self.id), url: self.url.clone(), ..known }
    }

    /// This node as it would be a member of a cluster that it does not belong to.
    fn as_newcomer(&self) -> Member {
        let (zone, weight) = (self.settings.zone.clone(), self.settings.weight);
        Member { url: self.url.clone(), id: Some(self.id), zone, weight, ..Member::new(self.name.clone()) }
    }

    /// Whether this node is a member of the layout that it goes by.
    pub fn is_member(&self) -> bool {
        self.ring().guest().is_none()
    }

    /// Whether there may be another layout than the one of `epoch` in a moment, or others have to learn of it: what came to
    /// nothing under it may go well then.
    pub fn is_between_layouts(&self, epoch: u64) -> bool {
        let alive = |peer: &String| {
            let view = self.view();
            // A guest hears nobody's liveness.
            view.peer(peer).is_none_or(|peer| peer.state == crate::membership::State::Alive)
        };
        self.epoch() != epoch || self.layouts.out_of_step().iter().any(alive)
    }

    /// What is left to be taken in, locked.
    pub(super) fn intake(&self) -> MutexGuard<'_, Intake> {
        let mut intake = lock(&self.layouts.intake);
        intake.note_losses(self.completeness.losses());
        intake
    }

    /// How far this node has come with the change of owners under way.
    pub fn progress(&self) -> Progress {
        let ring = self.ring();
        let keys = |at: Partition| self.forest.live(at).max(0) as u64;
        let lacking = self.intake().lacking(&ring).map(|at| (at, keys(at))).collect();
        let foreign = self.foreign(&ring).into_iter().map(|at| (at, keys(at))).collect();
        let owned = ring.owned_by(self.me(&ring)).iter().map(|at| keys(*at)).sum();
        let (is_filled, unbroken) = (self.completeness.counts(), self.completeness.unbroken());
        Progress { epoch: ring.epoch(), lacking, foreign, keys: owned, is_filled, unbroken }
    }

    /// What the members said last, and how long the layout has been gone by.
    pub fn progress_of_all(&self) -> (BTreeMap<String, Progress>, std::time::Duration) {
        (lock(&self.layouts.progress).clone(), now().duration_since(*lock(&self.layouts.since)))
    }

    pub(super) fn note_progress(&self, name: String, progress: Progress) {
        lock(&self.layouts.progress).insert(name, progress);
    }

    /// Whether this node is to keep the partition and does not hold it whole yet.
    pub fn takes_in(&self, partition: Partition) -> bool {
        self.is_changing() && self.intake().lacks(&self.ring(), partition)
    }

    /// Whether owners are changing.
    pub fn is_changing(&self) -> bool {
        self.layouts.is_changing.load(Ordering::Acquire)
    }

    /// Whether copies and votes of this node count for a partition that it is yet to own.
    pub(super) fn counts_as_heir(&self, partition: Partition) -> bool {
        !self.is_changing() || self.intake().counts(&self.ring(), partition)
    }

    fn holds_nothing_of(&self, partition: Partition) -> bool {
        let forest = &self.forest;
        forest.is_built(partition) && forest.live(partition) == 0 && forest.tombstones(partition) == 0
    }

    /// Begins with what the layout asks of this node that was found at the start. What was compared before is not known any
    /// more. A store that may lack something counts for nothing of it until it was compared.
    pub(super) fn begin_intake(&self) {
        let ring = self.ring();
        self.layouts.is_changing.store(ring.is_changing(), Ordering::Release);
        let kept = self.store.read(&Address::fact(INTAKE_FACT)).unwrap_or_default();
        let kept = kept.filter(|_| self.completeness.lack().is_none());
        *lock(&self.layouts.intake) = Intake::resumed(&ring, self.me(&ring), kept.as_deref());
    }

    /// Takes over a layout, on the committer's thread. Nothing, if it is no later one, or cannot be kept.
    fn take_over(&self, committer: &mut Committer, layout: Layout) {
        let before = self.ring();
        let is_later = layout.epoch() > before.epoch();
        let is_of_this_cluster = before.epoch() == 0 || layout.cluster() == before.layout().cluster();
        let is_other_list = layout.epoch() == 0 && before.epoch() == 0 && layout != **before.layout();
        if !(is_later && is_of_this_cluster || is_other_list) {
            return;
        }
        let mut changes = vec![Change::Fact { name: LAYOUT_FACT, bytes: layout.encode().into() }];
        let is_member = layout.members().iter().any(|member| is_own(member, self.id, &self.name, &self.url));
        let epoch = layout.epoch();
        let ring = match is_member {
            true => Ring::new(layout),
            false => Ring::with_guest(layout, self.as_newcomer()),
        };
        let ring = Arc::new(ring);
        let me = self.me(&ring);
        let next = Intake::of(&ring, me, |partition| self.holds_nothing_of(partition));
        let intake = self.intake().clone().carried_over(next);
        changes.push(Change::Fact { name: INTAKE_FACT, bytes: intake.encode().into() });
        let kept = committer.commit(wall_ms(), changes).iter().all(Result::is_ok);
        if !kept || self.store.sync().is_err() {
            // Whoever goes by it tells this node again.
            self.events.error("layout", format!("epoch {epoch} cannot be kept, and is not gone by"));
            return;
        }
        self.queue.fence(ring.epoch());
        // The first one may be what this node had gone by before it lost its votes.
        if ring.epoch() > 0 && self.layouts.taken_over.fetch_add(1, Ordering::Relaxed) > 0 {
            lock(&self.layouts.register).get_or_insert_default();
        }
        let moved = !same_owners(&before, &ring);
        if moved {
            committer.layout_changed();
            self.seen.said().lost(None);
        }
        *self.intake() = intake;
        lock(&self.layouts.progress).clear();
        // Those that are no members any more are turned to by nobody.
        lock(&self.layouts.others).retain(|peer, _| ring.member_by_name(peer).is_some());
        *lock(&self.layouts.since) = now();
        self.layouts.is_changing.store(ring.is_changing(), Ordering::Release);
        self.replace_ring(ring.clone());
        self.layouts.epoch.store(ring.epoch(), Ordering::Release);
        self.note_members(&ring, committer);
        self.announce(&before, &ring);
        self.layouts.changed.notify_waiters();
    }

    /// Whom there is to listen to, and to wait for.
    fn note_members(&self, ring: &Ring, committer: &mut Committer) {
        let others: Vec<String> = match ring.guest() {
            // Nobody listens to a guest.
            Some(_) => Vec::new(),
            None => ring.layout().members().iter().map(|member| member.name.clone()).collect(),
        };
        let others: BTreeSet<String> = others.into_iter().filter(|name| *name != self.name).collect();
        self.view().members(others.clone());
        if ring.guest().is_none() {
            self.liveness().members(&others, self.uptime());
        }
        let me = self.me(ring);
        let is_new = ring.epoch() > 0
            && ring.guest().is_none()
            && ring.member(me).id == Some(self.id)
            && ring.owned_by(me).is_empty();
        self.completeness.note_members(committer, (ring, me), others, is_new, self.queue.latest_stamp());
        self.gossip.notify_one();
    }

    /// Says in one line what has changed.
    fn announce(&self, before: &Ring, ring: &Ring) {
        let (layout, old) = (ring.layout(), before.layout());
        let name = |member: &Member| member.name.clone();
        let (now, then): (BTreeSet<String>, BTreeSet<String>) =
            (layout.members().iter().map(name).collect(), old.members().iter().map(name).collect());
        let list = |names: Vec<&String>| names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ");
        let mut parts = vec![format!("epoch {}: {} members", layout.epoch(), layout.members().len())];
        let (came, left): (Vec<_>, Vec<_>) = (now.difference(&then).collect(), then.difference(&now).collect());
        if old.epoch() > 0 && !came.is_empty() {
            parts.push(format!("{} join", list(came)));
        }
        if old.epoch() > 0 && !left.is_empty() {
            parts.push(format!("{} left", list(left)));
        }
        match (layout.change(), old.change()) {
            (Some(change), _) => {
                let leaving: Vec<String> = change.leaving().iter().map(|at| name(ring.member(*at))).collect();
                if !leaving.is_empty() {
                    parts.push(format!("{} leave", leaving.join(" ")));
                }
                parts.push(match change.phase() {
                    crate::placement::Phase::Filling => "new owners take in what they are to keep".into(),
                    crate::placement::Phase::Switched => "reads go to the new owners".into(),
                });
            }
            (None, Some(_)) => parts.push("owners have changed".into()),
            (None, None) => {}
        }
        let weight_before = |member: &Member| before.member_by_name(&member.name).map(|at| before.member(at).weight);
        for member in layout.members() {
            match (weight_before(member), member.weight) {
                (Some(1..), 0) => parts.push(format!("{} is drained", member.name)),
                (Some(0), 1..) => parts.push(format!("{} is drained no longer", member.name)),
                _ => {}
            }
        }
        if layout.mode() != old.mode() {
            parts.push(format!("mode {}", layout.mode()));
        }
        if layout.replicas() != old.replicas() {
            parts.push(format!("{} replicas", layout.replicas()));
        }
        if old.epoch() == 0 && layout.epoch() > 0 {
            parts.push(format!("cluster {} is established", layout.cluster()));
        }
        match ring.guest().is_some() && before.guest().is_none() && old.epoch() > 0 {
            true => self.events.warn("layout", format!("{}; this node is no member any more", parts.join(", "))),
            false => self.events.info("layout", parts.join(", ")),
        }
    }
}

/// Whether a member is the node with this id, name and address: its store, or one that was lost at the same address. A name
/// alone is not enough: another node may have been given an address of old.
pub(super) fn is_own(member: &Member, id: NodeId, name: &str, url: &str) -> bool {
    member.name == name && (member.id.is_none_or(|theirs| theirs == id) || member.url == url)
}

/// Whether the same nodes keep, and own, the same partitions.
fn same_owners(one: &Ring, other: &Ring) -> bool {
    let names = |ring: &Ring, members: &[crate::placement::MemberIndex]| -> Vec<String> {
        members.iter().map(|member| ring.member(*member).name.clone()).collect()
    };
    Partition::all().all(|at| {
        names(one, one.owners(at)) == names(other, other.owners(at))
            && names(one, one.beside(at)) == names(other, other.beside(at))
    })
}

/// Has the node go by a layout, if it is a later one of its cluster; over once it does, or does not.
pub(super) async fn adopt(worker: &Rc<Worker>, layout: Layout) {
    let (tell, told) = oneshot::channel();
    let node = worker.node.clone();
    worker.node.queue.between_batches(Box::new(move |committer| {
        node.take_over(committer, layout);
        let _ = tell.send(());
    }));
    // Dropped where the node is stopping.
    let _ = told.await;
}

/// Answers a question about the layout.
pub(super) fn answer(worker: &Rc<Worker>, request: LayoutRequest, told: Box<dyn FnOnce(Answer)>) {
    let node = worker.node.clone();
    match request {
        LayoutRequest::Hello { name, member, layout } => {
            let is_of_that_name = name == node.cluster_name();
            match is_of_that_name.then(|| take_standing(worker, &member, &layout)).flatten() {
                Some(layout) => {
                    let worker = worker.clone();
                    actix_web::rt::spawn(async move {
                        adopt(&worker, layout).await;
                        told(worker.node.standing());
                    });
                }
                None => told(node.standing()),
            }
        }
        LayoutRequest::Progress => {
            told(Answer::Layout(LayoutAnswer::Progress(node.progress())));
        }
        LayoutRequest::Prepare { .. } | LayoutRequest::Accept { .. } => voting::vote(worker, request, told),
        LayoutRequest::Change { wish } => {
            let worker = worker.clone();
            actix_web::rt::spawn(async move { told(Answer::Layout(steward::change(&worker, wish).await)) });
        }
    }
}

/// Takes note of how another node stands; the layout that this node is to go by because of it, if there is one.
pub(super) fn take_standing(worker: &Worker, member: &Member, layout: &[u8]) -> Option<Layout> {
    let node = &worker.node;
    let (theirs, ring) = (Layout::decode(layout).ok()?, node.ring());
    let mine = ring.layout();
    if theirs.epoch() > 0 {
        let is_mine = mine.epoch() == 0 || theirs.cluster() == mine.cluster();
        if !is_mine {
            node.events.warn(
                "layout",
                format!("{} belongs to cluster {}, this node to {}", member.url, theirs.cluster(), mine.cluster()),
            );
        }
        lock(&node.layouts.met).remove(&member.name);
        return (is_mine && theirs.epoch() > mine.epoch()).then_some(theirs);
    }
    let lists = theirs.members().iter().map(|member| member.name.clone()).collect();
    if member.name != node.name && member.id.is_some_and(|id| id != node.id) {
        lock(&node.layouts.met).insert(member.name.clone(), Met { member: member.clone(), lists: Some(lists) });
    }
    if mine.epoch() > 0 {
        return None;
    }
    // Two fresh nodes that were told of different peers: each takes in whom the other was told of.
    let mut members: Vec<Member> = mine.members().to_vec();
    let known: BTreeSet<String> = members.iter().map(|member| member.name.clone()).collect();
    let news = [member.clone()].into_iter().chain(theirs.members().iter().cloned());
    let news: BTreeMap<String, Member> =
        news.filter(|news| !known.contains(&news.name)).map(|news| (news.name.clone(), news)).collect();
    if news.is_empty() {
        return None;
    }
    members.extend(news.into_values().map(|news| Member { id: None, ..news }));
    Layout::provisional(mine.cluster(), mine.replicas(), mine.mode(), members).ok()
}

impl Shared {
    /// How this node stands, as an answer.
    fn standing(&self) -> Answer {
        let layout = self.ring().layout().encode();
        Answer::Layout(LayoutAnswer::Standing { name: self.cluster_name(), member: self.as_member(), layout })
    }
}

/// The ids of nodes that were met, by name.
pub(super) fn ids(met: &BTreeMap<String, Met>) -> BTreeMap<String, NodeId> {
    met.iter().filter_map(|(name, met)| Some((name.clone(), met.member.id?))).collect()
}
