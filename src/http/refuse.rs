//! The one table from errors to status codes, sentences and hints. No other file names a failing status.

use crate::client;
use crate::coordinator::Replicas;
use crate::placement::{Mode, Partition};
use crate::protocol::Refusal;
use crate::record::{KeyError, TokenError, Unfit, context_to_token};
use crate::storage::{Refused, StoreError};
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, ETAG, HeaderValue, RETRY_AFTER};
use serde_json::json;

/// Whatever can keep a request from being answered as wished.
#[derive(Debug)]
pub(super) enum ApiError {
    /// No such path.
    NoSuchPath,
    /// The path is there, and does not take this method.
    WrongMethod {
        /// Those it takes.
        allow: String,
    },
    /// The request makes no sense; the sentence says why, the hint what would.
    Bad { error: String, hint: &'static str },
    /// The key is unknown, or deleted.
    NoSuchKey {
        /// What the deleted key's record has seen, for a later write.
        context: Option<String>,
        /// The `Kringle-Replicas` of a read that heard fewer owners than its mode wants.
        replicas: Option<HeaderValue>,
    },
    /// The body, or a part of it, is over a limit, which `setting` raises, if any does.
    TooLarge { what: &'static str, max: usize, setting: &'static str },
    /// The body is compressed.
    Encoded,
    /// The body did not come in time.
    SlowBody,
    /// What came is not HTTP, or contradicts itself.
    NotHttp,
    /// The head of the request is too large.
    LargeHead,
    /// The head of the request did not come in time.
    SlowHead,
    /// A page of another site sent a browser here.
    CrossSite,
    /// This node is cut off from the one that asks, which has given up by now.
    CutOff,
    /// What the operator did not allow when the node was started: a switch allows it.
    NotAllowed { what: &'static str, hint: &'static str },
    /// Fewer owners than wished have the write, or nobody.
    NotReplicated { replicas: Replicas, needed: usize, cause: Option<Refusal> },
    /// The request wants more owners than there are.
    NotEnoughOwners { needed: usize, owners: usize },
    /// Fewer owners than wished answered a read, and what the client may do about it.
    NotAnswered { answered: usize, needed: usize, unfilled: usize, hint: &'static str },
    /// Of some partitions fewer owners than wished told what keys there are.
    NotListed { partition: Partition, partitions: usize, answered: usize, needed: usize },
    /// Whoever answered had not seen all that the client's context shows.
    Behind { answered: usize },
    /// Too few owners agreed, and none has it.
    NotAgreed { answered: usize, needed: usize, cause: Option<Refusal> },
    /// The condition of a write is not true: the version there is, if any, and what its record has seen.
    Unmet { etag: Option<HeaderValue>, context: Option<String> },
    /// A node said no.
    Refused(Refusal),
    /// The members have not agreed yet on who they are.
    NotEstablished { mode: Mode, awaiting: Vec<String> },
    /// This node does not keep the key, or not all of it yet.
    NotHere,
    /// There will be no such change of the layout, as things are.
    NoChange(String),
    /// Too few members could be had for a change of the layout.
    ChangeUnavailable(String),
    /// This node's store did.
    Store(String),
    /// There is too much to do.
    Busy(&'static str),
    /// As many watch this node as may.
    TooManyWatchers {
        /// How many that is.
        max: usize,
    },
    /// The digests are not built yet.
    NotBuilt,
    /// The node broke its own word.
    Bug(&'static str),
}

impl ApiError {
    pub(super) fn bad(error: impl Into<String>, hint: &'static str) -> ApiError {
        ApiError::Bad { error: error.into(), hint }
    }

    /// The response: a status, `error`, `hint`, and what else helps.
    pub(super) fn into_response(self) -> HttpResponse {
        let surface = "it may still surface: read the key again before you rely on either outcome";
        let (status, error, hint) = match &self {
            ApiError::NoSuchPath => {
                (StatusCode::NOT_FOUND, "no such path".to_string(), format!("the paths are {}", super::routes::paths()))
            }
            ApiError::WrongMethod { allow } => {
                (StatusCode::METHOD_NOT_ALLOWED, "method not allowed".into(), format!("use {allow}"))
            }
            ApiError::Bad { error, hint } => (StatusCode::BAD_REQUEST, error.clone(), (*hint).into()),
            ApiError::NoSuchKey { .. } => {
                (StatusCode::NOT_FOUND, "Key not found".into(), "write it first, or check its spelling".into())
            }
            ApiError::TooLarge { what, max, setting } => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the {what} is longer than {max} bytes"),
                match setting.is_empty() {
                    true => "send less".into(),
                    false => format!("keep it within the limit; the operator sets it with {setting}"),
                },
            ),
            ApiError::Encoded => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "a body with a Content-Encoding is not taken".into(),
                "send the bytes as they are to be kept, without Content-Encoding".into(),
            ),
            ApiError::SlowBody => (
                StatusCode::REQUEST_TIMEOUT,
                "the body did not arrive in time".into(),
                "nothing was stored; send it again".into(),
            ),
            ApiError::NotHttp => (
                StatusCode::BAD_REQUEST,
                "what came cannot be read as HTTP/1.1".into(),
                "check the request line, the headers and how the body is framed; nothing but HTTP is spoken here, and no TLS"
                    .into(),
            ),
            ApiError::LargeHead => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the head of the request is longer than 128 KiB, or has more than 96 headers".into(),
                "send less of it; a long key fits in the body of POST /store, and of GET and DELETE /store/key".into(),
            ),
            ApiError::SlowHead => (
                StatusCode::REQUEST_TIMEOUT,
                "the head of the request did not arrive in time".into(),
                "send it again, at once".into(),
            ),
            ApiError::CrossSite => (
                StatusCode::FORBIDDEN,
                "a page of another site may not do that".into(),
                "write with PUT /kv/{key} or POST /store, and change the cluster from a terminal".into(),
            ),
            ApiError::CutOff => (
                StatusCode::SERVICE_UNAVAILABLE,
                "this node is cut off from the one that asks".into(),
                "PUT /faults says from whom".into(),
            ),
            ApiError::NotAllowed { what, hint } => (StatusCode::FORBIDDEN, (*what).into(), (*hint).into()),
            ApiError::NotReplicated { replicas, needed, cause } => {
                let mut error = format!("{} of the {needed} owners asked for have the write", replicas.acked);
                if let Some(cause) = cause {
                    error = format!("{error}: {cause}");
                }
                (StatusCode::SERVICE_UNAVAILABLE, error, surface.into())
            }
            ApiError::NotEnoughOwners { needed, owners } => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "{needed} owners were asked for and the key has {owners}: nothing was stored, and nothing will surface"
                ),
                "ask for fewer, or add nodes".into(),
            ),
            ApiError::NotAnswered { answered, needed, unfilled, hint } => (
                StatusCode::SERVICE_UNAVAILABLE,
                match unfilled {
                    0 => format!("{answered} of the {needed} owners needed answered"),
                    1 => format!(
                        "{answered} of the {needed} owners needed answered; another is still being filled from its \
                         peers, and what it does not hold may well be there"
                    ),
                    _ => format!(
                        "{answered} of the {needed} owners needed answered; {unfilled} others are still being filled \
                         from their peers, and what they do not hold may well be there"
                    ),
                },
                (*hint).into(),
            ),
            ApiError::NotListed { partition, partitions, answered, needed } => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "of {partitions} partitions too few owners told what keys there are: of partition {partition}, \
                     {answered} of the {needed} needed"
                ),
                "a list without them would not be whole; try again, or ask for fewer owners with ?r=1".into(),
            ),
            ApiError::Behind { answered } => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{answered} owners answered, and none had all that the Kringle-Context of this request shows"),
                "try again shortly, or read without Kringle-Context for what there is".into(),
            ),
            ApiError::NotAgreed { answered, needed, cause } => {
                let mut error = format!("{answered} of the {needed} owners that must agree could be had");
                if let Some(cause) = cause {
                    error = format!("{error}: {cause}");
                }
                let hint = "nothing was stored, and nothing will surface; try again, or write with ?mode=sloppy";
                (StatusCode::SERVICE_UNAVAILABLE, error, hint.into())
            }
            ApiError::Unmet { etag, .. } => (
                StatusCode::PRECONDITION_FAILED,
                match etag {
                    Some(_) => "the key holds another version than the condition asks for".into(),
                    None => "the key holds no value, and the condition asks for one".into(),
                },
                "nothing was stored; read the key, and send the ETag you got with If-Match".into(),
            ),
            ApiError::Refused(Refusal::Unfit(why)) => {
                let hint = match why {
                    Unfit::TooManySiblings => {
                        "read the key with ?siblings=1, and write the resolved value with the Kringle-Context you got"
                    }
                    Unfit::NotACounter => "write an integer to the key, or delete it, and count from there",
                    Unfit::Overflow => "nothing was counted; set the key to another number first",
                    Unfit::TooManyRequests => "nothing was counted; try again later, or without Idempotency-Key",
                };
                let status = match why {
                    Unfit::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
                    _ => StatusCode::CONFLICT,
                };
                (status, why.to_string(), hint.into())
            }
            ApiError::Refused(Refusal::StampAhead(why)) => {
                (StatusCode::BAD_REQUEST, why.to_string(), "check the clocks; nothing was stored".into())
            }
            ApiError::Refused(why @ Refusal::NodeFull { .. }) => (
                StatusCode::INSUFFICIENT_STORAGE,
                why.to_string(),
                "nothing was stored; write to keys that are there, delete some, or add nodes; the operator sets the limit \
                 with --max-keys"
                    .into(),
            ),
            ApiError::Refused(why @ Refusal::Fenced) => {
                (StatusCode::SERVICE_UNAVAILABLE, why.to_string(), surface.into())
            }
            ApiError::Refused(why) => {
                (StatusCode::SERVICE_UNAVAILABLE, why.to_string(), "nothing was stored here; try again shortly".into())
            }
            ApiError::NotEstablished { mode, awaiting } => (
                StatusCode::SERVICE_UNAVAILABLE,
                match awaiting.as_slice() {
                    [] => "the cluster is being established".into(),
                    nodes => format!("the cluster is not established yet: {} still to agree", nodes.join(", ")),
                },
                format!("mode {mode} waits until every node of --peers agrees on who is a member; ?mode=sloppy does not"),
            ),
            ApiError::NotHere => (
                StatusCode::SERVICE_UNAVAILABLE,
                "this node does not keep the key, or has not taken it in yet".into(),
                "/ring?key= lists the owners; GET /kv/{key} without ?local=1 and PUT /kv/{key} turn to them".into(),
            ),
            ApiError::NoChange(why) => {
                (StatusCode::CONFLICT, why.clone(), "nothing was changed; look at /cluster, and ask again".into())
            }
            ApiError::ChangeUnavailable(why) => (
                StatusCode::SERVICE_UNAVAILABLE,
                why.clone(),
                "a majority of the members must be reached; look at /cluster before you ask again".into(),
            ),
            ApiError::Store(why) => {
                (StatusCode::SERVICE_UNAVAILABLE, why.clone(), "try again, or ask another node".into())
            }
            ApiError::Busy(what) => {
                (StatusCode::SERVICE_UNAVAILABLE, (*what).into(), "nothing was stored; try again shortly".into())
            }
            ApiError::TooManyWatchers { max } => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{max} watch this node already"),
                "watch on another node; the operator sets the limit with --max-watchers".into(),
            ),
            ApiError::NotBuilt => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the digests are still being built after the start".into(),
                "try again shortly".into(),
            ),
            ApiError::Bug(what) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                (*what).into(),
                "this is a bug of the node; a write may still surface".into(),
            ),
        };
        let mut response = HttpResponse::build(status);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((RETRY_AFTER, "1"));
        }
        let mut body = json!({ "error": error, "hint": hint });
        match &self {
            ApiError::WrongMethod { allow } => {
                response.insert_header((ALLOW, allow.as_str()));
            }
            ApiError::NoSuchKey { context, replicas } => {
                if let Some(context) = context {
                    response.insert_header((super::ask::CONTEXT, context.as_str()));
                    body["context"] = json!(context);
                }
                if let Some(replicas) = replicas {
                    response.insert_header((super::ask::REPLICAS, replicas.clone()));
                }
            }
            ApiError::Unmet { etag, context } => {
                if let Some(etag) = etag {
                    response.insert_header((ETAG, etag.clone()));
                }
                if let Some(context) = context {
                    response.insert_header((super::ask::CONTEXT, context.as_str()));
                }
            }
            ApiError::NotReplicated { replicas, .. } => {
                response.insert_header((super::ask::REPLICAS, super::ask::replicas_line(replicas)));
                body["replicas"] = super::ask::replicas_json(replicas);
            }
            _ => {}
        }
        response.json(body)
    }
}

