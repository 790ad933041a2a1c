//! `kringlectl`: a cluster, asked and changed from the terminal. A client of the HTTP API and of nothing else.
//!
//! | file | for |
//! | --- | --- |
//! | `arguments` | what may be typed |
//! | `exit` | what may become of it: messages and exit codes |
//! | `context` | clusters by name, in a file |
//! | `lines` | an answer of many lines, taken apart as it comes |
//! | `session` | what every verb has: the cluster, and a way to show things |
//! | `show` | tables, JSON and CSV |
//! | `survey` | what all nodes say of themselves, asked at the same time |
//! | `terminal` | whether people are there |
//! | `bulk` | exports and imports, backups and restores |
//! | `verbs` | one file for each group of verbs |
//! | `bench` | load, measured and checked |
//!
//! Data goes to standard output, talk to standard error.

// eprintln! panics where nobody reads standard error.
#![warn(clippy::print_stderr)]

// Before the others, which talk.
#[macro_use]
mod terminal;

mod arguments;
mod bench;
mod bulk;
mod context;
mod exit;
mod lines;
mod session;
mod show;
mod survey;
mod verbs;

use arguments::Arguments;
use std::process::ExitCode;

/// As in the node: much of what passes through here is small and short-lived.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = match Arguments::read(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(said) => said.exit(),
    };
    let done = kringle::remote::block_on(verbs::run(arguments));
    match done {
        Ok(exit) => exit.into(),
        Err(failed) => failed.tell(),
    }
}
