//! What consensus makes of a record: the one place in which a ballot is put into one.
//!
//! ```text
//!   shown by a majority's promises            accepted under ballot 9
//!   ballot 4, (4, first proposed as 4) "old"  ──►  ballot 9, (9, first proposed as 9) "new"     an edit
//!   (a,7) "beside"                            ──►  ballot 9, (9, first proposed as 4) "old"     an identity write, which
//!                                                  (a,7) "beside"                               keeps what stands beside
//! ```
//!
//! A record is the register of one instance of CASPaxos (Rystsov, "CASPaxos: Replicated State Machines without logs", 2018,
//! §2.2), beside whatever is written to the key without consensus: a proposal covers what its promises showed of that, and
//! nothing else.

use super::counter::{self, Counted, REMEMBERED_MS, REQUESTS_MAX};
use super::edit::SIBLINGS_MAX;
use super::{Ballot, Content, ContentKind, Context, Dot, Edit, Record, Sibling, Unfit};
use serde::{Deserialize, Serialize};

/// A version of a key for clients to name, an HTTP entity tag: a lone value's id, or a digest of the ids of several.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub struct Tag(pub u128);

impl Tag {
    /// Of the values that are shown, in the order of the record. Ids are for good, so copies of one version agree on it
    /// whatever else they know.
    pub(super) fn of(mut ids: impl Iterator<Item = Dot>) -> Tag {
        const DOMAIN: &[u8; 32] = b"kringle tag of several values 01";
        let (first, second) = (ids.next(), ids.next());
        if let (Some(only), None) = (first, second) {
            return Tag(u128::from(only.stamp.0) << 64 | u128::from(only.actor.0));
        }
        let mut ids: Vec<Dot> = first.into_iter().chain(second).chain(ids).collect();
        ids.sort_unstable();
        let mut hasher = blake3::Hasher::new_keyed(DOMAIN);
        for id in ids {
            hasher.update(&id.stamp.0.to_le_bytes());
            hasher.update(&id.actor.0.to_le_bytes());
        }
        let mut first = [0; 16];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Tag(u128::from_le_bytes(first))
    }
}

/// What must be true of a key for an edit to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Condition {
    /// It has no living value.
    Absent,
    /// It has one.
    Present,
    /// It has this version, with a living value.
    Tagged(Tag),
}

/// What a client wants agreed on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// What is to become of the key.
    pub edit: Edit,
    /// If what is true of it.
    pub condition: Option<Condition>,
}

impl From<Edit> for Proposal {
    fn from(edit: Edit) -> Proposal {
        Proposal { edit, condition: None }
    }
}

/// Why a proposal was not made on a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unmet {
    /// Its condition is not true of it.
    Condition,
    /// It is a request that was counted already.
    Repetition,
    /// The edit does not fit it.
    Unfit(Unfit),
}

impl Record {
    /// Whether `condition` is true at `now_ms`, in milliseconds since 1970.
    pub fn meets(&self, condition: Condition, now_ms: u64) -> bool {
        let is_present = self.siblings.iter().any(|sibling| sibling.content.lives(now_ms));
        match condition {
            Condition::Absent => !is_present,
            Condition::Present => is_present,
            Condition::Tagged(tag) => is_present && self.tag(now_ms) == tag,
        }
    }

