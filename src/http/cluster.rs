//! Who is a member, and what is to become of that: `/cluster` and what is below it, and `/config`.

use super::admin::member_called;
use super::ask::member_json;
use super::input::{self, Query};
use super::moving;
use super::refuse::ApiError;
use crate::config::{self, Nonsense, PeerUrl};
use crate::membership::State;
use crate::node::{self, Worker};
use crate::placement::{MemberIndex, Mode, PARTITIONS, Ring, WEIGHT_MAX};
use crate::protocol::{LayoutAnswer, LayoutWish};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Longest body of a request here.
const BODY_BYTES_MAX: usize = 64 << 10;
/// The longest that `?wait=` may be, in seconds.
const WAIT_S_MAX: f64 = 3_600.0;

/// `GET /cluster`; `?epoch=n&wait=30s` answers once that epoch is gone by here, or the time is over.
pub(super) async fn show(worker: &Rc<Worker>, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let query = Query::of(request, &["epoch", "wait"])?;
    let node = &worker.node;
    let epoch = query.text("epoch")?.map(|text| {
        let bad = || ApiError::bad("epoch must be a number", "take it from the answer to the change you asked for");
        text.parse::<u64>().map_err(|_| bad())
    });
    let wait = query.text("wait")?.map(seconds).transpose()?;
    if wait.is_some() && epoch.is_none() {
        return Err(ApiError::bad("wait needs an epoch to wait for", "such as ?epoch=7&wait=30s"));
    }
    let wait = wait.unwrap_or_default();
    if let Some(epoch) = epoch.transpose()? {
        let until = node::now() + wait;
        // A change of owners is over when nothing is beside the owners any more.
        let is_reached = || {
            let ring = node.ring();
            ring.epoch() >= epoch && !ring.is_changing()
        };
        while !is_reached() && node::now() < until && !node.is_stopping() {
            let rest = until.saturating_duration_since(node::now()).min(Duration::from_millis(100));
            let _ = actix_web::rt::time::timeout(rest, node.layouts.changed()).await;
        }
    }
    let ring = node.ring();
    node::ask_progress(worker, &ring).await;
    Ok(HttpResponse::Ok().json(describe(worker, &ring)))
}

/// A time to wait, such as `30s`.
pub(super) fn seconds(text: &str) -> Result<Duration, ApiError> {
    let number = text.strip_suffix('s').unwrap_or(text).parse::<f64>().ok();
    let fine = number.filter(|number| (0.0..=WAIT_S_MAX).contains(number));
    fine.map(Duration::from_secs_f64).ok_or_else(|| {
        ApiError::bad(format!("wait must be a number of seconds from 0 to {WAIT_S_MAX}"), "such as ?wait=30s")
    })
}

fn describe(worker: &Rc<Worker>, ring: &Arc<Ring>) -> Value {
    let (node, layout) = (&worker.node, ring.layout());
    let (progress, since) = node.progress_of_all();
    let members: Vec<Value> = ring
        .members()
        .map(|index| {
            let member = ring.member(index);
            let mut shown = member_json(worker, member);
            let state = node.view().peer(&member.name).map_or(State::Alive, |peer| peer.state);
            shown["zone"] = json!(member.zone);
            shown["weight"] = json!(member.weight);
            shown["state"] = json!(state.to_string());
            shown["role"] = json!(role(ring, index));
            shown["share"] = json!(ring.share(index));
            shown["keys"] = json!(progress.get(&member.name).map(|said| said.keys));
            shown
        })
        .collect();
    let is_established = ring.epoch() > 0;
    json!({
        "cluster_id": is_established.then(|| layout.cluster().to_string()),
        "epoch": ring.epoch(),
        "established": is_established,
        "mode": layout.mode().to_string(),
        "replicas": layout.replicas(),
        "partitions": PARTITIONS,
        "member": ring.guest().is_none(),
        "changing": ring.is_changing(),
        "members": members,
        "transfers": moving::transfers(node, ring, &progress, since),
        "awaiting": node.awaited(),
    })
}

fn role(ring: &Ring, member: MemberIndex) -> &'static str {
    match ring.layout().change() {
        Some(change) if change.joining().contains(&member) => "joining",
        Some(change) if change.leaving().contains(&member) => "leaving",
        _ => "member",
    }
}

