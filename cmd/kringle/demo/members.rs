//! Who there is: nodes that join, die, come back, freeze and leave.

use super::arguments::NODES_MAX;
use super::cluster::{Cluster, Look, Seen, eventually, lost_its_port, not_yet, of_node, remove_folder};
use super::console::talk;
use super::node::{Node, State};
use super::trouble::Trouble;
use kringle::remote::{Ask, Failure};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::MutexGuard;

/// The longest that data may take to move before a node is in, or out.
const MOVE_LIMIT: Duration = Duration::from_secs(180);

/// How long a node that was started again may take to ask the others to take it in, and be taken in, before it is taken
/// for one that has left.
const JOIN_LIMIT: Duration = Duration::from_secs(20);

/// How long the others may take to notice that a node is down, before it is given up to have it removed.
const NOTICE_LIMIT: Duration = Duration::from_secs(40);

/// Who has this changes who is a member, and nobody else does.
struct Alone<'a> {
    cluster: &'a Cluster,
    _turn: MutexGuard<'a, ()>,
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.cluster.changes.set(self.cluster.changes.get() + 1);
        self.cluster.under_way.borrow_mut().clear();
    }
}

impl Cluster {
    /// How many times it was changed who is a member, or tried: whoever has counted before that has to count again.
    pub(super) fn changes(&self) -> u64 {
        self.changes.get()
    }

