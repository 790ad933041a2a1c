//! Nodes of two versions of the protocol in one cluster, as there are while it is upgraded: a node of this build behind an
//! interpreter stands in for one of the previous version. That its bytes are those of that version is shown in
//! `tests/wire_format.rs`.

mod interpreter;
use crate::support;

use interpreter::{Counts, Interpreter, Speakers};
use kringle::placement::Mode;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use support::eventually;
use support::http::{Client, Request};
use support::node::{Node, Plan, reserve_port};

/// Long enough for whatever a busy machine makes of it.
const SOON: Duration = Duration::from_secs(60);

/// Sessions only when they are asked for; peers are found dead within seconds.
const FLAGS: [&str; 7] = ["--memory", "--timeout", "3", "--pingfreq", "0.2", "--syncfreq", "3600"];

/// Three nodes, each reached by its peers through an interpreter.
struct Mixed {
    nodes: Vec<Node>,
    interpreters: Vec<Interpreter>,
    speakers: Speakers,
}

impl Mixed {
    /// With these nodes of the previous version from the first word on.
    #[track_caller]
    fn start(previous: &[usize]) -> Mixed {
        let speakers = Speakers::default();
        let ports = [(); 3].map(|()| reserve_port());
        let interpreters = ports.map(|port| Interpreter::before(&format!("127.0.0.1:{port}"), &speakers));
        let urls: Vec<String> = interpreters.iter().map(Interpreter::url).collect();
        let plan = |index: usize| {
            let others: Vec<&str> = (0..3).filter(|other| *other != index).map(|other| urls[other].as_str()).collect();
            let plan = Plan::new(&FLAGS).port(ports[index]);
            plan.flag("--peers", others.join(",")).flag("--advertise", &urls[index])
        };
        // A node is known to be of the previous version by its id, and has one once it runs: alone, so that nobody hears it.
        let mut nodes: Vec<Option<Node>> = (0..3).map(|_| None).collect();
        let mut ids = vec![];
        for &index in previous {
            interpreters[index].set_previous(true);
            let node = nodes[index].insert(plan(index).spawn());
            eventually("it runs", SOON, || {
                let mut client = node.client().within(Duration::from_secs(1));
                client.try_send(&Request::new("GET", "/health")).map_err(|error| error.to_string())
            });
            ids.push(node.id());
        }
        speakers.set(ids);
        let started = nodes.into_iter().enumerate();
        let mut nodes: Vec<Node> = started.map(|(index, node)| node.unwrap_or_else(|| plan(index).spawn())).collect();
        nodes.iter_mut().for_each(Node::await_ready);
        let mixed = Mixed { nodes, interpreters: interpreters.into(), speakers };
        eventually("the members have agreed on who they are", SOON, || {
            let epochs = [0, 1, 2].map(|index| mixed.status(index)["epoch"].as_u64());
            epochs.iter().all(|epoch| *epoch >= Some(1)).then_some(()).ok_or(format!("epochs {epochs:?}"))
        });
        mixed
    }

    /// From now on these nodes speak the previous version, and the others both.
    fn set_previous(&self, previous: &[usize]) {
        self.speakers.set(previous.iter().map(|index| self.nodes[*index].id()));
        let each = self.interpreters.iter().enumerate();
        each.for_each(|(index, interpreter)| interpreter.set_previous(previous.contains(&index)));
    }

    fn client(&self, index: usize) -> Client {
        self.nodes[index].client()
    }

    fn status(&self, index: usize) -> Value {
        self.client(index).get("/status").expect(200).json()
    }

    fn counts(&self) -> [Counts; 3] {
        [0, 1, 2].map(|index| self.interpreters[index].counts())
    }

    /// How often node `index` has logged that `peer` speaks this version.
    fn said(&self, index: usize, peer: usize, version: u8) -> usize {
        let port = self.interpreters[peer].port();
        let text = format!(":{port} speaks protocol version {version}");
        self.nodes[index].log().lines().filter(|line| line.ends_with(&text)).count()
    }

    #[track_caller]
    fn await_said(&self, index: usize, peer: usize, version: u8, times: usize) {
        eventually("the change of version is noticed, and told once", SOON, || {
            let said = self.said(index, peer, version);
            (said == times).then_some(()).ok_or(format!("{said} lines on node {index} of version {version}"))
        });
    }

