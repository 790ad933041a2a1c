//! What those are told who follow this node: each write that was made here, as the record was then.

use super::Committer;
use crate::protocol::{ChangeKind, News, ToldChange};
use crate::record::{Context, Dot, Edit, Key, Record, Stamp};
use crate::storage::FEED_VALUE_BYTES_MAX;
use bytes::Bytes;
use std::sync::Arc;

impl Committer {
    /// The write `dot`, which left `record`.
    pub(super) fn told(&self, key: Key, edit: &Edit, record: &Record, dot: Dot, wall_ms: u64) -> News {
        let keeps_value = self.feed.keeps_values(wall_ms);
        let after = self.latest_of_others(record.context());
        News::Change(Arc::new(ToldChange::of(key, ChangeKind::of(edit), record, dot, after, keeps_value)))
    }

    /// The latest write in a context that was not made here.
    fn latest_of_others(&self, context: &Context) -> Stamp {
        if context.ballot().is_some() {
            return Stamp::MAX;
        }
        let others = context.entries().iter().filter(|(actor, _)| *actor != self.actor && *actor != self.hint_actor);
        others.map(|(_, stamp)| *stamp).max().unwrap_or_default()
    }
}

impl ChangeKind {
    /// What an edit does.
    pub fn of(edit: &Edit) -> ChangeKind {
        match edit {
            Edit::Add { .. } => ChangeKind::Count,
            Edit::Write { content: Some(_), .. } => ChangeKind::Put,
            Edit::Write { content: None, .. } => ChangeKind::Delete,
        }
    }
}

impl ToldChange {
    /// The write `id`, which left `record` and follows no other node's that is later than `after`. Copies the value, if it is to
    /// be kept: the record's own may be a part of something much larger.
    pub fn of(key: Key, kind: ChangeKind, record: &Record, id: Dot, after: Stamp, keeps_value: bool) -> ToldChange {
        let now_ms = id.stamp.ms();
        let winner = record.winner(now_ms);
        let shown = winner.as_ref().map(|winner| &winner.content);
        let value =
            shown.map(|content| &content.value).filter(|value| keeps_value && value.len() <= FEED_VALUE_BYTES_MAX);
        let siblings = match record.siblings() {
            [only] => usize::from(only.content.lives(now_ms)),
            _ => record.values(now_ms).len(),
        };
        ToldChange {
            kind,
            id,
            agreed: false,
            carried: false,
            after,
            tag: record.tag(now_ms),
            siblings: siblings as u32,
            expires_ms: shown.and_then(|content| content.expires_ms),
            value_bytes: shown.map_or(0, |content| content.value.len() as u32),
            has_value: value.is_some(),
            value: value.map_or_else(Bytes::new, |value| Bytes::copy_from_slice(value)),
            key,
        }
    }
}
