//! A client's connection, on which the HTTP server's bare answers become answers like all others.

use super::bare::{self, Bare};
use super::refuse::ApiError;
use actix_web::rt::net::TcpStream;
use bytes::{Buf, Bytes};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long a client may take to read the last answer of a connection, and to close it. What it still sends meanwhile is
/// thrown away: closing with unread bytes would reset the connection, and the client might never see why.
pub(super) const LINGER_MAX: Duration = Duration::from_secs(1);

/// A client's connection. It relies on two habits of the server: it writes an answer whole, its body in one piece,
/// before it flushes, so where a write has taken everything the next begins with an answer; and nothing follows a bare
/// answer.
pub(super) struct ClientStream {
    socket: TcpStream,
    /// Whether the next byte written is the first of an answer.
    at_answer: bool,
    refusing: Option<Box<Refusing>>,
}

impl ClientStream {
    pub(super) fn new(socket: TcpStream) -> ClientStream {
        ClientStream { socket, at_answer: true, refusing: None }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_read(context, into)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.at_answer && this.refusing.is_none() {
            this.refusing = bare::find(bytes).map(|bare| Box::new(Refusing::instead_of(bare)));
        }
        if let Some(refusing) = &mut this.refusing {
            return refusing.poll(&mut this.socket, context, bytes);
        }
        let written = ready!(Pin::new(&mut this.socket).poll_write(context, bytes))?;
        this.at_answer = written == bytes.len();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }
}

/// A bare answer is being replaced.
struct Refusing {
    /// Bytes of earlier answers that are still before it.
    before: usize,
    /// What is still to be sent in its place.
    answer: Bytes,
    linger: Linger,
}

/// How far a refused client's connection is on its way to be closed.
enum Linger {
    /// It is closed as soon as the answer is out.
    No,
    /// It is not.
    Wanted,
    /// The answer is out, and what the client still sends is thrown away.
    Until(Pin<Box<Sleep>>),
}

impl Refusing {
    fn instead_of(bare: Bare<'_>) -> Refusing {
        // Who was too slow has nothing more on its way. And the server would time it out anew at each waking.
        let linger = if matches!(bare.error, ApiError::SlowHead) { Linger::No } else { Linger::Wanted };
        Refusing { before: bare.at, answer: bare.dressed(), linger }
    }

    /// Writes what is before the bare answer, then what replaces it, and takes the bare one for written once the client
    /// has closed, or had time to.
    fn poll(&mut self, socket: &mut TcpStream, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.before > 0 {
            let before = &bytes[..self.before.min(bytes.len())];
            let written = ready!(Pin::new(socket).poll_write(context, before))?;
            self.before -= written;
            return Poll::Ready(Ok(written));
        }
        while !self.answer.is_empty() {
            match ready!(Pin::new(&mut *socket).poll_write(context, &self.answer))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.answer.advance(written),
            }
        }
        ready!(self.linger.poll(socket, context));
        Poll::Ready(Ok(bytes.len()))
    }
}

impl Linger {
    fn poll(&mut self, socket: &mut TcpStream, context: &mut Context<'_>) -> Poll<()> {
        loop {
            match self {
                Linger::No => return Poll::Ready(()),
                Linger::Wanted => {
                    // A client that is gone already need not be told.
                    let _ = ready!(Pin::new(&mut *socket).poll_shutdown(context));
                    *self = Linger::Until(Box::pin(tokio::time::sleep(LINGER_MAX)));
                }
                Linger::Until(end) => {
                    let mut waste = [0; 4096];
                    let mut waste = ReadBuf::new(&mut waste);
                    let over = end.as_mut().poll(context).is_ready()
                        || ready!(Pin::new(&mut *socket).poll_read(context, &mut waste)).is_err()
                        || waste.filled().is_empty();
                    if over {
                        *self = Linger::No;
                    }
                }
            }
        }
    }
}
