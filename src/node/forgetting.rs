//! What may be forgotten: has the owners agree on it, now and then, and tells what waits and for whom.

use super::outside::jittered;
use super::shared::Shared;
use super::worker::Worker;
use crate::antientropy::{FORGET_KEYS_MAX, Forget, Forgotten};
use crate::membership::State;
use crate::placement::{MemberIndex, Partition, Ring};
use crate::record::{Context, Key};
use crate::replica::{self, Candidate};
use crate::storage::{Kind, PageSize, Span};
use serde::Serialize;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Notes read at a time.
const PAGE: PageSize = PageSize { rows_max: 1_024, bytes_max: 4 << 20 };
/// The rest between two handfuls of keys while clients are served. A handful takes a committer about 0.2 ms.
const REST: Duration = Duration::from_millis(4);

/// What waits to be forgotten, for people.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Waiting {
    /// Deleted and expired keys that this node still keeps, as far as its last round met them.
    pub waiting: u64,
    /// For whom: for each owner, for how many keys it was away, or not heard, or has not seen yet what others have.
    #[serde(rename = "for")]
    pub waiting_for: BTreeMap<String, u64>,
    /// Keys of which something was forgotten because this node asked, since the start.
    pub forgotten: u64,
}

/// The same, as it is kept.
#[derive(Default)]
pub struct Waits(Mutex<Waiting>);

impl Waits {
    /// As of the last round.
    pub fn status(&self) -> Waiting {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Looks every `--syncfreq`, jittered: what sessions have shown is what may be forgotten.
pub(super) fn on_timer(worker: &Rc<Worker>) {
    let worker = worker.clone();
    actix_web::rt::spawn(async move {
        let node = worker.node.clone();
        while !node.is_stopping() {
            tokio::time::sleep(jittered(node.settings.sync_period)).await;
            if let Some(waiting) = round(&worker).await {
                *node.waits.lock() = waiting;
            }
        }
    });
}

/// Goes once through all that is noted. `None` where the store cannot be read, or the node stops.
async fn round(worker: &Rc<Worker>) -> Option<Waiting> {
    let node = &worker.node;
    let mut waiting = Waiting { forgotten: node.waits.status().forgotten, ..Waiting::default() };
    // The first owner of a partition asks first: what all have forgotten by then the others need not ask for.
    for first in [true, false] {
        pass(worker, first, &mut waiting).await?;
    }
    (!node.is_stopping()).then_some(waiting)
}

/// Goes through what is noted of the partitions that this node is the `first` owner of, or of all others.
async fn pass(worker: &Rc<Worker>, first: bool, waiting: &mut Waiting) -> Option<()> {
    let node = &worker.node;
    let mut span = Some(Span::kind(Kind::Due));
    while let Some(rest) = span.filter(|_| !node.is_stopping()) {
        let (shared, now_ms) = (node.clone(), node.now_stamp().ms());
        let look = move || {
            let mut give_way = shared.foreground.giving_way(shared.settings.timeout / 2);
            let found = replica::forgettable(&*shared.store, &rest, PAGE, now_ms, &mut give_way);
            found.map(|(candidates, next)| (candidates, next.map(|next| rest.rest(next))))
        };
        let (candidates, next) = tokio::task::spawn_blocking(look).await.ok()?.ok()?;
        let ring = node.ring();
        for of_one in candidates.chunk_by(|one, other| partition(one) == partition(other)) {
            if (ring.owners(partition(&of_one[0])).first() == Some(&node.me(&ring))) == first {
                forget(worker, &ring, of_one, waiting).await;
            }
        }
        span = next;
    }
    Some(())
}

fn partition(candidate: &Candidate) -> Partition {
    Partition::of(candidate.key.position())
}

/// Has the owners of one partition forget what they agree to of it. Whichever of them asks first does it for all.
async fn forget(worker: &Rc<Worker>, ring: &Arc<Ring>, candidates: &[Candidate], waiting: &mut Waiting) {
    let node = &worker.node;
    let (partition, me) = (partition(&candidates[0]), node.me(ring));
    let owners = ring.owners(partition).to_vec();
    if !owners.contains(&me) {
        return;
    }
    waiting.waiting += candidates.iter().filter(|candidate| candidate.is_spent).count() as u64;
    let away = away(node, ring, &owners);
    for owner in &away {
        *waiting.waiting_for.entry(owner.clone()).or_default() += candidates.len() as u64;
    }
    let is_seen =
        |candidate: &&Candidate| node.seen_of(partition, &candidate.context).len() == candidate.context.entries().len();
    let (ready, early): (Vec<_>, Vec<_>) = candidates.iter().partition(is_seen);
    if !early.is_empty() {
        *waiting.waiting_for.entry(node.name.clone()).or_default() += early.len() as u64;
    }
    if !away.is_empty() {
        return;
    }
    for handful in ready.chunks(FORGET_KEYS_MAX) {
        let keys: Vec<(Key, Context)> =
            handful.iter().map(|candidate| (candidate.key.clone(), candidate.context.clone())).collect();
        let machine = Forget::new(me, owners.clone(), keys);
        let Some(outcome) = worker.run(machine, ring.clone(), node.settings.timeout).await else { return };
        let spent = handful.iter().filter(|candidate| candidate.is_spent).count() as u64;
        waiting.waiting = waiting.waiting.saturating_sub(outcome.keys.min(spent));
        waiting.forgotten += outcome.keys;
        note(ring, &outcome, waiting);
        if node.is_stopping() || outcome.keys == 0 {
            return;
        }
        if node.foreground.is_busy() {
            tokio::time::sleep(REST).await;
        }
    }
}

fn note(ring: &Ring, outcome: &Forgotten, waiting: &mut Waiting) {
    for (owner, keys) in &outcome.waiting {
        *waiting.waiting_for.entry(ring.member(*owner).name.clone()).or_default() += keys;
    }
}

/// The owners that nobody need ask, as they are away.
fn away(node: &Shared, ring: &Ring, owners: &[MemberIndex]) -> Vec<String> {
    let view = node.view();
    let names = owners.iter().map(|owner| &ring.member(*owner).name);
    names.filter(|name| view.peer(name).is_some_and(|peer| peer.state != State::Alive)).cloned().collect()
}
