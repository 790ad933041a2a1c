//! What other nodes ask, in the peers' language; and the bare pair that `/replicate` also takes.

use super::input::{self, Query};
use super::refuse::ApiError;
use super::store;
use crate::node::{Class, Worker};
use crate::placement::Partition;
use crate::protocol::{Batch, MEDIA_TYPE, Refusal};
use crate::record::Edit;
use crate::record::Stamp;
use crate::storage::{Change, Outcome};
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;
use std::rc::Rc;
use std::time::Duration;

/// Longest message of a peer. A batch stops at 4 MiB unless it holds a single larger record, and a record may hold
/// many siblings of the largest size.
const MESSAGE_BYTES_MAX: usize = 192 << 20;

/// `POST` in the peers' language.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    if !speaks_as_peer(request) {
        return Err(ApiError::bad(
            "this is an endpoint for peers",
            "send application/vnd.kringle, or use another method",
        ));
    }
    let body = input::body(&worker.node, request, payload, MESSAGE_BYTES_MAX, "message", "").await?;
    let (batch, version) = Batch::decode(&body).map_err(|error| {
        ApiError::bad(error.to_string(), "peers speak application/vnd.kringle, protocol version 2 or 1")
    })?;
    let (sender, within) = (batch.envelope.sender, Duration::from_millis(batch.envelope.deadline_ms.into()));
    if !worker.node.lets_through(sender, within).await {
        return Err(ApiError::CutOff);
    }
    worker.node.note_version(sender, version);
    let reply = worker.serve(batch).await;
    if !worker.node.lets_through(sender, within).await {
        return Err(ApiError::CutOff);
    }
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, MEDIA_TYPE)).body(reply.encode(version)))
}

/// `POST /replicate`: a batch from a peer, or one bare pair, which is kept here and never forwarded.
pub(super) async fn replicate(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    if speaks_as_peer(request) {
        return serve(worker, request, payload).await;
    }
    Query::of(request, &[])?;
    let (key, content, seen) = store::pair(worker, request, payload).await?;
    let ring = worker.node.ring();
    if !ring.is_holder(worker.node.me(&ring), Partition::of(key.position())) {
        // It would be handed over to the owners, and dropped.
        return Err(ApiError::NotHere);
    }
    if worker.node.is_partial(Partition::of(key.position())) {
        return Err(ApiError::Refused(Refusal::NotFilled));
    }
    let change = Change::Write { key, edit: Edit::write(seen, Some(content)), until: Stamp::MAX };
    match worker.committed(Class::Foreground, ring.epoch(), change).await {
        Some(Ok(Outcome::Written { .. })) => {
            Ok(HttpResponse::Ok().json(json!({ "message": "kept on this node", "applied": 1, "ignored": 0 })))
        }
        Some(Ok(_)) | None => Err(ApiError::Bug("a pair was neither kept nor refused")),
        Some(Err(refused)) => Err(refused.into()),
    }
}

fn speaks_as_peer(request: &HttpRequest) -> bool {
    request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == MEDIA_TYPE.as_bytes())
}
