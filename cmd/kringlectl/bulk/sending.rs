//! Lines on their way into the cluster: a handful of keys in one batch, each said to be written or not, and read back if
//! wanted.
//!
//! Sent again, a handful comes to the same: the first of a key's values that is written supersedes all there is, the others
//! are written as by somebody who had seen nothing, and stand beside it.
//!
//! ```text
//!  in the file:  the shown one, …, the oldest          the newest of several values is the one that is shown
//!  written:      the oldest, in the wished mode   ──►  the others in `sloppy`, the shown one last
//! ```
//!
//! Not in the wished mode, all of them: what is agreed on has one value, and a second would supersede the first.

use super::line::{Entry, Shown};
use super::now_ms;
use crate::exit::{Exit, Failed};
use kringle::record::{Context, Key, context_to_token};
use kringle::remote::{Answer as Answered, Ask, Remote, query, segment};
use serde_json::{Value, json};
use std::time::Duration;

/// How often a key is sent that was refused only for now.
const TRIES_MAX: u32 = 6;
/// How long lies between the first two.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes, as they are sent, of the values of a key that goes in requests of its own: a batch has a limit.
const ALONE_BYTES: usize = 8 << 20;
/// Bytes of a batch's lines, about. Nodes take 64 MiB.
const BATCH_BYTES: usize = 16 << 20;
/// The mode in which values come to stand side by side.
const BESIDE: &str = "sloppy";

/// A key to be written.
pub struct Wanted {
    /// The number of its line.
    pub number: u64,
    pub entry: Entry,
}

/// What became of a handful.
#[derive(Default)]
pub struct Sent {
    /// Keys that were written.
    pub written: u64,
    /// Of these, such as fewer owners than wanted have so far.
    pub short: u64,
    /// Keys whose values had all expired: there is nothing to be written of them.
    pub expired: u64,
    /// Lines that were not written, with the reason.
    pub failed: Vec<(u64, String)>,
}

/// How to write.
#[derive(Clone)]
pub struct Terms {
    pub mode: Option<String>,
    /// Read back what was written.
    pub verify: bool,
}

/// Writes some keys. Fails where nobody can be asked: then none of them counts.
pub async fn send(remote: &Remote, terms: &Terms, wanted: &[Wanted]) -> Result<Sent, Failed> {
    let mut sent = Sent::default();
    let mut rest: Vec<(&Wanted, Vec<Shown>)> = Vec::new();
    let now_ms = now_ms();
    for wanted in wanted {
        let lives = |value: &Shown| value.expires.is_none_or(|expires| expires > now_ms);
        // The shown one last: then it is the newest again.
        let values: Vec<Shown> = wanted.entry.values().into_iter().rev().filter(lives).collect();
        match values.is_empty() {
            true => sent.expired += 1,
            false => rest.push((wanted, values)),
        }
    }
    let mut tries = 0;
    while !rest.is_empty() {
        let answers = answers(remote, terms, &rest).await?;
        tries += 1;
        let mut again = Vec::new();
        for ((wanted, values), answer) in rest.into_iter().zip(answers) {
            match answer {
                Answer::Written { is_short } => {
                    sent.written += 1;
                    sent.short += u64::from(is_short);
                }
                Answer::Refused { is_for_now: true, .. } if tries < TRIES_MAX => again.push((wanted, values)),
                Answer::Refused { why, .. } => sent.failed.push((wanted.number, why)),
            }
        }
        rest = again;
        if !rest.is_empty() {
            tokio::time::sleep(PAUSE * (1 << tries)).await;
        }
    }
    if terms.verify {
        read_back(remote, terms, wanted, &mut sent).await?;
    }
    sent.failed.sort();
    Ok(sent)
}

/// What was answered of one key.
enum Answer {
    Written { is_short: bool },
    Refused { is_for_now: bool, why: String },
}

/// What one value's answer says of its key.
fn answer_of(status: u64, said: &Value) -> Answer {
    match status {
        200..=299 => Answer::Written { is_short: status == 202 },
        status => {
            let why = said["error"].as_str().map_or_else(|| format!("status {status}"), str::to_owned);
            Answer::Refused { is_for_now: matches!(status, 408 | 429 | 503), why }
        }
    }
}

