//! Copies become equal again by themselves, by sending only what differs; and a quiet cluster stays quiet.

use crate::support;

use kringle::placement::NodeId;
use kringle::protocol::{Answer, MemberTag, Refusal, Reply, Request as PeerRequest, SyncAnswer, SyncRequest};
use kringle::record::Stamp;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use support::cluster::Cluster;
use support::http::Request;
use support::proxy::Way;
use support::{eventually, peer};

/// Long enough for several sessions on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// Sessions only when they are asked for, but for one with each peer shortly after the start.
const RARELY: [&str; 2] = ["--syncfreq", "3600"];

/// Keeps a pair on one node alone.
#[track_caller]
fn plant(cluster: &Cluster, index: usize, key: &str, value: &str) {
    let pair = json!({"key": key, "value": value}).to_string();
    let kept = cluster.client(index).send(&Request::new("POST", "/replicate").body(pair)).expect(200).json();
    assert_eq!(kept["applied"], 1, "{kept}");
}

fn sync_status(cluster: &Cluster, index: usize) -> Value {
    cluster.client(index).get("/status").expect(200).json()["sync"].clone()
}

fn hashes(cluster: &Cluster) -> Vec<Value> {
    (0..cluster.nodes.len()).map(|index| cluster.client(index).get("/store/hash").json()).collect()
}

#[track_caller]
fn await_equal(cluster: &Cluster, keys: u64) {
    eventually("all hashes are equal", SOON, || {
        let hashes = hashes(cluster);
        let equal = hashes.iter().all(|told| *told == hashes[0] && told["keys"] == keys);
        equal.then_some(()).ok_or(format!("{hashes:?}"))
    });
}

/// Waits until every node has compared itself with every other after the start.
#[track_caller]
fn await_first_sessions(cluster: &Cluster) {
    eventually("the sessions after the start are over", SOON, || {
        let sessions: Vec<u64> = (0..cluster.nodes.len())
            .map(|index| sync_status(cluster, index)["sessions"].as_u64().unwrap_or(0))
            .collect();
        let all = sessions.iter().all(|count| *count >= cluster.nodes.len() as u64 - 1);
        all.then_some(()).ok_or(format!("{sessions:?}"))
    });
}

#[track_caller]
fn sync(cluster: &Cluster, index: usize, with: &str) -> Value {
    let answer = cluster.client(index).send(&Request::new("POST", format!("/sync?with={with}"))).expect(200).json();
    assert_eq!(answer["done"], true, "{answer}");
    assert_eq!(answer["reports"].as_array().map(Vec::len), Some(1), "{answer}");
    answer["reports"][0].clone()
}

fn url(cluster: &Cluster, index: usize) -> String {
    format!("http://{}", cluster.nodes[index].address())
}

#[track_caller]
fn assert_nothing_for_nothing(cluster: &Cluster) {
    for index in 0..cluster.nodes.len() {
        let status = sync_status(cluster, index);
        assert_eq!((&status["noop"], &status["refused"]), (&json!(0), &json!(0)), "node {index}: {status}");
    }
}

#[test]
fn a_pair_that_only_one_node_got_reaches_the_others() {
    let cluster = Cluster::start(3, &["--memory", "--syncfreq", "0.5"]);
    plant(&cluster, 1, "lonely", "here");
    eventually("everybody has it", SOON, || {
        let held: Vec<bool> = (0..3).map(|index| cluster.held_by(index, "lonely").is_some()).collect();
        (held == [true; 3]).then_some(()).ok_or(format!("{held:?}"))
    });
    await_equal(&cluster, 1);
    assert_nothing_for_nothing(&cluster);
    eventually("one line for each of the two repairs", SOON, || {
        let lines =
            |index: usize| cluster.nodes[index].log().lines().filter(|line| line.contains("kringle::sync")).count();
        let lines: usize = (0..3).map(lines).sum();
        (lines == 2).then_some(()).ok_or(format!("{lines} lines"))
    });
}

