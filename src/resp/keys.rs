//! Commands on keys, whatever they hold.

use super::access::{self, Begun, Later, failure, later, reading, reading_each, together};
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
    let count = |there: Vec<bool>| Ok(Reply::count(there.into_iter().filter(|is| *is).count()));
    reading_each(session, keys, |content| content.is_some(), |_| None, count)
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
