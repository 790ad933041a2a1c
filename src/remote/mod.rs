//! Nodes, asked from outside: the client's side of the HTTP API, which `kringlectl` and the console of `kringle demo`
//! stand on.
//!
//! A [`Remote`] knows one cluster by several endpoints, all equal. It goes on with the next where one cannot be reached,
//! and stays with whichever answered. What it may ask a second time it decides by this table:
//!
//! | what became of it | a [repeatable](Ask::repeatable) ask | another |
//! | --- | --- | --- |
//! | no connection | the next endpoint | the next endpoint |
//! | sent, and no whole answer came | the next endpoint | [`Failure::Unknown`]: it may have been carried out |
//! | answered 503 | the next endpoint, and the last 503 if all say so | the answer |
//! | answered otherwise | the answer | the answer |
//!
//! One endpoint that was sent a change and never answered may have made it, whatever the others say: where none of them
//! answers with success, or judges the request itself (4xx), that is [`Failure::Unknown`] as well.
//!
//! The limit of time is for all endpoints together. Clients are of one thread ([`block_on`] makes a fitting one).

mod failure;
mod path;

pub use failure::Failure;
pub use path::{query, segment};

use crate::config::PeerUrl;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use serde_json::Value;
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::{Duration, Instant};

/// The longest that one endpoint may take to be connected to: a machine that is gone answers nothing, not even *no*.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// Runs a client to its end on this thread.
pub fn block_on<T>(client: impl Future<Output = T>) -> T {
    actix_web::rt::System::new().block_on(client)
}

/// A cluster, known by some of its nodes.
pub struct Remote {
    endpoints: Vec<PeerUrl>,
    /// The one that answered last.
    at: Cell<usize>,
    timeout: Duration,
    client: awc::Client,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Ask {
    method: Method,
    /// Path and query, percent-encoded.
    path: String,
    headers: Vec<(String, String)>,
    body: Bytes,
    repeatable: bool,
    /// Whether it may change something.
    changes: bool,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// The URL of the node that answered.
    pub from: String,
    headers: Vec<(String, String)>,
    /// Its body.
    pub body: Bytes,
}

/// An answer whose body is still coming.
pub struct Answering {
    /// Its status.
    pub status: StatusCode,
    /// The URL of the node that answers.
    pub from: String,
    headers: Vec<(String, String)>,
    response: awc::ClientResponse,
}

impl Ask {
    /// A request without a body. `GET` and `HEAD` are repeatable.
    pub fn new(method: Method, path: impl Into<String>) -> Ask {
        let changes = method != Method::GET && method != Method::HEAD;
        Ask { method, path: path.into(), headers: Vec::new(), body: Bytes::new(), repeatable: !changes, changes }
    }

    /// `GET`.
    pub fn get(path: impl Into<String>) -> Ask {
        Ask::new(Method::GET, path)
    }

    /// `PUT`.
    pub fn put(path: impl Into<String>) -> Ask {
        Ask::new(Method::PUT, path)
    }

    /// `POST`.
    pub fn post(path: impl Into<String>) -> Ask {
        Ask::new(Method::POST, path)
    }

    /// `DELETE`.
    pub fn delete(path: impl Into<String>) -> Ask {
        Ask::new(Method::DELETE, path)
    }

    /// With this header; a value that no header may have fails when the request is sent.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Ask {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// With this body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Ask {
        self.body = body.into();
        self
    }

    /// With this body, and its content type.
    pub fn json(self, body: &Value) -> Ask {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// To be sent twice does no harm: the caller says so, of a write that has an idempotency key, or of one that only
    /// repeats itself.
    pub fn repeatable(mut self) -> Ask {
        self.repeatable = true;
        self
    }

    /// Changes nothing, whatever its method says: repeatable, and without an answer nothing has happened.
    pub fn harmless(mut self) -> Ask {
        (self.repeatable, self.changes) = (true, false);
        self
    }
}

fn header_of<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

impl Answer {
    /// A header, by its name in any case; `None` where it is absent or no text.
    pub fn header(&self, name: &str) -> Option<&str> {
        header_of(&self.headers, name)
    }

    /// The body as JSON; a [`Failure::Garbled`] where it is none.
    pub fn json(&self) -> Result<Value, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::Garbled { from: self.from.clone(), why: error.to_string() })
    }

    /// The body as a JSON object, of which fields may be set; a [`Failure::Garbled`] where it is none. Nodes answer
    /// nothing else, but who knows who listens there.
    pub fn object(&self) -> Result<Value, Failure> {
        match self.json()? {
            object @ Value::Object(_) => Ok(object),
            _ => Err(Failure::Garbled { from: self.from.clone(), why: "it is no JSON object".into() }),
        }
    }

    /// This answer if it is one of success, the [`Failure::Refused`] that it is otherwise.
    pub fn successful(self) -> Result<Answer, Failure> {
        if self.status.is_success() { Ok(self) } else { Err(Failure::refused(&self)) }
    }
}