#[test]
fn equal_nodes_move_nothing_and_need_few_bytes_to_know() {
    let cluster = Cluster::behind_proxies(3, &["--memory", "--syncfreq", "3600", "--pingfreq", "2"]);
    for number in 0..200 {
        cluster.client(number % 3).put(&format!("/kv/k{number}?w=3"), "v".repeat(100)).expect(201);
    }
    cluster.client(0).delete("/kv/k0?w=3").expect(204);
    await_first_sessions(&cluster);
    let with = format!("http://{}", cluster.proxy(1).address());
    let lines = cluster.nodes[0].log().lines().count();
    let mut least = u64::MAX;
    for _ in 0..5 {
        let before = [Way::ToNode, Way::FromNode].map(|way| cluster.proxy(1).bytes(way));
        let report = sync(&cluster, 0, &with);
        let after = [Way::ToNode, Way::FromNode].map(|way| cluster.proxy(1).bytes(way));
        let moved = ["pushed", "pulled", "noop", "partitions", "leaves"].map(|name| report[name].as_u64());
        assert_eq!((report["rounds"].as_u64(), moved), (Some(1), [Some(0); 5]), "{report}");
        assert!(report["bytes_out"].as_u64() <= Some(64) && report["bytes_in"].as_u64() <= Some(64), "{report}");
        // A ping may fall into the same moment.
        let bytes = after[0] + after[1] - before[0] - before[1];
        least = least.min(bytes);
        eprintln!("in sync: {} + {} bytes of messages, {bytes} with HTTP", report["bytes_out"], report["bytes_in"]);
    }
    assert!(least <= 1024, "{least} bytes with HTTP around them");
    assert_eq!(cluster.nodes[0].log().lines().count(), lines, "quiet sessions leave no line");
    assert_nothing_for_nothing(&cluster);
}

#[test]
fn a_session_on_request_tells_what_it_did() {
    let cluster = Cluster::start(3, &["--memory", RARELY[0], RARELY[1]]);
    await_first_sessions(&cluster);
    let count = 500;
    (0..count).for_each(|number| plant(&cluster, 0, &format!("k{number}"), &"v".repeat(100)));
    let (me, peer) = (url(&cluster, 0), url(&cluster, 1));
    let hash =
        |index: usize, with: &str| cluster.client(index).get(&format!("/store/hash?with={with}")).expect(200).json();
    assert_ne!(hash(0, &peer)["hash"], hash(1, &me)["hash"]);

    let pushed = sync(&cluster, 0, &peer);
    assert_eq!(
        (&pushed["pushed"], &pushed["pulled"], &pushed["noop"]),
        (&json!(count), &json!(0), &json!(0)),
        "{pushed}"
    );
    assert_eq!(pushed["reason"], "request");
    assert!(pushed["rounds"].as_u64().is_some_and(|rounds| (4..=5).contains(&rounds)), "{pushed}");
    let bytes = pushed["bytes_out"].as_u64().unwrap() + pushed["bytes_in"].as_u64().unwrap();
    eprintln!("{count} missing items of 100 bytes: {} bytes each; {pushed}", bytes / count);
    assert!(bytes / count <= 300, "{} bytes for each missing item: {pushed}", bytes / count);
    assert_eq!(hash(0, &peer), hash(1, &me));

    let quiet = sync(&cluster, 0, &peer);
    assert_eq!((&quiet["rounds"], &quiet["pushed"], &quiet["pulled"]), (&json!(1), &json!(0), &json!(0)), "{quiet}");

    // By id this time, and the other way about.
    let id = cluster.client(0).get("/ping").json()["node"].as_str().unwrap().to_string();
    let pulled = sync(&cluster, 2, &id);
    assert_eq!(
        (&pulled["pushed"], &pulled["pulled"], &pulled["noop"]),
        (&json!(0), &json!(count), &json!(0)),
        "{pulled}"
    );
    await_equal(&cluster, count);

    let all = cluster.client(1).send(&Request::new("POST", "/sync")).expect(200).json();
    assert_eq!(all["reports"].as_array().map(Vec::len), Some(2), "{all}");
    let status = sync_status(&cluster, 2);
    assert_eq!(
        (&status["pulled"], &status["last"].as_array().unwrap().last().unwrap()["pulled"]),
        (&json!(count), &json!(count))
    );
    let last = &status["last"].as_array().unwrap()[0];
    for name in ["rounds", "bytes_out", "bytes_in", "partitions", "leaves", "pushed", "pulled", "noop", "ms"] {
        assert!(last[name].is_u64(), "{name}: {last}");
    }
    assert!(last["peer"].is_string() && last["reason"].is_string() && last["failed"].is_null(), "{last}");
    cluster.client(0).send(&Request::new("POST", "/sync?with=nobody")).refusal(400);
    cluster.client(0).send(&Request::new("POST", format!("/sync?with={me}"))).refusal(400);
    cluster.client(0).get("/store/hash?with=nobody").refusal(400);
}

