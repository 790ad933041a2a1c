//! Tests of the promise: whatever stops the machine, and wherever, what was acknowledged is there afterwards, in order,
//! and nothing is half there.

use super::contract::Random;
use super::sim_files::{Fault, SimFiles};
use super::{Address, Durability, Health, LogStore, LogStoreOptions, MemoryBase, PageSize, RowChange, Span};
use super::{Sequence, Store, StoreError};
use crate::record::Stamp;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

type Rows = BTreeMap<Address, Bytes>;

/// What may be found after a crash.
#[derive(Clone, Default)]
struct Model {
    /// After the last acknowledged append.
    acknowledged: Rows,
    last: Sequence,
    /// Appends tried since and refused or cut off: one of them may surface.
    doubtful: Vec<Rows>,
}

struct World {
    files: SimFiles,
    base: MemoryBase,
    options: LogStoreOptions,
    model: Model,
    random: Random,
    trail: Vec<String>,
}

fn with(rows: &Rows, changes: &[RowChange]) -> Rows {
    let mut after = rows.clone();
    for (address, row) in changes {
        match row {
            Some(row) => after.insert(address.clone(), row.clone()),
            None => after.remove(address),
        };
    }
    after
}

fn contents(store: &dyn Store) -> Rows {
    let (mut found, mut span) = (Rows::new(), Span::everything());
    loop {
        let page = store.scan(&span, PageSize::rows(16)).unwrap();
        found.extend(page.rows);
        match page.next {
            Some(next) => span = span.rest(next),
            None => return found,
        }
    }
}

impl World {
    fn new(seed: u64) -> World {
        let options = LogStoreOptions {
            segment_bytes: 3 << 10,
            recent_bytes_max: 32 << 10,
            cache_bytes_max: 16 << 10,
            salt: 3,
            ..LogStoreOptions::default()
        };
        let (files, base) = (SimFiles::new(seed), MemoryBase::new());
        World { files, base, options, model: Model::default(), random: Random(seed + 1), trail: Vec::new() }
    }

    fn open(&self) -> Result<LogStore, super::StoreOpenError> {
        let opened = LogStore::open(Arc::new(self.files.clone()), Arc::new(self.base.clone()), self.options.clone());
        opened.map(|(store, _)| store)
    }

    /// Works until the steps are done, or the machine stops, or the store is fenced.
    fn work(&mut self, store: &LogStore, steps: usize) {
        for _ in 0..steps {
            match self.random.below(12) {
                0 => drop(store.checkpoint(&mut || ())),
                1 => {
                    self.base.fail_loads(Some("half-way"));
                    drop(store.checkpoint(&mut || ()));
                    self.base.fail_loads(None);
                }
                2 => drop(store.prepare()),
                choice => {
                    let count = if choice == 3 { 30 } else { 1 + self.random.below(4) };
                    let rows: Vec<RowChange> = (0..count).map(|_| self.random.row()).collect();
                    let after = with(&self.model.acknowledged, &rows);
                    match store.append(rows, Stamp(self.model.last.0)) {
                        Ok(sequence) => {
                            assert_eq!(sequence, self.model.last.next());
                            self.model = Model { acknowledged: after, last: sequence, doubtful: Vec::new() };
                            assert!(contents(store) == self.model.acknowledged, "not what was acknowledged");
                        }
                        Err(error) => {
                            self.trail.push(format!("append after {}: {error}", self.model.last.0));
                            self.model.doubtful.push(after);
                            if self.files.is_crashed() || matches!(error, StoreError::Fenced(_)) {
                                return;
                            }
                            assert!(contents(store) == self.model.acknowledged, "a refused append is visible");
                        }
                    }
                }
            }
            if self.files.is_crashed() {
                return;
            }
        }
    }