    /// Waits until all of `seers` say so of node `index`.
    #[track_caller]
    fn await_state(&self, seers: &[usize], index: usize, wanted: &str) {
        let url = self.interpreters[index].url();
        eventually(&format!("node {index} is {wanted}"), SOON, || {
            let state = |seer: &usize| {
                let status = self.status(*seer);
                let members = status["members"].as_array().expect("members").clone();
                members.iter().find(|member| member["url"] == url.as_str()).expect("the member")["state"].clone()
            };
            let states: Vec<Value> = seers.iter().map(state).collect();
            states.iter().all(|state| state == wanted).then_some(()).ok_or(format!("{states:?}"))
        });
    }

    /// Keeps a pair on one node alone.
    #[track_caller]
    fn plant(&self, index: usize, key: &str) {
        let pair = json!({"key": key, "value": "planted"}).to_string();
        let kept = self.client(index).send(&Request::new("POST", "/replicate").body(pair)).expect(200).json();
        assert_eq!(kept["applied"], 1, "{kept}");
    }

    fn holds(&self, index: usize, key: &str) -> bool {
        self.client(index).get(&format!("/kv/{key}?local=1")).status == 200
    }

    /// Has node `index` compare itself with node `with`.
    #[track_caller]
    fn sync(&self, index: usize, with: usize) {
        let url = self.interpreters[with].url();
        let answer = self.client(index).send(&Request::new("POST", format!("/sync?with={url}"))).expect(200).json();
        assert_eq!(answer["done"], true, "{answer}");
    }

    #[track_caller]
    fn await_equal(&self) {
        eventually("all copies are equal", SOON, || {
            let hashes = [0, 1, 2].map(|index| self.client(index).get("/store/hash").json());
            let equal = hashes.iter().all(|told| *told == hashes[0] && !told["hash"].is_null());
            equal.then_some(()).ok_or(format!("{hashes:?}"))
        });
    }

    /// Each node writes, overwrites and deletes in each mode, and all nodes read it in that mode.
    #[track_caller]
    fn write_and_read_in_all_modes(&self, prefix: &str) {
        for mode in Mode::ALL {
            for writer in 0..3 {
                let path = format!("/kv/{prefix}-{mode}-{writer}?mode={mode}");
                self.client(writer).put(&path, "first").expect(201);
                self.await_read(&path, mode, Some("first"));
                self.client((writer + 1) % 3).put(&path, "second").expect(204);
                self.await_read(&path, mode, Some("second"));
                self.client((writer + 2) % 3).delete(&path).expect(204);
                self.await_read(&path, mode, None);
                self.client(writer).put(&path, "last").expect(201);
            }
        }
    }

    /// At once; only `async` answers before the other owners have it.
    #[track_caller]
    fn await_read(&self, path: &str, mode: Mode, value: Option<&str>) {
        for reader in 0..3 {
            let read = || {
                let answer = self.client(reader).get(path);
                let found = (answer.status == 200).then(|| answer.text());
                (found.as_deref() == value && answer.status < 500).then_some(()).ok_or(answer.to_string())
            };
            match mode {
                Mode::Async => eventually(path, SOON, read),
                _ => read().unwrap_or_else(|answer| panic!("{path} on node {reader}: {answer}")),
            }
        }
    }
}

