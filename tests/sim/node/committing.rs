//! Committing in groups: what waits is taken while one commit is under way.

use super::Up;
use super::answering::Done;
use super::mending::By;
use super::proposing;
use crate::invariants::promises_are_kept;
use crate::options::about;
use crate::oracle::Verdict;
use crate::plant::Plant;
use crate::world::{Event, World};
use kringle::protocol::{Answer, Refusal};
use kringle::record::{Content, Edit, Record, Row, Seen, Stamp};
use kringle::replica;
use kringle::storage::{Address, Change, Outcome, Refused, Store};
use rand::Rng;

/// Most changes in one commit.
const BATCH_MAX: usize = 1_024;

pub(crate) struct Submission {
    pub(super) change: Change,
    pub(super) tag: Option<usize>,
    /// Whether the answer counts towards no majority.
    pub(super) partial: bool,
    pub(super) done: Done,
    /// The epoch under which it was asked for.
    pub(super) epoch: u64,
}

/// The epoch of what no layout has a say in.
pub(super) const ANY_EPOCH: u64 = u64::MAX;

impl World {
    /// A bare write on one node, as a peer might ask for it.
    pub(crate) fn submit_write(&mut self, node: usize, key: usize, write: usize) {
        let content = self.oracle.writes[write].value.clone().map(Content::plain);
        let change = Change::Write {
            key: self.keys[key].clone(),
            edit: Edit::write(Seen::Everything, content),
            until: Stamp::MAX,
        };
        let done = Done::Alone { write };
        self.commit(node, Submission { change, tag: Some(write), partial: false, done, epoch: ANY_EPOCH });
    }

    /// A change that nobody waits for, as some peer might ask for it.
    pub(crate) fn submit_change(&mut self, node: usize, change: Change) {
        self.submit(node, change, Done::Nobody, ANY_EPOCH);
    }

    /// A change that was asked for under this epoch.
    pub(super) fn submit(&mut self, node: usize, change: Change, done: Done, epoch: u64) {
        self.commit(node, Submission { change, tag: None, partial: false, done, epoch });
    }

    pub(super) fn commit(&mut self, node: usize, mut submission: Submission) {
        if let (Some(Plant::ContextIgnored), Change::Write { edit: Edit::Write { seen, .. }, .. }) =
            (self.plant, &mut submission.change)
        {
            *seen = Seen::Everything;
        }
        self.up(node).waiting.push_back(submission);
        self.next_commit(node);
    }

    /// Takes what waits into one commit, if none is under way.
    pub(super) fn next_commit(&mut self, node: usize) {
        let up = self.up(node);
        if up.committing.is_some() || up.waiting.is_empty() && up.layouts.errands.is_empty() {
            return;
        }
        up.errands = std::mem::take(&mut up.layouts.errands);
        // What waits is committed a moment after a layout was taken over: others may hear of that before.
        let count = if up.errands.is_empty() { up.waiting.len().min(BATCH_MAX) } else { 0 };
        let batch: Vec<Submission> = up.waiting.drain(..count).collect();
        if batch.len() > 1 {
            self.counters.hit("group commit");
        }
        self.up(node).committing = Some(batch);
        let mut after = about(&mut self.rng, self.options.sync_mean_us);
        if !self.quiet && self.rng.random_range(0..1_000) < self.options.slow_sync_permille {
            after += self.rng.random_range(50_000..2_000_000);
        }
        let life = self.nodes[node].life;
        self.schedule(after, Event::Committed { node, life });
    }