    /// Opens again after a crash, perhaps crashing on the way, and looks whether everything is there.
    fn reopen(&mut self, crash_on_the_way: Option<u64>) -> LogStore {
        self.files.crash();
        if let Some(operation) = crash_on_the_way {
            self.files.fail_at(self.files.operations().all + operation, Fault::Crash);
            drop(self.open());
            self.files.crash();
        }
        let store = self.open().unwrap_or_else(|error| panic!("{error}: {:#?}", self.trail));
        let found = contents(&store);
        let last = store.last_sequence();
        if last == self.model.last {
            let same = found == self.model.acknowledged;
            assert!(same, "after {}: {found:?} instead of {:?}", last.0, self.model.acknowledged);
        } else {
            assert_eq!(last, self.model.last.next(), "{:#?}", self.trail);
            assert!(self.model.doubtful.contains(&found), "half an append surfaced: {found:?}");
        }
        self.model = Model { acknowledged: found, last, doubtful: Vec::new() };
        store
    }
}

#[test]
fn a_crash_at_any_operation_loses_nothing_acknowledged() {
    for seed in 0..5 {
        let mut world = World::new(seed);
        let store = world.open().unwrap();
        world.work(&store, 60);
        let operations = world.files.operations().all;
        assert!(operations > 60, "{operations}");
        for at in 0..operations {
            let mut world = World::new(seed);
            world.files.fail_at(at, Fault::Crash);
            if let Ok(store) = world.open() {
                world.work(&store, 60);
            }
            // The recovery too is cut short, at an operation that moves along.
            let store = world.reopen((at % 3 > 0).then_some(at % 7));
            world.work(&store, 10);
            let store = world.reopen(None);
            world.work(&store, 10);
            world.reopen(Some(at % 5));
        }
    }
}

#[test]
fn an_error_at_any_operation_is_reported_and_loses_nothing_acknowledged() {
    for seed in 0..3 {
        let mut world = World::new(seed);
        let store = world.open().unwrap();
        world.work(&store, 60);
        for at in 0..world.files.operations().all {
            for error in [ErrorKind::StorageFull, ErrorKind::Other] {
                let mut world = World::new(seed);
                world.files.fail_at(at, Fault::Error(error));
                // A second one, soon after: what a failure left behind meets another failure.
                world.files.fail_at(at + 1 + at % 4, Fault::Error(error));
                if let Ok(store) = world.open() {
                    world.work(&store, 60);
                }
                let store = world.reopen(None);
                world.work(&store, 5);
                world.reopen(None);
            }
        }
    }
}

#[test]
fn without_syncs_a_crash_leaves_a_prefix() {
    for seed in 0..300 {
        let mut world = World::new(seed);
        world.options.durability = if seed % 2 == 0 { Durability::None } else { Durability::Interval { ms: 50 } };
        let mut states = vec![(Sequence(0), Rows::new())];
        let mut store = world.open().unwrap();
        for _ in 0..3 {
            let (mut rows, mut synced) = (states.last().unwrap().1.clone(), store.last_sequence());
            for step in 0..40 {
                match world.random.below(8) {
                    0 if step % 3 == 0 => drop(store.checkpoint(&mut || ()).unwrap()),
                    0 | 1 if seed % 2 == 1 => {
                        store.sync().unwrap();
                        synced = store.last_sequence();
                    }
                    _ => {
                        let changes: Vec<RowChange> = (0..3).map(|_| world.random.row()).collect();
                        rows = with(&rows, &changes);
                        states.push((store.append(changes, Stamp(1)).unwrap(), rows.clone()));
                    }
                }
            }
            world.files.crash();
            store = world.open().unwrap();
            let last = store.last_sequence();
            assert!(last >= synced, "seed {seed}: synced through {}, found {}", synced.0, last.0);
            states.retain(|(sequence, _)| *sequence <= last);
            assert_eq!(states.last(), Some(&(last, contents(&store))), "seed {seed}");
        }
    }
}

