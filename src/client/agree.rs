//! A client's wish in the modes that agree: `quorum`, `sync` and `chain`.

use super::terms::{Counted, DEADLINE_SHARE, READ_PATIENCE_MAX};
use super::{Error, Read, ReadTerms, Stored, StoredKind, WriteTerms};
use crate::coordinator::{Confirm, ConfirmOptions, ConfirmOutcome, Entrust, Replicas, Source, is_since};
use crate::node::Worker;
use crate::placement::{Mode, Partition, Ring};
use crate::protocol::{Decision, Reach, Refusal};
use crate::record::{Context, Edit, Key, Proposal, Record, Seen};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Before the members have agreed on who they are, nobody can agree on anything.
pub(super) fn refuse_before_founding(worker: &Worker, ring: &Ring, mode: Mode) -> Result<(), Error> {
    if ring.epoch() > 0 {
        return Ok(());
    }
    Err(Error::NotEstablished { mode, awaiting: worker.node.awaited() })
}

fn reach(mode: Mode) -> Reach {
    match mode {
        Mode::Sync => Reach::All,
        Mode::Chain => Reach::InOrder,
        Mode::Quorum | Mode::Sloppy | Mode::Async => Reach::Majority,
    }
}

/// How many of the owners must have something for it to count.
fn needed(reach: Reach, owners: usize) -> usize {
    if reach == Reach::Majority { owners / 2 + 1 } else { owners }
}

/// Has the owners agree on an edit.
pub(super) async fn write(
    worker: &Rc<Worker>,
    terms: WriteTerms,
    key: Key,
    proposal: Proposal,
    mode: Mode,
    ring: Arc<Ring>,
) -> Result<Stored, Error> {
    Counted::W(terms.w).refuse_in(mode)?;
    refuse_before_founding(worker, &ring, mode)?;
    let owners = ring.owners(Partition::of(key.position())).len();
    let shown = shown_before(&proposal.edit);
    let reach = reach(mode);
    match propose(worker, key.clone(), Some(proposal), reach, ring).await? {
        Decision::Made { created, record, acked } => {
            let kind = if created { StoredKind::Created } else { StoredKind::Replaced };
            let replicas = Replicas { wanted: owners, acked: usize::from(acked), hinted: 0 };
            Ok(Stored { kind, seen: seen_after(shown, &record), record, replicas })
        }
        Decision::Unmet { record } => {
            let now_ms = worker.node.now_stamp().ms();
            Err(Error::Unmet { key, record: Box::new(record), now_ms })
        }
        Decision::Unfit(why) => Err(Error::Refused(Refusal::Unfit(why))),
        Decision::Unavailable { cause: Some(full @ Refusal::NodeFull { .. }), .. } => Err(Error::Refused(full)),
        Decision::Unavailable { answered, cause } => {
            let (answered, needed) = (usize::from(answered), needed(reach, owners));
            Err(Error::NotAgreed { answered, needed, cause })
        }
        Decision::Unknown { acked, cause } => {
            let replicas = Replicas { wanted: owners, acked: usize::from(acked), hinted: 0 };
            Err(Error::NotReplicated { replicas, needed: needed(reach, owners), cause, may_repeat: false })
        }
    }
}

/// What a writing client had been shown of what others wrote beside what was agreed on; `None` for everything there is.
fn shown_before(edit: &Edit) -> Option<Context> {
    match edit {
        Edit::Write { seen: Seen::Everything, .. } | Edit::Add { .. } => None,
        Edit::Write { seen, .. } => Some(seen.since()),
    }
}

/// What it may say it has seen after its write left `record`: where something stands beside, which it was not shown, just
/// what was agreed on is added.
fn seen_after(shown: Option<Context>, record: &Record) -> Seen {
    let stands_beside = record.siblings().iter().any(|sibling| sibling.agreed.is_none());
    match stands_beside {
        false => Seen::Only(record.context().clone()),
        true => Seen::Only(shown.unwrap_or_default().with_ballot(record.context().ballot())),
    }
}

