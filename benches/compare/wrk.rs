//! Load: `wrk` with a script that makes the requests, and `redis-benchmark` for Redis.

use crate::machine::{Pin, command_on};
use crate::process::{self, Meter, Usage};
use crate::servers::Server;
use crate::{Options, Outcome};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::process::Command;
use std::time::Duration;

/// Bytes of every value.
pub const VALUE_BYTES: usize = 100;
/// How much longer than asked a load generator may take.
const GRACE: Duration = Duration::from_secs(30);
/// What one measurement gave.
#[derive(Clone, Copy, Default)]
pub struct Load {
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: Option<f64>,
    pub max_ms: f64,
    /// Requests that failed, or were answered with an error.
    pub errors: u64,
    pub usage: Usage,
    /// Microseconds of the servers' processor time for each request.
    pub server_us: f64,
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `GET /kv/{key}`.
    Get,
    /// `PUT /kv/{key}`.
    Put,
    /// The same in a mode of its own.
    GetIn(&'static str),
    PutIn(&'static str),
    /// `DELETE /kv/{key}`.
    Delete,
    /// etcd's put, through its JSON gateway.
    EtcdPut,
    /// etcd's linearizable get, the same way.
    EtcdGet,
}

impl Shape {
    /// The number `key` as it stands in a request: 16 bytes as they are, or, for etcd, 15 bytes in base64.
    pub fn key(self, key: u64) -> String {
        match self {
            Shape::Get | Shape::Put | Shape::GetIn(_) | Shape::PutIn(_) | Shape::Delete => format!("key:{key:012}"),
            Shape::EtcdPut | Shape::EtcdGet => format!("{key:020}"),
        }
    }

    /// What comes before the key in a request, and what after it.
    pub fn around_key(self, host: &str) -> (String, String) {
        let value = value();
        let head =
            |line: &str, length: usize| format!("{line} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n");
        match self {
            Shape::Get => ("GET /kv/".into(), format!(" HTTP/1.1\r\nHost: {host}\r\n\r\n")),
            Shape::GetIn(mode) => ("GET /kv/".into(), format!("?mode={mode} HTTP/1.1\r\nHost: {host}\r\n\r\n")),
            Shape::PutIn(mode) => ("PUT /kv/".into(), head(&format!("?mode={mode}"), VALUE_BYTES) + &value),
            Shape::Delete => ("DELETE /kv/".into(), format!(" HTTP/1.1\r\nHost: {host}\r\n\r\n")),
            Shape::Put => ("PUT /kv/".into(), head("", VALUE_BYTES) + &value),
            Shape::EtcdPut | Shape::EtcdGet => {
                let (path, after) = match self {
                    Shape::EtcdPut => ("put", format!(r#"","value":"{}"}}"#, BASE64.encode(value))),
                    _ => ("range", "\"}".into()),
                };
                let before = r#"{"key":""#;
                let length = before.len() + self.key(0).len() + after.len();
                (head(&format!("POST /v3/kv/{path}"), length) + before, after)
            }
        }
    }

    /// Lua that turns the number `key` into a request.
    fn lua(self, url: &str) -> String {
        let key_format = match self {
            Shape::Get | Shape::Put | Shape::GetIn(_) | Shape::PutIn(_) | Shape::Delete => "key:%012d",
            Shape::EtcdPut | Shape::EtcdGet => "%020d",
        };
        let (before, after) = self.around_key(url.trim_start_matches("http://"));
        let quoted = |text: String| text.replace('\r', "\\r").replace('\n', "\\n");
        format!(
            "function make(key) return '{}' .. string.format('{key_format}', key) .. '{}' end\n",
            quoted(before),
            quoted(after)
        )
    }
}

/// Letters without order, so that nothing is gained by compressing them.
pub fn value() -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let letter = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'a' + (state >> 40) as u8 % 26)
    };
    (0..VALUE_BYTES).map(letter).collect()
}

/// Prints what was measured in numbers that are easy to read back, times in microseconds.
const REPORT: &str = "
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('measured %d %d %d %d %d %d %d\\n', summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9), latency.max))
end
";

/// Asks for random ones of the first `keys` keys, other ones each time.
pub fn run(server: &Server, shape: Shape, keys: u64, connections: u32, options: &Options, pin: Pin) -> Outcome<Load> {
    let (make, seed) = (shape.lua(&server.url), server.count_up());
    let request = format!("function request() return make(math.random(0, {})) end\n", keys - 1);
    let script = format!("{make}math.randomseed({seed})\n{request}{REPORT}");
    measure(server, &script, connections, options.duration(), pin)
}