async fn answers(remote: &Remote, terms: &Terms, rest: &[(&Wanted, Vec<Shown>)]) -> Result<Vec<Answer>, Failed> {
    let mut answers: Vec<Answer> = rest.iter().map(|_| Answer::Written { is_short: false }).collect();
    let (mut first, mut beside) = (Vec::new(), Vec::new());
    for (at, (wanted, values)) in rest.iter().enumerate() {
        let unseen = if values.len() > 1 { Some(unseen(&wanted.entry)?) } else { None };
        let mut lines: Vec<String> = Vec::new();
        for value in values {
            let context = unseen.as_deref().filter(|_| !lines.is_empty());
            lines.push(line_of(&wanted.entry, value, context).to_string());
        }
        if lines.iter().map(String::len).sum::<usize>() > ALONE_BYTES {
            answers[at] = alone(remote, terms, &wanted.entry, values, unseen.as_deref()).await?;
            continue;
        }
        let mut lines = lines.into_iter();
        first.extend(lines.next().map(|line| (at, line)));
        beside.extend(lines.map(|line| (at, line)));
    }
    put(remote, terms.mode.as_deref(), first, &mut answers).await?;
    // Beside what is not there nothing can stand.
    beside.retain(|(at, _)| matches!(answers[*at], Answer::Written { .. }));
    put(remote, Some(BESIDE), beside, &mut answers).await?;
    Ok(answers)
}

/// Sends lines, each of the key at that place, in as many batches as it takes.
async fn put(
    remote: &Remote,
    mode: Option<&str>,
    lines: Vec<(usize, String)>,
    answers: &mut [Answer],
) -> Result<(), Failed> {
    let mut lines = lines.into_iter().peekable();
    while lines.peek().is_some() {
        let (mut body, mut places) = (String::new(), Vec::new());
        while let Some((at, line)) = lines.next_if(|(_, line)| body.is_empty() || body.len() + line.len() < BATCH_BYTES)
        {
            body.push_str(&line);
            body.push('\n');
            places.push(at);
        }
        let told = batch(remote, mode, body, places.len()).await?;
        for (at, said) in places.into_iter().zip(told) {
            let answer = answer_of(said["status"].as_u64().unwrap_or_default(), &said);
            // Of several values the worst counts.
            match (&answers[at], &answer) {
                (Answer::Refused { .. }, _) | (Answer::Written { is_short: true }, Answer::Written { .. }) => {}
                _ => answers[at] = answer,
            }
        }
    }
    Ok(())
}

/// The word of one who has seen nothing of the key.
fn unseen(entry: &Entry) -> Result<String, Failed> {
    let key = Key::new(entry.key()?).map_err(Failed::usage)?;
    Ok(context_to_token(&key, &Context::new()))
}

fn seconds_left(expires_ms: u64) -> f64 {
    // One that has ended since it was looked at ends at once.
    expires_ms.saturating_sub(now_ms()).max(1) as f64 / 1_000.0
}

fn line_of(entry: &Entry, value: &Shown, beside: Option<&str>) -> Value {
    let (name, key) = entry.named();
    let mut line = json!({ "op": "put", name: key });
    if let Some((name, text)) = value.named() {
        line[name] = json!(text);
    }
    if let Some(content_type) = &value.content_type {
        line["content_type"] = json!(content_type);
    }
    if let Some(expires_ms) = value.expires {
        line["ttl"] = json!(seconds_left(expires_ms));
    }
    if let Some(context) = beside {
        line["context"] = json!(context);
    }
    line
}

/// Asks until somebody answers: to be sent again comes to the same.
async fn asked(remote: &Remote, ask: &Ask) -> Result<Answered, Failed> {
    let mut tries = 0;
    loop {
        tries += 1;
        let failed = match remote.ask(ask).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => Failed::from(failure),
        };
        if tries >= TRIES_MAX || !matches!(failed.exit, Exit::Unavailable | Exit::TimedOut) {
            return Err(failed);
        }
        tokio::time::sleep(PAUSE * (1 << tries)).await;
    }
}

/// A batch, and what is said of each of its lines.
async fn batch(remote: &Remote, mode: Option<&str>, body: String, lines: usize) -> Result<Vec<Value>, Failed> {
    let mode = mode.map(|mode| ("mode", mode.as_bytes()));
    let ask = Ask::post(query("/batch", mode)).header("content-type", "application/x-ndjson").body(body).repeatable();
    let mut tries = 0;
    loop {
        tries += 1;
        let answer = asked(remote, &ask).await?;
        if answer.status.as_u16() == 413 {
            // Somebody on the way takes less than nodes do. The other lines are none the worse for it.
            let why = answer.json().unwrap_or_default()["error"].as_str().unwrap_or("it is too large").to_owned();
            return Ok(vec![json!({ "status": 413, "error": why }); lines]);
        }
        let failed = match answer.successful() {
            Ok(answer) => {
                let told: Result<Vec<Value>, _> = answer
                    .body
                    .split(|byte| *byte == b'\n')
                    .filter(|line| !line.is_empty())
                    .map(serde_json::from_slice)
                    .collect();
                match told {
                    Ok(told) if told.len() == lines => return Ok(told),
                    _ => Failed::new(Exit::Unavailable, format!("{}: the answer to a batch broke off", answer.from)),
                }
            }
            Err(failure) => failure.into(),
        };
        if tries >= TRIES_MAX || !matches!(failed.exit, Exit::Unavailable | Exit::TimedOut) {
            return Err(failed);
        }
        tokio::time::sleep(PAUSE * (1 << tries)).await;
    }
}

