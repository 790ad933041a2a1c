//! Whole clusters of the machine in virtual time, with a network that can be cut.

use super::*;
use proptest::prelude::*;

const PACE: Pace = Pace { period: Duration::from_secs(1), timeout: Duration::from_secs(5) };

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// What happens to a packet on its way.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Open,
    /// Connecting fails at once.
    Refused,
    /// Nothing is ever heard of it.
    Silent,
}

struct Net {
    nodes: Vec<Option<Liveness>>,
    now: Duration,
    /// From, to.
    ways: Vec<Vec<Way>>,
    packets: usize,
    bytes: usize,
    /// When, who saw it, and what.
    seen: Vec<(Duration, usize, Change)>,
    starts: u64,
}

fn name(node: usize) -> String {
    format!("http://node{node}.example:8001")
}

impl Net {
    fn of(count: usize) -> Net {
        let mut net = Net {
            nodes: (0..count).map(|_| None).collect(),
            now: ms(0),
            ways: vec![vec![Way::Open; count]; count],
            packets: 0,
            bytes: 0,
            seen: Vec::new(),
            starts: 0,
        };
        (0..count).for_each(|node| net.start(node));
        net
    }

    fn start(&mut self, node: usize) {
        self.starts += 1;
        self.start_as(node, 1_000 * self.starts);
    }

    fn start_as(&mut self, node: usize, run: u64) {
        let peers = (0..self.nodes.len()).map(name);
        let seed = 77 * self.starts + node as u64;
        self.nodes[node] = Some(Liveness::new(&name(node), peers, PACE, run, seed, self.now));
        self.ways.iter_mut().for_each(|ways| ways[node] = Way::Open);
    }

    fn stop(&mut self, node: usize, way: Way) {
        self.nodes[node] = None;
        self.ways.iter_mut().for_each(|ways| ways[node] = way);
    }

    fn cut(&mut self, parts: &[&[usize]], way: Way) {
        let part = |node: usize| parts.iter().position(|part| part.contains(&node));
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                self.ways[from][to] = if part(from) == part(to) { Way::Open } else { way };
            }
        }
    }

    fn machine(&mut self, node: usize) -> Option<&mut Liveness> {
        self.nodes[node].as_mut()
    }

    fn send(&mut self, from: usize, packet: Packet) {
        self.packets += 1;
        self.bytes += packet.bytes.len();
        let now = self.now;
        let to = (0..self.nodes.len()).find(|&to| name(to) == packet.to).unwrap();
        match self.ways[from][to] {
            Way::Silent => {}
            Way::Refused => self.machine(from).unwrap().failed(&packet.to, now),
            Way::Open => {
                let target = self.machine(to).unwrap();
                if target.hear(&packet.bytes, now).is_none() {
                    return;
                }
                for reply in target.take_packets_for(&name(from)) {
                    self.bytes += reply.bytes.len();
                    self.machine(from).unwrap().hear(&reply.bytes, now);
                }
            }
        }
    }

    /// Lets time pass, 10 ms at a time.
    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += ms(10);
            let now = self.now;
            (0..self.nodes.len()).for_each(|node| {
                if let Some(machine) = self.machine(node) {
                    machine.tick(now);
                }
            });
            // Whatever is said is heard at once, and what that leads to.
            for _ in 0..100 {
                let mut said = 0;
                for node in 0..self.nodes.len() {
                    let packets = self.machine(node).map(Liveness::take_packets).unwrap_or_default();
                    said += packets.len();
                    packets.into_iter().for_each(|packet| self.send(node, packet));
                }
                if said == 0 {
                    break;
                }
            }
            for node in 0..self.nodes.len() {
                let changes = self.machine(node).map(Liveness::take_changes).unwrap_or_default();
                self.seen.extend(changes.into_iter().map(|change| (now, node, change)));
            }
        }
    }

    fn state(&self, seer: usize, node: usize) -> State {
        self.nodes[seer].as_ref().unwrap().told[&name(node)].0
    }

    /// When `seer` first saw that of `node` since `since`.
    fn saw(&self, seer: usize, node: usize, state: State, since: Duration) -> Option<Duration> {
        let hit = |(at, by, change): &&(Duration, usize, Change)| {
            *at > since && *by == seer && change.name == name(node) && change.state == state
        };
        self.seen.iter().find(hit).map(|(at, ..)| *at - since)
    }

    fn all_see(&self, state: State, nodes: &[usize]) -> bool {
        let living = (0..self.nodes.len()).filter(|&seer| self.nodes[seer].is_some());
        living.into_iter().all(|seer| nodes.iter().all(|&node| node == seer || self.state(seer, node) == state))
    }
}

#[test]
fn a_quiet_cluster_suspects_nobody_and_probes_each_peer_about_once_in_a_period() {
    for count in [2, 3, 5] {
        let mut net = Net::of(count);
        net.run(ms(2_000));
        (net.packets, net.bytes) = (0, 0);
        net.run(ms(60_000));
        assert_eq!(net.seen.iter().filter(|(_, _, change)| change.state != State::Alive).count(), 0);
        let pairs = count * (count - 1);
        let probes = net.packets as f64 / pairs as f64 / 60.0;
        assert!((0.9..1.2).contains(&probes), "{count} nodes: {probes} packets a pair and second");
        let bytes = net.bytes as f64 / pairs as f64 / 60.0;
        assert!(bytes < 250.0, "{count} nodes: {bytes} bytes a pair and second, answers included");
    }
}

