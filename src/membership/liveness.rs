//! Who is alive: SWIM (Das, Gupta, Motivala, 2002) by foca, as a machine that is told time, packets and failures, and
//! says packets and changes. Only this file, and what is below it, knows foca.
//!
//! ```text
//!   ping ─► no answer ─► three others are asked to ping ─► nobody heard it ─► suspect ─► nobody hears it ─► down
//!        a suspect is told so by gossip, and refutes it by speaking; one that is down comes back under a new run
//! ```
//!
//! What the layout says stays: packets of and about others than its members are passed over. Beside what foca does:
//!
//! - `--pingfreq` is the time between two probes of *one peer* in clusters of up to five; foca probes one after another, so
//!   its period is a fraction of that. A probe that was not answered keeps its full time before the peer is suspected.
//! - A node that sees nobody stops foca's clocks. So those that are down are called again from here, and a split of
//!   which every part is a single node heals too.
//! - A packet for an earlier run of this node is taken for this one, so a peer need not be asked who it is now before
//!   it can be pinged.

mod packet;

use self::packet::{Opened, Run};
use super::chance::Chance;
use super::view::State;
use foca::{
    Config, Foca, Header, Member, Message, NoCustomBroadcast, Notification, PeriodicParams, PostcardCodec, Runtime,
    Timer,
};
use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

/// Longest packet, in bytes. Three of the longest names, and room for news.
pub const PACKET_BYTES_MAX: usize = 8 << 10;
/// Most packets that wait to be sent. Past it the oldest are dropped, as a network would.
const PACKETS_MAX: usize = 256;
/// Peers probed within one ping period. Larger clusters probe a part of them in each; there are more to do it.
const PROBED_IN_A_PERIOD_MAX: u32 = 4;
/// A probe is waited for at least so long: shorter, a busy machine is taken for a dead one.
const ANSWER_MIN: Duration = Duration::from_secs(1);
/// Periods a suspect has to speak up before it counts as down. With up to three until it is suspected, seven.
const SUSPECT_PERIODS: u32 = 4;
/// Peers asked to ping one that does not answer this node.
const INDIRECT_PROBES: NonZeroUsize = NonZeroUsize::new(3).unwrap();
/// Times that a member of the smallest clusters passes a piece of news on. See [`transmissions`].
const TRANSMISSIONS_MIN: u8 = 6;

/// How often and how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Time between two probes of a peer, 1 ms to 1 h.
    pub period: Duration,
    /// A peer call's longest time.
    pub timeout: Duration,
}

impl Pace {
    /// How long a ping may take: the period, at least a second, at most what any peer call may.
    pub fn answer(&self) -> Duration {
        self.period.max(ANSWER_MIN).min(self.timeout)
    }

    fn probe(&self, peers: usize) -> Duration {
        let at_once = (peers as u32).clamp(1, PROBED_IN_A_PERIOD_MAX);
        (self.period / at_once).max(Duration::from_millis(1))
    }

    fn config(&self, peers: usize) -> Config {
        let once = |frequency, num_members| Some(PeriodicParams { frequency, num_members });
        Config {
            // Foca never lets these two change; what goes for as many peers as there are is `Outside::submit_after`'s.
            probe_period: self.period,
            probe_rtt: self.period / 2,
            num_indirect_probes: INDIRECT_PROBES,
            max_transmissions: transmissions(peers),
            suspect_to_down_after: SUSPECT_PERIODS * self.period.max(self.answer()),
            // What is known of a member is kept as long as the layout has it.
            remove_down_after: None,
            max_packet_size: NonZeroUsize::new(PACKET_BYTES_MAX).unwrap_or(NonZeroUsize::MIN),
            notify_down_members: true,
            // Brings everything known once in a while, should gossip have missed something.
            periodic_announce: once(30 * self.period, NonZeroUsize::MIN),
            // See `Liveness::call_the_down`.
            periodic_announce_to_down_members: None,
            // Sent only while there is news.
            periodic_gossip: once((self.period / 2).max(Duration::from_millis(1)), INDIRECT_PROBES),
        }
    }
}

/// Times that each member passes a piece of news on, one more for each doubling of their number (SWIM, section 4.1). Of so
/// many that each calls `t` others at random, the part that nobody calls is e to the power of -`t`: with six each, that is
/// two or three of 1,000, and to them the dead would be alive until they have probed everybody.
fn transmissions(peers: usize) -> NonZeroU8 {
    let times = peers.max(1).ilog2() as u8 + 4;
    NonZeroU8::new(times.max(TRANSMISSIONS_MIN)).unwrap_or(NonZeroU8::MIN)
}

/// Bytes for a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Its name.
    pub to: String,
    /// To be handed to its [`Liveness::hear`].
    pub bytes: Vec<u8>,
}

