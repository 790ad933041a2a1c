//! One node of the demo: a process of this same binary, with a number, a port, a folder and a log.

use super::tether;
use kringle::config::PeerUrl;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Lines of a log that tell why a node ended.
const LOG_LINES_TOLD: usize = 3;

/// How a node is, as its parent knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Its process runs.
    Running,
    /// It was stopped (SIGSTOP), and keeps its port and its connections.
    Paused,
    /// There is no process.
    Dead,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Running => "running",
            State::Paused => "paused",
            State::Dead => "dead",
        })
    }
}

/// A node that runs, or ran and can run again. Killed when dropped.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) number: u32,
    pub(super) port: u16,
    folder: PathBuf,
    process: Option<Child>,
    is_paused: bool,
}

impl Node {
    /// One that has not been started, in this folder.
    pub(super) fn new(number: u32, port: u16, folder: PathBuf) -> Node {
        Node { number, port, folder, process: None, is_paused: false }
    }

    /// Where it is asked.
    pub(super) fn url(&self) -> PeerUrl {
        PeerUrl::new(kringle::config::Host::V4(std::net::Ipv4Addr::LOCALHOST), self.port)
    }

    /// All that it has printed, over all its starts.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("log.txt")
    }

    /// Its folder: the log is in it, and its data.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts the process, with these flags besides port and folder. It is not ready yet. To be called on the main
    /// thread: see [`tether`].
    pub(super) fn launch(&mut self, flags: &[String]) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(tether::WORD).arg(std::process::id().to_string());
        command.args(["--port", &self.port.to_string()]).args(flags);
        if !flags.iter().any(|flag| flag == "--memory") {
            command.arg("--data").arg(self.folder.join("data"));
        }
        // What the operator's own node is told by variables is not meant for these.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"KRINGLE_")) {
            command.env_remove(name);
        }
        // A group of its own: a Ctrl-C on the terminal is for the demo, which ends its nodes itself.
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.process = Some(command.spawn()?);
        self.is_paused = false;
        Ok(())
    }

    /// How it is now.
    pub(super) fn state(&mut self) -> State {
        match self.process.as_mut().map(Child::try_wait) {
            Some(Ok(None)) if self.is_paused => State::Paused,
            Some(Ok(None)) => State::Running,
            // An error: it is no child of ours any more, so nothing of it can be waited for.
            None | Some(Ok(Some(_)) | Err(_)) => {
                self.process = None;
                State::Dead
            }
        }
    }

    /// Its process, where there is one.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// SIGKILL; the process is gone when this returns. Nothing where there is none.
    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// SIGSTOP.
    pub(super) fn pause(&mut self) {
        self.is_paused = self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub(super) fn resume(&mut self) {
        self.signal(Signal::CONT);
        self.is_paused = false;
    }

    /// SIGTERM, which a paused node hears as well.
    pub(super) fn terminate(&mut self) {
        self.signal(Signal::TERM);
        self.resume();
    }

    fn signal(&self, signal: Signal) -> bool {
        // A child that was not waited for keeps its process id, so this reaches nobody else.
        self.process.as_ref().is_some_and(|process| kill_process(Pid::from_child(process), signal).is_ok())
    }

    /// The last words of its log, in one line; empty where there are none.
    pub(super) fn last_words(&self) -> String {
        let log = std::fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(LOG_LINES_TOLD)..].join(" | ")
    }
}

/// Whether there is no process of this id, not even one that has ended and was not waited for.
pub(super) fn is_gone(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_none_or(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_gone_when_it_was_waited_for_and_not_before() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        assert!(!is_gone(pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_gone(pid) && !is_gone(std::process::id()));
    }
}
