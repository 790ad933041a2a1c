//! What may be forgotten: has the owners agree on it, now and then, and tells what waits and for whom.

use super::outside::jittered;
use super::shared::Shared;
use super::worker::Worker;
use crate::antientropy::{FORGET_KEYS_MAX, Forget};
use crate::placement::{MemberIndex, Partition, Ring};
use crate::protocol::Request;
use crate::record::{Context, Dot, Key};
use crate::replica::{self, Candidate};
use crate::storage::{Address, DueLedger, Kind, PageSize, Peek, Span, StoreError};
use serde::Serialize;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Notes read at a time.
const PAGE: PageSize = PageSize { rows_max: 1_024, bytes_max: 4 << 20 };
/// How long a partition in which nothing was deleted, and nothing was due, is left alone at most.
const QUIET_MS_MAX: u64 = 60_000;
/// What lies between two handfuls while clients are served, for each key of the first: it is asked about, and forgotten,
/// where clients' writes are committed on every owner. Few large handfuls are felt by fewer clients than many small ones.
const REST_PER_KEY: Duration = Duration::from_millis(5);

/// For whom it is waited where no owner can say that it has all that one maker made: it comes back, or is never proven.
/// Whoever made it may have made more that is nowhere else.
const NOBODY: &str = "writes of a store that is gone, or of a stand-in that did not hand over all it made";

/// What waits to be forgotten, for people.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Waiting {
    /// Deleted and expired keys that this node still keeps, as far as its last round met them.
    pub waiting: u64,
    /// For whom: for each owner, for how many keys it was away, or not heard, or has not seen yet what others have; and for
    /// how many it is waited for a store that no owner knows all of: one that was lost before others had compared
    /// themselves with it since its last write, until it is put back.
    #[serde(rename = "for")]
    pub waiting_for: BTreeMap<String, u64>,
    /// Keys of which something was forgotten because this node asked, since the start.
    pub forgotten: u64,
}

/// The same, as it is kept, and until when nothing becomes due in a partition where nothing was deleted, in milliseconds
/// since 1970, but for what is written meanwhile: values that expire may be many, and need not be gone through every time.
pub struct Waits {
    waiting: Mutex<Waiting>,
    quiet: Mutex<BTreeMap<Partition, u64>>,
    dues: Arc<DueLedger>,
}

impl Waits {
    /// Of a node whose committer notes there what becomes due.
    pub(super) fn of(dues: Arc<DueLedger>) -> Waits {
        Waits { waiting: Mutex::default(), quiet: Mutex::default(), dues }
    }

    /// As of the last round.
    pub fn status(&self) -> Waiting {
        self.lock().clone()
    }

    fn is_quiet(&self, partition: Partition, now_ms: u64) -> bool {
        let is_due = self.dues.earliest(partition).is_some_and(|ms| ms <= now_ms);
        !is_due && self.quiet().get(&partition).is_some_and(|until_ms| now_ms < *until_ms)
    }

    /// It is gone through from now on: what was known of it is forgotten.
    fn begin(&self, partition: Partition) {
        self.dues.take(partition);
        self.quiet().remove(&partition);
    }

