//! Requests of several keys: pages of a list, and batches. A page has to be in order and whole; each line of a batch is
//! held to what a request of its own would be.

use super::client::Client;
use super::keys;
use super::ledger::{Fate, Turn, Write};
use super::outcome::{Failed, Outcome, Verified, Wrong};
use super::single::{all_busy, fate_of_status, garbled, unsuccessful};
use kringle::remote::{Answer, Ask, query};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Keys that are looked at for what a page has to show: where few are written, a page is judged by those.
const LOOK_AHEAD: u32 = 10_000;

/// One line of a batch.
enum Line {
    Get { number: u32, key: String, acked: u32 },
    Put { turn: Turn, bytes: u64 },
}

impl Client<'_> {
    /// `GET /kv?prefix=…&start=…&limit=…`.
    pub(super) async fn list(&mut self) -> Outcome {
        let first = self.draw();
        let plan = &self.ground.plan;
        let (start, limit) = (keys::key(&plan.prefix, first), plan.page.to_string());
        let mode = plan.mode.map(|mode| mode.name());
        let mut parameters =
            vec![("prefix", plan.prefix.as_bytes()), ("start", start.as_bytes()), ("limit", limit.as_bytes())];
        parameters.extend(mode.map(|mode| ("mode", mode.as_bytes())));
        // A page shows no more keys than this, so it cannot end behind the last of them.
        let ledger = &self.ground.ledger;
        let ahead = (first..ledger.keys()).take(LOOK_AHEAD as usize).map(|number| (number, ledger.acked(number)));
        let written: Vec<(u32, u32)> = ahead.filter(|(_, acked)| *acked > 0).take(plan.page).collect();
        let answer = match self.ask(&Ask::get(query("/kv", parameters))).await {
            Ok(answer) => answer,
            Err(silence) => return silence.into(),
        };
        if answer.status != 200 {
            return unsuccessful(&answer);
        }
        let Some(page) = Page::read(&answer, &plan.prefix, &start, plan.page) else {
            return garbled(&answer, "a page that is out of order, or none");
        };
        let short = answer.header("kringle-replicas").is_some();
        let judged = self.ground.promise.is_fresh(short, 1);
        let missing = written.iter().find(|(number, acked)| {
            judged && page.reaches(*number) && !page.numbers.contains(number) && ledger.is_there(*number, *acked)
        });
        match missing {
            Some((number, acked)) => {
                let key = keys::key(&plan.prefix, *number);
                let what =
                    format!("{key}: not on the page from {start}, written by write {acked}, from {}", answer.from);
                Outcome::Wrong(Wrong::Lost, what)
            }
            None => Outcome::Verified(Verified { items: page.count, ..Verified::default() }),
        }
    }

    /// `POST /batch`: every second line a `put`, the others `get`s.
    pub(super) async fn batch(&mut self) -> Outcome {
        let mut lines = Vec::with_capacity(self.ground.plan.batch);
        let mut body = String::new();
        for place in 0..self.ground.plan.batch {
            let (line, said) = match place % 2 {
                0 => {
                    let Some((turn, value)) = self.next_value() else { break };
                    let key = keys::key(&self.ground.plan.prefix, turn.key);
                    let bytes = value.len() as u64;
                    // A value is digits and letters.
                    let value = String::from_utf8_lossy(&value);
                    (Line::Put { turn, bytes }, json!({ "op": "put", "key": key, "value": value }))
                }
                _ => {
                    let number = self.draw();
                    let key = keys::key(&self.ground.plan.prefix, number);
                    let said = json!({ "op": "get", "key": key });
                    (Line::Get { number, key, acked: self.ground.ledger.acked(number) }, said)
                }
            };
            lines.push(line);
            // Writing to a string cannot fail.
            let _ = writeln!(body, "{said}");
        }
        if lines.is_empty() {
            return all_busy();
        }
        let answer = self.ask(&Ask::post(self.path("/batch")).body(body)).await;
        let answer = match answer {
            Ok(answer) if answer.status == 200 => answer,
            Ok(answer) => {
                self.give_up(lines, fate_of_status(answer.status.as_u16()));
                return unsuccessful(&answer);
            }
            Err(silence) => {
                self.give_up(lines, if silence.unsent { Fate::NotDone } else { Fate::Unknown });
                return silence.into();
            }
        };
        let said: Option<Vec<Value>> = answer
            .body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).ok())
            .collect();
        match said {
            Some(said) if said.len() == lines.len() => self.check(lines, &said, &answer),
            _ => {
                self.give_up(lines, Fate::Unknown);
                garbled(&answer, "not a line for each of the batch")
            }
        }
    }

    fn give_up(&self, lines: Vec<Line>, fate: Fate) {
        for line in lines {
            if let Line::Put { turn, .. } = line {
                self.ground.ledger.settle(turn, Write::Put, fate);
            }
        }
    }

    /// Every line that was written is settled, and the worst of them is what the batch comes to.
    fn check(&self, lines: Vec<Line>, said: &[Value], answer: &Answer) -> Outcome {
        let mut sum = Verified::default();
        let mut worst = None;
        let mut note = |outcome: Outcome| {
            let weight = |outcome: &Outcome| matches!(outcome, Outcome::Wrong(..));
            if worst.as_ref().is_none_or(|known| weight(&outcome) && !weight(known)) {
                worst = Some(outcome);
            }
        };
        for (line, said) in lines.into_iter().zip(said) {
            let status = said["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or_default();
            sum.items += 1;
            match line {
                Line::Put { turn, bytes } => {
                    self.ground.ledger.settle(turn, Write::Put, fate_of_status(status));
                    match status {
                        201 | 202 | 204 => sum.bytes_written += bytes,
                        _ => note(unsuccessful_line(status, said, answer)),
                    }
                }
                Line::Get { number, key, acked } => {
                    let value = match status {
                        200 => said["value"].as_str().map(str::as_bytes).or(Some(&[])),
                        404 => None,
                        _ => {
                            note(unsuccessful_line(status, said, answer));
                            continue;
                        }
                    };
                    let siblings = said["siblings"].as_u64().unwrap_or(1);
                    // An answer to a get says how many owners answered only where they were too few.
                    match self.judge(&key, number, acked, value, said["replicas"].is_object(), siblings) {
                        Ok(verified) => {
                            sum.misses += verified.misses;
                            sum.old += verified.old;
                            sum.bytes_read += verified.bytes_read;
                        }
                        Err((wrong, what)) => note(Outcome::Wrong(wrong, format!("{what}, from {}", answer.from))),
                    }
                }
            }
        }
        worst.unwrap_or(Outcome::Verified(sum))
    }
}

