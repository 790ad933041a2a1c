//! kringlectl, run as a person or a script would: the words, what it said, and how it ended.

use super::support::node::Node;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// kringlectl with these words, on these nodes, with nothing of this process's environment that speaks to it.
pub fn command(nodes: &[&Node], words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kringlectl"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KRINGLE_")) {
        command.env_remove(name);
    }
    // Of a machine that is busy.
    command.args(["--timeout", "60"]);
    for node in nodes {
        command.args(["--endpoint", &url(node)]);
    }
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn url(node: &Node) -> String {
    format!("http://{}", node.address())
}

/// How a command ended.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Done {
    fn of(output: Output) -> Done {
        let Output { status, stdout, stderr } = output;
        Done { code: status.code(), stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }
    }

    /// It exited with this code.
    #[track_caller]
    pub fn with(self, code: i32) -> Done {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.text(), self.stderr);
        self
    }

    /// It was refused, with this in the one line that says why, and with a hint.
    #[track_caller]
    pub fn refused(self, code: i32, why: &str) {
        let done = self.with(code);
        let last: Vec<&str> = done.stderr.lines().rev().take(2).collect();
        assert!(
            matches!(last[..], [hint, error] if hint.starts_with("hint: ") && error.starts_with("kringlectl: ")
                && error.contains(why)),
            "{why:?} is not said: {}",
            done.stderr
        );
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }
}

/// Runs it to its end.
#[track_caller]
pub fn run(nodes: &[&Node], words: &[&str]) -> Done {
    Done::of(command(nodes, words).output().expect("kringlectl runs"))
}

/// The same with something to read.
#[track_caller]
pub fn run_with(nodes: &[&Node], words: &[&str], input: &[u8]) -> Done {
    let mut child = command(nodes, words).stdin(Stdio::piped()).spawn().expect("kringlectl runs");
    let mut stdin = child.stdin.take().expect("its input");
    let input = input.to_vec();
    let writing = std::thread::spawn(move || {
        // It may have seen enough.
        let _ = stdin.write_all(&input);
    });
    let done = Done::of(child.wait_with_output().expect("kringlectl ends"));
    writing.join().expect("its input is written");
    done
}

/// Runs it until `is_time`, and kills it then; whether that was before its end.
#[track_caller]
pub fn killed_when(nodes: &[&Node], words: &[&str], mut is_time: impl FnMut() -> bool) -> bool {
    let mut command = command(nodes, words);
    let mut child = Killed(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("kringlectl runs"));
    loop {
        if child.0.try_wait().expect("its state").is_some() {
            return false;
        }
        if is_time() {
            child.0.kill().expect("a signal to kringlectl");
            // The signal may have come too late.
            return child.0.wait().expect("its end").code().is_none();
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A path as a word.
pub fn word(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}
