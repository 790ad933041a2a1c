//! `locate`: where a key lives, and who has which version of it.

use super::kv::path;
use super::members::{short, shortened};
use crate::arguments::{Form, modes};
use crate::exit::{Exit, Failed};
use crate::session::Session;
use crate::show::{Column, Table, Unit, counted, printable};
use kringle::remote::{Ask, Failure, query};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

/// Characters of a value that a table shows.
const VALUE_SHOWN: usize = 24;

/// Where a key lives, and who has which version
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl locate hello
  kringlectl locate hello -o json | jq -r '.owners[0].url'")]
pub struct Locate {
    /// The key
    key: OsString,
    /// How to read; the cluster's mode unless given
    #[arg(long, value_parser = modes())]
    mode: Option<String>,
}

const COLUMNS: &[Column] = &[
    Column("place", Unit::Text),
    Column("node", Unit::Text),
    Column("holds", Unit::Text),
    Column("siblings", Unit::Text),
    Column("stamp", Unit::Text),
    Column("value", Unit::Text),
];

impl Locate {
    /// Asks the owners what they hold.
    pub async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        let place = Ask::get(query("/ring", [("key", self.key.as_bytes())]));
        let mut place = session.remote.ask(&place).await?.successful()?.object()?;
        let parameters = [("key", Some(String::new())), ("explain", Some("1".to_owned())), ("mode", self.mode.clone())];
        // The key may be no text: it is put in by its bytes.
        let asked = path("/store/key", &parameters[1..]);
        let key = query("", [("key", self.key.as_bytes())]);
        let asked = format!("{asked}&{}", key.trim_start_matches('?'));
        let answer = session.remote.ask(&Ask::get(asked)).await?;
        // A key that is absent has owners all the same.
        let explained = match answer.status.as_u16() {
            200 | 404 => answer.object()?,
            _ => return Err(answer.successful().err().map_or(Failed::usage("no answer"), Failed::from)),
        };
        if explained["owners"].is_null() {
            let why = "it does not say who holds the key".to_owned();
            return Err(Failure::Garbled { from: answer.from, why }.into());
        }
        place["owners"] = explained["owners"].clone();
        for name in ["key", "key_base64", "context", "sibling_count"] {
            if !explained[name].is_null() {
                place[name] = explained[name].clone();
            }
        }
        let rows = rows(&place);
        if session.show.form() == Form::Table {
            let count = place["owners"].as_array().map_or(0, Vec::len);
            session.show.line(&format!(
                "position {}, partition {}, {}",
                place["position"].as_str().unwrap_or("?"),
                place["partition"],
                counted(count as u64, "owner")
            ))?;
        }
        session.show.data(&place, &Table { columns: COLUMNS, rows: &shortened(session, &rows) })?;
        let stand_ins = place["stand_ins"].as_array().into_iter().flatten().filter_map(|member| member["url"].as_str());
        let stand_ins: Vec<&str> = stand_ins.map(short).collect();
        if !stand_ins.is_empty() {
            talk!("stand-ins, in this order: {}", stand_ins.join(", "));
        }
        Ok(Exit::Ok)
    }
}

/// A row for each owner.
fn rows(place: &Value) -> Vec<Value> {
    let owners = place["owners"].as_array().into_iter().flatten().enumerate();
    let row = |(index, owner): (usize, &Value)| {
        let siblings = owner["siblings"].as_array();
        let newest = siblings.and_then(|siblings| siblings.iter().max_by_key(|one| one["stamp"].as_str()));
        let value = newest.map(|newest| match newest["value"].as_str() {
            Some(value) if value.chars().count() > VALUE_SHOWN => {
                printable(format!("{}…", value.chars().take(VALUE_SHOWN).collect::<String>()).as_bytes())
            }
            Some(value) => printable(value.as_bytes()),
            None => "(bytes)".into(),
        });
        let holds = match owner["answered"] == json!(true) {
            true => owner["holds"].clone(),
            false => json!("no answer"),
        };
        json!({
            "place": index + 1, "node": owner["url"], "holds": holds, "siblings": siblings.map(Vec::len),
            "stamp": newest.map(|newest| newest["stamp"].clone()), "value": value,
        })
    };
    owners.map(row).collect()
}
