//! Handing over what is kept for peers that are alive: the twin of `src/node/replay.rs`, a handful at a time.

use super::answering::{Caller, Done, Handful};
use super::committing::ANY_EPOCH;
use crate::plant::Plant;
use crate::world::World;
use kringle::coordinator::{Fate, HINTS_AT_A_TIME};
use kringle::membership::State;
use kringle::placement::{MemberIndex, Partition};
use kringle::protocol::{Refusal, Request};
use kringle::record::{Key, Record};
use kringle::storage::{Address, Change, Hint, HintPlace, Store};

/// How long a target that is back is waited for to say whether it is as it was.
const GREETING_WAIT_MS_MAX: u64 = 3_000;

/// A handful under way.
pub(super) struct Pass {
    last: HintPlace,
    fates: Vec<Fate>,
    left: usize,
}

impl World {
    /// Begins a pass to each peer that is alive, unless one is under way.
    pub(crate) fn hand_over(&mut self, node: usize) {
        let now_ms = self.now_ms(node);
        let ring = self.ring_of(node);
        for target in 0..self.nodes.len() {
            let name = self.nodes[target].name.clone();
            // What was kept for one that is no member any more is the present owners'; a guest listens to nobody.
            let is_unheard =
                self.options.has_changes() && (ring.guest().is_some() || ring.member_by_name(&name).is_none());
            let up = self.up(node);
            if !up.hints.has_any(&name) || up.passes.contains_key(&target) {
                continue;
            }
            let alive =
                up.view.peer(&name).map(|peer| peer.state == State::Alive).unwrap_or(target == node || is_unheard);
            if !alive {
                up.said.note_away(&name);
            }
            let was_heard = target == node || is_unheard || !alive || up.said.unbroken(&name).is_some();
            let since = if was_heard { None } else { Some(*up.unheard.entry(target).or_insert(now_ms)) };
            if was_heard {
                up.unheard.remove(&target);
            }
            if since.is_some_and(|since| now_ms < since + GREETING_WAIT_MS_MAX) {
                self.counters.hit("hints wait until their target says how it is");
                continue;
            }
            let up = self.up(node);
            if alive {
                up.replays.entry(target).or_default().begin(now_ms);
                self.next_handful(node, target);
            } else {
                // When it is back it may take what it would not take before.
                up.replays.remove(&target);
            }
        }
    }

    fn next_handful(&mut self, node: usize, target: usize) {
        let until = self.now + self.timeout_us();
        let name = self.nodes[target].name.clone();
        let up = self.up(node);
        let places = up.hints.oldest(&name, up.replays.entry(target).or_default().after(), HINTS_AT_A_TIME);
        let Some(last) = places.last().cloned() else { return };
        up.passes.insert(target, Pass { last, fates: Vec::new(), left: places.len() });
        for (_, key) in places {
            let record = match self.up(node).store.read(&Address::hint(&key)) {
                Ok(Some(row)) => Hint::decode(&row),
                Ok(None) => {
                    self.handed_over(node, target, Fate::Stopped);
                    continue;
                }
                Err(_) => {
                    self.handed_over(node, target, Fate::Refused(Refusal::Unreadable));
                    continue;
                }
            };
            let Ok(Hint { record, .. }) = record else {
                self.counters.hit("rotten hint met");
                // The committer finds it unreadable too, and lets go of it.
                let change = self.delivered(key, Record::default(), target, None);
                self.submit_change(node, change);
                self.handed_over(node, target, Fate::Refused(Refusal::Damaged));
                continue;
            };
            let (ring, partition) = (self.ring_of(node), Partition::of(key.position()));
            let keeps = |member: &MemberIndex| ring.is_holder(*member, partition);
            let (mut takers, unbroken) = match ring.member_by_name(&name).filter(keeps) {
                Some(_) => (vec![target], self.up(node).said.unbroken(&name)),
                None => {
                    // It keeps that key no more: whoever does so now is to have it.
                    self.counters.hit("hint of one that keeps the key no more");
                    (self.nodes_of(&ring, &ring.holders(partition)), None)
                }
            };
            let request = Request::Merge { key: key.clone(), record: record.clone() };
            if self.plant == Some(Plant::HintDroppedUnheard) {
                let change = self.delivered(key.clone(), record.clone(), target, unbroken);
                self.submit_change(node, change);
            }
            let (to, epoch) = (takers.remove(0), ring.epoch());
            let handful = Handful { key, record, target, unbroken, takers, epoch };
            self.send(node, to, epoch, request, None, until, Caller::HandOver(Box::new(handful)));
        }
    }

    fn delivered(&self, key: Key, record: Record, target: usize, life: Option<u64>) -> Change {
        Change::HintDelivered { key, record, target: self.nodes[target].name.as_str().into(), life }
    }

    /// One that was asked has the record.
    pub(super) fn taken(&mut self, node: usize, mut handful: Handful) {
        if handful.takers.is_empty() {
            let Handful { key, record, target, unbroken, .. } = handful;
            return self.drop_hint(node, key, record, target, unbroken);
        }
        let (to, epoch, until) = (handful.takers.remove(0), handful.epoch, self.now + self.timeout_us());
        let request = Request::Merge { key: handful.key.clone(), record: handful.record.clone() };
        self.send(node, to, epoch, request, None, until, Caller::HandOver(Box::new(handful)));
    }

    /// The target has the record.
    fn drop_hint(&mut self, node: usize, key: Key, record: Record, target: usize, unbroken: Option<u64>) {
        let held = (0..self.keys.len()).find(|&at| self.keys[at] == key).and_then(|at| self.hint_row(node, at));
        let grown = held.filter(|held| !record.includes(held));
        if grown.is_some() {
            self.counters.hit("hint grew on its way");
        }
        let record = grown.filter(|_| self.plant == Some(Plant::GrownHintDropped)).unwrap_or(record);
        let change = self.delivered(key, record, target, unbroken);
        self.submit(node, change, Done::HintGone { target }, ANY_EPOCH);
    }

    /// One of a handful has met its fate.
    pub(super) fn handed_over(&mut self, node: usize, target: usize, fate: Fate) {
        let now_ms = self.now_ms(node);
        if matches!(fate, Fate::Refused(_)) {
            self.counters.hit("hint refused by its target");
        }
        let up = self.up(node);
        let Some(pass) = up.passes.get_mut(&target) else { return };
        pass.fates.push(fate);
        pass.left -= 1;
        if pass.left > 0 {
            return;
        }
        let Pass { last, fates, .. } = up.passes.remove(&target).expect("it is there");
        if fates.contains(&Fate::Taken) {
            let name = self.nodes[target].name.clone();
            self.up(node).schedule.note_hints_taken(&name, now_ms);
        }
        if self.up(node).replays.entry(target).or_default().met(last, &fates, now_ms) {
            self.next_handful(node, target);
        }
    }
}
