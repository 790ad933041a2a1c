//! A client's wish becomes an operation, and its outcome the parts of an answer.

use super::input::Query;
use super::refuse::ApiError;
use super::{agree, between, condition};
use crate::config::Wanted;
use crate::coordinator::{Count, Get, GetOptions, GetOutcome, Put, PutOptions, PutOutcome, Quorum, Replicas, Write};
use crate::node::Worker;
use crate::placement::{Member, MemberIndex, Mode, Partition, Ring};
use crate::protocol::Answer;
use crate::record::{
    ContentKind, Context, Key, Proposal, Record, Seen, Sibling, TokenError, context_to_token, seen_from_token,
    seen_to_token,
};
use crate::storage::Address;
use actix_web::HttpRequest;
use actix_web::http::header::{HeaderName, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

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

/// The part of `--timeout` within which an operation concludes; the rest is for carrying its answer home.
pub(super) const DEADLINE_SHARE: f64 = 0.9;
/// How long a read waits for a silent owner before it asks another, at most; and for all of them, before it asks stand-ins.
pub(super) const READ_PATIENCE_MAX: Duration = Duration::from_millis(100);

/// A write that was stored.
pub(super) struct Stored {
    pub(super) kind: StoredKind,
    /// What its client may say it has seen.
    pub(super) seen: Seen,
    pub(super) record: Record,
    pub(super) replicas: Replicas,
}

/// What became of a stored write.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum StoredKind {
    /// As many owners as asked for have it; there was no live value before.
    Created,
    /// As many owners as asked for have it, in place of what was there.
    Replaced,
    /// Fewer have it.
    Short,
}

/// How many owners a request wants: its own word, else the node's setting.
fn count(
    worker: &Worker,
    query: &Query<'_>,
    name: &'static str,
    mode: Mode,
    owners: usize,
) -> Result<(Quorum, bool), ApiError> {
    let settings = &worker.node.settings;
    if let Some(text) = query.text(name)? {
        let most = worker.node.ring().layout().replicas();
        let wanted = text.parse::<u8>().ok().filter(|count| (1..=most).contains(count));
        let Some(wanted) = wanted else {
            let error = format!("{name} must be a number from 1 to {most}");
            return Err(ApiError::bad(
                error,
                "it counts the owners of the key, as many as the cluster has replicas at most",
            ));
        };
        let quorum = Quorum::of(Count::Exactly(wanted), owners);
        let refused = ApiError::NotEnoughOwners { needed: usize::from(wanted), owners };
        return quorum.map(|quorum| (quorum, true)).ok_or(refused);
    }
    let default = if name == "w" { settings.w } else { settings.r };
    let wanted = match default {
        _ if mode == Mode::Async => Count::Exactly(1),
        Wanted::Majority => Count::Majority,
        Wanted::Owners(count) => Count::Exactly(count.min(owners) as u8),
    };
    Ok((Quorum::of(wanted, owners).unwrap_or(Quorum::one()), false))
}

fn mode(query: &Query<'_>, ring: &Ring) -> Result<Mode, ApiError> {
    match query.text("mode")? {
        None => Ok(ring.layout().mode()),
        Some(word) => {
            word.parse().map_err(|error| ApiError::bad(format!("{error}"), "leave ?mode= away for the cluster's own"))
        }
    }
}

/// What a writing client has seen of `key`: what its body's `token` says, else its header.
pub(super) fn seen(request: &HttpRequest, key: &Key, token: Option<&str>) -> Result<Seen, ApiError> {
    let header = || request.headers().get(CONTEXT).map(|value| value.to_str().map_err(|_| TokenError));
    match token.map(Ok).or_else(header) {
        None => Ok(Seen::Everything),
        Some(token) => Ok(seen_from_token(key, token?)?),
    }
}

/// What a reading client has seen of `key`, and wants nothing older than.
fn since(request: &HttpRequest, key: &Key, token: Option<&str>) -> Result<Context, ApiError> {
    Ok(seen(request, key, token)?.since())
}

/// When a value stops being shown that is written now, in milliseconds since 1970: `?ttl=`, in seconds.
pub(super) fn expiry(worker: &Worker, query: &Query<'_>) -> Result<Option<u64>, ApiError> {
    let Some(text) = query.text("ttl")? else { return Ok(None) };
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= TTL_MAX_S => {
            Ok(Some(worker.node.now_stamp().ms() + (seconds * 1_000.0).ceil() as u64))
        }
        _ => Err(ApiError::bad(
            format!("ttl must be a number of seconds above 0 and at most {TTL_MAX_S:.0}"),
            "a fraction is allowed; leave it away for a value that stays",
        )),
    }
}