/// A key too large for a batch.
async fn alone(
    remote: &Remote,
    terms: &Terms,
    entry: &Entry,
    values: &[Shown],
    unseen: Option<&str>,
) -> Result<Answer, Failed> {
    let mut is_short = false;
    for (number, value) in values.iter().enumerate() {
        let beside = unseen.filter(|_| number > 0);
        let ttl = value.expires.map(|expires_ms| seconds_left(expires_ms).to_string());
        let mode = if beside.is_some() { Some(BESIDE) } else { terms.mode.as_deref() };
        let parameters = mode.map(|mode| ("mode", mode.as_bytes())).into_iter();
        let parameters = parameters.chain(ttl.as_ref().map(|ttl| ("ttl", ttl.as_bytes())));
        let mut ask = Ask::put(query(&format!("/kv/{}", segment(&entry.key()?)), parameters)).repeatable();
        if let Some(content_type) = &value.content_type {
            ask = ask.header("content-type", content_type);
        }
        if let Some(beside) = beside {
            ask = ask.header("kringle-context", beside);
        }
        let answer = asked(remote, &ask.body(value.bytes()?)).await?;
        match answer_of(answer.status.as_u16().into(), &answer.json().unwrap_or_default()) {
            Answer::Written { is_short: short } => is_short |= short,
            refused => return Ok(refused),
        }
    }
    Ok(Answer::Written { is_short })
}

/// Reads what was written, and counts as failed what is not there.
async fn read_back(remote: &Remote, terms: &Terms, wanted: &[Wanted], sent: &mut Sent) -> Result<(), Failed> {
    let now_ms = now_ms();
    // What ends within a moment may be gone by the time it is read.
    let lasts = |value: &Shown| value.expires.is_none_or(|expires| expires > now_ms + 60_000);
    let is_small = |value: &Shown| value.named().is_none_or(|(_, text)| text.len() <= ALONE_BYTES);
    let (mut body, mut lone, mut others) = (String::new(), Vec::new(), Vec::new());
    for wanted in wanted {
        let values: Vec<Shown> = wanted.entry.values().into_iter().filter(lasts).collect();
        let is_failed = sent.failed.iter().any(|(number, _)| *number == wanted.number);
        match values.as_slice() {
            _ if is_failed => {}
            [] => {}
            [value] if is_small(value) => {
                let (name, key) = wanted.entry.named();
                body.push_str(&json!({ "op": "get", name: key }).to_string());
                body.push('\n');
                lone.push((wanted, values));
            }
            _ => others.push((wanted, values)),
        }
    }
    let mut held: Vec<(&Wanted, Vec<Shown>, Vec<Shown>)> = Vec::new();
    if !lone.is_empty() {
        let told = batch(remote, terms.mode.as_deref(), body, lone.len()).await?;
        for ((wanted, values), said) in lone.into_iter().zip(told) {
            let is_found = said["status"] == 200;
            let found = if is_found { serde_json::from_value(said).into_iter().collect() } else { Vec::new() };
            held.push((wanted, values, found));
        }
    }
    for (wanted, values) in others {
        let mode = terms.mode.as_ref().map(|mode| ("mode", mode.as_bytes()));
        let parameters = [("siblings", b"1".as_slice())].into_iter().chain(mode);
        let ask = Ask::get(query(&format!("/kv/{}", segment(&wanted.entry.key()?)), parameters));
        let found = match asked(remote, &ask).await?.successful() {
            Ok(answer) => serde_json::from_value(answer.json()?["siblings"].clone()).unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        held.push((wanted, values, found));
    }
    for (wanted, values, found) in held {
        let is_equal = |one: &Shown, other: &Shown| {
            one.content_type == other.content_type && one.bytes().ok() == other.bytes().ok()
        };
        if !values.iter().all(|value| found.iter().any(|found| is_equal(found, value))) {
            sent.written = sent.written.saturating_sub(1);
            sent.failed.push((wanted.number, "what was read back is not what was written".into()));
        }
    }
    Ok(())
}
