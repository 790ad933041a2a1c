//! Who is alive, as real nodes see it: how soon a dead or hung one is noticed, and how they find each other again.

mod support;

use kringle::placement::NodeId;
use kringle::protocol::{Answer, PACKETS_MAX, Reply, Request as PeerRequest};
use kringle::record::Stamp;
use rand::Rng;
use serde_json::Value;
use std::time::{Duration, Instant};
use support::cluster::Cluster;
use support::http::Client;
use support::node::Node;
use support::proxy::{Fault, Way};
use support::{eventually, peer, seeded, thorough};

/// Sessions keep out of the way.
const QUIET: [&str; 3] = ["--memory", "--syncfreq", "3600"];

/// What node `seer` says of the member called so.
fn member(cluster: &Cluster, seer: usize, name: &str) -> Value {
    let status = cluster.client(seer).get("/status").expect(200).json();
    let members = status["members"].as_array().expect("members");
    members.iter().find(|member| member["name"] == name).unwrap_or_else(|| panic!("no {name} in {status}")).clone()
}

/// The nodes' names in the layout.
fn names(cluster: &Cluster) -> Vec<String> {
    let name =
        |node: &Node| node.get("/status").expect(200).json()["node"]["name"].as_str().expect("a name").to_owned();
    cluster.nodes.iter().map(name).collect()
}

fn state(cluster: &Cluster, seer: usize, name: &str) -> String {
    member(cluster, seer, name)["state"].as_str().expect("a state").to_owned()
}

/// Waits until all of `seers` say so of `name`; how long after `since` that was.
fn await_state(cluster: &Cluster, seers: &[usize], name: &str, wanted: &[&str], since: Instant) -> Duration {
    eventually(&format!("{name} is {wanted:?}"), Duration::from_secs(30), || {
        let states: Vec<String> = seers.iter().map(|&seer| state(cluster, seer, name)).collect();
        states.iter().all(|state| wanted.contains(&state.as_str())).then_some(()).ok_or(format!("{states:?}"))
    });
    since.elapsed()
}

/// How often a node's log says this.
fn said(node: &Node, text: &str) -> usize {
    node.log().lines().filter(|line| line.contains(text)).count()
}

#[test]
fn a_killed_or_frozen_node_is_suspected_within_three_seconds_and_down_within_eight() {
    for frozen in [false, true] {
        let mut cluster = Cluster::start(3, &QUIET);
        let names = names(&cluster);
        for seer in 0..2 {
            // Heard, so that its life is known; in the middle of a ping period like any other.
            eventually("it was heard", Duration::from_secs(10), || {
                member(&cluster, seer, &names[2])["last_seen_ms"].as_u64().ok_or("not yet".into())
            });
        }
        let since = Instant::now();
        if frozen {
            cluster.nodes[2].pause()
        } else {
            cluster.nodes[2].kill()
        }
        let suspected = await_state(&cluster, &[0, 1], &names[2], &["suspect", "down"], since);
        let down = await_state(&cluster, &[0, 1], &names[2], &["down"], since);
        assert!(suspected <= Duration::from_secs(3), "frozen: {frozen}: suspected after {suspected:?}");
        assert!(down <= Duration::from_secs(8), "frozen: {frozen}: down after {down:?}");
        eprintln!("frozen: {frozen}: suspected after {suspected:?}, down after {down:?}");
        for seer in 0..2 {
            let node = &cluster.nodes[seer];
            for change in ["suspect", "down"] {
                assert_eq!(said(node, &format!("{} is {change}", names[2])), 1, "one line: {}", node.log());
            }
            assert_eq!(state(&cluster, seer, &names[1 - seer]), "alive");
        }
        if frozen {
            cluster.nodes[2].resume()
        } else {
            cluster.nodes[2].restart()
        }
        await_state(&cluster, &[0, 1], &names[2], &["alive"], Instant::now());
        for peer in &names[..2] {
            await_state(&cluster, &[2], peer, &["alive"], Instant::now());
        }
    }
}

/// A process that stands still so long, once in every [`TURN`], is busy and not dead: a collector that stops the world, a
/// machine that swaps.
const STANDSTILL: Duration = Duration::from_secs(1);
const TURN: Duration = Duration::from_secs(10);

