//! A node that ends when the demo ends that started it, however that one ends.
//!
//! The demo starts `kringle demo-node <its own process id> <flags of a node>`, and the node asks the kernel, before
//! anything else, for a SIGKILL at its parent's death. A pipe whose end means *stop* would not do: a node that is frozen
//! (`pause`) reads none, and it is no graceful stop that matters here, since nodes survive `kill -9` anyway. Two things
//! to know of that signal: it is sent when the *thread* dies that made the process, so the demo starts nodes from its
//! main thread only; and a parent that died before the node could ask sends nothing, so the node looks who its parent is
//! afterwards.

use std::process::ExitCode;

/// What stands in the place of a subcommand.
pub(crate) const WORD: &str = "demo-node";

/// Ties this process to the life of its parent, which has to be the process called `supervisor`. To be called first of
/// all. The error is the exit code, with everything said.
pub(crate) fn tie(supervisor: Option<&str>) -> Result<(), ExitCode> {
    let Some(supervisor) = supervisor.and_then(|word| word.parse::<i32>().ok()) else {
        eprintln!("kringle: {WORD} is how `kringle demo` starts its nodes; start one of your own with `kringle`");
        return Err(ExitCode::from(2));
    };
    if let Err(error) = end_with_parent(supervisor) {
        eprintln!("kringle: this node could not be told to end with its demo: {error}");
        return Err(ExitCode::FAILURE);
    }
    if is_orphan_of(supervisor) {
        eprintln!("kringle: the demo of this node, process {supervisor}, is gone");
        return Err(ExitCode::FAILURE);
    }
    Ok(())
}

fn is_orphan_of(supervisor: i32) -> bool {
    rustix::process::getppid().is_none_or(|parent| parent.as_raw_nonzero().get() != supervisor)
}

#[cfg(target_os = "linux")]
fn end_with_parent(_: i32) -> std::io::Result<()> {
    use rustix::process::{Signal, set_parent_process_death_signal};
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Where there is no such signal somebody has to look. A frozen node does not.
#[cfg(not(target_os = "linux"))]
fn end_with_parent(supervisor: i32) -> std::io::Result<()> {
    let watch = move || {
        while !is_orphan_of(supervisor) {
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        std::process::exit(1);
    };
    std::thread::Builder::new().name("tether".into()).spawn(watch).map(drop)
}
