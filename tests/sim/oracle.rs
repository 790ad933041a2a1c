//! What is known from outside of everything that was asked and answered, and of what each disk was seen to hold.

use crate::invariants::{a_dot_was_made, accepted_stays, forgotten_is_superseded, note_what_is_gone};
use crate::rotting::Part;
use bytes::Bytes;
use kringle::record::{Actor, Context, Dot, Record, Stamp};
use std::collections::{BTreeMap, BTreeSet};

/// How a write ended, as its client knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Not yet.
    Open,
    /// It was acknowledged.
    Ok,
    /// It may have happened, or may yet.
    Info,
    /// It did not happen, and never will.
    Fail,
}

/// A client's write, put or delete.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) key: usize,
    /// Unique; nothing for a delete, or an increment.
    pub(crate) value: Option<Bytes>,
    /// Whether the value expires.
    pub(crate) expires: bool,
    /// Whether it is an increment, by one.
    pub(crate) counts: bool,
    /// The values its client had been shown; `None` for a plain write, which supersedes whatever it meets.
    pub(crate) saw: Option<BTreeSet<Bytes>>,
    /// The value of its client's own last write, where others stood beside it: superseded where it is held.
    pub(crate) own: Option<Bytes>,
    pub(crate) begun: u64,
    /// When its client had an answer.
    pub(crate) told: u64,
    /// When nothing was done for it any more: its client had an answer, and no node made a dot for it later.
    pub(crate) ended: u64,
    pub(crate) verdict: Verdict,
    pub(crate) dots: Vec<Dot>,
    /// Nodes that had it on a disk that was lost.
    pub(crate) lost_on: BTreeSet<usize>,
    /// Whether a majority of its owners had it on their disks when its client was told.
    pub(crate) on_majority: bool,
    /// Whether whoever hears a majority of its owners has to hear of it: not where an old disk, put back, had it no more.
    pub(crate) shows: bool,
}

/// The history, in moments: one for each thing that happens.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) writes: Vec<Write>,
    by_value: BTreeMap<Bytes, usize>,
    pub(crate) makers: BTreeMap<Dot, (usize, usize)>,
    /// The last stamp that each node issued.
    pub(crate) latest: BTreeMap<usize, Stamp>,
    /// What each node's row of each key was last seen to be, and the same with what else was seen of the key there.
    pub(crate) rows: BTreeMap<(usize, usize), Record>,
    held: BTreeMap<(usize, usize), Record>,
    /// Dots that a node's row said nothing of any more once its partition's context did.
    forgotten: BTreeSet<(usize, Dot)>,
    /// What each node's row of each key had superseded.
    pub(crate) gone: BTreeMap<(usize, usize), BTreeSet<Dot>>,
    /// What rows of each key had superseded that are kept by others now.
    pub(crate) gone_elsewhere: BTreeMap<usize, BTreeSet<Dot>>,
    /// The same for what it keeps for others.
    kept: BTreeMap<(usize, usize), Context>,
    /// Dots that no disk holds any more, as the last that did was lost.
    vanished: BTreeSet<(usize, Dot)>,
    /// Under which name each node wrote, and in which of its lives.
    actors: BTreeMap<Actor, (usize, u32)>,
    /// Looks only at what clients are told and at what is there in the end, never inside a node on the way.
    pub(crate) outside_only: bool,
    /// What broke a promise, first things first.
    pub(crate) violations: Vec<String>,
}

impl Oracle {
    pub(crate) fn begin(&mut self, write: Write) -> usize {
        let number = self.writes.len();
        if let Some(value) = &write.value {
            self.by_value.insert(value.clone(), number);
        }
        self.writes.push(write);
        number
    }

    /// A client had its answer.
    pub(crate) fn end(&mut self, write: usize, verdict: Verdict, moment: u64) {
        let write = &mut self.writes[write];
        assert_eq!(write.verdict, Verdict::Open, "answered twice: {write:?}");
        write.verdict = verdict;
        write.told = moment;
        write.ended = write.ended.max(moment);
    }