#[test]
fn a_failed_sync_fences_the_store_until_a_restart() {
    let world = World::new(1);
    let store = world.open().unwrap();
    let row = |name: &str| vec![(Address::fact(name), Some(Bytes::from_static(b"v")))];
    store.append(row("before"), Stamp(1)).unwrap();
    world.files.fail_syncs(Some(ErrorKind::Other));
    assert!(matches!(store.append(row("during"), Stamp(1)), Err(StoreError::Fenced(_))));
    world.files.fail_syncs(None);
    assert!(matches!(store.append(row("after"), Stamp(1)), Err(StoreError::Fenced(_))));
    assert!(matches!(store.sync(), Err(StoreError::Fenced(_))));
    assert!(matches!(store.health(), Health::Fenced(_)));
    assert_eq!(contents(&store).len(), 1, "what could not be synced is not shown");
    world.files.crash();
    let store = world.open().unwrap();
    assert_eq!(store.health(), Health::Ok);
    assert_eq!(store.read(&Address::fact("after")), Ok(None));
}

#[test]
fn a_refused_append_never_stands_in_front_of_its_successor() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        let store = world.open().unwrap();
        let row = |bytes: usize| vec![(Address::fact("x"), Some(Bytes::from(vec![bytes as u8; bytes])))];
        store.append(row(2_000), Stamp(1)).unwrap();
        world.files.fail_writes(Some(ErrorKind::Other));
        store.append(row(100), Stamp(1)).unwrap_err();
        world.files.fail_writes(None);
        // Does not fit behind the first: goes into the next segment, under the number of the one that was refused.
        store.append(row(1_500), Stamp(1)).unwrap();
        world.model.acknowledged = with(&Rows::new(), &row(1_500));
        world.model.last = Sequence(2);
        world.reopen(None);
    }
}

#[test]
fn a_full_disk_makes_the_store_read_only_until_there_is_room() {
    let world = World::new(2);
    let store = world.open().unwrap();
    let row = |at: u32| vec![(Address::fact(&at.to_string()), Some(Bytes::from(vec![1; 900])))];
    store.append(row(0), Stamp(1)).unwrap();
    world.files.fail_writes(Some(ErrorKind::StorageFull));
    for at in 1..4 {
        assert!(matches!(store.append(row(at), Stamp(1)), Err(StoreError::ReadOnly(_))));
        assert!(matches!(store.health(), Health::ReadOnly(_)));
    }
    assert_eq!(store.read(&Address::fact("0")).unwrap().unwrap().len(), 900);
    world.files.fail_writes(None);
    for at in 4..20 {
        store.append(row(at), Stamp(1)).unwrap();
    }
    assert_eq!((store.health(), contents(&store).len()), (Health::Ok, 17));
}

#[test]
fn when_the_base_falls_behind_appends_are_refused_and_not_stalled() {
    let world = World::new(3);
    let store = world.open().unwrap();
    let row = |at: u32| vec![(Address::fact(&at.to_string()), Some(Bytes::from(vec![1; 900])))];
    let refused = (0..).find_map(|at| store.append(row(at), Stamp(1)).err());
    assert_eq!(refused, Some(StoreError::Overloaded));
    assert!(store.usage().recent_bytes > 48 << 10 && store.due().checkpoint);
    store.checkpoint(&mut || ()).unwrap();
    store.append(row(0), Stamp(1)).unwrap();
    // Where the base itself is what fails, the refusal says so.
    world.base.fail_loads(Some("no room"));
    store.checkpoint(&mut || ()).unwrap_err();
    let refused = (0..).find_map(|at| store.append(row(at), Stamp(1)).err());
    assert_eq!(refused, Some(StoreError::ReadOnly("the base: no room".into())));
}

/// Names of segments that hold frames, oldest first.
fn segments(files: &SimFiles) -> Vec<String> {
    let names = super::Files::list(files).unwrap().into_iter().map(|(name, _)| name);
    let mut segments: Vec<String> = names.filter(|name| name.starts_with("segment-")).collect();
    segments.sort();
    segments
}

