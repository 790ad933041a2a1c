//! Which agreed writes were told of late: a write that one node made and another completed may be told by both.

use crate::record::{Dot, Key, Stamp};
use std::collections::{BTreeMap, VecDeque};

/// Keys remembered. What is beyond is judged by its time.
const KEYS_MAX: usize = 65_536;

/// The last agreed write told of each key. The writes that consensus makes of a key have names in their order.
#[derive(Debug)]
pub(super) struct Remembered {
    told: BTreeMap<Key, (Dot, u64)>,
    order: VecDeque<(u64, Key)>,
    count: u64,
    /// No write that is not remembered, and was told, is later.
    floor: Stamp,
}

impl Remembered {
    /// Nothing later than `floor` was told yet.
    pub(super) fn since(floor: Stamp) -> Remembered {
        Remembered { told: BTreeMap::new(), order: VecDeque::new(), count: 0, floor }
    }

    /// Whether the write is to be told, and remembers that it was. One that was `carried` and may have been told before, as far
    /// as is remembered, is not: it began before this watch did.
    pub(super) fn is_news(&mut self, key: &Key, id: Dot, carried: bool) -> bool {
        let is_news = match self.told.get(key) {
            Some((told, _)) => *told < id,
            None => !carried || id.stamp > self.floor,
        };
        if is_news {
            self.count += 1;
            self.told.insert(key.clone(), (id, self.count));
            self.order.push_back((self.count, key.clone()));
            while self.told.len() > KEYS_MAX || self.order.len() > 2 * KEYS_MAX {
                let Some((count, key)) = self.order.pop_front() else { break };
                if let Some((id, _)) = self.told.get(&key).copied().filter(|(_, latest)| *latest == count) {
                    self.floor = self.floor.max(id.stamp);
                    self.told.remove(&key);
                }
            }
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Actor;

    fn dot(ms: u64) -> Dot {
        Dot { stamp: Stamp::from_ms(ms), actor: Actor(1) }
    }

    #[test]
    fn what_was_told_is_no_news_and_what_began_earlier_is_not_told_by_another() {
        let mut remembered = Remembered::since(Stamp::from_ms(10));
        let [a, b] = ["a", "b"].map(|name| Key::new(name).unwrap());
        assert!(remembered.is_news(&a, dot(12), true));
        assert!(!remembered.is_news(&a, dot(12), false));
        assert!(remembered.is_news(&a, dot(13), false) && !remembered.is_news(&a, dot(12), true));
        assert!(!remembered.is_news(&b, dot(9), true), "it may have been told before");
        assert!(remembered.is_news(&b, dot(9), false), "its maker tells it once");
    }

    #[test]
    fn no_more_is_remembered_than_there_may_be() {
        let mut remembered = Remembered::since(Stamp::default());
        let keys: Vec<Key> = (0..KEYS_MAX + 5).map(|n| Key::new(n.to_string()).unwrap()).collect();
        for (n, key) in keys.iter().enumerate() {
            assert!(remembered.is_news(key, dot(n as u64 + 1), false));
        }
        assert_eq!(remembered.told.len(), KEYS_MAX);
        assert!(!remembered.is_news(&keys[0], dot(1), true), "forgotten, so its time decides");
        for n in 0..3 * KEYS_MAX as u64 {
            assert!(remembered.is_news(&keys[9], dot(n + 99_999), false));
        }
        assert!(remembered.order.len() <= 2 * KEYS_MAX);
    }
}
