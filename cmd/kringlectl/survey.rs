//! What all nodes of a cluster say of themselves, asked at the same time, and what to think of it.

use crate::exit::{Exit, Failed};
use crate::show::counted;
use kringle::config::PeerUrl;
use kringle::remote::{Answer, Ask, Failure, Remote};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::task::JoinHandle;

/// The longest that one node may take to tell how it is. One that hangs must not keep the others from being shown.
const ONE_NODE_MAX: Duration = Duration::from_secs(3);

/// A cluster as one of its nodes sees it, and each node as it sees itself.
pub struct Survey {
    /// What `/cluster` says.
    pub cluster: Value,
    /// The URL of the node that said it.
    pub from: String,
    /// Its members, in its order; and itself first where it is none.
    pub nodes: Vec<Node>,
    /// Where each of these is asked.
    pub addresses: Vec<PeerUrl>,
}

/// One node.
pub struct Node {
    /// What `/cluster` says of the member; only its `url` where it is none.
    pub member: Value,
    /// What it says of itself, or why it does not.
    pub status: Result<Value, String>,
    /// Whether clients should be sent there, and each check by name.
    pub ready: Result<Value, String>,
}

/// Waits for all of them.
pub async fn all<T>(tasks: Vec<JoinHandle<T>>) -> Vec<T> {
    let mut done = Vec::with_capacity(tasks.len());
    for task in tasks {
        done.push(task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())));
    }
    done
}

/// The members that `/cluster` lists.
pub fn members_of(cluster: &Value) -> Vec<PeerUrl> {
    let members = cluster["members"].as_array().into_iter().flatten();
    members.filter_map(|member| member["url"].as_str()?.parse().ok()).collect()
}

/// The member with this id, name or URL, and its URL.
pub fn member_called<'a>(cluster: &'a Value, text: &str) -> Result<(&'a Value, PeerUrl), Failed> {
    let as_url = text.parse::<PeerUrl>().ok();
    let is_it = |member: &&Value| {
        let is_url = |name: &str| {
            as_url.is_some() && member[name].as_str().and_then(|url| url.parse::<PeerUrl>().ok()) == as_url
        };
        member["id"] == text || member["name"] == text || is_url("url") || is_url("name")
    };
    let members = cluster["members"].as_array();
    let found = members.into_iter().flatten().find(is_it);
    let url = found.and_then(|member| member["url"].as_str()?.parse().ok());
    match (found, url) {
        (Some(member), Some(url)) => Ok((member, url)),
        _ => {
            let urls: Vec<&str> = members.into_iter().flatten().filter_map(|member| member["url"].as_str()).collect();
            let hint = format!("give a member's id, name or URL: {}", urls.join(", "));
            Err(Failed::usage(format!("no member is called {text}")).hint(hint))
        }
    }
}

/// Where each member is asked: at its URL, or, where that is not for outsiders, at the endpoint that turns out to be it.
pub async fn addresses(remote: &Remote, timeout: Duration, cluster: &Value) -> Vec<(Value, PeerUrl)> {
    let members = cluster["members"].as_array().into_iter().flatten();
    let mut known: Vec<(Value, PeerUrl)> =
        members.filter_map(|member| Some((member["id"].clone(), member["url"].as_str()?.parse().ok()?))).collect();
    let is_strange = |endpoint: &&PeerUrl| known.iter().all(|(_, url)| url != *endpoint);
    let strange: Vec<PeerUrl> = remote.endpoints().iter().filter(is_strange).cloned().collect();
    let said = each(remote, timeout, &strange, "/ping").await;
    for (endpoint, said) in strange.into_iter().zip(said) {
        let id = said.and_then(|answer| answer.json()).map(|pong| pong["node"].clone()).unwrap_or_default();
        known
            .iter_mut()
            .filter(|(known, _)| !id.is_null() && *known == id)
            .for_each(|(_, url)| *url = endpoint.clone());
    }
    known
}

/// Asks each of these nodes the same, at the same time, for as long as one may take.
pub async fn each(remote: &Remote, timeout: Duration, nodes: &[PeerUrl], path: &str) -> Vec<Result<Answer, Failure>> {
    let one = |node: &PeerUrl| {
        let node = remote.only(node).within(timeout.min(ONE_NODE_MAX));
        let ask = Ask::get(path);
        tokio::task::spawn_local(async move { node.ask(&ask).await })
    };
    all(nodes.iter().map(one).collect()).await
}

