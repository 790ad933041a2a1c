//! A run: the cluster is asked what it promises, put under one span of load or several, and counters are summed up.

use super::ground::Ground;
use super::load::{Interrupts, Measured};
use super::mix::{Mix, Operation};
use super::plan::{Plan, Span};
use super::promise::Promise;
use super::report::{self, Report, csv_header};
use super::sums::{self, Sums};
use super::{load, outcome};
use crate::arguments::Form;
use crate::exit::{Exit, Failed};
use crate::session::Session;
use kringle::placement::Mode;
use kringle::remote::{Ask, Remote};
use serde_json::Value;
use std::sync::Arc;

/// One run, as long as it lasts.
pub struct Run {
    ground: Arc<Ground>,
    interrupts: Interrupts,
    /// For what is asked once.
    remote: Remote,
    adds: bool,
}

/// One span of load, over.
pub struct Done {
    name: &'static str,
    asked: String,
    plan: Value,
    /// What it came to.
    pub measured: Measured,
    sums: Sums,
}

impl Run {
    /// Asks the cluster what it promises; `mix` is the one of all spans that writes most.
    pub async fn begin(session: &Session, plan: Plan, mix: &Mix) -> Result<Run, Failed> {
        let interrupts = Interrupts::count();
        let remote = Remote::new(plan.endpoints.clone(), plan.timeout);
        let mode = match plan.mode {
            Some(mode) => Some(mode),
            None => told_mode(&session.remote).await?,
        };
        if mode.is_none() && !plan.quiet {
            talk!("the cluster does not say its mode: old reads are not held against it; --mode names one");
        }
        let ground = Arc::new(Ground::new(plan, Promise::of(mode), mix)?);
        let adds = mix.has(Operation::Incr);
        if adds {
            sums::read_bases(&ground, &remote).await?;
        }
        Ok(Run { ground, interrupts, remote, adds })
    }

    /// Writes every key once.
    pub async fn preload(&mut self) -> Result<(), Failed> {
        let span = Span::each_key("preload", Operation::Put, self.ground.plan.keys);
        let measured = load::run(&self.ground, span, &self.interrupts).await?;
        let all = measured.tally.all();
        if let Some(example) = measured.tally.examples.first() {
            return Err(Failed::new(Exit::Conflict, format!("preload: {example}")));
        }
        if all.verified == 0 && !measured.interrupted {
            let why = measured.tally.reasons.values().next().cloned().unwrap_or_default();
            return Err(Failed::new(Exit::Unavailable, format!("preload: nothing was stored: {why}")));
        }
        for (failed, why) in measured.tally.reasons.iter().filter(|(failed, _)| **failed != outcome::Failed::Abandoned)
        {
            talk!("preload: some keys are not stored, {}: {why}", failed.name());
        }
        Ok(())
    }

    /// Puts the cluster under this load. After Ctrl-C there is none any more.
    pub async fn load(&mut self, mut span: Span) -> Result<Done, Failed> {
        let (mix, order) = (span.mix.to_string(), span.order.to_string());
        let asked = report::plan_text(&self.ground, &mix, &order, span.form);
        let told = report::plan_json(&self.ground, &mix, &order, span.form, span.warm_up, span.end);
        let name = span.name;
        if self.interrupted() {
            span.end = super::pacing::End::Requests(0);
            span.warm_up = std::time::Duration::ZERO;
        }
        let mut measured = load::run(&self.ground, span, &self.interrupts).await?;
        let mut sums = Sums::default();
        if self.adds {
            tokio::select! {
                biased;
                () = self.interrupts.pressed() => measured.interrupted = true,
                checked = sums::check(&self.ground, &self.remote) => sums = checked,
            }
        }
        Ok(Done { name, asked, plan: told, measured, sums })
    }

    /// Whether somebody pressed Ctrl-C.
    pub fn interrupted(&self) -> bool {
        self.interrupts.any()
    }
}

impl Done {
    /// As it is told.
    pub fn report(&self) -> Report<'_> {
        Report {
            name: self.name,
            asked: self.asked.clone(),
            plan: self.plan.clone(),
            measured: &self.measured,
            sums: &self.sums,
        }
    }

    /// Shows it, and how the command ends.
    pub fn show(&self, session: &Session) -> Result<Exit, Failed> {
        let report = self.report();
        match session.show.form() {
            Form::Table => session.show.bytes(report.text().as_bytes())?,
            Form::Json => session.show.json(&report.json())?,
            Form::Csv => session.show.bytes((csv_header() + &report.csv_rows()).as_bytes())?,
        }
        Ok(report.exit())
    }
}

/// The worst of them: a lie, then Ctrl-C, then silence.
pub fn exit_of(exits: impl IntoIterator<Item = Exit>) -> Exit {
    const ORDER: [Exit; 5] = [Exit::Ok, Exit::Degraded, Exit::Unavailable, Exit::Interrupted, Exit::Conflict];
    let rank = |exit: &Exit| ORDER.iter().position(|known| known == exit);
    exits.into_iter().max_by_key(rank).unwrap_or(Exit::Ok)
}

/// The cluster's mode, where a node says one.
async fn told_mode(remote: &Remote) -> Result<Option<Mode>, Failed> {
    let answer = remote.ask(&Ask::get("/config")).await?;
    let said = if answer.status.is_success() { answer.json().ok() } else { None };
    Ok(said.and_then(|said| said["mode"].as_str()?.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lie_is_worse_than_ctrl_c_and_that_than_silence() {
        assert_eq!(exit_of([]), Exit::Ok);
        assert_eq!(exit_of([Exit::Degraded, Exit::Ok]), Exit::Degraded);
        assert_eq!(exit_of([Exit::Interrupted, Exit::Unavailable, Exit::Degraded]), Exit::Interrupted);
        assert_eq!(exit_of([Exit::Conflict, Exit::Interrupted]), Exit::Conflict);
    }
}
