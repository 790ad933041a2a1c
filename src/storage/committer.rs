//! The one path by which anything stored changes: read, merge, write, for a whole batch at a time.
//!
//! ```text
//!  changes ─► each on the rows as the batch has made them so far ─► one append ─► durable ─► digests, feed, hints ─► outcomes
//! ```
//!
//! One committer per store, on one thread: that is the per-key serialisation and the group commit. Dots are made here
//! and nowhere else, and nothing is shown to anyone before the append that holds it has returned.

use super::ballots::Ballots;
use super::hints::Entry;
use super::{
    Address, CONTEXTS_FACT, Change, ContextLedger, DueLedger, Feed, HINT_NAMES_FACT, Hint, HintLedger, HintNames,
    Outcome, Refused, Room, RowChange, Store,
};
use crate::membership::Lack;
use crate::merkle::Forest;
use crate::placement::{MemberName, Partition};
use crate::protocol::News;
use crate::record::{Actor, Clock, Dot, Edit, Key, Record, Row, Stamp, StampAhead};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most buffers kept for rows to come, and the largest of them: at most 1 MiB.
const SPARES_MAX: usize = 256;
const SPARE_BYTES_MAX: usize = 4096;

/// Turns changes into durable rows. Its reads may wait for the base, its append for the disk.
pub struct Committer {
    store: Arc<dyn Store>,
    forest: Arc<Forest>,
    feed: Arc<Feed>,
    hints: Arc<HintLedger>,
    contexts: Arc<ContextLedger>,
    dues: Arc<DueLedger>,
    actor: Actor,
    /// The name under which hints are written, until one is let go of: an actor's later dots count as having seen its
    /// earlier ones on the key, and the next hint of that key begins with nothing. Under the same name it would make
    /// an owner drop what was handed over before.
    hint_actor: Actor,
    /// All names under which hints were written, and to whom they went; and whether the store says otherwise.
    hint_names: HintNames,
    hint_names_unkept: bool,
    clock: Clock,
    /// What is promised beside the promises in rows.
    ballots: Ballots,
    /// What this store may lack, where it is being filled, durably so: see [`Committer::note_filling`].
    lack: Option<Lack>,
    /// Keys whose rows were met and could not be read, since they were last asked for.
    damaged: Vec<Key>,
    /// Keys of which something was refused that was accepted elsewhere, since they were last asked for.
    contested: Vec<Key>,
    /// How many keys it takes, where that is limited.
    room: Option<Arc<Room>>,
    /// Memory of rows that were replaced, for those to come. Given back to the system's allocator it would be joined with
    /// what lies beside it and cut up again: at a million keys a tenth of all that a put costs here, as none of that is in
    /// the processor's caches. The replaced row was just read. What it spares under the node's own allocator is not known.
    spares: Vec<BytesMut>,
}

/// What a batch has made so far of the rows it touched.
#[derive(Default)]
struct Batch {
    data: BTreeMap<Key, DataDraft>,
    hints: BTreeMap<Key, HintDraft>,
    facts: BTreeMap<&'static str, Bytes>,
    /// Bytes of hints the batch adds for each target, beside what the ledger knows.
    hint_bytes: BTreeMap<MemberName, i64>,
    /// Partitions whose digests are counted anew once the rows are there.
    recounts: BTreeSet<Partition>,
    /// Whether what was seen is kept with it.
    keeps_contexts: bool,
    /// Marks and floors that rise with it.
    ballots: Vec<RowChange>,
    /// Whether it promises or accepts anything: synced before it is answered.
    promises: bool,
    /// Whether something is new about the names of hints.
    names_hints: bool,
    /// Rows that are dropped as they are, whether they can be read or not.
    dropped: Vec<Address>,
    /// What those are told who follow this node.
    told: Vec<News>,
}

struct DataDraft {
    address: Address,
    /// The record as stored; `None` when there is no row.
    before: Option<Record>,
    row: Row,
    /// Whether the row changed.
    changed: bool,
    /// Whether it is noted anew if something of it is due, whatever was noted before.
    renoted: bool,
}

