//! Where a watcher is in the feeds of all members, and the word for it: opaque, as short as the number of members allows, and
//! good on any node.
//!
//! ```text
//!  base64url( version | of what 1 | milliseconds since 1970, a varint | n, n × (member 4, incarnation 8, number, a varint)
//!             | checksum 4 )
//!  member:    FNV-1a of its name; incarnation 0 stands for one whose feed was lost
//! ```
//!
//! 25 characters, and some 20 for each member. The checksum tells a mangled word from a whole one; it is no proof against
//! forgery, and needs none: any word may be asked from.

use crate::protocol::{FeedOf, FeedPlace};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;
/// Most members in a word: far more than a cluster has.
const MEMBERS_MAX: u64 = 4_096;

/// Where a watcher is in one feed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Position {
    /// It was told everything up to this place.
    At(FeedPlace),
    /// It was told that the feed was lost, and nothing from it since.
    Lost,
}

impl Position {
    /// Whether it is there, or further in the same feed.
    fn is_at(self, place: FeedPlace) -> bool {
        matches!(self, Position::At(at) if at.incarnation == place.incarnation && at.sequence >= place.sequence)
    }
}

/// Where a watcher is in all feeds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Positions {
    of: FeedOf,
    at_ms: u64,
    members: Vec<(u32, Position)>,
}

/// The word is not one that this store gave out for this. Nothing changed; begin anew without one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the id is not one that this store gave out for this")]
pub struct NoPosition;

impl Positions {
    /// Positions in these members' feeds, by their names, at `at_ms`, in milliseconds since 1970.
    pub fn new<'a>(of: FeedOf, at_ms: u64, members: impl IntoIterator<Item = (&'a str, Position)>) -> Positions {
        let members = members.into_iter().map(|(name, position)| (fnv(name.as_bytes()), position)).collect();
        Positions { of, at_ms, members }
    }

    /// When it was given out, in milliseconds since 1970.
    pub fn at_ms(&self) -> u64 {
        self.at_ms
    }

    /// Where the watcher is in this member's feed, if it followed it.
    pub fn of_member(&self, name: &str) -> Option<Position> {
        let hash = fnv(name.as_bytes());
        self.members.iter().find(|(member, _)| *member == hash).map(|(_, position)| *position)
    }

    /// Where it is ahead of another, or in a feed that the other does not know; nothing, where it is nowhere.
    pub fn ahead_of(&self, other: &Positions) -> Option<Positions> {
        let is_known = |member: u32, place: FeedPlace| {
            let mut others = other.members.iter().filter(|(other, _)| *other == member);
            others.any(|(_, position)| position.is_at(place))
        };
        let is_ahead = |(member, position): &&(u32, Position)| match position {
            Position::At(place) => !is_known(*member, *place),
            Position::Lost => false,
        };
        let members: Vec<_> = self.members.iter().filter(is_ahead).copied().collect();
        (!members.is_empty()).then_some(Positions { of: self.of, at_ms: self.at_ms, members })
    }

    /// Whether what stands at this place of a member's feed was told.
    pub fn has(&self, name: &str, place: FeedPlace) -> bool {
        self.of_member(name).is_some_and(|position| position.is_at(place))
    }

    /// Whether it followed a member that is none of these.
    pub fn has_others_than<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> bool {
        let known: Vec<u32> = names.into_iter().map(|name| fnv(name.as_bytes())).collect();
        self.members.iter().any(|(member, _)| !known.contains(member))
    }

    /// The word.
    pub fn to_word(&self) -> String {
        let mut out = Vec::with_capacity(24 + 20 * self.members.len());
        out.push(VERSION);
        out.push(of_number(self.of));
        put_varint(&mut out, self.at_ms);
        put_varint(&mut out, self.members.len() as u64);
        for (member, position) in &self.members {
            let place = match position {
                Position::At(place) => *place,
                Position::Lost => FeedPlace::default(),
            };
            out.extend(member.to_le_bytes());
            out.extend(place.incarnation.to_le_bytes());
            put_varint(&mut out, place.sequence);
        }
        let checksum = fnv(&out);
        out.extend(checksum.to_le_bytes());
        URL_SAFE_NO_PAD.encode(out)
    }

    /// What the word says of these feeds.
    pub fn from_word(word: &str, of: FeedOf) -> Result<Positions, NoPosition> {
        let bytes = URL_SAFE_NO_PAD.decode(word).map_err(|_| NoPosition)?;
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(NoPosition)?;
        if fnv(body).to_le_bytes() != *checksum {
            return Err(NoPosition);
        }
        let mut input = body;
        parse(&mut input, of).filter(|_| input.is_empty()).ok_or(NoPosition)
    }
}

fn parse(input: &mut &[u8], of: FeedOf) -> Option<Positions> {
    if take::<2>(input)? != [VERSION, of_number(of)] {
        return None;
    }
    let (at_ms, count) = (take_varint(input)?, take_varint(input)?);
    if count > MEMBERS_MAX {
        return None;
    }
    let mut members = Vec::new();
    for _ in 0..count {
        let member = u32::from_le_bytes(take::<4>(input)?);
        let place = FeedPlace { incarnation: u64::from_le_bytes(take::<8>(input)?), sequence: take_varint(input)? };
        members.push((member, if place.incarnation == 0 { Position::Lost } else { Position::At(place) }));
    }
    Some(Positions { of, at_ms, members })
}

fn of_number(of: FeedOf) -> u8 {
    match of {
        FeedOf::Changes => 0,
        FeedOf::Events => 1,
    }
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_varint(input: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let [byte] = take::<1>(input)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = input.split_first_chunk::<N>()?;
    *input = rest;
    Some(*taken)
}

/// FNV-1a, 32 bits.
fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn positions_come_back_from_their_word(
            at_ms in any::<u64>(),
            members in prop::collection::vec(("[a-z]{1,9}", any::<Option<(u64, u64)>>()), 0..60),
        ) {
            let position = |(name, place): &(String, Option<(u64, u64)>)| {
                let place = place.map(|(incarnation, sequence)| FeedPlace { incarnation: incarnation.max(1), sequence });
                (name.clone(), place.map_or(Position::Lost, Position::At))
            };
            let members: Vec<(String, Position)> = members.iter().map(position).collect();
            let positions = Positions::new(FeedOf::Changes, at_ms, members.iter().map(|(name, at)| (name.as_str(), *at)));
            let word = positions.to_word();
            prop_assert_eq!(Positions::from_word(&word, FeedOf::Changes), Ok(positions));
            prop_assert_eq!(Positions::from_word(&word, FeedOf::Events), Err(NoPosition));
            prop_assert!(word.len() <= 40 + 32 * members.len(), "{}", word.len());
        }

        #[test]
        fn any_other_word_is_refused(word in "\\PC{0,80}") {
            prop_assert_eq!(Positions::from_word(&word, FeedOf::Changes), Err(NoPosition));
        }
    }
}