impl Survey {
    /// Asks a node who belongs to the cluster, and then each of those.
    pub async fn take(remote: &Remote, timeout: Duration) -> Result<Survey, Failure> {
        let answer = remote.ask(&Ask::get("/cluster")).await?.successful()?;
        let (from, cluster) = (answer.from.clone(), answer.object()?);
        let mut members: Vec<Value> = cluster["members"].as_array().cloned().unwrap_or_default();
        if cluster["member"] == json!(false) {
            members.insert(0, json!({ "url": from, "role": "none" }));
        }
        members.retain(|member| member["url"].as_str().is_some_and(|url| url.parse::<PeerUrl>().is_ok()));
        let mut listed = cluster.clone();
        listed["members"] = json!(members);
        let known = addresses(remote, timeout, &listed).await;
        let known: Vec<PeerUrl> = known.into_iter().map(|(_, url)| url).collect();
        let statuses = each(remote, timeout, &known, "/status");
        let ready = each(remote, timeout, &known, "/readyz?verbose");
        let (statuses, ready) = tokio::join!(statuses, ready);
        let nodes = members.into_iter().zip(statuses).zip(ready);
        let nodes = nodes.map(|((member, status), ready)| Node {
            member,
            status: status.and_then(Answer::successful).and_then(|answer| answer.json()).map_err(why),
            // A node that is not ready says so with 503, and why.
            ready: ready.and_then(|answer| answer.json()).map_err(why),
        });
        let nodes = nodes.collect();
        Ok(Survey { cluster, from, nodes, addresses: known })
    }

    /// How the cluster is, and what is wrong with it, a sentence each.
    pub fn verdict(&self) -> (Exit, Vec<String>) {
        let mut wrong = Vec::new();
        if self.cluster["established"] == json!(false) {
            let awaited: Vec<&str> =
                self.cluster["awaiting"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            if !awaited.is_empty() {
                wrong.push(format!("the cluster is not established: {} still to agree", awaited.join(", ")));
            }
        }
        wrong.extend(self.nodes.iter().filter_map(Node::complaint));
        let serving = self.nodes.iter().filter(|node| node.is_ready()).count();
        let agrees = matches!(self.cluster["mode"].as_str(), Some("quorum" | "sync" | "chain"));
        let exit = match wrong.is_empty() {
            true => Exit::Ok,
            false if serving == 0 || agrees && serving * 2 <= self.nodes.len() => Exit::Unavailable,
            false => Exit::Degraded,
        };
        (exit, wrong)
    }

    /// One word for the verdict.
    pub fn word(exit: Exit) -> &'static str {
        match exit {
            Exit::Ok => "healthy",
            Exit::Degraded => "degraded",
            _ => "down",
        }
    }

    /// What the cluster goes by, in a line.
    pub fn summary(&self) -> String {
        let cluster = &self.cluster;
        let changing = if cluster["changing"] == json!(true) { ", owners are changing" } else { "" };
        let text = |name: &str| cluster[name].as_str().unwrap_or("?").to_owned();
        format!(
            "mode {}, {}, epoch {}, {}{changing}",
            text("mode"),
            counted(cluster["replicas"].as_u64().unwrap_or_default(), "replica"),
            cluster["epoch"],
            counted(self.nodes.len() as u64, "node")
        )
    }
}

impl Node {
    /// Its URL.
    pub fn url(&self) -> &str {
        self.member["url"].as_str().unwrap_or_default()
    }

    /// Whether clients should be sent there.
    pub fn is_ready(&self) -> bool {
        self.ready.as_ref().is_ok_and(|ready| ready["ready"] == json!(true))
    }

