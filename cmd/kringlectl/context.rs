//! Clusters by name, in a file of the user's: `kringle/contexts.json` below `$XDG_CONFIG_HOME`, or `~/.config`.
//!
//! ```json
//! {"current": "home", "contexts": {"home": {"endpoints": ["http://node1:8001", "http://node2:8001"]}}}
//! ```
//!
//! It is replaced as a whole by a rename, so a reader sees the old or the new one. Names nobody knows are refused.

use crate::exit::{Exit, Failed};
use kringle::config::PeerUrl;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Clusters by name, and which of them is meant where nobody says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Contexts {
    /// One of the names below.
    pub current: Option<String>,
    /// Endpoints by name; at least one each.
    pub clusters: BTreeMap<String, Vec<PeerUrl>>,
}

/// A folder of the user's: what this variable says, else `~` and this path.
pub fn folder(variable: &str, below_home: &str) -> Option<PathBuf> {
    let said = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    said.or_else(|| Some(home()?.join(below_home))).map(|folder| folder.join("kringle"))
}

impl Contexts {
    /// Where the file is.
    pub fn path() -> Result<PathBuf, Failed> {
        let folder = folder("XDG_CONFIG_HOME", ".config");
        let folder = folder.ok_or_else(|| Failed::usage("neither XDG_CONFIG_HOME nor HOME says where contexts are"))?;
        Ok(folder.join("contexts.json"))
    }

    /// What the file says; nothing where there is none.
    pub fn load() -> Result<Contexts, Failed> {
        let Ok(path) = Contexts::path() else { return Ok(Contexts::default()) };
        match std::fs::read_to_string(&path) {
            Ok(text) => Contexts::read(&text).map_err(|why| {
                let hint = "correct it, or remove it and begin anew with kringlectl context add";
                Failed::usage(format!("{}: {why}", path.display())).hint(hint)
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Contexts::default()),
            Err(error) => Err(Failed::new(Exit::Unexpected, format!("{}: {error}", path.display()))),
        }
    }

    /// Reads the text of a file.
    pub fn read(text: &str) -> Result<Contexts, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let fields = fields(&value, "the file", &["current", "contexts"])?;
        let mut contexts = Contexts::default();
        for (name, cluster) in object(fields.get("contexts").unwrap_or(&json!({})), "contexts")? {
            let known = self::fields(cluster, name, &["endpoints"])?;
            let urls = known.get("endpoints").and_then(Value::as_array).filter(|urls| !urls.is_empty());
            let urls = urls.ok_or_else(|| format!("{name} has no endpoints"))?.iter();
            let urls = urls.map(|url| {
                let text = url.as_str().ok_or_else(|| format!("{name}: {url} is no URL"))?;
                text.parse::<PeerUrl>().map_err(|nonsense| format!("{name}: {nonsense}"))
            });
            contexts.clusters.insert(name.clone(), urls.collect::<Result<_, _>>()?);
        }
        match fields.get("current") {
            None | Some(Value::Null) => {}
            Some(Value::String(name)) if contexts.clusters.contains_key(name) => contexts.current = Some(name.clone()),
            Some(other) => return Err(format!("current is {other}, which is none of its contexts")),
        }
        Ok(contexts)
    }

    /// The same as a file has it.
    pub fn text(&self) -> String {
        let clusters = self.clusters.iter().map(|(name, urls)| {
            (name.clone(), json!({ "endpoints": urls.iter().map(PeerUrl::url).collect::<Vec<_>>() }))
        });
        let clusters: Map<String, Value> = clusters.collect();
        let value = json!({ "current": self.current, "contexts": clusters });
        format!("{value:#}\n")
    }

    /// Puts it in the place of the file.
    pub fn save(&self) -> Result<(), Failed> {
        let path = Contexts::path()?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let failed = |error: std::io::Error| Failed::new(Exit::Unexpected, format!("{}: {error}", path.display()));
        std::fs::create_dir_all(folder).map_err(failed)?;
        let new = folder.join(format!("contexts.json.{}", std::process::id()));
        let written = std::fs::File::create(&new).and_then(|mut file| {
            file.write_all(self.text().as_bytes())?;
            file.sync_all()
        });
        written.and_then(|()| std::fs::rename(&new, &path)).map_err(|error| {
            let _ = std::fs::remove_file(&new);
            failed(error)
        })
    }

    /// The endpoints of one.
    pub fn cluster(&self, name: &str) -> Result<&Vec<PeerUrl>, Failed> {
        self.clusters.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.clusters.keys().map(String::as_str).collect();
            let hint = match names.as_slice() {
                [] => "there are none yet: kringlectl context add NAME URL...".into(),
                names => format!("there are {}", names.join(", ")),
            };
            Failed::usage(format!("no context is called {name}")).hint(hint)
        })
    }
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, String> {
    value.as_object().ok_or_else(|| format!("{what} is no object"))
}

/// The fields of an object that has no others than these.
fn fields<'a>(value: &'a Value, what: &str, known: &[&str]) -> Result<&'a Map<String, Value>, String> {
    let fields = object(value, what)?;
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => Err(format!("{what} has {unknown:?}, which nobody knows; known: {}", known.join(", "))),
        None => Ok(fields),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let text =
            r#"{"current":"b","contexts":{"a":{"endpoints":["http://n1:8001","n2"]},"b":{"endpoints":["n3:1"]}}}"#;
        let contexts = Contexts::read(text).unwrap();
        assert_eq!(contexts.clusters["a"][1].url(), "http://n2:8001");
        assert_eq!(Contexts::read(&contexts.text()).unwrap(), contexts);
        assert_eq!(Contexts::read("{}").unwrap(), Contexts::default());
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let cases = [
            (r#"{"curent":"a"}"#, "curent"),
            (r#"{"contexts":{"a":{"endpoint":["n1"]}}}"#, "endpoint"),
            (r#"{"contexts":{"a":{"endpoints":[]}}}"#, "a has no endpoints"),
            (r#"{"contexts":{"a":{"endpoints":["http://u:p@h"]}}}"#, "names a user"),
            (r#"{"current":"b","contexts":{}}"#, "\"b\""),
            ("[]", "no object"),
            ("{", "EOF"),
        ];
        for (text, named) in cases {
            let why = Contexts::read(text).unwrap_err();
            assert!(why.contains(named), "{text}: {why}");
        }
    }
}
