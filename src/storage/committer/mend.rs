//! What the committer does about rot: a row that cannot be read is replaced by what the other owners hold, and a
//! partition's digests are counted anew.

use super::{Batch, Committer, DataDraft, For, after};
use crate::merkle::Entry;
use crate::placement::Partition;
use crate::record::{Key, Position, Record, Row};
use crate::storage::base::{Base, BaseError, Mark};
use crate::storage::{
    Address, HINT_NAMES_FACT, Kind, LogStore, Outcome, PageSize, Refused, RowChange, Span, StoreError,
};
use std::collections::BTreeSet;
use std::sync::Arc;

impl Committer {
    /// [`Change::Restore`](crate::storage::Change::Restore). What the lost row knew beyond `record` no longer counts as known here: dots that this store
    /// made for the key are among it, so later ones are made under a new actor, which says nothing about them.
    pub(super) fn restore(
        &mut self,
        batch: &mut Batch,
        key: Key,
        record: Record,
        wall_ms: u64,
    ) -> Result<Outcome, Refused> {
        self.observe_record(&record, wall_ms)?;
        let partition = Partition::of(key.position());
        let is_built = self.forest.is_built(partition);
        let seen = self.seen_in(&key);
        let is_noted = self.load(&Address::due(&key)).is_ok_and(|note| note.is_some());
        match self.data(batch, &key) {
            Ok(draft) if draft.before.is_none() => {
                let record = self.let_in(batch, &key, record)?;
                return Ok(self.data(batch, &key)?.merge(&record, seen));
            }
            Ok(_) if is_built => {
                let record = self.let_in(batch, &key, record)?;
                let draft = self.data(batch, &key)?;
                // Sound in memory, and not where it lies: written anew, and counted, as a recount may have passed it over.
                draft.set(draft.row.record.merge(&record));
                batch.recounts.insert(partition);
                return Ok(Outcome::Merged { applied: true, more: None });
            }
            Ok(_) => {}
            // Where nobody holds anything, what is lost here was here alone; or it was noted as one that may be forgotten,
            // and all have.
            Err(Refused::Damaged(why)) if record.is_unknown() && !is_noted => return Err(Refused::Damaged(why)),
            Err(Refused::Damaged(_)) => {}
            Err(refused) => return Err(refused),
        }
        if !is_built {
            // Whether its sums hold the lost version is known only once the scan is through.
            return Err(Refused::Overloaded);
        }
        self.actor = after(self.actor, self.clock.last(), For::Rows);
        // With it: what is forgotten later on goes by what the next start will know of this name.
        self.contexts.change(|contexts| contexts.begin(self.actor, self.clock.last()));
        batch.keeps_contexts = true;
        batch.recounts.insert(partition);
        // What was promised in the lost row is not known.
        let promised = self.promise_anew();
        if record.is_unknown() {
            self.raise_mark(batch, partition, promised);
        }
        let promised = (!record.is_unknown()).then_some(promised);
        let draft = DataDraft {
            address: Address::data(&key),
            before: None,
            row: Row { promised, record },
            changed: true,
            renoted: true,
        };
        batch.data.insert(key, draft);
        Ok(Outcome::Merged { applied: true, more: None })
    }

    /// Goes on over another base, the one that `make` returns: for a `store` whose base rotted, which is this
    /// committer's. What is there and not in the base stays, and so do the node's own facts, as far as they can be read.
    /// Digests, hints and the name under which is written begin anew. Returns the old base, to be gone through.
    pub fn replace_base(
        &mut self,
        store: &LogStore,
        make: impl FnOnce(Mark) -> Result<Arc<dyn Base>, BaseError>,
    ) -> Result<Arc<dyn Base>, BaseError> {
        let facts = self.store.scan(&Span::kind(Kind::Fact), PageSize::rows(1_024)).unwrap_or_default();
        let old = store.replace_base(make)?;
        self.actor = after(self.actor, self.clock.last(), For::Rows);
        self.contexts.change(|contexts| contexts.begin(self.actor, self.clock.last()));
        self.hints.rescan(&*self.store);
        // Of hints that are there no longer nobody knows whether they were delivered.
        self.hint_names.void();
        self.close_hint_names();
        for partition in Partition::all() {
            match self.entries(partition) {
                Ok(entries) => self.forest.recount(partition, entries),
                Err(_) => self.forest.forget(partition),
            }
        }
        let mut facts: Vec<RowChange> = facts.rows.into_iter().map(|(address, row)| (address, Some(row))).collect();
        facts.push((Address::fact(HINT_NAMES_FACT), Some(self.hint_names.encode().into())));
        // What counted as promised because it could not be read is written down nowhere yet.
        facts.extend(self.ballots.rows());
        if !facts.is_empty() {
            // Where it cannot be kept, the next start counts as promised what cannot be read, once more.
            let _ = self.store.append(facts, self.clock.last());
        }
        Ok(old)
    }

    /// [`Change::Recount`](crate::storage::Change::Recount): about 1 µs for each row of the partition. Here, as nothing else changes rows meanwhile.
    pub(super) fn recount(&self, partitions: &BTreeSet<Partition>) {
        for &partition in partitions.iter().filter(|&&partition| self.forest.is_built(partition)) {
            match self.entries(partition) {
                Ok(entries) => self.forest.recount(partition, entries),
                // It is compared with nobody's until it can be read again.
                Err(_) => self.forest.forget(partition),
            }
        }
    }

    fn entries(&self, partition: Partition) -> Result<Vec<(Position, Entry)>, StoreError> {
        let mut entries = Vec::new();
        let mut span = Span::partition(Kind::Data, partition);
        loop {
            let page = self.store.scan(&span, PageSize::rows(1024))?;
            for (address, row) in &page.rows {
                let (Some(key), Ok(row)) = (address.key(), Row::decode(row)) else { continue };
                let entry = crate::storage::digest_entry(&row.record, row.record.version(&key));
                entries.extend(entry.map(|entry| (key.position(), entry)));
            }
            match page.next {
                Some(next) => span = span.rest(next),
                None => return Ok(entries),
            }
        }
    }
}