    /// The record to be accepted under the ballot in it for what a client wants at `now_ms`, in milliseconds since 1970. `self`
    /// is what a majority's promises showed, [reballoted](Record::reballot), with whatever else is to be accepted in one go
    /// and comes first. `id` names the write for good, and names no other.
    ///
    /// A write supersedes what was agreed on, and of the rest what its client had seen: all there is, where it names no
    /// context. An increment is worked out here, and supersedes all there is; it ends when what it adds to would have.
    pub fn propose(&self, proposal: &Proposal, id: Dot, now_ms: u64) -> Result<Record, Unmet> {
        let dot = self.context.ballot().map(Ballot::dot).expect("a record is proposed on under a ballot");
        if let Edit::Add { request: Some(request), .. } = proposal.edit
            && self.counted.iter().any(|counted| counted.until_ms > now_ms && counted.request == request)
        {
            return Err(Unmet::Repetition);
        }
        if proposal.condition.is_some_and(|condition| !self.meets(condition, now_ms)) {
            return Err(Unmet::Condition);
        }
        let mut shown = Context::new();
        let (content, mut beside, counted) = match &proposal.edit {
            Edit::Write { seen, content } => {
                // What its client saw of other writes is superseded wherever it is, shown here or not.
                shown = seen.context().cloned().unwrap_or_default().with_ballot(None);
                let beside = self.siblings.iter().filter(|sibling| sibling.agreed.is_none() && !seen.covers(sibling));
                let beside: Vec<Sibling> = beside.cloned().collect();
                if content.is_some() && beside.len() >= SIBLINGS_MAX {
                    return Err(Unmet::Unfit(Unfit::TooManySiblings));
                }
                (content.clone(), beside, None)
            }
            Edit::Add { by, request } => {
                let sum = self.sum(*by, now_ms).map_err(Unmet::Unfit)?;
                let remembered = self.counted.iter().filter(|counted| counted.until_ms > now_ms).count();
                if request.is_some() && remembered >= REQUESTS_MAX {
                    return Err(Unmet::Unfit(Unfit::TooManyRequests));
                }
                let winner = self.winner(now_ms).map(|winner| winner.content.clone()).unwrap_or_default();
                let content = Content {
                    value: sum.to_string().into(),
                    content_type: winner.content_type.or_else(|| Some("text/plain".into())),
                    expires_ms: winner.expires_ms,
                    kind: ContentKind::Plain,
                };
                let counted =
                    request.map(|request| Counted { request, until_ms: now_ms + REMEMBERED_MS, agreed: true });
                (Some(content), Vec::new(), counted)
            }
        };
        beside.extend(content.map(|content| Sibling { dot, content, agreed: Some(id) }));
        let mut made = self.with(beside, counted, self.context.clone());
        made.context.join(&shown);
        Ok(made)
    }

    /// The same record, to be accepted under `ballot`, which is later than any it was accepted under: an identity write, which
    /// settles what is agreed on and changes nothing that is shown.
    pub fn reballot(&self, ballot: Ballot) -> Record {
        assert!(self.context.ballot() < Some(ballot), "{ballot:?} after {:?}", self.context.ballot());
        let siblings = self.siblings.iter().cloned().map(|sibling| match sibling.agreed {
            None => sibling,
            Some(_) => Sibling { dot: ballot.dot(), ..sibling },
        });
        self.with(siblings.collect(), None, self.context.clone().with_ballot(Some(ballot)))
    }

    /// The same without what was written beside what was agreed on: for a write that supersedes all there is.
    pub fn without_what_stands_beside(mut self) -> Record {
        self.siblings.retain(|sibling| sibling.agreed.is_some());
        self
    }

    /// The same as if nothing had ever been agreed on: for a copy that no other can confirm.
    pub fn without_agreement(&self) -> Record {
        let siblings = self.siblings.iter().filter(|sibling| sibling.agreed.is_none()).cloned().collect();
        let context = self.context.clone().with_ballot(None);
        let counted = self.counted.iter().filter(|counted| !counted.agreed).copied().collect::<Vec<_>>();
        Record { counted: counter::join(&counted, &[], &context), context, siblings }
    }

