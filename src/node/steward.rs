//! Changes of the layout: what comes of a wish, how the members agree on it, and how a change of owners is seen through.
//!
//! ```text
//!  wish ──majority──► Filling ──all have taken in theirs──► Switched ──old owners know──► settled
//!                        └── one that was to take in is gone: abandoned
//! ```
//!
//! Any member may propose the next step; the first that lives does, and if two do, one layout is chosen.

use super::belonging::{ASK_PERIOD, ask, hello};
use super::layouts::{adopt, lock};
use super::link::Link;
use super::outside::{jittered, now, random};
use super::shared::Shared;
use super::worker::Worker;
use crate::coordinator::{Relaid, Relayout, RelayoutOptions, all_have_taken_in, all_know, heirs};
use crate::membership::State;
use crate::placement::{Layout, Member, MemberIndex, Partition, Phase, Ring};
use crate::protocol::{LayoutAnswer, LayoutRequest, LayoutWish, Refusal};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long nodes that want to join wait for one another, so that they come in one change.
const TOGETHER: Duration = Duration::from_secs(2);
/// How often it is looked how far a change has come.
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);
/// How long to wait before it is tried once more to remove a member that has been down for too long.
const EVICT_AGAIN: Duration = Duration::from_secs(10);
/// Timeouts after which a change is given up whose new owner is down.
const GONE_TIMEOUTS: u32 = 6;

/// Begins to see changes through on the calling thread's worker.
pub(super) fn keep_watch(worker: &Rc<Worker>) {
    actix_web::rt::spawn(see_through(worker.clone()));
}

