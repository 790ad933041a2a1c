//! `/kv/{key…}`: raw bytes in and out, the content type kept.

use super::ask::{self, CONTEXT, EXPIRES, READ_PARAMETERS, REPLICAS, SIBLINGS, StoredKind, WRITE_PARAMETERS};
use super::condition;
use super::input::{self, Query};
use super::refuse::ApiError;
use crate::node::Worker;
use crate::record::{CONTENT_TYPE_BYTES_MAX, Content, Edit, Key, Proposal, Record, Sibling};
use actix_web::http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;
use std::rc::Rc;

/// A stored page must not run as if this node had written it.
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox; default-src 'none'");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Serves any method that the route table lets through.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
    key: &str,
) -> Result<HttpResponse, ApiError> {
    let key = input::key(key, worker.node.settings.key_bytes_max)?;
    match *request.method() {
        Method::PUT => put(worker, request, payload, key).await,
        Method::DELETE => delete(worker, request, key).await,
        _ => get(worker, request, key).await,
    }
}

/// The answer to a plain GET that this node can give on the spot. `None` says nothing of the key: [`serve`] finds out.
/// Without a future, a read costs a core 6.4 µs instead of 6.9, the HTTP server's own share included.
pub(super) fn get_at_hand(worker: &Worker, request: &HttpRequest) -> Option<HttpResponse> {
    let head = request.head();
    let key = head.uri.path().strip_prefix("/kv/").filter(|_| head.method == Method::GET)?;
    let ring = worker.node.ring();
    if head.uri.query().is_some() || !ask::one_is_enough(worker, &ring, None) {
        return None;
    }
    let key = input::key(key, worker.node.settings.key_bytes_max).ok()?;
    if head.headers.contains_key(CONTEXT) || head.headers.contains_key(IF_NONE_MATCH) {
        return None;
    }
    let record = ask::read_at_hand(worker, &ring, &key)?;
    let now_ms = if record.expires() { worker.node.now_stamp().ms() } else { 0 };
    let winner = record.winner(now_ms)?;
    let mut response = value(&winner);
    describe(&mut response, &key, &record, now_ms);
    Some(response)
}

async fn get(worker: &Rc<Worker>, request: &HttpRequest, key: Key) -> Result<HttpResponse, ApiError> {
    let query = Query::of(request, READ_PARAMETERS)?;
    let read = ask::read(worker, request, &query, &key, None).await?;
    let winner = read.winner(&key)?;
    let etag = ask::etag(&read.record, read.now_ms);
    if condition::is_known(request, &etag) {
        let mut response = HttpResponse::new(StatusCode::NOT_MODIFIED);
        describe(&mut response, &key, &read.record, read.now_ms);
        return Ok(response);
    }
    let as_json = query.switch("siblings")? || query.switch("explain")?;
    let mut response = if as_json { listed(worker, &query, &read, &key)? } else { value(&winner) };
    describe(&mut response, &key, &read.record, read.now_ms);
    if let Some(line) = read.replicas_line() {
        response.headers_mut().insert(REPLICAS, line);
    }
    Ok(response)
}

/// The bytes of a value, as they came.
fn value(sibling: &Sibling) -> HttpResponse {
    let Content { value, content_type, .. } = &sibling.content;
    let mut response = HttpResponse::new(StatusCode::OK).set_body(value.clone()).map_into_boxed_body();
    let kept = content_type.as_deref().and_then(|kept| HeaderValue::from_str(kept).ok());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kept.unwrap_or(BYTES));
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers.insert(CONTENT_SECURITY_POLICY, SANDBOX);
    if let Some(expires_ms) = sibling.content.expires_ms {
        headers.insert(EXPIRES, expires_ms.into());
    }
    response
}

/// Which version it is that a read answers with, and whether it is the only one.
fn describe(response: &mut HttpResponse, key: &Key, record: &Record, now_ms: u64) {
    let count = ask::sibling_count(record, now_ms);
    let headers = response.headers_mut();
    headers.insert(ETAG, ask::etag(record, now_ms));
    headers.insert(CONTEXT, ask::context(key, record.context()));
    headers.insert(SIBLINGS, if count == 1 { HeaderValue::from_static("1") } else { count.into() });
}

/// The key with all its values, for `?siblings=1` and `?explain=1`.
fn listed(worker: &Worker, query: &Query<'_>, read: &ask::Read, key: &Key) -> Result<HttpResponse, ApiError> {
    let mut body = json!({
        "context": crate::record::context_to_token(key, read.record.context()),
        "siblings": ask::siblings_json(&read.record, read.now_ms),
    });
    ask::put_bytes(&mut body, "key", "key_base64", key.as_bytes());
    if query.switch("explain")? {
        body["explain"] = read.explain(worker, key);
    }
    Ok(HttpResponse::Ok().json(body))
}

async fn put(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
    key: Key,
) -> Result<HttpResponse, ApiError> {
    let query = Query::of(request, &[WRITE_PARAMETERS, &["ttl"]].concat())?;
    let seen = ask::seen(request, &key, None)?;
    let condition = condition::of_write(request)?;
    let content_type = content_type(request)?;
    let max = worker.node.settings.value_bytes_max;
    let value = input::body(&worker.node, request, payload, max, "value", "--value-max").await?;
    let expires_ms = ask::expiry(worker, &query)?;
    let content = Content { value, content_type, expires_ms, ..Content::default() };
    let wish = Proposal { edit: Edit::write(seen, Some(content)), condition };
    let stored = ask::write(worker, &query, key.clone(), wish).await?;
    Ok(answer(worker, &key, &stored))
}

async fn delete(worker: &Rc<Worker>, request: &HttpRequest, key: Key) -> Result<HttpResponse, ApiError> {
    let query = Query::of(request, WRITE_PARAMETERS)?;
    let seen = ask::seen(request, &key, None)?;
    let wish = Proposal { edit: Edit::write(seen, None), condition: condition::of_write(request)? };
    let mut stored = ask::write(worker, &query, key.clone(), wish).await?;
    // Deleting what is not there is no error, and creates nothing.
    if stored.kind == StoredKind::Created {
        stored.kind = StoredKind::Replaced;
    }
    Ok(answer(worker, &key, &stored))
}

fn answer(worker: &Worker, key: &Key, stored: &ask::Stored) -> HttpResponse {
    let status = match stored.kind {
        StoredKind::Created => StatusCode::CREATED,
        StoredKind::Replaced => StatusCode::NO_CONTENT,
        StoredKind::Short => StatusCode::ACCEPTED,
    };
    let mut response = HttpResponse::build(status);
    if !stored.record.is_tombstone() {
        response.insert_header((ETAG, ask::etag(&stored.record, worker.node.now_stamp().ms())));
    }
    response.insert_header((CONTEXT, ask::seen_after(key, stored)));
    response.insert_header((REPLICAS, ask::replicas_line(&stored.replicas)));
    response.finish()
}

fn content_type(request: &HttpRequest) -> Result<Option<Box<str>>, ApiError> {
    let Some(value) = request.headers().get(CONTENT_TYPE) else { return Ok(None) };
    match value.to_str() {
        Ok(text) if text.len() <= CONTENT_TYPE_BYTES_MAX => Ok(Some(text.into())),
        _ => Err(ApiError::bad("the Content-Type is too long, or not text", "a media type has at most 255 characters")),
    }
}
