//! A TCP proxy that misbehaves on request. A node advertises its address, so its peers' traffic passes here.
//!
//! ```text
//!   peers ──▶ listener ──▶ [ fault ] ──▶ node      "to the node"
//!         ◀──────────────  [ fault ] ◀──           "from the node"
//! ```
//!
//! One thread accepts, two copy for each connection. All of them look at one shared [`Fault`], which a test
//! may change at any time; connections whose bytes were lost are closed when the fault is lifted, since nothing
//! sensible can follow on them.

use super::eventually;
use super::node::reserve_port;
use kringle::placement::NodeId;
use kringle::protocol::Batch;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    ToNode,
    FromNode,
}

/// What happens to connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing bad.
    Pass,
    /// Nobody listens: connecting fails at once, and what was connected is cut.
    Refuse,
    /// Connections are accepted and stay open, and nothing comes through either way.
    Hang,
    /// Bytes that go this way vanish; those of the other way arrive.
    BlackHole(Way),
    /// Every piece of bytes is held back for this long, each way.
    Delay(Duration),
    /// Each connection ends after so many more bytes this way.
    Cut(Way, u64),
}

/// Ended, with all its connections, when dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    node: String,
    state: Mutex<State>,
    changed: Condvar,
    connections: AtomicU64,
    bytes_to_node: AtomicU64,
    bytes_from_node: AtomicU64,
    writes_to_node: AtomicU64,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    /// How often the fault was changed, so that a copying thread can tell a new fault from an old one.
    version: u64,
    stopped: bool,
    /// The only nodes whose connections pass, if that is limited.
    admitted: Option<BTreeSet<NodeId>>,
    streams: BTreeMap<u64, Vec<TcpStream>>,
}