/// Writes, as far as the request's mode wants. What came to nothing, or to less than that, because the layout changed
/// meanwhile is tried again under the new one, unless it might count twice.
pub(super) async fn write(
    worker: &Rc<Worker>,
    query: &Query<'_>,
    key: Key,
    wish: impl Into<Proposal>,
) -> Result<Stored, ApiError> {
    let wish = wish.into();
    let mut patience = between::Patience::new(worker);
    // What came of it before, where it may be stored somewhere since.
    let mut before: Option<Result<Stored, ApiError>> = None;
    loop {
        let ring = worker.node.ring();
        let earlier = before.as_ref().and_then(|before| Some(before.as_ref().ok()?.record.clone()));
        let result = write_under(worker, query, key.clone(), wish.clone(), ring.clone(), earlier).await;
        let is_short = match &result {
            Ok(stored) => stored.kind == StoredKind::Short && !wish.edit.counts(),
            Err(error) => error.is_worth_another_try(),
        };
        if !is_short || !patience.is_between(&ring).await {
            let says_nowhere = result.as_ref().is_err_and(|error| !matches!(error, ApiError::NotReplicated { .. }));
            return match before {
                // That nothing was stored goes for the last try alone.
                Some(before) if says_nowhere => before,
                _ => result,
            };
        }
        if matches!(&result, Ok(_) | Err(ApiError::NotReplicated { .. })) {
            before = Some(result);
        }
    }
}

async fn write_under(
    worker: &Rc<Worker>,
    query: &Query<'_>,
    key: Key,
    wish: Proposal,
    ring: Arc<Ring>,
    earlier: Option<Record>,
) -> Result<Stored, ApiError> {
    let node = &worker.node;
    let mode = mode(query, &ring)?;
    if wish.condition.is_some() && mode != Mode::Quorum {
        return Err(ApiError::bad(
            format!("mode {mode} promises nothing of conditions"),
            "add ?mode=quorum, in which the owners of a key agree on them",
        ));
    }
    if mode.agrees() {
        return agree::write(worker, query, key, wish, mode, ring).await;
    }
    let edit = wish.edit;
    let counts = edit.counts();
    let owners = ring.owners(Partition::of(key.position())).len();
    let (quorum, hard) = count(worker, query, "w", mode, owners)?;
    let deadline = node.settings.timeout.mul_f64(DEADLINE_SHARE);
    let options = PutOptions {
        quorum,
        hard,
        covers: mode != Mode::Async,
        now: node.now_stamp(),
        deadline_ms: deadline.as_millis() as u64,
        avoid: node.avoid(&ring),
        earlier,
    };
    let put = Put::new(Write { key, edit }, ring.clone(), node.me(&ring), options);
    match worker.run(put, ring, deadline).await {
        Some(PutOutcome::Stored { created, record, seen, replicas }) => {
            let kind = if created { StoredKind::Created } else { StoredKind::Replaced };
            Ok(Stored { kind, seen, record, replicas })
        }
        Some(PutOutcome::Short { record, seen, replicas }) => {
            Ok(Stored { kind: StoredKind::Short, seen, record, replicas })
        }
        Some(PutOutcome::Unknown { replicas, cause, is_nowhere }) => {
            Err(ApiError::NotReplicated { replicas, needed: quorum.needed(), cause, may_repeat: is_nowhere || !counts })
        }
        Some(PutOutcome::Refused(refusal)) => Err(ApiError::Refused(refusal)),
        None => Err(ApiError::Bug("a write ended without a word")),
    }
}

/// What a read found.
pub(super) struct Read {
    pub(super) record: Record,
    /// Who answered, and with what; the records only where they are to be shown.
    pub(super) answers: Vec<(MemberIndex, Option<Record>)>,
    pub(super) ring: Arc<Ring>,
    /// How many owners the mode wanted to hear.
    pub(super) needed: usize,
    /// How many it heard.
    pub(super) answered: usize,
    /// When it was answered, in milliseconds since 1970: what has expired by then is not shown.
    pub(super) now_ms: u64,
}

