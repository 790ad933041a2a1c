//! What all clients of a run stand on, whatever thread they are on: what was written, and what was counted so far.

use super::counters::Counters;
use super::ledger::Ledger;
use super::mix::Mix;
use super::plan::Plan;
use super::progress::Live;
use super::promise::Promise;
use super::values::Values;
use crate::exit::Failed;

/// Of one run. What is kept does not grow with the number of requests.
pub struct Ground {
    /// What was to be done.
    pub plan: Plan,
    /// What reads are held to.
    pub promise: Promise,
    /// What is written.
    pub values: Values,
    /// What is known of each key.
    pub ledger: Ledger,
    /// What is known of each counter.
    pub counters: Counters,
    /// What is shown while it runs.
    pub live: Live,
}

impl Ground {
    /// For this plan, whose requests go by `promise`; refused where it cannot be done with such a mix.
    pub fn new(plan: Plan, promise: Promise, mix: &Mix) -> Result<Ground, Failed> {
        plan.check(mix)?;
        // Two runs differ, also where they are to ask the same.
        let values = Values::new(kringle::node::random() as u32, plan.sizes.max);
        Ok(Ground {
            promise: if plan.allows_stale { Promise::Eventual } else { promise },
            ledger: Ledger::new(values.run(), plan.keys),
            counters: Counters::new(plan.counters),
            live: Live::default(),
            values,
            plan,
        })
    }
}
