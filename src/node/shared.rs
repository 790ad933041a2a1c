//! What all threads of one node share.

use super::agreed::ToldAgreed;
use super::aside::Aside;
use super::dialects::Dialects;
use super::events::Events;
use super::faults::Faults;
use super::filling::Completeness;
use super::foreground::Foreground;
use super::forgetting::Waits;
use super::layouts::Layouts;
use super::listing::ReadAhead;
use super::load::Load;
use super::outside::{now, random, wall_ms};
use super::proposing::Contested;
use super::queue::CommitQueue;
use super::rot::Rot;
use super::seen::SeenWrites;
use super::sync::Syncs;
use super::under_way::UnderWay;
use super::watchers::Watches;
use crate::config::Settings;
use crate::membership::{Liveness, Pace, State, Transition, View};
use crate::merkle::Forest;
use crate::placement::{MemberIndex, NodeId, Ring};
use crate::protocol::{Envelope, PACKETS_MAX};
use crate::record::Stamp;
use crate::storage::{DueLedger, Feed, HintLedger, Room, Store};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Most bytes of what clients send that are taken in at once and not there whole yet, over all connections. Past it they are
/// turned away, early.
pub const BODIES_BYTES_MAX: u64 = 256 << 20;

/// One node, seen from any of its threads.
pub struct Shared {
    /// How it was set up.
    pub settings: Settings,
    /// Its id, made with its data folder.
    pub id: NodeId,
    /// Its name in the layout, or the one it would have there.
    pub name: String,
    /// The URL that other nodes use for it.
    pub url: String,
    /// What it knows of layouts beside the one it goes by.
    pub layouts: Layouts,
    /// Where its rows are.
    pub store: Arc<dyn Store>,
    /// The digests of its rows.
    pub forest: Arc<Forest>,
    /// How many keys it takes, where that is limited.
    pub room: Option<Arc<Room>>,
    /// What was made here lately.
    pub feed: Arc<Feed>,
    /// Which agreed writes it has told.
    pub(super) told_agreed: ToldAgreed,
    /// Who watches keys.
    pub watches: Watches,
    /// Who watches what happens to nodes.
    pub event_watches: Watches,
    /// What is kept for others.
    pub hints: Arc<HintLedger>,
    /// The way to the committer.
    pub queue: Arc<CommitQueue>,
    /// Whether clients are being served.
    pub foreground: Arc<Foreground>,
    /// What clients ask of it, by the second.
    pub load: Load,
    /// Where work goes that nobody waits for.
    pub aside: Aside,
    /// What happened here.
    pub events: Events,
    /// Writes it coordinates.
    pub under_way: UnderWay,
    /// Its anti-entropy sessions.
    pub syncs: Syncs,
    /// What was found rotten.
    pub rot: Rot,
    /// Keys whose copies disagree with a promise.
    pub contested: Contested,
    /// What waits to be forgotten.
    pub waits: Waits,
    /// Copies sent to owners that a read found behind.
    pub read_repairs: AtomicU64,
    /// Owners asked because another was slow to answer a read.
    pub reads_hedged: AtomicU64,
    /// When it started.
    pub started: Instant,
    /// Which writes it has seen.
    pub seen: SeenWrites,
    /// Whether it counts as an owner.
    pub completeness: Arc<Completeness>,
    /// What is known of the peers.
    pub view: Mutex<View>,
    /// In which version they are spoken to.
    pub dialects: Dialects,
    /// From which of them this node is cut off on purpose.
    pub faults: Faults,
    liveness: Mutex<Liveness>,
    /// Rung when the liveness may have something to say.
    pub(super) gossip: Notify,
    /// Set when the node is told to stop: no new work is begun in the background.
    pub(super) stopping: AtomicBool,
    /// Bytes of request bodies and commands being taken in, at most about [`BODIES_BYTES_MAX`].
    pub body_bytes: AtomicU64,
    /// What was read ahead for lists that go on.
    pub read_ahead: ReadAhead,
    /// Lists of keys that are being made for clients.
    pub lists: Arc<AtomicU64>,
    /// Batches of clients that are being worked off.
    pub batches: Arc<AtomicU64>,
    /// Pieces of backups that are being brought back.
    pub restores: Arc<AtomicU64>,
    ring: RwLock<Arc<Ring>>,
}