/// News of a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Its name.
    pub name: String,
    /// What it is now.
    pub state: State,
    /// Whether it has begun another run since it was last heard: it was restarted, or others thought it down.
    pub renewed: bool,
}

/// The machine. Times are since any one moment, and do not go back.
pub struct Liveness {
    foca: Foca<Run, PostcardCodec, Chance, NoCustomBroadcast>,
    outside: Outside,
    pace: Pace,
    /// What was told of each peer: its state and the number of its run.
    told: BTreeMap<String, (State, u64)>,
    /// When those that are down are called next.
    call: Duration,
}

impl Liveness {
    /// The liveness of `me` among `peers`, all of which are called at once. `run` must rise with each start, as far as
    /// the clock allows: a node whose clock went back learns the number it had from its peers.
    pub fn new(
        me: &str,
        peers: impl IntoIterator<Item = String>,
        pace: Pace,
        run: u64,
        seed: u64,
        now: Duration,
    ) -> Liveness {
        let told: BTreeMap<String, _> =
            peers.into_iter().filter(|peer| peer != me).map(|peer| (peer, (State::Alive, 0))).collect();
        let me = Run { name: me.into(), number: run.max(1) };
        let mut chance = Chance::seeded(seed);
        let outside = Outside {
            now,
            answer: pace.answer(),
            probe: pace.probe(told.len()),
            packets: Vec::new(),
            timers: BTreeMap::new(),
            submitted: 0,
            next_probe: None,
            probing: None,
            chance: Chance::seeded(chance.next()),
        };
        let foca = Foca::new(me, pace.config(told.len()), chance, PostcardCodec);
        let mut liveness = Liveness { foca, outside, pace, told, call: now };
        let unheard: Vec<Run> =
            liveness.told.keys().map(|name| Run { name: name.as_str().into(), number: 0 }).collect();
        let members = unheard.iter().cloned().map(Member::alive);
        // None of these can fail: foca's errors are about packets, and the names of a layout fit into one.
        let _ = liveness.foca.apply_many(members, false, &mut liveness.outside);
        for peer in unheard {
            let _ = liveness.foca.announce(peer, &mut liveness.outside);
        }
        liveness.call = now + liveness.outside.chance.jittered(pace.period);
        liveness
    }

    /// From now on these are the peers. Those that are new are called at once; those that are none any more are not listened
    /// to, nor called.
    pub fn members(&mut self, peers: &BTreeSet<String>, now: Duration) {
        self.outside.now = now;
        let gone: Vec<String> = self.told.keys().filter(|name| !peers.contains(*name)).cloned().collect();
        for name in gone {
            self.told.remove(&name);
            let runs: Vec<Run> = self
                .foca
                .iter_membership_state()
                .map(|member| member.id().clone())
                .filter(|run| *run.name == *name)
                .collect();
            // Foca's errors here tell of members that it has forgotten by itself.
            for run in runs {
                let member = Member::new(run, foca::Incarnation::MAX, foca::State::Down);
                let _ = self.foca.apply_many(std::iter::once(member), false, &mut self.outside);
            }
        }
        let me = self.foca.identity().name.clone();
        let new: Vec<Run> = peers
            .iter()
            .filter(|name| ***name != *me && !self.told.contains_key(*name))
            .map(|name| Run { name: name.as_str().into(), number: 0 })
            .collect();
        for run in &new {
            self.told.insert(run.name.to_string(), (State::Alive, 0));
        }
        let _ = self.foca.apply_many(new.iter().cloned().map(Member::alive), false, &mut self.outside);
        for run in new {
            let _ = self.foca.announce(run, &mut self.outside);
        }
        self.outside.probe = self.pace.probe(self.told.len());
        let replaced = self.foca.set_config(self.pace.config(self.told.len()));
        assert!(replaced.is_ok(), "only what foca lets change has changed");
    }

    /// When [`Liveness::tick`] has something to do next.
    pub fn due(&self) -> Duration {
        self.outside.due().map_or(self.call, |due| due.min(self.call))
    }

    /// Does what is due at `now`.
    pub fn tick(&mut self, now: Duration) {
        // Who slept through it all has heard nobody, and may blame nobody for it.
        let late = now.saturating_sub(self.due());
        if late > self.pace.answer() {
            self.outside.postpone(late);
        }
        self.outside.now = now;
        while let Some(timer) = self.outside.take_due() {
            // Foca's errors here tell of timers that came in another order; it goes on by itself.
            let _ = self.foca.handle_timer(timer, &mut self.outside);
            self.expect_little_of_suspects();
        }
        if self.call <= now {
            self.call = now + self.outside.chance.jittered(self.pace.period);
            self.call_the_down();
        }
    }

