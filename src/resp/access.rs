//! Reads and writes, as all commands make them.

use super::refuse;
use super::reply::Reply;
use super::session::Session;
use crate::client::{self, Read, ReadTerms, StoredKind, WriteTerms};
use crate::node::Worker;
use crate::record::{Content, Edit, Key, Proposal, Record, Seen};
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

/// What is still to come.
pub(super) type Later<T> = Pin<Box<dyn Future<Output = T>>>;

/// What a command has come to on the spot.
pub(super) enum Begun {
    /// It is answered.
    Now(Reply),
    /// It is under way.
    Later(Later<Reply>),
}

/// Most operations that one command has under way at once.
const TOGETHER_MAX: usize = 64;

/// A command that goes on by itself. What it fails with is its answer.
pub(super) fn later(work: impl Future<Output = Result<Reply, Reply>> + 'static) -> Result<Begun, Reply> {
    Ok(Begun::Later(Box::pin(async move { work.await.unwrap_or_else(|refused| refused) })))
}

pub(super) fn now(reply: Reply) -> Result<Begun, Reply> {
    Ok(Begun::Now(reply))
}

/// What this node has of a key, where its word is enough and memory can tell, and when that is, in milliseconds since 1970.
pub(super) fn at_hand(session: &Session, key: &Key) -> Option<(Record, u64)> {
    let ring = session.worker.node.ring();
    if !client::one_is_enough(&session.worker, &ring, session.named_mode()) {
        return None;
    }
    let record = client::read_at_hand(&session.worker, &ring, key)?;
    let now_ms = if record.expires() { session.now_ms() } else { 0 };
    Some((record, now_ms))
}

pub(super) async fn read(worker: &Rc<Worker>, terms: &ReadTerms, key: &Key) -> Result<Read, Reply> {
    client::read(worker, terms, key).await.map_err(refuse::line)
}

/// A command that answers with what is said of one key's value.
pub(super) fn reading(
    session: &Session,
    key: Key,
    say: impl Fn(Option<&Content>, u64) -> Reply + 'static,
) -> Result<Begun, Reply> {
    if let Some((record, now_ms)) = at_hand(session, &key) {
        return now(say(record.winner(now_ms).as_deref().map(|winner| &winner.content), now_ms));
    }
    let (worker, terms) = (session.worker.clone(), session.read_terms());
    later(async move {
        let Read { record, now_ms, .. } = read(&worker, &terms, &key).await?;
        Ok(say(record.winner(now_ms).as_deref().map(|winner| &winner.content), now_ms))
    })
}

/// Makes a write, and says whether there was no value before. That it is short of what the mode wants is an error here.
pub(super) async fn write(
    worker: &Rc<Worker>,
    terms: WriteTerms,
    key: Key,
    wish: impl Into<Proposal>,
) -> Result<(bool, Record), Reply> {
    let stored = client::write(worker, terms, key, wish).await.map_err(refuse::line)?;
    match stored.kind {
        StoredKind::Created => Ok((true, stored.record)),
        StoredKind::Replaced => Ok((false, stored.record)),
        StoredKind::Short => {
            let (wanted, acked, hinted) = (stored.replicas.wanted, stored.replicas.acked, stored.replicas.hinted);
            Err(Reply::Error(format!(
                "UNCERTAIN the write is stored, but on {acked} of {wanted} owners and with {hinted} stand-ins: fewer than \
                 the mode wants"
            )))
        }
    }
}

/// A plain write of a value, or a delete: supersedes all there is.
pub(super) async fn set(
    worker: &Rc<Worker>,
    terms: WriteTerms,
    key: Key,
    content: Option<Content>,
) -> Result<bool, Reply> {
    Ok(write(worker, terms, key, Edit::write(Seen::Everything, content)).await?.0)
}

/// Does several things at once, a bounded number at a time; what came of each, in order.
pub(super) async fn together<T: 'static>(work: Vec<Later<T>>) -> Result<Vec<T>, Reply> {
    let (mut done, mut work) = (Vec::with_capacity(work.len()), work.into_iter());
    loop {
        let some: Vec<_> = work.by_ref().take(TOGETHER_MAX).map(tokio::task::spawn_local).collect();
        if some.is_empty() {
            return Ok(done);
        }
        for one in some {
            done.push(one.await.map_err(|_| cut_short())?);
        }
    }
}

/// A task of ours has ended without a word, as it does where it panicked or the node stops.
pub(super) fn cut_short() -> Reply {
    Reply::error("UNCERTAIN the command was cut short, and a write may still surface")
}

pub(super) fn bulk(content: Option<&Content>) -> Reply {
    content.map_or(Reply::Null, |content| Reply::Bulk(content.value.clone()))
}

/// The bytes of a value; none where there is none.
pub(super) fn bytes(content: Option<&Content>) -> Bytes {
    content.map_or_else(Bytes::new, |content| content.value.clone())
}
