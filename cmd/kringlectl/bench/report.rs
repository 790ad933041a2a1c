//! What a run came to: a table for people, JSON and CSV for programs.

use super::ground::Ground;
use super::load::Measured;
use super::outcome::{Failed, Wrong};
use super::pacing::{End, Loop};
use super::sums::Sums;
use super::tally::Counted;
use crate::exit::Exit;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;

/// The percentiles that are told, with their names.
const PERCENTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// One span of load as it is told.
pub struct Report<'a> {
    /// What it is called.
    pub name: &'a str,
    /// What was asked for, in words.
    pub asked: String,
    /// The same for programs.
    pub plan: Value,
    /// What was counted.
    pub measured: &'a Measured,
    /// What counters came to.
    pub sums: &'a Sums,
}

/// `12,345`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What a run was asked to do, for programs.
pub fn plan_json(ground: &Ground, mix: &str, order: &str, form: Loop, warm_up: Duration, end: End) -> Value {
    let plan = &ground.plan;
    json!({
        "endpoints": plan.endpoints.iter().map(|endpoint| endpoint.url()).collect::<Vec<_>>(),
        "mode": plan.mode.map(|mode| mode.name()),
        "mix": mix,
        "keys": plan.keys,
        "order": order,
        "value_size": { "min": plan.sizes.min, "max": plan.sizes.max },
        "clients": plan.clients,
        "threads": plan.threads,
        "rate": match form { Loop::Open(rate) => json!(rate), Loop::Closed => Value::Null },
        "seconds": match end { End::After(span) => json!(span.as_secs_f64()), End::Requests(_) => Value::Null },
        "requests": match end { End::Requests(requests) => json!(requests), End::After(_) => Value::Null },
        "warmup_s": warm_up.as_secs_f64(),
        "seed": plan.seed,
    })
}

/// The same for people, within 80 columns.
pub fn plan_text(ground: &Ground, mix: &str, order: &str, form: Loop) -> String {
    let plan = &ground.plan;
    let pace = match form {
        Loop::Closed => "closed loop".to_owned(),
        Loop::Open(rate) => format!("open loop, {rate}/s"),
    };
    let mode = plan.mode.map_or("as the cluster's", |mode| mode.name());
    format!(
        "{pace}, {} clients on {}, mode {mode}\n{mix}\nvalues of {} bytes, {} keys, {order}\n",
        plan.clients,
        if plan.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", plan.threads) },
        plan.sizes,
        thousands(u64::from(plan.keys)),
    )
}

