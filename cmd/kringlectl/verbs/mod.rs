//! The verbs, and the way from what was typed to one of them.

pub mod batch;
pub mod change;
pub mod context;
pub mod health;
pub mod kv;
pub mod list;
pub mod locate;
pub mod members;
pub mod paper;
pub mod shell;
pub mod sync;
pub mod top;
pub mod watch;

use crate::arguments::{Arguments, Verb};
use crate::exit::{Exit, Failed};
use crate::session::Session;

/// Does what was typed.
pub async fn run(arguments: Arguments) -> Result<Exit, Failed> {
    // These ask nobody.
    match &arguments.verb {
        Verb::Context(verb) => return verb.run(arguments.options.output),
        Verb::Completions(verb) => return verb.run(),
        Verb::Man(verb) => return verb.run(),
        _ => {}
    }
    let mut session = Session::open(&arguments.options).await?;
    match &arguments.verb {
        Verb::Shell(verb) => verb.run(session, arguments.options).await,
        verb => dispatch(verb, &mut session).await,
    }
}

/// Does one verb that asks a cluster.
pub async fn dispatch(verb: &Verb, session: &mut Session) -> Result<Exit, Failed> {
    match verb {
        Verb::Get(verb) => verb.run(session).await,
        Verb::Put(verb) => verb.run(session).await,
        Verb::Del(verb) => verb.run(session).await,
        Verb::Incr(verb) => verb.run(session).await,
        Verb::List(verb) => verb.run(session).await,
        Verb::Watch(verb) => verb.run(session).await,
        Verb::Batch(verb) => verb.run(session).await,
        Verb::Status(verb) => verb.run(session).await,
        Verb::Members(verb) => verb.run(session).await,
        Verb::Ring(verb) => verb.run(session).await,
        Verb::Locate(verb) => verb.run(session).await,
        Verb::Sync(verb) => verb.run(session).await,
        Verb::Mode(verb) => verb.run(session).await,
        Verb::Replicas(verb) => verb.run(session).await,
        Verb::Join(verb) => verb.run(session).await,
        Verb::Leave(verb) => verb.run(session).await,
        Verb::Remove(verb) => verb.run(session).await,
        Verb::Replace(verb) => verb.run(session).await,
        Verb::Drain(verb) => verb.run(session).await,
        Verb::Abandon(verb) => verb.run(session).await,
        Verb::Health(verb) => verb.run(session).await,
        Verb::Bench(verb) => verb.run(session).await,
        Verb::Export(verb) => verb.run(session).await,
        Verb::Import(verb) => verb.run(session).await,
        Verb::Backup(verb) => verb.run(session).await,
        Verb::Restore(verb) => verb.run(session).await,
        Verb::Top(verb) => verb.run(session).await,
        Verb::Context(verb) => verb.run(session.show.form()),
        Verb::Completions(verb) => verb.run(),
        Verb::Man(verb) => verb.run(),
        Verb::Shell(_) => Err(Failed::usage("this is a shell already").hint("exit ends it")),
    }
}
