//! The link to one peer, on one worker thread.
//!
//! Natural batching: while a request is in flight the queue fills, and the next request takes it whole, bounded in
//! count and bytes. One request in flight per lane is enough (more measured no better), so a hung peer holds one
//! connection and one bounded queue, and nobody else's.

use super::latency::Latency;
use super::outside::now;
use super::shared::Shared;
use crate::operation::Failure;
use crate::protocol::{Answer, Batch, Lane, MEDIA_TYPE, REQUESTS_PER_BATCH_MAX, Refusal, Reply, Request};
use actix_service::Service;
use actix_tls::connect::{ConnectInfo, Connector as TcpConnector};
use actix_web::rt::net::TcpStream;
use awc::error::SendRequestError;
use awc::http::Uri;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most requests that wait for one peer, per lane: the bound on what a hung peer can hold up. A waiting request is
/// a few hundred bytes, and the deadline clears the queue every few seconds.
const WAITING_MAX: usize = 4_096;
/// Most bytes that wait for one peer, per lane.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Most bytes in one batch; a single larger request goes alone.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Most bytes of one reply. A batch of reads stops adding values well below (`REPLY_BYTES_MAX` in `worker`).
const REPLY_BYTES_MAX: usize = 192 << 20;

/// Who is told what became of a request.
pub type Told = Box<dyn FnOnce(Result<Answer, Failure>)>;

struct Waiting {
    request: Request,
    bytes: usize,
    since: Instant,
    until: Instant,
    told: Told,
}

#[derive(Default)]
struct LaneQueue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    busy: bool,
}

/// The link.
pub struct Link {
    peer: String,
    url: String,
    client: awc::Client,
    node: Arc<Shared>,
    lanes: [RefCell<LaneQueue>; Lane::ALL.len()],
    /// How long reads take here, waiting for their turn included.
    reads: RefCell<Latency>,
}

impl Link {
    /// A link to the member called `peer` at `url`. Connects when first used.
    pub fn new(node: Arc<Shared>, peer: String, url: String) -> Rc<Link> {
        let client = client(node.settings.timeout);
        Rc::new(Link { peer, url, client, node, lanes: Default::default(), reads: RefCell::default() })
    }

    /// Sends `request`, in its turn; `told` hears what became of it, once, at the latest at `until`.
    pub fn send(self: &Rc<Self>, request: Request, until: Instant, told: Told) {
        let lane = request.lane();
        let bytes = request.size_hint();
        {
            let mut queue = self.lanes[lane as usize].borrow_mut();
            let full = queue.waiting.len() >= WAITING_MAX || queue.bytes + bytes > WAITING_BYTES_MAX && queue.bytes > 0;
            if !full {
                queue.bytes += bytes;
                queue.waiting.push_back(Waiting { request, bytes, since: now(), until, told });
                if !std::mem::replace(&mut queue.busy, true) {
                    actix_web::rt::spawn(self.clone().flush(lane));
                }
                return;
            }
        }
        told(Err(Failure::Refused(Refusal::Overloaded)));
    }

    /// What 95 of 100 recent reads of this peer did not exceed, once there were enough to tell.
    pub fn read_p95(&self) -> Option<Duration> {
        self.reads.borrow().p95()
    }

    /// Carries gossip to the peer and its answer back, past every queue, within `timeout`. The error is a line for people.
    pub async fn ping(&self, packets: Vec<Vec<u8>>, timeout: Duration) -> Result<Reply, String> {
        let envelope = self.node.envelope(&self.peer, timeout.as_millis() as u64);
        let batch = Batch { envelope, requests: vec![Request::Gossip { packets }] };
        self.post("/ping", &batch, timeout).await.map_err(|(_, error)| error)
    }

    async fn flush(self: Rc<Self>, lane: Lane) {
        // Whatever else is ready to run may have something to say to this peer too.
        tokio::task::yield_now().await;
        loop {
            let (requests, waiting, since, until) = self.take(lane);
            if requests.is_empty() {
                let mut queue = self.lanes[lane as usize].borrow_mut();
                if queue.waiting.is_empty() {
                    queue.busy = false;
                    return;
                }
                continue;
            }
            let timeout = until.saturating_duration_since(now()).min(self.node.settings.timeout);
            let envelope = self.node.envelope(&self.peer, timeout.as_millis() as u64);
            let result = self.post(lane.path(), &Batch { envelope, requests }, timeout).await;
            if lane == Lane::Reads && result.is_ok() {
                // The one that waited longest stands for its batch.
                self.reads.borrow_mut().note(now().duration_since(since));
            }
            self.deliver(result, waiting);
        }
    }

