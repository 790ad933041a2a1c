//! What moves between owners, and what would: counted in keys, and about how many bytes.

use super::refuse::ApiError;
use crate::node::{self, Shared, Worker};
use crate::placement::{MemberIndex, Partition, Phase, Ring, Transfer};
use crate::protocol::{LayoutWish, Progress};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Bytes that a key is taken for where there is none to go by.
const KEY_BYTES: u64 = 200;

/// About how many bytes a key takes, by this node's own.
fn key_bytes(node: &Shared) -> u64 {
    let usage = node.store.usage();
    let keys: i64 = Partition::all().map(|at| node.forest.live(at) + node.forest.tombstones(at)).sum();
    match u64::try_from(keys) {
        Ok(keys) if keys > 0 => (usage.base_bytes + usage.recent_bytes) / keys,
        _ => KEY_BYTES,
    }
}

/// What moves: until the new owner has all of it, and the old one's copy is gone.
pub(super) fn transfers(
    node: &Shared,
    ring: &Ring,
    progress: &BTreeMap<String, Progress>,
    since: Duration,
) -> Vec<Value> {
    let key_bytes = key_bytes(node);
    let url = |member: Option<MemberIndex>| member.map(|member| ring.member(member).url.clone());
    // What each still lacks, and how many keys of it are there.
    let lacking: BTreeMap<(MemberIndex, Partition), u64> = ring
        .members()
        .filter_map(|member| Some((member, progress.get(&ring.member(member).name)?)))
        .flat_map(|(member, said)| said.lacking.iter().map(move |(at, keys)| ((member, *at), *keys)))
        .collect();
    let mut shown = Vec::new();
    for moving in Transfer::of(ring).moves() {
        let (Some(to), partition) = (moving.to, moving.partition) else { continue };
        let holders = ring.owners(partition).iter().filter(|owner| **owner != to);
        let all = holders.filter_map(|owner| held_by(ring, progress, *owner)).reduce(f64::max).unwrap_or_default();
        // Of one that is whole by now nothing is lacked, and the old copy is there until the change is over.
        let (keys, eta_s) = match lacking.get(&(to, partition)) {
            None => (all.round() as u64, Some(0.0)),
            Some(&keys) => {
                let rate = keys as f64 / since.as_secs_f64().max(0.001);
                (keys, (rate > 0.0).then(|| (all - keys as f64).max(0.0) / rate))
            }
        };
        shown.push(json!({
            "partition": partition.index(), "from": url(moving.from), "to": url(Some(to)), "keys": keys,
            "bytes": keys.saturating_mul(key_bytes), "eta_s": eta_s,
        }));
    }
    for member in ring.members() {
        let Some(said) = progress.get(&ring.member(member).name) else { continue };
        for (partition, keys) in &said.foreign {
            shown.push(json!({
                "partition": partition.index(), "from": url(Some(member)),
                "to": url(ring.owners(*partition).first().copied()), "keys": keys, "bytes": keys.saturating_mul(key_bytes),
                "eta_s": Value::Null,
            }));
        }
    }
    shown
}

/// About how many keys a member has of one of its partitions.
fn held_by(ring: &Ring, progress: &BTreeMap<String, Progress>, member: MemberIndex) -> Option<f64> {
    let said = progress.get(&ring.member(member).name)?;
    Some(said.keys as f64 / ring.owned_by(member).len().max(1) as f64)
}

/// What would come of a change: the epoch in which it would begin, and who would send how much to whom.
pub(super) async fn outlook(worker: &Rc<Worker>, wish: &LayoutWish) -> Result<Value, ApiError> {
    let node = &worker.node;
    let ring = node.ring();
    let planned = node::outlook(node, wish).map_err(ApiError::NoChange)?;
    let Some(layout) = planned else {
        return Ok(json!({ "epoch": ring.epoch(), "dry_run": true, "keys": 0, "bytes": 0, "moves": [] }));
    };
    node::ask_progress(worker, &ring).await;
    let (progress, _) = node.progress_of_all();
    let (me, key_bytes) = (node.me(&ring), key_bytes(node));
    let keys_of = |at: Partition| match ring.is_owner(me, at) && !node.is_partial(at) {
        true => node.forest.live(at).max(0) as f64,
        false => ring
            .owners(at)
            .iter()
            .filter_map(|owner| held_by(&ring, &progress, *owner))
            .reduce(f64::max)
            .unwrap_or_default(),
    };
    let next = Ring::new(layout);
    let mut moves: BTreeMap<(Option<MemberIndex>, Option<MemberIndex>), (u64, f64)> = BTreeMap::new();
    // Of a change that is given up, or that reads have gone over to, nothing more is sent.
    let begins = next.layout().change().is_some_and(|change| change.phase() == Phase::Filling);
    for moving in if begins { Transfer::of(&next).moves().to_vec() } else { Vec::new() } {
        let (partitions, keys) = moves.entry((moving.from, moving.to)).or_default();
        *partitions += 1;
        *keys += keys_of(moving.partition);
    }
    let url = |member: &Option<MemberIndex>| member.map(|member| next.member(member).url.clone());
    let sent: f64 = moves.iter().filter(|((_, to), _)| to.is_some()).map(|(_, (_, keys))| keys).sum();
    let sent = sent.round() as u64;
    let shown = moves.iter().map(|((from, to), (partitions, keys))| {
        let keys = keys.round() as u64;
        let bytes = keys.saturating_mul(key_bytes);
        json!({ "from": url(from), "to": url(to), "partitions": partitions, "keys": keys, "bytes": bytes })
    });
    Ok(json!({
        "epoch": next.epoch(), "dry_run": true, "keys": sent, "bytes": sent.saturating_mul(key_bytes),
        "moves": shown.collect::<Vec<_>>(),
    }))
}
