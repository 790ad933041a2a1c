//! What digests cost: a write's share of them, and what a session's questions take.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use kringle::merkle::{Entry, Forest, PartitionTree, VersionDigest};
use kringle::placement::Partition;
use kringle::record::Position;
use std::hint::black_box;

/// A key's place and digest, spread as hashes are.
fn entry(number: u64) -> (Position, Entry) {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (Position(spread), Entry { digest: VersionDigest(u128::from(spread) << 64 | u128::from(number)), live: true })
}

fn forest_of(keys: u64) -> Forest {
    let forest = Forest::new();
    for (position, entry) in (0..keys).map(entry) {
        forest.add_scanned(position, entry);
    }
    Partition::all().for_each(|partition| forest.mark_built(partition));
    forest
}

fn upkeep(criterion: &mut Criterion) {
    for keys in [100_000, 1_000_000] {
        let forest = forest_of(keys);
        let mut number = 0;
        criterion.bench_function(&format!("a write's digests at {keys} keys"), |bencher| {
            bencher.iter(|| {
                number = (number + 1) % keys;
                let (position, entry) = entry(number);
                forest.apply(position, Some(black_box(entry)), None);
                forest.apply(position, None, Some(black_box(entry)));
            });
        });
        criterion.bench_function(&format!("the root of all partitions at {keys} keys"), |bencher| {
            bencher.iter(|| black_box(forest.root(Partition::all())));
        });
    }
}

fn descent(criterion: &mut Criterion) {
    let partition = Partition::of(Position(0));
    for keys in [100_000, 1_000_000] {
        let forest = forest_of(keys);
        let leaves = || forest.leaves(partition).expect("so many keys reach every partition");
        criterion.bench_function(&format!("the tree of a partition, of {keys} keys in all"), |bencher| {
            bencher.iter_batched(leaves, |leaves| black_box(PartitionTree::build(&leaves)), BatchSize::SmallInput);
        });
    }
}

criterion_group!(benches, upkeep, descent);
criterion_main!(benches);
