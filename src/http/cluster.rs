//! Who is a member, and what is to become of that: `/cluster` and what is below it, and `/config`.

use super::admin::member_called;
use super::ask::member_json;
use super::input::{self, Query};
use super::refuse::ApiError;
use crate::config::{Nonsense, PeerUrl};
use crate::membership::State;
use crate::node::{self, Worker};
use crate::placement::{MemberIndex, Mode, PARTITIONS, Partition, Phase, Ring, Transfer};
use crate::protocol::{LayoutAnswer, LayoutWish, Progress};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Longest body of a request here.
const BODY_BYTES_MAX: usize = 64 << 10;
/// The longest that `?wait=` may be, in seconds.
const WAIT_S_MAX: f64 = 3_600.0;
/// Bytes that a key is taken for where nobody knows better.
const KEY_BYTES: u64 = 200;

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

fn seconds(text: &str) -> Result<Duration, ApiError> {
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
        "transfers": transfers(ring, &progress, since),
        "awaiting": node.awaited_founders(),
    })
}

fn role(ring: &Ring, member: MemberIndex) -> &'static str {
    match ring.layout().change() {
        Some(change) if change.joining().contains(&member) => "joining",
        Some(change) if change.leaving().contains(&member) => "leaving",
        _ => "member",
    }
}

/// What moves: until the new owner has all of it, and the old one's copy is gone.
fn transfers(ring: &Ring, progress: &BTreeMap<String, Progress>, since: Duration) -> Vec<Value> {
    let url = |member: Option<MemberIndex>| member.map(|member| ring.member(member).url.clone());
    let held = |member: MemberIndex, partition: Partition| {
        let said = progress.get(&ring.member(member).name)?;
        said.lacking.iter().find(|(at, _)| *at == partition).map(|(_, keys)| *keys)
    };
    let filling = ring.layout().change().is_some_and(|change| change.phase() == Phase::Filling);
    let mut shown = Vec::new();
    for moving in if filling { Transfer::of(ring).moves().to_vec() } else { Vec::new() } {
        let Some(to) = moving.to else { continue };
        // Of one that is whole by now nothing is lacked.
        let Some(keys) = held(to, moving.partition) else { continue };
        let rate = keys as f64 / since.as_secs_f64().max(0.001);
        let whole = ring.owners(moving.partition).iter().filter_map(|owner| held_by(ring, progress, *owner)).max();
        let left = whole.unwrap_or(keys).saturating_sub(keys);
        shown.push(json!({
            "partition": moving.partition.index(), "from": url(moving.from), "to": url(Some(to)), "keys": keys,
            "bytes": keys.saturating_mul(KEY_BYTES), "eta_s": (rate > 0.0).then(|| left as f64 / rate),
        }));
    }
    for member in ring.members() {
        let Some(said) = progress.get(&ring.member(member).name) else { continue };
        for (partition, keys) in &said.foreign {
            shown.push(json!({
                "partition": partition.index(), "from": url(Some(member)),
                "to": url(ring.owners(*partition).first().copied()), "keys": keys, "bytes": keys.saturating_mul(KEY_BYTES),
                "eta_s": Value::Null,
            }));
        }
    }
    shown
}

/// About how many keys a member has of one of its partitions.
fn held_by(ring: &Ring, progress: &BTreeMap<String, Progress>, member: MemberIndex) -> Option<u64> {
    let said = progress.get(&ring.member(member).name)?;
    Some(said.keys / ring.owned_by(member).len().max(1) as u64)
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

async fn ask(worker: &Rc<Worker>, wish: LayoutWish) -> Result<HttpResponse, ApiError> {
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
    Query::of(request, &[])?;
    let body = input::body(&worker.node, request, payload, BODY_BYTES_MAX, "body", "").await?;
    let wish: ModeWish = input::object(&body, "send {\"mode\":\"quorum\"}")?;
    let mode: Mode = wish
        .mode
        .parse()
        .map_err(|error| ApiError::bad(format!("{error}"), "the modes are sloppy, async, quorum, sync and chain"))?;
    ask(worker, LayoutWish::Mode(mode)).await
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
    Query::of(request, &[])?;
    let body = input::body(&worker.node, request, payload, BODY_BYTES_MAX, "body", "").await?;
    let wish: ReplicasWish = input::object(&body, "send {\"replicas\":3}")?;
    let max = crate::config::REPLICAS_MAX;
    let Some(replicas) = u8::try_from(wish.replicas).ok().filter(|count| (1..=max).contains(&usize::from(*count)))
    else {
        return Err(ApiError::bad(format!("replicas must be a number from 1 to {max}"), "3 suits most"));
    };
    ask(worker, LayoutWish::Replicas(replicas)).await
}

/// A request that says all there is to say by its path.
async fn nothing_more(worker: &Worker, request: &HttpRequest, payload: web::Payload) -> Result<(), ApiError> {
    Query::of(request, &[])?;
    let body = input::body(&worker.node, request, payload, BODY_BYTES_MAX, "body", "").await?;
    match body.trim_ascii() {
        b"" | b"{}" => Ok(()),
        _ => Err(ApiError::bad("this takes no body", "it is about the node that is asked: send it to that one")),
    }
}

/// `POST /cluster/join`: this node, which is no member, is to be one.
pub(super) async fn join(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    nothing_more(worker, request, payload).await?;
    let node = &worker.node;
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
    nothing_more(worker, request, payload).await?;
    // Kept before anything comes of it, so that a restart in between does not bring it back.
    if !node::keep_left(worker, true).await {
        return Err(ApiError::Busy("the node cannot keep that it is to leave"));
    }
    let answer = ask(worker, LayoutWish::Leave(worker.node.name.clone())).await;
    if matches!(answer, Err(ApiError::NoChange(_))) && worker.node.is_member() {
        node::keep_left(worker, false).await;
    }
    answer
}

/// `POST /cluster/abandon`: gives up the change of owners under way, as long as reads still go to the old ones.
pub(super) async fn abandon(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    nothing_more(worker, request, payload).await?;
    ask(worker, LayoutWish::Abandon).await
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
    Query::of(request, &[])?;
    let body = input::body(&worker.node, request, payload, BODY_BYTES_MAX, "body", "").await?;
    let wish: RemoveWish = input::object(&body, "send {\"node\":\"<id, name or url>\"}")?;
    let ring = worker.node.ring();
    let name = ring.member(member_called(worker, &ring, &wish.node)?).name.clone();
    ask(worker, LayoutWish::Remove(name)).await
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
    Query::of(request, &[])?;
    let body = input::body(&worker.node, request, payload, BODY_BYTES_MAX, "body", "").await?;
    let wish: ReplaceWish = input::object(&body, "send {\"dead\":\"<id, name or url>\",\"with\":\"<url>\"}")?;
    let ring = worker.node.ring();
    let dead = ring.member(member_called(worker, &ring, &wish.dead)?).name.clone();
    let url: PeerUrl = wish.with.parse().map_err(|error: Nonsense| {
        ApiError::bad(error.to_string(), "name the new node by its URL, such as http://node4:8001")
    })?;
    let nobody = "start it with --join manual and a member in --peers, then ask again";
    let with = node::meet(worker, url.url()).await;
    let with =
        with.ok_or_else(|| ApiError::bad(format!("no fresh node of this cluster answers at {}", url.url()), nobody))?;
    ask(worker, LayoutWish::Replace { dead, with }).await
}
