//! One node: a process of the program under test, its folder, its port and its log.

use super::http::{Answer, Client, Request};
use super::{POLL_INTERVAL, eventually};
use kringle::placement::NodeId;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The longest a start may take on a busy machine, replay of a log included.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Lines of a node's log shown when its test fails.
const LOG_LINES_SHOWN: usize = 40;

/// The program under test.
pub fn program() -> PathBuf {
    std::env::var_os("KRINGLE_BIN").map_or_else(|| env!("CARGO_BIN_EXE_kringle").into(), PathBuf::from)
}

/// A port that is free now and that no outgoing connection will be given: below the range the kernel hands
/// out, different for every caller of this process, and rarely the same in two processes.
pub fn reserve_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id().wrapping_mul(613) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + offset) % COUNT;
        if is_free(port) {
            return port;
        }
    }
    panic!("no free port from {FIRST} on");
}

/// Whether nobody listens on this port. Found by connecting, not by listening: a program that any thread starts
/// meanwhile holds every socket of this process from its fork to its exec, and a listener among them would keep the
/// port from who is to have it.
pub fn is_free(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// How to start a node.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    flags: Vec<String>,
    port: Option<u16>,
    data: Option<PathBuf>,
    /// A program and its arguments to start the node under. It must become the node, not its parent, so that
    /// the process id is the node's.
    under: Vec<OsString>,
}

impl Plan {
    /// A node with these flags, on a folder and a port of its own.
    pub fn new(flags: &[&str]) -> Plan {
        Plan { flags: flags.iter().map(|flag| (*flag).to_owned()).collect(), ..Plan::default() }
    }

    /// With this flag, in place of one of the same name.
    pub fn flag(mut self, name: &str, value: impl ToString) -> Plan {
        match self.flags.iter().position(|flag| flag == name) {
            Some(at) => self.flags[at + 1] = value.to_string(),
            None => self.flags.extend([name.to_owned(), value.to_string()]),
        }
        self
    }

    /// On this port; 0 lets the node choose and print one.
    pub fn port(mut self, port: u16) -> Plan {
        self.port = Some(port);
        self
    }

    pub fn data(mut self, folder: &Path) -> Plan {
        self.data = Some(folder.into());
        self
    }

    pub fn under<S: Into<OsString>>(mut self, program: impl IntoIterator<Item = S>) -> Plan {
        self.under = program.into_iter().map(Into::into).collect();
        self
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Node {
        let mut node = self.spawn();
        node.await_ready();
        node
    }

    /// Starts it and does not wait.
    pub fn spawn(self) -> Node {
        let home = Arc::new(TempDir::new().expect("a folder for the node"));
        let port = self.port.unwrap_or_else(reserve_port);
        let memory = self.flags.iter().any(|flag| flag == "--memory");
        let data = self.data.clone().or_else(|| (!memory).then(|| home.path().join("data")));
        let log = home.path().join("log.txt");
        let mut node = Node { plan: self, port, data, log, home, child: None };
        node.launch();
        node
    }
}

/// A node that runs, or ran and can run again on the same folder and port. Ended when dropped.
#[derive(Debug)]
pub struct Node {
    plan: Plan,
    port: u16,
    data: Option<PathBuf>,
    log: PathBuf,
    home: Arc<TempDir>,
    child: Option<Child>,
}

impl Node {
    /// A lone node that keeps nothing, ready.
    #[track_caller]
    pub fn in_memory() -> Node {
        Plan::new(&["--memory"]).start()
    }

    /// A lone node on a folder of its own, ready.
    #[track_caller]
    pub fn on_disk() -> Node {
        Plan::default().start()
    }

    /// It still serves, whatever was done to it.
    #[track_caller]
    pub fn assert_alive(&self) {
        self.put("/kv/still-alive", "yes");
        assert_eq!(self.get("/kv/still-alive").expect(200).text(), "yes");
    }

    fn launch(&mut self) {
        assert!(self.child.is_none(), "the node runs already");
        let mut words = self.plan.under.clone();
        words.push(program().into());
        words.extend(["--port".into(), self.port.to_string().into()]);
        if let Some(data) = &self.data {
            words.extend(["--data".into(), data.into()]);
        }
        words.extend(self.plan.flags.iter().map(OsString::from));
        let log = File::options().create(true).append(true).open(&self.log).expect("the node's log file");
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(self.home.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("the node's log file")).stderr(log);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KRINGLE_")) {
            command.env_remove(name);
        }
        self.child = Some(command.spawn().unwrap_or_else(|error| panic!("cannot start {words:?}: {error}")));
    }

    /// Waits until `/readyz` is 200. A node that exits instead fails the test at once.
    #[track_caller]
    pub fn await_ready(&mut self) {
        match self.ready_or_gone() {
            None => {}
            Some(status) => panic!("the node ended before it was ready: {status}\n{}", self.log()),
        }
    }

