//! How a node comes to belong to a cluster, and goes on to know who does: it founds one with those it was told of, joins one
//! that stands, and learns what others go by.
//!
//! ```text
//!  fresh, with peers ──all agree──► epoch 1 ◄──at once── fresh, alone
//!  fresh, meets a cluster ──asks to join──► a member, once the others have agreed
//! ```

use super::foreground::Class;
use super::layouts::{adopt, ids, lock, take_standing};
use super::link::Link;
use super::outside::{jittered, now, random};
use super::shared::Shared;
use super::steward::{change, propose};
use super::worker::Worker;
use crate::operation::Failure;
use crate::placement::{ClusterId, Layout, Member, MemberIndex, Ring};
use crate::protocol::{Answer, LayoutAnswer, LayoutRequest, LayoutWish, Request};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How often a fresh node turns to its peers, and one that wants to join asks, at least.
pub(super) const LOOK_PERIOD: Duration = Duration::from_millis(100);
pub(super) const ASK_PERIOD: Duration = Duration::from_millis(500);
/// How many of those that it was told of a fresh node turns to at a time: each tells the other its whole list.
pub(super) const MET_AT_A_TIME: usize = 8;
/// How long the next in line waits for the first before it proposes a cluster's first layout itself.
const IN_LINE: Duration = Duration::from_secs(1);

/// Begins all of it on the calling thread's worker.
pub(super) fn belong_somewhere(worker: &Rc<Worker>) {
    actix_web::rt::spawn(learn(worker.clone()));
    actix_web::rt::spawn(belong(worker.clone()));
}

/// Asks one node something about layouts.
pub(super) async fn ask(link: &Rc<Link>, node: &Shared, request: LayoutRequest) -> Option<LayoutAnswer> {
    let (tell, told) = oneshot::channel();
    let answered = move |result: Result<Answer, Failure>| {
        let _ = tell.send(result);
    };
    let until = now() + node.settings.timeout;
    link.send(Request::Layout(request), Class::Foreground, node.epoch(), until, Box::new(answered));
    match told.await {
        Ok(Ok(Answer::Layout(answer))) => Some(answer),
        _ => None,
    }
}

/// Tells another node what this one goes by; how that stands, if its cluster has this one's name: it, and the bytes of its
/// layout.
pub(super) async fn exchange(worker: &Rc<Worker>, link: &Rc<Link>) -> Option<(Member, Vec<u8>)> {
    let node = &worker.node;
    let layout = node.ring().layout().encode();
    let request = LayoutRequest::Hello { name: node.cluster_name(), member: node.as_member(), layout };
    match ask(link, node, request).await {
        Some(LayoutAnswer::Standing { name, member, layout }) if name == node.cluster_name() => Some((member, layout)),
        _ => None,
    }
}

/// Tells another node what this one goes by, and learns what it does.
pub(super) async fn hello(worker: &Rc<Worker>, link: Rc<Link>) {
    let Some((member, layout)) = exchange(worker, &link).await else { return };
    if member.id == Some(worker.node.id) {
        return;
    }
    if let Some(layout) = take_standing(worker, &member, &layout) {
        adopt(worker, layout).await;
    }
}

/// Turns to those who named another epoch.
async fn learn(worker: Rc<Worker>) {
    let node = worker.node.clone();
    let asking = Rc::<RefCell<BTreeSet<String>>>::default();
    while !node.is_stopping() {
        tokio::select! {
            () = node.layouts.due.notified() => {}
            () = tokio::time::sleep(ASK_PERIOD) => {}
        }
        let ring = node.ring();
        for peer in node.layouts.out_of_step() {
            if !asking.borrow_mut().insert(peer.clone()) {
                continue;
            }
            let link = match ring.member_by_name(&peer) {
                Some(member) => worker.link(&ring, member),
                None => worker.link_to(&peer),
            };
            let (worker, asking) = (worker.clone(), asking.clone());
            actix_web::rt::spawn(async move {
                hello(&worker, link).await;
                worker.node.layouts.note_met(&peer, &worker.node.ring());
                asking.borrow_mut().remove(&peer);
            });
        }
    }
}