    /// A suspect that is probed again has had its time: another would only keep the others waiting for theirs.
    fn expect_little_of_suspects(&mut self) {
        if let Some(probing) = self.outside.probing.as_mut().filter(|probing| !probing.hopeless) {
            let mut members = self.foca.iter_membership_state();
            let is_it = |member: &Member<Run>| *member.id() == probing.run;
            probing.hopeless = members.any(|member| is_it(member) && member.state() == foca::State::Suspect);
        }
    }

    /// Asks those that are down whether they are back. Foca could, but not while nobody at all is alive.
    fn call_the_down(&mut self) {
        let down = self.foca.iter_membership_state().filter(|member| member.state() == foca::State::Down);
        let down: Vec<Run> =
            down.map(|member| member.id().clone()).filter(|run| self.told.contains_key(&*run.name)).collect();
        for peer in down {
            let _ = self.foca.announce(peer, &mut self.outside);
        }
    }

    /// Takes a packet, whatever it is: bytes that are none, or of a stranger, change nothing. The member it came from.
    pub fn hear(&mut self, bytes: &[u8], now: Duration) -> Option<String> {
        self.outside.now = now;
        let mut packet = Opened::read(bytes)?;
        if !self.admit(&mut packet) {
            return None;
        }
        self.outside.acknowledged(&packet.header);
        let from = packet.header.src.name.to_string();
        let rewritten = if packet.is_changed { Some(packet.written()?) } else { None };
        let _ = self.foca.handle_data(rewritten.as_deref().unwrap_or(bytes), &mut self.outside);
        Some(from)
    }

    /// Whether the packet is for this node, from a member, and of a kind that is used here; strips what is in it of others.
    fn admit(&mut self, packet: &mut Opened) -> bool {
        let Opened { header, news, is_changed } = packet;
        let me = self.foca.identity().clone();
        let named = match &header.message {
            Message::PingReq { target, .. } | Message::IndirectAck { target, .. } => Some(target),
            Message::IndirectPing { origin, .. } | Message::ForwardedAck { origin, .. } => Some(origin),
            Message::Broadcast => return false,
            _ => None,
        };
        let is_peer = |run: &Run| self.told.contains_key(&*run.name);
        if !is_peer(&header.src) || header.dst.name != me.name || !named.is_none_or(is_peer) {
            return false;
        }
        let of_me = news.iter().flatten().map(Member::id).filter(|run| run.name == me.name);
        let latest = of_me.map(|run| run.number).fold(header.dst.number, u64::max);
        if let Some(news) = news {
            let count = news.len();
            news.retain(|member| is_peer(member.id()) || *member.id() == me);
            *is_changed |= news.len() != count;
        }
        if latest > me.number {
            // An earlier process with this name had a clock that ran ahead. What is said of it is not about this one.
            let Some(number) = latest.checked_add(1) else { return false };
            let _ = self.foca.change_identity(Run { name: me.name, number }, &mut self.outside);
        }
        if header.dst != *self.foca.identity() {
            (header.dst, *is_changed) = (self.foca.identity().clone(), true);
            return header.message != Message::TurnUndead;
        }
        true
    }

    /// A packet did not reach `peer`, for sure or for all that is known: others are asked about it without delay.
    pub fn failed(&mut self, peer: &str, now: Duration) {
        self.outside.now = now;
        self.outside.failed(peer);
    }

    /// What is to be sent, in order.
    pub fn take_packets(&mut self) -> Vec<Packet> {
        self.tell_suspects();
        std::mem::take(&mut self.outside.packets)
    }

    /// Puts the suspicion into every packet for a suspect, as memberlist does. Foca passes news on a number of times to
    /// anybody; where the suspect was not among them, it would answer every ping and stay suspected for good.
    fn tell_suspects(&mut self) {
        let suspects = self.foca.iter_membership_state().filter(|member| member.state() == foca::State::Suspect);
        for suspect in suspects {
            for packet in self.outside.packets.iter_mut().filter(|packet| *packet.to == *suspect.id().name) {
                let Some(mut opened) = Opened::read(&packet.bytes) else { continue };
                let Some(news) = &mut opened.news else { continue };
                news.retain(|member| member.id() != suspect.id());
                news.insert(0, suspect.clone());
                if let Some(bytes) = opened.written().filter(|bytes| bytes.len() <= PACKET_BYTES_MAX) {
                    packet.bytes = bytes;
                }
            }
        }
    }

    /// What is to be sent to `peer`, in order: it has just asked, and can be told at once.
    pub fn take_packets_for(&mut self, peer: &str) -> Vec<Packet> {
        let (theirs, others) = self.take_packets().into_iter().partition(|packet| packet.to == peer);
        self.outside.packets = others;
        theirs
    }

