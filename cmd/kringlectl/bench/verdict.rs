//! `bench check`: a fixed load, and bars that a cluster passes or fails, each with its reason. The idea is `etcdctl check
//! perf`'s, and so is the bar for the slowest answer.

use super::tally::Tally;
use std::time::Duration;

/// How much is asked of the cluster.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// 150 requests a second by 10 clients
    S,
    /// 1,000 requests a second by 50 clients
    M,
    /// 5,000 requests a second by 200 clients
    L,
}

impl Size {
    /// Its word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Size::S => "s",
            Size::M => "m",
            Size::L => "l",
        }
    }

    /// Requests a second.
    pub fn rate(self) -> f64 {
        match self {
            Size::S => 150.0,
            Size::M => 1_000.0,
            Size::L => 5_000.0,
        }
    }

    /// Clients that wait at the same time, at most: enough that each may wait 40 ms for its answer.
    pub fn clients(self) -> u16 {
        match self {
            Size::S => 10,
            Size::M => 50,
            Size::L => 200,
        }
    }
}

/// The share of the rate that has to be answered right.
const SHARE_MIN: f64 = 0.9;
/// The latency that 99 of 100 answers do not exceed.
const P99_MAX: Duration = Duration::from_millis(100);
/// The latency that no answer exceeds.
const SLOWEST_MAX: Duration = Duration::from_millis(500);

/// One bar.
#[derive(Clone, PartialEq, Debug)]
pub struct Bar {
    /// What is held to it.
    pub what: &'static str,
    /// Whether it is passed.
    pub passed: bool,
    /// What was measured.
    pub measured: String,
    /// What is asked for.
    pub wanted: String,
    /// Why, or what it hints at where it is failed.
    pub reason: &'static str,
}

/// Holds what was counted in `elapsed` to all bars.
pub fn judge(tally: &Tally, elapsed: Duration, rate_wanted: f64) -> Vec<Bar> {
    let all = tally.all();
    let rate = all.verified as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    let (p99, slowest) = (all.latency(0.99), all.latency(1.0));
    let within = |latency: Option<Duration>, max: Duration| latency.is_some_and(|latency| latency <= max);
    let told = |latency: Option<Duration>| {
        latency.map_or("no answer".into(), |latency| format!("{:.1} ms", latency.as_secs_f64() * 1_000.0))
    };
    vec![
        Bar {
            what: "right answers",
            passed: all.wrong_count() == 0 && all.verified > 0,
            measured: format!("{} wrong of {}", all.wrong_count(), all.issued),
            wanted: "none wrong".into(),
            reason: "where answers are wrong, nothing below matters",
        },
        Bar {
            what: "no failures",
            passed: all.failed_count() == 0 && all.verified > 0,
            measured: format!("{} of {} failed", all.failed_count(), all.issued),
            wanted: "none".into(),
            reason: "nodes that live answer everything; kringlectl status shows which does not",
        },
        Bar {
            what: "throughput",
            passed: rate >= rate_wanted * SHARE_MIN,
            measured: format!("{rate:.0}/s"),
            wanted: format!("{:.0}/s at least", rate_wanted * SHARE_MIN),
            reason: "with less, requests wait longer and longer: more nodes, or faster disks",
        },
        Bar {
            what: "p99",
            passed: within(p99, P99_MAX),
            measured: told(p99),
            wanted: format!("{} ms at most", P99_MAX.as_millis()),
            reason: "a sync of a slow disk takes 10 ms, on two nodes; more than that is a queue",
        },
        Bar {
            what: "slowest",
            passed: within(slowest, SLOWEST_MAX),
            measured: told(slowest),
            wanted: format!("{} ms at most", SLOWEST_MAX.as_millis()),
            reason: "a disk or a machine that stands still longer looks like a dead node",
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::super::mix::Operation;
    use super::super::outcome::{Failed, Outcome, Verified, Wrong};
    use super::*;

    /// A minute of `rate`, all answered in `ms`, then what else is to be counted.
    fn passed(rate: u64, ms: u64, others: &[(Outcome, u64)]) -> Vec<bool> {
        let mut tally = Tally::default();
        let mut count = |outcome: Outcome, ms| tally.count(Operation::Get, outcome, Duration::from_millis(ms), true);
        (0..rate * 60).for_each(|_| count(Outcome::Verified(Verified::default()), ms));
        others.iter().for_each(|(outcome, ms)| count(outcome.clone(), *ms));
        judge(&tally, Duration::from_secs(60), 150.0).iter().map(|bar| bar.passed).collect()
    }

    #[test]
    fn a_cluster_passes_where_everything_is_above_the_bars() {
        assert_eq!(passed(150, 5, &[]), [true; 5]);
        assert_eq!(passed(135, 99, &[]), [true; 5]);
    }

    #[test]
    fn each_bar_is_failed_by_itself() {
        let lie = (Outcome::Wrong(Wrong::Torn, "it".into()), 1);
        let silence = (Outcome::Failed(Failed::Refused, "it".into()), 1);
        let slow = (Outcome::Verified(Verified::default()), 501);
        assert_eq!(passed(150, 5, &[lie]), [false, true, true, true, true]);
        assert_eq!(passed(150, 5, &[silence]), [true, false, true, true, true]);
        assert_eq!(passed(134, 5, &[]), [true, true, false, true, true]);
        assert_eq!(passed(150, 101, &[]), [true, true, true, false, true]);
        assert_eq!(passed(150, 5, &[slow]), [true, true, true, true, false]);
    }

    #[test]
    fn silence_passes_no_bar() {
        assert_eq!(passed(0, 0, &[]), [false; 5]);
    }
}
