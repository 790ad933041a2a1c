//! When requests begin.
//!
//! In a *closed* loop each client asks again as soon as it has its answer: a server that stands still is asked nothing
//! meanwhile, so the pause shows in one latency for each client. In an *open* loop requests are due at fixed moments,
//! whatever the server does. One that no client was free for begins late, and its latency counts from when it was due:
//! the pause shows in all of them. That is the correction for coordinated omission.
//!
//! ```text
//!  due      │0    │1    │2    │3    │4    │5        every 1/rate
//!  sent     │0 ░░░░░░░░░░░░░░░░│1│2│3 │4   │5       one client, the server stands still
//!  latency  ├──────────────────┤
//!                 ├──────────────┤                  of 1: from when it was due
//! ```

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Requests at a fixed rate, from the first one on.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Requests a second, above 0.
    pub rate: f64,
}

impl Schedule {
    /// When the request of this number is due, from the beginning.
    pub fn due(&self, number: u64) -> Duration {
        Duration::from_secs_f64(number as f64 / self.rate)
    }

    /// How many are due in the time before `end`.
    pub fn due_before(&self, end: Duration) -> u64 {
        let mut count = (end.as_secs_f64() * self.rate).ceil() as u64;
        // Rounding may be off by one, either way.
        while count > 0 && self.due(count - 1) >= end {
            count -= 1;
        }
        while self.due(count) < end {
            count += 1;
        }
        count
    }
}

/// How requests are paced.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Loop {
    /// Each client asks again once it is answered.
    Closed,
    /// This many requests a second.
    Open(f64),
}

/// When it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Requests that begin within this time, or are due in it, after the warm-up.
    After(Duration),
    /// This many requests, those of the warm-up not counted.
    Requests(u64),
}

/// One request, about to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// From when on its latency counts.
    pub at: Instant,
    /// Whether it is measured, or warms up.
    pub measured: bool,
}

/// The requests of one span of load, handed out to all its clients, on whatever thread.
pub struct Pace {
    begun: Instant,
    warm_until: Instant,
    end: End,
    schedule: Option<Schedule>,
    /// Open loop: how many there are in all.
    count: u64,
    /// Open loop: one for each that is due, and at the end one for each client, which finds that there are no more.
    due: Semaphore,
    taken: AtomicU64,
    stopped: AtomicBool,
}

