//! Paths, queries and bodies, decoded once and held to their limits.

use super::refuse::ApiError;
use crate::node::{BODIES_BYTES_MAX, Shared};
use crate::record::Key;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// How long a body may take to arrive. A value of the largest size, 64 MiB, needs about 5 Mbit/s.
const BODY_TIME_MAX: Duration = Duration::from_secs(120);
/// How long a body may pause. A client that has nothing more to say for so long has gone.
const BODY_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Decodes percent escapes, once. A `%` that begins none is an error, not a guess.
pub(super) fn percent_decode(text: &[u8], plus_is_space: bool) -> Result<Vec<u8>, ApiError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'%' => {
                let escape = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
                let value = escape.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
                let value = value.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                decoded.push(value.ok_or_else(|| {
                    ApiError::bad("a percent sign that begins no escape", "write a percent sign as %25")
                })?);
                rest = &rest[2..];
            }
            b'+' if plus_is_space => decoded.push(b' '),
            other => decoded.push(other),
        }
    }
    Ok(decoded)
}

/// The key that the rest of a path names, decoded once, of at most `max` bytes.
pub(super) fn key(rest: &str, max: usize) -> Result<Key, ApiError> {
    Ok(Key::within(percent_decode(rest.as_bytes(), false)?, max)?)
}

/// The parameters of a query or a form.
#[derive(Default)]
pub(super) struct Query<'a> {
    pairs: Vec<(Cow<'a, str>, Vec<u8>)>,
}

impl<'a> Query<'a> {
    /// The request's query. A parameter that is not `known` is an error: a misspelt one would change the meaning.
    pub(super) fn of(request: &'a HttpRequest, known: &[&str]) -> Result<Query<'a>, ApiError> {
        match request.head().uri.query() {
            None | Some("") => Ok(Query::default()),
            Some(text) => Query::parse(text, known),
        }
    }

    /// The parameters in `text`.
    pub(super) fn parse(text: &'a str, known: &[&str]) -> Result<Query<'a>, ApiError> {
        let mut pairs: Vec<(Cow<'a, str>, Vec<u8>)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !known.contains(&name) {
                let name: String = name.chars().take(60).collect();
                return Err(ApiError::bad(
                    format!("unknown parameter \"{name}\"; this path knows {}", known.join(", ")),
                    "check its spelling",
                ));
            }
            if pairs.iter().any(|(seen, _)| seen == name) {
                return Err(ApiError::bad(format!("the parameter {name} is given twice"), "give it once"));
            }
            pairs.push((Cow::Borrowed(name), percent_decode(value.as_bytes(), true)?));
        }
        Ok(Query { pairs })
    }

    /// The parameters of both; of one that is in both, this one's.
    pub(super) fn and(mut self, other: Query<'a>) -> Query<'a> {
        self.pairs.extend(other.pairs);
        self
    }

    /// The bytes of a parameter.
    pub(super) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
    }

    /// The text of a parameter.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<&str>, ApiError> {
        let Some(value) = self.bytes(name) else { return Ok(None) };
        match std::str::from_utf8(value) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(ApiError::bad(format!("the parameter {name} is not text"), "use UTF-8")),
        }
    }

    /// Whether a switch is on: `1`, `true`, or named without a value.
    pub(super) fn switch(&self, name: &'static str) -> Result<bool, ApiError> {
        match self.text(name)? {
            None | Some("0" | "false") => Ok(false),
            Some("" | "1" | "true") => Ok(true),
            Some(_) => Err(ApiError::bad(format!("the parameter {name} is a switch"), "use 1 or 0")),
        }
    }
}

/// Reads a JSON object: a list would do for the libraries, and mean something else to everybody else.
pub(super) fn object<T: DeserializeOwned>(body: &[u8], hint: &'static str) -> Result<T, ApiError> {
    let bad = |error: String| ApiError::bad(format!("the body is not the JSON expected: {error}"), hint);
    match body.trim_ascii_start().first() {
        Some(b'{') | None => serde_json::from_slice(body).map_err(|error| bad(error.to_string())),
        Some(_) => Err(bad("not an object".into())),
    }
}

/// Bytes of bodies held against the node's budget, given back when dropped.
struct Held<'a>(&'a AtomicU64, u64);

