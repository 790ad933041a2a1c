//! Who is there: `status`, `members`, `ring`.

use crate::exit::{Exit, Failed};
use crate::session::Session;
use crate::show::{Column, Table, Unit};
use crate::survey::{Node, Survey};
use kringle::remote::Ask;
use serde_json::{Value, json};

/// How the cluster is, node by node
///
/// Each node is asked itself. The exit code is the verdict: 0 healthy, 8 degraded, 5 down.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl status
  kringlectl status -o json | jq '.nodes[] | {node, hints}'
  kringlectl status > /dev/null || echo trouble")]
pub struct Status {}

/// Who is a member, with which share of the keys
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl members
  kringlectl members -o csv")]
pub struct Members {}

/// Shares and tokens of the members on the ring
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  kringlectl ring
  kringlectl ring -o json | jq '.members[].tokens[0]'
  kringlectl locate hello                who keeps one key")]
pub struct Ring {}

const STATUS: &[Column] = &[
    Column("node", Unit::Text),
    Column("state", Unit::Text),
    Column("zone", Unit::Text),
    Column("owns", Unit::Share),
    Column("keys", Unit::Text),
    Column("hints", Unit::Text),
    Column("last_sync_ms", Unit::Millis),
    Column("version", Unit::Text),
];
const MEMBERS: &[Column] = &[
    Column("node", Unit::Text),
    Column("state", Unit::Text),
    Column("role", Unit::Text),
    Column("zone", Unit::Text),
    Column("weight", Unit::Text),
    Column("share", Unit::Share),
    Column("keys", Unit::Text),
    Column("id", Unit::Text),
];
const RING: &[Column] = &[
    Column("node", Unit::Text),
    Column("zone", Unit::Text),
    Column("share", Unit::Share),
    Column("token_count", Unit::Text),
    Column("first_token", Unit::Text),
];

/// A URL as tables have it: all nodes speak HTTP.
pub fn short(url: &str) -> &str {
    url.strip_prefix("http://").unwrap_or(url)
}

/// The same rows, with nodes as tables have them; programs get URLs.
pub fn shortened(session: &Session, rows: &[Value]) -> Vec<Value> {
    let shorten = |row: &Value| {
        let mut row = row.clone();
        for name in ["node", "from", "to", "peer", "owner"] {
            if let Some(url) = row[name].as_str() {
                row[name] = json!(short(url));
            }
        }
        row
    };
    match session.show.form() {
        crate::arguments::Form::Table => rows.iter().map(shorten).collect(),
        _ => rows.to_vec(),
    }
}

/// Null for a zone that is none.
fn zone(member: &Value) -> Value {
    match member["zone"].as_str() {
        Some("") | None => Value::Null,
        Some(zone) => json!(zone),
    }
}

/// What `status` and `top` show of a node.
pub fn row(node: &Node) -> Value {
    json!({
        "node": node.url(), "id": node.member["id"], "state": node.state(), "ready": node.is_ready(),
        "role": node.member["role"], "zone": zone(&node.member), "owns": node.member["share"],
        "keys": node.said("/store/keys"), "tombstones": node.said("/store/tombstones"),
        "bytes": node.said("/store/bytes"), "hints": node.said("/hints/count"),
        "last_sync_ms": node.since_sync_ms(), "filling": node.said("/filling/state"), "epoch": node.said("/epoch"),
        "uptime_s": node.said("/node/uptime_s"), "version": node.said("/node/version"),
        "error": node.status.as_ref().err(),
    })
}

impl Status {
    /// Shows every node, and the verdict.
    pub async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        let survey = Survey::take(&session.remote, session.timeout).await?;
        let (exit, wrong) = survey.verdict();
        let rows: Vec<Value> = survey.nodes.iter().map(row).collect();
        let cluster = &survey.cluster;
        let json = json!({
            "health": Survey::word(exit), "wrong": wrong, "cluster_id": cluster["cluster_id"],
            "epoch": cluster["epoch"], "mode": cluster["mode"], "replicas": cluster["replicas"],
            "changing": cluster["changing"], "asked": survey.from, "nodes": rows,
        });
        session.show.data(&json, &Table { columns: STATUS, rows: &shortened(session, &rows) })?;
        talk!("{}: {}", Survey::word(exit), survey.summary());
        wrong.iter().for_each(|wrong| talk!("  {wrong}"));
        Ok(exit)
    }
}

impl Members {
    /// Shows what one node knows of all.
    pub async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        let cluster = session.remote.ask(&Ask::get("/cluster")).await?.successful()?.object()?;
        let members = cluster["members"].as_array().into_iter().flatten().filter(|member| member.is_object());
        let rows: Vec<Value> = members.map(named).collect();
        session.show.data(&cluster, &Table { columns: MEMBERS, rows: &shortened(session, &rows) })?;
        for awaited in cluster["awaiting"].as_array().into_iter().flatten() {
            talk!("still to agree: {}", awaited.as_str().unwrap_or_default());
        }
        Ok(Exit::Ok)
    }
}

/// A member with its URL under `node`, and no zone where it has none.
fn named(member: &Value) -> Value {
    let mut row = member.clone();
    row["node"] = member["url"].clone();
    row["zone"] = zone(member);
    row
}

impl Ring {
    /// Shows what all nodes work out alike.
    pub async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        let ring = session.remote.ask(&Ask::get("/ring")).await?.successful()?.object()?;
        let members = ring["members"].as_array().into_iter().flatten().filter(|member| member.is_object());
        let rows: Vec<Value> = members
            .map(|member| {
                let mut row = named(member);
                row["token_count"] = json!(member["tokens"].as_array().map_or(0, Vec::len));
                row["first_token"] = member["tokens"][0].clone();
                row
            })
            .collect();
        session.show.data(&ring, &Table { columns: RING, rows: &shortened(session, &rows) })?;
        talk!("{} partitions, epoch {}", ring["partitions"], ring["epoch"]);
        Ok(Exit::Ok)
    }
}
