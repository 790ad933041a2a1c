//! `shell`: the same verbs, a line each, with history and completion on a terminal, and from a pipe.
//!
//! Lines are read on a thread of their own: the editor waits for keys, and asks the cluster itself for what Tab offers.

mod complete;
mod words;

use crate::arguments::{Arguments, Options, Verb};
use crate::context::folder;
use crate::exit::{Exit, Failed};
use crate::session::Session;
use crate::show::Show;
use complete::{Endpoints, Offers};
use kringle::remote::Remote;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};
use std::ffi::OsString;
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::sync::PoisonError;
use std::sync::mpsc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Lines kept in the history.
const HISTORY_MAX: usize = 10_000;

/// All these verbs, a line each
///
/// On a terminal with history (kringle/history below $XDG_STATE_HOME or ~/.local/state), and Tab for verbs, options, keys
/// and nodes. Where a node dies, the next command goes to another: the shell learns who is there. From a pipe it goes on
/// behind a failure, and exits with the code of the first.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl shell
  kringlectl -e node1 shell
  printf 'put a 1\\nincr a\\nget a\\n' | kringlectl shell

Inside: exit or end of input ends it, help lists the verbs, help VERB explains one, # begins a
remark; words in quotes are one word. Ctrl-C ends what runs.")]
pub struct Shell {
    /// Reads and writes no history
    #[arg(long)]
    no_history: bool,
}

/// What the reader has read.
enum Read {
    Line(String),
    /// Ctrl-C at the prompt: the line is thrown away.
    Interrupted,
    End,
    Broken(String),
}

/// Reads a line each time it is handed a prompt.
struct Reader {
    prompts: mpsc::Sender<String>,
    lines: UnboundedReceiver<Read>,
    is_interactive: bool,
}

impl Shell {
    /// Reads lines, and does what they say.
    pub async fn run(&self, mut session: Session, options: Options) -> Result<Exit, Failed> {
        session.acquaint().await;
        let endpoints = Endpoints::default();
        let mut reader = self.reader(endpoints.clone());
        let mut first_failure = Exit::Ok;
        // From a pipe Ctrl-C ends the process as ever, until a bench has asked for the signal: from then on it does not.
        let mut interrupts = None;
        loop {
            share(&session.remote, &endpoints);
            let current = session.remote.current().clone();
            let prompt = format!("kringle {}> ", super::members::short(current.url()));
            let read = match reader.is_interactive {
                // The editor takes Ctrl-C for a key.
                true => reader.read(prompt).await,
                false => tokio::select! {
                    read = reader.read(prompt) => read,
                    () = pressed(&mut interrupts) => return Ok(Exit::Interrupted),
                },
            };
            let line = match read {
                Read::Line(line) => line,
                Read::Interrupted => continue,
                Read::End => return Ok(first_failure),
                Read::Broken(why) => return Err(Failed::new(Exit::Unexpected, why)),
            };
            let exit = match words_of(&line) {
                Ok(words) => match words.first().map(|word| word.to_string_lossy()).as_deref() {
                    None => continue,
                    Some("exit" | "quit") => return Ok(first_failure),
                    Some(_) => {
                        if reader.is_interactive {
                            interrupts = Some(signal(SignalKind::interrupt())?);
                        }
                        let exit = self.line(words, &mut session, &options, &mut interrupts).await?;
                        match exit {
                            Exit::Interrupted if !reader.is_interactive => return Ok(exit),
                            exit => exit,
                        }
                    }
                },
                Err(failed) => {
                    failed.tell();
                    failed.exit
                }
            };
            if first_failure == Exit::Ok && !reader.is_interactive {
                first_failure = exit;
            }
            if *session.remote.current() != current {
                talk!("note: {current} does not answer; going on with {}", session.remote.current());
            }
        }
    }

