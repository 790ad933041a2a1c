//! What may be typed: the options of all verbs, and the verbs.

use crate::bench::Bench;
use crate::bulk;
use crate::exit;
use crate::verbs::{batch, change, context, health, kv, list, locate, members, paper, shell, sync, top, watch};
use clap::builder::PossibleValuesParser;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use kringle::config::PeerUrl;
use std::ffi::OsString;
use std::time::Duration;

/// Asks and changes a Kringle cluster over its HTTP API.
#[derive(Parser, Debug)]
#[command(name = "kringlectl", version, after_help = AFTER_HELP.as_str(), max_term_width = 100)]
#[command(infer_subcommands = true, subcommand_required = true, arg_required_else_help = true)]
pub struct Arguments {
    #[command(flatten)]
    pub options: Options,
    #[command(subcommand)]
    pub verb: Verb,
}

static AFTER_HELP: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| format!("{EXAMPLES}\n\n{}", exit::TABLE));

const EXAMPLES: &str = "\
Examples:
  kringlectl put hello world && kringlectl get hello
  kringlectl --endpoint node1,node2,node3 status
  kringlectl context add home node1 node2 && kringlectl context use home

Where no endpoint is given, and none in KRINGLE_ENDPOINTS, the context says them: that of
--context, else the current one; else it is http://localhost:8001.";

/// What every verb takes.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Options of every verb")]
pub struct Options {
    /// A node to ask; repeated, or a comma list: the next is tried where one does not answer
    #[arg(
        long = "endpoint",
        short = 'e',
        global = true,
        env = "KRINGLE_ENDPOINTS",
        hide_env_values = true,
        value_delimiter = ','
    )]
    #[arg(value_name = "URL", value_parser = endpoint)]
    pub endpoints: Vec<PeerUrl>,
    /// The cluster of this name in the file of contexts
    #[arg(long, global = true, env = "KRINGLE_CONTEXT", hide_env_values = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Measures all endpoints first, and asks the fastest
    #[arg(long, global = true)]
    pub fastest: bool,
    /// Seconds that one request may take, on all endpoints together
    #[arg(
        long,
        global = true,
        env = "KRINGLE_TIMEOUT",
        hide_env_values = true,
        value_name = "SECONDS",
        default_value = "10"
    )]
    #[arg(value_parser = seconds)]
    pub timeout: Duration,
    /// How to show data; json and csv are for programs
    #[arg(long, short = 'o', global = true, value_name = "FORM", default_value = "table")]
    pub output: Form,
}

/// How data is shown.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    Table,
    Json,
    Csv,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Verb {
    Get(kv::Get),
    Put(kv::Put),
    Del(kv::Del),
    Incr(kv::Incr),
    List(list::List),
    Watch(watch::Watch),
    Batch(batch::Batch),
    Status(members::Status),
    Members(members::Members),
    Ring(members::Ring),
    Locate(locate::Locate),
    #[command(subcommand)]
    Sync(sync::Sync),
    Mode(change::Mode),
    Replicas(change::Replicas),
    Join(change::Join),
    Leave(change::Leave),
    Remove(change::Remove),
    Replace(change::Replace),
    Drain(change::Drain),
    Abandon(change::Abandon),
    Health(health::Health),
    Bench(Box<Bench>),
    Export(bulk::Export),
    Import(bulk::Import),
    Backup(bulk::Backup),
    Restore(bulk::Restore),
    Top(top::Top),
    Shell(shell::Shell),
    #[command(subcommand)]
    Context(context::Context),
    Completions(paper::Completions),
    Man(paper::Man),
}

impl Arguments {
    /// Reads what was typed. What was typed outranks the environment also where the two are different options.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Arguments, clap::Error> {
        let matches = Arguments::command().try_get_matches_from(words)?;
        let mut arguments = Arguments::from_arg_matches(&matches)?;
        match (source(&matches, "endpoints"), source(&matches, "context")) {
            (Some(ValueSource::CommandLine), Some(ValueSource::CommandLine)) => {
                let text = "--endpoint and --context name two clusters: give one of them";
                return Err(Arguments::command().error(clap::error::ErrorKind::ArgumentConflict, text));
            }
            (Some(ValueSource::EnvVariable), Some(ValueSource::CommandLine)) => arguments.options.endpoints.clear(),
            _ => {}
        }
        Ok(arguments)
    }

    /// The same inside a shell, whose own options are those of every line that does not say otherwise. Whether the line
    /// names another cluster, or another way to it, than the shell's.
    pub fn read_inside(words: Vec<OsString>, outer: &Options) -> Result<(Arguments, bool), clap::Error> {
        let words = std::iter::once(OsString::from("kringlectl")).chain(words);
        let matches = inside().try_get_matches_from(words)?;
        let mut arguments = Arguments::from_arg_matches(&matches)?;
        let typed = |name| source(&matches, name) == Some(ValueSource::CommandLine);
        let options = &mut arguments.options;
        if !typed("output") {
            options.output = outer.output;
        }
        if !typed("timeout") {
            options.timeout = outer.timeout;
        }
        let is_elsewhere = ["endpoints", "context", "fastest"].into_iter().any(typed);
        if !typed("endpoints") && !typed("context") {
            (options.endpoints, options.context) = (outer.endpoints.clone(), outer.context.clone());
        } else if !typed("endpoints") {
            options.endpoints.clear();
        }
        Ok((arguments, is_elsewhere))
    }
}

/// The definition, as lines of a shell are read by: without the name of the program.
pub fn inside() -> clap::Command {
    let says = "exit or end of input ends it, help VERB explains one; # begins a remark, quotes keep words together.";
    Arguments::command().help_template("{subcommands}\n\n{after-help}").after_help(says)
}

fn source(matches: &ArgMatches, name: &str) -> Option<ValueSource> {
    matches.value_source(name)
}

fn endpoint(text: &str) -> Result<PeerUrl, String> {
    text.parse().map_err(|error: kringle::config::Nonsense| error.to_string())
}

/// The modes, by name.
pub fn modes() -> PossibleValuesParser {
    PossibleValuesParser::new(["sloppy", "async", "quorum", "sync", "chain"])
}

/// A span of more than nothing.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "is no number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(span) if !span.is_zero() => Ok(span),
        _ => Err("must be more than 0".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_contradicts_itself_nowhere() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_is_typed_behind_the_verb_counts_as_well() {
        let words = ["kringlectl", "get", "a", "-e", "n1,n2", "-o", "json", "--timeout", "2.5"];
        let read = Arguments::read(words.map(OsString::from)).unwrap();
        assert_eq!(read.options.endpoints.len(), 2);
        assert_eq!(read.options.output, Form::Json);
        assert_eq!(read.options.timeout, Duration::from_millis(2500));
        let both = ["kringlectl", "get", "a", "-e", "n1", "--context", "home"];
        assert!(Arguments::read(both.map(OsString::from)).is_err());
    }
}
