//! How many owners must agree.

/// How many owners a request wants, before it is known how many there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Count {
    /// More than half of them.
    Majority,
    /// Just so many; the request named the number, so falling short is an error.
    Exactly(u8),
}

/// A number of owners out of those there are; never zero, never more than there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quorum {
    needed: usize,
}

impl Quorum {
    /// What `count` means among `owners` owners; `None` when there are not that many.
    pub fn of(count: Count, owners: usize) -> Option<Quorum> {
        let needed = match count {
            Count::Majority => owners / 2 + 1,
            Count::Exactly(exactly) => usize::from(exactly),
        };
        (1..=owners).contains(&needed).then_some(Quorum { needed })
    }

    /// One owner.
    pub fn one() -> Quorum {
        Quorum { needed: 1 }
    }

    /// How many.
    pub fn needed(self) -> usize {
        self.needed
    }

    /// Whether `agreed` owners are enough.
    pub fn is_reached(self, agreed: usize) -> bool {
        agreed >= self.needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_is_more_than_half() {
        let majorities: Vec<usize> =
            (1..=7).map(|owners| Quorum::of(Count::Majority, owners).unwrap().needed()).collect();
        assert_eq!(majorities, [1, 2, 2, 3, 3, 4, 4]);
    }

    #[test]
    fn no_quorum_is_empty_or_larger_than_the_owners() {
        assert_eq!(Quorum::of(Count::Exactly(0), 3), None);
        assert_eq!(Quorum::of(Count::Exactly(4), 3), None);
        assert_eq!(Quorum::of(Count::Majority, 0), None);
        assert!(Quorum::of(Count::Exactly(3), 3).unwrap().is_reached(3));
    }
}
