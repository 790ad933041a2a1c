//! The nodes of the demo together: started, ended, and asked. What they agree on among themselves is theirs; this knows
//! processes, ports and folders, and waits for what the nodes say.
//!
//! Several tasks of one thread use it at the same time, a command of the console and the autoscaler say. Changes of who
//! there is ([`members`](super::members)) exclude one another; everything else may happen at any time.

use super::home::Home;
use super::node::{Node, State};
use super::ports::Ports;
use super::trouble::Trouble;
use kringle::config::PeerUrl;
use kringle::remote::{Answer, Ask, Failure, Remote};
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// The longest that a node may take to answer: more than its own `--timeout`, unless somebody has set a longer one.
const ASK_LIMIT: Duration = Duration::from_secs(20);

/// The longest that a start may take: opening, replaying, meeting the others, on a busy machine.
pub(super) const START_LIMIT: Duration = Duration::from_secs(90);

/// How long nodes with a folder of their own have to stop in order.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// How often a condition is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(50);

/// Starts that are tried where somebody else takes a port between its being found free and the node's listening on it.
const TRIES: usize = 5;

/// A node at one moment.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) number: u32,
    pub(super) port: u16,
    pub(super) url: PeerUrl,
    pub(super) pid: Option<u32>,
    pub(super) state: State,
    pub(super) log: PathBuf,
}

/// See the module.
pub(super) struct Cluster {
    // Before the home: nodes end before their folders go.
    pub(super) nodes: RefCell<BTreeMap<u32, Node>>,
    pub(super) ports: RefCell<Ports>,
    /// The number of the next node; none is used twice.
    pub(super) next_number: RefCell<u32>,
    /// Pairs of nodes that are cut from each other, the lower number first.
    pub(super) cuts: RefCell<BTreeSet<(u32, u32)>>,
    /// Held by whoever changes who is a member.
    pub(super) changing: Mutex<()>,
    /// What the one who holds it does, for those who wait.
    pub(super) under_way: RefCell<String>,
    /// How many times it was changed who is a member.
    pub(super) changes: Cell<u64>,
    flags: Vec<String>,
    home: Home,
}

impl Cluster {
    /// Nobody yet. `flags` are for every node, besides port, folder and peers.
    pub(super) fn new(home: Home, ports: Ports, flags: Vec<String>) -> Cluster {
        Cluster {
            nodes: RefCell::default(),
            ports: RefCell::new(ports),
            next_number: RefCell::new(1),
            cuts: RefCell::default(),
            changing: Mutex::new(()),
            under_way: RefCell::default(),
            changes: Cell::new(0),
            flags,
            home,
        }
    }

    /// The folder that all is in.
    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    /// Starts these nodes and waits until they have agreed on who they are. Those that were here before may have been on
    /// their way out: they are seen off.
    pub(super) async fn start(&self, numbers: &[u32]) -> Result<(), Trouble> {
        let is_new: Vec<bool> = numbers.iter().map(|number| !self.home.of_node(*number).exists()).collect();
        *self.next_number.borrow_mut() = numbers.iter().max().map_or(1, |last| last + 1);
        let mut tried = 1;
        loop {
            for number in numbers {
                let port = self.ports.borrow_mut().free().ok_or(Trouble::NoPort)?;
                let node = Node::new(*number, port, self.home.of_node(*number));
                self.nodes.borrow_mut().insert(*number, node);
            }
            for number in numbers {
                self.launch(*number)?;
            }
            let newcomers: Vec<u32> =
                numbers.iter().zip(&is_new).filter(|(_, is_new)| **is_new).map(|(number, _)| *number).collect();
            let least = newcomers.len().max(1);
            match self.settle(least..=numbers.len(), numbers, &newcomers, START_LIMIT).await {
                Ok(()) if newcomers.len() == numbers.len() => return Ok(()),
                Ok(()) => return self.see_off().await,
                Err(trouble) if lost_its_port(&trouble) && tried < TRIES => tried += 1,
                Err(trouble) => return Err(trouble),
            }
            // Others than those that the others have been told of: all begin again.
            self.nodes.borrow_mut().clear();
            for (number, _) in numbers.iter().zip(&is_new).filter(|(_, is_new)| **is_new) {
                remove_folder(&self.home.of_node(*number))?;
            }
        }
    }

