//! A crowd: the liveness of up to 1,000 members, alone, in virtual time. How soon all know who died and who is back, what
//! that costs, and that nobody is called dead who is not.
//!
//! The machines are the production ones, paced as nodes are by default, over a network that delays every packet a little
//! and loses some. Who sent a packet that is lost hears so when its time is over, as of an HTTP call. They have met when a
//! crowd begins: what each says when it starts goes nowhere.
//!
//! `KRINGLE_THOROUGH=1 cargo test --release --no-default-features --test sim crowd -- --nocapture` plays 1,000 as well: some
//! minutes, most of them until all have heard of the starts of all.

use super::number;
use super::options::about;
use kringle::membership::{Liveness, Pace, State};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const PACE: Pace = Pace { period: Duration::from_secs(1), timeout: Duration::from_secs(5) };
/// Periods that a suspect has to speak up.
const SUSPECT_PERIODS: f64 = 4.0;
/// How often it is looked at what each holds of the others.
const LOOK: Duration = Duration::from_millis(100);
const DELAY_MEAN_US: u64 = 2_000;
/// Members that die at once.
const DYING: usize = 3;
/// How long it takes until all have heard of all that they have started.
const ACQUAINTED: Duration = Duration::from_secs(10);
/// How long nothing happens, while bytes are counted.
const QUIET: Duration = Duration::from_secs(5);
/// Longer than all of them together take to probe each once.
const LIMIT: Duration = Duration::from_secs(300);
const MINUTES: Duration = Duration::from_secs(180);

enum Due {
    Tick(usize),
    Packet {
        from: usize,
        to: usize,
        bytes: Vec<u8>,
    },
    /// What `from` sent to `to` was not answered in time.
    Failed {
        from: usize,
        to: usize,
    },
}

struct Crowd {
    rng: ChaCha8Rng,
    now: Duration,
    machines: Vec<Option<Liveness>>,
    names: Vec<String>,
    numbers: BTreeMap<String, usize>,
    /// By time, and in the order in which they were made.
    dues: BTreeMap<(Duration, u64), Due>,
    made: u64,
    /// When each is to be ticked next.
    ticks: Vec<Duration>,
    loss_permille: u32,
    starts: u64,
    bytes: u64,
    /// Of each that lives, whom it does not hold for alive.
    gone: Vec<BTreeMap<usize, State>>,
    /// Who was ever held for down, and by whom.
    downs: BTreeSet<(usize, usize)>,
    /// How often anybody began to suspect anybody.
    suspicions: u64,
}

impl Crowd {
    fn of(count: usize, seed: u64) -> Crowd {
        let names: Vec<String> = (0..count).map(|node| format!("http://node{node}.example:8001")).collect();
        let mut crowd = Crowd {
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: Duration::ZERO,
            machines: (0..count).map(|_| None).collect(),
            numbers: names.iter().cloned().zip(0..).collect(),
            names,
            dues: BTreeMap::new(),
            made: 0,
            ticks: vec![Duration::MAX; count],
            loss_permille: 0,
            starts: 0,
            bytes: 0,
            gone: vec![BTreeMap::new(); count],
            downs: BTreeSet::new(),
            suspicions: 0,
        };
        for node in 0..count {
            crowd.begin(node);
            crowd.machines[node].as_mut().expect("just begun").take_packets();
            crowd.plan(node);
        }
        crowd
    }

    fn begin(&mut self, node: usize) {
        self.starts += 1;
        let peers = self.names.iter().cloned();
        let machine = Liveness::new(&self.names[node], peers, PACE, 1 + self.starts, self.rng.random(), self.now);
        (self.machines[node], self.gone[node]) = (Some(machine), BTreeMap::new());
    }

    fn start(&mut self, node: usize) {
        self.begin(node);
        self.carry(node);
    }

    /// Its machine loses power: nobody tells that it is gone.
    fn stop(&mut self, node: usize) {
        (self.machines[node], self.ticks[node]) = (None, Duration::MAX);
    }

    fn push(&mut self, after: Duration, due: Due) {
        self.made += 1;
        self.dues.insert((self.now + after, self.made), due);
    }

