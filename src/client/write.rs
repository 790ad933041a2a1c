//! Writes: deletes, increments and conditional ones, too.

use super::terms::{self, Counted, DEADLINE_SHARE};
use super::{Error, WriteTerms, agree, between};
use crate::coordinator::{Put, PutOptions, PutOutcome, Replicas, Write};
use crate::node::Worker;
use crate::placement::{Mode, Partition, Ring};
use crate::record::{Key, Proposal, Record, Seen};
use std::rc::Rc;
use std::sync::Arc;

/// A write that was stored.
#[derive(Debug)]
pub struct Stored {
    /// What became of it.
    pub kind: StoredKind,
    /// What its client may say it has seen.
    pub seen: Seen,
    /// The record as its first holder has it.
    pub record: Record,
    /// How far it got.
    pub replicas: Replicas,
}

/// What became of a stored write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoredKind {
    /// As many owners as asked for have it; there was no live value before.
    Created,
    /// As many owners as asked for have it, in place of what was there.
    Replaced,
    /// Fewer have it.
    Short,
}

/// Writes, as far as the terms and the mode want. What came to nothing, or to less than that, because the layout changed
/// meanwhile is tried again under the new one, unless it might count twice.
pub async fn write(
    worker: &Rc<Worker>,
    terms: WriteTerms,
    key: Key,
    wish: impl Into<Proposal>,
) -> Result<Stored, Error> {
    let wish = wish.into();
    let mut patience = between::Patience::new(worker);
    // What came of it before, where it may be stored somewhere since.
    let mut before: Option<Result<Stored, Error>> = None;
    loop {
        let ring = worker.node.ring();
        let earlier = before.as_ref().and_then(|before| Some(before.as_ref().ok()?.record.clone()));
        let result = write_under(worker, terms, key.clone(), wish.clone(), ring.clone(), earlier).await;
        let is_short = match &result {
            Ok(stored) => stored.kind == StoredKind::Short && !wish.edit.counts(),
            Err(error) => error.is_worth_another_try(),
        };
        if !is_short || !Box::pin(patience.is_between(&ring)).await {
            let says_nowhere = result.as_ref().is_err_and(|error| !matches!(error, Error::NotReplicated { .. }));
            return match before {
                // That nothing was stored goes for the last try alone.
                Some(before) if says_nowhere => before,
                _ => result,
            };
        }
        if matches!(&result, Ok(_) | Err(Error::NotReplicated { .. })) {
            before = Some(result);
        }
    }
}

async fn write_under(
    worker: &Rc<Worker>,
    terms: WriteTerms,
    key: Key,
    wish: Proposal,
    ring: Arc<Ring>,
    earlier: Option<Record>,
) -> Result<Stored, Error> {
    let node = &worker.node;
    let mode = terms::mode(terms.mode, &ring);
    if wish.condition.is_some() && mode != Mode::Quorum {
        return Err(Error::NoConditions(mode));
    }
    if mode.agrees() {
        // In a box, as what waits in here: most writes would carry its room about and not use it.
        return Box::pin(agree::write(worker, terms, key, wish, mode, ring)).await;
    }
    let edit = wish.edit;
    let counts = edit.counts();
    let owners = ring.owners(Partition::of(key.position())).len();
    let (quorum, hard) = Counted::W(terms.w).quorum(worker, mode, owners)?;
    let deadline = node.settings.timeout.mul_f64(DEADLINE_SHARE);
    let options = PutOptions {
        quorum,
        hard,
        covers: mode != Mode::Async,
        now: node.now_stamp(),
        deadline_ms: deadline.as_millis() as u64,
        avoid: node.avoid(&ring),
        earlier,
    };
    let put = Put::new(Write { key, edit }, ring.clone(), node.me(&ring), options);
    match worker.run(put, ring, deadline).await {
        Some(PutOutcome::Stored { created, record, seen, replicas }) => {
            let kind = if created { StoredKind::Created } else { StoredKind::Replaced };
            Ok(Stored { kind, seen, record, replicas })
        }
        Some(PutOutcome::Short { record, seen, replicas }) => {
            Ok(Stored { kind: StoredKind::Short, seen, record, replicas })
        }
        Some(PutOutcome::Unknown { replicas, cause, is_nowhere }) => {
            Err(Error::NotReplicated { replicas, needed: quorum.needed(), cause, may_repeat: is_nowhere || !counts })
        }
        Some(PutOutcome::Refused(refusal)) => Err(Error::Refused(refusal)),
        None => Err(Error::Bug("a write ended without a word")),
    }
}
