//! What may be typed into the console: one command a line, its words apart by blanks.

use std::fmt;

/// A command and its words, still to be looked at by whoever does it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Command {
    /// A blank line.
    Nothing,
    Status,
    Get(String),
    /// A key, and the rest of the line.
    Put(String, String),
    Update(String),
    BatchUpdate,
    Del(String),
    Incr(String, i64),
    /// The mode to take on; without one, which there is.
    Mode(Option<String>),
    Add,
    Kill(String),
    Revive(String),
    Pause(String),
    Resume(String),
    Remove(String),
    /// The nodes of the one side and those of the other.
    Cut(Vec<String>, Vec<String>),
    Heal,
    /// A key; without one, the nodes and their shares.
    Ring(Option<String>),
    /// Keys to write.
    Load(u32),
    /// Seconds to run for.
    Bench(u32),
    Help,
    Exit,
}

/// Why a line is no command. One line for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Misread {
    Unknown(String),
    Usage(&'static Row),
}

/// A row of the help.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) words: &'static str,
    pub(super) help: &'static str,
}

const fn row(name: &'static str, words: &'static str, help: &'static str) -> Row {
    Row { name, words, help }
}

/// Keys that `load` writes where nobody says how many, and most that it does.
const LOAD: (u32, u32) = (1_000, 1_000_000);

/// Seconds that `bench` takes where nobody says how many, and most that it does.
const BENCH: (u32, u32) = (5, 600);

/// All commands, in the order of the help.
pub(super) const TABLE: &[Row] = &[
    row("status", "", "the ports, and the counters that each node keeps"),
    row("get", "<key>", "the count, 0 where there is none, or the value"),
    row("put", "<key> <value>", "a value: the rest of the line"),
    row("update", "<key>", "1 more in the counter"),
    row("batchupdate", "", "1 more in each of the counters a to z"),
    row("del", "<key>", "a key is no more"),
    row("incr", "<key> [<n>]", "n more in the counter; -1 is one less"),
    row("mode", "[<mode>]", "take on sloppy, async, quorum, sync or chain; or tell"),
    row("add", "", "a node joins; its share of the keys moves first"),
    row("kill", "<node>", "kill -9 a node, by its number or its port"),
    row("revive", "<node>", "start a dead node again"),
    row("pause", "<node>", "freeze a node: it takes connections, and says nothing"),
    row("resume", "<node>", "go on with it"),
    row("remove", "<node>", "a node hands over what it keeps, and leaves"),
    row("cut", "<nodes> <nodes>", "no traffic between these, such as: cut 1,2 3,4,5"),
    row("heal", "", "end all cuts"),
    row("ring", "[<key>]", "the owners of a key; without one, every node's share"),
    row("load", "[<n>]", "write n keys, ten at a time, and read them back"),
    row("bench", "[<seconds>]", "ten clients write and read, and check what they read"),
    row("help", "", "this"),
    row("exit", "", "end all nodes, and this"),
];

impl fmt::Display for Misread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misread::Unknown(word) => {
                // However long it was, it is answered in one line.
                let shown: String = word.chars().take(30).collect();
                write!(f, "Unknown command {shown:?}: type help for the commands")
            }
            Misread::Usage(row) => write!(f, "Usage: {} {} ({})", row.name, row.words, row.help),
        }
    }
}

impl Command {
    /// Reads a line.
    pub(super) fn read(line: &str) -> Result<Command, Misread> {
        let line = line.trim();
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim_start();
        if name.is_empty() {
            return Ok(Command::Nothing);
        }
        let name = if name == "quit" { "exit" } else { name };
        let Some(row) = TABLE.iter().find(|row| row.name == name) else {
            return Err(Misread::Unknown(name.to_owned()));
        };
        let words: Vec<&str> = rest.split_whitespace().collect();
        Command::of(name, &words, rest).ok_or(Misread::Usage(row))
    }

