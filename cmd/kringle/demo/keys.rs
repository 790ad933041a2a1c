//! What the console does with keys and counters.

use super::cluster::Cluster;
use super::overview::folded;
use super::trouble::Trouble;
use kringle::remote::{Answer, Ask, query, segment};
use serde_json::{Value, json};
use std::fmt::Write;

/// Characters of a value that are shown.
const SHOWN_MAX: usize = 400;

/// The counters of `batchupdate`.
const BATCH: std::ops::RangeInclusive<char> = 'a'..='z';

/// `get`: the count, 0 where there is none; or the value, where it is no integer.
pub(super) async fn get(cluster: &Cluster, key: &str) -> Result<String, Trouble> {
    let remote = cluster.remote()?;
    let counted = remote.ask(&Ask::get(counter(key))).await?;
    if counted.status.as_u16() == 409 {
        let value = remote.ask(&Ask::get(value(key))).await?.successful()?;
        return Ok(format!("Value for {key}: {}{}", shown(&value.body), heard(&value)));
    }
    let counted = counted.successful()?;
    Ok(format!("Count for {key}: {}{}", counted.json()?["value"], heard(&counted)))
}

/// `put`.
pub(super) async fn put(cluster: &Cluster, key: &str, text: String) -> Result<String, Trouble> {
    let ask = Ask::put(value(key)).header("content-type", "text/plain; charset=utf-8").body(text);
    let answer = cluster.ask(ask).await?;
    Ok(format!("Put successful{}", short(&answer)))
}

/// `update`.
pub(super) async fn update(cluster: &Cluster, key: &str) -> Result<String, Trouble> {
    let answer = cluster.ask(Ask::post(counter(key))).await?;
    Ok(format!("Update successful{}", short(&answer)))
}

/// `incr`.
pub(super) async fn incr(cluster: &Cluster, key: &str, by: i64) -> Result<String, Trouble> {
    let answer = cluster.ask(Ask::post(counter(key)).json(&json!({ "by": by }))).await?;
    Ok(format!("Count for {key}: {}{}", answer.json()?["value"], short(&answer)))
}

/// `del`.
pub(super) async fn del(cluster: &Cluster, key: &str) -> Result<String, Trouble> {
    let answer = cluster.ask(Ask::delete(value(key))).await?;
    Ok(format!("Delete successful{}", short(&answer)))
}

/// `batchupdate`: one request for all.
pub(super) async fn batch_update(cluster: &Cluster) -> Result<String, Trouble> {
    let lines: String = BATCH.map(|key| format!("{}\n", json!({ "op": "incr", "key": key.to_string() }))).collect();
    let answer = cluster.ask(Ask::post("/batch").body(lines)).await?;
    let lines = String::from_utf8_lossy(&answer.body);
    let done: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect();
    let failed: Vec<&Value> = done.iter().filter(|line| !matches!(line["status"].as_u64(), Some(200 | 202))).collect();
    let wanted = BATCH.count();
    match failed.first() {
        None if done.len() == wanted => Ok(format!("Batch update successful: {wanted} counters")),
        None => Ok(format!("Batch update broke off: {} of {wanted} counters are known to be updated", done.len())),
        Some(first) => {
            Ok(format!("{} of {wanted} counters were not updated; {}: {}", failed.len(), first["key"], first["error"]))
        }
    }
}

/// `ring` with a key: who keeps it.
pub(super) async fn owners(cluster: &Cluster, key: &str) -> Result<String, Trouble> {
    let place = cluster.ask(Ask::get(query("/ring", [("key", key.as_bytes())]))).await?.json()?;
    let named = |members: &Value| {
        let members = members.as_array().map(Vec::as_slice).unwrap_or_default();
        let named = members.iter().map(|member| match cluster.described(member) {
            Some(node) => format!("node {} ({}, {})", node.number, node.port, node.state),
            None => member["url"].as_str().unwrap_or("?").to_owned(),
        });
        let named: Vec<String> = named.collect();
        if named.is_empty() { vec!["none".to_owned()] } else { named }
    };
    let position = place["position"].as_str().unwrap_or_default();
    let owners = folded("Owners: ", &named(&place["owners"]));
    let stand_ins = folded("Stand-ins: ", &named(&place["stand_ins"]));
    Ok(format!("Position {position}, partition {}\n{owners}{}", place["partition"], stand_ins.trim_end()))
}

/// `mode`, and `mode <mode>`: which one there is when everybody goes by it.
pub(super) async fn mode(cluster: &Cluster, wanted: Option<String>) -> Result<String, Trouble> {
    if let Some(mode) = wanted {
        let asked = cluster.ask(Ask::put("/cluster/mode").json(&json!({ "mode": mode }))).await?.json()?;
        let epoch = asked["epoch"].as_u64().unwrap_or_default();
        cluster.await_epoch(epoch).await?;
    }
    let config = cluster.ask(Ask::get("/config")).await?.json()?;
    Ok(format!("Mode: {}", config["mode"].as_str().unwrap_or_default()))
}

/// The path of a key's value.
pub(super) fn value(key: &str) -> String {
    format!("/kv/{}", segment(key.as_bytes()))
}

fn counter(key: &str) -> String {
    format!("/counters/{}", segment(key.as_bytes()))
}

/// What to say of a write that fewer owners have than its mode wants; nothing else.
fn short(answer: &Answer) -> String {
    match answer.header("kringle-replicas") {
        Some(replicas) if answer.status.as_u16() == 202 => format!(" ({replicas})"),
        _ => String::new(),
    }
}

/// What to say of a read: that it heard fewer owners than its mode asks, and that there are several values.
fn heard(answer: &Answer) -> String {
    let mut said = answer.header("kringle-replicas").map(|replicas| format!(" ({replicas})")).unwrap_or_default();
    let siblings = answer.header("kringle-siblings").and_then(|count| count.parse::<u32>().ok());
    if let Some(siblings @ 2..) = siblings {
        // Writing to a string cannot fail.
        let _ = write!(said, " (the latest of {siblings} concurrent values)");
    }
    said
}

/// A value as a terminal can show it: no control characters, and not all of it where it is long.
fn shown(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else { return format!("({} bytes that are no text)", bytes.len()) };
    let mut shown = String::new();
    for character in text.chars().take(SHOWN_MAX) {
        match character {
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    if text.chars().count() > SHOWN_MAX {
        let _ = write!(shown, "… ({} bytes)", bytes.len());
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_value_does_nothing_to_a_terminal() {
        assert_eq!(shown(b"two eggs"), "two eggs");
        assert_eq!(shown(b"\x1b[2J\n"), "\\u{1b}[2J\\n");
        assert_eq!(shown(b"\xff\xfe"), "(2 bytes that are no text)");
        let long = shown("æ".repeat(500).as_bytes());
        assert!(long.ends_with("… (1000 bytes)") && long.chars().count() < 430, "{long}");
    }
}
