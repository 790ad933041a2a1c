//! What may be typed: the options of all verbs, and the verbs.

use crate::bulk;
use crate::exit;
use crate::verbs::kv;
use clap::{Parser, Subcommand, ValueEnum};
use kringle::config::PeerUrl;

/// Asks and changes a Kringle cluster over its HTTP API.
#[derive(Parser, Debug)]
#[command(name = "kringlectl", version, after_help = exit::TABLE, max_term_width = 100)]
#[command(infer_subcommands = true, subcommand_required = true, arg_required_else_help = true)]
pub struct Arguments {
    #[command(flatten)]
    pub options: Options,
    #[command(subcommand)]
    pub verb: Verb,
}

/// What every verb takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// A node to ask; repeated, or a comma list: the next is tried where one does not answer
    #[arg(long = "endpoint", short = 'e', global = true, env = "KRINGLE_ENDPOINTS", value_delimiter = ',')]
    #[arg(value_name = "URL", value_parser = endpoint)]
    pub endpoints: Vec<PeerUrl>,
    /// The cluster of this name in the file of contexts
    #[arg(long, global = true, env = "KRINGLE_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// Seconds that one request may take, on all endpoints together
    #[arg(long, global = true, env = "KRINGLE_TIMEOUT", value_name = "SECONDS", default_value = "10")]
    #[arg(value_parser = seconds)]
    pub timeout: std::time::Duration,
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
    Export(bulk::Export),
    Import(bulk::Import),
    Backup(bulk::Backup),
    Restore(bulk::Restore),
}

fn endpoint(text: &str) -> Result<PeerUrl, String> {
    text.parse().map_err(|error: kringle::config::Nonsense| error.to_string())
}

/// A span of more than nothing.
pub fn seconds(text: &str) -> Result<std::time::Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "is no number of seconds".to_owned())?;
    match std::time::Duration::try_from_secs_f64(seconds) {
        Ok(span) if !span.is_zero() => Ok(span),
        _ => Err("must be more than 0".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_contradicts_itself_nowhere() {
        Arguments::command().debug_assert();
    }
}
