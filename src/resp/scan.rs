//! SCAN, KEYS and RANDOMKEY: the cluster's keys, whoever keeps them.
//!
//! A cursor is the number of the partition to go on with, and nothing is kept between two calls: any node can go on, also
//! after a restart. A call lists partitions whole, so a key that is there all the while is told once, and once only.

use super::access::{Begun, later};
use super::arguments::{self, integer, is};
use super::glob;
use super::refuse;
use super::reply::Reply;
use super::session::Session;
use crate::client::{ListTerms, Listing, Seat};
use crate::coordinator::ListItem;
use crate::node::{self, Worker};
use crate::placement::{Mode, PARTITIONS, Partition};
use crate::protocol::{Filter, LIST_KEYS_MAX, Place};
use bytes::Bytes;
use std::rc::Rc;
use std::time::Instant;

/// How many keys a SCAN looks for that names no number.
const COUNT: usize = 10;
/// How many a call may ask for.
const COUNT_MAX: usize = 100_000;
/// Most bytes of keys in one answer, and what one costs beside its bytes.
const BYTES_MAX: usize = 64 << 20;
const KEY_BYTES: usize = 100;
/// Partitions that are looked into at first, at most: this node may keep few keys where others keep many.
const PARTITIONS_FIRST: usize = 16;
/// Keys that RANDOMKEY picks one of, about.
const RANDOM_KEYS: usize = 1_000;
/// Keys that are held against a pattern before other clients have their turn.
const MATCHED_AT_A_TIME: usize = 16;

/// Which keys a command is to show.
#[derive(Clone, Default)]
struct Wanted {
    pattern: Option<Bytes>,
    /// Whether no key is of the type that was asked for.
    none: bool,
}

impl Wanted {
    fn has(&self, key: &[u8]) -> bool {
        !self.none && self.pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, key))
    }

    /// What every key begins with that the pattern could mean.
    fn prefix(&self) -> Bytes {
        let Some(pattern) = &self.pattern else { return Bytes::new() };
        let is_special = |byte: &u8| matches!(byte, b'*' | b'?' | b'[' | b'\\');
        pattern.slice(..pattern.iter().position(is_special).unwrap_or(pattern.len()))
    }
}

/// A place for a list.
fn seat(worker: &Worker) -> Result<Seat, Reply> {
    Listing::seat(worker).ok_or_else(|| Reply::error("UNAVAILABLE too many lists are being made on this node at once"))
}

/// All keys of these partitions, those that live. Whether that is what was found: with a moment given, nothing is, where that
/// has passed before all are told, or where they are too many.
async fn all(
    worker: &Rc<Worker>,
    mode: Option<Mode>,
    partitions: Vec<Partition>,
    wanted: &Wanted,
    until: Option<Instant>,
    found: &mut Vec<Bytes>,
) -> Result<bool, Reply> {
    let before = found.len();
    let filter = Filter { prefix: wanted.prefix(), delimiter: Bytes::new() };
    let mut listing = Listing::of(worker, ListTerms { mode, r: None }, partitions, filter, Place::default());
    let (mut bytes, mut matched) = (found.iter().map(|key| key.len() + KEY_BYTES).sum::<usize>(), 0);
    while listing.next().is_some() {
        if until.is_some_and(|until| node::now() >= until) {
            found.truncate(before);
            return Ok(false);
        }
        for item in listing.page(LIST_KEYS_MAX as usize).await.map_err(refuse::line)?.items {
            matched += 1;
            if wanted.pattern.is_some() && matched % MATCHED_AT_A_TIME == 0 {
                tokio::task::yield_now().await;
            }
            if let ListItem::Key(key, _) = item
                && wanted.has(key.as_bytes())
            {
                bytes += key.as_bytes().len() + KEY_BYTES;
                if bytes > BYTES_MAX && until.is_some() {
                    found.truncate(before);
                    return Ok(false);
                }
                if bytes > BYTES_MAX {
                    return Err(Reply::Error(format!(
                        "ERR there are more than {BYTES_MAX} bytes of such keys: SCAN tells them in parts"
                    )));
                }
                found.push(Bytes::copy_from_slice(key.as_bytes()));
            }
        }
    }
    Ok(true)
}

/// So many partitions from one on, as far as there are.
fn partitions(from: usize, count: usize) -> Vec<Partition> {
    Partition::all().skip(from).take(count).collect()
}

