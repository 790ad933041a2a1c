//! Requests that meet a change of the layout: an owner that goes by another one does not answer, so they are tried again as
//! soon as this node, or that one, has learned.

use crate::node::{Worker, now};
use crate::placement::Ring;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The first pause, doubled with each further one, and how often it is tried again at most.
const PAUSE: Duration = Duration::from_millis(5);
const TRIES_MAX: u32 = 7;

/// How long one request keeps trying.
pub(super) struct Patience {
    worker: Rc<Worker>,
    began: Instant,
    tries: u32,
    /// How often a peer had named another epoch when it was tried last.
    met_others: u64,
}

impl Patience {
    /// Of a request that comes in now.
    pub(super) fn new(worker: &Rc<Worker>) -> Patience {
        let met_others = worker.node.layouts.met_others();
        Patience { worker: worker.clone(), began: now(), tries: 0, met_others }
    }

    /// Whether what came to nothing under `ring` may go better now: waits a moment, where that is so.
    pub(super) async fn is_between(&mut self, ring: &Ring) -> bool {
        let node = &self.worker.node;
        let pause = PAUSE * (1 << self.tries);
        let is_over = now().duration_since(self.began) + pause > node.settings.timeout / 2;
        // Whoever refused it may have learned by now.
        let met_others = node.layouts.met_others();
        let has_met = std::mem::replace(&mut self.met_others, met_others) != met_others;
        if self.tries == TRIES_MAX || is_over || !has_met && !node.is_between_layouts(ring.epoch()) {
            return false;
        }
        self.tries += 1;
        if node.epoch() == ring.epoch() {
            let changed = node.layouts.changed();
            let _ = tokio::time::timeout(pause, changed).await;
        }
        true
    }
}
