//! `import`: the lines of an export become keys again.
//!
//! ```text
//!  file ── handfuls of lines ──►  several batches under way  ──►  how far it is, beside the file
//!          (read as they go)      (done in any order)             (all lines up to there are done)
//! ```

use super::sending::{Sent, Terms, Wanted, send};
use super::{about, progress, reader};
use crate::arguments::Form;
use crate::exit::{Exit, Failed};
use crate::session::Session;
use indicatif::ProgressBar;
use kringle::remote::Remote;
use reader::Reader;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tokio::task::JoinSet;

/// Keys in a handful, and bytes of their lines, about.
const KEYS_AT_A_TIME: usize = 500;
const BYTES_AT_A_TIME: usize = 4 << 20;
/// Bytes by which a file without a seal is known.
const BEGINNING_BYTES: u64 = 1 << 20;
/// Lines of which it is said why they were not written.
const FAILED_TOLD_MAX: usize = 20;

/// Writes the keys of an export into the cluster
///
/// A file with a seal is read to its end first: one that was cut off or changed is refused before anything is written. Keys
/// go in batches, several at a time; what was written is beside the file, and --resume goes on there. Writing a key again
/// comes to the same, so an import may be repeated. Each key gets just the values of its line: what it held before is
/// replaced, several values stand side by side again. What an export does not have is not restored: versions, contexts, and
/// the parts of a counter. Values get the rest of their time to live; those that have expired are left out.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl import users.ndjson.zst
  kringlectl import --verify all.ndjson
  kringlectl import --resume all.ndjson
  printf '{\"key\":\"a\",\"value\":\"1\"}\\n' | kringlectl import --unsealed -")]
pub struct Import {
    /// The file, compressed or not; - for standard input
    file: PathBuf,
    /// Go on where an import of this file was cut off
    #[arg(long, conflicts_with = "from_line")]
    resume: bool,
    /// Leave out the lines before this one, counted from 1
    #[arg(long, value_name = "N", default_value_t = 1)]
    from_line: u64,
    /// Take a file without a seal: one that was cut off, or made by hand
    #[arg(long)]
    unsealed: bool,
    /// Read back each key that was written
    #[arg(long)]
    verify: bool,
    /// The mode of the writes, such as quorum
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
    /// Batches under way at a time
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
}

/// How far an import is, in a file beside the one that is read.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
struct State {
    /// The sum in the file's seal; where that was not asked for, its length and the sum of how it begins.
    blake3: String,
    /// All lines up to this one are done.
    lines: u64,
    written: u64,
    expired: u64,
    short: u64,
    failed: u64,
}

impl State {
    fn path(file: &Path) -> PathBuf {
        let mut name = file.as_os_str().to_owned();
        name.push(".import");
        name.into()
    }

    /// What was noted of this file; nothing, where nothing was, or of another.
    fn read(file: &Path, blake3: &str) -> Result<Option<State>, Failed> {
        let path = State::path(file);
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(about(&path)(error)),
            Ok(bytes) => match serde_json::from_slice::<State>(&bytes) {
                Ok(state) if state.blake3 == blake3 => Ok(Some(state)),
                _ => Err(Failed::usage(format!("{} is not of this file", path.display()))
                    .hint("remove it, and import without --resume")),
            },
        }
    }

    /// Whole or not at all.
    fn keep(&self, file: &Path) -> Result<(), Failed> {
        let path = State::path(file);
        let fresh = path.with_extension("import.new");
        let text = serde_json::to_vec(self).map_err(|error| Failed::new(Exit::Unexpected, error))?;
        std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &path)).map_err(about(&path))
    }

    fn add(&mut self, sent: &Sent) {
        self.written += sent.written;
        self.expired += sent.expired;
        self.short += sent.short;
        self.failed += sent.failed.len() as u64;
    }
}

