//! The end of a run: faults stop, everyone comes back, and what was promised must come true.
//!
//! ```text
//!  calm         everyone restarted, no more clients: the copies become equal by themselves
//!  comparing    writes that one owner alone has: sessions, and nothing else, bring them to the others
//!  last looks   a read asks every owner
//!  scrub        a row rots that nobody reads
//!  disks        everyone restarted once more: what is there?
//! ```

use super::clocks::WallClock;
use super::invariants::{self, Copies};
use super::node::{Machine, Node, Reason};
use super::workload::Purpose;
use super::world::World;
use kringle::antientropy::Report;
use kringle::coordinator::{Get, GetOptions, Quorum};
use rand::Rng;

/// How long copies may take to become equal when all is quiet: hints may go first for 10 s, then every pair has had a
/// round of sessions or two.
const CONVERGED_WITHIN_US: u64 = 45_000_000;
/// The same where owners are still changing by then.
const SETTLED_WITHIN_US: u64 = 120_000_000;

impl World {
    pub(crate) fn end(&mut self) {
        self.calm_down();
        self.converge();
        self.compare_everyone();
        self.last_looks();
        if self.options.rot_every_ms > 0 && self.oracle.violations.is_empty() {
            invariants::a_scrub_finds_what_rots(self);
        }
        if self.oracle.violations.is_empty() {
            self.look_at_the_disks();
        }
    }

    /// Faults stop and everyone comes back.
    fn calm_down(&mut self) {
        self.quiet = true;
        self.network.heal();
        for node in 0..self.nodes.len() {
            self.nodes[node].paused_until = 0;
            self.crash(node);
            self.start(node);
        }
        // It gets so late that no clock was ever ahead of it: what one that was said may still be under way.
        invariants::note_the_time(self);
        let latest = |node: &Node| node.up.as_ref().map_or(0, |up| up.last.ms());
        let latest_ms = self.nodes.iter().map(latest).max().unwrap_or(0).max(self.latest_shown_ms) + 1;
        for node in 0..self.nodes.len() {
            let clock = &mut self.nodes[node].clock;
            *clock = WallClock { was_far_ahead: clock.was_far_ahead, ..WallClock::default() };
            clock.offset_us = 1_000 * (latest_ms as i64 - clock.shows_ms(self.now) as i64);
        }
        invariants::note_the_time(self);
        self.clients.iter_mut().for_each(|client| client.left = 0);
        // The longest an operation may live.
        let settled = self.now + 4_000 * self.options.timeout_ms;
        self.advance(|world| world.now >= settled);
    }

    /// Time passes until all copies are equal and nothing is kept for anyone, or it took too long.
    fn converge(&mut self) {
        let within = if self.options.has_changes() { SETTLED_WITHIN_US } else { CONVERGED_WITHIN_US };
        let until = self.now + within;
        while self.oracle.violations.is_empty() && invariants::what_differs(self).is_some() {
            if self.now >= until {
                let what = invariants::what_differs(self).unwrap_or_default();
                return self.oracle.violation(format!("when all is quiet, {what}"));
            }
            self.pass(250_000);
        }
    }

    pub(crate) fn pass(&mut self, time: u64) {
        let until = self.now + time;
        self.advance(|world| world.now >= until);
    }

