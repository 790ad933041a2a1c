//! MULTI, EXEC and DISCARD: there are no transactions, and nothing of what was meant as one is done.
//!
//! Many clients send `MULTI`, the commands and `EXEC` in one go and look at the answers afterwards. So it is not enough to
//! refuse `MULTI`: what comes behind it would be done although its client is told that it failed.

use super::access::{Begun, now};
use super::commands::Command;
use super::reply::Reply;
use super::session::Session;
use bytes::Bytes;
use std::rc::Rc;

pub(super) fn multi(session: &Rc<Session>, _: &[Bytes]) -> Result<Begun, Reply> {
    session.set_multi(true);
    Err(Reply::error("ERR there are no transactions here: nothing is done until EXEC or DISCARD"))
}

pub(super) fn exec(session: &Rc<Session>, _: &[Bytes]) -> Result<Begun, Reply> {
    Err(Reply::error(match session.set_multi(false) {
        true => "EXECABORT Transaction discarded because of previous errors.",
        false => "ERR EXEC without MULTI",
    }))
}

pub(super) fn discard(session: &Rc<Session>, _: &[Bytes]) -> Result<Begun, Reply> {
    match session.set_multi(false) {
        true => now(Reply::OK),
        false => Err(Reply::error("ERR DISCARD without MULTI")),
    }
}

/// What is answered to a command behind MULTI; nothing to those that end it.
pub(super) fn refused(session: &Session, command: Option<&Command>) -> Option<Reply> {
    let ends = command.is_some_and(|command| matches!(command.name, "exec" | "discard" | "reset" | "quit"));
    let refusal =
        || Reply::error("ERR it is not done, behind MULTI: there are no transactions here; DISCARD ends this");
    (session.is_in_multi() && !ends).then(refusal)
}
