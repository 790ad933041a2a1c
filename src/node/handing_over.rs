//! Copies that are not this node's to keep, because owners have changed, or it is a member no more: they are offered to the
//! owners, and dropped once a majority of those has all of it.
//!
//! What they lack is sent by sessions, as between owners, so that what they hold already is not. Nobody reads such a copy
//! any more, and nothing is written to it: reads went over to the new owners an epoch before.

use super::belonging::ask;
use super::foreground::Class;
use super::outside::{jittered, now, wall_ms};
use super::shared::Shared;
use super::sync::{Account, Reason};
use super::worker::Worker;
use crate::antientropy::{CONFIRM_MS, Report, Session, SessionOptions};
use crate::placement::{MemberIndex, Partition, Ring};
use crate::protocol::{Answer, LayoutAnswer, LayoutRequest, Progress, Request, SeenGroups, SyncAnswer, SyncRequest};
use crate::storage::{Change, Outcome};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether there is something to hand over.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// Most partitions offered in one session: its trees are built at a time.
const AT_A_TIME: usize = 128;
/// How long one may take.
const SESSION_TIME_MAX: Duration = Duration::from_secs(600);
/// How long lies between two commits that drop rows while clients are served.
const REST: Duration = Duration::from_millis(20);

impl Shared {
    /// The partitions of which something is held here that is not this node's to keep.
    pub fn foreign(&self, ring: &Ring) -> Vec<Partition> {
        let me = self.me(ring);
        let holds = |at: &Partition| self.forest.live(*at) != 0 || self.forest.tombstones(*at) != 0;
        let is_foreign = |at: &Partition| !ring.is_holder(me, *at) && self.forest.is_built(*at) && holds(at);
        Partition::all().filter(is_foreign).collect()
    }
}

/// Hands over and lets go of what is not this node's to keep, whenever no change of owners is under way.
pub(super) fn let_go(worker: &Rc<Worker>) {
    let worker = worker.clone();
    actix_web::rt::spawn(async move {
        let node = worker.node.clone();
        while !node.is_stopping() {
            tokio::time::sleep(jittered(LOOK_PERIOD)).await;
            let ring = node.ring();
            if ring.epoch() == 0 || ring.is_changing() {
                continue;
            }
            let (foreign, mut any) = (node.foreign(&ring), false);
            for handful in foreign.chunks(AT_A_TIME) {
                let taken = offer(&worker, &ring, handful).await;
                any |= !taken.is_empty();
                if !taken.is_empty() && !drop_all(&worker, &ring, taken).await {
                    break;
                }
            }
            if !foreign.is_empty() && !any {
                // Too few owners could be had: as often as they are compared with.
                tokio::time::sleep(jittered(node.settings.sync_period)).await;
            }
        }
    });
}

/// Offers partitions to their owners; those of which a majority of the owners has everything now.
async fn offer(worker: &Rc<Worker>, ring: &Arc<Ring>, partitions: &[Partition]) -> Vec<Partition> {
    let node = &worker.node;
    let avoid = node.avoid(ring);
    let mut by_owner = BTreeMap::<MemberIndex, Vec<Partition>>::new();
    for partition in partitions {
        for owner in ring.owners(*partition).iter().filter(|owner| !avoid.contains(owner)) {
            by_owner.entry(*owner).or_default().push(*partition);
        }
    }
    let mut takers = BTreeMap::<Partition, usize>::new();
    for (owner, offered) in by_owner {
        if node.is_stopping() || node.epoch() != ring.epoch() {
            return Vec::new();
        }
        if offer_to(worker, ring, owner, offered.clone()).await {
            offered.into_iter().for_each(|partition| *takers.entry(partition).or_default() += 1);
        }
    }
    let is_enough = |(partition, takers): &(Partition, usize)| 2 * takers > ring.owners(*partition).len();
    takers.into_iter().filter(is_enough).map(|(partition, _)| partition).collect()
}

/// One session; whether the owner has everything now.
async fn offer_to(worker: &Rc<Worker>, ring: &Arc<Ring>, owner: MemberIndex, offered: Vec<Partition>) -> bool {
    let node = &worker.node;
    let (began, at_ms) = (now(), wall_ms());
    let options = SessionOptions {
        settled: node.now_stamp(),
        confirm_ms: CONFIRM_MS,
        coordinators: Vec::new(),
        under_way_ms_max: node.settings.timeout.as_millis() as u64,
        everything: true,
        offers: true,
    };
    let link = worker.link(ring, owner);
    let Some(LayoutAnswer::Progress(Progress { unbroken, .. })) = ask(&link, node, LayoutRequest::Progress).await
    else {
        return false;
    };
    // What it has seen by now is held here, or superseded; whoever has all of this holds it, too, or what superseded it.
    let losses = node.completeness.losses();
    let seen = if node.rot.status().waiting == 0 { node.seen(&offered) } else { SeenGroups::new() };
    let session = Session::new(ring, node.forest.clone(), node.me(ring), owner, offered, options);
    let Some(report) = worker.run_long(session, ring.clone(), SESSION_TIME_MAX).await else { return false };
    let is_whole = report.is_whole()
        && losses == node.completeness.losses()
        && tell_seen(worker, ring, owner, seen, unbroken).await;
    let peer = ring.member(owner).name.clone();
    let ms = now().duration_since(began).as_millis() as u64;
    if report.has_moved() {
        let Report { pushed, .. } = &report;
        node.events.info("handover", format!("{pushed} records that are no longer kept here were sent to {peer}"));
    }
    node.syncs.enter(&Account { peer, reason: Reason::HandOver, at_ms, report, ms });
    is_whole
}

/// Tells an owner what was seen here; whether it has heard.
async fn tell_seen(worker: &Rc<Worker>, ring: &Arc<Ring>, owner: MemberIndex, seen: SeenGroups, unbroken: u64) -> bool {
    let request = Request::Sync(SyncRequest::HandedOver { seen, unbroken });
    let until = now() + worker.node.settings.timeout;
    let answer = worker.answered(ring, owner, request, Class::Background, until).await;
    matches!(answer, Some(Ok(Answer::Sync(SyncAnswer::Done))))
}

/// Drops what is held of these; whether the layout stayed as it is, and the store took it.
async fn drop_all(worker: &Rc<Worker>, ring: &Arc<Ring>, partitions: Vec<Partition>) -> bool {
    let node = &worker.node;
    let count = partitions.len();
    let commit = |change| worker.committed(Class::Background, ring.epoch(), change);
    let Some(Ok(_)) = commit(Change::Disclaim { partitions: partitions.clone() }).await else { return false };
    let mut rows = 0;
    for partition in partitions {
        loop {
            match commit(Change::LetGo { partition }).await {
                Some(Ok(Outcome::LetGo(0))) => break,
                Some(Ok(Outcome::LetGo(gone))) => rows += gone,
                _ => return false,
            }
            if node.foreground.is_busy() {
                tokio::time::sleep(REST).await;
            }
        }
    }
    node.events.info("handover", format!("{rows} rows of {count} partitions were dropped: others keep them"));
    true
}
