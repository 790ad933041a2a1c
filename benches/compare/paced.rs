//! A client that asks at a steady rate, well below what the nodes can do: what a user's requests feel of work in the
//! background. A request's time runs from the moment it was due, so that a stall counts for all that it delays.

use crate::fill::{connect, exchange};
use crate::wrk::Shape;
use crate::{Outcome, machine};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Connections, each with a thread.
const CONNECTIONS: u64 = 8;

/// How long requests took, in milliseconds, ascending.
pub struct Times(Vec<f64>);

impl Times {
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that so many in a thousand did not exceed.
    pub fn per_mille(&self, share: usize) -> f64 {
        self.0.get((self.0.len() * share / 1_000).min(self.0.len().saturating_sub(1))).copied().unwrap_or(0.0)
    }

    fn of(mut times: Vec<f64>) -> Times {
        times.sort_by(f64::total_cmp);
        Times(times)
    }

    fn with(&self, others: &Times) -> Times {
        Times::of([&self.0[..], &others.0].concat())
    }
}

/// What was asked: half of it writes, half of it reads, of random ones of the first `keys` keys. Each on connections of
/// their own: a read that is late because a write before it waited for the disk says nothing about reads.
pub struct Felt {
    pub puts: Times,
    pub gets: Times,
}

impl Felt {
    /// All that was asked.
    pub fn all(&self) -> Times {
        self.puts.with(&self.gets)
    }

    /// What was felt at both moments.
    pub fn with(&self, other: &Felt) -> Felt {
        Felt { puts: self.puts.with(&other.puts), gets: self.gets.with(&other.gets) }
    }
}

/// The client.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    /// The node that it asks.
    pub url: &'a str,
    /// How many keys it asks for.
    pub keys: u64,
    /// Requests a second.
    pub rate: u64,
    /// Whether it runs on any core, and not on that of load generators.
    pub free: bool,
}

impl Client<'_> {
    /// Asks while `act` runs, and hands over what that returns.
    pub fn during<T>(&self, act: impl FnOnce() -> T) -> Outcome<(Felt, T)> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let over = &over;
            let threads: Vec<_> = (0..CONNECTIONS).map(|number| scope.spawn(move || self.ask(number, over))).collect();
            let result = act();
            over.store(true, Ordering::Relaxed);
            let (mut puts, mut gets) = (Vec::new(), Vec::new());
            for thread in threads {
                let (some_puts, some_gets) = thread.join().map_err(|_| "a thread broke".to_string())??;
                puts.extend(some_puts);
                gets.extend(some_gets);
            }
            Ok((Felt { puts: Times::of(puts), gets: Times::of(gets) }, result))
        })
    }

    /// What it feels for so long.
    pub fn alone(&self, time: Duration) -> Outcome<Felt> {
        Ok(self.during(|| std::thread::sleep(time))?.0)
    }

    fn ask(&self, number: u64, over: &AtomicBool) -> Outcome<(Vec<f64>, Vec<f64>)> {
        if !self.free {
            machine::stay_with_clients();
        }
        let host = self.url.trim_start_matches("http://");
        let broken = |error: std::io::Error| format!("asking {host}: {error}");
        let stream = connect(host).map_err(broken)?;
        let (mut puts, mut gets) = (Vec::new(), Vec::new());
        let pause = Duration::from_nanos(1_000_000_000 * CONNECTIONS / self.rate);
        let mut due = Instant::now() + pause * number as u32 / CONNECTIONS as u32;
        let is_put = number.is_multiple_of(2);
        let mut key = number;
        while !over.load(Ordering::Relaxed) {
            // Whoever waits for the moment wakes a little after it, which is the client's own doing.
            let began = match due.checked_duration_since(Instant::now()) {
                Some(early) => {
                    std::thread::sleep(early);
                    Instant::now()
                }
                None => due,
            };
            key = key.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let shape = if is_put { Shape::Put } else { Shape::Get };
            let (before, after) = shape.around_key(host);
            let request = format!("{before}{}{after}", shape.key((key >> 20) % self.keys));
            let (status, body) = exchange(&stream, request.as_bytes()).map_err(broken)?;
            if !(200..300).contains(&status) {
                return Err(format!("{host} answers {status}: {}", String::from_utf8_lossy(&body)));
            }
            let times = if is_put { &mut puts } else { &mut gets };
            times.push(began.elapsed().as_secs_f64() * 1e3);
            due += pause;
        }
        Ok((puts, gets))
    }
}

/// Asks for a path again and again, a hundred times a second, for so long.
pub fn one_by_one(url: &str, path: &str, time: Duration) -> Outcome<Times> {
    let host = url.trim_start_matches("http://");
    let broken = |error: std::io::Error| format!("asking {host}: {error}");
    let stream = connect(host).map_err(broken)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let (mut times, until) = (Vec::new(), Instant::now() + time);
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
        let began = Instant::now();
        let (status, _) = exchange(&stream, request.as_bytes()).map_err(broken)?;
        if status != 200 {
            return Err(format!("{host}{path} answers {status}"));
        }
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Times::of(times))
}
