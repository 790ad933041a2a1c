//! A write that was made twice: by an owner that was silent and another one, or by an earlier try under another layout.
//!
//! Whoever has seen one of the two has not seen the other, which would stay when the client supersedes what it was told of,
//! and come back. So one takes the place of both.

use super::{Purpose, Put};
use crate::operation::Command;
use crate::protocol::Request;
use crate::record::{Dot, Record, Sibling};

impl Put {
    /// What an earlier try has left somewhere would come back from there, when this one has been superseded.
    pub(super) fn settle_earlier(&mut self, commands: &mut Vec<Command>) {
        let Some(earlier) = self.earlier.take() else { return };
        let is_same = |sibling: &&Sibling| Some(&sibling.content) == self.write.edit.content();
        let twin = earlier.siblings().iter().filter(is_same).map(|sibling| sibling.dot).max();
        if let Some(twin) = twin {
            self.settle(None, twin, &earlier, commands);
        }
    }

    /// One that was passed over has made the write after all, as `twin`: who has seen one of the two has not seen the
    /// other, which would stay when the client overwrites what it was told of. All are told to let go of it.
    pub(super) fn settle(&mut self, maker: Option<usize>, twin: Dot, record: &Record, commands: &mut Vec<Command>) {
        let Some(made) = self.made.as_mut().filter(|made| made.dot != twin) else { return };
        made.record = made.record.merge_twin(record, twin, made.dot);
        if made.record.siblings().iter().any(|sibling| sibling.dot == twin) {
            // It was made on a record that had the first already, and has taken its place.
            made.dot = twin;
        }
        let record = made.record.clone();
        if let Some(owner) = maker {
            self.owners[owner].has_twin = true;
        }
        for owner in 0..self.owners.len() {
            let request = Request::Merge { key: self.write.key.clone(), record: record.clone() };
            self.call(Purpose::Settle { owner }, self.member(owner), request, commands);
        }
    }

    /// Whether somebody who was passed over may still say that it has made the write too, or has not yet let go of its own:
    /// the client would overwrite one of the two, and see the other come back. Whoever is believed down is not waited for.
    pub(super) fn may_be_made_twice(&self) -> bool {
        let awaited = |call: &Option<Purpose>| match call {
            Some(Purpose::Make { owner }) => !self.avoid.contains(&self.member(*owner)),
            Some(Purpose::MakeHint) => true,
            _ => false,
        };
        !self.patience_over && (self.calls.iter().any(awaited) || self.owners.iter().any(|owner| owner.has_twin))
    }
}