    /// Some owners alone get writes, one node may restart, and then every two compare, once.
    fn compare_everyone(&mut self) {
        self.only_asked = true;
        self.pass(3_000_000);
        for key in (0..self.keys.len()).filter(|&key| !self.is_counter(key) && !self.is_agreed(key)).collect::<Vec<_>>()
        {
            let mut owners = self.owners(key);
            self.shuffle(&mut owners);
            let alone = self.rng.random_range(0..=owners.len());
            for &owner in owners.iter().take(alone) {
                self.write_alone(owner, key);
            }
        }
        self.pass(500_000);
        if self.rng.random_ratio(1, 3) {
            let node = self.rng.random_range(0..self.nodes.len());
            self.crash(node);
            self.start(node);
        }
        let everyone = self.members();
        let mut pairs: Vec<(usize, usize)> =
            everyone.iter().flat_map(|&one| everyone.iter().map(move |&other| (one, other))).collect();
        pairs.retain(|(one, other)| one < other);
        self.shuffle(&mut pairs);
        for &(one, other) in &pairs {
            let turned = self.rng.random();
            let (node, peer) = if turned { (other, one) } else { (one, other) };
            self.compare_until_done(node, peer);
        }
        if let Some(&(one, other)) = pairs.first() {
            let Some((_, report)) = self.compare_once(one, other) else { return };
            invariants::equal_replicas_are_quiet(self, (one, other), &report);
        }
        // One that restarted and has no peers to compare with may still be building, or ask how it stands.
        let until = self.now + CONVERGED_WITHIN_US;
        self.advance(|world| world.now >= until || world.nodes.iter().all(|node| !node.is_building() && node.counts()));
        if let Some(what) = invariants::what_differs(self) {
            self.oracle.violation(format!("after a session of every two, {what}"));
        }
    }

    fn write_alone(&mut self, owner: usize, key: usize) {
        let delete = self.rng.random_ratio(1, 3);
        let write = self.enter_write(key, delete, None);
        self.counters.hit("write that one owner alone has");
        self.submit_write(owner, key, write);
    }

    /// Compares until a session had nothing to leave out: digests may be under construction, writes too young, and a node
    /// whose peer crashed in the middle of a session keeps itself free for it for 30 s.
    fn compare_until_done(&mut self, node: usize, peer: usize) {
        for _ in 0..200 {
            let Some((needed, report)) = self.compare_once(node, peer) else { return };
            if invariants::a_session_moves_what_is_needed(self, (node, peer), needed, &report) {
                return;
            }
            self.pass(200_000);
        }
        self.oracle.violation(format!("sessions of nodes {node} and {peer} do not make them equal"));
    }

    /// One session, and what was needed when it began; nothing when a promise was broken on the way.
    fn compare_once(&mut self, node: usize, peer: usize) -> Option<((u64, u64), Report)> {
        let sessions = self.asked.len();
        let until = self.now + CONVERGED_WITHIN_US;
        while !self.begin_session(node, peer, Reason::Request) {
            if self.now > until {
                self.oracle.violation(format!("node {node} is in one session for good"));
            }
            if !self.oracle.violations.is_empty() {
                return None;
            }
            self.pass(100_000);
        }
        // Not before: sessions that had to end first may have moved some of it.
        let needed = invariants::records_needed(self, node, peer);
        self.advance(|world| world.asked.len() > sessions);
        self.asked.get(sessions).cloned().map(|report| (needed, report))
    }

    /// Any of the members.
    pub(crate) fn some_member(&mut self) -> usize {
        let members = self.members();
        members[self.rng.random_range(0..members.len())]
    }

    fn last_looks(&mut self) {
        for key in 0..self.keys.len() {
            let node = self.some_member();
            let (ring, me) = (self.ring_of(node), self.me(node));
            let (quorum, behind, avoid) = (Quorum::one(), self.behind(node), self.avoid(node));
            let since = kringle::record::Context::new();
            let options =
                GetOptions { quorum, hard: false, all: true, hedge_ms: 5, patience_ms: 100, behind, avoid, since };
            let get = Get::new(self.keys[key].clone(), ring, me, options);
            self.start_operation(node, Machine::Get(Box::new(get)), Purpose::LastLook { key }, None);
        }
        self.look_at_agreed_keys();
        self.pass(2_000 * self.options.timeout_ms);
        invariants::at_rest_nothing_is_left(self);
    }

    /// Restarts everyone once more, and judges what the disks hold.
    pub(crate) fn look_at_the_disks(&mut self) {
        for node in 0..self.nodes.len() {
            self.crash(node);
            self.start(node);
        }
        let keys = 0..self.keys.len();
        let copies: Vec<Copies> = keys
            .map(|key| {
                let owners = self.owners(key).into_iter().map(|node| self.known_row(node, key)).collect();
                Copies { key, owners }
            })
            .collect();
        invariants::check_the_end(self, &copies);
    }
}
