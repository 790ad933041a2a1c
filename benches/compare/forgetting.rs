//! What clients feel while deleted keys are forgotten: their p99 beside the same client's on the same nodes a moment
//! before and a moment after, and how quickly it goes.
//!
//! When it happens is settled by `--syncfreq`, which is also how often a node looks for what may be forgotten. The keys
//! are written and deleted on nodes that look once an hour, and these are then killed and started again with a period
//! that leaves time for what must come first: sessions that show every owner what the others have seen, without a client,
//! so that no write on its way keeps them from it; and the idle moment before. So all that is compared was asked of the
//! same processes, and the restart lies before it. An owner that is away until it begins would settle it as well, but its
//! hints would then be a part of what is idle, and their hand-over and a repair a part of what is busy.
//!
//! Each node has one core, as it would a machine, and the client the last. Left to itself the kernel puts the threads of a
//! request now on one core and now on two, for half a minute at a time, which doubles how long a GET takes whatever is
//! being forgotten, and a p99 of some seconds depends on what the disk does in them. So what counts is the middle of many
//! rounds of few keys, `--tombstones 10000 --rounds 10`, rather than one of many.
//!
//! Each round has nodes of its own: every restart brings a new actor, and keys with the marks of many would be found worth
//! forgetting something of too.

use crate::copies::{Generation, give, long_ago};
use crate::felt::{Moments, SETTLING, WARMING_UP};
use crate::fill::ask_each;
use crate::healing::{RARELY, number, session, status, wait_for};
use crate::paced::Client;
use crate::process::Meter;
use crate::report::spread;
use crate::servers::Cluster;
use crate::wrk::{Shape, VALUE_BYTES};
use crate::{Options, Outcome};
use std::time::{Duration, Instant};

/// Keys that the client asks for; those that are deleted come after them.
const KEYS: u64 = 100_000;
/// Requests a second, where it is not said: half PUT, half GET.
const RATE: u64 = 1_000;
/// Nodes that started again see one another, and every owner learns what the others have seen.
const PREPARING: Duration = Duration::from_secs(14);
/// What a peer says it has seen comes with pings, one a second, and counts after a session and a ping more.
const PINGS: Duration = Duration::from_millis(2_500);

/// The deleted keys that each node still keeps.
fn tombstones(urls: &[String]) -> Outcome<Vec<u64>> {
    urls.iter().map(|url| Ok(number(&status(url)?["store"], "tombstones"))).collect()
}

/// As [`tombstones`], on the node that keeps most of them.
fn most_left(urls: &[String]) -> Outcome<u64> {
    Ok(tombstones(urls)?.into_iter().max().unwrap_or_default())
}

pub fn latency(options: &Options) -> Outcome<()> {
    let rate = options.rate.unwrap_or(RATE);
    println!(
        "three nodes, N=3 R=2 W=2, {KEYS} keys of {VALUE_BYTES} B and {} deleted ones, a client of {rate} requests/s, \
         half PUT, half GET, {}",
        options.tombstones,
        if options.free { "nothing pinned" } else { "each node on one core, the client on the last" }
    );
    let (mut idle, mut busy) = (Moments::default(), Moments::default());
    let (mut seconds, mut drift) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        round(options, rate, [&mut idle, &mut busy], &mut seconds, &mut drift)?;
    }
    let (_, words) = spread(drift);
    println!("the client's p99 when idle, after / before: {words}, which is what a ratio of nothing comes to here");
    let per_second = seconds.iter().map(|seconds| options.tombstones as f64 / seconds).collect();
    println!("forgotten within {} s, {} keys a second", spread(seconds).1, spread(per_second).1);
    busy.against(&idle, "the forgetting");
    Ok(())
}

fn round(
    options: &Options,
    rate: u64,
    [idle, busy]: [&mut Moments; 2],
    seconds: &mut Vec<f64>,
    drift: &mut Vec<f64>,
) -> Outcome<()> {
    let all = options.tombstones;
    let mut cluster = Cluster::start_alone::<3>(options, &RARELY)?;
    let urls = cluster.urls.clone();
    let [first, second, third] = [&urls[0], &urls[1], &urls[2]];
    let filling = Instant::now();
    give(&[first, second, third], 0..KEYS, Generation::First, long_ago())?;
    // Not as copies, as the others: what is forgotten must have been written by an owner, or no owner answers for it.
    ask_each(first, Shape::Put, KEYS..KEYS + all)?;
    ask_each(first, Shape::Delete, KEYS..KEYS + all)?;
    std::thread::sleep(SETTLING);
    let filled = filling.elapsed();

    let half = options.duration() / 2;
    // Jitter makes a period up to a fifth shorter.
    let period = (PREPARING + WARMING_UP + half).mul_f64(1.25);
    let started = cluster.restart(options, &["--syncfreq", &period.as_secs_f64().ceil().to_string()])?;
    for _ in 0..2 {
        std::thread::sleep(PINGS);
        for (from, with) in [(second, first), (third, first), (second, third)] {
            session(from, with)?;
        }
    }
    let prepared = started.elapsed();
    // The client is this program.
    let meter = || Meter::start([cluster.pids(), vec![std::process::id()]].concat());
    let client = Client { url: first, keys: KEYS, rate, free: options.free };
    let rest = |time: Duration| -> Outcome<_> {
        let meter = meter();
        Ok((client.alone(time)?, meter.stop()))
    };
    rest(WARMING_UP)?;
    let (before, usage_before) = rest(half)?;
    let left = tombstones(&urls)?;
    if left.iter().any(|left| *left != all) {
        return Err(format!("some of {all} were forgotten before it was their time: {left:?} are left"));
    }
    // Its requests belong to neither moment.
    client.during(|| wait_for(|| Ok(tombstones(&urls)?.iter().any(|left| *left < all))))?.1?;
    let (begun, at_first, meter) = (Instant::now(), most_left(&urls)?, meter());
    // The last few may have to wait for a node's next look, and a moment in which nothing happens is not a busy one.
    let few = all / 100;
    let (felt, over) = client.during(|| wait_for(|| Ok(most_left(&urls)? <= few)))?;
    over?;
    let (took, usage) = (begun.elapsed().as_secs_f64(), meter.stop());
    let forgotten = at_first.saturating_sub(most_left(&urls)?);
    if forgotten < all / 2 {
        return Err(format!("{forgotten} of {all} were forgotten while the client was asked what it feels"));
    }
    client.during(|| wait_for(|| Ok(most_left(&urls)? == 0)))?.1?;
    let gone = begun.elapsed().as_secs_f64();
    let (after, usage_after) = rest(half)?;

    let asked: Vec<u64> =
        urls.iter().map(|url| Ok(number(&status(url)?["forgetting"], "forgotten"))).collect::<Outcome<_>>()?;
    println!(
        "filled in {:.0} s, prepared in {:.1} s; {forgotten} keys forgotten within {took:.1} s, {:.0} a second, all gone \
         {gone:.1} s after it began; by the rounds of each node: {asked:?}",
        filled.as_secs_f64(),
        prepared.as_secs_f64(),
        forgotten as f64 / took,
    );
    let [idle_before, during, idle_after] =
        [usage_before, usage, usage_after].map(|usage| format!("{:.0} %", 100.0 * usage.elsewhere));
    println!(
        "taken by others of the machine: {idle_before} when idle, {during} during it, {idle_after} when idle again"
    );
    drift.push(after.all().per_mille(990) / before.all().per_mille(990).max(0.001));
    seconds.push(took * all as f64 / forgotten as f64);
    idle.add("idle around it", &before.with(&after));
    busy.add("during the forgetting", &felt);
    Ok(())
}
