//! What peers say of the writes they have seen, and when it is taken over.
//!
//! A session that finds the same rows on both sides shows that whatever the peer had seen before is held here: if that
//! was still so when the session looked. A peer that lost its disk or some of its rows since has forgotten what it said,
//! and is equal without it. So what was said before a session is taken over once the peer, asked after the session, says
//! so still: what it lost meanwhile it never says again.

use super::contexts;
use crate::placement::Partition;
use crate::protocol::{Evidence, SeenGroups};
use crate::record::Context;
use std::collections::BTreeMap;

/// What a peer had said of partitions that were then found to be equal.
pub type Unconfirmed = BTreeMap<Partition, Context>;

/// What the peers said.
#[derive(Clone, Debug, Default)]
pub struct Said {
    last: BTreeMap<String, Evidence>,
    /// Since when each peer has all that it took, by the number it says.
    unbroken: BTreeMap<String, u64>,
    unconfirmed: BTreeMap<String, Unconfirmed>,
}

impl Said {
    /// The digest of what `peer` said last; 0 if it said nothing.
    pub fn digest_of(&self, peer: &str) -> u64 {
        self.last.get(peer).map_or(0, contexts::digest)
    }

    /// What `peer` said last.
    pub fn by(&self, peer: &str) -> Option<&SeenGroups> {
        self.last.get(peer).map(|evidence| &evidence.seen)
    }

    /// What `peer` said last of one partition, if it said anything of it.
    pub fn of(&self, peer: &str, partition: Partition) -> Option<&Context> {
        let is_of = |stretches: &[(Partition, Partition)]| {
            stretches.iter().any(|(first, last)| (*first..=*last).contains(&partition))
        };
        self.by(peer)?.iter().find(|(_, stretches)| is_of(stretches)).map(|(context, _)| context)
    }

    /// The number by which `peer` says that it has all that it took, as it said it last. Nothing, if it was away since.
    pub fn unbroken(&self, peer: &str) -> Option<u64> {
        self.unbroken.get(peer).copied()
    }

    /// `peer` says this number.
    pub fn note_unbroken(&mut self, peer: &str, number: u64) {
        match self.unbroken.get_mut(peer) {
            Some(held) => *held = number,
            None => drop(self.unbroken.insert(peer.to_string(), number)),
        }
    }

    /// `peer` is away: it may be another when it is back.
    pub fn note_away(&mut self, peer: &str) {
        self.unbroken.remove(peer);
    }

    /// `peer` says what it has seen. More than any store would say is not listened to.
    pub fn note(&mut self, peer: &str, evidence: Evidence) {
        if contexts::is_within_bounds(&evidence.seen) && contexts::is_within_bounds(&evidence.delivered) {
            self.last.insert(peer.to_string(), evidence);
        }
    }

    /// A session found these partitions to be the same on both sides, of which `peer` had said so much before it began.
    pub fn found_equal(&mut self, peer: &str, said: impl IntoIterator<Item = (Partition, Context)>) {
        self.unconfirmed.entry(peer.to_string()).or_default().extend(said);
    }

    /// What is to be taken over once `peer` says so still, in answer to what it is asked from now on.
    pub fn unconfirmed(&self, peer: &str) -> Unconfirmed {
        self.unconfirmed.get(peer).cloned().unwrap_or_default()
    }

    /// A row of the partition was lost here, and replaced by all that `from` these peers hold of its key, each of which had
    /// said so much before it was asked for that: whatever else was found is so no longer. `seen` is what this store has seen
    /// of the partition, the lost row included. Of that it holds again what such a peer has seen as well: once that one says
    /// so still, it is to be taken over.
    pub fn replaced<'a>(
        &mut self,
        partition: Partition,
        seen: &Context,
        from: impl IntoIterator<Item = (&'a str, Context)>,
    ) {
        let regained = from.into_iter().map(|(peer, theirs)| {
            let mut known = seen.clone();
            // What waited for its word when another row was lost.
            self.unconfirmed
                .get(peer)
                .and_then(|waiting| waiting.get(&partition))
                .into_iter()
                .for_each(|said| known.join(said));
            (peer, known.meet(&theirs))
        });
        let regained: Vec<_> = regained.filter(|(_, both)| !both.is_empty()).collect();
        self.lost(Some(partition));
        regained.into_iter().for_each(|(peer, both)| self.found_equal(peer, [(partition, both)]));
    }

    /// Whether there is any such thing.
    pub fn is_unconfirmed(&self, peer: &str) -> bool {
        self.unconfirmed.get(peer).is_some_and(|unconfirmed| !unconfirmed.is_empty())
    }