impl Held<'_> {
    fn add(&mut self, bytes: u64) -> Result<(), Unfit> {
        self.1 += bytes;
        let all = self.0.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if all > BODIES_BYTES_MAX { Err(Unfit::NoRoom) } else { Ok(()) }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// What is left of a body that was refused.
pub(super) struct Unread(web::Payload);

impl Unread {
    /// The response, with this kept until it is sent. The connection is then closed; a chunked body that was dropped
    /// earlier would be read to its end, however far that is.
    pub(super) fn kept_behind(self, response: HttpResponse) -> HttpResponse {
        response.map_body(|_, body| BoxBody::new(Answering { body, _unread: self.0 }))
    }
}

struct Answering {
    body: BoxBody,
    _unread: web::Payload,
}

impl MessageBody for Answering {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

/// Takes in a body of at most `max` bytes, as it is. `what` and `setting` name the limit.
pub(super) async fn body(
    node: &Shared,
    request: &HttpRequest,
    mut payload: web::Payload,
    max: usize,
    what: &'static str,
    setting: &'static str,
) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::TooLarge { what, max, setting };
    let headers = request.headers();
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(ApiError::Encoded);
    }
    let declared = declared(request);
    if declared.is_some_and(|length| length > max as u64) {
        return Err(too_large());
    }
    let mut held = Held(&node.body_bytes, 0);
    let gathered = tokio::time::timeout(BODY_TIME_MAX, gather(&mut payload, max, &mut held)).await;
    if !matches!(gathered, Ok(Ok(_))) {
        request.extensions_mut().insert(Unread(payload));
    }
    match gathered {
        Err(_) | Ok(Err(Unfit::TooSlow)) => Err(ApiError::SlowBody),
        Ok(Err(Unfit::TooLarge)) => Err(too_large()),
        Ok(Err(Unfit::NoRoom)) => Err(ApiError::Busy("too many bytes are being sent to this node at once")),
        Ok(Err(Unfit::Broken)) => {
            Err(ApiError::bad("the body broke off, or its chunks make no sense", "nothing was stored; send it again"))
        }
        Ok(Ok(bytes)) => {
            if declared.is_none() && !bytes.is_empty() {
                request.extensions_mut().insert(Undeclared(bytes.len() as u64));
            }
            Ok(bytes)
        }
    }
}

/// How long a body was that came in chunks.
struct Undeclared(u64);

/// The length that a request says its body has.
fn declared(request: &HttpRequest) -> Option<u64> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// How many bytes the body of a request has, or had that was taken in.
pub(super) fn bytes_of(request: &HttpRequest) -> u64 {
    declared(request).unwrap_or_else(|| request.extensions().get::<Undeclared>().map_or(0, |came| came.0))
}

enum Unfit {
    TooLarge,
    TooSlow,
    NoRoom,
    Broken,
}

/// Takes in what comes, counting each byte when it is there, not when it is announced.
async fn gather(payload: &mut web::Payload, max: usize, held: &mut Held<'_>) -> Result<Bytes, Unfit> {
    let mut gathered = BytesMut::new();
    let mut first: Option<Bytes> = None;
    loop {
        let next = poll_fn(|context| Pin::new(&mut *payload).poll_next(context));
        let Some(chunk) = tokio::time::timeout(BODY_PAUSE_MAX, next).await.map_err(|_| Unfit::TooSlow)? else { break };
        let chunk = chunk.map_err(|_| Unfit::Broken)?;
        if held.1 + chunk.len() as u64 > max as u64 {
            return Err(Unfit::TooLarge);
        }
        held.add(chunk.len() as u64)?;
        match first.take() {
            None if gathered.is_empty() => first = Some(chunk),
            None => gathered.extend_from_slice(&chunk),
            Some(first) => {
                gathered.extend_from_slice(&first);
                gathered.extend_from_slice(&chunk);
            }
        }
    }
    Ok(first.unwrap_or_else(|| gathered.freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_once_and_bad_ones_refused() {
        assert_eq!(percent_decode(b"a%2Fb%252F+", false).unwrap(), b"a/b%2F+");
        assert_eq!(percent_decode(b"a+b%00%ff", true).unwrap(), b"a b\x00\xff");
        for bad in ["%", "%2", "%zz", "%+1", "a%2"] {
            assert!(percent_decode(bad.as_bytes(), false).is_err(), "{bad}");
        }
    }

    #[test]
    fn unknown_and_repeated_parameters_are_refused() {
        let known = &["key", "local"];
        let query = Query::parse("key=a%20b&local", known).ok().unwrap();
        assert_eq!(query.bytes("key"), Some(&b"a b"[..]));
        assert!(query.switch("local").ok().unwrap());
        assert!(Query::parse("kye=a", known).is_err());
        assert!(Query::parse("key=a&key=b", known).is_err());
        assert!(Query::parse("local=maybe", known).ok().unwrap().switch("local").is_err());
    }
}
