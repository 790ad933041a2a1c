//! `/batch`: many wishes in one request, one a line, and one line back for each, in order.
//!
//! They are not one: each is done or refused for itself, some at the same time, those on one key in the order in which they
//! stand. What is begun together goes to a peer together, so a hundred writes cost it one message, not a hundred.

use super::ask::{self, StoredKind};
use super::condition;
use super::counters::IDEMPOTENCY_KEY_BYTES_MAX;
use super::input::{self, Query};
use super::lines::{self, Gone, Lines, NDJSON};
use super::refuse::ApiError;
use super::store::JSON_GROWTH;
use crate::client::Seat;
use crate::node::Worker;
use crate::protocol::{REQUESTS_PER_BATCH_MAX, Refusal};
use crate::record::{
    CONTENT_TYPE_BYTES_MAX, Content, Edit, Key, Proposal, RequestId, Seen, Unfit, context_to_token, seen_from_token,
    seen_to_token,
};
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

const PARAMETERS: &[&str] = &["mode", "w", "r"];
/// Lines of one batch, and bytes of its body.
const ITEMS_MAX: usize = 10_000;
const BODY_BYTES_MAX: usize = 64 << 20;
/// Batches worked off at once: each holds its body.
const BATCHES_MAX: u64 = 16;
/// Lines worked off at a time: as many as fit into one message to a peer.
const AT_A_TIME: usize = REQUESTS_PER_BATCH_MAX;
/// Reads among them at first, and at least. They become more as long as the answers of one time are short beside so many
/// bytes, and fewer where they are longer.
const READS_AT_A_TIME: usize = 8;
const READS_AT_A_TIME_MIN: usize = 4;
const ANSWER_BYTES: usize = 16 << 20;

/// A line, as it comes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    op: String,
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    content_type: Option<String>,
    ttl: Option<f64>,
    context: Option<String>,
    if_match: Option<String>,
    if_none_match: Option<String>,
    by: Option<i64>,
    id: Option<String>,
}

/// A wish.
struct Item {
    key: Key,
    op: Op,
}

enum Op {
    Write(Proposal),
    Count(Proposal),
    Read { token: Option<String> },
}

/// Serves POST.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: web::Payload,
    serving: &Arc<AtomicUsize>,
) -> Result<HttpResponse, ApiError> {
    Query::of(request, PARAMETERS)?;
    if request.headers().contains_key(ask::CONTEXT) {
        return Err(ApiError::bad(
            "a batch has no context of its own",
            "send each key's Kringle-Context as \"context\" in its line",
        ));
    }
    let seat = Seat::take(&worker.node.batches, BATCHES_MAX);
    let seat = seat.ok_or(ApiError::Busy("too many batches are being worked off at once"))?;
    let body = input::body(&worker.node, request, payload, BODY_BYTES_MAX, "batch", "").await?;
    let lines: VecDeque<Bytes> = lines_of(&body);
    if lines.len() > ITEMS_MAX {
        return Err(ApiError::bad(
            format!("a batch has at most {ITEMS_MAX} lines, this one has {}", lines.len()),
            "nothing was done; send it in parts",
        ));
    }
    let mut batch = Batch { worker: worker.clone(), request: request.clone(), lines, reads_at_a_time: READS_AT_A_TIME };
    let first = batch.next().await;
    if batch.lines.is_empty() {
        let text: String = first.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        return Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, NDJSON)).body(text));
    }
    let (lines, response) = lines::answer(serving);
    actix_web::rt::spawn(async move {
        let _seat = seat;
        // What was not begun when the client went is not done.
        let _ = batch.run(first, lines).await;
    });
    Ok(response)
}

/// How many reads to make next, where so many could be made, so many were, and the answers had so many bytes. Only reads
/// that were made tell how long values are.
fn reads_next(most: usize, made: usize, bytes: usize) -> usize {
    match bytes {
        bytes if bytes > ANSWER_BYTES => (most / 4).max(READS_AT_A_TIME_MIN),
        bytes if bytes <= ANSWER_BYTES / 4 && made >= most => (most * 2).min(AT_A_TIME),
        _ => most,
    }
}

/// The lines of a body that are not blank.
fn lines_of(body: &Bytes) -> VecDeque<Bytes> {
    let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    lines.map(|line| body.slice_ref(line)).collect()
}

