//! What all threads of one node share.

use super::events::Events;
use super::filling::Completeness;
use super::outside::wall_ms;
use super::queue::CommitQueue;
use super::rot::Rot;
use super::sync::Syncs;
use super::under_way::UnderWay;
use crate::config::Settings;
use crate::membership::{State, View};
use crate::merkle::Forest;
use crate::placement::{MemberIndex, NodeId, Ring};
use crate::protocol::Envelope;
use crate::storage::{Feed, HintLedger, Store};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Instant;

/// One node, seen from any of its threads.
pub struct Shared {
    /// How it was set up.
    pub settings: Settings,
    /// Its id, made with its data folder.
    pub id: NodeId,
    /// Its name in the layout.
    pub name: String,
    /// Where its rows are.
    pub store: Arc<dyn Store>,
    /// The digests of its rows.
    pub forest: Arc<Forest>,
    /// What was committed lately.
    pub feed: Arc<Feed>,
    /// What is kept for others.
    pub hints: Arc<HintLedger>,
    /// The way to the committer.
    pub queue: Arc<CommitQueue>,
    /// What happened here.
    pub events: Events,
    /// Writes it coordinates.
    pub under_way: UnderWay,
    /// Its anti-entropy sessions.
    pub syncs: Syncs,
    /// What was found rotten.
    pub rot: Rot,
    /// Copies sent to owners that a read found behind.
    pub read_repairs: AtomicU64,
    /// Owners asked because another was slow to answer a read.
    pub reads_hedged: AtomicU64,
    /// When it started.
    pub started: Instant,
    /// Whether it counts as an owner.
    pub completeness: Completeness,
    /// What is known of the peers.
    pub view: Mutex<View>,
    /// Set when the node is told to stop: no new work is begun in the background.
    pub(super) stopping: AtomicBool,
    /// Bytes of request bodies being taken in.
    pub body_bytes: AtomicU64,
    ring: RwLock<Arc<Ring>>,
}

impl Shared {
    /// Puts the parts together. The ring must have a member called `name`.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        settings: Settings,
        id: NodeId,
        name: String,
        store: Arc<dyn Store>,
        forest: Arc<Forest>,
        feed: Arc<Feed>,
        hints: Arc<HintLedger>,
        completeness: Completeness,
        ring: Ring,
    ) -> Shared {
        let peers = ring.layout().members().iter().map(|member| member.name.clone()).filter(|peer| *peer != name);
        let started = super::outside::now();
        Shared {
            view: Mutex::new(View::of(peers)),
            settings,
            id,
            name,
            store,
            forest,
            feed,
            hints,
            queue: Arc::default(),
            events: Events::default(),
            under_way: UnderWay::default(),
            syncs: Syncs::new(started),
            rot: Rot::default(),
            read_repairs: AtomicU64::new(0),
            reads_hedged: AtomicU64::new(0),
            started,
            completeness,
            stopping: AtomicBool::new(false),
            body_bytes: AtomicU64::new(0),
            ring: RwLock::new(Arc::new(ring)),
        }
    }

    /// The ring to use for one request, from beginning to end.
    pub fn ring(&self) -> Arc<Ring> {
        self.ring.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// This node's place in `ring`.
    pub fn me(&self, ring: &Ring) -> MemberIndex {
        ring.member_by_name(&self.name).unwrap_or_else(|| panic!("{} is not in its own layout", self.name))
    }

    /// What is known of the peers, locked.
    pub fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Members that are believed to be down.
    pub fn avoid(&self, ring: &Ring) -> Vec<MemberIndex> {
        let view = self.view();
        let down = view.peers().iter().filter(|peer| peer.state != State::Alive);
        down.filter_map(|peer| ring.member_by_name(&peer.name)).collect()
    }

    /// The envelope of a message to `peer`.
    pub fn envelope(&self, peer: &str, deadline_ms: u64) -> Envelope {
        let ring = self.ring();
        Envelope {
            cluster: ring.layout().cluster(),
            sender: self.id,
            receiver: self.view().peer(peer).and_then(|peer| peer.id),
            epoch: ring.epoch(),
            deadline_ms: deadline_ms.min(u64::from(u32::MAX)) as u32,
            stamp: self.queue.last_stamp(),
        }
    }

    /// Notes that `peer` answered; a change of its state becomes an event. Whether it had been away.
    pub fn heard(&self, peer: &str, id: NodeId) -> bool {
        let change = self.view().heard(peer, id, wall_ms());
        let was_away = change.is_some();
        if let Some(change) = change {
            self.events.info("peer", format!("{} is {} again, after {}", change.name, change.to, change.from));
            if self.view().peers().iter().all(|peer| peer.state == State::Alive) {
                self.events.info("peer", "all peers are alive");
            }
        }
        was_away
    }

    /// Notes that a ping of `peer` failed; a change of its state becomes an event.
    pub fn ping_failed(&self, peer: &str, error: String) {
        let change = self.view().failed(peer, error.clone());
        if let Some(change) = change {
            self.events.warn("peer", format!("{} is {}: {error}", change.name, change.to));
        }
    }

    /// Says in one line what starts here.
    pub(super) fn announce_start(&self, own: &crate::config::PeerUrl, data: Option<&std::path::Path>) {
        let ring = self.ring();
        let peers: Vec<&str> =
            ring.layout().members().iter().map(|member| member.url.as_str()).filter(|url| *url != own.url()).collect();
        let peers = if peers.is_empty() { "no peers".to_string() } else { format!("peers {}", peers.join(" ")) };
        let data = data.map_or("nothing on disk".to_string(), |folder| format!("data in {}", folder.display()));
        let settings = &self.settings;
        self.events.info(
            "start",
            format!(
                "node {} ({}) of cluster {}: {peers}, {} replicas, mode {}, pings every {} s, timeout {} s, {data}, durability {}; {}",
                self.id,
                own,
                settings.cluster,
                settings.replicas,
                settings.mode,
                settings.ping_period.as_secs_f64(),
                settings.timeout.as_secs_f64(),
                settings.durability,
                settings.summary(),
            ),
        );
        for warning in settings.warnings() {
            self.events.warn("start", warning);
        }
    }

    /// Begins to stop: `/readyz` fails, background loops end, clients are told to close.
    pub fn begin_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the node is stopping.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}