impl Proxy {
    /// A proxy on a port of its own in front of `node` (`host:port`), which need not run yet.
    pub fn before(node: &str) -> Proxy {
        let port = reserve_port();
        let state = State { fault: Fault::Pass, version: 0, stopped: false, admitted: None, streams: BTreeMap::new() };
        let shared = Arc::new(Shared {
            node: node.into(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            connections: AtomicU64::new(0),
            bytes_to_node: AtomicU64::new(0),
            bytes_from_node: AtomicU64::new(0),
            writes_to_node: AtomicU64::new(0),
        });
        let listener = listen(port);
        let accepting = shared.clone();
        let acceptor = std::thread::spawn(move || accept(listener, port, &accepting));
        Proxy { port, shared, acceptor: Some(acceptor) }
    }

    /// `127.0.0.1:port`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// From now on. Returns once no connection is treated the old way, except for a piece already on its way.
    pub fn set(&self, fault: Fault) {
        let mut state = self.shared.state();
        let healed = matches!(state.fault, Fault::BlackHole(_) | Fault::Cut(..));
        if fault == Fault::Refuse || (healed && fault != state.fault) {
            state.cut();
        }
        state.fault = fault;
        state.version += 1;
        drop(state);
        self.shared.changed.notify_all();
        if fault == Fault::Refuse {
            self.wake_acceptor();
        }
    }

    /// Admits these nodes only, or everybody: what is open is cut, what anybody else opens is closed as soon as its
    /// first request has told who it is, before the node sees any of it.
    pub fn admit_only(&self, senders: Option<BTreeSet<NodeId>>) {
        let mut state = self.shared.state();
        state.admitted = senders;
        state.cut();
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Bytes handed on so far, this way.
    pub fn bytes(&self, way: Way) -> u64 {
        self.shared.bytes(way).load(Ordering::Relaxed)
    }

    /// Messages with writes in them, `POST /replicate`, that were handed on to the node so far.
    pub fn writes(&self) -> u64 {
        self.shared.writes_to_node.load(Ordering::Relaxed)
    }

    /// It sits in `accept`; a connection that is closed again makes it look.
    fn wake_acceptor(&self) {
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.stopped = true;
        state.cut();
        drop(state);
        self.shared.changed.notify_all();
        self.wake_acceptor();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn bytes(&self, way: Way) -> &AtomicU64 {
        match way {
            Way::ToNode => &self.bytes_to_node,
            Way::FromNode => &self.bytes_from_node,
        }
    }

    /// Waits while `hold` holds. None when the proxy is at its end, else the fault and its version.
    fn fault_unless(&self, hold: impl Fn(Fault) -> bool) -> Option<(Fault, u64)> {
        let waits = |state: &mut State| !state.stopped && hold(state.fault);
        let state = self.changed.wait_while(self.state(), waits).unwrap_or_else(std::sync::PoisonError::into_inner);
        (!state.stopped).then_some((state.fault, state.version))
    }
}

impl State {
    fn cut(&mut self) {
        for stream in std::mem::take(&mut self.streams).into_values().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// A listener given up a moment ago may still be held by a program that was being started then.
fn listen(port: u16) -> TcpListener {
    let listen = || TcpListener::bind(("127.0.0.1", port)).map_err(|error| error.to_string());
    eventually("the proxy's port is free", Duration::from_secs(10), listen)
}

fn accept(listener: TcpListener, port: u16, shared: &Arc<Shared>) {
    let mut listener = Some(listener);
    loop {
        if shared.state().fault == Fault::Refuse {
            listener = None;
        }
        let Some(_) = shared.fault_unless(|fault| fault == Fault::Refuse) else {
            return;
        };
        let bound = listener.get_or_insert_with(|| listen(port));
        let Ok((peer, _)) = bound.accept() else { continue };
        let mut state = shared.state();
        if state.stopped || state.fault == Fault::Refuse {
            continue;
        }
        let number = shared.connections.fetch_add(1, Ordering::Relaxed);
        state.streams.insert(number, peer.try_clone().into_iter().collect());
        drop(state);
        let shared = shared.clone();
        std::thread::spawn(move || {
            carry(&shared, number, peer);
            shared.state().streams.remove(&number);
        });
    }
}

/// Whom the first request on a connection is from, with the bytes read so far. Only nodes send requests that tell.
fn first_sender(peer: &mut impl Read) -> Option<(NodeId, Vec<u8>)> {
    let (mut bytes, mut buffer) = (vec![], [0; 16 * 1024]);
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(head) = request.parse(&bytes).ok()? {
            let length = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("Content-Length"))?;
            let length: usize = std::str::from_utf8(length.value).ok()?.parse().ok()?;
            if let Some(body) = bytes.get(head..head + length) {
                return Some((Batch::decode(body).ok()?.0.envelope.sender, bytes));
            }
        }
        let n = peer.read(&mut buffer).ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&buffer[..n]);
    }
}

/// Carries one connection to its end.
fn carry(shared: &Arc<Shared>, number: u64, mut peer: TcpStream) {
    if shared.fault_unless(|fault| fault == Fault::Hang).is_none() {
        return;
    }
    // Whoever changes this afterwards cuts the connection.
    let admitted = shared.state().admitted.clone();
    let mut begun = vec![];
    if let Some(admitted) = admitted {
        match first_sender(&mut peer) {
            Some((sender, bytes)) if admitted.contains(&sender) => begun = bytes,
            _ => return,
        }
    }
    let Ok(mut node) = TcpStream::connect(&shared.node) else {
        return;
    };
    // Counted before anybody can have been served by it.
    shared.bytes(Way::ToNode).fetch_add(begun.len() as u64, Ordering::Relaxed);
    if node.write_all(&begun).is_err() {
        return;
    }
    let _ = (peer.set_nodelay(true), node.set_nodelay(true));
    match shared.state().streams.get_mut(&number) {
        Some(streams) => streams.extend(node.try_clone()),
        None => return,
    }
    let (Ok(peer_too), Ok(node_too)) = (peer.try_clone(), node.try_clone()) else {
        return;
    };
    let answering = shared.clone();
    let answers = std::thread::spawn(move || copy(&answering, Way::FromNode, node_too, peer_too));
    copy(shared, Way::ToNode, peer, node);
    let _ = answers.join();
}

/// Copies one way until either side ends, then hands the end on.
fn copy(shared: &Shared, way: Way, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    // The version of the fault that allows so many more bytes.
    let mut allowance = (u64::MAX, 0);
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let Some((fault, version)) = shared.fault_unless(|fault| fault == Fault::Hang) else {
            break;
        };
        let mut bytes = &buffer[..n];
        match fault {
            Fault::Pass | Fault::Hang => {}
            Fault::Refuse => break,
            Fault::BlackHole(lost) if lost == way => continue,
            Fault::BlackHole(_) => {}
            Fault::Delay(pause) => std::thread::sleep(pause),
            Fault::Cut(cut, after) if cut == way => {
                if allowance.0 != version {
                    allowance = (version, after);
                }
                bytes = &bytes[..n.min(allowance.1 as usize)];
                allowance.1 -= bytes.len() as u64;
            }
            Fault::Cut(..) => {}
        }
        shared.bytes(way).fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if way == Way::ToNode {
            const LINE: &[u8] = b"POST /replicate ";
            let writes = bytes.windows(LINE.len()).filter(|some| *some == LINE).count();
            shared.writes_to_node.fetch_add(writes as u64, Ordering::Relaxed);
        }
        if to.write_all(bytes).is_err() {
            break;
        }
        if bytes.len() < n {
            let _ = from.shutdown(Shutdown::Both);
            break;
        }
    }
    let _ = to.shutdown(if matches!(way, Way::ToNode) { Shutdown::Write } else { Shutdown::Both });
}
