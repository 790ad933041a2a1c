//! `watch`: changes as they are made, from whatever node goes on telling them.

use crate::exit::{Exit, Failed};
use crate::lines::Lines;
use crate::session::Session;
use crate::show::{Column, Unit, printable};
use kringle::remote::{Ask, Failure, query};
use serde_json::Value;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

/// Nodes say something every 15 s; one that has not for so long is dead, or hangs.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// How long nobody is asked after nobody could be had.
const PAUSE: Duration = Duration::from_millis(250);

/// Shows changes as they are made, until it is interrupted
///
/// Where the node that tells them dies, another goes on behind the last that was shown. What cannot be told any more, after
/// a restart say, is announced as a gap, on standard error.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl watch recipes/
  kringlectl watch --values -o json | jq .value
  kringlectl watch --events              what happens to nodes
  kringlectl watch --count 1             ends after the first
  kringlectl watch --wait 30             ends with what there is within 30 s, and says its --since
  kringlectl watch --since AQDfuKL...    goes on behind an id that was told")]
pub struct Watch {
    /// Only keys that begin so
    #[arg(default_value = "", hide_default_value = true, conflicts_with = "events")]
    prefix: OsString,
    /// Goes on behind the change with this id, on whatever node
    #[arg(long, value_name = "ID")]
    since: Option<String>,
    /// With values of up to 16 KiB
    #[arg(long, conflicts_with = "events")]
    values: bool,
    /// Ends with what there is, as soon as there is anything, or after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = crate::arguments::seconds)]
    wait: Option<Duration>,
    /// What happens to nodes, instead of keys
    #[arg(long)]
    events: bool,
    /// Ends after so many
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

const CHANGES: &[Column] = &[
    Column("event", Unit::Text),
    Column("key", Unit::Text),
    Column("key_base64", Unit::Text),
    Column("value", Unit::Text),
    Column("value_base64", Unit::Text),
    Column("siblings", Unit::Text),
    Column("etag", Unit::Text),
    Column("at_ms", Unit::Text),
    Column("node", Unit::Text),
    Column("id", Unit::Text),
];
const EVENTS: &[Column] = &[
    Column("at_ms", Unit::Text),
    Column("level", Unit::Text),
    Column("kind", Unit::Text),
    Column("node", Unit::Text),
    Column("text", Unit::Text),
    Column("id", Unit::Text),
];

/// One server-sent event, or the end of a heartbeat: an id alone.
#[derive(Default)]
struct Told {
    id: Option<String>,
    event: String,
    data: String,
}

impl Watch {
    /// Shows what is told.
    pub async fn run(&self, session: &mut Session) -> Result<Exit, Failed> {
        session.acquaint().await;
        session.show.head(if self.events { EVENTS } else { CHANGES })?;
        if let Some(wait) = self.wait {
            return self.poll(session, wait).await;
        }
        let (mut since, mut shown) = (self.since.clone(), 0);
        let mut silent_since: Option<Instant> = None;
        loop {
            let lines = match self.listen(session, since.as_deref()).await {
                Ok(lines) => lines,
                // It has been told before: nodes that come back are waited for.
                Err(failure) if since.is_some() && is_passing(&failure) => {
                    let begun = *silent_since.get_or_insert_with(|| {
                        talk!("note: {failure}; trying again");
                        Instant::now()
                    });
                    if begun.elapsed() > session.timeout.max(SILENCE_MAX) {
                        return Err(failure.into());
                    }
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(failure) => return Err(failure.into()),
            };
            silent_since = None;
            let node = lines.from().to_owned();
            match self.follow(session, lines, &mut since, &mut shown).await? {
                None => return Ok(Exit::Ok),
                Some(why) => {
                    session.remote.turn_from(&node);
                    talk!("note: {node}: {why}; going on with another node");
                }
            }
        }
    }

    fn ask(&self, since: Option<&str>, wait: Option<Duration>) -> Ask {
        let mut parameters: Vec<(&str, Vec<u8>)> = Vec::new();
        if !self.events {
            parameters.push(("prefix", self.prefix.as_bytes().to_vec()));
        }
        if self.values {
            parameters.push(("values", b"1".to_vec()));
        }
        if let Some(wait) = wait {
            parameters.push(("wait", wait.as_secs_f64().to_string().into_bytes()));
        }
        let path = if self.events { "/watch/events" } else { "/watch" };
        let ask = Ask::get(query(path, parameters.iter().map(|(name, value)| (*name, value.as_slice()))));
        match since {
            Some(id) => ask.header("last-event-id", id),
            None => ask,
        }
    }

    async fn listen(&self, session: &Session, since: Option<&str>) -> Result<Lines, Failure> {
        let answering = session.remote.stream(&self.ask(since, None)).await?.successful().await?;
        Ok(Lines::of(answering, SILENCE_MAX))
    }

    /// Shows what one node tells. Why it tells no more; `None` where enough was shown.
    async fn follow(
        &self,
        session: &Session,
        mut lines: Lines,
        since: &mut Option<String>,
        shown: &mut u64,
    ) -> Result<Option<String>, Failed> {
        let mut told = Told::default();
        loop {
            let line = match lines.next().await {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(Some("it tells no more".into())),
                Err(Failure::Broken { why, .. }) => return Ok(Some(why)),
                Err(failure) => return Err(failure.into()),
            };
            let line = String::from_utf8_lossy(&line).into_owned();
            if let Some(id) = line.strip_prefix("id: ") {
                told.id = Some(id.to_owned());
            } else if let Some(event) = line.strip_prefix("event: ") {
                told.event = event.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                told.data.push_str(data);
            } else if line.is_empty() {
                let Told { id, event, data } = std::mem::take(&mut told);
                if id.is_some() {
                    since.clone_from(&id);
                }
                if data.is_empty() {
                    continue;
                }
                let garbled = |why| Failure::Garbled { from: lines.from().to_owned(), why };
                let mut value: Value = serde_json::from_str(&data).map_err(|error| garbled(error.to_string()))?;
                if !value.is_object() {
                    return Err(garbled("an event is no JSON object".into()).into());
                }
                if event == "end" {
                    return Ok(Some(value["reason"].as_str().unwrap_or("it ends").to_owned()));
                }
                value["event"] = event.into();
                value["id"] = id.into();
                if self.show(session, &value)? {
                    *shown += 1;
                    if self.count == Some(*shown) {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Shows what there is within the time, and says from where the next goes on.
    async fn poll(&self, session: &Session, wait: Duration) -> Result<Exit, Failed> {
        let remote = session.remote.within(session.timeout + wait);
        let answer = remote.ask(&self.ask(self.since.as_deref(), Some(wait))).await?.successful()?.object()?;
        let mut shown = 0;
        for event in answer["events"].as_array().into_iter().flatten() {
            shown += u64::from(self.show(session, event)?);
            if self.count == Some(shown) {
                talk!("since: {}", event["id"].as_str().unwrap_or_default());
                return Ok(Exit::Ok);
            }
        }
        talk!("since: {}", answer["since"].as_str().unwrap_or_default());
        Ok(Exit::Ok)
    }

    /// Shows one that is a change or an event; a gap is talk.
    fn show(&self, session: &Session, value: &Value) -> Result<bool, Failed> {
        let text = |name: &str| value[name].as_str().unwrap_or_default();
        match text("event") {
            "ready" => return Ok(false),
            "gap" => {
                talk!("gap: {}: {}\nhint: {}", text("node"), text("reason"), text("hint"));
                return Ok(false);
            }
            "event" => session.show.item(value, EVENTS, || {
                format!("{:<5}  {}  {}", text("level"), text("node"), printable(text("text").as_bytes()))
            })?,
            kind => session.show.item(value, CHANGES, || {
                let named = |name: &str, base64: &str| match value[name].as_str() {
                    Some(text) => printable(text.as_bytes()),
                    None => format!("base64:{}", text(base64)),
                };
                let mut line = format!("{kind:<6}  {}", named("key", "key_base64"));
                if !value["value"].is_null() || !value["value_base64"].is_null() {
                    line.push('\t');
                    line.push_str(&named("value", "value_base64"));
                } else if !value["left_out"].is_null() {
                    line += &format!("\t({})", text("left_out"));
                }
                line
            })?,
        }
        Ok(true)
    }
}

/// Whether it may be otherwise in a moment.
fn is_passing(failure: &Failure) -> bool {
    match failure {
        Failure::Unreachable { .. } | Failure::Broken { .. } => true,
        Failure::Refused { status, .. } => status.is_server_error(),
        _ => false,
    }
}