    pub(crate) fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    /// The same, seen inside a node.
    pub(crate) fn violation_inside(&mut self, what: String) {
        if !self.outside_only {
            self.violations.push(what);
        }
    }

    /// Node `node` durably made `dot` for a write.
    pub(crate) fn dot_made(&mut self, (node, life): (usize, u32), dot: Dot, write: usize, moment: u64) {
        a_dot_was_made(self, node, dot, write);
        self.actor_seen(node, life, dot.actor);
        let write = &mut self.writes[write];
        write.dots.push(dot);
        write.ended = write.ended.max(moment);
    }

    /// The row that node `node` holds of `key`, and what is `known` of the key there by its partition's context as well:
    /// whatever the row covered once is known for good. The `unfilled` nodes had something on a disk that they lost.
    pub(crate) fn row_seen(&mut self, node: usize, key: usize, row: &Record, known: &Record, unfilled: &[usize]) {
        if let Some(before) = self.rows.insert((node, key), row.clone()).filter(|before| before != row) {
            if !unfilled.contains(&node) {
                accepted_stays(self, node, key, &before, row);
            }
            let gone = |dot: &Dot| before.context().covers(*dot) && !row.context().covers(*dot);
            let forgotten: Vec<Dot> = self.dots_of(key).filter(gone).collect();
            forgotten_is_superseded(self, node, key, &forgotten, unfilled);
            self.forgotten.extend(forgotten.into_iter().map(|dot| (key, dot)));
        }
        let before = self.held.get(&(node, key)).map(|held| held.context().clone()).unwrap_or_default();
        // Of ballots see `accepted_stays`.
        let before = before.with_ballot(None);
        if !known.context().dominates(&before) {
            let what = format!("node {node} forgot a write of key {key}: {before:?} became {:?}", known.context());
            self.violation_inside(what);
        }
        let row = row.clone().having_seen(before.entries().iter().map(|&(actor, stamp)| Dot { stamp, actor }));
        note_what_is_gone(self, node, key, &row);
        self.found_again(key, row.context());
        self.held.insert((node, key), row);
    }

    /// What node `node` knows of `key` is what its row says, and nothing else any more.
    pub(crate) fn unlearned(&mut self, node: usize, key: usize, row: &Record) {
        if let Some(held) = self.held.get_mut(&(node, key)) {
            *held = row.clone();
        }
        if let Some(gone) = self.gone.get_mut(&(node, key)) {
            gone.retain(|dot| row.context().covers(*dot));
        }
    }

    /// What node `node` has of `key` is kept by others now, and may be dropped here: its row says what it knows of the key.
    pub(crate) fn is_kept_by_others(&mut self, node: usize, key: usize, row: &Record) {
        let gone = self.gone.remove(&(node, key)).unwrap_or_default();
        self.gone_elsewhere.entry(key).or_default().extend(gone);
        self.rows.remove(&(node, key));
        self.held.insert((node, key), row.clone());
    }

    /// Whether some node's row said nothing of the dot any more.
    pub(crate) fn is_forgotten(&self, key: usize, dot: Dot) -> bool {
        self.forgotten.contains(&(key, dot))
    }