#[test]
fn rot_in_acknowledged_data_stops_the_start_and_names_the_place() {
    let filled = || {
        let world = World::new(4);
        let store = world.open().unwrap();
        for at in 0..12 {
            store.append(vec![(Address::fact("x"), Some(Bytes::from(vec![at; 500])))], Stamp(1)).unwrap();
        }
        world
    };
    let first = segments(&filled().files)[0].clone();
    let frames_end = 5 * (48 + 6 + 4 + 500);
    let mut refused = 0;
    for offset in (0..frames_end).step_by(37) {
        let world = filled();
        world.files.damage(&first, offset, 0x40);
        let error = world.open().err().expect("opened in spite of rot").to_string();
        let frame = offset / 558 * 558;
        assert!(error.contains(&format!("{first} is damaged at byte {frame}:")), "{error}");
        refused += 1;
    }
    assert!(refused > 50);
    // The last frame of all is attested by nobody: there rot and a torn write are one.
    let world = filled();
    let last = segments(&world.files).pop().unwrap();
    world.files.damage(&last, 558 + 99, 1);
    assert_eq!(world.open().unwrap().last_sequence(), Sequence(11));
}

#[test]
fn with_peers_to_heal_it_a_log_is_opened_without_what_rotted_and_says_what_is_missing() {
    let open = |damage: &[(usize, usize)], checkpoint_after: usize| {
        let mut world = World::new(4);
        world.options.heal = true;
        let store = world.open().unwrap();
        for at in 0..12 {
            store
                .append(vec![(Address::fact(&format!("f{at}")), Some(Bytes::from(vec![at as u8; 500])))], Stamp(1))
                .unwrap();
            if at + 1 == checkpoint_after {
                store.checkpoint(&mut || ()).unwrap();
            }
        }
        let names = segments(&world.files);
        for (segment, frame) in damage {
            world.files.damage(&names[*segment], frame * 558 + 99, 4);
        }
        let opened = LogStore::open(Arc::new(world.files.clone()), Arc::new(world.base.clone()), world.options.clone());
        let (store, replayed) = opened.unwrap();
        let held =
            (0..12).filter(|at| store.read(&Address::fact(&format!("f{at}"))).unwrap().is_some()).collect::<Vec<_>>();
        (held, replayed.missing.is_some(), store.last_sequence())
    };
    let without = |lost: &[i32]| (0..12).filter(|at| !lost.contains(at)).collect::<Vec<_>>();
    assert_eq!(open(&[], 0), (without(&[]), false, Sequence(12)));
    // Five frames fill a segment. What lies behind the rot is not lost with it.
    assert_eq!(open(&[(0, 1)], 0), (without(&[1]), true, Sequence(12)));
    assert_eq!(open(&[(0, 4), (1, 0)], 0), (without(&[4, 5]), true, Sequence(12)));
    // The last one may never have been acknowledged, and yet it may.
    assert_eq!(open(&[(2, 1)], 0), (without(&[11]), true, Sequence(11)));
    // The base has them: the segment is live for what comes after.
    assert_eq!(open(&[(0, 1)], 3), (without(&[]), false, Sequence(12)));
    assert_eq!(open(&[(0, 2)], 3), (without(&[]), false, Sequence(12)));
}

#[test]
fn rot_in_what_the_base_has_does_not_stop_the_start() {
    let world = World::new(4);
    let store = world.open().unwrap();
    for at in 0..4 {
        store.append(vec![(Address::fact("x"), Some(Bytes::from(vec![at; 500])))], Stamp(1)).unwrap();
        if at == 1 {
            store.checkpoint(&mut || ()).unwrap();
        }
    }
    let first = segments(&world.files)[0].clone();
    world.files.damage(&first, 558 + 99, 1);
    assert_eq!(world.open().unwrap().last_sequence(), Sequence(4));
}

#[test]
fn a_missing_segment_stops_the_start() {
    let world = World::new(5);
    let store = world.open().unwrap();
    for at in 0..20 {
        store.append(vec![(Address::fact("x"), Some(Bytes::from(vec![at; 500])))], Stamp(1)).unwrap();
    }
    let names = segments(&world.files);
    super::Files::remove(&world.files, &names[1]).unwrap();
    assert!(world.open().is_err());
}