/// How many partitions have about so many keys, going by those that this node keeps, where it keeps any.
fn partitions_for(worker: &Worker, keys: usize) -> Option<usize> {
    let ring = worker.node.ring();
    let kept = ring.owned_by(worker.node.me(&ring));
    let live: i64 = kept.iter().map(|partition| worker.node.forest.live(*partition)).sum();
    match (kept.len(), usize::try_from(live).unwrap_or(0)) {
        // Nobody knows here.
        (0, _) | (_, 0) => None,
        (kept, live) => Some((keys.saturating_mul(kept) / live).clamp(1, PARTITIONS)),
    }
}

pub(super) fn scan(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let cursor = std::str::from_utf8(&words[1]).ok().and_then(|text| text.parse::<usize>().ok());
    let cursor = cursor.filter(|cursor| *cursor < PARTITIONS).ok_or_else(|| Reply::error("ERR invalid cursor"))?;
    let (mut wanted, mut count) = (Wanted::default(), COUNT);
    let options = &words[2..];
    if !options.len().is_multiple_of(2) {
        return Err(refuse::syntax());
    }
    for option in options.chunks_exact(2) {
        match &option[0] {
            name if is(name, "MATCH") => wanted.pattern = Some(arguments::pattern(&option[1])?),
            name if is(name, "TYPE") => wanted.none = !is(&option[1], "string"),
            name if is(name, "COUNT") => {
                let number = usize::try_from(integer(&option[1])?).ok().filter(|number| *number > 0);
                count = number.ok_or_else(refuse::syntax)?.min(COUNT_MAX);
            }
            _ => return Err(refuse::syntax()),
        }
    }
    let (worker, mode) = (session.worker.clone(), session.named_mode());
    later(async move {
        let _seat = seat(&worker)?;
        let until = node::now() + worker.node.settings.timeout / 4;
        let (from, mut cursor, mut most, mut found) = (cursor, cursor, PARTITIONS_FIRST, Vec::new());
        while cursor < PARTITIONS && found.len() < count && (cursor == from || node::now() < until) {
            let some = partitions(cursor, partitions_for(&worker, count - found.len()).unwrap_or(most).min(most));
            let taken = some.len();
            // The first alone is told to its end, however long that takes, so that every call goes on.
            let limit = (taken > 1 || cursor > from).then_some(until);
            match all(&worker, mode, some, &wanted, limit, &mut found).await? {
                true => (cursor, most) = (cursor + taken, (most * 2).min(PARTITIONS)),
                false if cursor > from => break,
                false => most = 1,
            }
        }
        let next = if cursor < PARTITIONS { cursor } else { 0 };
        Ok(Reply::Array(vec![Reply::text(next.to_string()), keys_reply(found)]))
    })
}

fn keys_reply(found: Vec<Bytes>) -> Reply {
    Reply::Array(found.into_iter().map(Reply::Bulk).collect())
}

pub(super) fn keys(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let wanted = Wanted { pattern: Some(arguments::pattern(&words[1])?), none: false };
    let (worker, mode) = (session.worker.clone(), session.named_mode());
    later(async move {
        let (_seat, mut found) = (seat(&worker)?, Vec::new());
        all(&worker, mode, partitions(0, PARTITIONS), &wanted, None, &mut found).await?;
        Ok(keys_reply(found))
    })
}

/// RANDOMKEY: one of the keys in a few partitions picked at random, or in the next ones, and more of them each time, where
/// those have none.
pub(super) fn randomkey(session: &Rc<Session>, _: &[Bytes]) -> Result<Begun, Reply> {
    let (worker, mode) = (session.worker.clone(), session.named_mode());
    later(async move {
        let (_seat, chance) = (seat(&worker)?, node::random());
        let (mut from, mut looked_into) = (chance as usize % PARTITIONS, 0);
        let mut count = partitions_for(&worker, RANDOM_KEYS).unwrap_or(PARTITIONS_FIRST);
        while looked_into < PARTITIONS {
            let some = partitions(from, count.min(PARTITIONS - looked_into));
            (looked_into, count) = (looked_into + some.len(), count * 2);
            from = (from + some.len()) % PARTITIONS;
            let mut found = Vec::new();
            all(&worker, mode, some, &Wanted::default(), None, &mut found).await?;
            if !found.is_empty() {
                let at = (chance >> 16) as usize % found.len();
                return Ok(Reply::Bulk(found.swap_remove(at)));
            }
        }
        Ok(Reply::Null)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pattern_begins_with_is_what_its_keys_begin_with() {
        for (pattern, prefix) in [("user:*", "user:"), ("a?b", "a"), ("[ab]", ""), (r"a\*b", "a"), ("plain", "plain")] {
            let wanted = Wanted { pattern: Some(pattern.into()), none: false };
            assert_eq!(wanted.prefix(), prefix, "{pattern}");
        }
        assert!(Wanted::default().prefix().is_empty() && Wanted::default().has(b"any"));
    }
}