#[test]
fn a_peer_that_is_dead_is_reported_and_nothing_hangs() {
    let mut cluster = Cluster::start(2, &["--memory", "--timeout", "1", RARELY[0], RARELY[1]]);
    await_first_sessions(&cluster);
    cluster.nodes[1].kill();
    let began = Instant::now();
    let answer = cluster.client(0).send(&Request::new("POST", "/sync")).expect(200).json();
    assert_eq!(answer["done"], false, "{answer}");
    assert!(answer["reports"][0]["failed"].is_string(), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn nodes_whose_hints_were_lost_with_their_keeper_are_filled_by_sessions() {
    let mut cluster = Cluster::start(3, &["--memory", "--timeout", "2", "--pingfreq", "0.2", "--syncfreq", "1"]);
    cluster.nodes[2].kill();
    for number in 0..200 {
        cluster.client(0).put(&format!("/kv/k{number}"), "v".repeat(100)).expect(201);
    }
    // Node 0 keeps the hints for node 2, and everything else, in memory: all that is left is on node 1.
    cluster.nodes[0].kill();
    cluster.nodes[0].restart();
    cluster.nodes[2].restart();
    await_equal(&cluster, 200);
    for index in [0, 2] {
        assert!(cluster.held_by(index, "k7").is_some());
    }
    assert_nothing_for_nothing(&cluster);
}

#[test]
fn what_was_deleted_while_an_owner_was_down_stays_deleted() {
    let mut cluster = Cluster::start(3, &["--timeout", "2", "--pingfreq", "0.2", "--syncfreq", "1"]);
    for number in 0..20 {
        cluster.client(0).put(&format!("/kv/k{number}?w=3"), "old").expect(201);
    }
    plant(&cluster, 2, "news", "known to the one that was down alone");
    cluster.nodes[2].kill();
    for number in 0..10 {
        cluster.client(0).delete(&format!("/kv/k{number}")).expect(204);
    }
    // The hints of the deletes go with the disk of their keeper.
    cluster.nodes[0].kill();
    std::fs::remove_dir_all(cluster.nodes[0].data()).expect("the folder of node 0");
    cluster.nodes[2].restart();
    cluster.nodes[0].restart();
    await_equal(&cluster, 11);
    for index in 0..3 {
        for number in 0..20 {
            let held = cluster.held_by(index, &format!("k{number}"));
            assert_eq!(held.is_some(), number >= 10, "k{number} on node {index}");
        }
        assert!(cluster.held_by(index, "news").is_some(), "node {index}");
        assert_eq!(cluster.client(index).get("/status").json()["store"]["tombstones"], 10);
    }
    assert_nothing_for_nothing(&cluster);
}

#[test]
fn a_read_brings_owners_that_are_behind_up_to_date() {
    let cluster = Cluster::start(3, &["--memory", RARELY[0], RARELY[1]]);
    await_first_sessions(&cluster);
    cluster.client(0).put("/kv/known?w=3", "old").expect(201);
    plant(&cluster, 0, "known", "new");
    plant(&cluster, 0, "unknown", "new");
    for key in ["known", "unknown"] {
        assert_eq!(cluster.client(1).get(&format!("/kv/{key}?r=3")).expect(200).text(), "new");
        eventually("every owner has the new value", SOON, || {
            let held: Vec<Option<Value>> = (0..3).map(|index| cluster.held_by(index, key)).collect();
            held.iter().all(|value| *value == Some(json!("new"))).then_some(()).ok_or(format!("{held:?}"))
        });
    }
    eventually("the repairs are counted", SOON, || {
        let status = sync_status(&cluster, 1);
        (status["read_repairs"] == 4).then_some(()).ok_or(status.to_string())
    });
    cluster.client(1).get("/kv/known?r=3").expect(200);
    cluster.client(1).get("/kv/missing?r=3").expect(404);
    assert_eq!(sync_status(&cluster, 1)["read_repairs"], 4, "nothing is left to repair");
    await_equal(&cluster, 2);
}

#[test]
fn sessions_among_writes_repair_nothing_that_is_on_its_way() {
    let cluster = Cluster::start(3, &["--memory", "--syncfreq", "0.2"]);
    let until = Instant::now() + Duration::from_secs(3);
    let written: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|index| {
                let mut client = cluster.client(index);
                scope.spawn(move || {
                    let mut count = 0u64;
                    while Instant::now() < until {
                        client.put(&format!("/kv/t{index}k{}", count % 300), count.to_string());
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a writer")).collect()
    });
    // A busy machine may not get round all of a thread's keys.
    await_equal(&cluster, written.iter().map(|count| 300.min(*count)).sum());
    let repaired: u64 = (0..3).map(|index| sync_status(&cluster, index)["sessions"].as_u64().unwrap()).sum();
    eprintln!("{written:?} writes beside {repaired} sessions");
    assert_nothing_for_nothing(&cluster);
}

#[test]
fn a_node_that_returns_gets_its_hints_and_sessions_do_not_send_them_again() {
    let mut cluster = Cluster::start(3, &["--timeout", "2"]);
    cluster.nodes[2].kill();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let mut client = cluster.client(thread % 2);
            scope.spawn(move || {
                for number in 0..500 {
                    client.put(&format!("/kv/t{thread}k{number}"), "v".repeat(100));
                }
            });
        }
    });
    cluster.nodes[2].restart();
    await_equal(&cluster, 2000);
    eventually("both have compared themselves with it since", SOON, || {
        let returns = |index: usize| {
            let last = sync_status(&cluster, index)["last"].clone();
            last.as_array().is_some_and(|last| last.iter().any(|account| account["reason"] == "return"))
        };
        (returns(0) && returns(1)).then_some(()).ok_or("no session on its return".into())
    });
    assert_nothing_for_nothing(&cluster);
}

#[test]
fn what_each_partition_has_seen_is_joined_by_sessions_and_survives_a_restart() {
    let mut cluster = Cluster::start(3, &["--syncfreq", "0.5"]);
    for number in 0..60 {
        cluster.client(number % 3).put(&format!("/kv/k{number}?w=3"), "v").expect(201);
    }
    let seen = |cluster: &Cluster, index: usize| cluster.client(index).get("/status").json()["seen"].clone();
    eventually("everybody knows what everybody has seen", SOON, || {
        let told: Vec<Value> = (0..3).map(|index| seen(&cluster, index)).collect();
        let all = told.iter().all(|seen| seen["actors"] == 3 && seen["partitions_joined"] == 1024);
        all.then_some(()).ok_or(format!("{told:?}"))
    });
    // Its new actor, the one before, and those of the others, without a word with them.
    cluster.nodes[0].kill();
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    cluster.nodes[2].restart();
    assert_eq!(seen(&cluster, 2), json!({"actors": 4, "partitions_joined": 1024}));
}

#[test]
fn a_session_that_was_cut_short_keeps_nobody_else_away_once_its_peer_is_found_equal() {
    let cluster = Cluster::start(3, &RARELY);
    await_first_sessions(&cluster);
    let ring = cluster.client(0).get("/ring").expect(200).json();
    let members = ring["members"].as_array().expect("members").clone();
    let peers: Vec<&str> = members
        .iter()
        .filter(|member| member["id"] != cluster.nodes[0].id().to_string().as_str())
        .map(|member| member["name"].as_str().expect("a name"))
        .collect();
    let ask = |from: &str, root: Option<[u8; 32]>| {
        let root = PeerRequest::Sync(SyncRequest::Root { from: MemberTag::of(from), root });
        let mut client = cluster.client(0);
        let batch = peer::post_as_member(&mut client, "/store/hash", NodeId(7), Stamp(0), vec![root]);
        let reply = Reply::decode(&client.send(&batch).expect(200).body).expect("a reply").0;
        reply.answers.expect("answers").remove(0)
    };
    let differs = |answer: Answer| matches!(answer, Answer::Sync(SyncAnswer::Groups(Some(_))));
    // It differs, and is never heard of again: nobody else is let in.
    assert!(differs(ask(peers[0], Some([1; 32]))));
    assert_eq!(ask(peers[1], Some([1; 32])), Answer::Refused(Refusal::Overloaded));
    let hash = cluster.client(0).get(&format!("/store/hash?with={}", peers[0])).expect(200).json();
    let hash = hash["hash"].as_str().expect("a hash").to_owned();
    let byte = |at: usize| u8::from_str_radix(&hash[2 * at..2 * at + 2], 16).expect("hexadecimal digits");
    assert_eq!(ask(peers[0], Some(std::array::from_fn(byte))), Answer::Sync(SyncAnswer::Groups(None)));
    assert!(differs(ask(peers[1], Some([1; 32]))), "the other is let in at once");
}
