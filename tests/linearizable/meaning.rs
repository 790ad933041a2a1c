//! What an operation that was told something says of the state it met, and what it left: the sequential specification.
//!
//! Versions are known by the operation that wrote them. An ETag is resolved to that operation by a success that told it, or
//! by a read that told it together with the value; one value is never written twice.

use super::history::{Act, Operation, Outcome, listed};
use std::collections::BTreeMap;

/// The operation that left a version; none in particular on a key where versions are not judged.
pub type Version = u32;

/// A version as somebody named it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Named {
    By(Version),
    /// By an ETag that nobody told with a value or a success.
    Stray(usize),
}

/// What has to be there for an operation to have been told what it was told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Need {
    Anything,
    Nothing,
    Something,
    Value(i64),
    Total(i64),
    Version(Named),
}

/// What is there behind it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Effect {
    Same,
    Nothing,
    Value(i64),
    Plus(i64),
}

/// Which operation each ETag is of.
#[derive(Default)]
pub struct Names {
    writers: BTreeMap<i64, Version>,
    owners: BTreeMap<String, Version>,
    pub labels: BTreeMap<Version, String>,
    pub strays: BTreeMap<String, usize>,
}

impl Names {
    pub fn of(operations: &[Operation]) -> Result<Names, String> {
        let mut names = Names::default();
        for (index, operation) in operations.iter().enumerate() {
            if let Some(value) = operation.act.writes() {
                assert!(names.writers.insert(value, index as Version).is_none(), "{value} is written twice");
            }
        }
        for (index, operation) in operations.iter().enumerate() {
            let told = match &operation.outcome {
                Outcome::Value(value, Some(etag)) => names.writers.get(value).map(|writer| (*writer, etag)),
                Outcome::Done(Some(etag)) if operation.act.writes().is_some() => Some((index as Version, etag)),
                _ => None,
            };
            let Some((writer, etag)) = told else { continue };
            let label = names.labels.entry(writer).or_insert_with(|| etag.clone()).clone();
            let owner = *names.owners.entry(etag.clone()).or_insert(writer);
            if label != *etag || owner != writer {
                let both = [&operations[owner as usize], &operations[writer as usize], operation];
                return Err(format!("an ETag of two versions, or two of one ({label}, {etag}):\n{}", listed(both)));
            }
        }
        for operation in operations {
            let named = match (&operation.act, &operation.outcome) {
                (Act::Replace(_, etag) | Act::DeleteIf(etag), Outcome::Failed(told)) => [Some(etag), told.as_ref()],
                (Act::Replace(_, etag) | Act::DeleteIf(etag), _) => [Some(etag), None],
                (_, Outcome::Failed(told)) => [told.as_ref(), None],
                _ => [None, None],
            };
            for etag in named.into_iter().flatten().filter(|etag| !names.owners.contains_key(*etag)) {
                let number = names.strays.len();
                names.strays.entry(etag.clone()).or_insert(number);
            }
        }
        Ok(names)
    }

    /// Nothing on a key where ETags are not judged.
    fn named(&self, etag: &str) -> Option<Named> {
        let stray = || self.strays.get(etag).map(|stray| Named::Stray(*stray));
        self.owners.get(etag).map(|owner| Named::By(*owner)).or_else(stray)
    }

    /// The versions that must have been there for an operation to have been told what it was told.
    pub fn seen_by(&self, operation: &Operation) -> Vec<Version> {
        let needs = self.meaning(operation).0;
        let seen = needs.into_iter().filter_map(|need| match need {
            Need::Version(Named::By(version)) => Some(version),
            Need::Value(value) => self.writers.get(&value).copied(),
            _ => None,
        });
        seen.collect()
    }

    /// What an operation needs, and does.
    pub fn meaning(&self, operation: &Operation) -> (Vec<Need>, Effect) {
        let version = |etag: &str| self.named(etag).map(Need::Version);
        let write = |value: i64| Effect::Value(value);
        match (&operation.act, &operation.outcome) {
            (Act::Read, Outcome::Absent) => (vec![Need::Nothing], Effect::Same),
            (Act::Read, Outcome::Value(value, etag)) => {
                let named = etag.as_deref().and_then(version);
                ([Some(Need::Value(*value)), named].into_iter().flatten().collect(), Effect::Same)
            }
            (Act::Count, Outcome::Total(total)) => (vec![Need::Total(*total)], Effect::Same),
            (Act::Add(by), Outcome::Total(total)) => (vec![Need::Total(total - by)], Effect::Plus(*by)),
            (Act::Add(by), Outcome::Unknown) => (vec![Need::Anything], Effect::Plus(*by)),
            (Act::Write(value), Outcome::Done(_) | Outcome::Unknown) => (vec![Need::Anything], write(*value)),
            (Act::Delete, Outcome::Done(_) | Outcome::Unknown) => (vec![Need::Anything], Effect::Nothing),
            (Act::Create(value), Outcome::Done(_) | Outcome::Unknown) => (vec![Need::Nothing], write(*value)),
            (Act::Create(_), Outcome::Failed(etag)) => {
                (vec![etag.as_deref().and_then(version).unwrap_or(Need::Something)], Effect::Same)
            }
            (Act::Replace(_, etag) | Act::DeleteIf(etag), Outcome::Done(_) | Outcome::Unknown) => {
                let effect = operation.act.writes().map_or(Effect::Nothing, write);
                (version(etag).into_iter().collect(), effect)
            }
            (Act::Replace(..) | Act::DeleteIf(_), Outcome::Failed(None)) => (vec![Need::Nothing], Effect::Same),
            // Told that just what it asked for is there, and refused all the same: nothing explains that.
            (Act::Replace(_, etag) | Act::DeleteIf(etag), Outcome::Failed(Some(there))) if etag == there => {
                (vec![Need::Nothing, Need::Something], Effect::Same)
            }
            (Act::Replace(..) | Act::DeleteIf(_), Outcome::Failed(Some(there))) => {
                (version(there).into_iter().collect(), Effect::Same)
            }
            (act, outcome) => panic!("{outcome:?} is no answer to {act:?}"),
        }
    }
}
