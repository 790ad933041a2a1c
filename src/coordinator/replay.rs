//! `Replay`: how far the hints kept for one member have been handed to it, and what is sent next.
//!
//! Oldest first, one bounded handful at a time, the next when the last was answered: the target sets the pace. A record
//! the target refuses for itself is passed over, so that it holds up nobody behind it, and offered again later. An
//! answer about the target as a whole, or none, ends the pass.

use crate::operation::Failure;
use crate::protocol::{Answer, Refusal};
use crate::storage::HintPlace;

/// Hints sent to one peer at a time. Small, so that a peer that has just come back is not swamped.
pub const HINTS_AT_A_TIME: usize = 64;

/// When what a target refused is offered again, in milliseconds. A clock that was set right may have made room for
/// it; until then asking costs a message each.
pub const REFUSED_AGAIN_MS: u64 = 60_000;

/// The same where the target's row is damaged, or the hint cannot be read here: both are made good within seconds.
pub const DAMAGED_AGAIN_MS: u64 = 10_000;

/// What came of one hint.
#[derive(Clone, PartialEq, Debug)]
pub enum Fate {
    /// The target has the record, and the hint was dropped.
    Taken,
    /// This record will not be had: the target refused it, or it cannot be read here.
    Refused(Refusal),
    /// Nothing more can be done for the target now.
    Stopped,
}

impl Fate {
    /// What an answer of the target means for the hint that was sent; a merged one has still to be dropped.
    pub fn of(result: &Result<Answer, Failure>) -> Fate {
        match result {
            Ok(Answer::Merged { .. } | Answer::Partial(_)) => Fate::Taken,
            Ok(Answer::Refused(refusal)) if refusal.is_about_request() => Fate::Refused(refusal.clone()),
            _ => Fate::Stopped,
        }
    }
}

/// The replay to one target, from its return until it is away again.
#[derive(Clone, Default, Debug)]
pub struct Replay {
    /// Everything up to here that is still kept was refused, and is left alone until the time beside it.
    passed: Option<(HintPlace, u64)>,
    /// How many of the present pass were refused, and of the one before.
    refused: u64,
    refused_before: u64,
    taken: u64,
}

impl Replay {
    /// Begins a pass at `now_ms`.
    pub fn begin(&mut self, now_ms: u64) {
        self.taken = 0;
        if self.passed.as_ref().is_some_and(|(_, until_ms)| *until_ms <= now_ms) {
            self.passed = None;
            self.refused_before = std::mem::take(&mut self.refused);
        }
    }

    /// The place after which the next handful is to be looked for.
    pub fn after(&self) -> Option<&HintPlace> {
        self.passed.as_ref().map(|(place, _)| place)
    }

    /// The handful that ended at `last` met these fates. Whether there may be more to send now.
    pub fn met(&mut self, last: HintPlace, fates: &[Fate], now_ms: u64) -> bool {
        self.taken += fates.iter().filter(|fate| **fate == Fate::Taken).count() as u64;
        if fates.contains(&Fate::Stopped) {
            return false;
        }
        let refused = fates.iter().filter(|fate| matches!(fate, Fate::Refused(_))).count() as u64;
        if refused > 0 {
            self.refused += refused;
            let rots = |fate: &Fate| matches!(fate, Fate::Refused(Refusal::Damaged | Refusal::Unreadable));
            let damaged = fates.iter().any(rots);
            let until_ms = now_ms + if damaged { DAMAGED_AGAIN_MS } else { REFUSED_AGAIN_MS };
            let until_ms = self.passed.as_ref().map_or(until_ms, |(_, earlier_ms)| until_ms.min(*earlier_ms));
            self.passed = Some((last, until_ms));
        }
        true
    }

