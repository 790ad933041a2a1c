//! The layers laid over each other: for each setting the text of the highest layer that has it.

use super::error::{did_you_mean, one_line, variable};
use super::setting::CONFIG;
use super::{ConfigError, Nonsense, Origin, SETTINGS};
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use toml::de::{DeTable, DeValue};

/// Variables of this program that are no settings of a node: `KRINGLE_URL` is the node that `kringle health` asks.
pub(super) const URL_VARIABLE: &str = "KRINGLE_URL";

/// Variables that tests pass to themselves.
const TEST_PREFIX: &str = "KRINGLE_TEST_";

/// What a setting is and who said so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// The setting, by its row in [`SETTINGS`].
    pub name: &'static str,
    /// The value as it was written, or the rule of its default.
    pub text: String,
    /// The layer.
    pub origin: Origin,
}

/// Texts by setting, from the highest layer that has one. A setting that is in none is absent.
#[derive(Default)]
pub(super) struct Layers {
    given: BTreeMap<&'static str, (String, Origin)>,
    /// The settings somebody has read, to be held against the table.
    read: Vec<&'static str>,
}

impl Layers {
    /// Lays the flags (if this is a start and not a question), the environment and the file over each other.
    /// `read_file` is asked at most once.
    pub(super) fn gather(
        flags: Option<&ArgMatches>,
        environment: &BTreeMap<String, OsString>,
        read_file: impl FnOnce(&Path) -> io::Result<String>,
    ) -> Result<Layers, ConfigError> {
        let mut layers = Layers::default();
        if let Some(matches) = flags {
            layers.add_flags(matches);
        }
        layers.add_environment(environment)?;
        if let Some((file, origin)) = layers.given.get(CONFIG).cloned() {
            let text = read_file(Path::new(&file)).map_err(|error| ConfigError::File {
                place: format!("{}: {}", origin.place(CONFIG), one_line(&file)),
                reason: one_line(&error.to_string()),
            })?;
            layers.add_file(&file, &text)?;
        }
        Ok(layers)
    }

    fn add_flags(&mut self, matches: &ArgMatches) {
        for setting in SETTINGS {
            if matches.value_source(setting.name) == Some(ValueSource::CommandLine)
                && let Some(text) = matches.get_one::<String>(setting.name)
            {
                self.given.insert(setting.name, (text.clone(), Origin::Flag));
            }
        }
    }

    /// An empty variable counts as not set: that is what `${PORT:-}` in a compose file leaves behind.
    fn add_environment(&mut self, environment: &BTreeMap<String, OsString>) -> Result<(), ConfigError> {
        for (name, value) in environment {
            if value.is_empty() || is_foreign(name, value) {
                continue;
            }
            let Some(setting) = SETTINGS.iter().find(|setting| variable(setting.name) == *name) else {
                let known = SETTINGS.iter().map(|setting| variable(setting.name));
                return Err(ConfigError::Unknown {
                    place: format!("environment {}", one_line(name)),
                    suggestion: nearest(name, known),
                });
            };
            let Some(text) = value.to_str() else {
                let nonsense = Nonsense::new(&value.to_string_lossy(), "is not UTF-8");
                return Err(ConfigError::Value { setting: setting.name, origin: Origin::Environment, nonsense });
            };
            self.given.entry(setting.name).or_insert_with(|| (text.to_owned(), Origin::Environment));
        }
        Ok(())
    }

    fn add_file(&mut self, path: &str, text: &str) -> Result<(), ConfigError> {
        let path: Arc<str> = one_line(path).into();
        let line_at = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        let table = DeTable::parse(text).map_err(|error| ConfigError::File {
            place: error.span().map_or(path.to_string(), |span| format!("{path}:{}", line_at(span.start))),
            reason: one_line(error.message()),
        })?;
        // In the order of the file, so that the first mistake is the one reported.
        let mut entries: Vec<_> = table.get_ref().iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let line = line_at(key.span().start);
            let known = SETTINGS.iter().map(|setting| setting.name).filter(|name| *name != CONFIG);
            let Some(name) = known.clone().find(|name| *name == key.get_ref().as_ref()) else {
                return Err(ConfigError::Unknown {
                    place: format!("{path}:{line}: {}", one_line(key.get_ref())),
                    suggestion: nearest(key.get_ref(), known.map(str::to_owned)),
                });
            };
            let origin = Origin::File { path: path.clone(), line };
            let text = plain(value.get_ref()).map_err(|nonsense| ConfigError::Value {
                setting: name,
                origin: origin.clone(),
                nonsense,
            })?;
            self.given.entry(name).or_insert((text, origin));
        }
        Ok(())
    }

    /// Reads a setting that has a default value.
    pub(super) fn take<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Nonsense>,
    ) -> Result<T, ConfigError> {
        let source = self.source(name);
        self.read.push(name);
        parse(&source.text).map_err(|nonsense| ConfigError::Value { setting: name, origin: source.origin, nonsense })
    }

    /// Reads a setting whose default is a rule: `None` asks the caller to apply it.
    pub(super) fn take_given<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Nonsense>,
    ) -> Result<Option<T>, ConfigError> {
        if self.given.contains_key(name) {
            return self.take(name, parse).map(Some);
        }
        self.read.push(name);
        Ok(None)
    }

    /// The text and layer of a setting, its default if no layer has it.
    pub(super) fn source(&self, name: &'static str) -> Source {
        if let Some((text, origin)) = self.given.get(name) {
            return Source { name, text: text.clone(), origin: origin.clone() };
        }
        let row = SETTINGS.iter().find(|row| row.name == name);
        let row = row.unwrap_or_else(|| panic!("{name} is read but has no row in the table of settings"));
        Source { name, text: row.fallback.said().to_owned(), origin: Origin::Default }
    }

    /// Refuses a setting because of another one.
    pub(super) fn refuse(&self, name: &'static str, because: impl Into<String>) -> ConfigError {
        let Source { text, origin, .. } = self.source(name);
        ConfigError::Value { setting: name, origin, nonsense: Nonsense::new(&text, because.into()) }
    }

    /// Where every value came from, in the order of the table. Panics if a row of the table was never read.
    pub(super) fn into_sources(self) -> Vec<Source> {
        for row in SETTINGS {
            assert!(self.read.contains(&row.name), "{} has a row in the table of settings but is not read", row.name);
        }
        SETTINGS.iter().map(|row| self.source(row.name)).collect()
    }
}

