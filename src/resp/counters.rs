//! INCR and its kin: additions that add up, whoever else adds at the same time.

use super::access::{self, Begun, later};
use super::arguments::{self, integer};
use super::reply::Reply;
use super::session::Session;
use crate::record::Edit;
use bytes::Bytes;
use std::rc::Rc;

pub(super) fn incr(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    add(session, &words[1], 1)
}

pub(super) fn decr(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    add(session, &words[1], -1)
}

pub(super) fn incrby(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    add(session, &words[1], integer(&words[2])?)
}

pub(super) fn decrby(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let by = integer(&words[2])?.checked_neg().ok_or_else(|| Reply::error("ERR decrement would overflow"))?;
    add(session, &words[1], by)
}

fn add(session: &Rc<Session>, key: &[u8], by: i64) -> Result<Begun, Reply> {
    let (key, terms, worker) = (arguments::key(session, key)?, session.write_terms(), session.worker.clone());
    later(async move {
        let (_, record) = access::write(&worker, terms, key, Edit::Add { by, request: None }).await?;
        let sum = record.counter(worker.node.now_stamp().ms()).and_then(|sum| i64::try_from(sum).ok());
        // Parts from both sides of a split may leave 64 bits.
        sum.map(Reply::Integer).ok_or_else(|| {
            Reply::error("ERR it was counted, and the sum is no integer of 64 bits: GET shows what there is")
        })
    })
}