#[derive(Default)]
struct HintDraft {
    before: Option<Entry>,
    now: Option<(Hint, Entry, Bytes)>,
    changed: bool,
}

impl Committer {
    /// A committer of `store`, and the only one. `actor` must be new with every start; `clock` starts after
    /// [`Store::last_stamp`]. `forest`, `feed` and `hints` follow what it commits; `contexts` tell it what was seen.
    pub fn new(
        store: Arc<dyn Store>,
        forest: Arc<Forest>,
        feed: Arc<Feed>,
        hints: Arc<HintLedger>,
        contexts: Arc<ContextLedger>,
        actor: Actor,
        clock: Clock,
    ) -> Committer {
        let hint_actor = after(actor, clock.last(), For::Hints);
        let ballots = Ballots::load(&*store);
        let (damaged, contested, spares) = (Vec::new(), Vec::new(), Vec::new());
        let hint_names = hints.names();
        // Where they were let go of at the start, the store has to.
        let hint_names_unkept = !matches!(store.read(&Address::fact(HINT_NAMES_FACT)), Ok(None));
        Committer {
            store,
            forest,
            feed,
            hints,
            contexts,
            dues: Arc::default(),
            actor,
            hint_actor,
            hint_names,
            hint_names_unkept,
            clock,
            ballots,
            lack: None,
            damaged,
            contested,
            room: None,
            spares,
        }
    }

    /// The name under which this store writes.
    pub fn actor(&self) -> Actor {
        self.actor
    }

    /// What becomes due of what it commits.
    pub fn dues(&self) -> Arc<DueLedger> {
        self.dues.clone()
    }

    /// The latest stamp made or seen.
    pub fn last_stamp(&self) -> Stamp {
        self.clock.last()
    }

    /// The stamp up to which every dot made here is committed. One made after it, by an append that failed, was let out to
    /// nobody, and is in the rows if the next start finds it on the disk.
    pub fn committed_stamp(&self) -> Stamp {
        self.store.last_stamp()
    }

    /// Takes note of a stamp that came with a message, so that later writes here are later than it.
    pub fn note_stamp(&mut self, stamp: Stamp, wall_ms: u64) -> Result<(), StampAhead> {
        self.clock.observe(stamp, wall_ms)
    }

