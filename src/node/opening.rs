//! From settings to an open node: store, identity, layout.

use super::background::Keep;
use super::filling::{Completeness, FILLING_FACT, MEMORY_FACT};
use super::layout_facts::{self, LAYOUT_FACT};
use super::layouts::{self, Layouts};
use super::mend::Mending;
use super::outside::random;
use super::seen::SeenWrites;
use super::shared::Shared;
use crate::config::{Durability, Settings};
use crate::membership::{Filling, Lack, Memory};
use crate::merkle::Forest;
use crate::placement::{ClusterId, Layout, LayoutError, Member, NodeId, Partition, Ring};
use crate::record::{Actor, Clock};
use crate::storage::{
    self, Address, CONTEXTS_FACT, Change, Committer, ContextLedger, Contexts, Feed, HintLedger, MemoryStore, OpenError,
    Refused, Replayed, Room, Store, StoreError,
};
use std::path::PathBuf;
use std::sync::Arc;

/// Changes the feed remembers, and about how many bytes of them: a watcher that falls behind by more is told of a gap. About
/// 16 MB of short keys, some seconds of a busy node and hours of a quiet one; more only where values are watched.
const FEED_EVENTS_MAX: usize = 65_536;
const FEED_BYTES_MAX: usize = 32 << 20;
/// Bytes of rows kept in memory beside the recent ones. A write must see the row it replaces: at a million small keys
/// that is still a look-up in memory (300 bytes each, of 100-byte values). Taken only as rows come.
const CACHE_BYTES_MAX: u64 = 320 << 20;

