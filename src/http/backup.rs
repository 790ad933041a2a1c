//! `/backup`, `/restore`: what this node holds, piece by piece, and such pieces brought back.

use super::ask;
use super::input::{self, Query};
use super::refuse::ApiError;
use crate::client::Seat;
use crate::node::Worker;
use crate::placement::Partition;
use crate::protocol::{Copies, CopiesFrom, MEDIA_TYPE, Refusal};
use crate::record::Key;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};
use std::rc::Rc;

/// Longest piece: as long as a peer's message, of a single record with many large values.
const PIECE_BYTES_MAX: usize = 192 << 20;
/// Pieces that are brought back at once.
const RESTORES_MAX: u64 = 4;
/// Keys that are named of those which could not be brought back.
const FAILED_TOLD_MAX: usize = 20;

/// `GET /backup`, from the beginning or from `?partition=` on, and behind its key `?after=`.
pub(super) async fn copies(worker: &Rc<Worker>, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let query = Query::of(request, &["partition", "after"])?;
    let nowhere = || ApiError::bad("there is no such partition", "take it from the end of the piece before");
    let index = query.text("partition")?.map(|text| text.parse::<usize>().map_err(|_| nowhere())).transpose()?;
    let partition = Partition::try_from_index(index.unwrap_or(0)).map_err(|_| nowhere())?;
    let after = query.bytes("after").map(|bytes| Key::new(bytes.to_vec())).transpose()?;
    if after.as_ref().is_some_and(|key| Partition::of(key.position()) != partition) {
        return Err(ApiError::bad("the key is of another partition", "take both from the end of the piece before"));
    }
    let copies = worker.copies(CopiesFrom { partition, after }).await?;
    let body = copies.encode();
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, MEDIA_TYPE))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(body))
}

/// `POST /restore`: the body is such a piece.
pub(super) async fn restore(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    Query::of(request, &[])?;
    let ring = worker.node.ring();
    if ring.epoch() == 0 {
        return Err(ApiError::NotEstablished { mode: ring.layout().mode(), awaiting: worker.node.awaited() });
    }
    if ring.guest().is_some() {
        return Err(ApiError::Refused(Refusal::NotAMember));
    }
    let seat = Seat::take(&worker.node.restores, RESTORES_MAX);
    let _seat = seat.ok_or(ApiError::Busy("too much is being restored at once"))?;
    let body = input::body(&worker.node, request, payload, PIECE_BYTES_MAX, "piece", "").await?;
    let copies = Copies::decode(&body)
        .map_err(|error| ApiError::bad(error.to_string(), "send a piece of a backup as GET /backup gave it out"))?;
    let records = copies.records();
    let restored = worker.restore(copies).await;
    let failures = restored.failed.iter().take(FAILED_TOLD_MAX).map(|(key, cause)| {
        let why = cause.as_ref().map_or_else(|| "too few owners could be reached".to_owned(), ToString::to_string);
        let mut told = json!({ "error": why });
        ask::put_bytes(&mut told, "key", "key_base64", key.as_bytes());
        told
    });
    let failures: Vec<Value> = failures.collect();
    Ok(HttpResponse::Ok().json(json!({
        "records": records,
        "restored": restored.changed,
        "present": restored.present,
        "superseded": restored.superseded,
        "deletes": restored.deletes,
        "partitions_known": restored.partitions_known,
        "failed": restored.failed.len(),
        "failures": failures,
    })))
}
