//! What the committer does about hints: the row of each as a batch has made it so far, for whom it is kept and whether there
//! is room, and the names under which they are made ([`HintNames`](crate::storage::HintNames)).

use super::{Batch, Committer, For, HintDraft, after};
use crate::placement::MemberName;
use crate::record::{Key, Record, RowError};
use crate::storage::hints::Entry;
use crate::storage::{Address, Hint, MEMBER_NAME_BYTES_MAX, Refused};
use std::collections::BTreeMap;

impl Committer {
    /// The hint of `key` as the batch has made it so far; empty when there is none, or none that can be read: what
    /// was in that one is lost, and it must not keep later ones away.
    pub(super) fn hint(&mut self, batch: &mut Batch, key: &Key) -> Result<Hint, Refused> {
        if !batch.hints.contains_key(key) {
            let draft = match self.load(&Address::hint(key))? {
                Some(bytes) => match Hint::decode(&bytes) {
                    Ok(hint) => {
                        let entry = Entry::of(&hint, bytes.len());
                        HintDraft { before: Some(entry.clone()), now: Some((hint, entry, bytes)), changed: false }
                    }
                    Err(_) => {
                        // What it held was not delivered to anybody.
                        self.hints.forget(key);
                        batch.names_hints |= self.hint_names.void();
                        self.close_hint_names();
                        HintDraft::default()
                    }
                },
                None => HintDraft::default(),
            };
            batch.hints.insert(key.clone(), draft);
        }
        let now = batch.hints.get(key).and_then(|draft| draft.now.as_ref());
        Ok(now.map_or_else(|| Hint { targets: Vec::new(), record: Record::default() }, |now| now.0.clone()))
    }

    /// Keeps `hint` for `targets` too, if there is room for each of them.
    pub(super) fn keep_hint(
        &self,
        batch: &mut Batch,
        key: Key,
        mut hint: Hint,
        targets: &[MemberName],
    ) -> Result<(), Refused> {
        hint.add_targets(targets);
        if hint.targets.is_empty() {
            return Err(Refused::NoTargets);
        }
        let too_long = |name: &MemberName| name.len() > MEMBER_NAME_BYTES_MAX;
        if hint.targets.len() > usize::from(u16::MAX) || hint.targets.iter().any(too_long) {
            return Err(Refused::Damaged(RowError::Malformed("targets")));
        }
        let bytes = hint.encode().len() as i64;
        let held = batch.hints.get(&key).and_then(|draft| draft.now.as_ref()).map(|now| &now.1);
        for target in targets {
            let held = held.filter(|entry| entry.targets.contains(target)).map_or(0, |entry| entry.bytes as i64);
            let kept = self.hints.bytes(target) as i64 + batch.hint_bytes.get(target).copied().unwrap_or(0);
            if kept + bytes - held > self.hints.bytes_max() as i64 {
                self.hints.refuse();
                return Err(Refused::HintsFull { target: target.clone() });
            }
        }
        batch.set_hint(key, Some(hint));
        Ok(())
    }

    /// The next hint is written under another name than those before.
    pub(super) fn close_hint_names(&mut self) {
        self.hint_names.close();
        self.hint_actor = after(self.hint_actor, self.clock.last(), For::Hints);
    }

    /// The batch is committed. A name is also closed when a target has all that was kept for it, so that it need not wait
    /// for the others' sake.
    pub(super) fn follow_hints(&mut self, drafts: BTreeMap<Key, HintDraft>, has_names: bool) {
        let (mut any, mut drained) = (has_names, false);
        for (key, draft) in drafts.into_iter().filter(|(_, draft)| draft.changed) {
            self.hints.replace(&key, draft.before.as_ref(), draft.now.as_ref().map(|now| &now.1));
            drained |= draft.before.iter().flat_map(|before| &before.targets).any(|target| !self.hints.has_any(target));
            any = true;
        }
        if any {
            if drained && self.hint_names.is_begun(self.hint_actor) {
                self.close_hint_names();
            }
            self.hint_names.settle(self.store.last_stamp());
            self.hint_names_unkept = false;
            self.hints.note_names(&self.hint_names);
        }
    }
}

impl Batch {
    pub(super) fn set_hint(&mut self, key: Key, hint: Option<Hint>) {
        let draft = self.hints.entry(key).or_default();
        let now = hint.map(|hint| {
            let bytes = hint.encode();
            (hint.clone(), Entry::of(&hint, bytes.len()), bytes)
        });
        let mut count = |entry: Option<&Entry>, sign: i64| {
            let Some(entry) = entry else { return };
            for target in &entry.targets {
                *self.hint_bytes.entry(target.clone()).or_default() += sign * entry.bytes as i64;
            }
        };
        count(draft.now.as_ref().map(|now| &now.1), -1);
        count(now.as_ref().map(|now| &now.1), 1);
        draft.now = now;
        draft.changed = true;
    }
}
