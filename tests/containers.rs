//! `docker/` for real: the image is built around the program under test, the compose file is started, and the
//! README's walk-through, a killed container and recreated containers are tried on it.
//!
//! Needs a container engine, and no registry: the base image is made of what this machine's own programs are linked
//! to. Where there is no engine the test says so and passes.

mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::eventually;
use support::http::{Answer, Client, Request};
use support::resp;
use tempfile::TempDir;

const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// Longer than the slowest start: three health checks apart by 5 s, on a busy machine.
const HEALTHY_WITHIN: Duration = Duration::from_secs(60);

/// Until a write has reached the owners that did not answer for it.
const CONVERGED_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn three_containers_answer_for_each_other_lose_one_and_keep_their_volumes() {
    let Some(compose) = compose_command() else { return };
    let cluster = Cluster::start(compose);

    for node in NODES {
        let processes = cluster.docker(["top", &cluster.container(node), "-eo", "pid,uid"]);
        let users: Vec<_> = processes.lines().skip(1).map(|line| line.split_whitespace().last()).collect();
        assert_eq!(users, [Some("10001")], "{node} is one process, and not root's");
    }

    // The walk-through, as `curl -d` sends it.
    let form = "application/x-www-form-urlencoded";
    let pair = Request::new("POST", "/store").header("Content-Type", form).body(r#"{"key":"a","value":"b"}"#);
    cluster.client("n1").send(&pair).expect(201);
    for node in ["n2", "n3"] {
        let read = Request::new("GET", "/store/key").header("Content-Type", form).body(r#"{"key":"a"}"#);
        assert_eq!(cluster.client(node).send(&read).expect(200).json()["value"], "b", "read on {node}");
    }
    // And by clients of Redis.
    let mut redis = resp::Client::at(cluster.port_of("n3", "6000"));
    assert_eq!(redis.say("GET a"), resp::bulk("b"));
    assert_eq!(redis.say("SET c d"), resp::ok());
    assert_eq!(cluster.client("n1").get("/get?key=c").text(), "d\n");
    cluster.await_equal_hashes();
    if cluster.has_curl {
        let read = cluster.compose(["run", "--rm", "-T", "client", "http://n2:8001/get?key=a"]);
        assert_eq!(read, "b\n", "the client service reads inside the network");
    }

    // Two of three go on without the third, which then learns what it missed.
    cluster.compose(["kill", "n2"]);
    for i in 0..10 {
        let put = cluster.client(["n1", "n3"][i % 2]).put(&format!("/kv/missed-{i}"), "v");
        assert!(put.status / 100 == 2, "with one of three dead a write is taken: {put}");
    }
    cluster.compose(["start", "n2"]);
    cluster.await_healthy("n2");
    cluster.await_own_copies("n2", ["a", "missed-0", "missed-9"]);

    // New containers over the old volumes.
    cluster.compose(["down"]);
    cluster.up();
    for node in NODES {
        cluster.await_own_copies(node, ["a", "missed-0", "missed-9"]);
    }
    cluster.await_equal_hashes();
}

#[test]
fn a_container_that_is_cut_from_the_network_is_missed_and_taken_back() {
    let Some(compose) = compose_command() else { return };
    let cluster = Cluster::start(compose);
    await_members(&mut NODES.map(|node| cluster.client(node)), 3);
    let (network, cut) = (format!("{}_default", cluster.name), cluster.container("n3"));
    cluster.docker(["network", "disconnect", &network, &cut]);
    let mut clients = ["n1", "n2"].map(|node| cluster.client(node));
    for at in 0..20 {
        let mode = ["sloppy", "quorum"][at % 2];
        let put = clients[at % 2].put(&format!("/kv/cut-{at}?mode={mode}"), "v");
        assert!(put.status / 100 == 2, "two of three go on: {put}");
    }
    eventually("the others know that it is gone", HEALTHY_WITHIN, || {
        let members = clients[0].get("/cluster").json()["members"].to_string();
        if members.contains(r#""state":"down""#) { Ok(()) } else { Err(members) }
    });
    // Perhaps at another address, under the name that it had.
    cluster.docker(["network", "connect", "--alias", "n3", &network, &cut]);
    cluster.await_healthy("n3");
    cluster.await_own_copies("n3", ["cut-0", "cut-19"]);
    await_members(&mut NODES.map(|node| cluster.client(node)), 3);
    cluster.await_equal_hashes();
}

#[test]
fn a_service_is_scaled_and_its_containers_find_each_other() {
    let Some(compose) = compose_command() else { return };
    let cluster = Cluster::of("docker/scale.yaml", compose);
    let scale = |count: usize| {
        let service = format!("node={count}");
        cluster.compose(["up", "--detach", "--no-build", "--no-recreate", "--scale", &service]);
        let mut clients: Vec<Client> = (1..=count).map(|index| cluster.client_of("node", index)).collect();
        await_members(&mut clients, count);
        clients
    };
    let mut three = scale(3);
    for at in 0..60 {
        let mode = ["sloppy", "quorum", "async"][at % 3];
        let put = three[at % 3].put(&format!("/kv/{at}?mode={mode}"), "v");
        assert_eq!(put.status, 201, "{put}");
    }
    let mut five = scale(5);
    for at in 0..60 {
        assert_eq!(five[3 + at % 2].get(&format!("/kv/{at}")).expect(200).text(), "v");
    }
    // All at once, and the addresses are dealt anew.
    cluster.compose(["stop"]);
    let mut five = scale(5);
    for at in 0..60 {
        assert_eq!(five[at % 5].get(&format!("/kv/{at}?mode=quorum")).expect(200).text(), "v");
    }
}

/// Waits until all go by one settled layout of so many members, all of them alive.
fn await_members(clients: &mut [Client], count: usize) {
    for client in clients {
        eventually(&format!("{count} members"), HEALTHY_WITHIN, || {
            let cluster = client.try_send(&Request::new("GET", "/cluster")).map_err(|error| error.to_string())?.json();
            let alive = cluster["members"].to_string().matches(r#""state":"alive""#).count();
            let members = cluster["members"].as_array().map_or(0, Vec::len);
            let is_settled = cluster["changing"] == false && cluster["established"] == true;
            if (alive, members, is_settled) == (count, count, true) { Ok(()) } else { Err(cluster.to_string()) }
        });
    }
}

#[test]
fn the_files_name_only_settings_that_exist() {
    let variable = |name: &str| format!("KRINGLE_{}", name.replace('-', "_").to_uppercase());
    let known: BTreeSet<String> = kringle::config::SETTINGS.iter().map(|setting| variable(setting.name)).collect();
    for file in ["docker/Dockerfile", "docker/compose.yaml", "docker/scale.yaml", "docker/.env"] {
        let text = std::fs::read_to_string(repository().join(file)).unwrap();
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for word in words.filter(|word| word.starts_with("KRINGLE_") && *word != "KRINGLE_") {
            assert!(known.contains(word), "{file} names {word}, which is no setting");
        }
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// How compose is called here; nothing, which it says, where there is no engine to give it work.
fn compose_command() -> Option<Vec<&'static str>> {
    let works = |command: &[&str]| {
        Command::new(command[0]).args(&command[1..]).output().is_ok_and(|output| output.status.success())
    };
    let has_engine = cfg!(target_os = "linux") && works(&["docker", "info"]);
    let mut ways = [vec!["docker", "compose"], vec!["docker-compose"]].into_iter();
    let found = ways.find(|compose| has_engine && works(&[compose.as_slice(), &["version"]].concat()));
    if found.is_none() {
        // Past the test harness, which keeps what a passing test prints.
        let _ = writeln!(std::io::stderr(), "skipped: no container engine");
    }
    found
}

/// The compose file's nodes, under a name that nobody else has. Its end removes all of it, whatever happened.
struct Cluster {
    compose: Vec<&'static str>,
    /// The project, and the image.
    name: String,
    /// Whether the base has curl, which the client service needs.
    has_curl: bool,
    file: &'static str,
}

impl Cluster {
    fn start(compose: Vec<&'static str>) -> Cluster {
        let cluster = Cluster::of("docker/compose.yaml", compose);
        cluster.up();
        cluster
    }

    /// Of this file, with nothing started.
    fn of(file: &'static str, compose: Vec<&'static str>) -> Cluster {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let name = format!("kringle-test-{}-{}", std::process::id(), started.as_nanos());
        let mut cluster = Cluster { compose, name, has_curl: false, file };
        cluster.build_image();
        cluster
    }

    fn base(&self) -> String {
        format!("{}-base", self.name)
    }

    /// The stage that holds the binary, tagged so that it can be removed again: a classic builder leaves it behind.
    fn stage(&self) -> String {
        format!("{}-stage", self.name)
    }

    fn build_image(&mut self) {
        let folder = TempDir::new().unwrap();
        let (base, context) = (folder.path().join("base"), folder.path().join("context"));
        std::fs::create_dir_all(&context).unwrap();
        let program = support::node::program();
        std::fs::copy(&program, context.join("kringle")).unwrap();
        let mut files = linked_to(&program);
        files.extend(with_libraries("sh").expect("a machine with a container engine has a shell"));
        if let Some(curl) = with_libraries("curl") {
            files.extend(curl);
            self.has_curl = true;
        }
        for file in files {
            let copy = base.join("root").join(file.strip_prefix("/").unwrap());
            std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
            std::fs::copy(&file, copy).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
        std::fs::write(base.join("Dockerfile"), "FROM scratch\nCOPY root /\n").unwrap();
        self.docker(["build", "--tag", &self.base(), base.to_str().unwrap()]);

        let dockerfile = repository().join("docker/Dockerfile");
        let bases = ["BUILD_BASE", "RUN_BASE"].map(|argument| format!("{argument}={}", self.base()));
        let build = |words: &[&str]| {
            let mut command = Command::new("docker");
            command.args(["build", "--build-arg", "BINARY=given", "--build-arg", &bases[0], "--build-arg", &bases[1]]);
            command.arg("--file").arg(&dockerfile).args(words).arg(&context);
            said(command)
        };
        build(&["--target", "binary", "--tag", &self.stage()]);
        build(&["--tag", &self.name]);
    }

    /// Starts what is not running, and waits until all are healthy.
    fn up(&self) {
        self.compose(["up", "--detach", "--no-build"]);
        NODES.iter().for_each(|node| self.await_healthy(node));
    }

    fn container(&self, node: &str) -> String {
        self.compose(["ps", "--quiet", node]).trim().to_owned()
    }

    fn await_healthy(&self, node: &str) {
        let container = self.container(node);
        eventually(&format!("{node} is healthy"), HEALTHY_WITHIN, || {
            let health = self.docker(["inspect", "--format", "{{.State.Health.Status}}", &container]);
            if health.trim() == "healthy" { Ok(()) } else { Err(health) }
        });
    }

    /// A client of the node's published port, which is another one after each start.
    fn client(&self, node: &str) -> Client {
        Client::new(self.compose(["port", node, "8001"]).trim())
    }

    /// Where one of the node's ports is published.
    fn port_of(&self, node: &str, port: &str) -> u16 {
        let address = self.compose(["port", node, port]);
        address.trim().rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_else(|| panic!("{address}"))
    }

    /// The same of one of a service's containers.
    fn client_of(&self, service: &str, index: usize) -> Client {
        Client::new(self.compose(["port", &format!("--index={index}"), service, "8001"]).trim())
    }

    /// Waits until `node` itself holds the keys.
    fn await_own_copies<const N: usize>(&self, node: &str, keys: [&str; N]) {
        let mut client = self.client(node);
        for key in keys {
            eventually(&format!("{node} holds {key}"), CONVERGED_WITHIN, || {
                let read = Request::new("GET", format!("/store/key?local=1&key={key}"));
                match client.try_send(&read) {
                    Ok(Answer { status: 200, .. }) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
        }
    }

    fn await_equal_hashes(&self) {
        let mut clients = NODES.map(|node| self.client(node));
        eventually("the nodes' hashes are equal", CONVERGED_WITHIN, || {
            let hashes: Vec<String> = clients.iter_mut().map(|client| client.get("/store/hash").text()).collect();
            if hashes.iter().all(|hash| *hash == hashes[0]) { Ok(()) } else { Err(format!("{hashes:?}")) }
        });
    }

    fn compose<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> String {
        said(self.compose_command(words))
    }

    fn compose_command<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(self.compose[0]);
        command.args(&self.compose[1..]).args(["--file", self.file, "--project-name", &self.name]);
        command.args(words).current_dir(repository());
        command.env("IMAGE", &self.name).env("CLIENT_IMAGE", self.base());
        command.envs(["N1_PORT", "N2_PORT", "N3_PORT", "NODE_PORTS"].map(|port| (port, "0")));
        command.envs(["N1_RESP_PORT", "N2_RESP_PORT", "N3_RESP_PORT"].map(|port| (port, "0")));
        command
    }

    fn docker<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> String {
        let mut command = Command::new("docker");
        command.args(words);
        said(command)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let told = self.compose_command(["logs", "--no-color", "--tail", "40"]).output();
            eprintln!("{}", told.map_or_else(|error| error.to_string(), |told| shown(&told)));
        }
        let ended = self.compose_command(["down", "--volumes", "--remove-orphans", "--timeout", "1"]).output();
        let removed = Command::new("docker").args(["rmi", &self.name, &self.stage(), &self.base()]).output();
        for output in [ended, removed] {
            match output {
                Ok(output) if output.status.success() => {}
                // No panic: one may be under way.
                other => eprintln!("{} is not all removed: {other:?}", self.name),
            }
        }
    }
}

/// What a command that must succeed printed.
#[track_caller]
fn said(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, shown(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn shown(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).join("\n")
}

/// The program of that name and what it is linked to. Nothing where there is none.
fn with_libraries(name: &str) -> Option<Vec<PathBuf>> {
    let found = ["/bin", "/usr/bin", "/usr/local/bin"].map(|folder| Path::new(folder).join(name));
    let program = found.into_iter().find(|path| path.exists())?;
    let mut files = linked_to(&program);
    files.push(program);
    Some(files)
}

/// The loader and the libraries that a program needs, by their absolute paths.
fn linked_to(program: &Path) -> Vec<PathBuf> {
    let mut command = Command::new("ldd");
    command.arg(OsStr::new(program));
    let listed = said(command);
    listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}