    fn with(&self, mut siblings: Vec<Sibling>, counted: Option<Counted>, context: Context) -> Record {
        siblings.sort_by_key(Sibling::place);
        let counted = counter::join(&self.counted, counted.as_slice(), &context);
        Record { context, siblings, counted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Actor, RequestId, Seen, Stamp};

    fn ballot(ms: u64) -> Ballot {
        Ballot { stamp: Stamp::from_ms(ms), actor: Actor(90) }
    }

    fn dot(actor: u64, ms: u64) -> Dot {
        Dot { stamp: Stamp::from_ms(ms), actor: Actor(actor) }
    }

    fn put(value: &'static str) -> Proposal {
        Proposal { edit: Edit::write(Seen::Everything, Some(Content::plain(value))), condition: None }
    }

    /// What is made of the record under a ballot of this millisecond, which names the write as well.
    fn propose(record: &Record, proposal: &Proposal, ms: u64) -> Result<Record, Unmet> {
        record.reballot(ballot(ms)).propose(proposal, ballot(ms).dot(), ms)
    }

    fn agreed(record: &Record, value: &'static str, ms: u64) -> Record {
        propose(record, &put(value), ms).unwrap()
    }

    fn beside(record: &Record, value: &'static str, dot: Dot) -> Record {
        let seen = Seen::Only(Context::new());
        record.write(&seen, dot, Some(Content::plain(value))).unwrap()
    }

    fn shown(record: &Record) -> Vec<&str> {
        record.siblings().iter().map(|sibling| std::str::from_utf8(&sibling.content.value).unwrap()).collect()
    }

    #[test]
    fn what_is_accepted_once_more_is_no_younger_than_it_was() {
        let first = agreed(&Record::default(), "1", 1);
        let both = beside(&first, "5", dot(1, 5)).merge(&first.reballot(ballot(9)));
        assert_eq!(both.values(9)[0].content.value, "5", "{both:?}");
        assert_eq!(both.counter(9), Some(5));
    }

    #[test]
    fn a_later_ballot_supersedes_an_earlier_one_and_nothing_that_its_promises_did_not_show() {
        let first = agreed(&Record::default(), "first", 1);
        let second = agreed(&first, "second", 5);
        assert_eq!(second.merge(&first), second);
        let unseen = beside(&first, "unseen", dot(1, 9));
        let both = second.merge(&unseen);
        assert_eq!(shown(&both), ["second", "unseen"]);
        assert_eq!(shown(&agreed(&both, "third", 10)), ["third"]);
        // And the other way round: what an actor writes covers what it saw of both kinds.
        let over = both.write(&Seen::Everything, dot(2, 11), Some(Content::plain("over"))).unwrap();
        assert_eq!(shown(&over.merge(&second).merge(&unseen)), ["over"]);
    }

    #[test]
    fn an_identity_write_changes_neither_what_is_shown_nor_its_tag() {
        let held = agreed(&Record::default(), "v", 1);
        let again = held.reballot(ballot(7));
        assert_eq!((again.tag(8), shown(&again)), (held.tag(8), shown(&held)));
        assert!(!held.includes(&again) && again.includes(&held));
        let key = crate::record::Key::new("k").unwrap();
        assert_ne!(held.version(&key), again.version(&key));
        let two = beside(&held, "beside", dot(3, 3));
        assert_eq!(two.reballot(ballot(8)).tag(9), two.tag(9));
        assert_eq!(two.merge(&two.reballot(ballot(8))), two.reballot(ballot(8)));
    }

    #[test]
    fn a_delete_leaves_its_ballot_and_hides_what_was_accepted_before() {
        let held = agreed(&Record::default(), "v", 1);
        let gone = Proposal { edit: Edit::write(Seen::Everything, None), condition: None };
        let deleted = propose(&held, &gone, 2).unwrap();
        assert!(deleted.is_tombstone() && deleted.merge(&held).is_tombstone());
        assert_eq!(deleted.forgettable(9), *deleted.context());
        assert_eq!(deleted.forget(deleted.context(), 9), Record::default());
        assert_eq!(held.forget(deleted.context(), 9), held, "live here, whatever others said");
    }

    #[test]
    fn conditions_are_judged_by_what_is_alive() {
        let brief = Content { expires_ms: Some(1_000), ..Content::plain("v") };
        let edit = Edit::write(Seen::Everything, Some(brief));
        let record = propose(&Record::default(), &Proposal { edit, condition: None }, 1).unwrap();
        let tag = record.tag(999);
        for (condition, alive, over) in [
            (Condition::Absent, false, true),
            (Condition::Present, true, false),
            (Condition::Tagged(tag), true, false),
            (Condition::Tagged(Tag(5)), false, false),
        ] {
            assert_eq!((record.meets(condition, 999), record.meets(condition, 1_000)), (alive, over), "{condition:?}");
        }
        let create = Proposal { condition: Some(Condition::Absent), ..put("w") };
        assert_eq!(propose(&record, &create, 999), Err(Unmet::Condition));
        assert!(propose(&record, &create, 1_000).is_ok());
    }

    #[test]
    fn an_increment_is_the_sum_of_all_there_is_and_counts_once() {
        let add = |by, request| Edit::Add { by, request };
        let mut parts = Record::default().edit(&add(3, None), dot(1, 1)).unwrap();
        parts = parts.merge(&Record::default().edit(&add(-1, None), dot(2, 1)).unwrap());
        let proposal = Proposal { edit: add(40, Some(RequestId(7))), condition: None };
        let sum = propose(&parts, &proposal, 5).unwrap();
        assert_eq!((shown(&sum), sum.counter(9)), (vec!["42"], Some(42)));
        assert_eq!(propose(&sum, &proposal, 6), Err(Unmet::Repetition));
        assert_eq!(sum.merge(&parts).counter(9), Some(42));
        let text = agreed(&sum, "text", 7);
        let more = Proposal { edit: add(1, None), condition: None };
        assert_eq!(propose(&text, &more, 8), Err(Unmet::Unfit(Unfit::NotACounter)));
    }

    #[test]
    fn an_increment_ends_when_what_it_adds_to_would_have() {
        let brief = Content { expires_ms: Some(1_000), ..Content::plain("40") };
        let set = Proposal::from(Edit::write(Seen::Everything, Some(brief)));
        let add = Proposal::from(Edit::Add { by: 2, request: None });
        let held = propose(&Record::default(), &set, 5).unwrap();
        let ends = |record: &Record, now_ms| record.winner(now_ms).map(|winner| winner.content.expires_ms);
        let counted = propose(&held, &add, 999).unwrap();
        assert_eq!((shown(&counted), ends(&counted, 999)), (vec!["42"], Some(Some(1_000))));
        let anew = propose(&held, &add, 1_000).unwrap();
        assert_eq!((shown(&anew), ends(&anew, 1_000)), (vec!["2"], Some(None)));
    }

    #[test]
    fn what_was_counted_under_a_ballot_that_came_to_nothing_is_not_remembered() {
        let (first, second) = (agreed(&Record::default(), "5", 1), RequestId(7));
        let add = Proposal { edit: Edit::Add { by: 1, request: Some(second) }, condition: None };
        let lost = propose(&first, &add, 2).unwrap();
        let by_actor = Record::default().edit(&Edit::Add { by: 1, request: Some(RequestId(8)) }, dot(1, 1)).unwrap();
        let lost = lost.merge(&by_actor);
        // Proposed by who did not see it, and accepted by an owner that had accepted it.
        let chosen = first.reballot(ballot(3));
        for merged in [chosen.merge(&lost), lost.merge(&chosen)] {
            assert!(merged.includes(&lost) && merged.includes(&chosen) && !chosen.includes(&lost));
            assert_eq!(merged.counted.iter().map(|counted| counted.request).collect::<Vec<_>>(), [RequestId(8)]);
            let again = propose(&merged, &add, 4).unwrap();
            assert_eq!((merged.counter(4), again.counter(4)), (Some(6), Some(7)));
            assert_eq!(propose(&again, &add, 5), Err(Unmet::Repetition));
            assert_eq!(propose(&again.reballot(ballot(6)), &add, 7), Err(Unmet::Repetition));
        }
    }

    #[test]
    fn a_write_with_a_context_keeps_what_its_client_was_not_shown() {
        let shown_to_client = agreed(&Record::default(), "v", 1);
        let record = beside(&shown_to_client, "unseen", dot(1, 2));
        let seen = Seen::Only(shown_to_client.context().clone());
        let edit = Edit::write(seen, Some(Content::plain("w")));
        let next = propose(&record, &Proposal { edit, condition: None }, 3).unwrap();
        assert_eq!(shown(&next), ["unseen", "w"]);
        // What it was shown is superseded on owners too whose promises were not needed.
        let elsewhere = beside(&shown_to_client, "seen elsewhere", dot(2, 2));
        let edit = Edit::write(Seen::Only(elsewhere.context().clone()), Some(Content::plain("x")));
        let last = propose(&shown_to_client, &edit.into(), 4).unwrap();
        assert_eq!(shown(&last.merge(&elsewhere)), ["x"]);
    }
}
