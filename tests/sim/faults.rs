//! What goes wrong now and then.

use super::options::{about, pick};
use super::world::{Event, World};
use rand::Rng;

/// How often a peer sends a record from the future, where that happens at all.
const POISON_EVERY_MS: u64 = 3_000;

/// One kind of it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Trouble {
    Cut,
    Crash,
    Pause,
    FullDisk,
    SyncFailure,
    ClockStep,
    /// A clock goes an hour ahead, or comes back from there.
    ClockHour,
    ClockStop,
    Poison,
    LostDisk,
    OldDisk,
    Rot,
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
            (Trouble::ClockHour, o.clock_hour_every_ms),
            (Trouble::ClockStop, o.clock_stop_every_ms),
            (Trouble::Poison, if o.poison_permille > 0 { POISON_EVERY_MS } else { 0 }),
            (Trouble::LostDisk, o.lost_disk_every_ms),
            (Trouble::OldDisk, o.old_disk_every_ms),
            (Trouble::Rot, o.rot_every_ms),
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
                let longest = *pick(&mut self.rng, &[500_000, 4_000_000, 15_000_000]);
                let after = self.rng.random_range(100_000..longest);
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
                let offset_us = 1_000 * self.rng.random_range(-20_000..=20_000);
                let back = offset_us < self.nodes[node].clock.offset_us;
                self.counters.hit(if back { "clock stepped back" } else { "clock stepped ahead" });
                self.set_clock(node, offset_us, false);
                self.options.clock_step_every_ms
            }
            Trouble::ClockHour => {
                self.clock_hour(node);
                self.options.clock_hour_every_ms
            }
            Trouble::ClockStop => {
                self.counters.hit("clock stands still");
                self.nodes[node].clock.stopped_at = Some(self.now);
                let after = self.rng.random_range(1_000_000..10_000_000);
                self.schedule(after, Event::ClockGoesOn { node });
                self.options.clock_stop_every_ms
            }
            Trouble::Poison => {
                self.send_poison(node);
                POISON_EVERY_MS
            }
            Trouble::LostDisk => {
                if self.may_lose_a_disk() {
                    self.lose_disk(node);
                }
                self.options.lost_disk_every_ms
            }
            Trouble::OldDisk => {
                if self.nodes[node].copy.is_none() || self.rng.random_ratio(1, 4) {
                    self.copy_disk(node);
                } else if self.may_lose_a_disk() {
                    self.put_disk_back(node);
                }
                self.options.old_disk_every_ms
            }
            Trouble::Rot => {
                self.rot(node);
                self.options.rot_every_ms
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
            let mut after = *pick(&mut self.rng, &[1_000, 100_000, 1_000_000, 5_000_000]);
            if self.options.has_changes() && self.rng.random_ratio(1, 6) {
                // So long that a change is given up that waits for it.
                after = 25_000_000;
            }
            self.schedule(after, Event::Restart { node });
        }
    }

    /// Cuts some ways: one, or all between two or more sides, which may share a node.
    fn cut(&mut self) {
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        self.shuffle(&mut order);
        let nodes = order.len();
        let mut sides: Vec<&[usize]> = Vec::new();
        match self.rng.random_range(0..8) {
            0..=2 => {
                self.counters.hit("one-way cut");
                if let [from, to, ..] = order[..] {
                    self.network.cut(from, to);
                }
            }
            3 if nodes >= 3 => {
                self.counters.hit("split three ways");
                let first = self.rng.random_range(1..=nodes - 2);
                let second = self.rng.random_range(first + 1..nodes);
                sides.extend([&order[..first], &order[first..second], &order[second..]]);
            }
            4 => {
                self.counters.hit("one node alone");
                sides.extend([&order[..1], &order[1..]]);
            }
            5 if nodes >= 3 => {
                // The middle one belongs to both.
                self.counters.hit("two halves share a node");
                sides.extend([&order[..nodes / 2], &order[nodes / 2 + 1..]]);
            }
            6 => {
                self.counters.hit("minority and majority");
                sides.extend([&order[..nodes.div_ceil(2) - 1], &order[nodes.div_ceil(2) - 1..]]);
            }
            _ => {
                self.counters.hit("partition");
                sides.extend(<[&[usize]; 2]>::from(order.split_at(self.rng.random_range(0..nodes))));
            }
        }
        self.network.split(&sides);
    }
}
