//! What a request says of its wish, and the parts of an answer. What becomes of the wish is [`client`]'s.

use super::condition;
use super::input::Query;
use super::refuse::ApiError;
use crate::client::{self, ReadTerms, WriteTerms};
pub(super) use crate::client::{Read, Stored, StoredKind, one_is_enough, read_at_hand};
use crate::coordinator::Replicas;
use crate::node::Worker;
use crate::placement::{Member, MemberIndex, Mode, Partition};
use crate::record::{
    ContentKind, Context, Key, Proposal, Record, Seen, Sibling, TokenError, context_to_token, seen_from_token,
    seen_to_token,
};
use actix_web::HttpRequest;
use actix_web::http::header::{HeaderName, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::rc::Rc;

/// The context of a record, as clients carry it.
pub(super) const CONTEXT: HeaderName = HeaderName::from_static("kringle-context");
/// How many concurrent values there are.
pub(super) const SIBLINGS: HeaderName = HeaderName::from_static("kringle-siblings");
/// When the value stops being shown, in milliseconds since 1970.
pub(super) const EXPIRES: HeaderName = HeaderName::from_static("kringle-expires");
/// How far a write got, or a read looked.
pub(super) const REPLICAS: HeaderName = HeaderName::from_static("kringle-replicas");

/// Parameters of every read, and of every write.
pub(super) const READ_PARAMETERS: &[&str] = &["mode", "r", "local", "siblings", "explain"];
pub(super) const WRITE_PARAMETERS: &[&str] = &["mode", "w"];

/// The longest time to live, in seconds: a hundred years, beyond which it is a mistake.
const TTL_MAX_S: f64 = 100.0 * 365.25 * 86_400.0;

/// The mode that a request names, if any.
pub(super) fn mode(query: &Query<'_>) -> Result<Option<Mode>, ApiError> {
    let word = query.text("mode")?.map(str::parse).transpose();
    word.map_err(|error| ApiError::bad(format!("{error}"), "leave ?mode= away for the cluster's own"))
}

/// The number of owners that a request names, if any; 0, which no key has, for what is no number.
pub(super) fn count(query: &Query<'_>, name: &'static str) -> Result<Option<u8>, ApiError> {
    Ok(query.text(name)?.map(|text| text.parse().unwrap_or(0)))
}

/// What a writing client has seen of `key`: what its body's `token` says, else its header.
pub(super) fn seen(request: &HttpRequest, key: &Key, token: Option<&str>) -> Result<Seen, ApiError> {
    let header = || request.headers().get(CONTEXT).map(|value| value.to_str().map_err(|_| TokenError));
    match token.map(Ok).or_else(header) {
        None => Ok(Seen::Everything),
        Some(token) => Ok(seen_from_token(key, token?)?),
    }
}

/// When a value stops being shown that is written now, in milliseconds since 1970: `?ttl=`, in seconds.
pub(super) fn expiry(worker: &Worker, query: &Query<'_>) -> Result<Option<u64>, ApiError> {
    // What is no number is none above 0 either.
    query.text("ttl")?.map(|text| expires_after(worker, text.parse().unwrap_or(f64::NAN))).transpose()
}

/// When a value stops being shown that is written now and lives for so many seconds, in milliseconds since 1970.
pub(super) fn expires_after(worker: &Worker, seconds: f64) -> Result<u64, ApiError> {
    if seconds > 0.0 && seconds <= TTL_MAX_S {
        return Ok(worker.node.now_stamp().ms() + (seconds * 1_000.0).ceil() as u64);
    }
    Err(ApiError::bad(
        format!("ttl must be a number of seconds above 0 and at most {TTL_MAX_S:.0}"),
        "a fraction is allowed; leave it away for a value that stays",
    ))
}

/// Writes, as far as the request wants. See [`client::write`].
pub(super) async fn write(
    worker: &Rc<Worker>,
    query: &Query<'_>,
    key: Key,
    wish: impl Into<Proposal>,
) -> Result<Stored, ApiError> {
    let terms = WriteTerms { mode: mode(query)?, w: count(query, "w")? };
    Ok(client::write(worker, terms, key, wish).await?)
}

/// Reads, from whom the request wants; nothing older than what its context shows, which is in its body's `token` or its
/// header. See [`client::read`].
pub(super) async fn read(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    query: &Query<'_>,
    key: &Key,
    token: Option<&str>,
) -> Result<Read, ApiError> {
    let since = seen(request, key, token)?.since();
    let mode = mode(query)?;
    let terms = match query.switch("local")? {
        true => ReadTerms { mode, since, local: true, ..ReadTerms::default() },
        false => {
            let explain = query.switch("explain")?;
            ReadTerms { mode, since, explain, r: count(query, "r")?, ..ReadTerms::default() }
        }
    };
    Ok(client::read(worker, &terms, key).await?)
}

impl Read {
    /// The value to show, or the error that there is none.
    pub(super) fn winner(&self, key: &Key) -> Result<Cow<'_, Sibling>, ApiError> {
        self.record.winner(self.now_ms).ok_or_else(|| ApiError::NoSuchKey {
            context: (!self.record.is_unknown()).then(|| context_to_token(key, self.record.context())),
            replicas: self.replicas_line(),
        })
    }

    /// The `Kringle-Replicas` of a read that heard fewer owners than its mode wants.
    pub(super) fn replicas_line(&self) -> Option<HeaderValue> {
        let Read { needed, answered, .. } = self;
        (answered < needed).then(|| ascii(format!("wanted={needed}, answered={answered}")))
    }

    /// Who holds what: position, partition, and each owner with its version.
    pub(super) fn explain(&self, worker: &Worker, key: &Key) -> Value {
        let partition = Partition::of(key.position());
        let owners = self.ring.owners(partition).iter().map(|owner| self.explain_owner(worker, *owner));
        let owners: Vec<Value> = owners.collect();
        json!({ "position": key.position().to_string(), "partition": partition.index(), "owners": owners })
    }

    fn explain_owner(&self, worker: &Worker, owner: MemberIndex) -> Value {
        let member = self.ring.member(owner);
        let answer = self.answers.iter().find(|(who, _)| *who == owner).map(|(_, record)| record);
        let held = match answer {
            None => json!({ "answered": false }),
            Some(None) => json!({ "answered": true, "holds": "nothing" }),
            Some(Some(record)) => json!({
                "answered": true,
                "holds": if record.is_tombstone() { "a tombstone" } else { "a value" },
                "siblings": record.siblings().iter().map(sibling_json).collect::<Vec<_>>(),
                "clock": record.context().entries().iter()
                    .map(|(actor, stamp)| (actor.to_string(), json!(stamp.to_string())))
                    .collect::<serde_json::Map<_, _>>(),
            }),
        };
        let mut owner = member_json(worker, member);
        if let (Value::Object(owner), Value::Object(held)) = (&mut owner, held) {
            owner.extend(held);
        }
        owner
    }
}