/// What a client may do where too few owners answered its read: in the modes that do not agree, and in those that do.
const ASK_FOR_FEWER: &str = "try again, or ask for fewer with ?r=";
const READ_SLOPPILY: &str = "try again, or read with ?mode=sloppy, which shows what there is, agreed on or not";

impl From<client::Error> for ApiError {
    fn from(error: client::Error) -> ApiError {
        match error {
            client::Error::NoConditions(mode) => ApiError::bad(
                format!("mode {mode} promises nothing of conditions"),
                "add ?mode=quorum, in which the owners of a key agree on them",
            ),
            client::Error::NoSuchCount { name, most } => ApiError::bad(
                format!("{name} must be a number from 1 to {most}"),
                "it counts the owners of the key, as many as the cluster has replicas at most",
            ),
            client::Error::CountInMode { name, mode } => ApiError::bad(
                format!("?{name}= has no meaning in mode {mode}, which itself says who must agree"),
                "leave it away, or use ?mode=sloppy",
            ),
            client::Error::NotReplicated { replicas, needed, cause, may_repeat: _ } => {
                ApiError::NotReplicated { replicas, needed, cause }
            }
            client::Error::NotEnoughOwners { needed, owners } => ApiError::NotEnoughOwners { needed, owners },
            client::Error::NotAnswered { answered, needed, unfilled, agrees } => {
                let hint = if agrees { READ_SLOPPILY } else { ASK_FOR_FEWER };
                ApiError::NotAnswered { answered, needed, unfilled, hint }
            }
            client::Error::NotListed { partition, partitions, answered, needed } => {
                ApiError::NotListed { partition, partitions, answered, needed }
            }
            client::Error::Behind { answered } => ApiError::Behind { answered },
            client::Error::NotAgreed { answered, needed, cause } => ApiError::NotAgreed { answered, needed, cause },
            client::Error::Unmet { key, record, now_ms } => ApiError::Unmet {
                etag: record.winner(now_ms).is_some().then(|| super::ask::etag(&record, now_ms)),
                context: (!record.is_unknown()).then(|| context_to_token(&key, record.context())),
            },
            client::Error::Refused(refusal) => ApiError::Refused(refusal),
            client::Error::NotEstablished { mode, awaiting } => ApiError::NotEstablished { mode, awaiting },
            client::Error::NotHere => ApiError::NotHere,
            client::Error::Store(error) => error.into(),
            client::Error::Bug(what) => ApiError::Bug(what),
        }
    }
}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> ApiError {
        match error {
            KeyError::Empty => ApiError::bad("the key is empty", "a key has at least one byte"),
            KeyError::TooLong { max, .. } => ApiError::TooLarge { what: "key", max, setting: "--key-max" },
        }
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> ApiError {
        ApiError::bad(error.to_string(), "send back the Kringle-Context of an earlier answer, or none")
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> ApiError {
        ApiError::Refused(crate::replica::refusal(&refused))
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        ApiError::Store(error.to_string())
    }
}