#[test]
fn garbage_in_the_folder_never_panics() {
    let mut random = Random(9);
    for round in 0..300 {
        let world = World::new(round);
        for number in 0..random.below(4) {
            let bytes: Vec<u8> = (0..random.below(3_000)).map(|_| random.below(256) as u8).collect();
            let name = ["segment-", "free-", "new-", "other-"][random.below(4) as usize];
            world.files.put(&format!("{name}{number:016x}"), &bytes);
        }
        world.files.put("segment-", b"");
        world.files.put("segment-ffffffffffffffff", b"KLf1");
        if let Ok(store) = world.open() {
            assert_eq!(store.last_sequence(), Sequence(0));
        }
    }
}

#[test]
fn a_reader_overtaken_by_a_checkpoint_leaves_no_stale_row_behind() {
    use super::base::{Base, BaseError, BaseSnapshot, Mark};
    use super::{Page, Peek};
    use std::sync::{Mutex, OnceLock};

    /// A base whose next read is overtaken: between reading and answering it lets something else happen.
    struct Overtaken {
        base: MemoryBase,
        store: OnceLock<Arc<LogStore>>,
        meanwhile: Mutex<Option<fn(&LogStore)>>,
    }

    impl Base for Overtaken {
        fn get(&self, address: &Address) -> Result<Option<Bytes>, BaseError> {
            let row = self.base.get(address);
            let meanwhile = self.meanwhile.lock().unwrap().take();
            if let (Some(meanwhile), Some(store)) = (meanwhile, self.store.get()) {
                meanwhile(store);
            }
            row
        }
        fn scan(&self, span: &Span, size: PageSize) -> Result<Page, BaseError> {
            self.base.scan(span, size)
        }
        fn snapshot(&self) -> Box<dyn BaseSnapshot> {
            self.base.snapshot()
        }
        fn load(
            &self,
            rows: &mut dyn Iterator<Item = RowChange>,
            mark: Mark,
            pace: &mut dyn FnMut(),
        ) -> Result<(), BaseError> {
            self.base.load(rows, mark, pace)
        }
        fn mark(&self) -> Result<Mark, BaseError> {
            self.base.mark()
        }
        fn bytes(&self) -> u64 {
            self.base.bytes()
        }
    }

    fn write(store: &LogStore, bytes: usize) {
        store.append(vec![(Address::fact("x"), Some(Bytes::from(vec![2; bytes])))], Stamp(1)).unwrap();
    }
    let overtakings: [fn(&LogStore); 4] = [
        |store| write(store, 10),
        |store| {
            write(store, 10);
            store.checkpoint(&mut || ()).unwrap();
        },
        // Too large for the cache: there the checkpoint leaves nothing that would show the reader's row to be old.
        |store| {
            write(store, 9_000);
            store.checkpoint(&mut || ()).unwrap();
        },
        |store| {
            write(store, 10);
            store.checkpoint(&mut || ()).unwrap();
            write(store, 9_000);
            store.checkpoint(&mut || ()).unwrap();
        },
    ];
    for meanwhile in overtakings {
        let base = MemoryBase::new();
        let old = (Address::fact("x"), Some(Bytes::from_static(b"old")));
        let mark = Mark { sequence: Sequence(0), last_stamp: Stamp(0) };
        base.load(&mut [old].into_iter(), mark, &mut || ()).unwrap();
        let base = Arc::new(Overtaken { base, store: OnceLock::new(), meanwhile: Mutex::new(Some(meanwhile)) });
        let options = LogStoreOptions { cache_bytes_max: 64 << 10, ..LogStoreOptions::default() };
        let (store, _) = LogStore::open(Arc::new(SimFiles::new(1)), base.clone(), options).unwrap();
        let store = Arc::new(store);
        base.store.set(store.clone()).ok().unwrap();
        store.read(&Address::fact("x")).unwrap();
        // From here on nothing may say "old": not the cache, not after another checkpoint.
        for _ in 0..2 {
            if let Peek::Known(row) = store.peek(&Address::fact("x")) {
                assert_eq!(row.unwrap()[0], 2);
            }
            assert_eq!(store.read(&Address::fact("x")).unwrap().unwrap()[0], 2);
            store.checkpoint(&mut || ()).unwrap();
        }
    }
}
