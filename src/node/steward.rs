//! What a node does about layouts by itself: it founds a cluster with those it was told of, joins one that stands, learns
//! what others go by, and sees a change of owners through.
//!
//! ```text
//!  fresh, with peers ──all agree──► epoch 1 ◄──at once── fresh, alone
//!  fresh, meets a cluster ──asks to join──► Filling ──all have taken in theirs──► Switched ──old owners know──► settled
//!                                              └── one that was to take in is gone: abandoned
//! ```
//!
//! Any member may propose the next step; the first that lives does, and if two do, one layout is chosen.

use super::foreground::Class;
use super::layouts::{adopt, ids, lock, take_standing};
use super::link::Link;
use super::outside::{jittered, now, random};
use super::shared::Shared;
use super::worker::Worker;
use crate::coordinator::{Relaid, Relayout, RelayoutOptions};
use crate::membership::State;
use crate::operation::Failure;
use crate::placement::{ClusterId, Layout, Member, MemberIndex, Partition, Phase, Ring};
use crate::protocol::{Answer, LayoutAnswer, LayoutRequest, LayoutWish, Refusal, Request};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How often a fresh node turns to its peers, and one that wants to join asks, at least.
const LOOK_PERIOD: Duration = Duration::from_millis(100);
const ASK_PERIOD: Duration = Duration::from_millis(500);
/// How long the next in line waits for the first before it proposes a cluster's first layout itself.
const IN_LINE: Duration = Duration::from_secs(1);
/// How long nodes that want to join wait for one another, so that they come in one change.
const TOGETHER: Duration = Duration::from_secs(2);
/// How often it is looked how far a change has come.
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);
/// Timeouts after which a change is given up whose new owner is down.
const GONE_TIMEOUTS: u32 = 6;

/// Begins all of it on the calling thread's worker.
pub(super) fn keep_layout(worker: &Rc<Worker>) {
    actix_web::rt::spawn(learn(worker.clone()));
    actix_web::rt::spawn(belong(worker.clone()));
    actix_web::rt::spawn(see_through(worker.clone()));
}

/// Asks one node something about layouts.
async fn ask(link: &Rc<Link>, node: &Shared, request: LayoutRequest) -> Option<LayoutAnswer> {
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

/// Tells another node what this one goes by, and learns what it does.
async fn hello(worker: &Rc<Worker>, link: Rc<Link>) {
    let node = &worker.node;
    let layout = node.ring().layout().encode();
    let request = LayoutRequest::Hello { name: node.cluster_name(), member: node.as_member(), layout };
    let Some(LayoutAnswer::Standing { name, member, layout }) = ask(&link, node, request).await else { return };
    if name != node.cluster_name() || member.id == Some(node.id) {
        return;
    }
    if let Some(layout) = take_standing(worker, &member, &layout) {
        let (tell, told) = oneshot::channel();
        adopt(worker, layout, move || {
            let _ = tell.send(());
        });
        let _ = told.await;
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
            let others = ring.members().filter(|member| ring.member(*member).name != node.name);
            let greetings: Vec<_> = others
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
                ASK_PERIOD
            } else {
                if ring.guest().is_some() && ring.is_changing() {
                    // Nobody tells a guest how a change ended, and until it knows it hands nothing over.
                    turn += 1;
                    let member = ring.members().nth(turn % ring.members().len());
                    if let Some(member) = member {
                        hello(&worker, worker.link(&ring, member)).await;
                    }
                }
                ASK_PERIOD
            }
        };
        tokio::time::sleep(jittered(pause)).await;
    }
}

