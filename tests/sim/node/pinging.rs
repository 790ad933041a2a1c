//! Pinging, and what is believed of the peers.

use crate::world::{Event, World};
use kringle::membership::State;
use kringle::protocol::{Batch, Reply};
use rand::Rng;

pub(crate) const PING_PERIOD_US: u64 = 1_000_000;

impl World {
    pub(crate) fn ping(&mut self, node: usize, peer: usize) {
        let timeout = self.timeout_us();
        let batch = Batch { envelope: self.envelope(node, peer, timeout), requests: Vec::new() };
        self.post(node, peer, None, &batch, Vec::new(), Vec::new(), timeout);
    }

    pub(super) fn pinged(&mut self, node: usize, peer: usize, reply: Option<Reply>) {
        let (name, now_ms) = (self.nodes[peer].name.clone(), self.now / 1_000);
        let view = &mut self.up(node).view;
        let change = match reply {
            Some(reply) => view.heard(&name, reply.sender, now_ms),
            None => view.failed(&name, "no answer".into()),
        };
        if change.is_some_and(|change| change.to == State::Down) {
            self.counters.hit("peer down");
        }
        let (life, after) = (self.nodes[node].life, PING_PERIOD_US + self.rng.random_range(0..100_000));
        self.schedule(after, Event::Ping { node, life, peer });
    }
}