    /// The next batch: what waits, up to the bounds; since when its first has waited, and until when its last will. What
    /// has waited past its time is told so.
    fn take(&self, lane: Lane) -> (Vec<Request>, Vec<Told>, Instant, Instant) {
        let now = now();
        let (mut requests, mut told, mut late, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let (mut since, mut until) = (now, now);
        {
            let mut queue = self.lanes[lane as usize].borrow_mut();
            while let Some(next) = queue.waiting.front() {
                if requests.len() == REQUESTS_PER_BATCH_MAX
                    || !requests.is_empty() && bytes + next.bytes > BATCH_BYTES_MAX
                {
                    break;
                }
                let Some(next) = queue.waiting.pop_front() else { break };
                queue.bytes -= next.bytes;
                if next.until <= now {
                    late.push(next.told);
                    continue;
                }
                bytes += next.bytes;
                (since, until) = (since.min(next.since), until.max(next.until));
                requests.push(next.request);
                told.push(next.told);
            }
        }
        late.into_iter().for_each(|told| told(Err(Failure::Unreachable)));
        (requests, told, since, until)
    }

    fn deliver(&self, result: Result<Reply, (Failure, String)>, waiting: Vec<Told>) {
        let answers = match result {
            Ok(reply) => {
                self.node.queue.heard(reply.stamp);
                match reply.answers {
                    Ok(answers) if answers.len() == waiting.len() => Ok(answers),
                    Ok(_) => Err(Failure::Unknown),
                    Err(refusal) => {
                        if refusal == Refusal::OtherNode {
                            self.node.view().forget_id(&self.peer);
                        }
                        Err(Failure::Refused(refusal))
                    }
                }
            }
            Err((failure, _)) => Err(failure),
        };
        match answers {
            Ok(answers) => waiting.into_iter().zip(answers).for_each(|(told, answer)| told(Ok(answer))),
            Err(failure) => waiting.into_iter().for_each(|told| told(Err(failure.clone()))),
        }
    }

    async fn post(&self, path: &str, batch: &Batch, timeout: Duration) -> Result<Reply, (Failure, String)> {
        let unknown = |error: String| (Failure::Unknown, error);
        let request = self.client.post(format!("{}{path}", self.url)).content_type(MEDIA_TYPE).timeout(timeout);
        let exchange = async {
            let mut response = request.send_body(batch.encode()).await.map_err(|error| match error {
                SendRequestError::Connect(_) | SendRequestError::Url(_) => (Failure::Unreachable, error.to_string()),
                _ => unknown(error.to_string()),
            })?;
            let body = response.body().limit(REPLY_BYTES_MAX).await.map_err(|error| unknown(error.to_string()))?;
            match Reply::decode(&body) {
                Ok(reply) => Ok(reply),
                Err(_) if !response.status().is_success() => {
                    Err(unknown(format!("{} from {}", response.status(), self.url)))
                }
                Err(error) => Err(unknown(error.to_string())),
            }
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(result) => result,
            Err(_) => Err(unknown(format!("no answer within {:.3} s", timeout.as_secs_f64()))),
        }
    }
}

/// An HTTP client for one peer. awc's defaults do not suit a replicated store: its limit of connections is over all
/// hosts, it follows redirects, leaves Nagle's delay on, and gives up on its own clock.
fn client(timeout: Duration) -> awc::Client {
    let tcp = TcpConnector::default().service();
    let undelayed = actix_service::fn_service(move |info: ConnectInfo<Uri>| {
        let connecting = tcp.call(info);
        async move {
            let connection = connecting.await?;
            let stream: &TcpStream = connection.io_ref();
            // A connection without it still works, only slower.
            let _ = stream.set_nodelay(true);
            Ok(connection)
        }
    });
    let connector = awc::Connector::new()
        .connector(undelayed)
        .timeout(timeout)
        .limit(8)
        .conn_keep_alive(Duration::from_secs(60))
        .conn_lifetime(Duration::from_secs(3_600));
    awc::Client::builder().connector(connector).disable_redirects().no_default_headers().disable_timeout().finish()
}
