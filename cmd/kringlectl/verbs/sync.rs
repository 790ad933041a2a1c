//! `sync`: whether copies are equal, what was repaired, and a comparison now.

use super::members::shortened;
use crate::exit::{Exit, Failed};
use crate::session::Session;
use crate::show::{Column, Table, Unit};
use crate::survey::{Survey, addresses, each, member_called};
use kringle::config::PeerUrl;
use kringle::remote::{Answer, Ask, query};
use serde_json::{Value, json};
use std::time::Duration;

/// Characters of a digest that a table shows: enough to tell two apart.
const DIGEST_SHOWN: usize = 8;

/// Whether copies are equal, what was repaired, and a comparison now
#[derive(clap::Subcommand, Debug)]
#[command(after_help = "\
Examples:
  kringlectl sync status
  kringlectl sync run
  kringlectl sync diff node1 node2")]
pub enum Sync {
    /// Each node's digest, with how many peers it is equal, and what its sessions repaired
    ///
    /// Two digests are of what both nodes keep. While clients write, those under way may make them differ for a moment.
    #[command(after_help = "Examples:\n  kringlectl sync status\n  kringlectl sync status -o json | jq '.[].root'")]
    Status,
    /// Has the node that is asked compare itself with its peers now, and repair what differs
    #[command(after_help = "Examples:\n  kringlectl sync run\n  kringlectl sync run --with node2\n  \
                            kringlectl sync run --all")]
    Run(Run),
    /// Which partitions two nodes keep differently; exit code 8 if any
    #[command(after_help = "Examples:\n  kringlectl sync diff node1 node2\n  \
                            kringlectl sync diff node1 node2 -o json | jq '.differing | length'")]
    Diff {
        /// A member's id, name or URL
        a: String,
        /// Another's
        b: String,
    },
}

/// With whom, and for how long.
#[derive(clap::Args, Debug)]
pub struct Run {
    /// Only with this member: its id, name or URL
    #[arg(long, value_name = "NODE")]
    with: Option<String>,
    /// On every node that lives, one after the other
    #[arg(long)]
    all: bool,
    /// Seconds that all of it may take
    #[arg(long, value_name = "SECONDS", value_parser = crate::arguments::seconds, default_value = "600")]
    wait: Duration,
}

const STATUS: &[Column] = &[
    Column("node", Unit::Text),
    Column("root", Unit::Text),
    Column("keys", Unit::Text),
    Column("equal", Unit::Text),
    Column("sessions", Unit::Text),
    Column("pushed", Unit::Text),
    Column("pulled", Unit::Text),
    Column("last_sync_ms", Unit::Millis),
];
const REPORT: &[Column] = &[
    Column("node", Unit::Text),
    Column("peer", Unit::Text),
    Column("differ", Unit::Text),
    Column("pushed", Unit::Text),
    Column("pulled", Unit::Text),
    Column("bytes", Unit::Bytes),
    Column("ms", Unit::Millis),
    Column("failed", Unit::Text),
];
const DIFF: &[Column] = &[
    Column("partition", Unit::Text),
    Column("first_position", Unit::Text),
    Column("last_position", Unit::Text),
    Column("keys_a", Unit::Text),
    Column("keys_b", Unit::Text),
];

impl Sync {
    /// Asks, and shows.
    pub async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        match self {
            Sync::Status => status(session).await,
            Sync::Run(run) => run.run(session).await,
            Sync::Diff { a, b } => diff(session, a, b).await,
        }
    }
}

fn shared_path(with: &Value) -> String {
    query("/store/hash", [("with", with.as_str().unwrap_or_default().as_bytes())])
}

