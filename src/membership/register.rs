//! What this node has promised and accepted of the next layout: an acceptor of single-decree Paxos, one decree an epoch.
//!
//! The members of a layout decide on the next one: whatever a majority of its [`voters`](crate::placement::Layout::voters)
//! accepted in one round is the layout of that epoch for good, and only it. So layouts follow one another in one line,
//! whoever proposes, and a member that was away learns the last of them from anybody. A fresh cluster's first one needs
//! all that it lists. Lamport, "Paxos Made Simple" (2001), §2; Lamport, Malkhi, Zhou, "Vertical Paxos and
//! Primary-Backup Replication" (2009), for one decree a configuration.

use crate::placement::NodeId;
use serde::{Deserialize, Serialize};

/// A proposer's attempt. Later ones have the higher number; no two proposers have the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Round {
    /// Counted up.
    pub number: u64,
    /// The proposer.
    pub by: NodeId,
}

/// Why a vote is not given. Nothing was promised or accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoVote {
    /// The epoch is not the one after this node's layout.
    OtherEpoch,
    /// A later round was promised.
    Outvoted(Round),
}

/// The acceptor. To be kept durably before its answers are sent.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Register {
    /// What the votes are about; those about an earlier epoch are over.
    epoch: u64,
    promised: Option<Round>,
    accepted: Option<(Round, Vec<u8>)>,
}

impl Register {
    /// What [`Register::encode`] wrote. `None` for bytes that are none: it may have promised anything.
    pub fn decode(bytes: &[u8]) -> Option<Register> {
        match postcard::take_from_bytes(bytes) {
            Ok((register, [])) => Some(register),
            _ => None,
        }
    }

    /// As bytes, to be kept.
    pub fn encode(&self) -> Vec<u8> {
        // Numbers and bytes always have a form.
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// Promises to accept nothing for `epoch` in an earlier round; what was accepted for it before. `current` is the epoch
    /// of this node's layout.
    pub fn prepare(&mut self, current: u64, epoch: u64, round: Round) -> Result<Option<(Round, Vec<u8>)>, NoVote> {
        self.turn_to(current, epoch)?;
        if let Some(promised) = self.promised.filter(|promised| *promised > round) {
            return Err(NoVote::Outvoted(promised));
        }
        self.promised = Some(round);
        Ok(self.accepted.clone())
    }

    /// Accepts a layout for `epoch`.
    pub fn accept(&mut self, current: u64, epoch: u64, round: Round, layout: Vec<u8>) -> Result<(), NoVote> {
        self.turn_to(current, epoch)?;
        if let Some(promised) = self.promised.filter(|promised| *promised > round) {
            return Err(NoVote::Outvoted(promised));
        }
        (self.promised, self.accepted) = (Some(round), Some((round, layout)));
        Ok(())
    }

    fn turn_to(&mut self, current: u64, epoch: u64) -> Result<(), NoVote> {
        if current.checked_add(1) != Some(epoch) || self.epoch > epoch {
            return Err(NoVote::OtherEpoch);
        }
        if self.epoch < epoch {
            *self = Register { epoch, ..Register::default() };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(number: u64) -> Round {
        Round { number, by: NodeId(1) }
    }

    #[test]
    fn what_was_promised_is_not_broken_and_what_was_accepted_is_shown() {
        let mut register = Register::default();
        assert_eq!(register.prepare(0, 1, round(5)), Ok(None));
        assert_eq!(register.accept(0, 1, round(4), vec![4]), Err(NoVote::Outvoted(round(5))));
        assert_eq!(register.prepare(0, 1, Round { number: 5, by: NodeId(0) }), Err(NoVote::Outvoted(round(5))));
        assert_eq!(register.accept(0, 1, round(5), vec![5]), Ok(()));
        assert_eq!(register.prepare(0, 1, round(9)), Ok(Some((round(5), vec![5]))));
        let kept = Register::decode(&register.encode()).unwrap();
        assert_eq!(kept, register);
        assert_eq!(register.accept(0, 1, round(8), vec![8]), Err(NoVote::Outvoted(round(9))));
    }

    #[test]
    fn votes_are_about_the_epoch_after_the_present_one_only() {
        let mut register = Register::default();
        assert_eq!(register.prepare(3, 3, round(1)), Err(NoVote::OtherEpoch));
        assert_eq!(register.prepare(3, 5, round(1)), Err(NoVote::OtherEpoch));
        assert_eq!(register.accept(3, 4, round(7), vec![1]), Ok(()));
        assert_eq!(register.prepare(4, 5, round(1)), Ok(None), "the next decree begins with nothing");
        assert_eq!(register.prepare(3, 4, round(9)), Err(NoVote::OtherEpoch), "a decree is not gone back to");
        assert_eq!(register.prepare(u64::MAX, 0, round(9)), Err(NoVote::OtherEpoch));
    }

    #[test]
    fn bytes_that_are_none_are_not_taken_for_a_register_that_promised_nothing() {
        assert_eq!(Register::decode(&[0xff; 12]), None);
        assert_eq!(Register::decode(&[]), None);
    }
}
