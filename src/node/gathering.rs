//! The answers to one batch of a peer, gathered until all are there.

use crate::protocol::Answer;
use std::cell::{Cell, RefCell};
use tokio::sync::oneshot;

/// The answers to a batch, as they come in.
pub(super) struct Gathering {
    answers: RefCell<Vec<Option<Answer>>>,
    left: Cell<usize>,
    done: Cell<Option<oneshot::Sender<Vec<Answer>>>>,
}

impl Gathering {
    /// Waits for `count` answers, at least one, which go to `done` together.
    pub(super) fn new(count: usize, done: oneshot::Sender<Vec<Answer>>) -> Gathering {
        let answers = RefCell::new((0..count).map(|_| None).collect());
        Gathering { answers, left: Cell::new(count), done: Cell::new(Some(done)) }
    }

    /// The answer to the request at this place.
    pub(super) fn put(&self, at: usize, answer: Answer) {
        self.answers.borrow_mut()[at] = Some(answer);
        self.left.set(self.left.get() - 1);
        if self.left.get() == 0
            && let Some(done) = self.done.take()
        {
            let answers = self.answers.take().into_iter().flatten().collect();
            // The peer may have gone; what was committed stays committed.
            let _ = done.send(answers);
        }
    }
}
