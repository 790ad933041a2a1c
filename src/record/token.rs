//! A context as clients carry it: an opaque word that they hand back with their next write of the same key.
//!
//! ```text
//!  base64url( version | position of the key 8 | n, n × (actor 8, stamp 8)
//!             | [own dot: actor 8, stamp 8] | [ballot: actor 8, stamp 8] | checksum 4 )
//!  version:   1, 2 with an own dot, 3 with a ballot, 4 with both
//! ```
//!
//! The own dot is the client's last write where others stand beside it that the client was not shown: its context cannot
//! cover the one without the others.
//!
//! The position names the key: on another key the word is harmless and counts as having seen nothing. The
//! checksum tells a mangled word from a foreign one; it is no proof against forgery, and needs none: a forged
//! context can only supersede values that its sender may overwrite anyway.

use super::codec::{Input, put_context};
use super::key::Key;
use super::{Actor, Ballot, Context, Dot, Seen, Stamp};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::BufMut;

const TOKEN_VERSION: u8 = 1;
/// What an own dot adds to the version, and what a ballot does.
const WITH_OWN_DOT: u8 = 1;
const WITH_BALLOT: u8 = 2;
const CHECKSUM_BYTES: usize = 4;

/// The word is not one this store gave out. Nothing changed; read the key again for a good one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the context is not one that this store gave out")]
pub struct TokenError;

/// The word for `context` of `key`.
pub fn context_to_token(key: &Key, context: &Context) -> String {
    to_token(key, context, None)
}

/// The word for what a client has seen of `key`; of one that has seen everything, the empty context's.
pub fn seen_to_token(key: &Key, seen: &Seen) -> String {
    match seen {
        Seen::Everything => to_token(key, &Context::new(), None),
        Seen::Only(context) => to_token(key, context, None),
        Seen::OnlyAnd(context, own) => to_token(key, context, Some(*own)),
    }
}

fn to_token(key: &Key, context: &Context, own: Option<Dot>) -> String {
    let mut out = Vec::with_capacity(32 + 16 * context.entries().len());
    let ballot = context.ballot().map(Ballot::dot);
    let (with_own, with_ballot) = (own.map_or(0, |_| WITH_OWN_DOT), ballot.map_or(0, |_| WITH_BALLOT));
    out.put_u8(TOKEN_VERSION + with_own + with_ballot);
    out.put_u64(key.position().0);
    put_context(&mut out, context);
    for dot in own.into_iter().chain(ballot) {
        out.put_u64_le(dot.actor.0);
        out.put_u64_le(dot.stamp.0);
    }
    let checksum = checksum(&out);
    out.put_slice(&checksum);
    URL_SAFE_NO_PAD.encode(out)
}

/// What `token` says its client has seen of `key`: nothing when it was given out for another key.
pub fn seen_from_token(key: &Key, token: &str) -> Result<Seen, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| TokenError)?;
    let body = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(TokenError)?;
    if checksum(&bytes[..body]) != bytes[body..] {
        return Err(TokenError);
    }
    let bytes = bytes::Bytes::from(bytes);
    let mut input = Input { bytes: &bytes, at: 0, end: body };
    let mut parse = || {
        let parts = input.u8()?.wrapping_sub(TOKEN_VERSION);
        let position = input.u64()?.swap_bytes();
        let context = input.context()?;
        let mut dot = |part| match parts & part {
            0 => Ok(None),
            _ => {
                let actor = Actor(input.u64()?);
                Ok::<_, super::RowError>(Some(Dot { stamp: Stamp(input.u64()?), actor }))
            }
        };
        let (own, ballot) = (dot(WITH_OWN_DOT)?, dot(WITH_BALLOT)?);
        let context = context.with_ballot(ballot.map(|dot| Ballot { stamp: dot.stamp, actor: dot.actor }));
        input.end()?;
        let seen = own.map_or_else(|| Seen::Only(context.clone()), |own| Seen::OnlyAnd(context.clone(), own));
        Ok::<_, super::RowError>((parts, position, seen))
    };
    match parse() {
        Ok((parts, ..)) if parts > WITH_OWN_DOT + WITH_BALLOT => Err(TokenError),
        Ok((_, position, seen)) if position == key.position().0 => Ok(seen),
        Ok(_) => Ok(Seen::Only(Context::new())),
        Err(_) => Err(TokenError),
    }
}

/// FNV-1a, 32 bits: tells a mangled word from a whole one in a few nanoseconds, which is all it is for.
fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    bytes.iter().fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_seen_comes_back_from_its_word(
            entries in prop::collection::btree_map(any::<u64>(), any::<u64>(), 0..5),
            own in any::<Option<(u64, u64)>>(),
            ballot in any::<Option<(u64, u64)>>(),
        ) {
            let entries = entries.into_iter().map(|(actor, stamp)| (Actor(actor), Stamp(stamp))).collect();
            let ballot = ballot.map(|(stamp, actor)| Ballot { stamp: Stamp(stamp), actor: Actor(actor) });
            let context = Context::from_sorted(entries).unwrap().with_ballot(ballot);
            let (key, other) = (Key::new("k").unwrap(), Key::new("other").unwrap());
            let seen = match own {
                Some((stamp, actor)) => Seen::OnlyAnd(context, Dot { stamp: Stamp(stamp), actor: Actor(actor) }),
                None => Seen::Only(context),
            };
            let token = seen_to_token(&key, &seen);
            prop_assert_eq!(seen_from_token(&key, &token), Ok(seen));
            prop_assert_eq!(seen_from_token(&other, &token), Ok(Seen::Only(Context::new())));
        }

        #[test]
        fn any_other_word_is_refused(word in ".{0,60}") {
            prop_assert_eq!(seen_from_token(&Key::new("k").unwrap(), &word), Err(TokenError));
        }
    }
}
