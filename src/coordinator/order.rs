//! In which order the owners of a key are asked.

use crate::placement::{MemberIndex, Partition, Ring};

/// The owners of a partition, this node first, those believed down last.
pub(super) fn asking_order(
    ring: &Ring,
    partition: Partition,
    me: MemberIndex,
    avoid: &[MemberIndex],
) -> Vec<MemberIndex> {
    let mut order = ring.owners(partition).to_vec();
    order.sort_by_key(|member| if *member == me { 0 } else { 1 + u8::from(avoid.contains(member)) });
    order
}
