//! A node's part in a list: the keys of some partitions in the order of keys over all of them.
//!
//! Rows lie in key order inside a partition, so this is a merge of as many scans as there are partitions:
//!
//! ```text
//!  partition 0   apple  grape  ·····┐
//!  partition 1   fig           ·····┼──► apple  banana  fig  grape
//!  partition 2   banana        ·····┘
//! ```
//!
//! Of each only a few rows are held at a time, and of those no values, so memory is bounded whatever the rows hold. What
//! costs is to find the place in each partition anew for each answer, some 10 µs: an answer of few keys out of many
//! partitions is dear for each of them, one of several thousand is not.
//!
//! Where an entry stands for others, the scans go on behind those, and what lies between is read only as far as it was
//! read already.

use crate::placement::Partition;
use crate::protocol::{ListAnswer, ListEntry, ListRequest, Place};
use crate::record::{Key, Record, Row};
use crate::storage::{Kind, PageSize, Span, Store, StoreError};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Rows read of a partition at a time, at least and at most: a few more than an answer takes of each.
const ROWS_MIN: usize = 4;
const ROWS_MAX: usize = 256;
/// Rows read of a partition at a time where the next answer is asked for at once, at least.
const ROWS_AHEAD: usize = 64;
/// Bytes of rows after which no further is read at a time: what is kept of them for all partitions is 64 MiB at most.
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// What is answered.
    pub answer: ListAnswer,
    /// Keys whose rows cannot be read: of their partitions nothing can be told.
    pub damaged: Vec<Key>,
    /// What was read ahead, for the answer to the same request from where this one ends or some way before, if that was asked
    /// for.
    pub ahead: Option<Ahead>,
}

/// What was read for a list and not told yet, or told last: some 20 MiB at most, unless keys are long.
#[derive(Debug)]
pub struct Ahead {
    request: ListRequest,
    /// What was told last, as others may have told less: the list goes on where the first of them ended. Nothing, where
    /// entries stand for others.
    told: VecDeque<ListEntry>,
    /// From where on that is whole.
    since: Place,
    /// Where the columns go on.
    until: Place,
    columns: Vec<Column>,
    heads: BinaryHeap<Reverse<(Key, usize)>>,
}

impl Ahead {
    /// Whether it was read for the list of which this request asks for more.
    pub fn is_for(&self, request: &ListRequest) -> bool {
        let ListRequest { partitions, filter, listing, .. } = &self.request;
        let is_same = *listing == request.listing && *filter == request.filter && *partitions == request.partitions;
        is_same && (&self.since..=&self.until).contains(&&request.from)
    }
}

