//! Places for what holds much memory while it is made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One of a limited number of places on this node, given back when dropped.
pub struct Seat(Arc<AtomicU64>);

impl Seat {
    /// Takes one of `most`, if there is one.
    pub fn take(taken: &Arc<AtomicU64>, most: u64) -> Option<Seat> {
        let seat = Seat(taken.clone());
        (taken.fetch_add(1, Ordering::Relaxed) < most).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_once_it_is_given_back() {
        let taken = Arc::default();
        let seats = [Seat::take(&taken, 2), Seat::take(&taken, 2)];
        assert!(seats.iter().all(Option::is_some) && Seat::take(&taken, 2).is_none());
        drop(seats);
        assert!(Seat::take(&taken, 1).is_some());
    }
}
