//! `list`: the keys there are, as fast as they are read, and from whatever node goes on.

use crate::arguments::modes;
use crate::exit::{Exit, Failed};
use crate::lines::Lines;
use crate::session::Session;
use crate::show::{Column, Unit, printable};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kringle::remote::{Ask, Failure, query};
use serde_json::Value;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// How often a list that breaks off is gone on with while nothing more comes of it.
const VAIN_MAX: usize = 8;
/// How long nobody is asked after nobody could be had.
const PAUSE: Duration = Duration::from_millis(250);

/// Lists keys, in the order of their bytes
///
/// Memory does not grow with the list. Where a node dies in the middle, another goes on from there. A key a line; with -o
/// json an object a line.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl list
  kringlectl list fruit/ --long
  kringlectl list --delimiter /          as the folders of a file system
  kringlectl list fruit/ --values -o json > fruit.ndjson
  kringlectl list --start m --limit 10")]
pub struct List {
    /// Only keys that begin so
    #[arg(default_value = "", hide_default_value = true)]
    prefix: OsString,
    /// Shows keys that have this behind the prefix as one
    #[arg(long, short = 'd', value_name = "TEXT")]
    delimiter: Option<OsString>,
    /// From this key on
    #[arg(long, value_name = "KEY")]
    start: Option<OsString>,
    /// So many at most
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// With values
    #[arg(long)]
    values: bool,
    /// With size, concurrent values and content type
    #[arg(long, short = 'l')]
    long: bool,
    /// How to read; the cluster's mode unless given
    #[arg(long, value_parser = modes())]
    mode: Option<String>,
    /// Owners to ask of each partition, in the modes that do not agree
    #[arg(long, value_name = "N")]
    r: Option<u8>,
}

const COLUMNS: &[Column] = &[
    Column("key", Unit::Text),
    Column("key_base64", Unit::Text),
    Column("prefix", Unit::Text),
    Column("size", Unit::Text),
    Column("siblings", Unit::Text),
    Column("content_type", Unit::Text),
    Column("expires", Unit::Text),
    Column("etag", Unit::Text),
];
const COLUMNS_OF_VALUES: &[Column] = &[
    Column("key", Unit::Text),
    Column("key_base64", Unit::Text),
    Column("prefix", Unit::Text),
    Column("value", Unit::Text),
    Column("value_base64", Unit::Text),
    Column("size", Unit::Text),
    Column("siblings", Unit::Text),
    Column("content_type", Unit::Text),
    Column("expires", Unit::Text),
    Column("etag", Unit::Text),
];

/// From where a list goes on.
enum From {
    Start(Vec<u8>),
    Cursor(String),
}

/// How one node's part of a list ended.
enum Ended {
    Whole,
    Broken(Failed),
}

impl List {
    /// Shows all there is.
    pub async fn run(&self, session: &mut Session) -> Result<Exit, Failed> {
        session.acquaint().await;
        session.show.head(if self.values { COLUMNS_OF_VALUES } else { COLUMNS })?;
        let mut from = From::Start(self.start.as_ref().map(|start| start.as_bytes().to_vec()).unwrap_or_default());
        let (mut shown, mut vain) = (0, 0);
        loop {
            let before = shown;
            match self.part(session, &mut from, &mut shown).await? {
                Ended::Whole => return Ok(Exit::Ok),
                Ended::Broken(why) => {
                    vain = if shown > before { 0 } else { vain + 1 };
                    if vain >= VAIN_MAX {
                        return Err(why);
                    }
                    if self.limit.is_some_and(|limit| shown >= limit) {
                        return Ok(Exit::Ok);
                    }
                    talk!("note: {}; going on from there", why.error);
                }
            }
        }
    }