/// What is left of a batch.
struct Batch {
    worker: Rc<Worker>,
    request: HttpRequest,
    lines: VecDeque<Bytes>,
    reads_at_a_time: usize,
}

impl Batch {
    async fn run(mut self, first: Vec<String>, mut answers: Lines) -> Result<(), Gone> {
        let mut made = first;
        loop {
            for line in &made {
                answers.push(line).await?;
            }
            answers.flush().await?;
            if self.lines.is_empty() {
                return Ok(());
            }
            made = self.next().await;
        }
    }

    /// Works off the next lines; what is said of each.
    async fn next(&mut self) -> Vec<String> {
        self.worker.node.foreground.note();
        let (mut answers, mut chains) = (Vec::new(), BTreeMap::<Key, Vec<(usize, Op)>>::new());
        let (mut reads, mut came) = (0, 0);
        while answers.len() < AT_A_TIME && reads < self.reads_at_a_time {
            let Some(line) = self.lines.pop_front() else { break };
            came += line.len() as u64;
            match parse(&self.worker, &line) {
                Ok(Item { key, op }) => {
                    reads += usize::from(matches!(op, Op::Read { .. }));
                    chains.entry(key).or_default().push((answers.len(), op));
                    answers.push(String::new());
                }
                Err((key, error)) => answers.push(of_error(key.as_ref(), error)),
            }
        }
        // Each in a task of its own, so that all have begun before the first goes to a peer; and so that a client who hangs
        // up cuts none in half.
        let begun: Vec<_> = chains.into_iter().map(|(key, chain)| self.begin(key, chain)).collect();
        for chain in begun {
            for (at, answer) in chain.await.unwrap_or_default() {
                answers[at] = answer;
            }
        }
        for answer in answers.iter_mut().filter(|answer| answer.is_empty()) {
            *answer = of_error(None, ApiError::Bug("a wish was cut short"));
        }
        let bytes: usize = answers.iter().map(String::len).sum();
        self.worker.count(answers.len() as u64, came, bytes as u64);
        self.reads_at_a_time = reads_next(self.reads_at_a_time, reads, bytes);
        answers
    }

    /// Begins what is wished of one key, one after the other.
    fn begin(&self, key: Key, chain: Vec<(usize, Op)>) -> actix_web::rt::task::JoinHandle<Vec<(usize, String)>> {
        let (worker, request) = (self.worker.clone(), self.request.clone());
        actix_web::rt::spawn(async move {
            let mut answers = Vec::with_capacity(chain.len());
            for (at, op) in chain {
                let done = Box::pin(run(&worker, &request, &key, op)).await;
                answers.push((at, done.unwrap_or_else(|error| of_error(Some(&key), error))));
            }
            answers
        })
    }
}

const HINT: &str = "send {\"op\":\"put\",\"key\":\"…\",\"value\":\"…\"}, or get, delete, or incr with \"by\"; each on a line of its own";

/// A line's wish, or why it is none, with its key where that can be told.
fn parse(worker: &Worker, line: &Bytes) -> Result<Item, (Option<Key>, ApiError)> {
    let settings = &worker.node.settings;
    let asked = || -> Result<(Key, Asked), ApiError> {
        let max = (settings.value_bytes_max + settings.key_bytes_max) * JSON_GROWTH + 4_096;
        if line.len() > max {
            return Err(ApiError::TooLarge { what: "line", max, setting: "--value-max" });
        }
        let mut asked: Asked = input::object(line, HINT)?;
        let key = one_of("key", asked.key.take(), asked.key_base64.take())?;
        let key = key.ok_or_else(|| ApiError::bad("the line names no key", HINT))?;
        Ok((Key::within(key, settings.key_bytes_max)?, asked))
    };
    let (key, asked) = asked().map_err(|error| (None, error))?;
    match op_of(worker, &key, asked) {
        Ok(op) => Ok(Item { key, op }),
        Err(error) => Err((Some(key), error)),
    }
}

