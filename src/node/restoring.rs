//! Restores: records of a backup are brought to those who keep their keys, whoever made the backup.
//!
//! Each goes the way of every copy: it is merged, inside the committer of each owner, with what is held there. So a record
//! may be brought any number of times, from several nodes' backups and in any order, and what the cluster knows better stays.
//!
//! | a record | is brought by |
//! | --- | --- |
//! | written without consensus | [`Deliver`]: a majority has it durably |
//! | accepted by consensus | the same: its ballot is accepted like one that a session carries; where too many have promised a later one, by a proposal in which the copy counts like one more acceptor's |
//!
//! Once everybody who keeps a partition has taken all of it, they are told what the node it comes from had seen there, as by
//! one that hands a partition over. Without that a tombstone of a restored key could never go: no owner would ever know the
//! names under which the other cluster wrote.

use super::foreground::Class;
use super::outside::now;
use super::worker::Worker;
use crate::coordinator::{Deliver, Electorate};
use crate::placement::{MemberIndex, Partition, Ring};
use crate::protocol::{
    Answer, Copies, Decision, LayoutAnswer, LayoutRequest, Portion, Refusal, Request, SeenGroups, SyncAnswer,
    SyncRequest,
};
use crate::record::{Key, Record};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Records brought at a time, and beside clients: as few as one commit takes along.
const AT_A_TIME: usize = 64;
const AT_A_TIME_BESIDE_CLIENTS: usize = 8;
/// The part of `--timeout` after which a majority is enough.
const PATIENCE_SHARE: u32 = 8;

/// What became of the records of a piece.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Restored {
    /// So many have a value, and changed something somewhere.
    pub changed: u64,
    /// So many have a value, and were there already.
    pub present: u64,
    /// So many are of deleted keys.
    pub deletes: u64,
    /// Of so many some value was superseded here, and is not shown.
    pub superseded: u64,
    /// A majority of the owners could not be had: the key, and why the last one that refused did so.
    pub failed: Vec<(Key, Option<Refusal>)>,
    /// In so many partitions all who keep them have all of the piece, and know what its node had seen.
    pub partitions_known: u64,
}

/// What became of one.
struct Brought {
    key: Key,
    is_delete: bool,
    changed: bool,
    superseded: bool,
    by_all: bool,
    failed: Option<Option<Refusal>>,
}

impl Worker {
    /// Brings the records of a piece to their owners.
    pub async fn restore(self: &Rc<Self>, copies: Copies) -> Restored {
        let ring = self.node.ring();
        let unbroken = self.unbroken(&ring, &copies.portions).await;
        let mut restored = Restored::default();
        let (mut missing, mut told) = (BTreeSet::new(), Vec::new());
        let mut under_way: VecDeque<(Partition, JoinHandle<Brought>)> = VecDeque::new();
        for Portion { partition, seen, is_whole, records } in copies.portions {
            if is_whole && !seen.is_empty() {
                told.push((partition, seen));
            }
            for (key, record) in records {
                let at_a_time = if self.node.foreground.is_busy() { AT_A_TIME_BESIDE_CLIENTS } else { AT_A_TIME };
                while under_way.len() >= at_a_time {
                    take_first(&mut under_way, &mut restored, &mut missing).await;
                }
                let (worker, ring) = (self.clone(), ring.clone());
                under_way.push_back((
                    partition,
                    actix_web::rt::spawn(async move { worker.bring(&ring, key, record).await }),
                ));
            }
        }
        while !under_way.is_empty() {
            take_first(&mut under_way, &mut restored, &mut missing).await;
        }
        told.retain(|(partition, _)| !missing.contains(partition));
        // Whoever had seen writes that nobody can have made yet would take them for superseded once they are.
        told.retain(|(_, seen)| seen.latest().is_none_or(|latest| self.node.queue.believes(latest)));
        restored.partitions_known = self.tell_seen(&ring, told, &unbroken).await;
        restored
    }

    /// Brings one record.
    async fn bring(self: Rc<Self>, ring: &Arc<Ring>, key: Key, record: Record) -> Brought {
        let timeout = self.node.settings.timeout;
        let (mut brought, cause) = self.deliver(ring, &key, &record).await;
        let was_promised = matches!(cause, Some(Refusal::Promised { .. }));
        if brought.failed.is_some() && was_promised && record.context().ballot().is_some() {
            brought.failed = match self.agree_on_copy(&key, record, timeout).await {
                Decision::Made { record: agreed, .. } => {
                    // The majority has it. That the others do, too, decides only what is said of it.
                    let (again, _) = self.deliver(ring, &key, &agreed).await;
                    (brought.changed, brought.by_all) = (true, again.by_all);
                    None
                }
                Decision::Unavailable { cause, .. } | Decision::Unknown { cause, .. } => Some(cause),
                Decision::Unmet { .. } | Decision::Unfit(_) => Some(None),
            };
        }
        brought
    }

