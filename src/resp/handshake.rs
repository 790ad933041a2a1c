//! Commands about the connection itself: what clients send when they connect, and when they leave.

use super::access::{Begun, now};
use super::arguments::{integer, is, shown};
use super::frame::Protocol;
use super::refuse;
use super::reply::Reply;
use super::session::Session;
use bytes::Bytes;
use std::rc::Rc;

/// The version of Redis whose commands these are, for programs that ask which they may send.
pub(super) const COMMANDS_OF: &str = "7.0.0";
/// Longest name of a connection, in bytes.
const NAME_BYTES_MAX: usize = 256;

pub(super) fn ping(_: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    match &words[1..] {
        [] => now(Reply::Simple("PONG")),
        [word] => now(Reply::Bulk(word.clone())),
        _ => Err(Reply::error("ERR wrong number of arguments for 'ping' command")),
    }
}

pub(super) fn echo(_: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    now(Reply::Bulk(words[1].clone()))
}

pub(super) fn quit(session: &Rc<Session>, _: &[Bytes]) -> Result<Begun, Reply> {
    session.close();
    now(Reply::OK)
}

pub(super) fn reset(session: &Rc<Session>, _: &[Bytes]) -> Result<Begun, Reply> {
    session.speak(Protocol::Two);
    session.set_mode(None);
    session.set_multi(false);
    session.client.rename("");
    now(Reply::Simple("RESET"))
}

pub(super) fn select(_: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    match integer(&words[1]) {
        Ok(0) => now(Reply::OK),
        Ok(_) => Err(Reply::error("ERR DB index is out of range")),
        Err(_) => Err(Reply::error("ERR invalid DB index")),
    }
}

pub(super) fn auth(_: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    match &words[1..] {
        [_] => Err(Reply::error(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
             configuration is correct?",
        )),
        [user, _] => authenticate(user).and_then(|()| now(Reply::OK)),
        _ => Err(refuse::syntax()),
    }
}

/// There are no users and no passwords: whoever reaches the port is the one user, as in a Redis without either.
fn authenticate(user: &[u8]) -> Result<(), Reply> {
    match user == b"default" {
        true => Ok(()),
        false => Err(Reply::error("WRONGPASS invalid username-password pair or user is disabled.")),
    }
}

/// HELLO: which version of the protocol is spoken from here on.
pub(super) fn hello(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let protocol = match words.get(1) {
        None => session.protocol(),
        Some(version) => match integer(version) {
            Ok(2) => Protocol::Two,
            Ok(3) => Protocol::Three,
            Ok(_) => return Err(Reply::error("NOPROTO unsupported protocol version")),
            Err(_) => return Err(Reply::error("ERR Protocol version is not an integer or out of range")),
        },
    };
    let (mut options, mut name) = (words.get(2..).unwrap_or_default(), None);
    loop {
        options = match options {
            [] => break,
            [option, user, _, rest @ ..] if is(option, "AUTH") => {
                authenticate(user)?;
                rest
            }
            [option, word, rest @ ..] if is(option, "SETNAME") => {
                name = Some(checked_name(word)?);
                rest
            }
            [other, ..] => return Err(Reply::Error(format!("ERR Syntax error in HELLO option '{}'", shown(other)))),
        };
    }
    session.speak(protocol);
    if let Some(name) = name {
        session.client.rename(name);
    }
    now(Reply::map([
        ("server", Reply::text("kringle")),
        ("version", Reply::text(COMMANDS_OF)),
        ("proto", Reply::Integer(protocol.number())),
        ("id", Reply::Integer(session.client.id as i64)),
        ("mode", Reply::text("standalone")),
        ("role", Reply::text("master")),
        ("modules", Reply::Array(Vec::new())),
    ]))
}

fn checked_name(word: &[u8]) -> Result<&str, Reply> {
    let text = std::str::from_utf8(word).ok().filter(|text| text.len() <= NAME_BYTES_MAX);
    text.filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))
        .ok_or_else(|| Reply::error("ERR Client names cannot contain spaces, newlines or special characters."))
}

/// CLIENT: what programs say of themselves, and ask.
pub(super) fn client(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let (sub, rest) = (shown(&words[1]).to_uppercase(), &words[2..]);
    let uptime = || session.worker.node.uptime();
    now(match (sub.as_str(), rest) {
        ("ID", []) => Reply::Integer(session.client.id as i64),
        ("GETNAME", []) => match session.client.name() {
            name if name.is_empty() => Reply::Null,
            name => Reply::text(name),
        },
        ("SETNAME", [name]) => {
            session.client.rename(checked_name(name)?);
            Reply::OK
        }
        ("SETINFO", [what, word]) if is(what, "LIB-NAME") || is(what, "LIB-VER") => {
            checked_name(word)?;
            Reply::OK
        }
        ("INFO", []) => Reply::text(session.client.line(uptime()) + "\n"),
        ("LIST", []) => Reply::text(session.clients.list(uptime())),
        // Nothing is evicted here, and reading makes nothing younger.
        ("NO-EVICT" | "NO-TOUCH", [switch]) if is(switch, "ON") || is(switch, "OFF") => Reply::OK,
        ("REPLY", [switch]) if is(switch, "ON") => Reply::OK,
        ("ID" | "GETNAME" | "SETNAME" | "SETINFO" | "INFO" | "LIST" | "NO-EVICT" | "NO-TOUCH" | "REPLY", _) => {
            return Err(refuse::syntax());
        }
        _ => return Err(super::commands::unknown_subcommand("client", &words[1])),
    })
}

/// KRINGLE.MODE: by which mode the connection's commands go from here on; without a word, by which they do.
pub(super) fn mode(session: &Rc<Session>, words: &[Bytes]) -> Result<Begun, Reply> {
    let Some(word) = words.get(1) else { return now(Reply::text(session.mode().name())) };
    let word = shown(word).to_lowercase();
    let mode = match word.as_str() {
        "default" => None,
        word => Some(word.parse().map_err(|error| Reply::Error(format!("ERR {error}; default is the cluster's own")))?),
    };
    session.set_mode(mode);
    now(Reply::OK)
}