    /// Starts the process of a node that has none, with all others as its peers. It is not ready yet.
    pub(super) fn launch(&self, number: u32) -> Result<(), Trouble> {
        let others = self.seen().into_iter().filter(|other| other.number != number);
        let peers: Vec<String> = others.map(|other| other.url.url().to_owned()).collect();
        let mut flags = self.flags.clone();
        if !peers.is_empty() {
            flags.extend(["--peers".to_owned(), peers.join(",")]);
        }
        let mut nodes = self.nodes.borrow_mut();
        let node = nodes.get_mut(&number).ok_or_else(|| Trouble::NoSuchNode(number.to_string()))?;
        node.launch(&flags).map_err(|error| Trouble::System { what: format!("node {number} cannot be started"), error })
    }

    /// All nodes, in order.
    pub(super) fn seen(&self) -> Vec<Seen> {
        let mut nodes = self.nodes.borrow_mut();
        let seen = nodes.values_mut().map(|node| {
            let state = node.state();
            let (number, port, url, pid, log) = (node.number, node.port, node.url(), node.pid(), node.log());
            Seen { number, port, url, pid, state, log }
        });
        seen.collect()
    }

    /// Those whose process runs.
    pub(super) fn running(&self) -> Vec<Seen> {
        self.seen().into_iter().filter(|node| node.state == State::Running).collect()
    }

    /// The node that somebody calls by its number or its port.
    pub(super) fn called(&self, word: &str) -> Result<Seen, Trouble> {
        let mut seen = self.seen();
        let number = seen.iter().position(|node| node.number.to_string() == word);
        let at = number.or_else(|| seen.iter().position(|node| node.port.to_string() == word));
        at.map(|at| seen.swap_remove(at)).ok_or_else(|| Trouble::NoSuchNode(word.to_owned()))
    }

    /// The node of this number.
    pub(super) fn numbered(&self, number: u32) -> Result<Seen, Trouble> {
        self.seen()
            .into_iter()
            .find(|node| node.number == number)
            .ok_or_else(|| Trouble::NoSuchNode(number.to_string()))
    }

    /// The node that a member's description, as nodes give it, is of.
    pub(super) fn described(&self, member: &Value) -> Option<Seen> {
        let url: PeerUrl = member["url"].as_str()?.parse().ok()?;
        self.seen().into_iter().find(|node| node.url == url)
    }

    /// All that run, as one that can be asked: any node will do.
    pub(super) fn remote(&self) -> Result<Remote, Trouble> {
        let urls: Vec<PeerUrl> = self.running().into_iter().map(|node| node.url).collect();
        if urls.is_empty() { Err(Trouble::NobodyRuns) } else { Ok(Remote::new(urls, ASK_LIMIT)) }
    }

    /// Asks any node that runs; the answer is one of success.
    pub(super) async fn ask(&self, ask: Ask) -> Result<Answer, Trouble> {
        Ok(self.remote()?.ask(&ask).await?.successful()?)
    }

    /// Waits until each member that runs is ready, and all of them go by the same layout, of so many members with no change
    /// under way. One of `needed` that ends meanwhile ends the waiting. The `newcomers` have to be members; others that run
    /// may have left, and are passed over.
    pub(super) async fn settle(
        &self,
        count: RangeInclusive<usize>,
        needed: &[u32],
        newcomers: &[u32],
        limit: Duration,
    ) -> Result<(), Trouble> {
        eventually(&format!("the nodes agree on {} members", count.end()), limit, async || {
            let mut epochs = BTreeSet::new();
            let (running, others): (Vec<Seen>, Vec<Seen>) =
                self.seen().into_iter().partition(|node| node.state == State::Running);
            // Before anybody is asked: those who wait for a dead one only say that they do.
            let is_missed = |node: &&Seen| node.state == State::Dead && needed.contains(&node.number);
            if let Some(dead) = others.iter().find(is_missed) {
                return Err(Look::Broken(self.ended(dead)));
            }
            for node in running {
                let cluster = of_node(&node, Ask::get("/cluster")).await.map_err(not_yet)?;
                let members = cluster["members"].as_array().map_or(0, Vec::len);
                let is_settled = cluster["established"] == true && cluster["changing"] == false;
                if cluster["member"] == false && !newcomers.contains(&node.number) {
                    continue;
                }
                if !count.contains(&members) || !is_settled || cluster["member"] != true {
                    return Err(Look::NotYet(format!(
                        "node {} knows {members}, established {}, changing {}",
                        node.number, cluster["established"], cluster["changing"]
                    )));
                }
                of_node(&node, Ask::get("/readyz")).await.map_err(not_yet)?;
                epochs.insert(cluster["epoch"].as_u64());
            }
            match epochs.len() {
                1 => Ok(()),
                0 if self.running().is_empty() => Err(Look::Broken(Trouble::NobodyRuns)),
                0 => Err(Look::NotYet("no member runs".into())),
                _ => Err(Look::NotYet(format!("epochs {epochs:?}"))),
            }
        })
        .await
    }