/// Has the voters agree on the next layout; goes by what was chosen, and tells the others.
pub(super) async fn propose(
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
                adopt(worker, layout).await;
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

const NOT_ESTABLISHED: &str = "the cluster is not established yet";

/// Has the members agree on a change of the layout.
pub(super) async fn change(worker: &Rc<Worker>, wish: LayoutWish) -> LayoutAnswer {
    let (node, ring) = (&worker.node, worker.node.ring());
    if ring.epoch() > 0
        && ring.guest().is_none()
        && let LayoutWish::Join(member) = &wish
    {
        lock(&node.layouts.applicants).insert(member.name.clone(), (member.clone(), now()));
    }
    let next = match plan(node, &ring, &wish) {
        Ok(Some(next)) => next,
        Ok(None) => return LayoutAnswer::Planned { epoch: ring.epoch() },
        Err(why) => return LayoutAnswer::Declined { why },
    };
    let epoch = next.epoch();
    let relaid = propose_next(worker, &ring, next.clone()).await;
    // Somebody else may have finished this very one.
    if **node.ring().layout() == next {
        return LayoutAnswer::Planned { epoch };
    }
    match relaid {
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
    if ring.epoch() == 0 {
        return Err(NOT_ESTABLISHED.into());
    }
    if ring.guest().is_some() {
        return Err("this node is no member of the cluster".into());
    }
    let planned = match wish {
        LayoutWish::Join(member) => {
            let id = member.id.ok_or("a node that wants to join has an id")?;
            if let Some(known) = ring.member_by_id(id).map(|index| ring.member(index)) {
                if known.url == member.url {
                    return Ok(None);
                }
                layout.with_url(&known.name, &member.url)
            } else if let Some(known) = ring.member_by_name(&member.name) {
                // Another store at the same address is that member's; elsewhere, only if the member is gone.
                if ring.member(known).url != member.url && !node.avoid(ring).contains(&known) {
                    return Err(format!("the name {} belongs to a member that lives elsewhere", member.name));
                }
                layout.rebind(&member.name, id)
            } else {
                let mut applicants = lock(&node.layouts.applicants);
                applicants.retain(|_, (_, asked)| now().duration_since(*asked) < TOGETHER);
                let is_new = |member: &Member| {
                    ring.member_by_name(&member.name).is_none()
                        && member.id.is_some_and(|id| ring.member_by_id(id).is_none())
                };
                let all = applicants.values().map(|(member, _)| member.clone()).filter(is_new).collect();
                // One that makes no layout keeps nobody else out.
                layout.join(all).or_else(|_| layout.join(vec![member.clone()]))
            }
        }
        LayoutWish::Leave(name) => layout.leave(name),
        LayoutWish::Mode(mode) if *mode == layout.mode() => return Ok(None),
        LayoutWish::Mode(mode) => layout.with_mode(*mode),
        LayoutWish::Replicas(replicas) if *replicas == layout.replicas() => return Ok(None),
        LayoutWish::Replicas(replicas) => layout.with_replicas(*replicas),
        LayoutWish::Refit { name, zone, weight } => {
            let next = layout.refit(name, zone, *weight);
            // The same again moves what an abandoned change has not.
            if next.as_ref().is_ok_and(|next| next.change().is_none() && next.members() == layout.members()) {
                return Ok(None);
            }
            next
        }
        LayoutWish::Abandon => layout.abandon(),
        LayoutWish::Remove(name) => {
            can_be_done_without(node, ring, name)?;
            layout.leave(name)
        }
        LayoutWish::Replace { dead, with } => {
            can_be_done_without(node, ring, dead)?;
            layout.replace(dead, with.clone())
        }
    };
    planned.map(Some).map_err(|error| error.to_string())
}

/// Why the others cannot go on without this member, if they cannot: it lives, or they lack what it has.
fn can_be_done_without(node: &Shared, ring: &Ring, name: &str) -> Result<(), String> {
    let Some(dead) = ring.member_by_name(name) else { return Err(format!("there is no member {name}")) };
    let avoid = node.avoid(ring);
    if !avoid.contains(&dead) {
        return Err(format!("{name} lives: have it leave by a POST to its /cluster/leave"));
    }
    let has_most = |at: &Partition| {
        let owners = ring.owners(*at);
        2 * owners.iter().filter(|owner| node.is_sound(ring, &avoid, **owner)).count() > owners.len()
    };
    match ring.partitions_of(dead).iter().filter(|at| !has_most(at)).count() {
        0 => Ok(()),
        few => Err(format!(
            "of {few} partitions no majority of the owners lives and is filled: what was acknowledged there may be on \
             {name} alone"
        )),
    }
}

/// Sees a change of owners through to its end, and begins one where a member was down for too long.
async fn see_through(worker: Rc<Worker>) {
    let node = worker.node.clone();
    let mut gone_since = BTreeMap::<String, Instant>::new();
    let (mut down_since, mut tried) = (BTreeMap::<String, Instant>::new(), None::<Instant>);
    while !node.is_stopping() {
        tokio::time::sleep(jittered(PROGRESS_PERIOD)).await;
        let ring = node.ring();
        let is_first = is_first(&node, &ring);
        let evicted = is_first.then(|| to_evict(&node, &ring, &mut down_since)).flatten();
        if let Some(member) = evicted.filter(|_| tried.is_none_or(|tried| now().duration_since(tried) >= EVICT_AGAIN)) {
            tried = Some(now());
            evict(&worker, &ring, member).await;
            continue;
        }
        if !ring.is_changing() || !is_first {
            gone_since.clear();
            continue;
        }
        ask_progress(&worker, &ring).await;
        let (progress, _) = node.progress_of_all();
        let said = |member: MemberIndex| progress.get(&ring.member(member).name);
        let next = match ring.layout().change().map(|change| change.phase()) {
            Some(Phase::Filling) if all_have_taken_in(&ring, said) => ring.layout().switch(),
            Some(Phase::Filling) if has_gone(&node, &ring, &mut gone_since) => ring.layout().abandon(),
            Some(Phase::Switched) if all_know(&ring, said) => ring.layout().settle(),
            _ => continue,
        };
        match next {
            Ok(next) => drop(propose_next(&worker, &ring, next).await),
            Err(error) => node.events.error("layout", format!("the change cannot go on: {error}")),
        }
    }
}

/// A member that has been down for longer than it may.
fn to_evict(node: &Shared, ring: &Ring, down_since: &mut BTreeMap<String, Instant>) -> Option<String> {
    let evict_after = node.settings.evict_after?;
    let down: BTreeSet<String> = {
        let view = node.view();
        view.peers().iter().filter(|peer| peer.state == State::Down).map(|peer| peer.name.clone()).collect()
    };
    down_since.retain(|name, _| down.contains(name));
    for name in down {
        down_since.entry(name).or_insert_with(now);
    }
    let is_over = |since: &Instant| now().duration_since(*since) >= evict_after;
    let mut gone = down_since.iter().filter(|(_, since)| !ring.is_changing() && is_over(since)).map(|(name, _)| name);
    // One that cannot be done without keeps no other a member.
    let first = gone.clone().next()?;
    Some(gone.find(|name| can_be_done_without(node, ring, name).is_ok()).unwrap_or(first).clone())
}

async fn evict(worker: &Rc<Worker>, ring: &Arc<Ring>, member: String) {
    let node = &worker.node;
    let planned = can_be_done_without(node, ring, &member)
        .and_then(|()| ring.layout().leave(&member).map_err(|error| error.to_string()));
    match planned {
        Ok(next) => {
            node.events.warn("layout", format!("{member} was down for too long, and is removed"));
            propose_next(worker, ring, next).await;
        }
        Err(why) => node.events.warn("layout", format!("{member} was down for too long, and stays a member: {why}")),
    }
}

/// The member with this id, name or URL.
pub fn named(worker: &Worker, ring: &Ring, text: &str) -> Option<MemberIndex> {
    let name = text.parse::<crate::config::PeerUrl>().map(|url| url.name().to_string()).ok();
    let id_of = |member: &Member| match member.name == worker.node.name {
        true => Some(worker.node.id),
        false => worker.node.view().peer(&member.name).and_then(|peer| peer.id).or(member.id),
    };
    ring.members().find(|&index| {
        let member = ring.member(index);
        let is_id = || id_of(member).is_some_and(|id| id.to_string() == text);
        member.name == text || member.url == text || name.as_ref() == Some(&member.name) || is_id()
    })
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
    let until = now() + ASK_PERIOD;
    for one in asked {
        // Those that hang are waited for together.
        let _ = tokio::time::timeout(until.saturating_duration_since(now()), one).await;
    }
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

/// What would come of a wish, as far as this node knows: nothing, if it is so already. Nobody is asked, and nothing changes.
pub fn outlook(node: &Shared, wish: &LayoutWish) -> Result<Option<Layout>, String> {
    let ring = node.ring();
    match wish {
        // Whoever is to join goes by the layout of those that it joins.
        LayoutWish::Join(_) if ring.guest().is_some() => plan(node, &Ring::new(ring.layout().clone()), wish),
        _ => plan(node, &ring, wish),
    }
}

/// Has a change of the layout agreed on that somebody asked this node for.
pub async fn request_change(worker: &Rc<Worker>, wish: LayoutWish) -> Result<LayoutAnswer, Refusal> {
    let (worker, ring) = (worker.clone(), worker.node.ring());
    if ring.epoch() == 0 {
        return Ok(LayoutAnswer::Declined { why: NOT_ESTABLISHED.into() });
    }
    let asked = async move { change(&worker, wish).await };
    // It goes on though the client hang up.
    actix_web::rt::spawn(asked).await.map_err(|_| Refusal::Overloaded)
}
