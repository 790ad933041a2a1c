//! Finding one another: addresses to try beside the layout's, and who answers there.
//!
//! ```text
//!  --peers, and what DNS names ──► tried while anybody is missing ──► hello: what either goes by
//!                                                                └─► a member lives there now: reached there
//! ```
//!
//! So all members may be given other addresses at once: one that they are told of is enough, as those who turn to it are met
//! there, and can be reached by it and vote; their new addresses then go into the layout like any other change. Where a
//! member lives is believed once the node there has said that it is the one, and where a node says so of itself it is asked.

use super::belonging::{ASK_PERIOD, LOOK_PERIOD, MET_AT_A_TIME, exchange};
use super::layouts::{adopt, lock, take_standing};
use super::link::Link;
use super::outside::{jittered, now};
use super::shared::Shared;
use super::worker::Worker;
use crate::config::{Host, Lookup, PeerUrl};
use crate::membership::State;
use crate::placement::{Member, NodeId, Ring};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often DNS is asked, and addresses are tried, at least, by a node that belongs to a cluster.
const TRY_PERIOD: Duration = Duration::from_secs(1);
/// How long DNS must have named nobody new before those that it names found a cluster: nodes that start together come into it
/// one by one. They must be as many as keep a key, too, or a node that sees itself alone, as one that lost its data and is up
/// before the others, would found one.
const STEADY: Duration = Duration::from_secs(5);
/// For how long an address counts that DNS does not name any more: some name a few of many at a time.
const NAMED_FOR: Duration = Duration::from_secs(10);
/// Most addresses tried at a time.
const TRIED_MAX: usize = 64;

/// What is known of addresses that are not the layout's.
#[derive(Default)]
pub struct Rendezvous {
    /// What DNS says of each name.
    answers: Mutex<BTreeMap<Lookup, Named>>,
    /// Who answered at an address that was tried.
    found: Mutex<BTreeMap<String, NodeId>>,
    /// Addresses that are being tried.
    tried: Mutex<BTreeSet<String>>,
    /// Where a member answers that the layout has elsewhere, by its name.
    moved: Mutex<BTreeMap<String, String>>,
    /// Whether there are any: what hot paths look at.
    has_moved: AtomicBool,
}

/// What DNS says of a name.
#[derive(Default)]
struct Named {
    /// The addresses, each with when it was named last.
    at: BTreeMap<String, Instant>,
    /// When a new one came last.
    since: Option<Instant>,
}

impl Rendezvous {
    fn note_moved(&self, change: impl FnOnce(&mut BTreeMap<String, String>)) {
        let mut moved = lock(&self.moved);
        change(&mut moved);
        self.has_moved.store(!moved.is_empty(), Ordering::Release);
    }

    /// Another layout is gone by: where it has a member where it was found, or has moved it, that goes before.
    pub(super) fn layout_changed(&self, before: &Ring, ring: &Ring) {
        let url = |ring: &Ring, name: &str| Some(ring.member(ring.member_by_name(name)?).url.clone());
        self.note_moved(|moved| {
            moved.retain(|name, found| {
                let (old, new) = (url(before, name), url(ring, name));
                new.is_some() && new == old && new.as_ref() != Some(found)
            });
        });
    }
}

