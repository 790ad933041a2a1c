//! Checkpoints and log segments, and whatever a full disk or a failed sync leaves of them.

use super::mending::By;
use crate::options::about;
use crate::plant::Plant;
use crate::world::{Event, World};
use kringle::record::{Row, Stamp};
use kringle::storage::{Address, RebuildStep, Store};
use rand::Rng;

/// How often it is looked whether there is something to do.
pub(super) const HOUSEKEEPING_PERIOD_US: u64 = 100_000;

impl World {
    pub(crate) fn housekeeping(&mut self, node: usize) {
        self.mend(node);
        self.settle_contested(node);
        let now_and_then = self.rng.random_ratio(1, 100);
        let shortens = self.plant == Some(Plant::ContextShortenedAlone);
        let forgetful = self.plant == Some(Plant::TombstoneDropped);
        let keys = self.keys.clone();
        let up = self.up(node);
        let due = up.store.due();
        if due.segment {
            // A disk that has no room for a segment has told so where it matters, at the append.
            let _ = up.store.prepare();
        }
        let mut done = false;
        if due.checkpoint || now_and_then {
            done = up.store.checkpoint(&mut || ()).is_ok_and(|done| done.rows > 0);
        }
        if forgetful && up.committing.is_none() {
            for key in &keys {
                let address = Address::data(key);
                let row = up.store.read(&address).unwrap_or_default();
                if row.is_some_and(|row| Row::decode(&row).is_ok_and(|row| row.record.is_tombstone())) {
                    let _ = up.store.append(vec![(address, None)], Stamp(0));
                }
            }
        }
        if shortens && up.committing.is_none() {
            for key in &keys {
                let address = Address::data(key);
                let row = up.store.read(&address).unwrap_or_default();
                let Some(Ok(row)) = row.map(|row| Row::decode(&row)) else { continue };
                let short = row.record.forget(&row.record.forgettable(0), 0);
                if short != row.record && !short.is_unknown() {
                    let _ = up.store.append(vec![(address, Some(Row::of(short).encode()))], Stamp(0));
                }
            }
        }
        if done {
            self.counters.hit("checkpoint");
        }
        let life = self.nodes[node].life;
        self.schedule(HOUSEKEEPING_PERIOD_US, Event::Housekeeping { node, life });
    }

    /// Builds the digests of one more partition.
    pub(crate) fn build(&mut self, node: usize) {
        let up = self.up(node);
        let Some(mut rebuild) = up.rebuild.take() else { return };
        // What can be brought over comes first, so that no session brings it too.
        let step = if up.mending.salvages.is_empty() { rebuild.step(&up.forest).map(Some) } else { Ok(None) };
        for key in rebuild.take_damaged() {
            self.note_rot(node, key, By::Start);
        }
        let up = self.up(node);
        match step {
            Ok(Some(RebuildStep::Done { .. })) => return,
            Ok(_) => {}
            Err(_) => {
                self.counters.hit("digests that cannot be built");
                return self.up(node).store.suspect();
            }
        }
        up.rebuild = Some(rebuild);
        let (life, after) = (self.nodes[node].life, about(&mut self.rng, self.options.build_mean_us));
        self.schedule(after, Event::Build { node, life });
    }
}