/// Answers `request` from the rows of the partitions that are `kept` here. `now_ms`, in milliseconds since 1970, tells what
/// has expired; `ahead` is what was read ahead for this request, if anything was. `is_over` is asked after each scan, every
/// 0.1 ms or sooner, and may rest: once it says so, what was found till then is the answer, one key at least. For a thread
/// that may wait.
pub fn list(
    store: &dyn Store,
    request: &ListRequest,
    ahead: Option<Ahead>,
    kept: impl Fn(Partition) -> bool,
    now_ms: u64,
    is_over: &mut dyn FnMut() -> bool,
) -> Result<Found, StoreError> {
    let (here, lacking): (Vec<Partition>, Vec<Partition>) =
        request.partitions.iter().partition(|partition| kept(**partition));
    let share = request.keys_max as usize / here.len().max(1);
    let rows_max = if request.listing.is_some() { ROWS_AHEAD.max(share) } else { share * 5 / 4 + ROWS_MIN };
    let size = PageSize { rows_max: rows_max.min(ROWS_MAX), bytes_max: CHUNK_BYTES_MAX };
    let mut merge = Merge { store, size, columns: Vec::new(), heads: BinaryHeap::new(), damaged: Vec::new() };
    let (mut over, mut again, mut until) = (false, VecDeque::new(), request.from.clone());
    let is_of_here = |ahead: &Ahead| ahead.columns.iter().map(|column| column.partition).eq(here.iter().copied());
    match ahead.filter(|ahead| ahead.is_for(request) && is_of_here(ahead)) {
        Some(ahead) => {
            (merge.columns, merge.heads) = (ahead.columns, ahead.heads);
            (again, until) = (ahead.told, ahead.until);
            again.retain(|entry| !request.from.is_behind(entry.key.as_bytes()));
        }
        None => {
            for partition in here {
                let span = Span::partition(Kind::Data, partition).starting_with(&request.filter.prefix);
                merge.columns.push(Column { partition, rest: Some(span), rows: VecDeque::new(), is_damaged: false });
                merge.advance(merge.columns.len() - 1, &request.from)?;
                over = is_over();
            }
        }
    }
    let mut answer = ListAnswer { entries: Vec::new(), next: None, lacking };
    let (mut bytes, mut passed) = (0, until.clone());
    while let Some(entry) = again.front() {
        if answer.entries.len() >= request.keys_max as usize || bytes >= request.bytes_max as usize {
            answer.next = Some(Place::of(&entry.key));
            break;
        }
        bytes += bytes_of(&entry.key, &entry.record);
        answer.entries.extend(again.pop_front());
    }
    while answer.next.is_none()
        && let Some((key, at)) = merge.next()
    {
        if passed.is_behind(key.as_bytes()) {
            merge.advance(at, &passed)?;
            over = is_over() || over;
            continue;
        }
        let is_full = answer.entries.len() >= request.keys_max as usize || bytes >= request.bytes_max as usize;
        if (is_full || over) && !answer.entries.is_empty() {
            (answer.next, until) = (Some(Place::of(&key)), Place::of(&key));
            merge.heads.push(Reverse((key, at)));
            break;
        }
        let Some(record) = merge.take(at) else { continue };
        if merge.columns[at].rows.is_empty() {
            over = is_over() || over;
        }
        merge.advance(at, &Place::behind(&key))?;
        bytes += bytes_of(&key, &record);
        let group = request.filter.common_prefix(key.as_bytes());
        let past = group.filter(|_| record.winner(now_ms).is_some()).map(Place::past);
        answer.entries.push(ListEntry { key, record, stands_for_all: past.is_some() });
        match past {
            Some(Some(past)) => passed = past,
            // It stands for all that there are.
            Some(None) => break,
            None => {}
        }
    }
    answer.lacking.extend(merge.columns.iter().filter(|column| column.is_damaged).map(|column| column.partition));
    let may_go_on = request.listing.is_some() && answer.next.is_some() && merge.damaged.is_empty();
    let stands_for_others = !request.filter.delimiter.is_empty();
    let ahead = may_go_on.then(|| Ahead {
        since: if stands_for_others { until.clone() } else { request.from.clone() },
        told: if stands_for_others { again } else { answer.entries.iter().cloned().chain(again).collect() },
        request: request.clone(),
        until,
        columns: merge.columns,
        heads: merge.heads,
    });
    Ok(Found { answer, damaged: merge.damaged, ahead })
}

/// About what an entry takes on the wire.
fn bytes_of(key: &Key, record: &Record) -> usize {
    let sibling = 32 + 24;
    key.as_bytes().len() + 16 * record.context().entries().len() + sibling * record.siblings().len() + 8
}

/// The rows of one partition, as far as they are held.
#[derive(Debug)]
struct Column {
    partition: Partition,
    /// What has not been read yet.
    rest: Option<Span>,
    rows: VecDeque<(Key, Record)>,
    is_damaged: bool,
}

struct Merge<'a> {
    store: &'a dyn Store,
    size: PageSize,
    columns: Vec<Column>,
    /// The next key of each column that has one.
    heads: BinaryHeap<Reverse<(Key, usize)>>,
    damaged: Vec<Key>,
}