impl Answering {
    /// A header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        header_of(&self.headers, name)
    }

    /// This answer if it is one of success; else its body is read, and it is the [`Failure::Refused`] that it says.
    pub async fn successful(self) -> Result<Answering, Failure> {
        if self.status.is_success() { Ok(self) } else { Err(Failure::refused(&self.whole().await?)) }
    }

    /// The next bytes of the body; `None` at its end. It waits for as long as it takes: a stream may be silent.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        match poll_fn(|context| Pin::new(&mut self.response).poll_next(context)).await {
            None => Ok(None),
            Some(Ok(bytes)) => Ok(Some(bytes)),
            Some(Err(error)) => Err(Failure::Broken { from: self.from.clone(), why: error.to_string() }),
        }
    }

    /// All that is still to come.
    async fn whole(mut self) -> Result<Answer, Failure> {
        let mut body = BytesMut::new();
        while let Some(bytes) = self.chunk().await? {
            body.extend_from_slice(&bytes);
        }
        Ok(Answer { status: self.status, from: self.from, headers: self.headers, body: body.freeze() })
    }
}

/// What became of one try.
enum Tried<T> {
    Done(T),
    /// Nothing was sent.
    NotReached(String),
    /// It was sent, and no whole answer came.
    NotHeard(String),
}

impl Remote {
    /// Knows these endpoints, tried in this order, and gives up after `timeout`. Panics if there is no endpoint. To be
    /// called inside [`block_on`].
    pub fn new(endpoints: Vec<PeerUrl>, timeout: Duration) -> Remote {
        assert!(!endpoints.is_empty(), "a cluster is known by at least one endpoint");
        let share = timeout / u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
        // Less than a request may take: who was not even connected to is known to have changed nothing.
        let connect_max = (share * 9 / 10).min(CONNECT_MAX);
        // As many connections as the caller has requests under way: it is the one who bounds them.
        let connector = awc::Connector::new().timeout(connect_max).limit(0);
        let client = awc::Client::builder()
            .connector(connector)
            .disable_redirects()
            .no_default_headers()
            .disable_timeout()
            .finish();
        Remote { endpoints, at: Cell::new(0), timeout, client }
    }

    /// The endpoints, in the order given.
    pub fn endpoints(&self) -> &[PeerUrl] {
        &self.endpoints
    }

    /// The endpoint that answered last, or that is tried first.
    pub fn current(&self) -> &PeerUrl {
        &self.endpoints[self.at.get()]
    }

    /// The same limits for one endpoint alone.
    pub fn only(&self, endpoint: &PeerUrl) -> Remote {
        Remote::new(vec![endpoint.clone()], self.timeout)
    }

    /// The same endpoints, that which answered last first, with another limit of time.
    pub fn within(&self, timeout: Duration) -> Remote {
        let mut endpoints = self.endpoints.clone();
        endpoints.rotate_left(self.at.get());
        Remote::new(endpoints, timeout)
    }