fn measure(server: &Server, script: &str, connections: u32, duration: Duration, pin: Pin) -> Outcome<Load> {
    let file = server.folder.path().join(format!("load-{:x}.lua", server.count_up()));
    std::fs::write(&file, script).map_err(|error| error.to_string())?;
    let mut command = command_on(pin.client().as_deref(), "wrk");
    command.arg("-t1").arg(format!("-c{connections}")).arg(format!("-d{}s", duration.as_secs()));
    command.arg("--timeout").arg("10s").arg("-s").arg(&file).arg(&server.url);
    let meter = Meter::start(server.pids());
    let printed = process::run(&mut command, duration + GRACE)?;
    let usage = meter.stop();
    let line = printed.lines().find_map(|line| line.strip_prefix("measured "));
    let numbers: Vec<f64> =
        line.unwrap_or_default().split(' ').filter_map(|number| number.parse::<f64>().ok()).collect();
    let [requests, micros, errors, p50, p99, p999, max] = numbers[..] else {
        return Err(format!("wrk printed no result: {printed}"));
    };
    Ok(Load {
        per_second: requests / (micros / 1e6),
        p50_ms: p50 / 1e3,
        p99_ms: p99 / 1e3,
        p999_ms: Some(p999 / 1e3),
        max_ms: max / 1e3,
        errors: errors as u64,
        usage,
        server_us: usage.servers * 1e6 / requests.max(1.0),
    })
}

/// Sets nearly all of the first `keys` keys, many at a time.
pub fn redis_fill(server: &Server, keys: u64) -> Outcome<()> {
    let mut command = redis_benchmark(server, "set", keys, 50, Pin::Free);
    command.args(["-P", "64", "-n", &(keys * 5).to_string()]);
    process::run(&mut command, Duration::from_secs(600)).map(drop)
}

fn redis_benchmark(server: &Server, what: &str, keys: u64, connections: u32, pin: Pin) -> Command {
    let port = server.url.rsplit(':').next().unwrap_or_default();
    let mut command = command_on(pin.client().as_deref(), "redis-benchmark");
    command.args(["-h", "127.0.0.1", "-p", port, "-t", what, "--csv"]);
    command.args(["-c", &connections.to_string(), "-d", &VALUE_BYTES.to_string(), "-r", &keys.to_string()]);
    command
}

/// `redis-benchmark`'s SET over `keys` keys. It counts requests, not seconds, so it is told the `rate` to expect.
pub fn redis_set(
    server: &Server,
    keys: u64,
    connections: u32,
    rate: f64,
    options: &Options,
    pin: Pin,
) -> Outcome<Load> {
    redis_load(server, Ask { what: "set", depth: 1, keys, connections, rate }, options, pin)
}

/// What `redis-benchmark` asks.
#[derive(Clone, Copy)]
pub struct Ask {
    /// One of its tests, in lower case.
    pub what: &'static str,
    /// How many commands a connection sends at once.
    pub depth: u32,
    /// Of how many keys.
    pub keys: u64,
    pub connections: u32,
    /// How many a second are to be expected.
    pub rate: f64,
}

/// The same for any of its tests.
pub fn redis_load(server: &Server, ask: Ask, options: &Options, pin: Pin) -> Outcome<Load> {
    let requests = (ask.rate * options.duration().as_secs_f64()).max(1e4) as u64;
    let mut command = redis_benchmark(server, ask.what, ask.keys, ask.connections, pin);
    command.args(["-P", &ask.depth.to_string(), "-n", &requests.to_string()]);
    let meter = Meter::start(server.pids());
    let printed = process::run(&mut command, options.duration() * 10 + GRACE)?;
    let usage = meter.stop();
    // "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
    let name = format!("\"{}\",", ask.what.to_uppercase());
    let line = printed.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_default();
    let numbers: Vec<f64> = line.split(',').filter_map(|number| number.trim_matches('"').parse().ok()).collect();
    let [per_second, _, _, p50_ms, _, p99_ms, max_ms] = numbers[..] else {
        return Err(format!("redis-benchmark printed no result: {printed}"));
    };
    let server_us = usage.servers * 1e6 / requests as f64;
    Ok(Load { per_second, p50_ms, p99_ms, p999_ms: None, max_ms, errors: 0, usage, server_us })
}
