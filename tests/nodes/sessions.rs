//! What a client is promised that passes back the `Kringle-Context` it got: it reads its own writes and never goes back,
//! on whichever node, and is refused rather than shown less. And what such a context says to writes.

mod history;
use crate::support;

use history::{Fate, Session, Step, findings};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use support::cluster::Cluster;
use support::http::{Answer, Client, Request, encode};
use support::node::Node;
use support::{eventually, thorough};

/// Long enough for detection, hints and several sessions on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Peers are found dead, and healed, within seconds.
const QUICK: [&str; 6] = ["--timeout", "1", "--pingfreq", "0.2", "--syncfreq", "0.5"];

fn after(context: &str, method: &str, target: impl Into<String>) -> Request {
    Request::new(method, target).header("Kringle-Context", context)
}

fn context(answer: &Answer) -> String {
    answer.must("Kringle-Context").to_owned()
}

/// The values that `?siblings=1` lists.
#[track_caller]
fn values(answer: &Answer) -> Vec<String> {
    let listed = answer.json();
    let siblings = listed["siblings"].as_array().unwrap_or_else(|| panic!("no siblings in {answer}"));
    siblings.iter().map(|sibling| sibling["value"].as_str().expect("text").to_owned()).collect()
}

#[track_caller]
fn siblings(client: &mut Client, key: &str) -> BTreeSet<String> {
    values(&client.get(&format!("/kv/{key}?siblings=1")).expect(200)).into_iter().collect()
}

#[track_caller]
fn assert_refused(client: &mut Client, request: &Request) {
    let refused = client.send(request).refusal(503);
    assert!(refused.must("Retry-After").parse::<u64>().is_ok(), "{refused}");
    assert!(refused.text().contains("Kringle-Context"), "does not say what it is about: {refused}");
}

// ---- contexts on reads

