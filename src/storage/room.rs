//! `Room`: how many keys a store takes of clients, and who is about to take one of the places left.
//!
//! ```text
//!   keys with a value   |################|##|..|      max 20: 16 are shown, 2 are in the batch that is being made, or are
//!                        0               16     20    proposed; 2 more may come
//! ```
//!
//! What other owners bring is never refused, or copies would never be equal again: so a store may hold more than that. What
//! is refused is what would be made here, where a key has no value. Places are counted under one lock, and what becomes
//! visible changes from a place into a key under it, so however many write at once there are exactly so many keys in the end.

use super::Refused;
use crate::merkle::Forest;
use crate::record::{Key, Record};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The room of one store. A value counts until it is deleted, or cleaned away after it expired.
#[derive(Debug)]
pub struct Room {
    max: u64,
    forest: Arc<Forest>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// Whether the keys that were there at the start have been counted.
    is_counted: bool,
    /// By the batch that the committer makes.
    in_batch: u64,
    /// How many keys that batch deletes.
    freed: u64,
    /// By those that are being proposed, each with a number of its own.
    proposed: BTreeSet<(Key, u64)>,
    numbers: u64,
}

/// A place for a key that is being proposed: given back when dropped, unless the key has come by then.
#[derive(Debug)]
pub struct Place {
    room: Arc<Room>,
    of: (Key, u64),
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.taken().proposed.remove(&self.of);
    }
}

impl Room {
    /// Room for `max` keys, of which `forest` counts those that are there.
    pub fn of(max: u64, forest: Arc<Forest>) -> Room {
        Room { max, forest, taken: Mutex::default() }
    }

    /// How many keys there is room for.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Whether a new key would be refused now.
    pub fn is_full(&self) -> bool {
        self.forest.live_of_all() >= self.max
    }

    /// Sets a place aside for a key that is proposed and has no value here. `Overloaded` until the keys that were there at the
    /// start have been counted.
    pub fn propose(self: &Arc<Self>, key: Key) -> Result<Place, Refused> {
        let mut taken = self.taken();
        self.check(&mut taken, 0)?;
        taken.numbers += 1;
        let of = (key, taken.numbers);
        taken.proposed.insert(of.clone());
        Ok(Place { room: self.clone(), of })
    }

    /// The same for a change in the committer's batch that makes `after` of `before`: only where the key has no value, and
    /// gets one.
    pub(super) fn change(&self, before: &Record, after: &Record) -> Result<(), Refused> {
        match (before.is_tombstone(), after.is_tombstone()) {
            (true, false) => {
                let mut taken = self.taken();
                let freed = taken.freed;
                self.check(&mut taken, freed)?;
                taken.in_batch += 1;
            }
            (false, true) => self.taken().freed += 1,
            _ => {}
        }
        Ok(())
    }

    /// Has the batch shown, in which these keys got a value: from now on they are counted as keys.
    pub(super) fn settle<'a>(&self, came: impl Iterator<Item = &'a Key>, show: impl FnOnce()) {
        let mut taken = self.taken();
        if !taken.proposed.is_empty() {
            for key in came {
                taken.proposed.retain(|(proposed, _)| proposed != key);
            }
        }
        show();
        (taken.in_batch, taken.freed) = (0, 0);
    }

    /// The batch is over, shown or not.
    pub(super) fn end_batch(&self) {
        let mut taken = self.taken();
        (taken.in_batch, taken.freed) = (0, 0);
    }

    fn check(&self, taken: &mut Taken, freed: u64) -> Result<(), Refused> {
        if !taken.is_counted {
            taken.is_counted = self.forest.all_built();
        }
        if !taken.is_counted {
            return Err(Refused::Overloaded);
        }
        let all = self.forest.live_of_all() + taken.in_batch + taken.proposed.len() as u64;
        if all.saturating_sub(freed) < self.max { Ok(()) } else { Err(Refused::NodeFull { max: self.max }) }
    }

    /// Nothing below the lock can fail half-way.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::{Entry, VersionDigest};
    use crate::placement::Partition;
    use crate::record::{Actor, Content, Dot, Edit, Seen, Stamp};

    fn key(number: u64) -> Key {
        Key::new(format!("k{number}")).unwrap()
    }

    fn value() -> Record {
        let dot = Dot { stamp: Stamp(1), actor: Actor(1) };
        Record::default().edit(&Edit::write(Seen::Everything, Some(Content::plain("v"))), dot).unwrap()
    }

    fn show(forest: &Forest, number: u64) {
        let entry = Entry { digest: VersionDigest(u128::from(number)), live: true };
        forest.apply(key(number).position(), None, Some(entry));
    }

    fn room(max: u64) -> (Arc<Room>, Arc<Forest>) {
        let forest = Arc::new(Forest::new());
        Partition::all().for_each(|partition| forest.mark_built(partition));
        (Arc::new(Room::of(max, forest.clone())), forest)
    }

    #[test]
    fn as_many_places_are_given_as_there_are_and_each_becomes_a_key_at_once() {
        let (room, forest) = room(3);
        let proposed = room.propose(key(1)).unwrap();
        let (nothing, value) = (Record::default(), value());
        assert_eq!(room.change(&nothing, &value), Ok(()));
        assert_eq!(room.change(&nothing, &value), Ok(()));
        let full = Err(Refused::NodeFull { max: 3 });
        assert_eq!(room.change(&nothing, &value), full);
        assert_eq!(room.propose(key(4)).map(drop), full);
        // Values that are there may change, and what a batch frees it may use itself.
        assert_eq!(room.change(&value, &value), Ok(()));
        assert_eq!(room.change(&value, &nothing), Ok(()));
        assert_eq!(room.change(&nothing, &value), Ok(()));
        room.settle([key(1), key(2)].iter(), || (1..=2).for_each(|number| show(&forest, number)));
        assert!(!room.is_full(), "one of the batch was another's place");
        let last = room.propose(key(3)).unwrap();
        assert_eq!(room.change(&nothing, &value), full);
        drop(proposed);
        assert_eq!(room.change(&nothing, &value), full, "it had become a key before");
        drop(last);
        assert_eq!(room.change(&nothing, &value), Ok(()), "it has come to nothing");
        room.end_batch();
        assert_eq!(room.change(&nothing, &value), Ok(()), "so has the batch");
    }

    #[test]
    fn nobody_takes_a_place_before_it_is_known_how_many_there_are() {
        let forest = Arc::new(Forest::new());
        let room = Arc::new(Room::of(2, forest.clone()));
        assert_eq!(room.propose(key(1)).map(drop), Err(Refused::Overloaded));
        (1..=2).for_each(|number| show(&forest, number));
        Partition::all().for_each(|partition| forest.mark_built(partition));
        assert_eq!(room.propose(key(3)).map(drop), Err(Refused::NodeFull { max: 2 }));
        // What is counted anew later says nothing of how many there are.
        forest.unbuild(Partition::of(key(1).position()));
        assert_eq!(room.propose(key(3)).map(drop), Err(Refused::NodeFull { max: 2 }));
    }
}
