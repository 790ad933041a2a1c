//! What goes wrong, at random moments: splits, connections that lose, hold back or cut what is sent, nodes killed or frozen,
//! several of them at once; and, one at a time and only when all owners are equal, disks lost or replaced by an old copy.
//!
//! Moments are counted in what the clients have done meanwhile, so that each fault meets some of it on a slow machine too.

use super::clients::{Clients, Key, Kind, values};
use super::history::{Held, Loss, Moment, Quiet, Trouble, Write};
use super::support::cluster::Cluster;
use super::support::http::Request;
use super::support::proxy::{Fault, Way};
use super::support::{copy_folder, eventually};
use rand::Rng;
use rand::seq::{IndexedMutRandom, IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Long enough for detection, hints, several sessions and a refilling on a busy machine: also where a session was cut short
/// for whose peer a node keeps itself free for half a minute.
const SOON: Duration = Duration::from_secs(120);

/// How the nodes are started: peers are found dead, and healed, within seconds.
pub const FLAGS: [&str; 6] = ["--timeout", "1", "--pingfreq", "0.2", "--syncfreq", "0.5"];

/// Without hints it takes a session until a node has what it missed, which is long enough to write through it before.
pub const NO_HINTS: [&str; 2] = ["--hint-max-bytes", "0"];

/// After so long nothing is under way any more that was begun before: a node's deadline, and some more.
const LEFTOVERS_GONE: Duration = Duration::from_millis(1_300);

/// Most faults at a time.
const AT_ONCE_MAX: usize = 3;

/// Something that is wrong and will be mended.
#[derive(Debug)]
enum Wrong {
    Split,
    Down(usize),
    Frozen(usize),
    Bad(usize),
}

/// A fault that is chosen.
#[derive(Debug)]
enum Choice {
    Split,
    Kill,
    Freeze,
    Connections,
}

/// Whoever makes the trouble, and mends it.
pub struct Faults<'a> {
    cluster: &'a mut Cluster,
    clients: &'a Clients,
    rng: &'a mut ChaCha8Rng,
    /// Of which node there is an old disk.
    old: Option<(usize, TempDir)>,
    keys: Vec<Key>,
    /// What it wrote itself.
    pub writes: Vec<Write>,
    pub troubles: Vec<Trouble>,
    pub quiets: Vec<Quiet>,
    pub losses: Vec<Loss>,
    /// How often what was done.
    pub done: BTreeMap<&'static str, usize>,
}