/// What a node says of anybody, "name is state", for all that are not alive.
fn ill_spoken_of(client: &mut Client) -> Vec<String> {
    let status = client.get("/status").expect(200).json();
    let ill = status["members"].as_array().expect("members").iter().filter(|member| member["state"] != "alive");
    ill.map(|member| format!("{} is {}", member["name"], member["state"])).collect()
}

#[test]
fn nobody_is_called_down_while_each_in_turn_stands_still_for_a_second() {
    let turns = if thorough() { 60 } else { 4 };
    let cluster = Cluster::start(5, &["--memory"]);
    assert_eq!(said(&cluster.nodes[0], "pings every 1 s, timeout 5 s"), 1, "as nodes are by default");
    let mut clients: Vec<Client> = (0..5).map(|index| cluster.client(index)).collect();
    eventually("all are alive to all", Duration::from_secs(20), || {
        let ill: Vec<_> = clients.iter_mut().flat_map(ill_spoken_of).collect();
        ill.is_empty().then_some(()).ok_or(format!("{ill:?}"))
    });
    let lines = |text: &str| cluster.nodes.iter().map(|node| said(node, text)).sum::<usize>();
    let before = lines(" is suspect");
    for turn in 0..turns {
        let (began, still) = (Instant::now(), turn % 5);
        let mut look = |until: Duration, seers: &[usize]| {
            let mut by_turns = seers.iter().cycle();
            eventually("the time is over", 2 * TURN, || {
                let seer = *by_turns.next().expect("it has no end");
                let ill = ill_spoken_of(&mut clients[seer]);
                assert!(!ill.iter().any(|line| line.contains("down")), "{still} stood still, to {seer}: {ill:?}");
                (began.elapsed() >= until).then_some(()).ok_or("not yet".into())
            });
        };
        let others: Vec<usize> = (0..5).filter(|&seer| seer != still).collect();
        cluster.nodes[still].pause();
        look(STANDSTILL, &others);
        cluster.nodes[still].resume();
        look(TURN, &[0, 1, 2, 3, 4]);
    }
    eprintln!("{turns} standstills, each seen by four: {} suspicions", lines(" is suspect") - before);
    assert_eq!(lines(" is down"), 0, "between two looks");
}

#[test]
fn a_node_that_is_down_is_described_with_its_last_word_and_the_last_error() {
    let mut cluster = Cluster::start(2, &[&QUIET[..], &["--pingfreq", "0.2"]].concat());
    let names = names(&cluster);
    let before = eventually("it was heard", Duration::from_secs(10), || {
        member(&cluster, 0, &names[1])["last_seen_ms"].as_u64().ok_or("not yet".into())
    });
    cluster.nodes[1].kill();
    await_state(&cluster, &[0], &names[1], &["down"], Instant::now());
    let told = member(&cluster, 0, &names[1]);
    assert!(told["last_seen_ms"].as_u64() >= Some(before), "{told}");
    assert!(told["last_error"].as_str().is_some_and(|error| !error.is_empty()), "{told}");
    cluster.nodes[1].restart();
    await_state(&cluster, &[0], &names[1], &["alive"], Instant::now());
    let told = eventually("it is heard again", Duration::from_secs(10), || {
        let told = member(&cluster, 0, &names[1]);
        (told["last_error"] == Value::Null).then_some(told.clone()).ok_or(told.to_string())
    });
    assert!(told["last_seen_ms"].as_u64() > Some(before), "{told}");
}