/// Why a node did not start. One line each; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used.
    #[error(transparent)]
    Folder(#[from] OpenError),
    /// The store was opened and does not work.
    #[error("the store does not work: {0}")]
    Store(#[from] StoreError),
    /// The store took no first write.
    #[error("the store takes no writes: {0}")]
    Refused(#[from] Refused),
    /// Nobody said under which address the node is reached, and it could not find out.
    #[error(
        "cannot find out under which address the peers reach this node: add --advertise http://<address or name>:<port>"
    )]
    Address,
    /// The members named make no layout.
    #[error("the members make no layout: {0}")]
    Layout(#[from] LayoutError),
    /// The operating system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// A node that is ready for its threads.
pub(super) struct Opened {
    pub(super) shared: Shared,
    pub(super) committer: Committer,
    pub(super) keep: Option<Keep>,
}

/// What was found in a data folder.
struct Kept {
    folder: PathBuf,
    is_new: bool,
    replayed: Replayed,
    damaged: u64,
    lost: Vec<String>,
    lack: Option<Lack>,
}

impl Kept {
    fn announce(&self, shared: &Shared) {
        let folder = self.folder.display();
        if self.is_new {
            shared.events.info("store", format!("made the data folder {folder}"));
        } else {
            let Replayed { appends, rows, .. } = &self.replayed;
            shared
                .events
                .info("store", format!("opened {folder}: {appends} commits of {rows} rows replayed from the log"));
        }
        for lost in &self.lost {
            shared.events.error("rot", format!("{folder}: {lost}"));
        }
        if self.damaged > 0 {
            shared.events.error("store", format!("{} hints in {folder} cannot be read", self.damaged));
        }
    }
}

pub(super) fn open(settings: Settings, port: u16) -> Result<Opened, StartError> {
    let own = settings.own_url(port);
    let forest = Arc::new(Forest::new());
    let mut id = NodeId(random());
    let mut kept = None;
    let (store, hints, keep): (Arc<dyn Store>, _, _) = match settings.data.path(port) {
        None => {
            Partition::all().for_each(|partition| forest.mark_built(partition));
            (Arc::new(MemoryStore::new()), HintLedger::new(settings.hint_bytes_max), None)
        }
        Some(folder) => {
            let mut options = storage::OpenOptions::new(&settings.cluster, id.0, random());
            options.store.durability = durability(settings.durability);
            options.store.cache_bytes_max = CACHE_BYTES_MAX;
            options.hint_bytes_max = settings.hint_bytes_max;
            options.heal = settings.has_peers(port);
            let opened = storage::open(&folder, options)?;
            id = NodeId(opened.identity.node);
            let every = match settings.durability {
                Durability::Interval(every) => Some(every),
                Durability::Sync | Durability::None => None,
            };
            let rebuild = (!opened.is_new).then_some(opened.rebuild);
            if rebuild.is_none() {
                Partition::all().for_each(|partition| forest.mark_built(partition));
            }
            let keep = Keep {
                folder: folder.clone(),
                store: opened.store.clone(),
                rebuild,
                sync_every: every,
                scrub_every: settings.scrub_period,
                mending: Mending::new(opened.bases, opened.salvages),
            };
            kept = Some(Kept {
                folder,
                is_new: opened.is_new,
                replayed: opened.replayed,
                damaged: opened.hints_damaged,
                lost: opened.lost,
                lack: opened.lack,
            });
            (opened.store, opened.hints, Some(keep))
        }
    };
    let has_peers = settings.has_peers(port);
    let kept_of_layouts = match layout_facts::Kept::read(&*store) {
        // With peers it is learned anew, as a new store would.
        Err(_) if has_peers => layout_facts::Kept::lost(),
        kept => kept?,
    };
    let layout_facts::Kept { layout: stored, mut votes, has_left } = kept_of_layouts;
    if kept.as_ref().and_then(|kept| kept.lack).is_some_and(|lack| lack.rows) {
        votes = Some(layout_facts::LOST.to_vec());
    }
    let layout = layout(&settings, port, own.name(), id, stored.clone())?;
    // Whom hints were made for goes by the layout.
    if stored.is_some_and(|stored| stored.table() != layout.table() || stored.members() != layout.members()) {
        hints.void_names();
    }
    // A member is known by its id, wherever it is now; one with another store, by its name.
    let by_id = layout.members().iter().find(|member| member.id == Some(id));
    let name = by_id.map_or(own.name(), |member| &member.name).to_string();
    let ring = match layout.members().iter().any(|member| layouts::is_own(member, id, &name, own.url())) {
        true => Ring::new(layout.clone()),
        false => Ring::with_guest(layout.clone(), Member { url: own.url().to_string(), ..Member::new(name.as_str()) }),
    };
    let (hints, feed) = (Arc::new(hints), Arc::new(Feed::new(random(), FEED_EVENTS_MAX, FEED_BYTES_MAX)));
    let completeness = completeness(&*store, &ring, id, &name);
    if let Some(lack) = kept.as_ref().and_then(|kept| kept.lack) {
        completeness.lost(lack);
    }
    let clock = Clock::starting_after(store.last_stamp());
    let actor = Actor(random());
    // Where something was lost, nothing that was said of it before is true any more.
    let is_whole = kept.as_ref().is_none_or(|kept| kept.lack.is_none());
    let seen = store.read(&Address::fact(CONTEXTS_FACT)).unwrap_or_default().filter(|_| is_whole);
    let mut contexts = seen.map_or_else(Contexts::default, |row| Contexts::decode(&row));
    contexts.begin(actor, store.last_stamp());
    let encoded = contexts.encode();
    let contexts = Arc::new(ContextLedger::new(contexts));
    let (forest2, feed2, hints2, contexts2) = (forest.clone(), feed.clone(), hints.clone(), contexts.clone());
    let mut committer = Committer::new(store.clone(), forest2, feed2, hints2, contexts2, actor, clock);
    keep_fact(&*store, &mut committer, LAYOUT_FACT, layout.encode())?;
    if let Some(votes) = &votes {
        // That they were lost, the next start must know as well.
        keep_fact(&*store, &mut committer, layout_facts::REGISTER_FACT, votes.clone())?;
    }
    // Before the actor makes a dot.
    keep_fact(&*store, &mut committer, CONTEXTS_FACT, encoded)?;
    if let Some(filled) = completeness.to_keep() {
        keep_fact(&*store, &mut committer, FILLING_FACT, filled)?;
    }
    committer.note_filling(completeness.lack());
    let room = settings.keys_max.map(|max| Arc::new(Room::of(max, forest.clone())));
    room.iter().for_each(|room| committer.limit(room.clone()));
    let layouts = Layouts::new(ring.epoch(), votes.as_deref(), settings.joins && !has_left);
    let shared = Shared::new(
        settings,
        id,
        name,
        own.url().to_string(),
        layouts,
        store,
        forest,
        feed,
        hints,
        completeness,
        SeenWrites::new(contexts),
        committer.dues(),
        room,
        ring,
    );
    shared.queue.fence(shared.epoch());
    shared.begin_intake();
    shared.announce_start(&own, shared.settings.data.path(port).as_deref());
    if let Some(kept) = kept {
        kept.announce(&shared);
    }
    Ok(Opened { shared, committer, keep })
}

fn durability(durability: Durability) -> storage::Durability {
    match durability {
        Durability::Sync => storage::Durability::Sync,
        Durability::Interval(every) => storage::Durability::Interval { ms: every.as_millis() as u64 },
        Durability::None => storage::Durability::None,
    }
}

/// The layout to begin with: the one that the store keeps, if that was agreed on; else, with peers, the provisional one of
/// this node and those it was told of; and alone, the first one of a cluster of its own.
fn layout(
    settings: &Settings,
    port: u16,
    own: &str,
    id: NodeId,
    stored: Option<Layout>,
) -> Result<Layout, LayoutError> {
    if let Some(stored) = stored.filter(|stored| stored.epoch() > 0) {
        return Ok(stored);
    }
    let url = settings.own_url(port).url().to_string();
    let (zone, weight) = (settings.zone.clone(), settings.weight);
    let mut members = vec![Member { id: Some(id), url, zone, weight, ..Member::new(own) }];
    for peer in settings.peers_besides_self(port) {
        members.push(Member { url: peer.url().to_string(), ..Member::new(peer.name()) });
    }
    let replicas = settings.replicas as u8;
    if members.len() == 1 && !settings.has_peers(port) {
        let cluster = ClusterId(u128::from(random()) << 64 | u128::from(random()));
        return Layout::found(cluster, replicas, settings.mode, members);
    }
    Layout::provisional(ClusterId::named(&settings.cluster), replicas, settings.mode, members)
}

/// What the store says of its own completeness, and remembers of the peers'.
fn completeness(store: &dyn Store, ring: &Ring, id: NodeId, own: &str) -> Completeness {
    let names = ring.layout().members().iter().map(|member| member.name.clone()).filter(|_| ring.guest().is_none());
    // What cannot be read says nothing, and will be replaced.
    let read = |name| store.read(&Address::fact(name)).unwrap_or_default();
    let kept = read(FILLING_FACT);
    let filling = Filling::new(id, store.last_stamp(), kept.as_deref(), names.filter(|name| name != own));
    let memory = read(MEMORY_FACT).map_or_else(Memory::default, |row| Memory::decode(&row));
    Completeness::new(filling, memory, random())
}

/// Keeps a fact in the store, where it is not there already.
fn keep_fact(
    store: &dyn Store,
    committer: &mut Committer,
    name: &'static str,
    bytes: Vec<u8>,
) -> Result<(), StartError> {
    let bytes = bytes::Bytes::from(bytes);
    if store.read(&Address::fact(name)).unwrap_or_default() == Some(bytes.clone()) {
        return Ok(());
    }
    let change = Change::Fact { name, bytes };
    for result in committer.commit(super::outside::wall_ms(), vec![change]) {
        result?;
    }
    Ok(())
}