    /// The keys of damaged rows that changes have met since this was last asked.
    pub fn take_damaged(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.damaged)
    }

    /// The keys of which a copy was refused for a promise since this was last asked: an identity write settles them.
    pub fn take_contested(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.contested)
    }

    /// Commits a batch: one outcome or refusal for each change, in order. Changes of one key see one another in that
    /// order. When it returns, every change with an outcome is durable and visible; a refusal of one change leaves the
    /// others alone, and a failed append refuses all that had not been refused. A batch that changes nothing appends nothing.
    /// Durable means what [`Durability`](super::Durability) makes of it, but for what this store agrees to have forgotten.
    pub fn commit(&mut self, wall_ms: u64, changes: Vec<Change>) -> Vec<Result<Outcome, Refused>> {
        let mut batch = Batch::default();
        let outcomes: Vec<_> = changes.into_iter().map(|change| self.draft(&mut batch, wall_ms, change)).collect();
        let raises = !batch.ballots.is_empty();
        let appended = self.append(batch);
        self.room.iter().for_each(|room| room.end_batch());
        match appended {
            Ok(()) => self.sync_agreed(outcomes),
            Err(refused) if raises => {
                // What was raised in memory alone would not be kept the next time either.
                self.ballots = Ballots::load(&*self.store);
                outcomes.into_iter().map(|outcome| outcome.and_then(|_| Err(refused.clone()))).collect()
            }
            Err(refused) => outcomes.into_iter().map(|outcome| outcome.and_then(|_| Err(refused.clone()))).collect(),
        }
    }

    /// Works one change into the batch. A refusal leaves the batch as it was.
    fn draft(&mut self, batch: &mut Batch, wall_ms: u64, change: Change) -> Result<Outcome, Refused> {
        match change {
            Change::Write { key, edit, until } => {
                self.observe_seen(&edit, wall_ms)?;
                let draft = self.data(batch, &key)?;
                if let Some(latest) = draft.row.record.context().latest().filter(|latest| *latest > until) {
                    return Err(Refused::Overtaken { latest });
                }
                let (record, created, dot) = self.edit(self.actor, &draft.row.record, &edit, wall_ms)?;
                if record != draft.row.record {
                    self.find_room(&draft.row.record, &record)?;
                    draft.set(record.clone());
                    batch.told.push(self.told(key, &edit, &record, dot, wall_ms));
                }
                Ok(Outcome::Written { created, record })
            }
            Change::Merge { key, record } => {
                self.observe_record(&record, wall_ms)?;
                let record = self.let_in(batch, &key, record)?;
                let seen = self.seen_in(&key);
                Ok(self.data(batch, &key)?.merge(&record, seen))
            }
            Change::Prepare { key, ballot } => self.prepare(batch, &key, ballot, wall_ms),
            Change::Accept { key, record, next } => self.accept(batch, &key, &record, next, wall_ms),
            Change::RaiseFloor { stamp } => Ok(self.raise_floor(batch, stamp)),
            Change::Yield { key } => self.yield_accepted(batch, &key),
            Change::Restore { key, record } => self.restore(batch, key, record, wall_ms),
            Change::Recount { partition } => {
                batch.recounts.insert(partition);
                Ok(Outcome::Done)
            }
            Change::Cover { key, other, dot } => {
                self.observe_record(&other, wall_ms)?;
                self.clock.observe(dot.stamp, wall_ms)?;
                let other = self.let_in(batch, &key, other)?;
                let seen = self.seen_in(&key);
                let draft = self.data(batch, &key)?;
                let record = draft.row.record.cover(&draft.row.record.without_superseded(&other, seen), dot);
                if record != draft.row.record {
                    draft.set(record.clone());
                }
                Ok(Outcome::Written { created: false, record })
            }
            Change::HintWrite { key, edit, targets } => {
                self.observe_seen(&edit, wall_ms)?;
                let mut hint = self.hint(batch, &key)?;
                let (record, created, dot) = self.edit(self.hint_actor, &hint.record, &edit, wall_ms)?;
                let is_news = hint.record != record;
                hint.record = record.clone();
                self.keep_hint(batch, key.clone(), hint, &targets)?;
                if is_news {
                    batch.told.push(self.told(key, &edit, &record, dot, wall_ms));
                }
                batch.names_hints |= self.hint_names.begin(self.hint_actor);
                Ok(Outcome::Written { created, record })
            }
            Change::Hint { key, record, targets } => {
                self.observe_record(&record, wall_ms)?;
                let mut hint = self.hint(batch, &key)?;
                let known = targets.iter().all(|target| hint.targets.contains(target));
                let applied = !hint.record.includes(&record) || !known;
                if applied {
                    hint.record = hint.record.merge(&record);
                    let held = hint.record.clone();
                    self.keep_hint(batch, key, hint, &targets)?;
                    let more = (!record.includes(&held)).then_some(held);
                    return Ok(Outcome::Merged { applied, more });
                }
                let more = (!record.includes(&hint.record)).then_some(hint.record);
                Ok(Outcome::Merged { applied, more })
            }
            Change::HintDelivered { key, record, target, life } => {
                let mut hint = self.hint(batch, &key)?;
                if let Ok(at) = hint.targets.binary_search(&target)
                    && record.includes(&hint.record)
                {
                    hint.targets.remove(at);
                    batch.names_hints |= self.hint_names.taken(&target, life);
                    if hint.targets.is_empty() {
                        self.close_hint_names();
                    }
                    batch.set_hint(key, (!hint.targets.is_empty()).then_some(hint));
                }
                Ok(Outcome::Done)
            }
            Change::MayForget { keys } => Ok(Outcome::MayForget(self.may_forget(batch, &keys, wall_ms))),
            Change::Forget { keys } => Ok(Outcome::Forgotten(self.forget(batch, &keys, wall_ms))),
            Change::Disclaim { partitions } => {
                self.disclaim(batch, &partitions);
                Ok(Outcome::Done)
            }
            Change::LetGo { partition } => self.let_go(batch, partition),
            Change::KeepContexts => {
                batch.keeps_contexts = true;
                Ok(Outcome::Done)
            }
            Change::Fact { name, bytes } => {
                let held = match batch.facts.get(name) {
                    Some(bytes) => Some(bytes.clone()),
                    // One that cannot be read is replaced like any other.
                    None => self.load(&Address::fact(name)).unwrap_or_default(),
                };
                if held.as_ref() != Some(&bytes) {
                    batch.facts.insert(name, bytes);
                }
                Ok(Outcome::Done)
            }
        }
    }

    /// An edit of `held`, under a new dot: the record since, whether nothing live was there before, and the dot.
    fn edit(&mut self, actor: Actor, held: &Record, edit: &Edit, wall_ms: u64) -> Result<(Record, bool, Dot), Refused> {
        // What is stored was observed before it was stored, but perhaps by an earlier process whose last stamp is lost.
        if let Some(latest) = held.context().latest() {
            self.clock.observe(latest, wall_ms)?;
        }
        let dot = Dot { stamp: self.clock.next(wall_ms), actor };
        let created = !held.siblings().iter().any(|sibling| sibling.content.lives(dot.stamp.ms()));
        Ok((held.edit(edit, dot)?, created, dot))
    }

    fn observe_seen(&mut self, edit: &Edit, wall_ms: u64) -> Result<(), StampAhead> {
        edit.latest_seen().map_or(Ok(()), |stamp| self.clock.observe(stamp, wall_ms))
    }

    fn observe_record(&mut self, record: &Record, wall_ms: u64) -> Result<(), StampAhead> {
        record.context().latest().map_or(Ok(()), |stamp| self.clock.observe(stamp, wall_ms))
    }

    fn load(&self, address: &Address) -> Result<Option<Bytes>, Refused> {
        Ok(self.store.read(address)?)
    }

    /// The row of `key` as the batch has made it so far.
    fn data<'a>(&mut self, batch: &'a mut Batch, key: &Key) -> Result<&'a mut DataDraft, Refused> {
        if !batch.data.contains_key(key) {
            let address = Address::data(key);
            let (bytes, decode): (_, fn(&Bytes) -> _) = match self.store.peek(&address) {
                super::Peek::Known(row) => (row, Row::decode_kept),
                super::Peek::Ask => (self.store.read(&address)?, Row::decode),
            };
            let draft = match bytes {
                Some(bytes) => {
                    let row = decode(&bytes).map_err(|why| {
                        self.damaged.push(key.clone());
                        Refused::Damaged(why)
                    })?;
                    DataDraft { address, before: Some(row.record.clone()), row, changed: false, renoted: false }
                }
                None => {
                    let row = Row::default();
                    DataDraft { address, before: None, row, changed: false, renoted: false }
                }
            };
            batch.data.insert(key.clone(), draft);
        }
        // `entry` would copy the key even where it is there.
        Ok(batch.data.get_mut(key).expect("just put there"))
    }

    /// Keeps the memory of a replaced row, unless somebody still reads it.
    fn keep_spare(&mut self, replaced: Record) {
        for sibling in replaced.into_siblings() {
            if let Ok(memory) = sibling.content.value.try_into_mut()
                && memory.capacity() <= SPARE_BYTES_MAX
                && self.spares.len() < SPARES_MAX
            {
                self.spares.push(memory);
            }
        }
    }

    /// Makes the batch durable, then shows it.
    fn append(&mut self, batch: Batch) -> Result<(), Refused> {
        let mut rows: Vec<RowChange> = Vec::with_capacity(batch.data.len() + batch.hints.len() + batch.facts.len());
        for (name, bytes) in batch.facts {
            rows.push((Address::fact(name), Some(bytes)));
        }
        rows.extend(batch.ballots);
        for (key, draft) in &batch.data {
            if draft.changed && draft.row == Row::default() {
                rows.push((draft.address.clone(), None));
            } else if draft.changed {
                let together = draft.row.encode_behind(draft.address.as_bytes(), self.spares.pop().unwrap_or_default());
                rows.push(draft.address.split_off_row(together));
            }
            rows.extend(draft.note_of_due(key));
        }
        rows.extend(batch.dropped.into_iter().map(|address| (address, None)));
        let unkept = if batch.keeps_contexts { self.contexts.unkept() } else { None };
        let kept = unkept.as_ref().map(|(changes, _)| *changes);
        rows.extend(unkept.map(|(_, contexts)| (Address::fact(CONTEXTS_FACT), Some(contexts.into()))));
        self.hint_names_unkept |= batch.names_hints;
        let names_hints = self.hint_names_unkept;
        if names_hints {
            rows.push((Address::fact(HINT_NAMES_FACT), Some(self.hint_names.encode().into())));
        }
        for (key, draft) in batch.hints.iter().filter(|(_, draft)| draft.changed) {
            rows.push((Address::hint(key), draft.now.as_ref().map(|now| now.2.clone())));
        }
        if rows.is_empty() {
            self.recount(&batch.recounts);
            return if batch.promises { Ok(self.store.sync()?) } else { Ok(()) };
        }
        let due = DueLedger::among(&rows);
        self.store.append(rows, self.clock.last())?;
        self.dues.note(due);
        if batch.promises {
            self.store.sync()?;
        }
        kept.into_iter().for_each(|changes| self.contexts.note_kept(changes));
        self.show(batch.data);
        self.follow_hints(batch.hints, names_hints);
        self.feed.publish(batch.told, Some(self.clock.last()));
        self.recount(&batch.recounts);
        Ok(())
    }
}

