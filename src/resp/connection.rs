//! One client's connection, from its first byte to its last.
//!
//! What has come is taken apart and begun; once nothing more is there, what is under way is waited for, and the answers go
//! out in one piece. Nothing is read meanwhile, so a client that sends faster than it is served is held back by its socket.

use super::clients::Clients;
use super::frame;
use super::input::{Input, Limits, Taken};
use super::pipeline::Pipeline;
use super::reply::Reply;
use super::session::Session;
use crate::node::{BODIES_BYTES_MAX, Worker};
use bytes::{Bytes, BytesMut};
use std::io::{Error, ErrorKind, Result};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a client may say nothing between two commands.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(600);
/// How long it may pause within one.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long it may take to read what it is answered, for each piece.
const READ_MAX: Duration = Duration::from_secs(30);
/// How long one that is refused may take to read why.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// Bytes taken in at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Answers of so many bytes are sent without waiting for those behind.
const ANSWERS_BYTES_MAX: usize = 256 << 10;
/// What a command may have beside its longest value, in bytes: several shorter ones, keys and options.
const BESIDE_BYTES_MAX: usize = 1 << 20;
/// Commands of a connection, of which bytes are not counted against the node's budget: most clients' are shorter.
const UNCOUNTED_BYTES: u64 = 64 << 10;

std::thread_local! {
    /// Where bytes are read to before they are known to be any: a connection that waits has no room of its own.
    static PIECE: std::cell::RefCell<Box<[u8]>> = std::cell::RefCell::new(vec![0; PIECE_BYTES].into());
}

/// Serves a connection until it ends. `serving` counts what is being served, so that stopping can wait for it.
pub async fn serve(worker: Rc<Worker>, clients: Arc<Clients>, serving: Arc<AtomicUsize>, socket: TcpStream) {
    // A connection without it still works, only slower.
    let _ = socket.set_nodelay(true);
    let connected = clients.enter(socket.peer_addr().ok(), worker.node.uptime());
    let settings = &worker.node.settings;
    let limits = Limits {
        word_max: settings.value_bytes_max.max(settings.key_bytes_max),
        command_max: settings.value_bytes_max + BESIDE_BYTES_MAX,
    };
    let held = Held { worker: worker.clone(), bytes: 0 };
    let session = Rc::new(Session::new(worker, clients, connected.client().clone()));
    let mut connection = Connection {
        socket,
        session,
        input: Input::new(limits),
        pipeline: Pipeline::default(),
        answers: BytesMut::new(),
        held,
        serving,
    };
    // Whoever is gone need not be told.
    let _ = connection.run().await;
}

struct Connection {
    socket: TcpStream,
    session: Rc<Session>,
    input: Input,
    pipeline: Pipeline,
    answers: BytesMut,
    held: Held,
    serving: Arc<AtomicUsize>,
}

/// Bytes of a command that is not there whole, held against the node's budget and given back when dropped.
struct Held {
    worker: Rc<Worker>,
    bytes: u64,
}

impl Held {
    /// Counts so many from here on. Whether there is room for them.
    fn set(&mut self, bytes: usize) -> bool {
        let bytes = (bytes as u64).saturating_sub(UNCOUNTED_BYTES);
        let all = &self.worker.node.body_bytes;
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes <= before {
            all.fetch_sub(before - bytes, Ordering::Relaxed);
            return true;
        }
        all.fetch_add(bytes - before, Ordering::Relaxed) + (bytes - before) <= BODIES_BYTES_MAX
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Counts a client for as long as it is served.
struct Serving(Arc<AtomicUsize>);

impl Serving {
    fn one(serving: &Arc<AtomicUsize>) -> Serving {
        serving.fetch_add(1, Ordering::SeqCst);
        Serving(serving.clone())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Connection {
    async fn run(&mut self) -> Result<()> {
        loop {
            if !self.read().await? {
                return Ok(());
            }
            let _serving = Serving::one(&self.serving);
            let broken = self.commands().await?;
            while let Some(reply) = self.pipeline.next().await {
                self.answer(reply).await?;
            }
            if let Some(why) = broken {
                self.answer(Reply::Error(why)).await?;
                self.flush().await?;
                return self.linger().await;
            }
            self.flush().await?;
            if self.session.is_closing() || self.session.worker.node.is_stopping() {
                return self.socket.shutdown().await;
            }
            let has_room = self.held.set(self.input.len());
            if !has_room {
                self.input.refuse("UNAVAILABLE too many bytes are being sent to this node at once; nothing was stored");
                self.held.set(self.input.len());
            }
            self.input.shrink();
        }
    }

    /// Begins every command that is there whole. Why there can be no more, where that is so.
    async fn commands(&mut self) -> Result<Option<String>> {
        let (mut count, mut broken) = (0, None);
        while let Some(taken) = self.input.next() {
            count += 1;
            let known = match taken {
                Taken::Command(words) => {
                    self.make_way(&words).await?;
                    self.pipeline.begin(&self.session, &words)
                }
                Taken::Refused(why) => self.pipeline.known(Reply::Error(why)),
                Taken::Broken(why) => {
                    broken = Some(why);
                    break;
                }
            };
            if let Some(reply) = known {
                self.answer(reply).await?;
            }
            if self.session.is_closing() {
                break;
            }
        }
        if count > 0 {
            let node = &self.session.worker.node;
            node.foreground.note();
            self.session.clients.note(&self.session.client, count, node.uptime());
        }
        Ok(broken)
    }

    /// Waits for what these words must not overtake.
    async fn make_way(&mut self, words: &[Bytes]) -> Result<()> {
        if self.pipeline.must_wait(words) {
            while let Some(reply) = self.pipeline.next().await {
                self.answer(reply).await?;
            }
        }
        Ok(())
    }

    async fn answer(&mut self, reply: Reply) -> Result<()> {
        frame::put(&mut self.answers, reply, self.session.protocol());
        if self.answers.len() >= ANSWERS_BYTES_MAX {
            self.flush().await?;
        }
        Ok(())
    }

    /// Sends what is answered.
    async fn flush(&mut self) -> Result<()> {
        let mut answers = std::mem::take(&mut self.answers).freeze();
        while !answers.is_empty() {
            let written = match self.socket.try_write(&answers) {
                Ok(written) => written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    timeout(READ_MAX, self.socket.writable()).await.map_err(|_| Error::from(ErrorKind::TimedOut))??;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if written == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            bytes::Buf::advance(&mut answers, written);
        }
        Ok(())
    }

    /// Waits for the next piece. Whether one came: the client may be done, or silent for too long.
    async fn read(&mut self) -> Result<bool> {
        loop {
            let read = PIECE.with_borrow_mut(|piece| {
                let read = self.socket.try_read(piece)?;
                self.input.extend(&piece[..read]);
                Ok::<_, Error>(read)
            });
            match read {
                Ok(read) => return Ok(read > 0),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            let limit = if self.input.is_within() { PAUSE_MAX } else { IDLE_MAX };
            match timeout(limit, self.socket.readable()).await {
                Ok(ready) => ready?,
                Err(_) => return Ok(false),
            }
        }
    }

    /// Lets a client that was refused read why: to close with bytes unread would take the answer back.
    async fn linger(&mut self) -> Result<()> {
        self.socket.shutdown().await?;
        let waste = async {
            let mut waste = [0; 4096];
            loop {
                self.socket.readable().await?;
                match self.socket.try_read(&mut waste) {
                    Ok(0) => return Ok(()),
                    Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                    _ => {}
                }
            }
        };
        timeout(LINGER_MAX, waste).await.unwrap_or(Ok(()))
    }
}
