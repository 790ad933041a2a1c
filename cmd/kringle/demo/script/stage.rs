//! What scripts are made of: a key with its owners, written and read through real nodes, and the moments to wait for.

use super::checks::Checks;
use super::expectation::expected;
use crate::demo::cluster::{Cluster, Look, Seen, eventually, not_yet, of_node};
use crate::demo::keys::value;
use crate::demo::load::may_surface;
use crate::demo::node::is_gone;
use crate::demo::overview::node_status;
use crate::demo::register::Register;
use crate::demo::trouble::Trouble;
use kringle::placement::Mode;
use kringle::remote::{Answer, Ask, Failure, Remote, query};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::net::TcpStream;

/// The longest that anything in the background may take: a death to be noticed, a copy to arrive.
const SOON: Duration = Duration::from_secs(60);

/// The longest that a request may take; a refusal comes at once where deaths are known.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);

/// A key that a script writes and reads in one mode.
pub(super) struct Subject {
    pub(super) key: String,
    pub(super) mode: Mode,
    /// The numbers of its owners, in the order of preference.
    pub(super) owners: Vec<u32>,
    register: Register,
    turn: u32,
}

impl Subject {
    /// Knows who owns the key. It has to be one that nobody has written.
    pub(super) async fn new(cluster: &Cluster, key: String, mode: Mode) -> Result<Subject, Trouble> {
        let teller = any(cluster)?;
        let owners = owners(cluster, &teller, &key).await?;
        Ok(Subject { key, mode, owners, register: Register::default(), turn: 0 })
    }

    /// Which of the owners live.
    fn lives(&self, cluster: &Cluster) -> Vec<bool> {
        let running: BTreeSet<u32> = cluster.running().iter().map(|node| node.number).collect();
        self.owners.iter().map(|owner| running.contains(owner)).collect()
    }

    /// A write through a node that runs, of a value that was never written, answers what its mode owes.
    pub(super) async fn write<W: Write>(&mut self, cluster: &Cluster, checks: &mut Checks<W>) -> Result<(), Trouble> {
        let is_new = !self.register.is_known();
        let expected = expected(self.mode, &self.lives(cluster)).write;
        // The first one makes the key.
        let expected = if is_new && expected == 204 { 201 } else { expected };
        let via = any(cluster)?;
        self.turn += 1;
        let text = format!("{} {}", self.key, self.turn);
        let found = self.put(&via, &text).await;
        let what = format!("{}: a write through node {} answers {expected}", self.mode, via.number);
        checks.check(&what, same(found, expected));
        Ok(())
    }

    async fn put(&mut self, via: &Seen, text: &str) -> Result<Answer, Failure> {
        let path = format!("{}?mode={}", value(&self.key), self.mode);
        let done = remote(via).ask(&Ask::put(path).body(text.to_owned())).await;
        match done.clone().and_then(Answer::successful) {
            Ok(_) => self.register.acknowledge(text),
            Err(failure) if may_surface(&failure) => self.register.doubt(text),
            Err(_) => {}
        }
        done
    }

    /// A read through each node that runs answers what its mode owes, and shows what was written last.
    pub(super) async fn read<W: Write>(&mut self, cluster: &Cluster, checks: &mut Checks<W>) -> Result<(), Trouble> {
        let expected = expected(self.mode, &self.lives(cluster)).read;
        let path = format!("{}?mode={}", value(&self.key), self.mode);
        // One owner answers, and may not have it yet: the mode promises no more than that it will.
        let patience = if self.mode == Mode::Async { SOON } else { Duration::ZERO };
        let mut found = Ok(());
        for via in cluster.running() {
            let seen = eventually("it answers so", patience, async || {
                let answer = remote(&via).ask(&Ask::get(path.clone())).await;
                let text = answer.as_ref().map(|answer| String::from_utf8_lossy(&answer.body).into_owned());
                match (same(answer.clone(), expected), text) {
                    (Ok(()), Ok(text)) if expected == 200 => self.register.read(Some(&text), self.mode.agrees()),
                    (seen, _) => seen,
                }
                .map_err(Look::NotYet)
            });
            let seen = seen.await.map_err(|trouble| match trouble {
                Trouble::Late { seen, .. } => seen,
                trouble => trouble.to_string(),
            });
            found = found.and(seen.map_err(|why| format!("node {}: {why}", via.number)));
        }
        let shows = match self.mode {
            _ if expected != 200 => "",
            Mode::Async => " with what was written last, in time",
            _ => " with what was written last",
        };
        checks.check(&format!("{}: a read through any node answers {expected}{shows}", self.mode), found);
        Ok(())
    }

    /// Every owner that runs gets to hold the same, and it is what was written last.
    pub(super) async fn repaired<W: Write>(&mut self, cluster: &Cluster, checks: &mut Checks<W>) {
        let what = format!("{}: every living owner holds what was written last", self.mode);
        let same = eventually(&what, SOON, async || {
            let mut copies = BTreeSet::new();
            for owner in cluster.running().iter().filter(|node| self.owners.contains(&node.number)) {
                copies.insert(held(owner, &self.key).await.map_err(not_yet)?);
            }
            let read = |copy: &Option<String>| self.register.clone().read(copy.as_deref(), false);
            match copies.first() {
                Some(copy) if copies.len() == 1 => read(copy).map_err(Look::NotYet),
                _ => Err(Look::NotYet(format!("{copies:?}"))),
            }
        });
        let found = same.await.map_err(|trouble| trouble.to_string());
        checks.check(&what, found);
    }
}

