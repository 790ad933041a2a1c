//! Who is connected.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most connections of this protocol, where a node takes so many of all kinds: those that say nothing must not take the
/// places that peers need.
pub(super) fn clients_max(connections_max: usize) -> usize {
    connections_max - connections_max / 4
}

/// The connections of this protocol to one node, from any of its threads.
#[derive(Default)]
pub struct Clients {
    connected: Mutex<BTreeMap<u64, Arc<Client>>>,
    entered: AtomicU64,
    commands: AtomicU64,
}

/// One of them.
pub(super) struct Client {
    pub(super) id: u64,
    address: Option<SocketAddr>,
    /// When it came, and when it last sent something, after the node's start.
    since: Duration,
    last_ms: AtomicU64,
    protocol: AtomicI64,
    name: Mutex<String>,
}

/// A connection for as long as it lasts.
pub(super) struct Connected {
    clients: Arc<Clients>,
    client: Arc<Client>,
}

impl Clients {
    fn connected(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client comes, so long after the node's start; nothing where there are as many as `most`.
    pub(super) fn enter(
        self: &Arc<Clients>,
        most: usize,
        address: Option<SocketAddr>,
        uptime: Duration,
    ) -> Option<Connected> {
        let mut connected = self.connected();
        if connected.len() >= most {
            return None;
        }
        let id = self.entered.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Arc::new(Client {
            id,
            address,
            since: uptime,
            last_ms: AtomicU64::new(uptime.as_millis() as u64),
            protocol: AtomicI64::new(2),
            name: Mutex::default(),
        });
        connected.insert(id, client.clone());
        Some(Connected { clients: self.clone(), client })
    }

    /// How many there are, how many came so far, and how many commands they have sent.
    pub(super) fn counts(&self) -> (usize, u64, u64) {
        let now = self.connected().len();
        (now, self.entered.load(Ordering::Relaxed), self.commands.load(Ordering::Relaxed))
    }

    /// A line for each, so long after the node's start.
    pub(super) fn list(&self, uptime: Duration) -> String {
        self.connected().values().map(|client| client.line(uptime) + "\n").collect()
    }

    /// A client has sent so many commands.
    pub(super) fn note(&self, client: &Client, commands: u64, uptime: Duration) {
        self.commands.fetch_add(commands, Ordering::Relaxed);
        client.last_ms.store(uptime.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Client {
    fn lock(&self) -> MutexGuard<'_, String> {
        self.name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn name(&self) -> String {
        self.lock().clone()
    }

    pub(super) fn rename(&self, name: &str) {
        *self.lock() = name.to_owned();
    }

    pub(super) fn speaks(&self, protocol: i64) {
        self.protocol.store(protocol, Ordering::Relaxed);
    }

    /// What is known of it, as Redis writes it.
    pub(super) fn line(&self, uptime: Duration) -> String {
        let idle_ms = (uptime.as_millis() as u64).saturating_sub(self.last_ms.load(Ordering::Relaxed));
        format!(
            "id={} addr={} name={} age={} idle={} flags=N db=0 resp={}",
            self.id,
            self.address.map_or_else(String::new, |address| address.to_string()),
            self.lock(),
            uptime.saturating_sub(self.since).as_secs(),
            idle_ms / 1_000,
            self.protocol.load(Ordering::Relaxed),
        )
    }
}

impl Connected {
    pub(super) fn client(&self) -> &Arc<Client> {
        &self.client
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.clients.connected().remove(&self.client.id);
    }
}
