//! `/store`, `/store/key`: JSON in and out; `/put`, `/get`: plain text.

use super::ask::{self, READ_PARAMETERS, Stored, StoredKind, WRITE_PARAMETERS};
use super::condition;
use super::cors;
use super::input::{self, Query};
use super::refuse::ApiError;
use crate::node::Worker;
use crate::record::{Content, Edit, Key, Proposal, Seen, context_to_token, seen_to_token};
use actix_web::http::header::CONTENT_TYPE;
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};
use std::rc::Rc;

/// How much longer than its value a JSON body may be: every byte of a text may be escaped to six.
pub(super) const JSON_GROWTH: usize = 6;
/// Longest body that only names a key.
const KEY_BODY_BYTES_MAX: usize = 1 << 20;

/// A pair, as people write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    key: String,
    value: String,
    #[serde(default)]
    context: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    key: String,
    #[serde(default)]
    context: Option<String>,
}

/// Takes in a JSON pair, with its limits checked.
pub(super) async fn pair(
    worker: &Worker,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<(Key, Content, Seen), ApiError> {
    let settings = &worker.node.settings;
    let max = (settings.value_bytes_max + settings.key_bytes_max) * JSON_GROWTH + 1024;
    let body = input::body(&worker.node, request, payload, max, "body", "--value-max").await?;
    let pair: Pair = input::object(&body, "send {\"key\":\"…\",\"value\":\"…\"}, both texts")?;
    let max = settings.value_bytes_max;
    if pair.value.len() > max {
        return Err(ApiError::TooLarge { what: "value", max, setting: "--value-max" });
    }
    let key = Key::within(pair.key, settings.key_bytes_max)?;
    let seen = ask::seen(request, &key, pair.context.as_deref())?;
    Ok((key, Content::plain(pair.value), seen))
}

/// `POST /store`.
pub(super) async fn put(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let query = Query::of(request, &["mode", "w", "ttl"])?;
    let condition = condition::of_write(request)?;
    let (key, content, seen) = pair(worker, request, payload).await?;
    let content = Content { expires_ms: ask::expiry(worker, &query)?, ..content };
    let wish = Proposal { edit: Edit::write(seen, Some(content)), condition };
    let stored = ask::write(worker, &query, key.clone(), wish).await?;
    let status = match stored.kind {
        StoredKind::Created => StatusCode::CREATED,
        StoredKind::Replaced => StatusCode::OK,
        StoredKind::Short => StatusCode::ACCEPTED,
    };
    Ok(answer(status, &key, &stored))
}

/// `GET` and `DELETE /store/key`, the key in the query or in a JSON body.
pub(super) async fn key(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let is_delete = *request.method() == Method::DELETE;
    let parameters = if is_delete { WRITE_PARAMETERS } else { READ_PARAMETERS };
    let query = Query::of(request, &[&["key"], parameters].concat())?;
    let settings = &worker.node.settings;
    let (key, context) = match query.bytes("key") {
        Some(key) => (Key::within(key.to_vec(), settings.key_bytes_max)?, None),
        None => {
            let body = input::body(&worker.node, request, payload, KEY_BODY_BYTES_MAX, "body", "").await?;
            let named: Named = input::object(&body, "use ?key=…, or the body {\"key\":\"…\"}")?;
            (Key::within(named.key, settings.key_bytes_max)?, named.context)
        }
    };
    if is_delete {
        let seen = ask::seen(request, &key, context.as_deref())?;
        let wish = Proposal { edit: Edit::write(seen, None), condition: condition::of_write(request)? };
        let stored = ask::write(worker, &query, key.clone(), wish).await?;
        let status = if stored.kind == StoredKind::Short { StatusCode::ACCEPTED } else { StatusCode::OK };
        return Ok(answer(status, &key, &stored));
    }
    let read = ask::read(worker, request, &query, &key, context.as_deref()).await?;
    let explain = query.switch("explain")?;
    let winner = match read.winner(&key) {
        Err(error) if !explain => return Err(error),
        winner => winner.ok(),
    };
    let mut body = match &winner {
        None => json!({ "error": "Key not found" }),
        Some(winner) => {
            let mut body = json!({ "sibling_count": ask::sibling_count(&read.record, read.now_ms) });
            if let Some(expires_ms) = winner.content.expires_ms {
                body["expires"] = json!(expires_ms);
            }
            ask::put_bytes(&mut body, "value", "value_base64", &winner.content.value);
            body
        }
    };
    ask::put_bytes(&mut body, "key", "key_base64", key.as_bytes());
    body["context"] = json!(context_to_token(&key, read.record.context()));
    if query.switch("siblings")? {
        body["siblings"] = json!(ask::siblings_json(&read.record, read.now_ms));
    }
    if explain && let (Value::Object(body), Value::Object(explained)) = (&mut body, read.explain(worker, &key)) {
        body.extend(explained);
    }
    let mut response = if winner.is_some() { HttpResponse::Ok() } else { HttpResponse::NotFound() };
    if let Some(line) = read.replicas_line() {
        response.insert_header((ask::REPLICAS, line));
    }
    Ok(response.json(body))
}

fn answer(status: StatusCode, key: &Key, stored: &Stored) -> HttpResponse {
    let mut body = json!({
        "context": seen_to_token(key, &stored.seen),
        "replicas": ask::replicas_json(&stored.replicas),
    });
    ask::put_bytes(&mut body, "key", "key_base64", key.as_bytes());
    HttpResponse::build(status).json(body)
}

/// `/put?key=&value=`, also as a form.
pub(super) async fn plain_put(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let known = &["key", "value", "mode", "w", "ttl"];
    if *request.method() == Method::GET && cors::is_foreign(&worker.node, request) {
        return Err(ApiError::CrossSite);
    }
    let settings = &worker.node.settings;
    let form = request.headers().get(CONTENT_TYPE).is_some_and(|kind| {
        kind.as_bytes().starts_with(b"application/x-www-form-urlencoded") && *request.method() != Method::GET
    });
    let query = Query::of(request, known)?;
    let body = match form && query.bytes("key").is_none() {
        true => {
            let max = (settings.value_bytes_max + settings.key_bytes_max) * 3 + 1024;
            input::body(&worker.node, request, payload, max, "body", "--value-max").await?
        }
        false => bytes::Bytes::new(),
    };
    let Ok(text) = std::str::from_utf8(&body) else { return Ok(missing_params()) };
    let query = query.and(Query::parse(text, known)?);
    let (Some(key), Some(value)) = (query.bytes("key").filter(|key| !key.is_empty()), query.bytes("value")) else {
        return Ok(missing_params());
    };
    if value.len() > settings.value_bytes_max {
        return Err(ApiError::TooLarge { what: "value", max: settings.value_bytes_max, setting: "--value-max" });
    }
    let key = Key::within(key.to_vec(), settings.key_bytes_max)?;
    let content = Content { expires_ms: ask::expiry(worker, &query)?, ..Content::plain(value.to_vec()) };
    let seen = ask::seen(request, &key, None)?;
    let stored = ask::write(worker, &query, key, Edit::write(seen, Some(content))).await?;
    let status = if stored.kind == StoredKind::Short { StatusCode::ACCEPTED } else { StatusCode::OK };
    let mode = match query.text("mode")? {
        Some(mode) => mode.to_string(),
        None => worker.node.ring().layout().mode().to_string(),
    };
    let mut response = plain(status, format!("OK (Mode: {mode})\n"));
    response.headers_mut().insert(ask::REPLICAS, ask::replicas_line(&stored.replicas));
    Ok(response)
}

/// `/get?key=`.
pub(super) async fn plain_get(worker: &Rc<Worker>, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let query = Query::of(request, &["key", "mode", "r", "local"])?;
    let Some(key) = query.bytes("key").filter(|key| !key.is_empty()) else { return Ok(missing_params()) };
    let key = Key::within(key.to_vec(), worker.node.settings.key_bytes_max)?;
    let read = ask::read(worker, request, &query, &key, None).await?;
    let mut response = match read.winner(&key) {
        Ok(winner) => plain(StatusCode::OK, [&winner.content.value, &b"\n"[..]].concat()),
        Err(_) => plain(StatusCode::NOT_FOUND, "Not Found\n"),
    };
    if let Some(line) = read.replicas_line() {
        response.headers_mut().insert(ask::REPLICAS, line);
    }
    Ok(response)
}

fn plain(status: StatusCode, body: impl Into<Vec<u8>>) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((CONTENT_TYPE, "text/plain; charset=utf-8"))
        .insert_header(("x-content-type-options", "nosniff"))
        .body(body.into())
}

fn missing_params() -> HttpResponse {
    plain(StatusCode::BAD_REQUEST, "missing params\n")
}
