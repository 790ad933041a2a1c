//! What a node is told to be, once everything has been read and checked.

use super::layers::{Layers, Source, URL_VARIABLE, command, squeezed};
use super::{ConfigError, Durability, Host, Nonsense, Origin, PeerUrl, Peers, SETTINGS, Wanted, text};
use crate::placement::{Mode, WEIGHT_MAX};
use crate::record::KEY_BYTES_MAX;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Longest value an operator may allow, in bytes. A value is held whole in memory by every node that passes it on,
/// and by the coordinator once per owner's queue.
pub const VALUE_BYTES_MAX: usize = 64 << 20;

/// Most bytes of hints an operator may allow for one member. A slip of the keyboard beyond it.
const HINT_BYTES_MAX: usize = 1 << 40;

/// Fastest pace an operator may set, in bytes a second. A slip of the keyboard beyond it.
const RATE_MAX: usize = 1 << 40;

/// Most keys an operator may name as the most of a node. A slip of the keyboard beyond it.
const KEYS_MAX: usize = 1_000_000_000_000;

/// Most requests a second. A slip of the keyboard beyond it.
const LOAD_MAX: usize = 1_000_000_000;

/// Most owners a key may have. Each one is a peer call of every write.
pub const REPLICAS_MAX: usize = 16;

/// Most threads that serve HTTP; each has its own caches and connections.
const WORKERS_MAX: usize = 256;

/// Most clients that watch: each may hold on to some megabytes while it reads slowly.
const WATCHERS_MAX: usize = 100_000;
/// Most client connections; beyond it the limit of open files decides anyway.
const CONNECTIONS_MAX: usize = 1_000_000;

/// What the command line asks for.
#[derive(Debug)]
pub enum Load {
    /// Run a node.
    Run(Box<Settings>),
    /// Ask a node whether it is alive, and exit.
    Health(Health),
    /// Print this text, a line break after it, and exit with 0: help or version.
    Say(String),
}

/// What `kringle health` asks, and how long it waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    /// The node.
    pub url: PeerUrl,
    /// The deadline, `--timeout` of the environment or the file.
    pub timeout: Duration,
}