impl Shared {
    /// Where a member is reached: where it was found, or where the layout has it.
    pub fn address_of<'a>(&self, member: &'a Member) -> Cow<'a, str> {
        let rendezvous = &self.layouts.rendezvous;
        let found = match rendezvous.has_moved.load(Ordering::Acquire) {
            true => lock(&rendezvous.moved).get(&member.name).cloned(),
            false => None,
        };
        found.map_or(Cow::Borrowed(&member.url), Cow::Owned)
    }

    /// What a node that is to found a cluster still waits for of what DNS names: addresses, or names, with a word why.
    pub(super) fn awaited_addresses(&self) -> Vec<String> {
        let rendezvous = &self.layouts.rendezvous;
        let ring = self.ring();
        let replicas = usize::from(ring.layout().replicas());
        let met = lock(&self.layouts.met);
        let listed: BTreeSet<NodeId> = met
            .iter()
            .filter(|(name, _)| ring.member_by_name(name).is_some())
            .filter_map(|(_, met)| met.member.id)
            .collect();
        let (answers, found) = (lock(&rendezvous.answers), lock(&rendezvous.found));
        let mut awaited = Vec::new();
        for lookup in &self.settings.peers.lookups {
            let Some(named) = answers.get(lookup).filter(|named| !named.at.is_empty()) else {
                awaited.push(lookup.to_string());
                continue;
            };
            let (before, mut nodes) = (awaited.len(), BTreeSet::new());
            for url in named.at.keys() {
                match found.get(url) {
                    _ if self.is_at(url, &found) => drop(nodes.insert(self.id)),
                    Some(id) if listed.contains(id) => drop(nodes.insert(*id)),
                    Some(id) if *id == self.id => awaited.push(format!("{url}, which is not this node's alone")),
                    Some(_) => {
                        awaited.push(format!("{url}, which does not list the same nodes, or has this one's name"))
                    }
                    None => awaited.push(url.clone()),
                }
            }
            if awaited.len() == before && nodes.len() < replicas {
                awaited.push(format!("{lookup} to name {replicas} nodes, as many as --replicas"));
            } else if awaited.len() == before && named.since.is_some_and(|since| now().duration_since(since) < STEADY) {
                awaited.push(format!("{lookup} to stay as it is"));
            }
        }
        awaited
    }

    /// Whether there is anybody to be found.
    fn misses_somebody(&self) -> bool {
        let ring = self.ring();
        let me = ring.member(self.me(&ring));
        let is_as_listed = ring.guest().is_none() && me.id == Some(self.id) && me.url == self.url;
        ring.epoch() == 0 || !is_as_listed || self.view().peers().iter().any(|peer| peer.state != State::Alive)
    }

    /// Whether this node is at this address, and nobody else can be.
    fn is_at(&self, url: &str, found: &BTreeMap<String, NodeId>) -> bool {
        url == self.url || found.get(url) == Some(&self.id) && is_here(url)
    }

    /// Whether a living member, or this node, is known to be at this address.
    fn knows(&self, ring: &Ring, url: &str) -> bool {
        let is_own = self.is_at(url, &lock(&self.layouts.rendezvous.found));
        is_own
            || ring.epoch() > 0
                && ring.members().any(|member| {
                    let member = ring.member(member);
                    self.address_of(member) == url && self.is_heard(member)
                })
    }

    /// Whether a member lives where it is believed to be.
    fn is_heard(&self, member: &Member) -> bool {
        let view = self.view();
        let peer = view.peer(&member.name);
        peer.is_some_and(|peer| peer.state == State::Alive && peer.id.is_some() && peer.id == member.id)
    }

    /// Where the layout has members that were found elsewhere and are not heard there either.
    fn left_addresses(&self, ring: &Ring) -> Vec<String> {
        let moved = lock(&self.layouts.rendezvous.moved).clone();
        let members = moved.keys().filter_map(|name| Some(ring.member(ring.member_by_name(name)?)));
        members.filter(|member| !self.is_heard(member)).map(|member| member.url.clone()).collect()
    }
}

/// Whether it is an address of this machine: a name may stand for one that leads to any of several.
fn is_here(url: &str) -> bool {
    let host = url.parse::<PeerUrl>().ok().map(|url| url.host().for_socket());
    host.and_then(|host| host.parse::<IpAddr>().ok()).is_some_and(|ip| UdpSocket::bind((ip, 0)).is_ok())
}

/// Tries addresses as long as anybody is missing, and keeps asking DNS.
pub(super) fn look_around(worker: &Rc<Worker>) {
    let worker = worker.clone();
    if worker.node.settings.peers.is_empty() {
        return;
    }
    actix_web::rt::spawn(async move {
        let node = worker.node.clone();
        let mut turn = 0;
        while !node.is_stopping() {
            if node.misses_somebody() {
                let mut addresses = ask_dns(&node).await;
                let ring = node.ring();
                if ring.epoch() > 0 {
                    addresses.extend(node.settings.peers.nodes.iter().map(|peer| peer.url().to_string()));
                    addresses.extend(node.left_addresses(&ring));
                }
                let mut unknown: Vec<String> =
                    addresses.into_iter().filter(|address| !node.knows(&ring, address)).collect();
                let first = turn % unknown.len().max(1);
                unknown.rotate_left(first);
                turn += MET_AT_A_TIME;
                let tries: Vec<_> = unknown
                    .into_iter()
                    .take(MET_AT_A_TIME)
                    .map(|url| actix_web::rt::spawn(try_address(worker.clone(), url)))
                    .collect();
                for one in tries {
                    // One that hangs is not waited for.
                    let _ = tokio::time::timeout(ASK_PERIOD, one).await;
                }
            }
            let pause = if node.epoch() == 0 { 3 * LOOK_PERIOD } else { TRY_PERIOD };
            tokio::time::sleep(jittered(pause)).await;
        }
    });
}

