//! The servers that are compared, each started with an empty folder on the disk that holds `target/`.

use crate::copies::CLUSTER;
use crate::machine::{Pin, command_on, cores, is_installed};
use crate::process::{Process, ask, free_ports, wait_for_ok};
use crate::{Options, Outcome, map_server};
use std::cell::Cell;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// One or more processes that serve together; ended, and their folder removed, when dropped.
pub struct Server {
    /// For tables.
    pub name: String,
    /// Whom the load generator asks.
    pub url: String,
    /// Where it keeps its data.
    pub folder: TempDir,
    processes: Vec<Process>,
    counted: Cell<u64>,
}

impl Server {
    fn new(name: &str, url: String, folder: TempDir, processes: Vec<Process>) -> Server {
        Server { name: name.into(), url, folder, processes, counted: Cell::new(0) }
    }

    /// The ids of its processes.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::pid).collect()
    }

    /// 1, 2, 3 …: names for files.
    pub fn count_up(&self) -> u64 {
        self.counted.set(self.counted.get() + 1);
        self.counted.get()
    }

    /// Ends its only process, as asked or as a crash would, and starts it again on the same folder. Returns when the
    /// new one was started.
    pub fn restart_node(&mut self, options: &Options, crash: bool) -> Outcome<Instant> {
        let process = self.processes.pop().ok_or("there is no process to restart")?;
        if crash {
            process.kill();
        } else {
            process.terminate()?;
        }
        let mut command = node(options, self.folder.path(), Pin::Free);
        command.args(["--port", "0"]);
        let begun = Instant::now();
        let (process, url) = Process::start_and_hear_url(&self.name, &mut command)?;
        self.processes.push(process);
        self.url = url;
        Ok(begun)
    }
}

fn folder() -> Outcome<TempDir> {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).map_err(|error| format!("no folder for data: {error}"))
}

/// A command for one of our nodes.
fn node(options: &Options, data: &Path, pin: Pin) -> Command {
    let cores = (!options.free).then(|| pin.servers()).flatten();
    let mut command = command_on(cores.as_deref(), env!("CARGO_BIN_EXE_kringle"));
    command.args(["--log", "warn"]);
    match options.memory {
        true => command.arg("--memory"),
        false => command.arg("--data").arg(data.join("data")),
    };
    if let Some(workers) = options.workers {
        command.args(["--workers", &workers.to_string()]);
    }
    command
}

/// One node.
pub fn kringle(options: &Options, pin: Pin) -> Outcome<Server> {
    let folder = folder()?;
    let mut command = node(options, folder.path(), pin);
    command.args(["--port", "0"]);
    let (process, url) = Process::start_and_hear_url("kringle", &mut command)?;
    wait_for_ok(&url, "/readyz")?;
    Ok(Server::new("kringle", url, folder, vec![process]))
}

/// One node, asked at its port for Redis clients.
pub fn kringle_for_redis_clients(options: &Options, pin: Pin, durability: &str) -> Outcome<Server> {
    let folder = folder()?;
    let [port] = free_ports()?;
    let mut command = node(options, folder.path(), pin);
    command.args(["--port", "0", "--resp-port", &port.to_string(), "--durability", durability]);
    let (process, url) = Process::start_and_hear_url("kringle", &mut command)?;
    wait_for_ok(&url, "/readyz")?;
    Ok(Server::new("kringle", format!("redis://127.0.0.1:{port}"), folder, vec![process]))
}

