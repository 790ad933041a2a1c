//! What Kringle has and Redis does not: who keeps what, and what else a key holds.

use super::access::{self, Begun, later, now};
use super::arguments;
use super::reply::Reply;
use super::session::Session;
use crate::membership::State;
use crate::node::{self, Worker};
use crate::placement::{Partition, Ring};
use crate::record::context_to_token;
use bytes::Bytes;
use std::rc::Rc;
use std::sync::Arc;

/// How many keys this node owns and has.
pub(super) fn own_keys(session: &Session) -> u64 {
    let node = &session.worker.node;
    let ring = node.ring();
    let keys: i64 = ring.owned_by(node.me(&ring)).iter().map(|partition| node.forest.live(*partition)).sum();
    keys.max(0) as u64
}

/// NODES: a line for each.
pub(super) fn nodes(session: &Rc<Session>, _: &[Bytes]) -> Result<Begun, Reply> {
    let node = &session.worker.node;
    let ring = node.ring();
    let line = |member| {
        let member = ring.member(member);
        let state = node.view().peer(&member.name).map_or(State::Alive, |peer| peer.state);
        format!("{} {state}", member.url)
    };
    now(Reply::texts(ring.members().map(line)))
}

/// How many keys each member has, as it says now, or said last; by its URL.
async fn counts(worker: &Rc<Worker>, ring: &Arc<Ring>) -> Vec<(String, Option<u64>)> {
    node::ask_progress(worker, ring).await;
    let (progress, _) = worker.node.progress_of_all();
    let count = |member| {
        let member = ring.member(member);
        (member.url.clone(), progress.get(&member.name).map(|said| said.keys))
    };
    ring.members().map(count).collect()
}

/// FILES: how many keys each node has.
pub(super) fn files(session: &Rc<Session>, _: &[Bytes]) -> Result<Begun, Reply> {
    let worker = session.worker.clone();
    later(async move {
        let ring = worker.node.ring();
        let counts = counts(&worker, &ring).await.into_iter();
        let said = |keys: Option<u64>| keys.map_or(Reply::Null, |keys| Reply::Integer(keys as i64));
        Ok(Reply::Map(counts.map(|(url, keys)| (Reply::text(url), said(keys))).collect()))
    })
}

/// DBSIZE: what the members have, each key counted once for all its owners.
pub(super) fn dbsize(session: &Rc<Session>, _: &[Bytes]) -> Result<Begun, Reply> {
    let worker = session.worker.clone();
    later(async move {
        let ring = worker.node.ring();
        let counts = counts(&worker, &ring).await;
        if let Some((url, _)) = counts.iter().find(|(_, keys)| keys.is_none()) {
            return Err(Reply::Error(format!("UNAVAILABLE {url} has not said yet how many keys it has")));
        }
        let all: u64 = counts.iter().filter_map(|(_, keys)| *keys).sum();
        let owners = ring.layout().table().width().max(1) as u64;
        Ok(Reply::Integer(all.div_ceil(owners) as i64))
    })
}

/// KRINGLE.LOCATE: which nodes own a key, whether it has a value or not.
pub(super) fn locate(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let key = arguments::key(session, &words[1])?;
    let (ring, partition) = (session.worker.node.ring(), Partition::of(key.position()));
    let owners = ring.owners(partition).iter().map(|owner| ring.member(*owner).url.clone());
    now(Reply::map([
        ("position", Reply::text(key.position().to_string())),
        ("partition", Reply::count(partition.index())),
        ("owners", Reply::texts(owners)),
    ]))
}

/// KRINGLE.SIBLINGS: all values that writers left who did not see each other, the winner first.
pub(super) fn siblings(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let (key, terms) = (arguments::key(session, &words[1])?, session.read_terms());
    let worker = session.worker.clone();
    later(async move {
        let read = access::read(&worker, &terms, &key).await?;
        let values = read.record.values(read.now_ms);
        Ok(Reply::Array(values.iter().map(|value| Reply::Bulk(value.content.value.clone())).collect()))
    })
}

/// KRINGLE.CONTEXT: what a client has seen that reads the key now; to be sent with a write over HTTP.
pub(super) fn context(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let (key, terms) = (arguments::key(session, &words[1])?, session.read_terms());
    let worker = session.worker.clone();
    later(async move {
        let record = access::read(&worker, &terms, &key).await?.record;
        Ok(if record.is_unknown() { Reply::Null } else { Reply::text(context_to_token(&key, record.context())) })
    })
}