    /// Sends what a node has to say.
    fn carry(&mut self, node: usize) {
        let packets = self.machines[node].as_mut().map(Liveness::take_packets).unwrap_or_default();
        for packet in packets {
            self.bytes += packet.bytes.len() as u64;
            let to = self.numbers[&packet.to];
            let delay = Duration::from_micros(about(&mut self.rng, DELAY_MEAN_US));
            match self.rng.random_range(0..1_000) < self.loss_permille {
                true => self.push(PACE.answer(), Due::Failed { from: node, to }),
                false => self.push(delay, Due::Packet { from: node, to, bytes: packet.bytes }),
            }
        }
        self.plan(node);
    }

    fn plan(&mut self, node: usize) {
        let Some(due) = self.machines[node].as_ref().map(Liveness::due) else { return };
        if due < self.ticks[node] {
            self.ticks[node] = due;
            self.push(due.saturating_sub(self.now), Due::Tick(node));
        }
    }

    /// Lets time pass until it is so, or for so long at most; how long that was.
    fn run_until(&mut self, limit: Duration, is_so: impl Fn(&Crowd) -> bool) -> Duration {
        let (began, mut look) = (self.now, self.now + LOOK);
        loop {
            let next = self.dues.first_key_value().map_or(Duration::MAX, |((at, _), _)| *at);
            if next >= look {
                self.now = look;
                look += LOOK;
                self.look();
                if is_so(self) || self.now - began >= limit {
                    return self.now - began;
                }
                continue;
            }
            let ((at, _), due) = self.dues.pop_first().expect("there is one");
            self.now = at;
            self.happens(due);
        }
    }

    fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    fn happens(&mut self, due: Due) {
        let now = self.now;
        let node = match &due {
            Due::Tick(node) => *node,
            Due::Packet { to, .. } => *to,
            Due::Failed { from, .. } => *from,
        };
        let Some(machine) = &mut self.machines[node] else {
            if let Due::Packet { from, to, .. } = due {
                self.push(PACE.answer(), Due::Failed { from, to });
            }
            return;
        };
        match due {
            Due::Tick(_) if self.ticks[node] > now => return,
            Due::Tick(_) => {
                self.ticks[node] = Duration::MAX;
                machine.tick(now);
            }
            Due::Packet { bytes, .. } => drop(machine.hear(&bytes, now)),
            Due::Failed { to, .. } => machine.failed(&self.names[to], now),
        }
        self.carry(node);
    }

    fn look(&mut self) {
        for (seer, machine) in self.machines.iter_mut().enumerate() {
            for change in machine.as_mut().map(Liveness::take_changes).unwrap_or_default() {
                let whom = self.numbers[&change.name];
                match change.state {
                    State::Alive => drop(self.gone[seer].remove(&whom)),
                    state => drop(self.gone[seer].insert(whom, state)),
                }
                match change.state {
                    State::Alive => {}
                    State::Suspect => self.suspicions += 1,
                    State::Down => drop(self.downs.insert((whom, seer))),
                }
            }
        }
    }

    /// Of those that live, how many hold just these for down, and everybody else for alive.
    fn agree(&self, down: &[usize]) -> usize {
        let living = self.machines.iter().zip(&self.gone).filter(|(machine, _)| machine.is_some());
        let is_so = |gone: &BTreeMap<usize, State>| {
            gone.len() == down.len() && down.iter().all(|node| gone.get(node) == Some(&State::Down))
        };
        living.filter(|(_, gone)| is_so(gone)).count()
    }

    fn living(&self) -> usize {
        self.machines.iter().flatten().count()
    }
}

fn periods(time: Duration) -> f64 {
    time.as_secs_f64() / PACE.period.as_secs_f64()
}

/// What a crowd came to.
struct Story {
    /// Periods from a death until the first holds any of the dead for down, and until all hold all of them for it.
    first: f64,
    all: f64,
    /// Periods from the return of one until it is alive to all.
    back: f64,
    /// Gossip that a node sends, in bytes per second.
    idle: f64,
    changing: f64,
}

