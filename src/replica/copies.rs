//! What a node holds, for a backup: its rows as they are, a piece at a time.
//!
//! Each record is one row as it was committed. A backup is not one moment: what is written while it is taken is in it or not,
//! and what was acknowledged before is, on as many nodes as have it.

use crate::placement::Partition;
use crate::protocol::{COPIES_BYTES, COPIES_BYTES_MAX, CopiesFrom, Portion};
use crate::record::{Context, Key, Row};
use crate::storage::{Kind, PageSize, Span, Store, StoreError};

/// Rows read at a time.
const ROWS: usize = 512;

/// What was found.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Copied {
    /// What is held.
    pub portions: Vec<Portion>,
    /// Keys whose rows cannot be read.
    pub damaged: Vec<Key>,
    /// Where the next piece begins; nothing behind the last.
    pub next: Option<CopiesFrom>,
}

impl Copied {
    /// Takes back what was said to have been seen of partitions of which that is not so any more: such as were let go of while
    /// their rows were read, some of which may be missing. `seen` tells which writes the store has seen by now.
    pub fn keep_seen(&mut self, seen: impl Fn(Partition) -> Context) {
        for portion in self.portions.iter_mut().filter(|portion| !portion.seen.is_empty()) {
            if !seen(portion.partition).dominates(&portion.seen) {
                portion.seen = Context::new();
            }
        }
    }
}

/// Reads a piece from `from` on. `seen` tells which writes the store has seen in a partition: it is asked before the rows are
/// read. `give_way` is called between some rows and the next, and may rest. For a thread that may wait.
pub fn copies(
    store: &dyn Store,
    from: CopiesFrom,
    seen: impl Fn(Partition) -> Context,
    give_way: &mut dyn FnMut(),
) -> Result<Copied, StoreError> {
    let mut found = Copied::default();
    let (mut bytes, mut after) = (0, from.after);
    for partition in Partition::all().skip(from.partition.index()) {
        if bytes >= COPIES_BYTES {
            found.next = Some(CopiesFrom { partition, after: None });
            break;
        }
        let damaged_before = found.damaged.len();
        let is_begun = after.is_none();
        let mut portion = Portion { partition, seen: seen(partition), is_whole: is_begun, records: Vec::new() };
        let rows = Span::partition(Kind::Data, partition);
        let mut span = Some(match after.take() {
            None => rows,
            // From the first key on that could follow it.
            Some(key) => rows.from_key(&[key.as_bytes(), b"\0"].concat()),
        });
        let limit = bytes + COPIES_BYTES_MAX;
        while let Some(rest) = span.take() {
            let page = store.scan(&rest, PageSize::rows(ROWS))?;
            for (address, row) in &page.rows {
                let Some(key) = Key::new(bytes::Bytes::copy_from_slice(&address.key_bytes())).ok() else { continue };
                match Row::decode(row) {
                    // A promise alone.
                    Ok(Row { record, .. }) if record.is_unknown() => {}
                    Ok(Row { record, .. }) => {
                        bytes += address.as_bytes().len() + row.len();
                        portion.records.push((key, record));
                    }
                    Err(_) => found.damaged.push(key),
                }
            }
            give_way();
            span = page.next.map(|next| rest.rest(next));
            if bytes >= limit && span.is_some() {
                portion.is_whole = false;
                let last = portion.records.last().map(|(key, _)| key.clone());
                found.next = Some(CopiesFrom { partition, after: last });
                break;
            }
        }
        if found.damaged.len() > damaged_before {
            portion.seen = Context::new();
        }
        if !portion.records.is_empty() || (portion.is_whole && !portion.seen.is_empty()) {
            found.portions.push(portion);
        }
        if found.next.is_some() {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Actor, Content, Dot, Record, Seen, Stamp};
    use crate::storage::{Address, MemoryStore};

    fn key(number: usize) -> Key {
        Key::new(format!("k{number}").into_bytes()).unwrap()
    }

    fn record(bytes: usize) -> Record {
        let dot = Dot { stamp: Stamp(5), actor: Actor(3) };
        Record::default().write(&Seen::Everything, dot, Some(Content::plain(vec![7; bytes]))).unwrap()
    }

    fn store(keys: impl Iterator<Item = Key>, bytes: usize) -> MemoryStore {
        let store = MemoryStore::default();
        for key in keys {
            let row = Row::of(record(bytes)).encode();
            store.append(vec![(Address::data(&key), Some(row))], Stamp(5)).unwrap();
        }
        store
    }

    fn beginning() -> CopiesFrom {
        CopiesFrom { partition: Partition::try_from_index(0).unwrap(), after: None }
    }

    fn all(store: &MemoryStore) -> Vec<Copied> {
        let mut from = Some(beginning());
        let mut pieces = Vec::new();
        while let Some(next) = from {
            let piece = copies(store, next, |_| record(1).context().clone(), &mut || ()).unwrap();
            from = piece.next.clone();
            pieces.push(piece);
        }
        pieces
    }

    #[test]
    fn pieces_have_every_record_once() {
        let store = store((0..3_000).map(key), 1_000);
        let pieces = all(&store);
        assert!((2..=4).contains(&pieces.len()), "{}", pieces.len());
        let mut keys: Vec<Key> = pieces
            .iter()
            .flat_map(|piece| &piece.portions)
            .flat_map(|portion| &portion.records)
            .map(|(key, _)| key.clone())
            .collect();
        keys.sort();
        let mut wanted: Vec<Key> = (0..3_000).map(key).collect();
        wanted.sort();
        assert!(keys == wanted, "{} keys", keys.len());
        assert!(pieces.iter().flat_map(|piece| &piece.portions).all(|portion| portion.is_whole));
    }

    #[test]
    fn what_was_let_go_of_while_it_was_read_is_not_said_to_have_been_seen() {
        let store = store((0..10).map(key), 100);
        let seen = |stamp| {
            let mut context = Context::new();
            context.add(Dot { stamp: Stamp(stamp), actor: Actor(3) });
            context
        };
        let gone = Partition::of(key(0).position());
        let mut copied = copies(&store, beginning(), |_| seen(5), &mut || ()).unwrap();
        copied.keep_seen(|partition| if partition == gone { Context::new() } else { seen(6) });
        for Portion { partition, seen: still, .. } in copied.portions {
            assert_eq!(still, if partition == gone { Context::new() } else { seen(5) }, "{partition:?}");
        }
    }

    #[test]
    fn a_partition_too_large_for_one_piece_goes_on_in_the_next_and_says_so() {
        let one = Partition::of(key(0).position());
        let same = (0..).map(key).filter(|key| Partition::of(key.position()) == one).take(40);
        let store = store(same, 600_000);
        let pieces = all(&store);
        let of_it: Vec<(usize, bool)> = pieces
            .iter()
            .flat_map(|piece| &piece.portions)
            .filter(|portion| portion.partition == one)
            .map(|portion| (portion.records.len(), portion.is_whole))
            .collect();
        assert!(of_it.len() > 1 && of_it.iter().all(|(_, is_whole)| !is_whole), "{of_it:?}");
        assert_eq!(of_it.iter().map(|(count, _)| count).sum::<usize>(), 40);
    }
}
