//! The carrier of liveness: what [`crate::membership::Liveness`] says goes out as pings, what comes back is handed to it.
//!
//! One ping at a time to each peer, on a link of its own, so liveness never waits behind clients' traffic and a hung peer
//! holds one connection. What is said meanwhile gathers, the latest few packets of it, and goes with the next.

use super::link::Link;
use super::outside::wall_ms;
use super::shared::Shared;
use super::worker::Worker;
use crate::membership::{Change, Pace, Packet, State};
use crate::protocol::{Answer, PACKETS_MAX, Refusal, Reply};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// How long the loop sleeps at most: how soon it notices that the node stops.
const SLEEP_MAX: Duration = Duration::from_millis(200);

/// What waits for one peer.
#[derive(Default)]
struct Route {
    packets: VecDeque<Vec<u8>>,
    busy: bool,
}

type Routes = Rc<RefCell<BTreeMap<String, Route>>>;

/// Probes every peer: all at once when the node starts, then each about every `--pingfreq`, until the node stops.
pub fn ping_peers(worker: &Rc<Worker>) {
    let (worker, routes) = (worker.clone(), Routes::default());
    actix_web::rt::spawn(async move {
        let node = worker.node.clone();
        while !node.is_stopping() {
            let (packets, changes, due) = {
                let mut liveness = node.liveness();
                liveness.tick(node.uptime());
                (liveness.take_packets(), liveness.take_changes(), liveness.due())
            };
            changes.into_iter().for_each(|change| changed(&worker, &change));
            packets.into_iter().for_each(|packet| send(&worker, &routes, packet));
            let sleep = due.saturating_sub(node.uptime()).min(SLEEP_MAX);
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                () = node.gossip.notified() => {}
            }
        }
    });
}

/// What the members hold of a peer is another than it was.
fn changed(worker: &Rc<Worker>, change: &Change) {
    let Change { name, state, renewed } = change;
    let node = &worker.node;
    let is_back = node.note(|view| view.judged(name, *state));
    let is_new = *renewed && *state == State::Alive && !is_back;
    if is_new {
        node.events.info("peer", format!("{name} is here anew: it was restarted, or others took it for down"));
    }
    if is_back || is_new {
        super::sync::on_return(worker, name);
    }
}

fn send(worker: &Rc<Worker>, routes: &Routes, packet: Packet) {
    let mut held = routes.borrow_mut();
    let route = held.entry(packet.to.clone()).or_default();
    if route.packets.len() == PACKETS_MAX {
        route.packets.pop_front();
    }
    route.packets.push_back(packet.bytes);
    if !std::mem::replace(&mut route.busy, true) {
        actix_web::rt::spawn(flush(worker.clone(), routes.clone(), packet.to));
    }
}

/// Sends what waits for a peer, until nothing does.
async fn flush(worker: Rc<Worker>, routes: Routes, peer: String) {
    let node = worker.node.clone();
    let timeout = Pace { period: node.settings.ping_period, timeout: node.settings.timeout }.answer();
    loop {
        let packets: Vec<Vec<u8>> = {
            let mut held = routes.borrow_mut();
            let Some(route) = held.get_mut(&peer) else { return };
            if route.packets.is_empty() || node.is_stopping() {
                route.busy = false;
                return;
            }
            route.packets.drain(..).collect()
        };
        let ring = node.ring();
        let Some(to) = ring.member_by_name(&peer) else {
            // Should it become a member again, it is called again.
            routes.borrow_mut().remove(&peer);
            return;
        };
        let link = worker.link(&ring, to);
        let result = link.ping(packets, timeout).await;
        match accepted(&node, &peer, &link, result) {
            Ok(reply) => {
                node.queue.heard(reply.stamp);
                if let Ok([Answer::Gossip { packets }]) = reply.answers.as_deref() {
                    let mut liveness = node.liveness();
                    for packet in packets.iter().take(PACKETS_MAX) {
                        liveness.hear(packet, node.uptime());
                    }
                }
                if node.note(|view| view.heard(&peer, reply.sender, wall_ms())) {
                    super::sync::on_return(&worker, &peer);
                }
            }
            Err(error) => {
                node.liveness().failed(&peer, node.uptime());
                node.note(|view| view.failed(&peer, error));
            }
        }
        node.gossip.notify_one();
    }
}

/// The reply, if it is one of the peer that was meant. The error is a line for people.
fn accepted(node: &Shared, peer: &str, link: &Link, result: Result<Reply, String>) -> Result<Reply, String> {
    let reply = result?;
    match &reply.answers {
        Ok(_) if reply.sender == node.id => Err("this node itself answers at that address".into()),
        Ok(_) if link.is_from_another(&reply) => {
            node.view().forget_id(peer);
            Err("another member answers at that address".into())
        }
        Ok(_) => Ok(reply),
        Err(refusal) => {
            if *refusal == Refusal::OtherNode {
                // It lost its store, or another took its address: the next ping learns its id.
                node.view().forget_id(peer);
            }
            Err(refusal.to_string())
        }
    }
}