/// Some die at once, and one of them comes back.
fn story(count: usize, seed: u64) -> Story {
    let mut crowd = Crowd::of(count, seed);
    crowd.run(ACQUAINTED);
    assert!(crowd.agree(&[]) == count, "{count} members, seed {seed}: nobody is ill spoken of");
    let each =
        |crowd: &mut Crowd, time: Duration| std::mem::take(&mut crowd.bytes) as f64 / count as f64 / time.as_secs_f64();
    crowd.bytes = 0;
    crowd.run(QUIET);
    let idle = each(&mut crowd, QUIET);
    let dead: Vec<usize> = (0..DYING).collect();
    dead.iter().for_each(|&node| crowd.stop(node));
    let first = crowd.run_until(LIMIT, |crowd| !crowd.downs.is_empty());
    let all = first + crowd.run_until(LIMIT, |crowd| crowd.agree(&dead) == crowd.living());
    let changing = each(&mut crowd, all);
    assert!(crowd.downs.iter().all(|(whom, _)| dead.contains(whom)), "{count} members, seed {seed}: {:?}", crowd.downs);
    crowd.start(0);
    let sees = |crowd: &Crowd, seer: usize| crowd.machines[seer].is_none() || !crowd.gone[seer].contains_key(&0);
    let back = crowd.run_until(LIMIT, |crowd| (0..count).all(|seer| sees(crowd, seer)));
    Story { first: periods(first), all: periods(all), back: periods(back), idle, changing }
}

/// The mean of several crowds, as one alone may be lucky.
fn mean(stories: &[Story], of: impl Fn(&Story) -> f64) -> f64 {
    stories.iter().map(of).sum::<f64>() / stories.len() as f64
}

#[test]
fn all_know_of_a_death_a_logarithm_of_their_number_of_periods_later() {
    let seed = number("KRINGLE_SIM_SEED").unwrap_or(7);
    let sizes: &[(usize, u64)] = match std::env::var_os("KRINGLE_THOROUGH") {
        Some(_) => &[(10, 20), (30, 20), (100, 10), (300, 3), (1_000, 1)],
        None => &[(10, 20), (30, 10), (100, 3), (300, 1)],
    };
    eprintln!(
        "KRINGLE_SIM_SEED={seed}; periods until any, and all, hold {DYING} that died for down, and one that is back"
    );
    eprintln!("for alive; bytes of gossip that each node sends in a second, when nothing happens and meanwhile");
    eprintln!("members  first    all   back   idle  meanwhile");
    let mut idle_of_ten = None;
    for &(count, crowds) in sizes {
        let stories: Vec<Story> = (0..crowds).map(|more| story(count, seed + more)).collect();
        let [first, all, back] = [mean(&stories, |s| s.first), mean(&stories, |s| s.all), mean(&stories, |s| s.back)];
        let (idle, changing) = (mean(&stories, |s| s.idle), mean(&stories, |s| s.changing));
        eprintln!("{count:>7} {first:>6.1} {all:>6.1} {back:>6.1} {idle:>6.0} {changing:>10.0}");
        // Whoever holds one for down has asked, waited for the answer, and waited for the suspect.
        assert!(first >= SUSPECT_PERIODS, "{count} members: {first}");
        // One for the answer; how long it takes until somebody asks, and until all have heard, is the logarithm's.
        let most = SUSPECT_PERIODS + 1.0 + (count as f64).ln();
        assert!(all <= most, "{count} members: all know after {all} periods, not {most}");
        assert!(back <= (count as f64).ln(), "{count} members: back for all after {back} periods");
        // Each asks as often, of however many, and its packets are no longer.
        let least = *idle_of_ten.get_or_insert(idle);
        assert!(idle <= 1.2 * least, "{count} members: {idle} bytes a second, of ten {least}");
        assert!(changing <= 4.0 * idle, "{count} members: {changing} bytes a second");
    }
}

#[test]
fn nobody_is_called_down_who_lives_though_every_twentieth_packet_is_lost() {
    let seed = number("KRINGLE_SIM_SEED").unwrap_or(7);
    for (loss_permille, count) in [(0, 50), (10, 50), (50, 10), (50, 50)] {
        let mut crowd = Crowd::of(count, seed);
        crowd.loss_permille = loss_permille;
        crowd.run(MINUTES);
        eprintln!(
            "KRINGLE_SIM_SEED={seed}: {count} members for {MINUTES:?}, {loss_permille} of 1,000 packets lost: suspected {} \
             times, each look of each counted",
            crowd.suspicions
        );
        assert_eq!(crowd.downs, BTreeSet::new(), "{count} members, {loss_permille} of 1,000 packets lost");
        assert!(loss_permille > 0 || crowd.suspicions == 0, "nothing gave cause to suspect anybody");
    }
}
