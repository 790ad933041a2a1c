//! The one table of commands.

use super::access::Begun;
use super::arguments::shown;
use super::reply::Reply;
use super::session::Session;
use super::{cluster, counters, expiry, handshake, keys, manual, scan, server, strings, transactions};
use bytes::Bytes;
use std::rc::Rc;

type Run = fn(&Rc<Session>, &[Bytes]) -> Result<Begun, Reply>;

/// A row of the table.
pub(super) struct Command {
    /// In lower case.
    pub(super) name: &'static str,
    /// How many words it has, its name included; at least so many, where it is negative.
    pub(super) arity: i64,
    pub(super) effect: Effect,
    pub(super) keys: Keys,
    pub(super) group: &'static str,
    pub(super) summary: &'static str,
    run: Run,
}

/// What a command does to keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// It is about the connection or the node.
    None,
    Reads,
    Writes,
    /// It looks at keys that it does not name: what was sent before must be done.
    ReadsAll,
    /// It changes how answers are written: those to what was sent before must be out.
    Switches,
}

/// Which of its words are keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Keys {
    None,
    One,
    /// All behind the name.
    All,
    /// Every other one behind the name.
    Pairs,
}

impl Keys {
    /// The first word that is one, the last, counted from behind where negative, and how far they are apart.
    pub(super) fn places(self) -> (i64, i64, i64) {
        match self {
            Keys::None => (0, 0, 0),
            Keys::One => (1, 1, 1),
            Keys::All => (1, -1, 1),
            Keys::Pairs => (1, -1, 2),
        }
    }

    /// The keys among these words.
    pub(super) fn of(self, words: &[Bytes]) -> impl Iterator<Item = &Bytes> {
        let (end, step) = match self {
            Keys::None => (1, 1),
            Keys::One => (2, 1),
            Keys::All => (words.len(), 1),
            Keys::Pairs => (words.len(), 2),
        };
        words.iter().take(end).skip(1).step_by(step)
    }
}

const fn row(
    name: &'static str,
    arity: i64,
    effect: Effect,
    keys: Keys,
    group: &'static str,
    summary: &'static str,
    run: Run,
) -> Command {
    Command { name, arity, effect, keys, group, summary, run }
}

use Effect::{Reads, ReadsAll, Writes};
use Keys::{All, One, Pairs};

const CONNECTION: &str = "connection";
const GENERIC: &str = "generic";
const SERVER: &str = "server";
const STRING: &str = "string";
const TRANSACTIONS: &str = "transactions";

/// All commands, by name.
#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    row("append", 3, Writes, One, STRING, "Adds to the end of a value; needs mode quorum", strings::append),
    row("auth", -2, Effect::None, Keys::None, CONNECTION, "Takes the one user there is, default", handshake::auth),
    row("client", -2, Effect::None, Keys::None, CONNECTION, "Names this connection, and tells who is connected", handshake::client),
    row("command", -1, Effect::None, Keys::None, SERVER, "Tells what commands there are", manual::command),
    row("config", -2, Effect::None, Keys::None, SERVER, "Tells what some settings come to", server::config),
    row("dbsize", 1, ReadsAll, Keys::None, SERVER, "How many keys the cluster has", cluster::dbsize),
    row("decr", 2, Writes, One, STRING, "Takes 1 from an integer", counters::decr),
    row("decrby", 3, Writes, One, STRING, "Takes from an integer", counters::decrby),
    row("del", -2, Writes, All, GENERIC, "Deletes keys", keys::del),
    row("discard", 1, Effect::None, Keys::None, TRANSACTIONS, "Ends what MULTI has begun", transactions::discard),
    row("echo", 2, Effect::None, Keys::None, CONNECTION, "Says the same", handshake::echo),
    row("exec", 1, Effect::None, Keys::None, TRANSACTIONS, "Ends what MULTI has begun, of which nothing was done", transactions::exec),
    row("exists", -2, Reads, All, GENERIC, "How many of these keys have a value", keys::exists),
    row("expire", -3, Writes, One, GENERIC, "Ends a value in so many seconds", expiry::expire),
    row("expireat", -3, Writes, One, GENERIC, "Ends a value so many seconds after 1970", expiry::expireat),
    row("expiretime", 2, Reads, One, GENERIC, "When a value ends, in seconds since 1970", expiry::expiretime),
    row("files", 1, ReadsAll, Keys::None, SERVER, "How many keys each node has", cluster::files),
    row("get", 2, Reads, One, STRING, "The value of a key", strings::get),
    row("getdel", 2, Writes, One, STRING, "The value of a key, which is deleted; needs mode quorum", strings::getdel),
    row("getex", -2, Writes, One, STRING, "The value of a key, and perhaps another end for it", expiry::getex),
    row("getrange", 4, Reads, One, STRING, "A part of a value", strings::getrange),
    row("getset", 3, Writes, One, STRING, "Sets a key, and tells its former value; needs mode quorum", strings::getset),
    row("hello", -1, Effect::Switches, Keys::None, CONNECTION, "Chooses the version of the protocol", handshake::hello),
    row("incr", 2, Writes, One, STRING, "Adds 1 to an integer", counters::incr),
    row("incrby", 3, Writes, One, STRING, "Adds to an integer", counters::incrby),
    row("info", -1, Effect::None, Keys::None, SERVER, "Tells how this node is", server::info),
    row("keys", 2, ReadsAll, Keys::None, GENERIC, "All keys that a pattern means", scan::keys),
    row("kringle.context", 2, Reads, One, GENERIC, "The context of a key, as Kringle-Context has it", cluster::context),
    row("kringle.locate", 2, Effect::None, One, GENERIC, "Which nodes own a key", cluster::locate),
    row("kringle.mode", -1, Effect::None, Keys::None, CONNECTION, "By which mode this connection goes", handshake::mode),
    row("kringle.siblings", 2, Reads, One, GENERIC, "All concurrent values of a key, the winner first", cluster::siblings),
    row("mget", -2, Reads, All, STRING, "The values of keys", strings::mget),
    row("mset", -3, Writes, Pairs, STRING, "Sets keys, each by itself", strings::mset),
    row("multi", 1, Effect::None, Keys::None, TRANSACTIONS, "Is refused, with all up to EXEC or DISCARD", transactions::multi),
    row("nodes", 1, Effect::None, Keys::None, SERVER, "A line for each node, with its state", cluster::nodes),
    row("persist", 2, Writes, One, GENERIC, "Lets a value stay", expiry::persist),
    row("pexpire", -3, Writes, One, GENERIC, "Ends a value in so many milliseconds", expiry::pexpire),
    row("pexpireat", -3, Writes, One, GENERIC, "Ends a value so many milliseconds after 1970", expiry::pexpireat),
    row("pexpiretime", 2, Reads, One, GENERIC, "When a value ends, in milliseconds since 1970", expiry::pexpiretime),
    row("ping", -1, Effect::None, Keys::None, CONNECTION, "Whether the node answers", handshake::ping),
    row("psetex", 4, Writes, One, STRING, "Sets a key for so many milliseconds", strings::psetex),
    row("pttl", 2, Reads, One, GENERIC, "In how many milliseconds a value ends", expiry::pttl),
    row("quit", -1, Effect::None, Keys::None, CONNECTION, "Ends the connection", handshake::quit),
    row("randomkey", 1, ReadsAll, Keys::None, GENERIC, "Some key", scan::randomkey),
    row("reset", 1, Effect::Switches, Keys::None, CONNECTION, "Makes the connection like a new one", handshake::reset),
    row("scan", -2, ReadsAll, Keys::None, GENERIC, "Keys, a part at a time", scan::scan),
    row("select", 2, Effect::None, Keys::None, CONNECTION, "Takes the one database there is, 0", handshake::select),
    row("set", -3, Writes, One, STRING, "Sets a key", strings::set),
    row("setex", 4, Writes, One, STRING, "Sets a key for so many seconds", strings::setex),
    row("setnx", 3, Writes, One, STRING, "Sets a key that has no value; needs mode quorum", strings::setnx),
    row("strlen", 2, Reads, One, STRING, "How long a value is", strings::strlen),
    row("ttl", 2, Reads, One, GENERIC, "In how many seconds a value ends", expiry::ttl),
    row("type", 2, Reads, One, GENERIC, "What a key has: string or none", keys::kind),
    row("unlink", -2, Writes, All, GENERIC, "Deletes keys", keys::del),
];

