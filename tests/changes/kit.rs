//! A town of nodes that come and go.

use super::support::eventually;
use super::support::http::Request;
use super::support::node::{Node, Plan, reserve_port};
use serde_json::{Value, json};
use std::time::Duration;

/// Long enough for a change of owners on a busy machine.
pub const SOON: Duration = Duration::from_secs(60);

/// Peers are found dead, and healed, within seconds.
pub const QUICK: [&str; 6] = ["--timeout", "2", "--pingfreq", "0.3", "--syncfreq", "1"];

/// Nodes that founded a cluster, and those that joined it since.
pub struct Town {
    pub nodes: Vec<Node>,
    flags: Vec<String>,
}

impl Town {
    /// So many nodes that name one another, with a layout of their own.
    #[track_caller]
    pub fn start(count: usize, flags: &[&str]) -> Town {
        let ports: Vec<u16> = (0..count).map(|_| reserve_port()).collect();
        let peers = ports.iter().map(|port| format!("localhost:{port}")).collect::<Vec<_>>().join(",");
        let plan = |port: &u16| Plan::new(flags).port(*port).flag("--peers", &peers);
        let mut nodes: Vec<Node> = ports.iter().map(|port| plan(port).spawn()).collect();
        nodes.iter_mut().for_each(Node::await_ready);
        let town = Town { nodes, flags: flags.iter().map(|flag| (*flag).to_owned()).collect() };
        town.await_members(count);
        town
    }

    /// Starts a node that is told of one member only, and does not wait for anything.
    pub fn newcomer(&self, of: usize) -> Node {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        Plan::new(&flags).port(reserve_port()).flag("--peers", self.nodes[of].address()).start()
    }

    /// Starts a node that joins, and waits until it is a member like any other.
    #[track_caller]
    pub fn grow(&mut self) -> usize {
        let node = self.newcomer(0);
        self.nodes.push(node);
        self.await_members(self.nodes.len());
        self.nodes.len() - 1
    }

    /// Has a node leave, and waits until it is no member any more. It goes on running.
    #[track_caller]
    pub fn let_leave(&mut self, index: usize) -> Node {
        let told = self.nodes[index].client().post("/cluster/leave", &json!({})).expect(200).json();
        let epoch = told["epoch"].as_u64().expect("an epoch");
        let gone = self.nodes.remove(index);
        let left = await_layout(&gone, |cluster| cluster["member"] == json!(false));
        assert!(left["epoch"].as_u64() >= Some(epoch), "{left}");
        self.await_members(self.nodes.len());
        gone
    }

    /// Waits until every node goes by a settled layout of so many members.
    #[track_caller]
    pub fn await_members(&self, count: usize) {
        for node in &self.nodes {
            await_layout(node, |cluster| {
                let members = cluster["members"].as_array().map_or(0, Vec::len);
                members == count && cluster["epoch"] != json!(0) && cluster["changing"] == json!(false)
            });
        }
    }

    /// Waits until no copy lies where it does not belong, and those who share partitions hold the same.
    #[track_caller]
    pub fn await_tidy(&self) {
        eventually("all copies are where they belong, and equal", SOON, || {
            let cluster = layout_of(&self.nodes[0]);
            match (&cluster["transfers"], self.first_difference()) {
                (transfers, None) if *transfers == json!([]) => Ok(()),
                (transfers, difference) => Err(format!("{transfers} {difference:?}")),
            }
        });
    }

    fn first_difference(&self) -> Option<String> {
        let ids: Vec<String> = self.nodes.iter().map(|node| node.id().to_string()).collect();
        let hash = |node: &Node, with: &str| node.get(&format!("/store/hash?with={with}")).json();
        for one in 0..self.nodes.len() {
            for other in 0..one {
                let (left, right) = (hash(&self.nodes[one], &ids[other]), hash(&self.nodes[other], &ids[one]));
                if left != right || left["hash"].is_null() {
                    return Some(format!("{one} and {other}: {left} {right}"));
                }
            }
        }
        None
    }

    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(Node::address).collect()
    }

    /// Keys held by all nodes together, each copy counted.
    pub fn copies(&self) -> u64 {
        self.nodes.iter().map(|node| node.get("/status").expect(200).json()["store"]["keys"].as_u64().unwrap()).sum()
    }

    /// Writes so many keys.
    #[track_caller]
    pub fn fill(&self, keys: usize) {
        let mut clients: Vec<_> = self.nodes.iter().map(Node::client).collect();
        for key in 0..keys {
            let at = key % clients.len();
            // On a busy machine with a short timeout one owner, or none, may be all that took it in time.
            eventually("it is taken", SOON, || {
                let answer = clients[at].put(&format!("/kv/filled-{key}"), format!("value {key}"));
                matches!(answer.status, 201 | 202 | 204).then_some(()).ok_or(answer.to_string())
            });
        }
    }

    /// Reads all of them through this node.
    #[track_caller]
    pub fn assert_filled(&self, node: &Node, keys: usize) {
        let mut client = node.client();
        for key in 0..keys {
            assert_eq!(client.get(&format!("/kv/filled-{key}")).expect(200).text(), format!("value {key}"));
        }
    }
}

/// Starts a node that is told of one member, and waits until it has met the cluster: it joins when it is told to.
#[track_caller]
pub fn guest_of(member: &str) -> Node {
    let guest = Plan::new(&QUICK).flag("--join", "manual").flag("--peers", member).port(reserve_port()).spawn();
    eventually("it has met the cluster", SOON, || {
        match guest.client().try_send(&Request::new("GET", "/cluster")).map(|answer| answer.json()) {
            Ok(cluster) if cluster["member"] == json!(false) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    guest
}

/// What a node says of the layout that it goes by.
#[track_caller]
pub fn layout_of(node: &Node) -> Value {
    node.get("/cluster").expect(200).json()
}

/// Waits until a node goes by such a layout.
#[track_caller]
pub fn await_layout(node: &Node, is_it: impl Fn(&Value) -> bool) -> Value {
    eventually("the layout", SOON, || {
        let cluster = layout_of(node);
        if is_it(&cluster) { Ok(cluster) } else { Err(cluster.to_string()) }
    })
}

/// A PUT of JSON.
pub fn json_put(target: &str, body: &Value) -> Request {
    Request::new("PUT", target).json(body)
}