/// The addresses that DNS has for the names in `--peers`.
async fn ask_dns(node: &Shared) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for lookup in &node.settings.peers.lookups {
        let asked = tokio::net::lookup_host((lookup.name.as_str(), lookup.port));
        let named: BTreeSet<String> = match tokio::time::timeout(node.settings.timeout, asked).await {
            Ok(Ok(named)) => named
                .filter(|at| node.settings.listens_like(at.ip()))
                .map(|at| PeerUrl::new(Host::from(at.ip()), at.port()).url().to_string())
                .collect(),
            // It has none now, or does not answer: neither is anything to found a cluster on.
            _ => BTreeSet::new(),
        };
        let mut answers = lock(&node.layouts.rendezvous.answers);
        let (is_first, now) = (!answers.contains_key(lookup), now());
        let known = answers.entry(lookup.clone()).or_default();
        let new: Vec<&str> = named.iter().map(String::as_str).filter(|url| !known.at.contains_key(*url)).collect();
        if !new.is_empty() {
            node.events.info("dns", format!("{lookup} names {}", new.join(" ")));
            known.since = Some(now);
        } else if is_first {
            node.events.info("dns", format!("{lookup} names nobody yet"));
        }
        known.at.retain(|_, named| now.duration_since(*named) < NAMED_FOR);
        known.at.extend(named.iter().map(|url| (url.clone(), now)));
        all.extend(known.at.keys().cloned());
    }
    all
}

/// A node says of itself that it is at this address.
pub(super) fn note_hello(worker: &Rc<Worker>, member: &Member) {
    let node = &worker.node;
    let ring = node.ring();
    let known = member.id.and_then(|id| ring.member_by_id(id)).map(|index| ring.member(index));
    let is_canonical = || member.url.parse::<PeerUrl>().is_ok_and(|url| url.url() == member.url);
    let is_elsewhere = known.is_some_and(|known| known.name != node.name && node.address_of(known) != member.url);
    if ring.epoch() > 0 && is_elsewhere && is_canonical() {
        actix_web::rt::spawn(try_address(worker.clone(), member.url.clone()));
    }
}

/// Meets whoever is at this address.
async fn try_address(worker: Rc<Worker>, url: String) {
    let (node, rendezvous) = (&worker.node, &worker.node.layouts.rendezvous);
    {
        let mut tried = lock(&rendezvous.tried);
        if tried.len() >= TRIED_MAX || !tried.insert(url.clone()) {
            return;
        }
    }
    // One of its own, which goes with it: there may be many addresses.
    let met = exchange(&worker, &Link::to_anybody(node.clone(), url.clone())).await;
    lock(&rendezvous.tried).remove(&url);
    let met = met.and_then(|(member, layout)| Some((member.id?, member, layout)));
    let Some((id, member, layout)) = met else {
        lock(&rendezvous.found).remove(&url);
        return;
    };
    lock(&rendezvous.found).insert(url.clone(), id);
    if id == node.id {
        return;
    }
    let ring = node.ring();
    // Before there is a layout, members are known by their names alone.
    let known = if ring.epoch() > 0 { ring.member_by_id(id) } else { ring.member_by_name(&member.name) };
    let known = known.map(|index| ring.member(index)).filter(|known| known.name != node.name);
    // Where it lives where it is believed to be, this is another address of the same node.
    if let Some(known) = known.filter(|known| !node.is_heard(known) && node.address_of(known) != url.as_str()) {
        rendezvous.note_moved(|moved| {
            match known.url == url {
                true => moved.remove(&known.name),
                false => moved.insert(known.name.clone(), url.clone()),
            };
        });
        node.events.info("layout", format!("{} is found at {url}", known.name));
        node.gossip.notify_one();
    }
    if let Some(layout) = take_standing(&worker, &member, &layout) {
        adopt(&worker, layout).await;
    }
}