    /// What has changed since this was last asked, by name.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for member in self.foca.iter_membership_state() {
            let Run { name, number } = member.id();
            let Some((state, run)) = self.told.get_mut(&**name) else { continue };
            let now = match member.state() {
                foca::State::Alive => State::Alive,
                foca::State::Suspect => State::Suspect,
                foca::State::Down => State::Down,
            };
            let before = (std::mem::replace(state, now), std::mem::replace(run, *number));
            let renewed = before.1 != 0 && *number > before.1;
            if before.0 != now || renewed {
                changes.push(Change { name: name.to_string(), state: now, renewed });
            }
        }
        changes.sort_by(|left, right| left.name.cmp(&right.name));
        changes
    }
}

/// The probe that runs.
struct Probing {
    run: Run,
    since: Duration,
    answered: bool,
    /// Nobody took the ping, or the peer is suspected already: there is nothing to wait for.
    hopeless: bool,
}

/// What foca wants of the world: packets sent, timers kept.
struct Outside {
    now: Duration,
    answer: Duration,
    /// Time between two probes.
    probe: Duration,
    packets: Vec<Packet>,
    /// By when they are due, and in the order in which they were submitted.
    timers: BTreeMap<(Duration, u64), Timer<Run>>,
    submitted: u64,
    /// The one timer that ends a probe and begins the next; it waits while an answer still may come.
    next_probe: Option<(Duration, Timer<Run>)>,
    probing: Option<Probing>,
    chance: Chance,
}

impl Outside {
    fn due(&self) -> Option<Duration> {
        let timer = self.timers.first_key_value().map(|((due, _), _)| *due);
        let probe = self.next_probe.as_ref().map(|(due, _)| match &self.probing {
            Some(probing) if !probing.answered && !probing.hopeless => (*due).max(probing.since + self.answer),
            _ => *due,
        });
        timer.into_iter().chain(probe).min()
    }

    fn take_due(&mut self) -> Option<Timer<Run>> {
        let due = self.due().filter(|due| *due <= self.now)?;
        if self.timers.first_key_value().is_some_and(|((first, _), _)| *first <= due) {
            return self.timers.pop_first().map(|(_, timer)| timer);
        }
        self.next_probe.take().map(|(_, timer)| timer)
    }

    fn postpone(&mut self, late: Duration) {
        let timers = std::mem::take(&mut self.timers);
        self.timers = timers.into_iter().map(|((due, number), timer)| ((due + late, number), timer)).collect();
        if let Some((due, _)) = &mut self.next_probe {
            *due += late;
        }
        if let Some(probing) = &mut self.probing {
            probing.since += late;
        }
    }

    fn acknowledged(&mut self, header: &Header<Run>) {
        let answerer = match &header.message {
            Message::Ack(_) => &header.src,
            Message::ForwardedAck { origin, .. } => origin,
            _ => return,
        };
        if let Some(probing) = self.probing.as_mut().filter(|probing| probing.run.name == answerer.name) {
            probing.answered = true;
        }
    }

    fn failed(&mut self, peer: &str) {
        let Some(probing) = self.probing.as_mut().filter(|probing| *probing.run.name == *peer) else { return };
        if probing.answered || std::mem::replace(&mut probing.hopeless, true) {
            return;
        }
        let is_theirs = |timer: &Timer<Run>| matches!(timer, Timer::SendIndirectProbe { .. });
        let at = self.timers.iter().find(|(_, timer)| is_theirs(timer)).map(|(at, _)| *at);
        if let Some(timer) = at.and_then(|at| self.timers.remove(&at)) {
            self.submitted += 1;
            self.timers.insert((self.now, self.submitted), timer);
        }
    }
}

impl Runtime<Run> for Outside {
    fn notify(&mut self, _: Notification<'_, Run>) {
        // Changes are read off the members: they say the same, and none gets lost.
    }

    fn send_to(&mut self, to: Run, bytes: &[u8]) {
        if self.packets.len() == PACKETS_MAX {
            self.packets.remove(0);
        }
        self.packets.push(Packet { to: to.name.to_string(), bytes: bytes.to_vec() });
    }

    fn submit_after(&mut self, timer: Timer<Run>, mut after: Duration) {
        match &timer {
            Timer::ProbeRandomMember(_) => {
                let after = self.chance.jittered(self.probe);
                self.next_probe = Some((self.now + after, timer));
                return;
            }
            Timer::SendIndirectProbe { probed_id, .. } => {
                after = self.probe / 2;
                let run = probed_id.clone();
                self.probing = Some(Probing { run, since: self.now, answered: false, hopeless: false });
            }
            _ => {}
        }
        self.submitted += 1;
        self.timers.insert((self.now + after, self.submitted), timer);
    }
}

#[cfg(test)]
mod tests;
