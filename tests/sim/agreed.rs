//! Clients of agreed keys: they have the owners agree on everything, in the modes `quorum`, `sync` and `chain`, mixed on one
//! key; and what they were told, as histories to be judged.

use super::between::Patience;
use super::node::Machine;
use super::plant::Plant;
use super::workload::Purpose;
use super::world::World;
use crate::history::{Act, OPEN, Operation, Outcome};
use kringle::coordinator::{Confirm, ConfirmOptions, ConfirmOutcome, Entrust, Source, is_since};
use kringle::protocol::{Decision, Reach};
use kringle::record::{Condition, Content, Context, Edit, Proposal, Record, RequestId, Seen, Tag};
use rand::Rng;
use std::collections::BTreeMap;

/// What was asked and answered of agreed keys.
#[derive(Default)]
pub(crate) struct Agreed {
    asked: Vec<Asked>,
    /// Counts what is asked and answered.
    ticks: u64,
    /// What each client was told last of a key: its version, and its context.
    shown: BTreeMap<(usize, usize), (Option<Tag>, Context)>,
    /// Increments of unknown fate that their clients may ask again.
    again: BTreeMap<usize, usize>,
}

struct Asked {
    key: usize,
    /// Nobody's, at the end.
    client: Option<usize>,
    reach: Reach,
    request: Option<RequestId>,
    /// It was asked again.
    again: bool,
    since: Context,
    operation: Operation,
    told: bool,
    patience: Patience,
    /// Of the layout that it goes by now.
    epoch: u64,
}

impl World {
    /// Whether clients have the owners of the key agree on everything.
    pub(crate) fn is_agreed(&self, key: usize) -> bool {
        key >= self.options.keys
    }

    fn is_agreed_counter(&self, key: usize) -> bool {
        self.options.agreed_counter && key + 1 == self.keys.len()
    }

    fn tick(&mut self) -> u64 {
        self.agreed.ticks += 1;
        self.agreed.ticks
    }