/// What a name is used for: one for rows must never be one for hints, whatever both come from.
#[derive(Clone, Copy)]
enum For {
    Rows,
    Hints,
}

/// A new name, as random as `actor`, which made no dot after `last`.
fn after(actor: Actor, last: Stamp, used_for: For) -> Actor {
    let mut hasher = blake3::Hasher::new();
    hasher.update(match used_for {
        For::Rows => b"kringle next actor 01",
        For::Hints => b"kringle hints actor 1",
    });
    hasher.update(&actor.0.to_le_bytes());
    hasher.update(&last.0.to_le_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    Actor(u64::from_le_bytes(first))
}

impl DataDraft {
    /// Merges a copy in, but for what was superseded here and since forgotten: `seen` tells which dots were once here. Its
    /// context is taken in all the same, so that both sides hold the same; whoever brings such a thing is told, and drops
    /// it too. What was remembered once more for that reason is forgotten once more.
    fn merge(&mut self, record: &Record, seen: impl Fn(Dot) -> bool) -> Outcome {
        let news = self.row.record.without_superseded(record, &seen);
        let applied = !self.row.record.includes(&news);
        if applied {
            self.set(self.row.record.merge(&news));
        }
        let more = (!record.includes(&self.row.record)).then(|| self.row.record.clone());
        Outcome::Merged { applied, more }
    }

    /// What is to be noted if something of the row is due now that was not before, or the other way round.
    fn note_of_due(&self, key: &Key) -> Option<RowChange> {
        let before = self.before.as_ref().and_then(Record::due);
        let due = self.row.record.due();
        let is_new = self.changed && before != due;
        (is_new || self.renoted).then(|| (Address::due(key), due.map(|due| Bytes::copy_from_slice(&due.encode()))))
    }

    fn set(&mut self, record: Record) {
        self.row.record = record;
        self.changed = true;
    }
}

mod consensus;
mod forget;
mod hand_over;
mod hinting;
mod limiting;
mod mend;
#[cfg(test)]
mod tests;
mod told;
