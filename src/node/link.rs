//! The link to one peer, on one worker thread.
//!
//! Natural batching: while a request is in flight the queue fills, and the next request takes it whole, bounded in
//! count and bytes. One request in flight per lane is enough (more measured no better), so a hung peer holds one
//! connection and one bounded queue, and nobody else's.
//!
//! It speaks this node's version of the protocol, and the previous one where the peer refuses that: the refused batch is
//! repeated at once, as nothing of it was done, and nobody who waits for an answer hears of it.

use super::foreground::Class;
use super::latency::Latency;
use super::outside::now;
use super::shared::Shared;
use crate::operation::Failure;
use crate::protocol::{
    Answer, Batch, Envelope, LISTS_PER_BATCH_MAX, Lane, MEDIA_TYPE, PREVIOUS_VERSION, PROTOCOL_VERSION,
    ProtocolVersion, REQUESTS_PER_BATCH_MAX, Refusal, Reply, Request,
};
use actix_service::Service;
use actix_tls::connect::{ConnectInfo, Connector as TcpConnector};
use actix_web::rt::net::TcpStream;
use awc::error::{ConnectError, SendRequestError};
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
/// Most bytes of one reply. A batch of reads stops adding values well below (`reply_room`).
const REPLY_BYTES_MAX: usize = 192 << 20;

/// Who is told what became of a request.
pub type Told = Box<dyn FnOnce(Result<Answer, Failure>)>;

struct Waiting {
    request: Request,
    turn: Turn,
}

/// What is kept of a request while it is on its way.
struct Turn {
    bytes: usize,
    since: Instant,
    until: Instant,
    /// The epoch under which it is asked: a batch has one.
    epoch: u64,
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
    /// Whether it is to whoever is at that address, not to a member.
    to_anybody: bool,
}

impl Link {
    /// A link to the member called `peer` at `url`. Connects when first used.
    pub fn new(node: Arc<Shared>, peer: String, url: String) -> Rc<Link> {
        Link::made(node, peer, url, false)
    }

    /// A link to whoever is at `url`.
    pub fn to_anybody(node: Arc<Shared>, url: String) -> Rc<Link> {
        Link::made(node, url.clone(), url, true)
    }

    fn made(node: Arc<Shared>, peer: String, url: String, to_anybody: bool) -> Rc<Link> {
        let client = client(node.settings.timeout);
        Rc::new(Link { peer, url, client, node, lanes: Default::default(), reads: RefCell::default(), to_anybody })
    }

    /// Whether it is a link to this address.
    pub fn leads_to(&self, url: &str) -> bool {
        self.url == url
    }

