//! A transfer: what moves between two rings, as the difference of their owners.

use super::member::MemberIndex;
use super::partition::Partition;
use super::ring::Ring;

/// One owner slot that changes hands. Members are matched by name, the one thing they keep for life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Move {
    /// The partition.
    pub partition: Partition,
    /// Who keeps it in the old ring, and not in the new; an index of the **old** ring. `None`: a copy in addition.
    pub from: Option<MemberIndex>,
    /// Who keeps it in the new ring, and didn't in the old; an index of the **new** ring. `None`: a copy fewer.
    pub to: Option<MemberIndex>,
}

/// All moves between two rings, by partition. Empty when the owners are the same, in whatever order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transfer {
    moves: Vec<Move>,
}

impl Transfer {
    /// The difference from `old` to `new`. Within a partition the leaving and the coming are paired in their order
    /// of preference; the pairing is for planning only, any old owner can serve any new one. O(slots × replicas).
    pub fn between(old: &Ring, new: &Ring) -> Transfer {
        let translation = |from: &Ring, to: &Ring| -> Vec<Option<MemberIndex>> {
            from.members().map(|index| to.member_by_name(&from.member(index).name)).collect()
        };
        let (in_new, in_old) = (translation(old, new), translation(new, old));
        let mut moves = Vec::new();
        for partition in Partition::all() {
            let stays = |index: Option<MemberIndex>, ring: &Ring| index.is_some_and(|i| ring.is_owner(i, partition));
            let leaving = old.owners(partition).iter().filter(|&&owner| !stays(in_new[owner.index()], new));
            let coming = new.owners(partition).iter().filter(|&&owner| !stays(in_old[owner.index()], old));
            let (mut leaving, mut coming) = (leaving.copied(), coming.copied());
            loop {
                let (from, to) = (leaving.next(), coming.next());
                if from.is_none() && to.is_none() {
                    break;
                }
                moves.push(Move { partition, from, to });
            }
        }
        Transfer { moves }
    }

    /// The moves, by partition ascending.
    pub fn moves(&self) -> &[Move] {
        &self.moves
    }

    /// Whether nothing moves.
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::{ClusterId, Layout, Member, Mode};

    fn ring(replicas: u8, names: &[&str]) -> Ring {
        let members = names.iter().map(|name| Member::new(*name)).collect();
        Ring::new(Layout::provisional(ClusterId(1), replicas, Mode::Sloppy, members).unwrap())
    }

    #[test]
    fn nothing_moves_between_equal_rings() {
        let ring = ring(3, &["a", "b", "c", "d"]);
        assert!(Transfer::between(&ring, &ring.clone()).is_empty());
    }

    #[test]
    fn a_copy_more_has_no_giver_and_a_copy_fewer_no_taker() {
        let (two, three) = (ring(3, &["b", "c"]), ring(3, &["a", "b", "c"]));
        let grown = Transfer::between(&two, &three);
        assert_eq!(grown.moves().len(), 1024);
        assert!(grown.moves().iter().all(|m| (m.from, m.to) == (None, Some(MemberIndex(0)))));
        let shrunk = Transfer::between(&three, &two);
        assert!(shrunk.moves().iter().all(|m| (m.from, m.to) == (Some(MemberIndex(0)), None)));
    }

    #[test]
    fn members_are_matched_by_name_and_not_by_number() {
        let moves = Transfer::between(&ring(1, &["b"]), &ring(1, &["a"]));
        assert_eq!(moves.moves().len(), 1024);
        let pair = (Some(MemberIndex(0)), Some(MemberIndex(0)));
        assert!(moves.moves().iter().all(|m| (m.from, m.to) == pair), "b's slots go to a, though both are number 0");
    }
}
