//! Nodes that live elsewhere than they did, and nodes that DNS names.

use super::kit::{self, QUICK, Town, await_layout, layout_of};
use super::support::eventually;
use super::support::node::{Node, Plan, reserve_port};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const KEYS: usize = 60;

/// Waits until the nodes go by one settled layout that has them all, each where it is.
#[track_caller]
fn await_all_found(nodes: &[Node]) {
    let urls: BTreeSet<String> = nodes.iter().map(|node| format!("http://{}", node.address())).collect();
    for node in nodes {
        await_layout(node, |cluster| {
            let members = cluster["members"].as_array().unwrap();
            let at: BTreeSet<String> = members.iter().map(|member| member["url"].as_str().unwrap().into()).collect();
            let are_alive = members.iter().all(|member| member["state"] == json!("alive"));
            at == urls && are_alive && cluster["changing"] == json!(false) && cluster["epoch"] != json!(0)
        });
    }
}

#[track_caller]
fn move_all(town: &mut Town, ports: &[u16], known: usize) {
    let cluster = layout_of(&town.nodes[0])["cluster_id"].clone();
    let ids: Vec<_> = town.nodes.iter().map(Node::id).collect();
    town.nodes.iter_mut().for_each(Node::kill);
    let address = format!("localhost:{}", ports[known]);
    for (node, port) in town.nodes.iter_mut().zip(ports) {
        node.replan(|plan| plan.port(*port).flag("--peers", &address));
        node.relaunch();
    }
    town.nodes.iter_mut().for_each(Node::await_ready);
    await_all_found(&town.nodes);
    assert_eq!(town.nodes.iter().map(Node::id).collect::<Vec<_>>(), ids);
    assert!(town.nodes.iter().all(|node| layout_of(node)["cluster_id"] == cluster));
}

#[test]
fn all_addresses_may_change_at_once_where_each_is_told_of_one() {
    let mut town = Town::start(5, &QUICK);
    town.fill(KEYS);
    let ports: Vec<u16> = (0..5).map(|_| reserve_port()).collect();
    move_all(&mut town, &ports, 3);
    for node in &town.nodes {
        town.assert_filled(node, KEYS);
        let put = node.put("/kv/after?mode=quorum", "the move");
        assert!(matches!(put.status, 201 | 204), "{put}");
    }
}

#[test]
fn members_that_exchange_their_addresses_are_told_apart() {
    let mut town = Town::start(3, &QUICK);
    town.fill(KEYS);
    let old: Vec<u16> = town.nodes.iter().map(Node::port).collect();
    let ports = [old[1], old[2], old[0]];
    move_all(&mut town, &ports, 0);
    for node in &town.nodes {
        town.assert_filled(node, KEYS);
        let put = node.put("/kv/after?mode=sync", "the exchange");
        assert!(matches!(put.status, 201 | 204), "{put}");
    }
    town.await_tidy();
}

/// Their names are the very addresses at which others live then.
#[test]
fn members_that_are_called_by_their_addresses_may_exchange_them() {
    let port = reserve_port();
    let host = |at: usize| format!("127.0.78.{}", at % 3 + 1);
    let peers = (0..3).map(|at| format!("{}:{port}", host(at))).collect::<Vec<_>>().join(",");
    let plan = |at: usize| Plan::new(&QUICK).port(port).flag("--host", host(at)).flag("--peers", &peers);
    let mut nodes: Vec<Node> = (0..3).map(|at| plan(at).spawn()).collect();
    nodes.iter_mut().for_each(Node::await_ready);
    await_all_found(&nodes);
    nodes[0].put("/kv/k?mode=sync", "before").expect(201);
    let ids: Vec<_> = nodes.iter().map(Node::id).collect();
    nodes.iter_mut().for_each(Node::kill);
    for (at, node) in nodes.iter_mut().enumerate() {
        node.replan(|plan| plan.flag("--host", host(at + 1)));
        node.relaunch();
    }
    nodes.iter_mut().for_each(Node::await_ready);
    await_all_found(&nodes);
    assert_eq!(nodes.iter().map(Node::id).collect::<Vec<_>>(), ids);
    for node in &nodes {
        assert_eq!(node.get("/kv/k?mode=sync").expect(200).text(), "before");
    }
}

// ---- names that DNS knows

const NAME: &str = "nodes.kringle.test";

/// Nodes for which a file says what the name stands for. They are all of one port, each on a loopback address of its own.
struct Named {
    home: tempfile::TempDir,
    port: u16,
    nodes: Vec<Node>,
}