fn op_of(worker: &Worker, key: &Key, asked: Asked) -> Result<Op, ApiError> {
    let op = asked.op.as_str();
    if !matches!(op, "put" | "get" | "delete" | "incr") {
        let op: String = op.chars().take(60).collect();
        return Err(ApiError::bad(format!("there is no op \"{op}\""), HINT));
    }
    let value = one_of("value", asked.value, asked.value_base64)?;
    let belongs = [
        ("value", value.is_some(), op == "put"),
        ("content_type", asked.content_type.is_some(), op == "put"),
        ("ttl", asked.ttl.is_some(), op == "put"),
        ("context", asked.context.is_some(), op != "incr"),
        ("if_match", asked.if_match.is_some(), op != "get"),
        ("if_none_match", asked.if_none_match.is_some(), op != "get"),
        ("by", asked.by.is_some(), op == "incr"),
        ("id", asked.id.is_some(), op == "incr"),
    ];
    if let Some((name, ..)) = belongs.iter().find(|(_, is_there, belongs)| *is_there && !belongs) {
        let error = format!("\"{name}\" has no meaning for op \"{op}\"");
        return Err(ApiError::bad(error, "leave it away, or check the op"));
    }
    if op == "get" {
        return Ok(Op::Read { token: asked.context });
    }
    let condition = condition::of_texts(asked.if_match.as_deref(), asked.if_none_match.as_deref())?;
    if op == "incr" {
        let request = match asked.id {
            None => None,
            Some(id) if (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&id.len()) => Some(RequestId::of(id.as_bytes())),
            Some(_) => {
                let error = format!("an id has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes");
                return Err(ApiError::bad(error, "use a fresh random word, and the same one for a repetition"));
            }
        };
        let edit = Edit::Add { by: asked.by.unwrap_or(1), request };
        return Ok(Op::Count(Proposal { edit, condition }));
    }
    let seen = match &asked.context {
        None => Seen::Everything,
        Some(token) => seen_from_token(key, token)?,
    };
    if op == "delete" {
        return Ok(Op::Write(Proposal { edit: Edit::write(seen, None), condition }));
    }
    let max = worker.node.settings.value_bytes_max;
    let value = value.ok_or_else(|| ApiError::bad("the line has no value", "send \"value\" or \"value_base64\""))?;
    if value.len() > max {
        return Err(ApiError::TooLarge { what: "value", max, setting: "--value-max" });
    }
    if asked.content_type.as_ref().is_some_and(|text| text.len() > CONTENT_TYPE_BYTES_MAX) {
        return Err(ApiError::bad("the content_type is too long", "a media type has at most 255 characters"));
    }
    let expires_ms = asked.ttl.map(|seconds| ask::expires_after(worker, seconds)).transpose()?;
    let content_type = asked.content_type.map(String::into_boxed_str);
    let content = Content { value: value.into(), content_type, expires_ms, ..Content::default() };
    Ok(Op::Write(Proposal { edit: Edit::write(seen, Some(content)), condition }))
}

/// Bytes that are given as text, or as base64.
fn one_of(name: &'static str, text: Option<String>, base64: Option<String>) -> Result<Option<Vec<u8>>, ApiError> {
    match (text, base64) {
        (Some(_), Some(_)) => {
            Err(ApiError::bad(format!("{name} and {name}_base64 contradict each other"), "send one of them"))
        }
        (text, None) => Ok(text.map(String::into_bytes)),
        (None, Some(digits)) => match STANDARD.decode(digits) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(_) => {
                Err(ApiError::bad(format!("{name}_base64 is no base64"), "use the standard alphabet, with padding"))
            }
        },
    }
}

async fn run(worker: &Rc<Worker>, request: &HttpRequest, key: &Key, op: Op) -> Result<String, ApiError> {
    match op {
        Op::Write(proposal) => write(worker, request, key, proposal).await,
        Op::Count(proposal) => count(worker, request, key, proposal).await,
        Op::Read { token } => read(worker, request, key, token.as_deref()).await,
    }
}

/// What every line says of its key.
fn said(key: Option<&Key>, status: u16) -> Value {
    let mut line = json!({ "status": status });
    if let Some(key) = key {
        ask::put_bytes(&mut line, "key", "key_base64", key.as_bytes());
    }
    line
}

fn of_error(key: Option<&Key>, error: ApiError) -> String {
    let (status, told) = lines::of_error(error);
    let mut line = said(key, status);
    if let (Value::Object(line), Value::Object(told)) = (&mut line, told) {
        line.extend(told);
    }
    line.to_string()
}

