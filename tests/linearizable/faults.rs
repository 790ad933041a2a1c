//! What goes wrong while clients ask: one fault or two at a time, of a few kinds that a history draws for itself.
//!
//! Nodes are killed, frozen, emptied and told wrong times; between them requests are cut off, one way or both, swallowed,
//! answered into the void, or late. Clients always reach every node that runs. What stays within the promise is kept: at
//! most one disk is lost at a time, and its refilling awaited before anything else happens.

use super::support::clock::FalseClock;
use super::support::cluster::Cluster;
use super::support::eventually;
use super::support::http::Request;
use super::support::node::{Node, Plan};
use super::support::proxy::{Fault, Way};
use kringle::placement::NodeId;
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Long enough for a start and a refilling on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Dies, and starts again at once or later.
    Kill,
    Freeze,
    /// A minority and a majority that do not hear each other.
    Split,
    /// One node does not hear another, which hears it.
    OneWay,
    /// A node takes requests of its peers and never answers.
    Hang,
    /// A node does what its peers ask, and its answers are lost.
    Mute,
    Delay,
    Clock,
    Disk,
    /// Another node joins or leaves, or each key gets more owners or fewer.
    Change,
}

impl Kind {
    pub const ALL: [Kind; 10] = [
        Kind::Kill,
        Kind::Freeze,
        Kind::Split,
        Kind::OneWay,
        Kind::Hang,
        Kind::Mute,
        Kind::Delay,
        Kind::Clock,
        Kind::Disk,
        Kind::Change,
    ];
}

/// A fault that lasts.
#[derive(Clone, PartialEq, Debug)]
enum Trouble {
    Dead(usize),
    Frozen(usize),
    /// From whom to whom requests do not come.
    Cut(BTreeSet<(usize, usize)>),
    Link(usize, Fault),
}

/// Does all that to one cluster. What it did is a log for people.
pub struct Nemesis<'a> {
    cluster: &'a mut Cluster,
    rng: ChaCha8Rng,
    kinds: Vec<Kind>,
    ids: Vec<NodeId>,
    clocks: Vec<FalseClock>,
    /// One that comes and goes, and how often it was told to.
    spare: Option<Node>,
    moves: usize,
    troubles: Vec<Trouble>,
    began: Instant,
    pub log: Vec<String>,
}

impl<'a> Nemesis<'a> {
    /// Nodes that are to be told wrong times are started anew for it.
    pub fn new(cluster: &'a mut Cluster, kinds: &[Kind], rng: ChaCha8Rng) -> Nemesis<'a> {
        let mut clocks = vec![];
        if kinds.contains(&Kind::Clock) {
            for node in &mut cluster.nodes {
                let clock = FalseClock::new("+0");
                node.kill();
                node.replan(|plan| plan.under(clock.under()));
                node.restart();
                clocks.push(clock);
            }
        }
        let ids = cluster.nodes.iter().map(Node::id).collect();
        let (kinds, troubles, log) = (kinds.to_vec(), vec![], vec![]);
        let (spare, moves, began) = (None, 0, Instant::now());
        let mut nemesis = Nemesis { cluster, rng, kinds, ids, clocks, spare, moves, troubles, began, log };
        (0..nemesis.ids.len()).for_each(|index| nemesis.await_filled(index));
        nemesis
    }

    pub fn addresses(&self) -> Vec<String> {
        self.cluster.nodes.iter().map(Node::address).collect()
    }

    fn note(&mut self, what: String) {
        self.log.push(format!("{:>9.3} ms  {what}", self.began.elapsed().as_secs_f64() * 1_000.0));
    }

    /// Does its worst for so long, and leaves everything well.
    pub fn rage(&mut self, lasts: Duration) {
        self.began = Instant::now();
        while self.began.elapsed() < lasts {
            let most = if self.rng.random_ratio(1, 3) { 2 } else { 1 };
            match self.troubles.len() < most {
                true if self.kinds.is_empty() => {}
                true => self.begin(),
                false => self.end_one(),
            }
            let pause = Duration::from_millis(self.rng.random_range(50..900));
            std::thread::sleep(pause.min(lasts.saturating_sub(self.began.elapsed())));
        }
        self.clocks.iter().for_each(|clock| clock.set("+0"));
        self.heal();
    }

    fn begin(&mut self) {
        let kind = *self.kinds.choose(&mut self.rng).expect("a kind");
        let count = self.cluster.nodes.len();
        let is_down = |trouble: &Trouble, index| *trouble == Trouble::Dead(index) || *trouble == Trouble::Frozen(index);
        let up: Vec<usize> = (0..count).filter(|at| !self.troubles.iter().any(|one| is_down(one, *at))).collect();
        let Some(victim) = up.choose(&mut self.rng).copied() else { return };
        let trouble = match kind {
            Kind::Kill => {
                self.cluster.nodes[victim].kill();
                Trouble::Dead(victim)
            }
            Kind::Freeze => {
                self.cluster.nodes[victim].pause();
                Trouble::Frozen(victim)
            }
            Kind::Split => {
                let mut nodes: Vec<usize> = (0..count).collect();
                nodes.shuffle(&mut self.rng);
                let few = self.rng.random_range(1..=count.div_ceil(2) - 1);
                let (few, many) = nodes.split_at(few);
                let across = few.iter().flat_map(|one| many.iter().flat_map(|other| [(*one, *other), (*other, *one)]));
                Trouble::Cut(across.collect())
            }
            Kind::OneWay => Trouble::Cut([(victim, (victim + self.rng.random_range(1..count)) % count)].into()),
            Kind::Hang => Trouble::Link(victim, Fault::Hang),
            Kind::Mute => Trouble::Link(victim, Fault::BlackHole(Way::FromNode)),
            Kind::Delay => Trouble::Link(victim, Fault::Delay(Duration::from_millis(self.rng.random_range(20..400)))),
            Kind::Clock => return self.tell_a_wrong_time(victim),
            Kind::Disk => return self.lose_the_disk(victim),
            Kind::Change => return self.change_the_owners(victim),
        };
        self.note(format!("begins: {trouble:?}"));
        if let Trouble::Link(index, _) = trouble {
            // One fault a link.
            self.troubles.retain(|other| !matches!(other, Trouble::Link(at, _) if *at == index));
        }
        self.troubles.push(trouble.clone());
        match trouble {
            Trouble::Cut(_) => self.connect(),
            Trouble::Link(index, fault) => self.cluster.fault(index, fault),
            Trouble::Dead(_) if self.rng.random() => self.end(self.troubles.len() - 1),
            Trouble::Dead(_) | Trouble::Frozen(_) => {}
        }
    }

    fn end_one(&mut self) {
        let at = self.rng.random_range(0..self.troubles.len());
        self.end(at);
    }

    fn end(&mut self, at: usize) {
        let trouble = self.troubles.remove(at);
        self.note(format!("ends:   {trouble:?}"));
        match trouble {
            Trouble::Dead(index) => self.cluster.nodes[index].relaunch(),
            Trouble::Frozen(index) => self.cluster.nodes[index].resume(),
            Trouble::Cut(_) => self.connect(),
            Trouble::Link(index, _) => self.cluster.fault(index, Fault::Pass),
        }
    }

    /// Admits to each node whom no cut keeps away from it.
    fn connect(&self) {
        for to in 0..self.ids.len() {
            let is_cut = |from: usize| {
                self.troubles.iter().any(|one| matches!(one, Trouble::Cut(pairs) if pairs.contains(&(from, to))))
            };
            let near: Vec<usize> = (0..self.ids.len()).filter(|from| !is_cut(*from)).collect();
            let all = near.len() == self.ids.len();
            let admitted = near.into_iter().map(|from| self.ids[from]).collect();
            self.cluster.proxy(to).admit_only((!all).then_some(admitted));
        }
    }

    /// Ahead or behind, standing still or right again, by less than a minute or by hours.
    fn tell_a_wrong_time(&mut self, victim: usize) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
        let says = match self.rng.random_range(0..6) {
            0 => "+0".to_string(),
            1 => format!("+{}", self.rng.random_range(1..50_000)),
            2 => format!("-{}", self.rng.random_range(1..50_000)),
            3 => format!("={}", now.as_millis()),
            sign => format!("{}{}", if sign == 4 { '+' } else { '-' }, self.rng.random_range(1..5) * 3_600_000),
        };
        self.note(format!("node {victim}'s clock says {says}"));
        self.clocks[victim].set(&says);
    }

