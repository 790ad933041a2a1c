//! The nodes' wall clocks, what is wrong with them, and stamps from the future that others send.

use super::invariants;
use super::options::pick;
use super::world::{Event, Parcel, World};
use bytes::Bytes;
use kringle::protocol::{Batch, PROTOCOL_VERSION, Request};
use kringle::record::{Actor, Content, Context, Dot, Record, Seen, Stamp};
use rand::Rng;

/// When the simulated day begins, in milliseconds since 1970: late enough that a clock may step back.
const MORNING_MS: u64 = 1_700_000_000_000;
pub(crate) const HOUR_MS: u64 = 3_600_000;

/// A wall clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct WallClock {
    pub(crate) offset_us: i64,
    pub(crate) drift_ppm: i64,
    /// It has stood still since.
    pub(crate) stopped_at: Option<u64>,
    /// It is an hour ahead.
    pub(crate) is_far_ahead: bool,
    /// It has been: nobody answers for what its node makes of that.
    pub(crate) was_far_ahead: bool,
}

impl WallClock {
    /// What it shows after so many microseconds of the day, in milliseconds since 1970.
    pub(crate) fn shows_ms(&self, now: u64) -> u64 {
        let now = self.stopped_at.unwrap_or(now) as i64;
        MORNING_MS.saturating_add_signed((now + self.offset_us + now / 1_000_000 * self.drift_ppm) / 1_000)
    }
}

impl World {
    /// What a node's clock shows.
    pub(crate) fn wall_ms(&self, node: usize) -> u64 {
        self.nodes[node].clock.shows_ms(self.now)
    }

    pub(crate) fn set_clock(&mut self, node: usize, offset_us: i64, is_far_ahead: bool) {
        invariants::note_the_time(self);
        let clock = &mut self.nodes[node].clock;
        (clock.offset_us, clock.is_far_ahead) = (offset_us, is_far_ahead);
        clock.was_far_ahead |= is_far_ahead;
    }

    /// One clock of a minority goes an hour ahead, or comes back from there.
    pub(crate) fn clock_hour(&mut self, node: usize) {
        let far: Vec<usize> = (0..self.nodes.len()).filter(|&other| self.nodes[other].clock.was_far_ahead).collect();
        let node = if 2 * (far.len() + 1) < self.nodes.len().max(3) { node } else { *far.first().unwrap_or(&node) };
        let hour_us = 1_000 * HOUR_MS as i64;
        let offset_us = self.nodes[node].clock.offset_us;
        if self.nodes[node].clock.is_far_ahead {
            self.counters.hit("clock back from an hour ahead");
            self.set_clock(node, offset_us - hour_us, false);
        } else {
            self.counters.hit("clock an hour ahead");
            self.set_clock(node, offset_us + hour_us, true);
        }
    }

    /// A stamp that no honest clock shows for a long time.
    pub(crate) fn far_stamp(&mut self) -> Stamp {
        let hours = *pick(&mut self.rng, &[2, 24, 24 * 365 * 100]);
        let far = [Stamp::from_ms(MORNING_MS + hours * HOUR_MS), Stamp::MAX];
        *pick(&mut self.rng, &far)
    }

    pub(crate) fn is_poisoned(&mut self) -> bool {
        !self.quiet
            && self.options.poison_permille > 0
            && self.rng.random_range(0..1_000) < self.options.poison_permille
    }

    /// A context that some client made up.
    pub(crate) fn poison_context(&mut self, context: &mut Context) {
        let dot = Dot { stamp: self.far_stamp(), actor: Actor(self.rng.random()) };
        context.add(dot);
    }

    /// A node gets a record from the future, as from a peer.
    pub(crate) fn send_poison(&mut self, node: usize) {
        let from = self.rng.random_range(0..self.nodes.len());
        if from == node || self.nodes[from].up.is_none() || self.nodes[node].up.is_none() {
            return;
        }
        let dot = Dot { stamp: self.far_stamp(), actor: Actor(self.rng.random()) };
        let content = Content::plain(Bytes::from_static(b"poison"));
        let record = Record::default().write(&Seen::Everything, dot, Some(content)).expect("a first write");
        let key = self.keys[self.rng.random_range(0..self.keys.len())].clone();
        let targets = vec![self.nodes[from].name.as_str().into()];
        let requests = match self.rng.random_range(0..3) {
            0 => vec![Request::Hint { key, record, targets }],
            1 => vec![Request::Cover { key, other: record, dot }],
            _ => vec![Request::Merge { key, record }],
        };
        let (exchange, from_life) = (self.next_exchange(), self.nodes[from].life);
        let batch = Batch { envelope: self.envelope(from, node, self.ring_of(from).epoch(), 1_000_000), requests };
        let bytes = Parcel(batch.encode(PROTOCOL_VERSION).into());
        self.schedule(0, Event::Arrived { node, from, from_life, exchange, bytes, tags: vec![None] });
    }
}
