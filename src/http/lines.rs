//! An answer of many lines, sent as they come. Whoever makes them waits until the client has taken most of what was made.

use super::refuse::ApiError;
use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue};
use bytes::Bytes;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// JSON texts, one a line.
pub(super) const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");
/// Bytes of lines from which on they are sent.
pub(super) const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that wait for the client.
const CHUNKS_WAITING: usize = 2;
/// How long the client may take for the next one, before it counts as gone.
const CHUNK_TIME_MAX: Duration = Duration::from_secs(60);

/// Counts the answer as being served until its last line is on its way, so that stopping waits for it.
struct Serving(Arc<AtomicUsize>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Where the lines go.
pub(super) struct Lines {
    sender: Sender<Bytes>,
    waiting: Vec<u8>,
    _serving: Serving,
}

/// The client has gone, or takes nothing any more.
pub(super) struct Gone;

impl Lines {
    /// Adds a line, and sends what waits, once it is enough.
    pub(super) async fn push(&mut self, line: &str) -> Result<(), Gone> {
        self.waiting.extend_from_slice(line.as_bytes());
        self.waiting.push(b'\n');
        if self.waiting.len() < CHUNK_BYTES { Ok(()) } else { self.flush().await }
    }

    /// Whether nobody takes them any more.
    pub(super) fn is_gone(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends what waits.
    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut self.waiting));
        match tokio::time::timeout(CHUNK_TIME_MAX, self.sender.send(chunk)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}

/// An answer, and the lines that will be its body.
pub(super) fn answer(serving: &Arc<AtomicUsize>) -> (Lines, HttpResponse) {
    let (sender, receiver) = channel(CHUNKS_WAITING);
    serving.fetch_add(1, Ordering::SeqCst);
    let lines = Lines { sender, waiting: Vec::new(), _serving: Serving(serving.clone()) };
    let mut response = HttpResponse::new(StatusCode::OK).set_body(Body(receiver)).map_into_boxed_body();
    response.headers_mut().insert(CONTENT_TYPE, NDJSON);
    (lines, response)
}

struct Body(Receiver<Bytes>);

impl MessageBody for Body {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(Ok))
    }
}

/// An error as one line of many, and its status.
pub(super) fn of_error(error: ApiError) -> (u16, Value) {
    let response = error.into_response();
    let status = response.status().as_u16();
    let etag = response.headers().get("etag").and_then(|etag| etag.to_str().ok()).map(str::to_owned);
    let context = response.headers().get(super::ask::CONTEXT).and_then(|context| context.to_str().ok());
    let context = context.map(str::to_owned);
    let body = response.into_body().try_into_bytes().unwrap_or_default();
    let mut line = match serde_json::from_slice(&body) {
        Ok(line @ Value::Object(_)) => line,
        _ => json!({}),
    };
    if let Some(etag) = etag {
        line["etag"] = json!(etag);
    }
    if let Some(context) = context {
        line["context"] = json!(context);
    }
    (status, line)
}
