//! What the tests of forgetting look at: what is left, what waits, and whether anything deleted is ever shown.

use super::support::cluster::Cluster;
use super::support::eventually;
use super::support::http::{Client, Request, encode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Long enough for detection, hints and several sessions on a busy machine.
pub const SOON: Duration = Duration::from_secs(60);

/// Peers are found dead within seconds, and what may be forgotten is looked for often.
pub const QUICK: [&str; 6] = ["--timeout", "1", "--pingfreq", "0.2", "--syncfreq", "0.5"];

pub fn status(cluster: &Cluster, index: usize) -> Value {
    cluster.client(index).get("/status").expect(200).json()
}

/// Of each node: keys, tombstones, and how many of both wait to be forgotten.
pub fn left(cluster: &Cluster) -> Vec<[Value; 3]> {
    let of = |index| {
        let status = status(cluster, index);
        [&status["store"]["keys"], &status["store"]["tombstones"], &status["forgetting"]["waiting"]].map(Clone::clone)
    };
    (0..cluster.nodes.len()).map(of).collect()
}

/// Waits until three nodes hold `keys` keys each, and nothing that was deleted or has expired.
#[track_caller]
pub fn await_forgotten(cluster: &Cluster, keys: usize) {
    eventually("all that is gone is forgotten", SOON, || {
        let left = left(cluster);
        let done = left.iter().all(|[kept, tombstones, waiting]| *kept == keys && *tombstones == 0 && *waiting == 0);
        done.then_some(()).ok_or_else(|| {
            let waits: Vec<Value> = (0..left.len()).map(|index| status(cluster, index)["forgetting"].clone()).collect();
            format!("keys, tombstones, waiting: {left:?}; {waits:?}")
        })
    });
}

/// Waits until no owner of `key` holds anything of it, not even that it was deleted.
#[track_caller]
pub fn await_unknown(cluster: &Cluster, key: &str) {
    eventually(&format!("{key} is forgotten"), SOON, || {
        let owners = owners_hold(cluster, 0, key);
        let nothing = owners.iter().all(|owner| owner["holds"] == "nothing");
        nothing.then_some(()).ok_or(json!(owners).to_string())
    });
}

/// What each owner of `key` holds, as node `teller` is told.
#[track_caller]
pub fn owners_hold(cluster: &Cluster, teller: usize, key: &str) -> Vec<Value> {
    let target = format!("/store/key?key={}&explain=1", encode(key));
    let told = cluster.client(teller).get(&target).json()["owners"].clone();
    told.as_array().unwrap_or_else(|| panic!("no owners in {told}")).clone()
}

/// Waits until no hint is left and every pair of nodes is equal; then a session between any two moves nothing.
#[track_caller]
pub fn assert_equal_and_quiet(cluster: &Cluster) {
    let count = cluster.nodes.len();
    eventually("every pair of nodes is equal and no hint is left", SOON, || {
        for index in 0..count {
            let hints = status(cluster, index)["hints"]["count"].clone();
            if hints != 0 {
                return Err(format!("{hints} hints on {index}"));
            }
        }
        cluster.first_difference().map_or(Ok(()), Err)
    });
    for index in 0..count {
        let reports = eventually("the peers are free for a session", SOON, || {
            let told = cluster.client(index).send(&Request::new("POST", "/sync")).expect(200).json();
            (told["done"] == true).then(|| told["reports"].clone()).ok_or(told.to_string())
        });
        for report in reports.as_array().expect("reports") {
            assert_eq!((&report["pushed"], &report["pulled"]), (&json!(0), &json!(0)), "{report}");
        }
    }
}

/// Readers that ask every node for the same keys until they are told to stop, and remember what they are shown.
pub struct Watch {
    stop: Arc<AtomicBool>,
    readers: Vec<JoinHandle<BTreeMap<(u16, String), u64>>>,
}

/// Every way to read.
pub const ROADS: [&str; 4] = ["", "?r=1", "?mode=async", "?r=3"];

/// Between two reads of one reader: the nodes need the processors too.
const PAUSE: Duration = Duration::from_millis(1);

impl Watch {
    /// Readers of all nodes, on these roads.
    pub fn over(cluster: &Cluster, keys: &[String], roads: &[&str]) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let read = |address: String| {
            let (stop, keys, roads) = (stop.clone(), keys.to_vec(), roads.iter().map(|road| road.to_string()));
            let roads: Vec<String> = roads.collect();
            std::thread::spawn(move || {
                let mut told = BTreeMap::new();
                let mut client = Client::new(&address).within(Duration::from_secs(5));
                let all = || keys.iter().flat_map(|key| roads.iter().map(move |road| format!("/kv/{key}{road}")));
                // A round once begun is finished, so that each key is read once at least.
                while !stop.load(Ordering::Relaxed) {
                    for road in all() {
                        // Nobody there is no answer, which is none that could be wrong.
                        if let Ok(answer) = client.try_send(&Request::new("GET", road.as_str())) {
                            let shown = if answer.status == 200 { format!("{road}: {answer}") } else { String::new() };
                            *told.entry((answer.status, shown)).or_default() += 1;
                        }
                        std::thread::sleep(PAUSE);
                    }
                }
                told
            })
        };
        let readers = cluster.nodes.iter().map(|node| read(node.address())).collect();
        Watch { stop, readers }
    }

    /// No node has shown any of the keys, and each has said of one at least that it is not there.
    #[track_caller]
    pub fn saw_nothing(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let told: Vec<_> =
            std::mem::take(&mut self.readers).into_iter().map(|reader| reader.join().expect("a reader")).collect();
        for (index, told) in told.iter().enumerate() {
            let wrong: Vec<_> = told.iter().filter(|((status, _), _)| !matches!(status, 404 | 503)).collect();
            assert!(wrong.is_empty(), "node {index}: {wrong:?}");
            assert!(told.keys().any(|(status, _)| *status == 404), "node {index} was not heard: {told:?}");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Does `act` to every one of `keys` through all nodes in turn, by several threads.
pub fn on_each(cluster: &Cluster, nodes: &[usize], keys: &[String], act: impl Fn(&mut Client, &str) + Sync) {
    std::thread::scope(|scope| {
        for (part, &index) in keys.chunks(keys.len().div_ceil(6).max(1)).zip(nodes.iter().cycle()) {
            let (mut client, act) = (cluster.client(index), &act);
            scope.spawn(move || part.iter().for_each(|key| act(&mut client, key)));
        }
    });
}

/// `{prefix}0`, `{prefix}1`, …
pub fn keys(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}
