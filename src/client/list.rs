//! Lists: the keys there are, in the order of their bytes, page by page.

use super::terms::{self, Counted, DEADLINE_SHARE};
use super::{Error, Seat, agree, between};
use crate::coordinator::{Count, ListItem, ListOutcome, ListPage, ListWish, Quorum};
use crate::node::{Worker, random};
use crate::placement::{MemberIndex, Mode, Partition, Ring};
use crate::protocol::{Filter, Place};
use std::rc::Rc;
use std::sync::Arc;

/// Lists on their way at once, whoever asks for them. Each may hold what is asked for at a time, a few MiB.
const LISTS_MAX: u64 = 32;

/// Whom a list is to ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ListTerms {
    /// The mode; the cluster's own without it.
    pub mode: Option<Mode>,
    /// How many owners of each partition must answer, 1 to the cluster's replicas; what the mode and the node's settings say
    /// without it. Only in the modes that do not agree.
    pub r: Option<u8>,
}

/// A list on its way. Every key that is there from its beginning to its end is on one page of it, and on no other; no page
/// shows what was deleted before it was asked for, as far as its owners know that were heard.
pub struct Listing {
    worker: Rc<Worker>,
    terms: ListTerms,
    partitions: Vec<Partition>,
    filter: Filter,
    /// Where the next page begins; `None` at the end.
    next: Option<Place>,
    /// By which nodes know it again, where its pages are asked for one right after the other.
    number: Option<u64>,
    /// Members that did not answer lately, and the epoch whose they are.
    silent: (u64, Vec<MemberIndex>),
}

/// One page.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Listed {
    /// What it shows, in order; there may be nothing on it, and more on the next.
    pub items: Vec<ListItem>,
    /// How many owners were heard of the partition of which the fewest were.
    pub answered: usize,
    /// How many the mode wants.
    pub needed: usize,
}

impl Listing {
    /// A place for a list, to be held as long as it is made; nothing where too many are being made on this node.
    pub fn seat(worker: &Worker) -> Option<Seat> {
        Seat::take(&worker.node.lists, LISTS_MAX)
    }

    /// Of the whole cluster, or of one partition's keys only.
    pub fn new(
        worker: &Rc<Worker>,
        terms: ListTerms,
        partition: Option<Partition>,
        filter: Filter,
        from: Place,
    ) -> Listing {
        let partitions = partition.map_or_else(|| Partition::all().collect(), |partition| vec![partition]);
        Listing::of(worker, terms, partitions, filter, from)
    }

    /// Of some partitions' keys only: these, ascending, at least one.
    pub fn of(
        worker: &Rc<Worker>,
        terms: ListTerms,
        partitions: Vec<Partition>,
        filter: Filter,
        from: Place,
    ) -> Listing {
        let (worker, silent) = (worker.clone(), (0, Vec::new()));
        Listing { worker, terms, partitions, filter, next: Some(from), number: None, silent }
    }

    /// The same, of pages that are asked for one right after the other: nodes keep for the next what they read ahead, which is
    /// several times as quick. What is written meanwhile may be shown later than on pages that each look anew.
    pub fn going_on(self) -> Listing {
        Listing { number: Some(random()), ..self }
    }

    /// Where the next page begins; `None` once there is no more.
    pub fn next(&self) -> Option<&Place> {
        self.next.as_ref()
    }

    /// The next page, of so many items at most, 1 to [`LIST_KEYS_MAX`](crate::protocol::LIST_KEYS_MAX). Each costs a look
    /// into every partition, some 10 ms: few large ones are quicker than many small ones. Where the layout changed
    /// meanwhile, it is tried again. After an error the same page may be asked for once more.
    pub async fn page(&mut self, items_max: usize) -> Result<Listed, Error> {
        let mut patience = between::Patience::new(&self.worker);
        loop {
            let ring = self.worker.node.ring();
            let result = self.page_under(items_max, &ring).await;
            let is_short = match &result {
                Ok(page) => page.answered < page.needed,
                Err(error) => error.is_worth_another_try(),
            };
            if !is_short || !patience.is_between(&ring).await {
                let ListPage { items, next, answered, needed, silent } = result?;
                self.silent = (ring.epoch(), silent);
                self.next = next;
                return Ok(Listed { items, answered, needed });
            }
        }
    }

    async fn page_under(&self, items_max: usize, ring: &Arc<Ring>) -> Result<ListPage, Error> {
        let node = &self.worker.node;
        let mode = terms::mode(self.terms.mode, ring);
        let owners = ring.layout().table().width();
        let counted = Counted::R(self.terms.r);
        let quorum = if mode.agrees() {
            counted.refuse_in(mode)?;
            agree::refuse_before_founding(&self.worker, ring, mode)?;
            (Quorum::of(Count::Majority, owners).unwrap_or(Quorum::one()), true)
        } else {
            counted.quorum(&self.worker, mode, owners)?
        };
        let from = self.next.clone().unwrap_or_default();
        let (partitions, filter) = (self.partitions.clone(), self.filter.clone());
        let wish = ListWish { partitions, filter, from, items_max, listing: self.number };
        let silent: &[MemberIndex] = if self.silent.0 == ring.epoch() { &self.silent.1 } else { &[] };
        let deadline = node.settings.timeout.mul_f64(DEADLINE_SHARE);
        match self.worker.list(wish, ring.clone(), quorum, silent, deadline).await {
            Some(ListOutcome::Page(page)) => Ok(page),
            Some(ListOutcome::Unavailable { partition, partitions, answered, needed }) => {
                Err(Error::NotListed { partition, partitions, answered, needed })
            }
            None => Err(Error::Bug("a list ended without a word")),
        }
    }
}