#[test]
fn what_only_an_unreachable_node_has_is_waited_for_and_nothing_older_shown() {
    let cluster = Cluster::behind_proxies(3, &QUICK);
    let mut client = cluster.client(0);
    client.put("/kv/a?w=3", "0").expect(201);
    client.put("/kv/deleted?w=3", "0").expect(201);
    cluster.split(&[&[0, 1], &[2]]);
    let written = context(&cluster.client(2).put("/kv/a?mode=async", "1").expect(204));
    let counted = context(&cluster.client(2).post("/counters/c?mode=async", &json!({})).expect(200));
    let created = context(&cluster.client(2).put("/kv/created?w=1", "1").expect(201));
    let deleted = context(&cluster.client(2).delete("/kv/deleted?w=1").expect(204));
    for target in ["/kv/a", "/kv/a?r=1", "/kv/a?r=2", "/kv/a?mode=async", "/kv/a?siblings=1", "/kv/a?local=1"] {
        assert_refused(&mut client, &after(&written, "GET", target));
    }
    let named = json!({"key": "a", "context": written});
    assert_refused(&mut client, &Request::new("GET", "/store/key").json(&named));
    assert_refused(&mut client, &after(&written, "GET", "/get?key=a"));
    assert_refused(&mut client, &after(&counted, "GET", "/counters/c"));
    assert_refused(&mut client, &after(&created, "GET", "/kv/created"));
    assert_refused(&mut client, &after(&deleted, "GET", "/kv/deleted"));
    client.send(&after(&written, "HEAD", "/kv/a")).expect(503);
    // Who does not say what it has seen gets what there is.
    assert_eq!(client.get("/kv/a").expect(200).text(), "0");
    assert_eq!(client.get("/kv/deleted").expect(200).text(), "0");
    client.get("/kv/created").expect(404);
    cluster.unite();
    for index in 0..3 {
        let mut client = cluster.client(index);
        let mut shown = |context: &str, target: &str, status: u16, body: &str| {
            let answer = eventually("it is no longer refused", SOON, || {
                let answer = client.send(&after(context, "GET", target));
                if answer.status == 503 { Err(answer.to_string()) } else { Ok(answer) }
            });
            assert!(answer.status == status && answer.text().contains(body), "{target} on {index}: {answer}");
        };
        shown(&written, "/kv/a", 200, "1");
        shown(&written, "/store/key?key=a", 200, r#""value":"1""#);
        shown(&counted, "/counters/c", 200, r#"{"value":1}"#);
        shown(&created, "/kv/created", 200, "1");
        shown(&deleted, "/kv/deleted", 404, "Key not found");
    }
}

#[test]
fn a_node_asked_for_its_own_copy_is_not_let_off_either() {
    let cluster = Cluster::behind_proxies(3, &QUICK);
    let old = context(&cluster.client(0).put("/kv/a?w=3", "0").expect(201));
    cluster.split(&[&[0, 1], &[2]]);
    let new = context(&cluster.client(0).send(&after(&old, "PUT", "/kv/a?w=2").body("1")).expect(204));
    let mut client = cluster.client(2);
    assert_eq!(client.send(&after(&old, "GET", "/kv/a?local=1")).expect(200).text(), "0");
    assert_refused(&mut client, &after(&new, "GET", "/kv/a?local=1"));
    assert_refused(&mut client, &after(&new, "GET", "/store/key?key=a&local=1"));
    for index in [0, 1] {
        assert_eq!(cluster.client(index).send(&after(&new, "GET", "/kv/a?local=1")).expect(200).text(), "1");
    }
}

#[test]
fn a_mangled_context_is_400_on_every_read() {
    let node = Node::in_memory();
    let mut client = node.client();
    let good = context(&client.put("/kv/a", "1").expect(201));
    let swapped = format!("{}{}", &good[1..2], &good[..1]) + &good[2..];
    for bad in ["", "x", "!!!!", "AAAA", &good[1..], &good[..good.len() - 1], &format!("{good}A"), &swapped] {
        for target in ["/kv/a", "/kv/a?local=1", "/kv/a?siblings=1", "/kv/missing", "/store/key?key=a", "/counters/a"] {
            client.send(&after(bad, "GET", target)).refusal(400);
        }
        client.send(&after(bad, "HEAD", "/kv/a")).expect(400);
        client.send(&Request::new("GET", "/store/key").json(&json!({"key": "a", "context": bad}))).refusal(400);
    }
    assert_eq!(client.send(&after(&good, "GET", "/kv/a")).expect(200).text(), "1");
}

#[test]
fn the_context_of_another_key_counts_as_having_seen_nothing() {
    let node = Node::in_memory();
    let mut client = node.client();
    client.put("/kv/a", "1").expect(201);
    let stranger = context(&client.put("/kv/another", "v").expect(201));
    for target in ["/kv/a", "/kv/a?local=1", "/store/key?key=a", "/counters/a"] {
        client.send(&after(&stranger, "GET", target)).expect(200);
    }
    client.send(&after(&stranger, "GET", "/kv/missing")).expect(404);
    client.send(&after(&stranger, "PUT", "/kv/a").body("2")).expect(204);
    assert_eq!(siblings(&mut client, "a"), ["1", "2"].map(String::from).into(), "it replaces nothing");
    client.send(&after(&stranger, "PUT", "/kv/new").body("1")).expect(201);
    client.send(&after(&stranger, "DELETE", "/kv/a")).expect(204);
    assert_eq!(siblings(&mut client, "a").len(), 2, "it deletes nothing");
}

// ---- contexts on writes

#[test]
fn a_second_write_replaces_the_clients_first_and_not_what_stands_beside_it() {
    let cluster = Cluster::start(3, &["--memory"]);
    let write = |index: usize, context: &str, value: &str| -> String {
        let answer = cluster.client(index).send(&after(context, "PUT", "/kv/a?w=3").body(value));
        assert_eq!(answer.status, 204, "{answer}");
        answer.must("Kringle-Context").to_owned()
    };
    let shown = |wanted: &[&str]| {
        for index in 0..3 {
            let wanted: BTreeSet<String> = wanted.iter().map(|value| (*value).to_owned()).collect();
            assert_eq!(siblings(&mut cluster.client(index), "a"), wanted, "node {index}");
        }
    };
    let base = context(&cluster.client(0).put("/kv/a?w=3", "base").expect(201));
    let theirs = write(1, &base, "theirs 1");
    let mine = write(0, &base, "mine 1");
    shown(&["theirs 1", "mine 1"]);
    // Through the same node and another, each of the two only its own.
    let mine = write(0, &mine, "mine 2");
    shown(&["theirs 1", "mine 2"]);
    let mine = write(2, &mine, "mine 3");
    shown(&["theirs 1", "mine 3"]);
    let theirs = write(0, &theirs, "theirs 2");
    shown(&["theirs 2", "mine 3"]);
    cluster.client(1).send(&after(&mine, "DELETE", "/kv/a?w=3")).expect(204);
    shown(&["theirs 2"]);
    // Whoever has read both replaces both.
    write(2, &theirs, "theirs 3");
    let read = context(&cluster.client(0).get("/kv/a").expect(200));
    write(1, &read, "resolved");
    shown(&["resolved"]);
}

// ---- histories

/// What the clients of one run have come to.
#[derive(Default)]
struct Progress {
    stop: AtomicBool,
    steps: AtomicU64,
}

/// One that passes back what it got, to whichever node.
struct Walker {
    number: usize,
    clients: Vec<Client>,
    /// The context of the last answer about each key.
    contexts: BTreeMap<String, String>,
    session: Session,
    /// Reads that were refused although owners answered.
    refused: usize,
    rng: ChaCha8Rng,
}

impl Walker {
    fn walk(mut self, progress: &Progress) -> Walker {
        let keys = [format!("own{}", self.number), "shared0".to_owned(), "shared1".to_owned()];
        for count in 0.. {
            if progress.stop.load(Ordering::Relaxed) {
                break;
            }
            let key = keys.choose(&mut self.rng).expect("a key").clone();
            let node = self.rng.random_range(0..self.clients.len());
            // A key is read before it is written, so that every write says what it has seen.
            match self.contexts.contains_key(&key) && self.rng.random_bool(0.5) {
                true => self.write(node, &key, count),
                false => self.read(node, &key).unwrap_or_default(),
            }
            progress.steps.fetch_add(1, Ordering::Relaxed);
        }
        self
    }

    fn write(&mut self, node: usize, key: &str, count: usize) {
        let query = ["", "?mode=async", "?w=1", "?w=2"].choose(&mut self.rng).expect("a query");
        let value = format!("{}:{count}", self.number);
        let request = after(&self.contexts[key], "PUT", format!("/kv/{}{query}", encode(key))).body(value.as_str());
        let fate = match self.clients[node].try_send(&request) {
            Ok(answer) if matches!(answer.status, 201 | 202 | 204) => {
                self.contexts.insert(key.to_owned(), context(&answer));
                Fate::Acknowledged
            }
            Ok(answer) if answer.status == 503 => Fate::Unknown,
            Ok(answer) => panic!("a write of {key}: {answer}"),
            Err(_) => Fate::Unknown,
        };
        self.session.push(Step::Write { key: key.to_owned(), value, fate });
    }

    /// Reads with the last context, if there is one. None where the read was refused, or told but one of several values.
    fn read(&mut self, node: usize, key: &str) -> Option<()> {
        let query = ["", "?r=1", "?mode=async", "?r=2", "?local=1"].choose(&mut self.rng).expect("a query");
        let listing = self.rng.random_bool(0.5);
        let target = match (listing, *query) {
            (false, query) => format!("/kv/{}{query}", encode(key)),
            (true, "") => format!("/kv/{}?siblings=1", encode(key)),
            (true, query) => format!("/kv/{}{query}&siblings=1", encode(key)),
        };
        let mut request = Request::new("GET", &target);
        if let Some(context) = self.contexts.get(key) {
            request = request.header("Kringle-Context", context);
        }
        let answer = self.clients[node].try_send(&request).ok()?;
        let shown = match answer.status {
            200 if listing => values(&answer),
            // Its context shows more than the answer does.
            200 if answer.must("Kringle-Siblings") != "1" => return None,
            200 => vec![answer.text()],
            404 => vec![],
            503 => {
                self.refused += usize::from(answer.text().contains("Kringle-Context"));
                return None;
            }
            _ => panic!("a read of {key}: {answer}"),
        };
        if let Some(context) = answer.header("Kringle-Context") {
            self.contexts.insert(key.to_owned(), context.to_owned());
        }
        let said = format!("{} of {target} from node {node}", answer.status);
        self.session.push(Step::Read { key: key.to_owned(), shown, said });
        Some(())
    }
}

/// Eight clients walk from node to node of a cluster that is split one way and the other, between which node 1 is killed.
#[track_caller]
fn walk_through(count: usize, first_split: &[&[usize]], second_split: &[&[usize]]) {
    const WALKERS: usize = 8;
    let mut rng = support::seeded(&format!("sessions on {count} nodes"));
    let mut cluster = Cluster::behind_proxies(count, &QUICK);
    // Somebody else's session: the values to begin with, so that there is something to be seen of every key.
    let keys = (0..WALKERS).map(|number| format!("own{number}")).chain(["shared0".into(), "shared1".into()]);
    let first: Session = keys
        .map(|key| {
            let value = format!("first of {key}");
            cluster.client(0).put(&format!("/kv/{key}?w=3"), value.as_str()).expect(201);
            Step::Write { key, value, fate: Fate::Acknowledged }
        })
        .collect();
    let progress = Arc::new(Progress::default());
    let mut start = |number: usize| {
        let limit = Duration::from_secs(5);
        let walker = Walker {
            number,
            clients: cluster.nodes.iter().map(|node| node.client().within(limit)).collect(),
            contexts: BTreeMap::new(),
            session: vec![],
            refused: 0,
            rng: ChaCha8Rng::seed_from_u64(rng.random()),
        };
        let progress = progress.clone();
        std::thread::spawn(move || walker.walk(&progress))
    };
    let walkers: Vec<JoinHandle<Walker>> = (0..WALKERS).map(&mut start).collect();
    let more = |steps: u64| {
        let goal = progress.steps.load(Ordering::Relaxed) + steps * if thorough() { 10 } else { 1 };
        eventually("the clients get on", SOON, || match progress.steps.load(Ordering::Relaxed) {
            done if done >= goal => Ok(()),
            done => Err(format!("{done} of {goal} steps")),
        });
    };
    more(600);
    cluster.split(first_split);
    more(200);
    cluster.await_gone(first_split);
    more(200);
    cluster.unite();
    more(400);
    cluster.nodes[1].kill();
    more(200);
    let left: Vec<usize> = (0..count).filter(|index| *index != 1).collect();
    cluster.await_gone(&[&left]);
    more(200);
    cluster.nodes[1].restart();
    more(400);
    cluster.split(second_split);
    more(200);
    cluster.unite();
    more(200);
    progress.stop.store(true, Ordering::Relaxed);
    let mut walkers: Vec<Walker> = walkers.into_iter().map(|walker| walker.join().expect("a walker")).collect();

    // In the end every client is shown all it has seen, on every node.
    for walker in &mut walkers {
        for key in walker.contexts.keys().cloned().collect::<Vec<_>>() {
            for node in 0..count {
                eventually("no read is refused any more", SOON, || {
                    walker.read(node, &key).ok_or(format!("{key} on node {node}"))
                });
            }
        }
    }
    let refused: usize = walkers.iter().map(|walker| walker.refused).sum();
    let sessions: Vec<Session> = walkers.into_iter().map(|walker| walker.session).chain([first]).collect();
    let found = findings(&sessions);
    assert!(found.is_empty(), "{} findings:\n{}", found.len(), found[..found.len().min(8)].join("\n"));
    // What has to have happened for this to show anything.
    let reads = sessions.iter().flatten().filter(|step| matches!(step, Step::Read { .. })).count();
    let is_of_several = |step: &&Step| matches!(step, Step::Read { shown, .. } if shown.len() > 1);
    let several = sessions.iter().flatten().filter(is_of_several).count();
    let told = format!("{reads} reads, {several} of several values, {refused} refused");
    assert!(reads >= 300 && several >= 20 && refused >= 5, "{told}");
    eprintln!("{told}");
}

#[test]
fn no_session_goes_back_on_three_nodes_through_splits_and_a_kill() {
    walk_through(3, &[&[0], &[1, 2]], &[&[0, 1], &[2]]);
}

#[test]
fn no_session_goes_back_on_five_nodes_of_which_two_keep_each_key_for_others_only() {
    walk_through(5, &[&[0, 1], &[2, 3, 4]], &[&[0], &[1, 2], &[3, 4]]);
}
