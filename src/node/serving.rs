//! Answering a peer's batch: whether it is answered at all, and each request in it.

use super::foreground::Class;
use super::forgetting;
use super::gathering::Gathering;
use super::reply_room::ReplyRoom;
use super::worker::{Committed, Worker};
use crate::protocol::{Answer, Batch, Lane, LayoutRequest, Refusal, Reply, Request};
use crate::replica::{self, Step};
use crate::storage::Change;
use std::rc::Rc;
use tokio::sync::oneshot;

impl Worker {
    /// Answers a peer's batch: refuses it whole, or answers each request in order.
    pub async fn serve(self: &Rc<Self>, batch: Batch) -> Reply {
        let envelope = &batch.envelope;
        self.node.queue.heard(envelope.stamp);
        let (refusal, asked_under) = (self.refuses(&batch), envelope.epoch);
        let answers = match refusal {
            Some(refusal) => Err(refusal),
            None if envelope.background => Ok(self.answer_all(batch.requests, Class::Background, asked_under).await),
            None => {
                if batch
                    .requests
                    .iter()
                    .any(|request| matches!(request.lane(), Lane::Writes | Lane::Reads | Lane::Proposals))
                {
                    self.node.foreground.note();
                }
                Ok(self.answer_all(batch.requests, Class::Foreground, asked_under).await)
            }
        };
        Reply { sender: self.node.id, epoch: self.node.epoch(), stamp: self.node.queue.last_stamp(), answers }
    }

    /// Why the batch as a whole is not answered.
    fn refuses(&self, batch: &Batch) -> Option<Refusal> {
        let (envelope, ring) = (&batch.envelope, self.node.ring());
        let is_bound = batch.requests.iter().any(Request::is_bound_to_epoch);
        // A fresh node knows no more than its cluster's name; which cluster that is, layouts tell.
        let is_fresh = ring.epoch() == 0 || envelope.epoch == 0 && envelope.cluster == self.node.cluster_name();
        let is_hello = |request: &Request| matches!(request, Request::Layout(LayoutRequest::Hello { .. }));
        let is_about_layouts = !batch.requests.is_empty() && batch.requests.iter().all(is_hello);
        if !(envelope.cluster == ring.layout().cluster() || is_fresh || is_about_layouts) {
            Some(Refusal::OtherCluster)
        } else if envelope.receiver.is_some_and(|receiver| receiver != self.node.id) {
            Some(Refusal::OtherNode)
        } else if is_bound && envelope.epoch != ring.epoch() {
            // Whichever of the two is behind learns by this, or by the epoch in the reply.
            Some(Refusal::StaleEpoch { epoch: ring.epoch() })
        } else if envelope.cluster != ring.layout().cluster() && ring.epoch() == envelope.epoch && !is_about_layouts {
            Some(Refusal::OtherCluster)
        } else if is_bound && ring.guest().is_some() && ring.member_by_name(&self.node.name).is_none() {
            // It was meant for a member that was at this address before.
            Some(Refusal::NotAMember)
        } else if envelope.deadline_ms == 0 {
            Some(Refusal::TooLate)
        } else {
            None
        }
    }

    async fn answer_all(self: &Rc<Self>, requests: Vec<Request>, class: Class, epoch: u64) -> Vec<Answer> {
        let count = requests.len();
        if count == 0 {
            return Vec::new();
        }
        forgetting::bring_up(&self.node, &requests).await;
        let (done, all) = oneshot::channel();
        let gathering = Rc::new(Gathering::new(count, done));
        let mut changes: Vec<(Change, Committed)> = Vec::new();
        let room = Rc::new(ReplyRoom::default());
        for (at, request) in requests.into_iter().enumerate() {
            let gathering = gathering.clone();
            let partial = self.node.answers_in_part(&request);
            if !matches!(request.lane(), Lane::Writes | Lane::Reads | Lane::Repairs) {
                self.answer(request, class, epoch, Box::new(move |answer| gathering.put(at, answer)));
            } else if request.lane() == Lane::Reads {
                let room = room.clone();
                let told = move |answer| gathering.put(at, room.take_in(answer));
                match self.at_hand(&request) {
                    Some(answer) => told(answer),
                    None => self.answer(request, class, epoch, Box::new(told)),
                }
            } else if let Some(refusal) = self.node.declines(&request) {
                gathering.put(at, Answer::Refused(refusal));
            } else {
                match replica::step(request) {
                    Step::Commit(change) => {
                        let told = move |result| gathering.put(at, replica::committed(result).in_part(partial));
                        changes.push((change, Box::new(told)));
                    }
                    // No other request travels among writes; but one without an answer would hold up all the others.
                    _ => gathering.put(at, Answer::Refused(Refusal::Overloaded)),
                }
            }
        }
        self.commit_under(class, epoch, changes);
        all.await.unwrap_or_default()
    }
}
