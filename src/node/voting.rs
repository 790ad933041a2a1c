//! This node's vote about the next layout: on the committer's thread, and durable before it is given.

use super::layout_facts::REGISTER_FACT;
use super::layouts::lock;
use super::outside::{random, wall_ms};
use super::shared::Shared;
use super::worker::Worker;
use crate::membership::{NoVote, Round};
use crate::placement::{Layout, NodeId, Ring};
use crate::protocol::{Answer, LayoutAnswer, LayoutRequest, Refusal};
use crate::storage::{Change, Committer};
use std::rc::Rc;
use tokio::sync::oneshot;

/// Answers a proposer.
pub(super) fn vote(worker: &Rc<Worker>, request: LayoutRequest, told: Box<dyn FnOnce(Answer)>) {
    let node = worker.node.clone();
    let (tell, heard) = oneshot::channel();
    let voting = node.clone();
    node.queue.between_batches(Box::new(move |committer| {
        let _ = tell.send(voting.vote(committer, &request));
    }));
    actix_web::rt::spawn(async move {
        // Dropped where the node is stopping.
        told(heard.await.unwrap_or(Answer::Refused(Refusal::Overloaded)));
    });
}

impl Shared {
    /// Votes about the next layout, on the committer's thread: durable before it is said.
    fn vote(&self, committer: &mut Committer, request: &LayoutRequest) -> Answer {
        let (ring, mut register) = (self.ring(), lock(&self.layouts.register));
        let current = ring.epoch();
        let Some(held) = register.as_ref() else {
            return Answer::Layout(LayoutAnswer::Declined { why: "its votes were lost".into() });
        };
        let mut next = held.clone();
        let voted = match request {
            LayoutRequest::Prepare { epoch, round } => {
                next.prepare(current, *epoch, *round).map(|accepted| LayoutAnswer::Promised { by: self.id, accepted })
            }
            LayoutRequest::Accept { round, layout } => match self.acceptable(&ring, layout) {
                Ok(epoch) => {
                    next.accept(current, epoch, *round, layout.clone()).map(|()| LayoutAnswer::Accepted { by: self.id })
                }
                Err(why) => return Answer::Layout(LayoutAnswer::Declined { why }),
            },
            _ => return Answer::Refused(Refusal::Overloaded),
        };
        match voted {
            Err(NoVote::OtherEpoch) => Answer::Refused(Refusal::StaleEpoch { epoch: current }),
            Err(NoVote::Outvoted(round)) => Answer::Layout(LayoutAnswer::Outvoted { round }),
            Ok(answer) => {
                let change = Change::Fact { name: REGISTER_FACT, bytes: next.encode().into() };
                let kept = committer.commit(wall_ms(), vec![change]).iter().all(Result::is_ok);
                if !kept || self.store.sync().is_err() {
                    return Answer::Refused(Refusal::ReadOnly { why: "the vote cannot be kept".into() });
                }
                *register = Some(next);
                Answer::Layout(answer)
            }
        }
    }

    /// The epoch of a layout that this node may accept.
    fn acceptable(&self, ring: &Ring, bytes: &[u8]) -> Result<u64, String> {
        let layout = Layout::decode(bytes).map_err(|error| error.to_string())?;
        if ring.epoch() > 0 && layout.cluster() != ring.layout().cluster() {
            return Err("it is another cluster's".into());
        }
        if ring.epoch() == 0 && !layout.members().iter().any(|member| member.id == Some(self.id)) {
            return Err("a first layout must list whoever accepts it".into());
        }
        Ok(layout.epoch())
    }

    /// Another id than those of all rounds before, of this node's as well: it may propose two layouts at a time, and again
    /// after a start.
    pub(super) fn first_round(&self) -> Round {
        Round { number: 0, by: NodeId(random()) }
    }
}
