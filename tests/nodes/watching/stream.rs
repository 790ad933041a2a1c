//! A client of server-sent events over a plain socket, which keeps what it was told.

use super::support::http::connect;
use serde_json::Value;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Long enough for a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

/// What was told at a time.
#[derive(Clone, Debug)]
pub struct Told {
    pub id: String,
    pub event: String,
    pub data: Value,
}

impl Told {
    /// Whether it is about a key.
    pub fn is_change(&self) -> bool {
        matches!(self.event.as_str(), "put" | "delete" | "count")
    }

    pub fn text(&self, field: &str) -> String {
        self.data[field].as_str().unwrap_or_default().to_owned()
    }

    /// Event and key, for comparisons.
    pub fn short(&self) -> String {
        format!("{} {}", self.event, self.text("key"))
    }
}

/// A connection on which events come.
pub struct Stream {
    socket: TcpStream,
    events: Receiver<Told>,
    seen: VecDeque<Told>,
}

impl Stream {
    /// Asks for it and waits until it is ready: from then on nothing is missed.
    #[track_caller]
    pub fn open(address: &str, target: &str) -> Stream {
        Stream::from(address, target, None)
    }

    /// The same, going on from an id, as a browser does.
    #[track_caller]
    pub fn from(address: &str, target: &str, id: Option<&str>) -> Stream {
        let socket = Stream::ask(address, target, id);
        let mut stream = Stream::read(socket);
        let ready = stream.next().expect("an answer");
        assert_eq!(ready.event, "ready", "{ready:?}");
        stream
    }

    /// Asks, and does not read.
    pub fn ask(address: &str, target: &str, id: Option<&str>) -> TcpStream {
        let mut socket = connect(address, Duration::from_secs(5)).expect("a connection");
        let header = id.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
        write!(socket, "GET {target} HTTP/1.1\r\nHost: {address}\r\n{header}\r\n").expect("the request is sent");
        socket
    }

    /// Reads what comes on a connection, in a thread of its own.
    pub fn read(socket: TcpStream) -> Stream {
        let (tell, events) = channel();
        let reading = socket.try_clone().expect("a socket");
        reading.set_read_timeout(None).expect("a socket");
        std::thread::spawn(move || {
            let mut input = BufReader::new(reading);
            let mut head = String::new();
            while input.read_line(&mut head).is_ok_and(|n| n > 2) {}
            if !head.starts_with("HTTP/1.1 200") || !head.contains("text/event-stream") {
                return;
            }
            let (mut size, mut text) = (String::new(), Vec::new());
            while input.read_line(&mut size).is_ok_and(|n| n > 0) {
                let length = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
                let mut chunk = vec![0; length + 2];
                if length == 0 || input.read_exact(&mut chunk).is_err() {
                    return;
                }
                size.clear();
                text.extend_from_slice(&chunk[..length]);
                while let Some(end) = text.windows(2).position(|two| two == b"\n\n") {
                    let block: Vec<u8> = text.drain(..end + 2).collect();
                    let block = String::from_utf8(block).expect("text");
                    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                    let (Some(event), Some(data)) = (field("event: "), field("data: ")) else { continue };
                    let data = serde_json::from_str(&data).expect("JSON");
                    if tell.send(Told { id: field("id: ").unwrap_or_default(), event, data }).is_err() {
                        return;
                    }
                }
            }
        });
        Stream { socket, events, seen: VecDeque::new() }
    }

    /// What is told next, within a while; nothing, where the connection has ended.
    pub fn next(&mut self) -> Option<Told> {
        self.next_by(Instant::now() + SOON)
    }

    fn next_by(&mut self, deadline: Instant) -> Option<Told> {
        if let Some(told) = self.seen.pop_front() {
            return Some(told);
        }
        match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(told) => Some(told),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("nothing is told for {SOON:?}"),
        }
    }

    /// The next so many.
    #[track_caller]
    pub fn take(&mut self, count: usize) -> Vec<Told> {
        (0..count).map(|at| self.next().unwrap_or_else(|| panic!("it ended after {at} of {count}"))).collect()
    }

    /// Everything until so many different keys were told of. A write that a busy owner was too slow to answer is made, and
    /// told, once more under another name: so there may be more than that.
    #[track_caller]
    pub fn until_keys(&mut self, count: usize) -> Vec<Told> {
        let mut keys = std::collections::BTreeSet::new();
        let mut taken = Vec::new();
        while keys.len() < count {
            let told = self.next().unwrap_or_else(|| panic!("it ended after {} of {count} keys", keys.len()));
            keys.insert(told.text("key"));
            taken.push(told);
        }
        taken
    }

    /// Everything up to one that fits, which is the last.
    #[track_caller]
    pub fn until(&mut self, fits: impl Fn(&Told) -> bool) -> Vec<Told> {
        let (deadline, mut taken) = (Instant::now() + 2 * SOON, Vec::new());
        loop {
            let Some(told) = self.next_by(deadline) else { panic!("it ended after {:?}", taken.last()) };
            taken.push(told);
            if taken.last().is_some_and(&fits) {
                return taken;
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}
