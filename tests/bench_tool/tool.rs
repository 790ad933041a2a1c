//! `kringlectl bench` as a process: started, stopped, and what it said.

use crate::support::eventually;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Longer than any of these runs on a busy machine.
const SOON: Duration = Duration::from_secs(120);

/// What it said in the end.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// One that runs; killed when dropped.
pub struct Tool {
    child: Child,
    home: TempDir,
}

impl Tool {
    /// Starts `kringlectl bench` with these words.
    pub fn start(words: &[&str]) -> Tool {
        let home = TempDir::new().expect("a folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_kringlectl"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KRINGLE_")) {
            command.env_remove(name);
        }
        command.arg("bench").args(words).current_dir(home.path()).env("HOME", home.path()).stdin(Stdio::null());
        let file = |name: &str| File::create(home.path().join(name)).expect("a file for what is said");
        command.stdout(file("stdout")).stderr(file("stderr"));
        Tool { child: command.spawn().expect("kringlectl starts"), home }
    }

    /// Waits until so many lines are on standard error: one for each second.
    pub fn await_lines(&mut self, count: usize) {
        eventually("the bench tells of its seconds", SOON, || {
            let said = self.said("stderr");
            assert!(self.child.try_wait().expect("its state").is_none(), "it ended: {said}");
            (said.lines().count() >= count).then_some(()).ok_or(said)
        });
    }

    /// Presses Ctrl-C.
    pub fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("a signal");
    }

    /// Waits for its end.
    pub fn end(mut self) -> Said {
        let status = eventually("the bench ends", SOON, || {
            let status = self.child.try_wait().map_err(|error| error.to_string())?;
            status.ok_or_else(|| format!("still running; {}", self.said("stderr")))
        });
        Said { code: status.code(), stdout: self.said("stdout"), stderr: self.said("stderr") }
    }

    fn said(&self, name: &str) -> String {
        let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        read(&self.home.path().join(name))
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs it to its end.
pub fn bench(words: &[&str]) -> Said {
    Tool::start(words).end()
}

impl Said {
    /// It ended so, and standard output is one JSON value.
    #[track_caller]
    pub fn json(&self, code: i32) -> Value {
        assert_eq!(self.code, Some(code), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    /// It ended so, and with one line and a hint at most on standard error.
    #[track_caller]
    pub fn refusal(&self, code: i32) -> &str {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{self:?}");
        &self.stderr
    }
}
