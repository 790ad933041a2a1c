//! What Tab offers: verbs and options by the definition of what may be typed, keys and nodes by asking the cluster.

use super::words::{quoted, split};
use crate::arguments;
use crate::survey::members_of;
use clap::{Arg, Command};
use kringle::config::PeerUrl;
use kringle::remote::{Ask, Remote, block_on, query};
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The longest that Tab may ask for.
const ASK_MAX: Duration = Duration::from_secs(1);
/// Keys offered at most.
const KEYS_MAX: u32 = 100;

/// The endpoints by now, shared with whoever runs the verbs.
pub type Endpoints = Arc<Mutex<Vec<PeerUrl>>>;

/// Offers words.
pub struct Offers {
    definition: Command,
    endpoints: Endpoints,
}

/// What may stand where the cursor is.
#[derive(PartialEq, Eq, Debug)]
enum Wanted {
    Words(Vec<String>),
    Keys,
    Nodes,
}

impl Offers {
    /// Of the cluster at these endpoints.
    pub fn of(endpoints: Endpoints) -> Offers {
        let mut definition = arguments::inside();
        definition.build();
        Offers { definition, endpoints }
    }

    /// What may stand behind these words, the last of which has begun.
    fn wanted(&self, words: &[String]) -> Wanted {
        let Some((last, before)) = words.split_last() else { return Wanted::Words(vec![]) };
        let mut command = &self.definition;
        let mut rest = before;
        while let Some((first, behind)) = rest.split_first()
            && let Some(verb) = command.find_subcommand(first)
        {
            (command, rest) = (verb, behind);
        }
        if let Some(option) = rest.last().and_then(|word| option(command, word)).filter(|option| takes_value(option)) {
            return Wanted::Words(values(option));
        }
        if last.starts_with('-') {
            let options = command.get_arguments().filter(|arg| !arg.is_hide_set());
            return Wanted::Words(options.filter_map(Arg::get_long).map(|long| format!("--{long}")).collect());
        }
        if command.has_subcommands() {
            let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
            let mut verbs: Vec<String> = verbs.map(|verb| verb.get_name().to_owned()).collect();
            if command.get_name() == self.definition.get_name() {
                verbs.push("exit".into());
            }
            return Wanted::Words(verbs);
        }
        let mut is_value = false;
        let typed = rest.iter().filter(|word| {
            let option = option(command, word);
            let is_counted = !is_value && option.is_none() && !word.starts_with("--");
            is_value = option.is_some_and(takes_value);
            is_counted
        });
        let index = typed.count();
        let mut positionals = command.get_positionals();
        let Some(positional) = positionals.nth(index) else { return Wanted::Words(vec![]) };
        match positional.get_id().as_str() {
            "key" | "prefix" => Wanted::Keys,
            "node" | "dead" | "with" | "a" | "b" => Wanted::Nodes,
            _ => Wanted::Words(values(positional)),
        }
    }

    fn ask(&self, path: &str) -> Option<Value> {
        let endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // This thread is the editor's: the one that runs verbs waits for it meanwhile.
        block_on(async {
            Remote::new(endpoints, ASK_MAX).ask(&Ask::get(path)).await.ok()?.successful().ok()?.json().ok()
        })
    }

    /// The words that go on as `begun` does.
    fn offers(&self, words: &[String], begun: &str) -> Vec<String> {
        let words = match self.wanted(words) {
            Wanted::Words(words) => words,
            Wanted::Keys => {
                let limit = KEYS_MAX.to_string();
                let parameters = [("prefix", begun.as_bytes()), ("limit", limit.as_bytes())];
                let page = self.ask(&query("/kv", parameters)).unwrap_or_default();
                let keys = page["keys"].as_array().into_iter().flatten();
                keys.filter_map(|key| key["key"].as_str().map(str::to_owned)).collect()
            }
            Wanted::Nodes => {
                let cluster = self.ask("/cluster").unwrap_or_default();
                members_of(&cluster).iter().map(|url| url.url().to_owned()).collect()
            }
        };
        words.into_iter().filter(|word| word.starts_with(begun)).collect()
    }
}

/// The option that is written so.
fn option<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| match (word.strip_prefix("--"), word.strip_prefix('-')) {
        (Some(long), _) => arg.get_long() == Some(long),
        (None, Some(short)) => arg.get_short().is_some_and(|known| short.chars().eq([known])),
        (None, None) => false,
    })
}

fn takes_value(option: &Arg) -> bool {
    option.get_action().takes_values()
}

fn values(arg: &Arg) -> Vec<String> {
    arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect()
}

impl Completer for Offers {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = &line[..at];
        let (mut words, open) = split(before);
        // Behind a blank a new word begins.
        let (start, begun) = match words.pop() {
            Some(word) if open.is_some() || !before.ends_with(char::is_whitespace) => (word.at, word.text),
            Some(word) => {
                words.push(word);
                (at, String::new())
            }
            None => (at, String::new()),
        };
        let mut texts: Vec<String> = words.into_iter().map(|word| word.text).collect();
        texts.push(begun.clone());
        let offers = self.offers(&texts, &begun);
        Ok((start, offers.into_iter().map(|word| Pair { replacement: quoted(&word), display: word }).collect()))
    }
}

impl Hinter for Offers {
    type Hint = String;
}

impl Highlighter for Offers {}

impl Validator for Offers {}

impl Helper for Offers {}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(line: &str) -> Wanted {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Offers::of(Endpoints::default()).wanted(&words)
    }

    #[test]
    fn what_is_offered_fits_the_place() {
        let Wanted::Words(verbs) = wanted("ge") else { panic!("verbs") };
        assert!(["get", "status", "sync", "exit"].iter().all(|verb| verbs.contains(&(*verb).to_owned())), "{verbs:?}");
        assert_eq!(wanted("get k"), Wanted::Keys);
        assert_eq!(wanted("get --mode quorum k"), Wanted::Keys);
        assert_eq!(wanted("put k v"), Wanted::Words(vec![]));
        assert_eq!(wanted("leave "), Wanted::Nodes);
        assert_eq!(wanted("get k --mode q"), wanted("mode "));
        assert!(matches!(wanted("mode "), Wanted::Words(modes) if modes.contains(&"quorum".to_owned())));
        assert!(matches!(wanted("sync "), Wanted::Words(verbs) if verbs.contains(&"diff".to_owned())));
        assert!(matches!(wanted("put --t"), Wanted::Words(options) if options.contains(&"--ttl".to_owned())));
    }
}
