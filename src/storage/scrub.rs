//! The scrub: every row read back from where it lies and checked, a partition's digests beside what they should be.
//!
//! Version digests are made of dots, so they cannot see a value that rotted; its checksum can. A leaf that differs
//! from what the rows add up to is a bug, or rot in memory: sessions would go on repairing what is not broken.
//!
//! Writes go on meanwhile. A leaf is judged only if it was the same before and after its rows were read, and a
//! difference counts only if a second look finds one again: between a row and its leaf lie a few microseconds.

use super::{Address, Hint, Kind, PageSize, Span, Store, StoreError, digest_entry};
use crate::merkle::{Entry, Forest, LeafSum};
use crate::placement::{LEAVES, Partition, leaf};
use crate::record::{Key, Row};
use std::collections::BTreeMap;

/// How often a partition is looked at before its digests are called wrong.
const LOOKS: u32 = 3;

/// One walk over everything a store holds.
pub struct Scrub {
    partitions: std::iter::Peekable<std::vec::IntoIter<Partition>>,
    looking: Option<Look>,
    hints: Option<Span>,
    found: Found,
}

/// A partition being read.
struct Look {
    partition: Partition,
    rest: Span,
    before: Vec<LeafSum>,
    sums: BTreeMap<usize, LeafSum>,
    is_built: bool,
    look: u32,
}

/// What a scrub has found since it was last asked.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Found {
    /// Rows checked.
    pub rows: u64,
    /// Keys whose rows cannot be read.
    pub damaged: Vec<Key>,
    /// Keys whose hints cannot be read.
    pub hints_damaged: Vec<Key>,
    /// Partitions whose digests are not those of their rows.
    pub wrong: Vec<Partition>,
    /// Spans that could not be read at all.
    pub unreadable: u64,
}

impl Default for Scrub {
    fn default() -> Scrub {
        Scrub::new()
    }
}

impl Scrub {
    /// One that begins at the beginning.
    pub fn new() -> Scrub {
        Scrub::of(Partition::all().collect())
    }

    /// The same for the rows of some partitions only, and all hints.
    pub fn of(partitions: Vec<Partition>) -> Scrub {
        let partitions = partitions.into_iter().peekable();
        Scrub { partitions, looking: None, hints: Some(Span::kind(Kind::Hint)), found: Found::default() }
    }

    /// What it found since it was last asked.
    pub fn take_found(&mut self) -> Found {
        std::mem::take(&mut self.found)
    }

    /// Reads on, one page of `size`; whether there is more to do. About 2 µs a row, and what its bytes cost to hash.
    pub fn step(&mut self, store: &dyn Store, forest: &Forest, size: PageSize) -> bool {
        let mut look = match self.looking.take().or_else(|| Some(Look::at(self.partitions.next()?, forest, 1))) {
            Some(look) => look,
            None => return self.step_hints(store, size),
        };
        match self.read(&mut look, store, size) {
            Ok(true) => self.looking = Some(look),
            Ok(false) if look.is_right(forest) => {}
            Ok(false) if look.look < LOOKS => self.looking = Some(Look::at(look.partition, forest, look.look + 1)),
            Ok(false) => self.found.wrong.push(look.partition),
            Err(_) => self.found.unreadable += 1,
        }
        true
    }

    /// Reads a page of a partition; whether there is more of it.
    fn read(&mut self, look: &mut Look, store: &dyn Store, size: PageSize) -> Result<bool, StoreError> {
        let page = store.scan(&look.rest, size)?;
        for (address, row) in &page.rows {
            self.found.rows += u64::from(look.look == 1);
            let Some(key) = address.key() else { continue };
            match Row::decode(row) {
                Ok(row) => {
                    let entry = digest_entry(&row.record, row.record.version(&key));
                    look.count(&key, entry);
                }
                Err(_) if look.look == 1 && is_damaged(store, address) => self.found.damaged.push(key),
                Err(_) => {}
            }
        }
        if let Some(next) = page.next {
            look.rest = look.rest.rest(next);
            return Ok(true);
        }
        Ok(false)
    }

    fn step_hints(&mut self, store: &dyn Store, size: PageSize) -> bool {
        let Some(span) = self.hints.take() else { return false };
        match store.scan(&span, size) {
            Ok(page) => {
                self.found.rows += page.rows.len() as u64;
                let damaged = page.rows.iter().filter(|(_, row)| Hint::decode(row).is_err());
                self.found.hints_damaged.extend(damaged.filter_map(|(address, _)| address.key()));
                self.hints = page.next.map(|next| span.rest(next));
            }
            Err(_) => self.found.unreadable += 1,
        }
        self.hints.is_some()
    }
}

/// Whether the row is damaged now as well: it may have been replaced since the page was read. Scanned again, not looked
/// up: a sound copy in the cache hides what lies below, and would go with the next restart.
fn is_damaged(store: &dyn Store, address: &Address) -> bool {
    let span = Span { from: address.clone(), to: address.successor() };
    let page = store.scan(&span, PageSize::rows(1));
    page.is_ok_and(|page| page.rows.first().is_some_and(|(_, row)| Row::decode(row).is_err()))
}

impl Look {
    fn at(partition: Partition, forest: &Forest, look: u32) -> Look {
        let is_built = forest.is_built(partition);
        let rest = Span::partition(Kind::Data, partition);
        Look { partition, rest, before: leaves(forest, partition), sums: BTreeMap::new(), is_built, look }
    }

    fn count(&mut self, key: &Key, entry: Option<Entry>) {
        if let Some(entry) = entry {
            *self.sums.entry(leaf(key.position())).or_default() += entry.digest;
        }
    }