/// Everything an operator can decide, valid: made by [`Settings::load`] alone.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file that was read, if any.
    pub config: Option<PathBuf>,
    /// The port to listen on; 0 stands for any free one.
    pub port: u16,
    /// The port for clients that speak the Redis protocol, on the same address; 0 stands for any free one, `None` for none.
    pub resp_port: Option<u16>,
    /// The address to listen on. Loopback unless `insecure`.
    pub host: Host,
    /// Whether the operator accepts strangers.
    pub insecure: bool,
    /// The URL other nodes are told, if the operator named one. See [`Settings::own_url`].
    pub advertise: Option<Advertise>,
    /// Threads that serve HTTP, 1 to 256.
    pub workers: usize,
    /// Client connections at once, 1 to 1,000,000.
    pub connections_max: usize,
    /// Clients that may watch at once, of keys and of events each, 1 to 100,000.
    pub watchers_max: usize,
    /// Requests of clients a second that the node is meant for, from 1 on: never enforced. `None` where nobody said.
    pub load_max: Option<u64>,
    /// The origins whose pages may use the node from a browser, in lower case; `*` for all, empty for none.
    pub cors_origins: Vec<String>,
    /// Whether the network to peers may be cut by `/faults`. Loopback only.
    pub faults: bool,
    /// The peers as listed, each once, perhaps this node among them. See [`Settings::peers_besides_self`].
    pub peers: Peers,
    /// Whether a node that is no member of its cluster asks to be one by itself.
    pub joins: bool,
    /// What the node shares a fate with: up to 64 bytes, empty if nothing is known.
    pub zone: String,
    /// Its capacity relative to the others', 1 to 64.
    pub weight: u16,
    /// How long a member may be down before the others remove it; `None` if they never do.
    pub evict_after: Option<Duration>,
    /// The cluster's name: 1 to 64 visible ASCII characters.
    pub cluster: String,
    /// Time between two pings of a peer, 1 ms to 1 h.
    pub ping_period: Duration,
    /// Time between two comparisons with each peer, 1 ms to 1 h.
    pub sync_period: Duration,
    /// A request's whole deadline, 1 ms to 1 h.
    pub timeout: Duration,
    /// Owners of a key, 1 to 16. There may be fewer members.
    pub replicas: usize,
    /// The mode of requests that name none.
    pub mode: Mode,
    /// Owners a write waits for in mode sloppy, at most `replicas`.
    pub w: Wanted,
    /// Owners a read asks in mode sloppy, at most `replicas`.
    pub r: Wanted,
    /// Where data is kept.
    pub data: DataFolder,
    /// What an acknowledgement says about the disk.
    pub durability: Durability,
    /// Keys with a value that the node keeps before it refuses new ones, from 1 on; `None` for as many as come.
    pub keys_max: Option<u64>,
    /// Hints kept for one member, in bytes of their rows, 0 to 1 TiB.
    pub hint_bytes_max: u64,
    /// Bytes of records a second that sessions and hints may bring, from 1 MiB on; `None` for as much as leaves clients alone.
    pub transfer_rate: Option<u64>,
    /// Time between two scrubs, 1 ms to a year; `None` if there are none.
    pub scrub_period: Option<Duration>,
    /// Longest value, in bytes, 1 to [`VALUE_BYTES_MAX`].
    pub value_bytes_max: usize,
    /// Longest key, in bytes, 1 to [`KEY_BYTES_MAX`].
    pub key_bytes_max: usize,
    /// A filter for env_logger.
    pub log: String,
    /// The form of log lines.
    pub log_format: LogFormat,
    sources: Vec<Source>,
}

/// The host, and perhaps the port, that other nodes are told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advertise {
    /// A host that can be reached.
    pub host: Host,
    /// The port; `None` stands for the one the node listens on.
    pub port: Option<u16>,
    /// What its machine is called, where the address was found and may be another after the next start: the node's name is
    /// made of it.
    pub name: Option<Host>,
}

/// Where data is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DataFolder {
    /// In `./data/<port>`, which is known once the port is bound.
    Default,
    /// In this folder.
    At(PathBuf),
    /// Nowhere.
    Memory,
}

impl DataFolder {
    /// The folder of a node that listens on `port`; `None` if nothing is kept.
    pub fn path(&self, port: u16) -> Option<PathBuf> {
        match self {
            DataFolder::Default => Some(Path::new("./data").join(port.to_string())),
            DataFolder::At(folder) => Some(folder.clone()),
            DataFolder::Memory => None,
        }
    }
}

/// The form of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = Nonsense;

    fn from_str(text: &str) -> Result<LogFormat, Nonsense> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(Nonsense::new(text, "is not a log format: text or json")),
        }
    }
}

