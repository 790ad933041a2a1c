//! Writes that depend on what was there.
//!
//! In mode `quorum` they are one step: what was read is the condition of the write, and where somebody else came between,
//! it is tried again on what is there now. In the modes that do not agree, those that keep the value and change only when it
//! ends are made with the context of what was read: what others wrote meanwhile stays beside it and is not lost. All others
//! are refused there, and all of them in `sync` and `chain`, which know no conditions.

use super::access::{self, Begun, later};
use super::refuse;
use super::reply::Reply;
use super::session::Session;
use crate::client::{self, Error, Read};
use crate::placement::Mode;
use crate::record::{Condition, Content, ContentKind, Edit, Key, Proposal, Record, Seen};

/// How often a write is tried on what others left, before its client is told to.
const TRIES_MAX: usize = 32;

/// What is to become of a value that was looked at.
pub(super) enum Then {
    /// Nothing.
    Keep(Reply),
    /// This is written in its place, or it is deleted; and then this is answered.
    Write(Option<Content>, Reply),
}

/// What a rewrite relies on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Needs {
    /// That nobody comes between.
    OneStep,
    /// The same, and that there is one value only, as the new one is made of it.
    OneValue,
    /// That there is one value only: it stays, and what changes is when it ends.
    SameValue,
}

/// A command that decides on what it finds. `decide` is given the value there is, and the time in milliseconds since 1970;
/// it may be asked several times.
pub(super) fn rewrite(
    session: &Session,
    key: Key,
    needs: Needs,
    decide: impl Fn(Option<&Content>, u64) -> Result<Then, Reply> + 'static,
) -> Result<Begun, Reply> {
    let mode = session.mode();
    let agrees = mode == Mode::Quorum;
    if !agrees && (needs != Needs::SameValue || mode.agrees()) {
        return Err(Reply::Error(refuse::needs_quorum(mode)));
    }
    let (worker, mut reading, mut writing) = (session.worker.clone(), session.read_terms(), session.write_terms());
    (reading.mode, writing.mode) = (Some(mode), Some(mode));
    later(async move {
        let Read { mut record, mut now_ms, .. } = access::read(&worker, &reading, &key).await?;
        for _ in 0..TRIES_MAX {
            let then = {
                let winner = record.winner(now_ms);
                decide(winner.as_deref().map(|winner| &winner.content), now_ms)?
            };
            let (content, reply) = match then {
                Then::Keep(reply) => return Ok(reply),
                Then::Write(content, reply) => (content, reply),
            };
            check(&record, now_ms, needs, mode)?;
            let edit = Edit::write(Seen::Only(record.context().clone()), content);
            if !agrees {
                access::write(&worker, writing, key.clone(), edit).await?;
                return Ok(reply);
            }
            let is_there = record.winner(now_ms).is_some();
            let condition = if is_there { Condition::Tagged(record.tag(now_ms)) } else { Condition::Absent };
            let wish = Proposal { edit, condition: Some(condition) };
            match client::write(&worker, writing, key.clone(), wish).await {
                Ok(_) => return Ok(reply),
                Err(Error::Unmet { record: found, now_ms: at_ms, .. }) => (record, now_ms) = (*found, at_ms),
                Err(error) => return Err(refuse::line(error)),
            }
        }
        Err(Reply::Error(format!("TRYAGAIN others wrote the key {TRIES_MAX} times in a row, and nothing was stored")))
    })
}

/// Whether what the key holds can be written anew without losing any of it.
fn check(record: &Record, now_ms: u64, needs: Needs, mode: Mode) -> Result<(), Reply> {
    if needs == Needs::OneStep {
        return Ok(());
    }
    let values = record.values(now_ms).len();
    if values > 1 {
        return Err(Reply::Error(format!(
            "ERR the key has {values} concurrent values, of which all but one would be lost: look at KRINGLE.SIBLINGS, and \
             SET it first"
        )));
    }
    // Whoever counts meanwhile would count on what is written here, and on what it counted before.
    let is_counted = record.siblings().iter().any(|sibling| sibling.content.kind == ContentKind::Counter);
    if is_counted && !mode.agrees() {
        return Err(Reply::Error(refuse::needs_quorum(mode)));
    }
    Ok(())
}
