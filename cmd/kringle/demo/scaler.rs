//! The autoscaler at work: looks at the nodes, [decides](super::autoscale), and has the cluster add a node or remove
//! one. It runs beside the console, and says on standard error what it does.

use super::autoscale::{Autoscale, Bounds, Decision, Sample};
use super::cluster::{Cluster, Seen};
use super::console::talk;
use super::node::State;
use super::overview::node_status;
use super::trouble::Trouble;
use serde_json::Value;
use std::time::{Duration, Instant};

/// What a node may be full of, as a share of its limit, and its name for people.
struct Fullness {
    share: f64,
    of: String,
}

/// Looks every `period`, for ever.
pub(super) async fn run(cluster: &Cluster, bounds: Bounds, period: Duration) {
    let begun = Instant::now();
    let mut autoscale = Autoscale::new(bounds);
    let mut ticks = tokio::time::interval(period);
    // A change takes longer than a period: what was missed meanwhile is not looked at at once.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = cluster.changes();
    loop {
        ticks.tick().await;
        // Before the look: what changes meanwhile makes it worthless. Others change the cluster as well.
        let changes = cluster.changes();
        if changes != seen {
            seen = changes;
            autoscale.changed(begun.elapsed());
        }
        let (sample, fullest) = look(cluster).await;
        match autoscale.decide(begun.elapsed(), sample) {
            Decision::Nothing => continue,
            Decision::Add => {
                talk(&format!("autoscale: {fullest}: adding a node to {}", sample.nodes));
                let added = cluster.add_as_of(changes, bounds.nodes_max).await;
                told("added", added, cluster);
            }
            Decision::Remove => {
                if let Some(node) = youngest(cluster) {
                    talk(&format!("autoscale: {fullest}: removing node {} of {}", node.number, sample.nodes));
                    let removed = cluster.remove_as_of(changes, bounds.nodes_min, &node).await;
                    told("removed", removed.map(|removed| removed.map(|()| node)), cluster);
                }
            }
        }
        seen = cluster.changes();
        autoscale.changed(begun.elapsed());
    }
}

/// Says what came of it: `None` where somebody else has changed the cluster since it was looked at.
fn told(what: &str, done: Option<Result<Seen, Trouble>>, cluster: &Cluster) {
    match done {
        None => talk(&format!("autoscale: nothing {what}, for the nodes are others than those looked at")),
        Some(Ok(node)) => {
            let count = cluster.seen().len();
            talk(&format!("autoscale: node {} ({}) {what}: {count} nodes", node.number, node.port));
        }
        Some(Err(trouble)) => talk(&format!("autoscale: {trouble}")),
    }
}

/// The node that came last goes first.
fn youngest(cluster: &Cluster) -> Option<Seen> {
    cluster.running().into_iter().max_by_key(|node| node.number)
}

/// A sample, and which node is the fullest, for people.
async fn look(cluster: &Cluster) -> (Sample, String) {
    let seen = cluster.seen();
    let mut sample = Sample { nodes: seen.len(), fullest: 0.0, is_whole: true };
    let mut fullest = "no node has a limit".to_owned();
    for node in &seen {
        let status = match node.state {
            State::Running => node_status(node).await.ok(),
            State::Paused | State::Dead => None,
        };
        let Some(status) = status else {
            sample.is_whole = false;
            continue;
        };
        for Fullness { share, of } in fullness(&status) {
            if share >= sample.fullest {
                sample.fullest = share;
                fullest = format!("node {} is at {:.0} % of {of}", node.number, share * 100.0);
            }
        }
    }
    (sample, fullest)
}

/// How full a node is by what it says of itself: in keys, and in requests a second.
fn fullness(status: &Value) -> impl Iterator<Item = Fullness> {
    let load = &status["load"];
    let of = |has: &Value, limit: &Value, name: &str| {
        let (has, limit) = (has.as_f64()?, limit.as_f64()?);
        Some(Fullness { share: has / limit, of: format!("its {name}, {has:.0} of {limit:.0}") })
    };
    let keys = of(&status["store"]["keys"], &load["max_keys"], "keys");
    let requests = of(&load["requests_per_s"], &load["max_load"], "requests a second");
    keys.into_iter().chain(requests)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_is_as_full_as_its_limits_say_and_never_without_them() {
        let shares = |status: Value| fullness(&status).map(|full| full.share).collect::<Vec<_>>();
        let load = |max_keys: Value, max_load: Value| json!({ "store": { "keys": 166 }, "load": { "requests_per_s": 30.0, "max_keys": max_keys, "max_load": max_load } });
        assert_eq!(shares(load(json!(200), Value::Null)), [0.83]);
        assert_eq!(shares(load(json!(200), json!(60))), [0.83, 0.5]);
        assert_eq!(shares(load(Value::Null, Value::Null)), [0.0; 0]);
        assert_eq!(shares(json!({ "store": { "keys": 5 } })), [0.0; 0]);
    }
}
