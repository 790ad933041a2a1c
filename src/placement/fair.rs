//! The fair share: how many slots a member should own by its weight.
//!
//! In whole numbers throughout, so that every machine computes the same. A member owns a partition once at most,
//! so a very heavy one is capped at all of them, and the lighter ones share what it can't take.

use super::member::Member;
use super::partition::PARTITIONS;

/// The fair share of every member: `min(PARTITIONS, weight × slots / weights)`, counted over those not yet at
/// the bound of owning every partition once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fair {
    slots: u64,
    weights: u64,
}

impl Fair {
    /// The shares of these members when every partition has `width` owners, at most one for each member. All of them have
    /// weight.
    pub(super) fn new(members: &[Member], width: usize) -> Fair {
        let mut weights: Vec<u64> = members.iter().map(|member| u64::from(member.weight)).collect();
        weights.sort_unstable();
        let mut fair = Fair { slots: (PARTITIONS * width) as u64, weights: weights.iter().sum() };
        for weight in weights.into_iter().rev() {
            if !fair.full(weight) {
                break;
            }
            fair = Fair { slots: fair.slots - PARTITIONS as u64, weights: fair.weights - weight };
        }
        fair
    }

    /// Whole slots a member of this weight may have at most: its share rounded up.
    pub(super) fn ceiling(self, weight: u16) -> usize {
        let weight = u64::from(weight);
        if self.full(weight) { PARTITIONS } else { (self.slots * weight).div_ceil(self.weights) as usize }
    }

    /// Whole slots a member of this weight may have before others are moved for its sake: 1.10 of its share, and
    /// never less than its share rounded up.
    pub(super) fn bound(self, weight: u16) -> usize {
        let tenth_more = (self.slots * u64::from(weight) * 11 / (self.weights.max(1) * 10)) as usize;
        tenth_more.min(PARTITIONS).max(self.ceiling(weight))
    }

    /// Whole slots a member of this weight has at least: its share rounded down.
    pub(super) fn floor(self, weight: u16) -> usize {
        let weight = u64::from(weight);
        if self.full(weight) { PARTITIONS } else { (self.slots * weight / self.weights) as usize }
    }

    /// The share itself, in slots: what measured loads are compared with.
    pub(super) fn share(self, weight: u16) -> f64 {
        let weight = u64::from(weight);
        if self.full(weight) { PARTITIONS as f64 } else { (self.slots * weight) as f64 / self.weights as f64 }
    }

    fn full(self, weight: u64) -> bool {
        self.slots * weight >= PARTITIONS as u64 * self.weights
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weighing(weights: &[u16]) -> Vec<Member> {
        let member = |(i, &weight)| Member { weight, ..Member::new(format!("http://n{i}")) };
        weights.iter().enumerate().map(member).collect()
    }

    #[test]
    fn fair_shares_follow_weight_up_to_every_partition_once() {
        let even = Fair::new(&weighing(&[1; 5]), 3);
        assert_eq!((even.floor(1), even.ceiling(1), even.bound(1)), (614, 615, 675));
        let heavy = Fair::new(&weighing(&[64, 1, 1, 1, 1]), 3);
        assert_eq!((heavy.floor(64), heavy.floor(1), heavy.ceiling(1)), (1024, 512, 512));
        let everyone = Fair::new(&weighing(&[1, 64, 3]), 3);
        assert_eq!([1, 3, 64].map(|weight| everyone.floor(weight)), [1024; 3]);
        assert_eq!(everyone.bound(64), 1024);
        assert_eq!(Fair::new(&weighing(&[1; 1000]), 3).bound(1), 4, "a whole slot more than 3.07");
    }
}
