//! `health`: every check of every node, and the cluster's.

use super::members::shortened;
use crate::exit::{Exit, Failed};
use crate::session::Session;
use crate::show::{Column, Table, Unit};
use crate::survey::{Survey, is_fine};
use kringle::remote::Ask;
use serde_json::{Value, json};

/// Every check of every node, and the cluster's
///
/// The exit code is the verdict: 0 healthy, 8 degraded, 5 down.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl health
  kringlectl health --local              the node that is asked, and nobody else
  kringlectl health -o json | jq -r '.wrong[]'")]
pub struct Health {
    /// Only the checks of the node that is asked: 0 or 5
    #[arg(long)]
    local: bool,
}

const COLUMNS: &[Column] =
    &[Column("node", Unit::Text), Column("check", Unit::Text), Column("ok", Unit::Text), Column("says", Unit::Text)];

/// A row for each check.
fn rows(node: &str, ready: &Value) -> Vec<Value> {
    let checks = ready["checks"].as_object().into_iter().flatten();
    let row = |(name, said): (&String, &Value)| {
        let said = said.as_str().unwrap_or_default();
        json!({ "node": node, "check": name, "ok": if is_fine(said) { "yes" } else { "no" }, "says": said })
    };
    checks.map(row).collect()
}

/// What no node can say for itself.
fn of_all(survey: &Survey) -> [Value; 3] {
    let yes = |is_so: bool| if is_so { "yes" } else { "no" };
    let cluster = &survey.cluster;
    let is_established = cluster["established"] != json!(false);
    let (serving, all) = (survey.nodes.iter().filter(|node| node.is_ready()).count(), survey.nodes.len());
    let owners = if cluster["changing"] == json!(true) { "changing" } else { "settled" };
    [
        json!({
            "node": "cluster", "check": "established", "ok": yes(is_established || cluster["awaiting"] == json!([])),
            "says": format!("epoch {}", cluster["epoch"]),
        }),
        json!({
            "node": "cluster", "check": "serving", "ok": yes(serving == all), "says": format!("{serving} of {all} nodes"),
        }),
        // A change is nothing bad: clients are served meanwhile.
        json!({ "node": "cluster", "check": "owners", "ok": "yes", "says": owners }),
    ]
}

impl Health {
    /// Asks, and judges.
    pub async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        if self.local {
            return self.of_one(session).await;
        }
        let survey = Survey::take(&session.remote, session.timeout).await?;
        let (exit, wrong) = survey.verdict();
        let mut all = Vec::new();
        for node in &survey.nodes {
            let state = node.member["state"].as_str().unwrap_or("no member");
            let alive = if state == "alive" { "yes" } else { "no" };
            all.push(json!({ "node": node.url(), "check": "peers", "ok": alive, "says": state }));
            match &node.ready {
                Ok(ready) => all.extend(rows(node.url(), ready)),
                Err(why) => all.push(json!({ "node": node.url(), "check": "answers", "ok": "no", "says": why })),
            }
        }
        all.extend(of_all(&survey));
        let json = json!({ "health": Survey::word(exit), "wrong": wrong, "checks": all });
        session.show.data(&json, &Table { columns: COLUMNS, rows: &shortened(session, &all) })?;
        talk!("{}: {}", Survey::word(exit), survey.summary());
        wrong.iter().for_each(|wrong| talk!("  {wrong}"));
        Ok(exit)
    }

    async fn of_one(&self, session: &Session) -> Result<Exit, Failed> {
        let remote = session.remote.only(session.remote.current());
        let answer = remote.ask(&Ask::get("/readyz?verbose")).await?;
        let ready = answer.object()?;
        let all = rows(&answer.from, &ready);
        let is_ready = ready["ready"] == json!(true);
        let exit = if is_ready { Exit::Ok } else { Exit::Unavailable };
        let json = json!({ "health": Survey::word(exit), "checks": all });
        session.show.data(&json, &Table { columns: COLUMNS, rows: &shortened(session, &all) })?;
        Ok(exit)
    }
}