    /// Knows these as well, and tries them after the others.
    pub fn and(&self, more: impl IntoIterator<Item = PeerUrl>) -> Remote {
        let mut endpoints = self.endpoints.clone();
        endpoints.rotate_left(self.at.get());
        for endpoint in more {
            if !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
        Remote::new(endpoints, self.timeout)
    }

    /// Begins with the next endpoint from now on where it would begin with this one: it broke off, or fell silent, in
    /// the middle of what it said.
    pub fn turn_from(&self, url: &str) {
        if self.current().url() == url {
            self.at.set((self.at.get() + 1) % self.endpoints.len());
        }
    }

    /// Asks, and waits for the whole answer.
    pub async fn ask(&self, ask: &Ask) -> Result<Answer, Failure> {
        self.go_round(ask, |url, limit| async move {
            let begun = Instant::now();
            match self.try_one(&url, ask, limit).await {
                Tried::Done(answering) => {
                    match tokio::time::timeout(limit.saturating_sub(begun.elapsed()), answering.whole()).await {
                        Ok(Ok(answer)) => Tried::Done(answer),
                        Ok(Err(broken)) => Tried::NotHeard(broken.to_string()),
                        Err(_) => Tried::NotHeard(late(limit)),
                    }
                }
                Tried::NotReached(why) => Tried::NotReached(why),
                Tried::NotHeard(why) => Tried::NotHeard(why),
            }
        })
        .await
    }

    /// Asks, and returns with the head of the answer. Its limit of time ends there.
    pub async fn stream(&self, ask: &Ask) -> Result<Answering, Failure> {
        self.go_round(ask, |url, limit| async move { self.try_one(&url, ask, limit).await }).await
    }

    /// Tries the endpoints, beginning with the one that answered last.
    async fn go_round<T, F>(&self, ask: &Ask, one: impl Fn(String, Duration) -> F) -> Result<T, Failure>
    where
        T: HasStatus,
        F: Future<Output = Tried<T>>,
    {
        let deadline = Instant::now() + self.timeout;
        let count = self.endpoints.len();
        let mut tried = Vec::new();
        let mut last_refusal = None;
        // The first that may have changed something, and said nothing.
        let mut unheard: Option<Failure> = None;
        for (step, left) in (0..count).zip((1..=count).rev()) {
            let index = (self.at.get() + step) % count;
            let url = self.endpoints[index].url().to_owned();
            let remaining = deadline.saturating_duration_since(Instant::now());
            // Who may ask again keeps time for the others; who may not waits for this one as long as there is.
            let limit = if ask.repeatable { remaining / u32::try_from(left).unwrap_or(u32::MAX) } else { remaining };
            match one(url.clone(), limit).await {
                Tried::Done(answer)
                    if ask.repeatable && left > 1 && answer.status() == StatusCode::SERVICE_UNAVAILABLE =>
                {
                    last_refusal = Some((index, answer));
                }
                Tried::Done(answer) => {
                    self.at.set(index);
                    return match unheard {
                        Some(failure) if !speaks_for_all(answer.status()) => Err(failure),
                        _ => Ok(answer),
                    };
                }
                Tried::NotReached(why) => tried.push((url, why)),
                Tried::NotHeard(why) => {
                    if ask.changes {
                        unheard.get_or_insert(Failure::Unknown { from: url.clone(), why: why.clone() });
                    }
                    if !ask.repeatable {
                        break;
                    }
                    tried.push((url, why));
                }
            }
        }
        match (unheard, last_refusal) {
            (Some(failure), _) => Err(failure),
            (None, Some((index, answer))) => {
                self.at.set(index);
                Ok(answer)
            }
            (None, None) => Err(Failure::Unreachable { tried }),
        }
    }

    async fn try_one(&self, url: &str, ask: &Ask, limit: Duration) -> Tried<Answering> {
        let mut request = self.client.request(ask.method.clone(), format!("{url}{}", ask.path));
        for (name, value) in &ask.headers {
            match (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str())) {
                (Ok(name), Ok(value)) => request = request.insert_header((name, value)),
                _ => return Tried::NotReached(format!("no header may say {name}: {value}")),
            }
        }
        let sent = tokio::time::timeout(limit, request.send_body(ask.body.clone())).await;
        match sent {
            Ok(Ok(response)) => {
                let headers = response.headers().iter();
                let headers = headers
                    .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())));
                Tried::Done(Answering {
                    status: response.status(),
                    from: url.to_owned(),
                    headers: headers.collect(),
                    response,
                })
            }
            Ok(Err(error)) => match error {
                // It was connected, and closed before an answer came.
                awc::error::SendRequestError::Connect(awc::error::ConnectError::Disconnected) => {
                    Tried::NotHeard("it closed the connection without an answer".into())
                }
                awc::error::SendRequestError::Connect(error) => Tried::NotReached(plain(&error)),
                awc::error::SendRequestError::Url(error) => Tried::NotReached(error.to_string()),
                error => Tried::NotHeard(error.to_string()),
            },
            Err(_) => Tried::NotHeard(late(limit)),
        }
    }
}

/// What a person wants to hear of a connection that was not made.
fn plain(error: &awc::error::ConnectError) -> String {
    match error {
        awc::error::ConnectError::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            "nobody listens there".into()
        }
        awc::error::ConnectError::Timeout => "it does not take the connection".into(),
        error => error.to_string(),
    }
}

/// Whether an answer holds for an endpoint that has not answered, too: success, or a no to the request itself. What says
/// how one node is just now does not.
fn speaks_for_all(status: StatusCode) -> bool {
    let is_passing = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    !status.is_server_error() && !is_passing
}

fn late(limit: Duration) -> String {
    format!("no answer within {:.1} s", limit.as_secs_f64())
}

trait HasStatus {
    fn status(&self) -> StatusCode;
}

impl HasStatus for Answer {
    fn status(&self) -> StatusCode {
        self.status
    }
}

impl HasStatus for Answering {
    fn status(&self) -> StatusCode {
        self.status
    }
}