    /// The dots that were made of a key.
    pub(crate) fn dots_of(&self, key: usize) -> impl Iterator<Item = Dot> + '_ {
        self.writes.iter().filter(move |write| write.key == key).flat_map(|write| write.dots.iter().copied())
    }

    /// The hint that node `node` keeps for `key`.
    pub(crate) fn hint_seen(&mut self, node: usize, key: usize, record: Option<&Record>) {
        if let Some(record) = record {
            self.found_again(key, record.context());
        }
        let before = match record {
            Some(record) => self.kept.insert((node, key), record.context().clone()),
            None => self.kept.remove(&(node, key)),
        };
        if let (Some(before), None) = (before, record) {
            self.hint_dropped(key, &before);
        }
    }

    /// Takes note of dots in a recovered row that were made just before a crash, and of which nobody was told.
    pub(crate) fn recovered(&mut self, node: usize, record: &Record) -> u64 {
        let mut found = 0;
        for sibling in record.siblings() {
            if self.makers.contains_key(&sibling.dot) {
                continue;
            }
            if let Some(&write) = self.by_value.get(&sibling.content.value) {
                self.makers.insert(sibling.dot, (node, write));
                self.writes[write].dots.push(sibling.dot);
                found += 1;
            }
        }
        found
    }

    /// The disk of `node` is no more; or, if `is_old`, there is one in its place that it once was. `owners` are those of
    /// each key.
    pub(crate) fn disk_lost(&mut self, node: usize, is_old: bool, owners: &[Vec<usize>]) {
        self.latest.remove(&node);
        (0..owners.len()).for_each(|key| self.lost(node, key, [Part::Row, Part::Hints].as_slice(), is_old, owners));
    }

    /// Parts of what `node` held of a key are no more.
    pub(crate) fn lost(&mut self, node: usize, key: usize, parts: &[Part], is_old: bool, owners: &[Vec<usize>]) {
        let (row, hint) = (parts.contains(&Part::Row), parts.contains(&Part::Hints));
        let in_row = |oracle: &Oracle, at: usize, dot: Dot| {
            oracle.held.get(&(at, key)).is_some_and(|row| row.context().covers(dot))
        };
        let in_hint = |oracle: &Oracle, at: usize, dot: Dot| {
            oracle.kept.get(&(at, key)).is_some_and(|context| context.covers(dot))
        };
        for number in 0..self.writes.len() {
            if self.writes[number].key != key {
                continue;
            }
            let is_lost = |&dot: &Dot| row && in_row(self, node, dot) || hint && in_hint(self, node, dot);
            let lost: Vec<Dot> = self.writes[number].dots.iter().copied().filter(is_lost).collect();
            if lost.is_empty() {
                continue;
            }
            let nodes: BTreeSet<usize> = self.held.keys().chain(self.kept.keys()).map(|(at, _)| *at).collect();
            let elsewhere = |&dot: &Dot| {
                let at = |at: usize| {
                    (!row || at != node) && in_row(self, at, dot) || (!hint || at != node) && in_hint(self, at, dot)
                };
                nodes.iter().any(|&node| at(node))
            };
            let vanished: Vec<Dot> = lost.into_iter().filter(|dot| !elsewhere(dot)).collect();
            let left = self.holders(number).into_iter().filter(|&holder| holder != node || !row);
            let left = left.filter(|holder| owners[key].contains(holder)).count();
            self.vanished.extend(vanished.into_iter().map(|dot| (key, dot)));
            self.writes[number].lost_on.insert(node);
            self.writes[number].shows &= left > if is_old { owners[key].len() / 2 } else { 0 };
        }
        if row {
            self.held.remove(&(node, key));
            self.rows.remove(&(node, key));
            self.gone.remove(&(node, key));
        }
        if hint {
            self.kept.remove(&(node, key));
        }
    }

    /// Whether anything is known to be in that part of what `node` holds of a key.
    pub(crate) fn has(&self, node: usize, key: usize, part: Part) -> bool {
        match part {
            Part::Row => self.held.get(&(node, key)).is_some_and(|row| !row.is_unknown()),
            Part::Hints => self.kept.contains_key(&(node, key)),
        }
    }

    /// A hint was handed over. If its target lost its disk before the answer was here, the answer was true all the same.
    fn hint_dropped(&mut self, key: usize, context: &Context) {
        let of_lost_disks = self.writes.iter().filter(|write| write.key == key && !write.lost_on.is_empty());
        let dots = of_lost_disks.flat_map(|write| &write.dots).copied().filter(|&dot| context.covers(dot));
        let is_held = |dot: Dot| {
            let mut rows = self.held.iter().filter(|((_, k), _)| *k == key);
            let mut hints = self.kept.iter().filter(|((_, k), _)| *k == key);
            rows.any(|(_, row)| row.context().covers(dot)) || hints.any(|(_, kept)| kept.covers(dot))
        };
        let vanished: Vec<Dot> = dots.filter(|&dot| !is_held(dot)).collect();
        self.vanished.extend(vanished.into_iter().map(|dot| (key, dot)));
    }

    fn found_again(&mut self, key: usize, context: &Context) {
        if !self.vanished.is_empty() {
            self.vanished.retain(|(at, dot)| *at != key || !context.covers(*dot));
        }
    }

    /// Whether no disk holds the dot any more, through no fault of the product.
    pub(crate) fn has_vanished(&self, key: usize, dot: Dot) -> bool {
        self.vanished.contains(&(key, dot))
    }

    /// A write that `node` lacks in its row of `key`: one that a majority of the `owners` had when its client was told,
    /// before `moment`, and that another of them has.
    pub(crate) fn lacks(&self, node: usize, key: usize, owners: &[usize], moment: u64) -> Option<&Write> {
        let has = |at: usize, dot: Dot| self.held.get(&(at, key)).is_some_and(|row| row.context().covers(dot));
        let has_any = |at: usize, write: &Write| write.dots.iter().any(|&dot| has(at, dot));
        let is_forgotten = |write: &Write| write.dots.iter().any(|&dot| self.is_forgotten(key, dot));
        let promised =
            |write: &&Write| write.key == key && write.on_majority && write.told < moment && !is_forgotten(write);
        let elsewhere = |write: &Write| owners.iter().any(|&owner| owner != node && has_any(owner, write));
        self.writes.iter().filter(promised).find(|write| !has_any(node, write) && elsewhere(write))
    }

    /// A node writes under this name in one of its lives.
    pub(crate) fn actor_seen(&mut self, node: usize, life: u32, actor: Actor) {
        if let Some(before) = self.actors.insert(actor, (node, life))
            && before != (node, life)
        {
            let what =
                format!("node {node} writes as {actor:?} in life {life}, as node {} did in {}", before.0, before.1);
            self.violation_inside(what);
        }
    }

    /// Whether `node` holds some dot of the write in a row of its own, or knows that it was superseded.
    pub(crate) fn knows(&self, node: usize, write: &Write) -> bool {
        let held = self.held.get(&(node, write.key));
        held.is_some_and(|row| write.dots.iter().any(|&dot| row.context().covers(dot)))
    }

    /// Who holds some dot of `write` in a row of its own.
    pub(crate) fn holders(&self, write: usize) -> Vec<usize> {
        let Write { key, dots, .. } = &self.writes[write];
        let holds = |row: &Record| dots.iter().any(|&dot| row.context().covers(dot));
        self.held.iter().filter(|((_, k), row)| k == key && holds(row)).map(|((node, _), _)| *node).collect()
    }

    /// Whether some node keeps a dot of `write` for others.
    pub(crate) fn is_kept(&self, write: usize) -> bool {
        let Write { key, dots, .. } = &self.writes[write];
        self.kept.iter().any(|((_, k), context)| k == key && dots.iter().any(|&dot| context.covers(dot)))
    }

    pub(crate) fn write_of(&self, value: &Bytes) -> Option<usize> {
        self.by_value.get(value).copied()
    }

    /// A client was shown `value` under `key`.
    pub(crate) fn value_shown(&mut self, key: usize, value: &Bytes) {
        match self.write_of(value).map(|write| &self.writes[write]) {
            None => self.violation(format!("key {key} shows {value:?}, which nobody ever wrote")),
            Some(write) if write.key != key => {
                let what = format!("key {key} shows {value:?}, written to key {}", write.key);
                self.violation(what);
            }
            Some(write) if write.verdict == Verdict::Fail => {
                self.violation(format!("key {key} shows {value:?}, which was refused"));
            }
            Some(_) => {}
        }
    }
}
