//! `export`: all keys, or those below a prefix, as lines of a file.
//!
//! The list comes as one stream from one node; where that breaks off, another goes on behind the last key that came. Never
//! more than a few values are in memory.

use super::line::{Entry, Head, Listed, Seal, Shown, text};
use super::writer::{Begun, Writer};
use super::{progress, reader};
use crate::arguments::Form;
use crate::exit::{Exit, Failed};
use crate::session::Session;
use indicatif::ProgressBar;
use kringle::remote::{Answering, Ask, Failure, query, segment};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often in a row a list may break off before any further key has come.
const BREAKS_MAX: u32 = 8;
/// How long lies between two tries, at first.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a node may be silent in the middle of a list: it may have to find its way through many keys that went.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Writes all keys with their values into a file, one a line
///
/// The last line has the number of keys and the BLAKE3 sum of all lines before it, so that a file that was cut off or changed
/// is known for it. A file that was cut off goes on with --resume. A list is not one moment: keys written meanwhile may be in
/// it or not. Kept are values, media types, times of expiry and values written concurrently; a counter is kept as its number.
/// For copies with their whole history see `kringlectl backup`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl export all.ndjson
  kringlectl export --prefix users/ users.ndjson.zst
  kringlectl export --resume users.ndjson.zst --prefix users/
  kringlectl export | jq .key
  kringlectl export --verify users.ndjson.zst")]
pub struct Export {
    /// The file; standard output without it, or with -
    file: Option<PathBuf>,
    /// Only keys that start so
    #[arg(long, default_value = "", value_name = "TEXT")]
    prefix: String,
    /// Compress with zstd; done anyway where the name ends in .zst
    #[arg(long)]
    zstd: bool,
    /// Go on with a file that was cut off
    #[arg(long, conflicts_with = "verify")]
    resume: bool,
    /// Write nothing: tell whether the file is whole
    #[arg(long)]
    verify: bool,
    /// The mode of the reads, such as quorum
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
}

impl Export {
    /// Does it. Whoever closes our output wants no more of it.
    pub async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        match self.write(session).await {
            Err(failed) if failed.exit == Exit::Ok => Ok(Exit::Ok),
            done => done,
        }
    }

    async fn write(&self, session: &Session) -> Result<Exit, Failed> {
        let file = self.file.as_deref().filter(|file| *file != Path::new("-"));
        if self.verify {
            let file = file.ok_or_else(|| Failed::usage("--verify needs a file"))?;
            return verify(session, file);
        }
        let head = Head::new(self.prefix.as_bytes());
        let is_compressed = self.zstd || file.is_some_and(|file| file.extension().is_some_and(|end| end == "zst"));
        let (writer, last) = match file {
            None if self.resume => return Err(Failed::usage("--resume needs a file")),
            None => (Writer::stdout(is_compressed, &head)?, None),
            Some(file) if self.resume && file.exists() => {
                let Begun { writer, last, is_sealed } = Writer::resume(file, is_compressed, &head)?;
                if is_sealed {
                    talk!("{} is whole: {} keys", file.display(), writer.keys());
                    return Ok(Exit::Ok);
                }
                talk!("{} has {} keys, going on", file.display(), writer.keys());
                (writer, last)
            }
            Some(file) => (Writer::create(file, is_compressed, &head)?, None),
        };
        let bar = progress::of_keys("exporting");
        let mut course = Course { session, export: self, writer, last, bar, breaks: 0, heard: None, is_untold: false };
        let fetched = course.fetch().await;
        course.bar.finish_and_clear();
        // What has come stays, and is gone on with.
        course.writer.flush()?;
        if let Err(failed) = fetched {
            let hint = match file {
                Some(_) => "go on with --resume".to_owned(),
                None => failed.hint.clone().unwrap_or_else(|| "write to a file, which --resume goes on with".into()),
            };
            return Err(failed.hint(hint));
        }
        if let Some(Heard { answered, wanted }) = &course.heard {
            talk!(
                "fewer owners than wanted were heard ({answered} of {wanted}): keys that only others have are missing"
            );
        } else if course.is_untold {
            talk!(
                "a list was cut off before it was told how many owners were heard: keys that only others have may be missing"
            );
        }
        let is_degraded = course.heard.is_some() || course.is_untold;
        let seal = course.writer.seal()?;
        match file {
            Some(file) => tell(session, file, &seal)?,
            None => talk!("{} keys", seal.keys),
        }
        Ok(if is_degraded { Exit::Degraded } else { Exit::Ok })
    }
}