/// A member, for people: with the id it has been seen to have, where the layout of a young cluster does not know it yet.
pub(super) fn member_json(worker: &Worker, member: &Member) -> Value {
    let seen = match member.name == worker.node.name {
        true => Some(worker.node.id),
        false => worker.node.view().peer(&member.name).and_then(|peer| peer.id),
    };
    json!({ "id": seen.or(member.id).map(|id| id.to_string()), "name": member.name, "url": member.url })
}

/// A sibling, for people and programs.
pub(super) fn sibling_json(sibling: &Sibling) -> Value {
    let mut json = json!({
        "stamp": sibling.dot.stamp.to_string(),
        "actor": sibling.dot.actor.to_string(),
        "content_type": sibling.content.content_type,
        "expires": sibling.content.expires_ms,
    });
    if sibling.content.kind == ContentKind::Counter {
        json["counted"] = json!(true);
    }
    put_bytes(&mut json, "value", "value_base64", &sibling.content.value);
    json
}

/// All values there are to show, the winner first; equal ones are shown once.
pub(super) fn siblings_json(record: &Record, now_ms: u64) -> Vec<Value> {
    record.values(now_ms).iter().map(|value| sibling_json(value)).collect()
}

/// How many different values there are to show.
pub(super) fn sibling_count(record: &Record, now_ms: u64) -> usize {
    match record.siblings() {
        [only] => usize::from(only.content.lives(now_ms)),
        _ => record.values(now_ms).len(),
    }
}

/// Adds bytes as text under `text`, or, where they are none, as base64 under `base64`.
pub(super) fn put_bytes(json: &mut Value, text: &str, base64: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(value) => json[text] = json!(value),
        Err(_) => json[base64] = json!(STANDARD.encode(bytes)),
    }
}

/// The version that is shown at `now_ms`, in milliseconds since 1970, as an entity tag.
pub(super) fn etag(record: &Record, now_ms: u64) -> HeaderValue {
    condition::header(record.tag(now_ms))
}

/// The context word of a record as a header.
pub(super) fn context(key: &Key, context: &Context) -> HeaderValue {
    ascii(context_to_token(key, context))
}

/// The context word of a client that has written, as a header.
pub(super) fn seen_after(key: &Key, stored: &Stored) -> HeaderValue {
    ascii(seen_to_token(key, &stored.seen))
}

/// How far a write got, as a header.
pub(super) fn replicas_line(replicas: &Replicas) -> HeaderValue {
    ascii(format!("wanted={}, acked={}, hinted={}", replicas.wanted, replicas.acked, replicas.hinted))
}

/// How far a write got, as JSON.
pub(super) fn replicas_json(replicas: &Replicas) -> Value {
    json!({ "wanted": replicas.wanted, "acked": replicas.acked, "hinted": replicas.hinted })
}

/// A header of text we made ourselves, which is visible ASCII.
pub(super) fn ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}