    /// Has a copy merged by all who keep the key; and why the last one that refused did so.
    async fn deliver(self: &Rc<Self>, ring: &Arc<Ring>, key: &Key, record: &Record) -> (Brought, Option<Refusal>) {
        let timeout = self.node.settings.timeout;
        let patience_ms = (timeout / PATIENCE_SHARE).as_millis() as u64;
        let electorate = Electorate::of(ring, Partition::of(key.position()));
        let deliver = Deliver::new(key.clone(), record.clone(), electorate, patience_ms.max(1));
        let delivered = self.run(deliver, ring.clone(), timeout).await.unwrap_or_default();
        let failed = (!delivered.is_reached).then(|| delivered.cause.clone());
        let brought = Brought {
            key: key.clone(),
            is_delete: record.is_tombstone(),
            changed: delivered.changed,
            superseded: delivered.superseded,
            by_all: delivered.by_all,
            failed,
        };
        (brought, delivered.cause)
    }

    /// By which number each of those who keep these partitions has lost nothing until now.
    async fn unbroken(self: &Rc<Self>, ring: &Ring, portions: &[Portion]) -> BTreeMap<MemberIndex, u64> {
        let whole = portions.iter().filter(|portion| portion.is_whole);
        let holders: BTreeSet<MemberIndex> = whole.flat_map(|portion| ring.holders(portion.partition)).collect();
        let (mut unbroken, avoid) = (BTreeMap::new(), self.node.avoid(ring));
        for holder in holders.into_iter().filter(|holder| !avoid.contains(holder)) {
            let request = Request::Layout(LayoutRequest::Progress);
            let until = now() + self.node.settings.timeout;
            let answer = self.answered(ring, holder, request, Class::Background, until).await;
            if let Some(Ok(Answer::Layout(LayoutAnswer::Progress(progress)))) = answer {
                unbroken.insert(holder, progress.unbroken);
            }
        }
        unbroken
    }

    /// Tells those who keep these partitions what was seen of them where the records come from; in how many all have heard.
    async fn tell_seen(
        self: &Rc<Self>,
        ring: &Ring,
        seen: Vec<(Partition, crate::record::Context)>,
        unbroken: &BTreeMap<MemberIndex, u64>,
    ) -> u64 {
        let mut deaf = BTreeSet::new();
        let holders: BTreeSet<MemberIndex> = seen.iter().flat_map(|(partition, _)| ring.holders(*partition)).collect();
        for holder in holders {
            let of_it = seen.iter().filter(|(partition, _)| ring.is_holder(holder, *partition));
            let groups: SeenGroups =
                of_it.map(|(partition, context)| (context.clone(), vec![(*partition, *partition)])).collect();
            let has_heard = match unbroken.get(&holder) {
                None => false,
                Some(&unbroken) => {
                    let request = Request::Sync(SyncRequest::HandedOver { seen: groups, unbroken });
                    let until = now() + self.node.settings.timeout;
                    let answer = self.answered(ring, holder, request, Class::Background, until).await;
                    matches!(answer, Some(Ok(Answer::Sync(SyncAnswer::Done))))
                }
            };
            if !has_heard {
                deaf.insert(holder);
            }
        }
        let has_all = |partition: Partition| !ring.holders(partition).iter().any(|holder| deaf.contains(holder));
        seen.iter().filter(|(partition, _)| has_all(*partition)).count() as u64
    }
}

/// Waits for the one that was begun first.
async fn take_first(
    under_way: &mut VecDeque<(Partition, JoinHandle<Brought>)>,
    restored: &mut Restored,
    missing: &mut BTreeSet<Partition>,
) {
    let Some((partition, task)) = under_way.pop_front() else { return };
    let Ok(brought) = task.await else {
        missing.insert(partition);
        return;
    };
    if !brought.by_all {
        missing.insert(partition);
    }
    match brought {
        Brought { key, failed: Some(cause), .. } => restored.failed.push((key, cause)),
        Brought { is_delete: true, .. } => restored.deletes += 1,
        Brought { superseded: true, .. } => restored.superseded += 1,
        Brought { changed: true, .. } => restored.changed += 1,
        Brought { .. } => restored.present += 1,
    }
}