/// Becomes a member: of a cluster that is being founded, or of one that stands.
async fn belong(worker: Rc<Worker>) {
    let node = worker.node.clone();
    let mut agreed_since = None::<Instant>;
    let mut turn = 0;
    while !node.is_stopping() {
        let ring = node.ring();
        let pause = if ring.epoch() == 0 {
            // Those that list the same have nothing new to say: whoever comes to list others says so by itself.
            let mut awaited = node.awaited_founders();
            let first = turn % awaited.len().max(1);
            awaited.rotate_left(first);
            turn += MET_AT_A_TIME;
            let greetings: Vec<_> = awaited
                .iter()
                .take(MET_AT_A_TIME)
                .filter_map(|name| ring.member_by_name(name))
                .map(|member| {
                    let (worker, link) = (worker.clone(), worker.link(&ring, member));
                    actix_web::rt::spawn(async move { hello(&worker, link).await })
                })
                .collect();
            for greeting in greetings {
                // One that hangs is not waited for: the next round comes soon.
                let _ = tokio::time::timeout(ASK_PERIOD, greeting).await;
            }
            if let Some(founders) = founders(&node) {
                let since = *agreed_since.get_or_insert_with(now);
                let rank = founders.iter().position(|member| member.name == node.name).unwrap_or_default() as u32;
                if now().duration_since(since) >= IN_LINE * rank {
                    found(&worker, founders).await;
                    if node.epoch() == 0 {
                        // One of them may have started anew since it was met.
                        lock(&node.layouts.met).clear();
                    }
                }
            } else {
                agreed_since = None;
            }
            LOOK_PERIOD
        } else {
            let me = ring.member(node.me(&ring));
            let is_as_listed = ring.guest().is_none() && me.id == Some(node.id) && me.url == node.url;
            let joins = ring.guest().is_none() || node.layouts.joins.load(std::sync::atomic::Ordering::Relaxed);
            if !is_as_listed && joins {
                turn += 1;
                ask_to_join(&worker, &ring, turn).await;
            } else if ring.guest().is_some() && ring.is_changing() {
                // Nobody tells a guest how a change ended, and until it knows it hands nothing over.
                turn += 1;
                if let Some(member) = ring.members().nth(turn % ring.members().len()) {
                    hello(&worker, worker.link(&ring, member)).await;
                }
            }
            ASK_PERIOD
        };
        tokio::time::sleep(jittered(pause)).await;
    }
}

/// The members of the cluster that this node would found, where all of them list the same.
fn founders(node: &Shared) -> Option<Vec<Member>> {
    if !node.awaited().is_empty() {
        return None;
    }
    let (ring, met) = (node.ring(), lock(&node.layouts.met));
    let member = |member: &Member| match member.name == node.name {
        true => Some(node.as_member()),
        false => Some(met.get(&member.name)?.member.clone()),
    };
    ring.layout().members().iter().map(member).collect()
}

impl Shared {
    /// Whom a fresh node waits for: those it lists that were not met, or that list others; and what DNS names, or DNS.
    pub fn awaited(&self) -> Vec<String> {
        match self.epoch() {
            0 => [self.awaited_founders(), self.awaited_addresses()].concat(),
            _ => Vec::new(),
        }
    }

    fn awaited_founders(&self) -> Vec<String> {
        let ring = self.ring();
        let met = lock(&self.layouts.met);
        let own: BTreeSet<String> = ring.layout().members().iter().map(|member| member.name.clone()).collect();
        let agrees = |name: &String| met.get(name).is_some_and(|met| met.lists.as_ref() == Some(&own));
        own.iter().filter(|name| **name != self.name && !agrees(name)).cloned().collect()
    }
}

/// Proposes the first layout of a cluster.
async fn found(worker: &Rc<Worker>, founders: Vec<Member>) {
    let (node, ring) = (&worker.node, worker.node.ring());
    if ring.epoch() > 0 {
        return;
    }
    let ids = ids(&lock(&node.layouts.met));
    let voter = |member: MemberIndex| {
        let name = &ring.member(member).name;
        Some((member, if *name == node.name { node.id } else { *ids.get(name)? }))
    };
    let Some(voters) = ring.members().map(voter).collect::<Option<Vec<_>>>() else { return };
    let cluster = ClusterId(u128::from(random()) << 64 | u128::from(random()));
    let mine = ring.layout();
    match Layout::found(cluster, mine.replicas(), mine.mode(), founders) {
        Ok(layout) => {
            let needed = voters.len();
            propose(worker, &ring, layout, voters, needed).await;
        }
        Err(error) => node.events.error("layout", format!("the members make no layout: {error}")),
    }
}

/// Asks a member to be taken in, or to be known under another id or address.
async fn ask_to_join(worker: &Rc<Worker>, ring: &Arc<Ring>, turn: usize) {
    let node = &worker.node;
    let me = node.me(ring);
    let alive: Vec<MemberIndex> = {
        let avoid = node.avoid(ring);
        ring.members().filter(|member| *member != me && !avoid.contains(member)).collect()
    };
    let own = node.as_member();
    let answer = match alive.is_empty() {
        // Its address has changed, and it is the only member.
        true if ring.guest().is_none() => Some(change(worker, LayoutWish::Join(own)).await),
        true => None,
        false => {
            let link = worker.link(ring, alive[turn % alive.len()]);
            ask(&link, node, LayoutRequest::Change { wish: LayoutWish::Join(own) }).await
        }
    };
    match answer {
        Some(LayoutAnswer::Planned { epoch }) if epoch > node.epoch() && !alive.is_empty() => {
            let link = worker.link(ring, alive[turn % alive.len()]);
            hello(worker, link).await;
        }
        Some(LayoutAnswer::Declined { why }) => {
            log::debug!(target: "kringle::layout", "not taken in yet: {why}");
        }
        _ => {}
    }
}

/// Meets the node at this address: it, as it would be a member.
pub async fn meet(worker: &Rc<Worker>, url: &str) -> Option<Member> {
    let (member, layout) = exchange(worker, &worker.link_to(url)).await?;
    // One that belongs to another cluster stays with it.
    let theirs = Layout::decode(&layout).ok()?;
    let is_free = theirs.epoch() == 0 || theirs.cluster() == worker.node.ring().layout().cluster();
    is_free.then_some(member)
}
