//! What a PUT costs as the keys become many.
//!
//! The caches of a processor hold the rows of a thousand keys and not those of a million, so everybody is slower there,
//! whatever becomes of a row: also a map in memory behind the same HTTP server, which does nothing but look up and replace.
//! What that map loses in the same run is the machine's; the node should lose no more, within a tenth.

use crate::fill::fill;
use crate::machine::Pin;
use crate::report::{Side, Target, judge, ratio_of_peer, ratios, take_turns};
use crate::scenarios::{has_wrk, ours, pin, stalls};
use crate::servers::{self, Server};
use crate::wrk::{self, Shape};
use crate::{Options, Outcome};
use std::time::Instant;

const KEYS: [u64; 2] = [1_000, 1_000_000];

/// A server of few keys and one of many.
type Pair = [Server; 2];

pub fn growth(options: &Options) -> Outcome<()> {
    has_wrk()?;
    let pin = pin(options, Pin::Client);
    let (nodes, maps) = (pair(|| servers::kringle(options, pin))?, pair(|| servers::map(options, pin))?);
    let redis = match (servers::redis()?, servers::redis()?) {
        (Some(few), Some(many)) => Some([few, many]),
        _ => None,
    };
    for (server, keys) in redis.iter().flatten().zip(KEYS) {
        wrk::redis_fill(server, keys)?;
    }
    for connections in [options.connections, 1] {
        let mut sides =
            [&nodes, &maps].map(|pair| puts(pair, connections, pin)).into_iter().flatten().collect::<Vec<_>>();
        if let Some(redis) = &redis {
            sides.extend(sets(redis, connections, pin));
        }
        let heading = format!("PUT as a node grows, {}, c={connections}, {}", ours(options, 1), pin.describe());
        take_turns(options, &heading, &mut sides)?;
        ratio_of_peer("kringle at 1,000,000 / at 1,000", &sides[1], &sides[0], |load| load.per_second);
        let ours = ratios(&sides[1], &sides[0], |load| load.per_second);
        for (peer, pair) in ["the map", "redis AOF always"].into_iter().zip(sides[2..].chunks(2)) {
            ratio_of_peer(&format!("  {peer}"), &pair[1], &pair[0], |load| load.per_second);
            let theirs = ratios(&pair[1], &pair[0], |load| load.per_second);
            let beside = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
            judge(&format!("  kringle's part that is left / that of {peer}"), beside, Target::AtLeast(0.9));
        }
        stalls(&sides[1]);
    }
    if redis.is_none() {
        println!("redis is not installed: its rows are left out");
    }
    Ok(())
}

/// Two servers, one filled with few keys and one with many.
fn pair(start: impl Fn() -> Outcome<Server>) -> Outcome<Pair> {
    let filled = |keys| -> Outcome<Server> {
        let (server, begun) = (start()?, Instant::now());
        fill(&server.url, Shape::Put, keys)?;
        println!("{}: {keys} keys were put in {:.1} s", server.name, begun.elapsed().as_secs_f64());
        Ok(server)
    };
    let [few, many] = KEYS;
    Ok([filled(few)?, filled(many)?])
}

fn puts(pair: &Pair, connections: u32, pin: Pin) -> impl Iterator<Item = Side<'_>> {
    pair.iter().zip(KEYS).map(move |(server, keys)| {
        Side::new(format!("{} PUT at {keys}", server.name), move |options| {
            wrk::run(server, Shape::Put, keys, connections, options, pin)
        })
    })
}

fn sets(pair: &Pair, connections: u32, pin: Pin) -> impl Iterator<Item = Side<'_>> {
    pair.iter().zip(KEYS).map(move |(server, keys)| {
        let mut rate = 5_000.0;
        Side::new(format!("{} SET at {keys}", server.name), move |options| {
            let load = wrk::redis_set(server, keys, connections, rate, options, pin)?;
            rate = load.per_second;
            Ok(load)
        })
    })
}
