//! What may be forgotten: the twin of `src/node/forgetting.rs`.

use super::Machine;
use crate::plant::Plant;
use crate::rotting::Part;
use crate::workload::Purpose;
use crate::world::{Event, World};
use kringle::antientropy::{Forget, Forgotten};
use kringle::placement::Partition;
use kringle::record::Dot;
use kringle::replica;
use kringle::storage::{Kind, PageSize, Span};
use rand::Rng;

impl World {
    pub(super) fn schedule_forgetting(&mut self, node: usize) {
        let after = self.options.session_period_us * self.rng.random_range(800..=1_200) / 1_000;
        let life = self.nodes[node].life;
        self.schedule(after, Event::Forget { node, life });
    }

    /// Has the owners of each partition forget what they agree to.
    pub(crate) fn forget_round(&mut self, node: usize) {
        self.schedule_forgetting(node);
        if self.only_asked {
            return;
        }
        let now_ms = self.now_stamp(node).ms();
        let up = self.up(node);
        let found = replica::forgettable(&*up.store, &Span::kind(Kind::Due), PageSize::rows(1_000), now_ms, &mut || ());
        let Ok(replica::Noted { candidates, .. }) = found else { return };
        let partition_of = |candidate: &replica::Candidate| Partition::of(candidate.key.position());
        let groups: Vec<Vec<replica::Candidate>> = candidates
            .chunk_by(|one, other| partition_of(one) == partition_of(other))
            .map(<[replica::Candidate]>::to_vec)
            .collect();
        for candidates in groups {
            let partition = partition_of(&candidates[0]);
            let me = self.me(node);
            let owners = self.ring_of(node).holders(partition);
            if !owners.contains(&me) {
                continue;
            }
            let avoid = self.avoid(node);
            if owners.iter().any(|owner| avoid.contains(owner)) {
                self.counters.hit("nothing forgotten as an owner is away");
                continue;
            }
            let up = self.up(node);
            let (actor, last) = (up.committer.actor(), up.committer.committed_stamp());
            let keys = candidates.into_iter().filter(|candidate| {
                let mut dots = candidate.context.entries().iter().map(|&(actor, stamp)| Dot { stamp, actor });
                up.contexts.look(|contexts| dots.all(|dot| contexts.covers(partition, actor, last, dot)))
            });
            let keys: Vec<_> = keys.map(|candidate| (candidate.key, candidate.context)).collect();
            if keys.is_empty() {
                self.counters.hit("nothing forgotten before it was seen everywhere");
                continue;
            }
            let owners = if self.plant == Some(Plant::ForgottenAlone) { vec![me] } else { owners };
            let machine = Machine::Forget(Box::new(Forget::new(me, owners, keys)));
            self.start_operation(node, machine, Purpose::Forget, None);
        }
    }

    /// What a node had seen of some partitions is no longer known to it: what had been forgotten there may come back, until
    /// it learns of it again from the other owners.
    pub(super) fn note_unlearned(&mut self, node: usize, of: impl Fn(&World, usize) -> bool) {
        let keys: Vec<usize> = (0..self.keys.len()).filter(|&key| of(self, key)).collect();
        for key in keys {
            match self.readable_row(node, key) {
                Some(row) => self.oracle.unlearned(node, key, &row),
                None => self.note_unreadable(node, key, Part::Row, true),
            }
        }
    }

    pub(super) fn forget_concluded(&mut self, outcome: &Forgotten) {
        if outcome.keys > 0 {
            self.counters.hit("forgotten by all owners");
        }
        if !outcome.waiting.is_empty() {
            self.counters.hit("owner that does not agree to forget");
        }
    }
}