impl Settings {
    /// Reads arguments (the first is the program's name), environment and the file that one of them names.
    /// `read_file` is called at most once. Nothing is printed and nothing else is touched, but for the number of
    /// cores, from which `workers` has its default.
    pub fn load<A, E, K, V>(
        args: A,
        environment: E,
        read_file: impl FnOnce(&Path) -> io::Result<String>,
    ) -> Result<Load, ConfigError>
    where
        A: IntoIterator,
        A::Item: Into<OsString>,
        E: IntoIterator<Item = (K, V)>,
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let environment: BTreeMap<String, OsString> = environment
            .into_iter()
            .map(|(name, value)| (name.into().to_string_lossy().into_owned(), value.into()))
            .filter(|(name, _)| name.starts_with("KRINGLE_"))
            .collect();
        let args = args.into_iter().map(Into::into);
        let matches = match command().try_get_matches_from(args) {
            Ok(matches) => matches,
            Err(error) if !error.use_stderr() => return Ok(Load::Say(error.to_string().trim_end().to_owned())),
            Err(error) => return Err(squeezed(&error)),
        };
        if let Some(("health", asked)) = matches.subcommand() {
            if SETTINGS.iter().any(|row| matches.contains_id(row.name)) {
                return Err(ConfigError::Arguments("health takes no flags of a node, only --url".to_owned()));
            }
            let url = asked.get_one::<String>("url").map(String::as_str);
            return Health::find(url, &environment, read_file).map(Load::Health);
        }
        let layers = Layers::gather(Some(&matches), &environment, read_file)?;
        Settings::check(layers).map(|settings| Load::Run(Box::new(settings)))
    }

    fn check(mut layers: Layers) -> Result<Settings, ConfigError> {
        let l = &mut layers;
        let settings = Settings {
            config: l.take_given("config", folder_or_file)?,
            port: l.take("port", text::port)?,
            resp_port: l.take("resp-port", text::port_or_off)?,
            host: l.take("host", str::parse)?,
            insecure: l.take("insecure", text::switch)?,
            advertise: l.take_given("advertise", str::parse)?,
            workers: l
                .take_given("workers", |given| text::count(given, "threads", 1..=WORKERS_MAX))?
                .unwrap_or_else(half_the_cores),
            connections_max: l
                .take("max-connections", |given| text::count(given, "connections", 1..=CONNECTIONS_MAX))?,
            watchers_max: l.take("max-watchers", |given| text::count(given, "watchers", 1..=WATCHERS_MAX))?,
            load_max: l.take("max-load", |given| text::count_or_off(given, "requests a second", 1..=LOAD_MAX))?,
            cors_origins: l.take_given("cors-origin", text::origins)?.unwrap_or_default(),
            faults: l.take("faults", text::switch)?,
            peers: l.take_given("peers", Peers::read)?.unwrap_or_default(),
            joins: l.take("join", text::join)?,
            zone: l.take_given("zone", text::zone)?.unwrap_or_default(),
            weight: l.take("weight", |given| text::count(given, "as weight", 1..=usize::from(WEIGHT_MAX)))? as u16,
            evict_after: l.take("evict-after", text::seconds_or_never)?,
            cluster: l.take("cluster", text::cluster)?,
            ping_period: l.take("pingfreq", text::seconds)?,
            sync_period: l.take("syncfreq", text::seconds)?,
            timeout: l.take("timeout", text::seconds)?,
            replicas: l.take("replicas", |given| text::count(given, "owners", 1..=REPLICAS_MAX))?,
            mode: l.take("mode", |text| {
                text.parse::<Mode>()
                    .map_err(|_| Nonsense::new(text, "is not a mode: sloppy, async, quorum, sync or chain"))
            })?,
            w: l.take("w", str::parse)?,
            r: l.take("r", str::parse)?,
            data: data_folder(l)?,
            durability: l.take("durability", str::parse)?,
            keys_max: l.take("max-keys", |given| text::count_or_off(given, "keys", 1..=KEYS_MAX))?,
            hint_bytes_max: l.take("hint-max-bytes", |given| text::bytes_or_none(given, HINT_BYTES_MAX))? as u64,
            transfer_rate: l.take("transfer-rate", |given| text::rate(given, RATE_MAX))?,
            scrub_period: l.take("scrub-every", text::rare_seconds)?,
            value_bytes_max: l.take("value-max", |given| text::bytes(given, VALUE_BYTES_MAX))?,
            key_bytes_max: l.take("key-max", |given| text::bytes(given, KEY_BYTES_MAX))?,
            log: l.take("log", text::log_filter)?,
            log_format: l.take("log-format", str::parse)?,
            sources: Vec::new(),
        };
        settings.check_together(&layers)?;
        Ok(Settings { sources: layers.into_sources(), ..settings })
    }

    /// What each setting cannot know alone.
    fn check_together(&self, layers: &Layers) -> Result<(), ConfigError> {
        if !self.host.is_loopback() && !self.insecure {
            return Err(layers.refuse(
                "host",
                "is not a loopback address, and until there is a cluster secret anybody who reaches the port can \
                 read and write; add --insecure if only friends can",
            ));
        }
        if self.faults && !self.host.is_loopback() {
            return Err(layers.refuse(
                "faults",
                "lets anybody who reaches the port cut this node off from its peers, and others reach it: leave it \
                 away, or listen on a loopback address",
            ));
        }
        if self.resp_port == Some(self.port) && self.port != 0 {
            return Err(layers.refuse("resp-port", "is the port for HTTP: choose another, such as 6000"));
        }
        if self.host.is_unspecified() && self.advertise.is_none() && !self.peers.nodes.is_empty() {
            return Err(layers.refuse(
                "host",
                "stands for every address of this machine, and the peers must be told one: add --advertise \
                 http://<address or name>:<port>",
            ));
        }
        for (name, wanted) in [("w", self.w), ("r", self.r)] {
            if matches!(wanted, Wanted::Owners(count) if count > self.replicas) {
                return Err(layers.refuse(name, format!("is more than --replicas {}", self.replicas)));
            }
        }
        Ok(())
    }

    /// The URL that other nodes use for this one, which listens on `port` (the bound one, if 0 was asked for).
    pub fn own_url(&self, port: u16) -> PeerUrl {
        match &self.advertise {
            Some(Advertise { host, port: named, name }) => {
                let url = PeerUrl::new(host.clone(), named.unwrap_or(port));
                name.iter().fold(url, |url, name| url.named(name.clone()))
            }
            None => PeerUrl::new(self.host.or_loopback(), port),
        }
    }

    /// The listed peers without this node, which listens on `port`. It recognises itself by its own URL and by
    /// the address it listens on.
    pub fn peers_besides_self(&self, port: u16) -> Vec<PeerUrl> {
        let own = self.own_url(port);
        let listening = PeerUrl::new(self.host.or_loopback(), port);
        let everywhere = self.host.is_unspecified();
        let is_self = |peer: &PeerUrl| {
            *peer == own || *peer == listening || everywhere && peer.port() == port && peer.host().is_loopback()
        };
        self.peers.nodes.iter().filter(|peer| !is_self(peer)).cloned().collect()
    }

    /// Whether there may be other nodes to be found.
    pub fn has_peers(&self, port: u16) -> bool {
        !self.peers.lookups.is_empty() || !self.peers_besides_self(port).is_empty()
    }

    /// Whether an address is of the family that this node listens on, as the others of its cluster will.
    pub fn listens_like(&self, address: IpAddr) -> bool {
        match &self.host {
            Host::V4(_) => address.is_ipv4(),
            Host::V6(own) if !own.is_unspecified() => address.is_ipv6(),
            Host::V6(_) | Host::Name(_) => true,
        }
    }

    /// Whether the node is to find out by itself under which address others reach it: they are asked of DNS, and it listens
    /// on every address of its machine.
    pub fn finds_own_address(&self) -> bool {
        self.host.is_unspecified() && self.advertise.is_none() && !self.peers.lookups.is_empty()
    }

    /// Every setting, in the order of the table, with its text and the layer it came from.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// For the start line: what differs from the defaults and who said so, such as
    /// `port 8002 (flag), timeout 2.5 (environment)`.
    pub fn summary(&self) -> String {
        let chosen = self.sources.iter().filter(|source| source.origin != Origin::Default);
        let said: Vec<String> = chosen
            .map(|Source { name, text, origin }| format!("{name} {} ({origin})", super::error::one_line(text)))
            .collect();
        if said.is_empty() { "all settings at their defaults".to_owned() } else { said.join(", ") }
    }

    /// Settings that are allowed and may yet surprise, each as one sentence for the log at start.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let own = self.own_url(self.port);
        if own.host().is_loopback() && self.peers.nodes.iter().any(|peer| !peer.host().is_loopback()) {
            warnings
                .push(format!("peers on other machines cannot reach this node at {own}: set --host and --advertise"));
        }
        if self.host.is_unspecified() && self.advertise.is_none() {
            warnings.push(format!(
                "this node calls itself {own}, where nodes on other machines cannot join it: set --advertise"
            ));
        }
        if self.mode != Mode::Sloppy && (self.w, self.r) != (Wanted::Majority, Wanted::Majority) {
            warnings
                .push(format!("mode {} itself says who is waited for: --w and --r count in mode sloppy", self.mode));
        }
        if self.insecure && !self.host.is_loopback() {
            warnings.push(format!("anybody who reaches {} can read and write: --insecure", self.host));
        }
        if self.faults {
            warnings.push("whoever reaches this node can cut it off from its peers: --faults".to_owned());
        }
        if self.data == DataFolder::Memory {
            warnings.push("nothing is kept on disk: --memory".to_owned());
        }
        warnings
    }
}

