//! `/faults`: from whom this node is cut off, on purpose. Only where it was started with `--faults`.

use super::input::{self, Query};
use super::refuse::ApiError;
use crate::node::{self, Shared, Worker};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};
use std::rc::Rc;

/// Longest body: the URLs of more nodes than a cluster has.
const BODY_BYTES_MAX: usize = 64 << 10;

/// What is said of it, here and by `/status`.
pub(super) fn told(node: &Shared) -> Value {
    json!({ "cut": node.faults.names() })
}

/// `GET /faults`.
pub(super) fn show(worker: &Rc<Worker>, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    Query::of(request, &[])?;
    allowed(&worker.node)?;
    Ok(HttpResponse::Ok().json(told(&worker.node)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    cut: Vec<String>,
}

/// `PUT /faults`: from now on the node is cut off from exactly those named. Nothing is changed where one of them is unknown.
pub(super) async fn set(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    Query::of(request, &[])?;
    allowed(&worker.node)?;
    let body = input::body(&worker.node, request, payload, BODY_BYTES_MAX, "body", "").await?;
    let wish: Wish = input::object(&body, "send {\"cut\":[\"<id, name or url>\"]}, or {\"cut\":[]} to heal")?;
    let hint = "name members as /ring lists them, and a node that is none yet by its URL, while it answers";
    node::cut_off(worker, &wish.cut).await.map_err(|error| ApiError::bad(error.to_string(), hint))?;
    Ok(HttpResponse::Ok().json(told(&worker.node)))
}

fn allowed(node: &Shared) -> Result<(), ApiError> {
    let refused = ApiError::NotAllowed {
        what: "the network of this node cannot be cut",
        hint: "start the node with --faults to allow it, where nobody relies on it",
    };
    if node.settings.faults { Ok(()) } else { Err(refused) }
}
