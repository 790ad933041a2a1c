//! Tokens: the places members take on the ring, and the walk past them.
//!
//! ```text
//!      partition's place
//!            |
//!   ...--b---+--a--a--c--b--...   walk: a, c, b      (wraps from u64::MAX to 0)
//! ```
//!
//! Every member has many tokens so that its neighbours, and so its stand-ins, are spread over the whole
//! cluster (Dynamo, section 4.2: virtual nodes). A token depends on the member's name alone: it needs no
//! contact, and a new address or a new id moves nothing.

use super::member::{Member, MemberIndex};
use super::partition::Partition;

/// Tokens per unit of weight.
pub const TOKENS_PER_WEIGHT: u32 = 128;

/// Separates these hashes from every other use of BLAKE3 over names.
const DOMAIN: &[u8] = b"kringle token v1";

/// The tokens of a member, unsorted: token `i` is the first 8 bytes, big-endian, of
/// BLAKE3(domain ‖ name ‖ `i` as 4 bytes, big-endian). A greater weight only adds tokens. About 0.1 µs each.
pub fn tokens(name: &str, weight: u16) -> impl Iterator<Item = u64> {
    let mut input = [DOMAIN, name.as_bytes(), &[0; 4]].concat();
    let number_at = input.len() - 4;
    (0..u32::from(weight) * TOKENS_PER_WEIGHT).map(move |i| {
        input[number_at..].copy_from_slice(&i.to_be_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&blake3::hash(&input).as_bytes()[..8]);
        u64::from_be_bytes(first)
    })
}

/// All members' tokens in ring order, and each member's. About 24 bytes a token: 3 MiB for 1,000 members of weight 1.
#[derive(Clone, Debug)]
pub(super) struct Circle {
    tokens: Vec<(u64, MemberIndex)>,
    /// How many members have any.
    walked: usize,
    by_member: Vec<Vec<u64>>,
}

impl Circle {
    /// The circle of these members, numbered as they stand. O(T log T) for T tokens.
    pub(super) fn new(members: &[Member]) -> Circle {
        let sorted = |member: &Member| {
            let mut own: Vec<u64> = tokens(&member.name, member.weight).collect();
            own.sort_unstable();
            own
        };
        Circle::with(members.iter().map(sorted).collect())
    }

    fn with(by_member: Vec<Vec<u64>>) -> Circle {
        let numbered = by_member.iter().enumerate();
        let named = |(index, own): (usize, &Vec<u64>)| {
            own.iter().map(move |&token| (token, MemberIndex::new(index))).collect::<Vec<_>>()
        };
        let mut tokens: Vec<_> = numbered.flat_map(named).collect();
        tokens.sort_unstable(); // two members at one place stand in order of their names
        let walked = by_member.iter().filter(|own| !own.is_empty()).count();
        Circle { tokens, walked, by_member }
    }

    /// Every member that has weight once, clockwise from the partition's place. Lazy: the first few cost a few tokens each, all
    /// `m` of them about `m ln m` tokens when the weights are alike.
    pub(super) fn walk(&self, partition: Partition) -> impl Iterator<Item = MemberIndex> + '_ {
        let first = self.tokens.partition_point(|&(token, _)| token < partition.start().0);
        let (before, after) = self.tokens.split_at(first);
        let mut seen = vec![false; self.by_member.len()];
        let new = move |&(_, member): &(u64, MemberIndex)| {
            (!std::mem::replace(&mut seen[member.index()], true)).then_some(member)
        };
        after.iter().chain(before).filter_map(new).take(self.walked)
    }

    /// A member's tokens, ascending.
    pub(super) fn of(&self, member: MemberIndex) -> &[u64] {
        &self.by_member[member.index()]
    }

    /// How far clockwise from the partition's place the member's next token stands; less is sooner in the walk.
    /// O(log t) for its t tokens. Without weight it has none, and stands behind all others.
    pub(super) fn distance(&self, partition: Partition, member: MemberIndex) -> u64 {
        let start = partition.start().0;
        let own = self.of(member);
        let next = own.partition_point(|&token| token < start);
        own.get(next).or(own.first()).map_or(u64::MAX, |token| token.wrapping_sub(start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walked(circle: &Circle, partition: usize) -> Vec<usize> {
        circle.walk(Partition::try_from_index(partition).unwrap()).map(MemberIndex::index).collect()
    }

    #[test]
    fn a_members_tokens_never_change() {
        assert_eq!(tokens("http://a:8080", 1).next(), Some(0xc0fb_5b40_eeb0_f8da));
        assert_eq!(tokens("http://a:8080", 3).count(), 384);
        let heavier: Vec<u64> = tokens("http://a:8080", 2).take(128).collect();
        assert!(tokens("http://a:8080", 1).eq(heavier), "weight only adds tokens");
    }

    #[test]
    fn the_walk_wraps_and_meets_everyone_once() {
        let start = |p: usize| Partition::try_from_index(p).unwrap().start().0;
        let circle = Circle::with(vec![vec![0], vec![start(1), start(1) + 1], vec![u64::MAX]]);
        assert_eq!(walked(&circle, 0), [0, 1, 2], "a token on the place itself is met first");
        assert_eq!(walked(&circle, 1), [1, 2, 0]);
        assert_eq!(walked(&circle, 2), [2, 0, 1], "past u64::MAX comes 0");
        assert_eq!(walked(&circle, 1023), [2, 0, 1]);
    }

    #[test]
    fn the_walk_passes_over_whoever_has_no_weight() {
        let circle = Circle::with(vec![vec![0], vec![], vec![7]]);
        assert_eq!(walked(&circle, 0), [0, 2]);
        assert_eq!(circle.distance(Partition::try_from_index(5).unwrap(), MemberIndex(1)), u64::MAX);
    }

    #[test]
    fn distance_wraps_like_the_walk() {
        let last = Partition::try_from_index(1023).unwrap();
        let circle = Circle::with(vec![vec![7], vec![last.start().0, u64::MAX]]);
        assert_eq!(circle.distance(last, MemberIndex(0)), (u64::MAX - last.start().0) + 8);
        assert_eq!(circle.distance(last, MemberIndex(1)), 0);
    }
}
