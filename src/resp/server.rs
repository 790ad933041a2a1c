//! INFO and CONFIG: how this node is.

use super::access::{Begun, now};
use super::arguments::{self, is, shown};
use super::clients::clients_max;
use super::commands::unknown_subcommand;
use super::glob;
use super::handshake::COMMANDS_OF;
use super::reply::Reply;
use super::session::Session;
use crate::config::{DataFolder, Durability};
use crate::storage::Health;
use bytes::Bytes;
use std::fmt::Write;
use std::rc::Rc;

/// Names and what they come to.
type Lines = Vec<(&'static str, String)>;

/// Most patterns of one CONFIG GET: each is held against every name at once.
const PATTERNS_MAX: usize = 64;

type About = fn(&Session) -> Lines;

/// Sections of INFO, in their order.
const SECTIONS: &[(&str, About)] = &[
    ("Server", about_server),
    ("Clients", about_clients),
    ("Memory", about_memory),
    ("Persistence", about_persistence),
    ("Stats", about_stats),
    ("Replication", about_replication),
    ("Cluster", about_cluster),
    ("Keyspace", about_keyspace),
];

pub(super) fn info(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let wanted = &words[1..];
    let is_wanted = |name: &str| {
        let all = ["all", "default", "everything"];
        wanted.is_empty() || wanted.iter().any(|word| is(word, name) || all.iter().any(|all| is(word, all)))
    };
    let mut text = String::new();
    for (name, about) in SECTIONS.iter().filter(|(name, _)| is_wanted(name)) {
        let blank = if text.is_empty() { "" } else { "\r\n" };
        // Writing to a text does not fail.
        let _ = write!(text, "{blank}# {name}\r\n");
        for (field, value) in about(session) {
            let _ = write!(text, "{field}:{value}\r\n");
        }
    }
    now(Reply::text(text))
}

fn about_server(session: &Session) -> Lines {
    let node = &session.worker.node;
    let uptime_s = node.uptime().as_secs();
    vec![
        // What programs look for who want to know which commands there are.
        ("redis_version", COMMANDS_OF.into()),
        ("redis_mode", "standalone".into()),
        ("kringle_version", env!("CARGO_PKG_VERSION").into()),
        ("kringle_cluster", node.settings.cluster.clone()),
        ("run_id", node.id.to_string()),
        ("process_id", std::process::id().to_string()),
        ("uptime_in_seconds", uptime_s.to_string()),
        ("uptime_in_days", (uptime_s / 86_400).to_string()),
    ]
}

fn about_clients(session: &Session) -> Lines {
    let (connected, ..) = session.clients.counts();
    let max = clients_max(session.worker.node.settings.connections_max);
    vec![("connected_clients", connected.to_string()), ("maxclients", max.to_string()), ("blocked_clients", "0".into())]
}

fn about_memory(session: &Session) -> Lines {
    let usage = session.worker.node.store.usage();
    let mut lines = Vec::new();
    if let Some(resident) = resident_bytes() {
        lines.push(("used_memory_rss", resident.to_string()));
    }
    lines.push(("used_memory", (usage.recent_bytes + usage.cache_bytes).to_string()));
    lines.push(("maxmemory", "0".into()));
    lines.push(("maxmemory_policy", "noeviction".into()));
    lines
}

/// Bytes of this process in memory, where the system tells.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

fn about_persistence(session: &Session) -> Lines {
    let node = &session.worker.node;
    let is_fine = matches!(node.store.health(), Health::Ok);
    vec![
        ("loading", "0".into()),
        ("aof_enabled", u8::from(node.settings.data != DataFolder::Memory).to_string()),
        ("aof_last_write_status", if is_fine { "ok" } else { "err" }.into()),
        ("kringle_durability", node.settings.durability.to_string()),
    ]
}

fn about_stats(session: &Session) -> Lines {
    let (_, entered, commands) = session.clients.counts();
    let node = &session.worker.node;
    let rates = node.load.rates(node.uptime().as_secs());
    let kib = |bytes: f64| format!("{:.2}", bytes / 1_024.0);
    vec![
        ("total_connections_received", entered.to_string()),
        ("total_commands_processed", commands.to_string()),
        // Of all clients, whatever they speak.
        ("instantaneous_ops_per_sec", format!("{:.0}", rates.requests_per_s)),
        ("instantaneous_input_kbps", kib(rates.bytes_in_per_s)),
        ("instantaneous_output_kbps", kib(rates.bytes_out_per_s)),
    ]
}

/// Every node takes every command: to whoever asks for a role, it is a master.
fn about_replication(session: &Session) -> Lines {
    let ring = session.worker.node.ring();
    vec![
        ("role", "master".into()),
        ("connected_slaves", "0".into()),
        ("kringle_replicas", ring.layout().replicas().to_string()),
        ("kringle_mode", session.mode().to_string()),
    ]
}

fn about_cluster(session: &Session) -> Lines {
    let ring = session.worker.node.ring();
    vec![
        // That one is another protocol, in which clients know who owns what. Here any node will do.
        ("cluster_enabled", "0".into()),
        ("kringle_members", ring.members().len().to_string()),
        ("kringle_epoch", ring.epoch().to_string()),
    ]
}

/// What this node itself keeps.
fn about_keyspace(session: &Session) -> Lines {
    match super::cluster::own_keys(session) {
        0 => vec![],
        keys => vec![("db0", format!("keys={keys},expires=0,avg_ttl=0"))],
    }
}

/// CONFIG GET: what some of Redis's settings come to here.
pub(super) fn config(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let patterns = match (&words[1], &words[2..]) {
        (sub, patterns) if is(sub, "GET") && !patterns.is_empty() => patterns,
        (sub, _) if is(sub, "GET") => {
            return Err(Reply::error("ERR wrong number of arguments for 'config|get' command"));
        }
        (sub, _) if is(sub, "SET") || is(sub, "REWRITE") || is(sub, "RESETSTAT") => {
            return Err(Reply::error("ERR a node is set up when it starts, by its flags: see kringle --help"));
        }
        (sub, _) => return Err(unknown_subcommand("config", sub)),
    };
    let settings = &session.worker.node.settings;
    let is_kept = settings.data != DataFolder::Memory;
    let fsync = match settings.durability {
        Durability::Sync => "always",
        Durability::Interval(_) => "everysec",
        Durability::None => "no",
    };
    let known = [
        ("appendfsync", fsync.to_owned()),
        ("appendonly", if is_kept { "yes" } else { "no" }.to_owned()),
        ("databases", "1".to_owned()),
        ("maxclients", clients_max(settings.connections_max).to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("proto-max-bulk-len", settings.value_bytes_max.to_string()),
        ("save", String::new()),
        ("timeout", super::connection::IDLE_MAX.as_secs().to_string()),
    ];
    if patterns.len() > PATTERNS_MAX {
        return Err(Reply::Error(format!("ERR CONFIG GET takes at most {PATTERNS_MAX} patterns")));
    }
    let lower = |word| arguments::pattern(word).map(|pattern| shown(&pattern).to_lowercase());
    let patterns = patterns.iter().map(lower).collect::<Result<Vec<_>, _>>()?;
    let is_asked = |name: &str| patterns.iter().any(|pattern| glob::matches(pattern.as_bytes(), name.as_bytes()));
    let found = known.into_iter().filter(|(name, _)| is_asked(name));
    now(Reply::Map(found.map(|(name, value)| (Reply::text(name), Reply::text(value))).collect()))
}
