//! `/kv`: the keys there are, in the order of their bytes; one page as JSON, or all of them as lines.

use super::ask::{self, REPLICAS, ascii};
use super::condition;
use super::cursor;
use super::input::Query;
use super::lines::{self, CHUNK_BYTES, Gone, Lines, NDJSON};
use super::refuse::ApiError;
use crate::client::{ListTerms, Listed, Listing, Seat};
use crate::coordinator::ListItem;
use crate::node::{Worker, now};
use crate::protocol::{Filter, Place};
use crate::record::{KEY_BYTES_MAX, Key, Record};
use actix_web::http::Method;
use actix_web::http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Value, json};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

const PARAMETERS: &[&str] = &["prefix", "delimiter", "start", "limit", "cursor", "values", "mode", "r"];
/// Items of a JSON page: without a wish, and at most.
const LIMIT: usize = 1_000;
const LIMIT_MAX: usize = 10_000;
/// Items asked for at a time where there are many: each time costs a look into every partition.
const AT_A_TIME: usize = 4_096;
/// Bytes of values read at a time, and in one JSON page; a larger one goes alone.
const VALUES_AT_A_TIME_BYTES: u64 = 4 << 20;
const VALUES_PAGE_BYTES: u64 = 16 << 20;
/// Values read at a time.
const VALUES_AT_A_TIME: usize = 32;

/// What is asked for.
struct Wanted {
    filter: Filter,
    from: Place,
    /// How many items in all.
    limit: Option<usize>,
    with_values: bool,
    terms: ListTerms,
}

impl Wanted {
    fn of(query: &Query<'_>) -> Result<Wanted, ApiError> {
        let part = |name| {
            let bytes = query.bytes(name).unwrap_or_default();
            match bytes.len() <= KEY_BYTES_MAX {
                true => Ok(bytes.to_vec()),
                false => {
                    Err(ApiError::bad(format!("{name} is longer than any key"), "no key is there; send a shorter one"))
                }
            }
        };
        let filter = Filter { prefix: part("prefix")?.into(), delimiter: part("delimiter")?.into() };
        let from = match (query.bytes("cursor"), query.bytes("start")) {
            (None, _) => Place(part("start")?.into()),
            (Some(word), None) => cursor::read(&filter, word)?,
            (Some(_), Some(_)) => {
                return Err(ApiError::bad("start and cursor contradict each other", "send one of them"));
            }
        };
        let limit = match query.text("limit")? {
            None => None,
            Some(text) => match text.parse::<usize>() {
                Ok(limit @ 1..) => Some(limit),
                _ => return Err(ApiError::bad("limit must be a number from 1 on", "leave it away for the default")),
            },
        };
        let terms = ListTerms { mode: ask::mode(query)?, r: ask::count(query, "r")? };
        Ok(Wanted { filter, from, limit, with_values: query.switch("values")?, terms })
    }
}

/// Serves GET and HEAD.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    serving: &Arc<AtomicUsize>,
) -> Result<HttpResponse, ApiError> {
    let query = Query::of(request, PARAMETERS)?;
    let wanted = Wanted::of(&query)?;
    let accepts = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let as_lines = accepts.split(',').any(|kind| kind.trim().split(';').next() == NDJSON.to_str().ok());
    let seat = Listing::seat(worker).ok_or(ApiError::Busy("too many lists are being made on this node at once"))?;
    let Wanted { filter, from, limit, with_values, terms } = wanted;
    let listing = Listing::new(worker, terms, None, filter.clone(), from);
    let shown = Shown { worker: worker.clone(), request: request.clone(), filter, with_values };
    match as_lines {
        true => stream(shown, listing.going_on(), limit, seat, serving).await,
        false => page(shown, listing, limit.unwrap_or(LIMIT)).await,
    }
}