    /// Sends `request`, in its turn, unless that comes after `until`; `told` hears what became of it, once, at the latest
    /// one `--timeout` after `until`: a batch waits as long as its last request may.
    pub fn send(self: &Rc<Self>, request: Request, class: Class, epoch: u64, until: Instant, told: Told) {
        let lane = match class {
            Class::Foreground => request.lane(),
            Class::Background => request.lane_in_background(),
        };
        let bytes = request.size_hint();
        {
            let mut queue = self.lanes[lane as usize].borrow_mut();
            let full = queue.waiting.len() >= WAITING_MAX || queue.bytes + bytes > WAITING_BYTES_MAX && queue.bytes > 0;
            if !full {
                queue.bytes += bytes;
                queue.waiting.push_back(Waiting { request, turn: Turn { bytes, since: now(), until, epoch, told } });
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
        let envelope = self.envelope(self.node.epoch(), timeout.as_millis() as u64, false);
        let batch = Batch { envelope, requests: vec![Request::Gossip { packets }] };
        self.post(Lane::Gossip, &batch, timeout).await.map_err(|(_, error)| error)
    }

    async fn flush(self: Rc<Self>, lane: Lane) {
        // Whatever else is ready to run may have something to say to this peer too.
        tokio::task::yield_now().await;
        loop {
            let (requests, turns) = self.take(lane);
            let Some(until) = turns.iter().map(|turn| turn.until).max() else {
                let mut queue = self.lanes[lane as usize].borrow_mut();
                if queue.waiting.is_empty() {
                    queue.busy = false;
                    return;
                }
                continue;
            };
            let timeout = until.saturating_duration_since(now()).min(self.node.settings.timeout);
            let epoch = turns.first().map_or(0, |turn| turn.epoch);
            let envelope = self.envelope(epoch, timeout.as_millis() as u64, lane == Lane::Repairs);
            let batch = Batch { envelope, requests };
            let result = self.post(lane, &batch, timeout).await;
            if lane == Lane::Reads
                && result.is_ok()
                // The one that waited longest stands for its batch.
                && let Some(since) = turns.iter().map(|turn| turn.since).min()
            {
                self.reads.borrow_mut().note(now().duration_since(since));
            }
            self.deliver(lane, result, batch.requests, turns);
        }
    }

    /// The next batch: what waits, up to the bounds. What has waited past its time is told so.
    fn take(&self, lane: Lane) -> (Vec<Request>, Vec<Turn>) {
        let now = now();
        let (mut requests, mut turns, mut late, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
        {
            let mut queue = self.lanes[lane as usize].borrow_mut();
            while let Some(Waiting { turn: next, .. }) = queue.waiting.front() {
                let is_of_another = turns.first().is_some_and(|first: &Turn| first.epoch != next.epoch);
                let most = if lane == Lane::Lists { LISTS_PER_BATCH_MAX } else { REQUESTS_PER_BATCH_MAX };
                if requests.len() == most
                    || !requests.is_empty() && bytes + next.bytes > BATCH_BYTES_MAX
                    || is_of_another
                {
                    break;
                }
                let Some(Waiting { request, turn }) = queue.waiting.pop_front() else { break };
                queue.bytes -= turn.bytes;
                if turn.until <= now {
                    late.push(turn.told);
                    continue;
                }
                bytes += turn.bytes;
                requests.push(request);
                turns.push(turn);
            }
        }
        late.into_iter().for_each(|told| told(Err(Failure::Unreachable)));
        (requests, turns)
    }

    /// Whether another member answers where this one is believed to be.
    pub(super) fn is_from_another(&self, reply: &Reply) -> bool {
        let ring = self.node.ring();
        let meant = ring.member_by_name(&self.peer).filter(|_| !self.to_anybody);
        meant.is_some() && ring.member_by_id(reply.sender).is_some_and(|sender| Some(sender) != meant)
    }

    fn envelope(&self, epoch: u64, deadline_ms: u64, in_background: bool) -> Envelope {
        let envelope = self.node.envelope(&self.peer, epoch, deadline_ms, in_background);
        // An address may be a member's name, and another live there by now.
        Envelope { receiver: envelope.receiver.filter(|_| !self.to_anybody), ..envelope }
    }

    fn deliver(&self, lane: Lane, result: Result<Reply, (Failure, String)>, requests: Vec<Request>, turns: Vec<Turn>) {
        let answers = match result {
            Ok(reply) if self.is_from_another(&reply) => {
                // Members have exchanged their addresses: what this one says is not the peer's word.
                self.node.view().forget_id(&self.peer);
                Err(Failure::Unknown)
            }
            Ok(reply) => {
                self.node.queue.heard(reply.stamp);
                self.node.layouts.note_epoch(&self.peer, reply.epoch, self.node.epoch());
                match reply.answers {
                    Ok(answers) if answers.len() == turns.len() => Ok(answers),
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
        let answers = match answers {
            Ok(answers) => answers,
            Err(failure) => return turns.into_iter().for_each(|turn| (turn.told)(Err(failure.clone()))),
        };
        let found_no_room = |answer: &Answer| *answer == Answer::Refused(Refusal::Overloaded);
        // Where none of them had room the peer means itself.
        let means_itself = answers.iter().all(found_no_room);
        let mut again = Vec::new();
        let asked = requests.into_iter().zip(turns);
        for (answer, (request, turn)) in answers.into_iter().zip(asked) {
            if !means_itself && request.lane() == Lane::Reads && found_no_room(&answer) {
                again.push(Waiting { request, turn });
            } else {
                (turn.told)(Ok(answer));
            }
        }
        let mut queue = self.lanes[lane as usize].borrow_mut();
        for waiting in again.into_iter().rev() {
            queue.bytes += waiting.turn.bytes;
            queue.waiting.push_front(waiting);
        }
    }

    async fn post(&self, lane: Lane, batch: &Batch, timeout: Duration) -> Result<Reply, (Failure, String)> {
        let dialects = &self.node.dialects;
        let speaks =
            |version| self.node.events.info("peer", format!("{} speaks protocol version {version}", self.peer));
        let version = dialects.spoken_to(&self.url, matches!(lane, Lane::Gossip | Lane::Layout));
        let asked = now();
        let exchange = async {
            self.node.faults.pass(&self.peer, &self.url).await;
            let unsaid = || (Failure::Unreachable, format!("{} does not know what it would be asked", self.url));
            if version == PREVIOUS_VERSION && !lane.is_in_previous_version() {
                return Err(unsaid());
            }
            let mut heard = self.exchange(lane, batch, version, timeout).await?;
            if heard == Heard::SpeaksPrevious {
                if dialects.was_refused(&self.url) {
                    speaks(PREVIOUS_VERSION);
                }
                if !lane.is_in_previous_version() {
                    return Err(unsaid());
                }
                heard = self.exchange(lane, batch, PREVIOUS_VERSION, timeout).await?;
            }
            // An answer is held back like what was asked.
            self.node.faults.pass(&self.peer, &self.url).await;
            match heard {
                Heard::Reply(reply, version) => {
                    if dialects.was_answered(&self.url, version, asked) {
                        speaks(PROTOCOL_VERSION);
                    }
                    Ok(reply)
                }
                Heard::SpeaksPrevious => Err((Failure::Unknown, format!("{} contradicts itself", self.url))),
            }
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(result) => result,
            Err(_) => Err((Failure::Unknown, format!("no answer within {:.3} s", timeout.as_secs_f64()))),
        }
    }

    async fn exchange(
        &self,
        lane: Lane,
        batch: &Batch,
        version: ProtocolVersion,
        timeout: Duration,
    ) -> Result<Heard, (Failure, String)> {
        let unknown = |error: String| (Failure::Unknown, error);
        let request =
            self.client.post(format!("{}{}", self.url, lane.path())).content_type(MEDIA_TYPE).timeout(timeout);
        let mut response = request.send_body(batch.encode(version)).await.map_err(|error| match error {
            // Also where the request was sent, and the connection ended before an answer came.
            SendRequestError::Connect(ConnectError::Disconnected) => unknown(error.to_string()),
            SendRequestError::Connect(_) | SendRequestError::Url(_) => (Failure::Unreachable, error.to_string()),
            _ => unknown(error.to_string()),
        })?;
        let body = response.body().limit(REPLY_BYTES_MAX).await.map_err(|error| unknown(error.to_string()))?;
        let status = response.status();
        match Reply::decode(&body) {
            Ok((reply, version)) => Ok(Heard::Reply(reply, version)),
            Err(_)
                if version == PROTOCOL_VERSION && ProtocolVersion::is_refused_for_previous(status.as_u16(), &body) =>
            {
                Ok(Heard::SpeaksPrevious)
            }
            Err(_) if !status.is_success() => Err(unknown(format!("{status} from {}", self.url))),
            Err(error) => Err(unknown(error.to_string())),
        }
    }
}

/// What came back for a batch.
#[derive(PartialEq)]
enum Heard {
    /// A reply, and its version.
    Reply(Reply, ProtocolVersion),
    /// Nothing was done: the peer speaks the previous version only.
    SpeaksPrevious,
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
        .limit(Lane::ALL.len() + 1)
        .conn_keep_alive(Duration::from_secs(60))
        .conn_lifetime(Duration::from_secs(3_600));
    awc::Client::builder().connector(connector).disable_redirects().no_default_headers().disable_timeout().finish()
}
