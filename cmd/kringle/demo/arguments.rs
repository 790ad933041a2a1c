//! What may be typed behind `kringle demo`.

use clap::{Parser, ValueEnum};
use kringle::config::{Load, Settings};
use kringle::placement::Mode;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Nodes where nobody says how many.
pub(super) const NODES: u32 = 5;

/// Most nodes of one demo: each is a process of its own with threads and files, on one machine.
pub(super) const NODES_MAX: u32 = 64;

/// Keys that a node takes where nobody says how many, and when to add one has to be decided.
const KEYS: u64 = 1_000;

/// Nodes of a script: it kills two of a key's three owners, and looks for several keys with the same ones.
const SCRIPT_NODES: std::ops::RangeInclusive<u32> = 3..=9;

/// What nodes are started with unless told otherwise: whoever looks on does not want to wait for a death to be noticed.
const QUICK: &[(&str, &str)] = &[("--pingfreq", "0.3"), ("--syncfreq", "3")];

/// Flags of a node that the demo sets itself.
const TAKEN: &[&str] = &[
    "--config",
    "--port",
    "--resp-port",
    "--host",
    "--insecure",
    "--advertise",
    "--peers",
    "--join",
    "--data",
    "--mode",
    "--max-keys",
    "--max-load",
    "--faults",
];

const EXAMPLES: &str = "\
Examples:
  Five nodes and a console; type help there:
    kringle demo --nodes 5

  Commands from a pipe:
    printf 'update e\\nget e\\nstatus\\nexit\\n' | kringle demo --nodes 3

  A node is added when one is 80 % full, and leaves when it is not needed:
    kringle demo --nodes 3 --autoscale --max-keys 1000 --max-nodes 6

  A demonstration that checks itself; the exit code is 1 if a check fails:
    kringle demo --script failover --mode quorum

  Nodes with flags of their own, which stand behind two dashes:
    kringle demo --nodes 3 -- --replicas 2 --log debug

Exit codes: 0 ended as told; 1 the nodes could not be started, or a check of a
script failed; 2 an argument makes no sense; 130 interrupted.";

/// A cluster to play with: real nodes on this machine, and a console to use them, break them and mend them. All of it is
/// gone at the end.
#[derive(Parser, Debug)]
#[command(bin_name = "kringle demo", version, after_help = EXAMPLES, max_term_width = 80)]
pub(super) struct Arguments {
    /// Nodes to begin with, 1 to 64 [default: asked for on a terminal, else 5]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=i64::from(NODES_MAX)))]
    pub(super) nodes: Option<u32>,
    /// The first port to try; nodes have successive ones, and those that are taken are passed over
    #[arg(long, value_name = "PORT", default_value_t = 8001, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) base_port: u16,
    /// The cluster's mode: sloppy, async, quorum, sync or chain
    #[arg(long, value_name = "MODE", default_value_t = Mode::Sloppy)]
    pub(super) mode: Mode,
    /// Add a node when one is 80 % full by --max-keys or --max-load, and remove it when it is not needed
    #[arg(long)]
    pub(super) autoscale: bool,
    /// Nodes that --autoscale stops at, 1 to 64
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 9,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(NODES_MAX))
    )]
    pub(super) max_nodes: u32,
    /// Keys that each node takes; a new one past them is refused [default: any number, but 1000 where --autoscale has
    /// nothing else to go by]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max_keys: Option<u64>,
    /// Requests a second that each node is meant for; nothing is refused past them [default: any number]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max_load: Option<u64>,
    /// Time between two looks of --autoscale, such as 2s or 500ms; three in a row have to agree
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time)]
    pub(super) scale_check: Duration,
    /// Time for which --autoscale leaves the cluster alone after it has changed it
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(super) scale_cooldown: Duration,
    /// The folder to keep data and logs in: nodes that are in it already are started again [default: a temporary one,
    /// removed at the end]
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// Instead of the console: a demonstration, each step of it checked
    #[arg(long, value_name = "NAME", conflicts_with = "autoscale")]
    pub(super) script: Option<Script>,
    /// Flags for each node: see kringle --help
    #[arg(last = true, value_name = "FLAGS")]
    node_flags: Vec<String>,
}

/// The demonstrations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Script {
    /// The owners of a key die one by one, and come back
    Failover,
    /// The same for every mode: what still works, and what is refused
    AllModes,
    /// A node joins, two die, writes go on with hints, and everything comes together again
    Dynamo,
}

/// A span of time above 0: seconds with `s` or without, or with `ms` or `m`.
fn time(text: &str) -> Result<Duration, String> {
    let units = [("ms", 0.001), ("m", 60.0), ("s", 1.0)];
    let named = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (number, factor) = named.unwrap_or((text, 1.0));
    let seconds = number.parse::<f64>().ok().map(|number| number * factor);
    match seconds.filter(|seconds| (0.01..=3_600.0).contains(seconds)) {
        Some(seconds) => Ok(Duration::from_secs_f64(seconds)),
        None => Err("a time from 10ms to 60m, such as 2s".into()),
    }
}

