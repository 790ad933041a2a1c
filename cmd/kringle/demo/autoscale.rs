//! When a cluster needs another node, or one less: decided from samples of how full its nodes are, and from nothing
//! else, so that every rule can be tried without a cluster.
//!
//! ```text
//!   fullness of the fullest node      what [`SAMPLES`] samples in a row have to say
//!   1.0 ─┬─ full: new keys are refused
//!   0.8 ─┼─ above: one more node
//!        │  between: nothing
//!   0.5 ─┼─ below, reckoned for one node less: one less
//!   0.0 ─┘
//! ```
//!
//! What is reckoned for one node less is too high rather than too low: with no more members than replicas a node less
//! changes nothing for the others. So a node that was let go is not missed at once.

use std::collections::VecDeque;
use std::time::Duration;

/// Above this, as a share of the limit, a node is too full.
pub(super) const FULL: f64 = 0.8;

/// Nodes must be this empty even with one of them less. Well below [`FULL`], so that the two do not alternate.
pub(super) const EMPTY: f64 = 0.5;

/// Samples that must agree.
pub(super) const SAMPLES: usize = 3;

/// The terms of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bounds {
    /// Never fewer.
    pub(super) nodes_min: usize,
    /// Never more.
    pub(super) nodes_max: usize,
    /// Time for which nothing is done after a change.
    pub(super) cooldown: Duration,
}

/// How the cluster is at one moment.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Sample {
    /// Nodes there are, dead ones too: they count against the maximum.
    pub(super) nodes: usize,
    /// How full the fullest node is, as a share of its limit; the worse of keys and load.
    pub(super) fullest: f64,
    /// Every node has told.
    pub(super) is_whole: bool,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Decision {
    Nothing,
    Add,
    Remove,
}

/// Remembers as much as it takes to decide.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Autoscale {
    bounds: Bounds,
    /// The last samples since the last change, at most [`SAMPLES`].
    samples: VecDeque<Sample>,
    /// When the last change was over.
    changed: Option<Duration>,
}

impl Autoscale {
    /// Has seen nothing yet.
    pub(super) fn new(bounds: Bounds) -> Autoscale {
        Autoscale { bounds, samples: VecDeque::with_capacity(SAMPLES), changed: None }
    }

    /// Takes a sample at `now`, a time since any fixed moment.
    pub(super) fn decide(&mut self, now: Duration, sample: Sample) -> Decision {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        let rests = self.changed.is_some_and(|changed| now.saturating_sub(changed) < self.bounds.cooldown);
        if rests || self.samples.len() < SAMPLES {
            return Decision::Nothing;
        }
        let all = |holds: fn(&Sample) -> bool| self.samples.iter().all(holds);
        if all(|sample| sample.fullest >= FULL) && sample.nodes < self.bounds.nodes_max {
            return Decision::Add;
        }
        // A node that does not tell may be the full one, and a dead one's keys are one copy short.
        let has_room = |sample: &Sample| sample.is_whole && sample.fullest_with_one_less() < EMPTY;
        if all(has_room) && sample.nodes > self.bounds.nodes_min {
            return Decision::Remove;
        }
        Decision::Nothing
    }

    /// A change is over, well or not: what was seen before it says nothing any more.
    pub(super) fn changed(&mut self, now: Duration) {
        self.samples.clear();
        self.changed = Some(now);
    }
}

impl Sample {
    /// How full the fullest would be at most, were there one node less.
    fn fullest_with_one_less(&self) -> f64 {
        match self.nodes {
            0 | 1 => f64::INFINITY,
            nodes => self.fullest * nodes as f64 / (nodes - 1) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn autoscale() -> Autoscale {
        Autoscale::new(Bounds { nodes_min: 3, nodes_max: 5, cooldown: 10 * S })
    }

    /// What is decided on these samples, one a second.
    fn decisions(autoscale: &mut Autoscale, from: u32, nodes: usize, fullest: &[f64]) -> Vec<Decision> {
        let samples = fullest.iter().map(|fullest| Sample { nodes, fullest: *fullest, is_whole: true });
        (from..).zip(samples).map(|(at, sample)| autoscale.decide(at * S, sample)).collect()
    }

    use Decision::{Add, Nothing, Remove};

    #[test]
    fn three_samples_at_the_threshold_add_a_node_and_two_do_not() {
        assert_eq!(
            decisions(&mut autoscale(), 0, 3, &[0.8, 0.8, 0.79, 0.9, 0.8, 0.8]),
            [Nothing, Nothing, Nothing, Nothing, Nothing, Add]
        );
    }

    #[test]
    fn after_a_change_it_rests_and_begins_anew() {
        let mut autoscale = autoscale();
        decisions(&mut autoscale, 0, 3, &[0.9; 3]);
        autoscale.changed(3 * S);
        let rest = decisions(&mut autoscale, 3, 4, &[0.9; 11]);
        assert_eq!(rest.iter().position(|decision| *decision == Add), Some(10), "{rest:?}");
        autoscale.changed(14 * S);
        // A long silence is no agreement.
        assert_eq!(decisions(&mut autoscale, 100, 4, &[0.9, 0.9]), [Nothing, Nothing]);
    }

    #[test]
    fn the_maximum_is_never_passed_and_the_minimum_neither() {
        assert_eq!(decisions(&mut autoscale(), 0, 5, &[1.0; 4]), [Nothing; 4]);
        assert_eq!(decisions(&mut autoscale(), 0, 6, &[1.0; 4]), [Nothing; 4]);
        assert_eq!(decisions(&mut autoscale(), 0, 3, &[0.0; 4]), [Nothing; 4]);
    }

    #[test]
    fn a_node_goes_only_where_the_others_stay_half_empty_without_it() {
        assert_eq!(decisions(&mut autoscale(), 0, 4, &[0.37; 3])[2], Remove);
        assert_eq!(decisions(&mut autoscale(), 0, 4, &[0.38; 3])[2], Nothing);
        assert_eq!(decisions(&mut autoscale(), 0, 4, &[0.1, 0.6, 0.1]), [Nothing; 3]);
    }

    #[test]
    fn nothing_is_removed_while_a_node_does_not_tell() {
        let mut autoscale = autoscale();
        let sample = |is_whole| Sample { nodes: 5, fullest: 0.1, is_whole };
        let told = [true, false, true, true, true].map(|is_whole| autoscale.decide(S, sample(is_whole)));
        assert_eq!(told, [Nothing, Nothing, Nothing, Nothing, Remove]);
        let mut full = self::autoscale();
        let told = [0; 3].map(|_| full.decide(S, Sample { nodes: 4, fullest: 0.9, is_whole: false }));
        assert_eq!(told[2], Add, "a full node is one whoever else is silent");
    }
}
