//! A demo as a child of the test, talked to through its standard streams, and ended with the test.

use super::SOON;
use crate::support::eventually;
use crate::support::node::{program, reserve_port};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What a blank `get` is answered, and nothing else: it marks the end of an answer.
const MARK: &str = "Usage: get ";

/// A demo that runs. Killed when dropped, and its nodes with it.
pub struct Demo {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    /// Bytes of the output that were looked at.
    read: usize,
    /// What is temporary to it: gone with it, even where it is killed.
    _temporary: TempDir,
}

/// A demo that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Whether there is a node of a demo with this process id, one that has not ended.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    // One that nobody has waited for has no command line any more.
    !stat.is_empty() && !stat.contains(") Z ") && String::from_utf8_lossy(&command).contains("demo-node")
}

/// A port with room for a demo's nodes above it, out of the way of others that start meanwhile.
fn reserve_ports() -> u16 {
    let first = reserve_port();
    for _ in 0..8 {
        reserve_port();
    }
    first
}

/// A demo with these words, on ports of its own unless they name one.
fn command(words: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.arg("demo");
    if !words.contains(&"--base-port") {
        command.args(["--base-port", &reserve_ports().to_string()]);
    }
    // What the test run was told is not meant for it.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KRINGLE_")) {
        command.env_remove(name);
    }
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a demo with these lines as its input to its end.
#[track_caller]
pub fn run(words: &[&str], input: &str) -> Ended {
    let mut demo = Demo::attached_to(command(words));
    let stdin = demo.stdin.as_mut().expect("its input");
    // It may end before it has read all of it.
    let _ = stdin.write_all(input.as_bytes());
    demo.end_of_input();
    let (code, stdout) = demo.await_end();
    let stderr = demo.stderr.lock().unwrap().clone();
    Ended { code, stdout, stderr }
}

impl Demo {
    /// One whose nodes are ready.
    #[track_caller]
    pub fn start(words: &[&str]) -> Demo {
        let mut demo = Demo::begin(words);
        demo.ask("");
        demo
    }

    /// One that begins to start its nodes.
    #[track_caller]
    pub fn begin(words: &[&str]) -> Demo {
        Demo::attached_to(command(words))
    }

    /// The program started so, with its streams.
    #[track_caller]
    pub fn attached_to(mut command: Command) -> Demo {
        let temporary = tempfile::tempdir().expect("a folder");
        command.env("TMPDIR", temporary.path());
        let mut child = command.spawn().expect("the demo starts");
        let stdin = child.stdin.take();
        let stdout = collected(child.stdout.take());
        let stderr = collected(child.stderr.take());
        Demo { child, stdin, stdout, stderr, read: 0, _temporary: temporary }
    }

    /// All it has said so far.
    pub fn said(&self) -> String {
        self.stdout.lock().unwrap().clone()
    }

    /// What it has said on standard error.
    pub fn talk(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Types a line.
    #[track_caller]
    pub fn send(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("the input is open");
        stdin.write_all(format!("{line}\n").as_bytes()).expect("the demo reads");
    }

    /// Types a line: the lines of the answer.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> Vec<String> {
        self.send(line);
        self.send("get");
        let from = self.read;
        let answer = eventually(&format!("{line:?} is answered"), SOON, || {
            let said = self.said();
            match said[from..].find(MARK) {
                Some(at) if said[from + at..].contains('\n') => Ok(said[from..].to_owned()),
                _ => Err(format!("{said}\n{}", self.talk())),
            }
        });
        let at = answer.find(MARK).expect("the mark");
        self.read = from + at + answer[at..].find('\n').expect("its end") + 1;
        answer[..at].lines().map(str::to_owned).collect()
    }

    /// Waits until it has said this: all it has said.
    #[track_caller]
    pub fn await_said(&self, text: &str) -> String {
        eventually(&format!("it says {text:?}"), SOON, || {
            let said = self.said();
            if said.contains(text) { Ok(said) } else { Err(format!("{said}\n{}", self.talk())) }
        })
    }

    /// Closes its input.
    pub fn end_of_input(&mut self) {
        self.stdin = None;
    }