/// One page as JSON.
async fn page(shown: Shown, mut listing: Listing, limit: usize) -> Result<HttpResponse, ApiError> {
    if limit > LIMIT_MAX {
        return Err(ApiError::bad(
            format!("limit must be at most {LIMIT_MAX}"),
            "go on with the cursor, or send Accept: application/x-ndjson for any number",
        ));
    }
    let until = now() + shown.worker.node.settings.timeout / 2;
    let (mut keys, mut prefixes) = (Vec::new(), [Vec::new(), Vec::new()]);
    let (mut heard, mut bytes, mut ended) = (Heard::default(), 0, None);
    while keys.len() + prefixes[0].len() + prefixes[1].len() < limit && listing.next().is_some() && ended.is_none() {
        let count = keys.len() + prefixes[0].len() + prefixes[1].len();
        let found = match listing.page(limit - count).await {
            Ok(found) => found,
            // What was found before is as good as a smaller page.
            Err(_) if count > 0 => break,
            Err(error) => return Err(error.into()),
        };
        heard.note(&found);
        let mut rest = found.items.as_slice();
        while let Some(first) = rest.first() {
            if bytes >= VALUES_PAGE_BYTES {
                ended = Some(place_of(first));
                break;
            }
            let (some, others) = rest.split_at(shown.at_a_time(rest));
            for line in shown.lines(some).await? {
                bytes += if shown.with_values { line.text.len() as u64 } else { 0 };
                match line.prefix {
                    None => keys.push(line.text),
                    Some(prefix) => match std::str::from_utf8(&prefix) {
                        Ok(text) => prefixes[0].push(json!(text).to_string()),
                        Err(_) => prefixes[1].push(json!(STANDARD.encode(&prefix)).to_string()),
                    },
                }
            }
            rest = others;
        }
        if now() >= until {
            break;
        }
    }
    let next = ended.as_ref().or(listing.next()).map(|place| cursor::of(&shown.filter, place));
    let mut body = format!("{{\"keys\":[{}],\"prefixes\":[{}]", keys.join(","), prefixes[0].join(","));
    if !prefixes[1].is_empty() {
        body += &format!(",\"prefixes_base64\":[{}]", prefixes[1].join(","));
    }
    if let Some(next) = next {
        body += &format!(",\"cursor\":\"{next}\"");
    }
    body.push('}');
    let mut response = HttpResponse::Ok();
    response.insert_header((CONTENT_TYPE, "application/json"));
    if let Some(line) = heard.line() {
        response.insert_header((REPLICAS, line));
    }
    Ok(response.body(body))
}

/// All there is, or as many as wished, one a line. What goes wrong before the first is an answer of its own.
async fn stream(
    shown: Shown,
    mut listing: Listing,
    limit: Option<usize>,
    seat: Seat,
    serving: &Arc<AtomicUsize>,
) -> Result<HttpResponse, ApiError> {
    let first = listing.page(limit.unwrap_or(AT_A_TIME).min(AT_A_TIME)).await?;
    let (lines, mut response) = lines::answer(serving);
    let mut heard = Heard::default();
    heard.note(&first);
    if let Some(line) = heard.line() {
        response.headers_mut().insert(REPLICAS, line);
    }
    if *shown.request.method() == Method::HEAD {
        return Ok(response);
    }
    actix_web::rt::spawn(async move {
        let _seat = seat;
        // A client that has gone is told nothing.
        let _ = Streaming { shown, listing, limit, heard, lines, listed: 0 }.run(first).await;
    });
    Ok(response)
}

struct Streaming {
    shown: Shown,
    listing: Listing,
    limit: Option<usize>,
    heard: Heard,
    lines: Lines,
    listed: usize,
}

impl Streaming {
    async fn run(mut self, first: Listed) -> Result<(), Gone> {
        let mut page = first;
        loop {
            self.listed += page.items.len();
            let mut rest = page.items.as_slice();
            while let Some(first) = rest.first() {
                let error = match self.shown.worker.node.is_stopping() {
                    true => Some(ApiError::Busy("the node is stopping")),
                    false => {
                        let (some, others) = rest.split_at(self.shown.at_a_time(rest));
                        match self.shown.lines(some).await {
                            Err(error) => Some(error),
                            Ok(made) => {
                                for line in &made {
                                    self.lines.push(&line.text).await?;
                                }
                                rest = others;
                                None
                            }
                        }
                    }
                };
                if let Some(error) = error {
                    let from = place_of(first);
                    return self.break_off(error, Some(from)).await;
                }
                // Others on this thread have something to do too.
                tokio::task::yield_now().await;
            }
            let left = self.limit.map_or(AT_A_TIME, |limit| (limit - self.listed).min(AT_A_TIME));
            if left == 0 || self.listing.next().is_none() {
                return self.end().await;
            }
            // There may be nothing to show for many pages, and nobody any more to show it to.
            if self.lines.is_gone() {
                return Err(Gone);
            }
            if self.shown.worker.node.is_stopping() {
                return self.break_off(ApiError::Busy("the node is stopping"), None).await;
            }
            page = match self.listing.page(left).await {
                Ok(page) => page,
                Err(error) => return self.break_off(error.into(), None).await,
            };
            self.heard.note(&page);
        }
    }

    /// The last line of a whole list.
    async fn end(mut self) -> Result<(), Gone> {
        let mut line = json!({ "end": true });
        if let Some(next) = self.listing.next() {
            line["cursor"] = json!(cursor::of(&self.shown.filter, next));
        }
        self.heard.put(&mut line);
        self.lines.push(&line.to_string()).await?;
        self.lines.flush().await
    }

    /// The last line of one that is not whole: what happened, and from where on nothing was shown.
    async fn break_off(mut self, error: ApiError, from: Option<Place>) -> Result<(), Gone> {
        let (_, mut line) = lines::of_error(error);
        if let Some(place) = from.as_ref().or(self.listing.next()) {
            line["cursor"] = json!(cursor::of(&self.shown.filter, place));
        }
        // Whoever goes on elsewhere hears nothing more of what was shown here.
        self.heard.put(&mut line);
        self.lines.push(&line.to_string()).await?;
        self.lines.flush().await
    }
}

