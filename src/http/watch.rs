//! `/watch` and `/watch/events`: what is told, as it comes, as server-sent events or by long polls.

use super::cluster::seconds;
use super::input::Query;
use super::refuse::ApiError;
use super::told;
use crate::node::{Next, Shared, Watch, Worker};
use crate::protocol::FeedOf;
use crate::record::KEY_BYTES_MAX;
use crate::watching::Positions;
use actix_web::body::{BodySize, MessageBody};
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Sleep;

/// Where a client says from where it goes on, when its connection broke.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How often something is sent where there is nothing to tell, so that nobody between takes the connection for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How soon a client is to come back, in milliseconds.
const RETRY_MS: u32 = 1_000;
/// Most bytes written at a time, about, and most events in the answer to a long poll.
const CHUNK_BYTES: usize = 32 << 10;
const POLLED_MAX: usize = 1_000;
const POLLED_BYTES_MAX: usize = 1 << 20;

/// `GET /watch?prefix=&since=&values=1&wait=30s`, and the same of what happens to nodes.
pub(super) async fn serve(worker: &Rc<Worker>, request: &HttpRequest, of: FeedOf) -> Result<HttpResponse, ApiError> {
    let known: &[&str] = match of {
        FeedOf::Changes => &["prefix", "since", "values", "wait"],
        FeedOf::Events => &["since", "wait"],
    };
    let query = Query::of(request, known)?;
    let prefix = query.bytes("prefix").unwrap_or_default().to_vec();
    if prefix.len() > KEY_BYTES_MAX {
        return Err(ApiError::TooLarge { what: "prefix", max: KEY_BYTES_MAX, setting: "" });
    }
    let since = since(request, &query, of)?;
    let wait = query.text("wait")?.map(seconds).transpose()?;
    let values = query.switch("values")?;
    let node = &worker.node;
    if node.is_stopping() {
        return Err(ApiError::Busy("the node stops"));
    }
    let most = node.settings.watchers_max;
    let watch = node.watches_of(of).join(prefix, values, since, most).ok_or(ApiError::TooManyWatchers { max: most })?;
    match wait {
        Some(wait) => polled(node, of, &watch, wait).await,
        None => Ok(streamed(node.clone(), of, watch)),
    }
}

/// From where the client goes on: what it says itself, else what its library says for it.
fn since(request: &HttpRequest, query: &Query<'_>, of: FeedOf) -> Result<Option<Positions>, ApiError> {
    let header = request.headers().get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or("?"));
    let word = match header {
        // Newer than the address that a library asks again.
        Some(word) if !word.is_empty() => Some(word),
        _ => query.text("since")?.filter(|word| !word.is_empty()),
    };
    let bad =
        |error| ApiError::bad(format!("{error}"), "send the id of an event you were told here, or none to begin now");
    word.map(|word| Positions::from_word(word, of).map_err(bad)).transpose()
}

/// What there is, once there is anything, or the time is over.
async fn polled(node: &Shared, of: FeedOf, watch: &Watch, wait: Duration) -> Result<HttpResponse, ApiError> {
    let (mut events, mut bytes, mut since) = (Vec::<Value>::new(), 0, watch.came_with().map(str::to_owned));
    // However short the wait, its answer says where to go on.
    let first = tokio::time::timeout(2 * node.settings.timeout, poll_fn(|context| watch.poll_next(context))).await;
    let is_over = match first {
        Ok(Next::End(why, None)) => return Err(ApiError::Busy(why)),
        Ok(first) => take(watch, first, &mut events, &mut bytes, &mut since),
        Err(_) => return Err(ApiError::Busy("the members were not asked in time where they are")),
    };
    // And it has what it missed, or knows that it missed nothing.
    let missed = poll_fn(|context| watch.poll_missed(context));
    let _ = tokio::time::timeout(2 * node.settings.timeout, missed).await;
    // What it could not be told by then it is told by the next.
    let _ = tokio::time::timeout(wait, async {
        while events.is_empty() && !is_over {
            let next = poll_fn(|context| watch.poll_next(context)).await;
            if take(watch, next, &mut events, &mut bytes, &mut since) {
                return;
            }
        }
    })
    .await;
    while !events.is_empty() && events.len() < POLLED_MAX && bytes < POLLED_BYTES_MAX {
        let Poll::Ready(next) = watch.poll_next(&mut Context::from_waker(Waker::noop())) else { break };
        if take(watch, next, &mut events, &mut bytes, &mut since) {
            break;
        }
    }
    if events.is_empty() {
        // What was passed over for it need not be looked at again.
        since = watch.latest(node.watches_of(of)).or(since);
    }
    let body = json!({ "events": events, "since": since });
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(body))
}

/// Adds what comes next to the answer to a long poll; whether it was the end.
fn take(watch: &Watch, next: Next, events: &mut Vec<Value>, bytes: &mut usize, since: &mut Option<String>) -> bool {
    let Next::Told(told) = next else { return true };
    *since = Some(told.id.clone());
    let event = told::event_of(&told);
    if event != "ready" {
        let mut json = told::describe(&told, watch.wants_values());
        json["event"] = json!(event);
        json["id"] = json!(told.id);
        *bytes += told::line(&told, watch.wants_values()).len();
        events.push(json);
    }
    false
}

fn streamed(node: Arc<Shared>, of: FeedOf, watch: Watch) -> HttpResponse {
    let heartbeat = Box::pin(tokio::time::sleep(HEARTBEAT));
    let begin = Some(Bytes::from(format!("retry: {RETRY_MS}\n\n")));
    let stream = Stream { node, of, watch, heartbeat, begin, has_ended: false };
    let kind = HeaderValue::from_static("text/event-stream");
    let mut response = HttpResponse::Ok();
    response.insert_header((CONTENT_TYPE, kind)).insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")));
    response.body(stream)
}

/// The body of a stream of events.
struct Stream {
    node: Arc<Shared>,
    of: FeedOf,
    watch: Watch,
    heartbeat: Pin<Box<Sleep>>,
    begin: Option<Bytes>,
    has_ended: bool,
}

impl MessageBody for Stream {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let this = self.get_mut();
        if this.has_ended {
            return Poll::Ready(None);
        }
        let mut chunk = BytesMut::new();
        chunk.extend(this.begin.take());
        while chunk.len() < CHUNK_BYTES && !this.has_ended {
            match this.watch.poll_next(context) {
                Poll::Ready(Next::Told(told)) => chunk.extend_from_slice(&told::line(&told, this.watch.wants_values())),
                Poll::Ready(Next::End(why, id)) => {
                    this.has_ended = true;
                    chunk.extend(told::event(id.as_deref(), "end", &json!({ "reason": why })));
                }
                Poll::Pending => break,
            }
        }
        if chunk.is_empty() && this.heartbeat.as_mut().poll(context).is_ready() {
            chunk.extend_from_slice(b": nothing to tell\n");
            // Not an event, but the client goes on from there should the connection break.
            let latest = this.watch.latest(this.node.watches_of(this.of));
            latest.into_iter().for_each(|id| chunk.extend_from_slice(format!("id: {id}\n").as_bytes()));
            chunk.extend_from_slice(b"\n");
        }
        if chunk.is_empty() {
            return Poll::Pending;
        }
        this.heartbeat.as_mut().set(tokio::time::sleep(HEARTBEAT));
        Poll::Ready(Some(Ok(chunk.freeze())))
    }
}
