//! What may be typed behind `bench`.

use super::keys::{Order, Zipf};
use super::mix::Mix;
use super::pacing::{End, Loop};
use super::plan::{Plan, Span};
use super::presets::Preset;
use super::values::Sizes;
use crate::session::Session;
use kringle::placement::Mode;
use std::time::Duration;

/// Clients of a closed loop, where nobody says how many.
const CLIENTS_CLOSED: u16 = 10;
/// Clients of an open loop: enough that a pause of 100 ms at 1,000 requests a second keeps nobody waiting for one.
const CLIENTS_OPEN: u16 = 100;
/// The highest rate: a request each microsecond.
const RATE_MAX: f64 = 1_000_000.0;

/// Puts a cluster under load, measures it honestly, and checks every answer.
///
/// Values say which write made them, under a checksum; each key has one writer at a time. So an answer can be told right
/// from stale (older than what had been acknowledged before the read began, where the mode promises otherwise), foreign
/// (never written there) and torn. Only answers read to their end and found right count.
#[derive(clap::Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Exit codes: 0 all answered right; 4 an answer was wrong; 5 nothing was answered; 8 some requests failed, or a
check did not pass; 130 stopped by Ctrl-C, what was measured is shown.

Keys stay in the cluster, under --prefix. Only one bench at a time may use a prefix.

Examples:
  kringlectl bench --seconds 10 --clients 50 --mix get=90,put=10 --preload
  kringlectl bench --rate 1000 --seconds 30 --zipf 0.99 --value-size 100-4KiB
  kringlectl -o json bench --requests 100000 --mode quorum --mix put | jq .all.latency_ms
  kringlectl bench check"
)]
pub struct Bench {
    #[command(subcommand)]
    pub(super) preset: Option<Preset>,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    common: Common,
}

/// Of a run that is none of the presets.
#[derive(clap::Args, Debug)]
struct Load {
    /// Open loop: so many requests a second, due at fixed moments whatever the cluster does; latencies count from when
    /// a request was due. Without it each client asks again once it is answered
    #[arg(long, value_name = "PER SECOND", value_parser = rate)]
    rate: Option<f64>,
    /// How long it is measured [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, conflicts_with = "requests")]
    seconds: Option<Duration>,
    /// How many requests are measured
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    requests: Option<u64>,
    /// Seconds before that in which answers are checked and not measured
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds_or_none)]
    warmup: Duration,
    /// What is asked, and how often: get, put, del, incr, list, batch, with weights
    #[arg(long, value_name = "MIX", default_value = "get=50,put=50")]
    mix: Mix,
    /// Clients, each with a connection and one request under way [default: 10, with --rate 100]
    #[arg(long, value_name = "N")]
    clients: Option<u16>,
    /// Keys by Zipf's law: number n as often as 1 / n^S; 0.99 is common, more is more uneven
    #[arg(long, value_name = "S", value_parser = exponent, conflicts_with = "sequential")]
    zipf: Option<f64>,
    /// Keys one after the other, over and over; without this or --zipf each is as likely
    #[arg(long)]
    sequential: bool,
    /// How long values are: bytes, KiB or MiB, also from-to; 40 at least
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = sizes)]
    value_size: Sizes,
    /// Write every key once before
    #[arg(long)]
    preload: bool,
    /// Lines of a batch, every second a put, the others gets
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch_size: u16,
    /// Keys on the page of a list
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    page: u16,
    /// Counters that incr adds to; afterwards their sums are checked
    #[arg(long, value_name = "N", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=i64::from(super::counters::COUNTERS_MAX)))]
    counters: u16,
}

/// Of every run.
#[derive(clap::Args, Clone, Debug)]
pub struct Common {
    /// The mode that requests name; without it they name none, and are judged by the one the cluster has at the beginning
    #[arg(long, value_name = "MODE", value_parser = mode)]
    mode: Option<Mode>,
    /// How many keys there are; presets that ask for each key once go by --requests
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(super::keys::KEYS_MAX)))]
    keys: u32,
    /// What every key begins with
    #[arg(long, value_name = "TEXT", default_value = "bench/")]
    prefix: String,
    /// Threads that clients run on
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: u8,
    /// Hold no read that shows something old against the mode: for nodes whose --r or --w is below a majority
    #[arg(long)]
    allow_stale: bool,
    /// Where chance begins; the same seed brings the same keys to a client [default: another each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Say nothing while it runs
    #[arg(long, short = 'q')]
    quiet: bool,
}

impl Common {
    /// A plan for the session's cluster.
    pub fn plan(&self, session: &Session) -> Plan {
        let mut plan = Plan::new(session.remote.endpoints().to_vec(), session.timeout);
        plan.one_first = session.fastest;
        plan.mode = self.mode;
        plan.keys = self.keys;
        plan.prefix.clone_from(&self.prefix);
        plan.threads = usize::from(self.threads);
        plan.allows_stale = self.allow_stale;
        plan.seed = self.seed.unwrap_or(plan.seed);
        plan.quiet = self.quiet;
        plan
    }
}

impl Bench {
    /// What was asked for.
    pub(super) fn plan(&self, session: &Session) -> Plan {
        let mut plan = self.common.plan(session);
        let usual = if self.load.rate.is_some() { CLIENTS_OPEN } else { CLIENTS_CLOSED };
        plan.clients = self.load.clients.unwrap_or(usual);
        plan.sizes = self.load.value_size;
        plan.batch = usize::from(self.load.batch_size);
        plan.page = usize::from(self.load.page);
        plan.counters = self.load.counters;
        plan
    }

    /// The load itself.
    pub(super) fn span(&self) -> Span {
        let seconds = self.load.seconds.unwrap_or(Duration::from_secs(10));
        Span {
            name: "bench",
            mix: self.load.mix.clone(),
            order: match (self.load.zipf, self.load.sequential) {
                (Some(exponent), _) => Order::Zipf(Zipf::new(self.common.keys, exponent)),
                (None, true) => Order::Sequential(Default::default()),
                (None, false) => Order::Uniform,
            },
            form: self.load.rate.map_or(Loop::Closed, Loop::Open),
            warm_up: self.load.warmup,
            end: self.load.requests.map_or(End::After(seconds), End::Requests),
        }
    }

    /// Whether every key is to be written before.
    pub(super) fn preloads(&self) -> bool {
        self.load.preload
    }
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    match seconds_or_none(text)? {
        Duration::ZERO => Err("must be more than 0".into()),
        seconds => Ok(seconds),
    }
}

fn seconds_or_none(text: &str) -> Result<Duration, String> {
    /// A month: what is told of each second stays in memory.
    const MAX: Duration = Duration::from_secs(31 * 86_400);
    let seconds: f64 = text.parse().map_err(|_| "is no number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(span) if span <= MAX => Ok(span),
        _ => Err(format!("must be from 0 to {} seconds", MAX.as_secs())),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=RATE_MAX).contains(&rate) => Ok(rate),
        _ => Err(format!("must be a number from 0.001 to {RATE_MAX}")),
    }
}

fn exponent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(exponent) if exponent > 0.0 && exponent <= 10.0 => Ok(exponent),
        _ => Err("must be a number above 0, 10 at most".into()),
    }
}

pub(super) fn sizes(text: &str) -> Result<Sizes, String> {
    text.parse()
}

fn mode(text: &str) -> Result<Mode, String> {
    text.parse().map_err(|error: kringle::placement::NoSuchMode| error.to_string())
}