/// What an operator is told of a change that was asked for.
fn told(answer: LayoutAnswer) -> Result<HttpResponse, ApiError> {
    match answer {
        LayoutAnswer::Planned { epoch } => Ok(HttpResponse::Ok().json(json!({ "epoch": epoch }))),
        LayoutAnswer::Declined { why } => Err(ApiError::NoChange(why)),
        LayoutAnswer::Unavailable { why } => Err(ApiError::ChangeUnavailable(why)),
        _ => Err(ApiError::Bug("a change of the layout was answered with something else")),
    }
}

/// Whether it is only asked what would come of a change, and the body that says which.
async fn read(worker: &Worker, request: &HttpRequest, payload: web::Payload) -> Result<(bool, Bytes), ApiError> {
    let is_dry = Query::of(request, &["dry-run"])?.switch("dry-run")?;
    let body = input::body(&worker.node, request, payload, BODY_BYTES_MAX, "body", "").await?;
    Ok((is_dry, body))
}

/// The same, with a body that is a JSON object of this shape.
async fn wish<T: DeserializeOwned>(
    worker: &Worker,
    request: &HttpRequest,
    payload: web::Payload,
    hint: &'static str,
) -> Result<(bool, T), ApiError> {
    let (is_dry, body) = read(worker, request, payload).await?;
    Ok((is_dry, input::object(&body, hint)?))
}

