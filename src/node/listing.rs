//! Lists: this node's part in one, off the threads that serve clients, and the pages that it coordinates.

use super::outside::now;
use super::worker::Worker;
use crate::coordinator::{List, ListOptions, ListOutcome, ListWish, Quorum};
use crate::placement::{MemberIndex, Ring};
use crate::protocol::{Answer, ListRequest, Refusal};
use crate::replica;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

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
            replica::list(&*shared.store, &request, kept, now_ms, &mut is_over)
        };
        told(match node.aside.run(scan).await {
            Some(Ok(found)) => {
                found.damaged.into_iter().for_each(|key| node.rot.note(key));
                Answer::Listed(found.answer)
            }
            Some(Err(_)) | None => Answer::Refused(Refusal::Unreadable),
        });
    });
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
