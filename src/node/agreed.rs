//! Agreed writes are told by the node that proposed them, once enough owners have accepted them.
//!
//! One that fell short may be completed by the next proposal of the key, on whatever node, and then that one tells it as well,
//! marked: it cannot know whether its maker did. What this node has told itself it does not tell again.

use super::outside::wall_ms;
use crate::coordinator::Agreed;
use crate::protocol::{ChangeKind, News, ToldChange};
use crate::record::{Dot, Key, Stamp};
use crate::storage::Feed;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

/// Keys of which the last write is remembered that was told. One that is forgotten may be told again, marked.
const KEYS_MAX: usize = 65_536;

/// The last agreed write told of each key.
#[derive(Default)]
pub struct ToldAgreed(Mutex<(BTreeMap<Key, Dot>, VecDeque<Key>)>);

impl ToldAgreed {
    /// Tells what is agreed on now, in its order, unless it was told.
    pub(super) fn tell(&self, feed: &Feed, key: &Key, agreed: Vec<Agreed>) {
        let keeps_value = feed.keeps_values(wall_ms());
        let mut told = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (last_of, order) = &mut *told;
        let mut last = last_of.get(key).copied();
        let found = agreed.iter().find(|agreed| agreed.edit.is_none()).map(|agreed| agreed.id);
        // Where the last one was told here, there is nothing of others' that it follows and that was not told before it; but
        // for what was written without consensus and stands beside.
        let is_alone = |agreed: &Agreed| agreed.record.siblings().iter().all(|sibling| sibling.agreed.is_some());
        let follows_own = found.is_some() && found == last && agreed.iter().all(is_alone);
        let after = if follows_own { Stamp::default() } else { Stamp::MAX };
        let mut news = Vec::new();
        for Agreed { id, edit, record } in agreed {
            if last.is_some_and(|last| last >= id) {
                continue;
            }
            last = Some(id);
            let kind = edit.as_ref().map_or(ChangeKind::Put, ChangeKind::of);
            let change = ToldChange::of(key.clone(), kind, &record, id, after, keeps_value);
            news.push(News::Change(Arc::new(ToldChange { agreed: true, carried: edit.is_none(), ..change })));
        }
        if let (Some(last), false) = (last, news.is_empty())
            && last_of.insert(key.clone(), last).is_none()
        {
            order.push_back(key.clone());
            if order.len() > KEYS_MAX
                && let Some(oldest) = order.pop_front()
            {
                last_of.remove(&oldest);
            }
        }
        // Published under the lock: two that propose for one key must not publish in another order.
        feed.publish(news, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{FeedOf, FeedPlace, Follow};
    use crate::record::{Actor, Ballot, Content, Context, Edit, Record, Seen};

    fn agreed(ms: u64, is_found: bool) -> Agreed {
        let id = Dot { stamp: Stamp::from_ms(ms), actor: Actor(9) };
        let edit = Edit::write(Seen::Everything, Some(Content::plain("v")));
        let empty = Record::default().reballot(Ballot { stamp: id.stamp, actor: id.actor });
        let record = empty.propose(&edit.clone().into(), id, ms).unwrap();
        Agreed { id, edit: (!is_found).then_some(edit), record }
    }

    #[test]
    fn each_is_told_once_and_what_another_may_have_told_is_marked() {
        let (feed, told, key) = (Feed::new(5, 10, 1 << 20), ToldAgreed::default(), Key::new("k").unwrap());
        told.tell(&feed, &key, vec![agreed(1, true), agreed(2, false)]);
        told.tell(&feed, &key, vec![agreed(2, true), agreed(3, false)]);
        told.tell(&feed, &key, vec![agreed(3, true)]);
        // Overtaken before this node knew that it was agreed on.
        told.tell(&feed, &key, vec![agreed(1, false)]);
        // What another node wrote without consensus stands beside the last one.
        let beside = Dot { stamp: Stamp::from_ms(2), actor: Actor(4) };
        let write = Edit::write(Seen::Only(Context::new()), Some(Content::plain("w")));
        let mut found = agreed(3, true);
        found.record = found.record.edit(&write, beside).unwrap();
        told.tell(&feed, &key, vec![found, agreed(4, false)]);
        let after = Some(FeedPlace { incarnation: 5, sequence: 0 });
        let follow = Follow { of: FeedOf::Changes, after, prefixes: vec![vec![]], values: false, wait_ms: 0 };
        let shown = feed.page(&follow).entries.into_iter().map(|entry| match entry.news {
            News::Change(change) => (change.id.stamp.ms(), change.carried, change.after),
            News::Event(event) => panic!("{event:?}"),
        });
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [(1, true, Stamp::MAX), (2, false, Stamp::MAX), (3, false, Stamp::default()), (4, false, Stamp::MAX)]
        );
    }
}
