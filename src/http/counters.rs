//! `/counters/{key…}`: integers that are added to, whoever else adds to them at the same time.

use super::ask::{self, CONTEXT, READ_PARAMETERS, REPLICAS, SIBLINGS, StoredKind, WRITE_PARAMETERS};
use super::condition;
use super::input::{self, Query};
use super::refuse::ApiError;
use crate::node::Worker;
use crate::protocol::Refusal;
use crate::record::{Edit, Key, Proposal, Record, RequestId, Unfit};
use actix_web::http::header::HeaderName;
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use std::rc::Rc;

/// The client's name for a request that it may repeat.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Longest name, in bytes.
pub(super) const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Longest body: a number and its name.
const BODY_BYTES_MAX: usize = 1 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Increment {
    #[serde(default = "one")]
    by: i64,
}

fn one() -> i64 {
    1
}

/// Serves any method that the route table lets through.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
    key: &str,
) -> Result<HttpResponse, ApiError> {
    let key = input::key(key, worker.node.settings.key_bytes_max)?;
    match *request.method() {
        Method::POST => add(worker, request, payload, key).await,
        _ => get(worker, request, key).await,
    }
}

async fn get(worker: &Rc<Worker>, request: &HttpRequest, key: Key) -> Result<HttpResponse, ApiError> {
    // Its parts are what `/kv` and `/store/key` list.
    let parameters: Vec<&str> =
        READ_PARAMETERS.iter().copied().filter(|name| !matches!(*name, "siblings" | "explain")).collect();
    let query = Query::of(request, &parameters)?;
    let read = ask::read(worker, request, &query, &key, None).await?;
    let mut response = answer(StatusCode::OK, &read.record, read.now_ms)?;
    let headers = response.headers_mut();
    headers.insert(CONTEXT, ask::context(&key, read.record.context()));
    if let Some(line) = read.replicas_line() {
        headers.insert(REPLICAS, line);
    }
    Ok(response)
}

async fn add(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
    key: Key,
) -> Result<HttpResponse, ApiError> {
    let query = Query::of(request, WRITE_PARAMETERS)?;
    let id = request_id(request)?;
    // It supersedes nothing, so what the client has seen makes no difference; nonsense is nonsense all the same.
    ask::seen(request, &key, None)?;
    let body = input::body(&worker.node, request, payload, BODY_BYTES_MAX, "body", "").await?;
    let by = match body.is_empty() {
        true => one(),
        false => {
            let hint = "send {\"by\":n}, n an integer of 64 bits, or no body for 1";
            input::object::<Increment>(&body, hint)?.by
        }
    };
    let wish = Proposal { edit: Edit::Add { by, request: id }, condition: condition::of_write(request)? };
    let stored = ask::write(worker, &query, key.clone(), wish).await?;
    let status = if stored.kind == StoredKind::Short { StatusCode::ACCEPTED } else { StatusCode::OK };
    let mut response = answer(status, &stored.record, worker.node.now_stamp().ms())?;
    let headers = response.headers_mut();
    headers.insert(CONTEXT, ask::seen_after(&key, &stored));
    headers.insert(REPLICAS, ask::replicas_line(&stored.replicas));
    Ok(response)
}

fn answer(status: StatusCode, record: &Record, now_ms: u64) -> Result<HttpResponse, ApiError> {
    let value = record.counter(now_ms).ok_or(ApiError::Refused(Refusal::Unfit(Unfit::NotACounter)))?;
    let count = ask::sibling_count(record, now_ms).max(1);
    // Written by hand: parts from both sides of a split may leave 64 bits, which JSON allows and its library does not.
    let body = format!("{{\"value\":{value}}}");
    Ok(HttpResponse::build(status).insert_header((SIBLINGS, count)).content_type("application/json").body(body))
}

fn request_id(request: &HttpRequest) -> Result<Option<RequestId>, ApiError> {
    let Some(word) = request.headers().get(IDEMPOTENCY_KEY) else { return Ok(None) };
    match word.as_bytes() {
        word if (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&word.len()) => Ok(Some(RequestId::of(word))),
        _ => Err(ApiError::bad(
            format!("an Idempotency-Key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes"),
            "use a fresh random word for each increment, and the same one when you repeat it",
        )),
    }
}
