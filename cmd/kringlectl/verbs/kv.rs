//! One key: `get`, `put`, `del`, `incr`.

use crate::arguments::{Form, modes, seconds};
use crate::exit::{Exit, Failed};
use crate::session::Session;
use crate::show::{Column, Table, Unit, counted, printable};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kringle::node::random;
use kringle::remote::{Answer, Ask, Failure, query, segment};
use serde_json::{Map, Value, json};
use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// The value of a key
///
/// The bytes as they are go to standard output. --json, or -o json, gives an object around them, with what a conditional
/// or a causal write needs; "value_base64" where the value is not UTF-8.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl get recipes/kringle > kringle.txt
  kringlectl get hello --json | jq -r .etag
  kringlectl get cart --siblings         all concurrent values, the winner first
  kringlectl get cart --one              exit code 4 where there are several
  kringlectl get lock --mode quorum      linearizable")]
pub struct Get {
    /// The key
    key: OsString,
    /// An object with key, value, context, etag, siblings, content type and expiry; as -o json
    #[arg(long)]
    json: bool,
    /// All concurrent values, the winner first
    #[arg(long)]
    siblings: bool,
    /// Fails with exit code 4 where there are several values
    #[arg(long, conflicts_with = "siblings")]
    one: bool,
    /// Only what the node that is asked holds itself
    #[arg(long, conflicts_with_all = ["mode", "r"])]
    local: bool,
    /// How to read; the cluster's mode unless given
    #[arg(long, value_parser = modes())]
    mode: Option<String>,
    /// Owners to ask, in the modes that do not agree
    #[arg(long, value_name = "N")]
    r: Option<u8>,
    /// Nothing older than what the answer with this context showed
    #[arg(long, value_name = "WORD")]
    kringle_context: Option<String>,
}

/// Stores a value under a key
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl put hello world
  kringlectl put photo --file kringle.jpg --content-type image/jpeg
  date | kringlectl put now -
  kringlectl put session abc --ttl 30                             gone after 30 s
  kringlectl put lock mine --if-none-match --mode quorum          creates only
  kringlectl put lock yours --if-match 019a... --mode quorum      replaces that version only")]
pub struct Put {
    /// The key
    key: OsString,
    /// The value; - reads it from standard input
    #[arg(required_unless_present = "file", conflicts_with = "file", allow_hyphen_values = true)]
    value: Option<OsString>,
    /// Reads the value from this file
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Seconds to live
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    ttl: Option<Duration>,
    /// Kept with the value
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    #[command(flatten)]
    terms: Terms,
}

/// Deletes a key; also when there is nothing
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl del hello
  kringlectl del lock --if-match 019a... --mode quorum
  kringlectl del cart --kringle-context \"$(kringlectl get cart --json | jq -r .context)\"")]
pub struct Del {
    /// The key
    key: OsString,
    #[command(flatten)]
    terms: Terms,
}

/// Adds to a counter, and shows its value
///
/// The request carries a name, so that a repetition counts once wherever the first has arrived. Where the answer is lost,
/// another endpoint is asked by itself only with --mode quorum, sync or chain, whose owners agree, or with --id; else the
/// exit code is 6, and the hint says how to repeat it. Across a split only --mode quorum promises that it counts once.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl incr visits
  kringlectl incr visits --by -3
  kringlectl incr visits --id order-77   a repetition within ten minutes counts once")]
pub struct Incr {
    /// The key
    key: OsString,
    /// How much to add
    #[arg(long, default_value = "1", allow_hyphen_values = true, value_name = "N")]
    by: i64,
    /// The request's name, of 1 to 255 bytes; a random one unless given
    #[arg(long, value_name = "WORD")]
    id: Option<String>,
    /// How to write; the cluster's mode unless given
    #[arg(long, value_parser = modes())]
    mode: Option<String>,
    /// Owners to wait for, in the modes that do not agree
    #[arg(long, value_name = "N")]
    w: Option<u8>,
}

/// What a write asks for.
#[derive(clap::Args, Debug)]
struct Terms {
    /// How to write; the cluster's mode unless given
    #[arg(long, value_parser = modes())]
    mode: Option<String>,
    /// Owners to wait for, in the modes that do not agree
    #[arg(long, value_name = "N")]
    w: Option<u8>,
    /// Only where this is the version there is, with or without its quotes; * for any. Needs --mode quorum
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
    /// Only where there is no value. Needs --mode quorum
    #[arg(long, conflicts_with = "if_match")]
    if_none_match: bool,
    /// Replaces what the answer with this context showed, and nothing else
    #[arg(long, value_name = "WORD")]
    kringle_context: Option<String>,
}

