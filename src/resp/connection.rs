//! One client's connection, from its first byte to its last.
//!
//! What has come is taken apart and begun; once nothing more is there, what is under way is waited for, and the answers go
//! out in one piece. Nothing is read meanwhile, so a client that sends faster than it is served is held back by its socket.

use super::clients::{Clients, clients_max};
use super::frame;
use super::input::{Input, Limits, Taken};
use super::pipeline::{Pipeline, Way};
use super::reply::Reply;
use super::session::Session;
use crate::node::{BODIES_BYTES_MAX, Worker, now};
use bytes::{Bytes, BytesMut};
use std::future::poll_fn;
use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a client may say nothing between two commands.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(600);
/// How long it may pause within one.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long a command may take to arrive, as a body over HTTP may.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(120);
/// How long it may take to read what it is answered, for each piece.
const READ_MAX: Duration = Duration::from_secs(30);
/// How long one that is refused may take to read why.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// Bytes taken in at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Answers of so many bytes are sent without waiting for those behind.
const ANSWERS_BYTES_MAX: usize = 256 << 10;
/// Commands that are begun before other clients have their turn.
const COMMANDS_AT_A_TIME: u64 = 64;
/// What a command may have beside its longest value, in bytes: several shorter ones, keys and options.
const BESIDE_BYTES_MAX: usize = 1 << 20;
/// Commands of a connection, of which bytes are not counted against the node's budget: most clients' are shorter.
const UNCOUNTED_BYTES: u64 = 64 << 10;

std::thread_local! {
    /// Where bytes are read to before they are known to be any: a connection that waits has no room of its own.
    static PIECE: std::cell::RefCell<Box<[u8]>> = std::cell::RefCell::new(vec![0; PIECE_BYTES].into());
}

/// Serves a connection until it ends. `serving` counts what is being served, so that stopping can wait for it.
pub async fn serve(worker: Rc<Worker>, clients: Arc<Clients>, serving: Arc<AtomicUsize>, mut socket: TcpStream) {
    // A connection without it still works, only slower.
    let _ = socket.set_nodelay(true);
    let settings = &worker.node.settings;
    let most = clients_max(settings.connections_max);
    let Some(connected) = clients.enter(most, socket.peer_addr().ok(), worker.node.uptime()) else {
        // Whoever is gone need not be told.
        let _ = timeout(LINGER_MAX, socket.write_all(b"-ERR max number of clients reached\r\n")).await;
        let _ = linger(&mut socket).await;
        return;
    };
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
        began: None,
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
    /// When the command began that is not there whole.
    began: Option<Instant>,
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
                return linger(&mut self.socket).await;
            }
            self.flush().await?;
            if self.session.is_closing() || self.session.worker.node.is_stopping() {
                return linger(&mut self.socket).await;
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
            (count, self.began) = (count + 1, None);
            if count % COMMANDS_AT_A_TIME == 0 {
                tokio::task::yield_now().await;
            }
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
            self.session.worker.count(count, 0, 0);
            self.session.clients.note(&self.session.client, count, node.uptime());
        }
        Ok(broken)
    }

    /// Waits for what these words must not overtake.
    async fn make_way(&mut self, words: &[Bytes]) -> Result<()> {
        let mut way = self.pipeline.way(words);
        while way != Way::Free {
            let Some(reply) = self.pipeline.next().await else { break };
            self.answer(reply).await?;
            // Those who wait for all do so at once: what is behind them is begun together.
            if way == Way::Crowded || self.pipeline.is_empty() {
                way = self.pipeline.way(words);
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
                    // What is under way goes on while its client does not read.
                    let writable = poll_fn(|context| {
                        self.pipeline.go_on(context);
                        self.socket.poll_write_ready(context)
                    });
                    timeout(READ_MAX, writable).await.map_err(|_| Error::from(ErrorKind::TimedOut))??;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if written == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            self.session.worker.count(0, 0, written as u64);
            bytes::Buf::advance(&mut answers, written);
        }
        Ok(())
    }

    /// Waits for the next piece. Whether one came: the client may be done, or silent for too long.
    async fn read(&mut self) -> Result<bool> {
        let mut has_waited = false;
        let within = self.input.is_within().then(|| {
            let now = now();
            now.duration_since(*self.began.get_or_insert(now))
        });
        let patience = patience(within);
        if patience.is_zero() {
            return Ok(false);
        }
        // By polling, as that tells a socket that gave less than was asked for to wait without asking it once more.
        let taking = poll_fn(|context| {
            let taken = PIECE.with_borrow_mut(|piece| {
                let mut piece = ReadBuf::new(piece);
                let polled = Pin::new(&mut self.socket).poll_read(context, &mut piece)?;
                self.input.extend(piece.filled());
                polled.map(|()| Ok::<_, Error>(piece.filled().len()))
            });
            has_waited |= taken.is_pending();
            taken
        });
        let read = match timeout(patience, taking).await {
            Ok(read) => read?,
            Err(_) => return Ok(false),
        };
        self.session.worker.count(0, read as u64, 0);
        // Who sends without end would keep the thread, since nothing here waits for anybody.
        if !has_waited {
            tokio::task::yield_now().await;
        }
        Ok(read > 0)
    }
}

/// How long a client may be silent, where a command has been on its way for so long.
fn patience(within: Option<Duration>) -> Duration {
    within.map_or(IDLE_MAX, |since| COMMAND_TIME_MAX.saturating_sub(since).min(PAUSE_MAX))
}

/// Lets a client that is sent away read why, and what else it was answered: to close with bytes unread would take it back.
async fn linger(socket: &mut TcpStream) -> Result<()> {
    socket.shutdown().await?;
    let waste = async {
        let mut waste = [0; 4096];
        loop {
            socket.readable().await?;
            match socket.try_read(&mut waste) {
                Ok(0) => return Ok(()),
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => tokio::task::yield_now().await,
            }
        }
    };
    timeout(LINGER_MAX, waste).await.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_ten_seconds_for_each_pause_and_two_minutes_in_all() {
        let after = |seconds| patience(Some(Duration::from_secs(seconds))).as_secs();
        assert_eq!(patience(None), IDLE_MAX);
        assert_eq!([0, 100, 115, 120, 999].map(after), [10, 10, 5, 0, 0]);
    }
}
