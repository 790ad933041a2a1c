//! In which order the owners of a key are asked.

use crate::placement::{MemberIndex, Partition, Ring};

/// The owners of a partition: the one named first, those that are `behind` after the others, those believed down last.
pub(super) fn asking_order(
    ring: &Ring,
    partition: Partition,
    first: Option<MemberIndex>,
    behind: &[MemberIndex],
    avoid: &[MemberIndex],
) -> Vec<MemberIndex> {
    let mut order = ring.owners(partition).to_vec();
    order.sort_by_key(|member| match member {
        member if Some(*member) == first => 0,
        member if avoid.contains(member) => 3,
        member if behind.contains(member) => 2,
        _ => 1,
    });
    order
}
