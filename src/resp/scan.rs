//! SCAN, KEYS and RANDOMKEY: the cluster's keys, whoever keeps them.
//!
//! A cursor is the number of the partition to go on with, and nothing is kept between two calls: any node can go on, also
//! after a restart. A call lists partitions whole, so a key that is there all the while is told once, and once only.

use super::access::{Begun, later};
use super::arguments::{integer, is};
use super::glob;
use super::refuse;
use super::reply::Reply;
use super::session::Session;
use crate::client::{ListTerms, Listing};
use crate::coordinator::ListItem;
use crate::node::{self, Worker};
use crate::placement::{Mode, PARTITIONS, Partition};
use crate::protocol::{Filter, LIST_KEYS_MAX, Place};
use bytes::Bytes;
use std::rc::Rc;

/// How many keys a SCAN looks for that names no number.
const COUNT: usize = 10;
/// How many a call may ask for.
const COUNT_MAX: usize = 100_000;
/// Most bytes of keys in one answer.
const BYTES_MAX: usize = 64 << 20;
/// Partitions that RANDOMKEY looks into at a time.
const RANDOM_PARTITIONS: usize = 64;

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

/// All keys of these partitions, those that live.
async fn all(
    worker: &Rc<Worker>,
    mode: Option<Mode>,
    partitions: Vec<Partition>,
    wanted: &Wanted,
    found: &mut Vec<Bytes>,
) -> Result<(), Reply> {
    let filter = Filter { prefix: wanted.prefix(), delimiter: Bytes::new() };
    let mut listing = Listing::of(worker, ListTerms { mode, r: None }, partitions, filter, Place::default());
    let mut bytes: usize = found.iter().map(Bytes::len).sum();
    while listing.next().is_some() {
        for item in listing.page(LIST_KEYS_MAX as usize).await.map_err(refuse::line)?.items {
            if let ListItem::Key(key, _) = item
                && wanted.has(key.as_bytes())
            {
                bytes += key.as_bytes().len();
                if bytes > BYTES_MAX {
                    return Err(Reply::Error(format!(
                        "ERR there are more than {BYTES_MAX} bytes of such keys: SCAN tells them in parts"
                    )));
                }
                found.push(Bytes::copy_from_slice(key.as_bytes()));
            }
        }
    }
    Ok(())
}

/// So many partitions from one on, as far as there are.
fn partitions(from: usize, count: usize) -> Vec<Partition> {
    Partition::all().skip(from).take(count).collect()
}

/// How many partitions have about so many keys, going by those that this node keeps.
fn partitions_for(worker: &Worker, keys: usize) -> usize {
    let ring = worker.node.ring();
    let kept = ring.owned_by(worker.node.me(&ring));
    let live: i64 = kept.iter().map(|partition| worker.node.forest.live(*partition)).sum();
    match (kept.len(), usize::try_from(live).unwrap_or(0)) {
        // Nobody knows here.
        (0, _) => 1,
        (_, 0) => PARTITIONS,
        (kept, live) => (keys.saturating_mul(kept) / live).clamp(1, PARTITIONS),
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
            name if is(name, "MATCH") => wanted.pattern = Some(option[1].clone()),
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
        let until = node::now() + worker.node.settings.timeout / 4;
        let (mut cursor, mut found) = (cursor, Vec::new());
        while cursor < PARTITIONS && found.len() < count && node::now() < until {
            let some = partitions(cursor, partitions_for(&worker, count - found.len()));
            cursor += some.len();
            all(&worker, mode, some, &wanted, &mut found).await?;
        }
        let next = if cursor < PARTITIONS { cursor } else { 0 };
        Ok(Reply::Array(vec![Reply::text(next.to_string()), keys_reply(found)]))
    })
}

fn keys_reply(found: Vec<Bytes>) -> Reply {
    Reply::Array(found.into_iter().map(Reply::Bulk).collect())
}

pub(super) fn keys(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let wanted = Wanted { pattern: Some(words[1].clone()), none: false };
    let (worker, mode) = (session.worker.clone(), session.named_mode());
    later(async move {
        let mut found = Vec::new();
        all(&worker, mode, partitions(0, PARTITIONS), &wanted, &mut found).await?;
        Ok(keys_reply(found))
    })
}

/// RANDOMKEY: one of the keys in a few partitions picked at random, or in the next ones where those have none.
pub(super) fn randomkey(session: &Rc<Session>, _: &[Bytes]) -> Result<Begun, Reply> {
    let (worker, mode) = (session.worker.clone(), session.named_mode());
    later(async move {
        let (groups, chance) = (PARTITIONS / RANDOM_PARTITIONS, node::random());
        for group in 0..groups {
            let from = (chance as usize % groups + group) % groups * RANDOM_PARTITIONS;
            let mut found = Vec::new();
            all(&worker, mode, partitions(from, RANDOM_PARTITIONS), &Wanted::default(), &mut found).await?;
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
