//! What clients feel while a node joins three others, and while it leaves them again: their p99 beside the same client's a
//! moment before and a moment after; and how long both take, beside writing the same bytes into a file and syncing it.

use crate::copies::{Generation, bytes_of_one, give, long_ago};
use crate::felt::{Moments, SETTLING, WARMING_UP};
use crate::healing::{RARELY, wait_for};
use crate::paced::Client;
use crate::process::ask;
use crate::report::spread;
use crate::servers::Cluster;
use crate::wrk::VALUE_BYTES;
use crate::{Options, Outcome};
use serde_json::Value;
use std::io::Write;
use std::time::{Duration, Instant};

/// Keys on the three nodes.
const FEW: u64 = 100_000;
const MANY: u64 = 1_000_000;
/// Requests a second, where it is not said: half PUT, half GET.
const RATE: u64 = 1_000;

pub fn of_few(options: &Options) -> Outcome<()> {
    latency(options, FEW)
}

pub fn of_many(options: &Options) -> Outcome<()> {
    latency(options, MANY)
}

fn cluster_of(url: &str) -> Outcome<Value> {
    let (_, body) = ask(url, "GET", "/cluster", "")?;
    serde_json::from_str(&body).map_err(|error| format!("{url}/cluster: {error}"))
}

/// Waits until so many members own all there is, by what this one says, and the old copies are gone.
fn settled(url: &str, members: usize) -> Outcome<()> {
    wait_for(|| {
        let cluster = cluster_of(url)?;
        let count = cluster["members"].as_array().map_or(0, Vec::len);
        let is_over = cluster["changing"] == false && cluster["transfers"].as_array().is_some_and(Vec::is_empty);
        Ok(count == members && is_over)
    })
}

/// How long it takes to write so many bytes into a file and have them on the disk.
fn copying(bytes: u64) -> Outcome<f64> {
    let broken = |error: std::io::Error| format!("a file of {bytes} bytes: {error}");
    let mut file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).map_err(broken)?;
    let (block, begun) = (vec![7u8; 1 << 20], Instant::now());
    for _ in 0..bytes.div_ceil(1 << 20) {
        file.write_all(&block).map_err(broken)?;
    }
    file.sync_all().map_err(broken)?;
    Ok(begun.elapsed().as_secs_f64())
}

fn latency(options: &Options, keys: u64) -> Outcome<()> {
    let rate = options.rate.unwrap_or(RATE);
    let mut cluster = Cluster::start::<3>(options, &RARELY)?;
    let urls = cluster.urls.clone();
    give(&[&urls[0], &urls[1], &urls[2]], 0..keys, Generation::First, long_ago())?;
    println!("three nodes and a fourth, N=3, {keys} keys of {VALUE_BYTES} B, a client of {rate} requests/s");
    std::thread::sleep(SETTLING);
    let client = Client { url: &urls[0], keys, rate, free: true };
    client.alone(WARMING_UP)?;
    let half = options.duration() / 2;
    let (mut idle, mut joining) = (Moments::default(), Moments::default());
    let (mut idle_again, mut leaving) = (Moments::default(), Moments::default());
    let (mut joined, mut left, mut copied) = (Vec::new(), Vec::new(), Vec::new());
    // A quarter of three copies.
    let moved = keys * 3 / 4;
    for _ in 0..options.rounds {
        let before = client.alone(half)?;
        let begun = Instant::now();
        let at = cluster.add(options)?;
        let newcomer = cluster.urls[at].clone();
        let (felt, over) = client.during(|| settled(&urls[0], 4))?;
        over?;
        let seconds = begun.elapsed().as_secs_f64();
        println!("joined within {seconds:.1} s, {:.0} records a second", moved as f64 / seconds);
        joined.push(seconds);
        std::thread::sleep(SETTLING);
        let between = client.alone(half)?;
        idle.add("idle around it", &before.with(&between));
        joining.add("during the join", &felt);

        let begun = Instant::now();
        ask(&newcomer, "POST", "/cluster/leave", "")?;
        let (felt, over) = client.during(|| settled(&urls[0], 3))?;
        over?;
        let seconds = begun.elapsed().as_secs_f64();
        println!("left within {seconds:.1} s");
        left.push(seconds);
        std::thread::sleep(Duration::from_secs(2));
        cluster.remove(at);
        std::thread::sleep(SETTLING);
        idle_again.add("idle around it", &between.with(&client.alone(half)?));
        leaving.add("during the leave", &felt);
        copied.push(copying(moved * bytes_of_one(long_ago()))?);
    }
    let ratios = joined.iter().zip(&copied).map(|(joined, copied)| joined / copied).collect();
    println!("a join settled within {} s, a leave within {} s", spread(joined.clone()).1, spread(left).1);
    println!("a join / writing and syncing the same bytes: {}", spread(ratios).1);
    joining.against(&idle, "a join");
    leaving.against(&idle_again, "a leave");
    Ok(())
}