    pub(crate) fn committed(&mut self, node: usize) {
        self.run_errands(node);
        let wall_ms = self.wall_ms(node);
        let plant = self.plant;
        // What was asked for under an earlier epoch is no longer committed.
        let fence = self.up(node).ring.epoch();
        let up = self.up(node);
        let batch = up.committing.take().expect("a commit was under way");
        let (mut batch, stale): (Vec<_>, Vec<_>) = batch.into_iter().partition(|submission| submission.epoch >= fence);
        up.look_up_stages(&mut batch);
        // A stamp that is not credible is not taken over.
        let heard_ms = if plant == Some(Plant::FarStampBelieved) { up.heard.ms() } else { wall_ms };
        let _ = up.committer.note_stamp(up.heard, heard_ms);
        let mut changes: Vec<Change> = batch.iter().map(|submission| submission.change.clone()).collect();
        if plant == Some(Plant::ClockFollowsWall) {
            up.forget_time(wall_ms);
        }
        match plant {
            Some(Plant::MergeOverwrites) => overwrite(up, &changes, |_, _, _| true),
            Some(Plant::RepairOverwrites) => overwrite(up, &changes, |up, _, record| up.repairs.contains(record)),
            Some(Plant::LateCopyTaken) => overwrite(up, &changes, |_, held, _| held.is_unknown()),
            Some(Plant::CountersOverwritten) => overwrite(up, &changes, |_, held, _| held.counter(0).is_some()),
            Some(Plant::SiblingDropped) => changes.iter_mut().for_each(drop_siblings),
            Some(Plant::TombstoneOverwritten) => overwrite(up, &changes, |_, held, _| held.is_tombstone()),
            _ => {}
        }
        let raises = up.raises_floor(&batch);
        if raises {
            changes.push(Change::RaiseFloor { stamp: up.heard.max(up.last) });
        }
        let despite = plant == Some(Plant::CopyDespitePromise);
        let aside = if despite { proposing::put_aside(up, &changes) } else { Vec::new() };
        let results = up.committer.commit(wall_ms, changes);
        proposing::put_back(up, aside);
        up.last = up.committer.last_stamp();
        let contested = up.committer.take_contested();
        let (damaged, actor) = (up.committer.take_damaged(), up.committer.actor());
        damaged.into_iter().for_each(|key| self.note_rot(node, key, By::Change));
        self.nodes[node].actor = actor;
        if raises && results.last().is_some_and(Result::is_ok) {
            self.counters.hit("ballot floor raised");
        }
        self.contested(node, contested);
        for (submission, result) in batch.iter().zip(&results) {
            if let (Done::Stage(stand), Ok(_)) = (&submission.done, result) {
                self.up(node).committer.note_filling(stand.lack());
            }
        }
        for (submission, result) in batch.iter().zip(&results) {
            self.note_commit(node, submission, result);
        }
        self.look_at_rows(node, false);
        for submission in stale {
            self.counters.hit("change of an earlier epoch not committed");
            self.answered(node, submission.done, Answer::Refused(Refusal::StaleEpoch { epoch: fence }));
        }
        for (submission, result) in batch.into_iter().zip(results) {
            if let Done::LetGo { partition } = submission.done {
                self.let_go_committed(node, partition, result);
                continue;
            }
            let answer = replica::committed(result).in_part(submission.partial);
            self.answered(node, submission.done, answer);
        }
        self.next_commit(node);
    }

    pub(super) fn note_commit(&mut self, node: usize, submission: &Submission, result: &Result<Outcome, Refused>) {
        promises_are_kept(self, node, &submission.change, result);
        match (&submission.change, result) {
            (Change::Write { .. } | Change::HintWrite { .. }, Ok(Outcome::Written { record, .. })) => {
                let dot = record.context().newest().expect("a write leaves a dot");
                if let Some(write) = submission.tag {
                    if self.oracle.writes[write].verdict != Verdict::Open {
                        self.counters.hit("late maker");
                    }
                    self.oracle.dot_made((node, self.nodes[node].life), dot, write, self.moment);
                }
            }
            (Change::Write { .. }, Err(Refused::Overtaken { .. })) => {
                let is_told = submission.tag.is_some_and(|write| self.oracle.writes[write].verdict != Verdict::Open);
                self.counters.hit(if is_told { "late maker refused" } else { "overtaken, and asked again" });
            }
            (_, Err(Refused::StampAhead(_))) => self.counters.hit("write from the future refused"),
            (Change::Hint { .. }, Ok(_)) => self.counters.hit("hint kept"),
            (Change::HintDelivered { .. }, Ok(_)) => self.counters.hit("hint handed over"),
            (_, Err(Refused::ReadOnly(_))) => self.counters.hit("refused by a full disk"),
            (_, Err(Refused::Fenced(_))) => self.counters.hit("refused by a fence"),
            _ => {}
        }
    }
}

impl Up {
    /// How many changes wait, but for what greetings tell the store, which goes on for ever.
    pub(crate) fn changes_waiting(&self) -> usize {
        self.waiting
            .iter()
            .filter(|submission| !matches!(submission.change, Change::Fact { .. } | Change::KeepContexts))
            .count()
            + self.layouts.errands.len()
    }

    /// Whether the batch says that the node is filled, after it was filled in this life of it: together with that it counts
    /// everything that it may ever have promised as promised.
    fn raises_floor(&self, batch: &[Submission]) -> bool {
        self.completeness.is_refilled() && batch.iter().any(|submission| matches!(submission.done, Done::Stage(_)))
    }

    /// How the node stands is looked up when the store is told.
    pub(super) fn look_up_stages(&self, batch: &mut [Submission]) {
        for submission in batch {
            if let Done::Stage(stand) = &mut submission.done {
                submission.change = self.completeness.says(stand);
            }
        }
    }
}

/// A planted bug: of the siblings in a copy, all but the last are dropped.
fn drop_siblings(change: &mut Change) {
    if let Change::Merge { record, .. } = change
        && let Some(last) = record.siblings().last().cloned()
    {
        *record = Record::from_parts(record.context().clone(), vec![last]).expect("one of a record");
    }
}

/// Planted bugs: copies replace what is there, where `does` says so of what is held and what comes.
fn overwrite(up: &mut Up, changes: &[Change], does: impl Fn(&Up, &Record, &Record) -> bool) {
    for change in changes {
        let Change::Merge { key, record } = change else { continue };
        let held = up.store.read(&Address::data(key)).unwrap_or_default();
        let held = held.and_then(|row| Row::decode(&row).ok()).map_or_else(Record::default, |row| row.record);
        if does(up, &held, record) {
            let row = Row::of(record.clone()).encode();
            let _ = up.store.append(vec![(Address::data(key), Some(row))], Stamp(0));
        }
    }
}