    fn lose_the_disk(&mut self, victim: usize) {
        self.heal();
        // What its peers hold is of a time that a clock hours behind does not believe in: it would wait as long.
        if let Some(clock) = self.clocks.get(victim) {
            clock.set("+0");
        }
        self.note(format!("node {victim} loses its disk"));
        self.cluster.nodes[victim].kill();
        std::fs::remove_dir_all(self.cluster.nodes[victim].data()).expect("the folder of a node");
        self.cluster.nodes[victim].restart();
        self.await_filled(victim);
        self.ids[victim] = self.cluster.nodes[victim].id();
        self.note(format!("node {victim} is filled again"));
    }

    /// Asks for one change, of whomever runs; whether and when it comes about is the cluster's affair.
    fn change_the_owners(&mut self, asked: usize) {
        self.moves += 1;
        let limit = Duration::from_secs(1);
        if self.rng.random_ratio(1, 3) {
            let replicas = self.rng.random_range(2..=3);
            self.note(format!("node {asked} is asked for {replicas} replicas"));
            let wish = Request::new("PUT", "/cluster/replicas").json(&serde_json::json!({ "replicas": replicas }));
            let _ = self.cluster.client(asked).within(limit).try_send(&wish);
            return;
        }
        match &self.spare {
            None => {
                self.note("another node is started".into());
                let peer = self.cluster.proxy(asked).address();
                self.spare = Some(Plan::new(&super::rig::QUICK).flag("--peers", peer).spawn());
            }
            Some(spare) => {
                let way = if self.moves.is_multiple_of(2) { "leave" } else { "join" };
                let wish = Request::new("POST", format!("/cluster/{way}"));
                let _ = spare.client().within(limit).try_send(&wish);
                self.note(format!("the other node is told to {way}"));
            }
        }
    }

    fn await_filled(&mut self, index: usize) {
        eventually("the node is filled", SOON, || {
            let mut client = self.cluster.client(index).within(Duration::from_secs(1));
            let status = client.try_send(&Request::new("GET", "/status")).map_err(|error| error.to_string())?.json();
            (status["filling"]["state"] == "filled").then_some(()).ok_or(status["filling"].to_string())
        });
    }

    /// Ends every fault that lasts, and waits until every node is ready and whole.
    fn heal(&mut self) {
        while !self.troubles.is_empty() {
            self.end(0);
        }
        for index in 0..self.ids.len() {
            self.cluster.nodes[index].await_ready();
            self.await_filled(index);
        }
    }
}
