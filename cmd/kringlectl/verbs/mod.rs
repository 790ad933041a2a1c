//! The verbs, and the way from what was typed to one of them.

pub mod kv;

use crate::arguments::{Arguments, Verb};
use crate::exit::{Exit, Failed};
use crate::session::Session;

/// Does what was typed.
pub async fn run(arguments: Arguments) -> Result<Exit, Failed> {
    let session = Session::new(&arguments.options)?;
    match &arguments.verb {
        Verb::Get(get) => get.run(&session).await,
        Verb::Export(export) => export.run(&session).await,
        Verb::Import(import) => import.run(&session).await,
        Verb::Backup(backup) => backup.run(&session).await,
        Verb::Restore(restore) => restore.run(&session).await,
    }
}