/// Three nodes that keep every key on each.
pub fn kringle_of_three(options: &Options) -> Outcome<Server> {
    let folder = folder()?;
    let ports = free_ports::<3>()?;
    let urls = ports.map(|port| format!("http://127.0.0.1:{port}"));
    let mut processes = Vec::new();
    for port in ports {
        let mut command = node(options, &folder.path().join(port.to_string()), Pin::Free);
        command.args(["--port", &port.to_string(), "--peers", &urls.join(",")]);
        std::fs::create_dir(folder.path().join(port.to_string())).map_err(|error| error.to_string())?;
        processes.push(Process::start_and_hear_url("kringle", &mut command)?.0);
    }
    for url in &urls {
        wait_for_ok(url, "/readyz")?;
        wait_until(|| {
            let (_, cluster) = ask(url, "GET", "/cluster", "")?;
            let is_founded = cluster.contains(r#""established":true"#);
            Ok(is_founded && cluster.matches(r#""state":"alive""#).count() == 3)
        })?;
    }
    Ok(Server::new("3 kringle", urls[0].clone(), folder, processes))
}

/// Several nodes that keep every key on each, of which any may be killed and started again.
pub struct Cluster {
    /// Where each is asked.
    pub urls: Vec<String>,
    folder: TempDir,
    /// What makes them one cluster.
    membership: [String; 4],
    flags: Vec<String>,
    processes: Vec<Option<Process>>,
    /// Whether each node has one core, as if it were a machine of its own.
    alone: bool,
}

impl Cluster {
    /// So many nodes with these flags, ready and aware of one another.
    pub fn start<const N: usize>(options: &Options, flags: &[&str]) -> Outcome<Cluster> {
        Cluster::start_on::<N>(options, flags, false)
    }

    /// The same, each on one core in turn: where the kernel puts threads, now on one core and now on two, does not decide
    /// what is measured.
    pub fn start_alone<const N: usize>(options: &Options, flags: &[&str]) -> Outcome<Cluster> {
        Cluster::start_on::<N>(options, flags, true)
    }

    fn start_on<const N: usize>(options: &Options, flags: &[&str], alone: bool) -> Outcome<Cluster> {
        let ports = free_ports::<N>()?;
        let urls: Vec<String> = ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
        let membership = ["--cluster".into(), CLUSTER.into(), "--peers".into(), urls.join(",")];
        let processes = urls.iter().map(|_| None).collect();
        let mut cluster = Cluster { urls, folder: folder()?, membership, flags: Vec::new(), processes, alone };
        cluster.restart(options, flags)?;
        Ok(cluster)
    }

    /// Ends every node on the spot and starts it again on what it kept, with these flags instead of those it had. Returns
    /// the moment before the first was started, once all are ready and aware of one another.
    pub fn restart(&mut self, options: &Options, flags: &[&str]) -> Outcome<Instant> {
        (0..self.urls.len()).for_each(|at| self.kill(at));
        self.flags = flags.iter().map(|flag| (*flag).to_string()).collect();
        let begun = Instant::now();
        for at in 0..self.urls.len() {
            self.launch(options, at)?;
        }
        self.await_alive()?;
        Ok(begun)
    }

    /// Starts a node, on what it kept if it ran before, and returns the moment before.
    pub fn launch(&mut self, options: &Options, at: usize) -> Outcome<Instant> {
        let data = self.folder.path().join(at.to_string());
        std::fs::create_dir_all(&data).map_err(|error| error.to_string())?;
        let mut command = node(options, &data, if self.alone { Pin::Alone(at % cores()) } else { Pin::Free });
        let port = self.urls[at].rsplit(':').next().unwrap_or_default();
        command.args(["--port", port]).args(&self.membership).args(&self.flags);
        let begun = Instant::now();
        self.processes[at] = Some(Process::start_and_hear_url("kringle", &mut command)?.0);
        Ok(begun)
    }

    /// Ends a node on the spot.
    pub fn kill(&mut self, at: usize) {
        if let Some(process) = self.processes[at].take() {
            process.kill();
        }
    }

    /// The ids of the processes that run.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().flatten().map(Process::pid).collect()
    }

    /// Waits until every node sees every other.
    pub fn await_alive(&self) -> Outcome<()> {
        for url in &self.urls {
            wait_for_ok(url, "/readyz")?;
            wait_until(|| {
                let (_, cluster) = ask(url, "GET", "/cluster", "")?;
                let is_founded = cluster.contains(r#""established":true"#);
                Ok(is_founded && cluster.matches(r#""state":"alive""#).count() == self.urls.len())
            })?;
        }
        Ok(())
    }

    /// Starts a further node, which joins; its place.
    pub fn add(&mut self, options: &Options) -> Outcome<usize> {
        let [port] = free_ports::<1>()?;
        self.urls.push(format!("http://127.0.0.1:{port}"));
        self.processes.push(None);
        let at = self.urls.len() - 1;
        self.launch(options, at)?;
        Ok(at)
    }

    /// Ends the last node, which has left, and forgets it with its folder.
    pub fn remove(&mut self, at: usize) {
        self.kill(at);
        self.urls.truncate(at);
        self.processes.truncate(at);
        // What is left of it would be taken for the next one's.
        let _ = std::fs::remove_dir_all(self.folder.path().join(at.to_string()));
    }
}

/// The map behind the same HTTP server, with as many workers as a node has.
pub fn map(options: &Options, pin: Pin) -> Outcome<Server> {
    let bench = std::env::current_exe().map_err(|error| error.to_string())?;
    let workers = options.workers.unwrap_or((crate::machine::cores() / 2).max(1));
    let cores = (!options.free).then(|| pin.servers()).flatten();
    let mut command = command_on(cores.as_deref(), &bench.to_string_lossy());
    command.args([map_server::HIDDEN_ARGUMENT, &workers.to_string()]);
    let (process, url) = Process::start_and_hear_url("map", &mut command)?;
    Ok(Server::new("map behind actix", url, folder()?, vec![process]))
}

/// Redis that syncs its log before it answers. `None` if it is not installed.
pub fn redis() -> Outcome<Option<Server>> {
    if !is_installed("redis-server") || !is_installed("redis-benchmark") {
        return Ok(None);
    }
    redis_with("always").map(Some)
}

/// Redis that syncs its log `always`, or `everysec`.
pub fn redis_with(fsync: &str) -> Outcome<Server> {
    let folder = folder()?;
    let [port] = free_ports()?;
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
    command.args(["--appendfsync", fsync, "--dir"]).arg(folder.path());
    let process = Process::start("redis", &mut command)?;
    wait_until(|| Ok(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()))?;
    Ok(Server::new(&format!("redis AOF {fsync}"), format!("redis://127.0.0.1:{port}"), folder, vec![process]))
}

/// Three members of etcd, asked at their leader, which is where they are fastest. `None` if it is not installed.
pub fn etcd_of_three() -> Outcome<Option<Server>> {
    if !is_installed("etcd") {
        return Ok(None);
    }
    let folder = folder()?;
    let ports = free_ports::<6>()?;
    let (client_ports, peer_ports) = ports.split_at(3);
    let url = |port: &u16| format!("http://127.0.0.1:{port}");
    let members: Vec<String> =
        peer_ports.iter().enumerate().map(|(number, port)| format!("m{number}={}", url(port))).collect();
    let mut processes = Vec::new();
    for number in 0..3 {
        let (client, peer) = (url(&client_ports[number]), url(&peer_ports[number]));
        let mut command = Command::new("etcd");
        command.args(["--name", &format!("m{number}"), "--log-level", "error", "--data-dir"]);
        command.arg(folder.path().join(format!("m{number}")));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &members.join(","), "--initial-cluster-state", "new"]);
        processes.push(Process::start("etcd", &mut command)?);
    }
    let mut leader = None;
    wait_until(|| {
        leader = client_ports.iter().map(url).find(|url| is_leader(url));
        Ok(leader.is_some())
    })?;
    Ok(Some(Server::new("3 etcd", leader.unwrap_or_default(), folder, processes)))
}

fn is_leader(url: &str) -> bool {
    let Ok((200, body)) = ask(url, "POST", "/v3/maintenance/status", "{}") else { return false };
    // A body may come in chunks; the JSON is what lies between the outer braces.
    let json = body.find('{').zip(body.rfind('}')).map_or("", |(from, to)| &body[from..=to]);
    let Ok(status) = serde_json::from_str::<serde_json::Value>(json) else { return false };
    status["leader"].is_string() && status["leader"] == status["header"]["member_id"]
}

fn wait_until(mut is_true: impl FnMut() -> Outcome<bool>) -> Outcome<()> {
    let begun = Instant::now();
    while !is_true().unwrap_or(false) {
        if begun.elapsed().as_secs() > 30 {
            return Err("a server was not ready within 30 s".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
