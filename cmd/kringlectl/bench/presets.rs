//! Runs that are made often, under names: `latency`, `throughput`, `dynamo`, and `check`.

use super::keys::Order;
use super::mix::{Mix, Operation};
use super::options::{Common, seconds, sizes};
use super::pacing::{End, Loop};
use super::plan::Span;
use super::report::{Report, csv_header, milliseconds, thousands};
use super::run::{Run, exit_of};
use super::values::Sizes;
use super::verdict::{self, Size};
use crate::arguments::Form;
use crate::exit::{Exit, Failed};
use crate::session::Session;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::json;
use std::time::Duration;

/// How long a set-up load warms up.
const WARM_UP: Duration = Duration::from_secs(1);

/// The presets.
#[derive(clap::Subcommand, Debug)]
pub enum Preset {
    /// A verdict: a fixed load of half gets, half puts, and bars that the cluster passes or fails
    #[command(after_help = "\
Examples:
  kringlectl bench check
  kringlectl bench check --load m --mode quorum
  kringlectl -o json bench check --seconds 60 | jq .verdict")]
    Check(Check),
    /// How long a SET and a GET take, one at a time, for each size of value
    #[command(after_help = "\
Examples:
  kringlectl bench latency
  kringlectl bench latency --value-size 64,1KiB,64KiB --requests 500
  kringlectl -o csv bench latency > latency.csv")]
    Latency(Latency),
    /// How many requests a second, half gets, half puts, as fast as clients are answered
    #[command(after_help = "\
Examples:
  kringlectl bench throughput --clients 10 --seconds 10
  kringlectl bench throughput --clients 100 --threads 2 --mode async")]
    Throughput(Throughput),
    /// So many puts in parallel, then a get of each: all have to be there
    #[command(after_help = "\
Examples:
  kringlectl bench dynamo --parallel 10 --requests 1000
  kringlectl -e n1:8001,n2:8001,n3:8001 bench dynamo --mode sync")]
    Dynamo(Dynamo),
}

/// `bench check`.
#[derive(clap::Args, Debug)]
pub struct Check {
    /// How much is asked of the cluster
    #[arg(long, value_name = "SIZE", default_value = "s")]
    load: Size,
    /// How long it is measured, after a second of warm-up
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    seconds: Duration,
    #[command(flatten)]
    common: Common,
}

/// `bench latency`.
#[derive(clap::Args, Debug)]
pub struct Latency {
    /// Sizes of values, a comma list: bytes, KiB or MiB, 40 at least
    #[arg(long, value_name = "BYTES", default_value = "64,1KiB,16KiB", value_delimiter = ',', value_parser = sizes)]
    value_size: Vec<Sizes>,
    /// SETs, and GETs, of each size
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=9_999_999))]
    requests: u32,
    #[command(flatten)]
    common: Common,
}

/// `bench throughput`.
#[derive(clap::Args, Debug)]
pub struct Throughput {
    /// Clients, each with one request under way
    #[arg(long, value_name = "N", default_value_t = 10)]
    clients: u16,
    /// How long it is measured, after a second of warm-up
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// How long values are: bytes, KiB or MiB, also from-to; 40 at least
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = sizes)]
    value_size: Sizes,
    #[command(flatten)]
    common: Common,
}

/// `bench dynamo`.
#[derive(clap::Args, Debug)]
pub struct Dynamo {
    /// Requests under way at the same time
    #[arg(long, value_name = "N", default_value_t = 10)]
    parallel: u16,
    /// Puts, and gets
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=9_999_999))]
    requests: u32,
    /// How long values are: bytes, KiB or MiB, also from-to; 40 at least
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = sizes)]
    value_size: Sizes,
    #[command(flatten)]
    common: Common,
}

impl Preset {
    /// Runs it, and shows what it came to.
    pub async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        match self {
            Preset::Check(check) => check.run(session).await,
            Preset::Latency(latency) => latency.run(session).await,
            Preset::Throughput(throughput) => throughput.run(session).await,
            Preset::Dynamo(dynamo) => dynamo.run(session).await,
        }
    }
}

fn half_and_half() -> Mix {
    // As `the_mix_of_presets_is_one` shows.
    "get=50,put=50".parse().unwrap_or_else(|_| Mix::only(Operation::Get))
}

