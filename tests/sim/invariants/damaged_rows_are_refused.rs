//! Damaged rows are refused: a node that cannot read its row of a key neither shows anything of it nor says that there is
//! nothing.

use crate::world::World;
use kringle::protocol::Answer;
use kringle::storage::{Address, Kind};

pub(crate) fn a_damaged_row_is_refused(world: &mut World, node: usize, address: &Address, answer: &Answer) {
    let key = address.key().and_then(|key| world.keys.iter().position(|known| *known == key));
    if let (Kind::Data, Some(key)) = (address.kind(), key)
        && !matches!(answer, Answer::Refused(_))
        && world.readable_row(node, key).is_none()
    {
        world.oracle.violation_inside(format!("node {node} cannot read its row of key {key}, and answers {answer:?}"));
    }
}
