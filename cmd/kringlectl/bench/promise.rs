//! What a mode promises of reads, and so what is a lie in it.

use kringle::placement::Mode;

/// How new a read has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Promise {
    /// `quorum`, `sync`, `chain`: as new as whatever was acknowledged before it began.
    Agreed,
    /// `sloppy`: the same, of writes that a majority took (no `202`) and reads that a majority answered (no
    /// `Kringle-Replicas`), as long as there are no siblings.
    Majority,
    /// `async`, or a mode that is not known: it may be old.
    Eventual,
}

impl Promise {
    /// Of this mode.
    pub fn of(mode: Option<Mode>) -> Promise {
        match mode {
            Some(Mode::Quorum | Mode::Sync | Mode::Chain) => Promise::Agreed,
            Some(Mode::Sloppy) => Promise::Majority,
            Some(Mode::Async) | None => Promise::Eventual,
        }
    }

    /// Whether a read has to be new: `short` where fewer owners answered than its mode asks, with so many values side by
    /// side.
    pub fn is_fresh(self, short: bool, siblings: u64) -> bool {
        match self {
            Promise::Agreed => true,
            Promise::Majority => !short && siblings <= 1,
            Promise::Eventual => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_promises_nothing_of_what_fewer_answered() {
        let promises = Mode::ALL.map(|mode| {
            let promise = Promise::of(Some(mode));
            (promise.is_fresh(false, 1), promise.is_fresh(true, 1), promise.is_fresh(false, 2))
        });
        let (all, none) = ((true, true, true), (false, false, false));
        assert_eq!(promises, [(true, false, false), none, all, all, all]);
        assert!(!Promise::of(None).is_fresh(false, 1));
    }
}
