//! `context`: clusters by name.

use crate::arguments::Form;
use crate::context::Contexts;
use crate::exit::{Exit, Failed};
use crate::show::{Column, Show, Table, Unit, counted};
use kringle::config::PeerUrl;
use serde_json::{Value, json};

/// Clusters by name, in kringle/contexts.json below $XDG_CONFIG_HOME or ~/.config
#[derive(clap::Subcommand, Debug)]
#[command(after_help = "\
Examples:
  kringlectl context add home node1 node2 node3
  kringlectl context use home
  kringlectl --context home status")]
pub enum Context {
    /// Shows all of them
    #[command(after_help = "Examples:\n  kringlectl context list\n  kringlectl context list -o json")]
    List,
    /// Adds one, or gives it other endpoints
    #[command(after_help = "Examples:\n  kringlectl context add home node1 node2:8002\n  \
                            kringlectl context add ops http://10.0.0.1:8001 --use")]
    Add {
        /// What it is called
        name: String,
        /// Its nodes, some or all
        #[arg(required = true, value_name = "URL", value_delimiter = ',')]
        urls: Vec<PeerUrl>,
        /// Makes it the current one
        #[arg(long = "use")]
        is_current: bool,
    },
    /// Makes one the current one
    #[command(after_help = "Examples:\n  kringlectl context use home")]
    Use {
        /// What it is called
        name: String,
    },
    /// Removes one
    #[command(after_help = "Examples:\n  kringlectl context remove home")]
    Remove {
        /// What it is called
        name: String,
    },
    /// Shows one: the current one unless named
    #[command(after_help = "Examples:\n  kringlectl context show\n  kringlectl context show home -o json")]
    Show {
        /// What it is called
        name: Option<String>,
    },
}

const COLUMNS: &[Column] =
    &[Column("name", Unit::Text), Column("current", Unit::Text), Column("endpoints", Unit::Text)];

fn row(contexts: &Contexts, name: &str, urls: &[PeerUrl]) -> Value {
    let urls: Vec<&str> = urls.iter().map(PeerUrl::url).collect();
    let current = if contexts.current.as_deref() == Some(name) { "yes" } else { "no" };
    json!({ "name": name, "current": current, "endpoints": urls.join(" ") })
}

impl Context {
    /// Reads the file, and changes it.
    pub fn run(&self, form: Form) -> Result<Exit, Failed> {
        let (show, mut contexts) = (Show::new(form), Contexts::load()?);
        match self {
            Context::List => {
                let clusters = contexts.clusters.iter();
                let rows: Vec<Value> = clusters.map(|(name, urls)| row(&contexts, name, urls)).collect();
                show.data(&json!(rows), &Table { columns: COLUMNS, rows: &rows })?;
                return Ok(Exit::Ok);
            }
            Context::Show { name } => {
                let name = name.as_ref().or(contexts.current.as_ref());
                let none = || Failed::usage("no context is current").hint("kringlectl context use NAME");
                let name = name.ok_or_else(none)?;
                let row = row(&contexts, name, contexts.cluster(name)?);
                show.data(&row, &Table { columns: COLUMNS, rows: std::slice::from_ref(&row) })?;
                return Ok(Exit::Ok);
            }
            Context::Add { name, urls, is_current } => {
                contexts.clusters.insert(name.clone(), urls.clone());
                if *is_current || contexts.clusters.len() == 1 {
                    contexts.current = Some(name.clone());
                }
                talk!("{name}: {}", counted(urls.len() as u64, "endpoint"));
            }
            Context::Use { name } => {
                contexts.cluster(name)?;
                contexts.current = Some(name.clone());
                talk!("{name} is the current context");
            }
            Context::Remove { name } => {
                contexts.cluster(name)?;
                contexts.clusters.remove(name);
                if contexts.current.as_ref() == Some(name) {
                    contexts.current = None;
                }
                talk!("{name} is removed");
            }
        }
        contexts.save()?;
        Ok(Exit::Ok)
    }
}
