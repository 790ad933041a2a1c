//! Links: what goes to one peer gathers while a message is on its way.

use super::answering::{Caller, Done};
use crate::network::Fate;
use crate::options::about;
use crate::world::{Event, Parcel, World};
use bytes::Bytes;
use kringle::operation::Failure;
use kringle::protocol::{Batch, Envelope, Lane, PROTOCOL_VERSION, REQUESTS_PER_BATCH_MAX, Refusal, Reply, Request};
use rand::Rng;
use std::collections::VecDeque;

#[derive(Default)]
pub(crate) struct Link {
    pub(crate) waiting: VecDeque<Waiting>,
    pub(super) busy: bool,
}

pub(crate) struct Waiting {
    pub(super) request: Request,
    pub(super) tag: Option<usize>,
    pub(super) until: u64,
    pub(super) caller: Caller,
    /// Under which it is asked: a batch has one.
    pub(super) epoch: u64,
}

pub(super) struct Exchange {
    pub(super) to: usize,
    /// None for a ping.
    pub(super) lane: Option<Lane>,
    pub(super) callers: Vec<Caller>,
}

impl World {
    /// Asks a node, this one included, the same way, under this epoch.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn send(
        &mut self,
        node: usize,
        to: usize,
        epoch: u64,
        request: Request,
        tag: Option<usize>,
        until: u64,
        caller: Caller,
    ) {
        if to == node {
            return self.answer(node, request, epoch, tag, Done::Caller(caller));
        }
        let life = self.nodes[node].life;
        let up = self.up(node);
        let is_background = match &caller {
            Caller::HandedOver(_) | Caller::HandOver(_) => true,
            Caller::Operation { id, .. } => {
                up.operations.get(id).is_some_and(|running| running.machine.is_in_background())
            }
            Caller::Greeting { .. } | Caller::Hello { .. } | Caller::Progress { .. } | Caller::Join { .. } => false,
        };
        let lane = if is_background { request.lane_in_background() } else { request.lane() };
        let link = up.links.entry((to, lane as u8)).or_default();
        link.waiting.push_back(Waiting { request, tag, until, caller, epoch });
        if !std::mem::replace(&mut link.busy, true) {
            self.schedule(0, Event::Flush { node, life, to, lane });
        }
    }

    pub(crate) fn envelope(&self, node: usize, peer: usize, epoch: u64, deadline_us: u64) -> Envelope {
        let up = self.nodes[node].up.as_ref().expect("only a running node sends");
        Envelope {
            cluster: up.ring.layout().cluster(),
            sender: self.nodes[node].id(),
            receiver: up.view.peer(&self.nodes[peer].name).and_then(|peer| peer.id),
            epoch,
            deadline_ms: (deadline_us / 1_000) as u32,
            stamp: up.last,
            background: false,
        }
    }

    pub(crate) fn flush(&mut self, node: usize, to: usize, lane: Lane) {
        let (now, timeout) = (self.now, self.timeout_us());
        let link = self.up(node).links.entry((to, lane as u8)).or_default();
        let (mut requests, mut tags, mut callers, mut late, mut until) = (vec![], vec![], vec![], vec![], now);
        let mut under = None;
        while requests.len() < REQUESTS_PER_BATCH_MAX
            && let Some(waiting) = link.waiting.pop_front_if(|next| under.is_none_or(|epoch| epoch == next.epoch))
        {
            if waiting.until <= now {
                late.push(waiting.caller);
                continue;
            }
            under = Some(waiting.epoch);
            until = until.max(waiting.until);
            requests.push(waiting.request);
            tags.push(waiting.tag);
            callers.push(waiting.caller);
        }
        let Some(epoch) = under else {
            link.busy = false;
            late.into_iter().for_each(|caller| self.called(node, caller, Err(Failure::Unreachable)));
            return;
        };
        {
            if requests.len() > 1 {
                self.counters.hit("batch of several");
            }
            let timeout = (until - now).min(timeout);
            let mut batch = Batch { envelope: self.envelope(node, to, epoch, timeout), requests };
            batch.envelope.background = lane == Lane::Repairs;
            if self.is_poisoned() {
                self.counters.hit("message with a stamp from the future");
                batch.envelope.stamp = self.far_stamp();
            }
            self.post(node, to, Some(lane), &batch, tags, callers, timeout);
        }
        for caller in late {
            self.called(node, caller, Err(Failure::Unreachable));
        }
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn post(
        &mut self,
        node: usize,
        to: usize,
        lane: Option<Lane>,
        batch: &Batch,
        tags: Vec<Option<usize>>,
        callers: Vec<Caller>,
        timeout: u64,
    ) {
        let (exchange, life) = (self.next_exchange(), self.nodes[node].life);
        self.up(node).exchanges.insert(exchange, Exchange { to, lane, callers });
        let failure = Failure::Unknown;
        self.schedule(timeout, Event::Broken { node, life, exchange, failure });
        let bytes = Parcel(batch.encode(PROTOCOL_VERSION).into());
        let arrives = |after| (after, Event::Arrived { node: to, from: node, from_life: life, exchange, bytes, tags });
        match self.fate(node, to) {
            Fate::Arrives(after) | Fate::Jammed(after) => {
                let (after, event) = arrives(after);
                let harmless = |request: &Request| {
                    let once = matches!(request, Request::Write { .. } | Request::HintWrite { .. });
                    !once && !matches!(request, Request::Propose { .. })
                };
                let repeat = !self.quiet && self.rng.random_range(0..1_000) < self.options.repeat_permille;
                if repeat && batch.requests.iter().all(harmless) && !batch.requests.is_empty() {
                    self.counters.hit("request repeated");
                    let again = after + about(&mut self.rng, 100_000);
                    self.schedule(again, event.clone());
                }
                self.schedule(after, event);
            }
            Fate::Lost => self.counters.hit("request lost"),
        }
    }

    /// An exchange has ended, with a reply or without.
    pub(crate) fn ended(&mut self, node: usize, exchange: u64, result: Result<&Bytes, Failure>) {
        let Some(Exchange { to, lane, callers }) = self.up(node).exchanges.remove(&exchange) else { return };
        let result = result.map(|bytes| Reply::decode(bytes).expect("a reply can be read back").0);
        if let Ok(reply) = &result {
            self.hear(node, reply.stamp);
            if lane.is_some() {
                self.note_epoch(node, to, reply.epoch);
            }
        }
        let Some(lane) = lane else { return self.pinged(node, to, result.ok()) };
        match result {
            Ok(Reply { answers: Ok(answers), .. }) if answers.len() == callers.len() => {
                for (caller, answer) in callers.into_iter().zip(answers) {
                    self.called(node, caller, Ok(answer));
                }
            }
            Ok(Reply { answers: Ok(_), .. }) => unreachable!("a batch gets an answer for each request here"),
            Ok(Reply { answers: Err(refusal), .. }) => {
                if refusal == Refusal::OtherNode {
                    let name = self.nodes[to].name.clone();
                    self.up(node).view.forget_id(&name);
                }
                for caller in callers {
                    self.called(node, caller, Err(Failure::Refused(refusal.clone())));
                }
            }
            Err(failure) => {
                for caller in callers {
                    self.called(node, caller, Err(failure.clone()));
                }
            }
        }
        self.flush(node, to, lane);
    }
}
