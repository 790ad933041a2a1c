//! `status` and `ring`: who there is, and what each of them keeps.

use super::cluster::{Cluster, Seen, of_node};
use super::keys;
use super::node::State;
use super::trouble::Trouble;
use kringle::remote::{Answering, Ask, Failure, Remote};
use serde_json::Value;
use std::fmt::Write;
use std::time::Duration;

/// The widest line, where a counter does not need more.
pub(super) const COLUMNS: usize = 80;

/// The longest value that may be an integer of 64 bits: what is longer is not asked for.
const DIGITS_MAX: u64 = 20;

/// The longest that a node may take to tell what it keeps of one key.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// The longest that a node may take to list the keys.
const LIST_LIMIT: Duration = Duration::from_secs(20);

/// Most counters that are asked for: each is a question to each node.
const NAMES_MAX: usize = 1_000;

/// `status`: the ports, then the counters that each node itself keeps, or `No events`.
pub(super) async fn status(cluster: &Cluster) -> String {
    let seen = cluster.seen();
    let ports: Vec<String> = seen.iter().map(|node| node.port.to_string()).collect();
    let mut text = folded("Ports: ", &ports);
    let counters = counters(cluster).await;
    for node in &seen {
        let title = format!("Node {} ({})", node.number, node.port);
        text += &match (&counters, node.state) {
            (_, State::Dead | State::Paused) => format!("{title} is {}\n", node.state),
            (Ok(counters), State::Running) => match kept(node, &counters.names).await {
                Ok(kept) if kept.is_empty() => format!("{title}: No events\n"),
                Ok(kept) => folded(&format!("{title}: "), &kept),
                Err(why) => format!("{title} does not tell: {why}\n"),
            },
            (Err(_), State::Running) => format!("{title} is running\n"),
        };
    }
    // Writing to a string cannot fail.
    let _ = match counters {
        Ok(Counters { rest: None, .. }) => Ok(()),
        Ok(Counters { rest: Some(rest), .. }) => writeln!(text, "{rest}"),
        Err(trouble) => writeln!(text, "The counters cannot be listed: {trouble}"),
    };
    let cuts = cluster.cuts_told();
    if !cuts.is_empty() {
        let _ = writeln!(text, "Cut: {cuts}");
    }
    text.trim_end().to_owned()
}

/// Keys whose values may be counters.
struct Counters {
    names: Vec<String>,
    /// Why there may be more of them, for people.
    rest: Option<String>,
}

/// The keys whose values are short enough to be integers, as many as are shown. The list says how long they are, so only
/// those are read.
async fn counters(cluster: &Cluster) -> Result<Counters, Trouble> {
    let list = Ask::get("/kv").header("accept", "application/x-ndjson");
    let mut listed = cluster.remote()?.stream(&list).await?.successful().await?;
    let mut names = Vec::new();
    // All of it is asked of one node, so it has all the time there is.
    let read = tokio::time::timeout(LIST_LIMIT, read_names(&mut listed, &mut names)).await;
    let rest = match read {
        Ok(Ok(true)) => None,
        Ok(Ok(false)) => Some(format!("There are more counters than these {NAMES_MAX}")),
        Ok(Err(why)) => Some(format!("There may be more counters: {why}")),
        Err(_) => Some(format!("There may be more counters: the list took more than {} s", LIST_LIMIT.as_secs())),
    };
    Ok(Counters { names, rest })
}

/// Reads a list to its end, `true`, or until there are enough names.
async fn read_names(listed: &mut Answering, names: &mut Vec<String>) -> Result<bool, Failure> {
    let mut unread = Vec::new();
    while let Some(chunk) = listed.chunk().await? {
        unread.extend_from_slice(&chunk);
        let Some(end) = unread.iter().rposition(|byte| *byte == b'\n') else { continue };
        let rest = unread.split_off(end + 1);
        for line in unread.split(|byte| *byte == b'\n') {
            let line: Value = serde_json::from_slice(line).unwrap_or_default();
            if line["end"] == true {
                return Ok(true);
            }
            if let (Some(key), Some(1..=DIGITS_MAX)) = (line["key"].as_str(), line["size"].as_u64()) {
                if names.len() == NAMES_MAX {
                    return Ok(false);
                }
                names.push(key.to_owned());
            }
        }
        unread = rest;
    }
    Err(Failure::Broken { from: listed.from.clone(), why: "the list of keys has no end".into() })
}

/// What a node itself keeps of these counters, as `name: count`.
async fn kept(node: &Seen, names: &[String]) -> Result<Vec<String>, Failure> {
    let remote = Remote::new(vec![node.url.clone()], LOOK_LIMIT);
    let mut kept = Vec::new();
    for name in names {
        let answer = remote.ask(&Ask::get(keys::value(name) + "?local=1")).await?;
        // What it does not own it does not have.
        let count = std::str::from_utf8(&answer.body).ok().filter(|_| answer.status.as_u16() == 200);
        if let Some(count) = count.and_then(|text| text.parse::<i64>().ok()) {
            kept.push(format!("{name}: {count}"));
        }
    }
    Ok(kept)
}

/// `ring` without a key: every member and its share of the keys.
pub(super) async fn shares(cluster: &Cluster) -> Result<String, Trouble> {
    let ring = cluster.ask(Ask::get("/ring")).await?.json()?;
    let mut text = format!("{} partitions, epoch {}", ring["partitions"], ring["epoch"]);
    for member in ring["members"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let share = member["share"].as_f64().unwrap_or_default() * 100.0;
        let tokens = member["tokens"].as_array().map_or(0, Vec::len);
        let who = match cluster.described(member) {
            Some(node) => format!("Node {} ({}, {})", node.number, node.port, node.state),
            None => member["url"].as_str().unwrap_or("?").to_owned(),
        };
        let _ = write!(text, "\n{who}: {share:.1} % of the copies, {tokens} tokens");
    }
    Ok(text)
}

/// How many keys a node keeps copies of, and what else it says of itself.
pub(super) async fn node_status(node: &Seen) -> Result<Value, Failure> {
    of_node(node, Ask::get("/status")).await
}

/// Words behind a title, comma after comma, in lines of at most [`COLUMNS`] where that is possible.
pub(super) fn folded(title: &str, words: &[String]) -> String {
    let mut text = String::new();
    let mut line = title.to_owned();
    for (index, word) in words.iter().enumerate() {
        let comma = if index + 1 < words.len() { "," } else { "" };
        let is_first = line.ends_with(' ');
        if !is_first && line.chars().count() + 1 + word.chars().count() + comma.len() > COLUMNS {
            let _ = writeln!(text, "{line}");
            line = "  ".to_owned();
        } else if !is_first {
            line.push(' ');
        }
        line += word;
        line += comma;
    }
    let _ = writeln!(text, "{line}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_words_are_folded_into_lines_that_a_terminal_has() {
        let words: Vec<String> = ('a'..='z').map(|name| format!("{name}: 12")).collect();
        let text = folded("Node 1 (8001): ", &words);
        assert!(text.lines().count() > 1 && text.lines().all(|line| line.len() <= COLUMNS), "{text}");
        assert_eq!(text.replace('\n', "").matches(": 12").count(), 26);
        assert_eq!(folded("Node 1 (8001): ", &words[..2]), "Node 1 (8001): a: 12, b: 12\n");
        // What is longer than a line stands in one of its own.
        assert_eq!(folded("x: ", &["a".repeat(100), "b".into()]).lines().count(), 2);
    }
}
