//! What the committer does when this store's copies of partitions are no longer its to keep, and when a layout follows
//! another.

use super::{Batch, Committer, For, after};
use crate::placement::Partition;
use crate::record::Row;
use crate::storage::{Address, Kind, Outcome, PageSize, Refused, Span};

/// Rows dropped in one commit: some milliseconds' work, in which clients' writes wait.
const LET_GO_ROWS: usize = 512;

impl Committer {
    /// [`Change::Disclaim`](crate::storage::Change::Disclaim).
    pub(super) fn disclaim(&mut self, batch: &mut Batch, partitions: &[Partition]) {
        let before = self.actor;
        self.actor = after(self.actor, self.clock.last(), For::Rows);
        self.contexts.change(|contexts| {
            contexts.begin(self.actor, self.clock.last());
            partitions.iter().for_each(|partition| contexts.void(*partition, before));
        });
        batch.keeps_contexts = true;
    }

    /// [`Change::LetGo`](crate::storage::Change::LetGo).
    pub(super) fn let_go(&mut self, batch: &mut Batch, partition: Partition) -> Result<Outcome, Refused> {
        let mut gone = 0;
        let page = self.store.scan(&Span::partition(Kind::Data, partition), PageSize::rows(LET_GO_ROWS))?;
        for (address, _) in page.rows {
            gone += 1;
            let Some(key) = address.key() else {
                batch.dropped.push(address);
                continue;
            };
            match self.data(batch, &key) {
                Ok(draft) => {
                    // Nobody is told that the key has changed: it has not.
                    draft.row = Row::default();
                    (draft.changed, draft.renoted) = (true, true);
                }
                Err(Refused::Damaged(_)) => {
                    // Whoever keeps it now has it sound.
                    self.damaged.retain(|damaged| *damaged != key);
                    batch.dropped.push(address);
                    batch.dropped.push(Address::due(&key));
                    batch.recounts.insert(partition);
                }
                Err(refused) => return Err(refused),
            }
        }
        Ok(Outcome::LetGo(gone))
    }

    /// Another layout is gone by: for whom hints were made, and to whom they went, was said by the one before.
    pub fn layout_changed(&mut self) {
        self.hints.void_names();
        self.hint_names.void();
        self.close_hint_names();
        self.hint_names_unkept = true;
    }
}