    pub fn signal(&mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a signal to the demo");
    }

    /// Waits for its end: the exit code, and all it has said.
    #[track_caller]
    pub fn await_end(&mut self) -> (Option<i32>, String) {
        let status = eventually("the demo ends", 2 * SOON, || {
            let status = self.child.try_wait().map_err(|error| error.to_string())?;
            status.ok_or_else(|| format!("{}\n{}", self.said(), self.talk()))
        });
        // Its streams are at their end once its nodes are gone as well, which log elsewhere.
        eventually("its output is read", SOON, || {
            let is_read = Arc::strong_count(&self.stdout) == 1;
            if is_read { Ok(()) } else { Err(self.said()) }
        });
        (status.code(), self.said())
    }

    pub fn ports(&self) -> Vec<u16> {
        ports_in(&self.said())
    }

    /// The process ids of the nodes it has introduced.
    pub fn pids(&self) -> Vec<u32> {
        let said = self.said();
        let of_line = |line: &str| line.split("  pid ").nth(1)?.split(' ').next()?.parse().ok();
        said.lines().filter_map(of_line).collect()
    }
}

impl Ended {
    pub fn ports(&self) -> Vec<u16> {
        ports_in(&self.stdout)
    }

    /// The lines that introduce the nodes, and those behind them.
    #[track_caller]
    pub fn answers(&self) -> (Vec<String>, Vec<String>) {
        let lines: Vec<String> = self.stdout.lines().map(str::to_owned).collect();
        // The log stands in a line of its own where its path is long.
        let is_node =
            |line: &String| line.starts_with("  node ") && line.contains("  pid ") || line.starts_with("    log ");
        let behind = 1 + lines.iter().rposition(is_node).unwrap_or_else(|| panic!("no nodes: {self:?}"));
        (lines[..behind].to_vec(), lines[behind..].to_vec())
    }
}

/// The ports of the nodes that were introduced.
fn ports_in(said: &str) -> Vec<u16> {
    let of_line =
        |line: &str| line.strip_prefix("  node ")?.split("http://127.0.0.1:").nth(1)?.split(' ').next()?.parse().ok();
    said.lines().filter_map(of_line).collect()
}

/// What comes out of a stream, as it comes, by a thread that lets go of it at its end.
fn collected(stream: Option<impl Read + Send + 'static>) -> Arc<Mutex<String>> {
    let said = Arc::new(Mutex::new(String::new()));
    if let Some(mut stream) = stream {
        let said = said.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut piece) {
                said.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..length]));
            }
        });
    }
    said
}

/// A demo whose output nobody reads. Killed when dropped, and its nodes with it.
pub struct Unread {
    child: Child,
    _temporary: TempDir,
}

impl Unread {
    #[track_caller]
    pub fn start(words: &[&str]) -> Unread {
        let temporary = tempfile::tempdir().expect("a folder");
        let mut command = command(words);
        command.env("TMPDIR", temporary.path()).stderr(Stdio::null());
        Unread { child: command.spawn().expect("the demo starts"), _temporary: temporary }
    }

    /// Types until no more of the answers goes into the pipe, of 64 KiB.
    #[track_caller]
    pub fn fill(&mut self) {
        let input = "help\n".repeat(500);
        self.child.stdin.as_mut().expect("its input").write_all(input.as_bytes()).expect("the demo reads");
        let output = self.child.stdout.as_ref().expect("its output");
        let (mut last, mut same) = (0, 0);
        eventually("the pipe is full", SOON, || {
            let unread = rustix::io::ioctl_fionread(output).map_err(|error| error.to_string())?;
            same = if unread == last { same + 1 } else { 0 };
            last = unread;
            if unread > 32_000 && same >= 20 { Ok(()) } else { Err(format!("{unread} bytes in it")) }
        });
    }

    pub fn signal(&self, signal: Signal) {
        // One that has ended hears nothing.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    pub fn ended(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // So that it takes its folder away.
        self.stdin = None;
        let deadline = Instant::now() + Duration::from_secs(10);
        // Once: a second one would end it at once.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
