//! Hint replay: what is kept for a member is handed to it once it is back. [`Replay`] decides what is sent when.
//!
//! Each target has a task of its own, so a slow one delays no other.

use super::foreground::Class;
use super::outside::{jittered, now};
use super::queue::ANY_EPOCH;
use super::shared::Shared;
use super::worker::Worker;
use crate::coordinator::{Fate, HINTS_AT_A_TIME, Replay};
use crate::membership::State;
use crate::placement::{MemberIndex, Partition};
use crate::protocol::{Refusal, Request};
use crate::record::{Key, Record};
use crate::storage::{Address, Change, Hint};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Hints handed over at a time while clients are served: as many as one commit of the target takes along.
const AT_A_TIME_BESIDE_CLIENTS: usize = 8;

/// How long a target that is back is waited for to say whether it is as it was: it greets everybody at once. Only what is
/// handed over after that can be told to be there.
const GREETING_WAIT_MAX: Duration = Duration::from_secs(3);

/// The replay to each member that is alive and has hints here; nothing while a pass is under way.
type Targets = Rc<RefCell<BTreeMap<String, Option<Replay>>>>;
/// Since when members that are alive have not been heard.
type Unheard = Rc<RefCell<BTreeMap<String, Instant>>>;

/// Hands over what is kept for each member that is alive, again and again until the node stops.
pub fn hand_over_hints(worker: &Rc<Worker>) {
    let (worker, targets, unheard) = (worker.clone(), Targets::default(), Unheard::default());
    actix_web::rt::spawn(async move {
        while !worker.node.is_stopping() {
            tokio::time::sleep(jittered(worker.node.settings.ping_period)).await;
            let ring = worker.node.ring();
            for target in worker.node.hints.targets() {
                let is_member = ring.member_by_name(&target).is_some();
                // What was kept for one that is no member any more is the present owners'.
                if !is_member && ring.epoch() > 0 || is_member && was_heard(&worker.node, &unheard, &target) {
                    begin(&worker, &targets, &target);
                }
            }
        }
    });
}

fn is_alive(node: &Shared, member: &str) -> bool {
    let ring = node.ring();
    // A guest listens to nobody, and has something to hand over all the same.
    if ring.epoch() > 0 && (ring.guest().is_some() || ring.member_by_name(member).is_none()) {
        return true;
    }
    let state = node.view().peer(member).map(|peer| peer.state);
    state.map_or(member == node.name, |state| state == State::Alive)
}

/// Whether `member` said since it was last away whether it is as it was, or has had the time to.
fn was_heard(node: &Shared, unheard: &Unheard, member: &str) -> bool {
    let mut unheard = unheard.borrow_mut();
    let mut said = node.seen.said();
    if !is_alive(node, member) {
        said.note_away(member);
    }
    if member == node.name || said.unbroken(member).is_some() || !is_alive(node, member) {
        unheard.remove(member);
        return true;
    }
    now().duration_since(*unheard.entry(member.to_string()).or_insert_with(now)) >= GREETING_WAIT_MAX
}

/// Begins a pass over what is kept for `target`, unless it is away or one is under way.
fn begin(worker: &Rc<Worker>, targets: &Targets, target: &str) {
    let mut held = targets.borrow_mut();
    let entry = held.entry(target.to_string()).or_insert_with(|| Some(Replay::default()));
    let Some(replay) = entry.take() else { return };
    if !is_alive(&worker.node, target) {
        // When it is back it may take what it would not take before.
        *entry = Some(Replay::default());
        return;
    }
    let (worker, targets, target) = (worker.clone(), targets.clone(), target.to_string());
    actix_web::rt::spawn(async move {
        let replay = pass(&worker, &target, replay).await;
        targets.borrow_mut().insert(target, Some(replay));
    });
}

/// Hands over until nothing is left that the target takes, or it stops answering.
async fn pass(worker: &Rc<Worker>, target: &str, mut replay: Replay) -> Replay {
    let node = &worker.node;
    let elapsed_ms = || now().duration_since(node.started).as_millis() as u64;
    replay.begin(elapsed_ms());
    let mut why = None;
    while !node.is_stopping() {
        let count = if node.foreground.is_busy() { AT_A_TIME_BESIDE_CLIENTS } else { HINTS_AT_A_TIME };
        let places = node.hints.oldest(target, replay.after(), count);
        let Some(last) = places.last().cloned() else { break };
        let fates = futures_of(places.into_iter().map(|(_, key)| deliver(worker, target, key))).await;
        if let Some(Fate::Refused(refusal)) = fates.iter().find(|fate| matches!(fate, Fate::Refused(_))) {
            why = Some(refusal.clone());
        }
        if fates.contains(&Fate::Taken) {
            node.syncs.note_hints_taken(target);
        }
        if !replay.met(last, &fates, elapsed_ms()) {
            break;
        }
    }
    if replay.taken() > 0 {
        node.events.info("hints", format!("{} hints handed over to {target}", replay.taken()));
    }
    if let (Some(refused), Some(why)) = (replay.refused_now(), why) {
        node.events.warn("hints", format!("{refused} hints for {target} are kept and not taken: {why}"));
    }
    replay
}

/// Runs futures side by side on this thread and gathers what they return, in order.
async fn futures_of(futures: impl Iterator<Item = impl Future<Output = Fate> + 'static>) -> Vec<Fate> {
    let tasks: Vec<_> = futures.map(actix_web::rt::spawn).collect();
    let mut fates = Vec::with_capacity(tasks.len());
    for task in tasks {
        fates.push(task.await.unwrap_or(Fate::Stopped));
    }
    fates
}

/// Hands over the hint of one key; it is dropped only once the target has the record.
fn deliver(worker: &Rc<Worker>, target: &str, key: Key) -> impl Future<Output = Fate> + 'static {
    let (worker, target) = (worker.clone(), target.to_string());
    async move {
        let hint = match worker.read(&Address::hint(&key)).await {
            Ok(Some(row)) => Hint::decode(&row),
            Ok(None) => return Fate::Stopped,
            Err(_) => return Fate::Refused(Refusal::Unreadable),
        };
        let Ok(hint) = hint else {
            worker.node.events.error("hints", format!("a hint for {target} cannot be read and is given up"));
            // The committer finds it unreadable too, and lets go of it.
            let change = Change::HintDelivered { key, record: Record::default(), target: target.into(), life: None };
            worker.commit([(change, Box::new(|_| ()) as _)]);
            return Fate::Refused(Refusal::Damaged);
        };
        let (ring, partition) = (worker.node.ring(), Partition::of(key.position()));
        let keeps = |member: &MemberIndex| ring.is_holder(*member, partition);
        let (takers, life) = match ring.member_by_name(&target).filter(keeps) {
            Some(to) => (vec![to], worker.node.seen.said().unbroken(&target)),
            // It keeps that key no more: whoever does so now is to have it.
            None if ring.epoch() > 0 => (ring.holders(partition), None),
            None => return Fate::Stopped,
        };
        for to in takers {
            let request = Request::Merge { key: key.clone(), record: hint.record.clone() };
            let until = now() + worker.node.settings.timeout;
            match worker.answered(&ring, to, request, Class::Background, until).await {
                Some(result) => match Fate::of(&result) {
                    Fate::Taken => {}
                    other => return other,
                },
                None => return Fate::Stopped,
            }
        }
        let change = Change::HintDelivered { key, record: hint.record, target: target.into(), life };
        match worker.committed(Class::Background, ANY_EPOCH, change).await {
            Some(Ok(_)) => Fate::Taken,
            _ => Fate::Stopped,
        }
    }
}
