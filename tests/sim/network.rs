//! The network between nodes: what becomes of one message. HTTP over TCP, so nothing is damaged or invented; a message
//! is late, lost with its connection, cut off, or overtaken by one sent later.

use super::options::{Options, about};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

/// Which directions are cut.
#[derive(Debug, Default)]
pub(crate) struct Network {
    cuts: BTreeSet<(usize, usize)>,
}

/// What becomes of a message.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Fate {
    /// It arrives after so many microseconds.
    Arrives(u64),
    /// It was held up on the way, then arrives.
    Jammed(u64),
    /// It never does.
    Lost,
}

impl Network {
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    /// Cuts every way between any two of the sides.
    pub(crate) fn split(&mut self, sides: &[&[usize]]) {
        for (at, side) in sides.iter().enumerate() {
            for &other in sides.iter().enumerate().filter(|(other, _)| *other != at).flat_map(|(_, side)| *side) {
                side.iter().for_each(|&one| self.cut(one, other));
            }
        }
    }

    pub(crate) fn is_cut(&self) -> bool {
        !self.cuts.is_empty()
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
    }

    pub(crate) fn fate(&self, rng: &mut ChaCha8Rng, options: &Options, quiet: bool, from: usize, to: usize) -> Fate {
        let delay = options.delay_min_us + about(rng, options.delay_mean_us);
        if self.cuts.contains(&(from, to)) || !quiet && rng.random_range(0..1_000) < options.loss_permille {
            Fate::Lost
        } else if !quiet && rng.random_range(0..1_000) < options.jam_permille {
            Fate::Jammed(delay + 1_000 * rng.random_range(1..=options.jam_ms))
        } else {
            Fate::Arrives(delay)
        }
    }
}