async fn propose(
    worker: &Rc<Worker>,
    key: Key,
    proposal: Option<Proposal>,
    reach: Reach,
    ring: Arc<Ring>,
) -> Result<Decision, Error> {
    let deadline = worker.node.settings.timeout.mul_f64(DEADLINE_SHARE);
    // The owner that has it agreed on answers before whoever asked it gives up.
    let within_ms = deadline.mul_f64(DEADLINE_SHARE).as_millis() as u32;
    let avoid = worker.node.avoid(&ring);
    let entrust = Entrust::new(key, proposal, reach, &ring, &avoid, within_ms);
    worker.run(entrust, ring, deadline).await.ok_or(Error::Bug("a proposal ended without a word"))
}

/// Reads what was agreed on; nothing that lacks what the client has been shown of other writes.
pub(super) async fn read(
    worker: &Rc<Worker>,
    terms: &ReadTerms,
    key: &Key,
    mode: Mode,
    ring: Arc<Ring>,
) -> Result<Read, Error> {
    Counted::R(terms.r).refuse_in(mode)?;
    refuse_before_founding(worker, &ring, mode)?;
    let (node, since) = (&worker.node, &terms.since);
    let partition = Partition::of(key.position());
    let owners = ring.owners(partition).len();
    let needed = owners / 2 + 1;
    let deadline = node.settings.timeout.mul_f64(DEADLINE_SHARE);
    let patience = (deadline / 4).min(READ_PATIENCE_MAX);
    let hedge: Duration = worker.read_patience(&ring, partition, patience);
    let source = match mode {
        Mode::Sync => Source::First,
        Mode::Chain => Source::Last,
        Mode::Quorum | Mode::Sloppy | Mode::Async => Source::Any,
    };
    let options = ConfirmOptions {
        source,
        hedge_ms: (hedge.as_millis() as u64).max(1),
        avoid: node.avoid(&ring),
        since: since.clone(),
    };
    let confirm = || Confirm::new(key.clone(), &ring, node.me(&ring), options.clone());
    let found = |record: Record, answers, answered, now_ms| {
        if is_since(&record, since) {
            Ok(Read { record, answers, ring: ring.clone(), needed, answered, now_ms })
        } else {
            Err(Error::Behind { answered })
        }
    };
    match worker.run(confirm(), ring.clone(), deadline).await {
        Some(ConfirmOutcome::Found { record, answers }) => {
            let answered = answers.len();
            found(record, answers, answered, node.now_stamp().ms())
        }
        Some(ConfirmOutcome::Unavailable { answered, unfilled }) => {
            Err(Error::NotAnswered { answered, needed, unfilled, agrees: true })
        }
        // Something is on its way, or was left half-way: only a ballot of its own settles which.
        Some(ConfirmOutcome::Unsettled) => {
            match propose(worker, key.clone(), None, Reach::Majority, ring.clone()).await? {
                Decision::Made { record, acked, .. } if is_since(&record, since) => {
                    found(record, Vec::new(), usize::from(acked), node.now_stamp().ms())
                }
                // What the client has seen beside it is on an owner whose vote was not needed.
                Decision::Made { acked, .. } => match worker.run(confirm(), ring.clone(), deadline / 2).await {
                    Some(ConfirmOutcome::Found { record, answers }) => {
                        let answered = answers.len();
                        found(record, answers, answered, node.now_stamp().ms())
                    }
                    _ => Err(Error::Behind { answered: usize::from(acked) }),
                },
                Decision::Unavailable { answered, .. } | Decision::Unknown { acked: answered, .. } => {
                    Err(Error::NotAnswered { answered: usize::from(answered), needed, unfilled: 0, agrees: true })
                }
                Decision::Unmet { .. } | Decision::Unfit(_) => Err(Error::Bug("an identity write had a condition")),
            }
        }
        None => Err(Error::Bug("a read ended without a word")),
    }
}
