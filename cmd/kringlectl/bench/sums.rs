//! What counters stand at before a run, and whether they come to the right sum after it.

use super::counters::{self, Sum};
use super::ground::Ground;
use super::outcome::Wrong;
use super::promise::Promise;
use super::single::counter_value;
use crate::exit::{Exit, Failed};
use kringle::remote::{Ask, Remote, segment};
use std::time::{Duration, Instant};

/// How long a sum that is not promised at once may take to come right, in limits of one request: with the usual ones, longer
/// than two comparisons between nodes.
const SETTLING_TIMEOUTS: u32 = 3;
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What the counters of a run came to.
#[derive(Default, Debug)]
pub struct Sums {
    /// Counters whose sum is right.
    pub right: u64,
    /// Counters that lack increments, or have some that nobody made.
    pub wrong: Vec<(Wrong, String)>,
    /// Counters that could not be read, or whose increments have not all arrived and need not have.
    pub open: Vec<String>,
}

/// Reads where every counter stands.
pub async fn read_bases(ground: &Ground, remote: &Remote) -> Result<(), Failed> {
    for number in 0..ground.counters.count() {
        let key = counters::key(&ground.plan.prefix, number);
        let answer = remote.ask(&ask(ground, &key)).await?.successful()?;
        let base = counter_value(&answer).ok_or_else(|| {
            Failed::new(Exit::Conflict, format!("{key} is no counter, says {}", answer.from)).hint("another --prefix")
        })?;
        ground.counters.set_base(number, base);
    }
    Ok(())
}

/// Reads where every counter that was added to stands, and waits for those that may be late.
pub async fn check(ground: &Ground, remote: &Remote) -> Sums {
    let mut sums = Sums::default();
    let deadline = Instant::now() + ground.plan.timeout.saturating_mul(SETTLING_TIMEOUTS);
    for number in (0..ground.counters.count()).filter(|number| ground.counters.is_used(*number)) {
        let key = counters::key(&ground.plan.prefix, number);
        loop {
            let (value, short) = match remote.ask(&ask(ground, &key)).await.and_then(|answer| answer.successful()) {
                Ok(answer) => (counter_value(&answer), answer.header("kringle-replicas").is_some()),
                Err(failure) => {
                    sums.open.push(format!("{key}: {failure}"));
                    break;
                }
            };
            let Some(value) = value else {
                sums.wrong.push((Wrong::Garbled, format!("{key}: no number")));
                break;
            };
            let promised = match ground.promise {
                Promise::Agreed => true,
                Promise::Majority => !short && ground.counters.is_firm(number),
                Promise::Eventual => false,
            };
            match ground.counters.sum(number, value) {
                Sum::Right => sums.right += 1,
                Sum::Extra(count) => {
                    let what =
                        format!("{key}: {count} increments more than were asked for; does anybody else add to it?");
                    sums.wrong.push((Wrong::Foreign, what));
                }
                Sum::Lost(count) if promised => {
                    sums.wrong.push((Wrong::Lost, format!("{key}: {count} acknowledged increments are missing")));
                }
                Sum::Lost(_) if Instant::now() < deadline => {
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                }
                Sum::Lost(count) => sums.open.push(format!("{key}: {count} increments have not arrived")),
            }
            break;
        }
    }
    sums
}

fn ask(ground: &Ground, key: &str) -> Ask {
    let mode = ground.plan.mode.map(|mode| format!("?mode={mode}")).unwrap_or_default();
    Ask::get(format!("/counters/{}{mode}", segment(key.as_bytes())))
}