async fn status(session: &Session) -> Result<Exit, Failed> {
    let survey = Survey::take(&session.remote, session.timeout).await?;
    let (remote, limit) = (&session.remote, session.timeout);
    let urls = survey.addresses.clone();
    let roots = each(remote, limit, &urls, "/store/hash").await;
    // hashes[a][b] is what a says of what it shares with b.
    let mut hashes = vec![vec![None; urls.len()]; urls.len()];
    for (b, node) in survey.nodes.iter().enumerate() {
        let said = each(remote, limit, &urls, &shared_path(&node.member["name"])).await;
        for (a, answer) in said.into_iter().enumerate() {
            let hash = answer.and_then(Answer::successful).and_then(|answer| answer.json()).ok();
            hashes[a][b] = hash.and_then(|hash| hash["hash"].as_str().map(str::to_owned));
        }
    }
    let rows: Vec<Value> = survey
        .nodes
        .iter()
        .zip(roots)
        .enumerate()
        .map(|(a, (node, root))| {
            let root = root.and_then(Answer::successful).and_then(|answer| answer.json()).unwrap_or_default();
            let others = (0..urls.len()).filter(|b| *b != a);
            let heard = others.clone().filter(|b| hashes[a][*b].is_some() && hashes[*b][a].is_some()).count();
            let equal = others.filter(|b| hashes[a][*b].is_some() && hashes[a][*b] == hashes[*b][a]).count();
            json!({
                "node": node.url(), "root": root["hash"], "keys": root["keys"], "equal": format!("{equal}/{heard}"),
                "sessions": node.said("/sync/sessions"), "failed": node.said("/sync/failed"),
                "pushed": node.said("/sync/pushed"), "pulled": node.said("/sync/pulled"),
                "noop": node.said("/sync/noop"), "bytes_out": node.said("/sync/bytes_out"),
                "bytes_in": node.said("/sync/bytes_in"), "read_repairs": node.said("/sync/read_repairs"),
                "last_sync_ms": node.since_sync_ms(), "error": node.status.as_ref().err(),
            })
        })
        .collect();
    let mut shown = shortened(session, &rows);
    for row in &mut shown {
        if session.show.form() == crate::arguments::Form::Table
            && let Some(root) = row["root"].as_str()
        {
            row["root"] = json!(root.chars().take(DIGEST_SHOWN).collect::<String>());
        }
    }
    session.show.data(&json!(rows), &Table { columns: STATUS, rows: &shown })?;
    talk!("equal: of the peers that answer, how many keep the same of what both keep");
    Ok(Exit::Ok)
}

impl Run {
    async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        let path = match &self.with {
            None => "/sync".to_owned(),
            Some(with) => query("/sync", [("with", with.as_bytes())]),
        };
        let mut rows = Vec::new();
        let mut note = |answer: Answer| -> Result<(), Failed> {
            let body = answer.object()?;
            for report in body["reports"].as_array().into_iter().flatten().filter(|report| report.is_object()) {
                let mut row = report.clone();
                row["node"] = json!(answer.from);
                let bytes = |name: &str| report[name].as_u64().unwrap_or_default();
                row["differ"] = report["partitions"].clone();
                row["bytes"] = json!(bytes("bytes_out") + bytes("bytes_in"));
                rows.push(row);
            }
            Ok(())
        };
        // It is asked again without harm: what is equal by then is compared, and no more.
        let ask = Ask::post(path).repeatable();
        match self.all {
            false => note(session.remote.within(self.wait).ask(&ask).await?.successful()?)?,
            true => {
                let survey = Survey::take(&session.remote, session.timeout).await?;
                for (node, url) in survey.nodes.iter().zip(&survey.addresses) {
                    if !node.is_ready() {
                        talk!("note: {} is {} and not asked", node.url(), node.state());
                        continue;
                    }
                    note(session.remote.only(url).within(self.wait).ask(&ask).await?.successful()?)?;
                }
            }
        }
        session.show.data(&json!(rows), &Table { columns: REPORT, rows: &shortened(session, &rows) })?;
        let failed = rows.iter().filter(|row| !row["failed"].is_null()).count();
        if failed > 0 {
            talk!("{failed} of {} comparisons came to no end", rows.len());
            return Ok(Exit::Unavailable);
        }
        Ok(Exit::Ok)
    }
}

