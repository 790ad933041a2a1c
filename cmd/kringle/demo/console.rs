//! The console: a command a line, an answer to each on standard output, until it is told to exit or the input ends.

use super::cluster::{Cluster, Seen};
use super::command::{self, Command};
use super::lines::Line;
use super::trouble::Trouble;
use super::{keys, load, overview};
use std::io::{self, IsTerminal, Write};
use tokio::sync::mpsc::Receiver;

/// Reads and does commands. An error is one of standard output: whoever has closed it wants no more.
pub(super) async fn run(cluster: &Cluster, lines: &mut Receiver<Line>) -> io::Result<()> {
    loop {
        prompt();
        let answer = match lines.recv().await {
            None => break,
            Some(Err(why)) => why.to_owned(),
            Some(Ok(line)) => match Command::read(&line) {
                Err(misread) => misread.to_string(),
                Ok(Command::Nothing) => continue,
                Ok(Command::Exit) => break,
                Ok(command) => done(cluster, command).await.unwrap_or_else(|trouble| trouble.to_string()),
            },
        };
        say(&answer)?;
    }
    say("Exiting...")
}

/// Asks how many nodes there shall be, until it is told a number that makes sense: `usual` at a blank line or the end.
pub(super) async fn ask_count(lines: &mut Receiver<Line>, usual: u32, most: u32) -> u32 {
    loop {
        ask(&format!("How many nodes? [{usual}] "));
        let Some(Ok(line)) = lines.recv().await else { return usual };
        match line.trim() {
            "" => return usual,
            word => match word.parse() {
                Ok(count) if (1..=most).contains(&count) => return count,
                _ => talk(&format!("A number from 1 to {most}, please.")),
            },
        }
    }
}

/// A line of the answer, or several.
pub(super) fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// What is no answer goes to standard error, a line of it; nobody has to read it.
pub(super) fn talk(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The same, with what is typed behind it.
fn ask(text: &str) {
    let _ = write!(io::stderr(), "{text}");
}

/// Where somebody types, they are told that it is their turn.
fn prompt() {
    if io::stdin().is_terminal() {
        ask("> ");
    }
}

async fn done(cluster: &Cluster, command: Command) -> Result<String, Trouble> {
    match command {
        Command::Status => Ok(overview::status(cluster).await),
        Command::Get(key) => keys::get(cluster, &key).await,
        Command::Put(key, value) => keys::put(cluster, &key, value).await,
        Command::Update(key) => keys::update(cluster, &key).await,
        Command::BatchUpdate => keys::batch_update(cluster).await,
        Command::Del(key) => keys::del(cluster, &key).await,
        Command::Incr(key, by) => keys::incr(cluster, &key, by).await,
        Command::Mode(wanted) => keys::mode(cluster, wanted).await,
        Command::Add => {
            let node = cluster.add().await?;
            Ok(format!("Node {} ({}) added, log {}", node.number, node.port, node.log.display()))
        }
        Command::Kill(word) => {
            let node = cluster.called(&word)?;
            cluster.kill(&node)?;
            Ok(told(&node, "killed"))
        }
        Command::Revive(word) => {
            let node = cluster.called(&word)?;
            cluster.revive(&node).await?;
            Ok(told(&node, "revived"))
        }
        Command::Pause(word) => {
            let node = cluster.called(&word)?;
            cluster.pause(&node)?;
            Ok(told(&node, "paused"))
        }
        Command::Resume(word) => {
            let node = cluster.called(&word)?;
            cluster.resume(&node).await?;
            Ok(told(&node, "resumed"))
        }
        Command::Remove(word) => {
            let node = cluster.called(&word)?;
            cluster.remove(&node).await?;
            Ok(told(&node, "removed"))
        }
        Command::Cut(one, other) => {
            let side = |words: Vec<String>| words.iter().map(|word| cluster.called(word)).collect();
            let (one, other): (Result<Vec<Seen>, _>, Result<Vec<Seen>, _>) = (side(one), side(other));
            cluster.cut(&one?, &other?).await?;
            Ok(format!("Cut: {}", cluster.cuts_told()))
        }
        Command::Heal => cluster.heal().await.map(|()| "Healed".to_owned()),
        Command::Ring(Some(key)) => keys::owners(cluster, &key).await,
        Command::Ring(None) => overview::shares(cluster).await,
        Command::Load(count) => load::load(cluster, count).await,
        Command::Bench(seconds) => load::bench(cluster, seconds).await,
        Command::Help => Ok(command::help().trim_end().to_owned()),
        Command::Nothing | Command::Exit => Ok(String::new()),
    }
}

fn told(node: &Seen, what: &str) -> String {
    format!("Node {} ({}) {what}", node.number, node.port)
}
