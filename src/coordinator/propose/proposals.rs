//! Proposals for one key that are made one after the other, and what becomes of each.

use super::Propose;
use crate::protocol::Refusal;
use crate::record::{Dot, Edit, Proposal, Record, Seen, Unfit, Unmet};

/// What becomes of one proposal, if what all of them leave is accepted.
pub(super) enum Verdict {
    /// It is made, or was before, and this is the record then; under this name, if it is made now.
    Made { created: bool, record: Record, id: Option<Dot> },
    /// Its condition is not true of this record.
    Unmet { record: Record },
    /// It does not fit.
    Unfit(Unfit),
    /// The key has no value, and is to get none here.
    Refused(Refusal),
}

/// A change that is agreed on.
#[derive(Clone, PartialEq, Debug)]
pub struct Agreed {
    /// Its name for good.
    pub id: Dot,
    /// What was wanted; nothing, of one that an earlier proposal began, and this one may have completed.
    pub edit: Option<Edit>,
    /// The record then.
    pub record: Record,
}

/// Several proposals, in their order; one that is `None` asks for nothing but that what is held be agreed on.
pub(super) struct Proposals {
    asked: Vec<Option<Proposal>>,
    /// As they were worked out last.
    verdicts: Vec<Verdict>,
    changes: bool,
    /// Why a key that has no value is to get none, if it is not.
    full: Option<Refusal>,
    /// The value that they were worked out on, agreed on or on its way there.
    found: Option<Agreed>,
    /// A copy that is worked out with what the promises show.
    brought: Record,
}

impl Propose {
    /// The same with a copy of the key's record that no owner need hold, such as a backup's: it counts as if one more
    /// acceptor had shown it. So it can be had agreed on after its ballot can no longer be accepted as it is.
    pub fn bringing(mut self, copy: Record) -> Propose {
        self.proposals.brought = copy;
        self
    }
}

impl Proposals {
    pub(super) fn new(asked: Vec<Option<Proposal>>, full: Option<Refusal>) -> Proposals {
        Proposals { asked, verdicts: Vec::new(), changes: false, full, found: None, brought: Record::default() }
    }

    /// What is worked out with what the promises show.
    pub(super) fn brought(&self) -> Record {
        self.brought.clone()
    }

    /// Makes one after the other on what is `held`, and takes down what becomes of each; what the last one leaves. `mint`
    /// makes ids that are used for nothing else.
    pub(super) fn work_out(&mut self, mut held: Record, now_ms: u64, mut mint: impl FnMut() -> Dot) -> Record {
        (self.verdicts, self.changes) = (Vec::with_capacity(self.asked.len()), false);
        let found = held.agreed().map(|value| value.id());
        self.found = found.map(|id| Agreed { id, edit: None, record: held.clone() });
        for asked in &self.asked {
            let id = mint();
            let verdict = match asked.as_ref().map(|proposal| held.propose(proposal, id, now_ms)) {
                Some(Ok(record)) => {
                    let lives = |record: &Record| record.siblings().iter().any(|one| one.content.lives(now_ms));
                    let created = !lives(&held);
                    if let Some(why) = self.full.as_ref().filter(|_| created && lives(&record)) {
                        self.verdicts.push(Verdict::Refused(why.clone()));
                        continue;
                    }
                    self.changes = true;
                    held = record.clone();
                    Verdict::Made { created, record, id: Some(id) }
                }
                None | Some(Err(Unmet::Repetition)) => Verdict::Made { created: false, record: held.clone(), id: None },
                Some(Err(Unmet::Condition)) => Verdict::Unmet { record: held.clone() },
                Some(Err(Unmet::Unfit(why))) => Verdict::Unfit(why),
            };
            self.verdicts.push(verdict);
        }
        held
    }

    /// Whether what they leave differs from what was held.
    pub(super) fn changes(&self) -> bool {
        self.changes
    }

    /// Whether one of them wants what is held to be agreed on, whatever it is.
    pub(super) fn want_it_settled(&self) -> bool {
        self.asked.iter().any(Option::is_none)
    }

    /// Whether the last one that was made supersedes whatever there is.
    pub(super) fn end_blind(&self) -> bool {
        let mut made = self.asked.iter().zip(&self.verdicts).rev();
        let last = made.find(|(asked, verdict)| asked.is_some() && matches!(verdict, Verdict::Made { .. }));
        let edit = last.and_then(|(asked, _)| asked.as_ref()).map(|proposal| &proposal.edit);
        matches!(edit, Some(Edit::Write { seen: Seen::Everything, .. }))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.asked.len()
    }

    /// What is agreed on once what they leave is accepted: the value that was found, which may have been before, and what
    /// was made of it.
    pub(super) fn told(&self) -> Vec<Agreed> {
        let made = self.asked.iter().zip(&self.verdicts).filter_map(|(asked, verdict)| match (asked, verdict) {
            (Some(asked), Verdict::Made { record, id: Some(id), .. }) => {
                Some(Agreed { id: *id, edit: Some(asked.edit.clone()), record: record.clone() })
            }
            _ => None,
        });
        self.found.iter().cloned().chain(made).collect()
    }

    /// What became of each, where they were worked out.
    pub(super) fn verdicts(&self) -> impl Iterator<Item = Option<&Verdict>> {
        (0..self.asked.len()).map(|at| self.verdicts.get(at))
    }
}
