//! What a peer would send: a test in its place.

use super::http::Request;
use kringle::placement::{ClusterId, NodeId};
use kringle::protocol::{Batch, Envelope, MEDIA_TYPE, Request as PeerRequest};
use kringle::record::Stamp;

/// A batch of a node of the cluster that nobody named, whose clock shows `stamp`.
pub fn post(path: &str, sender: NodeId, stamp: Stamp, requests: Vec<PeerRequest>) -> Request {
    let envelope = Envelope {
        cluster: ClusterId::named("kringle"),
        sender,
        receiver: None,
        epoch: 0,
        deadline_ms: 10_000,
        stamp,
        background: false,
    };
    Request::new("POST", path).header("Content-Type", MEDIA_TYPE).body(Batch { envelope, requests }.encode())
}
