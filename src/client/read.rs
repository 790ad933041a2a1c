//! Reads.

use super::terms::{self, Counted, DEADLINE_SHARE, READ_PATIENCE_MAX};
use super::{Error, ReadTerms, agree, between};
use crate::coordinator::{Get, GetOptions, GetOutcome};
use crate::node::Worker;
use crate::placement::{MemberIndex, Mode, Partition, Ring};
use crate::protocol::Answer;
use crate::record::{Key, Record};
use crate::storage::Address;
use std::rc::Rc;
use std::sync::Arc;

/// What a read found.
#[derive(Debug)]
pub struct Read {
    /// The record, merged of what was answered.
    pub record: Record,
    /// Who answered, and with what; the records only where they are to be shown.
    pub answers: Vec<(MemberIndex, Option<Record>)>,
    /// Who the owners are.
    pub ring: Arc<Ring>,
    /// How many owners the mode wanted to hear.
    pub needed: usize,
    /// How many it heard.
    pub answered: usize,
    /// When it was answered, in milliseconds since 1970: what has expired by then is not shown.
    pub now_ms: u64,
}

/// Whether a read that says nothing else than perhaps its mode is content with one owner's word.
pub fn one_is_enough(worker: &Worker, ring: &Ring, mode: Option<Mode>) -> bool {
    let mode = terms::mode(mode, ring);
    let reads_one = mode == Mode::Async || worker.node.settings.r.of(ring.layout().table().width()) <= 1;
    reads_one && !mode.agrees()
}

/// What this node holds, where [`one_is_enough`], it is an owner, and memory can tell: nobody else need be asked, and
/// nothing waited for.
pub fn read_at_hand(worker: &Worker, ring: &Ring, key: &Key) -> Option<Record> {
    if !ring.is_owner(worker.node.me(ring), Partition::of(key.position())) {
        return None;
    }
    match worker.row_at_hand(&Address::data(key))? {
        Answer::Found { record } => Some(record.unwrap_or_default()),
        _ => None,
    }
}

/// Reads, from as many owners as the terms and the mode want, or from this node only; nothing older than what the client has
/// been shown. Where the layout changed meanwhile, it is tried again.
pub async fn read(worker: &Rc<Worker>, terms: &ReadTerms, key: &Key) -> Result<Read, Error> {
    let mut patience = between::Patience::new(worker);
    loop {
        let ring = worker.node.ring();
        let result = read_under(worker, terms, key, ring.clone()).await;
        let is_short = match &result {
            // Others than the owners that did not answer may have an older value.
            Ok(read) => read.answered < read.needed,
            Err(error) => error.is_worth_another_try(),
        };
        if !is_short || !patience.is_between(&ring).await {
            return result;
        }
    }
}

async fn read_under(worker: &Rc<Worker>, terms: &ReadTerms, key: &Key, ring: Arc<Ring>) -> Result<Read, Error> {
    let node = &worker.node;
    let (mode, since) = (terms::mode(terms.mode, &ring), &terms.since);
    let owners = ring.owners(Partition::of(key.position())).len();
    let me = node.me(&ring);
    if terms.local {
        let address = Address::data(key);
        if ring.guest().is_some() || node.takes_in(address.partition()) {
            return Err(Error::NotHere);
        }
        let seen = node.seen_of(address.partition(), since);
        let row = worker.read(&address).await?;
        return match crate::replica::having_seen(crate::replica::found(&address, row.as_ref()), seen) {
            Answer::Found { record } => {
                let (answers, record) = (vec![(me, record.clone())], record.unwrap_or_default());
                if !record.context().dominates(since) {
                    return Err(Error::Behind { answered: 1 });
                }
                Ok(Read { record, answers, ring, needed: 1, answered: 1, now_ms: node.now_stamp().ms() })
            }
            Answer::Refused(refusal) => Err(Error::Refused(refusal)),
            _ => Err(Error::Bug("a look-up was answered with something else")),
        };
    }
    if mode.agrees() && !terms.explain {
        return agree::read(worker, terms, key, mode, ring).await;
    }
    let (quorum, hard) = Counted::R(terms.r).quorum(worker, mode, owners)?;
    let deadline = node.settings.timeout.mul_f64(DEADLINE_SHARE);
    let patience = (deadline / 4).min(READ_PATIENCE_MAX);
    let hedge = worker.read_patience(&ring, Partition::of(key.position()), patience);
    let options = GetOptions {
        quorum,
        hard,
        all: terms.explain,
        hedge_ms: (hedge.as_millis() as u64).max(1),
        patience_ms: (patience.as_millis() as u64).max(1),
        behind: node.behind(&ring),
        avoid: node.avoid(&ring),
        since: since.clone(),
    };
    let get = Get::new(key.clone(), ring.clone(), me, options);
    match worker.run(get, ring.clone(), deadline).await {
        Some(GetOutcome::Found { record, answers, answered }) => {
            Ok(Read { record, answers, ring, needed: quorum.needed(), answered, now_ms: node.now_stamp().ms() })
        }
        Some(GetOutcome::Behind { answered }) => Err(Error::Behind { answered }),
        Some(GetOutcome::Unavailable { answered, needed, unfilled }) => {
            Err(Error::NotAnswered { answered, needed, unfilled, agrees: false })
        }
        None => Err(Error::Bug("a read ended without a word")),
    }
}
