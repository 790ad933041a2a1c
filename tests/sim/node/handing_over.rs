//! Handing over what is kept for peers that are alive.

use super::answering::{Caller, Done};
use super::committing::Submission;
use crate::plant::Plant;
use crate::world::World;
use kringle::membership::State;
use kringle::protocol::Request;
use kringle::record::{Key, Record};
use kringle::storage::{Address, Change, Hint, Store};

/// Hints handed to one peer at a time.
const HINTS_AT_A_TIME: usize = 64;

impl World {
    /// Hands over what is kept for peers that are alive.
    pub(crate) fn hand_over(&mut self, node: usize) {
        let until = self.now + self.timeout_us();
        for target in 0..self.nodes.len() {
            let name = self.nodes[target].name.clone();
            let up = self.up(node);
            let alive = up.view.peer(&name).map(|peer| peer.state == State::Alive);
            if !alive.unwrap_or(target == node) {
                continue;
            }
            for (_, key) in up.hints.oldest(&name, None, HINTS_AT_A_TIME) {
                let up = self.up(node);
                if up.handing_over.insert((target, key.clone()), ()).is_some() {
                    continue;
                }
                let row = up.store.read(&Address::hint(&key)).expect("the base can be read");
                let Some(row) = row else { continue };
                let record = Hint::decode(&row).expect("no hint rots here").record;
                let request = Request::Merge { key: key.clone(), record: record.clone() };
                if self.plant == Some(Plant::HintDroppedUnheard) {
                    self.drop_hint(node, key.clone(), record.clone(), target);
                }
                self.send(node, target, request, None, until, Caller::HandOver { key, record, target });
            }
        }
    }

    pub(super) fn drop_hint(&mut self, node: usize, key: Key, record: Record, target: usize) {
        let name = self.nodes[target].name.as_str().into();
        let done = Done::HintGone { target, key: key.clone() };
        let change = Change::HintDelivered { key, record, target: name };
        self.commit(node, Submission { change, tag: None, done });
    }
}
