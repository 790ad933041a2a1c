//! Lists: this node's part in one, off the threads that serve clients, and the pages that it coordinates.

use super::outside::now;
use super::shared::Shared;
use super::worker::Worker;
use crate::coordinator::{List, ListOptions, ListOutcome, ListWish, Quorum};
use crate::placement::{MemberIndex, Ring};
use crate::protocol::{Answer, ListRequest, Refusal};
use crate::replica::{self, Ahead};
use crate::storage::StoreError;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long a list rests beside clients, at most, for each part of a page: it is itself waited for.
const REST_MAX: Duration = Duration::from_millis(50);
/// The part of `--timeout` after which what was found till then is told.
const SHARE: u32 = 4;
/// How long a silent member is waited for before another is asked in its place, at most: longer than it takes to find a
/// page in all partitions of a slow disk.
const PATIENCE_MAX: Duration = Duration::from_secs(1);

/// Answers a request for keys in order.
pub(super) fn answer(worker: &Rc<Worker>, request: ListRequest, told: Box<dyn FnOnce(Answer)>) {
    let worker = worker.clone();
    actix_web::rt::spawn(async move {
        let node = worker.node.clone();
        let shared = node.clone();
        let scan = move || {
            let (ring, now_ms) = (shared.ring(), shared.now_stamp().ms());
            let me = shared.me(&ring);
            let kept = |partition| ring.is_owner(me, partition) && !shared.is_partial(partition);
            let (until, mut give_way) =
                (now() + shared.settings.timeout / SHARE, shared.foreground.giving_way(REST_MAX));
            let mut is_over = || {
                give_way();
                now() >= until
            };
            let ahead = request.listing.and_then(|_| shared.read_ahead.take(&request, ring.epoch()));
            let mut found = replica::list(&*shared.store, &request, ahead, kept, now_ms, &mut is_over)?;
            let kept = shared.read_ahead.keep(found.ahead.take(), ring.epoch());
            Ok::<_, StoreError>((found, kept))
        };
        told(match node.aside.run(scan).await {
            Some(Ok((found, kept))) => {
                if kept {
                    node.clone().let_go_of_read_ahead();
                }
                found.damaged.into_iter().for_each(|key| node.rot.note(key));
                Answer::Listed(found.answer)
            }
            Some(Err(_)) | None => Answer::Refused(Refusal::Unreadable),
        });
    });
}

/// How many lists this node keeps something for at a time: a few that go on are several times as quick, and each takes up
/// some 20 MiB.
const KEPT_MAX: usize = 4;
/// For how long, at most: who goes on with a list does so at once.
const KEPT_FOR: Duration = Duration::from_secs(2);

/// What was read ahead for the next answers of lists that go on. What is not there is read anew.
#[derive(Default)]
pub struct ReadAhead(Mutex<Vec<Kept>>);

struct Kept {
    ahead: Ahead,
    epoch: u64,
    since: Instant,
}

impl ReadAhead {
    /// What was read for this request, under the layout of this epoch.
    fn take(&self, request: &ListRequest, epoch: u64) -> Option<Ahead> {
        let mut all = self.all();
        all.retain(|kept| kept.epoch == epoch && now().duration_since(kept.since) < KEPT_FOR);
        let at = all.iter().position(|kept| kept.ahead.is_for(request))?;
        Some(all.swap_remove(at).ahead)
    }

    /// Keeps it for the next request, in place of what was kept longest. Whether there was anything.
    fn keep(&self, ahead: Option<Ahead>, epoch: u64) -> bool {
        let Some(ahead) = ahead else { return false };
        let mut all = self.all();
        if all.len() >= KEPT_MAX
            && let Some(oldest) = (0..all.len()).min_by_key(|at| all[*at].since)
        {
            all.swap_remove(oldest);
        }
        all.push(Kept { ahead, epoch, since: now() });
        true
    }

    fn retain_fresh(&self) {
        self.all().retain(|kept| now().duration_since(kept.since) < KEPT_FOR);
    }

    fn all(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Shared {
    /// Lets go of what was read ahead for a list that did not go on.
    fn let_go_of_read_ahead(self: Arc<Self>) {
        actix_web::rt::spawn(async move {
            tokio::time::sleep(KEPT_FOR).await;
            self.read_ahead.retain_fresh();
        });
    }
}

impl Worker {
    /// One page of the cluster's keys, or of some partitions', under `ring`: see [`List`]. `hard`: fewer owners than the
    /// quorum are an error. `silent` members are asked last, as are those that are known to be down. Concludes within
    /// `deadline`; `None` only when the machine broke its word.
    pub async fn list(
        self: &Rc<Self>,
        wish: ListWish,
        ring: Arc<Ring>,
        (quorum, hard): (Quorum, bool),
        silent: &[MemberIndex],
        deadline: Duration,
    ) -> Option<ListOutcome> {
        let node = &self.node;
        let mut avoid = node.avoid(&ring);
        avoid.extend(silent);
        let options = ListOptions {
            quorum,
            hard,
            patience_ms: ((deadline / 4).min(PATIENCE_MAX).as_millis() as u64).max(1),
            behind: node.behind(&ring),
            avoid,
            now_ms: node.now_stamp().ms(),
        };
        let list = List::new(wish, &ring, node.me(&ring), options);
        self.run(list, ring, deadline).await
    }
}