    /// Waits until each node that runs goes by this epoch or a later one, and no change is under way.
    pub(super) async fn await_epoch(&self, epoch: u64) -> Result<(), Trouble> {
        eventually(&format!("every node goes by epoch {epoch}"), START_LIMIT, async || {
            for node in self.running() {
                let cluster = of_node(&node, Ask::get("/cluster")).await.map_err(not_yet)?;
                if cluster["epoch"].as_u64() < Some(epoch) || cluster["changing"] == true {
                    return Err(Look::NotYet(format!("node {} goes by {}", node.number, cluster["epoch"])));
                }
            }
            Ok(())
        })
        .await
    }

    /// Waits until a node is ready.
    pub(super) async fn await_ready(&self, number: u32) -> Result<(), Trouble> {
        eventually(&format!("node {number} is ready"), START_LIMIT, async || {
            let node = self.numbered(number).map_err(Look::Broken)?;
            match node.state {
                State::Running => of_node(&node, Ask::get("/readyz")).await.map(drop).map_err(not_yet),
                State::Dead => Err(Look::Broken(self.ended(&node))),
                State::Paused => Err(Look::NotYet("paused".into())),
            }
        })
        .await
    }

    /// That a node has ended, and its last words.
    pub(super) fn ended(&self, node: &Seen) -> Trouble {
        let words = self.nodes.borrow().get(&node.number).map(Node::last_words).unwrap_or_default();
        Trouble::Ended { node: node.number, words, log: node.log.clone() }
    }

    /// Ends all processes: at once where nothing is to be kept, else in order.
    pub(super) async fn stop(&self) {
        if !self.home.is_temporary() {
            self.nodes.borrow_mut().values_mut().for_each(Node::terminate);
            let deadline = Instant::now() + STOP_LIMIT;
            while self.seen().iter().any(|node| node.state != State::Dead) && Instant::now() < deadline {
                tokio::time::sleep(POLL).await;
            }
        }
        self.nodes.borrow_mut().values_mut().for_each(Node::kill);
    }
}

/// Asks one node for JSON.
pub(super) async fn of_node(node: &Seen, ask: Ask) -> Result<Value, Failure> {
    Remote::new(vec![node.url.clone()], ASK_LIMIT).ask(&ask).await?.successful()?.json()
}

/// What a look at something that is waited for has shown.
pub(super) enum Look {
    /// Not yet, but this.
    NotYet(String),
    /// It will never be.
    Broken(Trouble),
}

/// A node that does not answer yet may do so later.
pub(super) fn not_yet(failure: Failure) -> Look {
    Look::NotYet(failure.to_string())
}

/// Looks until there is something, or `limit` has passed.
pub(super) async fn eventually<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<T, Look>,
) -> Result<T, Trouble> {
    let deadline = Instant::now() + limit;
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(Look::Broken(trouble)) => return Err(trouble),
            Err(Look::NotYet(seen)) if Instant::now() >= deadline => {
                return Err(Trouble::Late { what: what.to_owned(), limit, seen });
            }
            Err(Look::NotYet(_)) => tokio::time::sleep(POLL).await,
        }
    }
}

/// Whether a node ended because somebody else listens on its port.
pub(super) fn lost_its_port(trouble: &Trouble) -> bool {
    matches!(trouble, Trouble::Ended { words, .. } if words.contains("cannot listen on"))
}

/// Removes what a node had.
pub(super) fn remove_folder(folder: &Path) -> Result<(), Trouble> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Trouble::System { what: format!("{} cannot be removed", folder.display()), error })
        }
        _ => Ok(()),
    }
}
