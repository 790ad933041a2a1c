//! Several nodes that name each other, each optionally behind a [`Proxy`] that its peers have to go through.

use super::eventually;
use super::http::{Client, encode};
use super::node::{Node, Plan, reserve_port};
use super::proxy::{Fault, Proxy};
use kringle::placement::NodeId;
use serde_json::Value;
use std::time::Duration;

/// Long enough for detection, hints and several sessions on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Nodes in the order of their start. Clients reach them directly, peers through the proxies where there are.
#[derive(Debug)]
pub struct Cluster {
    pub nodes: Vec<Node>,
    proxies: Vec<Proxy>,
}

impl Cluster {
    /// `count` nodes with these flags besides ports, peers and folders, ready and in agreement on who belongs.
    #[track_caller]
    pub fn start(count: usize, flags: &[&str]) -> Cluster {
        Cluster::assemble(count, flags, false)
    }

    /// The same with every node advertising a proxy's address, so that the test owns the network between them.
    #[track_caller]
    pub fn behind_proxies(count: usize, flags: &[&str]) -> Cluster {
        Cluster::assemble(count, flags, true)
    }

    #[track_caller]
    fn assemble(count: usize, flags: &[&str], proxied: bool) -> Cluster {
        let ports: Vec<u16> = (0..count).map(|_| reserve_port()).collect();
        let proxies: Vec<Proxy> = match proxied {
            true => ports.iter().map(|port| Proxy::before(&format!("127.0.0.1:{port}"))).collect(),
            false => vec![],
        };
        let url = |index: usize| match proxied {
            true => format!("http://{}", proxies[index].address()),
            false => format!("http://127.0.0.1:{}", ports[index]),
        };
        let plan = |index: usize| {
            let others: Vec<String> = (0..count).filter(|other| *other != index).map(url).collect();
            let plan = Plan::new(flags).port(ports[index]).flag("--peers", others.join(","));
            if proxied { plan.flag("--advertise", url(index)) } else { plan }
        };
        let mut nodes: Vec<Node> = (0..count).map(|index| plan(index).spawn()).collect();
        nodes.iter_mut().for_each(Node::await_ready);
        let cluster = Cluster { nodes, proxies };
        cluster.await_members(count);
        cluster
    }

    /// Waits until every node goes by a layout of `count` members that they have agreed on.
    #[track_caller]
    fn await_members(&self, count: usize) {
        for node in &self.nodes {
            eventually("the members have agreed on who they are", Duration::from_secs(20), || {
                let ring = node.get("/ring").json();
                match (ring["members"].as_array().map_or(0, Vec::len), ring["epoch"].as_u64()) {
                    (members, Some(1..)) if members == count => Ok(()),
                    (members, epoch) => Err(format!("{members} of {count}, epoch {epoch:?} on port {}", node.port())),
                }
            });
        }
    }

    pub fn client(&self, index: usize) -> Client {
        self.nodes[index].client()
    }

    /// What happens from now on to everything the others send to node `index`, and to its answers.
    pub fn fault(&self, index: usize, fault: Fault) {
        self.proxies[index].set(fault);
    }

    /// Lets nodes reach those of their own side only. A cluster behind proxies; every node on one side.
    pub fn split(&self, sides: &[&[usize]]) {
        let ids: Vec<NodeId> = self.nodes.iter().map(Node::id).collect();
        for (index, proxy) in self.proxies.iter().enumerate() {
            let side = sides.iter().find(|side| side.contains(&index)).expect("every node is on a side");
            proxy.admit_only(Some(side.iter().map(|near| ids[*near]).collect()));
        }
    }

    /// Ends a split.
    pub fn unite(&self) {
        self.proxies.iter().for_each(|proxy| proxy.admit_only(None));
    }