    /// Waits until the node is ready, or has ended: then how.
    #[track_caller]
    pub fn ready_or_gone(&mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = self.exited() {
                return Some(status);
            }
            if self.port == 0 {
                self.port = self.printed_port().unwrap_or(0);
            }
            let ready = Request::new("GET", "/readyz");
            let mut client = self.client().within(Duration::from_secs(1));
            if self.port != 0 && client.try_send(&ready).is_ok_and(|answer| answer.status == 200) {
                return None;
            }
            assert!(Instant::now() < deadline, "not ready within {START_LIMIT:?}\n{}", self.log());
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// The port in the first `http://host:port` of the log.
    fn printed_port(&self) -> Option<u16> {
        let log = self.log();
        // A line still being written may end inside the number.
        let line = log.split_inclusive('\n').find(|line| line.ends_with('\n') && line.contains("http://"))?;
        let (_, port) = line.split_once("http://")?.1.split_once(':')?;
        let digits: String = port.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    }

    /// Starts it again on the same folder and port, and waits until it is ready.
    #[track_caller]
    pub fn restart(&mut self) {
        self.launch();
        self.await_ready();
    }

    /// As [`Node::restart`], without waiting.
    pub fn relaunch(&mut self) {
        self.launch();
    }

    /// How the next start is to be done.
    pub fn replan(&mut self, change: impl FnOnce(Plan) -> Plan) {
        self.plan = change(std::mem::take(&mut self.plan));
        if let Some(port @ 1..) = self.plan.port {
            self.port = port;
        }
    }

    /// `kill -9`, and the process is gone when this returns.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().expect("the node's end");
        }
    }

    /// Freezes every thread of the node; the kernel goes on accepting its connections.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks it to stop, as a supervisor would.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Asks it to stop and waits: how it ended. Fails when that takes longer than `limit`.
    #[track_caller]
    pub fn stop(&mut self, limit: Duration) -> ExitStatus {
        self.terminate();
        self.await_exit(limit)
    }

    #[track_caller]
    pub fn await_exit(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            match self.exited() {
                Some(status) => return status,
                None if Instant::now() >= deadline => panic!("still running after {limit:?}\n{}", self.log()),
                None => std::thread::sleep(POLL_INTERVAL),
            }
        }
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().expect("the node's state")?;
        self.child = None;
        Some(status)
    }

    /// Its id, as it tells it.
    pub fn id(&self) -> NodeId {
        let status = self.get("/status").json();
        status["node"]["id"].as_str().and_then(|id| id.parse().ok()).expect("an id")
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the node runs");
        kill_process(Pid::from_child(child), signal).expect("a signal to the node");
    }

    /// Of its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`
    pub fn address(&self) -> String {
        let flags = &self.plan.flags;
        let host = flags.iter().position(|flag| flag == "--host").map_or("127.0.0.1", |at| flags[at + 1].as_str());
        format!("{host}:{}", self.port)
    }

    /// A new connection to it, made with its first request.
    pub fn client(&self) -> Client {
        Client::new(&self.address())
    }

    /// One GET on a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str) -> Answer {
        self.client().get(target)
    }

    /// One PUT on a connection of its own.
    #[track_caller]
    pub fn put(&self, target: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.client().put(target, body)
    }

    /// The data folder; panics with `--memory`.
    pub fn data(&self) -> &Path {
        self.data.as_deref().expect("a node on disk")
    }

    /// Everything it has printed, over all its starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let line = self.process_status("VmRSS").expect("the node's memory");
        line.trim_end_matches(" kB").trim().parse::<u64>().expect("kilobytes") * 1024
    }

    /// What the kernel says of the node's process under this name, if it knows of it.
    pub fn process_status(&self, name: &str) -> Option<String> {
        let id = self.child.as_ref().expect("the node runs").id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("the node's status");
        let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.map(|text| text.trim().to_owned())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n  ");
            eprintln!("--- the log of the node on port {}:\n  {shown}", self.port);
        }
    }
}

/// How a start that is meant to fail ended.
#[derive(Debug)]
pub struct Refused {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Refused {
    /// It exited with `code` and told why in a single line on stderr, which is returned.
    #[track_caller]
    pub fn with_one_line(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "expected exit {code}, got {self:?}");
        assert_eq!(self.stdout.trim(), "", "a refusal belongs on stderr: {self:?}");
        let lines: Vec<&str> = self.stderr.lines().collect();
        assert!(lines.len() == 1 && !lines[0].trim().is_empty(), "expected one line, got {self:?}");
        lines[0].to_owned()
    }
}

/// Runs the program with exactly these words, in `folder`, and waits for its end.
#[track_caller]
pub fn refused(folder: &Path, words: &[&str], environment: &[(&str, &str)]) -> Refused {
    let mut command = Command::new(program());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KRINGLE_")) {
        command.env_remove(name);
    }
    command.args(words).envs(environment.iter().copied()).current_dir(folder);
    let (out, err) = (folder.join("stdout.txt"), folder.join("stderr.txt"));
    command.stdin(Stdio::null());
    command.stdout(File::create(&out).expect("a file for stdout"));
    command.stderr(File::create(&err).expect("a file for stderr"));
    let mut child = Ended(command.spawn().expect("the program starts"));
    let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let status = eventually(&format!("{words:?} ends"), Duration::from_secs(10), || {
        let status = child.0.try_wait().map_err(|error| error.to_string())?;
        status.ok_or_else(|| format!("still running; {}{}", read(&out), read(&err)))
    });
    Refused { code: status.code(), stdout: read(&out), stderr: read(&err) }
}

/// A process that ends with its owner.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