/// The command line of the program, made from the table.
pub(super) fn command() -> Command {
    let settings = SETTINGS.iter().map(|row| {
        let arg = Arg::new(row.name).long(row.name).allow_negative_numbers(true);
        match row.value {
            // `--memory` alone, or `--memory=false` to overrule a file.
            "" => arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL"),
            value => arg.value_name(value),
        }
    });
    let url = Arg::new("url").long("url").value_name("URL");
    let health = Command::new("health").about("Ask a running node whether it is alive").arg(url);
    Command::new("kringle")
        .version(env!("CARGO_PKG_VERSION"))
        .override_help(super::help::node())
        .args(settings)
        .subcommand(health.override_help(super::help::health()))
}

/// A complaint of clap's in one line: its first paragraph, and the name it thinks was meant.
pub(super) fn squeezed(error: &clap::Error) -> ConfigError {
    let text = error.render().to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let first = one_line(first.trim_start_matches("error: "));
    let meant = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand].into_iter().find_map(|kind| match error
        .get(kind)
    {
        Some(ContextValue::String(name)) => Some(name.clone()),
        Some(ContextValue::Strings(names)) => names.first().cloned(),
        _ => None,
    });
    match meant {
        Some(_) => ConfigError::Arguments(format!("{first}{}", did_you_mean(&meant))),
        None => ConfigError::Arguments(format!("{first}; see kringle --help")),
    }
}

/// Whether a variable is none of ours though it begins like ours. Kubernetes describes every service to every
/// container, and a service called `kringle` becomes `KRINGLE_SERVICE_HOST`, `KRINGLE_PORT=tcp://10.0.0.1:8001`,
/// `KRINGLE_PORT_8001_TCP_ADDR` and more: a node must start beside its own service.
fn is_foreign(name: &str, value: &OsString) -> bool {
    let value = value.to_string_lossy();
    let described = name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || name.contains("_PORT_");
    let linked = name.ends_with("_PORT") && ["tcp://", "udp://", "sctp://"].iter().any(|url| value.starts_with(url));
    name == URL_VARIABLE || name.starts_with(TEST_PREFIX) || described || linked
}

/// A TOML value as the text a flag would have: lists with commas, everything else as written.
fn plain(value: &DeValue<'_>) -> Result<String, Nonsense> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(integer) if integer.radix() == 10 => Ok(integer.as_str().to_owned()),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map(|integer| integer.to_string())
            .map_err(|_| Nonsense::new(&integer.to_string(), "is too large")),
        DeValue::Float(float) => Ok(float.as_str().to_owned()),
        DeValue::Boolean(truth) => Ok(truth.to_string()),
        DeValue::Datetime(time) => Ok(time.to_string()),
        DeValue::Array(values) => {
            let texts: Result<Vec<String>, Nonsense> = values.iter().map(|value| plain(value.get_ref())).collect();
            Ok(texts?.join(","))
        }
        DeValue::Table(table) => {
            let first = table.keys().next().map_or("", |key| key.get_ref().as_ref());
            Err(Nonsense::new(first, "is inside a table, and settings are not grouped in tables"))
        }
    }
}

/// The name a slip of the keyboard away, if there is one: at most a third of the letters wrong.
fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let spelt = name.replace('_', "-").to_ascii_lowercase();
    let length = |candidate: &str| candidate.trim_start_matches("KRINGLE_").len();
    known
        .map(|candidate| (slips(&spelt, &candidate.replace('_', "-").to_ascii_lowercase()), candidate))
        // A name of one letter is one slip away from every other.
        .filter(|(slips, candidate)| *slips <= 1.max(length(candidate) / 3) && *slips < length(candidate))
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, drop, replace, or swap with their neighbour, to get from one word to the other (the
/// restricted Damerau–Levenshtein distance). Names longer than any setting could be are simply far away.
fn slips(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().take(64).collect(), to.chars().take(64).collect());
    let mut rows = vec![(0..=to.len()).collect::<Vec<usize>>()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut fewest = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                fewest = fewest.min(rows[i - 2][j - 2] + 1);
            }
            row.push(fewest);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}