/// What is shown of a value.
const VALUE: &[Column] = &[
    Column("key", Unit::Text),
    Column("value", Unit::Text),
    Column("value_base64", Unit::Text),
    Column("etag", Unit::Text),
    Column("siblings", Unit::Text),
    Column("content_type", Unit::Text),
    Column("expires", Unit::Text),
    Column("context", Unit::Text),
];
const SIBLING: &[Column] = &[
    Column("value", Unit::Text),
    Column("value_base64", Unit::Text),
    Column("content_type", Unit::Text),
    Column("expires", Unit::Text),
    Column("stamp", Unit::Text),
    Column("actor", Unit::Text),
];
const WRITTEN: &[Column] = &[
    Column("key", Unit::Text),
    Column("result", Unit::Text),
    Column("value", Unit::Text),
    Column("etag", Unit::Text),
    Column("wanted", Unit::Text),
    Column("acked", Unit::Text),
    Column("hinted", Unit::Text),
    Column("context", Unit::Text),
];

/// Adds bytes as text, or as base64 under a name that says so.
fn put_bytes(object: &mut Value, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object[name] = json!(text),
        Err(_) => object[format!("{name}_base64")] = json!(STANDARD.encode(bytes)),
    }
}

/// `path`, and those of the parameters that were given.
pub fn path<'a>(path: &str, parameters: &'a [(&'a str, Option<String>)]) -> String {
    query(path, parameters.iter().filter_map(|(name, value)| Some((*name, value.as_ref()?.as_bytes()))))
}

fn kv(key: &OsStr) -> String {
    format!("/kv/{}", segment(key.as_bytes()))
}

/// `wanted=3, acked=2` as numbers by name.
fn replicas(answer: &Answer) -> Map<String, Value> {
    let parts = answer.header("kringle-replicas").unwrap_or_default().split(',');
    let parts = parts.filter_map(|part| part.trim().split_once('='));
    parts.filter_map(|(name, number)| Some((name.to_owned(), json!(number.parse::<u64>().ok()?)))).collect()
}

impl Get {
    /// Asks and shows.
    pub async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        let switch = |on: bool| on.then(|| "1".to_owned());
        let parameters = [
            ("mode", self.mode.clone()),
            ("r", self.r.map(|r| r.to_string())),
            ("local", switch(self.local)),
            ("siblings", switch(self.siblings)),
        ];
        let mut ask = Ask::get(path(&kv(&self.key), &parameters));
        if let Some(context) = &self.kringle_context {
            ask = ask.header("kringle-context", context);
        }
        let answer = session.remote.ask(&ask).await?.successful()?;
        let heard = replicas(&answer);
        if let (Some(wanted), Some(answered)) = (heard.get("wanted"), heard.get("answered")) {
            talk!("warning: {answered} of the {wanted} owners asked for have answered");
        }
        let count = answer.header("kringle-siblings").and_then(|count| count.parse::<u64>().ok()).unwrap_or(1);
        if self.siblings {
            return self.all(session, &answer);
        }
        if count > 1 && self.one {
            let error = format!("the key has {count} concurrent values, and one was asked for");
            let hint = "--siblings shows them; put what they come to with their --kringle-context";
            return Err(Failed::new(Exit::Conflict, error).hint(hint));
        }
        if count > 1 {
            talk!("note: {count} concurrent values, this is the newest; --siblings shows all");
        }
        match session.show.form() {
            Form::Table if !self.json => {
                session.show.bytes(&answer.body)?;
                // A prompt behind it would stand on the same line.
                if std::io::stdout().is_terminal() && !answer.body.ends_with(b"\n") {
                    session.show.line("")?;
                }
            }
            form => {
                let mut value = json!({
                    "etag": answer.header("etag"), "siblings": count, "context": answer.header("kringle-context"),
                    "content_type": answer.header("content-type"),
                    "expires": answer.header("kringle-expires").and_then(|ms| ms.parse::<u64>().ok()),
                });
                put_bytes(&mut value, "key", self.key.as_bytes());
                put_bytes(&mut value, "value", &answer.body);
                match form == Form::Csv && !self.json {
                    false => session.show.json(&value)?,
                    true => session.show.data(&value, &Table { columns: VALUE, rows: &[value.clone()] })?,
                }
            }
        }
        Ok(Exit::Ok)
    }

    fn all(&self, session: &Session, answer: &Answer) -> Result<Exit, Failed> {
        let body = answer.object()?;
        if self.json {
            session.show.json(&body)?;
            return Ok(Exit::Ok);
        }
        let rows = body["siblings"].as_array().cloned().unwrap_or_default();
        session.show.data(&body, &Table { columns: SIBLING, rows: &rows })?;
        Ok(Exit::Ok)
    }
}

impl Terms {
    /// The parameters, and the headers.
    fn of(&self, method: fn(String) -> Ask, key: &OsStr, ttl: Option<Duration>) -> Ask {
        let parameters = [
            ("mode", self.mode.clone()),
            ("w", self.w.map(|w| w.to_string())),
            ("ttl", ttl.map(|ttl| ttl.as_secs_f64().to_string())),
        ];
        let mut ask = method(path(&kv(key), &parameters));
        if let Some(etag) = &self.if_match {
            // Shells eat quotes.
            let is_bare = !etag.is_empty() && etag.bytes().all(|byte| byte.is_ascii_hexdigit());
            ask = ask.header("if-match", if is_bare { format!("\"{etag}\"") } else { etag.clone() });
        }
        if self.if_none_match {
            ask = ask.header("if-none-match", "*");
        }
        if let Some(context) = &self.kringle_context {
            ask = ask.header("kringle-context", context);
        }
        ask
    }
}

