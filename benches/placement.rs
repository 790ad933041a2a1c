//! What a cluster's size costs: to found its layout, to make the ring of it, and to take one in or let one go. How full the
//! fullest member is comes first.

#![allow(clippy::print_stdout, reason = "a program whose result is what it prints")]

use criterion::{Criterion, criterion_group, criterion_main};
use kringle::placement::{ClusterId, Layout, Member, Mode, Partition, Ring};
use std::hint::black_box;
use std::sync::Arc;

const REPLICAS: u8 = 3;
const SIZES: [usize; 4] = [10, 100, 300, 1_000];

fn members(count: usize) -> Vec<Member> {
    (0..count).map(|number| Member::new(format!("http://node{number}.example:8080"))).collect()
}

fn found(members: Vec<Member>) -> Layout {
    Layout::found(ClusterId::named("bench"), REPLICAS, Mode::Sloppy, members).expect("a layout")
}

fn balance(_: &mut Criterion) {
    println!("slots of {REPLICAS} replicas: of the fullest member, and of the mean");
    println!("{:>8} {:>8} {:>8} {:>8}", "members", "fullest", "mean", "ratio");
    for size in SIZES {
        let ring = Ring::new(found(members(size)));
        let fullest = ring.members().map(|member| ring.owned_by(member).len()).max().unwrap_or(0);
        let mean = ring.layout().table().slots() as f64 / size as f64;
        println!("{size:>8} {fullest:>8} {mean:>8.3} {:>8.3}", fullest as f64 / mean);
    }
    println!();
}

fn building(criterion: &mut Criterion) {
    for size in SIZES {
        let named = members(size);
        criterion.bench_function(&format!("found a layout of {size} members"), |bencher| {
            bencher.iter(|| found(black_box(named.clone())));
        });
        let layout = Arc::new(found(members(size)));
        criterion.bench_function(&format!("the ring of a layout of {size} members"), |bencher| {
            bencher.iter(|| Ring::new(black_box(layout.clone())));
        });
        criterion.bench_function(&format!("plan that one joins {size} members"), |bencher| {
            let newcomer = || vec![Member::new("http://newcomer.example:8080")];
            bencher.iter(|| black_box(&layout).join(newcomer()).expect("a layout"));
        });
        criterion.bench_function(&format!("plan that one leaves {size} members"), |bencher| {
            bencher.iter(|| black_box(&layout).leave("http://node7.example:8080").expect("a layout"));
        });
    }
}

fn looking_up(criterion: &mut Criterion) {
    for size in SIZES {
        let ring = Ring::new(found(members(size)));
        let mut partitions = Partition::all().cycle();
        criterion.bench_function(&format!("the owners of a partition among {size} members"), |bencher| {
            bencher.iter(|| ring.owners(black_box(partitions.next().expect("there is always one"))).len());
        });
        criterion.bench_function(&format!("the stand-ins of a partition among {size} members"), |bencher| {
            bencher.iter(|| ring.stand_ins(black_box(partitions.next().expect("there is always one"))).len());
        });
    }
}

criterion_group!(benches, balance, building, looking_up);
criterion_main!(benches);
