//! When values end: EXPIRE, TTL and their kin.

use super::access::{self, Begun};
use super::arguments::{self, integer, is};
use super::refuse;
use super::reply::Reply;
use super::rewrite::{Needs, Then, rewrite};
use super::session::Session;
use crate::record::Content;
use bytes::Bytes;
use std::rc::Rc;

/// How a command names a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    /// So many seconds from now.
    Seconds,
    /// So many milliseconds from now.
    Milliseconds,
    /// Seconds since 1970.
    AtSeconds,
    /// Milliseconds since 1970.
    AtMilliseconds,
}

impl Unit {
    /// What SET's and GETEX's options mean.
    pub(super) fn of_option(word: &[u8]) -> Option<Unit> {
        let units = [
            ("EX", Unit::Seconds),
            ("PX", Unit::Milliseconds),
            ("EXAT", Unit::AtSeconds),
            ("PXAT", Unit::AtMilliseconds),
        ];
        units.into_iter().find(|(option, _)| is(word, option)).map(|(_, unit)| unit)
    }

    /// The moment in milliseconds since 1970, 0 for one before; nothing for one that nobody will see.
    fn moment(self, number: i64, now_ms: u64) -> Option<u64> {
        let seconds = matches!(self, Unit::Seconds | Unit::AtSeconds);
        let ms = if seconds { number.checked_mul(1_000)? } else { number };
        let is_relative = matches!(self, Unit::Seconds | Unit::Milliseconds);
        let at_ms = if is_relative { i64::try_from(now_ms).ok()?.checked_add(ms)? } else { ms };
        Some(u64::try_from(at_ms).unwrap_or(0))
    }

    /// The moment that a word of the command `name` names, in milliseconds since 1970.
    pub(super) fn read(self, session: &Session, word: &[u8], name: &str) -> Result<u64, Reply> {
        let number = integer(word)?;
        let moment = self.moment(number, session.now_ms()).filter(|_| number > 0);
        moment.ok_or_else(|| invalid(name))
    }
}

fn invalid(name: &str) -> Reply {
    Reply::Error(format!("ERR invalid expire time in '{name}' command"))
}

pub(super) fn expire(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    end(session, words, Unit::Seconds)
}

pub(super) fn pexpire(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    end(session, words, Unit::Milliseconds)
}

pub(super) fn expireat(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    end(session, words, Unit::AtSeconds)
}

pub(super) fn pexpireat(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    end(session, words, Unit::AtMilliseconds)
}

/// What must be true of the moment that stands, for another to take its place.
#[derive(Clone, Copy, Default)]
struct If {
    none: bool,
    some: bool,
    later: bool,
    earlier: bool,
}

impl If {
    fn read(options: &[Bytes]) -> Result<If, Reply> {
        let mut wanted = If::default();
        for option in options {
            match option {
                option if is(option, "NX") => wanted.none = true,
                option if is(option, "XX") => wanted.some = true,
                option if is(option, "GT") => wanted.later = true,
                option if is(option, "LT") => wanted.earlier = true,
                other => return Err(Reply::Error(format!("ERR Unsupported option {}", arguments::shown(other)))),
            }
        }
        match wanted {
            If { none: true, some, later, earlier } if some || later || earlier => {
                Err(Reply::error("ERR NX and XX, GT or LT options at the same time are not compatible"))
            }
            If { later: true, earlier: true, .. } => {
                Err(Reply::error("ERR GT and LT options at the same time are not compatible"))
            }
            wanted => Ok(wanted),
        }
    }

    /// Whether anything must be.
    fn is_any(self) -> bool {
        self.none || self.some || self.later || self.earlier
    }

    /// A value that never ends counts as one that ends last.
    fn holds(self, stands: Option<u64>, at_ms: u64) -> bool {
        (!self.none || stands.is_none())
            && (!self.some || stands.is_some())
            && (!self.later || stands.is_some_and(|stands| at_ms > stands))
            && (!self.earlier || stands.is_none_or(|stands| at_ms < stands))
    }
}