    /// The command of a name that is in the table; `None` where its words make no sense.
    fn of(name: &str, words: &[&str], rest: &str) -> Option<Command> {
        let owned = |word: &&str| (*word).to_owned();
        let one = || if let [word] = words { Some(owned(word)) } else { None };
        let perhaps = || match words {
            [] => Some(None),
            [word] => Some(Some(owned(word))),
            _ => None,
        };
        let number = |(usual, most): (u32, u32)| match words {
            [] => Some(usual),
            [word] => word.parse().ok().filter(|number| (1..=most).contains(number)),
            _ => None,
        };
        match name {
            "get" => one().map(Command::Get),
            "put" => {
                let (key, value) = rest.split_once(char::is_whitespace)?;
                Some(Command::Put(key.to_owned(), value.trim_start().to_owned()))
            }
            "update" => one().map(Command::Update),
            "del" => one().map(Command::Del),
            "incr" => match words {
                [key] => Some(Command::Incr(owned(key), 1)),
                [key, by] => Some(Command::Incr(owned(key), by.parse().ok()?)),
                _ => None,
            },
            "mode" => perhaps().map(Command::Mode),
            "kill" => one().map(Command::Kill),
            "revive" => one().map(Command::Revive),
            "pause" => one().map(Command::Pause),
            "resume" => one().map(Command::Resume),
            "remove" => one().map(Command::Remove),
            "cut" => match words {
                [one, other] => Some(Command::Cut(side(one)?, side(other)?)),
                _ => None,
            },
            "ring" => perhaps().map(Command::Ring),
            "load" => number(LOAD).map(Command::Load),
            "bench" => number(BENCH).map(Command::Bench),
            // The rest takes no words.
            _ if !words.is_empty() => None,
            "status" => Some(Command::Status),
            "batchupdate" => Some(Command::BatchUpdate),
            "add" => Some(Command::Add),
            "heal" => Some(Command::Heal),
            "help" => Some(Command::Help),
            "exit" => Some(Command::Exit),
            _ => None,
        }
    }
}

/// Nodes apart by commas.
fn side(word: &str) -> Option<Vec<String>> {
    let nodes: Vec<String> = word.split(',').map(str::to_owned).collect();
    nodes.iter().all(|node| !node.is_empty()).then_some(nodes)
}

/// What `help` says: a line for each command, 80 columns at most.
pub(super) fn help() -> String {
    let line = |row: &Row| {
        let shown = format!("{} {}", row.name, row.words);
        format!("  {shown:<20} {}\n", row.help)
    };
    TABLE.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Command {
        Command::read(line).unwrap_or_else(|misread| panic!("{line:?}: {misread}"))
    }

    #[test]
    fn lines_are_read_whatever_blanks_are_in_them() {
        assert_eq!(read("  update \t e  \r"), Command::Update("e".into()));
        assert_eq!(read("put k two  eggs "), Command::Put("k".into(), "two  eggs".into()));
        assert_eq!(read("incr e -3"), Command::Incr("e".into(), -3));
        assert_eq!(read("incr e"), Command::Incr("e".into(), 1));
        assert_eq!(read("cut 1,8002 3"), Command::Cut(vec!["1".into(), "8002".into()], vec!["3".into()]));
        assert_eq!(read("ring"), Command::Ring(None));
        assert_eq!(read("ring a"), Command::Ring(Some("a".into())));
        assert_eq!(read("load"), Command::Load(1_000));
        assert_eq!(read("bench 2"), Command::Bench(2));
        assert_eq!((read(""), read("quit")), (Command::Nothing, Command::Exit));
    }

    #[test]
    fn what_is_no_command_is_answered_in_one_line() {
        assert!(matches!(Command::read("STATUS"), Err(Misread::Unknown(_))));
        for line in [
            "get",
            "get a b",
            "put",
            "put k",
            "incr e x",
            "incr e 1 2",
            "kill",
            "cut 1",
            "cut 1, 2",
            "load 0",
            "load x",
            "load 1000001",
            "bench -1",
            "status now",
            "exit now",
            "ring a b",
        ] {
            let misread = Command::read(line).expect_err(line);
            assert!(matches!(misread, Misread::Usage(_)), "{line}: {misread:?}");
            assert_eq!(misread.to_string().lines().count(), 1);
        }
        let long = Command::read(&"x".repeat(500)).expect_err("nonsense").to_string();
        assert!(long.chars().count() <= 80 && long.contains("help"), "{long}");
    }

    #[test]
    fn the_help_has_every_command_in_80_columns() {
        let help = help();
        for row in TABLE {
            assert!(help.lines().any(|line| line.trim_start().starts_with(row.name)), "{}", row.name);
        }
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn every_row_of_the_table_is_a_command_that_can_be_read() {
        for row in TABLE {
            let words = row.words.replace("<seconds>", "1").replace("<n>", "1").replace(['[', ']'], "");
            let line = format!("{} {words}", row.name);
            assert!(Command::read(&line).is_ok(), "{line}");
        }
    }
}