    /// What is wrong with it, if anything.
    pub fn complaint(&self) -> Option<String> {
        let (url, state) = (self.url(), self.member["state"].as_str().unwrap_or("alive"));
        let ready = match &self.ready {
            Err(why) if state != "alive" => return Some(format!("{url} is {state}: {why}")),
            Err(why) => return Some(format!("{url} does not answer: {why}")),
            Ok(ready) => ready,
        };
        if !self.is_ready() {
            let checks = ready["checks"].as_object().into_iter().flatten();
            let said: Vec<&str> = checks.filter_map(|(_, said)| said.as_str()).filter(|said| !is_fine(said)).collect();
            return Some(format!("{url} is not ready: {}", said.join("; ")));
        }
        if state != "alive" {
            return Some(format!("{url} answers, but its peers hold it for {state}"));
        }
        match self.status.as_ref().map(|status| status["filling"]["state"].as_str().unwrap_or("filled")) {
            Ok("filled") | Err(_) => None,
            Ok(filling) => Some(format!("{url} is {filling}: it lacks data that its peers have")),
        }
    }

    /// How it is, in a word.
    pub fn state(&self) -> &str {
        match self.member["state"].as_str() {
            Some("alive") if self.ready.is_err() => "silent",
            Some("alive") if !self.is_ready() => "not ready",
            Some(state) => state,
            None => "no member",
        }
    }

    /// A field of what it says of itself; null where it says nothing.
    pub fn said(&self, pointer: &str) -> Value {
        self.status.as_ref().ok().and_then(|status| status.pointer(pointer)).cloned().unwrap_or_default()
    }

    /// Its own clock, in milliseconds since 1970, as it lists itself among the members.
    fn now_ms(&self) -> Option<u64> {
        let status = self.status.as_ref().ok()?;
        let own = &status["node"]["name"];
        let members = status["members"].as_array()?;
        members.iter().find(|member| member["name"] == *own)?["last_seen_ms"].as_u64()
    }

    /// How long ago its last session ended well, in milliseconds; `None` where there was none.
    pub fn since_sync_ms(&self) -> Option<u64> {
        let last = self.status.as_ref().ok()?.pointer("/sync/last")?.as_array()?;
        let well = last.iter().filter(|account| account["failed"].is_null());
        let ended = well.filter_map(|account| Some(account["at_ms"].as_u64()? + account["ms"].as_u64()?)).max()?;
        Some(self.now_ms()?.saturating_sub(ended))
    }
}

/// Whether a check of `/readyz` says that nothing keeps clients away: the answer has the words alone.
pub fn is_fine(said: &str) -> bool {
    matches!(said, "ok" | "filled" | "filling" | "not established yet") || said.starts_with("epoch ")
}

fn why(failure: Failure) -> String {
    match failure {
        Failure::Unreachable { tried } => tried.into_iter().map(|(_, why)| why).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(state: &str, ready: Result<Value, String>) -> Node {
        Node { member: json!({ "url": "http://n:1", "state": state }), status: Err("silent".into()), ready }
    }

    fn of(mode: &str, nodes: Vec<Node>) -> Survey {
        let cluster = json!({ "mode": mode, "established": true, "epoch": 1, "replicas": 3 });
        Survey { cluster, from: "http://n:1".into(), nodes, addresses: vec![] }
    }

    #[test]
    fn one_node_of_three_that_is_down_is_less_than_healthy_and_two_are_down_where_a_majority_must_agree() {
        let (up, down) = (|| node("alive", Ok(json!({ "ready": true }))), || node("down", Err("gone".into())));
        assert_eq!(of("quorum", vec![up(), up(), up()]).verdict(), (Exit::Ok, vec![]));
        assert_eq!(of("quorum", vec![up(), up(), down()]).verdict().0, Exit::Degraded);
        assert_eq!(of("quorum", vec![up(), down(), down()]).verdict().0, Exit::Unavailable);
        assert_eq!(of("sloppy", vec![up(), down(), down()]).verdict().0, Exit::Degraded);
        assert_eq!(of("sloppy", vec![down(), down(), down()]).verdict().0, Exit::Unavailable);
    }

    #[test]
    fn a_node_that_is_not_ready_says_why() {
        let full = json!({ "ready": false, "checks": { "store": "read-only: no space", "member": "epoch 1" } });
        let (exit, wrong) = of("sloppy", vec![node("alive", Ok(full))]).verdict();
        assert_eq!(exit, Exit::Unavailable);
        assert!(wrong[0].ends_with("not ready: read-only: no space"), "{wrong:?}");
    }
}