    /// Does one line. Fails only where nobody reads what is said any more.
    async fn line(
        &self,
        words: Vec<OsString>,
        session: &mut Session,
        outer: &Options,
        interrupts: &mut Option<Signal>,
    ) -> Result<Exit, Failed> {
        let (arguments, is_elsewhere) = match Arguments::read_inside(words, outer) {
            Ok(read) => read,
            Err(said) => {
                said.print()?;
                return Ok(if said.use_stderr() { Exit::Usage } else { Exit::Ok });
            }
        };
        let done = async {
            if is_elsewhere {
                let mut elsewhere = Session::open(&arguments.options).await?;
                return super::dispatch(&arguments.verb, &mut elsewhere).await;
            }
            session.show = Show::new(arguments.options.output);
            if session.timeout != arguments.options.timeout {
                session.timeout = arguments.options.timeout;
                session.remote = session.remote.within(session.timeout);
            }
            super::dispatch(&arguments.verb, session).await
        };
        let done = match arguments.verb {
            // It ends by itself, and tells what it has measured.
            Verb::Bench(_) => {
                let done = Box::pin(done).await;
                // What was pressed meanwhile was meant for it.
                *interrupts = Some(signal(SignalKind::interrupt())?);
                done
            }
            _ => tokio::select! {
                done = Box::pin(done) => done,
                () = pressed(interrupts) => {
                    talk!("");
                    return Ok(Exit::Interrupted);
                }
            },
        };
        match done {
            Ok(exit) => Ok(exit),
            Err(failed) if failed.exit == Exit::Ok => Err(failed),
            Err(failed) => {
                failed.tell();
                // What hangs would hang again.
                if failed.exit == Exit::TimedOut {
                    session.remote.turn_from(session.remote.current().url());
                }
                Ok(failed.exit)
            }
        }
    }

    fn reader(&self, endpoints: Endpoints) -> Reader {
        let is_interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let (prompts, asked) = mpsc::channel();
        let (read, lines) = unbounded_channel();
        let history = (!self.no_history).then(history_path).flatten();
        // It ends with the process: a read cannot be called off.
        std::thread::spawn(move || match is_interactive {
            true => edit(&asked, &read, endpoints, history),
            false => take(&asked, &read),
        });
        Reader { prompts, lines, is_interactive }
    }
}

impl Reader {
    async fn read(&mut self, prompt: String) -> Read {
        if self.prompts.send(prompt).is_err() {
            return Read::End;
        }
        self.lines.recv().await.unwrap_or(Read::End)
    }
}

/// Returns once Ctrl-C was pressed; never where it ends the process.
async fn pressed(interrupts: &mut Option<Signal>) {
    match interrupts {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Tells the editor where to ask, the node that answered last first.
fn share(remote: &Remote, endpoints: &Endpoints) {
    let all = remote.endpoints();
    let at = all.iter().position(|endpoint| endpoint == remote.current()).unwrap_or_default();
    let mut known = all.to_vec();
    known.rotate_left(at);
    *endpoints.lock().unwrap_or_else(PoisonError::into_inner) = known;
}

fn words_of(line: &str) -> Result<Vec<OsString>, Failed> {
    match words::split(line) {
        (_, Some(words::Open('\\'))) => Err(Failed::usage("nothing stands behind the backslash")),
        (_, Some(words::Open(sign))) => Err(Failed::usage(format!("a {sign} is opened and not closed"))),
        (words, None) => Ok(words.into_iter().map(|word| word.text.into()).collect()),
    }
}

fn history_path() -> Option<PathBuf> {
    let folder = folder("XDG_STATE_HOME", ".local/state")?;
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}

/// Reads lines from a terminal.
fn edit(asked: &mpsc::Receiver<String>, read: &UnboundedSender<Read>, endpoints: Endpoints, history: Option<PathBuf>) {
    let config = Config::builder().max_history_size(HISTORY_MAX).and_then(|config| config.history_ignore_dups(true));
    let editor = config.and_then(|config| {
        Editor::<Offers, FileHistory>::with_history(
            config.auto_add_history(true).history_ignore_space(true).completion_type(CompletionType::List).build(),
            FileHistory::with_config(&Config::builder().max_history_size(HISTORY_MAX)?.build()),
        )
    });
    let mut editor = match editor {
        Ok(editor) => editor,
        Err(error) => return drop(read.send(Read::Broken(error.to_string()))),
    };
    editor.set_helper(Some(Offers::of(endpoints)));
    if let Some(path) = &history {
        // There is none at first.
        let _ = editor.load_history(path);
    }
    for prompt in asked {
        let line = match editor.readline(&prompt) {
            Ok(line) => Read::Line(line),
            Err(ReadlineError::Interrupted) => Read::Interrupted,
            Err(ReadlineError::Eof) => Read::End,
            Err(error) => Read::Broken(error.to_string()),
        };
        // Line by line, so that a shell that is killed has forgotten nothing.
        if let (Read::Line(_), Some(path)) = (&line, &history) {
            let _ = editor.append_history(path);
        }
        if read.send(line).is_err() {
            return;
        }
    }
}

/// Reads lines from a pipe or a file.
fn take(asked: &mpsc::Receiver<String>, read: &UnboundedSender<Read>) {
    for _ in asked {
        let mut line = String::new();
        let read_line = match std::io::stdin().lock().read_line(&mut line) {
            Ok(0) => Read::End,
            Ok(_) => Read::Line(line),
            Err(error) => Read::Broken(error.to_string()),
        };
        if read.send(read_line).is_err() {
            return;
        }
    }
}
