//! `Aside`: work that nobody waits for and that may wait for the disk, off the threads that serve clients.
//!
//! It rests beside clients, in the thread it was given. Those threads also look up what clients ask for, and there are few:
//! so no more such work is begun at a time than leaves all the others to clients.

use tokio::sync::Semaphore;

/// How much of it goes on at a time.
pub struct Aside {
    places: usize,
    free: Semaphore,
}

impl Aside {
    /// For a node with so many workers.
    pub(super) fn of(workers: usize) -> Aside {
        let places = workers + 1;
        Aside { places, free: Semaphore::new(places) }
    }

    /// How many threads it may take up, of those that a worker may wait in.
    pub fn places(&self) -> usize {
        self.places
    }

    /// Does it once there is a place for it. `None` where it broke off.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let _place = self.free.acquire().await.ok()?;
        tokio::task::spawn_blocking(work).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier};

    #[test]
    fn what_clients_ask_for_is_looked_up_while_all_places_are_taken_and_no_more_is_begun() {
        let aside = Arc::new(Aside::of(1));
        let places = aside.places();
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(places + 1).build().unwrap();
        let (begun, held) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(places + 1)));
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let mut waiting = Vec::new();
            for _ in 0..2 * places {
                let (aside, begun, held) = (aside.clone(), begun.clone(), held.clone());
                waiting.push(tokio::task::spawn_local(async move {
                    let work = move || {
                        begun.fetch_add(1, Ordering::SeqCst);
                        held.wait();
                    };
                    aside.run(work).await
                }));
            }
            while begun.load(Ordering::SeqCst) < places {
                tokio::task::yield_now().await;
            }
            assert_eq!(tokio::task::spawn_blocking(|| 5).await.ok(), Some(5));
            assert_eq!(begun.load(Ordering::SeqCst), places);
            for _ in 0..2 {
                let held = held.clone();
                tokio::task::spawn_blocking(move || held.wait()).await.unwrap();
            }
            for one in waiting {
                assert_eq!(one.await.unwrap(), Some(()));
            }
        });
    }
}
