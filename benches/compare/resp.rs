//! The port for Redis clients beside Redis itself: the same commands, sent by the same program, at the same durability.

use crate::machine::{Pin, is_installed, resident_mib};
use crate::report::{Side, Target, median, ratio, take_turns};
use crate::scenarios::{KEYS, pin, stalls};
use crate::servers::{self, Server};
use crate::wrk::{self, Ask, VALUE_BYTES};
use crate::{Options, Outcome};
use std::io::{Read, Write};
use std::net::TcpStream;

/// When an acknowledged write is on disk: a name, and what each side calls it.
const DURABILITIES: [(&str, &str, &str); 2] =
    [("synced before the answer", "sync", "always"), ("synced every second", "interval:1000", "everysec")];

/// SET and GET, one command at a time and sixteen.
pub fn against_redis(options: &Options) -> Outcome<()> {
    if !is_installed("redis-server") || !is_installed("redis-benchmark") {
        println!("redis is not installed: left out");
        return Ok(());
    }
    let pin = pin(options, Pin::Client);
    for (said, durability, fsync) in DURABILITIES {
        let node = servers::kringle_for_redis_clients(options, pin, durability)?;
        let redis = servers::redis_with(fsync)?;
        for server in [&node, &redis] {
            wrk::redis_fill(server, KEYS)?;
        }
        for (what, depth, target) in [("set", 1, 0.9), ("get", 1, 0.9), ("set", 16, 0.5), ("get", 16, 0.5)] {
            let connections = options.connections;
            let mut sides = [&node, &redis].map(|server| {
                let mut rate = 40_000.0;
                Side::new(format!("{} {what} -P {depth}", server.name), move |options| {
                    let ask = Ask { what, depth, keys: KEYS, connections, rate };
                    let load = wrk::redis_load(server, ask, options, pin)?;
                    rate = load.per_second;
                    Ok(load)
                })
            });
            let heading = format!(
                "{what} -P {depth}, one node, {said}, {VALUE_BYTES} B values, {KEYS} keys, c={connections}, {}",
                pin.describe()
            );
            take_turns(options, &heading, &mut sides)?;
            let said = format!("kringle / redis, {what} -P {depth}");
            ratio(&said, &sides[0], &sides[1], |load| load.per_second, Target::AtLeast(target));
            stalls(&sides[0]);
        }
    }
    idle(options)
}

/// Connections that wait.
const IDLE: usize = 2_000;

/// What a connection costs that has said something once, and waits.
fn idle(options: &Options) -> Outcome<()> {
    let node = servers::kringle_for_redis_clients(options, Pin::Free, "sync")?;
    let redis = servers::redis_with("always")?;
    for server in [&node, &redis] {
        let of_one = (0..options.rounds).map(|_| bytes_of_one(server)).collect::<Outcome<Vec<f64>>>()?;
        println!("{:<24} {:>8.0} bytes for each of {IDLE} idle connections", server.name, median(of_one));
    }
    Ok(())
}

fn bytes_of_one(server: &Server) -> Outcome<f64> {
    let resident = || resident_mib(server.pids()[0]).0;
    let address = server.url.trim_start_matches("redis://");
    let before = resident();
    let mut waiting = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        let mut stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        let mut answer = [0; 7];
        stream
            .write_all(b"PING\r\n")
            .and_then(|()| stream.read_exact(&mut answer))
            .map_err(|error| error.to_string())?;
        waiting.push(stream);
    }
    Ok((resident() - before) * 1024.0 * 1024.0 / IDLE as f64)
}
