//! What an operator asks: who is there, who owns what, how it is.

use super::ask::member_json;
use super::input::Query;
use super::refuse::ApiError;
use crate::membership::State;
use crate::merkle;
use crate::node::{self, Shared, Worker, wall_ms};
use crate::placement::{Member, MemberIndex, PARTITIONS, Partition, Ring};
use crate::record::Key;
use crate::replica;
use crate::storage::Health;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};
use std::rc::Rc;
use std::sync::atomic::Ordering;

/// Events shown by `/status`.
const EVENTS_SHOWN: usize = 20;

/// `GET /ping`.
pub(super) fn ping(worker: &Rc<Worker>) -> Result<HttpResponse, ApiError> {
    let node = worker.node.id.to_string();
    Ok(HttpResponse::Ok().json(json!({ "message": "pong", "node": node, "version": env!("CARGO_PKG_VERSION") })))
}

/// `GET /health`, `/healthz`: the process answers.
pub(super) fn health() -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(json!({ "message": "ok" })))
}

/// `GET /readyz`: whether clients should be sent here.
pub(super) fn ready(worker: &Rc<Worker>, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let verbose = Query::of(request, &["verbose"])?.switch("verbose")?;
    let store = match worker.node.store.health() {
        Health::Ok => Ok("ok".to_string()),
        Health::ReadOnly(why) => Err(format!("read-only: {why}")),
        Health::Fenced(why) => Err(format!("fenced until a restart: {why}")),
    };
    let stopping = if worker.node.is_stopping() { Err("the node is stopping".into()) } else { Ok("ok".into()) };
    let completeness = &worker.node.completeness;
    let filled = match completeness.is_asking() {
        true => Err("asking its peers what they remember of this node".to_string()),
        // A node that is being filled serves clients like any other: its peers know what it does not.
        false => Ok(completeness.describe()["state"].as_str().unwrap_or_default().to_string()),
    };
    let checks = [("store", store), ("member", membership(worker)), ("filled", filled), ("serving", stopping)];
    let ready = checks.iter().all(|(_, check)| check.is_ok());
    let mut body = json!({ "ready": ready });
    if verbose || !ready {
        let checks = checks.into_iter().map(|(name, check)| (name.to_string(), json!(check.unwrap_or_else(|why| why))));
        body["checks"] = Value::Object(checks.collect());
    }
    Ok(if ready { HttpResponse::Ok().json(body) } else { HttpResponse::ServiceUnavailable().json(body) })
}

/// Whether this node belongs to a cluster that can answer for it.
fn membership(worker: &Worker) -> Result<String, String> {
    let ring = worker.node.ring();
    if ring.guest().is_some() {
        return Err("this node is no member of its cluster: it keeps nothing, and passes requests on".into());
    }
    match ring.epoch() {
        0 if ring.layout().mode().agrees() => {
            Err(format!("the cluster is not established: waiting for {}", worker.node.awaited().join(", ")))
        }
        0 => Ok("not established yet".into()),
        epoch => Ok(format!("epoch {epoch}")),
    }
}

