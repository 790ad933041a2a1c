//! The modes that agree, beside etcd; and many clients that swap one value.

use crate::fill::{connect, exchange_whole, fill};
use crate::machine::Pin;
use crate::report::{Side, Target, judge, judged, ratio, take_turns};
use crate::scenarios::{KEYS, has_wrk, ours, stalls};
use crate::wrk::{self, Shape};
use crate::{Options, Outcome, servers};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Clients that swap one value at the same time.
const SWAPPERS: usize = 16;
/// Successful swaps a second of one key that are wanted.
const SWAPS_MIN: f64 = 500.0;

/// Linearizable writes and reads of three nodes beside a three-node etcd's.
pub fn agree(options: &Options) -> Outcome<()> {
    has_wrk()?;
    let (nodes, etcd) = (servers::kringle_of_three(options)?, servers::etcd_of_three()?);
    fill(&nodes.url, Shape::PutIn("quorum"), KEYS)?;
    match &etcd {
        Some(etcd) => fill(&etcd.url, Shape::EtcdPut, KEYS)?,
        None => println!("etcd is not installed: its rows are left out"),
    }
    let comparisons = [
        ("PUT", Shape::PutIn as fn(&'static str) -> Shape, Shape::EtcdPut, "put", 1.0),
        ("GET", Shape::GetIn, Shape::EtcdGet, "linearizable get", 2.0),
    ];
    for (what, shape, theirs, name, target) in comparisons {
        let (nodes, connections) = (&nodes, options.connections);
        let side = |mode: &'static str| {
            Side::new(format!("3 kringle {what} mode={mode}"), move |options: &Options| {
                wrk::run(nodes, shape(mode), KEYS, connections, options, Pin::Free)
            })
        };
        let mut sides: Vec<Side<'_>> = ["quorum", "chain", "sync"].map(side).into();
        if let Some(etcd) = &etcd {
            sides.push(Side::new(format!("3 etcd {name}"), move |options| {
                wrk::run(etcd, theirs, KEYS, connections, options, Pin::Free)
            }));
        }
        let heading = format!(
            "{what}, three nodes, {}, {KEYS} keys, c={connections}, all to one member (etcd: its leader)",
            ours(options, 3)
        );
        take_turns(options, &heading, &mut sides)?;
        if let Some(etcd) = sides.get(3) {
            ratio("quorum / etcd, requests", &sides[0], etcd, |load| load.per_second, Target::AtLeast(target));
            ratio("quorum / etcd, p99", &sides[0], etcd, |load| load.p99_ms, Target::AtMost(1.0));
        }
        stalls(&sides[0]);
    }
    drop((nodes, etcd));
    let nodes = servers::Cluster::start::<3>(options, &[])?;
    let rates: Outcome<Vec<f64>> = (0..options.rounds).map(|round| swaps(&nodes.urls, round, options)).collect();
    println!("{SWAPPERS} clients over three nodes, each swapping the value it has read of one key:");
    judge("successful swaps a second", rates?, Target::AtLeast(SWAPS_MIN));
    Ok(())
}

/// Successful compare-and-sets of one key a second.
fn swaps(urls: &[String], round: usize, options: &Options) -> Outcome<f64> {
    let (over, made, lost) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        let (over, made, lost) = (&over, &made, &lost);
        let swapper = |number: usize| {
            let url = &urls[number % urls.len()];
            scope.spawn(move || swap(url, round, number, over, made, lost))
        };
        let threads: Vec<_> = (0..SWAPPERS).map(swapper).collect();
        std::thread::sleep(Duration::from_secs(options.seconds));
        over.store(true, Ordering::Relaxed);
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread broke".to_string())?)
    })?;
    let rate = made.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    let lost = lost.load(Ordering::Relaxed);
    println!(
        "  {rate:.0} swaps a second, {lost} attempts lost to others, {}",
        judged(rate, Target::AtLeast(SWAPS_MIN))
    );
    Ok(rate)
}

fn swap(url: &str, round: usize, number: usize, over: &AtomicBool, made: &AtomicU64, lost: &AtomicU64) -> Outcome<()> {
    let host = url.trim_start_matches("http://");
    let broken = |error: std::io::Error| format!("asking {host}: {error}");
    let stream = connect(host).map_err(broken)?;
    let mut condition = "If-None-Match: *".to_string();
    while !over.load(Ordering::Relaxed) {
        let body = format!("client {number}");
        let request = format!(
            "PUT /kv/swapped-{round}?mode=quorum HTTP/1.1\r\nHost: {host}\r\n{condition}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = exchange_whole(&stream, request.as_bytes()).map_err(broken)?;
        match answer.status {
            201 | 204 => made.fetch_add(1, Ordering::Relaxed),
            412 => lost.fetch_add(1, Ordering::Relaxed),
            status => return Err(format!("{host} answers {status}")),
        };
        condition = answer.etag.map_or("If-None-Match: *".into(), |etag| format!("If-Match: {etag}"));
    }
    Ok(())
}