    /// Whether the leaves that stayed as they were are what the rows add up to.
    fn is_right(&self, forest: &Forest) -> bool {
        let after = leaves(forest, self.partition);
        let counted = |at: usize| self.sums.get(&at).copied().unwrap_or_default();
        !self.is_built || (0..LEAVES).all(|at| self.before[at] != after[at] || after[at] == counted(at))
    }
}

fn leaves(forest: &Forest, partition: Partition) -> Vec<LeafSum> {
    forest.leaves(partition).map_or_else(|| vec![LeafSum::EMPTY; LEAVES], |leaves| leaves.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::VersionDigest;
    use crate::record::{Actor, Clock, Content, Edit, Seen, Stamp};
    use crate::storage::sim_files::SimFiles;
    use crate::storage::{
        Base, Change, Committer, Feed, HINT_BYTES_MAX, HintLedger, LogStore, LogStoreOptions, MemoryBase, MemoryStore,
    };
    use std::sync::Arc;

    fn key(number: usize) -> Key {
        Key::new(format!("key-{number}")).unwrap()
    }

    fn filled() -> (Arc<MemoryStore>, Arc<Forest>, Committer) {
        let store = Arc::new(MemoryStore::new());
        let (forest, committer) = fill(store.clone());
        (store, forest, committer)
    }

    fn fill(store: Arc<dyn Store>) -> (Arc<Forest>, Committer) {
        let forest = Arc::new(Forest::new());
        Partition::all().for_each(|partition| forest.mark_built(partition));
        let (feed, hints) = (Arc::new(Feed::new(1, 9, 1 << 20)), Arc::new(HintLedger::new(HINT_BYTES_MAX)));
        let clock = Clock::starting_after(Stamp(0));
        let mut committer = Committer::new(store, forest.clone(), feed, hints, Arc::default(), Actor(1), clock);
        let write = |number| Change::Write {
            key: key(number),
            edit: Edit::write(Seen::Everything, Some(Content::plain(format!("value {number}")))),
            until: Stamp::MAX,
        };
        let hint = Change::HintWrite {
            key: key(3),
            edit: Edit::write(Seen::Everything, Some(Content::plain("kept"))),
            targets: vec!["http://a:1".into()],
        };
        committer.commit(1_000, (0..300).map(write).chain([hint]).collect()).into_iter().for_each(|done| {
            done.unwrap();
        });
        (forest, committer)
    }

    fn scrub(store: &dyn Store, forest: &Forest) -> Found {
        let mut scrub = Scrub::new();
        while scrub.step(store, forest, PageSize::rows(7)) {}
        scrub.take_found()
    }

    fn flip(store: &dyn Store, address: Address) {
        let mut row = store.read(&address).unwrap().unwrap().to_vec();
        let middle = row.len() / 2;
        row[middle] ^= 4;
        store.append(vec![(address, Some(row.into()))], Stamp(0)).unwrap();
    }

    #[test]
    fn a_sound_store_is_read_through_and_nothing_is_found() {
        let (store, forest, _) = filled();
        assert_eq!(scrub(&*store, &forest), Found { rows: 301, ..Found::default() });
    }

    #[test]
    fn rotten_rows_and_hints_and_wrong_digests_are_found_by_name() {
        let (store, forest, mut committer) = filled();
        flip(&*store, Address::data(&key(42)));
        flip(&*store, Address::hint(&key(3)));
        let odd = Entry { digest: VersionDigest(7), live: true };
        forest.apply(key(5).position(), None, Some(odd));
        let found = scrub(&*store, &forest);
        assert_eq!((found.damaged, found.hints_damaged), (vec![key(42)], vec![key(3)]));
        // The damaged row's version is still in its leaf, which is therefore not what the sound rows add up to.
        let of = |number: usize| Partition::of(key(number).position());
        let mut wrong = vec![of(5), of(42)];
        wrong.sort();
        assert_eq!(found.wrong, wrong);
        committer.commit(2_000, vec![Change::Recount { partition: of(5) }]);
        assert_eq!(scrub(&*store, &forest).wrong, [of(42)]);
    }

    #[test]
    fn what_rots_below_a_sound_copy_in_memory_is_found_and_written_anew() {
        let base = MemoryBase::new();
        let options = LogStoreOptions::default();
        let (store, _) = LogStore::open(Arc::new(SimFiles::new(1)), Arc::new(base.clone()), options).unwrap();
        let store = Arc::new(store);
        let (forest, mut committer) = fill(store.clone());
        store.checkpoint(&mut || ()).unwrap();
        let address = Address::data(&key(42));
        let sound = store.read(&address).unwrap().unwrap();
        base.damage(&address, "rot".into());
        assert_eq!(store.read(&address), Ok(Some(sound.clone())), "from memory");
        let found = scrub(&*store, &forest);
        assert_eq!(found.damaged, [key(42)]);
        // As a node does: the digests are counted, without the row, and the other owners' copy is merged in.
        let recounts = found.wrong.into_iter().map(|partition| Change::Recount { partition });
        committer.commit(2_000, recounts.collect());
        let record = Row::decode(&sound).unwrap().record;
        committer.commit(2_000, vec![Change::Restore { key: key(42), record }]).remove(0).unwrap();
        store.checkpoint(&mut || ()).unwrap();
        assert_eq!(base.get(&address), Ok(Some(sound)));
        assert_eq!(scrub(&*store, &forest), Found { rows: 301, ..Found::default() });
    }
}
