//! One client: a request at a time, for as long as there are any.

use super::chance::Chance;
use super::ground::Ground;
use super::mix::Operation;
use super::outcome::{Failed, Outcome};
use super::pacing::Pace;
use super::plan::Span;
use super::tally::Tally;
use kringle::remote::{Answer, Ask, Failure, Remote};
use std::time::Instant;
use tokio::sync::watch;

/// One of the run's clients, with a connection of its own.
pub struct Client<'a> {
    /// What it shares with the others.
    pub ground: &'a Ground,
    /// What it is to do.
    pub span: &'a Span,
    /// Which of them it is, from 0.
    pub number: u16,
    /// Its choices.
    pub chance: Chance,
    remote: Remote,
    /// `?mode=…`, or nothing.
    mode: String,
}

/// There is no answer to check.
pub struct Silence {
    /// The kind.
    pub failed: Failed,
    /// The reason.
    pub why: String,
    /// Whether nothing was sent.
    pub unsent: bool,
}

impl From<Silence> for Outcome {
    fn from(silence: Silence) -> Outcome {
        Outcome::Failed(silence.failed, silence.why)
    }
}

impl<'a> Client<'a> {
    /// The client of this number. It begins with the endpoint that is its turn, and goes on with the next where that
    /// one cannot be reached.
    pub fn new(ground: &'a Ground, span: &'a Span, number: u16) -> Client<'a> {
        let plan = &ground.plan;
        let mut endpoints = plan.endpoints.clone();
        let first = if plan.one_first { 0 } else { usize::from(number) % endpoints.len() };
        endpoints.rotate_left(first);
        Client {
            ground,
            span,
            number,
            chance: Chance::seeded(plan.seed ^ u64::from(number).wrapping_mul(0xd6e8_feb8_6659_fd93)),
            remote: Remote::new(endpoints, plan.timeout),
            mode: plan.mode.map(|mode| format!("?mode={mode}")).unwrap_or_default(),
        }
    }

    /// Asks until there is nothing more to ask, or `cut` says to leave even the request under way.
    pub async fn run(mut self, pace: &Pace, mut cut: watch::Receiver<bool>) -> Tally {
        let mut tally = Tally::default();
        while let Some(start) = pace.next().await {
            let operation = self.span.mix.pick(&mut self.chance);
            let outcome = tokio::select! {
                biased;
                outcome = self.perform(operation) => Some(outcome),
                // It fails where the bench itself is gone, which comes to the same.
                _ = cut.wait_for(|cut| *cut) => None,
            };
            let is_cut = outcome.is_none();
            let outcome =
                outcome.unwrap_or_else(|| Outcome::Failed(Failed::Abandoned, "stopped while it was under way".into()));
            let took = start.at.elapsed();
            self.ground.live.count(&outcome, took);
            tally.count(operation, outcome, took, start.measured);
            if is_cut {
                break;
            }
        }
        tally
    }

    /// The number of the key that comes next.
    pub fn draw(&mut self) -> u32 {
        self.span.order.next(self.ground.plan.keys, &mut self.chance)
    }

    /// A path with the mode that requests are to name.
    pub fn path(&self, path: &str) -> String {
        format!("{path}{}", self.mode)
    }

    /// Asks, and waits for the end of the answer.
    pub async fn ask(&self, ask: &Ask) -> Result<Answer, Silence> {
        let begun = Instant::now();
        self.remote.ask(ask).await.map_err(|failure| {
            let unsent = matches!(failure, Failure::Unreachable { .. });
            let failed = match unsent {
                _ if begun.elapsed() >= self.ground.plan.timeout => Failed::TimedOut,
                true => Failed::Unreachable,
                false => Failed::Unknown,
            };
            Silence { failed, why: failure.to_string(), unsent }
        })
    }

    async fn perform(&mut self, operation: Operation) -> Outcome {
        match operation {
            Operation::Get => self.get().await,
            Operation::Put => self.put().await,
            Operation::Del => self.del().await,
            Operation::Incr => self.incr().await,
            Operation::List => self.list().await,
            Operation::Batch => self.batch().await,
        }
    }
}
