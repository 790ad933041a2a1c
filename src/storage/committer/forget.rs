//! What the committer does about what may be forgotten: tombstones, expired values, and the context entries of actors of
//! which nothing is left.
//!
//! A key's own record need not say what its partition's context says as well ([`Contexts`](crate::storage::Contexts)): a
//! late copy of a write that is covered there and not held was superseded. So a store agrees where its partition's context
//! covers what is to go, and nothing of that is live here; and drops it once every owner has agreed. Gonçalves et al.,
//! "Concise Server-Wide Causality Management for Eventually Consistent Data Stores" (2015), §4.

use super::{Batch, Committer, DataDraft};
use crate::placement::Partition;
use crate::record::{Actor, Context, Dot, Key, Stamp};
use crate::storage::{ContextLedger, Outcome, Refused};
use std::sync::Arc;

/// What was seen of a partition, as the store has committed it.
pub(super) struct SeenIn {
    contexts: Arc<ContextLedger>,
    partition: Partition,
    actor: Actor,
    last: Stamp,
}

impl SeenIn {
    fn covers(&self, dot: Dot) -> bool {
        self.contexts.look(|contexts| contexts.covers(self.partition, self.actor, self.last, dot))
    }

    fn dominates(&self, context: &Context) -> bool {
        context.entries().iter().all(|&(actor, stamp)| self.covers(Dot { stamp, actor }))
    }
}

impl Committer {
    fn seen(&self, key: &Key) -> SeenIn {
        let (actor, last) = (self.actor, self.store.last_stamp());
        SeenIn { contexts: self.contexts.clone(), partition: Partition::of(key.position()), actor, last }
    }

    /// Of which dots it is known that they were once here, whatever the row of `key` says.
    pub(super) fn seen_in(&self, key: &Key) -> impl Fn(Dot) -> bool + use<> {
        let seen = self.seen(key);
        move |dot| seen.covers(dot)
    }

    /// [`Change::MayForget`](crate::storage::Change::MayForget).
    pub(super) fn may_forget(&mut self, batch: &mut Batch, keys: &[(Key, Context)], wall_ms: u64) -> Vec<bool> {
        // Peers rely on the answer for good, so what it goes by must survive a crash.
        batch.keeps_contexts = true;
        keys.iter().map(|(key, context)| self.forgettable(batch, key, context, wall_ms).is_some()).collect()
    }

    /// Syncs what was agreed to before anybody hears of it, however seldom the store does so by itself: the others forget
    /// for good, and after a power cut this store would show what was superseded, or take a late copy of it for new. What is
    /// forgotten after that needs no sync: a store that holds it again asks again.
    pub(super) fn sync_agreed(&self, outcomes: Vec<Result<Outcome, Refused>>) -> Vec<Result<Outcome, Refused>> {
        let binds = |outcome: &_| matches!(outcome, Ok(Outcome::MayForget(may)) if may.contains(&true));
        if !outcomes.iter().any(binds) {
            return outcomes;
        }
        match self.store.sync().map_err(Refused::from) {
            Ok(()) => outcomes,
            Err(refused) => {
                let kept = |outcome| if binds(&outcome) { Err(refused.clone()) } else { outcome };
                outcomes.into_iter().map(kept).collect()
            }
        }
    }

    /// [`Change::Forget`](crate::storage::Change::Forget).
    pub(super) fn forget(&mut self, batch: &mut Batch, keys: &[(Key, Context)], wall_ms: u64) -> u64 {
        batch.keeps_contexts = true;
        let now_ms = self.clock.last().ms().max(wall_ms);
        let mut forgotten = 0;
        for (key, context) in keys {
            let Some(draft) = self.forgettable(batch, key, context, wall_ms) else { continue };
            let rest = draft.row.record.forget(context, now_ms);
            draft.renoted = true;
            if rest == draft.row.record {
                continue;
            }
            let is_gone = rest.is_unknown();
            draft.set(rest);
            forgotten += 1;
            if is_gone {
                // What was promised and accepted for the key is promised for all of its partition from now on.
                let promised = draft.row.promised.take().max(context.ballot());
                if let Some(promised) = promised {
                    self.raise_mark(batch, Partition::of(key.position()), promised);
                    batch.promises = true;
                }
            }
        }
        forgotten
    }

    /// The row of `key`, if what `context` covers of it may go as far as this store knows. What consensus agreed on goes only
    /// where just that ballot is the last one accepted here, or was and is gone already.
    fn forgettable<'a>(
        &mut self,
        batch: &'a mut Batch,
        key: &Key,
        context: &Context,
        wall_ms: u64,
    ) -> Option<&'a mut DataDraft> {
        let now_ms = self.clock.last().ms().max(wall_ms);
        let is_seen = self.seen(key).dominates(context);
        let mark = self.ballots.mark(Partition::of(key.position()));
        let draft = self.data(batch, key).ok()?;
        let is_last = match (context.ballot(), draft.row.record.context().ballot()) {
            (None, _) => true,
            (Some(ballot), Some(held)) => ballot == held,
            (Some(ballot), None) => mark >= Some(ballot),
        };
        let may = is_seen && is_last && draft.row.record.has_superseded(context, now_ms);
        may.then_some(draft)
    }
}