    /// A client's turn, at a node that runs.
    pub(crate) fn agree(&mut self, client: usize, node: usize) {
        let reach = match self.rng.random_range(0..10) {
            0..6 => Reach::Majority,
            6..8 => Reach::All,
            _ => Reach::InOrder,
        };
        if let Some(ask) = self.agreed.again.remove(&client)
            && self.rng.random_bool(0.7)
        {
            let asked = &mut self.agreed.asked[ask];
            (asked.again, asked.told, asked.reach) = (true, false, reach);
            asked.operation.node = node;
            self.agreed.asked[ask].patience = self.patience(node);
            return self.entrust(ask, node);
        }
        let key = self.options.keys + self.rng.random_range(0..self.options.agreed);
        let shown = self.agreed.shown.get(&(client, key)).cloned();
        let tag = shown.as_ref().and_then(|(tag, _)| *tag).map(etag);
        let value = self.agreed.asked.len() as i64;
        let mut request = None;
        let act = match (self.is_agreed_counter(key), self.rng.random_range(0..100)) {
            (true, 0..40) => Act::Count,
            (true, _) => {
                // Whoever's clock is an hour ahead has forgotten by then that it was counted.
                let remembers = self.options.clock_hour_every_ms == 0 && self.options.poison_permille == 0;
                request = (remembers && self.rng.random_bool(0.7)).then(|| RequestId(self.rng.random()));
                Act::Add(self.rng.random_range(1..=3))
            }
            (false, 0..40) => Act::Read,
            (false, 40..62) => Act::Write(value),
            (false, 62..70) => Act::Delete,
            (false, 70..82) => Act::Create(value),
            (false, 82..95) => tag.map_or(Act::Read, |tag| Act::Replace(value, tag)),
            (false, _) => tag.map_or(Act::Read, Act::DeleteIf),
        };
        let since = shown.filter(|_| self.rng.random_bool(0.3)).map(|(_, context)| context).unwrap_or_default();
        let ask = self.ask(key, Some(client), node, act, reach, request, since);
        if self.agreed.asked[ask].operation.act.only_looks() {
            self.confirm(ask, node)
        } else {
            self.entrust(ask, node)
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn ask(
        &mut self,
        key: usize,
        client: Option<usize>,
        node: usize,
        act: Act,
        reach: Reach,
        request: Option<RequestId>,
        since: Context,
    ) -> usize {
        let invoked = self.tick();
        let process = client.unwrap_or(self.clients.len());
        let operation = Operation { process, node, act, outcome: Outcome::Unknown, invoked, returned: OPEN };
        let (patience, epoch) = (self.patience(node), self.ring.epoch());
        let asked = Asked { key, client, reach, request, again: false, since, operation, told: false, patience, epoch };
        self.agreed.asked.push(asked);
        self.agreed.asked.len() - 1
    }

    fn confirm(&mut self, ask: usize, node: usize) {
        let Asked { key, reach, .. } = self.agreed.asked[ask];
        let source = match reach {
            Reach::Majority => Source::Any,
            Reach::All => Source::First,
            Reach::InOrder => Source::Last,
        };
        let hedge_ms = (self.deadline_ms() / 4).clamp(1, 50);
        self.agreed.asked[ask].epoch = self.ring_of(node).epoch();
        let since = self.agreed.asked[ask].since.clone();
        let options = ConfirmOptions { source, hedge_ms, avoid: self.avoid(node), since };
        let confirm = Confirm::new(self.keys[key].clone(), &self.ring_of(node), self.me(node), options);
        self.start_operation(node, Machine::Confirm(Box::new(confirm)), Purpose::Agree { node, ask }, None);
    }

    fn entrust(&mut self, ask: usize, node: usize) {
        let Asked { key, reach, request, ref operation, .. } = self.agreed.asked[ask];
        let content = |value: i64| Some(Content::plain(value.to_string()));
        let write = |content| Edit::write(Seen::Everything, content);
        let (edit, condition) = match &operation.act {
            Act::Read | Act::Count => (None, None),
            Act::Write(value) => (Some(write(content(*value))), None),
            Act::Delete => (Some(write(None)), None),
            Act::Create(value) => (Some(write(content(*value))), Some(Condition::Absent)),
            Act::Replace(value, tag) => (Some(write(content(*value))), Some(Condition::Tagged(tag_of(tag)))),
            Act::DeleteIf(tag) => (Some(write(None)), Some(Condition::Tagged(tag_of(tag)))),
            Act::Add(by) => (Some(Edit::Add { by: *by, request }), None),
        };
        let reach = if edit.is_none() { Reach::Majority } else { reach };
        let proposal = edit.map(|edit| Proposal { edit, condition });
        let within_ms = (self.deadline_ms() * 9 / 10) as u32;
        let (ring, avoid) = (self.ring_of(node), self.avoid(node));
        self.agreed.asked[ask].epoch = ring.epoch();
        let entrust = Entrust::new(self.keys[key].clone(), proposal, reach, &ring, &avoid, within_ms);
        self.start_operation(node, Machine::Entrust(Box::new(entrust)), Purpose::Agree { node, ask }, None);
    }

    pub(crate) fn read_confirmed(&mut self, node: usize, ask: usize, outcome: ConfirmOutcome) {
        let key = self.agreed.asked[ask].key;
        match outcome {
            ConfirmOutcome::Found { record, .. } => self.agreed_read(ask, &record),
            ConfirmOutcome::Unsettled if self.plant == Some(Plant::HighestWithoutSettling) => {
                let owners = self.owners(key).into_iter().filter(|&owner| self.nodes[owner].up.is_some());
                let rows: Vec<Record> = owners.map(|owner| self.row(owner, key)).collect();
                let highest = rows.iter().fold(Record::default(), |merged, row| merged.merge(row));
                self.agreed_read(ask, &highest);
            }
            ConfirmOutcome::Unsettled => {
                self.counters.hit("identity write for a read");
                self.entrust(ask, node);
            }
            ConfirmOutcome::Unavailable { .. } => self.agreed_refused(ask, "agreed read refused"),
        }
    }

    pub(crate) fn decided(&mut self, ask: usize, decision: Decision) {
        let Asked { again, ref operation, .. } = self.agreed.asked[ask];
        let looks = operation.act.only_looks();
        let now_ms = self.latest_shown_ms;
        match decision {
            Decision::Made { record, .. } if looks => {
                let shown = record.winner(now_ms).map(|winner| winner.content.value.clone());
                let is_of = |asked: &Asked| {
                    let written = asked.operation.act.writes().map(|value| value.to_string());
                    asked.operation.returned == OPEN && written.is_some_and(|text| Some(text.into()) == shown)
                };
                if self.agreed.asked.iter().any(|asked| asked.key == self.agreed.asked[ask].key && is_of(asked)) {
                    self.counters.hit("another's write finished");
                }
                self.agreed_read(ask, &record);
            }
            Decision::Made { record, .. } => {
                self.counters.hit("agreed on");
                let tag = record.winner(now_ms).map(|_| record.tag(now_ms));
                let outcome = match &self.agreed.asked[ask].operation.act {
                    // It was counted once, now or when it was asked first, and what is shown may be later than that.
                    Act::Add(_) if again => {
                        self.counters.hit("request counted already");
                        Outcome::Unknown
                    }
                    Act::Add(_) => match record.counter(now_ms) {
                        Some(total) => Outcome::Total(total as i64),
                        None => return self.oracle.violation(format!("a sum left {record:?}")),
                    },
                    Act::Delete | Act::DeleteIf(_) => Outcome::Done(None),
                    _ => Outcome::Done(tag.map(etag)),
                };
                self.agreed_told(ask, outcome, tag, record.context());
            }
            Decision::Unmet { record } => {
                self.counters.hit("condition not met");
                let tag = record.winner(now_ms).map(|_| record.tag(now_ms));
                self.agreed_told(ask, Outcome::Failed(tag.map(etag)), tag, record.context());
            }
            Decision::Unfit(why) => self.oracle.violation(format!("an edit of an agreed key does not fit: {why:?}")),
            Decision::Unavailable { .. } => self.agreed_refused(ask, "not agreed on"),
            Decision::Unknown { .. } if looks => self.agreed_refused(ask, "agreed read refused"),
            Decision::Unknown { .. } => self.agreed_unknown(ask),
        }
    }

    fn agreed_read(&mut self, ask: usize, record: &Record) {
        let Asked { key, ref since, .. } = self.agreed.asked[ask];
        if !is_since(record, since) {
            return self.agreed_refused(ask, "agreed read refused");
        }
        self.counters.hit("agreed read");
        let now_ms = self.latest_shown_ms;
        let tag = record.winner(now_ms).map(|_| record.tag(now_ms));
        let value = record.winner(now_ms).map(|winner| winner.content.value.clone());
        let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse().ok();
        let outcome = match value.as_deref().map(number) {
            _ if self.is_agreed_counter(key) => Outcome::Total(record.counter(now_ms).unwrap_or(i128::MIN) as i64),
            None => Outcome::Absent,
            Some(Some(value)) => Outcome::Value(value, tag.map(etag)),
            Some(None) => return self.oracle.violation(format!("key {key} shows {record:?}")),
        };
        self.agreed_told(ask, outcome, tag, record.context());
    }

    fn agreed_told(&mut self, ask: usize, outcome: Outcome, tag: Option<Tag>, context: &Context) {
        let returned = self.tick();
        let asked = &mut self.agreed.asked[ask];
        (asked.operation.outcome, asked.operation.returned) = (outcome, returned);
        if let Some(client) = asked.client {
            let key = asked.key;
            self.agreed.shown.insert((client, key), (tag, context.clone()));
        }
        self.agreed_over(ask);
    }

    /// It surely did nothing: unless it was asked before, when nobody knows.
    fn agreed_refused(&mut self, ask: usize, counter: &'static str) {
        if self.agrees_again(ask) {
            return;
        }
        self.counters.hit(counter);
        let asked = &mut self.agreed.asked[ask];
        if !asked.again {
            asked.operation.returned = 0;
        }
        if asked.client.is_none() {
            let what = format!("key {} cannot be read when all is quiet", asked.key);
            self.oracle.violation(what);
        }
        self.agreed_over(ask);
    }

    /// Whether it came to nothing because the layout changed: it is tried again then.
    fn agrees_again(&mut self, ask: usize) -> bool {
        let Asked { ref operation, mut patience, epoch, .. } = self.agreed.asked[ask];
        let node = operation.node;
        if self.nodes[node].up.is_none() {
            return false;
        }
        let Some(after) = self.goes_better_after(node, epoch, &mut patience) else { return false };
        self.agreed.asked[ask].patience = patience;
        self.again(node, Purpose::Agree { node, ask }, after);
        true
    }

    pub(crate) fn agree_again(&mut self, ask: usize, node: usize) {
        if self.agreed.asked[ask].operation.act.only_looks() {
            self.confirm(ask, node);
        } else {
            self.entrust(ask, node);
        }
    }

    /// Nobody knows what became of it.
    pub(crate) fn agreed_unknown(&mut self, ask: usize) {
        self.counters.hit("agreed write of unknown fate");
        let Asked { client, request, .. } = self.agreed.asked[ask];
        if let (Some(client), Some(_)) = (client, request) {
            self.agreed.again.insert(client, ask);
        }
        self.agreed_over(ask);
    }

    fn agreed_over(&mut self, ask: usize) {
        let asked = &mut self.agreed.asked[ask];
        assert!(!std::mem::replace(&mut asked.told, true), "answered twice: {}", asked.operation);
        if let Some(client) = asked.client {
            self.next_turn(client);
        }
    }

    /// Reads every agreed key when all is quiet.
    pub(crate) fn look_at_agreed_keys(&mut self) {
        for key in (0..self.keys.len()).filter(|&key| self.is_agreed(key)).collect::<Vec<_>>() {
            let node = self.some_member();
            let act = if self.is_agreed_counter(key) { Act::Count } else { Act::Read };
            let ask = self.ask(key, None, node, act, Reach::Majority, None, Context::new());
            self.confirm(ask, node);
        }
    }

    /// What was asked of a key, but for what surely did nothing.
    pub(crate) fn history(&self, key: usize) -> Vec<Operation> {
        let here = self.agreed.asked.iter().filter(|asked| asked.key == key && asked.operation.returned != 0);
        here.map(|asked| asked.operation.clone()).collect()
    }
}

fn etag(tag: Tag) -> String {
    format!("{:032x}", tag.0)
}

fn tag_of(etag: &str) -> Tag {
    Tag(u128::from_str_radix(etag, 16).expect("a tag that was told"))
}
