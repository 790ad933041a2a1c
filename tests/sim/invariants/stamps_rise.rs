//! Stamps rise: each stamp a node issues is later than all it issued before, over restarts and whatever its clock does;
//! and no dot is made twice, by anyone.

use crate::oracle::Oracle;
use kringle::record::Dot;

/// Node `node` durably made `dot` for a write.
pub(crate) fn a_dot_was_made(oracle: &mut Oracle, node: usize, dot: Dot, write: usize) {
    if let Some(before) = oracle.makers.insert(dot, (node, write)) {
        oracle.violation_inside(format!("the dot {dot:?} was made twice: for {before:?} and for {:?}", (node, write)));
    }
    let latest = oracle.latest.entry(node).or_default();
    if dot.stamp <= *latest {
        let what = format!("the stamps of node {node} do not rise: {} after {latest}", dot.stamp);
        oracle.violation_inside(what);
    } else {
        *latest = dot.stamp;
    }
}
