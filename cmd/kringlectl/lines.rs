//! An answer of many lines, taken apart as it comes.

use bytes::{Bytes, BytesMut};
use kringle::remote::{Answering, Failure};
use std::time::Duration;

/// Longest line: a key and a value of the largest sizes, in base64, and what is around them.
const LINE_BYTES_MAX: usize = 128 << 20;

/// The lines of an answer.
pub struct Lines {
    answering: Answering,
    silence_max: Duration,
    waiting: BytesMut,
    /// How much of `waiting` has been looked at without an end of a line.
    seen: usize,
    has_ended: bool,
}

impl Lines {
    /// Of this answer, which is taken for dead once nothing has come for so long.
    pub fn of(answering: Answering, silence_max: Duration) -> Lines {
        Lines { answering, silence_max, waiting: BytesMut::new(), seen: 0, has_ended: false }
    }

    /// The URL of the node that answers.
    pub fn from(&self) -> &str {
        &self.answering.from
    }

    /// The next line without its end; `None` behind the last. A last line that does not end was cut, and is none.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(at) = self.waiting[self.seen..].iter().position(|byte| *byte == b'\n') {
                let mut line = self.waiting.split_to(self.seen + at + 1).freeze();
                self.seen = 0;
                line.truncate(line.len() - 1);
                return Ok(Some(line));
            }
            self.seen = self.waiting.len();
            if self.has_ended {
                return Ok(None);
            }
            if self.waiting.len() > LINE_BYTES_MAX {
                return Err(self.broken("a line without an end"));
            }
            match tokio::time::timeout(self.silence_max, self.answering.chunk()).await {
                Ok(Ok(Some(bytes))) => self.waiting.extend_from_slice(&bytes),
                Ok(Ok(None)) => self.has_ended = true,
                Ok(Err(failure)) => return Err(failure),
                Err(_) => return Err(self.broken(&format!("nothing came for {:.0} s", self.silence_max.as_secs_f64()))),
            }
        }
    }

    fn broken(&self, why: &str) -> Failure {
        Failure::Broken { from: self.answering.from.clone(), why: why.into() }
    }
}
