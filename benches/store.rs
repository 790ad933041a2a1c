//! What the store costs: commits, reads where the row lies in memory or on disk, opening, listing in key order.
//!
//! `cargo bench --bench store`. With `KRINGLE_STALL_SECONDS=20` it only measures sustained commits beside checkpoints,
//! against the bare sync rate of the same disk: throughput, p50, p99, longest.

use bytes::Bytes;
use criterion::{BatchSize, Criterion};
use kringle::merkle::Forest;
use kringle::placement::Partition;
use kringle::protocol::{Filter, ListRequest, Place};
use kringle::record::{Actor, Clock, Content, Edit, Key, Seen, Stamp};
use kringle::replica;
use kringle::storage::{
    Address, Change, Committer, Feed, Health, HintLedger, LogStore, OpenOptions, Page, PageSize, Peek, Rebuild,
    RebuildStep, RowChange, Sequence, Span, Store, StoreError, Usage, open,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn key(number: u64) -> Key {
    Key::new(format!("key:{number:012}")).unwrap()
}

fn write(number: u64) -> Change {
    let mut value = vec![0; 100];
    value[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    Change::Write {
        key: key(number),
        edit: Edit::write(Seen::Everything, Some(Content::plain(value))),
        until: Stamp::MAX,
    }
}

/// A store that remembers its slowest read and append, to tell where a stall came from.
struct Watched {
    store: Arc<dyn Store>,
    slowest_read_us: AtomicU64,
    slowest_append_us: AtomicU64,
}

impl Watched {
    fn timed<T>(slowest_us: &AtomicU64, act: impl FnOnce() -> T) -> T {
        let before = Instant::now();
        let result = act();
        slowest_us.fetch_max(before.elapsed().as_micros() as u64, Ordering::Relaxed);
        result
    }
}

impl Store for Watched {
    fn peek(&self, address: &Address) -> Peek {
        Watched::timed(&self.slowest_read_us, || self.store.peek(address))
    }
    fn read(&self, address: &Address) -> Result<Option<Bytes>, StoreError> {
        Watched::timed(&self.slowest_read_us, || self.store.read(address))
    }
    fn scan(&self, span: &Span, size: PageSize) -> Result<Page, StoreError> {
        self.store.scan(span, size)
    }
    fn append(&self, rows: Vec<RowChange>, last_stamp: Stamp) -> Result<Sequence, StoreError> {
        Watched::timed(&self.slowest_append_us, || self.store.append(rows, last_stamp))
    }
    fn sync(&self) -> Result<(), StoreError> {
        self.store.sync()
    }
    fn last_sequence(&self) -> Sequence {
        self.store.last_sequence()
    }
    fn last_stamp(&self) -> Stamp {
        self.store.last_stamp()
    }
    fn health(&self) -> Health {
        self.store.health()
    }
    fn usage(&self) -> Usage {
        self.store.usage()
    }
}

struct Node {
    watched: Arc<Watched>,
    store: Arc<LogStore>,
    rebuild: Option<Rebuild>,
    forest: Arc<Forest>,
    committer: Committer,
}

fn node(folder: &Path) -> Node {
    let opened = open(folder, OpenOptions::new("bench", 1, 2)).unwrap();
    let forest = Arc::new(Forest::new());
    let store = opened.store.clone();
    let feed = Arc::new(Feed::new(1, 10_000, 1 << 20));
    let clock = Clock::starting_after(store.last_stamp());
    let hints = Arc::new(HintLedger::new(1 << 20));
    let (slowest_read_us, slowest_append_us) = (AtomicU64::new(0), AtomicU64::new(0));
    let watched = Arc::new(Watched { store: store.clone(), slowest_read_us, slowest_append_us });
    let committer = Committer::new(watched.clone(), forest.clone(), feed, hints, Arc::default(), Actor(7), clock);
    // The rebuild keeps a snapshot of the base alive: to be used or dropped at once.
    Node { watched, store, rebuild: Some(opened.rebuild), forest, committer }
}

/// A folder with so many keys, all in the base.
fn filled(folder: &Path, keys: u64) {
    let mut node = node(folder);
    node.rebuild = None;
    for start in (0..keys).step_by(1_000) {
        let outcomes = node.committer.commit(1, (start..keys.min(start + 1_000)).map(write).collect());
        assert!(outcomes.iter().all(Result::is_ok));
        if node.store.due().checkpoint {
            node.store.checkpoint(&mut || ()).unwrap();
        }
    }
    node.store.checkpoint(&mut || ()).unwrap();
}

fn commits(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let mut node = node(folder.path());
    node.rebuild = None;
    let mut next = 0;
    criterion.bench_function("commit 64 x 100 B, synced", |bencher| {
        bencher.iter_batched(
            || {
                next += 64;
                if node.store.due().checkpoint {
                    node.store.checkpoint(&mut || ()).unwrap();
                }
                (next - 64..next).map(|number| write(number % 100_000)).collect::<Vec<_>>()
            },
            |changes| node.committer.commit(1, changes),
            BatchSize::PerIteration,
        );
    });
}

fn reads(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 1_000_000);
    let mut node = node(folder.path());
    node.committer.commit(1, (0..1_000).map(write).collect());
    let store = node.store.clone();
    let mut at = 0;
    criterion.bench_function("get, recent", |bencher| {
        bencher.iter(|| {
            at = (at + 1) % 1_000;
            store.peek(&Address::data(&key(at)))
        });
    });
    (1_000..2_000).for_each(|number| drop(store.read(&Address::data(&key(number)))));
    criterion.bench_function("get, cached", |bencher| {
        bencher.iter(|| {
            at = (at + 1) % 1_000;
            store.peek(&Address::data(&key(1_000 + at)))
        });
    });
    let mut at = 1u64;
    criterion.bench_function("get, base of 1,000,000", |bencher| {
        bencher.iter(|| {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            store.read(&Address::data(&key((at >> 33) % 1_000_000)))
        });
    });
    criterion.bench_function("get of an absent key, base of 1,000,000", |bencher| {
        bencher.iter(|| {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            store.read(&Address::data(&key(at >> 8)))
        });
    });
}

/// Keys in order over all partitions, as a node answers for them, in answers of so many keys.
fn list(store: &dyn Store, limit: usize, keys_max: u32, prefix: &'static str) -> usize {
    let filter = Filter { prefix: Bytes::from_static(prefix.as_bytes()), delimiter: Bytes::new() };
    let partitions = Partition::all().collect();
    let mut request =
        ListRequest { partitions, filter, from: Place::default(), keys_max, bytes_max: 8 << 20, listing: Some(1) };
    let mut kept = None;
    let mut listed = 0;
    loop {
        let found = replica::list(store, &request, kept.take(), |_| true, 0, &mut || false).unwrap();
        kept = found.ahead;
        listed += found.answer.entries.len();
        match found.answer.next {
            Some(next) if listed < limit => request.from = next,
            _ => return listed,
        }
    }
}

fn listing(criterion: &mut Criterion) {
    for keys in [100_000u64, 1_000_000] {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path(), keys);
        let store = node(folder.path()).store;
        let name = format!("list in key order, 1,024 partitions, {keys} keys");
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10);
        group.bench_function("one answer of 100", |bencher| bencher.iter(|| list(&*store, 100, 100, "")));
        group.bench_function("one answer of 1,000", |bencher| bencher.iter(|| list(&*store, 1_000, 1_000, "")));
        group.bench_function("one answer of 4,096", |bencher| bencher.iter(|| list(&*store, 4_096, 4_096, "")));
        group.bench_function("one answer of 16,384", |bencher| bencher.iter(|| list(&*store, 16_384, 16_384, "")));
        group.bench_function("a prefix that no key has", |bencher| bencher.iter(|| list(&*store, 1, 1_000, "none")));
        group.bench_function("all, answers of 4,096", |bencher| {
            bencher.iter(|| assert_eq!(list(&*store, usize::MAX, 4_096, ""), keys as usize));
        });
    }
}