impl Import {
    /// Does it.
    pub async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        let file = (self.file != Path::new("-")).then_some(self.file.as_path());
        if file.is_none() && self.resume {
            return Err(Failed::usage("--resume needs a file"));
        }
        let (blake3, keys) = match file {
            None => (String::new(), None),
            Some(file) => self.check(file)?,
        };
        let (mut state, mut from_line) = (State { blake3: blake3.clone(), ..State::default() }, self.from_line);
        if let Some(file) = file.filter(|_| self.resume) {
            match State::read(file, &blake3)? {
                Some(before) => {
                    talk!("lines 1 to {} are done, going on", before.lines);
                    from_line = before.lines + 1;
                    state = before;
                }
                None => talk!("nothing of it was done yet"),
            }
        }
        let input = match file {
            None => Reader::stdin()?,
            Some(file) => Reader::open(file)?,
        };
        let remote = Rc::new(Remote::new(session.remote.endpoints().to_vec(), session.timeout));
        let terms = Terms { mode: self.mode.clone(), verify: self.verify };
        let mut course = Course {
            file,
            remote,
            terms,
            jobs: self.jobs.into(),
            unsealed: self.unsealed,
            state,
            done: BTreeMap::new(),
            under_way: JoinSet::new(),
            told: 0,
            bar: keys.map_or_else(|| progress::of_keys("importing"), |keys| progress::towards("importing", keys)),
        };
        let whole = course.run(input, from_line).await;
        course.bar.finish_and_clear();
        let whole = whole.map_err(|failed| match (file, &failed.hint) {
            (Some(_), _) => failed.hint("what is done is noted: go on with --resume"),
            (None, Some(_)) => failed,
            (None, None) => failed.hint("to send it again comes to the same"),
        })?;
        if whole.seal.is_none() && !self.unsealed {
            return Err(Failed::usage("the input had no seal: it was cut off; what there was has been written")
                .hint("get the whole file, or say --unsealed"));
        }
        if let Some(file) = file {
            let _ = std::fs::remove_file(State::path(file));
        }
        self.tell(session, &course.state)
    }

    /// Whether the file is whole, before anything is written; its sum, and how many keys it has.
    fn check(&self, file: &Path) -> Result<(String, Option<u64>), Failed> {
        if self.unsealed {
            // Lines that make no sense are told as they come.
            return Ok((sum_of_beginning(file)?, None));
        }
        let bar = progress::of_keys("checking");
        let whole = reader::check(file, |_| bar.inc(1));
        bar.finish_and_clear();
        let whole = whole?;
        let seal = whole.seal.ok_or_else(|| {
            reader::unsealed(file).hint("go on with it by export --resume, or take what there is with --unsealed")
        })?;
        Ok((seal.blake3, Some(whole.keys)))
    }

    fn tell(&self, session: &Session, state: &State) -> Result<Exit, Failed> {
        let State { written, expired, short, failed, .. } = state;
        if session.show.form() == Form::Json {
            session.show.json(&json!({ "written": written, "expired": expired, "short": short, "failed": failed }))?;
        }
        let mut text = format!("{written} keys written");
        let mut add = |count: u64, what: &str| {
            if count > 0 {
                text += &format!(", {count} {what}");
            }
        };
        add(*expired, "left out, as they have expired");
        add(*short, "of them on fewer owners than wanted so far");
        add(*failed, "not written");
        talk!("{text}");
        Ok(if *failed > 0 { Exit::Unavailable } else { Exit::Ok })
    }
}

/// By what a file without a seal is known again.
fn sum_of_beginning(file: &Path) -> Result<String, Failed> {
    let mut beginning = Vec::new();
    let input = std::fs::File::open(file).map_err(about(file))?;
    input.take(BEGINNING_BYTES).read_to_end(&mut beginning).map_err(about(file))?;
    Ok(format!("{}:{}", reader::length(file)?, blake3::hash(&beginning).to_hex()))
}

