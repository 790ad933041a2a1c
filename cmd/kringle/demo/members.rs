//! Who there is: nodes that join, die, come back, freeze and leave.

use super::arguments::NODES_MAX;
use super::cluster::{Cluster, Look, Seen, eventually, lost_its_port, not_yet, of_node, remove_folder};
use super::node::{Node, State};
use super::trouble::Trouble;
use kringle::remote::{Ask, Failure};
use serde_json::json;
use std::time::Duration;

/// The longest that data may take to move before a node is in, or out.
const MOVE_LIMIT: Duration = Duration::from_secs(180);

/// How long the others may take to notice that a node is down, before it is given up to have it removed.
const NOTICE_LIMIT: Duration = Duration::from_secs(40);

impl Cluster {
    /// A node joins. When this returns it is a member, what it is to keep has moved to it, and it is read from.
    pub(super) async fn add(&self) -> Result<Seen, Trouble> {
        let _alone = self.changing.lock().await;
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
                Ok(()) => self.settle(members + 1, &[number], MOVE_LIMIT).await,
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
    pub(super) async fn kill(&self, node: &Seen) -> Result<(), Trouble> {
        let _alone = self.changing.lock().await;
        if node.state == State::Dead {
            return Err(wrong(node, "revive it first"));
        }
        self.with(node.number, Node::kill)
    }

    /// A dead node is started again, on its folder and its port. When this returns it is ready.
    pub(super) async fn revive(&self, node: &Seen) -> Result<(), Trouble> {
        let _alone = self.changing.lock().await;
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
    /// that is done, and the node's process and folder are gone.
    pub(super) async fn remove(&self, node: &Seen) -> Result<(), Trouble> {
        let _alone = self.changing.lock().await;
        let others = self.running().into_iter().filter(|other| other.number != node.number);
        let others: Vec<Seen> = others.collect();
        if others.is_empty() {
            return Err(Trouble::LastNode(node.number));
        }
        match node.state {
            State::Paused => return Err(wrong(node, "resume it, so that it can hand over, or kill it")),
            State::Running => drop(of_node(node, Ask::post("/cluster/leave")).await?),
            State::Dead => self.give_up(node, &others[0]).await?,
        }
        eventually(&format!("node {} has handed over and is no member", node.number), MOVE_LIMIT, async || {
            for other in &others {
                if self.numbered(other.number).is_ok_and(|now| now.state != State::Running) {
                    continue;
                }
                let cluster = of_node(other, Ask::get("/cluster")).await.map_err(not_yet)?;
                let is_member = cluster["members"].as_array().is_some_and(|members| {
                    members.iter().any(|member| self.described(member).is_some_and(|seen| seen.number == node.number))
                });
                if is_member || cluster["changing"] == true {
                    return Err(Look::NotYet(format!("by node {} it is one, or hands over", other.number)));
                }
            }
            Ok(())
        })
        .await?;
        self.forget(node.number)
    }

    /// Has a dead member removed by the others, as soon as they have noticed that it is one.
    async fn give_up(&self, node: &Seen, teller: &Seen) -> Result<(), Trouble> {
        let wish = Ask::post("/cluster/remove").json(&json!({ "node": node.url.url() }));
        eventually(&format!("the others let go of node {}", node.number), NOTICE_LIMIT, async || {
            match of_node(teller, wish.clone()).await {
                Ok(_) => Ok(()),
                Err(Failure::Refused { status, error, .. }) if status.as_u16() == 409 => Err(Look::NotYet(error)),
                Err(failure) => Err(Look::Broken(failure.into())),
            }
        })
        .await
    }

    /// How many members the cluster has, whether they run or not.
    async fn member_count(&self) -> Result<usize, Trouble> {
        let cluster = self.ask(Ask::get("/cluster")).await?.json()?;
        Ok(cluster["members"].as_array().map_or(0, Vec::len))
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

fn wrong(node: &Seen, hint: &'static str) -> Trouble {
    Trouble::WrongState { node: node.number, state: node.state, hint }
}
