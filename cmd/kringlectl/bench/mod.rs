//! `kringlectl bench`: load, measured honestly and checked.
//!
//! ```text
//!   options, presets ──► run ──► load ──► client ──► single, several     on each thread
//!                         │        │         │
//!                         │     pacing     ledger, counters, values      shared by all
//!                         ▼        ▼
//!                      report ◄─ tally
//! ```
//!
//! | file | for |
//! | --- | --- |
//! | `options` | what may be typed |
//! | `presets`, `verdict` | runs under names; bars that a cluster passes or fails |
//! | `plan` | what is to be done |
//! | `mix`, `keys`, `values`, `chance` | what is asked, of which keys, with which values |
//! | `pacing` | when requests begin, and from when their latency counts |
//! | `ground` | what clients share |
//! | `ledger`, `counters`, `promise` | what is known of keys and counters, and so what is a lie |
//! | `run`, `load`, `client` | a run, its spans, one of its clients |
//! | `single`, `several`, `sums` | requests, and how their answers are checked |
//! | `outcome`, `tally` | what became of a request; of all |
//! | `progress`, `report` | what is seen while it runs, and afterwards |
//!
//! Invariants: every request has one outcome; only an answer that was read to its end and found right has a latency;
//! memory does not grow with the number of requests.

mod chance;
mod client;
mod counters;
mod ground;
mod keys;
mod ledger;
mod load;
mod mix;
mod options;
mod outcome;
mod pacing;
mod plan;
mod presets;
mod progress;
mod promise;
mod report;
mod run;
mod several;
mod single;
mod sums;
mod tally;
mod values;
mod verdict;

pub use options::Bench;

use crate::exit::{Exit, Failed};
use crate::session::Session;
use run::Run;

impl Bench {
    /// Runs it, and shows what it came to. With `--fastest` all clients begin with the endpoint that answers first, otherwise
    /// they are dealt to all in turn.
    pub async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        if let Some(preset) = &self.preset {
            return preset.run(session).await;
        }
        let span = self.span();
        let mut run = Run::begin(session, self.plan(session), &span.mix).await?;
        if self.preloads() {
            run.preload().await?;
        }
        run.load(span).await?.show(session)
    }
}