#[test]
fn nodes_that_started_alone_probe_as_often_as_those_that_knew_all_from_the_beginning() {
    let mut net = Net::of(5);
    let all: BTreeSet<String> = (0..5).map(name).collect();
    for node in 0..5 {
        let mut machine = Liveness::new(&name(node), [], PACE, 1_000_000, node as u64, net.now);
        machine.members(&all, net.now);
        net.nodes[node] = Some(machine);
    }
    net.run(ms(2_000));
    net.packets = 0;
    net.run(ms(60_000));
    let probes = net.packets as f64 / 20.0 / 60.0;
    assert!((0.9..1.2).contains(&probes), "{probes} packets a pair and second");
}

#[test]
fn a_dead_node_is_suspected_within_three_seconds_and_down_within_eight() {
    for way in [Way::Refused, Way::Silent] {
        for count in [2, 3, 5, 9] {
            for wait in 0..10 {
                let mut net = Net::of(count);
                net.run(ms(4_000 + 137 * wait));
                let since = net.now;
                net.stop(1, way);
                net.run(ms(9_000));
                for seer in (0..count).filter(|&seer| seer != 1) {
                    let suspected = net.saw(seer, 1, State::Suspect, since).expect("suspected");
                    let down = net.saw(seer, 1, State::Down, since).expect("down");
                    assert!(suspected <= ms(3_000), "{count} nodes: {suspected:?}");
                    assert!(down <= ms(8_000), "{count} nodes: {down:?}");
                    let wronged = |(_, by, change): &&(Duration, usize, Change)| {
                        *by == seer && change.name != name(1) && change.state != State::Alive
                    };
                    assert_eq!(net.seen.iter().find(wronged), None, "the others are left alone");
                }
            }
        }
    }
}

#[test]
fn a_refused_connection_is_not_waited_for_like_silence() {
    let suspected = |way| -> Duration {
        let times = (0..20).map(|wait| {
            let mut net = Net::of(5);
            net.run(ms(4_000 + 137 * wait));
            let since = net.now;
            net.stop(1, way);
            net.run(ms(4_000));
            net.saw(0, 1, State::Suspect, since).expect("suspected")
        });
        times.sum::<Duration>() / 20
    };
    let (refused, silent) = (suspected(Way::Refused), suspected(Way::Silent));
    assert!(refused + ms(500) < silent, "{refused:?} and {silent:?}");
}

#[test]
fn a_restarted_node_is_seen_as_renewed_at_once_even_if_its_clock_went_back() {
    for run in [9_000_000, 5] {
        let mut net = Net::of(3);
        net.run(ms(3_000));
        net.seen.clear();
        let since = net.now;
        net.start_as(1, run);
        net.run(ms(3_000));
        for seer in [0, 2] {
            let renewed = |(_, by, change): &&(Duration, usize, Change)| {
                *by == seer && change.name == name(1) && change.renewed && change.state == State::Alive
            };
            let (at, ..) = net.seen.iter().find(renewed).unwrap_or_else(|| panic!("{:?}", net.seen));
            assert!(*at - since < ms(2_500), "run {run}: {:?}", *at - since);
        }
        net.run(ms(10_000));
        assert!(net.all_see(State::Alive, &[0, 1, 2]));
    }
}

#[test]
fn a_node_that_was_down_is_alive_again_soon_after_its_return() {
    let mut net = Net::of(5);
    net.run(ms(3_000));
    net.stop(1, Way::Silent);
    net.run(ms(30_000));
    assert!(net.all_see(State::Down, &[1]));
    let since = net.now;
    net.start(1);
    net.run(ms(2_000));
    assert!(net.all_see(State::Alive, &[0, 1, 2, 3, 4]));
    assert!(net.saw(0, 1, State::Alive, since).expect("alive") < ms(500), "it calls everybody when it starts");
}

#[test]
fn nodes_that_start_before_their_peers_find_them_later() {
    let mut net = Net::of(3);
    net.stop(1, Way::Refused);
    net.stop(2, Way::Refused);
    net.run(ms(20_000));
    assert!(net.all_see(State::Down, &[1, 2]));
    net.start(2);
    net.start(1);
    net.run(ms(3_000));
    assert!(net.all_see(State::Alive, &[0, 1, 2]));
}

#[test]
fn a_healed_split_comes_back_by_itself() {
    let three_ways: &[&[usize]] = &[&[0], &[1], &[2]];
    let two_and_three: &[&[usize]] = &[&[0, 1], &[2, 3, 4]];
    for (count, parts) in [(3, three_ways), (5, two_and_three)] {
        for way in [Way::Refused, Way::Silent] {
            for long in [5_000, 15_000, 60_000] {
                let mut net = Net::of(count);
                net.run(ms(3_000));
                net.cut(parts, way);
                net.run(ms(long));
                net.cut(&[], Way::Open);
                let since = net.now;
                net.run(ms(6_000));
                let all: Vec<usize> = (0..count).collect();
                assert!(net.all_see(State::Alive, &all), "{count} nodes, {long} ms");
                net.seen.clear();
                net.run(ms(60_000));
                assert_eq!(net.seen, [], "and stays so; healed at {since:?}");
            }
        }
    }
}

