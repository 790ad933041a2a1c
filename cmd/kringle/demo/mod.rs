//! `kringle demo`: a cluster to play with, of real nodes on this machine, with a console to use it, break it and mend it.
//!
//! | file | for |
//! | --- | --- |
//! | `arguments` | what may be typed behind `kringle demo` |
//! | `cluster`, `members`, `cuts` | the nodes together: who there is, and who hears whom |
//! | `node`, `tether` | one process, and how it ends with this one |
//! | `home`, `ports` | folders and ports |
//! | `console`, `command`, `lines` | what is typed, and what comes of it |
//! | `keys`, `overview`, `load` | commands on keys, on everything, and many at once |
//! | `autoscale`, `scaler` | when a node is added or removed, and how |
//! | `script`, `register` | demonstrations that check themselves |
//! | `trouble` | why something was not done |
//!
//! Nodes are children of this process and end with it, however it ends ([`tether`]). They are asked as anybody asks
//! them, over HTTP; nothing here knows how they work.

mod arguments;
mod autoscale;
mod cluster;
mod command;
mod console;
mod cuts;
mod home;
mod keys;
mod lines;
mod load;
mod members;
mod node;
mod overview;
mod ports;
mod register;
mod scaler;
mod script;
pub(crate) mod tether;
mod trouble;

use arguments::{Arguments, NODES, NODES_MAX};
use autoscale::Bounds;
use clap::Parser;
use cluster::Cluster;
use console::{say, talk};
use home::Home;
use lines::Line;
use ports::Ports;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::Receiver;

/// What stands in the place of a subcommand.
pub(crate) const WORD: &str = "demo";

/// Interrupted.
const INTERRUPTED: u8 = 130;

/// Runs a demo to its end. `words` are those behind `kringle demo`.
pub(crate) fn run(words: impl Iterator<Item = OsString>) -> ExitCode {
    let name = OsString::from("kringle demo");
    let arguments = match Arguments::try_parse_from(std::iter::once(name).chain(words)) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Whoever closed our output does not want to read it.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if let Err(line) = arguments.check() {
        return fail(2, &line);
    }
    if let Err(error) = end_at_the_second_signal() {
        return fail(1, &format!("signals cannot be heard: {error}"));
    }
    kringle::remote::block_on(play(arguments))
}

async fn play(arguments: Arguments) -> ExitCode {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return fail(1, &format!("signals cannot be heard: {error}")),
    };
    let home = match Home::make(arguments.data.as_deref()) {
        Ok(home) => home,
        Err(error) => return fail(1, &format!("there is no folder to keep data in: {error}")),
    };
    let mut lines = if arguments.script.is_none() { Some(lines::of_stdin()) } else { None };
    let flags = arguments.flags(home.cluster());
    let cluster = Cluster::new(home, Ports::from(arguments.base_port), flags);
    let ended = tokio::select! {
        ended = perform(&arguments, &cluster, &mut lines) => ended,
        code = signals.any() => ExitCode::from(code),
    };
    cluster.stop().await;
    ended
}

/// The demo itself, until it is at its end.
async fn perform(arguments: &Arguments, cluster: &Cluster, lines: &mut Option<Receiver<Line>>) -> ExitCode {
    let numbers = match numbers(arguments, cluster, lines).await {
        Ok(numbers) => numbers,
        Err(line) => return fail(2, &line),
    };
    talk(&format!("Starting {}...", counted(numbers.len())));
    if let Err(trouble) = cluster.start(&numbers).await {
        return fail(1, &trouble.to_string());
    }
    if introduce(arguments, cluster).is_err() {
        return ExitCode::SUCCESS;
    }
    if let Some(script) = arguments.script {
        return match script::run(script, cluster, arguments.mode).await {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        };
    }
    let Some(lines) = lines else { return ExitCode::SUCCESS };
    let bounds = Bounds {
        nodes_min: arguments.nodes.map_or(cluster.seen().len(), |nodes| nodes as usize),
        nodes_max: arguments.max_nodes as usize,
        cooldown: arguments.scale_cooldown,
    };
    // Whoever has closed the output wants no more: that is an end like any other.
    tokio::select! {
        _ = console::run(cluster, lines) => {}
        () = scaler::run(cluster, bounds, arguments.scale_check), if arguments.autoscale => {}
    }
    ExitCode::SUCCESS
}

