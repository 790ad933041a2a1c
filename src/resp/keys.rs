//! Commands on keys, whatever they hold.

use super::access::{self, Begun, Later, at_hand, failure, later, now, reading, together};
use super::arguments;
use super::reply::Reply;
use super::session::Session;
use bytes::Bytes;
use std::rc::Rc;

/// TYPE: every value is a string.
pub(super) fn kind(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let key = arguments::key(session, &words[1])?;
    reading(session, key, |content, _| Reply::Simple(if content.is_some() { "string" } else { "none" }))
}

/// EXISTS: a key that is named twice counts twice.
pub(super) fn exists(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let keys = arguments::keys(session, &words[1..])?;
    let known: Option<Vec<bool>> =
        keys.iter().map(|key| at_hand(session, key).map(|(record, now_ms)| record.winner(now_ms).is_some())).collect();
    let count = |there: Vec<bool>| Reply::count(there.into_iter().filter(|is| *is).count());
    if let Some(known) = known {
        return now(count(known));
    }
    let (worker, terms) = (session.worker.clone(), session.read_terms());
    later(async move {
        let work = keys.into_iter().map(|key| {
            let (worker, terms) = (worker.clone(), terms.clone());
            let work = async move {
                let read = access::read(&worker, &terms, &key).await?;
                Ok::<_, Reply>(read.record.winner(read.now_ms).is_some())
            };
            Box::pin(work) as Later<_>
        });
        let done = together(&worker, work.collect(), |group| group.iter().any(Result::is_err)).await;
        done.into_iter().collect::<Result<_, _>>().map(count)
    })
}

/// DEL, UNLINK: each key by itself; how many had a value.
pub(super) fn del(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let mut keys = arguments::keys(session, &words[1..])?;
    // A key that is there twice is deleted once.
    let mut seen = std::collections::HashSet::new();
    keys.retain(|key| seen.insert(key.clone()));
    let (worker, terms) = (session.worker.clone(), session.write_terms());
    later(async move {
        let work = keys.into_iter().map(|key| {
            let worker = worker.clone();
            Box::pin(async move { access::set(&worker, terms, key, None).await }) as Later<_>
        });
        let done = together(&worker, work.collect(), |_| false).await;
        match failure(&done) {
            None => Ok(Reply::count(done.iter().filter(|done| matches!(done, Ok(false))).count())),
            Some(error) => Err(error),
        }
    })
}