impl Shared {
    /// Puts the parts together. The ring must have a member called `name`, or a guest.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        settings: Settings,
        id: NodeId,
        name: String,
        url: String,
        layouts: Layouts,
        store: Arc<dyn Store>,
        forest: Arc<Forest>,
        feed: Arc<Feed>,
        hints: Arc<HintLedger>,
        completeness: Completeness,
        seen: SeenWrites,
        dues: Arc<DueLedger>,
        room: Option<Arc<Room>>,
        ring: Ring,
    ) -> Shared {
        let is_guest = ring.guest().is_some();
        let members = || ring.layout().members().iter().filter(|_| !is_guest);
        let peers = || members().map(|member| member.name.clone()).filter(|peer| *peer != name);
        let pace = Pace { period: settings.ping_period, timeout: settings.timeout };
        let liveness = Liveness::new(&name, peers(), pace, wall_ms(), random(), Duration::ZERO);
        let started = now();
        let transfer_rate = settings.transfer_rate;
        let (foreground, aside) = (Arc::<Foreground>::default(), Aside::of(settings.workers));
        Shared {
            view: Mutex::new(View::of(peers())),
            dialects: Dialects::default(),
            faults: Faults::default(),
            liveness: Mutex::new(liveness),
            gossip: Notify::new(),
            settings,
            id,
            name,
            url,
            layouts,
            store,
            forest,
            room,
            feed,
            told_agreed: ToldAgreed::default(),
            watches: Watches::default(),
            event_watches: Watches::default(),
            hints,
            queue: Arc::new(CommitQueue::beside(foreground.clone(), transfer_rate)),
            foreground,
            load: Load::default(),
            aside,
            events: Events::default(),
            under_way: UnderWay::default(),
            syncs: Syncs::new(started),
            rot: Rot::default(),
            contested: Contested::default(),
            waits: Waits::of(dues),
            read_repairs: AtomicU64::new(0),
            reads_hedged: AtomicU64::new(0),
            started,
            completeness: Arc::new(completeness),
            seen,
            stopping: AtomicBool::new(false),
            body_bytes: AtomicU64::new(0),
            read_ahead: ReadAhead::default(),
            lists: Arc::default(),
            batches: Arc::default(),
            restores: Arc::default(),
            ring: RwLock::new(Arc::new(ring)),
        }
    }

    /// The ring to use for one request, from beginning to end.
    pub fn ring(&self) -> Arc<Ring> {
        self.ring.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// This node's place in `ring`, a guest's if it is no member.
    pub fn me(&self, ring: &Ring) -> MemberIndex {
        // A guest may have the name of a member that is another node.
        let own = ring.guest().or_else(|| ring.member_by_name(&self.name));
        own.unwrap_or_else(|| panic!("{} is neither a member of its own layout nor a guest", self.name))
    }

    pub(super) fn replace_ring(&self, ring: Arc<Ring>) {
        *self.ring.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = ring;
    }

    /// What is known of the peers, locked.
    pub fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// This node's time: its wall clock's, and no earlier than any stamp it has made or heard of.
    pub fn now_stamp(&self) -> Stamp {
        Stamp::from_ms(wall_ms()).max(self.queue.latest_stamp())
    }

    /// Members that are believed to be down.
    pub fn avoid(&self, ring: &Ring) -> Vec<MemberIndex> {
        let view = self.view();
        let down = view.peers().iter().filter(|peer| peer.state != State::Alive);
        down.filter_map(|peer| ring.member_by_name(&peer.name)).collect()
    }

    /// Members for which hints are kept here.
    pub fn behind(&self, ring: &Ring) -> Vec<MemberIndex> {
        self.hints.targets().iter().filter_map(|name| ring.member_by_name(name)).collect()
    }

    /// The envelope of a message to `peer` that is asked under this epoch.
    pub fn envelope(&self, peer: &str, epoch: u64, deadline_ms: u64, background: bool) -> Envelope {
        let cluster = if epoch == 0 { self.cluster_name() } else { self.ring().layout().cluster() };
        Envelope {
            cluster,
            sender: self.id,
            receiver: self.view().peer(peer).and_then(|peer| peer.id),
            epoch,
            deadline_ms: deadline_ms.min(u64::from(u32::MAX)) as u32,
            stamp: self.queue.last_stamp(),
            background,
        }
    }

    /// Who is alive, locked.
    pub fn liveness(&self) -> MutexGuard<'_, Liveness> {
        self.liveness.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Time since the start, by the clock that only moves forward.
    pub fn uptime(&self) -> Duration {
        now().duration_since(self.started)
    }

    /// Takes a peer's gossip; what there is to say to it at once.
    pub fn hear_gossip(&self, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let at = self.uptime();
        let mut liveness = self.liveness();
        let mut from = None;
        for packet in packets {
            from = liveness.hear(packet, at).or(from);
        }
        let replies = from.map(|from| liveness.take_packets_for(&from)).unwrap_or_default();
        drop(liveness);
        // What there is to say to others, and what has changed, is the ping loop's.
        self.gossip.notify_one();
        replies.into_iter().take(PACKETS_MAX).map(|packet| packet.bytes).collect()
    }

    /// Notes what was found of a peer; a change of its state becomes an event. Whether it is back from having been away.
    pub fn note(&self, of: impl FnOnce(&mut View) -> Option<Transition>) -> bool {
        let mut view = self.view();
        let Some(change) = of(&mut view) else { return false };
        let all_alive = view.peers().iter().all(|peer| peer.state == State::Alive);
        let error = view.peer(&change.name).and_then(|peer| peer.last_error.clone());
        drop(view);
        if change.to != State::Alive {
            let error = error.unwrap_or_else(|| "others do not hear it".into());
            self.events.warn("peer", format!("{} is {}: {error}", change.name, change.to));
            return false;
        }
        self.events.info("peer", format!("{} is {} again, after {}", change.name, change.to, change.from));
        if all_alive {
            self.events.info("peer", "all peers are alive");
        }
        true
    }

    /// Says in one line what starts here.
    pub(super) fn announce_start(&self, own: &crate::config::PeerUrl, data: Option<&std::path::Path>) {
        let ring = self.ring();
        let peers: Vec<&str> =
            ring.layout().members().iter().map(|member| member.url.as_str()).filter(|url| *url != own.url()).collect();
        let peers = if peers.is_empty() { "no peers".to_string() } else { format!("peers {}", peers.join(" ")) };
        let settings = &self.settings;
        let data = data.map_or("nothing on disk".to_string(), |folder| {
            format!("data in {}, durability {}", folder.display(), settings.durability)
        });
        self.events.info(
            "start",
            format!(
                "node {} ({}) of cluster {}: {peers}, {} replicas, mode {}, pings every {} s, timeout {} s, {data}; {}",
                self.id,
                own,
                settings.cluster,
                settings.replicas,
                settings.mode,
                settings.ping_period.as_secs_f64(),
                settings.timeout.as_secs_f64(),
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
        // Whoever waits for something to be told looks again.
        self.feed.wake();
        self.events.feed.wake();
        self.faults.wake();
    }

    /// Whether the node is stopping.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}
