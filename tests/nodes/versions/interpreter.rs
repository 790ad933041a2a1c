//! A stand-in for a node that speaks the previous version of the protocol and no other: between a node of this build and
//! its peers it refuses and translates whatever such a node could not have understood or said.
//!
//! ```text
//!            in front of node A (previous)                in front of node B
//!   B ── own ───▶ 400, as that node refuses it       A ── own ───▶ the same in previous ──▶ B
//!   B ── previous ──▶ A ── reply in previous ──▶ B   B ── reply in previous ──▶ A
//! ```
//!
//! One message at a time on each connection; towards the node a connection for each. A test may say at any time who speaks
//! what, and no connection ends by that, as none would by a peer that is upgraded between two requests.

use crate::support::node::reserve_port;
use kringle::placement::NodeId;
use kringle::protocol::{Batch, PREVIOUS_VERSION, PROTOCOL_VERSION, ProtocolVersion, Reply};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// As a node of the previous version answers a message in another, with status 400.
const REFUSAL: &str = include_str!("../../previous/refusal.json");

/// What came by, to one node.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Batches that the node was given in this build's version.
    pub(crate) own: u64,
    /// Batches that it was given in the previous one.
    pub(crate) previous: u64,
    /// Batches that were refused in its name.
    pub(crate) refused: u64,
    /// Replies in another version than what they answer.
    pub(crate) astray: u64,
}

/// Who speaks the previous version only. All interpreters of a cluster look at one.
#[derive(Clone, Default, Debug)]
pub(crate) struct Speakers(Arc<Mutex<BTreeSet<NodeId>>>);

impl Speakers {
    pub(crate) fn set(&self, previous: impl IntoIterator<Item = NodeId>) {
        *self.held() = previous.into_iter().collect();
    }

    fn speaks_previous(&self, node: NodeId) -> bool {
        self.held().contains(&node)
    }

    fn held(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Accepts nobody once it is dropped; its connections end with those who have them.
#[derive(Debug)]
pub(crate) struct Interpreter {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    node: String,
    /// Whether the node speaks the previous version only.
    is_previous: AtomicBool,
    speakers: Speakers,
    counts: Mutex<Counts>,
    stopped: AtomicBool,
}

impl Interpreter {
    /// On a port of its own in front of `node` (`host:port`), which need not run yet.
    pub(crate) fn before(node: &str, speakers: &Speakers) -> Interpreter {
        let port = reserve_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the interpreter's port");
        let shared = Arc::new(Shared {
            node: node.into(),
            is_previous: AtomicBool::new(false),
            speakers: speakers.clone(),
            counts: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        let acceptor = std::thread::spawn(move || {
            for peer in listener.incoming() {
                if accepting.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(peer), shared) = (peer, accepting.clone()) else { continue };
                std::thread::spawn(move || while carry(&shared, &peer).is_some() {});
            }
        });
        Interpreter { port, shared, acceptor: Some(acceptor) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on the node speaks the previous version only, or both.
    pub(crate) fn set_previous(&self, is_previous: bool) {
        self.shared.is_previous.store(is_previous, Ordering::SeqCst);
    }

    pub(crate) fn counts(&self) -> Counts {
        *self.shared.counts()
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Carries one request and its response. None where the connection is at its end.
fn carry(shared: &Shared, peer: &TcpStream) -> Option<()> {
    let _ = peer.set_nodelay(true);
    let (head, mut body) = read_message(peer, request_length)?;
    let (batch, mut version) = Batch::decode(&body).ok()?;
    if version == PROTOCOL_VERSION && shared.speakers.speaks_previous(batch.envelope.sender) {
        version = PREVIOUS_VERSION;
        body = batch.encode(version);
    }
    if version == PROTOCOL_VERSION && shared.is_previous.load(Ordering::SeqCst) {
        shared.counts().refused += 1;
        let refusal = REFUSAL.trim_end();
        let head = format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\n", refusal.len());
        return send(peer, format!("{head}content-type: application/json\r\n\r\n").as_bytes(), refusal.as_bytes());
    }
    match version == PROTOCOL_VERSION {
        true => shared.counts().own += 1,
        false => shared.counts().previous += 1,
    }
    let node = TcpStream::connect(&shared.node).ok()?;
    let _ = node.set_nodelay(true);
    // The same length in both versions, so the head still says the truth.
    send(&node, &head, &body)?;
    let (head, body) = read_message(&node, response_length)?;
    if Reply::decode(&body).is_ok_and(|(_, answered): (_, ProtocolVersion)| answered != version) {
        shared.counts().astray += 1;
    }
    send(peer, &head, &body)
}

fn send(mut to: &TcpStream, head: &[u8], body: &[u8]) -> Option<()> {
    to.write_all(&[head, body].concat()).ok()
}

/// The next message's head and body. `length` finds the ends of both, once it has enough.
fn read_message(mut from: &TcpStream, length: Length) -> Option<(Vec<u8>, Vec<u8>)> {
    let (mut bytes, mut buffer) = (vec![], [0; 16 * 1024]);
    loop {
        if let Some((head, body)) = length(&bytes)
            && bytes.len() >= head + body
        {
            let body = bytes.split_off(head);
            return Some((bytes, body));
        }
        let n = from.read(&mut buffer).ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&buffer[..n]);
    }
}

type Length = fn(&[u8]) -> Option<(usize, usize)>;

fn request_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let head = request.parse(bytes).ok().filter(httparse::Status::is_complete)?.unwrap();
    Some((head, content_length(request.headers)))
}

fn response_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let head = response.parse(bytes).ok().filter(httparse::Status::is_complete)?.unwrap();
    Some((head, content_length(response.headers)))
}

fn content_length(headers: &[httparse::Header<'_>]) -> usize {
    let named = headers.iter().find(|header| header.name.eq_ignore_ascii_case("Content-Length"));
    let length = named.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
    length.expect("nodes tell each other the length of what they say")
}