impl Pace {
    /// Begins now.
    pub fn begin(form: Loop, warm_up: Duration, end: End) -> Pace {
        let begun = Instant::now();
        let schedule = match form {
            Loop::Closed => None,
            Loop::Open(rate) => Some(Schedule { rate }),
        };
        let count = match (schedule, end) {
            (None, _) => 0,
            (Some(schedule), End::After(span)) => schedule.due_before(warm_up + span),
            (Some(schedule), End::Requests(requests)) => schedule.due_before(warm_up) + requests,
        };
        Pace {
            begun,
            warm_until: begun + warm_up,
            end,
            schedule,
            count,
            due: Semaphore::new(0),
            taken: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    /// When the measured part begins.
    pub fn warm_until(&self) -> Instant {
        self.warm_until
    }

    /// The next request; `None` when there are no more. In an open loop it waits until one is due.
    pub async fn next(&self) -> Option<Start> {
        match self.schedule {
            None => self.next_at_once(),
            Some(schedule) => {
                // It is never closed.
                self.due.acquire().await.ok()?.forget();
                if self.is_stopped() {
                    return None;
                }
                let number = self.taken.fetch_add(1, Ordering::Relaxed);
                let at = self.begun + schedule.due(number);
                (number < self.count).then_some(Start { at, measured: at >= self.warm_until })
            }
        }
    }

    fn next_at_once(&self) -> Option<Start> {
        let at = Instant::now();
        let measured = at >= self.warm_until;
        let goes_on = match self.end {
            _ if self.is_stopped() => false,
            End::After(span) => at < self.warm_until + span,
            End::Requests(requests) => !measured || self.taken.fetch_add(1, Ordering::Relaxed) < requests,
        };
        goes_on.then_some(Start { at, measured })
    }

    /// Hands out what is due, on a thread of its own, until all is or [`stop`](Pace::stop) is called: the timers of the
    /// clients' threads go by milliseconds, a sleeping thread's by microseconds. In a closed loop there is nothing to do.
    pub fn keep(&self, clients: usize) {
        /// The longest sleep, so that a stop is noticed.
        const NAP: Duration = Duration::from_millis(50);
        let Some(schedule) = self.schedule else { return };
        let mut handed = 0;
        while handed < self.count && !self.is_stopped() {
            let now = self.begun.elapsed();
            // A moment is within the time before the next nanosecond.
            let due = schedule.due_before(now + Duration::from_nanos(1)).min(self.count);
            self.due.add_permits((due - handed) as usize);
            handed = due;
            std::thread::sleep(schedule.due(handed).saturating_sub(self.begun.elapsed()).min(NAP));
        }
        self.due.add_permits(clients);
    }

    /// No request begins any more.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether it was told to stop.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Requests that were due, now that all clients have ended, and that none was free for.
    pub fn unsent(&self) -> u64 {
        let Some(schedule) = self.schedule else { return 0 };
        let due = schedule.due_before(self.begun.elapsed()).min(self.count);
        due.saturating_sub(self.taken.load(Ordering::Relaxed))
    }

    /// When the last request begins or is due, where the clock says so.
    pub fn last(&self) -> Option<Instant> {
        match (self.schedule, self.end) {
            (_, End::After(span)) => Some(self.warm_until + span),
            (Some(schedule), End::Requests(_)) => Some(self.begun + schedule.due(self.count)),
            (None, End::Requests(_)) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn as_many_are_due_before_a_moment_as_have_an_earlier_one(rate in 0.01f64..1e6, end_us in 0u64..100_000_000) {
            let (schedule, end) = (Schedule { rate }, Duration::from_micros(end_us));
            let count = schedule.due_before(end);
            prop_assert!(count == 0 || schedule.due(count - 1) < end);
            prop_assert!(schedule.due(count) >= end);
        }

        #[test]
        fn requests_are_due_in_their_order(rate in 0.01f64..1e6, number in 0u64..1 << 40) {
            let schedule = Schedule { rate };
            prop_assert!(schedule.due(number) <= schedule.due(number + 1));
        }
    }

    #[test]
    fn a_second_has_as_many_requests_as_the_rate_says() {
        for rate in [1.0, 3.0, 150.0, 999.9, 33_333.0] {
            assert_eq!(Schedule { rate }.due_before(Duration::from_secs(1)), f64::ceil(rate) as u64, "{rate}");
        }
    }

    fn all(pace: &Pace) -> Vec<Start> {
        pace.keep(1);
        kringle::remote::block_on(async {
            let mut starts = Vec::new();
            while let Some(start) = pace.next().await {
                starts.push(start);
            }
            starts
        })
    }

    #[test]
    fn an_open_loop_hands_out_each_request_once_with_the_moment_it_was_due() {
        let pace = Pace::begin(Loop::Open(1_000.0), Duration::from_millis(10), End::Requests(20));
        let starts = all(&pace);
        assert_eq!(starts.len(), 30);
        for (number, start) in starts.iter().enumerate() {
            assert_eq!(start.at, pace.begun + Duration::from_secs_f64(number as f64 / 1_000.0), "{number}");
            assert_eq!(start.measured, number >= 10, "{number}");
        }
        assert_eq!(pace.unsent(), 0);
    }

    #[test]
    fn what_was_due_and_never_sent_is_known() {
        let pace = Pace::begin(Loop::Open(10_000.0), Duration::ZERO, End::Requests(50));
        std::thread::sleep(Duration::from_millis(10));
        pace.stop();
        assert!(all(&pace).is_empty());
        assert_eq!(pace.unsent(), 50);
    }

    #[test]
    fn a_closed_loop_ends_after_its_requests() {
        assert_eq!(all(&Pace::begin(Loop::Closed, Duration::ZERO, End::Requests(7))).len(), 7);
        assert!(all(&Pace::begin(Loop::Closed, Duration::ZERO, End::After(Duration::ZERO))).is_empty());
    }
}