/// Tells how a write went.
fn told(session: &Session, key: &OsStr, result: &str, answer: &Answer, value: Option<Value>) -> Result<Exit, Failed> {
    let mut shown = json!({
        "result": result, "etag": answer.header("etag"), "context": answer.header("kringle-context"),
    });
    put_bytes(&mut shown, "key", key.as_bytes());
    let replicas = replicas(answer);
    for (name, number) in &replicas {
        shown[name] = number.clone();
    }
    let number = |name: &str| replicas.get(name).and_then(Value::as_u64).unwrap_or_default();
    let (wanted, acked, hinted) = (number("wanted"), number("acked"), number("hinted"));
    let text = match &value {
        Some(value) => value.to_string(),
        None => format!("{result}, on {acked} of {}", counted(wanted, "owner")),
    };
    if let Some(value) = value {
        shown["value"] = value;
    }
    if answer.status.as_u16() == 202 {
        talk!("warning: {acked} of {wanted} owners have it so far; other nodes keep {}", counted(hinted, "hint"));
    }
    session.show.head(WRITTEN)?;
    session.show.item(&shown, WRITTEN, || printable(text.as_bytes()))?;
    Ok(Exit::Ok)
}

impl Put {
    /// Stores, and tells on how many owners.
    pub async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        let value = self.value()?;
        let mut ask = self.terms.of(Ask::put, &self.key, self.ttl).body(value);
        if let Some(kind) = &self.content_type {
            ask = ask.header("content-type", kind);
        }
        let answer = session.remote.ask(&ask).await?.successful()?;
        let result = match answer.status.as_u16() {
            201 => "created",
            204 => "replaced",
            _ => "stored",
        };
        told(session, &self.key, result, &answer, None)
    }

    fn value(&self) -> Result<Vec<u8>, Failed> {
        let mut value = Vec::new();
        match (&self.file, &self.value) {
            (Some(path), _) if path.as_os_str() != "-" => {
                let named = |error| Failed::usage(format!("{}: {error}", path.display()));
                value = std::fs::read(path).map_err(named)?;
            }
            (None, Some(typed)) if typed != "-" => value = typed.as_bytes().to_vec(),
            _ => drop(std::io::stdin().lock().read_to_end(&mut value)?),
        }
        Ok(value)
    }
}

impl Del {
    /// Deletes, and tells on how many owners.
    pub async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        let ask = self.terms.of(Ask::delete, &self.key, None);
        let answer = session.remote.ask(&ask).await?.successful()?;
        told(session, &self.key, "deleted", &answer, None)
    }
}

impl Incr {
    /// Counts, and shows the sum.
    pub async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        let parameters = [("mode", self.mode.clone()), ("w", self.w.map(|w| w.to_string()))];
        let counter = format!("/counters/{}", segment(self.key.as_bytes()));
        let id = self.id.clone().unwrap_or_else(|| format!("{:016x}{:016x}", random(), random()));
        let ask = Ask::post(path(&counter, &parameters)).json(&json!({ "by": self.by }));
        let mut ask = ask.header("idempotency-key", id.as_str());
        if self.is_repeatable() {
            ask = ask.repeatable();
        }
        let answer = session.remote.ask(&ask).await.and_then(Answer::successful);
        let answer = answer.map_err(|failure| Incr::repetition(failure, &id))?;
        // Parts from both sides of a split may leave 64 bits, which serde_json would turn into a float.
        let text = String::from_utf8_lossy(&answer.body);
        let digits = text.trim().trim_start_matches("{\"value\":").trim_end_matches('}');
        let value = match digits.parse::<i64>() {
            Ok(value) => json!(value),
            Err(_) => json!(digits),
        };
        told(session, &self.key, "counted", &answer, Some(value))
    }

    /// Whether another endpoint may be asked where the answer is lost. Owners that agree know the name on whichever node it
    /// arrives; otherwise the first may have counted alone, and the second does not know yet: then whoever chose the name
    /// has to say so.
    fn is_repeatable(&self) -> bool {
        self.id.is_some() || matches!(self.mode.as_deref(), Some("quorum" | "sync" | "chain"))
    }

    /// How to repeat it, where it may have counted, or may yet.
    fn repetition(failure: Failure, id: &str) -> Failed {
        let is_said = matches!(failure, Failure::Refused { .. });
        let failed = Failed::from(failure);
        let repeated = format!("repeat it with --id {id}: it counts once wherever it has arrived");
        let hint = match (failed.exit, &failed.hint) {
            (Exit::TimedOut, _) => format!("look at the counter, or {repeated}"),
            (Exit::Unavailable, Some(said)) if is_said => format!("{said}; {repeated}"),
            _ => return failed,
        };
        failed.hint(hint)
    }
}
