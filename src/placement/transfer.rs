//! A transfer: what moves between two rings, or in the change under way of one, as the difference of their owners.

use super::change::Phase;
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
            pair(partition, leaving.copied(), coming.copied(), &mut moves);
        }
        Transfer { moves }
    }

    /// What moves in the change under way of a ring, from the old owners to the new, before reads switch and after.
    /// All indexes are this ring's. Empty when it is settled.
    pub fn of(ring: &Ring) -> Transfer {
        let mut moves = Vec::new();
        let Some(change) = ring.layout().change() else {
            return Transfer { moves };
        };
        for partition in Partition::all() {
            let (owners, beside) = (ring.owners(partition), change.table().owners(partition));
            let (old, new) = match change.phase() {
                Phase::Filling => (owners, beside),
                Phase::Switched => (beside, owners),
            };
            let leaving = old.iter().filter(|owner| !new.contains(owner));
            let coming = new.iter().filter(|owner| !old.contains(owner));
            pair(partition, leaving.copied(), coming.copied(), &mut moves);
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

/// The moves of a partition, the leaving paired with the coming as long as there are both.
fn pair(
    partition: Partition,
    mut leaving: impl Iterator<Item = MemberIndex>,
    mut coming: impl Iterator<Item = MemberIndex>,
    moves: &mut Vec<Move>,
) {
    loop {
        let (from, to) = (leaving.next(), coming.next());
        if from.is_none() && to.is_none() {
            break;
        }
        moves.push(Move { partition, from, to });
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
    fn the_change_of_a_ring_moves_what_its_old_and_new_ring_differ_in() {
        let old = ring(3, &["a", "c", "d", "e"]);
        let filling = old.layout().join(vec![Member::new("b")]).unwrap();
        let switched = filling.switch().unwrap();
        let of = [Transfer::of(&Ring::new(filling)), Transfer::of(&Ring::new(switched.clone()))];
        assert_eq!(of[0], of[1]);
        assert!(of[0].moves().iter().all(|m| m.to == Some(MemberIndex(1)) && m.from.is_some()));
        let settled = Ring::new(switched.settle().unwrap());
        let between = Transfer::between(&old, &settled);
        let renumbered = between.moves().iter().map(|m| {
            let from = m.from.map(|from| MemberIndex(from.0 + u16::from(from.0 > 0)));
            Move { from, ..*m }
        });
        assert!(of[0].moves().iter().copied().eq(renumbered));
        assert!(Transfer::of(&settled).is_empty());
    }

    #[test]
    fn members_are_matched_by_name_and_not_by_number() {
        let moves = Transfer::between(&ring(1, &["b"]), &ring(1, &["a"]));
        assert_eq!(moves.moves().len(), 1024);
        let pair = (Some(MemberIndex(0)), Some(MemberIndex(0)));
        assert!(moves.moves().iter().all(|m| (m.from, m.to) == pair), "b's slots go to a, though both are number 0");
    }
}