    /// Hints this pass has handed over.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// How many hints the target would not take, if that has changed since it was last asked.
    pub fn refused_now(&mut self) -> Option<u64> {
        let changed = self.refused > 0 && self.refused != self.refused_before;
        if self.refused > 0 {
            self.refused_before = self.refused;
        }
        changed.then_some(self.refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Key, Stamp};
    use std::collections::BTreeSet;

    fn kept(count: u64) -> BTreeSet<HintPlace> {
        (0..count).map(|at| (Stamp(at), Key::new(format!("k{at}").into_bytes()).unwrap())).collect()
    }

    /// One pass against a target that `takes` some of the places; what is still kept afterwards.
    fn pass(
        replay: &mut Replay,
        kept: &mut BTreeSet<HintPlace>,
        now_ms: u64,
        takes: impl Fn(&HintPlace) -> Fate,
    ) -> usize {
        let mut sent = 0;
        replay.begin(now_ms);
        loop {
            let rest = kept.iter().filter(|place| replay.after().is_none_or(|after| *place > after));
            let handful: Vec<HintPlace> = rest.take(HINTS_AT_A_TIME).cloned().collect();
            let Some(last) = handful.last().cloned() else { return sent };
            sent += handful.len();
            let fates: Vec<Fate> = handful.iter().map(&takes).collect();
            for (place, fate) in handful.iter().zip(&fates) {
                if *fate == Fate::Taken {
                    kept.remove(place);
                }
            }
            if !replay.met(last, &fates, now_ms) {
                return sent;
            }
        }
    }

    fn refuse(damaged: bool) -> Fate {
        if damaged { Fate::Refused(Refusal::Damaged) } else { Fate::Taken }
    }

    #[test]
    fn hints_a_target_refuses_hold_up_nobody_behind_them() {
        let (mut replay, mut hints) = (Replay::default(), kept(500));
        // More than a handful of the oldest, and some among the others.
        let is_damaged = |place: &HintPlace| place.0.0 < 100 || place.0.0.is_multiple_of(50);
        pass(&mut replay, &mut hints, 0, |place| refuse(is_damaged(place)));
        assert!(hints.iter().all(is_damaged), "all the others have arrived: {hints:?}");
        assert_eq!((replay.taken(), replay.refused_now(), replay.refused_now()), (392, Some(108), None));
    }

    #[test]
    fn what_was_refused_is_left_alone_for_a_while_and_then_offered_again() {
        let (mut replay, mut hints) = (Replay::default(), kept(70));
        pass(&mut replay, &mut hints, 0, |_| Fate::Refused(Refusal::NoTargets));
        assert_eq!(pass(&mut replay, &mut hints, REFUSED_AGAIN_MS - 1, |_| Fate::Taken), 0);
        assert_eq!(replay.refused_now(), Some(70));
        hints.extend([(Stamp(999), Key::new(b"new".to_vec()).unwrap())]);
        assert_eq!(pass(&mut replay, &mut hints, REFUSED_AGAIN_MS - 1, |_| Fate::Taken), 1, "what is new is sent");
        pass(&mut replay, &mut hints, REFUSED_AGAIN_MS, |_| Fate::Refused(Refusal::NoTargets));
        assert_eq!(replay.refused_now(), None, "the same as before is not said again");
        pass(&mut replay, &mut hints, 2 * REFUSED_AGAIN_MS, |_| Fate::Taken);
        assert_eq!(hints.len(), 0);
    }

    #[test]
    fn what_a_damaged_row_kept_away_is_offered_again_when_that_is_made_good() {
        let (mut replay, mut hints) = (Replay::default(), kept(70));
        pass(&mut replay, &mut hints, 0, |place| {
            if place.0.0 == 69 { refuse(true) } else { Fate::Refused(Refusal::NoTargets) }
        });
        assert_eq!(pass(&mut replay, &mut hints, DAMAGED_AGAIN_MS - 1, |_| Fate::Taken), 0);
        assert_eq!(pass(&mut replay, &mut hints, DAMAGED_AGAIN_MS, |_| Fate::Taken), 70);
    }

    #[test]
    fn a_target_that_stops_answering_is_sent_no_more() {
        let (mut replay, mut hints) = (Replay::default(), kept(500));
        let stops = |place: &HintPlace| if place.0.0 == 80 { Fate::Stopped } else { Fate::Taken };
        assert_eq!(pass(&mut replay, &mut hints, 0, stops), 2 * HINTS_AT_A_TIME);
        assert_eq!(pass(&mut replay, &mut hints, 1, |_| Fate::Taken), 500 - 2 * HINTS_AT_A_TIME + 1);
        assert_eq!(hints.len(), 0);
    }

    #[test]
    fn only_answers_about_the_record_pass_it_over() {
        let of = |refusal| Fate::of(&Ok(Answer::Refused(refusal)));
        assert_eq!(of(Refusal::Damaged), Fate::Refused(Refusal::Damaged));
        assert_eq!(of(Refusal::Overloaded), Fate::Stopped);
        assert_eq!(of(Refusal::ReadOnly { why: "full".into() }), Fate::Stopped);
        assert_eq!(Fate::of(&Err(Failure::Unknown)), Fate::Stopped);
        assert_eq!(Fate::of(&Ok(Answer::Merged { applied: false, more: None })), Fate::Taken);
    }
}
