//! The committer on a log, stopped at every single operation of its disk: every write, sync, rename and removal, torn and
//! forgotten; then at every operation of the recovery after that. Whatever was answered before the stop is there
//! afterwards, and no record is half there.

use bytes::Bytes;
use kringle::merkle::Forest;
use kringle::record::{Actor, Clock, Content, Context, Edit, Key, Record, Row, Seen, Stamp};
use kringle::storage::sim_files::{Fault, SimFiles};
use kringle::storage::{
    Address, Change, Committer, Feed, HINT_BYTES_MAX, Hint, HintLedger, LogStore, LogStoreOptions, MemoryBase, Outcome,
    Store,
};
use std::collections::BTreeMap;
use std::sync::Arc;

const COMMITS: u64 = 40;

struct Machine {
    files: SimFiles,
    base: MemoryBase,
    lives: u64,
}

/// What was answered: the record under each address, and the latest stamp.
#[derive(Default)]
struct Answered {
    records: BTreeMap<Address, Record>,
    last: Stamp,
}

impl Machine {
    fn new(seed: u64) -> Machine {
        Machine { files: SimFiles::new(seed), base: MemoryBase::new(), lives: 0 }
    }

    fn open(&mut self) -> Option<(Arc<LogStore>, Committer)> {
        self.lives += 1;
        let options = LogStoreOptions {
            segment_bytes: 2 << 10,
            recent_bytes_max: 64 << 10,
            cache_bytes_max: 4 << 10,
            salt: 5,
            ..LogStoreOptions::default()
        };
        let opened = LogStore::open(Arc::new(self.files.clone()), Arc::new(self.base.clone()), options);
        let store = Arc::new(opened.ok()?.0);
        let hints = Arc::new(HintLedger::scan(&*store, HINT_BYTES_MAX).0);
        let (forest, feed) = (Arc::new(Forest::new()), Arc::new(Feed::new(1, 16, 1 << 20)));
        let clock = Clock::starting_after(store.last_stamp());
        let committer = Committer::new(store.clone(), forest, feed, hints, Arc::default(), Actor(self.lives), clock);
        Some((store, committer))
    }

    /// Commits small batches, with a checkpoint now and then, until done or stopped.
    fn work(&mut self, store: &LogStore, committer: &mut Committer, answered: &mut Answered) {
        for commit in 0..COMMITS {
            if commit % 9 == 8 {
                // A stop in here is a stop like any other.
                let _ = store.checkpoint(&mut || ());
            }
            if store.due().segment {
                let _ = store.prepare();
            }
            let changes = batch(self.lives, commit);
            let addresses: Vec<Address> = changes.iter().map(address).collect();
            for (address, result) in addresses.into_iter().zip(committer.commit(1_000 + commit, changes)) {
                match result {
                    Ok(Outcome::Written { record, .. }) => {
                        let dot = record.context().newest().expect("a write leaves a dot");
                        assert!(dot.stamp > answered.last, "stamps do not rise over a restart");
                        answered.last = dot.stamp;
                        answered.records.insert(address, record);
                    }
                    Ok(_) => {}
                    Err(_) if self.files.is_crashed() => return,
                    Err(refused) => panic!("refused without a fault: {refused:?}"),
                }
            }
        }
    }

    /// Opens after a stop, itself stopped at its own operation `stop` first, and compares.
    fn recover(&mut self, stop: Option<u64>, answered: &mut Answered) {
        self.files.crash();
        if let Some(stop) = stop {
            self.files.fail_at(self.files.operations().all + stop, Fault::Crash);
            drop(self.open());
            self.files.crash();
        }
        let (store, mut committer) = self.open().expect("a disk that only lost its power can be opened");
        for (address, record) in &answered.records {
            let found = read(&store, address);
            assert!(found.includes(record), "answered {record:?}, found {found:?} at {address:?}");
        }
        self.work(&store, &mut committer, answered);
    }
}

fn key(number: u64) -> Key {
    Key::new(format!("key {number}")).expect("a short key")
}

fn batch(life: u64, commit: u64) -> Vec<Change> {
    let value = |what: &str| Some(Content::plain(Bytes::from(format!("{what} {life}/{commit} {}", "x".repeat(60)))));
    let seen = if commit % 4 == 3 { Seen::Only(Context::new()) } else { Seen::Everything };
    let targets = vec!["http://gone:1".into()];
    vec![
        Change::Write { key: key(commit % 3), edit: Edit::write(Seen::Everything, value("a")), until: Stamp::MAX },
        Change::Write {
            key: key(3 + commit % 2),
            edit: Edit::write(seen, if commit.is_multiple_of(5) { None } else { value("b") }),
            until: Stamp::MAX,
        },
        Change::HintWrite { key: key(commit % 4), edit: Edit::write(Seen::Everything, value("hint")), targets },
    ]
}

fn address(change: &Change) -> Address {
    match change {
        Change::HintWrite { key, .. } => Address::hint(key),
        Change::Write { key, .. } => Address::data(key),
        other => unreachable!("not in the workload: {other:?}"),
    }
}

fn read(store: &LogStore, address: &Address) -> Record {
    match store.read(address).expect("the base can be read") {
        None => Record::default(),
        Some(row) if *address.as_bytes() == *Address::data(&address.key().expect("a key")).as_bytes() => {
            Row::decode(&row).expect("whole").record
        }
        Some(row) => Hint::decode(&row).expect("whole").record,
    }
}

#[test]
fn a_node_stopped_at_any_operation_of_its_disk_keeps_what_it_answered() {
    for seed in 0..3 {
        let mut whole = Machine::new(seed);
        let (store, mut committer) = whole.open().expect("an empty disk");
        whole.work(&store, &mut committer, &mut Answered::default());
        let operations = whole.files.operations();
        assert!(operations.renames > 2 && operations.all > 2 * COMMITS, "{operations:?}");
        for at in 0..operations.all {
            let (mut machine, mut answered) = (Machine::new(seed), Answered::default());
            machine.files.fail_at(at, Fault::Crash);
            if let Some((store, mut committer)) = machine.open() {
                machine.work(&store, &mut committer, &mut answered);
            }
            assert!(machine.files.is_crashed(), "the run is the same up to the fault");
            // Then the recovery, stopped at one of its own operations: each, over the points in turn.
            let stop = at % 12;
            machine.recover(Some(stop), &mut answered);
            machine.recover(None, &mut answered);
        }
    }
}
