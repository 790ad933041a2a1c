//! `batch`: many wishes, a JSON object a line, and a line back for each, in order.

use super::kv::path;
use crate::arguments::modes;
use crate::exit::{Exit, Failed};
use crate::lines::Lines;
use crate::session::Session;
use crate::show::{Column, Unit, printable};
use kringle::remote::{Ask, Failure};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

/// Lines and bytes of one request: well within what a node takes, which is 10,000 and 64 MiB.
const LINES_MAX: usize = 1_000;
const BYTES_MAX: usize = 8 << 20;
/// Longest line that is read.
const LINE_BYTES_MAX: u64 = 48 << 20;

/// Sends many wishes, a JSON object a line
///
/// Each is done or refused for itself: it is no transaction. Lines are sent in parts as they are read, so that there may be
/// any number of them. The exit code is the gravest of all lines': 5 where owners were missing, 4 where a condition was not
/// true, 2 where a line makes no sense, 3 where only a get found nothing; 6 where an answer was cut, after telling which
/// lines it may be about.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl batch wishes.ndjson
  echo '{\"op\":\"put\",\"key\":\"a\",\"value\":\"1\"}' | kringlectl batch
  echo '{\"op\":\"incr\",\"key\":\"n\",\"by\":2,\"id\":\"order-77\"}' | kringlectl batch --mode quorum

\"op\" is put, get, delete or incr; each names a \"key\" or \"key_base64\". With put: \"value\" or
\"value_base64\", \"content_type\", \"ttl\", \"context\", \"if_match\", \"if_none_match\"; with incr: \"by\", \"id\".")]
pub struct Batch {
    /// The file; - or nothing for standard input
    file: Option<PathBuf>,
    /// How to read and write; the cluster's mode unless given
    #[arg(long, value_parser = modes())]
    mode: Option<String>,
    /// Owners to wait for, in the modes that do not agree
    #[arg(long, value_name = "N")]
    w: Option<u8>,
    /// Owners to ask, in the modes that do not agree
    #[arg(long, value_name = "N")]
    r: Option<u8>,
}

const COLUMNS: &[Column] = &[
    Column("status", Unit::Text),
    Column("key", Unit::Text),
    Column("key_base64", Unit::Text),
    Column("value", Unit::Text),
    Column("value_base64", Unit::Text),
    Column("error", Unit::Text),
    Column("etag", Unit::Text),
    Column("context", Unit::Text),
];

/// A line's status as an exit code, and how grave it is.
fn gravity(status: u64) -> (u8, Exit) {
    let exit = Exit::of_status(u16::try_from(status).unwrap_or_default());
    let gravity = match exit {
        Exit::Ok => 0,
        Exit::NotFound => 1,
        Exit::Conflict => 3,
        Exit::NotAllowed => 4,
        Exit::Unavailable | Exit::TimedOut => 5,
        _ => 2,
    };
    (gravity, exit)
}

