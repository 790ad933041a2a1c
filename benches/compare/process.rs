//! Programs we start, and the few bytes of HTTP needed to look after them. Nothing is ended that was not started here.

use crate::{Outcome, machine};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take to start serving.
const START_MAX: Duration = Duration::from_secs(60);
/// How long a program may take to end when asked to.
const END_MAX: Duration = Duration::from_secs(60);

/// A running program, killed when dropped.
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts a program that says nothing we need to hear.
    pub fn start(name: &str, command: &mut Command) -> Outcome<Process> {
        Process::spawn(name, command, Stdio::null()).map(|(process, _)| process)
    }

    /// Starts a program that prints the URL it listens on; returns it once it is printed.
    pub fn start_and_hear_url(name: &str, command: &mut Command) -> Outcome<(Process, String)> {
        let (process, output) = Process::spawn(name, command, Stdio::piped())?;
        let mut lines = BufReader::new(output.expect("asked for a pipe")).lines();
        let url = loop {
            match lines.next() {
                Some(Ok(line)) => {
                    if let Some(at) = line.find("http://") {
                        break line[at..].split_whitespace().next().unwrap_or_default().to_string();
                    }
                }
                _ => return Err(format!("{name} ended before it served")),
            }
        };
        // Read on, or the program blocks when it prints more.
        std::thread::spawn(move || lines.for_each(drop));
        Ok((process, url))
    }

    fn spawn(name: &str, command: &mut Command, output: Stdio) -> Outcome<(Process, Option<ChildStdout>)> {
        let stderr = if std::env::var_os("BENCH_VERBOSE").is_some() { Stdio::inherit() } else { Stdio::null() };
        let spawned = command.stdin(Stdio::null()).stdout(output).stderr(stderr).spawn();
        let mut child = spawned.map_err(|error| format!("cannot start {name}: {error}"))?;
        let output = child.stdout.take();
        Ok((Process { child, name: name.to_string() }, output))
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(mut self) -> Outcome<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).map_err(|error| error.to_string())?;
        let begun = Instant::now();
        while begun.elapsed() < END_MAX {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(format!("{} did not end", self.name))
    }

    /// Ends it on the spot, as a crash would.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs a program to its end, and returns what it printed. One that takes longer than `time_max` is killed.
pub fn run(command: &mut Command, time_max: Duration) -> Outcome<String> {
    let name = format!("{:?}", command.get_program());
    let (mut process, output) = Process::spawn(&name, command, Stdio::piped())?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = output.expect("asked for a pipe").read_to_string(&mut text);
        text
    });
    let begun = Instant::now();
    let status = loop {
        match process.child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if begun.elapsed() > time_max => return Err(format!("{name} took longer than {time_max:?}")),
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err(format!("{name}: {error}")),
        }
    };
    let text = reader.join().unwrap_or_default();
    if status.success() { Ok(text) } else { Err(format!("{name} failed, {status}: {text}")) }
}

/// Ports that were free a moment ago, all different.
pub fn free_ports<const N: usize>() -> Outcome<[u16; N]> {
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(|error| error.to_string())?;
        *port = listener.local_addr().map_err(|error| error.to_string())?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// One request on a connection of its own: status and body.
pub fn ask(url: &str, method: &str, path: &str, body: &str) -> Outcome<(u16, String)> {
    ask_within(url, method, path, body, Duration::from_secs(30))
}

/// The same for one that may take longer, or must not.
pub fn ask_within(url: &str, method: &str, path: &str, body: &str, time_max: Duration) -> Outcome<(u16, String)> {
    let host = url.trim_start_matches("http://");
    let address: SocketAddr = host.parse().map_err(|_| format!("not an address: {url}"))?;
    let exchange = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(time_max))?;
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        stream.write_all(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = exchange().map_err(|error| format!("{method} {url}{path}: {error}"))?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status.ok_or(format!("{url}{path} answers no HTTP"))?, body.to_string()))
}

/// Waits until a GET of `path` is answered with 200; returns how long that took.
pub fn wait_for_ok(url: &str, path: &str) -> Outcome<Duration> {
    let begun = Instant::now();
    loop {
        if let Ok((200, _)) = ask(url, "GET", path, "") {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > START_MAX {
            return Err(format!("{url}{path} was not ready within {START_MAX:?}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Processor time that passes while something is measured.
pub struct Meter {
    begun: Instant,
    pids: Vec<u32>,
    servers: f64,
    children: f64,
    everybody: f64,
}

/// What a [`Meter`] saw.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// Seconds of processor time of the servers.
    pub servers: f64,
    /// Share of the machine's processor time that went neither to them nor to the load generator.
    pub elsewhere: f64,
}

impl Meter {
    /// Begins to watch.
    pub fn start(pids: Vec<u32>) -> Meter {
        let servers = pids.iter().map(|pid| machine::process_seconds(*pid)).sum();
        let (children, everybody) = (machine::ended_children_seconds(), machine::busy_seconds());
        Meter { begun: Instant::now(), pids, servers, children, everybody }
    }

    /// What passed since.
    pub fn stop(self) -> Usage {
        let servers = self.pids.iter().map(|pid| machine::process_seconds(*pid)).sum::<f64>() - self.servers;
        let ours = servers + machine::ended_children_seconds() - self.children;
        let all = machine::cores() as f64 * self.begun.elapsed().as_secs_f64();
        let elsewhere = (machine::busy_seconds() - self.everybody - ours).max(0.0) / all;
        Usage { servers, elsewhere }
    }
}
