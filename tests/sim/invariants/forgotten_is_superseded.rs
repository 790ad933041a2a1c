//! Forgotten is superseded: when a node's own row of a key says nothing of a write any more, no owner's row shows it, unless
//! an old disk was put back there since all had agreed.

use crate::oracle::Oracle;
use kringle::record::Dot;

/// The row that node `node` holds of `key` no longer covers these.
pub(crate) fn forgotten_is_superseded(oracle: &mut Oracle, node: usize, key: usize, dots: &[Dot], unfilled: &[usize]) {
    let mut early = Vec::new();
    let rows = oracle.rows.iter().filter(|((other, at), _)| *at == key && !unfilled.contains(other));
    for ((other, _), row) in rows {
        // Of one that expires the owners agreed that it had.
        let lasting = row.siblings().iter().filter(|sibling| sibling.content.expires_ms.is_none());
        let live = lasting.map(|sibling| sibling.dot).filter(|dot| dots.contains(dot));
        early.extend(live.map(|dot| format!("node {node} forgot {dot:?} of key {key}, and node {other} shows it")));
    }
    early.into_iter().for_each(|what| oracle.violation_inside(what));
}
