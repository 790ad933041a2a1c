//! COMMAND: what commands there are, for programs that find out before they send.

use super::access::{Begun, now};
use super::arguments::{is, shown};
use super::commands::{COMMANDS, Command, Effect, find, unknown_subcommand};
use super::refuse;
use super::reply::Reply;
use super::session::Session;
use bytes::Bytes;
use std::rc::Rc;

pub(super) fn command(_: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let Some(sub) = words.get(1) else { return now(Reply::Array(COMMANDS.iter().map(described).collect())) };
    let named = || words[2..].iter().map(|name| find(name));
    now(match shown(sub).to_uppercase().as_str() {
        "COUNT" => Reply::count(COMMANDS.len()),
        "LIST" if words.len() == 2 => Reply::texts(COMMANDS.iter().map(|command| command.name)),
        "LIST" => return Err(refuse::syntax()),
        "INFO" if words.len() == 2 => Reply::Array(COMMANDS.iter().map(described).collect()),
        "INFO" => Reply::Array(named().map(|found| found.map_or(Reply::Null, described)).collect()),
        "DOCS" if words.len() == 2 => Reply::Map(COMMANDS.iter().map(explained).collect()),
        "DOCS" => Reply::Map(named().flatten().map(explained).collect()),
        "GETKEYS" => Reply::Array(keys(&words[2..])?),
        _ => return Err(unknown_subcommand("command", sub)),
    })
}

fn keys(words: &[Bytes]) -> Result<Vec<Reply>, Reply> {
    let command = words.first().and_then(|name| find(name)).filter(|command| !is(command.name.as_bytes(), "command"));
    let command = command.ok_or_else(|| Reply::error("ERR Invalid command specified"))?;
    match command.keys.of(words).map(|key| Reply::Bulk(key.clone())).collect::<Vec<_>>() {
        keys if keys.is_empty() => Err(Reply::error("ERR The command has no key arguments")),
        keys => Ok(keys),
    }
}

/// A row as Redis describes it: name, words, flags, where its keys are, and three lists that are empty here.
fn described(command: &Command) -> Reply {
    let flags: &[&'static str] = match command.effect {
        Effect::None | Effect::Switches => &["fast", "loading", "stale"],
        Effect::Reads => &["readonly"],
        Effect::Writes => &["write", "denyoom"],
        Effect::ReadsAll => &["readonly"],
    };
    let (first, last, step) = command.keys.places();
    Reply::Array(vec![
        Reply::text(command.name),
        Reply::Integer(command.arity),
        Reply::Array(flags.iter().map(|flag| Reply::Simple(flag)).collect()),
        Reply::Integer(first),
        Reply::Integer(last),
        Reply::Integer(step),
        Reply::Array(Vec::new()),
        Reply::Array(Vec::new()),
        Reply::Array(Vec::new()),
        Reply::Array(Vec::new()),
    ])
}

fn explained(command: &Command) -> (Reply, Reply) {
    let said = Reply::map([
        ("summary", Reply::text(command.summary)),
        ("since", Reply::text("1.0.0")),
        ("group", Reply::text(command.group)),
    ]);
    (Reply::text(command.name), said)
}
