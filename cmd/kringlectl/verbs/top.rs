//! `top`: how the nodes are, again and again.

use super::members::{row, shortened};
use crate::arguments::{Form, seconds};
use crate::exit::{Exit, Failed};
use crate::session::Session;
use crate::show::{Column, Table, Unit};
use crate::survey::Survey;
use crate::terminal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Goes to the first place of the screen, and clears what is below.
const HOME: &str = "\x1b[H\x1b[J";
/// Clears the whole screen, once.
const CLEAR: &str = "\x1b[2J";

/// How the nodes are, drawn again and again until it is interrupted
///
/// Where standard output is no terminal, one table follows the other; with -o json an object a line.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl top
  kringlectl top --interval 0.5
  kringlectl top --count 1 -o json | jq '.nodes[].keys'")]
pub struct Top {
    /// Seconds between two looks
    #[arg(long, short = 'i', value_name = "SECONDS", value_parser = seconds, default_value = "2")]
    interval: Duration,
    /// Ends after so many looks
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

const COLUMNS: &[Column] = &[
    Column("node", Unit::Text),
    Column("state", Unit::Text),
    Column("req/s", Unit::Text),
    Column("keys", Unit::Text),
    Column("keys/s", Unit::Text),
    Column("bytes", Unit::Bytes),
    Column("hints", Unit::Text),
    Column("synced/s", Unit::Text),
    Column("epoch", Unit::Text),
];

/// What counts up, as it was at the last look.
#[derive(Clone, Copy)]
struct Seen {
    at: Instant,
    keys: f64,
    synced: f64,
}

impl Top {
    /// Looks, and shows.
    pub async fn run(&self, session: &mut Session) -> Result<Exit, Failed> {
        session.acquaint().await;
        let is_drawn = terminal::width().is_some() && session.show.form() == Form::Table;
        let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
        let mut looks = 0;
        loop {
            let begun = Instant::now();
            let taken = Survey::take(&session.remote, session.timeout).await;
            match taken {
                Ok(survey) => self.draw(session, &survey, &mut seen, is_drawn && looks > 0, is_drawn)?,
                // There was something to see: it may come back.
                Err(failure) if looks > 0 => talk!("{failure}"),
                Err(failure) => return Err(failure.into()),
            }
            looks += 1;
            if self.count == Some(looks) {
                return Ok(Exit::Ok);
            }
            tokio::time::sleep(self.interval.saturating_sub(begun.elapsed())).await;
        }
    }

    fn draw(
        &self,
        session: &Session,
        survey: &Survey,
        seen: &mut BTreeMap<String, Seen>,
        again: bool,
        is_drawn: bool,
    ) -> Result<(), Failed> {
        let now = Instant::now();
        let mut rows = Vec::new();
        for node in &survey.nodes {
            let mut shown = row(node);
            let number = |pointer: &str| node.said(pointer).as_f64();
            shown["req/s"] = json!(number("/load/requests_per_s").map(f64::round));
            if let (Some(keys), Some(pushed), Some(pulled)) =
                (number("/store/keys"), number("/sync/pushed"), number("/sync/pulled"))
            {
                let current = Seen { at: now, keys, synced: pushed + pulled };
                if let Some(before) = seen.insert(node.url().to_owned(), current) {
                    let span = now.duration_since(before.at).as_secs_f64().max(0.001);
                    shown["keys/s"] = json!(((keys - before.keys) / span).round());
                    shown["synced/s"] = json!(((current.synced - before.synced) / span).round().max(0.0));
                }
            }
            rows.push(shown);
        }
        let (exit, wrong) = survey.verdict();
        let head = format!("{}: {}", Survey::word(exit), survey.summary());
        let json =
            json!({ "health": Survey::word(exit), "epoch": survey.cluster["epoch"], "wrong": wrong, "nodes": rows });
        let rows: Vec<Value> = shortened(session, &rows);
        let table = Table { columns: COLUMNS, rows: &rows };
        match session.show.form() {
            Form::Table => {
                let mut text = String::new();
                if is_drawn {
                    text += if again { "" } else { CLEAR };
                    text += HOME;
                }
                text += &format!("{head}\n{}", table.text(terminal::width()));
                wrong.iter().for_each(|wrong| text += &format!("  {wrong}\n"));
                if !is_drawn {
                    text.push('\n');
                }
                session.show.bytes(text.as_bytes())
            }
            _ => session.show.data(&json, &table),
        }
    }
}
