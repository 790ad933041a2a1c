//! How many keys a store takes of clients, and what is shown of a batch.

use super::{Committer, DataDraft};
use crate::record::{Key, Record};
use crate::storage::{Refused, Room};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Committer {
    /// From now on new keys are refused where the room is full. It must count what this committer's digests do.
    pub fn limit(&mut self, room: Arc<Room>) {
        self.room = Some(room);
    }

    /// Finds a place for the key, where it had no value and is to get one.
    pub(super) fn find_room(&self, before: &Record, after: &Record) -> Result<(), Refused> {
        self.room.as_ref().map_or(Ok(()), |room| room.change(before, after))
    }

    /// Shows what was made durable, in the digests.
    pub(super) fn show(&mut self, rows: BTreeMap<Key, DataDraft>) {
        let Some(room) = self.room.clone() else { return self.digest(rows) };
        let has_come = |(key, draft): (_, &DataDraft)| {
            let had_none = draft.before.as_ref().is_none_or(Record::is_tombstone);
            (draft.changed && had_none && !draft.row.record.is_tombstone()).then_some(key)
        };
        let came: Vec<Key> = rows.iter().filter_map(has_come).cloned().collect();
        room.settle(came.iter(), || self.digest(rows));
    }

    fn digest(&mut self, rows: BTreeMap<Key, DataDraft>) {
        for (key, draft) in rows.into_iter().filter(|(_, draft)| draft.changed) {
            let version = draft.row.record.version(&key);
            let digest_entry = crate::storage::digest_entry;
            let before = draft.before.as_ref().and_then(|record| digest_entry(record, record.version(&key)));
            self.forest.apply(key.position(), before, digest_entry(&draft.row.record, version));
            draft.before.into_iter().for_each(|replaced| self.keep_spare(replaced));
        }
    }
}
