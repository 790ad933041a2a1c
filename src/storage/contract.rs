//! The law of [`Store`] as a suite, run on every implementation (`tests/storage_contract.rs`).

use super::{Address, Health, Kind, MemoryStore, Page, PageSize, Peek, RowChange, Sequence, Span, Store};
use crate::placement::{PARTITIONS, Partition};
use crate::record::{Key, Stamp};
use bytes::Bytes;

/// A store under test, and what can be done to it beside.
pub trait Subject {
    /// The store.
    fn store(&self) -> &dyn Store;

    /// Lets it do its work in the background, whatever that is.
    fn settle(&mut self);

    /// Stops it cleanly or not, and opens it again; says whether it keeps anything across that.
    fn restart(&mut self) -> bool;
}

/// Every law, on a fresh store each.
pub fn check_all(fresh: &mut dyn FnMut() -> Box<dyn Subject>) {
    an_empty_store_knows_of_nothing(&mut *fresh());
    of_several_entries_with_one_address_the_last_counts(&mut *fresh());
    appends_are_numbered_and_stamps_only_rise(&mut *fresh());
    a_row_of_any_size_comes_back(&mut *fresh());
    pages_are_bounded_and_lead_to_the_next(&mut *fresh());
    for seed in 1..=4 {
        it_does_what_a_sorted_map_does(&mut *fresh(), seed);
    }
}

fn fact(name: &str) -> Address {
    Address::fact(name)
}

fn row(text: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(text.as_bytes()))
}

fn an_empty_store_knows_of_nothing(subject: &mut dyn Subject) {
    let store = subject.store();
    assert_eq!(store.read(&fact("a")), Ok(None));
    assert_eq!(store.scan(&Span::everything(), PageSize::rows(9)), Ok(Page::default()));
    assert_eq!((store.last_sequence(), store.last_stamp(), store.health()), (Sequence(0), Stamp(0), Health::Ok));
    assert_eq!(store.sync(), Ok(()));
}

fn of_several_entries_with_one_address_the_last_counts(subject: &mut dyn Subject) {
    let rows = vec![(fact("a"), row("1")), (fact("b"), row("1")), (fact("a"), row("2")), (fact("b"), None)];
    subject.store().append(rows, Stamp(1)).unwrap();
    for _ in 0..2 {
        assert_eq!(subject.store().read(&fact("a")), Ok(row("2")));
        assert_eq!(subject.store().read(&fact("b")), Ok(None));
        subject.settle();
    }
}

fn appends_are_numbered_and_stamps_only_rise(subject: &mut dyn Subject) {
    for (count, stamp) in [5, 9, 2].into_iter().enumerate() {
        let sequence = subject.store().append(vec![(fact("a"), row("1"))], Stamp(stamp)).unwrap();
        assert_eq!((sequence, subject.store().last_sequence()), (Sequence(count as u64 + 1), sequence));
    }
    assert_eq!(subject.store().last_stamp(), Stamp(9));
    subject.settle();
    if subject.restart() {
        assert_eq!((subject.store().last_sequence(), subject.store().last_stamp()), (Sequence(3), Stamp(9)));
        assert_eq!(subject.store().append(vec![(fact("b"), row("2"))], Stamp(1)), Ok(Sequence(4)));
    }
}

fn a_row_of_any_size_comes_back(subject: &mut dyn Subject) {
    let sizes = [0, 1, 4_095, 4_096, 70_000, 3 << 20];
    for size in sizes {
        let value = Bytes::from(vec![size as u8; size]);
        subject.store().append(vec![(fact(&size.to_string()), Some(value))], Stamp(1)).unwrap();
        subject.settle();
    }
    for _ in 0..2 {
        for size in sizes {
            let found = subject.store().read(&fact(&size.to_string())).unwrap().unwrap();
            assert!(found.len() == size && found.iter().all(|&byte| byte == size as u8), "{size}");
        }
        if !subject.restart() {
            break;
        }
    }
}