#[test]
fn a_split_three_ways_heals_by_itself() {
    let cluster = Cluster::behind_proxies(3, &[&QUIET[..], &["--pingfreq", "0.2", "--timeout", "1"]].concat());
    let names = names(&cluster);
    for fault in [Fault::Hang, Fault::Refuse] {
        (0..3).for_each(|index| cluster.fault(index, fault));
        for seer in 0..3 {
            for other in (0..3).filter(|&other| other != seer) {
                await_state(&cluster, &[seer], &names[other], &["down"], Instant::now());
            }
        }
        // Everybody is alone, and writes all the same.
        for index in 0..3 {
            cluster.client(index).put(&format!("/kv/{fault:?}-{index}"), "v").expect(202);
        }
        (0..3).for_each(|index| cluster.fault(index, Fault::Pass));
        for seer in 0..3 {
            for other in (0..3).filter(|&other| other != seer) {
                await_state(&cluster, &[seer], &names[other], &["alive"], Instant::now());
            }
        }
        eventually("what each wrote is everywhere", Duration::from_secs(20), || {
            let missing =
                (0..9).filter(|at| cluster.held_by(at / 3, &format!("{fault:?}-{}", at % 3)).is_none()).count();
            (missing == 0).then_some(()).ok_or(format!("{missing} copies are missing"))
        });
    }
}

#[test]
fn a_node_whose_peers_start_later_finds_them() {
    let mut cluster = Cluster::start(3, &[&QUIET[..], &["--pingfreq", "0.2", "--timeout", "1"]].concat());
    let names = names(&cluster);
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes[0].restart();
    for name in &names[1..] {
        await_state(&cluster, &[0], name, &["down"], Instant::now());
    }
    cluster.nodes[1].restart();
    cluster.nodes[2].restart();
    for (seer, name) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
        await_state(&cluster, &[seer], &names[name], &["alive"], Instant::now());
    }
}

#[test]
fn a_quiet_pair_says_little() {
    let cluster = Cluster::behind_proxies(2, &QUIET);
    let names = names(&cluster);
    eventually("both were heard", Duration::from_secs(10), || {
        let heard = [(0, 1), (1, 0)].map(|(seer, name)| state(&cluster, seer, &names[name]) == "alive");
        (cluster.proxy(0).bytes(Way::FromNode) > 0 && heard == [true; 2]).then_some(()).ok_or("not yet".into())
    });
    let bytes = || cluster.proxy(0).bytes(Way::ToNode) + cluster.proxy(0).bytes(Way::FromNode);
    let (before, connections, since) = (bytes(), cluster.proxy(0).connections(), Instant::now());
    // Ten pings of node 0 by node 1, about.
    eventually("ten seconds have passed", Duration::from_secs(20), || {
        (since.elapsed() >= Duration::from_secs(10)).then_some(()).ok_or("not yet".into())
    });
    let each_second = (bytes() - before) as f64 / since.elapsed().as_secs_f64();
    eprintln!("{each_second:.0} bytes a second, HTTP included");
    assert!(each_second > 100.0, "they do ping: {each_second}");
    assert!(each_second < 1_000.0, "{each_second} bytes a second");
    assert_eq!(cluster.proxy(0).connections(), connections, "they are kept");
}

/// A peer's request to `/ping`, as a node of this cluster would send it.
fn post_ping(node: &Node, requests: Vec<PeerRequest>) -> Reply {
    let request = peer::post("/ping", NodeId(7), Stamp(1), requests);
    Reply::decode(&node.client().send(&request).expect(200).body).expect("a reply").0
}

#[test]
fn an_empty_ping_is_answered_and_gossip_that_is_none_changes_nothing() {
    let cluster = Cluster::start(2, &QUIET);
    let node = &cluster.nodes[0];
    assert_eq!(node.get("/ping").expect(200).json()["message"], "pong");
    assert_eq!(post_ping(node, vec![]).answers, Ok(vec![]));
    let mut rng = seeded("gossip that is none");
    for _ in 0..200 {
        let mut noise = || {
            let length = rng.random_range(0..300);
            (0..length).map(|_| rng.random()).collect::<Vec<u8>>()
        };
        let packets = (0..PACKETS_MAX).map(|_| noise()).collect();
        let reply = post_ping(node, vec![PeerRequest::Gossip { packets }]);
        assert_eq!(reply.answers, Ok(vec![Answer::Gossip { packets: vec![] }]));
    }
    assert_eq!(cluster.client(0).get("/ring").json()["members"].as_array().map(Vec::len), Some(2));
    assert_eq!(state(&cluster, 0, &names(&cluster)[1]), "alive");
    assert_eq!(node.get("/ping").expect(200).json()["message"], "pong");
}