/// Which partitions two nodes keep differently.
async fn diff(session: &Session, a: &str, b: &str) -> Result<Exit, Failed> {
    let cluster = session.remote.ask(&Ask::get("/cluster")).await?.successful()?.object()?;
    let ((member_a, url_a), (member_b, url_b)) = (member_called(&cluster, a)?, member_called(&cluster, b)?);
    let known = addresses(&session.remote, session.timeout, &cluster).await;
    let address = |member: &Value, url: &PeerUrl| {
        known.iter().find(|(id, _)| *id == member["id"]).map_or_else(|| url.clone(), |(_, address)| address.clone())
    };
    let (address_a, address_b) = (address(member_a, &url_a), address(member_b, &url_b));
    if url_a == url_b {
        return Err(Failed::usage(format!("{a} and {b} are the same node")).hint("name two of kringlectl members"));
    }
    let of = async |url: &PeerUrl, with: &Value| -> Result<Value, Failed> {
        let ask = Ask::get(format!("{}&by=partition", shared_path(&with["name"])));
        Ok(session.remote.only(url).ask(&ask).await?.successful()?.object()?)
    };
    let (said_a, said_b) = tokio::join!(of(&address_a, member_b), of(&address_b, member_a));
    let (said_a, said_b) = (said_a?, said_b?);
    let differing = differing(&said_a, &said_b, cluster["partitions"].as_u64().unwrap_or(1));
    let shared = said_a["partitions"].as_array().map_or(0, Vec::len);
    let is_equal = said_a["hash"] == said_b["hash"];
    let json = json!({
        "a": url_a.url(), "b": url_b.url(), "equal": is_equal, "root_a": said_a["hash"], "root_b": said_b["hash"],
        "keys_a": said_a["keys"], "keys_b": said_b["keys"], "shared_partitions": shared, "differing": differing,
    });
    session.show.data(&json, &Table { columns: DIFF, rows: &differing })?;
    if is_equal {
        talk!("equal: {shared} partitions are kept by both, with {} keys", said_a["keys"]);
        return Ok(Exit::Ok);
    }
    talk!("{} of {shared} partitions that both keep are not equal; kringlectl sync run repairs them", differing.len());
    Ok(Exit::Degraded)
}

/// Partitions of which two nodes say different things, with the positions in them.
fn differing(a: &Value, b: &Value, partitions: u64) -> Vec<Value> {
    let theirs = b["partitions"].as_array();
    let find = |index: &Value| theirs.into_iter().flatten().find(|one| one["partition"] == *index);
    let mine = a["partitions"].as_array().into_iter().flatten();
    let unequal = mine.filter(|one| find(&one["partition"]).is_none_or(|other| other["hash"] != one["hash"]));
    let width = u64::MAX / partitions.max(1) + u64::from(partitions > 1);
    unequal
        .map(|one| {
            let index = one["partition"].as_u64().unwrap_or_default();
            let first = index.wrapping_mul(width);
            json!({
                "partition": index, "first_position": format!("{first:016x}"),
                "last_position": format!("{:016x}", first.wrapping_add(width.wrapping_sub(1))),
                "keys_a": one["keys"], "keys_b": find(&one["partition"]).map(|other| other["keys"].clone()),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_named_with_the_positions_in_it() {
        let of = |hashes: [&str; 2]| {
            let one = |(index, hash)| json!({ "partition": 1022 + index, "hash": hash, "keys": 1 });
            json!({ "partitions": (0..).zip(hashes).map(one).collect::<Vec<Value>>() })
        };
        assert_eq!(differing(&of(["x", "y"]), &of(["x", "y"]), 1024), Vec::<Value>::new());
        let found = differing(&of(["x", "y"]), &of(["x", "z"]), 1024);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["partition"], 1023);
        assert_eq!(found[0]["first_position"], "ffc0000000000000");
        assert_eq!(found[0]["last_position"], "ffffffffffffffff");
    }
}