/// A node that runs. Any will do; this is the one with the highest number.
pub(super) fn any(cluster: &Cluster) -> Result<Seen, Trouble> {
    cluster.running().pop().ok_or(Trouble::NobodyRuns)
}

/// One node, to be asked.
pub(super) fn remote(node: &Seen) -> Remote {
    Remote::new(vec![node.url.clone()], REQUEST_LIMIT)
}

/// Whether a node answered so; if not, what it did.
pub(super) fn same(found: Result<Answer, Failure>, expected: u16) -> Result<(), String> {
    let answer = found.map_err(|failure| failure.to_string())?;
    match answer.status.as_u16() {
        status if status == expected => Ok(()),
        status => Err(format!("it answers {status} {}", String::from_utf8_lossy(&answer.body))),
    }
}

/// Whether a key's owners are called so by a node; their numbers, in the order of preference.
pub(super) async fn owners(cluster: &Cluster, teller: &Seen, key: &str) -> Result<Vec<u32>, Trouble> {
    let place = of_node(teller, Ask::get(query("/ring", [("key", key.as_bytes())]))).await?;
    let owners = place["owners"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(owners.iter().filter_map(|owner| cluster.described(owner)).map(|node| node.number).collect())
}

/// What a node itself holds of a key.
pub(super) async fn held(node: &Seen, key: &str) -> Result<Option<String>, Failure> {
    let answer = remote(node).ask(&Ask::get(value(key) + "?local=1")).await?;
    match answer.status.as_u16() {
        404 => Ok(None),
        _ => Ok(Some(String::from_utf8_lossy(&answer.successful()?.body).into_owned())),
    }
}

/// Kills a node and waits until all that live have noticed; that it is dead is checked.
pub(super) async fn kill<W: Write>(cluster: &Cluster, number: u32, checks: &mut Checks<W>) -> Result<(), Trouble> {
    let node = cluster.numbered(number)?;
    cluster.kill(&node)?;
    let pid = node.pid.ok_or_else(|| Trouble::NoSuchNode(number.to_string()))?;
    // One that hangs answers nothing either, and is not dead.
    let dead = match TcpStream::connect((Ipv4Addr::LOCALHOST, node.port)).await {
        _ if !is_gone(pid) => Err("the process is there".into()),
        Ok(_) => Err("its port takes connections".into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    checks.check(&format!("node {number}, process {pid}, is dead"), dead);
    await_noticed(cluster).await
}

/// Starts dead nodes again, and waits until everybody has noticed.
pub(super) async fn revive<W: Write>(
    cluster: &Cluster,
    numbers: &[u32],
    checks: &mut Checks<W>,
) -> Result<(), Trouble> {
    for number in numbers {
        let done = cluster.revive(&cluster.numbered(*number)?).await;
        checks.check(&format!("node {number} is back, and ready"), done.map_err(|trouble| trouble.to_string()));
    }
    await_noticed(cluster).await
}

/// Waits until every node that runs takes those for alive that run, and no others.
pub(super) async fn await_noticed(cluster: &Cluster) -> Result<(), Trouble> {
    let running: BTreeSet<u32> = cluster.running().iter().map(|node| node.number).collect();
    eventually("who lives and who does not is known to all", SOON, async || {
        for node in cluster.running() {
            let status = node_status(&node).await.map_err(not_yet)?;
            let Some(members) = status["members"].as_array().filter(|members| !members.is_empty()) else {
                return Err(Look::NotYet(format!("node {} names no members", node.number)));
            };
            let wrong = members.iter().filter_map(|member| Some((cluster.described(member)?, &member["state"])));
            let wrong =
                wrong.filter(|(seen, state)| **state != if running.contains(&seen.number) { "alive" } else { "down" });
            let wrong: Vec<String> = wrong.map(|(seen, state)| format!("{} {state}", seen.number)).collect();
            if !wrong.is_empty() {
                return Err(Look::NotYet(format!("node {} takes {} for it", node.number, wrong.join(", "))));
            }
        }
        Ok(())
    })
    .await
}

/// Hints that all nodes that run keep for others.
pub(super) async fn hints(cluster: &Cluster) -> Result<u64, Failure> {
    let mut count = 0;
    for node in cluster.running() {
        let status: Value = node_status(&node).await?;
        let why = || Failure::Garbled { from: node.url.url().to_owned(), why: "no number of hints".into() };
        count += status["hints"]["count"].as_u64().ok_or_else(why)?;
    }
    Ok(count)
}

/// Waits until no hints are left: all were handed over.
pub(super) async fn hints_are_gone<W: Write>(cluster: &Cluster, checks: &mut Checks<W>) {
    let what = "every hint has been handed over";
    let gone = eventually(what, SOON, async || match hints(cluster).await.map_err(not_yet)? {
        0 => Ok(()),
        left => Err(Look::NotYet(format!("{left} are left"))),
    });
    let found = gone.await.map_err(|trouble| trouble.to_string());
    checks.check(what, found);
}

/// The share of all copies that a node keeps, from 0 to 1.
pub(super) async fn share(cluster: &Cluster, node: &Seen) -> Result<f64, Trouble> {
    let ring = cluster.ask(Ask::get("/ring")).await?.json()?;
    let members = ring["members"].as_array().map(Vec::as_slice).unwrap_or_default();
    let own = members.iter().find(|member| cluster.described(member).is_some_and(|seen| seen.number == node.number));
    Ok(own.and_then(|member| member["share"].as_f64()).unwrap_or_default())
}
