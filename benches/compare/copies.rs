//! Copies of records, handed to a node as a peer would hand them: the quickest way to give nodes what they are to hold
//! alike, and the only one to give it to some of them alone.

use crate::Outcome;
use crate::fill::{connect, exchange};
use crate::process::ask;
use crate::wrk::{Shape, value};
use kringle::placement::{ClusterId, NodeId};
use kringle::protocol::{
    Answer, Batch, Envelope, MEDIA_TYPE, PROTOCOL_VERSION, REQUESTS_PER_BATCH_MAX, Refusal, Reply, Request, wire_bytes,
};
use kringle::record::{Actor, Content, Dot, Key, Record, Seen, Stamp};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// The cluster that nodes of these benches belong to.
pub const CLUSTER: &str = "bench";
/// Connections to a node. One batch is prepared while another is committed.
const CONNECTIONS: usize = 2;
/// Writes are said to be so old, so that no session takes them for being on their way.
const AGE: Duration = Duration::from_secs(60);

/// Which write of a key: a later one supersedes the earlier.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    First,
    Second,
}

/// The request that hands over a key in a generation.
pub fn copy_of(number: u64, generation: Generation, began: Stamp) -> Request {
    let key = Key::new(Shape::Put.key(number)).expect("a short key");
    let write = |record: Record, stamp: u64| {
        let dot = Dot { actor: Actor(1), stamp: Stamp(began.0 + stamp) };
        record.write(&Seen::Everything, dot, Some(Content::plain(value()))).expect("one sibling")
    };
    let first = write(Record::default(), number);
    let record = match generation {
        Generation::First => first,
        Generation::Second => write(first, (1 << 32) + number),
    };
    Request::Merge { key, record }
}

/// A time for the first writes, long enough ago.
pub fn long_ago() -> Stamp {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // The second generation lies 2^32 counts later: 65,536 milliseconds.
    Stamp::from_ms((now - AGE - Duration::from_millis(1 << 16)).as_millis() as u64)
}

/// What a record takes in a session: the request with its key, and an answer of three bytes.
pub fn bytes_of_one(began: Stamp) -> u64 {
    wire_bytes(&copy_of(1_000_000, Generation::First, began)) + 3
}

/// Gives these keys to every node of `urls`, and fails if one is not taken.
pub fn give(urls: &[&str], keys: Range<u64>, generation: Generation, began: Stamp) -> Outcome<()> {
    let end = keys.end;
    let nexts: Vec<AtomicU64> = urls.iter().map(|_| AtomicU64::new(keys.start)).collect();
    let results: Vec<Outcome<()>> = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (url, next) in urls.iter().zip(&nexts) {
            threads.extend((0..CONNECTIONS).map(|_| scope.spawn(move || give_one(url, next, end, generation, began))));
        }
        threads.into_iter().map(|thread| thread.join().unwrap_or(Err("a thread broke".into()))).collect()
    });
    results.into_iter().collect()
}

fn give_one(url: &str, next: &AtomicU64, end: u64, generation: Generation, began: Stamp) -> Outcome<()> {
    let host = url.trim_start_matches("http://");
    let broken = |error: std::io::Error| format!("copies for {host}: {error}");
    let (cluster, epoch) = layout_of(url)?;
    let stream = connect(host).map_err(broken)?;
    loop {
        let first = next.fetch_add(REQUESTS_PER_BATCH_MAX as u64, Ordering::Relaxed);
        if first >= end {
            return Ok(());
        }
        let last = end.min(first + REQUESTS_PER_BATCH_MAX as u64);
        let envelope = Envelope {
            cluster,
            sender: NodeId(1),
            receiver: None,
            epoch,
            deadline_ms: 10_000,
            stamp: Stamp(0),
            background: false,
        };
        let requests = (first..last).map(|number| copy_of(number, generation, began)).collect();
        let body = Batch { envelope, requests }.encode(PROTOCOL_VERSION);
        let head = format!(
            "POST /replicate HTTP/1.1\r\nHost: {host}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let request = [head.as_bytes(), &body].concat();
        while !is_taken(host, exchange(&stream, &request).map_err(broken)?)? {
            // Its base is behind: it says so early, and a client comes again.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The cluster that a node belongs to, and the epoch that it goes by: what a peer would have learned of it.
fn layout_of(url: &str) -> Outcome<(ClusterId, u64)> {
    let (_, body) = ask(url, "GET", "/cluster", "")?;
    let cluster: serde_json::Value = serde_json::from_str(&body).map_err(|error| format!("{url}/cluster: {error}"))?;
    let id = cluster["cluster_id"].as_str().and_then(|id| id.parse().ok());
    match (id, cluster["epoch"].as_u64()) {
        (Some(id), Some(epoch)) => Ok((id, epoch)),
        _ => Err(format!("{url} belongs to no cluster yet: {cluster}")),
    }
}

/// Whether every copy was taken; `false` if there was no room for some of them just now.
fn is_taken(host: &str, (status, body): (u16, Vec<u8>)) -> Outcome<bool> {
    let (reply, _) = Reply::decode(&body).map_err(|error| format!("{host} answers {status}, {error}"))?;
    let answers = reply.answers.map_err(|refusal| format!("{host} refuses: {refusal}"))?;
    let refused = answers.iter().find(|answer| !matches!(answer, Answer::Merged { .. }));
    match refused {
        None => Ok(true),
        Some(Answer::Refused(Refusal::Overloaded)) => Ok(false),
        Some(other) => Err(format!("{host} did not take a copy: {other:?}")),
    }
}
