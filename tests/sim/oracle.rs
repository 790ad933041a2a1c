//! What is known from outside of everything that was asked and answered, and of what each disk was seen to hold.

use bytes::Bytes;
use kringle::record::{Context, Dot, Record, Stamp};
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
    /// Unique; nothing for a delete.
    pub(crate) value: Option<Bytes>,
    /// The values its client had been shown; `None` for a plain write, which supersedes whatever it meets.
    pub(crate) saw: Option<BTreeSet<Bytes>>,
    pub(crate) begun: u64,
    /// When its client had an answer.
    pub(crate) told: u64,
    /// When nothing was done for it any more: its client had an answer, and no node made a dot for it later.
    pub(crate) ended: u64,
    pub(crate) verdict: Verdict,
    pub(crate) dots: Vec<Dot>,
}

/// The history, in moments: one for each thing that happens.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) writes: Vec<Write>,
    by_value: BTreeMap<Bytes, usize>,
    makers: BTreeMap<Dot, (usize, usize)>,
    latest: BTreeMap<usize, Stamp>,
    /// What each node's row of each key was last seen to cover.
    held: BTreeMap<(usize, usize), Context>,
    /// The same for what it keeps for others.
    kept: BTreeMap<(usize, usize), Context>,
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
    pub(crate) fn dot_made(&mut self, node: usize, dot: Dot, write: usize, moment: u64) {
        if let Some(before) = self.makers.insert(dot, (node, write)) {
            self.violation_inside(format!(
                "the dot {dot:?} was made twice: for {before:?} and for {:?}",
                (node, write)
            ));
        }
        let latest = self.latest.entry(node).or_default();
        if dot.stamp <= *latest {
            let what = format!("the stamps of node {node} do not rise: {} after {latest}", dot.stamp);
            self.violation_inside(what);
        } else {
            *latest = dot.stamp;
        }
        let write = &mut self.writes[write];
        write.dots.push(dot);
        write.ended = write.ended.max(moment);
    }

    /// The row that node `node` holds of `key`: whatever it covered once, it covers for good.
    pub(crate) fn row_seen(&mut self, node: usize, key: usize, context: &Context) {
        if let Some(before) = self.held.insert((node, key), context.clone())
            && !context.dominates(&before)
        {
            self.violation_inside(format!("node {node} forgot a write of key {key}: {before:?} became {context:?}"));
        }
    }

    /// The hint that node `node` keeps for `key`.
    pub(crate) fn hint_seen(&mut self, node: usize, key: usize, record: Option<&Record>) {
        match record {
            Some(record) => self.kept.insert((node, key), record.context().clone()),
            None => self.kept.remove(&(node, key)),
        };
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

    /// Who holds some dot of `write` in a row of its own.
    pub(crate) fn holders(&self, write: usize) -> Vec<usize> {
        let Write { key, dots, .. } = &self.writes[write];
        let holds = |context: &Context| dots.iter().any(|&dot| context.covers(dot));
        self.held.iter().filter(|((_, k), context)| k == key && holds(context)).map(|((node, _), _)| *node).collect()
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