impl Merge<'_> {
    /// The next key over all columns. Its column has no head until it is [advanced](Merge::advance).
    fn next(&mut self) -> Option<(Key, usize)> {
        self.heads.pop().map(|Reverse(head)| head)
    }

    /// Takes the record of a column's next key.
    fn take(&mut self, at: usize) -> Option<Record> {
        self.columns[at].rows.pop_front().map(|(_, record)| record)
    }

    /// Lets a column go on at `from`, wherever it stands.
    fn advance(&mut self, at: usize, from: &Place) -> Result<(), StoreError> {
        let column = &mut self.columns[at];
        while column.rows.front().is_some_and(|(key, _)| from.is_behind(key.as_bytes())) {
            column.rows.pop_front();
        }
        while column.rows.is_empty() {
            let Some(rest) = column.rest.take() else { return Ok(()) };
            let span = rest.from_key(&from.0);
            let page = self.store.scan(&span, self.size)?;
            for (address, row) in &page.rows {
                let Some(key) = Key::new(bytes::Bytes::copy_from_slice(&address.key_bytes())).ok() else { continue };
                match Row::decode(row) {
                    Ok(Row { record, .. }) if record.is_unknown() => {}
                    Ok(Row { record, .. }) => column.rows.push_back((key, record.sketch())),
                    Err(_) => {
                        self.damaged.push(key);
                        column.is_damaged = true;
                    }
                }
            }
            if column.is_damaged {
                // Another owner is asked for all of it.
                column.rows.clear();
                return Ok(());
            }
            column.rest = page.next.map(|next| span.rest(next));
        }
        self.heads.extend(column.rows.front().map(|(key, _)| Reverse((key.clone(), at))));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Filter;
    use crate::record::{Actor, Content, Dot, Seen, Stamp};
    use crate::storage::{Address, MemoryStore};
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const NOW_MS: u64 = 1_000;

    fn key(name: &str) -> Key {
        Key::new(name.to_owned()).unwrap()
    }

    fn record(number: u64, content: Option<Content>) -> Record {
        let dot = Dot { stamp: Stamp(number + 1), actor: Actor(1) };
        Record::default().write(&Seen::Everything, dot, content).unwrap()
    }

    fn put(store: &MemoryStore, name: &str, record: &Record) {
        store.append(vec![(Address::data(&key(name)), Some(Row::of(record.clone()).encode()))], Stamp(1)).unwrap();
    }

    fn request(prefix: &str, delimiter: &str) -> ListRequest {
        ListRequest {
            partitions: Partition::all().collect(),
            filter: Filter { prefix: prefix.to_owned().into(), delimiter: delimiter.to_owned().into() },
            from: Place::default(),
            keys_max: 100,
            bytes_max: u32::MAX,
            listing: None,
        }
    }

    /// Pages until there is no more.
    fn all(store: &dyn Store, mut request: ListRequest) -> Vec<ListEntry> {
        let (mut entries, mut ahead) = (Vec::new(), None);
        loop {
            let found = list(store, &request, ahead.take(), |_| true, NOW_MS, &mut || false).unwrap();
            assert_eq!(found.damaged, []);
            assert!(request.is_answered_by(&found.answer), "{request:?} {:?}", found.answer);
            assert_eq!(found.ahead.is_some(), request.listing.is_some() && found.answer.next.is_some());
            ahead = found.ahead;
            let mut answer = found.answer;
            let mut next = answer.next;
            if request.listing.is_some() && answer.entries.len() > 1 && next.is_some() {
                // Others have told less.
                next = answer.entries.pop().map(|last| Place::of(&last.key));
            }
            entries.extend(answer.entries);
            match next {
                Some(next) => request.from = next,
                None => return entries,
            }
            let is_simple = request.listing.is_some() && request.filter.delimiter.is_empty();
            assert!(!is_simple || ahead.as_ref().is_some_and(|ahead| ahead.is_for(&request)));
        }
    }

    /// Names over few letters, so that they share prefixes.
    fn names() -> impl Strategy<Value = BTreeMap<String, u8>> {
        prop::collection::btree_map("[ab/]{1,5}", 0..4u8, 0..60)
    }

    proptest! {
        // Each looks into 1,024 partitions for every page.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn pages_of_any_size_are_a_sorted_map_without_what_a_key_stands_for(
            names in names(),
            prefix in "[ab/]{0,2}",
            delimiter in prop::sample::select(vec!["", "/", "ab"]),
            from in "[ab/]{0,3}",
            keys_max in 1..9u32,
            bytes_max in prop::sample::select(vec![1, 100, u32::MAX]),
        ) {
            let store = MemoryStore::new();
            let mut twin = BTreeMap::new();
            for (number, (name, kind)) in names.iter().enumerate() {
                let content = match kind {
                    0 => None,
                    1 => Some(Content { expires_ms: Some(NOW_MS), ..Content::plain("old") }),
                    _ => Some(Content::plain(vec![*kind; 100])),
                };
                let lives = *kind > 1;
                let record = record(number as u64, content);
                put(&store, name, &record);
                twin.insert(name.clone(), (record, lives));
            }
            let request =
                ListRequest { from: Place(from.clone().into()), keys_max, bytes_max, ..request(&prefix, delimiter) };
            let mut expected = Vec::new();
            let mut stood_for: Option<String> = None;
            for (name, (record, lives)) in twin.range(from..).filter(|(name, _)| name.starts_with(&prefix)) {
                if stood_for.as_ref().is_some_and(|group| name.starts_with(group)) {
                    continue;
                }
                let group = request.filter.common_prefix(name.as_bytes()).filter(|_| *lives);
                stood_for = group.map(|group| String::from_utf8(group.to_vec()).unwrap()).or(stood_for);
                expected.push(ListEntry { key: key(name), record: record.sketch(), stands_for_all: group.is_some() });
            }
            let going_on = ListRequest { listing: Some(7), ..request.clone() };
            prop_assert_eq!(&all(&store, request), &expected);
            prop_assert_eq!(all(&store, going_on), expected);
        }
    }

    #[test]
    fn nothing_is_said_of_partitions_that_are_not_kept_or_hold_what_cannot_be_read() {
        let store = MemoryStore::new();
        (0..50).for_each(|number| put(&store, &format!("k{number}"), &record(number, Some(Content::plain("v")))));
        let (rotten, away) = (key("k7"), Partition::of(key("k8").position()));
        store.append(vec![(Address::data(&rotten), Some(Bytes::from_static(b"rot")))], Stamp(1)).unwrap();
        let request = request("", "");
        let found = list(&store, &request, None, |partition| partition != away, NOW_MS, &mut || false).unwrap();
        assert_eq!(found.damaged, std::slice::from_ref(&rotten));
        let mut lacking = vec![away, Partition::of(rotten.position())];
        assert_eq!(found.answer.lacking, lacking);
        lacking.sort_unstable();
        let told = found.answer.entries.iter().map(|entry| Partition::of(entry.key.position()));
        assert!(told.clone().all(|partition| !lacking.contains(&partition)));
        assert_eq!(told.count(), 48);
    }

    #[test]
    fn an_answer_is_cut_short_once_its_time_is_over_and_still_gets_on() {
        let store = MemoryStore::new();
        (0..50).for_each(|number| put(&store, &format!("k{number}"), &record(number, None)));
        let found = list(&store, &request("", ""), None, |_| true, NOW_MS, &mut || true).unwrap();
        assert_eq!((found.answer.entries.len(), found.answer.next), (1, Some(Place::of(&key("k1")))));
    }

    #[test]
    fn what_a_key_stands_for_is_not_read_one_by_one() {
        /// A store that counts the rows it shows.
        struct Counting(MemoryStore, std::sync::atomic::AtomicUsize);
        impl Store for Counting {
            fn peek(&self, address: &Address) -> crate::storage::Peek {
                self.0.peek(address)
            }
            fn read(&self, address: &Address) -> Result<Option<Bytes>, StoreError> {
                self.0.read(address)
            }
            fn scan(&self, span: &Span, size: PageSize) -> Result<crate::storage::Page, StoreError> {
                let page = self.0.scan(span, size)?;
                self.1.fetch_add(page.rows.len(), std::sync::atomic::Ordering::Relaxed);
                Ok(page)
            }
            fn append(
                &self,
                rows: Vec<crate::storage::RowChange>,
                last_stamp: Stamp,
            ) -> Result<crate::storage::Sequence, StoreError> {
                self.0.append(rows, last_stamp)
            }
            fn sync(&self) -> Result<(), StoreError> {
                self.0.sync()
            }
            fn last_sequence(&self) -> crate::storage::Sequence {
                self.0.last_sequence()
            }
            fn last_stamp(&self) -> Stamp {
                self.0.last_stamp()
            }
            fn health(&self) -> crate::storage::Health {
                self.0.health()
            }
            fn usage(&self) -> crate::storage::Usage {
                self.0.usage()
            }
        }
        let store = Counting(MemoryStore::new(), Default::default());
        let value = Row::of(record(1, Some(Content::plain("v")))).encode();
        let rows = (0..100_000).map(|number| {
            let name = format!("{}/{number}", if number % 1_000 == 0 { "b" } else { "a" });
            (Address::data(&key(&name)), Some(value.clone()))
        });
        store.append(rows.collect(), Stamp(1)).unwrap();
        let shown: Vec<Key> = all(&store, request("", "/")).into_iter().map(|entry| entry.key).collect();
        assert_eq!(shown, [key("a/1"), key("b/0")]);
        let read = store.1.load(std::sync::atomic::Ordering::Relaxed);
        assert!(read < 20_000, "{read} rows were read");
    }
}
