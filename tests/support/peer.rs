//! What a peer would send: a test in its place.

use super::http::{Client, Request};
use kringle::placement::{ClusterId, NodeId};
use kringle::protocol::{Batch, Envelope, MEDIA_TYPE, PROTOCOL_VERSION, Request as PeerRequest};
use kringle::record::Stamp;

/// A batch of a node that goes by no layout yet, and whose clock shows `stamp`.
pub fn post(path: &str, sender: NodeId, stamp: Stamp, requests: Vec<PeerRequest>) -> Request {
    post_under(ClusterId::named("kringle"), 0, path, sender, stamp, requests)
}

/// A batch of one that goes by the layout that the node behind `client` does.
#[track_caller]
pub fn post_as_member(
    client: &mut Client,
    path: &str,
    sender: NodeId,
    stamp: Stamp,
    requests: Vec<PeerRequest>,
) -> Request {
    let cluster = client.get("/cluster").expect(200).json();
    let id = cluster["cluster_id"].as_str().expect("an established cluster").parse().expect("an id");
    post_under(id, cluster["epoch"].as_u64().expect("an epoch"), path, sender, stamp, requests)
}

fn post_under(
    cluster: ClusterId,
    epoch: u64,
    path: &str,
    sender: NodeId,
    stamp: Stamp,
    requests: Vec<PeerRequest>,
) -> Request {
    let envelope = Envelope { cluster, sender, receiver: None, epoch, deadline_ms: 10_000, stamp, background: false };
    Request::new("POST", path)
        .header("Content-Type", MEDIA_TYPE)
        .body(Batch { envelope, requests }.encode(PROTOCOL_VERSION))
}
