//! What the committer does as an acceptor of CASPaxos: promises, acceptances, and the refusal of what comes late.
//!
//! A promise is a node's own and stays in its row, beside the record, which travels. An acceptance is a merge like any
//! other, let in only where nothing later was promised, from whatever road it comes: a copy that a session carries counts
//! towards a majority as much as one that its proposer sent. Rystsov, "CASPaxos" (2018), §2.2.

use super::{Batch, Committer};
use crate::membership::Lack;
use crate::placement::Partition;
use crate::record::{Ballot, Key, Record, RowError, Stamp};
use crate::storage::{Outcome, Refused};

impl Committer {
    /// [`Change::Prepare`](crate::storage::Change::Prepare).
    pub(super) fn prepare(
        &mut self,
        batch: &mut Batch,
        key: &Key,
        ballot: Ballot,
        wall_ms: u64,
    ) -> Result<Outcome, Refused> {
        self.clock.observe(ballot.stamp, wall_ms)?;
        let promised = self.promised(batch, key)?;
        if let Some(promised) = promised.filter(|promised| *promised >= ballot) {
            return Err(Refused::Promised { ballot: promised });
        }
        batch.promises = true;
        let draft = self.data(batch, key)?;
        let record = draft.row.record.clone();
        if record.is_unknown() {
            // No row for the sake of a promise alone: keys that are only asked for would never go.
            self.raise_mark(batch, Partition::of(key.position()), ballot);
        } else {
            draft.row.promised = Some(ballot);
            draft.changed = true;
        }
        Ok(Outcome::Promised { record })
    }

    /// [`Change::Accept`](crate::storage::Change::Accept).
    pub(super) fn accept(
        &mut self,
        batch: &mut Batch,
        key: &Key,
        record: &Record,
        next: Option<Ballot>,
        wall_ms: u64,
    ) -> Result<Outcome, Refused> {
        let malformed = Refused::Damaged(RowError::Malformed("accepted under no ballot"));
        let ballot = record.context().ballot().ok_or(malformed)?;
        self.observe_record(record, wall_ms)?;
        if let Some(next) = next {
            self.clock.observe(next.stamp, wall_ms)?;
        }
        let promised = self.promised(batch, key)?;
        let is_held = self.data(batch, key)?.row.record.context().ballot() == Some(ballot);
        // One that comes a second time finds what was promised with it, or later, and was accepted all the same.
        if let Some(promised) = promised.filter(|promised| *promised > ballot && !is_held) {
            return Err(Refused::Promised { ballot: promised });
        }
        batch.promises = true;
        let seen = self.seen_in(key);
        let draft = self.data(batch, key)?;
        let more = match draft.merge(record, seen) {
            Outcome::Merged { more, .. } => more,
            _ => None,
        };
        // A session may have brought it first, without the promise.
        let before = draft.row.promised.filter(|_| is_held);
        draft.row.promised = before.max(next.filter(|next| *next > ballot));
        draft.changed = true;
        Ok(Outcome::Accepted { more })
    }

    /// [`Change::RaiseFloor`](crate::storage::Change::RaiseFloor).
    pub(super) fn raise_floor(&mut self, batch: &mut Batch, stamp: Stamp) -> Outcome {
        let floor = Ballot::after_all_of(self.clock.last().max(stamp));
        batch.promises = true;
        batch.ballots.extend(self.ballots.raise_floor(floor));
        Outcome::Done
    }

    /// What this store may lack, if it is being filled, and will say so after a crash: until it is filled, when its floor
    /// rises above all that it may have promised, it gives no vote. Where it lacks rows here and there, copies need not
    /// respect those promises; and must not, as what was lost could not come back. Else what it lacks is later than they
    /// are: it refuses what it would have refused before, whoever else is being filled and brings it.
    pub fn note_filling(&mut self, lack: Option<Lack>) {
        self.lack = lack;
    }

    /// [`Change::Yield`](crate::storage::Change::Yield). Breaks no promise: until it is filled this store gives no vote, and
    /// then its floor lies above all it ever accepted.
    pub(super) fn yield_accepted(&mut self, batch: &mut Batch, key: &Key) -> Result<Outcome, Refused> {
        let is_filling = self.lack.is_some();
        let draft = self.data(batch, key)?;
        let rest = draft.row.record.without_agreement();
        let applied = is_filling && rest != draft.row.record;
        if applied {
            draft.row.promised = None;
            draft.set(rest);
        }
        Ok(Outcome::Merged { applied, more: None })
    }

    /// What may be taken of a copy. Refuses one with something in it that was accepted before a ballot which is promised
    /// here, and which is news: whoever was promised has been told that it is not here. The key is noted: an identity write
    /// settles it. What is let in counts as accepted, and is synced like that. A store that is being filled takes what was
    /// written without consensus all the same, as it counts for that as soon as it has seen every copy.
    pub(super) fn let_in(&mut self, batch: &mut Batch, key: &Key, record: Record) -> Result<Record, Refused> {
        let Some(ballot) = record.context().ballot() else { return Ok(record) };
        let promised = self.promised(batch, key)?.filter(|promised| *promised > ballot);
        if self.data(batch, key)?.row.record.context().ballot() >= Some(ballot) {
            return Ok(record);
        }
        match (promised, self.lack) {
            (Some(promised), None) => {
                self.contested.push(key.clone());
                Err(Refused::Promised { ballot: promised })
            }
            (Some(_), Some(Lack { rows: false, .. })) => {
                self.contested.push(key.clone());
                Ok(record.without_agreement())
            }
            (None, _) | (_, Some(Lack { rows: true, .. })) => {
                batch.promises = true;
                Ok(record)
            }
        }
    }

    /// A row was lost, and with it what was promised in it: everything made or seen until now counts as that.
    pub(super) fn promise_anew(&self) -> Ballot {
        Ballot::after_all_of(self.clock.last())
    }

    pub(super) fn raise_mark(&mut self, batch: &mut Batch, partition: Partition, ballot: Ballot) {
        batch.ballots.extend(self.ballots.raise_mark(partition, ballot));
    }

    fn promised(&mut self, batch: &mut Batch, key: &Key) -> Result<Option<Ballot>, Refused> {
        let row = &self.data(batch, key)?.row;
        Ok(self.ballots.promised(Partition::of(key.position()), row))
    }
}