#[test]
fn a_peer_that_only_others_reach_is_not_down() {
    let mut net = Net::of(4);
    net.run(ms(3_000));
    (net.ways[0][1], net.ways[1][0]) = (Way::Silent, Way::Silent);
    net.run(ms(60_000));
    assert_ne!(net.state(0, 1), State::Down, "others ping it for this node");
    assert!((2..4).all(|seer| net.state(seer, 1) == State::Alive));
}

#[test]
fn a_node_that_slept_blames_nobody() {
    let mut net = Net::of(3);
    net.run(ms(3_000));
    // It hears nobody, and has just begun to wonder, when it falls asleep.
    net.cut(&[&[0, 2], &[1]], Way::Silent);
    net.run(ms(3_000));
    assert_eq!((net.state(1, 0), net.state(1, 2)), (State::Suspect, State::Suspect));
    let mut asleep = net.nodes[1].take();
    net.ways.iter_mut().for_each(|ways| ways[1] = Way::Silent);
    net.run(ms(60_000));
    asleep.as_mut().unwrap().take_changes();
    net.nodes[1] = asleep;
    net.cut(&[], Way::Open);
    net.seen.clear();
    net.run(ms(10_000));
    assert!(net.all_see(State::Alive, &[0, 1, 2]));
    let blamed = net.seen.iter().filter(|(_, by, change)| *by == 1 && change.state == State::Down);
    assert_eq!(blamed.count(), 0, "{:?}", net.seen);
}

/// A machine among peers, and a packet of each kind it was sent.
fn traffic() -> (Liveness, Vec<Vec<u8>>) {
    let mut net = Net::of(3);
    let mut packets = Vec::new();
    for _ in 0..600 {
        net.run(ms(10));
        if net.now == ms(2_000) {
            net.ways[0][1] = Way::Silent;
        }
        for from in 1..3 {
            let run = Run { name: name(from).into(), number: 1_000 * (from as u64 + 1) };
            let header = Header {
                src: run.clone(),
                src_incarnation: 3,
                dst: Run { name: name(0).into(), number: 1_000 },
                message: match net.now.as_millis() % 5 {
                    0 => Message::Ping(7),
                    1 => Message::PingReq { target: run, probe_number: 3 },
                    2 => Message::TurnUndead,
                    3 => Message::Feed,
                    _ => Message::Announce,
                },
            };
            let news = vec![Member::new(Run { name: name(3 - from).into(), number: 1_000 }, 2, foca::State::Suspect)];
            packets.extend(Opened { header, news: Some(news), is_changed: true }.written());
        }
    }
    (net.nodes[0].take().unwrap(), packets)
}

#[test]
fn strangers_are_neither_heard_nor_spoken_of() {
    let (mut machine, _) = traffic();
    let stranger = Run { name: "http://stranger:1".into(), number: 9 };
    let me = machine.foca.identity().clone();
    let known = Run { name: name(1).into(), number: 50_000 };
    let packet = |src: &Run, message, about: &Run| {
        let header = Header { src: src.clone(), src_incarnation: 0, dst: me.clone(), message };
        Opened { header, news: Some(vec![Member::alive(about.clone())]), is_changed: true }.written().unwrap()
    };
    let now = ms(10_000);
    assert_eq!(machine.hear(&packet(&stranger, Message::Gossip, &known), now), None);
    assert_eq!(
        machine.hear(&packet(&known, Message::PingReq { target: stranger.clone(), probe_number: 1 }, &me), now),
        None
    );
    assert_eq!(machine.hear(&packet(&known, Message::Gossip, &stranger), now), Some(name(1)));
    assert_eq!(machine.foca.iter_membership_state().filter(|member| member.id().name == stranger.name).count(), 0);
    assert!(machine.take_packets().iter().all(|packet| *packet.to != *stranger.name));
}

#[test]
fn packets_wait_in_bounded_numbers() {
    let (mut machine, _) = traffic();
    for period in 0..5_000 {
        machine.tick(ms(10_000 + 200 * period));
    }
    assert!(machine.take_packets().len() <= PACKETS_MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn no_bytes_panic(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..200),
    ) {
        let (mut machine, packets) = traffic();
        let mut now = ms(10_000);
        machine.hear(&noise, now);
        for (which, at, byte) in damage {
            let mut bytes = which.get(&packets).clone();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            machine.hear(&bytes, now);
            bytes.truncate(at);
            machine.hear(&bytes, now);
            now += ms(100);
            machine.tick(now);
            machine.take_changes();
            machine.take_packets();
        }
        prop_assert!(machine.hear(&vec![0; PACKET_BYTES_MAX + 1], now).is_none());
    }
}