impl Batch {
    /// Sends all there is to read, and shows what comes back.
    pub async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        let mut input: Box<dyn BufRead> = match &self.file {
            Some(path) if path.as_os_str() != "-" => {
                let file = std::fs::File::open(path);
                Box::new(BufReader::new(file.map_err(|error| Failed::usage(format!("{}: {error}", path.display())))?))
            }
            _ => Box::new(BufReader::new(std::io::stdin())),
        };
        session.show.head(COLUMNS)?;
        let mut worst = (0, Exit::Ok);
        // The number of the first line of a part, counted as an editor does.
        let mut first = 1;
        loop {
            let (part, lines, asked) = read_part(&mut input, first)?;
            if lines == 0 {
                return Ok(worst.1);
            }
            if asked > 0 {
                let found = self.send(session, part, asked, first, first + lines - 1).await?;
                worst = if found.0 > worst.0 { found } else { worst };
            }
            first += lines;
        }
    }

    /// Sends a part, and shows its answers.
    async fn send(
        &self,
        session: &Session,
        part: Vec<u8>,
        asked: usize,
        first: usize,
        last: usize,
    ) -> Result<(u8, Exit), Failed> {
        let parameters =
            [("mode", self.mode.clone()), ("w", self.w.map(|w| w.to_string())), ("r", self.r.map(|r| r.to_string()))];
        let ask = Ask::post(path("/batch", &parameters)).header("content-type", "application/x-ndjson").body(part);
        let told_of = |failed: Failed, answered: usize| Failed {
            error: format!("lines {first} to {last}, {answered} of {asked} answered: {}", failed.error),
            ..failed
        };
        let answering = match session.remote.stream(&ask).await {
            Ok(answering) => answering.successful().await,
            Err(failure) => Err(failure),
        };
        let mut lines = Lines::of(answering.map_err(|failure| told_of(failure.into(), 0))?, session.timeout);
        let (mut worst, mut answered) = ((0, Exit::Ok), 0);
        loop {
            let line = match lines.next().await {
                Ok(Some(line)) => line,
                Ok(None) if answered == asked => return Ok(worst),
                Ok(None) => {
                    let cut = Failure::Unknown { from: lines.from().to_owned(), why: "the answer was cut".into() };
                    return Err(told_of(cut.into(), answered));
                }
                Err(failure) => {
                    let cut = Failure::Unknown { from: lines.from().to_owned(), why: failure.to_string() };
                    return Err(told_of(cut.into(), answered));
                }
            };
            let answer: Value = serde_json::from_slice(&line)
                .map_err(|error| Failure::Garbled { from: lines.from().to_owned(), why: error.to_string() })?;
            answered += 1;
            let found = gravity(answer["status"].as_u64().unwrap_or_default());
            worst = if found.0 > worst.0 { found } else { worst };
            session.show.item(&answer, COLUMNS, || text(&answer))?;
        }
    }
}

/// The next lines, as many as go together; how many were read, and how many of them say something.
fn read_part(input: &mut dyn BufRead, first: usize) -> Result<(Vec<u8>, usize, usize), Failed> {
    let (mut part, mut lines, mut asked) = (Vec::new(), 0, 0);
    while lines < LINES_MAX && part.len() < BYTES_MAX {
        let before = part.len();
        let read = input.take(LINE_BYTES_MAX).read_until(b'\n', &mut part)?;
        if read == 0 {
            break;
        }
        lines += 1;
        if part.last() != Some(&b'\n') {
            if read as u64 == LINE_BYTES_MAX {
                let error = format!("line {} is longer than {LINE_BYTES_MAX} bytes", first + lines - 1);
                return Err(Failed::usage(error).hint("what was read before it has been sent, and answered above"));
            }
            part.push(b'\n');
        }
        if part[before..].trim_ascii().is_empty() {
            part.truncate(before);
        } else {
            asked += 1;
        }
    }
    Ok((part, lines, asked))
}

/// One answer, for people.
fn text(answer: &Value) -> String {
    let word = |name: &str| answer[name].as_str();
    let key = match (word("key"), word("key_base64")) {
        (Some(key), _) => printable(key.as_bytes()),
        (None, Some(word)) => format!("base64:{word}"),
        (None, None) => "-".into(),
    };
    let mut line = format!("{}  {key}", answer["status"]);
    match (&answer["value"], word("value_base64"), word("error")) {
        (Value::String(value), ..) => line += &format!("\t{}", printable(value.as_bytes())),
        (Value::Null, Some(word), _) => line += &format!("\tbase64:{word}"),
        (Value::Null, None, Some(error)) => line += &format!("\t{}", printable(error.as_bytes())),
        (Value::Null, None, None) => {}
        (number, ..) => line += &format!("\t{number}"),
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_bounded_and_no_line_is_lost() {
        let text = "{}\n".repeat(LINES_MAX + 1) + "\n{}";
        let mut input = text.as_bytes();
        let (part, lines, asked) = read_part(&mut input, 1).unwrap();
        assert_eq!((part.len(), lines, asked), (3 * LINES_MAX, LINES_MAX, LINES_MAX));
        let (part, lines, asked) = read_part(&mut input, lines + 1).unwrap();
        assert_eq!((part.as_slice(), lines, asked), (&b"{}\n{}\n"[..], 3, 2));
        assert_eq!(read_part(&mut input, 1).unwrap().1, 0);
    }

    #[test]
    fn the_gravest_line_decides() {
        let worst = [200, 404, 400, 412, 503].into_iter().map(gravity).max_by_key(|(gravity, _)| *gravity);
        assert_eq!(worst.map(|(_, exit)| exit), Some(Exit::Unavailable));
        assert_eq!(gravity(404).1, Exit::NotFound);
    }
}
