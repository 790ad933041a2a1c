//! When a [`Put`] is through, and what its client is told.

use super::{Hint, Owner, Put};
use crate::coordinator::outcome::seen_by_writer;
use crate::coordinator::{PutOutcome, Replicas};

impl Put {
    pub(super) fn replicas(&self) -> Replicas {
        let hinted = |owner: &&Owner| !owner.acked && owner.hint == Hint::Kept;
        let owners = self.makers();
        Replicas {
            wanted: owners.len(),
            acked: owners.iter().filter(|owner| owner.acked).count(),
            hinted: owners.iter().filter(hinted).count(),
        }
    }

    /// The conclusion, if it can be drawn, or must be.
    pub(super) fn conclude(&mut self, must: bool) -> Option<PutOutcome> {
        if self.concluded {
            return None;
        }
        let replicas = self.replicas();
        let Some(made) = &self.made else {
            let over = must || self.outstanding == 0;
            self.concluded |= over;
            let (cause, is_nowhere) = (self.cause.clone(), !self.may_be_made());
            return over.then_some(PutOutcome::Unknown { replicas, cause, is_nowhere });
        };
        // Where the client named a number, a hint settles nothing: the owner itself may still answer.
        let given_up = |owner: &Owner| !owner.copying || self.patience_over;
        let kept = |owner: &Owner| matches!(owner.hint, Hint::Kept | Hint::Lost);
        let settled =
            |owner: &Owner| owner.acked || if self.hard { !owner.copying } else { given_up(owner) && kept(owner) };
        let reached = self.electorate.is_reached(self.quorum, |owner| self.owners[owner].acked);
        let covered = self.electorate.is_reached(self.quorum, |owner| self.owners[owner].covered);
        let covering = self.covers && self.covering && !covered && self.outstanding > 0;
        let waits = covering || self.may_be_made_twice();
        if !(must || self.outstanding == 0 || !waits && (reached || self.owners.iter().all(settled))) {
            return None;
        }
        self.concluded = true;
        let (created, record) = (made.created, made.record.clone());
        let seen = seen_by_writer(&self.write.edit, made.dot, &record);
        Some(match (reached, self.hard) {
            (true, _) => PutOutcome::Stored { created, record, seen, replicas },
            (false, false) if replicas.acked + replicas.hinted > 0 => PutOutcome::Short { record, seen, replicas },
            (false, _) => PutOutcome::Unknown { replicas, cause: self.cause.clone(), is_nowhere: false },
        })
    }
}
