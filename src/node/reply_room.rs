//! The room for values in one reply to a peer.
//!
//! A batch of reads may ask for more than fits into a message, or into the memory. What has no room is refused as
//! [`Refusal::Overloaded`], and the asker's link asks for it again; one value always fits, so each round gets on.

use crate::protocol::{Answer, Part, Refusal};
use std::cell::Cell;

/// Most bytes of values in one reply.
const REPLY_BYTES_MAX: usize = 32 << 20;

/// The room of one reply, filled in the order in which its answers come.
#[derive(Default)]
pub(super) struct ReplyRoom {
    bytes: Cell<usize>,
}

impl ReplyRoom {
    /// The answer, or a refusal where it has no room.
    pub(super) fn take_in(&self, answer: Answer) -> Answer {
        let (before, after) = (self.bytes.get(), self.bytes.get() + value_bytes(&answer));
        if before > 0 && after > before && after > REPLY_BYTES_MAX {
            return Answer::Refused(Refusal::Overloaded);
        }
        self.bytes.set(after);
        answer
    }
}

fn value_bytes(answer: &Answer) -> usize {
    match answer {
        Answer::Found { record: Some(record) } | Answer::Partial(Part::Found { record: Some(record) }) => {
            record.siblings().iter().map(|sibling| sibling.content.value.len()).sum()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Actor, Content, Dot, Record, Seen, Stamp};

    fn found(bytes: usize) -> Answer {
        let dot = Dot { stamp: Stamp(1), actor: Actor(1) };
        let written = Record::default().write(&Seen::Everything, dot, Some(Content::plain(vec![0; bytes])));
        Answer::Found { record: Some(written.unwrap()) }
    }

    #[test]
    fn one_value_always_fits_and_more_only_up_to_the_bound() {
        let room = ReplyRoom::default();
        let refused = Answer::Refused(Refusal::Overloaded);
        assert_ne!(room.take_in(found(REPLY_BYTES_MAX + 1)), refused, "the first, whatever its size");
        assert_eq!(room.take_in(found(1)), refused);
        assert_ne!(room.take_in(Answer::Found { record: None }), refused, "nothing takes no room");

        let room = ReplyRoom::default();
        assert_ne!(room.take_in(found(REPLY_BYTES_MAX - 1)), refused);
        assert_eq!(room.take_in(found(2)), refused);
        assert_ne!(room.take_in(found(1)), refused, "a smaller one still fits");
    }
}
