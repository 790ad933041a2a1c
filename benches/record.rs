//! What a record costs: to merge, to name, to write down and read back, and in bytes beside its values. The table of
//! bytes comes first, whatever else is chosen.

#![allow(clippy::print_stdout, reason = "a program whose result is what it prints")]

use criterion::{Criterion, criterion_group, criterion_main};
use kringle::record::{Actor, Content, Context, Dot, Edit, Key, Record, RequestId, Row, Seen, Stamp};
use std::hint::black_box;
use std::ops::Range;

/// When the first write is made, in milliseconds since 1970.
const BEGAN_MS: u64 = 1_700_000_000_000;
const VALUE_BYTES: usize = 100;

/// The name of the write that `actor` makes so many milliseconds after the first. Actors are random numbers.
fn dot(actor: u64, after_ms: u64) -> Dot {
    Dot { stamp: Stamp::from_ms(BEGAN_MS + after_ms), actor: Actor(actor.wrapping_mul(0x9e37_79b9_7f4a_7c15)) }
}

fn content() -> Content {
    Content::plain(vec![7; VALUE_BYTES])
}

fn put(record: &Record, dot: Dot) -> Record {
    record.write(&Seen::Everything, dot, Some(content())).expect("one sibling")
}

/// A write of somebody who had seen nothing.
fn put_blind(record: &Record, dot: Dot) -> Record {
    record.write(&Seen::Only(Context::new()), dot, Some(content())).expect("few siblings")
}

fn add(record: &Record, dot: Dot, request: Option<u64>) -> Record {
    let request = request.map(|number| RequestId::of(&number.to_le_bytes()));
    record.edit(&Edit::Add { by: 1_000, request }, dot).expect("a small number")
}

fn fresh() -> Record {
    put(&Record::default(), dot(1, 0))
}

/// Written by so many actors in turn, each of which had seen all before.
fn by_actors(count: u64) -> Record {
    (1..=count).fold(Record::default(), |record, number| put(&record, dot(number, number)))
}

/// As many siblings, of these actors.
fn siblings(actors: impl IntoIterator<Item = u64>) -> Record {
    actors.into_iter().fold(Record::default(), |record, number| put_blind(&record, dot(number, number)))
}

/// A counter on which these actors counted by turns, in requests with names.
fn counter(base: &Record, actors: &[u64], requests: Range<u64>) -> Record {
    let actor = |number: u64| actors[number as usize % actors.len()];
    requests.fold(base.clone(), |record, number| add(&record, dot(actor(number), 10 + number), Some(number)))
}

/// What is left of it once all owners have agreed on what may be forgotten.
fn compacted(record: &Record) -> Record {
    let now_ms = BEGAN_MS + 1_000;
    record.forget(&record.forgettable(now_ms), now_ms)
}

fn deleted(record: &Record) -> Record {
    record.write(&Seen::Everything, dot(1, 1), None).expect("a delete")
}

fn metadata(_: &mut Criterion) {
    let expiring = Content { expires_ms: Some(BEGAN_MS + 60_000), ..content() };
    let expiring = Record::default().write(&Seen::Everything, dot(1, 0), Some(expiring)).expect("one sibling");
    let counted = counter(&Record::default(), &[1, 2, 3], 0..10);
    let rows = [
        ("written once", fresh()),
        ("written once, expiring", expiring),
        ("by three owners in turn", by_actors(3)),
        ("by 100 actors in turn", by_actors(100)),
        ("the same, once compacted", compacted(&by_actors(100))),
        ("three siblings", siblings(1..=3)),
        ("deleted, until it is forgotten", deleted(&fresh())),
        (
            "a counter of three actors",
            add(&add(&add(&Record::default(), dot(1, 0), None), dot(2, 1), None), dot(3, 2), None),
        ),
        ("the same, remembering 10 requests", counted),
    ];
    println!("bytes of a row that are not its values, values of {VALUE_BYTES} B, a checksum of 8 B among them");
    println!("{:<36} {:>9} {:>9} {:>9} {:>9} {:>9}", "", "metadata", "row", "values", "actors", "siblings");
    for (name, record) in rows {
        let values: usize = record.siblings().iter().map(|sibling| sibling.content.value.len()).sum();
        let (actors, siblings) = (record.context().entries().len(), record.siblings().len());
        let row = Row::of(record).encode().len();
        println!("{name:<36} {:>9} {row:>9} {values:>9} {actors:>9} {siblings:>9}", row - values);
    }
    println!();
}

fn merging(criterion: &mut Criterion) {
    let half = counter(&Record::default(), &[1, 2, 3], 0..10);
    let pairs = [
        ("a lone value and a newer one", fresh(), put(&fresh(), dot(2, 1))),
        ("a lone value and its equal", fresh(), fresh()),
        ("a lone value and its tombstone", fresh(), deleted(&fresh())),
        ("three siblings and three others", siblings(1..=3), siblings(4..=6)),
        (
            "counters of both sides of a split, three actors, 15 requests each",
            counter(&half, &[1, 2], 10..15),
            counter(&half, &[3], 15..20),
        ),
    ];
    for (name, ours, theirs) in &pairs {
        criterion.bench_function(&format!("merge: {name}"), |bencher| {
            bencher.iter(|| black_box(ours).merge(black_box(theirs)));
        });
        criterion.bench_function(&format!("includes: {name}"), |bencher| {
            bencher.iter(|| black_box(ours).includes(black_box(theirs)));
        });
    }
}

fn naming_and_writing_down(criterion: &mut Criterion) {
    let key = Key::new("key:000000000007").expect("a short key");
    let records = [
        ("a lone value", fresh()),
        ("a value of three actors", by_actors(3)),
        ("a value of 100 actors", by_actors(100)),
        ("three siblings", siblings(1..=3)),
        ("a tombstone", deleted(&fresh())),
        ("a counter of three actors and 10 requests", counter(&Record::default(), &[1, 2, 3], 0..10)),
    ];
    for (name, record) in records {
        criterion.bench_function(&format!("version digest of {name}"), |bencher| {
            bencher.iter(|| black_box(&record).version(&key));
        });
        let row = Row::of(record);
        criterion.bench_function(&format!("encode {name}"), |bencher| bencher.iter(|| black_box(&row).encode()));
        let bytes = row.encode();
        criterion.bench_function(&format!("decode {name}"), |bencher| {
            bencher.iter(|| Row::decode(black_box(&bytes)).expect("just written"));
        });
        criterion.bench_function(&format!("decode {name}, its checksum known to fit"), |bencher| {
            bencher.iter(|| Row::decode_kept(black_box(&bytes)).expect("just written"));
        });
    }
}

criterion_group!(benches, metadata, merging, naming_and_writing_down);
criterion_main!(benches);