impl Check {
    async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        let mut plan = self.common.plan(session);
        plan.clients = self.load.clients();
        let (mix, rate) = (half_and_half(), self.load.rate());
        let mut run = Run::begin(session, plan, &mix).await?;
        run.preload().await?;
        let span = Span {
            name: "check",
            mix,
            order: Order::Uniform,
            form: Loop::Open(rate),
            warm_up: WARM_UP,
            end: End::After(self.seconds),
        };
        let done = run.load(span).await?;
        let report = done.report();
        let bars = verdict::judge(&done.measured.tally, done.measured.elapsed, rate);
        let passed = bars.iter().all(|bar| bar.passed);
        let verdict = if passed { "PASS" } else { "FAIL" };
        match session.show.form() {
            Form::Table => {
                let mut text = report.text();
                for bar in &bars {
                    let word = if bar.passed { "PASS" } else { "FAIL" };
                    text += &format!("{word}  {}: {}; wanted: {}\n", bar.what, bar.measured, bar.wanted);
                    if !bar.passed {
                        text += &format!("      {}\n", bar.reason);
                    }
                }
                session.show.bytes(format!("{text}{verdict}\n").as_bytes())?;
            }
            Form::Json => {
                let bars = bars.iter().map(|bar| {
                    json!({
                        "what": bar.what, "passed": bar.passed, "measured": bar.measured, "wanted": bar.wanted,
                        "reason": bar.reason,
                    })
                });
                let bars: Vec<_> = bars.collect();
                let load = self.load.name();
                session.show.json(&json!({ "load": load, "verdict": verdict, "bars": bars, "run": report.json() }))?;
            }
            Form::Csv => {
                let rows =
                    bars.iter().map(|bar| format!("{},{},{},{}\n", bar.what, bar.passed, bar.measured, bar.wanted));
                session.show.bytes(format!("what,passed,measured,wanted\n{}", rows.collect::<String>()).as_bytes())?;
            }
        }
        Ok(match report.exit() {
            Exit::Ok if !passed => Exit::Degraded,
            exit => exit,
        })
    }
}

impl Latency {
    async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        let mut exits = Vec::new();
        let mut reports = Vec::new();
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let header = ["bytes", "SET p50", "p99", "max", "GET p50", "p99", "max", "verified", "failed"];
        table.set_header(header.map(|name| right(name.into())));
        let mut csv = csv_header();
        let mut notes = String::new();
        for sizes in &self.value_size {
            let mut plan = self.common.plan(session);
            (plan.clients, plan.threads) = (1, 1);
            (plan.sizes, plan.keys) = (*sizes, self.requests);
            let mut run = Run::begin(session, plan, &half_and_half()).await?;
            let set = run.load(Span::each_key("set", Operation::Put, self.requests)).await?;
            let get = run.load(Span::each_key("get", Operation::Get, self.requests)).await?;
            let both = [&set, &get].map(|done| done.measured.tally.all());
            let times = both.iter().flat_map(|counted| {
                [0.5, 0.99, 1.0].map(|share| counted.latency(share).map_or("-".into(), milliseconds))
            });
            let verified = both.iter().map(|counted| counted.verified).sum();
            let failed = both.iter().map(|counted| counted.failed_count()).sum();
            let row = [sizes.to_string()].into_iter().chain(times).chain([thousands(verified), thousands(failed)]);
            table.add_row(row.map(right));
            for (name, done) in [("set", &set), ("get", &get)] {
                let name = format!("{name}-{sizes}");
                let mut report = done.report();
                report.name = &name;
                csv += &report.csv_rows();
                notes += &report.notes();
                reports.push(report.json());
                exits.push(report.exit());
            }
            if run.interrupted() {
                break;
            }
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let lines: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        match session.show.form() {
            Form::Table => session.show.bytes(format!("{lines}latencies in ms\n{notes}").as_bytes())?,
            Form::Json => session.show.json(&json!({ "runs": reports }))?,
            Form::Csv => session.show.bytes(csv.as_bytes())?,
        }
        Ok(exit_of(exits))
    }
}

impl Throughput {
    async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        let mut plan = self.common.plan(session);
        (plan.clients, plan.sizes) = (self.clients, self.value_size);
        let mix = half_and_half();
        let mut run = Run::begin(session, plan, &mix).await?;
        run.preload().await?;
        let span = Span {
            name: "throughput",
            mix,
            order: Order::Uniform,
            form: Loop::Closed,
            warm_up: WARM_UP,
            end: End::After(self.seconds),
        };
        let done = run.load(span).await?;
        done.show(session)
    }
}

impl Dynamo {
    async fn run(&self, session: &Session) -> Result<Exit, Failed> {
        let mut plan = self.common.plan(session);
        (plan.clients, plan.sizes, plan.keys) = (self.parallel, self.value_size, self.requests);
        let mut run = Run::begin(session, plan, &half_and_half()).await?;
        let puts = run.load(Span::each_key("puts", Operation::Put, self.requests)).await?;
        let gets = run.load(Span::each_key("gets", Operation::Get, self.requests)).await?;
        let mut reports = [puts.report(), gets.report()];
        reports[1].asked.clear();
        match session.show.form() {
            Form::Table => session.show.bytes(reports.iter().map(Report::text).collect::<String>().as_bytes())?,
            Form::Json => session.show.json(&json!({ "runs": reports.each_ref().map(Report::json) }))?,
            Form::Csv => {
                let rows: String = reports.iter().map(Report::csv_rows).collect();
                session.show.bytes((csv_header() + &rows).as_bytes())?;
            }
        }
        Ok(exit_of(reports.iter().map(Report::exit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_of_presets_is_one() {
        assert!(half_and_half().has(Operation::Get) && half_and_half().has(Operation::Put));
        assert_eq!(half_and_half().to_string(), "get=50,put=50");
    }
}
