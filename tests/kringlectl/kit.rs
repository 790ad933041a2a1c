//! The program, run with words and input in a home of its own; and at a terminal.

use crate::support::eventually;
use crate::support::node::Node;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;

/// The longest that one command may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(90);

/// The program under test.
pub fn program() -> &'static str {
    env!("CARGO_BIN_EXE_kringlectl")
}

/// A user with a home and a cluster.
pub struct User {
    home: TempDir,
    variables: Vec<(String, String)>,
}

/// What came of a command.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: Vec<u8>,
    pub talk: String,
}

impl User {
    /// Somebody who has named no node.
    pub fn new() -> User {
        User { home: TempDir::new().expect("a home"), variables: vec![] }
    }

    /// Somebody who has these nodes in the environment.
    pub fn of<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> User {
        let urls: Vec<String> = nodes.into_iter().map(url).collect();
        User::new().with("KRINGLE_ENDPOINTS", urls.join(","))
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> User {
        self.variables.push((name.into(), value.into()));
        self
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    fn dress(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KRINGLE_")) {
            command.env_remove(name);
        }
        command.env("HOME", self.home()).env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME");
        command.env("TERM", "xterm").env_remove("NO_COLOR").env_remove("COLUMNS");
        command.envs(self.variables.iter().map(|(name, value)| (name, value))).current_dir(self.home());
    }

    /// Starts it, with all three ends piped.
    pub fn start(&self, words: &[&str]) -> Running {
        let mut command = Command::new(program());
        self.dress(&mut command);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::of(command, &format!("{words:?}"))
    }

    /// Starts it on a terminal of 80 columns.
    pub fn at_a_terminal(&self, words: &[&str]) -> Running {
        let quoted: Vec<String> =
            std::iter::once(program()).chain(words.iter().copied()).map(|word| format!("'{word}'")).collect();
        let line = format!("stty cols 80 rows 24; exec {}", quoted.join(" "));
        let mut command = Command::new("script");
        self.dress(&mut command);
        // The program's exit code is that of script.
        command.args(["-qefc", &line, "/dev/null"]);
        command.env("SHELL", "/bin/sh").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::of(command, &format!("{words:?}"))
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Said {
        self.run_with(words, b"")
    }

    /// The same with this on its standard input.
    #[track_caller]
    pub fn run_with(&self, words: &[&str], input: &[u8]) -> Said {
        let mut running = self.start(words);
        running.close_after(input);
        running.end()
    }

    /// Runs it to its end where nobody reads what it talks.
    #[track_caller]
    pub fn run_unheard(&self, words: &[&str]) -> Said {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(program());
        self.dress(&mut command);
        let ended = command.args(words).stdin(Stdio::null()).stderr(writer).output().expect("it starts");
        Said { code: ended.status.code(), out: ended.stdout, talk: String::new() }
    }

    /// Its JSON, of a command that ends well.
    #[track_caller]
    pub fn json(&self, words: &[&str]) -> Value {
        self.run(&[words, &["-o", "json"]].concat()).ok().json()
    }
}

impl Said {
    #[track_caller]
    pub fn expect(self, code: i32) -> Said {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    #[track_caller]
    pub fn ok(self) -> Said {
        self.expect(0)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }

    #[track_caller]
    pub fn lines(&self) -> Vec<Value> {
        let parsed = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.text().lines().map(parsed).collect()
    }

    /// Why it failed: one line that names the program, and perhaps a hint.
    #[track_caller]
    pub fn why(&self) -> &str {
        let mut lines = self.talk.lines().filter(|line| line.starts_with("kringlectl: "));
        let why = lines.next().unwrap_or_else(|| panic!("no reason in {self}"));
        assert_eq!(lines.next(), None, "{self}");
        why
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {:?}\n{}\n--- {}", self.code, self.text(), self.talk)
    }
}

/// A command that runs. Ended when dropped.
pub struct Running {
    name: String,
    child: Child,
    out: Arc<Mutex<Vec<u8>>>,
    talk: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

fn collect(mut from: impl Read + Send + 'static, into: &Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    let into = into.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            into.lock().expect("a buffer").extend_from_slice(&buffer[..read]);
        }
    })
}

impl Running {
    fn of(mut command: Command, name: &str) -> Running {
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let (out, talk) = (Arc::default(), Arc::default());
        let readers = vec![
            collect(child.stdout.take().expect("a pipe"), &out),
            collect(child.stderr.take().expect("a pipe"), &talk),
        ];
        Running { name: name.into(), child, out, talk, readers }
    }

    /// Writes to its standard input, which stays open.
    pub fn write(&mut self, text: &[u8]) {
        let stdin = self.child.stdin.as_mut().expect("an open input");
        // What ends early reads no more.
        let _ = stdin.write_all(text).and_then(|()| stdin.flush());
    }

    /// Writes, and closes; the writing does not wait for what is read.
    pub fn close_after(&mut self, input: &[u8]) {
        let (mut stdin, input) = (self.child.stdin.take().expect("an open input"), input.to_vec());
        std::thread::spawn(move || {
            let _ = stdin.write_all(&input);
        });
    }

    /// Presses Ctrl-C where it has no terminal.
    pub fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("a signal");
    }

    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.out.lock().expect("a buffer")).into_owned()
    }

    pub fn talk(&self) -> String {
        String::from_utf8_lossy(&self.talk.lock().expect("a buffer")).into_owned()
    }

    /// Waits until its output has this, which is returned up to there and begins behind `from`.
    #[track_caller]
    pub fn await_out(&self, from: usize, wanted: &str) -> String {
        eventually(&format!("{} says {wanted:?}", self.name), LIMIT, || {
            let out = self.out();
            let behind = out.get(from..).unwrap_or_default();
            match behind.find(wanted) {
                Some(at) => Ok(behind[..at + wanted.len()].to_owned()),
                None => Err(format!("{behind:?} --- {}", self.talk())),
            }
        })
    }

    #[track_caller]
    pub fn await_talk(&self, wanted: &str) {
        eventually(&format!("{} says {wanted:?}", self.name), LIMIT, || {
            let talk = self.talk();
            if talk.contains(wanted) { Ok(()) } else { Err(format!("{talk:?} --- {}", self.out())) }
        });
    }

    #[track_caller]
    fn status(&mut self) -> ExitStatus {
        let name = self.name.clone();
        let (out, talk) = (self.out.clone(), self.talk.clone());
        let child = &mut self.child;
        eventually(&format!("{name} ends"), LIMIT, || {
            let status = child.try_wait().map_err(|error| error.to_string())?;
            let text = |of: &Arc<Mutex<Vec<u8>>>| String::from_utf8_lossy(&of.lock().expect("a buffer")).into_owned();
            status.ok_or_else(|| format!("it runs; {} --- {}", text(&out), text(&talk)))
        })
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> Said {
        let status = self.status();
        self.readers.drain(..).for_each(|reader| reader.join().expect("a reader"));
        let out = self.out.lock().expect("a buffer").clone();
        Said { code: status.code(), out, talk: self.talk() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A node's URL.
pub fn url(node: &Node) -> String {
    format!("http://{}", node.address())
}

/// No line is wider than a terminal of 80 columns.
#[track_caller]
pub fn assert_narrow(text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{} columns: {line:?}\nin\n{text}", line.chars().count());
    }
}