    /// Waits until nobody else changes who is a member; whoever looks on is told what is waited for.
    async fn alone(&self, what: String) -> Alone<'_> {
        let turn = match self.changing.try_lock() {
            Ok(turn) => turn,
            Err(_) => {
                talk(&format!("{what} waits: {} is under way", self.under_way.borrow()));
                self.changing.lock().await
            }
        };
        *self.under_way.borrow_mut() = what;
        Alone { cluster: self, _turn: turn }
    }

    /// A node joins. When this returns it is a member, what it is to keep has moved to it, and it is read from.
    pub(super) async fn add(&self) -> Result<Seen, Trouble> {
        let _alone = self.alone("adding a node".into()).await;
        self.grow().await
    }

    /// The same for whoever decided it on what there was after so many changes: nothing, where there was another one since,
    /// or there are `most` nodes by now.
    pub(super) async fn add_as_of(&self, changes: u64, most: usize) -> Option<Result<Seen, Trouble>> {
        let alone = self.alone("adding a node".into()).await;
        if self.changes() != changes || self.seen().len() >= most {
            return None;
        }
        let added = self.grow().await;
        drop(alone);
        Some(added)
    }

    async fn grow(&self) -> Result<Seen, Trouble> {
        if self.seen().len() >= NODES_MAX as usize {
            return Err(Trouble::TooMany(NODES_MAX));
        }
        let members = self.member_count().await?;
        let number = self.next_number.replace_with(|next| *next + 1);
        loop {
            let port = self.ports.borrow_mut().free().ok_or(Trouble::NoPort)?;
            let node = Node::new(number, port, self.home().of_node(number));
            self.nodes.borrow_mut().insert(number, node);
            let joined = match self.launch(number) {
                Ok(()) => self.settle(members + 1..=members + 1, &[number], &[number], MOVE_LIMIT).await,
                Err(trouble) => Err(trouble),
            };
            match joined {
                Ok(()) => return self.numbered(number),
                // It may come about yet, so the node is not taken away.
                Err(late @ Trouble::Late { .. }) => return Err(late),
                Err(trouble) => {
                    self.forget(number)?;
                    if !lost_its_port(&trouble) {
                        return Err(trouble);
                    }
                }
            }
        }
    }

    /// SIGKILL.
    pub(super) fn kill(&self, node: &Seen) -> Result<(), Trouble> {
        if node.state == State::Dead {
            return Err(wrong(node, "revive it first"));
        }
        self.with(node.number, Node::kill)
    }

    /// A dead node is started again, on its folder and its port. When this returns it is ready. It waits for nobody who
    /// changes who is a member: that may be waiting for this very node.
    pub(super) async fn revive(&self, node: &Seen) -> Result<(), Trouble> {
        if node.state != State::Dead {
            return Err(wrong(node, if node.state == State::Paused { "resume it" } else { "there is nothing to do" }));
        }
        self.launch(node.number)?;
        self.await_ready(node.number).await?;
        // It remembers no cuts.
        if self.is_cut(node.number) { self.tell_cuts(&[node.number]).await } else { Ok(()) }
    }

    /// SIGSTOP.
    pub(super) fn pause(&self, node: &Seen) -> Result<(), Trouble> {
        match node.state {
            State::Running => self.with(node.number, Node::pause),
            State::Paused => Err(wrong(node, "there is nothing to do")),
            State::Dead => Err(wrong(node, "revive it first")),
        }
    }

    /// SIGCONT.
    pub(super) async fn resume(&self, node: &Seen) -> Result<(), Trouble> {
        match node.state {
            State::Paused => {
                self.with(node.number, Node::resume)?;
                // What was cut or healed meanwhile it has not heard.
                self.tell_cuts(&[node.number]).await
            }
            State::Running => Err(wrong(node, "there is nothing to resume")),
            State::Dead => Err(wrong(node, "revive it")),
        }
    }

    /// A node leaves: one that runs hands over what it keeps, of a dead one the others make new copies. When this returns
    /// that is done, and the node's process and folder are gone. One that is no member any more just goes, so what was
    /// late or broken off can be asked for again.
    pub(super) async fn remove(&self, node: &Seen) -> Result<(), Trouble> {
        let _alone = self.alone(format!("removing node {}", node.number)).await;
        // It may have been killed, or have gone, while others had their turn.
        self.shrink(&self.numbered(node.number)?).await
    }

    /// The same for whoever decided it on what there was after so many changes: nothing, where there was another one since,
    /// or there are only `least` nodes by now.
    pub(super) async fn remove_as_of(&self, changes: u64, least: usize, node: &Seen) -> Option<Result<(), Trouble>> {
        let alone = self.alone(format!("removing node {}", node.number)).await;
        if self.changes() != changes || self.seen().len() <= least {
            return None;
        }
        let removed = match self.numbered(node.number) {
            Ok(node) => self.shrink(&node).await,
            Err(trouble) => Err(trouble),
        };
        drop(alone);
        Some(removed)
    }

    async fn shrink(&self, node: &Seen) -> Result<(), Trouble> {
        let others = self.running().into_iter().filter(|other| other.number != node.number);
        let others: Vec<Seen> = others.collect();
        if others.is_empty() {
            return Err(Trouble::LastNode(node.number));
        }
        match node.state {
            State::Paused => return Err(wrong(node, "resume it, so that it can hand over, or kill it")),
            State::Running => self.have_leave(node).await?,
            State::Dead => self.give_up(node, &others).await?,
        }
        eventually(&format!("node {} has handed over and is no member", node.number), MOVE_LIMIT, async || {
            let mut told = 0;
            for other in &others {
                if self.numbered(other.number).is_ok_and(|now| now.state != State::Running) {
                    continue;
                }
                let cluster = of_node(other, Ask::get("/cluster")).await.map_err(not_yet)?;
                // One that has left itself does not hear of it.
                if cluster["member"] == false {
                    continue;
                }
                if self.is_listed(&cluster, node) || cluster["changing"] == true {
                    return Err(Look::NotYet(format!("by node {} it is one, or hands over", other.number)));
                }
                told += 1;
            }
            if told > 0 { Ok(()) } else { Err(Look::NotYet("no other member runs".into())) }
        })
        .await?;
        self.forget(node.number)
    }

    /// Has a member that runs begin to leave. Whether a request was carried out that brought no answer, the node knows.
    async fn have_leave(&self, node: &Seen) -> Result<(), Trouble> {
        // Whoever starts it again is to know, should this not come to its end.
        self.home().mark_leaving(node.number, true).map_err(|error| unmarked(node, error))?;
        let what = format!("node {} begins to leave", node.number);
        let left = eventually(&what, NOTICE_LIMIT, async || {
            if self.numbered(node.number).map_err(Look::Broken)?.state == State::Dead {
                return Err(Look::Broken(self.ended(node)));
            }
            let cluster = of_node(node, Ask::get("/cluster")).await.map_err(not_yet)?;
            let members = cluster["members"].as_array().map(Vec::as_slice).unwrap_or_default();
            let is_own = |member: &&Value| self.described(member).is_some_and(|seen| seen.number == node.number);
            let is_leaving = members.iter().find(is_own).is_some_and(|own| own["role"] == "leaving");
            if cluster["member"] == false || is_leaving {
                return Ok(());
            }
            match of_node(node, Ask::post("/cluster/leave")).await {
                Ok(_) => Ok(()),
                Err(failure @ Failure::Refused { .. }) => Err(Look::Broken(failure.into())),
                Err(failure) => Err(not_yet(failure)),
            }
        });
        let left = left.await;
        if let Err(Trouble::Asked(Failure::Refused { .. })) = left {
            self.home().mark_leaving(node.number, false).map_err(|error| unmarked(node, error))?;
        }
        left
    }

    /// Has a dead member removed by the others, as soon as they have noticed that it is one. There is nothing to do where
    /// none of them takes it for a member.
    async fn give_up(&self, node: &Seen, others: &[Seen]) -> Result<(), Trouble> {
        let wish = Ask::post("/cluster/remove").json(&json!({ "node": node.url.url() }));
        eventually(&format!("the others let go of node {}", node.number), NOTICE_LIMIT, async || {
            let mut why = "no other member runs".to_owned();
            for other in others {
                let cluster = of_node(other, Ask::get("/cluster")).await;
                let Ok(cluster) = cluster.map_err(|failure| why = failure.to_string()) else { continue };
                if cluster["member"] == false {
                    continue;
                }
                if !self.is_listed(&cluster, node) {
                    return Ok(());
                }
                return match of_node(other, wish.clone()).await {
                    Ok(_) => Ok(()),
                    Err(Failure::Refused { status, error, .. }) if status.as_u16() == 409 => Err(Look::NotYet(error)),
                    Err(failure @ Failure::Refused { .. }) => Err(Look::Broken(failure.into())),
                    Err(failure) => Err(not_yet(failure)),
                };
            }
            Err(Look::NotYet(why))
        })
        .await
    }

    /// Ends what was broken off the last time: nodes that were on their way out go for good. To be called when all that
    /// there are have settled. Those that are no members though nobody here had them leave are told of, and stay.
    pub(super) async fn see_off(&self) -> Result<(), Trouble> {
        for node in self.running() {
            if self.home().is_leaving(node.number) {
                talk(&format!("Node {} was on its way out: it goes", node.number));
                if let Err(trouble) = self.remove(&node).await {
                    // The others do without, and the next time may be a better one.
                    talk(&format!("Node {} is still there: {trouble}", node.number));
                }
            }
        }
        let everybody = self.running();
        let numbers: Vec<u32> = everybody.iter().map(|node| node.number).collect();
        // One that was on its way in gets there by itself.
        match self.settle(numbers.len()..=numbers.len(), &numbers, &numbers, JOIN_LIMIT).await {
            Err(Trouble::Late { .. }) => {
                for node in everybody {
                    if of_node(&node, Ask::get("/cluster")).await.is_ok_and(|cluster| cluster["member"] == false) {
                        talk(&format!("Node {0} is no member so far: remove {0} takes it away", node.number));
                    }
                }
                Ok(())
            }
            settled => settled,
        }
    }

    /// Whether a node is a member by what another one says.
    fn is_listed(&self, cluster: &Value, node: &Seen) -> bool {
        let members = cluster["members"].as_array().map(Vec::as_slice).unwrap_or_default();
        members.iter().any(|member| self.described(member).is_some_and(|seen| seen.number == node.number))
    }

    /// How many members the cluster has, whether they run or not, as a member says.
    async fn member_count(&self) -> Result<usize, Trouble> {
        let mut failed = Trouble::NobodyRuns;
        for node in self.running() {
            match of_node(&node, Ask::get("/cluster")).await {
                Ok(cluster) if cluster["member"] == true => {
                    return Ok(cluster["members"].as_array().map_or(0, Vec::len));
                }
                // One that has left does not hear who came after.
                Ok(_) => {}
                Err(failure) => failed = failure.into(),
            }
        }
        Err(failed)
    }

    /// Ends a node's process, and with it goes all that there was of it.
    fn forget(&self, number: u32) -> Result<(), Trouble> {
        let gone = self.nodes.borrow_mut().remove(&number);
        self.cuts.borrow_mut().retain(|(one, other)| *one != number && *other != number);
        match gone {
            None => Ok(()),
            Some(mut node) => {
                node.kill();
                remove_folder(node.folder())
            }
        }
    }

    fn with(&self, number: u32, change: impl FnOnce(&mut Node)) -> Result<(), Trouble> {
        let mut nodes = self.nodes.borrow_mut();
        let node = nodes.get_mut(&number).ok_or_else(|| Trouble::NoSuchNode(number.to_string()))?;
        change(node);
        Ok(())
    }
}

