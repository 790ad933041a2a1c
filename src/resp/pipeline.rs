//! Commands that are under way together, answered in their order.
//!
//! ```text
//!  SET a   SET b   GET c   SET a        sent in one go
//!  ├─ under way ─┤ answered  │          the first three do not wait for one another
//!                            └─ waits until they are done: it is about a key of theirs
//! ```
//!
//! What a client sends at once is so committed at once, and what it sends about one key is done in its order. Fewer reads go
//! at a time, since nobody knows how long their answers will be; and nothing is begun while much is answered that waits for an
//! answer before it.

use super::access::{Begun, Later, cut_short};
use super::arguments::is;
use super::commands::{self, Command, Effect};
use super::reply::Reply;
use super::session::Session;
use super::transactions;
use bytes::Bytes;
use std::collections::{HashSet, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Most commands of one connection under way, and answers that wait for one before them.
const TOGETHER_MAX: usize = 128;
/// Most keys whose values are read at a time, but for those of one command. Clients that send sixteen commands at a time,
/// as most do that measure, do not wait for it.
const READS_MAX: usize = 16;
/// Bytes of answers that wait for one before them, above which nothing is begun.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// The commands of one connection that are not answered yet.
#[derive(Default)]
pub(super) struct Pipeline {
    answers: VecDeque<Pending>,
    /// The keys of those under way.
    keys: HashSet<Bytes>,
    /// Whether one of them looks at all keys.
    has_all: bool,
    /// How many values they read.
    reads: usize,
    /// Bytes of the answers that are there.
    waiting: usize,
}

struct Pending {
    answer: Answer,
    /// How many values it reads.
    reads: usize,
}

enum Answer {
    Known(Reply),
    Under(Later<Reply>),
}

/// What these words must wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Free,
    /// More of the answers before them.
    Crowded,
    /// All of the answers before them.
    Barred,
}

/// How many values a command reads, of which nobody knows how long they are.
fn reads(command: &Command, words: &[Bytes]) -> usize {
    let is_read = match command.effect {
        Effect::Reads => true,
        Effect::Writes => match command.name {
            "append" | "getdel" | "getex" | "getset" => true,
            "set" => words.iter().skip(3).any(|word| is(word, "GET") || is(word, "KEEPTTL")),
            _ => false,
        },
        Effect::None | Effect::ReadsAll | Effect::Switches => false,
    };
    if is_read { command.keys.of(words).count() } else { 0 }
}

impl Pipeline {
    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// What these words must wait for.
    pub(super) fn way(&self, words: &[Bytes]) -> Way {
        if self.answers.is_empty() {
            return Way::Free;
        }
        if self.has_all || self.answers.len() >= TOGETHER_MAX {
            return Way::Barred;
        }
        let Some(command) = words.first().and_then(|name| commands::find(name)) else { return Way::Free };
        let is_after_all = matches!(command.effect, Effect::ReadsAll | Effect::Switches);
        if is_after_all || command.keys.of(words).any(|key| self.keys.contains(key)) {
            return Way::Barred;
        }
        let reads = reads(command, words);
        let is_much = reads > 0 && self.reads > 0 && self.reads + reads > READS_MAX;
        if is_much || self.waiting > WAITING_BYTES_MAX { Way::Crowded } else { Way::Free }
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
        self.waiting += reply.size_hint();
        self.answers.push_back(Pending { answer: Answer::Known(reply), reads: 0 });
        None
    }

    fn go(&mut self, command: &Command, words: &[Bytes], work: Later<Reply>) {
        self.has_all |= command.effect == Effect::ReadsAll;
        self.keys.extend(command.keys.of(words).cloned());
        let reads = reads(command, words);
        self.reads += reads;
        self.answers.push_back(Pending { answer: Answer::Under(work), reads });
        // It begins with this; whoever wakes it then is not heard, and need not be: all are polled by whoever waits for one.
        self.poll_one(self.answers.len() - 1, &mut Context::from_waker(Waker::noop()));
    }

    /// Whether that one is answered.
    fn poll_one(&mut self, at: usize, context: &mut Context<'_>) -> bool {
        let Some(Pending { answer, .. }) = self.answers.get_mut(at) else { return false };
        if let Answer::Under(work) = answer {
            let Poll::Ready(reply) = work.as_mut().poll(context) else { return false };
            self.waiting += reply.size_hint();
            *answer = Answer::Known(reply);
        }
        true
    }

    /// Has all go on that can.
    pub(super) fn go_on(&mut self, context: &mut Context<'_>) {
        for at in 0..self.answers.len() {
            self.poll_one(at, context);
        }
    }

    /// Waits for the next answer; nothing where all are given. Those behind it go on meanwhile.
    pub(super) async fn next(&mut self) -> Option<Reply> {
        poll_fn(|context| {
            let first = self.poll_one(0, context);
            if first || self.answers.is_empty() {
                return Poll::Ready(());
            }
            self.go_on(context);
            Poll::Pending
        })
        .await;
        let Pending { answer: Answer::Known(reply), reads } = self.answers.pop_front()? else {
            return Some(cut_short());
        };
        self.reads -= reads;
        self.waiting -= reply.size_hint();
        if self.answers.is_empty() {
            self.keys.clear();
            self.has_all = false;
        }
        Some(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Bytes> {
        line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
    }

    /// Takes note of a command that never ends.
    fn go(pipeline: &mut Pipeline, line: &str) {
        let words = words(line);
        let command = commands::find(&words[0]).unwrap();
        pipeline.keys.extend(command.keys.of(&words).cloned());
        let reads = reads(command, &words);
        pipeline.reads += reads;
        pipeline.answers.push_back(Pending { answer: Answer::Under(Box::pin(std::future::pending())), reads });
    }

    #[test]
    fn few_values_are_read_at_a_time_and_writes_go_on_beside_them() {
        let mut pipeline = Pipeline::default();
        for number in 0..READS_MAX {
            assert_eq!(pipeline.way(&words(&format!("GET k{number}"))), Way::Free, "{number}");
            go(&mut pipeline, &format!("GET k{number}"));
        }
        for line in ["GET l", "MGET l m", "GETEX l", "SET l v GET"] {
            assert_eq!(pipeline.way(&words(line)), Way::Crowded, "{line}");
        }
        for line in ["SET l v", "SET l v EX 1", "PING", "INCR l", "NONSENSE"] {
            assert_eq!(pipeline.way(&words(line)), Way::Free, "{line}");
        }
        assert_eq!(pipeline.way(&words("SET k3 v")), Way::Barred);
        assert_eq!(pipeline.way(&words("DBSIZE")), Way::Barred);
    }

    #[test]
    fn a_command_that_reads_many_values_goes_without_other_reads() {
        let mut pipeline = Pipeline::default();
        let many = format!("MGET {}", ["k"; 100].join(" "));
        assert_eq!(pipeline.way(&words(&many)), Way::Free);
        go(&mut pipeline, "SET a b");
        assert_eq!(pipeline.way(&words(&many)), Way::Free, "writes read nothing");
        go(&mut pipeline, &many);
        assert_eq!(pipeline.way(&words("GET c")), Way::Crowded);
    }

    #[test]
    fn nothing_is_begun_while_much_is_answered_that_waits() {
        let mut pipeline = Pipeline::default();
        go(&mut pipeline, "SET a b");
        assert!(pipeline.known(Reply::Bulk(vec![0; WAITING_BYTES_MAX].into())).is_none());
        assert_eq!(pipeline.way(&words("GET c")), Way::Crowded);
        assert_eq!(pipeline.way(&words("SET c d")), Way::Crowded);
    }
}