impl<'a> Faults<'a> {
    pub fn new(cluster: &'a mut Cluster, clients: &'a Clients, keys: &[Key], rng: &'a mut ChaCha8Rng) -> Faults<'a> {
        let (keys, (writes, troubles, quiets, losses, done)) = (keys.to_vec(), Default::default());
        Faults { cluster, clients, rng, old: None, keys, writes, troubles, quiets, losses, done }
    }

    /// So many rounds of trouble, all quiet after each, with a disk lost and an old one put back between them. The clients
    /// do nothing after the last quiet moment.
    #[track_caller]
    pub fn run(&mut self, rounds: usize) {
        let lost_before = self.rng.random_range(0..rounds);
        let copied_before = self.rng.random_range(0..rounds - 1);
        let put_back_before = self.rng.random_range(copied_before + 1..rounds);
        self.await_more(20, 100);
        for round in 0..rounds {
            if round == lost_before {
                self.lose_a_disk();
            }
            if round == copied_before {
                self.copy_a_disk();
            }
            if round == put_back_before {
                self.put_an_old_disk_back();
            }
            self.make_trouble(round + 1 == rounds);
        }
    }

    fn await_more(&mut self, least: u64, most: u64) {
        self.clients.await_more(self.rng.random_range(least..=most));
    }

    fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    /// Begins a fault or several, one after the other, mends them in any order, one by one or all at once, and waits for
    /// quiet.
    #[track_caller]
    fn make_trouble(&mut self, is_last: bool) {
        let (clients, from) = (self.clients, self.clients.now());
        let (mut wrong, mut started): (Vec<Wrong>, Vec<usize>) = (vec![], vec![]);
        for _ in 0..self.rng.random_range(1..=AT_ONCE_MAX) {
            // A split asks every node for its id, so it comes before those that silence nodes.
            let choices: &[Choice] = match wrong.is_empty() {
                true => &[Choice::Split, Choice::Split, Choice::Kill, Choice::Freeze, Choice::Connections],
                false => &[Choice::Kill, Choice::Freeze, Choice::Connections],
            };
            match choices.choose(self.rng).expect("a fault") {
                Choice::Split => wrong.push(self.split()),
                Choice::Kill => wrong.extend(self.kill(&wrong, &mut started)),
                Choice::Freeze => wrong.extend(self.freeze(&wrong)),
                Choice::Connections => wrong.extend(self.spoil_connections(&wrong)),
            }
            self.await_more(10, 60);
        }
        wrong.shuffle(self.rng);
        if self.rng.random_bool(0.5) {
            // Nobody but these few writes comes in between, and what some nodes lack is not there yet.
            let _held = clients.hold();
            wrong.into_iter().for_each(|wrong| self.mend(wrong));
            self.trouble(from, &started);
            self.have_the_last_word();
            self.settle(is_last);
        } else {
            for wrong in wrong {
                self.mend(wrong);
                self.await_more(0, 30);
            }
            self.trouble(from, &started);
            self.await_more(0, 60);
            self.quiet(is_last);
        }
    }

    #[track_caller]
    fn mend(&mut self, wrong: Wrong) {
        match wrong {
            Wrong::Split => self.cluster.unite(),
            Wrong::Down(node) => self.cluster.nodes[node].restart(),
            Wrong::Frozen(node) => self.cluster.nodes[node].resume(),
            Wrong::Bad(node) => self.cluster.fault(node, Fault::Pass),
        }
    }

    fn trouble(&mut self, from: Moment, started: &[usize]) {
        self.troubles.push(Trouble { from, to: self.clients.now(), started: started.iter().copied().collect() });
    }

    /// Into two parts or more.
    fn split(&mut self) -> Wrong {
        let count = self.cluster.nodes.len();
        let mut nodes: Vec<usize> = (0..count).collect();
        nodes.shuffle(self.rng);
        let parts = self.rng.random_range(2..=count.min(3));
        // Each part has one, and the rest falls where it falls.
        let mut sides: Vec<Vec<usize>> = nodes[..parts].iter().map(|node| vec![*node]).collect();
        for node in &nodes[parts..] {
            sides.choose_mut(self.rng).expect("a side").push(*node);
        }
        let sides: Vec<&[usize]> = sides.iter().map(Vec::as_slice).collect();
        self.cluster.split(&sides);
        self.count("split");
        Wrong::Split
    }

    /// A node that runs and is not frozen, and is not the last such.
    fn sound(&mut self, wrong: &[Wrong]) -> Option<usize> {
        let is_silent = |node: &usize| {
            let silent = |wrong: &Wrong| matches!(wrong, Wrong::Down(at) | Wrong::Frozen(at) if at == node);
            wrong.iter().any(silent)
        };
        let sound: Vec<usize> = (0..self.cluster.nodes.len()).filter(|node| !is_silent(node)).collect();
        if sound.len() > 1 { sound.choose(self.rng).copied() } else { None }
    }

    /// One node, or all that are sound, at once.
    fn kill(&mut self, wrong: &[Wrong], started: &mut Vec<usize>) -> Vec<Wrong> {
        let Some(node) = self.sound(wrong) else { return vec![] };
        let all: Vec<usize> = match wrong.is_empty() && self.rng.random_bool(0.2) {
            true => (0..self.cluster.nodes.len()).collect(),
            false => vec![node],
        };
        started.extend(&all);
        for &node in &all {
            self.cluster.nodes[node].kill();
            self.count("kill -9");
        }
        if all.len() > 1 {
            // Nobody would get on without any.
            all.iter().for_each(|&node| self.cluster.nodes[node].relaunch());
            all.iter().for_each(|&node| self.cluster.nodes[node].await_ready());
            return vec![];
        }
        vec![Wrong::Down(node)]
    }

    fn freeze(&mut self, wrong: &[Wrong]) -> Option<Wrong> {
        let node = self.sound(wrong)?;
        self.cluster.nodes[node].pause();
        self.count("SIGSTOP");
        Some(Wrong::Frozen(node))
    }

    fn spoil_connections(&mut self, wrong: &[Wrong]) -> Option<Wrong> {
        let node = self.rng.random_range(0..self.cluster.nodes.len());
        if wrong.iter().any(|wrong| matches!(wrong, Wrong::Bad(at) if *at == node)) {
            return None;
        }
        let way = if self.rng.random_bool(0.5) { Way::ToNode } else { Way::FromNode };
        let fault = match self.rng.random_range(0..5) {
            0 => Fault::Refuse,
            1 => Fault::Hang,
            2 => Fault::BlackHole(way),
            3 => Fault::Delay(Duration::from_millis(self.rng.random_range(10..150))),
            _ => Fault::Cut(way, self.rng.random_range(0..20_000)),
        };
        self.cluster.fault(node, fault);
        self.count("bad connections");
        Some(Wrong::Bad(node))
    }

    /// Holds the clients back until nothing is under way and all owners are equal and whole, and looks what they hold.
    #[track_caller]
    fn quiet(&mut self, is_last: bool) {
        let clients = self.clients;
        let _held = clients.hold();
        self.settle(is_last);
    }

    /// The same once they are held back.
    #[track_caller]
    fn settle(&mut self, is_last: bool) {
        let began = Instant::now();
        eventually("all is quiet", SOON, || {
            if began.elapsed() < LEFTOVERS_GONE {
                return Err("what was begun may still be under way".to_owned());
            }
            for index in 0..self.cluster.nodes.len() {
                let status = self.cluster.client(index).get("/status").expect(200).json();
                let (filling, hints) = (&status["filling"], &status["hints"]["count"]);
                if filling["state"] != "filled" || *hints != 0 {
                    return Err(format!("node {index}: {filling}, {hints} hints"));
                }
            }
            self.cluster.first_difference().map_or(Ok(()), Err)
        });
        self.quiets.push(Quiet { at: self.clients.now(), held: look(self.cluster, &self.keys) });
        if is_last {
            self.clients.stop();
        }
    }

    /// Replaces what clients write blindly, through nodes of which some still lack the last of it.
    #[track_caller]
    fn have_the_last_word(&mut self) {
        let name = format!("word {} on", self.quiets.len());
        self.replace(&[Kind::Blind, Kind::Mixed], &name, false);
    }

    /// Replaces or deletes all keys of these kinds, blindly.
    #[track_caller]
    fn replace(&mut self, kinds: &[Kind], name: &str, deletes: bool) {
        for key in self.keys.iter().filter(|key| kinds.contains(&key.kind)) {
            let node = self.rng.random_range(0..self.cluster.nodes.len());
            self.writes.push(self.clients.replace(self.cluster, node, key, name, deletes));
        }
    }

    /// A node comes back without its disk.
    #[track_caller]
    fn lose_a_disk(&mut self) {
        let node = self.rng.random_range(0..self.cluster.nodes.len());
        self.quiet(false);
        self.replace_disk(node, |data| std::fs::remove_dir_all(data).expect("the node's folder"));
        self.count("disk lost");
    }

    /// Remembers what a node has now, some of which is deleted thereafter.
    #[track_caller]
    fn copy_a_disk(&mut self) {
        let from = self.clients.now();
        let (node, home) =
            (self.rng.random_range(0..self.cluster.nodes.len()), tempfile::tempdir().expect("a folder for the copy"));
        self.cluster.nodes[node].kill();
        copy_folder(self.cluster.nodes[node].data(), home.path());
        self.cluster.nodes[node].restart();
        self.old = Some((node, home));
        self.trouble(from, &[node]);
        self.count("kill -9");
        self.replace(&[Kind::Gone], "delete of", true);
    }

    /// A node comes back with what it had been.
    #[track_caller]
    fn put_an_old_disk_back(&mut self) {
        let Some((node, home)) = self.old.take() else { return };
        self.quiet(false);
        self.announce(node);
        let noticed = |faults: &Faults<'_>| faults.cluster.nodes[node].log().matches("counts for no majority").count();
        let before = noticed(self);
        self.replace_disk(node, |data| {
            std::fs::remove_dir_all(data).expect("the node's folder");
            copy_folder(home.path(), data);
        });
        assert_eq!(noticed(self), before + 1, "it took an old disk for its own");
        self.count("old disk");
    }

    /// Waits until the peers of `node` know that it has written something after its copy was taken.
    #[track_caller]
    fn announce(&mut self, node: usize) {
        let key = self.cluster.key_where("marker", |owners| owners.contains(&node));
        self.cluster.client(node).put(&format!("/kv/{key}?w=3"), "now");
        let listed = self.cluster.client(node).get(&format!("/kv/{key}?siblings=1")).expect(200).json();
        let stamp = listed["siblings"][0]["stamp"].clone();
        let url = format!("http://{}", self.cluster.proxy(node).address());
        for teller in (0..self.cluster.nodes.len()).filter(|teller| *teller != node) {
            eventually("its peers know how far it has come", SOON, || {
                let status = self.cluster.client(teller).get("/status").expect(200).json();
                let members = status["members"].as_array().expect("members");
                let known = members.iter().find(|member| member["url"] == url.as_str()).expect("the node");
                let known = &known["durable_stamp"];
                (known.as_str() >= stamp.as_str()).then_some(()).ok_or(format!("{known} of {stamp}"))
            });
        }
    }

    /// Kills `node` while the clients go on, does this to its folder, and waits until it has been refilled.
    #[track_caller]
    fn replace_disk(&mut self, node: usize, change: impl FnOnce(&std::path::Path)) {
        let healed = self.quiets.last().expect("a quiet moment just now").at;
        self.await_more(0, 80);
        let from = self.clients.now();
        self.cluster.nodes[node].kill();
        self.losses.push(Loss { node, healed, lost: self.clients.now() });
        change(self.cluster.nodes[node].data());
        self.await_more(0, 60);
        self.cluster.nodes[node].relaunch();
        eventually("the node is filled again", SOON, || {
            let mut client = self.cluster.client(node).within(Duration::from_secs(1));
            let status = client.try_send(&Request::new("GET", "/status")).map_err(|error| error.to_string())?.json();
            (status["filling"]["state"] == "filled").then_some(()).ok_or(status["filling"].to_string())
        });
        self.trouble(from, &[node]);
    }
}

/// What every owner of each key holds, and what reads of all of them show through each node.
#[track_caller]
pub fn look(cluster: &Cluster, keys: &[Key]) -> BTreeMap<String, Held> {
    let mut nodes: Vec<_> = (0..cluster.nodes.len()).map(|index| cluster.client(index)).collect();
    let mut of = |key: &Key| {
        let mut held = Held::new();
        let told = nodes[0].get(&format!("/store/key?key={}&explain=1", key.name)).json();
        for owner in told["owners"].as_array().unwrap_or_else(|| panic!("no owners in {told}")) {
            assert_eq!(owner["answered"], true, "{told}");
            let siblings = owner["siblings"].as_array().into_iter().flatten();
            let values = siblings.map(|sibling| sibling["value"].as_str().expect("text").to_owned()).collect();
            held.insert(format!("owner {}", owner["url"]), values);
        }
        for (index, node) in nodes.iter_mut().enumerate() {
            let read = node.get(&format!("/kv/{}?siblings=1&r=3", key.name));
            let shown = if read.status == 404 { BTreeSet::new() } else { values(&read.expect(200)) };
            held.insert(format!("a read through node {index}"), shown);
        }
        held
    };
    keys.iter().map(|key| (key.name.clone(), of(key))).collect()
}