/// What a line of a batch comes to that is none of success.
fn unsuccessful_line(status: u16, said: &Value, answer: &Answer) -> Outcome {
    let error = said["error"].as_str().unwrap_or_default();
    let why = format!("{} answers {status} in a batch: {error}", answer.from);
    match status {
        429 | 500..=599 => Outcome::Failed(Failed::Refused, why),
        400..=499 => Outcome::Failed(Failed::Rejected, why),
        _ => Outcome::Wrong(Wrong::Garbled, why),
    }
}

/// One page of a list.
struct Page {
    /// The keys on it that have numbers.
    numbers: BTreeSet<u32>,
    /// All keys on it.
    count: u64,
    /// The last key's number, where there is more behind it.
    last: Option<u32>,
    is_end: bool,
}

impl Page {
    /// `None` where it is no page, or not in order, or shows what was not asked for.
    fn read(answer: &Answer, prefix: &str, start: &str, limit: usize) -> Option<Page> {
        let said = answer.json().ok()?;
        let mut before = start.to_owned();
        let (mut numbers, mut count) = (BTreeSet::new(), 0);
        for shown in said["keys"].as_array()? {
            let key = shown["key"].as_str()?;
            // The first may be where the page starts.
            let in_order = if count == 0 { key >= before.as_str() } else { key > before.as_str() };
            if !in_order || !key.starts_with(prefix) {
                return None;
            }
            numbers.extend(keys::number(prefix, key));
            before.replace_range(.., key);
            count += 1;
        }
        let is_end = said.get("cursor").is_none_or(Value::is_null);
        (count <= limit as u64).then(|| Page { last: numbers.last().copied(), numbers, count, is_end })
    }

    /// Whether the page goes as far as this key.
    fn reaches(&self, number: u32) -> bool {
        self.is_end || self.last.is_some_and(|last| number <= last)
    }
}