/// How far it is.
struct Course<'a> {
    session: &'a Session,
    export: &'a Export,
    writer: Writer,
    last: Option<Vec<u8>>,
    bar: ProgressBar,
    breaks: u32,
    /// Where fewer owners were heard than the mode asks.
    heard: Option<Heard>,
    /// Whether some keys came of which nobody told how many owners were heard.
    is_untold: bool,
}

/// How many owners were heard.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Heard {
    answered: u64,
    wanted: u64,
}

impl Heard {
    /// As the last line of a list tells it.
    fn of_line(line: &Value) -> Option<Heard> {
        let count = |name: &str| line["replicas"][name].as_u64();
        Some(Heard { answered: count("answered")?, wanted: count("wanted")? })
    }

    /// As the header of an answer tells it: `wanted=3, answered=2`.
    fn of_header(text: &str) -> Option<Heard> {
        let count = |name: &str| {
            let mut pairs = text.split(',').filter_map(|pair| pair.trim().split_once('='));
            pairs.find(|(named, _)| *named == name)?.1.parse().ok()
        };
        Some(Heard { answered: count("answered")?, wanted: count("wanted")? })
    }
}

/// How a list ended.
enum Ended {
    /// There is no more.
    Whole,
    /// It is to be gone on with, because of this.
    Broken(Failed),
}

impl Course<'_> {
    /// Asks until the list is through.
    async fn fetch(&mut self) -> Result<(), Failed> {
        self.bar.set_position(self.writer.keys());
        loop {
            let failed = match self.stream().await? {
                Ended::Whole => return Ok(()),
                Ended::Broken(failed) => failed,
            };
            self.breaks += 1;
            if self.breaks > BREAKS_MAX {
                return Err(failed);
            }
            tokio::time::sleep(PAUSE * (1 << self.breaks.min(5))).await;
        }
    }

    /// One stream, from behind the last key on.
    async fn stream(&mut self) -> Result<Ended, Failed> {
        let mut parameters = vec![("prefix", self.export.prefix.as_bytes()), ("values", b"1".as_slice())];
        // The first key that could stand behind it.
        let start = self.last.as_ref().map(|last| [last.as_slice(), b"\0"].concat());
        parameters.extend(start.as_deref().map(|start| ("start", start)));
        parameters.extend(self.export.mode.as_ref().map(|mode| ("mode", mode.as_bytes())));
        let ask = Ask::get(query("/kv", parameters)).header("accept", "application/x-ndjson");
        let mut answering = match self.session.remote.stream(&ask).await {
            Ok(answering) => answering,
            Err(failure @ Failure::Unreachable { .. }) => return Ok(Ended::Broken(failure.into())),
            Err(failure) => return Err(failure.into()),
        };
        let is_success = answering.status.is_success();
        // It says so of the beginning; the last line, of all.
        let of_beginning = answering.header("kringle-replicas").and_then(Heard::of_header).filter(|_| is_success);
        self.heard = self.heard.take().or(of_beginning);
        let begun = self.writer.keys();
        let mut rest = Vec::new();
        loop {
            let chunk = match chunk(&mut answering).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(failed) => {
                    self.is_untold |= self.writer.keys() > begun;
                    return Ok(Ended::Broken(failed));
                }
            };
            rest.extend_from_slice(&chunk);
            if !is_success {
                continue;
            }
            let mut taken = 0;
            while let Some(length) = rest[taken..].iter().position(|byte| *byte == b'\n') {
                let line = &rest[taken..taken + length];
                taken += length + 1;
                if let Some(ended) = self.take(line).await? {
                    return Ok(ended);
                }
            }
            rest.drain(..taken);
        }
        if is_success {
            self.is_untold |= self.writer.keys() > begun;
            let error = format!("{}: the list was cut off", answering.from);
            return Ok(Ended::Broken(Failed::new(Exit::Unavailable, error)));
        }
        let failed = refused(&answering, &rest);
        if failed.exit == Exit::Unavailable { Ok(Ended::Broken(failed)) } else { Err(failed) }
    }

    /// Takes a line of the list in.
    async fn take(&mut self, line: &[u8]) -> Result<Option<Ended>, Failed> {
        let Ok(listed) = serde_json::from_slice::<Listed>(line) else { return self.take_end(line).map(Some) };
        let is_single = listed.siblings == 1;
        let mut entry = Entry::from(listed);
        let key = entry.key()?;
        if !is_single {
            match self.siblings(&key).await {
                Ok(siblings) if siblings.len() > 1 => entry = entry.with_siblings(siblings),
                Ok(_) => {}
                // It has gone meanwhile.
                Err(failed) if failed.exit == Exit::NotFound => return Ok(None),
                Err(failed) if failed.exit == Exit::Unavailable => return Ok(Some(Ended::Broken(failed))),
                Err(failed) => return Err(failed),
            }
        }
        self.writer.entry(&text(&entry)?)?;
        self.last = Some(key);
        self.breaks = 0;
        self.bar.inc(1);
        Ok(None)
    }

    fn take_end(&mut self, line: &[u8]) -> Result<Ended, Failed> {
        let said: Value = serde_json::from_slice(line)
            .map_err(|error| Failed::new(Exit::Unexpected, format!("a line of the list makes no sense: {error}")))?;
        self.heard = self.heard.take().or(Heard::of_line(&said));
        if said["end"] == true {
            return Ok(Ended::Whole);
        }
        let error = said["error"].as_str().unwrap_or("the list ended with a line that makes no sense");
        let hint = said["hint"].as_str().map(str::to_owned);
        Ok(Ended::Broken(Failed { exit: Exit::Unavailable, error: error.to_owned(), hint }))
    }

    /// All values of a key.
    async fn siblings(&self, key: &[u8]) -> Result<Vec<Shown>, Failed> {
        let mut parameters = vec![("siblings", b"1".as_slice())];
        parameters.extend(self.export.mode.as_ref().map(|mode| ("mode", mode.as_bytes())));
        let ask = Ask::get(query(&format!("/kv/{}", segment(key)), parameters));
        let said = self.session.remote.ask(&ask).await?.successful()?.json()?;
        serde_json::from_value(said["siblings"].clone())
            .map_err(|error| Failed::new(Exit::Unexpected, format!("the values of a key make no sense: {error}")))
    }
}

