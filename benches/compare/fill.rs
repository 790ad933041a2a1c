//! Puts, or deletes, every key once: wrk knows only how long to ask, not how often.

use crate::Outcome;
use crate::wrk::Shape;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Connections, each with a thread that waits for its answers.
const CONNECTIONS: usize = 50;
/// The longest that filling may take.
const TIME_MAX: Duration = Duration::from_secs(600);

/// Puts the first `keys` keys, and fails if any was refused.
pub fn fill(url: &str, shape: Shape, keys: u64) -> Outcome<()> {
    ask_each(url, shape, 0..keys)
}

/// Asks once for each of these keys, and fails if any was refused.
pub fn ask_each(url: &str, shape: Shape, keys: Range<u64>) -> Outcome<()> {
    let host = url.trim_start_matches("http://");
    let (next, until) = (AtomicU64::new(keys.start), Instant::now() + TIME_MAX);
    let results: Vec<Outcome<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..CONNECTIONS).map(|_| scope.spawn(|| ask_until(host, shape, &next, keys.end, until))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(Err("a thread broke".into()))).collect()
    });
    results.into_iter().collect()
}

fn ask_until(host: &str, shape: Shape, next: &AtomicU64, end: u64, until: Instant) -> Outcome<()> {
    let broken = |error: std::io::Error| format!("filling {host}: {error}");
    let stream = connect(host).map_err(broken)?;
    let (before, after) = shape.around_key(host);
    loop {
        let key = next.fetch_add(1, Ordering::Relaxed);
        if key >= end {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(format!("filling {host} took longer than {TIME_MAX:?}"));
        }
        let request = format!("{before}{}{after}", shape.key(key));
        let (status, body) = exchange(&stream, request.as_bytes()).map_err(broken)?;
        if !(200..300).contains(&status) {
            return Err(format!("filling {host}: status {status}, {}", String::from_utf8_lossy(&body)));
        }
    }
}

/// A connection to keep.
pub fn connect(host: &str) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(host)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

/// Sends a request and waits for its answer: the status, and the body.
pub fn exchange(stream: &TcpStream, request: &[u8]) -> std::io::Result<(u16, Vec<u8>)> {
    let answer = exchange_whole(stream, request)?;
    Ok((answer.status, answer.body))
}

/// An answer, as far as anybody here asks.
pub struct Answer {
    pub status: u16,
    pub etag: Option<String>,
    pub body: Vec<u8>,
}

/// Sends a request and waits for its answer.
pub fn exchange_whole(mut stream: &TcpStream, request: &[u8]) -> std::io::Result<Answer> {
    stream.write_all(request)?;
    // Nothing comes after the answer until the next request is sent, so nothing read ahead is lost.
    let mut answers = BufReader::new(stream);
    let (mut answer, length) = head(&mut answers)?;
    answer.body = vec![0; length];
    answers.read_exact(&mut answer.body)?;
    Ok(answer)
}

/// Reads the head of an answer, and how many bytes follow.
fn head(answers: &mut impl BufRead) -> std::io::Result<(Answer, usize)> {
    let (mut answer, mut length) = (Answer { status: 0, etag: None, body: Vec::new() }, 0);
    let mut line = String::new();
    loop {
        line.clear();
        answers.read_line(&mut line)?;
        let text = line.trim_end().to_ascii_lowercase();
        if text.is_empty() {
            return Ok((answer, length));
        } else if text.starts_with("http/") {
            answer.status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        } else if let Some(value) = text.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        } else if let Some(value) = text.strip_prefix("etag:") {
            answer.etag = Some(value.trim().to_owned());
        }
    }
}
