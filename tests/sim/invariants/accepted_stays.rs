//! Accepted stays: an owner's row of a key never goes back to an earlier ballot. It may say of none at all any more, where
//! nothing was left of the key, and its partition's mark stands for it then; nor does an owner that is being filled count, which
//! may let go of what it alone accepted.

use crate::oracle::Oracle;
use kringle::record::Record;

/// The row that node `node` holds of `key` was `before`, and is something else now.
pub(crate) fn accepted_stays(oracle: &mut Oracle, node: usize, key: usize, before: &Record, row: &Record) {
    let (was, is) = (before.context().ballot(), row.context().ballot());
    let is_forgotten = row.is_unknown() && before.is_tombstone();
    if is < was && !is_forgotten {
        let what =
            format!("node {node} had accepted {was:?} for key {key}, and says {is:?}: {before:?} became {row:?}");
        oracle.violation_inside(what);
    }
}