/// The fewest owners heard of any partition.
#[derive(Default)]
struct Heard {
    answered: usize,
    needed: usize,
}

impl Heard {
    fn note(&mut self, page: &Listed) {
        if self.needed == 0 || page.answered < self.answered {
            (self.answered, self.needed) = (page.answered, page.needed);
        }
    }

    /// Says so in the last line of a list.
    fn put(&self, line: &mut Value) {
        if self.answered < self.needed {
            line["replicas"] = json!({ "wanted": self.needed, "answered": self.answered });
        }
    }

    fn line(&self) -> Option<HeaderValue> {
        let Heard { answered, needed } = self;
        (answered < needed).then(|| ascii(format!("wanted={needed}, answered={answered}")))
    }
}

/// Where an item stands.
fn place_of(item: &ListItem) -> Place {
    match item {
        ListItem::Key(key, _) => Place::of(key),
        ListItem::Prefix(prefix) => Place(prefix.clone()),
    }
}

/// How items are shown.
struct Shown {
    worker: Rc<Worker>,
    request: HttpRequest,
    filter: Filter,
    with_values: bool,
}

/// An item as JSON.
struct Line {
    text: String,
    prefix: Option<bytes::Bytes>,
}

/// A key, for people and programs.
#[derive(Serialize)]
struct KeyLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    etag: &'a str,
    siblings: usize,
    size: u64,
    content_type: Option<&'a str>,
    expires: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

impl Shown {
    /// How many of these are made into lines at a time.
    fn at_a_time(&self, items: &[ListItem]) -> usize {
        if !self.with_values {
            return items.len().min(CHUNK_BYTES / 128);
        }
        let mut bytes = 0;
        let fits = |item: &&ListItem| {
            bytes += match item {
                ListItem::Key(_, record) => {
                    record.siblings().iter().map(|sibling| sibling.content.sketched_bytes()).sum()
                }
                ListItem::Prefix(_) => 0,
            };
            bytes <= VALUES_AT_A_TIME_BYTES
        };
        items.iter().take(VALUES_AT_A_TIME).take_while(fits).count().max(1)
    }

    /// The lines of these, without those that have expired or were deleted meanwhile.
    async fn lines(&self, items: &[ListItem]) -> Result<Vec<Line>, ApiError> {
        let mut reads = Vec::new();
        if self.with_values {
            for item in items {
                let ListItem::Key(key, _) = item else { continue };
                let (worker, request, key) = (self.worker.clone(), self.request.clone(), key.clone());
                // All of them begin before the first goes to a peer, which is asked for all of them at once.
                reads.push(actix_web::rt::spawn(async move {
                    let query = Query::of(&request, PARAMETERS)?;
                    ask::read(&worker, &request, &query, &key, None).await
                }));
            }
        }
        let mut reads = reads.into_iter();
        let mut lines = Vec::with_capacity(items.len());
        let now_ms = self.worker.node.now_stamp().ms();
        for item in items {
            match item {
                ListItem::Prefix(prefix) => lines.push(of_prefix(prefix)),
                ListItem::Key(key, sketch) => {
                    let text = match reads.next() {
                        None => of_key(key, sketch, now_ms, false),
                        Some(read) => {
                            let read = read.await.map_err(|_| ApiError::Bug("a read was cut short"))??;
                            of_key(key, &read.record, read.now_ms, true)
                        }
                    };
                    lines.extend(text.map(|text| Line { text, prefix: None }));
                }
            }
        }
        Ok(lines)
    }
}

fn of_prefix(prefix: &bytes::Bytes) -> Line {
    let mut line = Value::Object(serde_json::Map::new());
    ask::put_bytes(&mut line, "prefix", "prefix_base64", prefix);
    Line { text: line.to_string(), prefix: Some(prefix.clone()) }
}

/// What is shown of a key; nothing of one that does not live.
fn of_key(key: &Key, record: &Record, now_ms: u64, with_value: bool) -> Option<String> {
    let winner = record.winner(now_ms)?;
    let text = std::str::from_utf8(key.as_bytes()).ok();
    let bytes = &winner.content.value;
    let value = std::str::from_utf8(bytes).ok().filter(|_| with_value);
    let etag = condition::header(record.tag(now_ms));
    let line = KeyLine {
        key: text,
        key_base64: text.is_none().then(|| STANDARD.encode(key.as_bytes())),
        etag: etag.to_str().unwrap_or_default(),
        siblings: ask::sibling_count(record, now_ms),
        size: if with_value { bytes.len() as u64 } else { winner.content.sketched_bytes() },
        content_type: winner.content.content_type.as_deref(),
        expires: winner.content.expires_ms,
        value,
        value_base64: (with_value && value.is_none()).then(|| STANDARD.encode(bytes)),
    };
    serde_json::to_string(&line).ok()
}
