//! Reads and writes, as all commands make them.

use super::refuse;
use super::reply::Reply;
use super::session::Session;
use crate::client::{self, Read, ReadTerms, StoredKind, WriteTerms};
use crate::node::{self, Worker};
use crate::record::{Content, Edit, Key, Proposal, Record, Seen, Sibling};
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
        return now(say(content(record.winner(now_ms).as_deref()), now_ms));
    }
    let (worker, terms) = (session.worker.clone(), session.read_terms());
    later(async move {
        let Read { record, now_ms, .. } = read(&worker, &terms, &key).await?;
        Ok(say(content(record.winner(now_ms).as_deref()), now_ms))
    })
}

/// A command that answers with what is said of each of several keys' values. `refusal` may say after each group that is read
/// why there is no answer, and then no further ones are.
pub(super) fn reading_each<T: 'static>(
    session: &Session,
    keys: Vec<Key>,
    say: impl Fn(Option<&Content>) -> T + Copy + 'static,
    mut refusal: impl FnMut(&[Result<T, Reply>]) -> Option<Reply> + 'static,
    answer: impl Fn(Vec<T>) -> Result<Reply, Reply> + 'static,
) -> Result<Begun, Reply> {
    let known = keys.iter().map(|key| {
        let (record, now_ms) = at_hand(session, key)?;
        Some(say(content(record.winner(now_ms).as_deref())))
    });
    if let Some(known) = known.collect::<Option<Vec<T>>>() {
        return now(answer(known)?);
    }
    let (worker, terms) = (session.worker.clone(), session.read_terms());
    later(async move {
        let work = keys.into_iter().map(|key| {
            let (worker, terms) = (worker.clone(), terms.clone());
            let work = async move {
                let Read { record, now_ms, .. } = read(&worker, &terms, &key).await?;
                Ok::<_, Reply>(say(content(record.winner(now_ms).as_deref())))
            };
            Box::pin(work) as Later<_>
        });
        let mut refused = None;
        let is_enough = |group: &[Result<T, Reply>]| {
            refused = refusal(group);
            refused.is_some() || group.iter().any(Result::is_err)
        };
        let done = together(&worker, work.collect(), is_enough).await;
        refused.map_or(Ok(()), Err)?;
        answer(done.into_iter().collect::<Result<_, _>>()?)
    })
}

fn content(winner: Option<&Sibling>) -> Option<&Content> {
    winner.map(|winner| &winner.content)
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

/// What is said of a key whose turn did not come.
const NOT_BEGUN: &str =
    "UNAVAILABLE the keys before it took longer than --timeout or could not be had: it was not begun";

/// Does several things at once, a bounded number at a time; what came of each, in order. No further ones are begun once
/// `--timeout` has passed, or nodes could not be had, or `is_enough` says so of those that are done: the rest count as not
/// made.
pub(super) async fn together<T: 'static>(
    worker: &Worker,
    work: Vec<Later<Result<T, Reply>>>,
    mut is_enough: impl FnMut(&[Result<T, Reply>]) -> bool,
) -> Vec<Result<T, Reply>> {
    let (until, all) = (node::now() + worker.node.settings.timeout, work.len());
    let (mut done, mut work) = (Vec::with_capacity(all), work.into_iter());
    while done.len() < all {
        let from = done.len();
        let some: Vec<_> = work.by_ref().take(TOGETHER_MAX).map(tokio::task::spawn_local).collect();
        for one in some {
            done.push(one.await.unwrap_or_else(|_| Err(cut_short())));
        }
        let group = &done[from..];
        if is_enough(group) || group.iter().any(is_cut_off) || node::now() >= until {
            break;
        }
    }
    done.extend(work.map(|_| Err(Reply::error(NOT_BEGUN))));
    done
}

/// Whether nodes could not be had: the same would come of the next key, and later.
fn is_cut_off<T>(done: &Result<T, Reply>) -> bool {
    matches!(done, Err(Reply::Error(line)) if line.starts_with("UNAVAILABLE") || line.starts_with("UNCERTAIN"))
}

/// The error of a command that writes several keys, where there is one. That a write may still surface goes before any
/// other, and so does that one key was written where another was not.
pub(super) fn failure(done: &[Result<bool, Reply>]) -> Option<Reply> {
    let (written, all) = (done.iter().filter(|done| done.is_ok()).count(), done.len());
    let mut lines = done.iter().filter_map(|done| match done {
        Err(Reply::Error(line)) => Some(line),
        _ => None,
    });
    let uncertain = lines.clone().find(|line| line.starts_with("UNCERTAIN"));
    let line = uncertain.or_else(|| lines.next())?;
    Some(Reply::Error(match written {
        0 if uncertain.is_none() => line.clone(),
        _ => format!("UNCERTAIN {written} of {all} keys were written; of another: {line}"),
    }))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_a_write_may_surface_is_told_before_any_other_error() {
        let uncertain = || Err(Reply::error("UNCERTAIN 1 of 2"));
        let unavailable = || Err(Reply::error("UNAVAILABLE nothing was stored"));
        for done in [vec![uncertain(), unavailable()], vec![unavailable(), uncertain()]] {
            let told = "UNCERTAIN 0 of 2 keys were written; of another: UNCERTAIN 1 of 2";
            assert_eq!(failure(&done), Some(Reply::error(told)));
        }
        for done in [vec![Ok(true), unavailable()], vec![unavailable(), Ok(true)]] {
            let told = "UNCERTAIN 1 of 2 keys were written; of another: UNAVAILABLE nothing was stored";
            assert_eq!(failure(&done), Some(Reply::error(told)));
        }
        assert_eq!(failure(&[unavailable(), unavailable()]), unavailable().err());
        assert_eq!(failure(&[Ok(true), Ok(false)]), None);
    }
}
