//! Ballots promised for keys of which a store holds nothing that was agreed on.
//!
//! ```text
//!   promised for a key  =  the latest of   the promise in its row
//!                                          the ballot accepted in its row, or, where there is none, its partition's mark
//!                                          the floor, for all keys
//! ```
//!
//! A promise may be forgotten only by promising as much for more: a *mark* stands for all keys of a partition without an
//! accepted ballot, the *floor* for all keys, after rows were lost nobody can name. Either only rises. Raising one never
//! breaks a promise; it only has proposers of other keys begin anew with a later ballot.

use super::{Address, Kind, PageSize, RowChange, Span, Store};
use crate::placement::Partition;
use crate::record::{Actor, Ballot, Row, Stamp};
use bytes::Bytes;
use std::collections::BTreeMap;

const FLOOR: &str = "ballot floor";
const MARK: &str = "ballot mark ";

/// The floor and the marks of one store.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Ballots {
    floor: Option<Ballot>,
    marks: BTreeMap<Partition, Ballot>,
}

impl Ballots {
    /// As `store` keeps them, whose last stamp is given: where they cannot be read, everything up to that counts as promised.
    pub(super) fn load(store: &dyn Store) -> Ballots {
        let cautious = Ballot::after_all_of(store.last_stamp());
        let (mut ballots, mut span) = (Ballots::default(), Some(Span::kind(Kind::Fact)));
        while let Some(here) = span {
            let Ok(page) = store.scan(&here, PageSize::rows(2 * 1_024)) else {
                return Ballots { floor: ballots.floor.max(Some(cautious)), ..ballots };
            };
            for (address, bytes) in page.rows {
                let name = address.key_bytes();
                let ballot = decode(&bytes).unwrap_or(cautious);
                if &*name == FLOOR.as_bytes() {
                    ballots.floor = Some(ballot);
                } else if let Some(partition) = partition(&name) {
                    ballots.marks.insert(partition, ballot);
                }
            }
            span = page.next.map(|next| here.rest(next));
        }
        ballots
    }

    /// What is promised for a key of the partition whose row is this.
    pub(super) fn promised(&self, partition: Partition, row: &Row) -> Option<Ballot> {
        let accepted = row.record.context().ballot().or_else(|| self.marks.get(&partition).copied());
        row.promised.max(accepted).max(self.floor)
    }

    /// The mark of the partition, if it has any.
    pub(super) fn mark(&self, partition: Partition) -> Option<Ballot> {
        self.marks.get(&partition).copied()
    }

    /// All of it, as rows: where what was kept of it may be gone.
    pub(super) fn rows(&self) -> impl Iterator<Item = RowChange> {
        let floor = self.floor.map(|floor| (Address::fact(FLOOR), Some(encode(floor))));
        let mark = |(at, mark): (&Partition, &Ballot)| (mark_address(*at), Some(encode(*mark)));
        floor.into_iter().chain(self.marks.iter().map(mark))
    }

    /// Promises as much for every key of the partition without an accepted ballot; the change that keeps it.
    pub(super) fn raise_mark(&mut self, partition: Partition, ballot: Ballot) -> Option<RowChange> {
        let risen = self.marks.get(&partition).is_none_or(|mark| *mark < ballot);
        risen.then(|| {
            self.marks.insert(partition, ballot);
            (mark_address(partition), Some(encode(ballot)))
        })
    }

    /// Promises as much for every key; the change that keeps it.
    pub(super) fn raise_floor(&mut self, ballot: Ballot) -> Option<RowChange> {
        (self.floor < Some(ballot)).then(|| {
            self.floor = Some(ballot);
            (Address::fact(FLOOR), Some(encode(ballot)))
        })
    }
}

fn mark_address(partition: Partition) -> Address {
    Address::fact(&format!("{MARK}{:04x}", partition.index()))
}

fn partition(name: &[u8]) -> Option<Partition> {
    let digits = std::str::from_utf8(name.strip_prefix(MARK.as_bytes())?).ok()?;
    Partition::try_from_index(usize::from_str_radix(digits, 16).ok()?).ok()
}

fn encode(ballot: Ballot) -> Bytes {
    [ballot.stamp.0.to_le_bytes(), ballot.actor.0.to_le_bytes()].concat().into()
}

fn decode(bytes: &[u8]) -> Option<Ballot> {
    let number = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    (bytes.len() == 16).then_some(Ballot { stamp: Stamp(number(0)?), actor: Actor(number(8)?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Context, Record};
    use crate::storage::MemoryStore;

    fn ballot(stamp: u64) -> Ballot {
        Ballot { stamp: Stamp(stamp), actor: Actor(1) }
    }

    #[test]
    fn a_mark_stands_for_keys_that_nothing_was_accepted_for_and_the_floor_for_all() {
        let partition = Partition::try_from_index(7).unwrap();
        let row = |promised, accepted: Option<u64>| Row {
            promised,
            record: Record::from_parts(Context::new().with_ballot(accepted.map(ballot)), vec![]).unwrap(),
        };
        let mut ballots = Ballots::default();
        assert_eq!(ballots.promised(partition, &row(None, None)), None);
        ballots.raise_mark(partition, ballot(5));
        assert_eq!(ballots.promised(partition, &row(None, None)), Some(ballot(5)));
        assert_eq!(ballots.promised(partition, &row(None, Some(3))), Some(ballot(3)));
        assert_eq!(ballots.promised(partition, &row(Some(ballot(4)), Some(3))), Some(ballot(4)));
        ballots.raise_floor(ballot(6));
        assert_eq!(ballots.promised(partition, &row(Some(ballot(4)), Some(3))), Some(ballot(6)));
        assert_eq!(ballots.promised(partition, &row(None, Some(9))), Some(ballot(9)));
    }

    #[test]
    fn what_was_raised_is_read_back_and_never_falls() {
        let store = MemoryStore::new();
        let partition = Partition::try_from_index(1_023).unwrap();
        let mut ballots = Ballots::default();
        let raised = [ballots.raise_mark(partition, ballot(5)), ballots.raise_floor(ballot(2))];
        store.append(raised.into_iter().flatten().collect(), Stamp(9)).unwrap();
        assert_eq!(Ballots::load(&store), ballots);
        assert_eq!((ballots.raise_mark(partition, ballot(5)), ballots.raise_floor(ballot(1))), (None, None));
        // One that cannot be read promises whatever may have been in it.
        store.append(vec![(Address::fact(FLOOR), Some(b"rotten".to_vec().into()))], Stamp(9)).unwrap();
        assert_eq!(Ballots::load(&store).floor, Some(Ballot::after_all_of(Stamp(9))));
    }
}