/// An import under way.
struct Course<'a> {
    file: Option<&'a Path>,
    remote: Rc<Remote>,
    terms: Terms,
    jobs: usize,
    /// Whether one that was cut off is good enough.
    unsealed: bool,
    state: State,
    /// What is done behind something that is not: by the first line of each handful, its last, and what became of it.
    done: BTreeMap<u64, (u64, Sent)>,
    /// Each with its first and last line.
    under_way: JoinSet<Result<(u64, u64, Sent), Failed>>,
    told: usize,
    bar: ProgressBar,
}

impl Course<'_> {
    async fn run(&mut self, mut input: Reader, from_line: u64) -> Result<reader::Whole, Failed> {
        // All before it counts as done.
        self.state.lines = from_line - 1;
        let (mut handful, mut bytes, mut first) = (Vec::new(), 0, from_line);
        let (mut last, mut nonsense) = (from_line - 1, Vec::new());
        let ended = loop {
            let (number, entry) = match input.next() {
                Ok(Some(line)) => line,
                Ok(None) => break Ok(()),
                Err(failed) => break Err(failed),
            };
            if number < from_line {
                continue;
            }
            match entry {
                Ok(entry) => {
                    bytes += entry
                        .values()
                        .iter()
                        .map(|value| value.named().map_or(0, |(_, text)| text.len()))
                        .sum::<usize>();
                    handful.push(Wanted { number, entry });
                }
                Err(failed) => nonsense.push((number, failed.error)),
            }
            last = number;
            if handful.len() + nonsense.len() >= KEYS_AT_A_TIME || bytes >= BYTES_AT_A_TIME {
                self.begin(first, last, std::mem::take(&mut handful), std::mem::take(&mut nonsense)).await?;
                (bytes, first) = (0, last + 1);
            }
        };
        // However it ended, what came before is written.
        if !handful.is_empty() || !nonsense.is_empty() {
            self.begin(first, last, handful, nonsense).await?;
        }
        while !self.under_way.is_empty() {
            self.end_one().await?;
        }
        match ended {
            Err(failed) if self.unsealed && input.is_torn() => {
                self.bar.suspend(|| talk!("{}: what there is before is written", failed.error));
                input.finish()
            }
            Err(failed) => Err(failed),
            Ok(()) => input.finish(),
        }
    }

    /// Has some lines written, once there is a place for them.
    async fn begin(
        &mut self,
        first: u64,
        last: u64,
        wanted: Vec<Wanted>,
        nonsense: Vec<(u64, String)>,
    ) -> Result<(), Failed> {
        while self.under_way.len() >= self.jobs {
            self.end_one().await?;
        }
        let (remote, terms) = (self.remote.clone(), self.terms.clone());
        self.under_way.spawn_local(async move {
            let mut sent = send(&remote, &terms, &wanted).await?;
            sent.failed.extend(nonsense);
            Ok((first, last, sent))
        });
        Ok(())
    }

    /// Waits for one, and notes how far it is.
    async fn end_one(&mut self) -> Result<(), Failed> {
        let Some(ended) = self.under_way.join_next().await else { return Ok(()) };
        let (first, last, sent) = ended.map_err(|error| Failed::new(Exit::Unexpected, error))??;
        self.bar.inc(last - first + 1);
        self.tell_failed(&sent);
        self.done.insert(first, (last, sent));
        let before = self.state.lines;
        while let Some(entry) = self.done.first_entry().filter(|entry| *entry.key() == self.state.lines + 1) {
            let (last, sent) = entry.remove();
            self.state.lines = last;
            self.state.add(&sent);
        }
        match self.file {
            Some(file) if self.state.lines > before => self.state.keep(file),
            _ => Ok(()),
        }
    }

    fn tell_failed(&mut self, sent: &Sent) {
        for (number, why) in &sent.failed {
            self.told += 1;
            if self.told <= FAILED_TOLD_MAX {
                self.bar.suspend(|| talk!("line {number}: {why}"));
            }
            if self.told == FAILED_TOLD_MAX + 1 {
                self.bar.suspend(|| talk!("and more lines that are not told here"));
            }
        }
    }
}
