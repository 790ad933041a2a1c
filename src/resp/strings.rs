//! Commands on values.

use super::access::{self, Begun, Later, failure, later, reading, reading_each, together};
use super::arguments::{self, integer, is, value};
use super::expiry::Unit;
use super::refuse;
use super::reply::Reply;
use super::rewrite::{Needs, Then, rewrite};
use super::session::Session;
use crate::client::{self, Error};
use crate::placement::Mode;
use crate::record::{Condition, Content, Edit, Key, Proposal, Seen};
use bytes::{Bytes, BytesMut};
use std::rc::Rc;

/// Most bytes that MGET answers with.
const MGET_BYTES_MAX: usize = 64 << 20;

pub(super) fn get(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let key = arguments::key(session, &words[1])?;
    reading(session, key, |content, _| access::bulk(content))
}

pub(super) fn strlen(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let key = arguments::key(session, &words[1])?;
    reading(session, key, |content, _| Reply::count(content.map_or(0, |content| content.value.len())))
}

/// Both ends count, and negative ones from behind.
pub(super) fn getrange(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let key = arguments::key(session, &words[1])?;
    let (from, to) = (integer(&words[2])?, integer(&words[3])?);
    reading(session, key, move |content, _| Reply::Bulk(range(&access::bytes(content), from, to)))
}

fn range(bytes: &Bytes, from: i64, to: i64) -> Bytes {
    // Both before the beginning would else mean its first byte.
    if from < 0 && to < 0 && from > to {
        return Bytes::new();
    }
    let length = bytes.len() as i64;
    let place = |at: i64| if at < 0 { at.saturating_add(length).max(0) } else { at };
    let (from, to) = (place(from), place(to).min(length - 1));
    if from > to { Bytes::new() } else { bytes.slice(from as usize..=to as usize) }
}

/// What SET was told beside key and value.
#[derive(Default)]
struct Options {
    expires_ms: Option<u64>,
    keeps_ttl: bool,
    condition: Option<Condition>,
    gets: bool,
}

impl Options {
    /// Sets the condition, unless another one is set.
    fn may_be(&mut self, condition: Condition) -> bool {
        *self.condition.get_or_insert(condition) == condition
    }

    fn read(session: &Session, words: &[Bytes]) -> Result<Options, Reply> {
        let (mut options, mut words) = (Options::default(), words.iter());
        while let Some(word) = words.next() {
            let ends = options.expires_ms.is_some();
            match Unit::of_option(word) {
                Some(unit) if !ends && !options.keeps_ttl => {
                    let number = words.next().ok_or_else(refuse::syntax)?;
                    options.expires_ms = Some(unit.read(session, number, "set")?);
                }
                None if is(word, "KEEPTTL") && !ends => options.keeps_ttl = true,
                None if is(word, "GET") => options.gets = true,
                None if is(word, "NX") && options.may_be(Condition::Absent) => {}
                None if is(word, "XX") && options.may_be(Condition::Present) => {}
                _ => return Err(refuse::syntax()),
            }
        }
        Ok(options)
    }
}

pub(super) fn set(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let (key, value) = (arguments::key(session, &words[1])?, value(session, &words[2])?);
    let options = Options::read(session, &words[3..])?;
    let content = Content { expires_ms: options.expires_ms, ..Content::plain(value) };
    if !options.gets && !options.keeps_ttl {
        return match options.condition {
            None => plain(session, key, content),
            Some(condition) => conditional(session, key, content, condition, Reply::OK, Reply::Null),
        };
    }
    // Without a condition and an answer of what was there, it is a plain write that keeps when the value ends.
    let is_plain = !options.gets && options.condition.is_none();
    let needs = if is_plain { Needs::SameValue } else { Needs::OneStep };
    rewrite(session, key, needs, move |held, _| {
        let unmet = match options.condition {
            Some(Condition::Absent) => held.is_some(),
            Some(_) => held.is_none(),
            None => false,
        };
        let reply = match options.gets {
            true => access::bulk(held),
            false if unmet => Reply::Null,
            false => Reply::OK,
        };
        if unmet {
            return Ok(Then::Keep(reply));
        }
        let kept = held.and_then(|held| held.expires_ms).filter(|_| options.keeps_ttl);
        Ok(Then::Write(Some(Content { expires_ms: content.expires_ms.or(kept), ..content.clone() }), reply))
    })
}

fn plain(session: &Session, key: Key, content: Content) -> Result<Begun, Reply> {
    let (worker, terms) = (session.worker.clone(), session.write_terms());
    later(async move { access::set(&worker, terms, key, Some(content)).await.map(|_| Reply::OK) })
}

/// A write that is made where a condition is true; the answers where it is, and where it is not.
fn conditional(
    session: &Session,
    key: Key,
    content: Content,
    condition: Condition,
    made: Reply,
    unmet: Reply,
) -> Result<Begun, Reply> {
    let mode = session.mode();
    if mode != Mode::Quorum {
        return Err(Reply::Error(refuse::needs_quorum(mode)));
    }
    let (worker, terms) = (session.worker.clone(), session.write_terms());
    let edit = Edit::write(Seen::Everything, Some(content));
    later(async move {
        match client::write(&worker, terms, key, Proposal { edit, condition: Some(condition) }).await {
            Ok(_) => Ok(made),
            Err(Error::Unmet { .. }) => Ok(unmet),
            Err(error) => Err(refuse::line(error)),
        }
    })
}