fn opening(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open, with digests");
    group.sample_size(10);
    for keys in [100_000, 1_000_000] {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path(), keys);
        // A tail to replay, as kill -9 leaves it.
        let mut tail = node(folder.path());
        for start in (0..40_000).step_by(100) {
            tail.committer.commit(1, (start..start + 100).map(write).collect());
        }
        drop(tail);
        group.bench_function(format!("{keys} keys, 40,000 of them replayed"), |bencher| {
            bencher.iter(|| {
                let mut node = node(folder.path());
                let mut rebuild = node.rebuild.take().unwrap();
                while rebuild.step(&node.forest).unwrap() != (RebuildStep::Done { damaged: 0 }) {}
                node
            });
        });
    }
}

fn report(what: &str, mut times: Vec<Duration>, elapsed: Duration, per: u64) {
    let count = times.len();
    times.sort();
    let at = |share: f64| times[((count - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    eprintln!(
        "{what}: {:.0} batches/s, {:.0} changes/s, p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.1} ms",
        count as f64 / elapsed.as_secs_f64(),
        (count as u64 * per) as f64 / elapsed.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
    );
}

/// Nanoseconds this thread has run on a core, whatever else the machine does.
fn thread_cpu() -> u64 {
    let line = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    line.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Batches of 50 as fast as they go, with checkpoints every 4 s or when due, in a thread of their own.
fn stalls(seconds: u64, keys: u64) {
    let folder = tempfile::tempdir().unwrap();
    let limit = Duration::from_secs(seconds);
    {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::create(folder.path().join("bare")).unwrap();
        file.write_all_at(&vec![0; 16 << 20], 0).unwrap();
        file.sync_all().unwrap();
        let (start, mut times, mut at) = (Instant::now(), Vec::new(), 0);
        while start.elapsed() < limit / 4 {
            let before = Instant::now();
            file.write_all_at(&[7; 10_000], at % (15 << 20)).unwrap();
            file.sync_data().unwrap();
            at += 10_000;
            times.push(before.elapsed());
        }
        report("bare write of 10 kB and fdatasync", times, start.elapsed(), 0);
    }
    let mut node = node(&folder.path().join("data"));
    node.rebuild = None;
    let (store, stop) = (node.store.clone(), Arc::new(AtomicBool::new(false)));
    let background = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut last = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
                let due = store.due();
                if due.segment {
                    store.prepare().unwrap();
                }
                if due.checkpoint || last.elapsed() > Duration::from_secs(4) {
                    let began = Instant::now();
                    let done = store.checkpoint(&mut || std::thread::sleep(Duration::from_micros(200))).unwrap();
                    if std::env::var_os("KRINGLE_STALL_VERBOSE").is_some() {
                        eprintln!("checkpoint of {} rows took {:?}", done.rows, began.elapsed());
                    }
                    last = Instant::now();
                }
            }
        }
    });
    let (start, mut times, mut next, mut refused) = (Instant::now(), Vec::new(), 1u64, 0u64);
    let mut cpu = 0;
    while start.elapsed() < limit {
        let changes: Vec<Change> = (0..50)
            .map(|_| {
                next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                write((next >> 33) % keys)
            })
            .collect();
        node.watched.slowest_read_us.store(0, Ordering::Relaxed);
        node.watched.slowest_append_us.store(0, Ordering::Relaxed);
        let (before, cpu_before) = (Instant::now(), thread_cpu());
        let outcomes = node.committer.commit(1, changes);
        let took = before.elapsed();
        cpu += thread_cpu() - cpu_before;
        match outcomes.iter().all(Result::is_ok) {
            true => times.push(took),
            false => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if took > Duration::from_millis(20) && std::env::var_os("KRINGLE_STALL_VERBOSE").is_some() {
            let read = node.watched.slowest_read_us.load(Ordering::Relaxed);
            let append = node.watched.slowest_append_us.load(Ordering::Relaxed);
            eprintln!("{took:?} at {:?}: read {read} µs, append {append} µs", start.elapsed());
        }
    }
    let core = cpu as f64 / 1e3 / 50.0 / times.len() as f64;
    eprintln!("{core:.1} µs of the committer's core a change");
    report(&format!("commits of 50 x 100 B over {keys} keys"), times, start.elapsed(), 50);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().to_owned();
    eprintln!("{refused} batches refused; {:?}; {resident}", node.store.usage());
    stop.store(true, Ordering::Relaxed);
    background.join().unwrap();
}

fn main() {
    if let Some(seconds) = std::env::var("KRINGLE_STALL_SECONDS").ok().and_then(|seconds| seconds.parse().ok()) {
        stalls(seconds, 100_000);
        stalls(seconds, 1_000_000);
        return;
    }
    let mut criterion = Criterion::default().configure_from_args().measurement_time(Duration::from_secs(5));
    commits(&mut criterion);
    reads(&mut criterion);
    listing(&mut criterion);
    opening(&mut criterion);
    criterion.final_summary();
}
