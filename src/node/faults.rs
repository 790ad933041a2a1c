//! `Faults`: the network between this node and others, cut on purpose, to see what a cluster makes of it. Only where the
//! operator allowed it with `--faults`.
//!
//! ```text
//!   this node   ──  call ──╳ ┄┄ healed ┄┄►   other        held back, until the cut is healed or the caller's time is over
//!               ◄┄┄ healed ┄┄ ╳── call ──
//! ```
//!
//! It is like a network that loses packets, which TCP sends again: what is under way is neither refused nor lost at once, but
//! held back; what comes through after a heal comes late, and what does not is a call without an answer. Both directions are
//! cut where this one node says so; of an answer on its way nobody knows. A cut is not kept: a restart heals it.

use super::shared::Shared;
use super::steward::named;
use super::worker::Worker;
use crate::config::PeerUrl;
use crate::placement::{NodeId, Ring};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;

/// How long a node that is no member has to say who it is, at most.
const MEET_TIME_MAX: Duration = Duration::from_secs(2);

/// From whom this node is cut off.
pub struct Faults {
    cut: RwLock<Vec<Cut>>,
    /// Whether it is from anybody: mostly not, and nobody need look.
    any: AtomicBool,
    changed: watch::Sender<()>,
}

/// One that it is cut off from.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Cut {
    /// A member's name; of any other, its URL, to compare by.
    name: String,
    /// Where it was then.
    url: String,
    /// Of one that is no member, as what it speaks. A member's may change, and others know it.
    id: Option<NodeId>,
}

/// Why a cut was not made. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Uncut {
    /// There is no such member, and nobody to be met at that address.
    #[error("no member is called \"{0}\", and no other node answers there")]
    Unknown(String),
    /// It is this node itself.
    #[error("\"{0}\" is this node itself")]
    Itself(String),
}

impl Default for Faults {
    fn default() -> Faults {
        Faults { cut: RwLock::default(), any: AtomicBool::new(false), changed: watch::Sender::new(()) }
    }
}

impl Faults {
    /// The names of those that this node is cut off from.
    pub fn names(&self) -> Vec<String> {
        self.all().into_iter().map(|cut| cut.name).collect()
    }

    /// Comes back once the way to the node called `name`, at `url`, is not cut.
    pub(super) async fn pass(&self, name: &str, url: &str) {
        let spoken_to = |cut: &Cut| cut.name == name || cut.url == url || canonical(url).as_ref() == Some(&cut.name);
        self.healed(|cut| cut.iter().any(spoken_to)).await;
    }

    /// Those who wait for a heal look again.
    pub(super) fn wake(&self) {
        self.changed.send_replace(());
    }

    /// Comes back once what is cut is not `among` it any more.
    async fn healed(&self, among: impl Fn(&[Cut]) -> bool) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut changed = self.changed.subscribe();
        while among(&self.all()) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn all(&self) -> Vec<Cut> {
        self.cut.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, cut: Vec<Cut>) {
        let any = !cut.is_empty();
        *self.cut.write().unwrap_or_else(PoisonError::into_inner) = cut;
        self.any.store(any, Ordering::Release);
        self.wake();
    }
}

impl Shared {
    /// Whether what comes from `sender`, or goes back to it, comes through within so long. Not once the node is stopping.
    pub async fn lets_through(&self, sender: NodeId, within: Duration) -> bool {
        let is_from = |cut: &Cut| match cut.id {
            Some(id) => id == sender,
            None => self.is_of(&cut.name, sender),
        };
        let is_stuck = |cut: &[Cut]| !self.is_stopping() && cut.iter().any(is_from);
        let healed = tokio::time::timeout(within.min(self.settings.timeout), self.faults.healed(is_stuck)).await;
        healed.is_ok() && !(self.is_stopping() && self.faults.all().iter().any(is_from))
    }

    /// Whether the member called `name` has this id: the layout binds it to that, or it has called itself so since.
    fn is_of(&self, name: &str, id: NodeId) -> bool {
        let ring = self.ring();
        let bound = ring.member_by_name(name).and_then(|member| ring.member(member).id);
        bound == Some(id) || self.view().peer(name).and_then(|peer| peer.id) == Some(id)
    }
}

/// The name that goes with an address.
fn canonical(url: &str) -> Option<String> {
    Some(url.parse::<PeerUrl>().ok()?.name().to_owned())
}

/// Cuts this node off from exactly these nodes, called by name, id or URL, from now on; a node that is no member, by its URL,
/// where it must answer once to be told apart from others.
pub async fn cut_off(worker: &Rc<Worker>, called: &[String]) -> Result<(), Uncut> {
    let (node, ring) = (&worker.node, worker.node.ring());
    let mut cut: Vec<Cut> = Vec::with_capacity(called.len());
    for text in called {
        let one = find(worker, &ring, text).await?;
        if !cut.contains(&one) {
            cut.push(one);
        }
    }
    let before = node.faults.names();
    node.faults.replace(cut);
    match node.faults.names() {
        names if names == before => {}
        names if names.is_empty() => node.events.info("faults", "no longer cut off from anybody"),
        names => {
            node.events.warn("faults", format!("cut off from {}, as /faults was told", names.join(", ")));
        }
    }
    Ok(())
}

async fn find(worker: &Rc<Worker>, ring: &Ring, text: &str) -> Result<Cut, Uncut> {
    let node = &worker.node;
    if let Some(index) = named(worker, ring, text) {
        if index == node.me(ring) {
            return Err(Uncut::Itself(text.to_owned()));
        }
        let member = ring.member(index);
        return Ok(Cut { name: member.name.clone(), url: node.address_of(member).into_owned(), id: None });
    }
    let unknown = || Uncut::Unknown(text.to_owned());
    // One that is cut off already does not answer.
    let name = canonical(text);
    let is_same = |cut: &Cut| {
        cut.url == text || Some(&cut.name) == name.as_ref() || cut.id.is_some_and(|id| id.to_string() == text)
    };
    if let Some(cut) = node.faults.all().into_iter().find(is_same) {
        return Ok(cut);
    }
    let url: PeerUrl = text.parse().map_err(|_| unknown())?;
    let met = worker.link_to(url.url()).ping(Vec::new(), MEET_TIME_MAX.min(node.settings.timeout)).await;
    let id = met.map_err(|_| unknown())?.sender;
    if id == node.id {
        return Err(Uncut::Itself(text.to_owned()));
    }
    Ok(match ring.member_by_id(id) {
        Some(index) => Cut { name: ring.member(index).name.clone(), url: url.url().to_owned(), id: None },
        None => Cut { name: url.name().to_owned(), url: url.url().to_owned(), id: Some(id) },
    })
}
