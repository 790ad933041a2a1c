//! Many keys in one request: all of them listed, and a hundred of them written.

use crate::fill::{connect, exchange, fill};
use crate::machine::Pin;
use crate::report::{Target, judge, judged, median};
use crate::scenarios::{has_wrk, ours};
use crate::servers::{self, Server};
use crate::wrk::Shape;
use crate::{Options, Outcome};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Keys that are listed.
const KEYS: u64 = 1_000_000;
/// Writes in one batch.
const WRITES: usize = 100;
/// How often each side of a batch has its turn.
const TURNS: usize = 200;

/// Keys listed a second, as one stream and page by page, by one node and by three.
pub fn listing(options: &Options) -> Outcome<()> {
    has_wrk()?;
    let mut rates = Vec::new();
    for nodes in [1, 3] {
        let server = match nodes {
            1 => servers::kringle(options, Pin::Free)?,
            _ => servers::kringle_of_three(options)?,
        };
        fill(&server.url, Shape::Put, KEYS)?;
        // The last of them reach the disk.
        std::thread::sleep(Duration::from_secs(10));
        println!("\nlisting {KEYS} keys, {nodes} nodes, {}", ours(options, nodes));
        let streams = (0..options.rounds).map(|_| stream(&server)).collect::<Outcome<Vec<f64>>>()?;
        let pages = (0..options.rounds).map(|_| pages(&server, 10)).collect::<Outcome<Vec<Duration>>>()?;
        let rate = median(streams);
        let page = median(pages.iter().map(Duration::as_secs_f64).collect());
        println!("one stream: {rate:.0} keys/s");
        println!("pages of 1,000: {:.1} ms each, {:.0} keys/s", page * 1e3, 1e3 / page);
        rates.push(rate);
    }
    println!("one node: {}", judged(rates[0], Target::AtLeast(100_000.0)));
    println!("three nodes, of what one lists: {}", judged(rates[1] / rates[0], Target::AtLeast(1.0 / 3.0)));
    Ok(())
}

fn host(server: &Server) -> &str {
    server.url.trim_start_matches("http://")
}

/// Keys a second of one stream of all there is.
fn stream(server: &Server) -> Outcome<f64> {
    let broken = |error: std::io::Error| format!("listing {}: {error}", server.url);
    let mut stream = connect(host(server)).map_err(broken)?;
    let mut text = Vec::with_capacity(256 << 20);
    let begun = Instant::now();
    let request = "GET /kv HTTP/1.1\r\nHost: h\r\nAccept: application/x-ndjson\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).map_err(broken)?;
    stream.read_to_end(&mut text).map_err(broken)?;
    let took = begun.elapsed().as_secs_f64();
    const BEGINS: &[u8] = b"{\"key\"";
    let keys = text.windows(BEGINS.len()).filter(|some| *some == BEGINS).count() as u64;
    let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(200)..]).into_owned();
    // A key's line may begin in one chunk and go on in the next.
    if !tail.contains("{\"end\":true}") || keys.abs_diff(KEYS) > KEYS / 1_000 {
        return Err(format!("{keys} keys came, and in the end {tail}"));
    }
    Ok(KEYS as f64 / took)
}

/// How long a page of 1,000 takes, of so many one after the other.
fn pages(server: &Server, count: u32) -> Outcome<Duration> {
    let broken = |error: std::io::Error| format!("listing {}: {error}", server.url);
    let stream = connect(host(server)).map_err(broken)?;
    let mut cursor = String::new();
    let begun = Instant::now();
    for _ in 0..count {
        let request = format!("GET /kv?limit=1000{cursor} HTTP/1.1\r\nHost: h\r\n\r\n");
        let (status, body) = exchange(&stream, request.as_bytes()).map_err(broken)?;
        let text = String::from_utf8_lossy(&body);
        let word = text.rsplit_once("\"cursor\":\"").and_then(|(_, word)| word.split('"').next());
        cursor = format!("&cursor={}", word.ok_or(format!("no cursor with status {status}"))?);
    }
    Ok(begun.elapsed() / count)
}

/// A hundred writes as one batch, one after the other on one connection, and at once on a hundred.
pub fn batch(options: &Options) -> Outcome<()> {
    for nodes in [1, 3] {
        let server = match nodes {
            1 => servers::kringle(options, Pin::Free)?,
            _ => servers::kringle_of_three(options)?,
        };
        let broken = |error: std::io::Error| format!("writing to {}: {error}", server.url);
        let value = "v".repeat(100);
        let streams = (0..WRITES).map(|_| connect(host(&server))).collect::<Result<Vec<_>, _>>().map_err(broken)?;
        let put = |stream: &TcpStream, number: usize| {
            let head = format!("PUT /kv/key{number} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", value.len());
            exchange(stream, format!("{head}{value}").as_bytes())
        };
        let lines: String = (0..WRITES)
            .map(|number| format!("{{\"op\":\"put\",\"key\":\"key{number}\",\"value\":\"{value}\"}}\n"))
            .collect();
        let head = format!("POST /batch HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", lines.len());
        let together = format!("{head}{lines}");
        let (mut batches, mut after, mut at_once) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TURNS {
            let begun = Instant::now();
            let (status, body) = exchange(&streams[0], together.as_bytes()).map_err(broken)?;
            batches.push(begun.elapsed().as_secs_f64());
            let answers = body.iter().filter(|byte| **byte == b'\n').count();
            if status != 200 || answers != WRITES {
                return Err(format!("status {status}, {answers} lines"));
            }
            let begun = Instant::now();
            (0..WRITES).try_for_each(|number| put(&streams[0], number).map(drop)).map_err(broken)?;
            after.push(begun.elapsed().as_secs_f64());
            let begun = Instant::now();
            std::thread::scope(|scope| {
                let threads: Vec<_> = streams
                    .iter()
                    .enumerate()
                    .map(|(number, stream)| scope.spawn(move || put(stream, number).map(drop)))
                    .collect();
                threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
            })
            .map_err(broken)?;
            at_once.push(begun.elapsed().as_secs_f64());
        }
        println!("\n{WRITES} writes of 100 B, {nodes} nodes, {}, {TURNS} turns", ours(options, nodes));
        println!("as one batch: {:.2} ms", median(batches.clone()) * 1e3);
        println!("one after the other: {:.2} ms", median(after.clone()) * 1e3);
        println!("at once, on {WRITES} connections with a thread each: {:.2} ms", median(at_once.clone()) * 1e3);
        let part = |of: &[f64]| batches.iter().zip(of).map(|(batch, other)| batch / other).collect::<Vec<f64>>();
        judge("a batch / one after the other", part(&after), Target::AtMost(0.1));
        judge("a batch / at once", part(&at_once), Target::AtMost(1.0));
    }
    Ok(())
}