fn unmarked(node: &Seen, error: std::io::Error) -> Trouble {
    Trouble::System { what: format!("it cannot be kept that node {} is to leave", node.number), error }
}

fn wrong(node: &Seen, hint: &'static str) -> Trouble {
    Trouble::WrongState { node: node.number, state: node.state, hint }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::home::Home;
    use crate::demo::ports::Ports;

    #[test]
    fn what_was_decided_on_other_nodes_than_there_are_is_not_done() {
        kringle::remote::block_on(async {
            let cluster = Cluster::new(Home::make(None).unwrap(), Ports::from(8001), vec![]);
            cluster.nodes.borrow_mut().insert(1, Node::new(1, 8001, cluster.home().of_node(1)));
            let node = cluster.numbered(1).unwrap();
            assert!(cluster.add_as_of(cluster.changes(), 1).await.is_none(), "more than the most");
            assert!(cluster.remove_as_of(cluster.changes(), 1, &node).await.is_none(), "less than the least");
            let before = cluster.changes();
            // A node that nobody hears, so nobody lets it join; but it was tried.
            assert!(cluster.add().await.is_err());
            assert!(cluster.add_as_of(before, 9).await.is_none(), "somebody else's change was passed over");
            assert_eq!(cluster.seen().len(), 1);
        });
    }
}