/// Whether a read that says nothing else is content with one owner's word.
pub(super) fn one_is_enough(worker: &Worker, ring: &Ring) -> bool {
    let layout = ring.layout();
    let reads_one = layout.mode() == Mode::Async || worker.node.settings.r.of(layout.table().width()) <= 1;
    reads_one && !layout.mode().agrees()
}

/// What this node holds, where [`one_is_enough`], it is an owner, and memory can tell: nobody else need be asked, and
/// nothing waited for.
pub(super) fn read_at_hand(worker: &Worker, ring: &Ring, key: &Key) -> Option<Record> {
    if !ring.is_owner(worker.node.me(ring), Partition::of(key.position())) {
        return None;
    }
    match worker.row_at_hand(&Address::data(key))? {
        Answer::Found { record } => Some(record.unwrap_or_default()),
        _ => None,
    }
}

/// Reads, from as many owners as the request's mode wants, or from this node only; nothing older than what the request's
/// context shows, which is in its body's `token` or its header. Where the layout changed meanwhile, it is tried again.
pub(super) async fn read(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    query: &Query<'_>,
    key: &Key,
    token: Option<&str>,
) -> Result<Read, ApiError> {
    let since = since(request, key, token)?;
    let mut patience = between::Patience::new(worker);
    loop {
        let ring = worker.node.ring();
        let result = read_under(worker, query, key, since.clone(), ring.clone()).await;
        let is_short = match &result {
            // Others than the owners that did not answer may have an older value.
            Ok(read) => read.answered < read.needed,
            Err(error) => error.is_worth_another_try(),
        };
        if !is_short || !patience.is_between(&ring).await {
            return result;
        }
    }
}

async fn read_under(
    worker: &Rc<Worker>,
    query: &Query<'_>,
    key: &Key,
    since: Context,
    ring: Arc<Ring>,
) -> Result<Read, ApiError> {
    let node = &worker.node;
    let mode = mode(query, &ring)?;
    let owners = ring.owners(Partition::of(key.position())).len();
    let me = node.me(&ring);
    if query.switch("local")? {
        let address = Address::data(key);
        if ring.guest().is_some() || node.takes_in(address.partition()) {
            return Err(ApiError::NotHere);
        }
        let seen = node.seen_of(address.partition(), &since);
        let row = worker.read(&address).await?;
        return match crate::replica::having_seen(crate::replica::found(&address, row.as_ref()), seen) {
            Answer::Found { record } => {
                let (answers, record) = (vec![(me, record.clone())], record.unwrap_or_default());
                if !record.context().dominates(&since) {
                    return Err(ApiError::Behind { answered: 1 });
                }
                Ok(Read { record, answers, ring, needed: 1, answered: 1, now_ms: node.now_stamp().ms() })
            }
            Answer::Refused(refusal) => Err(ApiError::Refused(refusal)),
            _ => Err(ApiError::Bug("a look-up was answered with something else")),
        };
    }
    let explain = query.switch("explain")?;
    if mode.agrees() && !explain {
        return agree::read(worker, query, key, since, mode, ring).await;
    }
    let (quorum, hard) = count(worker, query, "r", mode, owners)?;
    let deadline = node.settings.timeout.mul_f64(DEADLINE_SHARE);
    let patience = (deadline / 4).min(READ_PATIENCE_MAX);
    let hedge = worker.read_patience(&ring, Partition::of(key.position()), patience);
    let options = GetOptions {
        quorum,
        hard,
        all: explain,
        hedge_ms: (hedge.as_millis() as u64).max(1),
        patience_ms: (patience.as_millis() as u64).max(1),
        behind: node.behind(&ring),
        avoid: node.avoid(&ring),
        since,
    };
    let get = Get::new(key.clone(), ring.clone(), me, options);
    match worker.run(get, ring.clone(), deadline).await {
        Some(GetOutcome::Found { record, answers, answered }) => {
            Ok(Read { record, answers, ring, needed: quorum.needed(), answered, now_ms: node.now_stamp().ms() })
        }
        Some(GetOutcome::Behind { answered }) => Err(ApiError::Behind { answered }),
        Some(GetOutcome::Unavailable { answered, needed, unfilled }) => {
            Err(ApiError::NotAnswered { answered, needed, unfilled, hint: "try again, or ask for fewer with ?r=" })
        }
        None => Err(ApiError::Bug("a read ended without a word")),
    }
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
fn ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}
