//! Carrying what the liveness says, and what is believed of the peers: the twin of `src/node/pinging.rs`.

use crate::world::{Event, World};
use kringle::membership::{Change, Liveness, Pace, State};
use kringle::protocol::{Answer, Batch, PACKETS_MAX, Reply, Request};
use rand::Rng;
use std::collections::VecDeque;
use std::time::Duration;

/// What waits for one peer.
#[derive(Default)]
pub(super) struct Route {
    packets: VecDeque<Vec<u8>>,
    busy: bool,
}

impl World {
    fn pace(&self) -> Pace {
        Pace {
            period: Duration::from_micros(self.options.ping_period_us),
            timeout: Duration::from_micros(self.timeout_us()),
        }
    }

    pub(super) fn liveness(&mut self, node: usize, peers: Vec<String>) -> Liveness {
        let (name, life, seed) = (self.nodes[node].name.clone(), self.wall_ms(node), self.rng.random());
        Liveness::new(&name, peers, self.pace(), life, seed, Duration::from_micros(self.now))
    }

    pub(crate) fn liveness_due(&mut self, node: usize, at: u64) {
        if self.up(node).liveness_due == at {
            self.up(node).liveness_due = u64::MAX;
            self.carry_liveness(node);
        }
    }

    /// Lets the liveness do what is due, sends what it says, and notes what it has found.
    pub(super) fn carry_liveness(&mut self, node: usize) {
        let now = self.now;
        let up = self.up(node);
        up.liveness.tick(Duration::from_micros(now));
        let (packets, changes) = (up.liveness.take_packets(), up.liveness.take_changes());
        let due = (up.liveness.due().as_micros() as u64).max(now + 1);
        for Change { name, state, renewed } in changes {
            let change = self.up(node).view.judged(&name, state);
            match change.as_ref().map(|change| change.to) {
                Some(State::Alive) => self.counters.hit("peer alive again"),
                Some(State::Suspect) => self.counters.hit("peer suspected"),
                Some(State::Down) => self.counters.hit("peer down"),
                None => {}
            }
            let is_back = change.is_some_and(|change| change.to == State::Alive);
            if is_back || renewed && state == State::Alive {
                let peer = (0..self.nodes.len()).find(|&peer| self.nodes[peer].name == name).expect("a member");
                self.peer_returned(node, peer);
            }
        }
        for packet in packets {
            let peer = (0..self.nodes.len()).find(|&peer| self.nodes[peer].name == packet.to).expect("a member");
            let route = self.up(node).routes.entry(peer).or_default();
            if route.packets.len() == PACKETS_MAX {
                route.packets.pop_front();
            }
            route.packets.push_back(packet.bytes);
            self.ping(node, peer);
        }
        let up = self.up(node);
        if due < up.liveness_due || up.liveness_due <= now {
            up.liveness_due = due;
            let life = self.nodes[node].life;
            self.schedule(due - now, Event::Liveness { node, life, at: due });
        }
    }

    /// Sends what waits for a peer, unless a ping is under way.
    fn ping(&mut self, node: usize, peer: usize) {
        let route = self.up(node).routes.entry(peer).or_default();
        if route.packets.is_empty() || route.busy {
            return;
        }
        let ring = self.ring_of(node);
        if ring.member_by_name(&self.nodes[peer].name).is_none() {
            // Nobody is called that is no member.
            self.up(node).routes.remove(&peer);
            return;
        }
        let route = self.up(node).routes.entry(peer).or_default();
        route.busy = true;
        let packets = route.packets.drain(..).collect();
        let timeout = self.pace().answer().as_micros() as u64;
        let batch = Batch {
            envelope: self.envelope(node, peer, ring.epoch(), timeout),
            requests: vec![Request::Gossip { packets }],
        };
        self.post(node, peer, None, &batch, vec![None], Vec::new(), timeout);
    }

    /// Takes a peer's gossip; what there is to say to it at once.
    pub(super) fn hear_gossip(&mut self, node: usize, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let now = Duration::from_micros(self.now);
        let liveness = &mut self.up(node).liveness;
        let mut from = None;
        for packet in packets {
            from = liveness.hear(packet, now).or(from);
        }
        let replies = from.map(|from| liveness.take_packets_for(&from)).unwrap_or_default();
        self.carry_liveness(node);
        replies.into_iter().take(PACKETS_MAX).map(|packet| packet.bytes).collect()
    }

    /// A ping has ended, with a reply or without.
    pub(super) fn pinged(&mut self, node: usize, peer: usize, reply: Option<Reply>) {
        let (name, now) = (self.nodes[peer].name.clone(), self.now);
        let up = self.up(node);
        up.routes.entry(peer).or_default().busy = false;
        match reply {
            Some(reply) => {
                if let Ok([Answer::Gossip { packets }]) = reply.answers.as_deref() {
                    for packet in packets {
                        up.liveness.hear(packet, Duration::from_micros(now));
                    }
                }
                if up.view.heard(&name, reply.sender, now / 1_000).is_some() {
                    self.peer_returned(node, peer);
                }
            }
            None => {
                up.liveness.failed(&name, Duration::from_micros(now));
                up.view.failed(&name, "no answer".into());
            }
        }
        self.carry_liveness(node);
        self.ping(node, peer);
    }
}