/// The command of this name, in capitals or not.
pub(super) fn find(name: &[u8]) -> Option<&'static Command> {
    let mut lower = [0; 24];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let at = COMMANDS.binary_search_by(|command| command.name.as_bytes().cmp(lower)).ok()?;
    COMMANDS.get(at)
}

impl Command {
    /// Begins it, with as many words as it takes.
    pub(super) fn begin(&self, session: &Rc<Session>, words: &[Bytes]) -> Begun {
        let count = words.len() as i64;
        let fits = if self.arity < 0 { count >= -self.arity } else { count == self.arity };
        if !fits {
            let name = self.name;
            return Begun::Now(Reply::Error(format!("ERR wrong number of arguments for '{name}' command")));
        }
        (self.run)(session, words).unwrap_or_else(Begun::Now)
    }
}

/// Longest part of a word that an error repeats, in bytes, and of all of them.
const SHOWN_MAX: usize = 128;

pub(super) fn unknown(words: &[Bytes]) -> Reply {
    let cut = |word: &Bytes| shown(&word[..word.len().min(SHOWN_MAX)]);
    let mut arguments = String::new();
    for word in &words[1..] {
        if arguments.len() >= SHOWN_MAX {
            break;
        }
        arguments.push_str(&format!("'{}' ", cut(word)));
    }
    let name = cut(&words[0]);
    Reply::Error(format!("ERR unknown command '{name}', with args beginning with: {arguments}"))
}

pub(super) fn unknown_subcommand(command: &str, word: &Bytes) -> Reply {
    let word = shown(&word[..word.len().min(SHOWN_MAX)]);
    Reply::Error(format!("ERR unknown subcommand '{word}'. Try COMMAND DOCS {command}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_command_is_found_in_it() {
        assert!(COMMANDS.is_sorted_by(|one, other| one.name < other.name));
        for command in COMMANDS {
            let name = command.name.to_uppercase();
            assert_eq!(find(name.as_bytes()).map(|found| found.name), Some(command.name));
        }
        for name in ["", "ge", "gett", "a name that is longer than any command's"] {
            assert!(find(name.as_bytes()).is_none(), "{name}");
        }
    }

    #[test]
    fn the_keys_of_a_command_are_those_of_its_words_that_the_table_says() {
        let words: Vec<Bytes> = ["c", "1", "2", "3", "4"].map(Bytes::from).into();
        let keys = |keys: Keys| keys.of(&words).map(|key| key[0] as char).collect::<String>();
        assert_eq!([Keys::None, One, All, Pairs].map(keys), ["", "1", "1234", "13"]);
    }
}
