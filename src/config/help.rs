//! What `--help` prints, made from the table and 80 columns wide.

use super::error::variable;
use super::{Heading, SETTINGS, Setting};
use std::fmt::Write;

/// Widest line, in characters: the narrowest terminal in common use.
const COLUMNS: usize = 80;

/// Where explanations begin.
const INDENT: usize = 10;

const EXAMPLES: &str = "\
Examples:
  A durable node on port 8001, its data in ./data/8001:
    kringle

  The first node of three on this machine:
    kringle --port 8001 --peers localhost:8001,localhost:8002,localhost:8003

  Five nodes on this machine, and a console to use, break and mend them:
    kringle demo --nodes 5

  Settings from a file, one of them overruled by the environment:
    KRINGLE_TIMEOUT=2.5 kringle --config config/kringle.toml
";

pub(super) fn node() -> String {
    let mut help = String::from(
        "Kringle: a replicated key-value store of equal peers that speak HTTP.\n\n\
         Usage: kringle [FLAGS]                 run a node\n       \
         kringle health [--url <URL>]    ask a running node whether it is alive\n       \
         kringle demo [--nodes <COUNT>]  a local cluster; see kringle demo --help\n\n",
    );
    help += &wrapped(
        "Each flag is also an environment variable, named below, and a key in the file given by --config. Flags win \
         over variables, variables over the file.",
        0,
    );
    for heading in Heading::ALL {
        _ = write!(help, "\n{}:\n", heading.title());
        for setting in SETTINGS.iter().filter(|setting| setting.heading == heading) {
            help += &entry(setting);
        }
    }
    help + "\nOther:\n  -h, --help\n          Print this\n  -V, --version\n          Print the version\n\n" + EXAMPLES
}

pub(super) fn health() -> String {
    let explained = wrapped(
        "The node to ask. Left out: KRINGLE_URL, or else the host and port that the environment and the file in \
         KRINGLE_CONFIG set for a node",
        INDENT,
    );
    format!(
        "Ask a running node whether it is alive (GET /healthz); exit code 0 if it is.\n\n\
         Usage: kringle health [--url <URL>]\n\n\
         \x20 --url <URL>\n{explained}          [default: http://127.0.0.1:8001] [env: KRINGLE_URL]\n"
    )
}

fn entry(setting: &Setting) -> String {
    let value = if setting.value.is_empty() { String::new() } else { format!(" <{}>", setting.value) };
    let told = wrapped(setting.help, INDENT);
    let known = format!("[default: {}] [env: {}]", setting.fallback.said(), variable(setting.name));
    format!("  --{}{value}\n{told}{:INDENT$}{known}\n", setting.name, "")
}

/// `text` in lines of at most [`COLUMNS`], each indented and ended.
fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > COLUMNS {
            _ = writeln!(lines, "{:indent$}{line}", "");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    _ = writeln!(lines, "{:indent$}{line}", "");
    lines
}