impl Report<'_> {
    /// Right answers a second, over what was measured.
    pub fn rate(&self, verified: u64) -> f64 {
        let seconds = self.measured.elapsed.as_secs_f64();
        if seconds > 0.0 { verified as f64 / seconds } else { 0.0 }
    }

    /// All lies.
    pub fn wrong_count(&self) -> u64 {
        self.measured.tally.all().wrong_count() + self.sums.wrong.len() as u64
    }

    /// How the command ends: a lie is worse than silence.
    pub fn exit(&self) -> Exit {
        let all = self.measured.tally.all();
        match () {
            () if self.wrong_count() > 0 => Exit::Conflict,
            () if self.measured.interrupted => Exit::Interrupted,
            () if all.verified == 0 => Exit::Unavailable,
            () if all.failed_count() > 0 => Exit::Degraded,
            () => Exit::Ok,
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let tally = &self.measured.tally;
        let all = tally.all();
        let mut text = self.asked.clone();
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let header = ["", "verified", "per s"].into_iter().map(str::to_owned);
        let header = header.chain(PERCENTILES.map(|(name, _)| name.to_owned())).chain(["failed".to_owned()]);
        table.set_header(header.map(right));
        let several = tally.operations().count() > 1;
        let rows = tally.operations().map(|(operation, counted)| (operation.name(), counted));
        for (name, counted) in rows.chain(several.then_some(("all", &all))) {
            let latencies = PERCENTILES.map(|(_, share)| counted.latency(share).map_or("-".into(), milliseconds));
            let row =
                [name.to_owned(), thousands(counted.verified), thousands(self.rate(counted.verified).round() as u64)];
            let row = row.into_iter().chain(latencies).chain([thousands(counted.failed_count())]);
            table.add_row(row.map(right));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        for line in table.lines() {
            line_of(&mut text, line.trim_end());
        }
        self.tell_rates(&mut text, &all);
        text
    }

    fn tell_rates(&self, text: &mut String, all: &Counted) {
        let seconds = self.measured.elapsed.as_secs_f64();
        let per_s = |bytes: u64| data_rate(if seconds > 0.0 { bytes as f64 / seconds } else { 0.0 });
        let (verified, issued) = (thousands(all.verified), thousands(all.issued));
        let (read, written) = (per_s(all.told.bytes_read), per_s(all.told.bytes_written));
        line_of(text, &format!("latencies in ms; {verified} of {issued} verified in {seconds:.1} s"));
        line_of(text, &format!("values: {read} read, {written} written"));
        text.push_str(&self.notes());
    }

    /// Whatever is out of the ordinary, a line each.
    pub fn notes(&self) -> String {
        let all = self.measured.tally.all();
        let mut notes = String::new();
        let text = &mut notes;
        if all.told.misses > 0 {
            line_of(text, &format!("{} reads found no value", thousands(all.told.misses)));
        }
        if all.told.old > 0 {
            line_of(text, &format!("{} reads were older than acknowledged, which is allowed", thousands(all.told.old)));
        }
        for (failed, count) in all.failed().filter(|(_, count)| *count > 0) {
            let why = self.measured.tally.reasons.get(&failed).map_or("", String::as_str);
            line_of(
                text,
                &format!("failed, {}: {}, such as: {why}", failed.name().replace('_', " "), thousands(count)),
            );
        }
        if self.sums.right > 0 {
            line_of(text, &format!("{} counters come to the right sum", self.sums.right));
        }
        for open in &self.sums.open {
            line_of(text, &format!("not known: {open}"));
        }
        for (wrong, count) in all.wrong().filter(|(_, count)| *count > 0) {
            line_of(text, &format!("WRONG, {}: {}", wrong.name(), thousands(count)));
        }
        for example in self.examples() {
            line_of(text, &format!("WRONG, {example}"));
        }
        if self.measured.interrupted {
            line_of(text, "stopped before its end");
        }
        notes
    }

    fn examples(&self) -> impl Iterator<Item = String> {
        let sums = self.sums.wrong.iter().map(|(wrong, what)| format!("{}: {what}", wrong.name()));
        self.measured.tally.examples.iter().cloned().chain(sums)
    }

    /// For programs. Fields are only ever added.
    pub fn json(&self) -> Value {
        let tally = &self.measured.tally;
        let all = tally.all();
        let operations: serde_json::Map<String, Value> = tally
            .operations()
            .map(|(operation, counted)| (operation.name().to_owned(), self.counted_json(counted)))
            .collect();
        let seconds = self.measured.seconds.iter().map(|second| {
            json!({
                "at_s": round(second.at.as_secs_f64()), "rate": round(second.rate()), "verified": second.verified,
                "failed": second.failed, "wrong": second.wrong, "slowest_ms": round(second.slowest.as_secs_f64() * 1_000.0),
            })
        });
        json!({
            "name": self.name,
            "plan": self.plan,
            "elapsed_s": round(self.measured.elapsed.as_secs_f64()),
            "interrupted": self.measured.interrupted,
            "warmup_requests": tally.unmeasured(),
            "all": self.counted_json(&all),
            "operations": operations,
            "counters": {
                "right": self.sums.right, "unknown": self.sums.open.len(), "wrong": self.sums.wrong.len(),
            },
            "reasons": tally.reasons.iter().map(|(failed, why)| (failed.name().to_owned(), json!(why))).collect::<serde_json::Map<_, _>>(),
            "wrong_examples": self.examples().collect::<Vec<_>>(),
            "seconds": seconds.collect::<Vec<_>>(),
        })
    }

    fn counted_json(&self, counted: &Counted) -> Value {
        let latency = PERCENTILES.map(|(name, share)| {
            let ms = counted.latency(share).map(|latency| round(latency.as_secs_f64() * 1_000.0));
            (name.to_owned(), json!(ms))
        });
        let by_name = |counts: Vec<(&str, u64)>| {
            let counts = counts.into_iter().map(|(name, count)| (name.to_owned(), json!(count)));
            counts.collect::<serde_json::Map<_, _>>()
        };
        json!({
            "issued": counted.issued,
            "verified": counted.verified,
            "rate": round(self.rate(counted.verified)),
            "items": counted.told.items,
            "misses": counted.told.misses,
            "old_allowed": counted.told.old,
            "bytes_read": counted.told.bytes_read,
            "bytes_written": counted.told.bytes_written,
            "failed": by_name(counted.failed().map(|(failed, count)| (failed.name(), count)).collect()),
            "wrong": by_name(counted.wrong().map(|(wrong, count)| (wrong.name(), count)).collect()),
            "latency_ms": latency.into_iter().collect::<serde_json::Map<_, _>>(),
        })
    }

    /// For spreadsheets: a row for each operation.
    pub fn csv_rows(&self) -> String {
        let mut text = String::new();
        for (operation, counted) in self.measured.tally.operations() {
            let latencies = PERCENTILES.map(|(_, share)| {
                counted
                    .latency(share)
                    .map_or(String::new(), |latency| format!("{:.3}", latency.as_secs_f64() * 1_000.0))
            });
            let counts = [counted.issued, counted.verified, counted.told.misses, counted.told.old];
            let failed = counted.failed().map(|(_, count)| count.to_string());
            let wrong = counted.wrong().map(|(_, count)| count.to_string());
            let cells = [self.name.to_owned(), operation.name().to_owned()].into_iter();
            let cells = cells.chain(counts.map(|count| count.to_string())).chain(failed).chain(wrong);
            let cells = cells.chain([format!("{:.1}", self.rate(counted.verified))]).chain(latencies);
            line_of(&mut text, &cells.collect::<Vec<_>>().join(","));
        }
        text
    }
}

/// The columns of [`Report::csv_rows`].
pub fn csv_header() -> String {
    let names = ["run", "operation", "issued", "verified", "misses", "old_allowed"].into_iter().map(str::to_owned);
    let names = names.chain(Failed::ALL.map(|failed| failed.name().to_owned()));
    let names = names.chain(Wrong::ALL.map(|wrong| format!("wrong_{}", wrong.name()))).chain(["rate".to_owned()]);
    let names = names.chain(PERCENTILES.map(|(name, _)| format!("{}_ms", name.replace('.', "_"))));
    names.collect::<Vec<_>>().join(",") + "\n"
}

fn line_of(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// `1.2 MiB/s`.
fn data_rate(bytes_per_s: f64) -> String {
    match bytes_per_s < f64::from(1 << 20) {
        true => format!("{:.1} KiB/s", bytes_per_s / 1_024.0),
        false => format!("{:.1} MiB/s", bytes_per_s / f64::from(1 << 20)),
    }
}

/// Three digits that count.
pub fn milliseconds(latency: Duration) -> String {
    let ms = latency.as_secs_f64() * 1_000.0;
    if ms < 9.995 {
        format!("{ms:.2}")
    } else if ms < 99.95 {
        format!("{ms:.1}")
    } else {
        thousands(ms.round() as u64)
    }
}

fn round(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_in_few_digits() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        let told = [7, 1_234, 12_345, 123_456, 1_234_567].map(|us| milliseconds(Duration::from_micros(us)));
        assert_eq!([512.0, 3_145_728.0].map(data_rate), ["0.5 KiB/s", "3.0 MiB/s"]);
        assert_eq!(told, ["0.01", "1.23", "12.3", "123", "1,235"]);
    }

    #[test]
    fn the_header_has_a_name_for_each_column() {
        let columns = 2 + 4 + Failed::ALL.len() + Wrong::ALL.len() + 1 + PERCENTILES.len();
        assert_eq!(csv_header().split(',').count(), columns);
    }
}