/// The nodes to start. Those that have a folder are started, and as many more as were asked for. The error is a line for
/// people.
async fn numbers(
    arguments: &Arguments,
    cluster: &Cluster,
    lines: &mut Option<Receiver<Line>>,
) -> Result<Vec<u32>, String> {
    let folder = cluster.home().folder().display().to_string();
    let mut numbers = cluster.home().nodes().map_err(|error| format!("{folder} cannot be read: {error}"))?;
    let there = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
    let most = if arguments.autoscale { arguments.max_nodes } else { NODES_MAX };
    let usual = NODES.min(most);
    let wanted = match (arguments.nodes, lines) {
        // With the autoscaler it is the least, and there may be more already.
        (Some(count), _) if arguments.autoscale => count.max(there),
        (Some(count), _) => count,
        (None, _) if there > 0 => there,
        (None, Some(lines)) if std::io::stdin().is_terminal() => console::ask_count(lines, usual, most).await,
        (None, _) => usual,
    };
    if there > most {
        return Err(format!(
            "{folder} has {there} nodes, more than --max-nodes {most}: raise it, or name another folder"
        ));
    }
    if let Some(line) = arguments.check_count(wanted) {
        return Err(line);
    }
    if there > wanted {
        return Err(format!(
            "{folder} has {there} nodes, and with --nodes {wanted} some would be missing: leave it out, or name \
             another folder"
        ));
    }
    let next = numbers.last().map_or(1, |last| last + 1);
    numbers.extend(next..next + (wanted - there));
    Ok(numbers)
}

/// Who there is, and where.
fn introduce(arguments: &Arguments, cluster: &Cluster) -> std::io::Result<()> {
    let seen = cluster.seen();
    let kept = if cluster.home().is_temporary() { ", removed at the end" } else { "" };
    say(&format!("{} in {}{kept}", counted(seen.len()), cluster.home().folder().display()))?;
    for node in seen {
        let pid = node.pid.map_or("?".to_owned(), |pid| pid.to_string());
        let who = format!("  node {}  {}  pid {pid}", node.number, node.url.url());
        let log = format!("  log {}", node.log.display());
        let is_narrow = who.chars().count() + log.chars().count() <= overview::COLUMNS;
        say(&format!("{who}{}{log}", if is_narrow { "" } else { "\n  " }))?;
    }
    if arguments.script.is_none() && std::io::stdin().is_terminal() {
        talk("Type help for the commands, exit to end.");
    }
    Ok(())
}

fn counted(nodes: usize) -> String {
    if nodes == 1 { "1 node".into() } else { format!("{nodes} nodes") }
}

fn fail(code: u8, line: &str) -> ExitCode {
    talk(&format!("kringle demo: {line}"));
    ExitCode::from(code)
}

/// The first signal ends the demo in order; a second one ends it at once, on a thread of its own, for the main one may wait
/// for nodes to stop, or for somebody to read what it writes. The nodes end with it; a temporary folder is removed by the
/// next demo.
fn end_at_the_second_signal() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::listen()?
    };
    let wait = move || {
        runtime.block_on(async {
            signals.any().await;
            let code = signals.any().await;
            std::process::exit(i32::from(code));
        })
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map(drop)
}

/// What ends a demo from outside.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one of them: the exit code it asks for.
    async fn any(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => INTERRUPTED,
            _ = self.terminate.recv() => 0,
            _ = self.hangup.recv() => 0,
        }
    }
}
