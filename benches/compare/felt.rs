//! What clients feel while copies are made equal again: their p99 during a repair and during a hand-over of hints,
//! each beside the same client's on the same nodes a moment before and a moment after.
//!
//! A p99 of a few seconds depends on whether a checkpoint, a merge of the base or a neighbour of the machine fell into
//! them. So the moments are short and of about one length, busy and idle take turns, and what counts is the middle ratio
//! of many rounds (`--rounds`, ten or more for a figure to rely on).

use crate::copies::{Generation, give, long_ago};
use crate::fill::fill;
use crate::healing::{RARELY, number, session, status, told, wait_for};
use crate::paced::{Client, Felt, Times};
use crate::process::wait_for_ok;
use crate::report::{Target, judge};
use crate::servers::Cluster;
use crate::wrk::{Shape, VALUE_BYTES};
use crate::{Options, Outcome};
use std::time::{Duration, Instant};

const KEYS: u64 = 100_000;
/// Records that one of the three nodes lacks, in each round.
const REPAIRED: u64 = 10_000;
/// Writes that it misses while it is away.
const HINTED: u64 = 10_000;
/// Requests a second: one rate that leaves most of two cores to others, and one that leaves little.
const RATES: [u64; 2] = [1_000, 5_000];
/// What was given settles in the base before anything is measured.
pub const SETTLING: Duration = Duration::from_secs(6);
/// A client's first requests open the connections between nodes. And these compare for the first time within 3 s of their
/// start, which must not bring what the first round leaves out.
pub const WARMING_UP: Duration = Duration::from_secs(4);

/// The p99s of one kind of moment, round by round: of all that the client asked, and of either half of it.
#[derive(Default)]
pub struct Moments {
    all: Vec<f64>,
    puts: Vec<f64>,
    gets: Vec<f64>,
}

impl Moments {
    pub fn add(&mut self, when: &str, felt: &Felt) {
        let tell = |what: &str, times: &Times| {
            let [p50, p99, p999] = [500, 990, 999].map(|share| times.per_mille(share));
            let count = times.count();
            println!(
                "{when:<20} {what} {count:>6} requests, p50 {p50:>5.2} ms, p99 {p99:>6.2} ms, p99.9 {p999:>6.2} ms"
            );
            p99
        };
        self.all.push(tell("all", &felt.all()));
        self.puts.push(tell("PUT", &felt.puts));
        self.gets.push(tell("GET", &felt.gets));
    }

    /// Against the idle moments around, round by round: the middle one, least and most.
    pub fn against(&self, idle: &Moments, what: &str) {
        let sides =
            [("the client's", &self.all, &idle.all), ("PUT", &self.puts, &idle.puts), ("GET", &self.gets, &idle.gets)];
        for (whose, busy, idle) in sides {
            let ratios = busy.iter().zip(idle).map(|(busy, idle)| busy / idle.max(0.001));
            judge(&format!("{whose} p99 during {what} / idle"), ratios.collect(), Target::AtMost(1.5));
        }
    }
}

pub fn latency(options: &Options) -> Outcome<()> {
    let rates = options.rate.map_or(RATES.to_vec(), |rate| vec![rate]);
    rates.into_iter().try_for_each(|rate| at_rate(options, rate))
}

fn at_rate(options: &Options, rate: u64) -> Outcome<()> {
    let mut cluster = Cluster::start::<3>(options, &RARELY)?;
    let urls = cluster.urls.clone();
    let [first, second, third] = [&urls[0], &urls[1], &urls[2]];
    let began = long_ago();
    give(&[first, second, third], 0..KEYS, Generation::First, began)?;
    println!(
        "three nodes, N=3 R=2 W=2, {KEYS} keys of {VALUE_BYTES} B, a client of {rate} requests/s, half PUT, half GET"
    );
    // Half of what is idle lies before what is measured, and half behind it.
    let client = Client { url: first, keys: KEYS, rate, free: true };
    let half = Duration::from_secs(options.seconds) / 2;
    client.alone(WARMING_UP)?;
    let (mut idle, mut repair) = (Moments::default(), Moments::default());
    let (mut idle_again, mut hand_over) = (Moments::default(), Moments::default());
    let mut next = KEYS;
    for _ in 0..options.rounds {
        give(&[first, second], next..next + REPAIRED, Generation::First, began)?;
        next += REPAIRED;
        std::thread::sleep(SETTLING);
        let before = client.alone(half)?;
        let (felt, report) = client.during(|| session(third, first))?;
        let report = report?;
        let between = client.alone(half)?;
        told("a repair", &report);
        let moved = number(&report, "pushed") + number(&report, "pulled");
        if moved < REPAIRED {
            return Err(format!("the repair moved {moved} of {REPAIRED} records"));
        }
        println!("a repair: {:.0} records a second", REPAIRED as f64 * 1e3 / number(&report, "ms").max(1) as f64);
        idle.add("idle around it", &before.with(&between));
        repair.add("during the repair", &felt);

        cluster.kill(2);
        wait_for(|| Ok(status(first)?["members"].to_string().contains(r#""state":"down""#)))?;
        fill(first, Shape::Put, HINTED)?;
        let hints = |url: &str| -> Outcome<u64> { Ok(number(&status(url)?["hints"], "count")) };
        let kept = hints(first)? + hints(second)?;
        cluster.launch(options, 2)?;
        wait_for_ok(third, "/readyz")?;
        let begun = Instant::now();
        let handed_over = || wait_for(|| Ok(hints(first)? + hints(second)? == 0));
        let (felt, over) = client.during(handed_over)?;
        over?;
        println!("{kept} hints were handed over within {:.1} s", begun.elapsed().as_secs_f64());
        // The session that follows a return must not find what the next round leaves out, nor count as idle.
        std::thread::sleep(SETTLING);
        idle_again.add("idle around it", &between.with(&client.alone(half)?));
        hand_over.add("during the hand-over", &felt);
    }
    repair.against(&idle, "repair");
    hand_over.against(&idle_again, "the hand-over of hints");
    Ok(())
}
