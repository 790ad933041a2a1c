//! What is seen while it runs, on standard error: a line each second, and on a terminal a bar below them.

use super::outcome::Outcome;
use super::pacing::End;
use super::plan::Span;
use super::report::thousands;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Counted by all clients, looked at each second.
#[derive(Default)]
pub struct Live {
    verified: AtomicU64,
    wrong: AtomicU64,
    failed: AtomicU64,
    slowest_us: AtomicU64,
}

impl Live {
    /// One more request.
    pub fn count(&self, outcome: &Outcome, took: Duration) {
        match outcome {
            Outcome::Verified(_) => self.verified.fetch_add(1, Ordering::Relaxed),
            Outcome::Wrong(..) => self.wrong.fetch_add(1, Ordering::Relaxed),
            Outcome::Failed(..) => self.failed.fetch_add(1, Ordering::Relaxed),
        };
        self.slowest_us.fetch_max(took.as_micros() as u64, Ordering::Relaxed);
    }

    /// Whether nothing was counted since it was last taken.
    fn is_quiet(&self) -> bool {
        [&self.verified, &self.wrong, &self.failed].iter().all(|count| count.load(Ordering::Relaxed) == 0)
    }

    /// What was counted since this was last asked.
    fn take(&self) -> [u64; 4] {
        [&self.verified, &self.wrong, &self.failed, &self.slowest_us].map(|count| count.swap(0, Ordering::Relaxed))
    }
}

/// One second of a span.
#[derive(Clone, Copy, Debug)]
pub struct Second {
    /// How far into the span it ended.
    pub at: Duration,
    /// How long it was.
    pub length: Duration,
    /// Right answers.
    pub verified: u64,
    /// Lies.
    pub wrong: u64,
    /// Requests without an answer to check.
    pub failed: u64,
    /// The longest any of them took.
    pub slowest: Duration,
}

/// One span's.
pub struct Progress {
    name: &'static str,
    begun: Instant,
    seen: Instant,
    quiet: bool,
    end: End,
    done: u64,
    bar: ProgressBar,
    /// All seconds so far.
    pub seconds: Vec<Second>,
}

impl Progress {
    /// Begins now.
    pub fn begin(span: &Span, live: &Live, quiet: bool) -> Progress {
        live.take();
        let length = match span.end {
            End::After(time) => (span.warm_up + time).as_millis() as u64,
            End::Requests(requests) => requests,
        };
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(length), target);
        // It is a constant, and fits a terminal of 80 columns.
        if let Ok(style) = ProgressStyle::with_template("{prefix:>10} [{bar:30}] {percent:>3}% {elapsed} {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(span.name);
        let begun = Instant::now();
        Progress { name: span.name, begun, seen: begun, quiet, end: span.end, done: 0, bar, seconds: Vec::new() }
    }

    /// Looks at what was counted since the last time.
    pub fn look(&mut self, live: &Live) {
        let now = Instant::now();
        let [verified, wrong, failed, slowest_us] = live.take();
        let second = Second {
            at: now - self.begun,
            length: now - self.seen,
            verified,
            wrong,
            failed,
            slowest: Duration::from_micros(slowest_us),
        };
        self.seen = now;
        self.done += verified + wrong + failed;
        self.bar.set_position(match self.end {
            End::After(_) => second.at.as_millis() as u64,
            End::Requests(_) => self.done,
        });
        let line = format!("{:>5.1} s  {}", second.at.as_secs_f64(), second.told());
        if self.bar.is_hidden() {
            if !self.quiet {
                talk!("{:>10} {line}", self.name);
            }
        } else {
            self.bar.println(format!("{:>10} {line}", self.name));
        }
        self.seconds.push(second);
    }

    /// Looks at the rest, if there is any, and takes the bar away.
    pub fn end(mut self, live: &Live) -> Vec<Second> {
        if !live.is_quiet() {
            self.look(live);
        }
        self.bar.finish_and_clear();
        self.seconds
    }
}

impl Second {
    /// Right answers a second.
    pub fn rate(&self) -> f64 {
        self.verified as f64 / self.length.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn told(&self) -> String {
        let slowest_ms = self.slowest.as_secs_f64() * 1_000.0;
        let mut line = format!("{:>9}/s  slowest {slowest_ms:>8.1} ms", thousands(self.rate().round() as u64));
        for (count, name) in [(self.failed, "failed"), (self.wrong, "WRONG")] {
            if count > 0 {
                line += &format!("  {name} {}", thousands(count));
            }
        }
        line
    }
}
