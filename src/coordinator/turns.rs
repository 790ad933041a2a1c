//! `Turns`: proposals of one key wait for one another, and hand on what was promised together with the last acceptance.
//!
//! Whoever asks the owners of a key to agree asks its first owner that lives, so that all proposals of the key meet here.
//! Two at a time would each undo the other's promises; one at a time, they take one round trip, and those that have come
//! meanwhile go together in the next.

use crate::record::{Ballot, Key, Record};
use std::collections::{BTreeMap, VecDeque};

/// What may be proposed under next without asking again: a ballot promised by a majority, and what they held then.
#[derive(Clone, PartialEq, Debug)]
pub struct Kept {
    /// The ballot.
    pub ballot: Ballot,
    /// What was accepted when it was promised.
    pub record: Record,
    /// The epoch whose owners promised it: in a later one others may have to.
    pub epoch: u64,
}

/// Most keys of which something is kept while nobody proposes, and most bytes of their values: a few MiB in all.
const KEPT_MAX: usize = 16_384;
const KEPT_BYTES_MAX: usize = 16 << 20;
/// Most proposals of a key that go together.
pub const TOGETHER_MAX: usize = 64;
/// Most proposals that wait for their turn.
const WAITING_MAX: usize = 4_096;

/// The lines of all keys that are proposed for; a `T` is what waits.
pub struct Turns<T> {
    lines: BTreeMap<Key, Line<T>>,
    /// Idle keys, the one idle for longest first, by the number in their line.
    idle: BTreeMap<u64, Key>,
    made: u64,
    waiting: usize,
    kept_bytes: usize,
}

struct Line<T> {
    waiting: VecDeque<T>,
    /// While nobody's turn is on: when it last ended, and what was left.
    idle: Option<(u64, Option<Kept>)>,
}

impl<T> Default for Turns<T> {
    fn default() -> Turns<T> {
        Turns { lines: BTreeMap::new(), idle: BTreeMap::new(), made: 0, waiting: 0, kept_bytes: 0 }
    }
}

/// What became of one who came.
#[derive(PartialEq, Debug)]
pub enum Turn<T> {
    /// It is its turn, and this was kept.
    Now(T, Option<Kept>),
    /// It waits; [`Turns::end`] will return it.
    Waits,
    /// Too many wait.
    Full(T),
}

impl<T> Turns<T> {
    /// Somebody comes to propose for `key`.
    pub fn come(&mut self, key: &Key, who: T) -> Turn<T> {
        let Some(line) = self.lines.get_mut(key) else {
            self.lines.insert(key.clone(), Line { waiting: VecDeque::new(), idle: None });
            return Turn::Now(who, None);
        };
        if let Some((number, kept)) = line.idle.take() {
            self.idle.remove(&number);
            self.kept_bytes -= kept.as_ref().map_or(0, bytes_of);
            return Turn::Now(who, kept);
        }
        if self.waiting >= WAITING_MAX {
            return Turn::Full(who);
        }
        self.waiting += 1;
        line.waiting.push_back(who);
        Turn::Waits
    }

    /// The turn for `key` is over, and leaves this; whose turn it is then: the first who waits, and those right behind who may
    /// `go_with` it, [`TOGETHER_MAX`] at most.
    pub fn end(
        &mut self,
        key: &Key,
        kept: Option<Kept>,
        go_with: impl Fn(&T, &T) -> bool,
    ) -> Option<(Vec<T>, Option<Kept>)> {
        let line = self.lines.get_mut(key)?;
        if let Some(first) = line.waiting.pop_front() {
            let mut next = vec![first];
            while next.len() < TOGETHER_MAX
                && let Some(one) = line.waiting.pop_front_if(|one| go_with(one, &next[0]))
            {
                next.push(one);
            }
            self.waiting -= next.len();
            return Some((next, kept));
        }
        match kept {
            None => drop(self.lines.remove(key)),
            Some(kept) => {
                self.made += 1;
                self.kept_bytes += bytes_of(&kept);
                line.idle = Some((self.made, Some(kept)));
                self.idle.insert(self.made, key.clone());
            }
        }
        while self.idle.len() > KEPT_MAX || self.kept_bytes > KEPT_BYTES_MAX {
            let Some((_, oldest)) = self.idle.pop_first() else { break };
            if let Some(Line { idle: Some((_, Some(kept))), .. }) = self.lines.remove(&oldest) {
                self.kept_bytes -= bytes_of(&kept);
            }
        }
        None
    }
}

fn bytes_of(kept: &Kept) -> usize {
    kept.record.siblings().iter().map(|sibling| sibling.content.value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Actor, Content, Edit, Proposal, Seen, Stamp};

    fn key(name: &str) -> Key {
        Key::new(name.as_bytes().to_vec()).unwrap()
    }

    fn kept(stamp: u64, bytes: usize) -> Kept {
        let ballot = |stamp| Ballot { stamp: Stamp(stamp), actor: Actor(1) };
        let edit = Edit::write(Seen::Everything, Some(Content::plain(vec![0; bytes])));
        let held = Record::default().reballot(ballot(stamp));
        let record = held.propose(&Proposal { edit, condition: None }, ballot(stamp).dot(), 0).unwrap();
        Kept { ballot: ballot(stamp + 1), record, epoch: 0 }
    }

    #[test]
    fn those_that_wait_for_one_key_go_together_and_are_handed_what_was_kept() {
        let (mut turns, here, there) = (Turns::default(), key("here"), key("there"));
        let alike = |one: &char, other: &char| one.is_lowercase() == other.is_lowercase();
        assert_eq!(turns.come(&here, 'a'), Turn::Now('a', None));
        for who in ['b', 'c', 'D', 'e'] {
            assert_eq!(turns.come(&here, who), Turn::Waits);
        }
        assert_eq!(turns.come(&there, 'x'), Turn::Now('x', None), "other keys do not wait");
        assert_eq!(turns.end(&here, Some(kept(1, 1)), alike), Some((vec!['b', 'c'], Some(kept(1, 1)))));
        assert_eq!(turns.end(&here, None, alike), Some((vec!['D'], None)), "one that failed leaves nothing");
        assert_eq!(turns.end(&here, None, alike), Some((vec!['e'], None)));
        assert_eq!(turns.end(&here, Some(kept(5, 1)), alike), None);
        assert_eq!(turns.come(&here, 'f'), Turn::Now('f', Some(kept(5, 1))));
        assert_eq!(turns.come(&here, 'g'), Turn::Waits, "taken: it is kept by nobody meanwhile");
    }

    #[test]
    fn what_is_kept_of_idle_keys_and_who_waits_are_bounded() {
        let mut turns = Turns::default();
        for number in 0..40 {
            assert!(matches!(turns.come(&key(&number.to_string()), number), Turn::Now(..)));
            turns.end(&key(&number.to_string()), Some(kept(number, 1 << 20)), |_, _| true);
        }
        assert_eq!(turns.come(&key("0"), 0), Turn::Now(0, None), "the one idle for longest went");
        assert!(matches!(turns.come(&key("39"), 0), Turn::Now(0, Some(_))));
        assert!(turns.kept_bytes <= KEPT_BYTES_MAX && turns.idle.len() <= 17);
        let crowded = key("crowded");
        turns.come(&crowded, 0);
        let full = (0..=WAITING_MAX as u64).filter(|who| turns.come(&crowded, *who) == Turn::Full(*who)).count();
        assert_eq!(full, 1);
        let together = turns.end(&crowded, None, |_, _| true).map(|(together, _)| together.len());
        assert_eq!(together, Some(TOGETHER_MAX));
    }
}
