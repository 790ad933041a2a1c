//! What goes wrong now and then.

use super::options::{about, pick};
use super::world::{Event, World};
use rand::Rng;

/// One kind of it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Trouble {
    Cut,
    Crash,
    Pause,
    FullDisk,
    SyncFailure,
    ClockStep,
}

impl World {
    /// Each kind begins when its first time has come.
    pub(crate) fn schedule_troubles(&mut self) {
        let o = &self.options;
        for (trouble, every_ms) in [
            (Trouble::Cut, o.cut_every_ms),
            (Trouble::Crash, o.crash_every_ms),
            (Trouble::Pause, o.pause_every_ms),
            (Trouble::FullDisk, o.full_disk_every_ms),
            (Trouble::SyncFailure, o.sync_failure_every_ms),
            (Trouble::ClockStep, o.clock_step_every_ms),
        ] {
            if every_ms > 0 {
                let after = about(&mut self.rng, 1_000 * every_ms);
                self.schedule(after, Event::Trouble(trouble));
            }
        }
    }

    pub(crate) fn trouble(&mut self, trouble: Trouble) {
        let node = self.rng.random_range(0..self.nodes.len());
        let every_ms = match trouble {
            Trouble::Cut => {
                self.cut();
                let after = self.rng.random_range(100_000..4_000_000);
                self.schedule(after, Event::Heal);
                self.options.cut_every_ms
            }
            Trouble::Crash => {
                // Mostly one, sometimes all: a power cut of the room.
                let all = self.rng.random_ratio(1, 6);
                for node in (0..self.nodes.len()).filter(|&other| all || other == node) {
                    self.crash_and_restart(node);
                }
                self.options.crash_every_ms
            }
            Trouble::Pause => {
                self.counters.hit("pause");
                self.nodes[node].paused_until = self.now + self.rng.random_range(10_000..3_000_000);
                self.options.pause_every_ms
            }
            Trouble::FullDisk => {
                self.counters.hit("full disk");
                self.nodes[node].disk.fill(true);
                let after = self.rng.random_range(100_000..3_000_000);
                self.schedule(after, Event::RoomAgain { node });
                self.options.full_disk_every_ms
            }
            Trouble::SyncFailure => {
                if self.nodes[node].up.is_some() {
                    self.counters.hit("sync failed");
                    self.nodes[node].disk.fail_syncs();
                    // An operator restarts it some time later; the disk has been seen to.
                    let after = self.rng.random_range(500_000..3_000_000);
                    self.schedule(after, Event::Replug { node });
                }
                self.options.sync_failure_every_ms
            }
            Trouble::ClockStep => {
                self.counters.hit("clock stepped");
                self.nodes[node].clock_offset_us = 1_000 * self.rng.random_range(-20_000..=20_000);
                self.options.clock_step_every_ms
            }
        };
        if every_ms > 0 {
            let after = about(&mut self.rng, 1_000 * every_ms).max(10_000);
            self.schedule(after, Event::Trouble(trouble));
        }
    }

    pub(crate) fn crash_and_restart(&mut self, node: usize) {
        if self.nodes[node].up.is_some() {
            self.crash(node);
            let after = *pick(&mut self.rng, &[1_000, 100_000, 1_000_000, 5_000_000]);
            self.schedule(after, Event::Restart { node });
        }
    }

    fn cut(&mut self) {
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        self.shuffle(&mut order);
        if self.rng.random() {
            self.counters.hit("one-way cut");
            if let [from, to, ..] = order[..] {
                self.network.cut(from, to);
            }
        } else {
            self.counters.hit("partition");
            let (left, right) = order.split_at(self.rng.random_range(0..order.len()));
            for (&one, &other) in left.iter().flat_map(|one| right.iter().map(move |other| (one, other))) {
                self.network.cut(one, other);
                self.network.cut(other, one);
            }
        }
    }
}
