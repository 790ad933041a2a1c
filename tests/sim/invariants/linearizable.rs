//! Linearizable: what clients were told of an agreed key has an order that explains it, over the whole run: crashes, lost and
//! torn logs, disks that are lost or put back, splits and wrong clocks included.
//!
//! A request of unknown fate takes effect once, at any moment after it was asked, or never. One that was refused has no
//! effect at all: its value is in no history, so whoever is shown it breaks the promise.

use crate::checker::{Verdict, check as judge};
use crate::history::listed;
use crate::world::World;

pub(crate) fn check(world: &mut World) {
    for key in (0..world.keys.len()).filter(|&key| world.is_agreed(key)).collect::<Vec<_>>() {
        let history = world.history(key);
        match judge(&history) {
            Verdict::Linearizable => {}
            Verdict::Violation(why) => {
                let what = format!("key {key} is not linearizable: {why}all there was:\n{}", listed(&history));
                world.oracle.violation(what);
            }
            Verdict::Unknown => world.oracle.violation(format!("key {key} has too many orders to try")),
        }
    }
}