/// The next bytes; an error where the node falls silent, too.
async fn chunk(answering: &mut Answering) -> Result<Option<bytes::Bytes>, Failed> {
    match tokio::time::timeout(SILENCE_MAX, answering.chunk()).await {
        Ok(chunk) => Ok(chunk?),
        Err(_) => Err(Failed::new(Exit::Unavailable, format!("{} has fallen silent", answering.from))),
    }
}

/// What an answer other than of success says.
fn refused(answering: &Answering, body: &[u8]) -> Failed {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
    let (from, status) = (answering.from.clone(), answering.status);
    let error = match text("error") {
        silent if silent.is_empty() => format!("{from} answers {status}"),
        error => error,
    };
    Failure::Refused { from, status, error, hint: text("hint") }.into()
}

/// Tells whether a file is what was written.
fn verify(session: &Session, file: &Path) -> Result<Exit, Failed> {
    let bar = progress::of_keys("checking");
    let whole = reader::check(file, |_| bar.inc(1));
    bar.finish_and_clear();
    let seal = whole?.seal.ok_or_else(|| reader::unsealed(file).hint("go on with it by export --resume"))?;
    tell(session, file, &seal)?;
    Ok(Exit::Ok)
}

/// Says what is in a file.
fn tell(session: &Session, file: &Path, seal: &Seal) -> Result<(), Failed> {
    match session.show.form() {
        Form::Json => session.show.json(
            &json!({ "file": file.to_string_lossy(), "keys": seal.keys, "blake3": seal.blake3, "bytes": reader::length(file)? }),
        ),
        _ => {
            talk!("{}: {} keys, BLAKE3 {}", file.display(), seal.keys, seal.blake3);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_many_owners_were_heard_is_told_alike_by_a_header_and_a_line() {
        let heard = Some(Heard { answered: 1, wanted: 2 });
        assert_eq!(Heard::of_header("wanted=2, answered=1"), heard);
        assert_eq!(Heard::of_line(&json!({ "error": "x", "replicas": { "wanted": 2, "answered": 1 } })), heard);
        assert_eq!((Heard::of_header("wanted=2"), Heard::of_line(&json!({ "end": true }))), (None, None));
    }
}