async fn write(worker: &Rc<Worker>, request: &HttpRequest, key: &Key, proposal: Proposal) -> Result<String, ApiError> {
    let query = Query::of(request, PARAMETERS)?;
    let is_delete = proposal.edit.content().is_none();
    let stored = ask::write(worker, &query, key.clone(), proposal).await?;
    let status = match stored.kind {
        StoredKind::Created if !is_delete => 201,
        StoredKind::Created | StoredKind::Replaced => 204,
        StoredKind::Short => 202,
    };
    let mut line = said(Some(key), status);
    if !stored.record.is_tombstone() {
        line["etag"] = json!(ask::etag(&stored.record, worker.node.now_stamp().ms()).to_str().unwrap_or_default());
    }
    line["context"] = json!(seen_to_token(key, &stored.seen));
    line["replicas"] = ask::replicas_json(&stored.replicas);
    Ok(line.to_string())
}

async fn count(worker: &Rc<Worker>, request: &HttpRequest, key: &Key, proposal: Proposal) -> Result<String, ApiError> {
    let query = Query::of(request, PARAMETERS)?;
    let stored = ask::write(worker, &query, key.clone(), proposal).await?;
    let value = stored.record.counter(worker.node.now_stamp().ms());
    let value = value.ok_or(ApiError::Refused(Refusal::Unfit(Unfit::NotACounter)))?;
    let mut line = said(Some(key), if stored.kind == StoredKind::Short { 202 } else { 200 });
    line["context"] = json!(seen_to_token(key, &stored.seen));
    line["replicas"] = ask::replicas_json(&stored.replicas);
    let text = line.to_string();
    // Written by hand: parts from both sides of a split may leave 64 bits, which JSON allows and its library does not.
    Ok(format!("{},\"value\":{value}}}", text.strip_suffix('}').unwrap_or(&text)))
}

async fn read(worker: &Rc<Worker>, request: &HttpRequest, key: &Key, token: Option<&str>) -> Result<String, ApiError> {
    let query = Query::of(request, PARAMETERS)?;
    let read = ask::read(worker, request, &query, key, token).await?;
    let winner = read.winner(key)?;
    let mut line = said(Some(key), 200);
    ask::put_bytes(&mut line, "value", "value_base64", &winner.content.value);
    line["content_type"] = json!(winner.content.content_type);
    line["etag"] = json!(ask::etag(&read.record, read.now_ms).to_str().unwrap_or_default());
    line["context"] = json!(context_to_token(key, read.record.context()));
    line["siblings"] = json!(ask::sibling_count(&read.record, read.now_ms));
    if let Some(expires_ms) = winner.content.expires_ms {
        line["expires"] = json!(expires_ms);
    }
    if read.answered < read.needed {
        line["replicas"] = json!({ "wanted": read.needed, "answered": read.answered });
    }
    Ok(line.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_read_at_a_time_only_after_as_many_reads_with_short_answers() {
        assert_eq!(reads_next(8, 8, 1_000), 16);
        assert_eq!(reads_next(8, 0, 1_000), 8, "writes say nothing of what is read");
        assert_eq!(reads_next(8, 7, 1_000), 8);
        assert_eq!(reads_next(8, 8, ANSWER_BYTES / 2), 8);
        assert_eq!(reads_next(AT_A_TIME, AT_A_TIME, 1_000), AT_A_TIME);
        assert_eq!(reads_next(64, 64, ANSWER_BYTES + 1), 16);
        assert_eq!(reads_next(4, 4, ANSWER_BYTES + 1), READS_AT_A_TIME_MIN);
    }

    #[test]
    fn lines_are_told_apart_and_blank_ones_count_for_nothing() {
        let body = Bytes::from_static(b"{\"a\":1}\r\n\n  \n{\"b\":2}");
        assert_eq!(lines_of(&body), ["{\"a\":1}", "{\"b\":2}"].map(Bytes::from));
        assert!(lines_of(&Bytes::new()).is_empty());
    }

    #[test]
    fn bytes_are_text_or_base64_and_not_both() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(one_of("key", text("k"), None).ok().flatten(), Some(b"k".to_vec()));
        assert_eq!(one_of("key", None, text("//4A")).ok().flatten(), Some(vec![0xff, 0xfe, 0]));
        assert!(one_of("key", None, text("/")).is_err() && one_of("key", text(""), text("")).is_err());
        assert!(one_of("key", None, None).is_ok_and(|none| none.is_none()));
    }
}
