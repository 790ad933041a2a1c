//! Equal replicas are quiet: a session between them asks one question and moves no record.

use crate::world::World;
use kringle::antientropy::Report;

/// Most bytes of digest each way between two that are in sync.
const BYTES_MAX: u64 = 64;

pub(crate) fn equal_replicas_are_quiet(world: &mut World, (node, peer): (usize, usize), report: &Report) {
    let Report { rounds, bytes_out, bytes_in, pushed, pulled, noop, .. } = *report;
    let nothing_shared = rounds == 0;
    if report.failed.is_some()
        || pushed + pulled + noop > 0
        || rounds > 1
        || !nothing_shared && bytes_out.max(bytes_in) > BYTES_MAX
    {
        world.oracle.violation(format!("nodes {node} and {peer} are equal, and their session is {report:?}"));
    }
}