fn end(session: &Rc<Session>, words: &[Bytes], unit: Unit) -> Result<Begun, Reply> {
    let key = arguments::key(session, &words[1])?;
    let name = arguments::shown(&words[0]).to_lowercase();
    let at_ms = unit.moment(integer(&words[2])?, session.now_ms()).ok_or_else(|| invalid(&name))?;
    let wanted = If::read(&words[3..])?;
    // A condition on the end that stands is none where another one may come between.
    let needs = if wanted.is_any() { Needs::OneValue } else { Needs::SameValue };
    rewrite(session, key, needs, move |content, now_ms| {
        let Some(content) = content.filter(|content| wanted.holds(content.expires_ms, at_ms)) else {
            return Ok(Then::Keep(Reply::flag(false)));
        };
        let ends = Content { expires_ms: Some(at_ms), ..content.clone() };
        // What ended before now is deleted at once.
        Ok(Then::Write((at_ms > now_ms).then_some(ends), Reply::flag(true)))
    })
}

pub(super) fn persist(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let key = arguments::key(session, &words[1])?;
    rewrite(session, key, Needs::SameValue, |content, _| match content {
        Some(content) if content.expires_ms.is_some() => {
            Ok(Then::Write(Some(Content { expires_ms: None, ..content.clone() }), Reply::flag(true)))
        }
        _ => Ok(Then::Keep(Reply::flag(false))),
    })
}

/// GETEX: the value, and perhaps another end for it.
pub(super) fn getex(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let key = arguments::key(session, &words[1])?;
    let expires_ms = match &words[2..] {
        [] => return access::reading(session, key, |content, _| access::bulk(content)),
        [option] if is(option, "PERSIST") => None,
        [option, number] => {
            let unit = Unit::of_option(option).ok_or_else(refuse::syntax)?;
            Some(unit.read(session, number, "getex")?)
        }
        _ => return Err(refuse::syntax()),
    };
    rewrite(session, key, Needs::SameValue, move |content, now_ms| {
        let reply = access::bulk(content);
        match content {
            Some(content) if content.expires_ms != expires_ms => {
                let is_over = expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms);
                let ends = Content { expires_ms, ..content.clone() };
                Ok(Then::Write((!is_over).then_some(ends), reply))
            }
            _ => Ok(Then::Keep(reply)),
        }
    })
}

pub(super) fn ttl(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    told(session, words, |expires_ms, now_ms| (expires_ms.saturating_sub(now_ms) + 500) / 1_000)
}

pub(super) fn pttl(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    told(session, words, |expires_ms, now_ms| expires_ms.saturating_sub(now_ms))
}

pub(super) fn expiretime(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    told(session, words, |expires_ms, _| (expires_ms + 500) / 1_000)
}

pub(super) fn pexpiretime(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    told(session, words, |expires_ms, _| expires_ms)
}

/// -2 for no value, -1 for one that never ends.
fn told(session: &Rc<Session>, words: &[Bytes], say: fn(u64, u64) -> u64) -> Result<Begun, Reply> {
    let key = arguments::key(session, &words[1])?;
    access::reading(session, key, move |content, now_ms| {
        Reply::Integer(match content.map(|content| content.expires_ms) {
            None => -2,
            Some(None) => -1,
            Some(Some(expires_ms)) => i64::try_from(say(expires_ms, now_ms)).unwrap_or(i64::MAX),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_now_and_so_much_or_so_long_after_1970() {
        assert_eq!(Unit::Seconds.moment(2, 5_000), Some(7_000));
        assert_eq!(Unit::Milliseconds.moment(-6_000, 5_000), Some(0));
        assert_eq!(Unit::AtSeconds.moment(2, 5_000), Some(2_000));
        assert_eq!(Unit::AtMilliseconds.moment(2, 5_000), Some(2));
        for number in [i64::MAX, i64::MIN] {
            assert_eq!(Unit::Seconds.moment(number, 5_000), None);
        }
    }

    #[test]
    fn a_value_that_never_ends_counts_as_one_that_ends_last() {
        let wanted = |option: &'static str| If::read(&[Bytes::from(option)]).unwrap();
        for (option, none, sooner, later) in [
            ("NX", true, false, false),
            ("XX", false, true, true),
            ("GT", false, true, false),
            ("LT", true, false, true),
        ] {
            let wanted = wanted(option);
            assert_eq!(wanted.holds(None, 5), none, "{option}");
            assert_eq!(wanted.holds(Some(4), 5), sooner, "{option}");
            assert_eq!(wanted.holds(Some(6), 5), later, "{option}");
        }
        for pair in [["NX", "XX"], ["GT", "LT"], ["GT", "NX"], ["XX", "YY"]] {
            assert!(If::read(&pair.map(Bytes::from)).is_err(), "{pair:?}");
        }
    }
}
