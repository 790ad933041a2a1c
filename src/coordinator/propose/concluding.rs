//! What those are told who asked a [`Propose`], once it is through.

use super::proposals::Verdict;
use super::{End, Phase, Propose, Vote};
use crate::protocol::Decision;
use crate::record::{Dot, Record};

impl Propose {
    /// What each of those who asked is told.
    pub(super) fn decisions(&self, end: End) -> Vec<Decision> {
        let cause = || self.cause.clone();
        let decide = |verdict: Option<&Verdict>| match (end, verdict) {
            (End::Accepted { acked }, Some(Verdict::Made { created, record, .. })) => {
                let record = if self.covered { self.with_cover(record) } else { self.with_more(record) };
                Decision::Made { created: *created, record, acked: acked as u8 }
            }
            (End::Accepted { .. }, Some(Verdict::Unmet { record })) => {
                Decision::Unmet { record: self.with_more(record) }
            }
            (End::Judged, Some(Verdict::Unmet { .. })) => Decision::Unmet { record: Record::default() },
            (End::Accepted { .. } | End::Judged, Some(Verdict::Unfit(why))) => Decision::Unfit(*why),
            // Nothing of it is in what was to be accepted.
            (_, Some(Verdict::Refused(why))) => {
                Decision::Unavailable { answered: self.count(Vote::Yes) as u8, cause: Some(why.clone()) }
            }
            (End::Unknown { acked }, None | Some(Verdict::Made { .. })) => {
                Decision::Unknown { acked: acked as u8, cause: cause() }
            }
            // One that would have changed nothing has surely changed nothing.
            _ => Decision::Unavailable { answered: self.count(Vote::Yes) as u8, cause: cause() },
        };
        self.proposals.verdicts().map(decide).collect()
    }

    /// The record of one edit after the second round, in which what stands beside was superseded.
    fn with_cover(&self, record: &Record) -> Record {
        match &self.phase {
            Phase::Accepting { record: last, .. } if record.agreed().map(|value| value.id()) == self.out_id() => {
                last.clone()
            }
            _ => record.clone(),
        }
    }

    fn out_id(&self) -> Option<Dot> {
        self.out.and_then(|(_, id)| id)
    }
}