    async fn part(&self, session: &Session, from: &mut From, shown: &mut u64) -> Result<Ended, Failed> {
        let limit = self.limit.map(|limit| (limit - *shown).to_string());
        let plain = [
            ("mode", self.mode.clone()),
            ("r", self.r.map(|r| r.to_string())),
            ("values", self.values.then(|| "1".into())),
            ("limit", limit),
        ];
        let mut parameters: Vec<(&str, &[u8])> = vec![("prefix", self.prefix.as_bytes())];
        if let Some(delimiter) = &self.delimiter {
            parameters.push(("delimiter", delimiter.as_bytes()));
        }
        match from {
            From::Start(key) => parameters.push(("start", key)),
            From::Cursor(word) => parameters.push(("cursor", word.as_bytes())),
        }
        parameters.extend(plain.iter().filter_map(|(name, value)| Some((*name, value.as_ref()?.as_bytes()))));
        let ask = Ask::get(query("/kv", parameters)).header("accept", "application/x-ndjson");
        let answering = match session.remote.stream(&ask).await {
            Ok(answering) => answering.successful().await,
            Err(failure) => Err(failure),
        };
        let answering = match answering {
            Ok(answering) => answering,
            // What has begun is not given up for one moment in which nobody can be had.
            Err(failure) if *shown > 0 => {
                tokio::time::sleep(PAUSE).await;
                return Ok(Ended::Broken(failure.into()));
            }
            Err(failure) => return Err(failure.into()),
        };
        if let Some(line) = answering.header("kringle-replicas") {
            talk!("warning: fewer owners than asked for have answered: {line}");
        }
        let mut lines = Lines::of(answering, session.timeout);
        let node = lines.from().to_owned();
        loop {
            let line = match lines.next().await {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(self.broke_off(session, &node, "the list was cut")),
                Err(failure) => return Ok(self.broke_off(session, &node, &failure.to_string())),
            };
            let item: Value = serde_json::from_slice(&line)
                .map_err(|error| Failure::Garbled { from: node.clone(), why: error.to_string() })?;
            if item["end"] == Value::Bool(true) {
                return Ok(Ended::Whole);
            }
            if let Some(error) = item["error"].as_str() {
                if let Some(cursor) = item["cursor"].as_str() {
                    *from = From::Cursor(cursor.to_owned());
                }
                return Ok(self.broke_off(session, &node, error));
            }
            self.show(session, &item)?;
            *shown += 1;
            match behind(&item) {
                Some(start) => *from = From::Start(start),
                None => return Ok(Ended::Whole),
            }
        }
    }

    /// What is left is asked of another node first.
    fn broke_off(&self, session: &Session, node: &str, why: &str) -> Ended {
        session.remote.turn_from(node);
        Ended::Broken(Failed::new(Exit::Unavailable, format!("{node}: {why}")))
    }

    fn show(&self, session: &Session, item: &Value) -> Result<(), Failed> {
        let columns = if self.values { COLUMNS_OF_VALUES } else { COLUMNS };
        session.show.item(item, columns, || {
            let key = printable(&name(item));
            if !item["prefix"].is_null() || !item["prefix_base64"].is_null() {
                return if self.long { format!("{:>10} {:>3}  {:<24}  {key}", "-", "-", "prefix") } else { key };
            }
            let mut text = match self.long {
                false => key,
                true => {
                    let kind = item["content_type"].as_str().unwrap_or("-");
                    format!("{:>10} {:>3}  {kind:<24}  {key}", item["size"].to_string(), item["siblings"].to_string())
                }
            };
            if self.values {
                text.push('\t');
                text.push_str(&printable(&bytes_of(item, "value")));
            }
            text
        })
    }
}

fn bytes_of(item: &Value, field: &str) -> Vec<u8> {
    match (item[field].as_str(), item[format!("{field}_base64")].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(word)) => STANDARD.decode(word).unwrap_or_default(),
        (None, None) => Vec::new(),
    }
}

/// The key of an item, or the prefix that it is.
fn name(item: &Value) -> Vec<u8> {
    let key = bytes_of(item, "key");
    if key.is_empty() { bytes_of(item, "prefix") } else { key }
}

/// The first key that may stand behind an item; `None` where none can.
fn behind(item: &Value) -> Option<Vec<u8>> {
    let key = bytes_of(item, "key");
    if !key.is_empty() {
        return Some([&key[..], b"\0"].concat());
    }
    // Behind all keys that begin with the prefix.
    let mut prefix = bytes_of(item, "prefix");
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            return Some(prefix);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_goes_on_behind_what_was_shown() {
        let behind = |item| behind(&item);
        assert_eq!(behind(json!({ "key": "a" })), Some(b"a\0".to_vec()));
        assert_eq!(behind(json!({ "key_base64": "/w==" })), Some(b"\xff\0".to_vec()));
        assert_eq!(behind(json!({ "prefix": "fruit/" })), Some(b"fruit0".to_vec()));
        assert_eq!(behind(json!({ "prefix_base64": "Yf8=" })), Some(b"b".to_vec()));
        assert_eq!(behind(json!({ "prefix_base64": "/w==" })), None);
    }
}