    /// `peer` has answered, and was asked when so much was `unconfirmed`: what of it is to be taken over.
    pub fn answered(&mut self, peer: &str, unconfirmed: Unconfirmed) -> Unconfirmed {
        let now: BTreeMap<Partition, Context> =
            self.by(peer).map(|groups| contexts::spread(groups).collect()).unwrap_or_default();
        let waiting = self.unconfirmed.entry(peer.to_string()).or_default();
        let mut taken = Unconfirmed::new();
        for (partition, said) in unconfirmed {
            // What was said before a later session is another matter, and so is what was lost here since.
            if waiting.get(&partition) == Some(&said) {
                waiting.remove(&partition);
                if now.get(&partition).is_some_and(|now| now.dominates(&said)) {
                    taken.insert(partition, said);
                }
            }
        }
        taken
    }

    /// Rows of the partition were lost here, or of all of them: what was found to be the same is so no longer.
    pub fn lost(&mut self, partition: Option<Partition>) {
        for unconfirmed in self.unconfirmed.values_mut() {
            unconfirmed.retain(|at, _| partition.is_some_and(|partition| partition != *at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Actor, Dot, Stamp};

    fn groups(actor: u64, stamp: u64) -> SeenGroups {
        let mut context = Context::new();
        context.add(Dot { stamp: Stamp(stamp), actor: Actor(actor) });
        let at = Partition::try_from_index(3).unwrap();
        vec![(context, vec![(at, at)])]
    }

    fn note(said: &mut Said, seen: SeenGroups) {
        said.note("a", Evidence { seen, ..Evidence::default() });
    }

    fn equal_then_asked(said_before: &SeenGroups, said_after: Option<SeenGroups>) -> usize {
        let mut said = Said::default();
        note(&mut said, said_before.clone());
        let before = said.by("a").cloned().unwrap_or_default();
        said.found_equal("a", contexts::spread(&before));
        assert!(said.is_unconfirmed("a"));
        let asked = said.unconfirmed("a");
        said_after.into_iter().for_each(|groups| note(&mut said, groups));
        let taken = said.answered("a", asked).len();
        assert!(!said.is_unconfirmed("a"), "once asked, done with");
        taken
    }

    #[test]
    fn what_a_peer_said_before_a_session_is_taken_over_if_it_says_so_still_after_it() {
        assert_eq!(equal_then_asked(&groups(1, 5), None), 1, "nothing new");
        assert_eq!(equal_then_asked(&groups(1, 5), Some(groups(1, 9))), 1);
        assert_eq!(equal_then_asked(&groups(1, 5), Some(groups(2, 9))), 0, "another store answers there now");
        assert_eq!(equal_then_asked(&groups(1, 5), Some(groups(1, 4))), 0, "an old disk was put back");
        assert_eq!(equal_then_asked(&groups(1, 5), Some(SeenGroups::new())), 0, "it cannot read some of its rows");
    }

    #[test]
    fn an_answer_says_nothing_of_a_session_that_ended_after_it_was_asked_for() {
        let mut said = Said::default();
        note(&mut said, groups(1, 5));
        said.found_equal("a", contexts::spread(&groups(1, 5)));
        let asked = said.unconfirmed("a");
        said.found_equal("a", contexts::spread(&groups(1, 7)));
        note(&mut said, groups(1, 8));
        assert_eq!(said.answered("a", asked).len(), 0);
        let asked = said.unconfirmed("a");
        assert_eq!(asked.values().collect::<Vec<_>>(), [&groups(1, 7)[0].0]);
        assert_eq!(said.answered("a", asked).len(), 1);
        assert_eq!(said.answered("b", Unconfirmed::new()).len(), 0);
    }

    #[test]
    fn what_a_peer_had_seen_is_known_again_once_it_says_so_after_it_gave_what_was_lost() {
        let at = Partition::try_from_index(3).unwrap();
        let context = |actor, stamp| groups(actor, stamp)[0].0.clone();
        let mut said = Said::default();
        note(&mut said, groups(1, 5));
        let before = said.of("a", at).cloned().unwrap();
        let mut seen = context(1, 9);
        seen.join(&context(2, 4));
        said.replaced(at, &seen, [("a", before.clone())]);
        assert_eq!(said.unconfirmed("a").get(&at), Some(&context(1, 5)), "what both have seen");
        // Another row of the partition is lost before the peer has spoken.
        said.replaced(at, &Context::new(), [("a", before.clone())]);
        let asked = said.unconfirmed("a");
        assert_eq!(asked.get(&at), Some(&context(1, 5)));
        assert_eq!(said.answered("a", asked).len(), 1);
        said.replaced(at, &seen, [("a", before.clone())]);
        said.replaced(at, &Context::new(), [("b", before)]);
        assert!(!said.is_unconfirmed("a") && !said.is_unconfirmed("b"), "it was not asked for the second");
    }

    #[test]
    fn what_was_lost_here_before_the_answer_is_not_taken_over() {
        for lost in [None, Partition::try_from_index(3).ok()] {
            let mut said = Said::default();
            note(&mut said, groups(1, 5));
            said.found_equal("a", contexts::spread(&groups(1, 5)));
            let asked = said.unconfirmed("a");
            said.lost(lost);
            assert_eq!(said.answered("a", asked).len(), 0);
        }
    }
}