fn pages_are_bounded_and_lead_to_the_next(subject: &mut dyn Subject) {
    let rows = (0..50).map(|at| (fact(&format!("{at:02}")), row(&"x".repeat(1_000)))).collect();
    subject.store().append(rows, Stamp(1)).unwrap();
    for size in [PageSize { rows_max: 7, bytes_max: 1 << 20 }, PageSize { rows_max: 1_000, bytes_max: 6_500 }] {
        for _ in 0..2 {
            let mut span = Span::kind(Kind::Fact);
            let mut found = Vec::new();
            loop {
                let page = subject.store().scan(&span, size).unwrap();
                assert!(page.rows.len() <= 7, "{} rows", page.rows.len());
                found.extend(page.rows);
                match page.next {
                    Some(next) => span = span.rest(next),
                    None => break,
                }
            }
            let names: Vec<_> = found.iter().map(|(address, _)| address.key_bytes()).collect();
            assert_eq!(names, (0..50).map(|at| format!("{at:02}")).collect::<Vec<_>>());
            subject.settle();
        }
    }
}

/// Random appends, reads, scans, rests and restarts, on the store and on its dumb twin.
fn it_does_what_a_sorted_map_does(subject: &mut dyn Subject, seed: u64) {
    let twin = MemoryStore::new();
    let mut random = Random(seed);
    for step in 0..400 {
        match random.below(20) {
            0..8 => {
                let rows: Vec<RowChange> = (0..random.below(12)).map(|_| random.row()).collect();
                let stamp = Stamp(random.below(1_000));
                let sequence = subject.store().append(rows.clone(), stamp);
                assert_eq!(sequence, twin.append(rows, stamp), "seed {seed}, step {step}");
            }
            8..13 => {
                let address = random.address();
                let expected = twin.read(&address);
                if let Peek::Known(found) = subject.store().peek(&address) {
                    assert_eq!(Ok(found), expected, "seed {seed}, step {step}");
                }
                assert_eq!(subject.store().read(&address), expected, "seed {seed}, step {step}");
            }
            13..17 => {
                let span = random.span();
                let size = PageSize::rows(1 + random.below(9) as usize);
                assert_eq!(all(subject.store(), &span, size), all(&twin, &span, size), "seed {seed}, step {step}");
            }
            17..19 => subject.settle(),
            _ => {
                if !subject.restart() {
                    continue;
                }
                assert_eq!(subject.store().last_sequence(), twin.last_sequence(), "seed {seed}, step {step}");
                assert_eq!(subject.store().last_stamp(), twin.last_stamp(), "seed {seed}, step {step}");
            }
        }
    }
}

fn all(store: &dyn Store, span: &Span, size: PageSize) -> Vec<(Address, Bytes)> {
    let (mut found, mut span) = (Vec::new(), span.clone());
    loop {
        let page = store.scan(&span, size).unwrap();
        assert!(page.rows.len() <= size.rows_max);
        found.extend(page.rows);
        match page.next {
            Some(next) => {
                assert!(next > span.from, "a scan stands still at {next:?}");
                span = span.rest(next);
            }
            None => return found,
        }
    }
}

/// xorshift64*: the suite draws alike wherever it runs.
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    /// One of a few addresses, so that they are met again.
    pub fn address(&mut self) -> Address {
        let key = Key::new(format!("key {}", self.below(60))).expect("short");
        match self.below(8) {
            0 => Address::hint(&key),
            2 => Address::due(&key),
            1 => Address::fact(["layout", "epoch"][self.below(2) as usize]),
            _ => Address::data(&key),
        }
    }

    /// A row to put there, or its removal.
    pub fn row(&mut self) -> RowChange {
        let address = self.address();
        let bytes = self.below(300) as usize;
        let fill = self.below(256) as u8;
        (address, (fill > 50).then(|| Bytes::from(vec![fill; bytes])))
    }

    fn span(&mut self) -> Span {
        let kind = [Kind::Fact, Kind::Data, Kind::Hint, Kind::Due][self.below(4) as usize];
        match self.below(4) {
            0 => Span::everything(),
            1 => Span::kind(kind),
            2 => {
                let (one, other) = (self.address(), self.address());
                Span { from: one.clone().min(other.clone()), to: one.max(other) }
            }
            _ => {
                let partition = Partition::try_from_index(self.below(PARTITIONS as u64) as usize);
                Span::partition(kind, partition.expect("below the number of partitions"))
            }
        }
    }
}