pub(super) fn setnx(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let (key, value) = (arguments::key(session, &words[1])?, value(session, &words[2])?);
    conditional(session, key, Content::plain(value), Condition::Absent, Reply::flag(true), Reply::flag(false))
}

pub(super) fn setex(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    set_until(session, words, Unit::Seconds, "setex")
}

pub(super) fn psetex(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    set_until(session, words, Unit::Milliseconds, "psetex")
}

fn set_until(session: &Rc<Session>, words: &[Bytes], unit: Unit, name: &str) -> Result<Begun, Reply> {
    let (key, value) = (arguments::key(session, &words[1])?, value(session, &words[3])?);
    let expires_ms = Some(unit.read(session, &words[2], name)?);
    plain(session, key, Content { expires_ms, ..Content::plain(value) })
}

pub(super) fn getset(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let (key, value) = (arguments::key(session, &words[1])?, value(session, &words[2])?);
    rewrite(session, key, Needs::OneStep, move |held, _| {
        Ok(Then::Write(Some(Content::plain(value.clone())), access::bulk(held)))
    })
}

pub(super) fn getdel(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let key = arguments::key(session, &words[1])?;
    rewrite(session, key, Needs::OneStep, |held, _| match held {
        Some(_) => Ok(Then::Write(None, access::bulk(held))),
        None => Ok(Then::Keep(Reply::Null)),
    })
}

pub(super) fn append(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let (key, more) = (arguments::key(session, &words[1])?, value(session, &words[2])?);
    let max = session.worker.node.settings.value_bytes_max;
    rewrite(session, key, Needs::OneValue, move |held, _| {
        let before = access::bytes(held);
        let length = before.len() + more.len();
        if length > max {
            return Err(Reply::Error(format!("ERR the value is longer than {max} bytes, which --value-max allows")));
        }
        let mut value = BytesMut::with_capacity(length);
        value.extend_from_slice(&before);
        value.extend_from_slice(&more);
        let content = Content { value: value.freeze(), ..held.cloned().unwrap_or_default() };
        Ok(Then::Write(Some(content), Reply::count(length)))
    })
}

pub(super) fn mget(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let keys = arguments::keys(session, &words[1..])?;
    let mut bytes = 0;
    let refusal = move |group: &[Result<Reply, Reply>]| {
        bytes += group.iter().flatten().map(Reply::size_hint).sum::<usize>();
        (bytes > MGET_BYTES_MAX).then(too_long)
    };
    reading_each(session, keys, access::bulk, refusal, bounded)
}

fn bounded(values: Vec<Reply>) -> Result<Reply, Reply> {
    let reply = Reply::Array(values);
    if reply.size_hint() > MGET_BYTES_MAX { Err(too_long()) } else { Ok(reply) }
}

fn too_long() -> Reply {
    Reply::Error(format!("ERR the answer is longer than {MGET_BYTES_MAX} bytes: ask for fewer keys"))
}

/// Each key by itself: where one fails, others may have been written.
pub(super) fn mset(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let pairs = &words[1..];
    if !pairs.len().is_multiple_of(2) {
        return Err(Reply::error("ERR wrong number of arguments for 'mset' command"));
    }
    let mut last: Vec<(Key, Content)> = Vec::with_capacity(pairs.len() / 2);
    for pair in pairs.chunks_exact(2) {
        last.push((arguments::key(session, &pair[0])?, Content::plain(value(session, &pair[1])?)));
    }
    // Of a key that is there twice, the last counts.
    let mut seen = std::collections::HashSet::new();
    last.reverse();
    last.retain(|(key, _)| seen.insert(key.clone()));
    let (worker, terms) = (session.worker.clone(), session.write_terms());
    later(async move {
        let work = last.into_iter().map(|(key, content)| {
            let worker = worker.clone();
            Box::pin(async move { access::set(&worker, terms, key, Some(content)).await }) as Later<_>
        });
        failure(&together(&worker, work.collect(), |_| false).await).map_or(Ok(Reply::OK), Err)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_counts_both_its_ends_and_from_behind() {
        let bytes = Bytes::from_static(b"This is a string");
        for (from, to, part) in [
            (0, 3, "This"),
            (-3, -1, "ing"),
            (0, -1, "This is a string"),
            (10, 100, "string"),
            (5, 3, ""),
            (-100, 1, "Th"),
            (16, 20, ""),
            (i64::MIN, i64::MAX, "This is a string"),
            (i64::MAX, i64::MIN, ""),
            (-50, -90, ""),
            (-90, -50, "T"),
        ] {
            assert_eq!(range(&bytes, from, to), part, "{from} to {to}");
        }
        assert_eq!(range(&Bytes::new(), 0, -1), "");
    }
}
