//! Demonstrations that check themselves, by what clients see: `kringle demo --script`.
//!
//! A script computes who owns a key, kills those very processes, and holds every answer to what the mode owes. That a
//! step could not be done at all is a failed check, too.

mod all_modes;
mod checks;
mod dynamo;
mod expectation;
mod failover;
mod stage;

use super::arguments::Script;
use super::cluster::Cluster;
use checks::Checks;
use kringle::placement::Mode;

/// Plays a script. Whether all its checks held.
pub(super) async fn run(script: Script, cluster: &Cluster, mode: Mode) -> bool {
    let mut checks = Checks::new(std::io::stdout());
    let played = match script {
        Script::Failover => failover::play(cluster, mode, &mut checks).await,
        Script::AllModes => all_modes::play(cluster, mode, &mut checks).await,
        Script::Dynamo => dynamo::play(cluster, &mut checks).await,
    };
    if let Err(trouble) = played {
        checks.check("the script goes on to its end", Err(trouble.to_string()));
    }
    checks.verdict()
}