impl Arguments {
    /// What no argument can know alone. The error is a line for people.
    pub(super) fn check(&self) -> Result<(), String> {
        for flag in &self.node_flags {
            let name = flag.split('=').next().unwrap_or_default();
            if TAKEN.contains(&name) {
                return Err(format!("{name} behind the two dashes is the demo's own to set"));
            }
        }
        if self.autoscale && self.nodes.is_some_and(|nodes| nodes > self.max_nodes) {
            return Err(format!("--nodes is more than --max-nodes {}", self.max_nodes));
        }
        if let Some(line) = self.nodes.and_then(|nodes| self.check_count(nodes)) {
            return Err(line);
        }
        if self.script == Some(Script::Dynamo) && self.mode != Mode::Sloppy {
            return Err("the script dynamo is about the mode sloppy: leave --mode out".into());
        }
        let words = std::iter::once("kringle".to_owned()).chain(self.flags("demo"));
        let nobody = |_: &std::path::Path| Err(io::ErrorKind::NotFound.into());
        match Settings::load(words, std::iter::empty::<(String, String)>(), nobody) {
            Ok(Load::Run(_)) => Ok(()),
            Ok(_) => Err("what stands behind the two dashes is no flag of a node".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Why this is no number of nodes for the script, if it is none. The nodes that are in a folder already count as well.
    pub(super) fn check_count(&self, nodes: u32) -> Option<String> {
        let (least, most) = (SCRIPT_NODES.start(), SCRIPT_NODES.end());
        let is_wrong = self.script.is_some() && !SCRIPT_NODES.contains(&nodes);
        is_wrong.then(|| {
            format!(
                "a script takes --nodes {least} to {most}, and not {nodes}: it kills two of the three owners of a key"
            )
        })
    }

    /// What every node is started with, besides port, folder and peers, in a cluster of this name.
    pub(super) fn flags(&self, cluster: &str) -> Vec<String> {
        let given = |name: &str| self.node_flags.iter().any(|flag| flag.split('=').next() == Some(name));
        let mut flags = vec!["--mode".to_owned(), self.mode.to_string(), "--faults".to_owned()];
        let own = [("--cluster", cluster)];
        for (name, value) in own.iter().chain(QUICK).filter(|(name, _)| !given(name)) {
            flags.extend([(*name).to_owned(), (*value).to_owned()]);
        }
        let has_no_limit = self.max_keys.is_none() && self.max_load.is_none();
        let keys = self.max_keys.or((self.autoscale && has_no_limit).then_some(KEYS));
        for (name, limit) in [("--max-keys", keys), ("--max-load", self.max_load)] {
            flags.extend(limit.iter().flat_map(|limit| [name.to_owned(), limit.to_string()]));
        }
        flags.extend(self.node_flags.iter().cloned());
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_a_unit() {
        for (text, ms) in [("2s", 2_000), ("0.5", 500), ("250ms", 250), ("1m", 60_000)] {
            assert_eq!(time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "0", "-1s", "1h", "nan", "5ms", "61m", "2ss"] {
            assert!(time(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_together_is_told_in_one_line() {
        let refused = |words: &[&str]| {
            let arguments = Arguments::try_parse_from(["demo"].iter().chain(words)).unwrap();
            let line = arguments.check().expect_err("nonsense");
            assert_eq!(line.lines().count(), 1, "{line}");
            line
        };
        assert!(refused(&["--autoscale", "--nodes", "4", "--max-nodes", "3"]).contains("--max-nodes 3"));
        assert!(refused(&["--script", "failover", "--nodes", "2"]).contains("--nodes 3"));
        assert!(refused(&["--script", "dynamo", "--mode", "quorum"]).contains("sloppy"));
        assert!(refused(&["--", "--port", "1"]).contains("--port"));
        assert!(refused(&["--", "--data=x"]).contains("--data"));
        assert!(refused(&["--", "--replicas", "0"]).contains("replicas"));
        assert!(refused(&["--", "health"]).contains("no flag"));
    }

    #[test]
    fn there_is_always_something_to_scale_by() {
        let limits = |words: &[&str]| {
            let arguments = Arguments::try_parse_from(["demo"].iter().chain(words)).unwrap();
            let flags = arguments.flags("demo");
            flags.windows(2).filter(|pair| pair[0].starts_with("--max-")).map(|pair| pair.join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(limits(&["--autoscale"]), ["--max-keys 1000"]);
        assert_eq!(limits(&["--autoscale", "--max-load", "50"]), ["--max-load 50"]);
        assert_eq!(limits(&["--max-keys", "7"]), ["--max-keys 7"]);
        assert_eq!(limits(&[]), [""; 0]);
    }

    #[test]
    fn flags_behind_the_dashes_stand_in_for_the_demos_own_choice() {
        let arguments = Arguments::try_parse_from(["demo", "--", "--pingfreq=2"]).unwrap();
        let flags = arguments.flags("demo");
        assert!(flags.contains(&"--pingfreq=2".to_owned()) && !flags.contains(&"--pingfreq".to_owned()), "{flags:?}");
    }
}