impl FromStr for Advertise {
    type Err = Nonsense;

    fn from_str(text: &str) -> Result<Advertise, Nonsense> {
        PeerUrl::parts(text).map(|(host, port)| Advertise { host, port, name: None })
    }
}

impl Health {
    /// The node to ask: the one named, else the one the environment names, else the one that would be run here.
    fn find(
        url: Option<&str>,
        environment: &BTreeMap<String, OsString>,
        read_file: impl FnOnce(&Path) -> io::Result<String>,
    ) -> Result<Health, ConfigError> {
        let mut layers = Layers::gather(None, environment, read_file)?;
        let timeout = layers.take("timeout", text::seconds)?;
        let variable = environment.get(URL_VARIABLE).filter(|value| !value.is_empty());
        let variable = variable.map(|value| value.to_string_lossy());
        let (named, origin) = match url {
            Some(url) => (Some(url), Origin::Flag),
            None => (variable.as_deref(), Origin::Environment),
        };
        if let Some(url) = named {
            let url = url.parse().map_err(|nonsense| ConfigError::Value { setting: "url", origin, nonsense })?;
            return Ok(Health { url, timeout });
        }
        let host: Host = layers.take("host", str::parse)?;
        match layers.take("port", text::port)? {
            0 => Err(layers.refuse("port", "is picked at start, so say which node to ask: kringle health --url <URL>")),
            port => Ok(Health { url: PeerUrl::new(host.or_loopback(), port), timeout }),
        }
    }
}

/// `--data` and `--memory` answer one question. Said in one layer they contradict each other; said in two, the
/// higher layer has overruled the lower as it does for any setting.
fn data_folder(layers: &mut Layers) -> Result<DataFolder, ConfigError> {
    let folder = layers.take_given("data", folder_or_file)?;
    let memory = layers.take("memory", text::switch)?;
    let (folder_rank, memory_rank) = (layers.source("data").origin.rank(), layers.source("memory").origin.rank());
    match folder {
        Some(_) if memory && folder_rank == memory_rank => {
            Err(layers
                .refuse("data", "is a folder to keep data in, and --memory asks to keep none: choose one of the two"))
        }
        Some(folder) if !memory || folder_rank > memory_rank => Ok(DataFolder::At(folder)),
        None if !memory => Ok(DataFolder::Default),
        _ => Ok(DataFolder::Memory),
    }
}

fn folder_or_file(text: &str) -> Result<PathBuf, Nonsense> {
    if text.trim().is_empty() || text.contains('\0') {
        return Err(Nonsense::new(text, "is not a path"));
    }
    Ok(PathBuf::from(text))
}

fn half_the_cores() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, WORKERS_MAX)
}