#[test]
fn a_node_of_the_previous_version_works_beside_two_of_this_one() {
    const OLD: usize = 2;
    let mixed = Mixed::start(&[OLD]);
    for (index, other) in [(0, 1), (1, 0)] {
        mixed.await_said(index, OLD, 1, 1);
        assert_eq!(mixed.said(index, other, 1), 0, "two nodes of this build speak its own version");
    }

    mixed.write_and_read_in_all_modes("mixed");
    for index in 0..3 {
        let counted = mixed.client(index).send(&Request::new("POST", "/counters/visits?mode=quorum")).expect(200);
        assert_eq!(counted.json()["value"], index + 1, "{counted}");
    }

    // Liveness: a node of either version is found to hang by those of the other, and to be back.
    for frozen in [OLD, 0] {
        let others: Vec<usize> = (0..3).filter(|index| *index != frozen).collect();
        mixed.nodes[frozen].pause();
        mixed.await_state(&others, frozen, "down");
        let key = format!("meanwhile{frozen}");
        mixed.client(others[0]).put(&format!("/kv/{key}?w=2"), "hinted").expect(201);
        mixed.nodes[frozen].resume();
        mixed.await_state(&others, frozen, "alive");
        others.iter().for_each(|other| mixed.await_state(&[frozen], *other, "alive"));
        eventually("what it missed is handed over", SOON, || {
            mixed.holds(frozen, &key).then_some(()).ok_or(key.clone())
        });
    }

    // Sessions, begun by either.
    for (planted, begun_by, with) in [(OLD, OLD, 0), (0, OLD, 0), (OLD, 1, OLD), (1, 1, OLD)] {
        let key = format!("planted-{planted}-{begun_by}");
        mixed.plant(planted, &key);
        mixed.sync(begun_by, with);
        let lacking = if planted == begun_by { with } else { begun_by };
        eventually("the session brought it", SOON, || mixed.holds(lacking, &key).then_some(()).ok_or(key.clone()));
    }
    [(0, 1), (0, OLD), (1, OLD)].into_iter().for_each(|(one, other)| mixed.sync(one, other));
    mixed.await_equal();

    // The layout is changed through both.
    for (index, mode) in [(OLD, "quorum"), (0, "sloppy")] {
        mixed.client(index).send(&Request::new("PUT", "/cluster/mode").json(&json!({ "mode": mode }))).expect(200);
        eventually("all go by it", SOON, || {
            let modes = [0, 1, 2].map(|index| mixed.status(index)["mode"].clone());
            modes.iter().all(|held| held == mode).then_some(()).ok_or(format!("{modes:?}"))
        });
    }

    let counts = mixed.counts();
    assert!(
        counts.iter().all(|counts| counts.astray == 0),
        "replies are in the version they were asked in: {counts:?}"
    );
    assert_eq!(counts[OLD].own, 0, "{counts:?}");
    assert!(counts[OLD].previous > 20, "{counts:?}");
    assert!((1..100).contains(&counts[OLD].refused), "few are refused to find out: {counts:?}");
    assert!(counts[0].own > 20 && counts[0].previous > 20 && counts[0].refused == 0, "{counts:?}");
    for index in 0..2 {
        assert_eq!((mixed.said(index, OLD, 1), mixed.said(index, OLD, 2)), (1, 0), "{}", mixed.nodes[index].log());
    }

    // It is upgraded.
    mixed.set_previous(&[]);
    [0, 1].into_iter().for_each(|index| mixed.await_said(index, OLD, 2, 1));
    let before = mixed.counts();
    mixed.write_and_read_in_all_modes("upgraded");
    mixed.sync(0, OLD);
    mixed.sync(OLD, 1);
    let after = mixed.counts();
    for index in 0..3 {
        assert_eq!(before[index].previous, after[index].previous, "node {index}: {before:?} {after:?}");
        assert_eq!(before[index].refused, after[index].refused, "node {index}: {before:?} {after:?}");
        assert!(before[index].own + 20 < after[index].own, "node {index}: {before:?} {after:?}");
    }
}

#[test]
fn nobody_who_writes_hears_of_a_peer_that_changes_its_version() {
    let mixed = Mixed::start(&[]);
    let (done, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let (mixed, done, written) = (&mixed, &done, &written);
            scope.spawn(move || {
                let mut client = mixed.client(writer);
                // Every owner must have each write, so none can be made without the one that changes.
                for number in (0..).take_while(|_| !done.load(Ordering::Relaxed)) {
                    let rest = if number % 4 == 0 { "mode=sync" } else { "w=3" };
                    client.put(&format!("/kv/{writer}-{number}?{rest}"), "v").expect(201);
                    client.get(&format!("/kv/{writer}-{number}?{}", rest.replace('w', "r"))).expect(200);
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let await_more = || {
            let from = written.load(Ordering::Relaxed);
            eventually("writers go on", SOON, || {
                let more = written.load(Ordering::Relaxed) - from;
                (more >= 100).then_some(()).ok_or(format!("{more} more"))
            });
        };
        // A panic in here must not leave the writers going.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            await_more();
            for (round, changed) in [2, 0].into_iter().enumerate() {
                let others: Vec<usize> = (0..3).filter(|index| *index != changed).collect();
                mixed.set_previous(&[changed]);
                others.iter().for_each(|index| mixed.await_said(*index, changed, 1, 1));
                await_more();
                mixed.set_previous(&[]);
                others.iter().for_each(|index| mixed.await_said(*index, changed, 2, 1));
                await_more();
                assert!(mixed.counts()[changed].refused > 0, "round {round}");
            }
        }));
        done.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}