/// The members of the cluster that this node would found, where all of them list the same.
fn founders(node: &Shared) -> Option<Vec<Member>> {
    if !node.awaited_founders().is_empty() {
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
    /// Whom a fresh node waits for: those it lists that were not met, or that list others.
    pub fn awaited_founders(&self) -> Vec<String> {
        let ring = self.ring();
        if ring.epoch() > 0 {
            return Vec::new();
        }
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

/// Has the voters agree on the next layout; goes by what was chosen, and tells the others.
async fn propose(
    worker: &Rc<Worker>,
    ring: &Arc<Ring>,
    layout: Layout,
    voters: Vec<(MemberIndex, crate::placement::NodeId)>,
    needed: usize,
) -> Relaid {
    let node = &worker.node;
    let options =
        RelayoutOptions { epoch: layout.epoch(), by: node.first_round().by, voters, needed, chance: random() };
    let relayout = Relayout::new(layout.encode(), options);
    let Some(relaid) = worker.run(relayout, ring.clone(), node.settings.timeout).await else {
        return Relaid::Unavailable { agreed: 0 };
    };
    match &relaid {
        Relaid::Chosen { layout, .. } => {
            if let Ok(layout) = Layout::decode(layout) {
                let (tell, told) = oneshot::channel();
                adopt(worker, layout, move || {
                    let _ = tell.send(());
                });
                let _ = told.await;
                tell_all(worker, ring);
            }
        }
        Relaid::Behind { by } => {
            let link = worker.link(ring, *by);
            hello(worker, link).await;
        }
        Relaid::Unavailable { .. } => {}
    }
    relaid
}

/// Tells everybody that this layout, or the one before, lists what is gone by now.
fn tell_all(worker: &Rc<Worker>, before: &Ring) {
    let (node, ring) = (&worker.node, worker.node.ring());
    let mut links: BTreeMap<String, Rc<Link>> = BTreeMap::new();
    for ring in [before, &*ring] {
        for member in ring.members().filter(|member| ring.member(*member).name != node.name) {
            links.insert(ring.member(member).name.clone(), worker.link(ring, member));
        }
    }
    for (member, _) in lock(&node.layouts.applicants).values() {
        links.entry(member.name.clone()).or_insert_with(|| worker.link_to(&member.url));
    }
    for link in links.into_values() {
        let worker = worker.clone();
        actix_web::rt::spawn(async move { hello(&worker, link).await });
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
        Some(LayoutAnswer::Planned { epoch }) if epoch > node.epoch() => {
            let link = worker.link(ring, alive[turn % alive.len()]);
            hello(worker, link).await;
        }
        Some(LayoutAnswer::Declined { why }) => {
            log::debug!(target: "kringle::layout", "not taken in yet: {why}");
        }
        _ => {}
    }
}

/// Has the members agree on a change of the layout.
pub(super) async fn change(worker: &Rc<Worker>, wish: LayoutWish) -> LayoutAnswer {
    let (node, ring) = (&worker.node, worker.node.ring());
    if ring.epoch() == 0 {
        return LayoutAnswer::Declined { why: "the cluster is not established yet".into() };
    }
    if ring.guest().is_some() {
        return LayoutAnswer::Declined { why: "this node is no member of the cluster".into() };
    }
    if let LayoutWish::Join(member) = &wish {
        lock(&node.layouts.applicants).insert(member.name.clone(), (member.clone(), now()));
    }
    let next = match plan(node, &ring, &wish) {
        Ok(Some(next)) => next,
        Ok(None) => return LayoutAnswer::Planned { epoch: ring.epoch() },
        Err(why) => return LayoutAnswer::Declined { why },
    };
    let epoch = next.epoch();
    match propose_next(worker, &ring, next).await {
        Relaid::Chosen { is_own: true, .. } => LayoutAnswer::Planned { epoch },
        Relaid::Chosen { .. } | Relaid::Behind { .. } => {
            LayoutAnswer::Declined { why: "another change of the layout came first".into() }
        }
        Relaid::Unavailable { agreed } => {
            let voters = ring.layout().voters().len();
            let why = format!("{agreed} of {voters} members agreed, {} must; it may still come about", voters / 2 + 1);
            LayoutAnswer::Unavailable { why }
        }
    }
}

async fn propose_next(worker: &Rc<Worker>, ring: &Arc<Ring>, next: Layout) -> Relaid {
    let voters = ring.layout().voters();
    let needed = voters.len() / 2 + 1;
    let bound = voters.into_iter().filter_map(|voter| Some((voter, ring.member(voter).id?))).collect();
    propose(worker, ring, next, bound, needed).await
}

/// What comes of a wish; nothing, if it is so already.
fn plan(node: &Shared, ring: &Ring, wish: &LayoutWish) -> Result<Option<Layout>, String> {
    let layout = ring.layout();
    let planned = match wish {
        LayoutWish::Join(member) => {
            let id = member.id.ok_or("a node that wants to join has an id")?;
            if let Some(known) = ring.member_by_id(id).map(|index| ring.member(index)) {
                if known.url == member.url {
                    return Ok(None);
                }
                layout.with_url(&known.name, &member.url)
            } else if ring.member_by_name(&member.name).is_some() {
                layout.rebind(&member.name, id)
            } else {
                let mut applicants = lock(&node.layouts.applicants);
                applicants.retain(|_, (_, asked)| now().duration_since(*asked) < TOGETHER);
                let is_new = |member: &Member| {
                    ring.member_by_name(&member.name).is_none()
                        && member.id.is_some_and(|id| ring.member_by_id(id).is_none())
                };
                layout.join(applicants.values().map(|(member, _)| member.clone()).filter(is_new).collect())
            }
        }
        LayoutWish::Leave(name) => layout.leave(name),
        LayoutWish::Mode(mode) if *mode == layout.mode() => return Ok(None),
        LayoutWish::Mode(mode) => layout.with_mode(*mode),
        LayoutWish::Replicas(replicas) if *replicas == layout.replicas() => return Ok(None),
        LayoutWish::Replicas(replicas) => layout.with_replicas(*replicas),
    };
    planned.map(Some).map_err(|error| error.to_string())
}

/// Sees a change of owners through to its end.
async fn see_through(worker: Rc<Worker>) {
    let node = worker.node.clone();
    let mut gone_since = BTreeMap::<String, Instant>::new();
    while !node.is_stopping() {
        tokio::time::sleep(jittered(PROGRESS_PERIOD)).await;
        let ring = node.ring();
        if !ring.is_changing() || !is_first(&node, &ring) {
            gone_since.clear();
            continue;
        }
        ask_progress(&worker, &ring).await;
        let next = match ring.layout().change().map(|change| change.phase()) {
            Some(Phase::Filling) if all_have_taken_in(&node, &ring) => ring.layout().switch(),
            Some(Phase::Filling) if has_gone(&node, &ring, &mut gone_since) => ring.layout().abandon(),
            Some(Phase::Switched) if all_know(&node, &ring) => ring.layout().settle(),
            _ => continue,
        };
        match next {
            Ok(next) => drop(propose_next(&worker, &ring, next).await),
            Err(error) => node.events.error("layout", format!("the change cannot go on: {error}")),
        }
    }
}

/// Whether this node is the first voter that lives, as far as it knows.
fn is_first(node: &Shared, ring: &Ring) -> bool {
    let avoid = node.avoid(ring);
    let first = ring.layout().voters().into_iter().find(|voter| !avoid.contains(voter));
    ring.guest().is_none() && first == Some(node.me(ring))
}

/// Asks every member that is believed to live how far it has come.
pub async fn ask_progress(worker: &Rc<Worker>, ring: &Arc<Ring>) {
    let node = &worker.node;
    let avoid = node.avoid(ring);
    let me = node.me(ring);
    node.note_progress(node.name.clone(), node.progress());
    let others = ring.members().filter(|member| *member != me && !avoid.contains(member));
    let asked: Vec<_> = others
        .map(|member| {
            let (worker, link, name) = (worker.clone(), worker.link(ring, member), ring.member(member).name.clone());
            actix_web::rt::spawn(async move {
                let answer = ask(&link, &worker.node, LayoutRequest::Progress).await;
                if let Some(LayoutAnswer::Progress(progress)) = answer {
                    worker.node.note_progress(name, progress);
                }
            })
        })
        .collect();
    for one in asked {
        let _ = tokio::time::timeout(ASK_PERIOD, one).await;
    }
}

/// Those who keep a partition now that they did not own before.
fn heirs(ring: &Ring) -> BTreeSet<MemberIndex> {
    let new = |at: Partition| ring.beside(at).iter().copied().filter(move |member| !ring.is_owner(*member, at));
    Partition::all().flat_map(new).collect()
}

fn all_have_taken_in(node: &Shared, ring: &Ring) -> bool {
    let (progress, _) = node.progress_of_all();
    let has = |heir: MemberIndex| {
        let said = progress.get(&ring.member(heir).name);
        said.is_some_and(|said| said.epoch == ring.epoch() && said.lacking.is_empty())
    };
    heirs(ring).into_iter().all(has)
}

/// Whether in every partition more than half of the old owners, and of the new, go by this epoch: nobody can be answered
/// under the one before, in which others were read from.
fn all_know(node: &Shared, ring: &Ring) -> bool {
    let (progress, _) = node.progress_of_all();
    let knows =
        |member: &MemberIndex| progress.get(&ring.member(*member).name).is_some_and(|said| said.epoch >= ring.epoch());
    let most =
        |set: &[MemberIndex]| set.is_empty() || 2 * set.iter().filter(|member| knows(member)).count() > set.len();
    Partition::all().all(|at| most(ring.owners(at)) && most(ring.beside(at)))
}

/// Whether somebody who is to take something in has been down for too long.
fn has_gone(node: &Shared, ring: &Ring, gone_since: &mut BTreeMap<String, Instant>) -> bool {
    let view = node.view();
    let is_down = |name: &str| view.peer(name).is_some_and(|peer| peer.state == State::Down);
    let down: BTreeSet<String> =
        heirs(ring).into_iter().map(|heir| ring.member(heir).name.clone()).filter(|name| is_down(name)).collect();
    gone_since.retain(|name, _| down.contains(name));
    for name in down {
        gone_since.entry(name).or_insert_with(now);
    }
    gone_since.values().any(|since| now().duration_since(*since) >= GONE_TIMEOUTS * node.settings.timeout)
}

/// Has a change of the layout agreed on that somebody asked this node for.
pub async fn request_change(worker: &Rc<Worker>, wish: LayoutWish) -> Result<LayoutAnswer, Refusal> {
    let (worker, ring) = (worker.clone(), worker.node.ring());
    if ring.epoch() == 0 {
        return Ok(LayoutAnswer::Declined { why: "the cluster is not established yet".into() });
    }
    let asked = async move { change(&worker, wish).await };
    // It goes on though the client hang up.
    actix_web::rt::spawn(asked).await.map_err(|_| Refusal::Overloaded)
}
