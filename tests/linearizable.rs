//! Linearizable per key, in the modes that promise it: real nodes, real clients, faults between them, and a checker.

#[path = "linearizable/checker.rs"]
mod checker;
#[path = "linearizable/history.rs"]
mod history;
#[path = "linearizable/meaning.rs"]
mod meaning;
#[path = "linearizable/planted.rs"]
mod planted;
mod support;
#[path = "linearizable/twin.rs"]
mod twin;