async fn ask(worker: &Rc<Worker>, is_dry: bool, wish: LayoutWish) -> Result<HttpResponse, ApiError> {
    if is_dry {
        return Ok(HttpResponse::Ok().json(moving::outlook(worker, &wish).await?));
    }
    told(node::request_change(worker, wish).await.map_err(ApiError::Refused)?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModeWish {
    mode: String,
}

/// `PUT /cluster/mode`, `POST /config`.
pub(super) async fn set_mode(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let (is_dry, wish): (_, ModeWish) = wish(worker, request, payload, "send {\"mode\":\"quorum\"}").await?;
    let mode: Mode = wish
        .mode
        .parse()
        .map_err(|error| ApiError::bad(format!("{error}"), "the modes are sloppy, async, quorum, sync and chain"))?;
    ask(worker, is_dry, LayoutWish::Mode(mode)).await
}

/// `GET /config`.
pub(super) fn config(worker: &Rc<Worker>, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    Query::of(request, &[])?;
    let ring = worker.node.ring();
    let layout = ring.layout();
    Ok(HttpResponse::Ok().json(json!({
        "mode": layout.mode().to_string(), "replicas": layout.replicas(), "epoch": layout.epoch(),
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplicasWish {
    replicas: u64,
}

/// `PUT /cluster/replicas`.
pub(super) async fn set_replicas(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let (is_dry, wish): (_, ReplicasWish) = wish(worker, request, payload, "send {\"replicas\":3}").await?;
    let max = crate::config::REPLICAS_MAX;
    let Some(replicas) = u8::try_from(wish.replicas).ok().filter(|count| (1..=max).contains(&usize::from(*count)))
    else {
        return Err(ApiError::bad(format!("replicas must be a number from 1 to {max}"), "3 suits most"));
    };
    ask(worker, is_dry, LayoutWish::Replicas(replicas)).await
}

/// A request that says all there is to say by its path; whether it is only asked what would come of it.
async fn nothing_more(worker: &Worker, request: &HttpRequest, payload: web::Payload) -> Result<bool, ApiError> {
    let (is_dry, body) = read(worker, request, payload).await?;
    match body.trim_ascii() {
        b"" | b"{}" => Ok(is_dry),
        _ => Err(ApiError::bad("this takes no body", "it is about the node that is asked: send it to that one")),
    }
}

/// `POST /cluster/join`: this node, which is no member, is to be one.
pub(super) async fn join(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let is_dry = nothing_more(worker, request, payload).await?;
    let node = &worker.node;
    if is_dry {
        return ask(worker, is_dry, LayoutWish::Join(node.as_member())).await;
    }
    if !node::keep_left(worker, false).await {
        return Err(ApiError::Busy("the node cannot keep that it is to join"));
    }
    Ok(HttpResponse::Ok().json(json!({ "epoch": node.epoch() + u64::from(!node.is_member()) })))
}

/// `POST /cluster/leave`: this node is to hand over what it keeps, and go. It does not come back by itself.
pub(super) async fn leave(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let is_dry = nothing_more(worker, request, payload).await?;
    if is_dry {
        return ask(worker, is_dry, LayoutWish::Leave(worker.node.name.clone())).await;
    }
    // Kept before anything comes of it, so that a restart in between does not bring it back.
    if !node::keep_left(worker, true).await {
        return Err(ApiError::Busy("the node cannot keep that it is to leave"));
    }
    let answer = ask(worker, false, LayoutWish::Leave(worker.node.name.clone())).await;
    if matches!(answer, Err(ApiError::NoChange(_))) && worker.node.is_member() {
        node::keep_left(worker, false).await;
    }
    answer
}

/// `POST /cluster/drain`: this node is to hand over what it keeps, and stay a member: one of no weight.
pub(super) async fn drain(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let is_dry = nothing_more(worker, request, payload).await?;
    let own = worker.node.as_member();
    ask(worker, is_dry, LayoutWish::Refit { name: own.name, zone: own.zone, weight: 0 }).await
}

/// `POST /cluster/abandon`: gives up the change of owners under way, as long as reads still go to the old ones.
pub(super) async fn abandon(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let is_dry = nothing_more(worker, request, payload).await?;
    ask(worker, is_dry, LayoutWish::Abandon).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveWish {
    node: String,
}

/// `POST /cluster/remove`: a member that is down is no longer to be one.
pub(super) async fn remove(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let (is_dry, wish): (_, RemoveWish) =
        wish(worker, request, payload, "send {\"node\":\"<id, name or url>\"}").await?;
    let ring = worker.node.ring();
    let name = ring.member(member_called(worker, &ring, &wish.node)?).name.clone();
    ask(worker, is_dry, LayoutWish::Remove(name)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplaceWish {
    dead: String,
    with: String,
}

/// `POST /cluster/replace`: a fresh node takes the place of a member that is down.
pub(super) async fn replace(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let (is_dry, wish): (_, ReplaceWish) =
        wish(worker, request, payload, "send {\"dead\":\"<id, name or url>\",\"with\":\"<url>\"}").await?;
    let ring = worker.node.ring();
    let dead = ring.member(member_called(worker, &ring, &wish.dead)?).name.clone();
    let url: PeerUrl = wish.with.parse().map_err(|error: Nonsense| {
        ApiError::bad(error.to_string(), "name the new node by its URL, such as http://node4:8001")
    })?;
    let nobody = "start it with --join manual and a member in --peers, then ask again";
    let with = node::meet(worker, url.url()).await;
    let with =
        with.ok_or_else(|| ApiError::bad(format!("no fresh node of this cluster answers at {}", url.url()), nobody))?;
    ask(worker, is_dry, LayoutWish::Replace { dead, with }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberWish {
    zone: Option<String>,
    weight: Option<u64>,
}

/// `PUT /cluster/members/{id}`: a member is to have another zone or weight; with weight 0 it is drained.
pub(super) async fn set_member(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
    rest: &str,
) -> Result<HttpResponse, ApiError> {
    let hint = "send {\"zone\":\"rack-1\",\"weight\":2}, or one of the two";
    let (is_dry, wish): (_, MemberWish) = wish(worker, request, payload, hint).await?;
    if wish.zone.is_none() && wish.weight.is_none() {
        return Err(ApiError::bad("neither a zone nor a weight", hint));
    }
    let zone = wish.zone.map(|zone| if zone.is_empty() { Ok(zone) } else { config::zone(&zone) }).transpose();
    let zone = zone.map_err(|nonsense| ApiError::bad(format!("zone: {nonsense}"), "or \"\" for a zone of its own"))?;
    let weight = wish.weight.map(|weight| u16::try_from(weight).ok().filter(|weight| *weight <= WEIGHT_MAX));
    if weight == Some(None) {
        return Err(ApiError::bad(format!("weight must be a number from 0, to keep nothing, to {WEIGHT_MAX}"), hint));
    }
    let called = String::from_utf8(input::percent_decode(rest.as_bytes(), false)?);
    let called = called.map_err(|_| ApiError::bad("the member's id is not text", "GET /cluster lists the members"))?;
    let ring = worker.node.ring();
    let member = ring.member(member_called(worker, &ring, &called)?);
    let zone = zone.unwrap_or(member.zone.clone());
    let weight = weight.flatten().unwrap_or(member.weight);
    ask(worker, is_dry, LayoutWish::Refit { name: member.name.clone(), zone, weight }).await
}