    /// Nothing is due there before `next_ms`, but for what is written since it was begun.
    fn note_quiet(&self, partition: Partition, now_ms: u64, next_ms: Option<u64>) {
        let until_ms = next_ms.unwrap_or(u64::MAX).min(now_ms + QUIET_MS_MAX);
        self.quiet().insert(partition, until_ms);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn quiet(&self) -> MutexGuard<'_, BTreeMap<Partition, u64>> {
        self.quiet.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
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
    let ring = node.ring();
    let me = node.me(&ring);
    let is_first = |partition: &Partition| ring.owners(*partition).first() == Some(&me);
    // The first owner of a partition asks first: what all have forgotten by then the others need not ask for.
    let (first, others): (Vec<Partition>, Vec<Partition>) = ring.partitions_of(me).iter().partition(|at| is_first(at));
    for partition in first.into_iter().chain(others) {
        if node.is_stopping() {
            return None;
        }
        let tombstones = node.forest.tombstones(partition).max(0) as u64;
        let avoid = node.avoid(&ring);
        let away: Vec<MemberIndex> =
            ring.holders(partition).into_iter().filter(|owner| avoid.contains(owner)).collect();
        if !away.is_empty() {
            // Nobody else need be asked, nor the rows be read.
            let spent = count(worker, partition).await?;
            waiting.waiting += spent;
            if spent > 0 {
                note(&ring, away.into_iter().map(|owner| (owner, spent)), &mut waiting);
            }
        } else if tombstones > 0 || !node.waits.is_quiet(partition, node.now_stamp().ms()) {
            go_through(worker, &ring, partition, &mut waiting).await?;
        }
    }
    Some(waiting)
}

/// How many keys of a partition wait to be forgotten.
async fn count(worker: &Rc<Worker>, partition: Partition) -> Option<u64> {
    let (node, now_ms) = (worker.node.clone(), worker.node.now_stamp().ms());
    let look = move || {
        let (mut span, mut spent) = (Some(Span::partition(Kind::Due, partition)), 0);
        let mut give_way = node.foreground.giving_way(node.settings.timeout / 2);
        while let Some(here) = span {
            let (more, next) = replica::count_spent(&*node.store, &here, PAGE, now_ms, &mut give_way)?;
            spent += more;
            span = next.map(|next| here.rest(next));
        }
        Ok::<u64, StoreError>(spent)
    };
    tokio::task::spawn_blocking(look).await.ok()?.ok()
}

/// Goes through what is noted of one partition.
async fn go_through(worker: &Rc<Worker>, ring: &Arc<Ring>, partition: Partition, waiting: &mut Waiting) -> Option<()> {
    let node = &worker.node;
    node.waits.begin(partition);
    let (mut span, mut next_ms, mut any) = (Some(Span::partition(Kind::Due, partition)), None::<u64>, false);
    while let Some(rest) = span {
        let (shared, now_ms, here) = (node.clone(), node.now_stamp().ms(), rest.clone());
        let look = move || {
            let mut give_way = shared.foreground.giving_way(shared.settings.timeout / 2);
            replica::forgettable(&*shared.store, &here, PAGE, now_ms, &mut give_way)
        };
        let noted = tokio::task::spawn_blocking(look).await.ok()?.ok()?;
        if !noted.candidates.is_empty() {
            any = true;
            forget(worker, ring, partition, &noted.candidates, waiting).await;
        }
        next_ms = next_ms.into_iter().chain(noted.next_ms).min();
        span = noted.next.map(|next| rest.rest(next));
    }
    if !any {
        node.waits.note_quiet(partition, node.now_stamp().ms(), next_ms);
    }
    Some(())
}

/// Has the owners of one partition forget what they agree to of it. Whichever of them asks first does it for all.
async fn forget(
    worker: &Rc<Worker>,
    ring: &Arc<Ring>,
    partition: Partition,
    candidates: &[Candidate],
    waiting: &mut Waiting,
) {
    let node = &worker.node;
    let (me, owners) = (node.me(ring), ring.holders(partition));
    waiting.waiting += candidates.iter().filter(|candidate| candidate.is_spent).count() as u64;
    let is_seen =
        |candidate: &&Candidate| node.seen_of(partition, &candidate.context).len() == candidate.context.entries().len();
    let (ready, early): (Vec<_>, Vec<_>) = candidates.iter().partition(is_seen);
    for candidate in early {
        let whom = if node.is_of_nobody(ring, partition, &candidate.context) { NOBODY } else { &node.name };
        *waiting.waiting_for.entry(whom.to_owned()).or_default() += 1;
    }
    for handful in ready.chunks(FORGET_KEYS_MAX) {
        let keys: Vec<(Key, Context)> =
            handful.iter().map(|candidate| (candidate.key.clone(), candidate.context.clone())).collect();
        let machine = Forget::new(me, owners.clone(), keys);
        let Some(outcome) = worker.run(machine, ring.clone(), node.settings.timeout).await else { return };
        let spent = handful.iter().filter(|candidate| candidate.is_spent).count() as u64;
        waiting.waiting = waiting.waiting.saturating_sub(outcome.keys.min(spent));
        waiting.forgotten += outcome.keys;
        note(ring, outcome.waiting, waiting);
        if node.is_stopping() || outcome.keys == 0 {
            return;
        }
        if node.foreground.is_busy() {
            tokio::time::sleep(REST_PER_KEY * handful.len() as u32).await;
        }
    }
}

/// Brings the rows of keys that are asked about into memory, so that they need not be waited for where clients' writes are
/// committed.
pub(super) async fn bring_up(node: &Arc<Shared>, requests: &[Request]) {
    let asked = requests.iter().filter_map(|request| match request {
        Request::MayForget { keys } => Some(keys),
        _ => None,
    });
    let addresses = asked.flatten().map(|(key, _)| Address::data(key));
    let cold: Vec<Address> = addresses.filter(|address| matches!(node.store.peek(address), Peek::Ask)).collect();
    if cold.is_empty() {
        return;
    }
    let shared = node.clone();
    let read = move || {
        let mut give_way = shared.foreground.giving_way(shared.settings.timeout / 4);
        for address in cold {
            // One that cannot be read is met again by the committer, which says so.
            let _ = shared.store.read(&address);
            give_way();
        }
    };
    let _ = node.aside.run(read).await;
}

impl Shared {
    /// Whether there is a write among these that no owner of the partition has said to have seen, and all would have said so
    /// by now who made it: they have spoken since it was made.
    fn is_of_nobody(&self, ring: &Ring, partition: Partition, writes: &Context) -> bool {
        let seen = self.seen_of(partition, writes);
        let said = self.seen.said();
        let me = self.me(ring);
        let holders = ring.holders(partition);
        let others = || holders.iter().filter(|&&owner| owner != me);
        let has_not_seen = |dot: Dot| {
            others().all(|&owner| {
                let context = said.of(&ring.member(owner).name, partition);
                context.is_some_and(|context| context.latest() >= Some(dot.stamp) && !context.covers(dot))
            })
        };
        let mut dots = writes.entries().iter().map(|&(actor, stamp)| Dot { stamp, actor });
        dots.any(|dot| !seen.contains(&dot) && has_not_seen(dot))
    }
}

/// For whom so many keys wait.
fn note(ring: &Ring, owners: impl IntoIterator<Item = (MemberIndex, u64)>, waiting: &mut Waiting) {
    for (owner, keys) in owners {
        *waiting.waiting_for.entry(ring.member(owner).name.clone()).or_default() += keys;
    }
}