impl Named {
    /// Nothing where this machine lets nobody have a file of hosts of his own.
    fn new() -> Option<Named> {
        let able = Command::new("unshare").args(["--mount", "sh", "-c", "mount --bind /etc/hosts /etc/hosts"]).output();
        if !able.is_ok_and(|output| output.status.success()) {
            // Past the test harness, which keeps what a passing test prints.
            let _ = writeln!(std::io::stderr(), "skipped: no mount namespaces");
            return None;
        }
        let home = tempfile::TempDir::new().unwrap();
        let named = Named { home, port: reserve_port(), nodes: Vec::new() };
        named.name(&[]);
        Some(named)
    }

    fn address(at: usize) -> String {
        format!("127.0.77.{}", at + 1)
    }

    fn hosts(&self) -> std::path::PathBuf {
        self.home.path().join("hosts")
    }

    /// From now on the name stands for these.
    fn name(&self, at: &[usize]) {
        let lines: String = at.iter().map(|at| format!("{} {NAME}\n", Named::address(*at))).collect();
        // In place: the file itself is what the nodes see.
        std::fs::write(self.hosts(), format!("127.0.0.1 localhost\n{lines}")).unwrap();
    }

    fn spawn(&mut self, at: usize, peers: &str, replicas: usize) {
        let hosts: &Path = &self.hosts();
        let script = format!("mount --bind {} /etc/hosts && exec \"$@\"", hosts.display());
        let plan = Plan::new(&QUICK)
            .under(["unshare", "--mount", "sh", "-c", &script, "sh"])
            .port(self.port)
            .flag("--host", Named::address(at))
            .flag("--replicas", replicas)
            .flag("--peers", peers);
        self.nodes.push(plan.spawn());
    }

    fn lookup(&self) -> String {
        format!("dns+http://{NAME}:{}", self.port)
    }
}

fn awaiting(node: &Node) -> Result<Value, String> {
    let request = super::support::http::Request::new("GET", "/cluster");
    node.client().try_send(&request).map(|answer| answer.json()["awaiting"].clone()).map_err(|error| error.to_string())
}

#[test]
fn those_that_dns_names_found_a_cluster_and_those_that_it_names_later_join() {
    let Some(mut named) = Named::new() else { return };
    let lookup = named.lookup();
    named.spawn(0, &lookup, 3);
    eventually("it waits for the name", kit::SOON, || match awaiting(&named.nodes[0])? {
        awaited if awaited == json!([lookup]) => Ok(()),
        other => Err(other.to_string()),
    });
    named.nodes[0].put("/kv/k?mode=quorum", "v").refusal(503);
    // One of them is not there yet: nobody goes on without it.
    named.name(&[0, 1, 2]);
    named.spawn(1, &lookup, 3);
    let absent = format!("http://{}:{}", Named::address(2), named.port);
    eventually("the two wait for the third", kit::SOON, || {
        let awaited = [awaiting(&named.nodes[0])?, awaiting(&named.nodes[1])?];
        if awaited.iter().all(|awaited| *awaited == json!([absent])) { Ok(()) } else { Err(format!("{awaited:?}")) }
    });
    named.spawn(2, &lookup, 3);
    named.nodes.iter_mut().for_each(Node::await_ready);
    await_all_found(&named.nodes);
    assert_eq!(layout_of(&named.nodes[0])["epoch"], json!(1));
    for key in 0..KEYS {
        named.nodes[key % 3].put(&format!("/kv/{key}?mode=quorum"), "v").expect(201);
    }

    named.name(&[2, 3, 4]);
    named.spawn(3, &lookup, 3);
    named.spawn(4, &lookup, 3);
    named.nodes.iter_mut().for_each(Node::await_ready);
    await_all_found(&named.nodes);
    for key in 0..KEYS {
        assert_eq!(named.nodes[3].get(&format!("/kv/{key}?mode=quorum")).expect(200).text(), "v");
    }
    // Nobody needs the name any more.
    named.name(&[]);
    named.nodes[4].kill();
    named.nodes[4].restart();
    await_all_found(&named.nodes);
}

#[test]
fn as_many_as_keep_a_key_found_a_cluster_once_that_has_lasted() {
    let Some(mut named) = Named::new() else { return };
    named.name(&[0]);
    let lookup = named.lookup();
    named.spawn(0, &lookup, 2);
    eventually("it waits for a second", kit::SOON, || match awaiting(&named.nodes[0])? {
        awaited if awaited == json!([format!("{lookup} to name 2 nodes, as many as --replicas")]) => Ok(()),
        other => Err(other.to_string()),
    });
    named.name(&[0, 1]);
    named.spawn(1, &lookup, 2);
    let began = std::time::Instant::now();
    named.nodes.iter_mut().for_each(Node::await_ready);
    let early = layout_of(&named.nodes[0]);
    if began.elapsed() < Duration::from_secs(4) {
        assert_eq!(early["epoch"], json!(0), "another may come into DNS any moment: {early}");
    }
    await_layout(&named.nodes[0], |cluster| cluster["epoch"] == json!(1));
    await_all_found(&named.nodes);
}