    /// Waits until every node of each side counts those of its side as alive and no others.
    #[track_caller]
    pub fn await_gone(&self, sides: &[&[usize]]) {
        eventually("those cut off are known to be gone", SOON, || {
            let alive = |index: usize| {
                let members = self.client(index).get("/status").expect(200).json()["members"].to_string();
                members.matches(r#""state":"alive""#).count()
            };
            let wrong = sides.iter().flat_map(|side| side.iter().map(|index| (*index, alive(*index), side.len())));
            let wrong: Vec<_> = wrong.filter(|(_, counted, wanted)| counted != wanted).collect();
            wrong.is_empty().then_some(()).ok_or(format!("node, counted, wanted: {wrong:?}"))
        });
    }

    /// The first two nodes whose digests of what both keep are not equal, and those; nothing where all are.
    pub fn first_difference(&self) -> Option<String> {
        let members: Vec<String> = self.nodes.iter().map(|node| node.id().to_string()).collect();
        let pairs = (0..self.nodes.len()).flat_map(|one| (0..one).map(move |other| (one, other)));
        let hash =
            |index: usize, with: usize| self.client(index).get(&format!("/store/hash?with={}", members[with])).json();
        pairs.into_iter().find_map(|(one, other)| {
            let (left, right) = (hash(one, other), hash(other, one));
            (left != right || left["hash"].is_null()).then(|| format!("{one} and {other}: {left} {right}"))
        })
    }

    pub fn proxy(&self, index: usize) -> &Proxy {
        &self.proxies[index]
    }

    /// The nodes that own `key`, in the order of preference, as any node tells it.
    #[track_caller]
    pub fn owners(&self, key: &str) -> Vec<usize> {
        self.owners_as_told_by(self.living(), key)
    }

    #[track_caller]
    pub fn owners_as_told_by(&self, teller: usize, key: &str) -> Vec<usize> {
        let mut client = self.client(teller);
        let members = client.get("/ring").expect(200).json()["members"].as_array().expect("members").clone();
        let place = client.get(&format!("/ring?key={}", encode(key))).expect(200).json();
        let owners = place["owners"].as_array().unwrap_or_else(|| panic!("no owners in {place}"));
        owners.iter().map(|owner| self.index_of(&member(&members, owner))).collect()
    }

    /// The first key of the form `{prefix}{n}` whose owners please `wanted`.
    #[track_caller]
    pub fn key_where(&self, prefix: &str, wanted: impl Fn(&[usize]) -> bool) -> String {
        (0..10_000)
            .map(|n| format!("{prefix}{n}"))
            .find(|key| wanted(&self.owners(key)))
            .expect("among 10,000 keys one with such owners")
    }

    /// `?local=1`: what this node itself holds under `key`, if anything.
    #[track_caller]
    pub fn held_by(&self, index: usize, key: &str) -> Option<Value> {
        let answer = self.client(index).get(&format!("/store/key?key={}&local=1", encode(key)));
        assert!(answer.status < 500, "a local read fails: {answer}");
        (answer.status == 200).then(|| answer.json()["value"].clone())
    }

    /// A node that runs and is not frozen or cut off, as far as the kit has been told.
    fn living(&self) -> usize {
        let answers = |node: &Node| {
            node.client().within(Duration::from_secs(5)).try_send(&super::http::Request::new("GET", "/ping")).is_ok()
        };
        self.nodes.iter().position(answers).expect("a living node")
    }

    fn index_of(&self, url: &str) -> usize {
        let address = url.trim_start_matches("http://").trim_end_matches('/');
        let found = match self.proxies.is_empty() {
            true => self.nodes.iter().position(|node| node.address() == address),
            false => self.proxies.iter().position(|proxy| proxy.address() == address),
        };
        found.unwrap_or_else(|| panic!("{url} is no node of this cluster"))
    }
}

/// The URL of a member that the ring names by id, name or URL, or describes in an object.
fn member(members: &[Value], owner: &Value) -> String {
    let names = |value: &Value| ["id", "name", "url"].map(|field| value[field].clone());
    let same = |candidate: &&Value| match owner.is_object() {
        true => names(candidate).iter().zip(&names(owner)).any(|(a, b)| a == b && !a.is_null()),
        false => names(candidate).contains(owner),
    };
    let found = members.iter().find(same).unwrap_or_else(|| panic!("{owner} is none of {members:?}"));
    found["url"].as_str().expect("a member's url").to_owned()
}