/// `GET /store/hash`: the digest of what this node owns; `?with=`, of what it and that member both own; `?by=partition`,
/// of each partition of that as well.
pub(super) fn hash(worker: &Rc<Worker>, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let query = Query::of(request, &["with", "by"])?;
    let by_partition = match query.text("by")? {
        None => false,
        Some("partition") => true,
        Some(_) => return Err(ApiError::bad("by must be partition", "leave it away for one digest of all")),
    };
    let node = &worker.node;
    let ring = node.ring();
    let me = node.me(&ring);
    let owned = match query.text("with")? {
        None => ring.owned_by(me).to_vec(),
        Some(with) => replica::shared(&ring, me, member_called(worker, &ring, with)?),
    };
    if !owned.iter().all(|partition| node.forest.is_built(*partition)) {
        return Err(ApiError::NotBuilt);
    }
    let root = merkle::root(owned.iter().map(|partition| (*partition, node.forest.partition_digest(*partition))));
    let keys: i64 = owned.iter().map(|partition| node.forest.live(*partition)).sum();
    let mut body = json!({ "hash": hex(&root), "keys": keys });
    if by_partition {
        let one = |partition: &Partition| {
            let digest = node.forest.partition_digest(*partition);
            let hash = hex(&merkle::root([(*partition, digest)]));
            json!({ "partition": partition.index(), "hash": hash, "keys": node.forest.live(*partition) })
        };
        body["partitions"] = owned.iter().map(one).collect();
    }
    Ok(HttpResponse::Ok().json(body))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `POST /sync`: compares with every peer, or with `?with=`, repairs, and tells what was done. Waits for it.
pub(super) async fn sync(worker: &Rc<Worker>, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let query = Query::of(request, &["with"])?;
    let node = &worker.node;
    let ring = node.ring();
    let me = node.me(&ring);
    let peers: Vec<MemberIndex> = match query.text("with")? {
        None => ring.members().filter(|&member| member != me).collect(),
        Some(with) => match member_called(worker, &ring, with)? {
            peer if peer == me => return Err(ApiError::bad("that is this node itself", "name one of its peers")),
            peer => vec![peer],
        },
    };
    let mut reports = Vec::with_capacity(peers.len());
    for peer in peers {
        let name = &ring.member(peer).name;
        reports.push(match node::sync_with(worker, name).await {
            Some(account) => json!(account),
            None => json!({ "peer": name, "failed": "it, or this node, was busy with other sessions" }),
        });
    }
    let done = reports.iter().all(|report| report["failed"].is_null());
    Ok(HttpResponse::Ok().json(json!({ "done": done, "reports": reports })))
}

/// The member with this id, name or URL.
pub(super) fn member_called(worker: &Worker, ring: &Ring, text: &str) -> Result<MemberIndex, ApiError> {
    let unknown = || ApiError::bad("no member is called so", "give a member's id, name or url, as /ring lists them");
    node::named(worker, ring, text).ok_or_else(unknown)
}

/// `GET /ring`, and `?key=` for the owners of one key.
pub(super) fn ring(worker: &Rc<Worker>, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let query = Query::of(request, &["key"])?;
    let ring = worker.node.ring();
    let body = match query.bytes("key") {
        Some(key) => {
            let key = Key::within(key.to_vec(), worker.node.settings.key_bytes_max)?;
            let partition = Partition::of(key.position());
            let shown = |member: &crate::placement::MemberIndex| member_json(worker, ring.member(*member));
            json!({
                "position": key.position().to_string(),
                "partition": partition.index(),
                "owners": ring.owners(partition).iter().map(shown).collect::<Vec<_>>(),
                "stand_ins": ring.stand_ins(partition).iter().map(shown).collect::<Vec<_>>(),
            })
        }
        None => {
            let members: Vec<Value> = ring
                .members()
                .map(|index| {
                    let member = ring.member(index);
                    let mut shown = member_json(worker, member);
                    shown["zone"] = json!(member.zone);
                    shown["share"] = json!(ring.share(index));
                    shown["tokens"] =
                        json!(ring.tokens(index).iter().map(|token| format!("{token:016x}")).collect::<Vec<_>>());
                    shown
                })
                .collect();
            json!({ "partitions": PARTITIONS, "epoch": ring.epoch(), "members": members })
        }
    };
    Ok(HttpResponse::Ok().json(body))
}

/// `GET /status`.
pub(super) fn status(worker: &Rc<Worker>) -> Result<HttpResponse, ApiError> {
    let node = &worker.node;
    let ring = node.ring();
    let own = ring.member(node.me(&ring));
    let usage = node.store.usage();
    let hints = node.hints.status();
    let by_target: serde_json::Map<String, Value> = hints
        .iter()
        .map(|hint| (hint.target.to_string(), json!({ "count": hint.count, "bytes": hint.bytes })))
        .collect();
    let (actors, joined) = node.seen_summary();
    let (keys, tombstones) = Partition::all().fold((0, 0), |(keys, tombstones), partition| {
        (keys + node.forest.live(partition), tombstones + node.forest.tombstones(partition))
    });
    Ok(HttpResponse::Ok().json(json!({
        "node": {
            "id": node.id.to_string(), "name": node.name, "url": own.url, "version": env!("CARGO_PKG_VERSION"),
            "uptime_s": node.started.elapsed().as_secs(), "cluster": node.settings.cluster,
            "member": ring.guest().is_none(),
        },
        "mode": ring.layout().mode().to_string(),
        "epoch": ring.epoch(),
        "replicas": ring.layout().replicas(),
        "members": members(worker, &ring),
        "store": {
            "keys": keys, "tombstones": tombstones, "bytes": usage.base_bytes + usage.recent_bytes,
            "log_bytes": usage.log_bytes, "durability": node.settings.durability.to_string(),
        },
        "hints": {
            "count": hints.iter().map(|hint| hint.count).sum::<u64>(),
            "bytes": hints.iter().map(|hint| hint.bytes).sum::<u64>(),
            "bytes_max": node.hints.bytes_max(),
            "refused": node.hints.refused(),
            "by_target": by_target,
        },
        "reads": { "hedged": node.reads_hedged.load(Ordering::Relaxed) },
        "load": load(node),
        "filling": node.completeness.describe(),
        "seen": { "actors": actors, "partitions_joined": joined },
        "clock": { "ahead_ms": node.clock_ahead_ms(), "behind_ms": node.clock_behind_ms() },
        "sync": sync_status(worker),
        "forgetting": node.waits.status(),
        "scrub": node.rot.status(),
        "faults": node.settings.faults.then(|| super::faults::told(node)),
        "events": node.events.latest(EVENTS_SHOWN),
    })))
}

/// What clients ask of the node, and what it is to bear.
fn load(node: &Shared) -> Value {
    let mut shown = json!(node.load.rates(node.uptime().as_secs()));
    shown["max_keys"] = json!(node.settings.keys_max);
    shown["max_load"] = json!(node.settings.load_max);
    shown["full"] = json!(node.room.as_ref().is_some_and(|room| room.is_full()));
    shown
}

fn sync_status(worker: &Worker) -> Value {
    let (totals, last) = worker.node.syncs.status();
    let mut shown = json!(totals);
    shown["read_repairs"] = json!(worker.node.read_repairs.load(Ordering::Relaxed));
    shown["last"] = json!(last);
    shown
}

fn members(worker: &Worker, ring: &Ring) -> Vec<Value> {
    let node = &worker.node;
    let member = |member: &Member| {
        let mut shown = member_json(worker, member);
        let peer = node.view().peer(&member.name).cloned();
        let state = peer.as_ref().map_or(State::Alive, |peer| peer.state);
        shown["state"] = json!(state.to_string());
        let itself = peer.is_none().then(wall_ms);
        shown["last_seen_ms"] = json!(peer.as_ref().and_then(|peer| peer.last_seen_ms).or(itself));
        shown["durable_stamp"] = json!(node.remembered(&member.name).map(|life| life.stamp.to_string()));
        shown["last_error"] = json!(peer.and_then(|peer| peer.last_error));
        shown
    };
    ring.layout().members().iter().map(member).collect()
}
