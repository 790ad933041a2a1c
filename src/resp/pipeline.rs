//! Commands that are under way together, answered in their order.
//!
//! ```text
//!  SET a   SET b   GET c   SET a        sent in one go
//!  ├─ under way ─┤ answered  │          the first three do not wait for one another
//!                            └─ waits until they are done: it is about a key of theirs
//! ```
//!
//! What a client sends at once is so committed at once, and what it sends about one key is done in its order.

use super::access::{Begun, Later, cut_short};
use super::commands::{self, Command, Effect};
use super::reply::Reply;
use super::session::Session;
use super::transactions;
use bytes::Bytes;
use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use tokio::task::JoinHandle;

/// Most commands of one connection under way, and answers that wait for one before them.
const TOGETHER_MAX: usize = 128;

/// The commands of one connection that are not answered yet.
#[derive(Default)]
pub(super) struct Pipeline {
    answers: VecDeque<Answer>,
    /// The keys of those under way.
    keys: HashSet<Bytes>,
    /// Whether one of them looks at all keys.
    has_all: bool,
}

enum Answer {
    Known(Reply),
    /// Not begun: that is spared a task of its own as long as it is the only one.
    Alone(Later<Reply>),
    Under(JoinHandle<Reply>),
}

impl Pipeline {
    /// Whether these words must wait until everything before them is answered.
    pub(super) fn must_wait(&self, words: &[Bytes]) -> bool {
        if self.answers.is_empty() {
            return false;
        }
        if self.has_all || self.answers.len() >= TOGETHER_MAX {
            return true;
        }
        let Some(command) = words.first().and_then(|name| commands::find(name)) else { return false };
        matches!(command.effect, Effect::ReadsAll | Effect::Switches)
            || command.keys.of(words).any(|key| self.keys.contains(key))
    }

    /// Begins a command. Its answer, where that is known and nothing is before it.
    pub(super) fn begin(&mut self, session: &Rc<Session>, words: &[Bytes]) -> Option<Reply> {
        let command = words.first().and_then(|name| commands::find(name));
        if let Some(refused) = transactions::refused(session, command) {
            return self.known(refused);
        }
        let Some(command) = command else { return self.known(commands::unknown(words)) };
        match command.begin(session, words) {
            Begun::Now(reply) => self.known(reply),
            Begun::Later(work) => {
                self.go(command, words, work);
                None
            }
        }
    }

    /// An answer that is known; given back where nothing is before it.
    pub(super) fn known(&mut self, reply: Reply) -> Option<Reply> {
        if self.answers.is_empty() {
            return Some(reply);
        }
        self.answers.push_back(Answer::Known(reply));
        None
    }

    fn go(&mut self, command: &Command, words: &[Bytes], work: Later<Reply>) {
        self.has_all |= command.effect == Effect::ReadsAll;
        self.keys.extend(command.keys.of(words).cloned());
        let spawn = |work| Answer::Under(tokio::task::spawn_local(work));
        match self.answers.pop_front() {
            None => return self.answers.push_back(Answer::Alone(work)),
            Some(Answer::Alone(first)) => self.answers.push_front(spawn(first)),
            Some(first) => self.answers.push_front(first),
        }
        self.answers.push_back(spawn(work));
    }

    /// Waits for the next answer; nothing where all are given.
    pub(super) async fn next(&mut self) -> Option<Reply> {
        let reply = match self.answers.pop_front()? {
            Answer::Known(reply) => reply,
            Answer::Alone(work) => work.await,
            Answer::Under(work) => work.await.unwrap_or_else(|_| cut_short()),
        };
        if self.answers.is_empty() {
            self.keys.clear();
            self.has_all = false;
        }
        Some(reply)
    }
}
